//! Finds a packet's flow.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

use ips_common::{FlowKey, HashSeed, flow_hash};

use super::idle::{Class, IdleLists};
use super::{Flow, FlowEnd, PacketDirection, Timestamp};
use crate::config::settings::{self, EngineSettings};
use crate::decode::Decoded;
use crate::reassembly::tcp::{Begun, StreamMemory, StreamOptions};

/// How long a flow may be idle before it is forgotten. The defaults are those of Suricata's
/// `flow-timeouts`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP before the handshake is complete.
    pub tcp_new: Duration,
    /// TCP after it.
    pub tcp_established: Duration,
    /// TCP after both FINs or a reset.
    pub tcp_closed: Duration,
    /// Other protocols, packets in one direction only.
    pub new: Duration,
    /// Other protocols, packets in both directions.
    pub established: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            tcp_new: Duration::from_secs(60),
            tcp_established: Duration::from_secs(600),
            tcp_closed: Duration::from_secs(60),
            new: Duration::from_secs(30),
            established: Duration::from_secs(300),
        }
    }
}

impl Timeouts {
    /// As `flow-timeouts` says. Of protocols other than TCP those of UDP hold for all that have
    /// ports or not: their flows are in one list.
    pub fn configured(settings: &settings::FlowTimeouts) -> Self {
        Self {
            tcp_new: settings.tcp.new.duration(),
            tcp_established: settings.tcp.established.duration(),
            tcp_closed: settings.tcp.closed.duration(),
            new: settings.udp.new.duration(),
            established: settings.udp.established.duration(),
        }
    }

    /// The longest of them.
    pub fn longest(&self) -> Duration {
        let longest = Class::ALL.map(|class| self.of(class)).into_iter().max();
        longest.unwrap_or_default()
    }

    fn of(&self, class: Class) -> Duration {
        match class {
            Class::TcpNew => self.tcp_new,
            Class::TcpEstablished => self.tcp_established,
            Class::TcpClosed => self.tcp_closed,
            Class::New => self.new,
            Class::Established => self.established,
        }
    }
}

/// Bounds of a flow table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowLimits {
    /// Most flows at a time; a new one then evicts the longest idle one. At least 1.
    pub max_flows: u32,
    /// A flow that has been idle for less makes no room for a new one; when all are such, the
    /// table is full. Zero: the longest idle one always makes room.
    pub spared: Duration,
    /// When idle flows are forgotten.
    pub timeouts: Timeouts,
}

/// What a flow takes of `flow.memcap`, about: with Suricata's stock configuration there is room
/// for the default number of flows.
const BYTES_OF_FLOW: u64 = 512;

impl FlowLimits {
    /// As the engine's settings say. `spares` when something else happens at the cap than that
    /// the longest idle flow makes room.
    pub fn configured(settings: &EngineSettings, spares: bool) -> Self {
        let most = settings.flow.memcap.0 / BYTES_OF_FLOW;
        Self {
            max_flows: u32::try_from(most).unwrap_or(u32::MAX),
            spared: match spares {
                true => Duration::from_secs(10),
                false => Duration::ZERO,
            },
            timeouts: Timeouts::configured(&settings.flow_timeouts),
        }
        .possible()
    }
}

impl Default for FlowLimits {
    fn default() -> Self {
        Self {
            max_flows: 262_144,
            spared: Duration::ZERO,
            timeouts: Timeouts::default(),
        }
    }
}

/// There is no room for a new flow: all that are remembered have had packets just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableFull;
impl FlowLimits {
    /// The nearest that a table can keep.
    fn possible(self) -> Self {
        Self {
            max_flows: self.max_flows.clamp(1, u32::MAX - 1),
            ..self
        }
    }
}

/// Totals of a flow table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowCounters {
    /// Flows in the table now.
    pub current: u64,
    /// Flows ever created.
    pub created: u64,
    /// Flows that have had packets in both directions.
    pub both_ways: u64,
    /// Flows forgotten because they were idle.
    pub expired: u64,
    /// Flows forgotten because the table was full.
    pub evicted: u64,
    /// Closed connections whose ports were used again.
    pub reused: u64,
    /// TCP flows that began, as far as this table knows, with a packet that is no SYN: learnt
    /// from the middle of a connection.
    pub midstream: u64,
}

/// Hashes flow keys with the keyed hash that also steers them.
#[derive(Clone, Copy, Debug)]
struct KeyedHash(HashSeed);

/// Receives the one 64-bit number that [`FlowTable`] hands it.
struct Finished(u64);

impl BuildHasher for KeyedHash {
    type Hasher = Finished;

    fn build_hasher(&self) -> Finished {
        Finished(0)
    }
}

impl Hasher for Finished {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    fn write_u32(&mut self, hash: u32) {
        // hashbrown takes the slot from the low bits and a tag from the top seven.
        self.0 = u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// A key with its hash, computed once for each packet.
#[derive(Clone, Copy, Debug)]
struct HashedKey {
    key: FlowKey,
    hash: u32,
}

impl PartialEq for HashedKey {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for HashedKey {}

impl std::hash::Hash for HashedKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u32(self.hash);
    }
}

/// The flows of one worker.
///
/// Memory grows with the number of flows up to the limit and is then reused.
#[derive(Debug)]
pub struct FlowTable {
    limits: FlowLimits,
    seed: KeyedHash,
    next_id: u64,
    slots: HashMap<HashedKey, u32, KeyedHash>,
    flows: Vec<Flow>,
    free: Vec<u32>,
    idle: IdleLists,
    counters: FlowCounters,
    /// Flows that have ended, for whoever takes them; only when somebody does.
    ended: Vec<(Flow, FlowEnd)>,
    tells_ends: bool,
}

impl FlowTable {
    /// An empty table. `seed` keys the hash and the flow ids: random, and different for each
    /// worker, so that ids do not collide and buckets cannot be aimed at.
    pub fn new(limits: FlowLimits, seed: [u64; 2]) -> Self {
        let seed = KeyedHash(HashSeed { key: seed });
        Self {
            limits: limits.possible(),
            seed,
            next_id: seed.0.key[0] ^ seed.0.key[1].rotate_left(32),
            slots: HashMap::with_hasher(seed),
            flows: Vec::new(),
            free: Vec::new(),
            idle: IdleLists::new(),
            counters: FlowCounters::default(),
            ended: Vec::new(),
            tells_ends: false,
        }
    }

    /// Whether flows that end are kept for [`Self::take_ended`].
    pub fn tell_ends(&mut self, tells: bool) {
        self.tells_ends = tells;
        self.ended.clear();
    }

    /// A flow that has ended, and why. To be called after everything that may end flows, until
    /// there is none.
    pub fn take_ended(&mut self) -> Option<(Flow, FlowEnd)> {
        self.ended.pop()
    }

    /// Applies the timeout of the state that a flow has now; its last packet stays the last.
    pub fn reclassify(&mut self, key: &FlowKey) {
        if let Some(&slot) = self.slots.get(&self.hashed(key)) {
            self.idle.refresh(slot, self.flows[slot as usize].class());
        }
    }

    /// Gives up connections that are over or were never complete, those that are idle longest
    /// first and `budget` at most, while `memory` is short; returns how many. Their flows stay.
    pub fn relieve(
        &mut self,
        memory: &StreamMemory,
        options: &StreamOptions,
        budget: usize,
    ) -> usize {
        let mut relieved = 0;
        for class in [Class::TcpClosed, Class::TcpNew] {
            let mut next = self.idle.oldest(class);
            while let Some(slot) = next {
                if relieved >= budget || !memory.is_short(options) {
                    return relieved;
                }
                next = self.idle.younger(slot);
                relieved += usize::from(self.flows[slot as usize].session.take().is_some());
            }
        }
        relieved
    }

    /// Ends every flow, those that began first at last.
    pub fn end_all(&mut self) {
        let mut slots: Vec<u32> = self.slots.values().copied().collect();
        let flow = |slot: &u32| &self.flows[*slot as usize];
        slots.sort_by_key(|slot| (flow(slot).start.monotonic_ns, flow(slot).id));
        for slot in slots.into_iter().rev() {
            self.discard(slot, FlowEnd::Shutdown);
        }
    }

    /// Changes the bounds; when there are too many flows now, the longest idle ones are evicted.
    pub fn set_limits(&mut self, limits: FlowLimits) {
        self.limits = limits.possible();
        while self.slots.len() > self.limits.max_flows as usize
            && let Some(slot) = self.longest_idle()
        {
            self.discard(slot, FlowEnd::Forced);
            self.counters.evicted += 1;
        }
    }

    /// The flow of a packet, which is counted in it; created when there is none.
    ///
    /// `None` for an ICMP error about a flow that is not in the table: it opens none.
    ///
    /// # Errors
    /// When it needs a new flow and [`FlowLimits::spared`] leaves no room for it.
    pub fn packet(
        &mut self,
        packet: &Decoded<'_>,
        now: Timestamp,
    ) -> Result<Option<(&mut Flow, PacketDirection)>, TableFull> {
        let hashed = self.hashed(&packet.key);
        let slot = match self.slots.get(&hashed).copied() {
            Some(slot) if self.flows[slot as usize].is_reopened_by(packet) => {
                self.counters.reused += 1;
                self.counters.created += 1;
                let id = self.take_id();
                let mut new = Flow::open(id, packet, now);
                new.begun = Begun::Again;
                let old = std::mem::replace(&mut self.flows[slot as usize], new);
                self.keep_ended(old, FlowEnd::TcpReuse);
                slot
            }
            Some(slot) => slot,
            None if packet.is_icmp_error() => return Ok(None),
            None => self.create(hashed, packet, now)?,
        };
        let flow = &mut self.flows[slot as usize];
        let one_sided = flow.one_sided();
        let direction = flow.update(packet, now);
        self.counters.both_ways += u64::from(one_sided && !flow.one_sided());
        self.idle.refresh(slot, flow.class());
        Ok(Some((flow, direction)))
    }

    /// The flow with this key.
    pub fn get(&self, key: &FlowKey) -> Option<&Flow> {
        let slot = self.slots.get(&self.hashed(key))?;
        self.flows.get(*slot as usize)
    }

    /// Forgets a flow, for example because its conviction was undone, and its connection.
    pub fn remove(&mut self, key: &FlowKey) -> Option<Flow> {
        let slot = self.slots.get(&self.hashed(key)).copied()?;
        let session = self.flows[slot as usize].session.take();
        let flow = self.flows[slot as usize].clone();
        self.flows[slot as usize].session = session;
        self.discard(slot, FlowEnd::Forced);
        Some(flow)
    }

    /// Forgets idle flows, at most `budget` of them; returns how many. To be called regularly,
    /// also when no packets arrive.
    pub fn expire(&mut self, now: Timestamp, budget: usize) -> usize {
        let mut expired = 0;
        for class in Class::ALL {
            let timeout_ns = self.limits.timeouts.of(class).as_nanos();
            while expired < budget {
                let Some(slot) = self.idle.oldest(class) else {
                    break;
                };
                let idle_ns = now.since_ns(self.flows[slot as usize].last);
                if u128::from(idle_ns) < timeout_ns {
                    break;
                }
                self.discard(slot, FlowEnd::Timeout);
                expired += 1;
            }
        }
        self.counters.expired += expired as u64;
        expired
    }

    /// Totals so far.
    pub fn counters(&self) -> FlowCounters {
        FlowCounters {
            current: self.slots.len() as u64,
            ..self.counters
        }
    }

    /// The flows in the table, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Flow> {
        self.slots
            .values()
            .filter_map(|&slot| self.flows.get(slot as usize))
    }

    /// The keys of the flows in the table, in no order.
    pub fn keys(&self) -> impl Iterator<Item = &FlowKey> {
        self.slots.keys().map(|hashed| &hashed.key)
    }

    /// The flows, the longest idle one first.
    pub(super) fn oldest_first(&self) -> impl Iterator<Item = &Flow> {
        // Each list is in this order already.
        let mut heads = Class::ALL.map(|class| self.idle.oldest(class));
        std::iter::from_fn(move || {
            let heads = heads
                .iter_mut()
                .filter_map(|head| head.map(|slot| (head, slot)));
            let (head, slot) =
                heads.min_by_key(|&(_, slot)| self.flows[slot as usize].last.monotonic_ns)?;
            *head = self.idle.younger(slot);
            self.flows.get(slot as usize)
        })
    }

    /// How many flows are in the table.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub(super) fn max_flows(&self) -> u32 {
        self.limits.max_flows
    }

    /// A table like this one, counters included, without a flow.
    pub(super) fn emptied(&self) -> Self {
        Self {
            next_id: self.next_id,
            counters: self.counters,
            tells_ends: self.tells_ends,
            ..Self::new(self.limits, self.seed.0.key)
        }
    }

    /// Makes room for so many flows.
    pub(super) fn reserve(&mut self, flows: usize) {
        self.slots.reserve(flows);
        self.flows.reserve(flows);
    }

    /// Takes over a flow that has been active no earlier than all that are there; false when
    /// its key is there already. The caller keeps to the limit.
    pub(super) fn adopt(&mut self, flow: Flow) -> bool {
        let hashed = self.hashed(&flow.key);
        let next = self.flows.len() as u32;
        let Entry::Vacant(vacant) = self.slots.entry(hashed) else {
            return false;
        };
        let slot = *vacant.insert(self.free.pop().unwrap_or(next));
        self.occupy(slot, flow);
        true
    }

    pub(super) fn count_evicted(&mut self, flows: u64) {
        self.counters.evicted += flows;
    }

    fn hashed(&self, key: &FlowKey) -> HashedKey {
        HashedKey {
            key: *key,
            hash: flow_hash(self.seed.0, key),
        }
    }

    fn create(
        &mut self,
        hashed: HashedKey,
        packet: &Decoded<'_>,
        now: Timestamp,
    ) -> Result<u32, TableFull> {
        if self.slots.len() >= self.limits.max_flows as usize {
            self.evict(now)?;
        }
        let id = self.take_id();
        self.counters.created += 1;
        self.counters.midstream += u64::from(packet.tcp().is_some_and(|tcp| !tcp.syn()));
        let slot = self.free.pop().unwrap_or(self.flows.len() as u32);
        self.slots.insert(hashed, slot);
        self.occupy(slot, Flow::open(id, packet, now));
        Ok(slot)
    }

    /// Puts a flow into a slot that is free, or the next one.
    fn occupy(&mut self, slot: u32, flow: Flow) {
        self.idle.insert(slot, flow.class());
        match self.flows.get_mut(slot as usize) {
            Some(free) => *free = flow,
            None => self.flows.push(flow),
        }
    }

    /// Makes room for a new flow.
    fn evict(&mut self, now: Timestamp) -> Result<(), TableFull> {
        let Some(slot) = self.longest_idle() else {
            return Ok(());
        };
        let idle_ns = now.since_ns(self.flows[slot as usize].last);
        if u128::from(idle_ns) < self.limits.spared.as_nanos() {
            return Err(TableFull);
        }
        self.discard(slot, FlowEnd::Forced);
        self.counters.evicted += 1;
        Ok(())
    }

    fn longest_idle(&self) -> Option<u32> {
        Class::ALL
            .into_iter()
            .filter_map(|class| self.idle.oldest(class))
            .min_by_key(|&slot| self.flows[slot as usize].last.monotonic_ns)
    }

    fn discard(&mut self, slot: u32, end: FlowEnd) {
        let hashed = self.hashed(&self.flows[slot as usize].key);
        self.slots.remove(&hashed);
        self.idle.remove(slot);
        self.free.push(slot);
        // What stays in the slot until it is used again is small.
        let session = self.flows[slot as usize].session.take();
        if self.tells_ends {
            let mut flow = self.flows[slot as usize].clone();
            flow.session = session;
            self.keep_ended(flow, end);
        }
    }

    fn keep_ended(&mut self, flow: Flow, end: FlowEnd) {
        if self.tells_ends {
            self.ended.push((flow, end));
        }
    }

    /// SplitMix64 (Steele, Lea, Flood 2014) over a counter: no id repeats within 2^53 flows
    /// except by the chance of random numbers.
    fn take_id(&mut self) -> u64 {
        self.next_id = self.next_id.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.next_id;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) >> 11
    }
}

#[cfg(test)]
mod tests;
