//! Publishes batches with many in flight, and outlasts a server that is away or full.
//! `publish`, `load` and the demo use it. It never drops a batch and never names a message id: after trouble
//! it sends all that was not acknowledged again, in order, which is always safe. How long an answer may take is
//! the log's matter: none of its calls waits for ever.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use jackpot_core::log::{Append, AppendError, Appender, Expect, Log, LogError};
use jackpot_core::topology;
use tokio::time::{Instant, sleep};

/// Batches in flight at most: the server is not faster with more (nats-facts).
const IN_FLIGHT_MAX: usize = 4_096;
/// Their bytes at most: a slow disk must be able to take them well before an acknowledgement counts as lost.
const BYTES_IN_FLIGHT_MAX: usize = 8 * 1024 * 1024;
/// The first pause after trouble, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// A batch on its way. `P` says where it came from.
#[derive(Debug)]
pub struct Letter<P> {
    /// Where it came from.
    pub place: P,
    /// Where it goes.
    pub subject: String,
    /// Headers: its signature, where it has one.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub payload: Bytes,
}

/// A batch that the server will never take.
#[derive(Debug)]
pub struct Rejection<P> {
    /// Where it came from.
    pub place: P,
    /// Why.
    pub why: String,
}

/// Why publishing was given up.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The server was away, or full, for too long.
    #[error(
        "{why}, for longer than {}; {unacknowledged} from {first} on were not acknowledged: mend the server and run the same command again",
        crate::duration::show(*.patience)
    )]
    Stalled {
        /// What the last try said.
        why: String,
        /// For how long it was tried.
        patience: Duration,
        /// How many are on their way.
        unacknowledged: String,
        /// The first of them.
        first: String,
    },
    /// There is nothing to publish to.
    #[error(transparent)]
    Log(LogError),
}

/// Publishes letters in order.
#[derive(Debug)]
pub struct Publisher<L: Log, P> {
    log: L,
    patience: Duration,
    appender: Option<L::Appender>,
    /// What is not acknowledged, the oldest first.
    letters: VecDeque<Letter<P>>,
    /// Its bytes.
    bytes: usize,
    /// How many of it the present appender has sent.
    sent: usize,
    /// Since when nothing has been acknowledged, and how long to pause next.
    trouble: Option<(Instant, Duration)>,
    /// How many were acknowledged.
    pub acknowledged: u64,
    /// What the server will never take.
    pub rejected: Vec<Rejection<P>>,
}

impl<L: Log, P: fmt::Display> Publisher<L, P> {
    /// Publishes to `log`; gives up when nothing is acknowledged for as long as `patience`.
    pub fn new(log: L, patience: Duration) -> Self {
        let letters = VecDeque::new();
        Self {
            log,
            patience,
            appender: None,
            letters,
            bytes: 0,
            sent: 0,
            trouble: None,
            acknowledged: 0,
            rejected: Vec::new(),
        }
    }

    /// Takes a letter, and waits for room first.
    pub async fn publish(&mut self, letter: Letter<P>) -> Result<(), PublishError> {
        while !self.letters.is_empty()
            && (self.letters.len() >= IN_FLIGHT_MAX
                || self.bytes + letter.payload.len() > BYTES_IN_FLIGHT_MAX)
        {
            self.advance().await?;
        }
        self.bytes += letter.payload.len();
        self.letters.push_back(letter);
        self.send().await?;
        self.collect().await
    }

    /// Waits until all is acknowledged or rejected.
    pub async fn finish(&mut self) -> Result<(), PublishError> {
        while !self.letters.is_empty() {
            self.advance().await?;
        }
        Ok(())
    }

    /// Sends what waits, and learns the fate of the oldest.
    async fn advance(&mut self) -> Result<(), PublishError> {
        self.send().await?;
        if self.sent == 0 {
            return Ok(());
        }
        let Some(appender) = &mut self.appender else { return Ok(()) };
        let fate = appender.acknowledged().await;
        self.settle(fate).await
    }

    /// Learns what has come back already.
    async fn collect(&mut self) -> Result<(), PublishError> {
        while self.sent > 0
            && let Some(appender) = &mut self.appender
            && let Some(fate) = appender.acknowledged().now_or_never()
        {
            self.settle(fate).await?;
        }
        Ok(())
    }

    /// Sends what was not sent; after trouble the oldest alone, until it is acknowledged.
    async fn send(&mut self) -> Result<(), PublishError> {
        if self.appender.is_none() {
            match self.log.extent(topology::WAGERS).await {
                Err(LogError::Unavailable(why)) => return self.stumble(why.to_string()).await,
                known => known.map_err(PublishError::Log)?,
            };
            match self.log.appender().await {
                Ok(appender) => self.appender = Some(appender),
                Err(error @ LogError::Unavailable(_)) => return self.stumble(error.to_string()).await,
                Err(error) => return Err(PublishError::Log(error)),
            }
        }
        while let Some(letter) = self.letters.get(self.sent)
            && let Some(appender) = &mut self.appender
            && (self.trouble.is_none() || self.sent == 0)
        {
            let append = Append {
                subject: letter.subject.clone(),
                headers: letter.headers.clone(),
                payload: letter.payload.clone(),
                expect: Expect::Any,
            };
            match appender.send(append).await {
                Ok(()) => self.sent += 1,
                Err(error @ LogError::Unavailable(_)) => return self.stumble(error.to_string()).await,
                Err(error) => return Err(PublishError::Log(error)),
            }
        }
        Ok(())
    }

    async fn settle(&mut self, fate: Result<u64, AppendError>) -> Result<(), PublishError> {
        match fate {
            Ok(_) => {
                self.take_oldest();
                self.acknowledged += 1;
                self.trouble = None;
                Ok(())
            }
            Err(AppendError::Rejected(why)) => {
                // A server that has just started may know the stream only in a moment.
                match self.log.extent(topology::WAGERS).await {
                    Ok(_) => {
                        if let Some(letter) = self.take_oldest() {
                            self.rejected.push(Rejection { place: letter.place, why: why.into() });
                        }
                        Ok(())
                    }
                    Err(LogError::Unavailable(_)) => self.stumble(why.into()).await,
                    Err(error) => Err(PublishError::Log(error)),
                }
            }
            Err(error) => self.stumble(error.to_string()).await,
        }
    }

    fn take_oldest(&mut self) -> Option<Letter<P>> {
        let letter = self.letters.pop_front()?;
        self.bytes -= letter.payload.len();
        self.sent -= 1;
        Some(letter)
    }

    /// Something went wrong: forget what is in flight, pause, and have it all sent again.
    async fn stumble(&mut self, why: String) -> Result<(), PublishError> {
        self.appender = None;
        self.sent = 0;
        let (since, pause) = *self.trouble.get_or_insert_with(|| {
            eprintln!("jackpot: {why}; trying again for {}", crate::duration::show(self.patience));
            (Instant::now(), PAUSE.0)
        });
        let left = self.patience.saturating_sub(since.elapsed());
        if left.is_zero() {
            let count = u64::try_from(self.letters.len()).unwrap_or(u64::MAX);
            return Err(PublishError::Stalled {
                why,
                patience: self.patience,
                unacknowledged: crate::progress::counted(count, "batch", "batches"),
                first: self.letters.front().map_or(String::new(), |letter| letter.place.to_string()),
            });
        }
        sleep(pause.min(left)).await;
        self.trouble = Some((since, (pause * 2).min(PAUSE.1)));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jackpot_core::log::Reader;
    use jackpot_core::log::faulty::{Fault, Faulty};
    use jackpot_core::log::jetstream::setup::{SetUp, streams};
    use jackpot_core::log::memory::Memory;
    use jackpot_core::time::Millis;

    use super::*;

    fn memory() -> Memory {
        Memory::new(streams(&SetUp::new(2)), || Millis(0))
    }

    fn letter(number: u64) -> Letter<u64> {
        let subject =
            topology::wagers("acme", ["eu1", "eu2", "eu3"][usize::try_from(number % 3).expect("small")]);
        Letter { place: number, subject, headers: Vec::new(), payload: Bytes::from(number.to_string()) }
    }

    /// What is stored, by source, in order, each batch where it was stored first.
    async fn stored(memory: &Memory) -> BTreeMap<String, Vec<u64>> {
        let mut sources: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        let last = memory.extent(topology::WAGERS).await.expect("the stream").last;
        let mut reader = memory.read(topology::WAGERS, None, 1).await.expect("a reader");
        for _ in 0..last {
            let entry = reader.next().await.expect("an entry");
            let number = std::str::from_utf8(&entry.payload).expect("text").parse().expect("a number");
            let source = entry.subject.rsplit('.').next().expect("a source").to_owned();
            let numbers = sources.entry(source).or_default();
            if !numbers.contains(&number) {
                numbers.push(number);
            }
        }
        sources
    }

    async fn check(faults: &[(u64, Fault)]) {
        let memory = memory();
        let log = Faulty::planned(memory.clone(), Duration::from_millis(5));
        for &(after, fault) in faults {
            log.plan(after, fault);
        }
        let mut publisher = Publisher::new(log, Duration::from_secs(20));
        for number in 0..300 {
            publisher.publish(letter(number)).await.expect("it is published in the end");
        }
        publisher.finish().await.expect("all is acknowledged in the end");
        assert_eq!((publisher.acknowledged, publisher.rejected.len()), (300, 0), "{faults:?}");
        let sources = stored(&memory).await;
        assert_eq!(sources.len(), 3);
        for (source, numbers) in sources {
            assert_eq!(numbers.len(), 100, "{source}: nothing is lost under {faults:?}");
            assert!(numbers.is_sorted(), "{source}: the order is kept under {faults:?}");
        }
    }

    #[tokio::test]
    async fn batches_are_stored_in_order() {
        check(&[]).await;
    }

    #[tokio::test]
    async fn what_was_not_acknowledged_is_sent_again() {
        check(&[(0, Fault::ReplyLost), (200, Fault::ReplyLost)]).await;
        check(&[(1, Fault::TimeoutStored), (299, Fault::TimeoutStored)]).await;
        check(&[(0, Fault::Unavailable), (0, Fault::Unavailable), (40, Fault::Refused)]).await;
    }

    #[tokio::test]
    async fn a_batch_that_is_too_large_is_named_and_the_others_are_published() {
        let mut publisher = Publisher::new(memory(), Duration::from_secs(5));
        for number in 0..3 {
            let mut letter = letter(number);
            if number == 1 {
                letter.payload = Bytes::from(vec![b' '; 2 * 1024 * 1024]);
            }
            publisher.publish(letter).await.expect("it is taken");
        }
        publisher.finish().await.expect("the others are acknowledged");
        assert_eq!(publisher.acknowledged, 2);
        assert_eq!(publisher.rejected.iter().map(|rejection| rejection.place).collect::<Vec<_>>(), [1]);
    }

    #[tokio::test]
    async fn a_full_stream_is_waited_for_and_a_missing_one_is_not() {
        let mut small = streams(&SetUp::new(2));
        for stream in &mut small {
            stream.max_bytes = 100;
        }
        let memory = Memory::new(small, || Millis(0));
        let mut publisher = Publisher::new(memory.clone(), Duration::from_millis(200));
        let mut said = None;
        for number in 0..20 {
            if let Err(error) = publisher.publish(letter(number)).await {
                said = Some(error);
                break;
            }
        }
        let error = match said {
            Some(error) => error,
            None => publisher.finish().await.expect_err("nobody makes room"),
        };
        assert!(matches!(&error, PublishError::Stalled { why, .. } if why.contains("full")), "{error}");
        for stream in streams(&SetUp::new(2)) {
            memory.create(stream);
        }
        publisher.patience = Duration::from_secs(5);
        publisher.finish().await.expect("there is room now");

        let none = Memory::new([], || Millis(0));
        let mut publisher = Publisher::new(none, Duration::from_secs(60));
        let error = publisher.publish(letter(0)).await.expect_err("there is no stream");
        assert!(error.to_string().contains("jackpot init"), "{error}");
    }
}
