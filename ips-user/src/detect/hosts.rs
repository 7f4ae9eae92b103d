//! What rules have noted about addresses and pairs of addresses: bits (`hostbits`, `xbits`) and
//! tags.
//!
//! Reference: <https://docs.suricata.io/en/suricata-8.0.3/rules/xbits.html>.

use std::hash::Hash;
use std::net::IpAddr;

use super::names::NameId;
use super::tables::TableUse;
use super::tag::{self, Tagged};
use crate::bounded::{Noted, grown, heap};
use crate::flow::Timestamp;
use crate::rules::ast::{BitChange, Tag};

/// Two addresses, either way.
pub type Pair = (IpAddr, IpAddr);

/// In ascending order.
pub(super) fn pair(one: IpAddr, other: IpAddr) -> Pair {
    (one.min(other), one.max(other))
}

#[derive(Debug, Default)]
struct Host {
    /// With when they are unset by themselves.
    bits: Vec<(NameId, u64)>,
    tags: Vec<Tagged>,
}

impl Host {
    fn expire(&mut self, now: Timestamp) {
        self.bits.retain(|(_, until)| *until > now.monotonic_ns);
        self.tags.retain(|tag| !tag.is_over(now));
    }

    /// Whether nothing holds any more; counts it out of those that are tagged.
    fn is_over(&mut self, now: Timestamp, tagged: &mut usize) -> bool {
        let before = !self.tags.is_empty();
        self.expire(now);
        *tagged -= usize::from(before && self.tags.is_empty());
        self.bits.is_empty() && self.tags.is_empty()
    }

    /// Bytes that it takes besides its entry.
    fn owns(&self) -> usize {
        bytes::<(NameId, u64)>(self.bits.capacity()) + bytes::<Tagged>(self.tags.capacity())
    }
}

/// What is noted by key. Bounded: at the bound, entries about which nothing holds any more make
/// room; if there are none, nothing is noted, which is counted.
#[derive(Debug)]
pub struct HostTable<K> {
    entries: Noted<K, Host>,
    tagged: usize,
    /// Bits and tags that were not noted because memory was used up.
    pub refused: u64,
}

impl<K: Copy + Eq + Hash> HostTable<K> {
    /// With so much memory.
    pub fn new(memcap: u64) -> Self {
        Self {
            entries: Noted::new(memcap),
            tagged: 0,
            refused: 0,
        }
    }

    /// Entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that it takes.
    pub fn memuse(&self) -> u64 {
        self.entries.memuse() as u64
    }

    /// What it takes.
    pub fn usage(&self) -> TableUse {
        TableUse {
            memuse: self.memuse(),
            memuse_max: self.entries.most() as u64,
            refused: self.refused,
        }
    }

    /// Forgets what does not hold any more.
    pub fn expire(&mut self, now: Timestamp) {
        let tagged = &mut self.tagged;
        self.entries
            .expire(Host::owns, |host| host.is_over(now, tagged));
    }

    /// Changes an entry that takes `more` for it; counts when there is no room.
    fn note(
        &mut self,
        key: K,
        more: impl FnOnce(&Host) -> usize,
        change: impl FnOnce(&mut Host),
        now: Timestamp,
    ) -> bool {
        let tagged = &mut self.tagged;
        let is_over = |host: &mut Host| host.is_over(now, tagged);
        let noted = self
            .entries
            .change(key, more, Host::owns, is_over, change)
            .is_some();
        self.refused += u64::from(!noted);
        noted
    }

    /// Whether a bit is set.
    pub(super) fn bit(&self, key: K, name: NameId, now: Timestamp) -> bool {
        self.entries.get(key).is_some_and(|host| {
            host.bits
                .iter()
                .any(|(bit, until)| *bit == name && *until > now.monotonic_ns)
        })
    }

    /// Changes a bit, which is unset by itself after so many seconds.
    pub(super) fn change(
        &mut self,
        key: K,
        name: NameId,
        change: BitChange,
        expire: u32,
        now: Timestamp,
    ) {
        let set = match change {
            BitChange::Set => true,
            BitChange::Unset => false,
            BitChange::Toggle => !self.bit(key, name, now),
        };
        let until = now
            .monotonic_ns
            .saturating_add(u64::from(expire) * 1_000_000_000);
        if let Some(host) = self.entries.get_mut(key)
            && let Some(place) = host.bits.iter().position(|(bit, _)| *bit == name)
        {
            if set {
                host.bits[place].1 = until;
            } else {
                host.bits.swap_remove(place);
            }
            return;
        }
        if set {
            let more = |host: &Host| more(&host.bits);
            self.note(key, more, |host| push(&mut host.bits, (name, until)), now);
        }
    }

    /// Records packets of this key from now on.
    pub(super) fn tag(&mut self, key: K, rule: u64, tag: Tag, now: Timestamp) {
        let mut first = false;
        let change = |host: &mut Host| {
            first = host.tags.is_empty();
            let room = grown(host.tags.len(), host.tags.capacity(), 1);
            host.tags.reserve_exact(room - host.tags.len());
            tag::add(&mut host.tags, rule, tag, now);
        };
        self.note(key, |host| more(&host.tags), change, now);
        self.tagged += usize::from(first);
    }

    /// Counts a packet for the tags of this key. Whether it is to be recorded.
    pub(super) fn packet(&mut self, key: K, length: usize, now: Timestamp) -> bool {
        if self.tagged == 0 {
            return false;
        }
        let Some(host) = self.entries.get_mut(key) else {
            return false;
        };
        let before = host.tags.len();
        let recorded = tag::packet(&mut host.tags, length, now);
        self.tagged -= usize::from(before > 0 && host.tags.is_empty());
        recorded
    }
}

fn bytes<T>(capacity: usize) -> usize {
    heap(capacity * size_of::<T>())
}

/// What one more element takes.
fn more<T>(of: &Vec<T>) -> usize {
    bytes::<T>(grown(of.len(), of.capacity(), 1)).saturating_sub(bytes::<T>(of.capacity()))
}

fn push<T>(to: &mut Vec<T>, element: T) {
    to.reserve_exact(grown(to.len(), to.capacity(), 1) - to.len());
    to.push(element);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::ast::{TagOf, TagUnit};

    fn at(seconds: u64) -> Timestamp {
        Timestamp {
            monotonic_ns: seconds * 1_000_000_000,
            ..Timestamp::default()
        }
    }

    fn address(n: u32) -> IpAddr {
        IpAddr::V4(n.into())
    }

    #[test]
    fn bits_are_set_unset_toggled_and_end_by_themselves() {
        let mut table = HostTable::new(1 << 20);
        let name = NameId::of("x");
        let (a, b) = (address(1), address(2));
        table.change(a, name, BitChange::Set, 10, at(0));
        assert!(table.bit(a, name, at(9)) && !table.bit(a, name, at(10)));
        assert!(!table.bit(b, name, at(0)) && !table.bit(a, NameId::of("y"), at(0)));
        table.change(a, name, BitChange::Set, 10, at(5));
        assert!(table.bit(a, name, at(14)));
        table.change(a, name, BitChange::Unset, 0, at(6));
        table.change(a, name, BitChange::Unset, 0, at(6));
        assert!(!table.bit(a, name, at(6)));
        table.change(a, name, BitChange::Toggle, 10, at(6));
        assert!(table.bit(a, name, at(6)));
        table.change(a, name, BitChange::Toggle, 10, at(6));
        assert!(!table.bit(a, name, at(6)));
        // One that has ended is toggled to set.
        table.change(a, name, BitChange::Set, 1, at(6));
        table.change(a, name, BitChange::Toggle, 10, at(8));
        assert!(table.bit(a, name, at(8)));
    }

    #[test]
    fn families_and_ways_are_told_apart_or_not() {
        let mut table = HostTable::new(1 << 20);
        let name = NameId::of("x");
        let six = IpAddr::V6(std::net::Ipv6Addr::from(1u128));
        table.change(address(1), name, BitChange::Set, 10, at(0));
        assert!(!table.bit(six, name, at(0)));
        let mut pairs = HostTable::new(1 << 20);
        pairs.change(
            pair(address(1), address(2)),
            name,
            BitChange::Set,
            10,
            at(0),
        );
        assert!(pairs.bit(pair(address(2), address(1)), name, at(0)));
    }

    #[test]
    fn memory_is_bounded_and_what_has_ended_makes_room() {
        const CAP: u64 = 10_000;
        let mut table = HostTable::new(CAP);
        let name = NameId::of("x");
        for n in 0..10_000 {
            table.change(address(n), name, BitChange::Set, 10, at(0));
            assert!(table.memuse() <= CAP);
        }
        assert!(table.len() > 20 && table.refused > 9_000);
        let (len, refused) = (table.len(), table.refused);
        table.change(address(1 << 20), name, BitChange::Set, 10, at(11));
        assert!(table.bit(address(1 << 20), name, at(11)));
        assert_eq!(table.refused, refused);
        assert!(table.len() < len && table.memuse() <= CAP);
        table.expire(at(11));
        assert_eq!(table.len(), 1);
        let tag = Tag {
            of: TagOf::SourceHost,
            amount: 2,
            unit: TagUnit::Packets,
        };
        for n in 0..10_000 {
            table.tag(address(n), 1, tag, at(12));
            assert!(table.memuse() <= CAP);
        }
        assert!(!table.packet(address(0), 1, at(12)));
        assert!(table.packet(address(0), 1, at(12)));
        assert!(!table.packet(address(0), 1, at(12)));
        table.expire(at(100_000));
        assert!(table.is_empty() && table.tagged == 0);
    }
}
