//! The audit's Merkle trees, computed again: the bytes of a leaf as `stages/audit/src/leaf.rs` documents them, the
//! hashes of RFC 6962, and the roots of a tree's complete subtrees. Nothing of the stage or of the core's own tree
//! is used.

use jackpot_core::digest::Digest;
use jackpot_core::frame::Frame;
use jackpot_core::frame::allocations::{Allocation, Allocations};
use jackpot_core::frame::batch::{Accepted, Batch, Funds, HitClaim, Refusal, Verdict};
use jackpot_core::frame::symbols::Symbols;
use jackpot_core::time::Millis;

/// A tree that only grows: its size, and the roots of its complete subtrees with their sizes, largest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    size: u64,
    roots: Vec<(u64, Digest)>,
}

impl Tree {
    /// A tree of which this was recorded; `None` where the roots do not fit the size.
    pub fn recorded(size: u64, roots: &[Digest]) -> Option<Self> {
        let sizes = (0..64_u32).rev().map(|bit| 1_u64 << bit).filter(|part| size & part != 0);
        let parts: Vec<_> = sizes.zip(roots.iter().copied()).collect();
        let fits = parts.len() == roots.len() && parts.iter().map(|(part, _)| part).sum::<u64>() == size;
        fits.then_some(Self { size, roots: parts })
    }

    /// How many leaves it has.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The roots, largest first.
    pub fn roots(&self) -> Vec<Digest> {
        self.roots.iter().map(|(_, root)| *root).collect()
    }

    /// Adds the hash of a leaf.
    pub fn add(&mut self, leaf: Digest) {
        let mut part = (1, leaf);
        while let Some(&(size, left)) = self.roots.last().filter(|(size, _)| *size == part.0) {
            self.roots.pop();
            part = (2 * size, Digest::of_parts(&[&[1], &left.0, &part.1.0]));
        }
        self.roots.push(part);
        self.size += 1;
    }
}

/// The hashes of a frame's leaves, in log order, each with the wager or batch it is about.
pub fn of(frame: &Frame<Allocations>) -> Vec<(String, Digest)> {
    let (symbols, terms) = (&frame.body.symbols, frame.header.terms);
    let mut leaves = Vec::new();
    for batch in &frame.body.batches {
        match &batch.verdict {
            Verdict::Refused(refused) => {
                let mut leaf = Leaf::begin(2, symbols, batch, terms);
                leaf.text(&refused.batch);
                leaf.text(refused.reason.as_str());
                leaf.text(&refused.detail);
                leaf.0.push(u8::from(refused.conflict));
                leaves.push((refused.batch.to_string(), leaf.hash()));
            }
            Verdict::Accepted(accepted) => of_wagers(symbols, batch, terms, accepted, &mut leaves),
        }
    }
    leaves
}

fn of_wagers(
    symbols: &Symbols,
    batch: &Batch<Allocation>,
    terms: u64,
    accepted: &Accepted<Allocation>,
    leaves: &mut Vec<(String, Digest)>,
) {
    let mut outcomes = Vec::new();
    for allocation in &accepted.wagers {
        let index = allocation.wager.index;
        let refused: Vec<_> = accepted.refusals.iter().filter(|refusal| refusal.index == index).collect();
        let mut leaf = Leaf::begin(0, symbols, batch, terms);
        leaf.uint(accepted.sequence.into());
        leaf.allocation(symbols, allocation, &refused);
        outcomes.push((index, leaf));
    }
    for refusal in accepted.refusals.iter().filter(|refusal| refusal.hit.is_none()) {
        let mut leaf = Leaf::begin(1, symbols, batch, terms);
        leaf.uint(accepted.sequence.into());
        leaf.uint(refusal.index.into());
        leaf.grounds(refusal);
        outcomes.push((refusal.index, leaf));
    }
    outcomes.sort_by_key(|(index, _)| *index);
    let id = |index| format!("{}/{}/{index}", symbols.name(batch.source), accepted.sequence);
    leaves.extend(outcomes.into_iter().map(|(index, leaf)| (id(index), leaf.hash())));
}

/// The bytes of a leaf.
struct Leaf(Vec<u8>);

impl Leaf {
    fn begin(kind: u8, symbols: &Symbols, batch: &Batch<Allocation>, terms: u64) -> Self {
        let mut leaf = Self(vec![1, kind]);
        leaf.text(symbols.name(batch.operator));
        leaf.text(symbols.name(batch.source));
        leaf.uint(batch.position.into());
        leaf.time(batch.recorded_at);
        leaf.uint(terms.into());
        leaf
    }

    fn allocation(&mut self, symbols: &Symbols, allocation: &Allocation, refused: &[&Refusal]) {
        let wager = &allocation.wager;
        self.uint(wager.index.into());
        self.text(symbols.name(wager.game));
        self.uint(wager.amount.0);
        self.text(symbols.name(wager.currency));
        let funds = match wager.funds {
            Funds::Cash => 0,
            Funds::Bonus => 1,
            Funds::Free => 2,
        };
        self.0.push(if wager.opt_in { funds + 4 } else { funds });
        self.time(wager.occurred_at);
        self.text(symbols.name(wager.jurisdiction));
        self.count(allocation.participations.len());
        for part in &allocation.participations {
            self.text(symbols.name(part.pool));
            self.uint(part.eligible.0);
            self.uint(part.rate.map_or(0, |rate| rate.0.into()));
        }
        let Some(hits) = &wager.hits else { return self.count(0) };
        self.count(hits.claims.len());
        self.text(&hits.round);
        for (number, claim) in hits.claims.iter().enumerate() {
            match claim {
                HitClaim::Unreadable => self.0.push(0),
                HitClaim::Level { pool, level } => {
                    self.0.push(1);
                    self.text(symbols.name(*pool));
                    self.text(symbols.name(*level));
                }
            }
            match refused.iter().find(|refusal| refusal.hit.is_some_and(|hit| usize::from(hit) == number)) {
                None => self.0.push(0),
                Some(refusal) => {
                    self.0.push(1);
                    self.grounds(refusal);
                }
            }
        }
    }

    fn grounds(&mut self, refusal: &Refusal) {
        self.text(refusal.stage.as_str());
        self.text(refusal.reason.as_str());
        self.text(&refusal.detail);
    }

    fn hash(self) -> Digest {
        Digest::of_parts(&[&[0], &self.0])
    }

    fn count(&mut self, count: usize) {
        self.uint(u128::try_from(count).unwrap_or(u128::MAX));
    }

    fn text(&mut self, text: &str) {
        self.count(text.len());
        self.0.extend_from_slice(text.as_bytes());
    }

    /// Milliseconds since 1970, zigzag: 0, −1, 1, −2, … are 0, 1, 2, 3, …
    fn time(&mut self, at: Millis) {
        let twice = 2 * u128::from(at.0.unsigned_abs());
        self.uint(if at.0 < 0 { twice - 1 } else { twice });
    }

    /// LEB128: seven bits a byte, the low ones first.
    fn uint(&mut self, mut value: u128) {
        loop {
            let [low, ..] = value.to_le_bytes();
            value >>= 7;
            if value == 0 {
                return self.0.push(low & 0x7f);
            }
            self.0.push(low | 0x80);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_documented() {
        let written = |value| {
            let mut leaf = Leaf(Vec::new());
            leaf.uint(value);
            leaf.0
        };
        assert_eq!(written(0), [0]);
        assert_eq!(written(127), [127]);
        assert_eq!(written(128), [0x80, 1]);
        assert_eq!(written(300), [0xac, 2]);
        let time = |at| {
            let mut leaf = Leaf(Vec::new());
            leaf.time(Millis(at));
            leaf.0
        };
        assert_eq!([time(0), time(-1), time(1), time(-2)], [[0], [1], [2], [3]].map(Vec::from));
    }

    #[test]
    fn trees_have_the_roots_of_certificate_transparency() {
        // The test tree of Certificate Transparency's implementations, of two, three and four leaves.
        let mut tree = Tree::default();
        for leaf in [&b""[..], b"\x00", b"\x10", b"\x20\x21"] {
            tree.add(Digest::of_parts(&[&[0], leaf]));
        }
        let root = "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7";
        assert_eq!(tree.roots().iter().map(ToString::to_string).collect::<Vec<_>>(), [root]);
        tree.add(Digest::ZERO);
        assert_eq!((tree.size(), tree.roots().len()), (5, 2));
        assert_eq!(Tree::recorded(5, &tree.roots()), Some(tree.clone()));
        assert_eq!(Tree::recorded(4, &tree.roots()), None);
        assert_eq!(Tree::recorded(7, &tree.roots()), None);
    }
}
