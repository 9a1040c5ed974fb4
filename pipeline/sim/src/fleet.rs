//! The processes of all stages: started, crashed, frozen, told to stop and started again. Each runs the parts that its
//! stage's `main.rs` runs, over a connection and a clock of its own. Who does what when, `chaos` decides.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jackpot_core::health::{Condition, Health};
use jackpot_core::refusal::StageName;
use jackpot_core::runner::Context;
use jackpot_core::time::Clock;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::dice::Dice;
use crate::executor::{Group, Handle};
use crate::network::Network;
use crate::stages::{self, StageSettings};
use crate::trace::Trace;

/// A process that is told to stop has left after so long; see `jackpot_core::runner`.
const LEAVE_MAX: Duration = Duration::from_secs(13);

/// All processes.
pub struct Fleet {
    network: Arc<Network>,
    handle: Handle,
    settings: Rc<StageSettings>,
    trace: Trace,
    dice: Dice,
    slots: Vec<Slot>,
    hosts: u64,
    /// What parts that stopped have said: which, and the sentence.
    pub stopped: BTreeSet<(String, String)>,
}

/// A place for a process; what runs there changes.
pub struct Slot {
    /// Of which stage.
    pub stage: StageName,
    /// The partitions that its processes run.
    pub partitions: Vec<u16>,
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
        dice: Dice,
        trace: Trace,
    ) -> Self {
        let (settings, slots, stopped) = (Rc::new(settings), Vec::new(), BTreeSet::new());
        Self { network, handle, settings, trace, dice, slots, hosts: 1_000, stopped }
    }

    /// Opens a place; a process starts there soon.
    pub fn open(&mut self, stage: StageName, partitions: Vec<u16>) {
        let start = Some(Instant::now());
        self.slots.push(Slot { stage, partitions, process: None, start });
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
            if let Condition::Stopped(why) = condition {
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
            assert!(now <= told + LEAVE_MAX, "{} {} does not leave", slot.stage, process.host);
        }
    }

    fn start(&mut self, place: usize) {
        self.hosts += 1;
        let (host, slot) = (self.hosts, &mut self.slots[place]);
        self.trace.say(format_args!("{} {host} starts over partitions {:?}", slot.stage, slot.partitions));
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
        for part in stages::parts(slot.stage, &context, &slot.partitions, &self.settings) {
            self.handle.spawn(group, part);
        }
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

    /// Gives a place other partitions, from its next process on.
    pub fn assign(&mut self, place: usize, partitions: Vec<u16>) {
        let slot = &mut self.slots[place];
        slot.partitions = partitions;
        slot.start.get_or_insert_with(Instant::now);
    }

    /// Moves the clock of the process at a place.
    pub fn jump(&mut self, place: usize, by_ms: i64) {
        if let Some(process) = &self.slots[place].process {
            process.off_ms.fetch_add(by_ms, Ordering::Relaxed);
        }
    }

    /// The host of the process at a place.
    pub fn host(&self, place: usize) -> Option<u64> {
        self.slots[place].process.as_ref().map(|process| process.host)
    }

    /// Ends all trouble: everything goes on, clocks are right, nobody is about to crash, and every stage has a process
    /// for each partition.
    pub fn heal(&mut self) {
        let now = Instant::now();
        for slot in &mut self.slots {
            if let Some(process) = &mut slot.process {
                process.off_ms.store(0, Ordering::Relaxed);
                process.thaw = process.thaw.map(|_| now);
                self.handle.defuse(process.group);
            }
        }
        for stage in stages::ALL {
            let covered: BTreeSet<u16> = self
                .slots
                .iter()
                .filter(|slot| slot.stage == stage && slot.start.is_some())
                .filter(|slot| slot.process.as_ref().is_none_or(|process| process.told.is_none()))
                .flat_map(|slot| slot.partitions.clone())
                .collect();
            if covered.len() < usize::from(self.settings.partitions) {
                self.open(stage, (0..self.settings.partitions).collect());
            }
        }
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
