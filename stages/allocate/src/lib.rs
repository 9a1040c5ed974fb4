//! The allocate stage: decides which pools each wager takes part in and with how much, and which of the levels it
//! claims to have won are hits (contract, section 4). The lane in `jackpot_core` drives [`Allocate`].
//!
//! One frame becomes two: allocations, wager by wager, for the audit, and contributions, summed, for the ledger.
//! How much a level grows by that is the ledger's business: no level's rate, base or ceiling is looked at here.

mod eligibility;
mod hits;
mod parts;
mod postings;
mod rules;

pub use parts::parts;

use bytes::Bytes;
use jackpot_core::frame::allocations::{Allocation, Allocations, Participation};
use jackpot_core::frame::batch::{Accepted, Batch, Refusal, Verdict};
use jackpot_core::frame::contributions::Contributions;
use jackpot_core::frame::geofenced::{self, Geofenced};
use jackpot_core::frame::symbols::{Symbol, Symbols};
use jackpot_core::frame::{self, Frame, Header};
use jackpot_core::limits;
use jackpot_core::money::Micro;
use jackpot_core::refusal::{Reason, StageName};
use jackpot_core::stage::{Contradiction, Outcome, Stage, Tally};
use jackpot_core::terms::Terms;
use jackpot_core::time::Millis;
use jackpot_core::topology::Lane;

use crate::eligibility::{Eligibility, Share};
use crate::postings::Postings;
use crate::rules::Rules;

/// The stage. It has no state but the rules it has learnt.
#[derive(Debug, Default)]
pub struct Allocate {
    rules: Rules,
}

/// What the stage makes of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allocated {
    /// For the audit.
    pub allocations: Allocations,
    /// For the ledger.
    pub contributions: Contributions,
    tally: Tally,
}

impl Stage for Allocate {
    const NAME: StageName = StageName::Allocate;
    const INPUT: Lane = Lane::Geofenced;
    const OUTPUTS: &'static [Lane] = &[Lane::Allocations, Lane::Contributions];
    type Input = Geofenced;
    type Output = Allocated;

    fn learn(&mut self, terms: &Terms) {
        self.rules = Rules::compile(terms);
    }

    fn process(&mut self, frame: Frame<Geofenced>) -> Result<Allocated, Contradiction> {
        let Frame { header, body: Geofenced { symbols, batches } } = frame;
        assert_eq!(
            header.terms,
            self.rules.revision(),
            "the lane teaches a frame's terms before it hands the frame over"
        );
        let mut desk = Desk {
            header: &header,
            rules: &self.rules,
            eligibility: Eligibility::new(&self.rules, &symbols),
            postings: Postings::new(&self.rules, &symbols),
            pools: vec![None; self.rules.pools().len()],
            symbols,
            shares: Vec::with_capacity(limits::WAGER_POOLS_MAX),
            tally: Tally::default(),
        };
        let batches = batches.into_iter().map(|batch| desk.allocate(batch)).collect::<Result<_, _>>()?;
        Ok(Allocated {
            allocations: Allocations { symbols: desk.symbols, batches },
            contributions: desk.postings.finish(),
            tally: desk.tally,
        })
    }
}

impl Outcome for Allocated {
    fn encode(&self, headers: &[Header]) -> Vec<Bytes> {
        assert_eq!(headers.len(), Allocate::OUTPUTS.len(), "one header per output lane");
        vec![frame::encode(&headers[0], &self.allocations), frame::encode(&headers[1], &self.contributions)]
    }

    fn tally(&self) -> Tally {
        self.tally.clone()
    }
}

/// Where the wagers of one frame are dealt with.
struct Desk<'a> {
    header: &'a Header,
    rules: &'a Rules,
    eligibility: Eligibility<'a>,
    postings: Postings<'a>,
    /// By number: the symbol of each pool that some wager takes part in.
    pools: Vec<Option<Symbol>>,
    symbols: Symbols,
    /// Of the wager at hand.
    shares: Vec<Share>,
    tally: Tally,
}

/// What a wager needs to know of its batch.
#[derive(Clone, Copy)]
struct Origin {
    operator: Symbol,
    source: Symbol,
    sequence: u64,
    recorded_at: Millis,
}

impl Desk<'_> {
    fn allocate(&mut self, batch: Batch<geofenced::Wager>) -> Result<Batch<Allocation>, Contradiction> {
        let Batch { operator, source, position, recorded_at, verdict } = batch;
        let verdict = match verdict {
            Verdict::Accepted(accepted) => {
                let origin = Origin { operator, source, sequence: accepted.sequence, recorded_at };
                Verdict::Accepted(self.allocate_wagers(origin, accepted)?)
            }
            Verdict::Refused(refused) => Verdict::Refused(refused),
        };
        Ok(Batch { operator, source, position, recorded_at, verdict })
    }

    fn allocate_wagers(
        &mut self,
        origin: Origin,
        mut accepted: Accepted<geofenced::Wager>,
    ) -> Result<Accepted<Allocation>, Contradiction> {
        let wagers = std::mem::take(&mut accepted.wagers);
        self.tally.wagers_in += wagers.len() as u64;
        let mut allocations = Vec::with_capacity(wagers.len());
        let mut refusals = Vec::new();
        for wager in wagers {
            self.check_limits(origin, &wager)?;
            self.shares.clear();
            if self.eligibility.shares(&self.symbols, origin.operator, &wager, &mut self.shares) {
                let participations = self.participations();
                self.postings.add_wager(&self.symbols, origin.operator, &wager, &self.shares);
                self.settle_hits(origin, &wager, &mut refusals);
                allocations.push(Allocation { wager, participations });
            } else {
                refusals.push(unknown_game(wager.index, self.symbols.name(wager.game)));
            }
        }
        self.tally.wagers_out += allocations.len() as u64;
        refusals.iter().for_each(|refusal| self.tally.refuse(refusal.reason));
        Ok(accepted.narrowed(allocations, refusals))
    }

    fn participations(&mut self) -> Vec<Participation> {
        let (pools, rules, symbols) = (&mut self.pools, self.rules, &mut self.symbols);
        let participation = |share: &Share| Participation {
            pool: *pools[share.pool].get_or_insert_with(|| symbols.intern(&rules.pools()[share.pool].name)),
            eligible: share.eligible,
            rate: share.rate,
        };
        self.shares.iter().map(participation).collect()
    }

    /// Posts the wager's hits, and refuses those of its claims that are none.
    fn settle_hits(&mut self, origin: Origin, wager: &geofenced::Wager, refusals: &mut Vec<Refusal>) {
        let Some(hits) = wager.hits.as_deref() else { return };
        for (number, verdict) in hits::judge(self.rules, &self.symbols, &self.shares, hits) {
            match verdict {
                Ok(won) => self.postings.add_hit(&self.symbols, origin, wager, &hits.round, won),
                Err(detail) => refusals.push(Refusal {
                    index: wager.index,
                    hit: Some(number),
                    stage: StageName::Allocate,
                    reason: Reason::HitRefused,
                    detail: detail.into(),
                }),
            }
        }
    }

    /// Numbers that validate lets nobody write would not fit what is computed from them.
    fn check_limits(&self, origin: Origin, wager: &geofenced::Wager) -> Result<(), Contradiction> {
        let claims = wager.hits.as_ref().map_or(0, |hits| hits.claims.len());
        if wager.amount <= Micro::WAGER_MAX && claims <= limits::WAGER_HITS_MAX {
            return Ok(());
        }
        Err(Contradiction(format!(
            "frame {} of {} holds the wager {}/{}/{} with an amount of {} and {claims} hits, more than validate lets \
             pass: the frame was changed; restore the stream from a backup",
            self.header.sequence,
            Allocate::INPUT.stream(self.header.partition),
            self.symbols.name(origin.source),
            origin.sequence,
            wager.index,
            wager.amount,
        )))
    }
}

fn unknown_game(index: u16, game: &str) -> Refusal {
    Refusal {
        index,
        hit: None,
        stage: StageName::Allocate,
        reason: Reason::UnknownGame,
        detail: format!("the terms know no game `{game}`: have it added to them, or name one that they know")
            .into(),
    }
}

#[cfg(test)]
mod tests;
