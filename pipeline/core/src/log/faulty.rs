//! Injects what a network and a cluster do into any [`Log`]: for tests of recovery, and for the simulation.
//! Faults come from a plan (`the third append from now`), from a seed with rates, or from both; with the same seed
//! and the same calls in the same order they are the same. Nothing here decides by a clock.
//!
//! A reader below checks what it reads, so a step back or a skip shows as the [`ReadError`] that such a reader gives.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep, sleep_until};

use crate::log::{Append, AppendError, Appender, Entry, Extent, Log, LogError, Notices, ReadError, Reader};
use crate::scatter::SplitMix;
use crate::topology;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// An append is stored; its fate is unknown after the timeout.
    TimeoutStored,
    /// An append gets lost on its way; its fate is unknown after the timeout.
    TimeoutLost,
    /// An append is stored; its reply is lost, which is noticed at once.
    ReplyLost,
    /// An append is refused, since another one is in process (10164).
    Refused,
    /// A reader delivers no more; it notices after the timeout.
    Stall,
    /// A reader gets a message that it had before.
    Backward,
    /// A reader gets the message after the next one.
    Skip,
    /// A question for the last message, or the extent, is answered from the past.
    Stale,
    /// A question is not answered.
    Unavailable,
}

/// Which calls a fault can strike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Append,
    Read,
    Ask,
}

impl Fault {
    const ALL: [Self; 9] = [
        Self::TimeoutStored,
        Self::TimeoutLost,
        Self::ReplyLost,
        Self::Refused,
        Self::Stall,
        Self::Backward,
        Self::Skip,
        Self::Stale,
        Self::Unavailable,
    ];

    fn strikes(self) -> Call {
        match self {
            Self::TimeoutStored | Self::TimeoutLost | Self::ReplyLost | Self::Refused => Call::Append,
            Self::Stall | Self::Backward | Self::Skip => Call::Read,
            Self::Stale | Self::Unavailable => Call::Ask,
        }
    }
}

/// How often faults strike by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rates {
    /// Of 10,000 appends.
    pub append: u32,
    /// Of 10,000 messages read.
    pub read: u32,
    /// Of 10,000 questions.
    pub ask: u32,
}

/// A log through a bad network. Cheap to clone; all clones share the plan.
#[derive(Clone)]
pub struct Faulty<L> {
    inner: L,
    shared: Arc<Mutex<Plan>>,
    timeout: Duration,
}

struct Plan {
    /// Each fault, and how many of the calls that it can strike it still lets pass.
    planned: Vec<(u64, Fault)>,
    rates: Rates,
    dice: SplitMix,
    struck: u64,
}

impl<L: Log> Faulty<L> {
    /// Nothing goes wrong but what is planned; what times out does so after `timeout`.
    pub fn planned(inner: L, timeout: Duration) -> Self {
        Self::seeded(inner, timeout, 0, Rates { append: 0, read: 0, ask: 0 })
    }

    /// Faults strike at these rates, drawn from the seed.
    pub fn seeded(inner: L, timeout: Duration, seed: u64, rates: Rates) -> Self {
        let plan = Plan { planned: Vec::new(), rates, dice: SplitMix(seed), struck: 0 };
        Self { inner, shared: Arc::new(Mutex::new(plan)), timeout }
    }

    /// Plans a fault: it lets `after` of the calls that it can strike pass, and strikes the next one.
    pub fn plan(&self, after: u64, fault: Fault) {
        self.with(|plan| plan.planned.push((after, fault)));
    }

    /// From now on nothing goes wrong.
    pub fn heal(&self) {
        self.with(|plan| {
            plan.planned.clear();
            plan.rates = Rates { append: 0, read: 0, ask: 0 };
        });
    }

    /// How many faults have struck.
    pub fn struck(&self) -> u64 {
        self.with(|plan| plan.struck)
    }

    /// The log below, without faults.
    pub fn inner(&self) -> &L {
        &self.inner
    }

    fn with<T>(&self, act: impl FnOnce(&mut Plan) -> T) -> T {
        act(&mut self.shared.lock().expect("nobody panics while holding the plan"))
    }

    fn draw(&self, call: Call) -> Option<Fault> {
        self.with(|plan| plan.draw(call))
    }

    /// The fault of a question that may find no answer at all.
    fn answer(&self) -> Result<Option<Fault>, LogError> {
        match self.draw(Call::Ask) {
            Some(Fault::Unavailable) => Err(LogError::Unavailable("an injected fault".into())),
            fault => Ok(fault),
        }
    }
}

impl Plan {
    fn draw(&mut self, call: Call) -> Option<Fault> {
        let mut struck = None;
        self.planned.retain_mut(|(after, fault)| {
            if fault.strikes() != call {
                return true;
            }
            if *after == 0 && struck.is_none() {
                struck = Some(*fault);
                return false;
            }
            *after = after.saturating_sub(1);
            true
        });
        let rate = match call {
            Call::Append => self.rates.append,
            Call::Read => self.rates.read,
            Call::Ask => self.rates.ask,
        };
        if struck.is_none() && rate > 0 && self.dice.below(10_000) < u64::from(rate) {
            let fitting: Vec<Fault> =
                Fault::ALL.into_iter().filter(|fault| fault.strikes() == call).collect();
            let count = u64::try_from(fitting.len()).expect("a handful");
            let place = usize::try_from(self.dice.below(count)).expect("a handful");
            struck = Some(fitting[place]);
        }
        self.struck += u64::from(struck.is_some());
        struck
    }
}

impl<L: Log> Log for Faulty<L> {
    type Reader = FaultyReader<L>;
    type Appender = FaultyAppender<L>;

    async fn extent(&self, stream: &str) -> Result<Extent, LogError> {
        let fault = self.answer()?;
        let mut extent = self.inner.extent(stream).await?;
        if fault == Some(Fault::Stale) && extent.last >= extent.first {
            extent.last -= 1;
        }
        Ok(extent)
    }

    async fn last(&self, stream: &str, filter: &str) -> Result<Option<Entry>, LogError> {
        let fault = self.answer()?;
        let last = self.inner.last(stream, filter).await?;
        let Some(newest) = last.as_ref().filter(|_| fault == Some(Fault::Stale)) else { return Ok(last) };
        // The one before, if it is near; an empty answer is as stale as any other.
        for sequence in (1..newest.sequence).rev().take(64) {
            let earlier = self.inner.get(stream, sequence).await?;
            if let Some(entry) = earlier.filter(|entry| topology::fits(&entry.subject, filter)) {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    async fn get(&self, stream: &str, sequence: u64) -> Result<Option<Entry>, LogError> {
        match self.answer()? {
            Some(Fault::Stale) => Ok(None),
            _ => self.inner.get(stream, sequence).await,
        }
    }

    async fn read(&self, stream: &str, filter: Option<&str>, from: u64) -> Result<Self::Reader, LogError> {
        self.answer()?;
        let inner = self.inner.read(stream, filter, from).await?;
        Ok(FaultyReader { inner, log: self.clone(), expected: from, ended: None })
    }

    async fn appender(&self) -> Result<Self::Appender, LogError> {
        self.answer()?;
        let inner = self.inner.appender().await?;
        Ok(FaultyAppender { inner, log: self.clone(), sends: VecDeque::new() })
    }

    async fn append_atomic(&self, appends: Vec<Append>) -> Result<u64, AppendError> {
        let fault = self.draw(Call::Append);
        match fault {
            Some(Fault::Refused) => return Err(refused()),
            Some(Fault::TimeoutLost) => {}
            Some(_) => {
                self.inner.append_atomic(appends).await?;
            }
            None => return self.inner.append_atomic(appends).await,
        }
        if fault != Some(Fault::ReplyLost) {
            sleep(self.timeout).await;
        }
        Err(unknown())
    }

    async fn trim(&self, stream: &str, filter: Option<&str>, before: u64) -> Result<(), LogError> {
        self.answer()?;
        self.inner.trim(stream, filter, before).await
    }

    async fn notify(&self, subject: &str, payload: Bytes) -> Result<(), LogError> {
        self.answer()?;
        self.inner.notify(subject, payload).await
    }

    async fn listen(&self, subject: &str) -> Result<Notices, LogError> {
        self.answer()?;
        self.inner.listen(subject).await
    }
}

fn refused() -> AppendError {
    AppendError::Fenced("an injected fault: another append is in process (10164)".into())
}

fn unknown() -> AppendError {
    AppendError::Unknown("an injected fault".into())
}

/// Reads through a bad network.
pub struct FaultyReader<L: Log> {
    inner: L::Reader,
    log: Faulty<L>,
    /// What follows the last message.
    expected: u64,
    ended: Option<End>,
}

/// How a reader ended, and from when on it says so.
#[derive(Clone, Copy)]
struct End {
    fault: Fault,
    noticed_at: Instant,
}

impl<L: Log> FaultyReader<L> {
    fn error(&self, fault: Fault) -> ReadError {
        match fault {
            Fault::Backward => {
                ReadError::Gap { got: self.expected.saturating_sub(1), expected: self.expected }
            }
            Fault::Skip => ReadError::Gap { got: self.expected + 1, expected: self.expected },
            _ => ReadError::Lost("an injected fault".into()),
        }
    }

    /// The entry, unless a fault strikes it: then the reader has ended.
    fn pass(&mut self, taken: Result<Entry, ReadError>) -> Option<Result<Entry, ReadError>> {
        let entry = match taken {
            Ok(entry) => entry,
            Err(error) => return Some(Err(error)),
        };
        let Some(fault) = self.log.draw(Call::Read) else {
            self.expected = entry.sequence + 1;
            return Some(Ok(entry));
        };
        let wait = if fault == Fault::Stall { self.log.timeout } else { Duration::ZERO };
        self.ended = Some(End { fault, noticed_at: Instant::now() + wait });
        None
    }
}

impl<L: Log> Reader for FaultyReader<L> {
    async fn next(&mut self) -> Result<Entry, ReadError> {
        loop {
            if let Some(end) = self.ended {
                sleep_until(end.noticed_at).await;
                return Err(self.error(end.fault));
            }
            let taken = self.inner.next().await;
            if let Some(passed) = self.pass(taken) {
                return passed;
            }
        }
    }

    fn ready(&mut self) -> Option<Result<Entry, ReadError>> {
        if self.ended.is_some() {
            return None;
        }
        let taken = self.inner.ready()?;
        self.pass(taken)
    }
}

/// Appends through a bad network.
pub struct FaultyAppender<L: Log> {
    inner: L::Appender,
    log: Faulty<L>,
    sends: VecDeque<Sent>,
}

/// What became of a send.
#[derive(Clone, Copy)]
enum Sent {
    /// It is below.
    Passed,
    /// It is below, and what is heard of it will not be told before this instant.
    Hidden(Instant),
    /// Nothing will be heard of it; this is noticed at that instant.
    Unheard(Instant),
    /// It was refused.
    Refused,
}

impl<L: Log> Appender for FaultyAppender<L> {
    async fn send(&mut self, append: Append) -> Result<(), LogError> {
        let late = Instant::now() + self.log.timeout;
        let sent = match self.log.draw(Call::Append) {
            Some(Fault::TimeoutLost) => Sent::Unheard(late),
            Some(Fault::TimeoutStored) => Sent::Hidden(late),
            Some(Fault::ReplyLost) => Sent::Hidden(Instant::now()),
            Some(Fault::Refused) => Sent::Refused,
            _ => Sent::Passed,
        };
        if matches!(sent, Sent::Passed | Sent::Hidden(_)) {
            self.inner.send(append).await?;
        }
        self.sends.push_back(sent);
        Ok(())
    }

    async fn acknowledged(&mut self) -> Result<u64, AppendError> {
        loop {
            let Some(oldest) = self.sends.front_mut() else { return std::future::pending().await };
            let fate = match *oldest {
                Sent::Passed => self.inner.acknowledged().await,
                Sent::Hidden(until) => {
                    // A refusal from below stands: the fault hides only that something was stored.
                    match self.inner.acknowledged().await {
                        Ok(_) | Err(AppendError::Unknown(_) | AppendError::Silent(_)) => {
                            *oldest = Sent::Unheard(until);
                            continue;
                        }
                        Err(error) => Err(error),
                    }
                }
                Sent::Unheard(until) => {
                    sleep_until(until).await;
                    Err(unknown())
                }
                Sent::Refused => Err(refused()),
            };
            self.sends.pop_front();
            return fate;
        }
    }

    fn in_flight(&self) -> usize {
        self.sends.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_planned_fault_strikes_the_call_that_it_names() {
        let mut plan = Plan {
            planned: vec![(1, Fault::Skip), (0, Fault::Refused), (0, Fault::ReplyLost)],
            rates: Rates { append: 0, read: 0, ask: 0 },
            dice: SplitMix(0),
            struck: 0,
        };
        let calls = [Call::Read, Call::Read, Call::Read, Call::Append, Call::Append, Call::Append];
        let drawn = calls.map(|call| plan.draw(call));
        let expect = [None, Some(Fault::Skip), None, Some(Fault::Refused), Some(Fault::ReplyLost), None];
        assert_eq!(drawn, expect);
        assert_eq!(plan.struck, 3);
    }

    #[test]
    fn rates_strike_about_as_often_as_they_say() {
        let rates = Rates { append: 1_000, read: 0, ask: 10_000 };
        let mut plan = Plan { planned: Vec::new(), rates, dice: SplitMix(7), struck: 0 };
        let appends = (0..10_000).filter(|_| plan.draw(Call::Append).is_some()).count();
        assert!((800..1_200).contains(&appends), "{appends}");
        assert!((0..100).all(|_| plan.draw(Call::Read).is_none() && plan.draw(Call::Ask).is_some()));
    }
}
