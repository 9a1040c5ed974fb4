//! The numbers of a source's batches: which may be accepted, which are repeats, and which never came (contract,
//! section 3). Written again from the contract; one per source, over the accepted batches in log order.

use std::collections::BTreeSet;

use jackpot_core::frame::batch::Gap;
use jackpot_core::refusal::Reason;

/// How far below the highest accepted number one may lie.
const WINDOW: u64 = 1_024;
/// How far above it.
const JUMP_MAX: u64 = 1_000_000;

/// What was accepted of a source. Bounded: what leaves the window is judged and forgotten.
#[derive(Debug, Clone, Default)]
pub struct Numbers {
    /// The highest accepted, or the one before where the terms let the numbers start; `None` before either.
    highest: Option<u64>,
    /// The `sequence_from` in force.
    declared: Option<u64>,
    /// The lowest number of which it is not known yet whether it is a gap.
    unjudged: u64,
    /// What was accepted of the window.
    seen: BTreeSet<u64>,
}

impl Numbers {
    /// A revision says where the numbers start. Another value than before makes all else forgotten.
    pub fn declare(&mut self, from: u64) {
        if self.declared != Some(from) {
            let highest = Some(from.saturating_sub(1));
            *self = Self { highest, declared: Some(from), unjudged: from, seen: BTreeSet::new() };
        }
    }

    /// Why a batch with this number is refused for it; `None` where it is to be accepted.
    pub fn objection(&self, number: u64) -> Option<Reason> {
        let highest = self.highest?;
        let lowest = highest.saturating_sub(WINDOW).max(self.declared.unwrap_or(1));
        if self.seen.contains(&number) {
            Some(Reason::DuplicateBatch)
        } else if number < lowest {
            Some(Reason::StaleSequence)
        } else if number > highest && number - highest > JUMP_MAX {
            Some(Reason::SequenceJump)
        } else {
            None
        }
    }

    /// Accepts a number; gives the gaps that are certain now.
    pub fn accept(&mut self, number: u64) -> Vec<Gap> {
        if self.highest.is_none() {
            self.unjudged = number;
        }
        self.seen.insert(number);
        if self.highest.is_some_and(|highest| number <= highest) {
            return Vec::new();
        }
        self.highest = Some(number);
        let end = number.saturating_sub(WINDOW);
        let gaps = self.missing(end);
        self.seen = self.seen.split_off(&end);
        self.unjudged = self.unjudged.max(end);
        gaps
    }

    /// The numbers below `end` that are not judged yet and were never seen.
    fn missing(&self, end: u64) -> Vec<Gap> {
        let (mut gaps, mut from) = (Vec::new(), self.unjudged);
        if from >= end {
            return gaps;
        }
        for &number in self.seen.range(from..end) {
            if number > from {
                gaps.push(Gap { from, to: number - 1 });
            }
            from = number + 1;
        }
        if from < end {
            gaps.push(Gap { from, to: end - 1 });
        }
        gaps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_judged_as_the_contract_says() {
        let mut numbers = Numbers::default();
        assert_eq!(numbers.objection(5_000), None);
        assert_eq!(numbers.accept(5_000), []);
        assert_eq!(numbers.objection(5_000), Some(Reason::DuplicateBatch));
        assert_eq!(numbers.objection(3_976), None, "the lowest of the window");
        assert_eq!(numbers.objection(3_975), Some(Reason::StaleSequence));
        assert_eq!(numbers.objection(1_005_000), None);
        assert_eq!(numbers.objection(1_005_001), Some(Reason::SequenceJump));
        assert_eq!(numbers.accept(5_003), []);
        assert_eq!(numbers.accept(5_001), []);
        assert_eq!(numbers.accept(7_000), [Gap { from: 5_002, to: 5_002 }, Gap { from: 5_004, to: 5_975 }]);
        assert_eq!(numbers.objection(5_001), Some(Reason::StaleSequence));
        numbers.declare(10);
        assert_eq!(numbers.objection(9), Some(Reason::StaleSequence));
        assert_eq!(numbers.objection(10), None);
        numbers.declare(10);
        assert_eq!(numbers.accept(2_000), [Gap { from: 10, to: 975 }]);
    }
}
