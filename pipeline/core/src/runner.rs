//! What every part of a process has around its own work: the context, and the loop that takes the one recovery
//! path. The parts themselves are lanes ([`crate::lane::runner`]), validate's intake, the ledger and its views.
//! The simulation runs the same code over the memory log.

use std::future::Future;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::{error, info, warn};

use crate::health::{Condition, Health};
use crate::log::Log;
use crate::metrics::Metrics;
use crate::recovery::{Backoff, Trouble};
use crate::terms::cache::TermsCache;

/// How often a part that hears nothing asks whether the stream has more than it was given.
pub const WATCHDOG: Duration = Duration::from_secs(2);
/// How often a part that stands by looks whether the other one goes on.
const STAND_BY_POLL: Duration = Duration::from_millis(200);
/// How long a part waits for its last acknowledgements when it is told to stop.
pub const GRACE: Duration = Duration::from_secs(10);

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
    /// How long another process's output must be silent, with input waiting, before this one takes over.
    pub stand_by: Duration,
    /// Spreads the pauses of processes that fail together.
    pub seed: u64,
    /// When a runner of this process last had something to do; for bounded runs.
    pub active: watch::Sender<Instant>,
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

    /// The condition, log line and metric of a trouble.
    fn report(&self, part: &Name, trouble: &Trouble) {
        self.metrics.recovering(trouble);
        let name = part.name.as_str();
        match trouble {
            Trouble::Contradiction(contradiction) => {
                error!(part = name, "stopped: {contradiction}");
                self.metrics.stopped(&part.label, true);
                self.health.set(name, Condition::Stopped(contradiction.to_string()));
            }
            Trouble::Fenced(_) => self.health.set(name, Condition::StandingBy),
            Trouble::Full(_) | Trouble::Transient(_) => {
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

    /// How far its output is, whoever writes it, and whether there is input beyond.
    fn standing(&self) -> impl Future<Output = Result<Standing, Trouble>>;
}

/// An output as a process sees it that stands by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The last sequence of the output.
    pub output: u64,
    /// Whether there is input that is not in the output.
    pub waiting: bool,
}

/// Runs a part until the process is told to stop. A part that stopped on a contradiction waits there for that,
/// so that the others go on.
pub async fn drive<L: Log, P: Part>(context: &Context<L>, mut part: P) {
    let name = part.name().clone();
    context.health.set(&name.name, Condition::Starting);
    let spread = name.label.bytes().fold(0_u64, |sum, byte| sum.wrapping_mul(31) + u64::from(byte));
    let mut backoff = Backoff::new(context.seed.wrapping_add(spread));
    while !context.stopping() {
        let before = part.progress();
        let Err(trouble) = part.pass().await else { break };
        if part.progress() > before {
            backoff.reset();
        }
        context.report(&name, &trouble);
        match trouble {
            Trouble::Contradiction(_) => context.stopped().await,
            Trouble::Fenced(_) => stand_by(context, &part, &mut backoff).await,
            Trouble::Full(_) | Trouble::Transient(_) => context.pause(backoff.next_pause()).await,
        }
    }
}

/// Watches the output of the process that was faster, and returns when it has been silent for long enough while
/// input is waiting.
async fn stand_by<L: Log, P: Part>(context: &Context<L>, part: &P, backoff: &mut Backoff) {
    let mut last = None;
    let mut since = Instant::now();
    while !context.stopping() && since.elapsed() < context.stand_by {
        context.pause(STAND_BY_POLL).await;
        match part.standing().await {
            Ok(standing) => {
                if last != Some(standing.output) || !standing.waiting {
                    last = Some(standing.output);
                    since = Instant::now();
                }
            }
            Err(trouble) => {
                context.report(part.name(), &trouble);
                context.pause(backoff.next_pause()).await;
            }
        }
    }
}
