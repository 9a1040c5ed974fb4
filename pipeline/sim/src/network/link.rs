//! A process's connection to the broker: the log port, as its stage sees it. A call travels to the broker, has its
//! effect there, and its answer travels back; on both ways it can be lost, and the process can end.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use jackpot_core::limits;
use jackpot_core::log::{Append, AppendError, Entry, Extent, Log, LogError, Notices};
use jackpot_core::time::Millis;
use jackpot_core::topology;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};

use super::appender::{LinkAppender, Sends};
use super::reader::LinkReader;
use super::{Listener, Network, Parcel, Sent, State};

/// How long an answer is waited for.
pub const ANSWER_MAX: Duration = Duration::from_secs(5);
/// How long it takes to see that there is no connection.
const NO_CONNECTION: Duration = Duration::from_millis(100);
/// At least so long lies between two answers from the past that a process gets: a leader that was deposed learns of it.
const STALE_APART: Duration = Duration::from_secs(30);

/// A process's connection. Cheap to clone.
#[derive(Clone)]
pub struct Link {
    pub(super) network: Arc<Network>,
    pub(super) host: u64,
}

/// Lets others go first.
pub async fn breathe() {
    let mut breathed = false;
    poll_fn(|context| {
        if std::mem::replace(&mut breathed, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// One way of a message: others go first, and time may pass.
async fn pass(wait: Duration) {
    breathe().await;
    if !wait.is_zero() {
        sleep(wait).await;
    }
}

/// What becomes of a call on its way to the broker.
enum Trip {
    Arrives { there: Duration, back: Duration, lost: bool, stale: bool },
    Lost,
    NoConnection,
}

impl Link {
    pub(super) fn new(network: Arc<Network>, host: u64) -> Self {
        Self { network, host }
    }

    /// The present, by the broker's clock.
    pub fn now(&self) -> Millis {
        self.network.now()
    }

    /// The count of this process's connections, as it changes; `None` once it has left.
    pub(super) fn connection(&self) -> Option<watch::Receiver<u64>> {
        let state = self.network.state();
        state.hosts.get(&self.host).map(|host| {
            let mut connection = host.connection.subscribe();
            connection.mark_unchanged();
            connection
        })
    }

    fn draw(&self) -> Trip {
        let mut state = self.network.state();
        let State { dice, weather, hosts, .. } = &mut *state;
        let Some(host) = hosts.get_mut(&self.host) else { return Trip::NoConnection };
        if host.down_until.is_some_and(|until| Instant::now() < until) {
            return Trip::NoConnection;
        }
        if dice.strikes(weather.cuts) {
            let down = Duration::from_millis(dice.between(1, 4_000));
            drop(state);
            self.network.cut(self.host, down);
            return Trip::NoConnection;
        }
        if dice.strikes(weather.requests_lost) {
            return Trip::Lost;
        }
        let stale = Instant::now() >= host.stale_from && dice.strikes(weather.stale);
        if stale {
            host.stale_from = Instant::now() + STALE_APART;
        }
        let (there, back) = (weather.wait(dice), weather.wait(dice));
        Trip::Arrives { there, back, lost: dice.strikes(weather.answers_lost), stale }
    }

    /// Asks the broker; tells it whether to answer from the past.
    async fn ask<T, F>(&self, question: impl FnOnce(bool) -> F + Send) -> Result<T, LogError>
    where
        F: Future<Output = Result<T, LogError>> + Send,
        T: Send,
    {
        let Some(connection) = self.connection() else { return Err(unavailable("this process has left")) };
        match self.draw() {
            Trip::NoConnection => {
                pass(NO_CONNECTION).await;
                Err(unavailable("there is no connection"))
            }
            Trip::Lost => {
                pass(ANSWER_MAX).await;
                Err(unavailable("nothing heard"))
            }
            Trip::Arrives { there, back, lost, stale } => {
                pass(there).await;
                let answer = question(stale).await;
                pass(if lost { ANSWER_MAX } else { back }).await;
                if lost || connection.has_changed().unwrap_or(true) {
                    return Err(unavailable("the answer was lost"));
                }
                answer
            }
        }
    }

    /// Puts appends on their way; `after` is when the ones before them arrive.
    pub(super) fn post(
        &self,
        appends: Vec<Append>,
        sends: &Arc<Sends>,
        number: u64,
        after: Instant,
    ) -> Instant {
        let mut state = self.network.state();
        let State { dice, weather, hosts, .. } = &mut *state;
        let (now, host) = (Instant::now(), self.host);
        let down = hosts.get(&host).map(|host| host.down_until.filter(|until| now < *until));
        let wait = weather.wait(dice);
        let lost = dice.strikes(weather.requests_lost);
        let at = match down {
            // A client keeps what is sent while there is no connection, for a while.
            Some(Some(until)) if dice.below(4) == 0 => until + wait,
            Some(None) if !lost => now + wait,
            _ => return after,
        };
        let at = at.max(after);
        let sent = Some(Sent { sends: sends.clone(), number });
        state.post(at, Parcel::Append { host, appends, sent });
        drop(state);
        self.network.posted.notify_one();
        at
    }
}

fn unavailable(why: &'static str) -> LogError {
    LogError::Unavailable(why.into())
}

impl Log for Link {
    type Reader = LinkReader;
    type Appender = LinkAppender;

    async fn extent(&self, stream: &str) -> Result<Extent, LogError> {
        self.ask(async |stale| {
            let mut extent = self.network.broker.extent(stream).await?;
            if stale && extent.last >= extent.first {
                extent.last -= 1;
            }
            Ok(extent)
        })
        .await
    }

    async fn last(&self, stream: &str, filter: &str) -> Result<Option<Entry>, LogError> {
        self.ask(async |stale| {
            let broker = &self.network.broker;
            let last = broker.last(stream, filter).await?;
            // What the last total of a level is, the view of totals must be told: no fence holds that alone.
            let stale = stale && stream != topology::TOTALS;
            let Some(newest) = last.as_ref().filter(|_| stale) else { return Ok(last) };
            for sequence in (1..newest.sequence).rev().take(64) {
                let earlier = broker.get(stream, sequence).await?;
                if let Some(entry) = earlier.filter(|entry| topology::fits(&entry.subject, filter)) {
                    return Ok(Some(entry));
                }
            }
            Ok(None)
        })
        .await
    }

    async fn get(&self, stream: &str, sequence: u64) -> Result<Option<Entry>, LogError> {
        self.ask(async |stale| if stale { Ok(None) } else { self.network.broker.get(stream, sequence).await })
            .await
    }

    async fn read(&self, stream: &str, filter: Option<&str>, from: u64) -> Result<LinkReader, LogError> {
        let inner = self.ask(async |_| self.network.broker.read(stream, filter, from).await).await?;
        let connection = self.connection().ok_or_else(|| unavailable("this process has left"))?;
        Ok(LinkReader::new(self.clone(), inner, connection, from))
    }

    async fn appender(&self) -> Result<LinkAppender, LogError> {
        self.ask(async |_| Ok(())).await?;
        LinkAppender::open(self).ok_or_else(|| unavailable("this process has left"))
    }

    async fn append_atomic(&self, appends: Vec<Append>) -> Result<u64, AppendError> {
        let Some(mut appender) = LinkAppender::open(self) else {
            return Err(AppendError::Unknown("this process has left".into()));
        };
        breathe().await;
        appender.post(appends);
        appender.answered().await
    }

    async fn trim(&self, stream: &str, filter: Option<&str>, before: u64) -> Result<(), LogError> {
        self.ask(async |_| self.network.trim(stream, filter, before).await).await
    }

    async fn notify(&self, subject: &str, payload: Bytes) -> Result<(), LogError> {
        self.ask(async |_| {
            self.network.state().notify(subject, &payload);
            self.network.posted.notify_one();
            Ok(())
        })
        .await
    }

    async fn listen(&self, subject: &str) -> Result<Notices, LogError> {
        self.ask(async |_| {
            let (sender, notices) = mpsc::channel(limits::NOTICES_MAX);
            let mut state = self.network.state();
            state.serial += 1;
            let (id, host, filter) = (state.serial, self.host, subject.to_owned());
            state.listeners.retain(|listener| !listener.notices.is_closed());
            state.listeners.push(Listener { id, host, filter, notices: sender });
            Ok(notices)
        })
        .await
    }
}
