//! The state that is shown: levels, hits and the last minute's sums, as of a commit. Pure: commits in, JSON out.
//! Levels and hits are handed on as they were committed, byte for byte; no amount is ever made up here.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use anyhow::Context;
use jackpot_core::log::Entry;
use jackpot_core::money::Pico;
use jackpot_core::names;
use jackpot_core::record::{Commit, Consumed, Hit, LevelTotals, Window, WindowSettings};
use jackpot_core::time::Millis;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::recent::{By, Flow, Flows, SPAN_MS, Shares};

/// How many of the last hits are kept.
pub const HITS_KEPT: usize = 20;

/// A pool and a level.
pub type LevelName = (String, String);

/// All that is shown.
#[derive(Debug, Default)]
pub struct Board {
    head: Option<Head>,
    levels: BTreeMap<LevelName, Level>,
    pools: BTreeMap<String, Shares>,
    /// The newest last.
    hits: VecDeque<(Hit, Box<RawValue>)>,
    changes: Changes,
}

/// As of which commit the rest is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Head {
    /// Its number.
    pub commit: u64,
    /// When the broker stored it.
    pub committed_at: Millis,
    /// The highest revision of the terms that has run.
    pub terms: u64,
    /// The latest broker receive time among what was consumed.
    pub as_of: Option<Millis>,
    /// Up to when windows are closed, of the shortest length.
    pub windows_to: Option<Millis>,
    #[serde(skip)]
    seconds: u32,
}

/// A level, and its last minute.
#[derive(Debug)]
pub struct Level {
    /// As it was committed.
    pub totals: LevelTotals,
    stored: Box<RawValue>,
    flows: Flows,
}

impl Level {
    /// What it did in the last minute of closed windows.
    pub fn flow(&self) -> Flow {
        self.flows.sum()
    }

    /// Each of the windows of that minute, by its end, oldest first.
    pub fn flows(&self) -> impl DoubleEndedIterator<Item = (Millis, Flow)> {
        self.flows.windows()
    }
}

/// What has changed since it was last told.
#[derive(Debug, Default)]
struct Changes {
    head: bool,
    levels: BTreeSet<LevelName>,
    flows: BTreeSet<LevelName>,
    pools: BTreeSet<String>,
    hits: usize,
}

/// A commit, its levels and hits as they are written.
#[derive(Deserialize)]
struct Written<'a> {
    commit: u64,
    terms: u64,
    as_of: Option<Millis>,
    partitions: Vec<Consumed>,
    settings: WindowSettings,
    #[serde(borrow)]
    levels: Vec<&'a RawValue>,
    windows: Vec<Window>,
    #[serde(borrow)]
    hits: Vec<&'a RawValue>,
}

impl Board {
    /// Takes in a commit. One that is already in changes nothing.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn commit(&mut self, entry: &Entry) -> anyhow::Result<()> {
        let read =
            || format!("commit {} cannot be read; run this command in the stages' version", entry.sequence);
        let written: Written = serde_json::from_slice(&entry.payload).with_context(read)?;
        for json in &written.levels {
            self.level(json.get()).with_context(read)?;
        }
        for window in &written.windows {
            self.window(window, &written.settings);
        }
        for json in &written.hits {
            self.hit(json.get()).with_context(read)?;
        }
        if self.head.as_ref().is_none_or(|head| head.commit < written.commit) {
            self.stand(written.commit, entry.recorded_at, written.terms, written.as_of);
            self.close(&written.partitions, &written.settings);
        }
        Ok(())
    }

    /// The commit that what was taken in so far is of.
    pub fn begin(&mut self, commit: &Commit, committed_at: Millis) {
        self.stand(commit.commit, committed_at, commit.terms, commit.as_of);
        self.close(&commit.partitions, &commit.settings);
    }

    fn stand(&mut self, commit: u64, committed_at: Millis, terms: u64, as_of: Option<Millis>) {
        let (windows_to, seconds) =
            self.head.as_ref().map_or((None, 1), |head| (head.windows_to, head.seconds));
        self.head = Some(Head { commit, committed_at, terms, as_of, windows_to, seconds });
        self.changes.head = true;
    }

    /// A level as it was committed. An older state than the one that is there changes nothing.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn level(&mut self, json: &str) -> anyhow::Result<()> {
        let totals: LevelTotals = serde_json::from_str(json)?;
        let stored = RawValue::from_string(json.to_owned())?;
        let name = (totals.pool.clone(), totals.level.clone());
        if let Some(level) = self.levels.get_mut(&name) {
            if level.totals.sequence >= totals.sequence {
                return Ok(());
            }
            (level.totals, level.stored) = (totals, stored);
        } else {
            self.levels.insert(name.clone(), Level { totals, stored, flows: Flows::default() });
        }
        self.changes.levels.insert(name);
        Ok(())
    }

    /// A closed window; those of the shortest length count.
    pub fn window(&mut self, window: &Window, settings: &WindowSettings) {
        let Some(level) = self.levels.get_mut(&(window.pool.clone(), window.level.clone())) else { return };
        if settings.seconds.first() == Some(&window.seconds) && level.flows.push(window) {
            self.pools.entry(window.pool.clone()).or_default().push(window);
            self.changes.flows.insert((window.pool.clone(), window.level.clone()));
            self.changes.pools.insert(window.pool.clone());
        }
    }

    /// A hit as it was committed, unless it is there already.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn hit(&mut self, json: &str) -> anyhow::Result<()> {
        let hit: Hit = serde_json::from_str(json)?;
        let place = |hit: &Hit| (hit.commit, hit.order);
        if self.hits.back().is_some_and(|(last, _)| place(last) >= place(&hit)) {
            return Ok(());
        }
        self.hits.push_back((hit, RawValue::from_string(json.to_owned())?));
        if self.hits.len() > HITS_KEPT {
            self.hits.pop_front();
        }
        self.changes.hits = (self.changes.hits + 1).min(HITS_KEPT);
        Ok(())
    }

    /// Windows are closed up to the lowest watermark, or the end of the last one that was closed without it.
    fn close(&mut self, partitions: &[Consumed], settings: &WindowSettings) {
        let Some(head) = &mut self.head else { return };
        head.seconds = settings.seconds.first().copied().unwrap_or(1).max(1);
        let length = i64::from(head.seconds) * 1_000;
        let watermark = partitions.iter().map(|consumed| consumed.watermark).min().flatten();
        let whole = watermark.map(|at| Millis(at.0.div_euclid(length) * length));
        let ends = self.levels.values().filter_map(|level| level.flows.windows().next_back());
        let to = head.windows_to.max(whole).max(ends.map(|(end, _)| end).max());
        head.windows_to = to;
        let Some(to) = to else { return };
        let by = to.plus(-SPAN_MS.max(length));
        for (name, level) in &mut self.levels {
            if level.flows.expire(by) {
                self.changes.flows.insert(name.clone());
            }
        }
        for (pool, shares) in &mut self.pools {
            if shares.expire(by) {
                self.changes.pools.insert(pool.clone());
            }
        }
    }

    /// As of which commit all is; `None` before the first.
    pub fn head(&self) -> Option<&Head> {
        self.head.as_ref()
    }

    /// The levels.
    pub fn levels(&self) -> &BTreeMap<LevelName, Level> {
        &self.levels
    }

    /// The last hits, the newest first.
    pub fn hits(&self) -> impl Iterator<Item = &Hit> {
        self.hits.iter().rev().map(|(hit, _)| hit)
    }

    /// A pool's contributions of the last minute.
    pub fn shares(&self, pool: &str) -> Option<&Shares> {
        self.pools.get(pool)
    }

    /// Over how many seconds the sums of the last minute are.
    pub fn span_seconds(&self) -> i64 {
        let length = self.head.as_ref().map_or(1, |head| head.seconds);
        (SPAN_MS / 1_000).max(i64::from(length))
    }

    /// Whether anything has changed since it was last told.
    pub fn changed(&self) -> bool {
        let Changes { head, levels, flows, pools, hits } = &self.changes;
        *head || *hits > 0 || !levels.is_empty() || !flows.is_empty() || !pools.is_empty()
    }

    /// Everything, for whoever knows nothing yet.
    pub fn whole(&self) -> Told<'_> {
        self.told(true, self.levels.keys(), self.levels.keys(), self.pools.keys(), self.hits.len())
    }

    /// What has changed since this was last asked, turned into text by `write`. Shares are left for later unless `shares`.
    pub fn take_changes<T>(&mut self, shares: bool, write: impl FnOnce(&Told<'_>) -> T) -> T {
        let mut changes = std::mem::take(&mut self.changes);
        let pools = if shares { std::mem::take(&mut changes.pools) } else { BTreeSet::new() };
        let told = self.told(false, &changes.levels, &changes.flows, &pools, changes.hits);
        let written = write(&told);
        self.changes.pools = changes.pools;
        written
    }

    fn told<'a>(
        &'a self,
        whole: bool,
        levels: impl IntoIterator<Item = &'a LevelName>,
        flows: impl IntoIterator<Item = &'a LevelName>,
        pools: impl IntoIterator<Item = &'a String>,
        hits: usize,
    ) -> Told<'a> {
        let levels: Vec<_> = levels.into_iter().filter_map(|name| self.levels.get(name)).collect();
        let currencies = levels.iter().map(|level| level.totals.currency.as_str());
        Told {
            whole,
            head: self.head.as_ref(),
            seconds: self.span_seconds(),
            digits: currencies.map(|code| (code, names::minor_digits(code))).collect(),
            flows: flows.into_iter().filter_map(|name| self.levels.get(name)).map(TellFlow::of).collect(),
            pools: pools
                .into_iter()
                .filter_map(|pool| Some(self.tell_shares(pool, self.pools.get(pool)?)))
                .collect(),
            hits: self
                .hits
                .iter()
                .skip(self.hits.len() - hits.min(self.hits.len()))
                .map(|(_, json)| &**json)
                .collect(),
            levels: levels.into_iter().map(|level| &*level.stored).collect(),
        }
    }

    fn tell_shares<'a>(&'a self, pool: &'a str, shares: &'a Shares) -> TellShares<'a> {
        let to = self.head.as_ref().and_then(|head| head.windows_to);
        let from = to.map(|to| to.plus(-self.span_seconds() * 1_000).max(shares.expired()));
        let (by_jurisdiction, by_operator) = (shares.by(By::Jurisdiction), shares.by(By::Operator));
        TellShares { pool, from, to, by_jurisdiction, by_operator }
    }
}

/// What a reader is told, whole or only what has changed.
#[derive(Debug, Serialize)]
pub struct Told<'a> {
    /// Whether it is everything.
    whole: bool,
    #[serde(flatten)]
    head: Option<&'a Head>,
    /// Over how many seconds `flows` are.
    seconds: i64,
    /// The decimals of the minor unit of each currency.
    digits: BTreeMap<&'a str, u32>,
    /// As they were committed.
    levels: Vec<&'a RawValue>,
    flows: Vec<TellFlow<'a>>,
    pools: Vec<TellShares<'a>>,
    /// As they were committed, the newest last.
    hits: Vec<&'a RawValue>,
}

#[derive(Debug, Serialize)]
struct TellFlow<'a> {
    pool: &'a str,
    level: &'a str,
    wagers: u64,
    contributed: Pico,
    change: Pico,
}

impl<'a> TellFlow<'a> {
    fn of(level: &'a Level) -> Self {
        let LevelTotals { pool, level: name, .. } = &level.totals;
        let Flow { wagers, contributed, change } = level.flow();
        Self { pool, level: name, wagers, contributed, change }
    }
}

#[derive(Debug, Serialize)]
struct TellShares<'a> {
    pool: &'a str,
    from: Option<Millis>,
    to: Option<Millis>,
    by_jurisdiction: BTreeMap<&'a str, Pico>,
    by_operator: BTreeMap<&'a str, Pico>,
}
