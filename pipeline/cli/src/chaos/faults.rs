//! Does to the processes what the plan says, when it is due, and looks at their memory meanwhile.
//! `up` gives a process up that dies ten times within a minute (contract, section 7): none is killed that often.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use jackpot_core::time::Millis;
use rustix::process::Signal;
use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::memory::Memory;
use super::pipeline::{Pipeline, Process};
use super::plan::{Action, Plan, Planned};

/// Deaths of one process within [`DEATHS_WITHIN`] at most: well below those that make `up` give up.
const DEATHS_MAX: usize = 6;
/// See [`DEATHS_MAX`].
const DEATHS_WITHIN: Duration = Duration::from_secs(65);
/// How often the memory of all processes is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A fault that was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Fault {
    /// What was done to whom: `kill validate`, `stop audit`, `restart`.
    pub(super) kind: String,
    /// When it was done,
    pub(super) at: Millis,
    /// and when it was over: a held process goes on.
    pub(super) over: Millis,
}

/// What was done, and what was seen.
#[derive(Debug)]
pub(super) struct Disturbed {
    pub(super) faults: Vec<Fault>,
    pub(super) memory: Memory,
}

/// Does all of a plan; returns after `lasts`, with nobody held.
pub(super) async fn disturb(
    pipeline: &mut Pipeline,
    plan: &Plan,
    lasts: Duration,
) -> anyhow::Result<Disturbed> {
    let began = Instant::now();
    let mut hand = Hand { pipeline, held: Vec::new(), deaths: BTreeMap::new(), faults: Vec::new() };
    let mut memory = Memory::default();
    let mut planned: VecDeque<Planned> = plan.faults.iter().copied().collect();
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let end = began + lasts;
        let due = planned.front().map_or(end, |fault| began + fault.due);
        let release = hand.held.iter().map(|held| held.until).min();
        tokio::select! {
            biased;
            () = sleep_until(release.unwrap_or(due)), if release.is_some() => hand.let_go(Instant::now())?,
            () = sleep_until(due) => match planned.pop_front() {
                Some(fault) => hand.fault(fault).await?,
                None if hand.held.is_empty() => return Ok(Disturbed { faults: hand.faults, memory }),
                None => hand.let_go(began + lasts + DEATHS_WITHIN)?,
            },
            _ = looks.tick() => memory.note(began.elapsed(), &hand.pipeline.processes()?),
        }
    }
}

/// A process that is held, and until when.
#[derive(Debug)]
struct Held {
    process: Process,
    until: Instant,
    /// Its place among the faults.
    fault: usize,
}

/// Who does it.
#[derive(Debug)]
struct Hand<'a> {
    pipeline: &'a mut Pipeline,
    held: Vec<Held>,
    /// When each process was killed last.
    deaths: BTreeMap<String, VecDeque<Instant>>,
    faults: Vec<Fault>,
}

impl Hand<'_> {
    async fn fault(&mut self, planned: Planned) -> anyhow::Result<()> {
        match planned.action {
            Action::Kill => self.kill(planned.draw),
            Action::Hold(held) => self.hold(planned.draw, held),
            Action::Restart => self.restart().await,
        }
    }

    fn kill(&mut self, draw: u64) -> anyhow::Result<()> {
        let now = Instant::now();
        let mut worn = BTreeSet::new();
        for (label, deaths) in &mut self.deaths {
            while deaths.front().is_some_and(|&death| now - death > DEATHS_WITHIN) {
                deaths.pop_front();
            }
            if deaths.len() >= DEATHS_MAX {
                worn.insert(label.clone());
            }
        }
        let mut processes = self.pipeline.processes()?;
        processes.retain(|process| !worn.contains(&process.label));
        let Some(process) = drawn(processes, draw) else { return Ok(()) };
        process.signal(Signal::KILL)?;
        self.deaths.entry(process.label.clone()).or_default().push_back(now);
        self.held.retain(|held| held.process != process);
        self.done(format!("kill {}", process.label));
        Ok(())
    }

    fn hold(&mut self, draw: u64, lasts: Duration) -> anyhow::Result<()> {
        let mut processes = self.pipeline.processes()?;
        processes.retain(|process| self.held.iter().all(|held| held.process != *process));
        let Some(process) = drawn(processes, draw) else { return Ok(()) };
        process.signal(Signal::STOP)?;
        let fault = self.faults.len();
        self.done(format!("stop {}", process.label));
        self.held.push(Held { process, until: Instant::now() + lasts, fault });
        Ok(())
    }

    async fn restart(&mut self) -> anyhow::Result<()> {
        self.held.clear();
        self.done("restart".into());
        self.pipeline.kill().await?;
        self.deaths.clear();
        self.pipeline.start().await
    }

    /// Lets those go on whose time it is.
    fn let_go(&mut self, now: Instant) -> anyhow::Result<()> {
        for held in self.held.extract_if(.., |held| held.until <= now) {
            held.process.signal(Signal::CONT)?;
            self.faults[held.fault].over = Millis::now();
        }
        Ok(())
    }

    fn done(&mut self, kind: String) {
        let at = Millis::now();
        self.faults.push(Fault { kind, at, over: at });
    }
}

/// The process that is drawn.
fn drawn(mut processes: Vec<Process>, draw: u64) -> Option<Process> {
    let count = u64::try_from(processes.len()).ok().filter(|&count| count > 0)?;
    let place = usize::try_from(draw % count).ok()?;
    Some(processes.swap_remove(place))
}
