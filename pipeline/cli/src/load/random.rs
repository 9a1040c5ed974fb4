//! A small generator of pseudo-random numbers: xoshiro256**, seeded by splitmix64 (Blackman and Vigna, 2018).
//! Whole numbers only, so that the same seed gives the same traffic on every machine.
//! Only synthetic traffic uses it; nothing of the pipeline itself is ever random.

use jackpot_core::scatter::SplitMix;

/// The generator.
#[derive(Debug, Clone)]
pub struct Random {
    state: [u64; 4],
}

impl Random {
    /// A generator that gives the same numbers for the same parts, each of which matters.
    pub fn seeded(parts: &[u64]) -> Self {
        let mixed = parts.iter().fold(0, |mixed, part| SplitMix(mixed ^ part).roll());
        let mut seed = SplitMix(mixed);
        Self { state: std::array::from_fn(|_| seed.roll()) }
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.state;
        let result = b.wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        result
    }

    /// A number below `bound`, which is at least 1.
    pub fn below(&mut self, bound: u64) -> u64 {
        let wide = u128::from(self.number()) * u128::from(bound);
        u64::try_from(wide >> 64).expect("the upper half of a product of two u64 fits one")
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// True once in `odds` times.
    pub fn once_in(&mut self, odds: u64) -> bool {
        self.below(odds) == 0
    }

    /// An index below `len`, which is at least 1.
    pub fn index(&mut self, len: usize) -> usize {
        let bound = u64::try_from(len).expect("a length fits 64 bits");
        usize::try_from(self.below(bound)).expect("an index below a length fits")
    }

    /// How often a fair coin falls on one side before the other, at most `max`: the exponent of a heavy tail.
    pub fn doublings(&mut self, max: u32) -> u32 {
        self.number().trailing_zeros().min(max)
    }
}

/// Indexes drawn by weight.
#[derive(Debug, Clone)]
pub struct Weights {
    /// Running sums.
    sums: Vec<u64>,
}

impl Weights {
    /// Zipf's law: the item of rank *r* is drawn 1/*r* as often as the first. `len` is at least 1.
    pub fn zipf(len: usize) -> Self {
        Self::new((1..).take(len).map(|rank: u64| 1_000_000_u64.div_ceil(rank)))
    }

    /// Items of these weights; at least one, none of them zero.
    pub fn new(weights: impl IntoIterator<Item = u64>) -> Self {
        let sums: Vec<u64> = weights
            .into_iter()
            .scan(0, |sum, weight| {
                *sum += weight;
                Some(*sum)
            })
            .collect();
        assert!(sums.last().is_some_and(|&sum| sum > 0), "something must have a weight to be drawn");
        Self { sums }
    }

    /// Draws an index.
    pub fn draw(&self, random: &mut Random) -> usize {
        let total = self.sums.last().copied().unwrap_or(1);
        let at = random.below(total);
        self.sums.partition_point(|&sum| sum <= at)
    }

    /// How many of `whole` the item at `index` has by its weight.
    pub fn part(&self, index: usize, whole: u64) -> u64 {
        let before = if index == 0 { 0 } else { self.sums[index - 1] };
        let total = self.sums.last().copied().unwrap_or(1);
        let part = u128::from(whole) * u128::from(self.sums[index] - before) / u128::from(total);
        u64::try_from(part).expect("a part is not above the whole")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_published_algorithm() {
        // The first outputs of xoshiro256** from the state 1, 2, 3, 4, as in the reference implementation.
        let mut random = Random { state: [1, 2, 3, 4] };
        let first: Vec<u64> = (0..4).map(|_| random.number()).collect();
        assert_eq!(first, [11_520, 0, 1_509_978_240, 1_215_971_899_390_074_240]);
    }

    #[test]
    fn draws_follow_the_weights() {
        let mut random = Random::seeded(&[7]);
        let weights = Weights::zipf(4);
        let mut counts = [0_u32; 4];
        for _ in 0..10_000 {
            counts[weights.draw(&mut random)] += 1;
        }
        assert!(counts.is_sorted_by(|a, b| a > b), "{counts:?}");
        assert!((4_500..5_100).contains(&counts[0]), "12 of 25 parts: {counts:?}");
        assert_eq!((0..4).map(|i| weights.part(i, 1_000)).collect::<Vec<_>>(), [479, 239, 160, 119]);
    }

    #[test]
    fn every_part_of_the_seed_matters() {
        let first = |parts: &[u64]| Random::seeded(parts).number();
        assert_eq!(first(&[1, 2]), first(&[1, 2]));
        assert!(first(&[1, 2]) != first(&[2, 1]) && first(&[1, 2]) != first(&[1, 3]));
    }
}
