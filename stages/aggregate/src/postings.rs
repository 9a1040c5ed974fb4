//! What a commit asks of each pool: the records that the dataflow exchanges, one per frame and pool.
//! [`Register`] makes them from frames and terms; names become numbers here, once per frame, and
//! [`crate::books`] turns the numbers back into names. All that a frame can be wrong about is found here,
//! before anything is posted.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jackpot_core::digest::Digest;
use jackpot_core::frame::Frame;
use jackpot_core::frame::contributions::{Contributions, Hit, Posting, Sum};
use jackpot_core::frame::symbols::Symbol;
use jackpot_core::money::{Micro, Pico, Ppm};
use jackpot_core::names;
use jackpot_core::scatter::fnv1a;
use jackpot_core::stage::Contradiction;
use jackpot_core::terms::{Pool, Terms};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ledger::PoolLedger;

/// The seconds that RFC 3339 can write: years 0 to 9999, in UTC. No window lies outside.
const SECONDS: std::ops::RangeInclusive<i64> = -62_167_219_200..=253_402_300_799;

/// A frame as it was read, with the digest of its message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// The SHA-256 of the message.
    pub digest: Digest,
    /// The frame.
    pub frame: Frame<Contributions>,
}

/// A record of the dataflow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Which worker gets it: this, modulo their number.
    pub route: u64,
    /// What to do.
    pub task: Task,
}

/// What a worker does in a commit: first all it learns, then all postings in log order, then the turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Task {
    /// Take a revision up.
    Learn(PoolTerms),
    /// Post what a frame asks of a pool.
    Post(PoolPostings),
    /// End the commit. Each worker gets exactly one, and it is known from the beginning.
    Turn(Turn),
}

/// How event time stands in a commit, in seconds since 1970: windows that end at or before it are closed. And what
/// else every worker must know of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Turn {
    /// Before the commit; `None` before the first watermark.
    pub before: Option<i64>,
    /// After it.
    pub after: Option<i64>,
    /// Whether the pools as they are before the commit are wanted.
    pub keep: bool,
}

/// A pool under a revision of the terms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolTerms {
    /// Its number.
    pub pool: u32,
    /// How many decimals its currency's minor unit has.
    pub minor_digits: u32,
    /// Its levels by position.
    pub levels: Vec<LevelTerms>,
}

/// A level under a revision of the terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LevelTerms {
    /// What it starts from.
    pub base: Pico,
    /// What it does not grow above.
    pub ceiling: Option<Pico>,
    /// The increment rate.
    #[serde(with = "ppm")]
    pub increment: Ppm,
    /// The reserve rate.
    #[serde(with = "ppm")]
    pub reserve: Ppm,
}

/// What a frame asks of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolPostings {
    /// The pool's number.
    pub pool: u32,
    /// The frame's partition,
    pub partition: u16,
    /// and number.
    pub frame: u64,
    /// The positions of the levels that the pool has in the frame's terms.
    pub levels: Vec<u8>,
    /// In log order.
    pub items: Vec<Item>,
}

/// Postings of a pool, as far as their order matters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Item {
    /// Sums with no hit between them.
    Run(Run),
    /// A hit.
    Hit(HitAt),
}

/// Sums whose order does not matter, added up in the three ways that a pool looks at them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Run {
    /// Wagers in all.
    pub wagers: u64,
    /// Their eligible amounts in all.
    #[serde(with = "micro")]
    pub eligible: Micro,
    /// By second, operator and jurisdiction, ascending.
    pub pairs: Vec<Part<(u32, u32)>>,
    /// By second and game, ascending.
    pub games: Vec<Part<u32>>,
}

/// The wagers of a second that share a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part<K> {
    /// The second of event time, since 1970.
    pub second: i64,
    /// What they share.
    pub key: K,
    /// How much.
    pub tally: Tally,
}

/// Wagers and the sum of their eligible amounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tally {
    /// Wagers.
    pub wagers: u64,
    /// The sum.
    #[serde(with = "micro")]
    pub eligible: Micro,
}

/// A hit. What its message says of the wager is looked up in the frame once it has been paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HitAt {
    /// The index in the frame's postings.
    pub posting: u32,
    /// The level's position in its pool.
    pub level: u8,
    /// The second of event time that the wager occurred in.
    pub second: i64,
}

impl Tally {
    /// Adds `other`.
    pub fn add(&mut self, other: Self) {
        self.wagers += other.wagers;
        self.eligible = Micro(self.eligible.0 + other.eligible.0);
    }
}

impl Run {
    /// Adds a sum; [`Run::fold`] must follow the last.
    fn add(&mut self, sum: &Sum, operator: u32, jurisdiction: u32, game: u32) {
        let (second, tally) = (sum.second, Tally { wagers: u64::from(sum.wagers), eligible: sum.eligible });
        self.wagers += tally.wagers;
        self.eligible = Micro(self.eligible.0 + tally.eligible.0);
        self.pairs.push(Part { second, key: (operator, jurisdiction), tally });
        self.games.push(Part { second, key: game, tally });
    }

    /// Sorts the parts, and adds up those that share second and key.
    fn fold(&mut self) {
        fold(&mut self.pairs);
        fold(&mut self.games);
    }
}

fn fold<K: Ord + Copy>(parts: &mut Vec<Part<K>>) {
    parts.sort_unstable_by_key(|part| (part.second, part.key));
    parts.dedup_by(|next, kept| {
        let same = (next.second, next.key) == (kept.second, kept.key);
        if same {
            kept.tally.add(next.tally);
        }
        same
    });
}

/// What the books know by name: pools with their levels, and whoever wagered. It only grows, with the terms.
#[derive(Debug, Clone, Default)]
pub struct Register {
    pools: Vec<PoolEntry>,
    pool_numbers: BTreeMap<Arc<str>, u32>,
    names: Vec<Arc<str>>,
    numbers: HashMap<Arc<str>, u32>,
}

/// A pool in the register.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PoolEntry {
    /// Its name.
    pub name: Arc<str>,
    /// ISO 4217.
    pub currency: Arc<str>,
    /// How many decimals the currency's minor unit has.
    pub minor_digits: u32,
    /// Its levels' names by position.
    pub levels: Vec<Arc<str>>,
    route: u64,
}

/// What of a register a snapshot holds; the rest follows from it.
#[derive(Serialize, Deserialize)]
struct Listed {
    pools: Vec<PoolEntry>,
    names: Vec<Arc<str>>,
}

impl Serialize for Register {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Listed { pools: self.pools.clone(), names: self.names.clone() }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Register {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Listed { pools, names } = Listed::deserialize(deserializer)?;
        let pool_numbers = pools.iter().zip(0..).map(|(pool, number)| (pool.name.clone(), number)).collect();
        let numbers = names.iter().cloned().zip(0..).collect();
        Ok(Self { pools, pool_numbers, names, numbers })
    }
}

impl Register {
    /// The pool with this number.
    pub fn pool(&self, number: u32) -> &PoolEntry {
        &self.pools[at(number)]
    }

    /// Each of these pools with the route of its entries.
    pub(crate) fn routed(&self, pools: &BTreeMap<u32, PoolLedger>) -> Vec<(u64, PoolLedger)> {
        pools.iter().map(|(number, pool)| (self.pool(*number).route, pool.clone())).collect()
    }

    /// The pool with this name, which must be known.
    pub(crate) fn named(&self, name: &str) -> &PoolEntry {
        self.pool(self.pool_numbers[name])
    }

    /// The operator, jurisdiction or game with this number.
    pub fn name(&self, number: u32) -> &str {
        &self.names[at(number)]
    }

    /// Takes a revision up: what each pool must learn.
    ///
    /// # Errors
    /// When the revision drops a pool or a level, or changes a currency: the books hold its money.
    pub fn learn(&mut self, terms: &Terms) -> Result<Vec<Entry>, Contradiction> {
        self.check(terms)?;
        Ok(terms.pools.iter().map(|pool| self.learn_pool(pool)).collect())
    }

    fn check(&self, terms: &Terms) -> Result<(), Contradiction> {
        let revision = terms.revision;
        for known in &self.pools {
            let Some(pool) = terms.pools.iter().find(|pool| *pool.pool == *known.name) else {
                return Err(Contradiction(format!(
                    "revision {revision} of the terms drops the pool {}, whose money the books hold; \
                     apply a revision that keeps it",
                    known.name
                )));
            };
            if *pool.currency != *known.currency {
                return Err(Contradiction(format!(
                    "revision {revision} of the terms changes the currency of the pool {} from {} to {}; \
                     apply a revision that keeps it",
                    known.name, known.currency, pool.currency
                )));
            }
            for level in &known.levels {
                if !pool.levels.iter().any(|new| *new.level == **level) {
                    return Err(Contradiction(format!(
                        "revision {revision} of the terms drops the level {}/{level}, whose money the books \
                         hold; apply a revision that keeps it",
                        known.name
                    )));
                }
            }
        }
        Ok(())
    }

    fn learn_pool(&mut self, pool: &Pool) -> Entry {
        let number = self.pool_numbers.get(pool.pool.as_str()).copied().unwrap_or_else(|| {
            let number = number(self.pools.len());
            let name: Arc<str> = pool.pool.as_str().into();
            self.pools.push(PoolEntry {
                name: name.clone(),
                currency: pool.currency.as_str().into(),
                minor_digits: names::minor_digits(&pool.currency),
                levels: Vec::new(),
                route: fnv1a(name.as_bytes()),
            });
            self.pool_numbers.insert(name, number);
            number
        });
        let known = &mut self.pools[at(number)];
        for level in &pool.levels {
            if !known.levels.iter().any(|name| **name == *level.level) {
                known.levels.push(level.level.as_str().into());
            }
        }
        let terms_of = |name: &Arc<str>| {
            let level = pool.levels.iter().find(|level| *level.level == **name);
            let level = level.expect("a revision keeps every level, as has been checked");
            LevelTerms {
                base: level.base,
                ceiling: level.ceiling,
                increment: level.increment_ppm,
                reserve: level.reserve_ppm,
            }
        };
        let levels = known.levels.iter().map(terms_of).collect();
        let minor_digits = known.minor_digits;
        Entry { route: known.route, task: Task::Learn(PoolTerms { pool: number, minor_digits, levels }) }
    }

    /// What a frame asks of each pool that it names.
    ///
    /// # Errors
    /// When it names a pool or a level that no revision so far has, or a time outside the calendar.
    pub fn postings(&mut self, frame: &Frame<Contributions>) -> Result<Vec<Entry>, Contradiction> {
        let mut asked = self.pools_of(frame)?;
        let mut numbers = vec![None; frame.body.symbols.names().len()];
        for (posting, index) in frame.body.postings.iter().zip(0_u32..) {
            match posting {
                Posting::Sum(sum) => {
                    in_calendar(frame, sum.second)?;
                    let mut number = |symbol: Symbol| {
                        *numbers[symbol.index()]
                            .get_or_insert_with(|| self.intern(frame.body.symbols.name(symbol)))
                    };
                    let (operator, jurisdiction) = (number(sum.operator), number(sum.jurisdiction));
                    let game = number(sum.game);
                    asked[usize::from(sum.pool)].run().add(sum, operator, jurisdiction, game);
                }
                Posting::Hit(hit) => {
                    let level = self.level_of(frame, hit)?;
                    in_calendar(frame, hit.occurred_at.second())?;
                    let hit = HitAt { posting: index, level, second: hit.occurred_at.second() };
                    asked[pool_of(posting)].items.push(Item::Hit(hit));
                }
            }
        }
        asked.retain(|pool| !pool.items.is_empty());
        Ok(asked.into_iter().map(|pool| self.entry(pool)).collect())
    }

    fn entry(&self, mut postings: PoolPostings) -> Entry {
        for item in &mut postings.items {
            if let Item::Run(run) = item {
                run.fold();
            }
        }
        Entry { route: self.pool(postings.pool).route, task: Task::Post(postings) }
    }

    /// The pools of a frame, in its order, with nothing asked of them yet.
    fn pools_of(&self, frame: &Frame<Contributions>) -> Result<Vec<PoolPostings>, Contradiction> {
        let Frame { header, body } = frame;
        body.pools
            .iter()
            .map(|pool| {
                let name = body.symbols.name(pool.pool);
                let number = *self
                    .pool_numbers
                    .get(name)
                    .ok_or_else(|| astray(frame, &format!("the pool {name}, which the books do not know")))?;
                let level = |symbol: &Symbol| self.position(frame, number, *symbol);
                Ok(PoolPostings {
                    pool: number,
                    partition: header.partition,
                    frame: header.sequence,
                    levels: pool.levels.iter().map(level).collect::<Result<_, _>>()?,
                    items: Vec::new(),
                })
            })
            .collect()
    }

    fn position(&self, frame: &Frame<Contributions>, pool: u32, level: Symbol) -> Result<u8, Contradiction> {
        let (pool, name) = (self.pool(pool), frame.body.symbols.name(level));
        (0_u8..)
            .zip(&pool.levels)
            .find_map(|(position, level)| (**level == *name).then_some(position))
            .ok_or_else(|| {
                astray(frame, &format!("the level {}/{name}, which the books do not know", pool.name))
            })
    }

    /// The position of a hit's level, which must be one of those that the frame lists for the pool.
    fn level_of(&self, frame: &Frame<Contributions>, hit: &Hit) -> Result<u8, Contradiction> {
        let listed = &frame.body.pools[usize::from(hit.pool)];
        let name = frame.body.symbols.name(listed.pool);
        if !listed.levels.contains(&hit.level) {
            let level = frame.body.symbols.name(hit.level);
            return Err(astray(frame, &format!("a hit of {name}/{level}, a level that it does not list")));
        }
        self.position(frame, self.pool_numbers[name], hit.level)
    }

    fn intern(&mut self, name: &str) -> u32 {
        if let Some(&number) = self.numbers.get(name) {
            return number;
        }
        let (number, name): (_, Arc<str>) = (number(self.names.len()), name.into());
        self.names.push(name.clone());
        self.numbers.insert(name, number);
        number
    }
}

impl PoolPostings {
    /// The run that the next sum belongs to: a new one after a hit.
    fn run(&mut self) -> &mut Run {
        if !matches!(self.items.last(), Some(Item::Run(_))) {
            self.items.push(Item::Run(Run::default()));
        }
        match self.items.last_mut() {
            Some(Item::Run(run)) => run,
            _ => unreachable!("a run has just been pushed"),
        }
    }
}

fn pool_of(posting: &Posting) -> usize {
    usize::from(match posting {
        Posting::Sum(sum) => sum.pool,
        Posting::Hit(hit) => hit.pool,
    })
}

fn in_calendar(frame: &Frame<Contributions>, second: i64) -> Result<(), Contradiction> {
    if SECONDS.contains(&second) {
        Ok(())
    } else {
        Err(astray(frame, &format!("the second {second} since 1970, which is outside the calendar")))
    }
}

fn astray(frame: &Frame<Contributions>, what: &str) -> Contradiction {
    Contradiction(format!(
        "frame {} of contributions-{}, made under revision {} of the terms, names {what}; the logs do not \
         belong together, restore them to one state",
        frame.header.sequence, frame.header.partition, frame.header.terms
    ))
}

fn number(len: usize) -> u32 {
    u32::try_from(len).expect("the terms' limits keep names far below 2³²")
}

fn at(number: u32) -> usize {
    usize::try_from(number).expect("a machine has at least 32 bits")
}

/// A rate as a number.
pub(crate) mod ppm {
    use jackpot_core::money::Ppm;
    use serde::{Deserialize, Deserializer, Serializer};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub(crate) fn serialize<S: Serializer>(ppm: &Ppm, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_u32(ppm.0)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Ppm, D::Error> {
        u32::deserialize(d).map(Ppm)
    }
}

/// A rate that may be absent.
pub(crate) mod ppm_option {
    use jackpot_core::money::Ppm;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub(crate) fn serialize<S: Serializer>(ppm: &Option<Ppm>, s: S) -> Result<S::Ok, S::Error> {
        ppm.map(|ppm| ppm.0).serialize(s)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Ppm>, D::Error> {
        Ok(Option::<u32>::deserialize(d)?.map(Ppm))
    }
}

/// Rates by a level's position, each of which may be absent.
pub(crate) mod ppm_options {
    use jackpot_core::limits::POOL_LEVELS_MAX;
    use jackpot_core::money::Ppm;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    type Rates = [Option<Ppm>; POOL_LEVELS_MAX];

    pub(crate) fn serialize<S: Serializer>(rates: &Rates, s: S) -> Result<S::Ok, S::Error> {
        rates.map(|rate| rate.map(|ppm| ppm.0)).serialize(s)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Rates, D::Error> {
        Ok(<[Option<u32>; POOL_LEVELS_MAX]>::deserialize(d)?.map(|rate| rate.map(Ppm)))
    }
}

/// An amount as a number of micro-units: inside the process alone, where it never becomes JSON.
pub(crate) mod micro {
    use jackpot_core::money::Micro;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(micro: &Micro, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_u128(micro.0)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Micro, D::Error> {
        u128::deserialize(d).map(Micro)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_run_are_added_up() {
        let part = |second, key, wagers| Part { second, key, tally: Tally { wagers, eligible: Micro(10) } };
        let mut parts = vec![part(2, 7, 1), part(1, 7, 2), part(2, 5, 4), part(2, 7, 8)];
        fold(&mut parts);
        let expect = [(1, 7, 2, 10), (2, 5, 4, 10), (2, 7, 9, 20)];
        let got: Vec<_> =
            parts.iter().map(|p| (p.second, p.key, p.tally.wagers, p.tally.eligible.0)).collect();
        assert_eq!(got, expect);
    }
}
