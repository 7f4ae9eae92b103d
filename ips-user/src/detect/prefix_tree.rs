//! Which rules name an address: a tree of prefixes, for rules about nothing but addresses.

use crate::rules::ast::AddressSet;
use crate::rules::range_set::RangeSet;

/// A tree over both families.
#[derive(Clone, Debug, Default)]
pub(super) struct PrefixTree {
    v4: Tree,
    v6: Tree,
}

/// Prefixes of addresses of up to 128 bits, left-aligned.
#[derive(Clone, Debug, Default)]
struct Tree {
    nodes: Vec<Node>,
    values: Vec<u32>,
}

const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Node {
    prefix: u128,
    length: u8,
    /// Which values have this prefix.
    values: (u32, u32),
    /// Nodes whose next bit is zero and one.
    children: [u32; 2],
}

fn mask(length: u8) -> u128 {
    match length {
        0 => 0,
        length => u128::MAX << (128 - length),
    }
}

fn bit(address: u128, at: u8) -> usize {
    (address >> (127 - at) & 1) as usize
}

/// Puts prefixes in, then makes a [`PrefixTree`].
#[derive(Debug, Default)]
pub(super) struct Builder {
    v4: Vec<(u128, u8, u32)>,
    v6: Vec<(u128, u8, u32)>,
}

impl Builder {
    /// A value for all addresses of a set.
    pub(super) fn add(&mut self, set: &AddressSet, value: u32) {
        let ranges = set.v4.ranges().iter();
        for &(low, high) in ranges {
            let (low, high) = (u128::from(low), u128::from(high));
            prefixes(low, high, 32, |prefix, length| {
                self.v4.push((prefix << 96, length, value));
            });
        }
        for &(low, high) in RangeSet::ranges(&set.v6) {
            prefixes(low, high, 128, |prefix, length| {
                self.v6.push((prefix, length, value));
            });
        }
    }

    pub(super) fn finish(self) -> PrefixTree {
        PrefixTree {
            v4: Tree::build(self.v4),
            v6: Tree::build(self.v6),
        }
    }
}

/// The fewest prefixes that make up a range of numbers of so many bits.
fn prefixes(low: u128, high: u128, bits: u32, mut each: impl FnMut(u128, u8)) {
    let mut from = low;
    loop {
        // As large as the alignment and the end allow.
        let aligned = from.trailing_zeros().min(bits);
        let left = high - from;
        let fits = match left.checked_add(1) {
            Some(count) => 127 - count.leading_zeros(),
            None => bits,
        };
        let size = aligned.min(fits).min(bits);
        each(from, (bits - size) as u8);
        let step = 1u128.checked_shl(size);
        match step.and_then(|step| from.checked_add(step)) {
            Some(next) if next <= high => from = next,
            _ => return,
        }
    }
}

impl Tree {
    fn build(mut entries: Vec<(u128, u8, u32)>) -> Self {
        entries.sort_unstable();
        entries.dedup();
        let mut tree = Self::default();
        if !entries.is_empty() {
            tree.subtree(&entries);
        }
        tree
    }

    /// A node for what these have in common, and those below it. At most as deep as an address
    /// has bits.
    fn subtree(&mut self, entries: &[(u128, u8, u32)]) -> u32 {
        let (prefix, shortest, _) = entries[0];
        let (last, ..) = entries[entries.len() - 1];
        // Sorted: what the first and the last have in common all have, and none that has it is
        // shorter than the first.
        let length = (prefix ^ last).leading_zeros().min(u32::from(shortest)) as u8;
        let prefix = prefix & mask(length);
        let own = entries
            .iter()
            .take_while(|entry| (entry.0, entry.1) == (prefix, length))
            .count();
        let start = self.values.len() as u32;
        self.values
            .extend(entries[..own].iter().map(|entry| entry.2));
        let number = self.nodes.len();
        self.nodes.push(Node {
            prefix,
            length,
            values: (start, start + own as u32),
            children: [NONE; 2],
        });
        let rest = &entries[own..];
        if !rest.is_empty() {
            let ones = rest.partition_point(|entry| bit(entry.0, length) == 0);
            for (side, part) in [&rest[..ones], &rest[ones..]].into_iter().enumerate() {
                if !part.is_empty() {
                    self.nodes[number].children[side] = self.subtree(part);
                }
            }
        }
        number as u32
    }

    fn find(&self, address: u128, mut each: impl FnMut(u32)) {
        let mut next = 0;
        while let Some(node) = self.nodes.get(next as usize) {
            if (node.prefix ^ address) & mask(node.length) != 0 {
                return;
            }
            for value in &self.values[node.values.0 as usize..node.values.1 as usize] {
                each(*value);
            }
            if node.length == 128 {
                return;
            }
            next = node.children[bit(address, node.length)];
        }
    }
}

impl PrefixTree {
    /// Calls `each` for every value of which a set has the address.
    pub(super) fn find(&self, address: std::net::IpAddr, each: impl FnMut(u32)) {
        match address {
            std::net::IpAddr::V4(v4) => self.v4.find(u128::from(u32::from(v4)) << 96, each),
            std::net::IpAddr::V6(v6) => self.v6.find(u128::from(v6), each),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::*;

    fn set(v4: Vec<(u32, u32)>, v6: Vec<(u128, u128)>) -> AddressSet {
        AddressSet {
            v4: RangeSet::of(v4),
            v6: RangeSet::of(v6),
        }
    }

    fn found(tree: &PrefixTree, address: IpAddr) -> Vec<u32> {
        let mut found = Vec::new();
        tree.find(address, |value| found.push(value));
        found.sort_unstable();
        found
    }

    #[test]
    fn ranges_are_made_of_the_fewest_prefixes() {
        let of = |low, high, bits| {
            let mut made = Vec::new();
            prefixes(low, high, bits, |prefix, length| {
                made.push((prefix, length));
            });
            made
        };
        assert_eq!(of(0, u128::from(u32::MAX), 32), [(0, 0)]);
        assert_eq!(of(5, 5, 32), [(5, 32)]);
        assert_eq!(of(1, 4, 32), [(1, 32), (2, 31), (4, 32)]);
        assert_eq!(of(0, u128::MAX, 128), [(0, 0)]);
        assert_eq!(of(1, u128::MAX, 128).len(), 128);
        assert_eq!(of(u128::MAX, u128::MAX, 128), [(u128::MAX, 128)]);
    }

    #[test]
    fn nested_and_equal_sets_are_all_found() {
        let mut builder = Builder::default();
        builder.add(&AddressSet::all(), 0);
        builder.add(&set(vec![(0x0a00_0000, 0x0aff_ffff)], vec![]), 1);
        builder.add(&set(vec![(0x0a01_0000, 0x0a01_ffff)], vec![]), 2);
        builder.add(&set(vec![(0x0a01_0000, 0x0a01_ffff)], vec![]), 3);
        builder.add(&set(vec![(0x0a01_0203, 0x0a01_0203)], vec![(7, 7)]), 4);
        let tree = builder.finish();
        let check = |address: &str, expect: &[u32]| {
            assert_eq!(found(&tree, address.parse().unwrap()), expect, "{address}");
        };
        check("10.1.2.3", &[0, 1, 2, 3, 4]);
        check("10.1.2.4", &[0, 1, 2, 3]);
        check("10.2.0.0", &[0, 1]);
        check("11.0.0.0", &[0]);
        check("::7", &[0, 4]);
        check("::8", &[0]);
        assert!(found(&Builder::default().finish(), "10.1.2.3".parse().unwrap()).is_empty());
    }

    proptest! {
        #[test]
        fn it_agrees_with_asking_every_set(
            sets in proptest::collection::vec(
                proptest::collection::vec((0u32..64, 0u32..64), 0..4), 0..8),
            addresses in proptest::collection::vec(0u32..70, 1..10),
        ) {
            let sets: Vec<AddressSet> = sets
                .into_iter()
                .map(|ranges| {
                    let v6 = ranges.iter().map(|&(a, b)| (u128::from(a), u128::from(b)));
                    let v6 = v6.collect();
                    set(ranges, v6)
                })
                .collect();
            let mut builder = Builder::default();
            for (value, set) in (0..).zip(&sets) {
                builder.add(set, value);
            }
            let tree = builder.finish();
            for address in addresses {
                for address in [
                    IpAddr::V4(address.into()),
                    IpAddr::V6(u128::from(address).into()),
                ] {
                    let expect: Vec<u32> = (0..)
                        .zip(&sets)
                        .filter(|(_, set)| set.contains(address))
                        .map(|(value, _)| value)
                        .collect();
                    prop_assert_eq!(found(&tree, address), expect, "{}", address);
                }
            }
        }
    }
}
