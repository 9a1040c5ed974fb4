//! A naive model of the ledger that shares no code with it: plain integers, one wager after the other, windows in
//! one flat map. What it says is compared with what the books say, commit by commit.

use std::collections::BTreeMap;

use jackpot_core::terms::Terms;

use crate::world::Post;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Level {
    pub currency: String,
    pub base: i128,
    pub ceiling: Option<i128>,
    pub increment: i128,
    pub reserve_rate: i128,
    pub next_increment: Option<i128>,
    pub next_reserve_rate: Option<i128>,
    pub next_ceiling: Option<i128>,
    pub current: i128,
    pub reserve: i128,
    pub diversion: i128,
    pub wagers: u64,
    pub wagered: i128,
    pub contributed: i128,
    pub paid: i128,
    pub house: i128,
    pub hits: u64,
}

/// `(end, pool, level, seconds)`: the order in which windows are published.
pub type Key = (i64, String, String, i64);

/// Wagers, wagered, contributed.
pub type Part = (u64, i128, i128);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Window {
    pub total: Part,
    pub late: u64,
    pub paid: i128,
    pub house: i128,
    pub hits: u64,
    /// By `o:<operator>`, `j:<jurisdiction>`, `g:<game>` and `p:<operator>/<jurisdiction>`.
    pub parts: BTreeMap<String, Part>,
}

#[derive(Debug, Default)]
pub struct Model {
    pub levels: BTreeMap<(String, String), Level>,
    pub open: BTreeMap<Key, Window>,
    pub payoffs: Vec<(String, String, i128)>,
    pub lengths: Vec<i64>,
    pub partitions: Vec<Option<i64>>,
    pub skew_ms: i64,
    /// In milliseconds.
    pub watermark: Option<i64>,
    /// Bases that no window has yet.
    homeless: Vec<(String, String, i128)>,
}

impl Model {
    pub fn new(partitions: usize, lengths: &[i64], skew_s: i64) -> Self {
        Self {
            lengths: lengths.into(),
            partitions: vec![None; partitions],
            skew_ms: skew_s * 1_000,
            ..Self::default()
        }
    }

    /// Begins a commit: watermarks are those of the whole commit, and what they close is closed at its end.
    pub fn begin(&mut self, terms: Option<&Terms>, watermarks: &[Option<i64>]) -> Option<i64> {
        for (mine, given) in self.partitions.iter_mut().zip(watermarks) {
            *mine = (*mine).max(*given);
        }
        let greatest = self.partitions.iter().flatten().max().copied();
        let everybody = self.partitions.iter().copied().collect::<Option<Vec<i64>>>();
        let least = everybody.and_then(|all| all.into_iter().min());
        let after = [self.watermark, least, greatest.map(|at| at - self.skew_ms)].into_iter().flatten().max();
        if let Some(terms) = terms {
            self.learn(terms);
        }
        if let Some(at) = self.watermark.or(after) {
            for (pool, level, base) in std::mem::take(&mut self.homeless) {
                for length in self.lengths.clone() {
                    self.window(&pool, &level, length, at.div_euclid(1_000)).house += base;
                }
            }
        }
        after
    }

    fn learn(&mut self, terms: &Terms) {
        for pool in &terms.pools {
            for new in &pool.levels {
                let key = (pool.pool.clone(), new.level.clone());
                let (increment, reserve) = (i128::from(new.increment_ppm.0), i128::from(new.reserve_ppm.0));
                let ceiling = new.ceiling.map(|ceiling| ceiling.0);
                let Some(level) = self.levels.get_mut(&key) else {
                    let base = new.base.0;
                    let level = Level {
                        currency: pool.currency.clone(),
                        base,
                        ceiling,
                        increment,
                        reserve_rate: reserve,
                        current: base,
                        house: base,
                        ..Level::default()
                    };
                    self.levels.insert(key.clone(), level);
                    if base != 0 {
                        self.homeless.push((key.0, key.1, base));
                    }
                    continue;
                };
                level.base = new.base.0;
                level.next_increment = if increment == level.increment { None } else { Some(increment) };
                level.next_reserve_rate = if reserve == level.reserve_rate { None } else { Some(reserve) };
                level.next_ceiling = None;
                match ceiling {
                    Some(c) if c < level.current && level.ceiling != Some(c) => level.next_ceiling = Some(c),
                    other => level.ceiling = other,
                }
            }
        }
    }

    pub fn post(&mut self, terms: &Terms, post: &Post) {
        match post {
            Post::Sum { pool, second, operator, jurisdiction, game, wagers, eligible } => {
                let pool = terms.pools.iter().find(|known| known.pool == *pool).expect("a pool of the terms");
                let eligible = i128::try_from(*eligible).expect("small");
                let keys = [
                    format!("o:{operator}"),
                    format!("j:{jurisdiction}"),
                    format!("g:{game}"),
                    format!("p:{operator}/{jurisdiction}"),
                ];
                for level in &pool.levels {
                    let part = self.contribute(&pool.pool, &level.level, u64::from(*wagers), eligible);
                    for length in self.lengths.clone() {
                        let (at, late) = self.at(*second, length);
                        let window = self.window(&pool.pool, &level.level, length, at);
                        window.late += if late { part.0 } else { 0 };
                        add(&mut window.total, part);
                        for key in &keys {
                            add(window.parts.entry(key.clone()).or_default(), part);
                        }
                    }
                }
            }
            Post::Hit { pool, level, .. } => self.hit(pool, level),
        }
    }

    fn contribute(&mut self, pool: &str, level: &str, wagers: u64, eligible: i128) -> Part {
        let level = self.levels.get_mut(&(pool.into(), level.into())).expect("a level that was learned");
        let (up, aside) = (eligible * level.increment, eligible * level.reserve_rate);
        let target = level.current + up;
        let reached = match level.ceiling {
            Some(ceiling) if level.current >= ceiling => level.current,
            Some(ceiling) if target > ceiling => ceiling,
            _ => target,
        };
        level.diversion += target - reached;
        level.current = reached;
        level.reserve += aside;
        level.wagers += wagers;
        level.wagered += eligible * 1_000_000;
        level.contributed += up + aside;
        (wagers, eligible * 1_000_000, up + aside)
    }

    fn hit(&mut self, pool: &str, name: &str) {
        let level = self.levels.get_mut(&(pool.into(), name.into())).expect("a level that was learned");
        let cent = 10_000_000_000;
        let payoff = level.current / cent * cent;
        let mut missing = level.base;
        level.current = level.current - payoff + level.base;
        for purse in [&mut level.diversion, &mut level.reserve] {
            let taken = if *purse < missing { *purse } else { missing };
            *purse -= taken;
            missing -= taken;
        }
        level.house += missing;
        level.paid += payoff;
        level.hits += 1;
        if let Some(rate) = level.next_increment.take() {
            level.increment = rate;
        }
        if let Some(rate) = level.next_reserve_rate.take() {
            level.reserve_rate = rate;
        }
        if let Some(ceiling) = level.next_ceiling.take() {
            level.ceiling = Some(ceiling);
        }
        self.payoffs.push((pool.into(), name.into(), payoff));
        for length in self.lengths.clone() {
            let mine = |key: &&Key| key.1 == pool && key.2 == name && key.3 == length;
            let latest = self.open.keys().filter(mine).max().cloned().expect("the wager's own window");
            let window = self.open.get_mut(&latest).expect("it is open");
            window.paid += payoff;
            window.house += missing;
            window.hits += 1;
        }
    }

    /// The second whose window takes an event of `second`, and whether it is late.
    fn at(&self, second: i64, length: i64) -> (i64, bool) {
        let end = (second.div_euclid(length) + 1) * length;
        match self.watermark {
            Some(watermark) if end * 1_000 <= watermark => (watermark.div_euclid(1_000), true),
            _ => (second, false),
        }
    }

    fn window(&mut self, pool: &str, level: &str, length: i64, second: i64) -> &mut Window {
        let end = (second.div_euclid(length) + 1) * length;
        self.open.entry((end, pool.into(), level.into(), length)).or_default()
    }

    /// Ends a commit: the windows it closes, in order.
    pub fn close(&mut self, after: Option<i64>) -> Vec<(Key, Window)> {
        self.watermark = after;
        let Some(watermark) = after else { return Vec::new() };
        let passed: Vec<Key> = self.open.keys().filter(|key| key.0 * 1_000 <= watermark).cloned().collect();
        let mut closed = Vec::new();
        for key in passed {
            let window = self.open.remove(&key).expect("it was open");
            closed.push((key, window));
        }
        closed
    }
}

fn add(sum: &mut Part, part: Part) {
    sum.0 += part.0;
    sum.1 += part.1;
    sum.2 += part.2;
}
