//! A reader over a link: late, silent or broken as the weather has it. What it gives is always what is stored.

use std::future::pending;
use std::time::Duration;

use jackpot_core::log::memory::MemoryReader;
use jackpot_core::log::{Entry, ReadError, Reader};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::State;
use super::link::{Link, breathe};

/// Reads a stream over a link.
pub struct LinkReader {
    link: Link,
    inner: MemoryReader,
    connection: watch::Receiver<u64>,
    /// What follows the last message.
    expected: u64,
    /// A message on its way, and when it arrives.
    coming: Option<(Instant, Entry)>,
    end: Option<End>,
}

#[derive(Clone, Copy)]
enum End {
    Lost,
    Back,
    Skip,
    /// Nothing comes any more, and nobody says so.
    Silent,
}

impl LinkReader {
    pub(super) fn new(link: Link, inner: MemoryReader, connection: watch::Receiver<u64>, from: u64) -> Self {
        Self { link, inner, connection, expected: from, coming: None, end: None }
    }

    /// Puts a stored message on its way, or ends.
    fn send(&mut self, entry: Entry) {
        let mut state = self.link.network.state();
        let State { dice, weather, .. } = &mut *state;
        let ends = [
            (weather.readers_lost, End::Lost),
            (weather.readers_skip / 2, End::Back),
            (weather.readers_skip / 2, End::Skip),
            (weather.readers_silent, End::Silent),
        ];
        self.end = ends.into_iter().find(|(rate, _)| dice.strikes(*rate)).map(|(_, end)| end);
        let late = if dice.strikes(weather.readers_late) { dice.between(500, 6_000) } else { 0 };
        let at = Instant::now() + weather.wait(dice) + Duration::from_millis(late);
        self.coming = Some((at, entry));
    }

    fn take(&mut self) -> Option<Entry> {
        let (_, entry) = self.coming.take_if(|(at, _)| *at <= Instant::now())?;
        self.expected = entry.sequence + 1;
        Some(entry)
    }

    fn broken(&self) -> bool {
        self.connection.has_changed().unwrap_or(true)
    }
}

impl Reader for LinkReader {
    async fn next(&mut self) -> Result<Entry, ReadError> {
        loop {
            if self.broken() {
                return Err(ReadError::Lost("the connection was lost".into()));
            }
            let expected = self.expected;
            match self.end {
                None => {}
                Some(End::Lost) => return Err(ReadError::Lost("the consumer is gone".into())),
                Some(End::Back) => return Err(ReadError::Gap { got: expected.saturating_sub(1), expected }),
                Some(End::Skip) => return Err(ReadError::Gap { got: expected + 1, expected }),
                Some(End::Silent) => {
                    tokio::select! {
                        biased;
                        _ = self.connection.changed() => return Err(ReadError::Lost("the connection was lost".into())),
                        () = pending() => {}
                    }
                }
            }
            if let Some(entry) = self.take() {
                return Ok(entry);
            }
            if let Some((at, _)) = self.coming {
                tokio::select! {
                    biased;
                    _ = self.connection.changed() => return Err(ReadError::Lost("the connection was lost".into())),
                    () = sleep_until(at) => continue,
                }
            }
            let entry = tokio::select! {
                biased;
                _ = self.connection.changed() => return Err(ReadError::Lost("the connection was lost".into())),
                entry = self.inner.next() => entry?,
            };
            self.send(entry);
            breathe().await;
        }
    }

    fn ready(&mut self) -> Option<Result<Entry, ReadError>> {
        if self.end.is_some() || self.broken() {
            return None;
        }
        if self.coming.is_none() {
            match self.inner.ready()? {
                Ok(entry) => self.send(entry),
                Err(error) => return Some(Err(error)),
            }
        }
        if self.end.is_some() { None } else { self.take().map(Ok) }
    }
}
