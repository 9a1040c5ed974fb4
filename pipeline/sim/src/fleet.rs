//! The processes of all stages: started, crashed, frozen, told to stop and started again. Each runs the parts that its
//! stage's `main.rs` runs, over a connection and a clock of its own: of the partitions that it is given, as with
//! `--only`, or of those that fall to it as a member of its stage. Who does what when, `chaos` decides.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jackpot_core::health::{Condition, Health};
use jackpot_core::membership::Sharing;
use jackpot_core::refusal::StageName;
use jackpot_core::runner::Context;
use jackpot_core::time::Clock;
use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;
use tokio::time::Instant;
use validate::KeyFile;

use crate::dice::Dice;
use crate::executor::{Group, Handle, Work};
use crate::network::Network;
use crate::network::link::Link;
use crate::stages::{self, StageSettings};
use crate::trace::Trace;

/// A process that is told to stop has left after so long; see `jackpot_core::runner`.
const LEAVE_MAX: Duration = Duration::from_secs(13);
/// A member waits for others first, and may just have asked the broker for something.
const MEMBER_LEAVE_MAX: Duration = Duration::from_secs(25);

/// All processes.
pub struct Fleet {
    network: Arc<Network>,
    handle: Handle,
    settings: Rc<StageSettings>,
    keys: KeyFile,
    trace: Trace,
    dice: Dice,
    slots: Vec<Slot>,
    hosts: u64,
    /// What parts that stopped have said: which, and the sentence.
    pub stopped: BTreeSet<(String, String)>,
}

/// Which partitions a process runs.
#[derive(Debug, Clone)]
pub enum Share {
    /// These alone, and it is no member.
    Only(Vec<u16>),
    /// Those that fall to it, as a member of this name.
    Member(String),
}

/// A place for a process; what runs there changes.
pub struct Slot {
    /// Of which stage.
    pub stage: StageName,
    /// What its processes run.
    pub share: Share,
    process: Option<Process>,
    /// When the next process is started where none runs; `None`: not at all.
    start: Option<Instant>,
}

struct Process {
    group: Group,
    host: u64,
    stop: watch::Sender<bool>,
    health: Health,
    off_ms: Arc<AtomicI64>,
    told: Option<Instant>,
    thaw: Option<Instant>,
}

impl Fleet {
    /// A fleet without places.
    pub fn new(
        network: Arc<Network>,
        handle: Handle,
        settings: StageSettings,
        keys: KeyFile,
        dice: Dice,
        trace: Trace,
    ) -> Self {
        let (settings, slots, stopped) = (Rc::new(settings), Vec::new(), BTreeSet::new());
        Self { network, handle, settings, keys, trace, dice, slots, hosts: 1_000, stopped }
    }

    /// Opens a place; a process starts there soon.
    pub fn open(&mut self, stage: StageName, share: Share) {
        let start = Some(Instant::now());
        self.slots.push(Slot { stage, share, process: None, start });
    }

    /// A share for a member: called by its place, or as another one is already, where `again` says so.
    pub fn member(&self, again: bool) -> Share {
        let known = self.slots.iter().rev().find_map(|slot| match &slot.share {
            Share::Member(name) if again => Some(name.clone()),
            _ => None,
        });
        Share::Member(known.unwrap_or_else(|| format!("m-{}", self.slots.len())))
    }

    /// How many places there are.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is no place.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Looks after all processes: starts what is due, sees who has ended and what they say.
    ///
    /// # Panics
    /// When a process ended by itself, or did not leave in time.
    pub fn tend(&mut self) {
        for place in 0..self.slots.len() {
            self.tend_slot(place);
        }
    }

    fn tend_slot(&mut self, place: usize) {
        let now = Instant::now();
        let slot = &mut self.slots[place];
        let Some(process) = &mut slot.process else {
            if slot.start.is_some_and(|at| at <= now) {
                self.start(place);
            }
            return;
        };
        for (part, condition) in process.health.parts() {
            // A key that is missing comes in the end; until then its partition stands still.
            if let Condition::Stopped(why) = condition
                && !why.contains("names keys that are not there")
            {
                let part = format!("{} {part}", slot.stage);
                if self.stopped.insert((part.clone(), why.clone())) {
                    self.trace.say(format_args!("{part} stopped: {why}"));
                }
            }
        }
        if process.thaw.take_if(|at| *at <= now).is_some() {
            self.trace.say(format_args!("{} {} goes on", slot.stage, process.host));
            // What stood still could not leave.
            process.told = process.told.map(|_| now);
            self.handle.thaw(process.group);
        }
        let standing = self.handle.standing(process.group);
        if standing.running == 0 {
            let told = process.told.is_some();
            assert!(
                told || standing.crashed,
                "{} {} ended although nobody told it to",
                slot.stage,
                process.host
            );
            let how = if standing.crashed { "crashed" } else { "has left" };
            self.trace.say(format_args!("{} {} {how}", slot.stage, process.host));
            self.network.leave(process.host);
            slot.process = None;
        } else if let Some(told) = process.told
            && process.thaw.is_none()
        {
            let leave_max = match slot.share {
                Share::Only(_) => LEAVE_MAX,
                Share::Member(_) => MEMBER_LEAVE_MAX,
            };
            assert!(now <= told + leave_max, "{} {} does not leave", slot.stage, process.host);
        }
    }

    fn start(&mut self, place: usize) {
        self.hosts += 1;
        let (host, slot) = (self.hosts, &mut self.slots[place]);
        self.trace.say(format_args!("{} {host} starts: {:?}", slot.stage, slot.share));
        let (network, off_ms) = (self.network.clone(), Arc::new(AtomicI64::new(0)));
        let shown = off_ms.clone();
        let clock = Clock::new(move || network.now().plus(shown.load(Ordering::Relaxed)));
        let log = self.network.join(host);
        let (stop, shutdown) = watch::channel(false);
        let context = Context {
            stand_by: self.settings.stand_by,
            snapshot_bytes: self.settings.snapshot_bytes,
            seed: self.dice.roll(),
            clock,
            ..Context::new(log, slot.stage, shutdown)
        };
        let health = context.health.clone();
        let group = self.handle.group();
        let (stage, keys) = (slot.stage, self.keys.clone());
        let (settings, handle) = (self.settings.clone(), self.handle.clone());
        let parts = move |context: &Context<Link>, partition| {
            run_beside(&handle, group, stages::parts(stage, context, partition, &settings, &keys))
        };
        let work: Vec<Work> = match &slot.share {
            _ if !stages::is_divided(stage) => vec![parts(&context, 0)],
            Share::Only(partitions) => {
                partitions.iter().map(|&partition| parts(&context, partition)).collect()
            }
            Share::Member(name) => {
                let born = self.dice.roll() >> 11;
                let sharing = Sharing::new(context, stage, name, born, self.settings.partitions, parts).run();
                vec![Box::pin(async move { LocalSet::new().run_until(sharing).await })]
            }
        };
        work.into_iter().for_each(|work| self.handle.spawn(group, work));
        slot.process = Some(Process { group, host, stop, health, off_ms, told: None, thaw: None });
        slot.start = Some(Instant::now() + Duration::from_millis(self.dice.below(1_500)));
    }

    /// Crashes the process at a place within so many of its polls.
    pub fn crash(&mut self, place: usize, polls: u64) {
        if let Some(process) = &self.slots[place].process {
            self.handle.light(process.group, polls);
        }
    }

    /// Stops the process at a place as SIGSTOP does, for so long.
    pub fn freeze(&mut self, place: usize, pause: Duration) {
        let slot = &mut self.slots[place];
        if let Some(process) = slot.process.as_mut().filter(|process| process.thaw.is_none()) {
            self.trace.say(format_args!("{} {} stands still for {pause:?}", slot.stage, process.host));
            process.thaw = Some(Instant::now() + pause);
            self.handle.freeze(process.group);
        }
    }

    /// Tells the process at a place to stop. The next one there starts at once, before it has left, or not at all.
    pub fn drain(&mut self, place: usize, again: bool) {
        let slot = &mut self.slots[place];
        if !again {
            slot.start = None;
        }
        if let Some(process) = slot.process.as_mut().filter(|process| process.told.is_none()) {
            self.trace.say(format_args!("{} {} is told to stop", slot.stage, process.host));
            process.told = Some(Instant::now());
            process.stop.send_replace(true);
        }
    }

    /// Gives a place another share, from its next process on.
    pub fn assign(&mut self, place: usize, share: Share) {
        let slot = &mut self.slots[place];
        slot.share = share;
        slot.start.get_or_insert_with(Instant::now);
    }

    /// Moves the clock of the process at a place.
    pub fn jump(&mut self, place: usize, by_ms: i64) {
        if let Some(process) = &self.slots[place].process {
            process.off_ms.fetch_add(by_ms, Ordering::Relaxed);
        }
    }

    /// The stage of a place.
    pub fn stage(&self, place: usize) -> StageName {
        self.slots[place].stage
    }

    /// The host of the process at a place.
    pub fn host(&self, place: usize) -> Option<u64> {
        self.slots[place].process.as_ref().map(|process| process.host)
    }

    /// Ends all trouble: everything goes on, clocks are right, nobody is about to crash, and every stage has a process
    /// for each partition, a member where `members` says so.
    pub fn heal(&mut self, members: bool) {
        let now = Instant::now();
        for slot in &mut self.slots {
            if let Some(process) = &mut slot.process {
                process.off_ms.store(0, Ordering::Relaxed);
                process.thaw = process.thaw.map(|_| now);
                self.handle.defuse(process.group);
            }
        }
        let all: BTreeSet<u16> = (0..self.settings.partitions).collect();
        for stage in stages::ALL {
            let staying = self
                .slots
                .iter()
                .filter(|slot| slot.stage == stage && slot.start.is_some())
                .filter(|slot| slot.process.as_ref().is_none_or(|process| process.told.is_none()));
            let covered: BTreeSet<u16> = staying
                .flat_map(|slot| match &slot.share {
                    Share::Only(partitions) => partitions.iter().copied().collect(),
                    Share::Member(_) => all.clone(),
                })
                .collect();
            if covered != all {
                let only = Share::Only(all.iter().copied().collect());
                let share = if members { self.member(false) } else { only };
                self.open(stage, share);
            }
        }
    }

    /// What is not yet as it must be when members have come to rest: each partition of a stage is run by one of them, and
    /// what they run differs by one at most.
    pub fn undivided(&self) -> Option<String> {
        let mut members: BTreeMap<StageName, Vec<Vec<String>>> = BTreeMap::new();
        for slot in self.slots.iter().filter(|slot| stages::is_divided(slot.stage)) {
            if let (Share::Member(_), Some(process)) = (&slot.share, &slot.process) {
                let parts = process.health.parts().into_iter().map(|(part, _)| part);
                let held = parts.filter(|part| part.starts_with("partition ")).collect();
                members.entry(slot.stage).or_default().push(held);
            }
        }
        members.into_iter().find_map(|(stage, held)| {
            let mut all = held.concat();
            all.sort();
            let expect: Vec<_> = (0..self.settings.partitions).map(|p| format!("partition {p}")).collect();
            let loads = || held.iter().map(Vec::len);
            let even = loads().max().unwrap_or(0) <= loads().min().unwrap_or(0) + 1;
            (all != expect || !even).then(|| format!("the members of {stage} have not divided it: {held:?}"))
        })
    }

    /// Tells everybody to stop, for good.
    pub fn drain_all(&mut self) {
        for place in 0..self.slots.len() {
            self.drain(place, false);
        }
    }

    /// Whether no process runs.
    pub fn is_still(&self) -> bool {
        self.slots.iter().all(|slot| slot.process.is_none())
    }

    /// What each part says of itself, for people.
    pub fn report(&self) -> String {
        let mut lines = Vec::new();
        for slot in &self.slots {
            let Some(process) = &slot.process else { continue };
            for (part, condition) in process.health.parts() {
                lines.push(format!("  {} {} {part}: {condition:?}", slot.stage, process.host));
            }
        }
        lines.join("\n")
    }
}

/// Runs parts as tasks of the process, which the executor polls and crashes one by one; what is given ends when they have.
fn run_beside(handle: &Handle, group: Group, parts: Vec<Work>) -> Work {
    let (running, mut ended) = mpsc::channel::<Infallible>(1);
    for part in parts {
        let running = running.clone();
        handle.spawn(
            group,
            Box::pin(async move {
                part.await;
                drop(running);
            }),
        );
    }
    drop(running);
    Box::pin(async move {
        if let Some(never) = ended.recv().await {
            match never {}
        }
    })
}
