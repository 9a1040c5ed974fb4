//! The broker and the way to it. The broker is the log in memory; between it and each process lies a connection that
//! delays, loses, repeats and reorders what a network does, by dice. Every call yields before and after its effect, so
//! that a crash can come between, and what was sent arrives even where its sender has gone.
//!
//! | room | what lives there |
//! |---|---|
//! | [`weather`] | how often what goes wrong |
//! | [`link`] | a process's connection: the log port as its stage sees it |
//! | `reader`, `appender` | the two ends of a link that live longer than a call |
//!
//! What the broker promises it keeps: fences hold, and what it acknowledged stays, but where [`Network::lose_tail`] is
//! called. Nothing here knows a stage.

mod appender;
pub mod link;
mod reader;
pub mod weather;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use jackpot_core::log::jetstream::setup::StreamSettings;
use jackpot_core::log::memory::Memory;
use jackpot_core::log::{Append, AppendError, Appender, Entry, Extent, Log, LogError};
use jackpot_core::time::Millis;
use jackpot_core::topology;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep_until};

use crate::dice::Dice;
use crate::trace::Trace;
use appender::Sends;
use link::Link;
use weather::Weather;

/// When the broker's clock starts: a quarter of a minute before an hour ends, so that windows of every length end.
pub const EPOCH: Millis = Millis(1_780_952_385_000);
/// A repeated message comes so much later at most.
const REPEAT_MS_MAX: u64 = 15_000;

/// The broker, and everything that is on its way to it or from it.
pub struct Network {
    broker: Memory,
    settings: Vec<StreamSettings>,
    clock: Arc<BrokerClock>,
    trace: Trace,
    state: Mutex<State>,
    /// Something was put on its way.
    posted: Notify,
}

/// The broker's clock, which jumps.
struct BrokerClock {
    start: Instant,
    off_ms: AtomicI64,
}

struct State {
    dice: Dice,
    weather: Weather,
    hosts: BTreeMap<u64, Host>,
    /// By when it arrives, and in which order it was sent.
    parcels: BTreeMap<(Instant, u64), Parcel>,
    serial: u64,
    listeners: Vec<Listener>,
    /// By stream: what was trimmed off it.
    trimmed: BTreeMap<String, Vec<Entry>>,
    lost: Vec<(String, Vec<Entry>)>,
}

/// A process as the network sees it.
struct Host {
    /// Counts the connections; a change ends all that was open.
    connection: watch::Sender<u64>,
    down_until: Option<Instant>,
    /// When it may be given an answer from the past again.
    stale_from: Instant,
}

/// What is on its way.
enum Parcel {
    Append { host: u64, appends: Vec<Append>, sent: Option<Sent> },
    Answer { sent: Sent, fate: Result<u64, AppendError> },
    Notice { listener: u64, subject: Box<str>, payload: Bytes },
}

/// Which of an appender's sends it is.
struct Sent {
    sends: Arc<Sends>,
    number: u64,
}

struct Listener {
    id: u64,
    host: u64,
    filter: String,
    notices: mpsc::Sender<(Box<str>, Bytes)>,
}

impl BrokerClock {
    fn now(&self) -> Millis {
        let elapsed = i64::try_from(self.start.elapsed().as_millis()).expect("a run lasts minutes");
        EPOCH.plus(elapsed + self.off_ms.load(Ordering::Relaxed))
    }
}

impl Network {
    /// A broker with these streams, and fair weather.
    pub fn new(settings: Vec<StreamSettings>, dice: Dice, trace: Trace) -> Arc<Self> {
        let clock = Arc::new(BrokerClock { start: Instant::now(), off_ms: AtomicI64::new(0) });
        let shown = clock.clone();
        let state = State {
            dice,
            weather: Weather::FAIR,
            hosts: BTreeMap::new(),
            parcels: BTreeMap::new(),
            serial: 0,
            listeners: Vec::new(),
            trimmed: BTreeMap::new(),
            lost: Vec::new(),
        };
        let broker = Memory::new(settings.clone(), move || shown.now());
        Arc::new(Self { broker, settings, clock, trace, state: Mutex::new(state), posted: Notify::new() })
    }

    /// The broker itself, with no network between: for the auditor.
    pub fn broker(&self) -> &Memory {
        &self.broker
    }

    /// Removes what a stream holds before a message. What it was is kept for the auditor.
    async fn trim(&self, stream: &str, filter: Option<&str>, before: u64) -> Result<(), LogError> {
        if filter.is_none() {
            for sequence in self.broker.extent(stream).await?.first..before {
                if let Some(entry) = self.broker.get(stream, sequence).await? {
                    self.state().trimmed.entry(stream.to_owned()).or_default().push(entry);
                }
            }
        }
        self.broker.trim(stream, filter, before).await
    }

    /// What was trimmed off a stream.
    pub fn trimmed(&self, stream: &str) -> Vec<Entry> {
        self.state().trimmed.get(stream).cloned().unwrap_or_default()
    }

    /// The present, by the broker's clock.
    pub fn now(&self) -> Millis {
        self.clock.now()
    }

    /// Moves the broker's clock.
    pub fn jump(&self, by_ms: i64) {
        self.clock.off_ms.fetch_add(by_ms, Ordering::Relaxed);
    }

    /// Changes the weather.
    pub fn set_weather(&self, weather: Weather) {
        self.state().weather = weather;
    }

    /// The broker goes away, and comes back without what it had not synced: of some streams, whichever, or those before a
    /// place in the flow, the last few messages.
    pub async fn lose_tail(&self, down: Duration) {
        for host in self.hosts() {
            self.cut(host, down);
        }
        let flow = ["wagers", "validated", "geofenced", "allocations", "contributions", "audit"];
        let until = {
            let State { dice, .. } = &mut *self.state();
            (dice.below(2) == 0).then(|| dice.place(flow.len()))
        };
        for settings in &self.settings {
            let count = {
                let State { dice, .. } = &mut *self.state();
                let kind = settings.name.split('-').next();
                let place = flow.iter().position(|name| Some(*name) == kind);
                let loses = match until {
                    Some(until) => place.is_some_and(|place| (1..=until).contains(&place)),
                    None => dice.below(3) == 0,
                };
                if loses { dice.between(1, 12) } else { 0 }
            };
            let Ok(Extent { first, last, .. }) = self.broker.extent(&settings.name).await else { continue };
            // A stream is trimmed behind what was stored long before: that was synced, and so is what is kept first.
            let kept = if first > 1 { first } else { 0 };
            let lost = self.broker.lose(&settings.name, last.saturating_sub(count).max(kept.min(last)));
            if let Some(first) = lost.first() {
                let (count, first) = (lost.len(), first.sequence);
                self.trace.say(format_args!("{} loses {count} messages, from {first} on", settings.name));
                self.state().lost.push((settings.name.clone(), lost));
            }
        }
    }

    /// What was lost, stream by stream.
    pub fn lost(&self) -> Vec<(String, Vec<Entry>)> {
        self.state().lost.clone()
    }

    /// Connects a process that starts.
    pub fn join(self: &Arc<Self>, host: u64) -> Link {
        let connection = watch::Sender::new(0);
        let joined = Host { connection, down_until: None, stale_from: Instant::now() };
        self.state().hosts.insert(host, joined);
        Link::new(self.clone(), host)
    }

    /// Cuts a process's connection for so long. Of what it has sent, some may arrive all the same.
    pub fn cut(&self, host: u64, down: Duration) {
        let mut state = self.state();
        let Some(known) = state.hosts.get_mut(&host) else { return };
        known.down_until = Some(Instant::now() + down);
        known.connection.send_modify(|count| *count += 1);
        state.listeners.retain(|listener| listener.host != host);
        state.lose_some(host);
    }

    /// A process has ended, however it did.
    pub fn leave(&self, host: u64) {
        self.cut(host, Duration::ZERO);
        self.state().hosts.remove(&host);
    }

    /// All processes that are connected, or would be.
    pub fn hosts(&self) -> Vec<u64> {
        self.state().hosts.keys().copied().collect()
    }

    /// Whether an append is still on its way to the broker, but for what members say every second.
    pub fn is_busy(&self) -> bool {
        let members = format!("{}.", topology::MEMBERS);
        let counts = |append: &Append| !append.subject.starts_with(&members);
        self.state().parcels.values().any(|parcel| match parcel {
            Parcel::Append { appends, .. } => appends.iter().any(counts),
            Parcel::Answer { .. } | Parcel::Notice { .. } => false,
        })
    }

    /// Leaves a stream room for so many bytes more, or as many as it was set up with.
    pub async fn limit(&self, stream: &str, room: Option<u64>) {
        let Some(settings) = self.settings.iter().find(|settings| settings.name == stream) else { return };
        let mut settings = settings.clone();
        if let (Some(room), Ok(extent)) = (room, self.broker.extent(stream).await) {
            settings.max_bytes = settings.max_bytes.min(extent.bytes + room);
        }
        self.broker.create(settings);
    }

    /// Carries what is on its way, for ever.
    pub async fn carry(self: Arc<Self>) {
        loop {
            let next = self.state().parcels.first_key_value().map(|(&(at, _), _)| at);
            match next {
                None => self.posted.notified().await,
                Some(at) if at > Instant::now() => {
                    tokio::select! {
                        biased;
                        () = self.posted.notified() => {}
                        () = sleep_until(at) => {}
                    }
                }
                Some(_) => {
                    let first = self.state().parcels.pop_first();
                    if let Some(((_, serial), parcel)) = first {
                        self.trace.mark(b'd', serial);
                        self.deliver(parcel).await;
                    }
                    link::breathe().await;
                }
            }
        }
    }

    async fn deliver(&self, parcel: Parcel) {
        match parcel {
            Parcel::Append { host, appends, sent } => {
                let again = appends.clone();
                let fate = self.store(appends).await;
                let mut state = self.state();
                let State { dice, weather, .. } = &mut *state;
                if dice.strikes(weather.repeats) {
                    let later = Duration::from_millis(dice.between(1, REPEAT_MS_MAX));
                    state.post(Instant::now() + later, Parcel::Append { host, appends: again, sent: None });
                }
                let State { dice, weather, .. } = &mut *state;
                let Some(sent) = sent.filter(|_| !dice.strikes(weather.answers_lost)) else { return };
                let wait = weather.wait(dice);
                state.post(Instant::now() + wait, Parcel::Answer { sent, fate });
            }
            Parcel::Answer { sent, fate } => sent.sends.settle(sent.number, fate),
            Parcel::Notice { listener, subject, payload } => {
                let state = self.state();
                let listener = state.listeners.iter().find(|other| other.id == listener);
                if let Some(listener) = listener
                    && listener.notices.try_send((subject, payload)).is_err()
                {
                    self.trace.mark(b'n', listener.id);
                }
            }
        }
    }

    async fn store(&self, mut appends: Vec<Append>) -> Result<u64, AppendError> {
        let refused = {
            let State { dice, weather, .. } = &mut *self.state();
            appends.len() == 1
                && appends[0].expect != jackpot_core::log::Expect::Any
                && dice.strikes(weather.refused)
        };
        if refused {
            return Err(AppendError::Fenced("another append is in process (10164)".into()));
        }
        if appends.len() > 1 {
            return self.broker.append_atomic(appends).await;
        }
        let mut appender =
            self.broker.appender().await.map_err(|error| AppendError::Unknown(error.to_string().into()))?;
        let append = appends.pop().expect("a parcel holds at least one");
        appender.send(append).await.map_err(|error| AppendError::Unknown(error.to_string().into()))?;
        appender.acknowledged().await
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn post(&mut self, at: Instant, parcel: Parcel) {
        self.serial += 1;
        self.parcels.insert((at, self.serial), parcel);
    }

    /// What a process had sent when its connection broke: of each appender, what comes after some message is lost.
    fn lose_some(&mut self, host: u64) {
        let mut kept: BTreeMap<usize, bool> = BTreeMap::new();
        let Self { parcels, dice, .. } = self;
        parcels.retain(|_, parcel| match parcel {
            Parcel::Append { host: from, sent: Some(sent), .. } if *from == host => {
                let keeps = kept.entry(Arc::as_ptr(&sent.sends).addr()).or_insert(true);
                *keeps = *keeps && dice.below(3) > 0;
                *keeps
            }
            _ => true,
        });
    }

    /// Posts a plain message to everybody who listens.
    fn notify(&mut self, subject: &str, payload: &Bytes) {
        let listening = self.listeners.iter().filter(|listener| topology::fits(subject, &listener.filter));
        let listening: Vec<_> = listening.map(|listener| listener.id).collect();
        for listener in listening {
            if !self.dice.strikes(self.weather.notices_lost) {
                let at = Instant::now() + self.weather.wait(&mut self.dice);
                self.post(at, Parcel::Notice { listener, subject: subject.into(), payload: payload.clone() });
            }
        }
    }
}
