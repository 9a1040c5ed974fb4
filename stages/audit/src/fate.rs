//! What became of each wager of an accepted batch, in the order of the batch: its allocation, or its refusal.
//! The audit walks a batch by this, and so do those who look for one wager in `allocations-p`. That every index
//! from 0 on is there once, and nothing else, is found out on the way (invariant I3).

use jackpot_core::frame::allocations::Allocation;
use jackpot_core::frame::batch::{Accepted, Refusal};

/// What became of a wager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate<'a> {
    /// It was allocated, and these of its hits were refused.
    Allocated {
        /// The wager and its pools.
        allocation: &'a Allocation,
        /// By the number of the hit.
        hit_refusals: &'a [Refusal],
    },
    /// It was refused.
    Refused(&'a Refusal),
}

/// Why a batch's allocations and refusals are not the outcome of wagers 0 to n.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Disorder {
    /// There is neither an allocation nor a refusal.
    #[error("no wager of it is allocated or refused")]
    Empty,
    /// An index is missing, or comes late.
    #[error("no outcome stands where that of the wager {0} should")]
    Missing(u16),
    /// An index has several outcomes.
    #[error("the wager {0} has more than one outcome")]
    Ambiguous(u16),
}

/// The fates of a batch's wagers, by index. Nothing follows an error.
pub fn fates(accepted: &Accepted<Allocation>) -> impl Iterator<Item = Result<Fate<'_>, Disorder>> {
    Fates { allocations: &accepted.wagers, refusals: &accepted.refusals, index: 0, failed: false }
}

struct Fates<'a> {
    allocations: &'a [Allocation],
    refusals: &'a [Refusal],
    index: u16,
    failed: bool,
}

impl<'a> Fates<'a> {
    fn take(&mut self) -> Result<Fate<'a>, Disorder> {
        let index = self.index;
        let count = self.refusals.iter().take_while(|refusal| refusal.index == index).count();
        let (refusals, later) = self.refusals.split_at(count);
        let allocation = self.allocations.first().filter(|allocation| allocation.wager.index == index);
        self.refusals = later;
        match (allocation, refusals) {
            (Some(allocation), hit_refusals) if hit_refusals.iter().all(|refusal| refusal.hit.is_some()) => {
                self.allocations = &self.allocations[1..];
                Ok(Fate::Allocated { allocation, hit_refusals })
            }
            (None, [refusal]) if refusal.hit.is_none() => Ok(Fate::Refused(refusal)),
            (None, []) => Err(Disorder::Missing(index)),
            (None, refusals) if refusals.iter().all(|refusal| refusal.hit.is_some()) => {
                Err(Disorder::Missing(index))
            }
            _ => Err(Disorder::Ambiguous(index)),
        }
    }
}

impl<'a> Iterator for Fates<'a> {
    type Item = Result<Fate<'a>, Disorder>;

    fn next(&mut self) -> Option<Self::Item> {
        let exhausted = self.allocations.is_empty() && self.refusals.is_empty();
        if self.failed || (exhausted && self.index > 0) {
            return None;
        }
        let fate = if exhausted { Err(Disorder::Empty) } else { self.take() };
        self.failed = fate.is_err();
        self.index = self.index.saturating_add(1);
        Some(fate)
    }
}
