//! The only loop that awaits: carries a [`Lane`]'s decisions to the log, and the log's answers back.
//! One runner per partition and process; the simulation runs the same code over the memory log.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{error, info, warn};

use crate::health::{Condition, Health};
use crate::lane::Lane;
use crate::log::{AppendError, Appender, Log, Reader};
use crate::metrics::Metrics;
use crate::publication::Publisher;
use crate::recovery::{Backoff, Trouble};
use crate::stage::{Contradiction, Stage};
use crate::terms::cache::TermsCache;
use crate::topology;

/// How often a runner that hears nothing asks whether the stream has more than it was given.
const WATCHDOG: Duration = Duration::from_secs(2);
/// How often a runner that stands by looks whether the other one goes on.
const STAND_BY_POLL: Duration = Duration::from_millis(200);
/// How long a runner waits for its last acknowledgements when it is told to stop.
const GRACE: Duration = Duration::from_secs(10);

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

    /// The condition, log line and metric of a trouble; for every runner, so that they say it alike.
    pub fn report(&self, part: &str, partition: &str, trouble: &Trouble) {
        self.metrics.recovering(trouble);
        match trouble {
            Trouble::Contradiction(contradiction) => {
                error!(part, "stopped: {contradiction}");
                self.metrics.stopped(partition, true);
                self.health.set(part, Condition::Stopped(contradiction.to_string()));
            }
            Trouble::Fenced(_) => self.health.set(part, Condition::StandingBy),
            Trouble::Full(_) | Trouble::Transient(_) => {
                warn!(part, "starting over: {trouble}");
                self.health.set(part, Condition::Trying(trouble.to_string()));
            }
        }
    }
}

/// Drives one stage of one partition until the process is told to stop.
pub struct Runner<S: Stage, L: Log> {
    context: Context<L>,
    partition: u16,
    label: String,
    part: String,
    lane: Lane<S>,
    publisher: Publisher<L>,
}

impl<S: Stage, L: Log> Runner<S, L> {
    /// A runner that has yet to [`Runner::run`].
    pub fn new(context: Context<L>, partition: u16, stage: S) -> Self {
        let publisher = Publisher::new(context.log.clone(), topology::REFUSALS);
        let label = partition.to_string();
        let part = format!("partition {partition}");
        Self { context, partition, label, part, lane: Lane::new(stage, partition), publisher }
    }

    /// Runs until the process is told to stop. A partition that stopped on a contradiction waits there for that,
    /// so that the others go on.
    pub async fn run(mut self) {
        self.context.health.set(&self.part, Condition::Starting);
        let mut backoff = Backoff::new(self.context.seed.wrapping_add(u64::from(self.partition)));
        while !self.context.stopping() {
            let before = self.lane.position();
            let Err(trouble) = self.pass().await else { break };
            if self.lane.position() > before {
                backoff.reset();
            }
            self.context.report(&self.part, &self.label, &trouble);
            match trouble {
                Trouble::Contradiction(_) => self.context.stopped().await,
                Trouble::Fenced(_) => self.stand_by(&mut backoff).await,
                Trouble::Full(_) | Trouble::Transient(_) => self.context.pause(backoff.next_pause()).await,
            }
        }
    }

    /// From one resume to the next trouble; `Ok` when the process was told to stop and all is settled.
    async fn pass(&mut self) -> Result<(), Trouble> {
        let from = self.resume().await?;
        let input = S::INPUT.stream(self.partition);
        let mut reader = self.context.log.read(&input, None, from).await?;
        let mut appenders = Vec::new();
        for _ in S::OUTPUTS {
            appenders.push(self.context.log.appender().await?);
        }
        self.context.health.set(&self.part, Condition::Running);
        self.context.metrics.stopped(&self.label, false);
        let mut sent = Sent::new(S::OUTPUTS.len());
        loop {
            let watchdog = sleep_until(Instant::now() + WATCHDOG);
            tokio::select! {
                biased;
                () = self.context.stopped() => break,
                (output, fate) = next_fate(&mut appenders), if !self.lane.settled() => {
                    self.settle(output, fate?, &mut sent);
                }
                entry = reader.next(), if self.lane.wants_input() => {
                    self.forward(&entry?, &mut appenders, &mut sent).await?;
                }
                () = watchdog, if self.lane.settled() => self.check_stall(&input).await?,
            }
        }
        let settling = async {
            while !self.lane.settled() {
                let (output, fate) = next_fate(&mut appenders).await;
                self.settle(output, fate?, &mut sent);
            }
            Ok(())
        };
        timeout(GRACE, settling).await.unwrap_or(Ok(()))
    }

    /// Reads the outputs' tails from their leaders and tells the lane; gives where to open the input.
    async fn resume(&mut self) -> Result<u64, Trouble> {
        let log = &self.context.log;
        let mut tails = Vec::new();
        for lane in S::OUTPUTS {
            tails.push(log.last(&lane.stream(self.partition), &lane.subject(self.partition)).await?);
        }
        let input = log.extent(&S::INPUT.stream(self.partition)).await?;
        let resume = self.lane.resume(&tails, input.last)?;
        for (output, sequence) in resume.anchors {
            let stream = S::OUTPUTS[output].stream(self.partition);
            let entry = log.get(&stream, sequence).await?.ok_or_else(|| {
                Contradiction(format!(
                    "frame {sequence} of {stream} is not there any more; restore the stream"
                ))
            })?;
            self.lane.anchor(output, &entry);
        }
        self.context.metrics.at(&self.label, self.lane.position());
        Ok(resume.from)
    }

    /// Computes one frame and hands its appends to the connection.
    async fn forward(
        &mut self,
        entry: &crate::log::Entry,
        appenders: &mut [L::Appender],
        sent: &mut Sent,
    ) -> Result<(), Trouble> {
        if entry.sequence > self.lane.position()
            && let Some(revision) = self.lane.terms_wanted(entry)?
        {
            let terms = self.context.terms.get(revision).await?;
            self.lane.learn(revision, &terms);
        }
        self.context.touch();
        let step = self.lane.accept(entry)?;
        if !step.publications.is_empty() {
            self.publisher.publish(step.publications).await?;
        }
        for (output, append) in step.appends {
            sent.at[output].push_back(Instant::now());
            appenders[output].send(append).await?;
        }
        Ok(())
    }

    fn settle(&mut self, output: usize, sequence: u64, sent: &mut Sent) {
        if let Some(at) = sent.at[output].pop_front() {
            self.context.metrics.acknowledged(at.elapsed());
        }
        if let Some(tally) = self.lane.acknowledged(output, sequence) {
            self.context.metrics.appended(&self.label, sequence, &tally);
        }
    }

    /// A reader that says nothing is believed only while its stream has nothing more.
    async fn check_stall(&self, input: &str) -> Result<(), Trouble> {
        let extent = self.context.log.extent(input).await?;
        if extent.last > self.lane.position() { Err(Trouble::stalled(input)) } else { Ok(()) }
    }

    /// Watches the outputs of the process that was faster, and returns when it has been silent for long enough
    /// while input is waiting.
    async fn stand_by(&self, backoff: &mut Backoff) {
        let mut last = None;
        let mut since = Instant::now();
        while !self.context.stopping() && since.elapsed() < self.context.stand_by {
            self.context.pause(STAND_BY_POLL).await;
            match self.behind().await {
                Ok((output, waiting)) => {
                    if last != Some(output) || !waiting {
                        last = Some(output);
                        since = Instant::now();
                    }
                }
                Err(trouble) => {
                    self.context.report(&self.part, &self.label, &trouble);
                    self.context.pause(backoff.next_pause()).await;
                }
            }
        }
    }

    /// The last frame that all outputs have, and whether the input has more.
    async fn behind(&self) -> Result<(u64, bool), Trouble> {
        let log = &self.context.log;
        let mut output = u64::MAX;
        for lane in S::OUTPUTS {
            output = output.min(log.extent(&lane.stream(self.partition)).await?.last);
        }
        let input = log.extent(&S::INPUT.stream(self.partition)).await?.last;
        Ok((output, input > output))
    }
}

/// When the appends in flight were sent, per output.
struct Sent {
    at: Vec<VecDeque<Instant>>,
}

impl Sent {
    fn new(outputs: usize) -> Self {
        Self { at: vec![VecDeque::new(); outputs] }
    }
}

/// The next fate of any appender, with its index.
async fn next_fate<A: Appender>(appenders: &mut [A]) -> (usize, Result<u64, AppendError>) {
    poll_fn(|context| {
        for (index, appender) in appenders.iter_mut().enumerate() {
            if appender.in_flight() > 0
                && let Poll::Ready(fate) = pin!(appender.acknowledged()).poll(context)
            {
                return Poll::Ready((index, fate));
            }
        }
        Poll::Pending
    })
    .await
}
