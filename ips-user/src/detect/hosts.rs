//! What rules have noted about addresses and pairs of addresses: bits (`hostbits`, `xbits`) and
//! tags.
//!
//! Reference: <https://docs.suricata.io/en/suricata-8.0.3/rules/xbits.html>.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;

use super::names::NameId;
use super::tag::{self, Tagged};
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

    fn is_empty(&self) -> bool {
        self.bits.is_empty() && self.tags.is_empty()
    }
}

/// What is noted by key. Bounded: at the bound, entries about which nothing holds any more make
/// room; if there are none, nothing is noted, which is counted.
#[derive(Debug)]
pub struct HostTable<K> {
    entries: HashMap<K, Host>,
    memcap: u64,
    /// Bytes of the vectors of all entries.
    owned: u64,
    full_until_ns: u64,
    tagged: usize,
    /// Bits and tags that were not noted because memory was used up.
    pub refused: u64,
}

impl<K: Copy + Eq + Hash> HostTable<K> {
    const ENTRY_BYTES: u64 = (size_of::<K>() + size_of::<Host>() + 16) as u64;
    const BIT_BYTES: u64 = size_of::<(NameId, u64)>() as u64;
    const TAG_BYTES: u64 = size_of::<Tagged>() as u64;

    /// With so much memory.
    pub fn new(memcap: u64) -> Self {
        Self {
            entries: HashMap::new(),
            memcap,
            owned: 0,
            full_until_ns: 0,
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
        self.entries.is_empty()
    }

    /// Bytes that it takes.
    pub fn memuse(&self) -> u64 {
        self.entries.len() as u64 * Self::ENTRY_BYTES + self.owned
    }

    /// Forgets what does not hold any more.
    pub fn expire(&mut self, now: Timestamp) {
        self.entries.retain(|_, host| {
            host.expire(now);
            !host.is_empty()
        });
        self.owned = 0;
        self.tagged = 0;
        for host in self.entries.values() {
            // What was once needed stays allocated; twice the length is the most it can be.
            self.owned += host.bits.len() as u64 * Self::BIT_BYTES;
            self.owned += host.tags.len() as u64 * Self::TAG_BYTES;
            self.tagged += usize::from(!host.tags.is_empty());
        }
    }

    fn has_room(&mut self, more: u64, now: Timestamp) -> bool {
        if self.memuse() + more <= self.memcap {
            return true;
        }
        if now.monotonic_ns >= self.full_until_ns {
            self.expire(now);
            // Not for every packet of a flood: once a second.
            self.full_until_ns = now.monotonic_ns.saturating_add(1_000_000_000);
        }
        let room = self.memuse() + more <= self.memcap;
        self.refused += u64::from(!room);
        room
    }

    /// Whether a bit is set.
    pub(super) fn bit(&self, key: K, name: NameId, now: Timestamp) -> bool {
        self.entries.get(&key).is_some_and(|host| {
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
        if let Some(host) = self.entries.get_mut(&key)
            && let Some(place) = host.bits.iter().position(|(bit, _)| *bit == name)
        {
            if set {
                host.bits[place].1 = until;
            } else {
                host.bits.swap_remove(place);
                self.owned -= Self::BIT_BYTES;
            }
            return;
        }
        if set && self.has_room(Self::ENTRY_BYTES + Self::BIT_BYTES, now) {
            self.entries
                .entry(key)
                .or_default()
                .bits
                .push((name, until));
            self.owned += Self::BIT_BYTES;
        }
    }

    /// Records packets of this key from now on.
    pub(super) fn tag(&mut self, key: K, rule: u64, tag: Tag, now: Timestamp) {
        if !self.has_room(Self::ENTRY_BYTES + Self::TAG_BYTES, now) {
            return;
        }
        let host = self.entries.entry(key).or_default();
        let before = host.tags.len();
        self.tagged += usize::from(before == 0);
        tag::add(&mut host.tags, rule, tag, now);
        self.owned += (host.tags.len() - before) as u64 * Self::TAG_BYTES;
    }

    /// Counts a packet for the tags of this key. Whether it is to be recorded.
    pub(super) fn packet(&mut self, key: K, length: usize, now: Timestamp) -> bool {
        if self.tagged == 0 {
            return false;
        }
        let Some(host) = self.entries.get_mut(&key) else {
            return false;
        };
        let before = host.tags.len();
        let recorded = tag::packet(&mut host.tags, length, now);
        self.owned -= (before - host.tags.len()) as u64 * Self::TAG_BYTES;
        self.tagged -= usize::from(before > 0 && host.tags.is_empty());
        recorded
    }
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
        let refused = table.refused;
        table.change(address(1 << 20), name, BitChange::Set, 10, at(11));
        assert!(table.bit(address(1 << 20), name, at(11)));
        assert_eq!((table.len(), table.refused), (1, refused));
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
        assert!(table.is_empty() && table.memuse() == 0);
    }
}
