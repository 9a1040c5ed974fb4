//! What a frame gives the ledger, in a form in which two accounts of it can be compared: per pool, the sums between
//! two hits, in order of what they share, and the hits in log order. Once from the allocations, once from what
//! allocate wrote for the ledger. [`crate::verify::ledger`] posts the first.

use std::collections::BTreeMap;

use jackpot_core::frame::Frame;
use jackpot_core::frame::allocations::{Allocation, Allocations};
use jackpot_core::frame::batch::{Accepted, Batch, HitClaim, Verdict};
use jackpot_core::frame::contributions::{Contributions, Posting};
use jackpot_core::frame::symbols::Symbols;
use jackpot_core::time::Millis;

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// Wagers that are alike in all that matters to the ledger.
    Sum(Sum),
    /// A hit.
    Hit(Hit),
}

/// What so many wagers of a pool give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sum {
    /// The pool.
    pub pool: String,
    /// What they share.
    pub key: Key,
    /// How many.
    pub wagers: u64,
    /// What of them counts, in millionths.
    pub eligible: u128,
}

/// What wagers share that are summed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The second of event time.
    pub second: i64,
    /// The operator.
    pub operator: String,
    /// The jurisdiction.
    pub jurisdiction: String,
    /// The game.
    pub game: String,
}

/// A level that was won.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    /// The pool.
    pub pool: String,
    /// The level.
    pub level: String,
    /// The wager.
    pub wager: String,
    /// Its operator.
    pub operator: String,
    /// Its source.
    pub source: String,
    /// Its game.
    pub game: String,
    /// Its round.
    pub round: String,
    /// Where it was made.
    pub jurisdiction: String,
    /// When it happened.
    pub occurred_at: Millis,
    /// When the broker received it.
    pub recorded_at: Millis,
}

/// Gathers entries into the common form.
#[derive(Default)]
struct Gathering {
    open: BTreeMap<String, BTreeMap<Key, (u64, u128)>>,
    items: Vec<Item>,
}

impl Gathering {
    fn add(&mut self, pool: &str, key: Key, wagers: u64, eligible: u128) {
        let pool = match self.open.get_mut(pool) {
            Some(pool) => pool,
            None => self.open.entry(pool.to_owned()).or_default(),
        };
        let sum = pool.entry(key).or_default();
        sum.0 += wagers;
        sum.1 += eligible;
    }

    fn hit(&mut self, hit: Hit) {
        if let Some(sums) = self.open.remove(&hit.pool) {
            self.close(&hit.pool, sums);
        }
        self.items.push(Item::Hit(hit));
    }

    fn close(&mut self, pool: &str, sums: BTreeMap<Key, (u64, u128)>) {
        let sum = |(key, (wagers, eligible))| Item::Sum(Sum { pool: pool.to_owned(), key, wagers, eligible });
        self.items.extend(sums.into_iter().map(sum));
    }

    fn finish(mut self) -> Vec<Item> {
        for (pool, sums) in std::mem::take(&mut self.open) {
            self.close(&pool, sums);
        }
        self.items
    }
}

/// What the allocations of a frame give.
pub fn of_allocations(frame: &Frame<Allocations>) -> Vec<Item> {
    let (mut gathering, symbols) = (Gathering::default(), &frame.body.symbols);
    for batch in &frame.body.batches {
        if let Verdict::Accepted(accepted) = &batch.verdict {
            for allocation in &accepted.wagers {
                add_allocation(&mut gathering, symbols, batch, accepted, allocation);
            }
        }
    }
    gathering.finish()
}

fn add_allocation(
    gathering: &mut Gathering,
    symbols: &Symbols,
    batch: &Batch<Allocation>,
    accepted: &Accepted<Allocation>,
    allocation: &Allocation,
) {
    let wager = &allocation.wager;
    let name = |symbol| symbols.name(symbol).to_owned();
    for part in &allocation.participations {
        let key = Key {
            second: wager.occurred_at.0.div_euclid(1_000),
            operator: name(batch.operator),
            jurisdiction: name(wager.jurisdiction),
            game: name(wager.game),
        };
        gathering.add(symbols.name(part.pool), key, 1, part.eligible.0);
    }
    let Some(hits) = wager.hits.as_deref() else { return };
    let refused = |number: u8| {
        accepted.refusals.iter().any(|refusal| refusal.index == wager.index && refusal.hit == Some(number))
    };
    for (number, claim) in (0_u8..).zip(&hits.claims) {
        let HitClaim::Level { pool, level } = *claim else { continue };
        if refused(number) {
            continue;
        }
        gathering.hit(Hit {
            pool: name(pool),
            level: name(level),
            wager: format!("{}/{}/{}", symbols.name(batch.source), accepted.sequence, wager.index),
            operator: name(batch.operator),
            source: name(batch.source),
            game: name(wager.game),
            round: hits.round.to_string(),
            jurisdiction: name(wager.jurisdiction),
            occurred_at: wager.occurred_at,
            recorded_at: batch.recorded_at,
        });
    }
}

/// What allocate wrote for the ledger.
pub fn of_contributions(frame: &Frame<Contributions>) -> Vec<Item> {
    let (mut gathering, body) = (Gathering::default(), &frame.body);
    let name = |symbol| body.symbols.name(symbol).to_owned();
    let pool = |index: u16| body.symbols.name(body.pools[usize::from(index)].pool);
    for posting in &body.postings {
        match posting {
            Posting::Sum(sum) => {
                let key = Key {
                    second: sum.second,
                    operator: name(sum.operator),
                    jurisdiction: name(sum.jurisdiction),
                    game: name(sum.game),
                };
                gathering.add(pool(sum.pool), key, u64::from(sum.wagers), sum.eligible.0);
            }
            Posting::Hit(hit) => gathering.hit(Hit {
                pool: pool(hit.pool).to_owned(),
                level: name(hit.level),
                wager: format!("{}/{}/{}", body.symbols.name(hit.source), hit.sequence, hit.index),
                operator: name(hit.operator),
                source: name(hit.source),
                game: name(hit.game),
                round: hit.round.to_string(),
                jurisdiction: name(hit.jurisdiction),
                occurred_at: hit.occurred_at,
                recorded_at: hit.recorded_at,
            }),
        }
    }
    gathering.finish()
}

/// The first difference between what should be and what is written, as a clause.
pub fn difference(due: &[Item], written: &[Item]) -> Option<String> {
    let at = due.iter().zip(written).position(|(due, written)| due != written);
    let at = at.or_else(|| (due.len() != written.len()).then(|| due.len().min(written.len())))?;
    let show = |items: &[Item]| items.get(at).map_or_else(|| "nothing more".to_owned(), shown);
    Some(format!("the allocations give {}, and it says {}", show(due), show(written)))
}

fn shown(item: &Item) -> String {
    match item {
        Item::Sum(Sum { pool, key, wagers, eligible }) => format!(
            "{pool} {wagers} wagers with {} in the second {} ({}, {}, {})",
            jackpot_core::money::Micro(*eligible),
            key.second,
            key.operator,
            key.jurisdiction,
            key.game
        ),
        Item::Hit(hit) => format!("{}/{} a hit of {}", hit.pool, hit.level, hit.wager),
    }
}
