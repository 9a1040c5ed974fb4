//! The books, kept again: what the allocations, the hits and the terms make of each level, commit by commit (contract,
//! sections 4 and 5). Written from the contract; nothing of the ledger is used. [`crate::verify::commits`] compares.

use std::collections::BTreeMap;

use jackpot_core::money::{Micro, Pico};
use jackpot_core::names;
use jackpot_core::record::{self, LevelTotals, Pending, Window};
use jackpot_core::terms::{self, Terms};
use jackpot_core::time::Millis;

use crate::verify::sums::{Hit, Sum};
use crate::verify::windows::{Sums, Windows};

/// All levels.
#[derive(Debug, Default)]
pub struct Ledger {
    /// The lengths of windows, in seconds.
    seconds: Vec<u32>,
    pools: BTreeMap<String, Pool>,
}

#[derive(Debug)]
struct Pool {
    currency: String,
    levels: BTreeMap<String, Level>,
}

/// A level: what it was after the last commit that changed it, as it goes, and what it is run by.
#[derive(Debug)]
struct Level {
    now: LevelTotals,
    increment_ppm: u32,
    reserve_ppm: u32,
    /// The commit at hand has changed it.
    changed: bool,
    windows: Windows,
}

/// What holds for all of a commit.
#[derive(Debug, Clone, Copy)]
pub struct Stamp {
    /// Its number.
    pub commit: u64,
    /// The highest revision that has run.
    pub terms: u64,
    /// The latest receive time among what was consumed.
    pub as_of: Option<Millis>,
    /// The second up to which windows were closed before it,
    pub before: Option<i64>,
    /// and after it.
    pub after: Option<i64>,
}

/// What a commit did.
#[derive(Debug, Default)]
pub struct Did {
    /// The levels that it changed, by pool and level.
    pub levels: Vec<LevelTotals>,
    /// The windows that it closed, in the order in which they are published.
    pub windows: Vec<Window>,
}

impl Ledger {
    /// No level is known yet.
    pub fn new(seconds: &[u32]) -> Self {
        Self { seconds: seconds.to_vec(), pools: BTreeMap::new() }
    }

    /// Begins a commit: the base of a new level finds its window as soon as there is one.
    pub fn begin(&mut self, stamp: &Stamp) {
        self.levels().for_each(|level| level.windows.place_base(stamp));
    }

    /// Takes a revision up, at the beginning of a commit.
    pub fn learn(&mut self, terms: &Terms, stamp: &Stamp) {
        for pool in &terms.pools {
            let known = self
                .pools
                .entry(pool.pool.clone())
                .or_insert_with(|| Pool { currency: pool.currency.clone(), levels: BTreeMap::new() });
            for level in &pool.levels {
                match known.levels.get_mut(&level.level) {
                    Some(level_known) => level_known.learn(level),
                    None => {
                        let opened = Level::open(pool, level, &self.seconds, stamp);
                        known.levels.insert(level.level.clone(), opened);
                    }
                }
            }
        }
    }

    /// Posts a sum to the levels that its pool has in the frame's terms. What cannot be is a clause.
    pub fn sum(&mut self, sum: &Sum, terms: &Terms, stamp: &Stamp) -> Result<(), String> {
        let pool = terms.pools.iter().find(|pool| pool.pool == sum.pool);
        for listed in pool.iter().flat_map(|pool| &pool.levels) {
            self.level(&sum.pool, &listed.level)?.post(sum, stamp);
        }
        Ok(())
    }

    /// Pays a hit; gives it as it is published, but for its order.
    pub fn hit(&mut self, hit: &Hit, terms: u64, stamp: &Stamp) -> Result<record::Hit, String> {
        let currency = self.pools.get(&hit.pool).map(|pool| pool.currency.clone()).unwrap_or_default();
        Ok(self.level(&hit.pool, &hit.level)?.hit(hit, currency, terms, stamp))
    }

    /// Ends a commit.
    pub fn end(&mut self, stamp: &Stamp) -> Did {
        let mut did = Did::default();
        for level in self.levels() {
            if std::mem::take(&mut level.changed) {
                level.now.sequence += 1;
                level.now.commit = stamp.commit;
                level.now.terms = stamp.terms;
                level.now.as_of = stamp.as_of;
                level.now.display = floored(level.now.current, &level.now.currency);
                did.levels.push(level.now.clone());
            }
            level.windows.close(stamp, &mut did.windows);
        }
        did.windows.sort_by(|a, b| {
            let place = |window: &Window| (window.window_end, window.pool.clone(), window.level.clone());
            (place(a), a.seconds).cmp(&(place(b), b.seconds))
        });
        did
    }

    /// Goes on with what was recorded, so that one change is one finding.
    pub fn adopt(&mut self, recorded: &LevelTotals) {
        if let Ok(level) = self.level(&recorded.pool, &recorded.level) {
            level.now = recorded.clone();
        }
    }

    /// Every level with what it holds, and with what its windows add up to, by length.
    pub fn balances(&self) -> impl Iterator<Item = (&LevelTotals, &Windows)> {
        self.pools.values().flat_map(|pool| pool.levels.values()).map(|level| (&level.now, &level.windows))
    }

    /// A window was published in place of the one that was due, which may be another.
    pub fn published(&mut self, window: &Window, due: Option<&Window>) {
        if let Ok(level) = self.level(&window.pool, &window.level) {
            level.windows.published(window);
        }
        if let Some(due) = due
            && let Ok(level) = self.level(&due.pool, &due.level)
        {
            level.windows.settle(due);
        }
    }

    fn levels(&mut self) -> impl Iterator<Item = &mut Level> {
        self.pools.values_mut().flat_map(|pool| pool.levels.values_mut())
    }

    fn level(&mut self, pool: &str, level: &str) -> Result<&mut Level, String> {
        let found = self.pools.get_mut(pool).and_then(|pool| pool.levels.get_mut(level));
        found.ok_or_else(|| format!("no revision that has run knows the level {pool}/{level}"))
    }
}

impl Level {
    /// A new level starts at its base, which the house pays.
    fn open(pool: &terms::Pool, level: &terms::Level, seconds: &[u32], stamp: &Stamp) -> Self {
        let now = LevelTotals {
            pool: pool.pool.clone(),
            level: level.level.clone(),
            currency: pool.currency.clone(),
            sequence: 0,
            commit: 0,
            terms: 0,
            as_of: None,
            current: level.base,
            display: Pico::ZERO,
            base: level.base,
            ceiling: level.ceiling,
            pending: None,
            reserve: Pico::ZERO,
            diversion: Pico::ZERO,
            wagers: 0,
            wagered: Pico::ZERO,
            contributed: Pico::ZERO,
            paid: Pico::ZERO,
            house: level.base,
            adjusted: Pico::ZERO,
            hits: 0,
        };
        let mut windows = Windows::new(&now, seconds);
        windows.place_base(stamp);
        Self {
            now,
            increment_ppm: level.increment_ppm.0,
            reserve_ppm: level.reserve_ppm.0,
            changed: true,
            windows,
        }
    }

    /// Rates, and a ceiling below what there is, wait for the next hit; the rest holds at once.
    fn learn(&mut self, terms: &terms::Level) {
        let waits = |ceiling: &Pico| *ceiling < self.now.current && self.now.ceiling != Some(*ceiling);
        let pending = Pending {
            increment_ppm: (terms.increment_ppm.0 != self.increment_ppm).then_some(terms.increment_ppm),
            reserve_ppm: (terms.reserve_ppm.0 != self.reserve_ppm).then_some(terms.reserve_ppm),
            ceiling: terms.ceiling.filter(waits),
        };
        let ceiling = if pending.ceiling.is_some() { self.now.ceiling } else { terms.ceiling };
        let pending = (pending != Pending::default()).then_some(pending);
        (self.now.base, self.now.ceiling, self.now.pending) = (terms.base, ceiling, pending);
        // If only in that its total names the revision.
        self.changed = true;
    }

    fn post(&mut self, sum: &Sum, stamp: &Stamp) {
        let (increment, reserve) =
            (share(sum.eligible, self.increment_ppm), share(sum.eligible, self.reserve_ppm));
        let now = &mut self.now;
        let room = match now.ceiling {
            Some(ceiling) if ceiling <= now.current => Pico::ZERO,
            Some(ceiling) => increment.min(ceiling - now.current),
            None => increment,
        };
        now.current += room;
        now.diversion += increment - room;
        now.reserve += reserve;
        now.wagers += sum.wagers;
        now.wagered += Micro(sum.eligible).pico();
        now.contributed += increment + reserve;
        self.changed = true;
        self.windows.post(sum, increment + reserve, stamp);
    }

    fn hit(&mut self, hit: &Hit, currency: String, terms: u64, stamp: &Stamp) -> record::Hit {
        let now = &mut self.now;
        let payoff = floored(now.current, &currency);
        let from_diversion = now.diversion.min(now.base);
        let from_reserve = now.reserve.min(now.base - from_diversion);
        let from_house = now.base - from_diversion - from_reserve;
        now.current += now.base - payoff;
        now.diversion -= from_diversion;
        now.reserve -= from_reserve;
        now.house += from_house;
        now.paid += payoff;
        now.hits += 1;
        if let Some(pending) = now.pending.take() {
            self.increment_ppm = pending.increment_ppm.map_or(self.increment_ppm, |rate| rate.0);
            self.reserve_ppm = pending.reserve_ppm.map_or(self.reserve_ppm, |rate| rate.0);
            now.ceiling = pending.ceiling.or(now.ceiling);
        }
        self.changed = true;
        self.windows.hit(hit.occurred_at, payoff, from_house, stamp);
        record::Hit {
            pool: hit.pool.clone(),
            level: hit.level.clone(),
            currency,
            sequence: self.now.hits,
            commit: stamp.commit,
            order: 0,
            wager: hit.wager.clone(),
            operator: hit.operator.clone(),
            source: hit.source.clone(),
            game: hit.game.clone(),
            round: hit.round.clone(),
            jurisdiction: hit.jurisdiction.clone(),
            occurred_at: hit.occurred_at,
            recorded_at: hit.recorded_at,
            payoff,
            current: self.now.current,
            from_diversion,
            from_reserve,
            from_house,
            base: self.now.base,
            terms,
        }
    }
}

/// Millionths at parts per million are pico-units, exactly.
fn share(eligible: u128, ppm: u32) -> Pico {
    let exact = eligible.checked_mul(ppm.into()).and_then(|exact| i128::try_from(exact).ok());
    Pico(exact.expect("what a frame says of amounts is below 10³⁰"))
}

/// Down to a whole minor unit.
fn floored(amount: Pico, currency: &str) -> Pico {
    let unit = 10_i128.pow(12_u32.saturating_sub(names::minor_digits(currency)));
    Pico(amount.0 - amount.0.rem_euclid(unit))
}

/// Whether a level's books balance.
pub fn balances(level: &LevelTotals) -> bool {
    level.current + level.reserve + level.diversion
        == level.contributed + level.house + level.adjusted - level.paid
}

/// What of a level its windows must add up to.
pub fn sums(level: &LevelTotals) -> Sums {
    Sums {
        wagers: level.wagers,
        wagered: level.wagered,
        contributed: level.contributed,
        paid: level.paid,
        house: level.house,
        hits: level.hits,
    }
}
