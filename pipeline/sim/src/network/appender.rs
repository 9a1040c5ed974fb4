//! An appender over a link. What is sent arrives in the order of the sends, or not at all, whether or not the sender
//! is still there; what is heard of it comes late, or never, and then its fate is unknown.

use std::collections::VecDeque;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jackpot_core::log::{Append, AppendError, Appender, LogError};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};

use super::link::{ANSWER_MAX, Link, breathe};

/// What is known of an appender's sends.
#[derive(Default)]
pub(super) struct Sends {
    known: Mutex<Known>,
    heard: Notify,
}

#[derive(Default)]
struct Known {
    /// The number of the oldest send whose fate was not given to the caller.
    oldest: u64,
    sends: VecDeque<Waiting>,
}

struct Waiting {
    until: Instant,
    fate: Option<Result<u64, AppendError>>,
}

impl Sends {
    /// Something is heard of a send. What was given up is of no interest any more.
    pub(super) fn settle(&self, number: u64, fate: Result<u64, AppendError>) {
        let mut known = self.known();
        let place = number.checked_sub(known.oldest).and_then(|place| usize::try_from(place).ok());
        if let Some(send) = place.and_then(|place| known.sends.get_mut(place)) {
            send.fate.get_or_insert(fate);
        }
        drop(known);
        self.heard.notify_one();
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Appends over a link.
pub struct LinkAppender {
    link: Link,
    connection: watch::Receiver<u64>,
    sends: Arc<Sends>,
    next: u64,
    /// When the last message that was sent arrives.
    arrives: Instant,
}

impl LinkAppender {
    pub(super) fn open(link: &Link) -> Option<Self> {
        let connection = link.connection()?;
        let (sends, arrives) = (Arc::default(), Instant::now());
        Some(Self { link: link.clone(), connection, sends, next: 0, arrives })
    }

    /// Puts appends on their way; they share one fate.
    pub(super) fn post(&mut self, appends: Vec<Append>) {
        self.sends.known().sends.push_back(Waiting { until: Instant::now() + ANSWER_MAX, fate: None });
        self.arrives = self.link.post(appends, &self.sends, self.next, self.arrives);
        self.next += 1;
    }

    /// The fate of the oldest send.
    pub(super) async fn answered(&mut self) -> Result<u64, AppendError> {
        loop {
            let until = {
                let mut known = self.sends.known();
                let Some(oldest) = known.sends.front_mut() else { break };
                let lost = if self.connection.has_changed().unwrap_or(true) {
                    Some("the connection was lost")
                } else if oldest.until <= Instant::now() {
                    Some("nothing heard")
                } else {
                    None
                };
                let fate = oldest.fate.take().or(lost.map(|what| Err(AppendError::Unknown(what.into()))));
                if let Some(fate) = fate {
                    known.sends.pop_front();
                    known.oldest += 1;
                    return fate;
                }
                oldest.until
            };
            tokio::select! {
                biased;
                () = self.sends.heard.notified() => {}
                _ = self.connection.changed() => self.connection.mark_changed(),
                () = sleep_until(until) => {}
            }
        }
        pending().await
    }
}

impl Appender for LinkAppender {
    async fn send(&mut self, append: Append) -> Result<(), LogError> {
        breathe().await;
        if self.connection.has_changed().unwrap_or(true) {
            return Err(LogError::Unavailable("the connection was lost".into()));
        }
        self.post(vec![append]);
        breathe().await;
        Ok(())
    }

    async fn acknowledged(&mut self) -> Result<u64, AppendError> {
        self.answered().await
    }

    fn in_flight(&self) -> usize {
        self.sends.known().sends.len()
    }
}
