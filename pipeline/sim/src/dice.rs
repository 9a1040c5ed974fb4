//! The one source of chance. Every part of a simulation draws from dice of its own, all cast from the seed, so that a
//! change in what one of them draws leaves the others as they were.

use jackpot_core::scatter::{SplitMix, fnv1a};

/// `SplitMix64`, and what is drawn with it.
#[derive(Debug, Clone)]
pub struct Dice(SplitMix);

impl Dice {
    /// Dice for one purpose of a seed.
    pub fn new(seed: u64, purpose: &str) -> Self {
        let mut dice = Self(SplitMix(seed ^ fnv1a(purpose.as_bytes())));
        dice.roll();
        dice
    }

    /// Any number.
    pub fn roll(&mut self) -> u64 {
        self.0.roll()
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0.below(bound)
    }

    /// A number from `least` to `most`, both included.
    pub fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most - least + 1)
    }

    /// A place in a list that is not empty.
    pub fn place(&mut self, len: usize) -> usize {
        let bound = u64::try_from(len).expect("a length fits 64 bits");
        usize::try_from(self.below(bound)).expect("below a length")
    }

    /// One of a list that is not empty.
    pub fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.place(list.len())]
    }

    /// True in so many of 10,000 cases.
    pub fn strikes(&mut self, of_10_000: u32) -> bool {
        of_10_000 > 0 && self.below(10_000) < u64::from(of_10_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn purposes_draw_apart() {
        let (mut one, mut two) = (Dice::new(7, "network"), Dice::new(7, "schedule"));
        assert!((0..8).any(|_| one.roll() != two.roll()));
    }
}
