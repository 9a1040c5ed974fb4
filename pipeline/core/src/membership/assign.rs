//! Which process of a stage runs which partition: a pure function of what they say of themselves.
//! What is held is kept, what nobody holds goes to whoever has least, and then loads are levelled, so that they differ
//! by at most one and no more moves than must. Where several would do, rendezvous hashing decides.

use std::collections::BTreeMap;

use super::Said;
use crate::scatter::{fnv1a, fnv1a_from, mix};

/// Divides the partitions among the members; each is in exactly one share, where there is any member.
///
/// A partition that a member cannot run goes to others, unless nobody can; then it stays with whoever has it. Loads
/// differ by at most one unless that stands in the way.
pub fn assign(members: &BTreeMap<&str, &Said>, partitions: u16) -> BTreeMap<String, Vec<u16>> {
    let sides: Vec<Side> = members.iter().map(|(id, said)| Side::new(id, said, partitions)).collect();
    let mut division = Division { shares: vec![Vec::new(); sides.len()], sides };
    if !division.sides.is_empty() {
        division.keep_and_give(partitions);
        division.level();
    }
    let shares = members.keys().zip(division.shares);
    shares
        .map(|(id, mut share)| {
            share.sort_unstable();
            ((*id).to_owned(), share)
        })
        .collect()
}

/// A member, and how much each partition leans to it.
struct Side<'a> {
    said: &'a Said,
    weights: Vec<u64>,
}

impl<'a> Side<'a> {
    fn new(id: &str, said: &'a Said, partitions: u16) -> Self {
        // FNV alone hardly tells the last byte in its upper bits, which decide.
        let name = fnv1a(id.as_bytes());
        let weight = |partition: u16| mix(fnv1a_from(name, &partition.to_be_bytes()));
        Self { said, weights: (0..partitions).map(weight).collect() }
    }

    fn weight(&self, partition: u16) -> u64 {
        self.weights[usize::from(partition)]
    }
}

struct Division<'a> {
    sides: Vec<Side<'a>>,
    /// The partitions of each, in the order of `sides`.
    shares: Vec<Vec<u16>>,
}

impl Division<'_> {
    fn can(&self, side: usize, partition: u16) -> bool {
        let cannot = |side: &Side| side.said.cannot.contains(&partition);
        !cannot(&self.sides[side]) || self.sides.iter().all(cannot)
    }

    fn able(&self, partition: u16) -> impl Iterator<Item = usize> {
        (0..self.sides.len()).filter(move |&side| self.can(side, partition))
    }

    /// What is held stays with the last one to take it; the rest goes to whoever has least, beginning with those that
    /// fewest can run.
    fn keep_and_give(&mut self, partitions: u16) {
        let mut free = Vec::new();
        for partition in 0..partitions {
            let claims = self.able(partition).filter_map(|side| {
                let hold = self.sides[side].said.holds.get(&partition)?;
                Some((hold.since, self.sides[side].weight(partition), side))
            });
            match claims.max() {
                Some((.., side)) => self.shares[side].push(partition),
                None => free.push((self.able(partition).count(), partition)),
            }
        }
        free.sort_unstable();
        for (_, partition) in free {
            let weight = |side: usize| std::cmp::Reverse(self.sides[side].weight(partition));
            let least = self.able(partition).min_by_key(|&side| (self.shares[side].len(), weight(side)));
            self.shares[least.expect("somebody is able, or everybody is taken to be")].push(partition);
        }
    }

    /// Moves one partition after the other from who has most to who has least, while that makes loads more even.
    fn level(&mut self) {
        while let Some((from, place, to)) = self.best_move() {
            let partition = self.shares[from].swap_remove(place);
            self.shares[to].push(partition);
        }
    }

    fn best_move(&self) -> Option<(usize, usize, usize)> {
        let mut best = None;
        let sides = 0..self.sides.len();
        for (from, to) in sides.clone().flat_map(|from| sides.clone().map(move |to| (from, to))) {
            let uneven = self.shares[from].len().saturating_sub(self.shares[to].len());
            if uneven < 2 {
                continue;
            }
            for (place, &partition) in self.shares[from].iter().enumerate() {
                if self.can(to, partition) {
                    best = best.max(Some((uneven, self.sides[to].weight(partition), (from, place, to))));
                }
            }
        }
        best.map(|(_, _, found)| found)
    }
}
