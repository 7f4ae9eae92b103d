//! A map with so many bytes, from which nothing goes by itself.

use std::hash::{BuildHasher, Hash, RandomState};

use super::{Index, Slab};

/// Entries that are looked at when there is no room for a new one: more than one of them for each
/// new entry, so that in the end all are, and few enough for every packet of a flood.
const LOOKED_AT: usize = 8;

/// Values by key, in so many bytes.
#[derive(Debug)]
pub(crate) struct Noted<K, V> {
    hasher: RandomState,
    index: Index,
    slots: Slab<Option<(K, V)>>,
    memcap: usize,
    /// Bytes that values have taken by themselves.
    owned: usize,
    /// The most bytes that were taken.
    most: usize,
    /// Which slot is looked at next for one that can go.
    hand: u32,
}

impl<K: Copy + Eq + Hash, V> Noted<K, V> {
    /// What an entry costs, without what its value takes by itself.
    pub(crate) const BYTES: usize = Index::BYTES + Slab::<Option<(K, V)>>::BYTES;

    /// Without an entry.
    pub(crate) fn new(memcap: u64) -> Self {
        let memcap = usize::try_from(memcap).unwrap_or(usize::MAX);
        Self {
            hasher: RandomState::new(),
            index: Index::new(memcap / Self::BYTES),
            slots: Slab::new(),
            memcap,
            owned: 0,
            most: 0,
            hand: 0,
        }
    }

    /// Entries.
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    /// Bytes taken.
    pub(crate) fn memuse(&self) -> usize {
        self.index.slots() * Self::BYTES + self.owned
    }

    /// The most that this was.
    pub(crate) fn most(&self) -> usize {
        self.most
    }

    /// The value of a key.
    pub(crate) fn get(&self, key: K) -> Option<&V> {
        let slot = self.find(key, self.hash(key))?;
        self.slots[slot].as_ref().map(|(_, value)| value)
    }

    /// The same, for a change that takes no more memory, and no less.
    pub(crate) fn get_mut(&mut self, key: K) -> Option<&mut V> {
        let slot = self.find(key, self.hash(key))?;
        self.slots[slot].as_mut().map(|(_, value)| value)
    }

    /// Changes the value of a key, which is made when it is not there. `more` is what the change
    /// takes at most, `owns` what a value has taken, `is_over` says which ones can go to make
    /// room. `None` when there is none, and nothing has changed then.
    pub(crate) fn change<R>(
        &mut self,
        key: K,
        more: impl FnOnce(&V) -> usize,
        owns: impl Fn(&V) -> usize,
        is_over: impl FnMut(&mut V) -> bool,
        change: impl FnOnce(&mut V) -> R,
    ) -> Option<R>
    where
        V: Default,
    {
        let hash = self.hash(key);
        let found = self.find(key, hash);
        let (value, needed) = match found.and_then(|slot| self.slots[slot].as_ref()) {
            Some((_, value)) => (None, more(value)),
            None => {
                let new = V::default();
                let needed = more(&new);
                (Some(new), needed)
            }
        };
        let makes_entry = value.is_some();
        if !self.has_room(makes_entry, needed) {
            self.look(found, &owns, is_over);
            if !self.has_room(makes_entry, needed) {
                return None;
            }
        }
        let slot = match value {
            None => found?,
            Some(value) => {
                let slot = self.index.insert(hash);
                self.slots.set(slot, Some((key, value)));
                slot
            }
        };
        let (_, value) = self.slots[slot].as_mut()?;
        let before = owns(value);
        let result = change(value);
        self.owned = self.owned - before + owns(value);
        self.most = self.most.max(self.memuse());
        Some(result)
    }

    /// Lets go of what is over.
    pub(crate) fn expire(
        &mut self,
        owns: impl Fn(&V) -> usize,
        mut is_over: impl FnMut(&mut V) -> bool,
    ) {
        for slot in 0..self.index.slots() as u32 {
            self.check(slot, &owns, &mut is_over);
        }
    }

    fn has_room(&self, makes_entry: bool, more: usize) -> bool {
        let entry = match makes_entry && !self.index.has_free() {
            true => Self::BYTES,
            false => 0,
        };
        self.memuse().saturating_add(entry + more) <= self.memcap
    }

    /// Looks at the next few entries.
    fn look(
        &mut self,
        keep: Option<u32>,
        owns: &impl Fn(&V) -> usize,
        mut is_over: impl FnMut(&mut V) -> bool,
    ) {
        for _ in 0..LOOKED_AT.min(self.index.slots()) {
            let slot = self.hand;
            self.hand = match slot + 1 {
                end if end as usize >= self.index.slots() => 0,
                next => next,
            };
            if Some(slot) != keep {
                self.check(slot, owns, &mut is_over);
            }
        }
    }

    fn check(
        &mut self,
        slot: u32,
        owns: &impl Fn(&V) -> usize,
        is_over: &mut impl FnMut(&mut V) -> bool,
    ) {
        let Some((_, value)) = &mut self.slots[slot] else {
            return;
        };
        let before = owns(value);
        let over = is_over(value);
        self.owned -= before;
        if over {
            self.slots[slot] = None;
            self.index.remove(slot);
        } else {
            self.owned += owns(value);
        }
    }

    fn hash(&self, key: K) -> u32 {
        self.hasher.hash_one(key) as u32
    }

    fn find(&self, key: K, hash: u32) -> Option<u32> {
        let is = |slot| matches!(&self.slots[slot], Some((other, _)) if *other == key);
        self.index.find(hash, is)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Table = Noted<u32, Vec<u8>>;

    fn put(table: &mut Table, key: u32, len: usize, over: u8) -> bool {
        let changed = table.change(
            key,
            |value| len.saturating_sub(value.capacity()),
            Vec::capacity,
            |value| value[0] == over,
            |value| {
                value.clear();
                value.reserve_exact(len);
                value.resize(len, key as u8);
            },
        );
        changed.is_some()
    }

    #[test]
    fn it_keeps_to_its_bytes_and_takes_from_what_is_over() {
        let cost = Table::BYTES + 10;
        let mut table = Table::new(5 * cost as u64);
        for key in 0..5 {
            assert!(put(&mut table, key, 10, 99));
        }
        assert!(!put(&mut table, 5, 10, 99));
        assert!(!put(&mut table, 1, 11, 99));
        assert_eq!((table.len(), table.memuse()), (5, 5 * cost));
        assert_eq!(table.get(3), Some(&vec![3; 10]));
        // That of 2 is over.
        assert!(put(&mut table, 5, 10, 2));
        assert_eq!((table.get(2), table.len()), (None, 5));
        assert!(put(&mut table, 4, 5, 99), "less than before");
        table.expire(Vec::capacity, |value| value[0] != 3);
        assert_eq!((table.len(), table.memuse()), (1, 5 * Table::BYTES + 10));
        assert_eq!(table.get_mut(3), Some(&mut vec![3; 10]));
    }

    #[test]
    fn in_the_end_everything_is_looked_at() {
        let mut table = Table::new(100 * (Table::BYTES as u64 + 1));
        for key in 0..100 {
            assert!(put(&mut table, key, 1, 255));
        }
        let tries = (0..100).take_while(|_| !put(&mut table, 100, 1, 97));
        assert!(tries.count() <= 100 / LOOKED_AT);
        assert!(table.get(97).is_none());
    }
}
