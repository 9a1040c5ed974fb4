//! A container's probes, asked as a kubelet asks them: first the one for its start, then those for life and readiness.
//! One thread per process, which ends with it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::manifests::{at, text};

/// How often the thread looks whether a probe is due.
const LOOK: Duration = Duration::from_millis(20);

/// What is known of a process by its probes.
pub struct Probes {
    known: Arc<Known>,
}

#[derive(Default)]
struct Known {
    ready: AtomicBool,
    dead: AtomicBool,
    over: AtomicBool,
}

/// A probe, and how often in a row it has failed.
struct Probe {
    path: String,
    period: Duration,
    timeout: Duration,
    failures_max: u64,
    failures: u64,
    due: Instant,
}

impl Probes {
    /// Begins to ask; a container without probes is ready at once, and never dead.
    pub fn start(container: &Value, port: u16) -> Self {
        let known = Arc::new(Known::default());
        let [startup, liveness, readiness] =
            ["startupProbe", "livenessProbe", "readinessProbe"].map(|kind| Probe::read(&container[kind]));
        known.ready.store(readiness.is_none(), Ordering::Relaxed);
        let shared = Arc::clone(&known);
        std::thread::spawn(move || ask(&shared, port, startup, liveness, readiness));
        Self { known }
    }

    /// Whether it was ready once, and has not said otherwise several times in a row since.
    pub fn is_ready(&self) -> bool {
        self.known.ready.load(Ordering::Relaxed)
    }

    /// Whether it did not start in time, or does not live any more.
    pub fn is_dead(&self) -> bool {
        self.known.dead.load(Ordering::Relaxed)
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.known.over.store(true, Ordering::Relaxed);
    }
}

fn ask(
    known: &Known,
    port: u16,
    mut startup: Option<Probe>,
    mut liveness: Option<Probe>,
    mut readiness: Option<Probe>,
) {
    while !known.over.load(Ordering::Relaxed) {
        if let Some(probe) = &mut startup {
            match probe.ask_when_due(port) {
                Some(true) => startup = None,
                Some(false) if probe.failures >= probe.failures_max => {
                    known.dead.store(true, Ordering::Relaxed)
                }
                _ => {}
            }
        } else {
            if let Some(probe) = &mut readiness
                && let Some(ready) = probe.ask_when_due(port)
                && (ready || probe.failures >= probe.failures_max)
            {
                known.ready.store(ready, Ordering::Relaxed);
            }
            if let Some(probe) = &mut liveness
                && probe.ask_when_due(port) == Some(false)
                && probe.failures >= probe.failures_max
            {
                known.dead.store(true, Ordering::Relaxed);
            }
        }
        std::thread::sleep(LOOK);
    }
}

impl Probe {
    fn read(probe: &Value) -> Option<Self> {
        let number = |field: &str, default| probe[field].as_u64().unwrap_or(default);
        let path = at(probe, "httpGet").is_object().then(|| text(probe, "httpGet/path").to_owned())?;
        Some(Self {
            path,
            period: Duration::from_secs(number("periodSeconds", 10)),
            timeout: Duration::from_secs(number("timeoutSeconds", 1)),
            failures_max: number("failureThreshold", 3),
            failures: 0,
            due: Instant::now(),
        })
    }

    /// Asks when it is time to, and tells the answer.
    fn ask_when_due(&mut self, port: u16) -> Option<bool> {
        if Instant::now() < self.due {
            return None;
        }
        self.due = Instant::now() + self.period;
        let good = status(port, &self.path, self.timeout).is_some_and(|status| (200..400).contains(&status));
        self.failures = if good { 0 } else { self.failures + 1 };
        Some(good)
    }
}

/// The status of an answer, where there is one in time.
pub fn status(port: u16, path: &str, within: Duration) -> Option<u16> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), within).ok()?;
    stream.set_read_timeout(Some(within)).ok()?;
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n").as_bytes())
        .ok()?;
    let mut head = [0; 12];
    stream.read_exact(&mut head).ok()?;
    std::str::from_utf8(&head).ok()?.rsplit(' ').next()?.parse().ok()
}
