//! Which numbers were accepted: of a source's batches ([`Window`]), and of a session's interactions
//! ([`Interactions`]). Both are exact for ever in bounded memory (contract, section 3).
//! `state` keeps them for what is confirmed, `draft` for the frame being cut. Nothing here knows of either.

use jackpot_core::frame::batch::Gap;
use jackpot_core::frame::validated::SessionKey;
use jackpot_core::limits::{CONTENTS_REMEMBERED, INTERACTION_WINDOW, SEQUENCE_JUMP_MAX, SEQUENCE_WINDOW};
use jackpot_core::sessions::Sessions;
use jackpot_core::time::Millis;
use serde::{Deserialize, Serialize};

/// Words of the bitmap below the highest sequence.
const WORDS: usize = 16;
const _: () =
    assert!(WORDS * 64 == 1_024 && SEQUENCE_WINDOW == 1_024, "one bit for each number of the window");
const _: () = assert!(INTERACTION_WINDOW == 64, "one bit for each number of the window");

/// The first half of the SHA-256 of a batch's body.
pub type Content = [u8; 16];

/// What is remembered of a source's batches.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Window {
    /// The highest accepted sequence; the one before the first that is awaited, where none was accepted.
    highest: u64,
    /// From where on a number that never comes is a gap: the start.
    from: u64,
    /// The `sequence_from` that was applied last. Numbers below it are never accepted.
    declared: Option<u64>,
    /// Whether *n* was accepted, for each *n* of the window below `highest`: bit *n* modulo 1,024.
    accepted: [u64; WORDS],
    /// The contents of the last batches accepted, the last one at the end.
    contents: Vec<(u64, Content)>,
}

/// What the window says of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It was not accepted before: it is now.
    New,
    /// It was accepted before.
    Duplicate {
        /// Whether with the same content, where that is remembered.
        same: Option<bool>,
    },
    /// It lies below what is remembered.
    Stale {
        /// The lowest number that could still be accepted.
        lowest: u64,
    },
    /// It lies too far above the highest accepted one.
    Jump {
        /// That one.
        highest: u64,
    },
}

impl Window {
    /// Nothing is remembered, and numbers start at `from`.
    pub fn starting_at(from: u64) -> Self {
        Self { highest: from.saturating_sub(1), from, declared: Some(from), ..Self::default() }
    }

    /// The `sequence_from` that was applied last.
    pub fn declared(&self) -> Option<u64> {
        self.declared
    }

    /// What is to become of a batch with this sequence and content.
    pub fn judge(&self, sequence: u64, content: &Content) -> Standing {
        if !self.started() {
            return Standing::New;
        }
        let lowest = self.highest.saturating_sub(SEQUENCE_WINDOW).max(self.floor());
        if sequence < lowest {
            Standing::Stale { lowest }
        } else if sequence > self.highest {
            let far = sequence - self.highest > SEQUENCE_JUMP_MAX;
            if far { Standing::Jump { highest: self.highest } } else { Standing::New }
        } else if sequence == self.highest || self.holds(sequence) {
            let known = self.contents.iter().find(|(known, _)| *known == sequence);
            Standing::Duplicate { same: known.map(|(_, known)| known == content) }
        } else {
            Standing::New
        }
    }

    /// The numbers that leave the window unseen when `sequence` is accepted, in order.
    pub fn gaps(&self, sequence: u64) -> Vec<Gap> {
        let mut gaps: Vec<Gap> = Vec::new();
        let mut miss = |from: u64, to: u64| match gaps.last_mut() {
            Some(last) if last.to + 1 == from => last.to = to,
            _ => gaps.push(Gap { from, to }),
        };
        let Some(end) = sequence.checked_sub(SEQUENCE_WINDOW).filter(|_| self.started()) else { return gaps };
        for number in self.lowest().max(self.from)..end.min(self.highest) {
            if !self.holds(number) {
                miss(number, number);
            }
        }
        let beyond = (self.highest + 1).max(self.from);
        if beyond < end {
            miss(beyond, end - 1);
        }
        gaps
    }

    /// Remembers a batch that [`Window::judge`] found new.
    pub fn accept(&mut self, sequence: u64, content: Content) {
        if !self.started() {
            (self.highest, self.from) = (sequence, sequence);
        } else if sequence > self.highest {
            self.advance(sequence);
        } else {
            self.mark(sequence, true);
        }
        if self.contents.len() == CONTENTS_REMEMBERED {
            self.contents.remove(0);
        }
        self.contents.push((sequence, content));
    }

    fn advance(&mut self, sequence: u64) {
        let end = sequence.saturating_sub(SEQUENCE_WINDOW);
        for number in self.lowest()..end.min(self.highest) {
            self.mark(number, false);
        }
        if self.highest >= end.max(self.floor()) {
            self.mark(self.highest, true);
        }
        self.highest = sequence;
    }

    /// Whether there is a highest sequence to go by.
    fn started(&self) -> bool {
        self.highest > 0 || self.declared.is_some()
    }

    /// The lowest number that is ever accepted.
    fn floor(&self) -> u64 {
        self.declared.unwrap_or(1)
    }

    /// The lowest number that the bitmap speaks of.
    fn lowest(&self) -> u64 {
        self.highest.saturating_sub(SEQUENCE_WINDOW)
    }

    fn holds(&self, number: u64) -> bool {
        let (word, bit) = place(number);
        self.accepted[word] & bit != 0
    }

    fn mark(&mut self, number: u64, accepted: bool) {
        let (word, bit) = place(number);
        if accepted {
            self.accepted[word] |= bit;
        } else {
            self.accepted[word] &= !bit;
        }
    }
}

fn place(number: u64) -> (usize, u64) {
    let slot = number % SEQUENCE_WINDOW;
    (usize::try_from(slot / 64).expect("at most 15"), 1 << (slot % 64))
}

/// What is remembered of a session's interactions. Nothing yet: both are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Interactions {
    /// The highest that was accepted.
    highest: u64,
    /// Whether *n* was accepted, for each *n* of the 64 below: bit `highest − 1 − n`.
    accepted: u64,
}

/// Why an interaction is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// It was accepted before.
    Accepted,
    /// It lies below what is remembered.
    Older {
        /// The highest that was accepted.
        highest: u64,
    },
}

impl Interactions {
    /// Accepts an interaction (from 1), or says why not.
    pub fn accept(&mut self, number: u64) -> Result<(), Repeat> {
        if number > self.highest {
            let ahead = number - self.highest;
            let kept = if ahead < INTERACTION_WINDOW { self.accepted << ahead } else { 0 };
            let before = self.highest > 0 && ahead <= INTERACTION_WINDOW;
            self.accepted = kept | if before { 1 << (ahead - 1) } else { 0 };
            self.highest = number;
            return Ok(());
        }
        let below = self.highest - number;
        if below == 0 {
            return Err(Repeat::Accepted);
        }
        if below > INTERACTION_WINDOW {
            return Err(Repeat::Older { highest: self.highest });
        }
        let bit = 1 << (below - 1);
        if self.accepted & bit != 0 {
            return Err(Repeat::Accepted);
        }
        self.accepted |= bit;
        Ok(())
    }
}

/// Accepts an interaction of a session, received at `now`, or says why not. At most `max` sessions are kept.
pub fn accept(
    sessions: &mut Sessions<Interactions>,
    session: SessionKey,
    interaction: u64,
    now: Millis,
    max: usize,
) -> Result<(), Repeat> {
    let mut seen = sessions.get(&session, now).copied().unwrap_or_default();
    seen.accept(interaction)?;
    sessions.put(session, seen, now, max);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// The rule as the contract says it, over everything that was ever accepted.
    #[derive(Default)]
    struct Model {
        declared: Option<u64>,
        start: Option<u64>,
        accepted: BTreeSet<u64>,
        contents: Vec<(u64, Content)>,
        reported: Vec<(u64, u64)>,
    }

    impl Model {
        fn judge(&self, n: u64, content: &Content) -> Standing {
            let highest = match (self.accepted.last(), self.declared) {
                (Some(&highest), _) => highest,
                (None, Some(from)) => from - 1,
                (None, None) => return Standing::New,
            };
            let lowest = highest.saturating_sub(1_024).max(self.declared.unwrap_or(1));
            if n < lowest {
                Standing::Stale { lowest }
            } else if n > highest + 1_000_000 {
                Standing::Jump { highest }
            } else if self.accepted.contains(&n) {
                let last = self.contents.iter().rev().take(16).find(|(known, _)| *known == n);
                Standing::Duplicate { same: last.map(|(_, known)| known == content) }
            } else {
                Standing::New
            }
        }

        fn accept(&mut self, n: u64, content: Content) {
            self.start.get_or_insert(n);
            self.accepted.insert(n);
            self.contents.push((n, content));
        }

        /// Every number from the start on that can no longer be accepted and never was.
        fn missing(&self) -> Vec<(u64, u64)> {
            let (Some(start), Some(&highest)) = (self.start, self.accepted.last()) else { return Vec::new() };
            let mut missing = Vec::new();
            let mut from = start;
            let end = highest.saturating_sub(1_024);
            for &n in self.accepted.range(start..).chain([&u64::MAX]) {
                if from < n.min(end) {
                    missing.push((from, n.min(end) - 1));
                }
                from = n.saturating_add(1);
            }
            missing
        }
    }

    /// Ranges that touch, as one.
    fn merged(mut ranges: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
        ranges.sort_unstable();
        let mut merged: Vec<(u64, u64)> = Vec::new();
        for (from, to) in ranges {
            match merged.last_mut() {
                Some(last) if last.1 + 1 == from => last.1 = to,
                _ => merged.push((from, to)),
            }
        }
        merged
    }

    /// Steps around the highest so far, near and far.
    fn steps() -> impl Strategy<Value = Vec<(i64, u8)>> {
        let step = prop_oneof![
            8 => -3_i64..4,
            3 => -1_030_i64..1_030,
            1 => -5_000_i64..5_000,
            1 => 999_999_i64..1_000_002,
            1 => 1_020_i64..1_030,
            1 => -1_030_i64..-1_020,
        ];
        proptest::collection::vec((step, 0_u8..2), 1..200)
    }

    proptest! {
        #[test]
        fn a_window_knows_what_all_accepted_numbers_tell(
            start in prop_oneof![1_u64..10, 1_u64..5_000, Just(1 << 62)],
            declared in prop::option::of(prop_oneof![Just(0_u64), 0_u64..2_000]),
            steps in steps(),
        ) {
            let declared = declared.map(|more| start + more);
            let mut window = declared.map_or_else(Window::default, Window::starting_at);
            let mut model = Model { declared, start: declared, ..Model::default() };
            let mut at = start;
            for (step, content) in steps {
                let n = at.saturating_add_signed(step).max(1);
                let content = [content; 16];
                let standing = window.judge(n, &content);
                prop_assert_eq!(standing, model.judge(n, &content), "{}", n);
                if standing == Standing::New {
                    for gap in window.gaps(n) {
                        model.reported.push((gap.from, gap.to));
                    }
                    window.accept(n, content);
                    model.accept(n, content);
                    at = *model.accepted.last().expect("one is accepted");
                    prop_assert_eq!(merged(model.reported.clone()), model.missing(), "after {}", n);
                }
            }
        }

        #[test]
        fn a_session_knows_what_all_accepted_numbers_tell(
            start in prop_oneof![1_u64..100, Just((1 << 63) - 70)],
            steps in proptest::collection::vec(prop_oneof![4 => -3_i64..4, 2 => -70_i64..70, 1 => 62_i64..67], 1..200),
        ) {
            let mut session = Interactions::default();
            let mut model = BTreeSet::new();
            for step in steps {
                let highest = model.last().copied().unwrap_or(start);
                let n = highest.saturating_add_signed(step).max(1);
                let expect = if model.contains(&n) && highest - n <= 64 {
                    Err(Repeat::Accepted)
                } else if !model.is_empty() && n < highest.saturating_sub(64) {
                    Err(Repeat::Older { highest })
                } else {
                    Ok(())
                };
                prop_assert_eq!(session.accept(n), expect, "{} after {:?}", n, model);
                model.insert(n);
            }
        }
    }

    #[test]
    fn a_declared_start_forgets_and_bounds() {
        let window = Window::starting_at(5_001);
        let check = |n, expect| assert_eq!(window.judge(n, &[0; 16]), expect, "{n}");
        check(5_000, Standing::Stale { lowest: 5_001 });
        check(5_001, Standing::New);
        check(1_005_000, Standing::New);
        check(1_005_001, Standing::Jump { highest: 5_000 });
        assert_eq!(window.gaps(1_005_000), [Gap { from: 5_001, to: 1_003_975 }], "a jump is one record");
    }
}
