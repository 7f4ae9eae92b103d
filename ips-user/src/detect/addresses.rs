//! Sets of addresses, each kept once for all rules that name it, and asked once for a packet.

use std::collections::HashMap;
use std::net::IpAddr;

use super::conditions::AddressSets;
use crate::rules::ast::AddressSet;

/// Number of the set of all addresses.
pub(super) const ALL: u32 = 0;

/// The distinct sets of an engine.
#[derive(Clone, Debug)]
pub(super) struct Sets(Vec<AddressSet>);

/// Finds sets that are there already.
#[derive(Debug, Default)]
pub(super) struct Interned {
    sets: Vec<AddressSet>,
    numbers: HashMap<Vec<u8>, u32>,
}

impl Interned {
    /// The number of a set.
    pub(super) fn number(&mut self, set: &AddressSet) -> u32 {
        if self.sets.is_empty() {
            self.sets.push(AddressSet::all());
        }
        if set.is_all() {
            return ALL;
        }
        let mut key = Vec::new();
        for (low, high) in set.v4.ranges() {
            key.extend_from_slice(&low.to_le_bytes());
            key.extend_from_slice(&high.to_le_bytes());
        }
        key.push(b'/');
        for (low, high) in set.v6.ranges() {
            key.extend_from_slice(&low.to_le_bytes());
            key.extend_from_slice(&high.to_le_bytes());
        }
        *self.numbers.entry(key).or_insert_with(|| {
            self.sets.push(set.clone());
            self.sets.len() as u32 - 1
        })
    }

    pub(super) fn finish(mut self) -> Sets {
        if self.sets.is_empty() {
            self.sets.push(AddressSet::all());
        }
        Sets(self.sets)
    }
}

impl Sets {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn get(&self, number: u32) -> Option<&AddressSet> {
        self.0.get(number as usize)
    }
}

/// Answers of one packet, remembered.
#[derive(Debug, Default)]
pub(super) struct Memo {
    /// For each set in which packet it was asked, and the answer in the lowest bit.
    source: Vec<u64>,
    destination: Vec<u64>,
    packet: u64,
}

impl Memo {
    pub(super) fn new(sets: &Sets) -> Self {
        Self {
            source: vec![0; sets.len()],
            destination: vec![0; sets.len()],
            packet: 0,
        }
    }

    /// Forgets the answers of the packet before.
    pub(super) fn next_packet(&mut self) {
        self.packet += 1;
    }

    /// Answers for these ends.
    pub(super) fn asking<'a>(
        &'a mut self,
        sets: &'a Sets,
        source: IpAddr,
        destination: IpAddr,
    ) -> Asking<'a> {
        Asking {
            memo: self,
            sets,
            source,
            destination,
        }
    }
}

/// Asks for one packet.
pub(super) struct Asking<'a> {
    memo: &'a mut Memo,
    sets: &'a Sets,
    source: IpAddr,
    destination: IpAddr,
}

fn answer(slot: Option<&mut u64>, packet: u64, ask: impl FnOnce() -> bool) -> bool {
    let Some(slot) = slot else { return false };
    if *slot >> 1 != packet {
        *slot = packet << 1 | u64::from(ask());
    }
    *slot & 1 != 0
}

impl AddressSets for Asking<'_> {
    fn source(&mut self, set: u32) -> bool {
        let (sets, address) = (self.sets, self.source);
        set == ALL
            || answer(
                self.memo.source.get_mut(set as usize),
                self.memo.packet,
                || sets.get(set).is_some_and(|set| set.contains(address)),
            )
    }

    fn destination(&mut self, set: u32) -> bool {
        let (sets, address) = (self.sets, self.destination);
        set == ALL
            || answer(
                self.memo.destination.get_mut(set as usize),
                self.memo.packet,
                || sets.get(set).is_some_and(|set| set.contains(address)),
            )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::range_set::RangeSet;

    #[test]
    fn equal_sets_are_one_and_answers_are_of_their_packet() {
        let one = |low, high| AddressSet {
            v4: RangeSet::of(vec![(low, high)]),
            v6: RangeSet::empty(),
        };
        let mut interned = Interned::default();
        assert_eq!(interned.number(&AddressSet::all()), ALL);
        let first = interned.number(&one(1, 5));
        assert_eq!(interned.number(&one(1, 5)), first);
        let second = interned.number(&one(3, 9));
        assert_ne!(first, second);
        let sets = interned.finish();
        let mut memo = Memo::new(&sets);
        let address = |n: u32| IpAddr::V4(n.into());
        for (source, destination) in [(2, 8), (8, 2), (4, 4)] {
            memo.next_packet();
            let mut asking = memo.asking(&sets, address(source), address(destination));
            for _ in 0..2 {
                assert!(asking.source(ALL) && asking.destination(ALL));
                assert_eq!(asking.source(first), (1..=5).contains(&source));
                assert_eq!(asking.destination(first), (1..=5).contains(&destination));
                assert_eq!(asking.source(second), (3..=9).contains(&source));
            }
        }
    }
}
