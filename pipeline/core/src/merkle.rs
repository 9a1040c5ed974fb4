//! The Merkle tree of RFC 6962, section 2.1, as far as a log that only grows needs it: hashes of leaves and nodes,
//! and the frontier from which the root after any further leaf follows. Audit appends to it, and whoever proves
//! or verifies an entry of `audit-p` hashes by it. No leaf is kept here, and nothing is read from anywhere.

use crate::digest::Digest;

/// The hash of a leaf: SHA-256(0x00 ‖ leaf).
pub fn leaf_hash(leaf: &[u8]) -> Digest {
    Digest::of_parts(&[&[0x00], leaf])
}

/// The hash of a node: SHA-256(0x01 ‖ left ‖ right).
pub fn node_hash(left: &Digest, right: &Digest) -> Digest {
    let mut node = [0x01; 65];
    node[1..33].copy_from_slice(&left.0);
    node[33..].copy_from_slice(&right.0);
    Digest::of(&node)
}

/// A tree's size and the roots of its complete subtrees, which is all that growing it needs: 32 bytes for each
/// bit set in the size.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Frontier {
    size: u64,
    roots: Vec<Digest>,
}

impl Frontier {
    /// The frontier of a tree of `size` leaves, as it was recorded: the roots largest first.
    /// `None` when there is not one root for each bit set in `size`.
    pub fn new(size: u64, roots: Vec<Digest>) -> Option<Self> {
        let complete = usize::try_from(size.count_ones()).is_ok_and(|count| count == roots.len());
        complete.then_some(Self { size, roots })
    }

    /// How many leaves the tree has.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The roots of its complete subtrees, largest first: one for each bit set in [`Frontier::size`].
    pub fn roots(&self) -> &[Digest] {
        &self.roots
    }

    /// Adds a leaf, given its [`leaf_hash`].
    pub fn append(&mut self, leaf: Digest) {
        let mut root = leaf;
        // Each subtree as small as the one that is being added makes one of twice the size with it.
        for _ in 0..self.size.trailing_ones() {
            let left = self.roots.pop().expect("a frontier has a root for each bit of its size");
            root = node_hash(&left, &root);
        }
        self.roots.push(root);
        self.size += 1;
    }

    /// The root of the whole tree; that of no leaves is SHA-256 of nothing.
    pub fn root(&self) -> Digest {
        self.roots
            .iter()
            .rev()
            .copied()
            .reduce(|right, left| node_hash(&left, &right))
            .unwrap_or_else(|| Digest::of(b""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// MTH(D\[n\]) word by word from the RFC: split at the largest power of two below n.
    fn naive_root(leaves: &[Vec<u8>]) -> Digest {
        match leaves {
            [] => Digest::of(b""),
            [leaf] => leaf_hash(leaf),
            _ => {
                let split = leaves.len().next_power_of_two() / 2;
                node_hash(&naive_root(&leaves[..split]), &naive_root(&leaves[split..]))
            }
        }
    }

    #[test]
    fn known_trees_have_their_known_roots() {
        // The test tree of Certificate Transparency's implementations.
        let leaves: [&[u8]; 8] = [
            b"",
            b"\x00",
            b"\x10",
            b"\x20\x21",
            b"\x30\x31",
            b"\x40\x41\x42\x43",
            b"\x50\x51\x52\x53\x54\x55\x56\x57",
            b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
        ];
        let roots = [
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
            "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
            "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
            "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
        ];
        let mut frontier = Frontier::default();
        assert_eq!(frontier.root().to_string(), roots[0]);
        for (leaf, root) in leaves.iter().zip(&roots[1..]) {
            frontier.append(leaf_hash(leaf));
            assert_eq!(frontier.root().to_string(), *root, "of {} leaves", frontier.size());
        }
    }

    #[test]
    fn a_frontier_with_another_number_of_roots_is_none() {
        assert_eq!(Frontier::new(0, vec![]), Some(Frontier::default()));
        assert!(Frontier::new(5, vec![Digest::ZERO; 2]).is_some());
        assert_eq!(Frontier::new(5, vec![Digest::ZERO; 3]), None);
        assert_eq!(Frontier::new(4, vec![]), None);
    }

    proptest! {
        #[test]
        fn roots_are_those_of_the_definition(
            leaves in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..4), 0..70),
            cut in any::<proptest::sample::Index>(),
        ) {
            let cut = cut.index(leaves.len() + 1);
            let mut frontier = Frontier::default();
            leaves[..cut].iter().for_each(|leaf| frontier.append(leaf_hash(leaf)));
            prop_assert_eq!(frontier.root(), naive_root(&leaves[..cut]));
            let mut restored = Frontier::new(frontier.size(), frontier.roots().to_vec())
                .expect("what a frontier tells of itself is one");
            leaves[cut..].iter().for_each(|leaf| restored.append(leaf_hash(leaf)));
            prop_assert_eq!(restored.root(), naive_root(&leaves));
            prop_assert_eq!(restored.size(), u64::try_from(leaves.len()).expect("a small number"));
        }
    }
}
