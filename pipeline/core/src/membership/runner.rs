//! Carries a [`Seat`]'s decisions out: reads and writes `members`, starts and stops what runs a partition.
//! One per process, inside a `LocalSet`. What fails here is tried again while everything that runs goes on.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};
use tracing::{info, warn};

use super::seat::State;
use super::{Order, Said, Seat};
use crate::health::{Condition, Health};
use crate::log::{Append, Appender, Expect, Log, Reader};
use crate::recovery::{Backoff, Trouble};
use crate::refusal::StageName;
use crate::runner::{Context, Name, Part, drive};
use crate::topology;

/// How often a member says that it is there.
const BEAT: Duration = Duration::from_secs(1);
/// How long it may not hear itself before it opens its reader again.
const UNHEARD_MAX: Duration = Duration::from_secs(4);
/// How often it looks at what it runs, and while something is on its way.
const LOOK: (Duration, Duration) = (Duration::from_millis(500), Duration::from_millis(20));
/// How long a process that ends waits for others to take up what it runs.
const HANDOVER_MAX: Duration = Duration::from_secs(5);
/// A process that could never read who the others are runs everything after so long, as if it were alone.
const ALONE_AFTER: Duration = Duration::from_secs(10);
/// How often the messages of those who are gone are removed at most.
const TIDY: Duration = Duration::from_secs(60);

/// What runs a partition, until its context says that it is to stop.
pub type Running = Pin<Box<dyn Future<Output = ()>>>;

/// A part, driven until its context says that it is to stop.
pub fn driven<L: Log, P: Part + 'static>(context: &Context<L>, part: P) -> Running {
    let context = context.clone();
    Box::pin(async move { drive(&context, part).await })
}

/// Several parts as one, each with its own wakings.
pub fn together(parts: impl IntoIterator<Item = Running> + 'static) -> Running {
    Box::pin(async move {
        let mut tasks = JoinSet::new();
        for part in parts {
            tasks.spawn_local(part);
        }
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended
                && error.is_panic()
            {
                std::panic::resume_unwind(error.into_panic());
            }
        }
    })
}

/// This process's part in the partitions of its stage.
pub struct Sharing<L, F> {
    context: Context<L>,
    stage: StageName,
    seat: Seat,
    partitions: u16,
    part: F,
    /// What runs, and what is told to stop, by partition.
    running: BTreeMap<u16, Run>,
    stopping: BTreeMap<u16, Run>,
    tasks: JoinSet<u16>,
    /// What was said last, and what is said of the trouble that there is.
    said: Option<Said>,
    trouble: Option<String>,
    /// Whether it was ever known who the others are.
    known: bool,
    tidied: Instant,
}

/// What runs a partition.
struct Run {
    stop: watch::Sender<bool>,
    health: Health,
}

/// The stream, as it was opened.
struct Opened<L: Log> {
    /// Where it ended.
    last: u64,
    reader: L::Reader,
    appender: L::Appender,
}

/// Why a sharing ends.
enum End {
    /// The process is told to stop.
    Told,
    /// What ran a partition ended although nobody told it to.
    Broken,
}

impl<L: Log, F: Fn(&Context<L>, u16) -> Running> Sharing<L, F> {
    /// A share in `partitions` partitions of a stage; `part` makes what runs one.
    pub fn new(context: Context<L>, stage: StageName, id: &str, born: u64, partitions: u16, part: F) -> Self {
        Self {
            seat: Seat::new(id, born, partitions),
            context,
            stage,
            partitions,
            part,
            running: BTreeMap::new(),
            stopping: BTreeMap::new(),
            tasks: JoinSet::new(),
            said: None,
            trouble: None,
            known: false,
            tidied: Instant::now(),
        }
    }

    /// Runs what falls to this process until it is told to stop and others have taken that up, or nobody does. It returns
    /// without having been told only when what ran a partition ended by itself.
    pub async fn run(mut self) {
        let name = self.name();
        self.context.health.set(&name, Condition::Starting);
        let (begun, mut backoff) = (Instant::now(), Backoff::new(self.context.seed));
        let mut end = End::Told;
        while !self.context.stopping() {
            let trouble = match self.attend(&name).await {
                Ok(ended) => {
                    end = ended;
                    break;
                }
                Err(trouble) => trouble,
            };
            self.report(&name, &trouble);
            if self.seat.is_complete() {
                backoff.reset();
            }
            if !self.known && begun.elapsed() >= ALONE_AFTER {
                (0..self.partitions).for_each(|partition| self.start(partition));
            }
            if self.wait(backoff.next_pause()).await {
                end = End::Broken;
                break;
            }
        }
        if matches!(end, End::Told) {
            let all: Vec<_> = self.running.keys().copied().collect();
            all.into_iter().for_each(|partition| self.stop(partition));
            while let Some(ended) = self.tasks.join_next().await {
                self.ended(ended);
            }
        }
    }

    fn name(&self) -> String {
        Name::single("members", self.stage.as_str()).name
    }

    /// A pause in which nothing is read; whether what ran a partition ended meanwhile.
    async fn wait(&mut self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        loop {
            tokio::select! {
                biased;
                () = self.context.stopped() => return false,
                Some(ended) = self.tasks.join_next() => if self.ended(ended) { return true },
                () = sleep_until(until) => return false,
            }
        }
    }

    /// From one opening of the stream to the next trouble, or the end.
    async fn attend(&mut self, name: &str) -> Result<End, Trouble> {
        let opened = tokio::select! {
            biased;
            () = self.context.stopped() => return Ok(End::Told),
            opened = self.open() => opened?,
        };
        let (mut reader, mut appender) = (opened.reader, opened.appender);
        self.seat.read_anew(opened.last);
        self.said = None;
        let mut beats = interval(BEAT);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut heard, mut until, mut shown) = (Instant::now(), None, false);
        loop {
            let look = if self.seat.is_unsettled() { LOOK.1 } else { LOOK.0 };
            tokio::select! {
                biased;
                () = self.context.stopped(), if until.is_none() => {
                    self.seat.leave();
                    until = Some(Instant::now() + HANDOVER_MAX);
                }
                entry = reader.next() => {
                    let mut own = self.seat.hear(&entry?);
                    while let Some(entry) = reader.ready() {
                        own |= self.seat.hear(&entry?);
                    }
                    heard = if own { Instant::now() } else { heard };
                }
                fate = appender.acknowledged(), if appender.in_flight() > 0 => drop(fate?),
                Some(ended) = self.tasks.join_next() => if self.ended(ended) { return Ok(End::Broken) },
                _ = beats.tick() => self.said = None,
                () = sleep(look) => {}
            }
            self.act();
            if self.seat.is_complete() && !shown {
                self.context.health.set(name, Condition::Running);
                (self.known, self.trouble, shown) = (true, None, true);
            }
            self.say(&mut appender).await?;
            // Whoever comes next must not wait for one that is gone.
            let told = appender.in_flight() == 0 && self.said.as_ref().is_some_and(|said| said.leaving);
            if until.is_some_and(|until| (told && self.seat.may_go()) || Instant::now() >= until) {
                return Ok(End::Told);
            }
            if heard.elapsed() >= UNHEARD_MAX {
                return Err(Trouble::stalled(topology::MEMBERS));
            }
            self.tidy().await?;
        }
    }

    async fn open(&self) -> Result<Opened<L>, Trouble> {
        let log = &self.context.log;
        let last = log.extent(topology::MEMBERS).await?.last;
        let reader = log.read(topology::MEMBERS, Some(&topology::members(self.stage)), 1).await?;
        Ok(Opened { last, reader, appender: log.appender().await? })
    }

    /// Says what is new, or is to be said again.
    async fn say(&mut self, appender: &mut L::Appender) -> Result<(), Trouble> {
        let said = self.seat.said();
        if self.said.as_ref() != Some(&said) {
            let subject = topology::member(self.stage, self.seat.id());
            let payload = serde_json::to_vec(&said).expect("what a member says is plain data").into();
            appender.send(Append { subject, headers: Vec::new(), payload, expect: Expect::Any }).await?;
            self.said = Some(said);
        }
        Ok(())
    }

    /// Looks at what runs, and starts and stops what is to be.
    fn act(&mut self) {
        for (&partition, run) in &self.running {
            self.seat.look(partition, state(&run.health));
        }
        for order in self.seat.orders(Instant::now()) {
            match order {
                Order::Start(partition) => self.start(partition),
                Order::Stop(partition) => self.stop(partition),
            }
        }
    }

    /// Starts what runs a partition; one that is still stopping ends first.
    fn start(&mut self, partition: u16) {
        if self.stopping.contains_key(&partition) || self.running.contains_key(&partition) {
            return;
        }
        info!(partition, "taken up");
        let (stop, shutdown) = watch::channel(false);
        let health = self.context.health.branch();
        health.set(&Name::partition(partition).name, Condition::Starting);
        let context = Context {
            shutdown,
            health: health.clone(),
            // An owner that membership names does not wait for silence.
            stand_by: Duration::ZERO,
            ..self.context.clone()
        };
        let running = (self.part)(&context, partition);
        self.tasks.spawn_local(async move {
            running.await;
            partition
        });
        self.running.insert(partition, Run { stop, health });
        self.seat.started(partition);
        self.context.metrics.owns(self.seat.held());
    }

    fn stop(&mut self, partition: u16) {
        let Some(run) = self.running.remove(&partition) else { return };
        info!(partition, "left");
        run.stop.send_replace(true);
        self.stopping.insert(partition, run);
        self.seat.stopped(partition, Instant::now());
        self.context.metrics.owns(self.seat.held());
    }

    /// What ran a partition has ended; tells whether by itself.
    fn ended(&mut self, ended: Result<u16, JoinError>) -> bool {
        match ended {
            Ok(partition) => self.stopping.remove(&partition).is_none(),
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => true,
        }
    }

    /// Says once what is in the way, however long it is.
    fn report(&mut self, name: &str, trouble: &Trouble) {
        let said = trouble.to_string();
        if self.trouble.as_ref() != Some(&said) {
            warn!("who else runs this stage is not known now, so nothing is handed over: {said}");
        }
        self.context.health.set(name, Condition::Trying(said.clone()));
        self.trouble = Some(said);
    }

    /// Removes what those said who are long gone.
    async fn tidy(&mut self) -> Result<(), Trouble> {
        if self.tidied.elapsed() >= TIDY {
            self.tidied = Instant::now();
            if let Some(first) = self.seat.tidy() {
                let filter = topology::members(self.stage);
                self.context.log.trim(topology::MEMBERS, Some(&filter), first).await?;
            }
        }
        Ok(())
    }
}

/// How a partition does, by what its parts say.
fn state(health: &Health) -> State {
    let parts = health.parts();
    let all = |fits: fn(&Condition) -> bool| parts.iter().all(|(_, condition)| fits(condition));
    if !all(|condition| !matches!(condition, Condition::Stopped(_))) {
        State::Stopped
    } else if all(|condition| matches!(condition, Condition::Running | Condition::StandingBy)) {
        State::Ready
    } else {
        State::Busy
    }
}
