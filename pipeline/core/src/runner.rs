//! What every part of a process has around its own work: the context, and the loop that takes the one recovery
//! path. The parts themselves are lanes ([`crate::lane::runner`]), validate's intake, the ledger and its views.
//! The simulation runs the same code over the memory log.

use std::future::{Future, poll_fn};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::{debug, error, info, warn};

use crate::health::{Condition, Health};
use crate::log::{Entry, Log, Notices};
use crate::metrics::Metrics;
use crate::recovery::{Backoff, Trouble};
use crate::refusal::StageName;
use crate::stage::Contradiction;
use crate::terms::cache::TermsCache;
use crate::time::Clock;
use crate::topology;

/// How often a part that hears nothing asks whether the stream has more than it was given.
pub const WATCHDOG: Duration = Duration::from_secs(2);
/// What a stream held when it was looked at last. What was stored just now is still on its way, on a cluster from
/// another server: a reader has stalled when it has not brought by the next look what was there at the one before.
#[derive(Debug, Default)]
pub struct Watch {
    held: u64,
}

impl Watch {
    /// Notes that the stream ends at `last` now, and tells whether a reader that has come to `read` has stalled.
    pub fn stalled(&mut self, last: u64, read: u64) -> bool {
        let stalled = read < self.held;
        self.held = last;
        stalled
    }
}

/// [`Context::stand_by`] where nothing is said, as the flag of that name has it.
const STAND_BY: Duration = Duration::from_secs(2);
/// [`Context::snapshot_bytes`] where nothing is said, as the flag of that name has it.
const SNAPSHOT_BYTES: u64 = 8 * 1024 * 1024;
/// How often a part that stands by looks whether the other one goes on.
const STAND_BY_POLL: Duration = Duration::from_millis(200);
/// How long a part waits for its last acknowledgements when it is told to stop.
pub const GRACE: Duration = Duration::from_secs(10);
/// How long a part may take to leave in all, whatever it is at; then it is left there, since starting again is always safe.
const LEAVE_MAX: Duration = Duration::from_secs(12);
/// The longest pause in a contest: more would be felt where the other one leaves.
const CONTEST_PAUSE_MAX: Duration = Duration::from_millis(250);
/// A part that has gone on for so long before another process was faster is in no contest with it.
const CONTEST_OVER: Duration = Duration::from_secs(2);
/// So often in a row a contradiction must be found before it is believed: a leader that was deposed just now answers
/// from the past, but what is stored does not change.
const CONTRADICTIONS_BELIEVED: u32 = 3;
/// How long to wait at least before a contradiction is looked at again: a server that was held answers what it was
/// asked meanwhile as the leader that it was, until it has read what the others sent.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// What every runner of a process shares. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Context<L> {
    /// The broker.
    pub log: L,
    /// The terms that the process has loaded.
    pub terms: TermsCache<L>,
    /// The process's metrics.
    pub metrics: Metrics,
    /// What the process says of itself.
    pub health: Health,
    /// Becomes true when the process is told to stop.
    pub shutdown: watch::Receiver<bool>,
    /// How long another process's output must be silent, with input waiting, before this one takes over. Zero for an
    /// owner that membership names: it does not wait for silence.
    pub stand_by: Duration,
    /// How many bytes the log grows by until a snapshot is due, where the last one was not larger.
    pub snapshot_bytes: u64,
    /// Spreads the pauses of processes that fail together.
    pub seed: u64,
    /// Tells the present, for what is recorded as an observation.
    pub clock: Clock,
    /// When a runner of this process last had something to do; for bounded runs.
    pub active: watch::Sender<Instant>,
}

impl<L: Log> Context<L> {
    /// A process of this stage over this log, by the machine's clock, with the settings that a stage has where nothing is
    /// said.
    pub fn new(log: L, stage: StageName, shutdown: watch::Receiver<bool>) -> Self {
        Self {
            terms: TermsCache::new(log.clone()),
            log,
            metrics: Metrics::new(stage),
            health: Health::default(),
            shutdown,
            stand_by: STAND_BY,
            snapshot_bytes: SNAPSHOT_BYTES,
            seed: 0,
            clock: Clock::machine(),
            active: watch::Sender::new(Instant::now()),
        }
    }
}

impl<L> Context<L> {
    /// Whether the process is told to stop.
    pub fn stopping(&self) -> bool {
        *self.shutdown.borrow()
    }

    /// Waits until the process is told to stop.
    pub async fn stopped(&self) {
        // An error means that the sender is gone, and with it the process's main: stop as well.
        if self.shutdown.clone().wait_for(|&stop| stop).await.is_err() {
            info!("the process is ending");
        }
    }

    /// Something was done.
    pub fn touch(&self) {
        self.active.send_replace(Instant::now());
    }

    /// A pause that ends at once when the process is told to stop.
    pub async fn pause(&self, pause: Duration) {
        tokio::select! {
            biased;
            () = self.stopped() => {}
            () = sleep(pause) => {}
        }
    }

    /// The part is at work.
    pub fn working(&self, part: &Name) {
        self.health.set(&part.name, Condition::Running);
        self.metrics.stopped(&part.label, false);
    }

    /// The part does nothing until somebody mends what is said here.
    pub fn halted(&self, part: &Name, why: &str) {
        error!(part = part.name.as_str(), "stopped: {why}");
        self.metrics.stopped(&part.label, true);
        self.health.set(&part.name, Condition::Stopped(why.to_owned()));
    }

    /// A part of a part that had stopped goes on with it.
    pub fn released(&self, part: &Name) {
        if self.health.forget(&part.name) {
            info!(part = part.name.as_str(), "goes on");
            self.metrics.stopped(&part.label, false);
        }
    }

    /// The condition, log line and metric of a trouble.
    fn report(&self, part: &Name, trouble: &Trouble) {
        self.metrics.recovering(trouble);
        let name = part.name.as_str();
        match trouble {
            Trouble::Contradiction(contradiction) => self.halted(part, &contradiction.to_string()),
            Trouble::Fenced(_) => self.health.set(name, Condition::StandingBy),
            Trouble::Full(_) | Trouble::Stalled(_) | Trouble::Transient(_) => {
                warn!(part = name, "starting over: {trouble}");
                self.health.set(name, Condition::Trying(trouble.to_string()));
            }
        }
    }
}

/// What a part of a process is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// For people: `partition 3`, `view hits`.
    pub name: String,
    /// The value of the metrics' label `partition`: `3`, `hits`.
    pub label: String,
}

impl Name {
    /// A partition of a lane.
    pub fn partition(partition: u16) -> Self {
        Self { name: format!("partition {partition}"), label: partition.to_string() }
    }

    /// One of a kind, such as a view.
    pub fn single(kind: &str, label: &str) -> Self {
        Self { name: format!("{kind} {label}"), label: label.to_owned() }
    }
}

/// A part of a process that works on a log of its own, and recovers on its own.
pub trait Part {
    /// What it is called.
    fn name(&self) -> &Name;

    /// How far it is: grows with every success, so that pauses begin anew.
    fn progress(&self) -> u64;

    /// From one resume to the next trouble; `Ok` when the process was told to stop and all is settled.
    fn pass(&mut self) -> impl Future<Output = Result<(), Trouble>>;

    /// How far its output is, whoever writes it, and whether there is input beyond. Asked again and again while the
    /// part stands by, so that it can keep up.
    fn standing(&mut self) -> impl Future<Output = Result<Standing, Trouble>>;
}

/// An output as a process sees it that stands by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The last sequence of the output, or anything else that only the process at work moves.
    pub output: u64,
    /// Whether there is input that is not in the output.
    pub waiting: bool,
}

/// The first of several futures that is done; of those that are done at once, the first in this order.
///
/// All stay where they are until then: one that is dropped after each look would not be woken by its timer.
pub async fn first<F: Future>(futures: impl Iterator<Item = F>) -> F::Output {
    let mut futures: Vec<_> = futures.map(Box::pin).collect();
    poll_fn(|context| {
        let done = futures.iter_mut().find_map(|future| match future.as_mut().poll(context) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        });
        done.map_or(Poll::Pending, Poll::Ready)
    })
    .await
}

/// The last message of a log that only this kind of part writes, asked of its leader.
///
/// # Errors
/// Where the last message was removed: an append behind it could not be told from one behind a lost tail.
pub async fn tail<L: Log>(log: &L, stream: &str, subject: &str) -> Result<Option<Entry>, Trouble> {
    let extent = log.extent(stream).await?;
    let last = log.last(stream, subject).await?;
    let end = last.as_ref().map_or(0, |entry| entry.sequence);
    if end < extent.last {
        return Err(Trouble::Contradiction(Contradiction(format!(
            "the last message of {stream} was number {}, and it was removed; restore the stream from a backup or a \
             replica",
            extent.last
        ))));
    }
    Ok(last)
}

/// A message that must be there, asked of its leader.
///
/// # Errors
/// A contradiction only where the stream begins behind it: a server that is coming back may not give what it holds.
pub async fn stored<L: Log>(log: &L, stream: &str, sequence: u64) -> Result<Entry, Trouble> {
    if let Some(entry) = log.get(stream, sequence).await? {
        return Ok(entry);
    }
    let removed = log.extent(stream).await?.first > sequence;
    let what =
        format!("message {sequence} of {stream} is not there any more; restore the stream from a backup");
    Err(if removed { Contradiction(what).into() } else { Trouble::stalled(stream) })
}

/// Runs a part until the process is told to stop. A part that stopped on a contradiction waits there for that,
/// so that the others go on.
pub async fn drive<L: Log, P: Part>(context: &Context<L>, mut part: P) {
    let name = part.name().clone();
    context.health.set(&name.name, Condition::Starting);
    let overdue = async {
        context.stopped().await;
        sleep(LEAVE_MAX).await;
    };
    tokio::select! {
        biased;
        () = keep_at_work(context, &name, &mut part) => {}
        () = overdue => {}
    }
    context.metrics.left(&name.label);
}

async fn keep_at_work<L: Log, P: Part>(context: &Context<L>, name: &Name, part: &mut P) {
    let spread = name.label.bytes().fold(0_u64, |sum, byte| sum.wrapping_mul(31) + u64::from(byte));
    let mut backoff = Backoff::new(context.seed.wrapping_add(spread));
    let mut contest = Backoff::new(context.seed.wrapping_add(spread));
    let mut contradictions = 0;
    while !context.stopping() {
        let (before, begun) = (part.progress(), Instant::now());
        let Err(trouble) = part.pass().await else {
            return say_goodbye(context, name).await;
        };
        if part.progress() > before {
            backoff.reset();
            contradictions = 0;
        }
        if let Trouble::Contradiction(found) = &trouble {
            contradictions += 1;
            if contradictions < CONTRADICTIONS_BELIEVED {
                context.metrics.recovering(&trouble);
                warn!(part = name.name, "looking again before this is believed: {found}");
                context.health.set(&name.name, Condition::Trying(found.to_string()));
                context.pause(backoff.next_pause().max(LOOK_AGAIN)).await;
                continue;
            }
        }
        context.report(name, &trouble);
        match trouble {
            Trouble::Contradiction(_) => context.stopped().await,
            Trouble::Fenced(_) if context.stand_by.is_zero() => {
                if begun.elapsed() >= CONTEST_OVER {
                    contest.reset();
                }
                context.pause(contest.next_pause().min(CONTEST_PAUSE_MAX)).await;
            }
            Trouble::Fenced(_) => stand_by(context, part, &mut backoff).await,
            Trouble::Full(_) => {
                let mut gate = context.metrics.gate(&name.label);
                gate.open(false);
                context.pause(backoff.next_pause()).await;
            }
            Trouble::Stalled(_) | Trouble::Transient(_) => context.pause(backoff.next_pause()).await,
        }
    }
}

/// Tells whoever stands by that this process has left and all of its own is stored, so that nobody waits for silence. A
/// plain message, that may be lost or believed for nothing: appends are fenced.
async fn say_goodbye<L: Log>(context: &Context<L>, part: &Name) {
    // Whoever leaves what membership names is waited for by nobody.
    if context.stand_by.is_zero() {
        return;
    }
    let subject = topology::left(context.metrics.stage(), &part.label);
    if let Err(error) = context.log.notify(&subject, Bytes::new()).await {
        debug!(part = part.name, "nobody was told that it leaves: {error}");
    }
}

/// Waits until the process at work says that it leaves; for ever where it is not listened to.
async fn goodbye(goodbyes: Option<&mut Notices>) {
    let heard = match goodbyes {
        Some(goodbyes) => goodbyes.recv().await,
        None => None,
    };
    if heard.is_none() {
        std::future::pending().await
    }
}

/// Watches the output of the process that was faster, and returns when it has been silent for long enough while
/// input is waiting, or says that it leaves.
async fn stand_by<L: Log, P: Part>(context: &Context<L>, part: &mut P, backoff: &mut Backoff) {
    let subject = topology::left(context.metrics.stage(), &part.name().label);
    let mut goodbyes = context.log.listen(&subject).await.ok();
    let mut last = None;
    let mut since = Instant::now();
    while !context.stopping() && since.elapsed() < context.stand_by {
        tokio::select! {
            biased;
            () = goodbye(goodbyes.as_mut()) => return,
            () = context.pause(STAND_BY_POLL) => {}
        }
        match part.standing().await {
            Ok(standing) => {
                if last != Some(standing.output) || !standing.waiting {
                    last = Some(standing.output);
                    since = Instant::now();
                }
            }
            Err(trouble) => {
                let name = part.name().clone();
                context.report(&name, &trouble);
                context.pause(backoff.next_pause()).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_still_on_its_way_is_no_stall() {
        let mut watch = Watch::default();
        assert!(!watch.stalled(5, 0), "it was seen just now");
        assert!(!watch.stalled(9, 5), "what was there before has been brought");
        assert!(!watch.stalled(9, 9));
        assert!(!watch.stalled(11, 10));
        assert!(watch.stalled(11, 10), "one look later it is not there yet");
    }
}
