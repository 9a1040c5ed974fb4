//! A frame of `contributions-p` that was trimmed, written again from its allocations: by code of its own, from the
//! order that `schemas/frames.md` fixes, so that the digest in a commit proves it to the byte.
//! [`crate::verify::lane`] asks for it. Nothing is judged here.

use std::collections::BTreeMap;

use jackpot_core::digest::Digest;
use jackpot_core::frame::allocations::{Allocation, Allocations};
use jackpot_core::frame::batch::{Accepted, Batch, HitClaim, Refusal, Verdict};
use jackpot_core::frame::contributions::{Contributions, Hit, PoolLevels, Posting, Sum};
use jackpot_core::frame::symbols::{Symbol, Symbols};
use jackpot_core::frame::{self, Frame, Header};
use jackpot_core::terms::Terms;

/// The digest of the frame that stood beside these allocations, behind the one with the digest `previous`; `None`
/// where the allocations name what the terms do not have.
pub fn digest(allocations: &Frame<Allocations>, terms: &Terms, previous: Digest) -> Option<Digest> {
    let mut writing = Writing::blank(terms, allocations);
    for batch in &allocations.body.batches {
        if let Verdict::Accepted(accepted) = &batch.verdict {
            for allocation in &accepted.wagers {
                writing.wager(batch, accepted, allocation)?;
            }
        }
    }
    let header = Header { previous, ..allocations.header.clone() };
    Some(Digest::of(&frame::encode(&header, &writing.body)))
}

/// What wagers share that are one sum, and how often their pool had been won before them.
type Alike = (u16, i64, Symbol, Symbol, Symbol, u32);

/// A body being written.
struct Writing<'a> {
    terms: &'a Terms,
    /// The names in the allocations.
    names: &'a Symbols,
    body: Contributions,
    /// By name: where the pool is listed, and how often it was won so far.
    pools: BTreeMap<&'a str, (u16, u32)>,
    /// Where the sum of wagers that are alike stands among the postings.
    sums: BTreeMap<Alike, usize>,
}

impl<'a> Writing<'a> {
    fn blank(terms: &'a Terms, allocations: &'a Frame<Allocations>) -> Self {
        let (pools, sums) = (BTreeMap::new(), BTreeMap::new());
        Self { terms, names: &allocations.body.symbols, body: Contributions::default(), pools, sums }
    }

    /// A wager adds to the sums of its pools; then come the hits that stand.
    fn wager(
        &mut self,
        batch: &Batch<Allocation>,
        accepted: &Accepted<Allocation>,
        allocation: &Allocation,
    ) -> Option<()> {
        let wager = &allocation.wager;
        self.body.wagers += 1;
        for part in &allocation.participations {
            let (pool, won) = self.pool(self.names.name(part.pool))?;
            let second = wager.occurred_at.0.div_euclid(1_000);
            let alike = (pool, second, batch.operator, wager.jurisdiction, wager.game, won);
            if let Some(at) = self.sums.get(&alike) {
                let Posting::Sum(sum) = self.body.postings.get_mut(*at)? else { return None };
                sum.wagers += 1;
                sum.eligible.0 = sum.eligible.0.checked_add(part.eligible.0)?;
                continue;
            }
            self.sums.insert(alike, self.body.postings.len());
            let operator = self.name(batch.operator);
            let jurisdiction = self.name(wager.jurisdiction);
            let game = self.name(wager.game);
            let eligible = part.eligible;
            let sum = Sum { pool, second, operator, jurisdiction, game, wagers: 1, eligible };
            self.body.postings.push(Posting::Sum(sum));
        }
        self.hits(batch, accepted, allocation)
    }

    fn hits(
        &mut self,
        batch: &Batch<Allocation>,
        accepted: &Accepted<Allocation>,
        allocation: &Allocation,
    ) -> Option<()> {
        let wager = &allocation.wager;
        let Some(hits) = wager.hits.as_deref() else { return Some(()) };
        for (number, claim) in (0_u8..).zip(&hits.claims) {
            let HitClaim::Level { pool, level } = *claim else { continue };
            let names_it = |refusal: &Refusal| (refusal.index, refusal.hit) == (wager.index, Some(number));
            if accepted.refusals.iter().any(names_it) {
                continue;
            }
            let (listed, won) = self.pool(self.names.name(pool))?;
            self.pools.insert(self.names.name(pool), (listed, won + 1));
            let level = self.name(level);
            let operator = self.name(batch.operator);
            let source = self.name(batch.source);
            let game = self.name(wager.game);
            let jurisdiction = self.name(wager.jurisdiction);
            self.body.postings.push(Posting::Hit(Box::new(Hit {
                pool: listed,
                level,
                operator,
                source,
                sequence: accepted.sequence,
                index: wager.index,
                game,
                round: hits.round.clone(),
                jurisdiction,
                occurred_at: wager.occurred_at,
                recorded_at: batch.recorded_at,
            })));
        }
        Some(())
    }

    /// Where a pool is listed, which it is with its levels when it is first named, and how often it was won so far.
    fn pool(&mut self, name: &'a str) -> Option<(u16, u32)> {
        if let Some(known) = self.pools.get(name) {
            return Some(*known);
        }
        let pool = self.terms.pools.iter().find(|pool| pool.pool == name)?;
        let symbols = &mut self.body.symbols;
        let listed = PoolLevels {
            pool: symbols.intern(name),
            levels: pool.levels.iter().map(|level| symbols.intern(&level.level)).collect(),
        };
        let place = (u16::try_from(self.body.pools.len()).ok()?, 0);
        self.body.pools.push(listed);
        self.pools.insert(name, place);
        Some(place)
    }

    fn name(&mut self, symbol: Symbol) -> Symbol {
        self.body.symbols.intern(self.names.name(symbol))
    }
}
