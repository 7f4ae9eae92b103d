//! Finds numbered slots by the hashes of their keys, and says which slot is free.

use super::Slab;

/// No slot.
const NONE: u32 = u32::MAX;
/// Most chains: a table of more entries than that has longer ones.
const MOST_HEADS: usize = 1 << 24;

#[derive(Clone, Copy, Debug)]
struct Link {
    /// The next slot of the chain, or the next free one.
    next: u32,
    hash: u32,
}

/// Chains of slots. All of its heads are there from the beginning: nothing is ever moved, and no
/// insertion costs more than another.
#[derive(Clone, Debug)]
pub(crate) struct Index {
    /// One more than the first slot; zero for none, so that the system's empty pages are right.
    heads: Vec<u32>,
    links: Slab<Link>,
    free: u32,
    len: usize,
}

impl Index {
    /// What a slot costs at most, with its share of the heads.
    pub(crate) const BYTES: usize = Slab::<Link>::BYTES + 2 * size_of::<u32>();

    /// For so many slots; more find room, in longer chains.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            heads: vec![0; Self::heads_for(most)],
            links: Slab::new(),
            free: NONE,
            len: 0,
        }
    }

    fn heads_for(most: usize) -> usize {
        most.clamp(1, MOST_HEADS).next_power_of_two()
    }

    /// Goes on for another number of slots. `used` are those that are not free.
    pub(crate) fn resize(&mut self, most: usize, used: impl Iterator<Item = u32>) {
        let heads = Self::heads_for(most);
        if heads == self.heads.len() {
            return;
        }
        self.heads = vec![0; heads];
        for slot in used {
            self.link(slot);
        }
    }

    /// Slots in use.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Slots that have ever been in use: what was taken for them stays.
    pub(crate) fn slots(&self) -> usize {
        self.links.len()
    }

    /// Whether the next slot is one that was in use before.
    pub(crate) fn has_free(&self) -> bool {
        self.free != NONE
    }

    /// The slot with this hash that `is` the one.
    pub(crate) fn find(&self, hash: u32, mut is: impl FnMut(u32) -> bool) -> Option<u32> {
        let mut next = self.heads[self.head(hash)].wrapping_sub(1);
        while next != NONE {
            let link = self.links[next];
            if link.hash == hash && is(next) {
                return Some(next);
            }
            next = link.next;
        }
        None
    }

    /// Takes a slot for a key with this hash, which is not there yet: one that is free, or the
    /// one behind the others.
    pub(crate) fn insert(&mut self, hash: u32) -> u32 {
        let link = Link { next: NONE, hash };
        let slot = match self.free {
            NONE => {
                self.links.push(link);
                self.links.len() as u32 - 1
            }
            free => {
                self.free = self.links[free].next;
                self.links[free] = link;
                free
            }
        };
        self.link(slot);
        self.len += 1;
        slot
    }

    /// Frees a slot that is in use.
    pub(crate) fn remove(&mut self, slot: u32) {
        let Link { next, hash } = self.links[slot];
        let head = self.head(hash);
        let mut before = self.heads[head].wrapping_sub(1);
        if before == slot {
            self.heads[head] = next.wrapping_add(1);
        } else {
            while before != NONE && self.links[before].next != slot {
                before = self.links[before].next;
            }
            if before == NONE {
                return;
            }
            self.links[before].next = next;
        }
        self.links[slot].next = self.free;
        self.free = slot;
        self.len -= 1;
    }

    fn link(&mut self, slot: u32) {
        let head = self.head(self.links[slot].hash);
        self.links[slot].next = self.heads[head].wrapping_sub(1);
        self.heads[head] = slot + 1;
    }

    fn head(&self, hash: u32) -> usize {
        hash as usize & (self.heads.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_map_whose_slots_are_used_again(
            steps in proptest::collection::vec((0u32..40, any::<bool>(), 0usize..200), 1..300),
        ) {
            let mut index = Index::new(8);
            // Several keys have one hash.
            let hash = |key: u32| key / 3 * 5;
            let mut keys: HashMap<u32, u32> = HashMap::new();
            let (mut model, mut most) = (HashMap::new(), 0);
            for (key, insert, size) in steps {
                let found = index.find(hash(key), |slot| keys[&slot] == key);
                prop_assert_eq!(found, model.get(&key).copied());
                match (found, insert) {
                    (None, true) => {
                        let slot = index.insert(hash(key));
                        prop_assert!(!keys.contains_key(&slot));
                        keys.insert(slot, key);
                        model.insert(key, slot);
                    }
                    (Some(slot), false) => {
                        index.remove(slot);
                        keys.remove(&slot);
                        model.remove(&key);
                    }
                    _ => index.resize(size, keys.keys().copied()),
                }
                most = most.max(model.len());
                prop_assert_eq!((index.len(), index.slots()), (model.len(), most));
            }
        }
    }
}
