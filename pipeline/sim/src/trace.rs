//! What happened, in order: a fingerprint of every step, by which two runs of a seed are compared, and lines for people
//! where they are asked for. Everything that decides or is decided leaves its mark here.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

/// The trace of one run. Cheap to clone.
#[derive(Clone)]
pub struct Trace {
    shared: Arc<Shared>,
}

struct Shared {
    start: Instant,
    aloud: bool,
    fingerprint: Mutex<u64>,
}

impl Trace {
    /// An empty trace, from now on; `aloud` prints it as it goes.
    pub fn new(aloud: bool) -> Self {
        let shared = Shared { start: Instant::now(), aloud, fingerprint: Mutex::new(0xcbf2_9ce4_8422_2325) };
        Self { shared: Arc::new(shared) }
    }

    /// Milliseconds of simulated time.
    pub fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.shared.start.elapsed().as_millis()).expect("a run lasts minutes")
    }

    /// A step, as a kind and a number.
    pub fn mark(&self, kind: u8, number: u64) {
        let words = [u64::from(kind), number, self.elapsed_ms()];
        let mut fingerprint = self.shared.fingerprint.lock().unwrap_or_else(PoisonError::into_inner);
        for word in words {
            *fingerprint = (*fingerprint ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
        }
    }

    /// An event that people want to read.
    pub fn say(&self, what: fmt::Arguments<'_>) {
        if self.shared.aloud {
            let ms = self.elapsed_ms();
            println!("{:>6}.{:03}  {what}", ms / 1_000, ms % 1_000);
        }
    }

    /// The fingerprint of all steps so far.
    pub fn fingerprint(&self) -> u64 {
        *self.shared.fingerprint.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
