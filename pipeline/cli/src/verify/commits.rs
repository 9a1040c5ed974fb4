//! The record of the ledger against the books that are kept again: the chain of commits, the frames that each says it
//! consumed, and the levels, hits and windows that it holds. [`crate::verify`] hands in the frames.

use std::collections::VecDeque;

use jackpot_core::digest::Digest;
use jackpot_core::log::Entry;
use jackpot_core::record::{self, Commit, Consumed, Counts, LevelTotals, Window};
use jackpot_core::terms::Terms;
use jackpot_core::time::Millis;
use jackpot_core::topology;
use serde_json::Value;

use crate::verify::findings::{Check, Findings, Place};
use crate::verify::lane::{Contributed, Work};
use crate::verify::ledger::{self, Did, Ledger, Stamp};
use crate::verify::sums::Item;
use crate::verify::windows::passed;

/// A commit of at least so many bytes may leave closed windows to the next one without taking any.
const FULL_BYTES: usize = 512 * 1_024;

/// The record, up to some commit.
pub struct Record {
    previous: Digest,
    ledger: Ledger,
    partitions: Vec<Consumed>,
    terms: u64,
    as_of: Option<Millis>,
    counts: Counts,
    /// The watermark that windows have been closed by.
    watermark: Option<Millis>,
    seconds: Option<Vec<u32>>,
    /// Closed windows that no commit has published yet.
    due: VecDeque<Window>,
}

/// A commit while its frames are posted.
pub struct Open {
    commit: Commit,
    bytes: usize,
    stamp: Stamp,
    hits: Vec<record::Hit>,
    /// The revision that its frames call for.
    called: u64,
}

impl Record {
    /// Before the first commit.
    pub fn new(partitions: u16) -> Self {
        Self {
            previous: Digest::ZERO,
            ledger: Ledger::default(),
            partitions: vec![Consumed::default(); usize::from(partitions)],
            terms: 0,
            as_of: None,
            counts: Counts::default(),
            watermark: None,
            seconds: None,
            due: VecDeque::new(),
        }
    }

    /// Reads a commit and checks its place in the chain; `None` when nothing can be done with it.
    pub fn read(&mut self, entry: &Entry, findings: &mut Findings) -> Option<Commit> {
        findings.count(Check::Commits, 1);
        let mut fault = |what: String| {
            findings.fault(Check::Commits, Place::of(topology::COMMITS, entry.sequence), what);
        };
        let commit = serde_json::from_slice::<Commit>(&entry.payload);
        let previous = std::mem::replace(&mut self.previous, Digest::of(&entry.payload));
        let commit = match commit {
            Ok(commit) => commit,
            Err(error) => {
                fault(format!("the commit cannot be read ({error})"));
                return None;
            }
        };
        if commit.commit != entry.sequence {
            fault(format!("the message says that it is commit {}", commit.commit));
        }
        if commit.previous != previous {
            fault("the commit does not follow the one before it: one of the two was changed".into());
        }
        let seconds = self.seconds.get_or_insert_with(|| {
            self.ledger = Ledger::new(&commit.settings.seconds);
            commit.settings.seconds.clone()
        });
        if *seconds != commit.settings.seconds {
            fault("the lengths of windows are others than those of the first commit".into());
        }
        if commit.partitions.len() != self.partitions.len() {
            fault(format!("it has {} partitions of {}", commit.partitions.len(), self.partitions.len()));
            return None;
        }
        Some(commit)
    }

    /// Begins a commit, of which `terms` are those that it takes up, if it takes any up.
    pub fn begin(&mut self, commit: Commit, bytes: usize, terms: Option<&Terms>) -> Open {
        let watermarks: Vec<_> = commit.partitions.iter().map(|consumed| consumed.watermark).collect();
        let before = self.watermark;
        self.watermark = before.max(passed(&watermarks, commit.settings.max_skew_s));
        let second = |at: Option<Millis>| at.map(|at| at.0.div_euclid(1_000));
        let stamp = Stamp {
            commit: commit.commit,
            terms: commit.terms,
            as_of: commit.as_of,
            before: second(before),
            after: second(self.watermark),
        };
        self.ledger.begin(&stamp);
        if let Some(terms) = terms {
            self.ledger.learn(terms, &stamp);
        }
        Open { commit, bytes, stamp, hits: Vec::new(), called: self.terms }
    }

    /// The last frame of a partition that has been consumed.
    pub fn consumed(&self, partition: usize) -> u64 {
        self.partitions.get(partition).map_or(0, |consumed| consumed.frame)
    }

    /// The highest revision that has run.
    pub fn terms(&self) -> u64 {
        self.terms
    }

    /// Posts a frame of the commit; frames come in log order.
    pub fn post(&mut self, open: &mut Open, work: &Work, findings: &mut Findings) {
        let Some(header) = &work.header else { return };
        open.called = open.called.max(header.terms);
        self.as_of = self.as_of.max(Some(header.recorded_at));
        let consumed = &mut self.partitions[usize::from(header.partition)];
        consumed.watermark = consumed.watermark.max(header.watermark);
        let Some(terms) = work.terms.as_deref() else { return };
        for item in &work.items {
            let posted = match item {
                Item::Sum(sum) => self.ledger.sum(sum, terms, &open.stamp),
                Item::Hit(hit) => self.ledger.hit(hit, header.terms, &open.stamp).map(|hit| {
                    let order = u32::try_from(open.hits.len()).unwrap_or(u32::MAX);
                    open.hits.push(record::Hit { order, ..hit });
                }),
            };
            if let Err(what) = posted {
                let place = Place::of(topology::COMMITS, open.commit.commit);
                findings.fault(Check::Books, place, what);
            }
        }
    }

    /// Ends a commit: compares all that it holds. `contributed` are the last frames that were consumed.
    pub fn end(&mut self, open: Open, contributed: &[Option<Contributed>], findings: &mut Findings) {
        let Open { commit, bytes, stamp, hits, called } = open;
        let Did { levels, windows } = self.ledger.end(&stamp);
        self.due.extend(windows);
        self.check_frames(&commit, called, contributed, findings);
        self.check_hits(&commit, &hits, findings);
        self.check_levels(&commit, &levels, findings);
        self.check_windows(&commit, bytes, findings);
        self.check_counts(&commit, findings);
    }

    fn check_frames(
        &mut self,
        commit: &Commit,
        called: u64,
        contributed: &[Option<Contributed>],
        findings: &mut Findings,
    ) {
        let mut fault =
            |what: String| findings.fault(Check::Commits, Place::of(topology::COMMITS, commit.commit), what);
        for (partition, (known, told)) in self.partitions.iter_mut().zip(&commit.partitions).enumerate() {
            match contributed.get(partition).copied().flatten() {
                Some(Contributed { digest, written }) if digest != told.digest => fault(format!(
                    "frame {} of contributions-{partition} is not the one that it consumed{}",
                    told.frame,
                    if written { ", as the allocations give it" } else { "" }
                )),
                _ => {}
            }
            if told.frame < known.frame {
                fault(format!("it says that partition {partition} goes back to frame {}", told.frame));
            }
            if told.watermark < known.watermark {
                fault(format!("the watermark of partition {partition} lies before what had been reached"));
            }
            *known = *told;
        }
        if commit.terms < called {
            fault(format!(
                "it runs revision {} of the terms, and its frames are under {called}",
                commit.terms
            ));
        }
        self.terms = self.terms.max(commit.terms);
        if commit.as_of != self.as_of {
            fault("`as_of` is not the latest receive time of what was consumed".into());
            self.as_of = commit.as_of;
        }
    }

    fn check_hits(&mut self, commit: &Commit, due: &[record::Hit], findings: &mut Findings) {
        findings.count(Check::Hits, due.len());
        let mut fault = |wager: &str, what: String| {
            let place = Place::of(topology::COMMITS, commit.commit).wager(wager);
            findings.fault(Check::Hits, place, what);
        };
        for (index, due) in due.iter().enumerate() {
            match commit.hits.get(index) {
                None => fault(&due.wager, format!("the hit of {}/{} is not recorded", due.pool, due.level)),
                Some(told) => {
                    if let Some(what) = difference(due, told) {
                        fault(&told.wager, format!("hit {index} of the commit: {what}"));
                    }
                }
            }
        }
        for told in commit.hits.iter().skip(due.len()) {
            fault(&told.wager, format!("no such hit of {}/{} was allocated", told.pool, told.level));
        }
    }

    fn check_levels(&mut self, commit: &Commit, due: &[LevelTotals], findings: &mut Findings) {
        let place = || Place::of(topology::COMMITS, commit.commit);
        let name = |level: &LevelTotals| (level.pool.clone(), level.level.clone());
        findings.count(Check::Books, commit.levels.len());
        for told in &commit.levels {
            let found = due.iter().find(|due| name(due) == name(told));
            let what = match found {
                None => Some("it is recorded as changed, and nothing changed it".to_owned()),
                Some(due) => difference(due, told),
            };
            if let Some(what) = what {
                findings.fault(Check::Books, place(), format!("{}/{}: {what}", told.pool, told.level));
                self.ledger.adopt(told);
            }
            if !ledger::balances(told) {
                let what = format!(
                    "{}/{}: current + reserve + diversion is not contributed + house + adjusted − paid",
                    told.pool, told.level
                );
                findings.fault(Check::Books, place(), what);
            }
        }
        for due in due.iter().filter(|due| !commit.levels.iter().any(|told| name(told) == name(due))) {
            let what = format!("{}/{} changed, and is not recorded", due.pool, due.level);
            findings.fault(Check::Books, place(), what);
        }
        if !commit.levels.iter().map(name).is_sorted() {
            findings.fault(Check::Books, place(), "the levels are not in the order of pool and level");
        }
    }

    fn check_windows(&mut self, commit: &Commit, bytes: usize, findings: &mut Findings) {
        let mut fault = |what: String| {
            findings.fault(Check::Windows, Place::of(topology::COMMITS, commit.commit), what);
        };
        let name = |window: &Window| {
            format!("{} s of {}/{} from {}", window.seconds, window.pool, window.level, window.window_start)
        };
        for told in &commit.windows {
            let at = self.due.iter().position(|due| name(due) == name(told));
            let due = at.and_then(|at| self.due.remove(at));
            match (&due, at) {
                (Some(due), at) => {
                    let due = Window { commit: commit.commit, ..due.clone() };
                    if at != Some(0) {
                        fault(format!("{}: others were due before it", name(told)));
                    }
                    if let Some(what) = difference(&due, told) {
                        fault(format!("{}: {what}", name(told)));
                    }
                }
                (None, _) => fault(format!("{}: no such window was due", name(told))),
            }
            self.ledger.published(told, due.as_ref());
        }
        if commit.windows.is_empty() && !self.due.is_empty() && bytes < FULL_BYTES {
            fault(format!("{} closed windows are due, and it publishes none", self.due.len()));
        }
        findings.count(Check::Windows, commit.windows.len());
    }

    fn check_counts(&mut self, commit: &Commit, findings: &mut Findings) {
        let count = |len: usize| u64::try_from(len).unwrap_or(u64::MAX);
        let due = Counts {
            windows: self.counts.windows + count(commit.windows.len()),
            hits: self.counts.hits + count(commit.hits.len()),
            changed: if commit.levels.is_empty() { self.counts.changed } else { commit.commit },
        };
        if due != commit.counts {
            let what = "its cumulative counts do not continue those of the commit before";
            findings.fault(Check::Commits, Place::of(topology::COMMITS, commit.commit), what);
        }
        self.counts = commit.counts;
    }

    /// After the last commit: what windows add up to is what the levels hold.
    pub fn finish(&self, last: u64, findings: &mut Findings) {
        for (level, windows) in self.ledger.balances() {
            let due = ledger::sums(level);
            for (seconds, sums) in windows.sums().filter(|(_, sums)| *sums != due) {
                let what = format!(
                    "{}/{}: the windows of {seconds} s add up to {} wagers with {} contributed, and its total says {} \
                     with {}",
                    level.pool, level.level, sums.wagers, sums.contributed, due.wagers, due.contributed
                );
                findings.fault(Check::Windows, Place::of(topology::COMMITS, last), what);
            }
        }
    }
}

/// The first field in which what is recorded differs from what is due, as a clause.
fn difference<T: serde::Serialize + PartialEq>(due: &T, told: &T) -> Option<String> {
    if due == told {
        return None;
    }
    let read = |value: &T| serde_json::to_value(value).unwrap_or_default();
    let (due, told) = (read(due), read(told));
    let (Value::Object(due), Value::Object(told)) = (due, told) else { return Some("it differs".into()) };
    let none = Value::Null;
    let differs = due.keys().chain(told.keys()).find_map(|key| {
        let (due, told) = (due.get(key).unwrap_or(&none), told.get(key).unwrap_or(&none));
        (due != told).then(|| format!("`{key}` is {told}, and {due} by the allocations"))
    });
    differs.or_else(|| Some("it differs".into()))
}
