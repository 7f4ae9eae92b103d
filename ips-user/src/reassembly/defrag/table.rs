//! The datagrams that are being put together, by what their fragments have in common, in the
//! order of their last change.

use ips_common::{FlowKey, FragmentKey, HashSeed, flow_hash};

use super::assembly::Assembly;
use super::policy::OverlapPolicy;
use super::{Fragment, Timestamp, VlanIds};
use crate::bounded::{Index, Slab};
use crate::decode::network;

/// What the fragments of a datagram have in common, with its hash.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    fragment: FragmentKey,
    vlans: VlanIds,
    depth: u8,
    hash: u32,
}

impl Key {
    pub(super) fn new(fragment: &Fragment<'_>, vlan_tracking: bool, seed: HashSeed) -> Self {
        let key = match fragment.network.fragment {
            network::Fragment::First(key) | network::Fragment::Later(key) => key,
            network::Fragment::No => FragmentKey::default(),
        };
        let vlans = match vlan_tracking {
            true => fragment.vlans,
            false => VlanIds::default(),
        };
        let hashed = FlowKey {
            low_address: key.source,
            high_address: key.destination,
            low_port: key.identification as u16,
            high_port: (key.identification >> 16) as u16,
            protocol: key.protocol,
            family: key.family,
            zone: u16::from(fragment.depth) << 13 ^ vlans.folded(),
        };
        Self {
            fragment: key,
            vlans,
            depth: fragment.depth,
            hash: flow_hash(seed, &hashed),
        }
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.fragment == other.fragment && self.vlans == other.vlans && self.depth == other.depth
    }
}

impl Eq for Key {}

/// How far a datagram has come.
#[derive(Debug)]
pub(super) enum State {
    /// Fragments are missing.
    Open(Assembly),
    /// Complete; its verdict is being found.
    Settling(Assembly),
    /// Accepted, and remembered because something about it was unusual.
    Finished(Assembly),
    /// Dropped.
    Condemned,
    /// Not put together, for lack of room.
    Unwatched,
}

impl State {
    fn footprint(&self) -> usize {
        match self {
            Self::Open(assembly) | Self::Settling(assembly) | Self::Finished(assembly) => {
                assembly.footprint()
            }
            Self::Condemned | Self::Unwatched => 0,
        }
    }
}

/// One datagram.
#[derive(Debug)]
pub(super) struct Tracker {
    key: Key,
    pub(super) state: State,
    /// When its first fragment came.
    pub(super) since_ns: u64,
    pub(super) deadline_ns: u64,
    pub(super) timeout_ns: u64,
    /// Of its first fragment.
    pub(super) ttl: u8,
    /// Whether its receiver may have got another datagram than the one that was inspected.
    pub(super) unusual: bool,
    pub(super) policy: OverlapPolicy,
    fragments: u32,
    pub(super) generation: u64,
    before: u32,
    after: u32,
}

const NONE: u32 = u32::MAX;

/// All of them. Slots are reused; a list through them keeps the order of their last change.
#[derive(Debug)]
pub(super) struct Trackers {
    seed: HashSeed,
    index: Index,
    slots: Slab<Option<Tracker>>,
    oldest: u32,
    newest: u32,
    /// Bytes of their fragments.
    memory: usize,
    /// The most bytes that were taken.
    most: usize,
    fragments: usize,
    generation: u64,
}

impl Trackers {
    /// What a datagram costs without any fragments: its slot and its place in the table.
    pub(super) const COST: usize = Slab::<Option<Tracker>>::BYTES + Index::BYTES;

    /// For so many.
    pub(super) fn new(seed: HashSeed, most: usize) -> Self {
        Self {
            seed,
            index: Index::new(most),
            slots: Slab::new(),
            oldest: NONE,
            newest: NONE,
            memory: 0,
            most: 0,
            fragments: 0,
            generation: 0,
        }
    }

    pub(super) const fn seed(&self) -> HashSeed {
        self.seed
    }

    /// Goes on for another number of them.
    pub(super) fn resize(&mut self, most: usize) {
        let used = std::iter::successors(self.oldest(), |&index| self.after(index));
        let used: Vec<u32> = used.collect();
        self.index.resize(most, used.into_iter());
    }

    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    /// Bytes in use.
    pub(super) fn memory(&self) -> usize {
        self.index.len() * Self::COST + self.memory
    }

    /// Bytes taken: slots that have been in use stay.
    pub(super) fn taken(&self) -> usize {
        self.index.slots() * Self::COST + self.memory
    }

    /// The most that this was.
    pub(super) const fn most(&self) -> usize {
        self.most
    }

    /// The same with one more datagram.
    pub(super) fn taken_with_another(&self) -> usize {
        match self.index.has_free() {
            true => self.taken(),
            false => self.taken() + Self::COST,
        }
    }

    pub(super) const fn fragments(&self) -> usize {
        self.fragments
    }

    pub(super) fn find(&self, key: &Key) -> Option<u32> {
        self.index.find(key.hash, |slot| self.get(slot).key == *key)
    }

    pub(super) fn get(&self, index: u32) -> &Tracker {
        self.slots[index].as_ref().expect(OCCUPIED)
    }

    /// Not for changes of what its assembly holds: see [`Self::change`].
    pub(super) fn get_mut(&mut self, index: u32) -> &mut Tracker {
        self.slots[index].as_mut().expect(OCCUPIED)
    }

    pub(super) fn open(&self, index: u32) -> Option<&Assembly> {
        match &self.get(index).state {
            State::Open(assembly) => Some(assembly),
            _ => None,
        }
    }

    pub(super) fn oldest(&self) -> Option<u32> {
        (self.oldest != NONE).then_some(self.oldest)
    }

    /// The next younger one.
    pub(super) fn after(&self, index: u32) -> Option<u32> {
        Some(self.get(index).after).filter(|&after| after != NONE)
    }

    pub(super) fn add(
        &mut self,
        key: Key,
        ttl: u8,
        policy: OverlapPolicy,
        timeout_ns: u64,
        now: Timestamp,
    ) -> u32 {
        self.generation += 1;
        let tracker = Tracker {
            key,
            state: State::Open(Assembly::default()),
            since_ns: now.monotonic_ns,
            deadline_ns: now.monotonic_ns.saturating_add(timeout_ns),
            timeout_ns,
            ttl,
            unusual: false,
            policy,
            fragments: 0,
            generation: self.generation,
            before: NONE,
            after: NONE,
        };
        let index = self.index.insert(key.hash);
        self.slots.set(index, Some(tracker));
        self.most = self.most.max(self.taken());
        self.append(index);
        index
    }

    pub(super) fn remove(&mut self, index: u32) {
        self.unlink(index);
        let Some(tracker) = self.slots[index].take() else {
            return;
        };
        self.index.remove(index);
        self.fragments -= tracker.fragments as usize;
        self.memory -= tracker.state.footprint();
    }

    /// Lets one more fragment change what is there.
    pub(super) fn change(&mut self, index: u32, now: Timestamp, how: impl FnOnce(&mut Assembly)) {
        let tracker = self.get_mut(index);
        let before = tracker.state.footprint();
        if let State::Open(assembly) = &mut tracker.state {
            how(assembly);
        }
        tracker.fragments += 1;
        let after = tracker.state.footprint();
        self.memory = self.memory - before + after;
        self.most = self.most.max(self.taken());
        self.fragments += 1;
        self.prolong(index, now);
    }

    /// Its time begins anew.
    pub(super) fn prolong(&mut self, index: u32, now: Timestamp) {
        let tracker = self.get_mut(index);
        tracker.deadline_ns = now.monotonic_ns.saturating_add(tracker.timeout_ns);
        self.unlink(index);
        self.append(index);
    }

    /// Replaces the state by one without fragments.
    pub(super) fn set_state(&mut self, index: u32, state: State) {
        let tracker = self.get_mut(index);
        let before = tracker.state.footprint();
        let fragments = std::mem::take(&mut tracker.fragments);
        tracker.state = state;
        let after = tracker.state.footprint();
        self.memory = self.memory - before + after;
        self.fragments -= fragments as usize;
    }

    /// An open one becomes one that waits for its verdict.
    pub(super) fn settling(&mut self, index: u32) {
        let tracker = self.get_mut(index);
        let state = std::mem::replace(&mut tracker.state, State::Condemned);
        tracker.state = match state {
            State::Open(assembly) => State::Settling(assembly),
            other => other,
        };
    }

    pub(super) fn is_generation(&self, index: u32, generation: u64) -> bool {
        let slot = self.slots.get(index).and_then(Option::as_ref);
        slot.is_some_and(|tracker| tracker.generation == generation)
    }

    fn append(&mut self, index: u32) {
        let newest = std::mem::replace(&mut self.newest, index);
        let tracker = self.get_mut(index);
        (tracker.before, tracker.after) = (newest, NONE);
        match newest {
            NONE => self.oldest = index,
            before => self.get_mut(before).after = index,
        }
    }

    fn unlink(&mut self, index: u32) {
        let (before, after) = {
            let tracker = self.get(index);
            (tracker.before, tracker.after)
        };
        match before {
            NONE => self.oldest = after,
            before => self.get_mut(before).after = after,
        }
        match after {
            NONE => self.newest = before,
            after => self.get_mut(after).before = before,
        }
    }
}

const OCCUPIED: &str = "an index in use";
