//! Finds a packet's flow.

use std::time::Duration;

use ips_common::{FlowKey, HashSeed, flow_hash};

use super::idle::{Class, Collector, IdleLists};
use super::{Flow, FlowEnd, PacketDirection, Timestamp};
use crate::bounded::{Index, Slab};
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

/// The same while the table is full, where that is less.
const EMERGENCY: Timeouts = Timeouts {
    tcp_new: Duration::from_secs(5),
    tcp_established: Duration::from_secs(100),
    tcp_closed: Duration::from_secs(10),
    new: Duration::from_secs(10),
    established: Duration::from_secs(100),
};

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

    /// The same while the table is full.
    fn configured_emergency(settings: &settings::FlowTimeouts) -> Self {
        Self {
            tcp_new: settings.tcp.emergency_new.duration(),
            tcp_established: settings.tcp.emergency_established.duration(),
            tcp_closed: settings.tcp.emergency_closed.duration(),
            new: settings.udp.emergency_new.duration(),
            established: settings.udp.emergency_established.duration(),
        }
    }

    /// The longest of them.
    pub fn longest(&self) -> Duration {
        let longest = Class::ALL.map(|class| self.of(class)).into_iter().max();
        longest.unwrap_or_default()
    }

    fn of(&self, class: Class) -> Duration {
        match class {
            Class::TcpNew | Class::TcpCondemned => self.tcp_new,
            Class::TcpEstablished => self.tcp_established,
            Class::TcpClosed => self.tcp_closed,
            Class::New | Class::Condemned => self.new,
            Class::Established => self.established,
        }
    }
}

/// Bounds of a flow table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowLimits {
    /// Most flows at a time; at least 1. They take [`BYTES_OF_FLOW`] each, with what rules have
    /// noted about them: where that is more, there are fewer.
    pub max_flows: u32,
    /// At the bound, connections that are over and flows that were never answered make room for a
    /// new one, and then the longest idle of the others, unless it has been idle for less than
    /// this; when all are such, the table is full.
    pub spared: Duration,
    /// When idle flows are forgotten.
    pub timeouts: Timeouts,
    /// The same in an emergency, where that is sooner: since a flow had to make room.
    pub emergency: Timeouts,
    /// Percentage of flows that must be free for an emergency to end.
    pub recovery: u8,
}

/// What a flow takes of `flow.memcap`: itself and its place in the table, and what is left is for
/// what rules note about it. With Suricata's stock configuration there is room for the default
/// number of flows.
pub const BYTES_OF_FLOW: u64 = 512;

/// What a flow takes about which nothing is noted.
const BARE: usize = Slab::<Flow>::BYTES + Slab::<u32>::BYTES + Index::BYTES + IdleLists::BYTES;

const _: () = assert!(BARE as u64 <= BYTES_OF_FLOW);

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
            emergency: Timeouts::configured_emergency(&settings.flow_timeouts),
            recovery: settings.flow.emergency_recovery,
        }
        .possible()
    }

    /// The nearest that a table can keep.
    fn possible(self) -> Self {
        Self {
            max_flows: self.max_flows.clamp(1, u32::MAX - 1),
            ..self
        }
    }

    /// Most bytes.
    fn memory(&self) -> usize {
        self.max_flows as usize * BYTES_OF_FLOW as usize
    }
}

impl Default for FlowLimits {
    fn default() -> Self {
        Self {
            max_flows: 262_144,
            spared: Duration::ZERO,
            timeouts: Timeouts::default(),
            emergency: EMERGENCY,
            recovery: 30,
        }
    }
}

/// There is no room for a new flow: all that are remembered have had packets just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableFull;

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
    /// New flows for which there was no room.
    pub refused: u64,
    /// Values that rules have captured and that were not kept: there was no room.
    pub unnoted: u64,
    /// How often an emergency began.
    pub emergencies: u64,
    /// How often one ended.
    pub recoveries: u64,
    /// Bytes taken now.
    pub memuse: u64,
    /// Closed connections whose ports were used again.
    pub reused: u64,
    /// TCP flows that began, as far as this table knows, with a packet that is no SYN: learnt
    /// from the middle of a connection.
    pub midstream: u64,
}

/// The flows of one worker.
///
/// Memory grows with the number of flows up to the limit and is then reused. Nothing that is there
/// is moved for it.
#[derive(Debug)]
pub struct FlowTable {
    limits: FlowLimits,
    seed: HashSeed,
    next_id: u64,
    index: Index,
    flows: Slab<Flow>,
    idle: IdleLists,
    /// Bytes that the marks of each flow take, and of all.
    noted: Slab<u32>,
    all_noted: usize,
    /// Bytes that were taken under a higher limit, and are not given back.
    forgiven: usize,
    /// Since a flow had to make room.
    emergency: bool,
    counters: FlowCounters,
    /// Flows that have ended, for whoever takes them; only when somebody does.
    ended: Vec<(Flow, FlowEnd)>,
    tells_ends: bool,
}

/// Most flows that make room for what one packet adds.
const EVICTED_AT_ONCE: usize = 4;
/// Most connections that are looked at for one packet while their memory is short.
const LOOKS_FOR_RELIEF: usize = 64;
/// Most flows without one besides, of which shed packets may leave many in a row.
const LOOKS_IN_VAIN: usize = 4096;

impl Collector {
    fn is_needed(self, memory: &StreamMemory, options: &StreamOptions) -> bool {
        match self {
            Self::Sessions => memory.is_short_of_sessions(options),
            Self::Data => memory.is_short_of_data(options),
        }
    }
}

/// What of a flow decides about its place in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    class: Class,
    noted: usize,
}

impl Settled {
    /// As it is now.
    pub fn of(flow: &Flow) -> Self {
        Self {
            class: flow.class(),
            noted: flow.marks.taken(),
        }
    }
}

impl FlowTable {
    /// An empty table. `seed` keys the hash and the flow ids: random, and different for each
    /// worker, so that ids do not collide and chains cannot be aimed at.
    pub fn new(limits: FlowLimits, seed: [u64; 2]) -> Self {
        let limits = limits.possible();
        Self {
            limits,
            seed: HashSeed { key: seed },
            next_id: seed[0] ^ seed[1].rotate_left(32),
            index: Index::new(limits.max_flows as usize),
            flows: Slab::new(),
            idle: IdleLists::new(),
            noted: Slab::new(),
            all_noted: 0,
            forgiven: 0,
            emergency: false,
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

    /// Applies what an inspection has changed of a flow: its state, and so its timeout, and what is
    /// noted about it. Its last packet stays the last.
    pub fn settle(&mut self, key: &FlowKey) {
        let Some(slot) = self.find(key, self.hash(key)) else {
            return;
        };
        let class = self.flows[slot].class();
        if self.idle.class(slot) != class {
            self.idle.refresh(slot, class);
        }
        let taken = self.flows[slot].marks.taken();
        if taken == self.noted[slot] as usize {
            return;
        }
        self.note(slot, taken);
        if self.memory() > self.limits.memory() && self.flows[slot].marks.forget_texts() {
            self.counters.unnoted += 1;
            let taken = self.flows[slot].marks.taken();
            self.note(slot, taken);
        }
        for _ in 0..EVICTED_AT_ONCE {
            if self.memory() <= self.limits.memory() {
                break;
            }
            match self
                .least_worthy()
                .or_else(|| self.longest_idle(&Class::WORTHY))
            {
                Some(other) if other != slot => self.evict(other),
                _ => break,
            }
        }
    }

    /// While `memory` is short, gives up connections that are over or were never complete, those
    /// that are idle longest first and `budget` at most; returns how many. Their flows stay. When
    /// it is short of room for data, complete ones give back what they do not need.
    ///
    /// Looks at no more than some flows, and at none twice until it has had another packet. That of the
    /// packet in hand, which needs the room, keeps what it has.
    pub fn relieve(
        &mut self,
        packet: &Decoded<'_>,
        memory: &mut StreamMemory,
        options: &StreamOptions,
        budget: usize,
    ) -> usize {
        let own = self.find(&packet.key, self.hash(&packet.key));
        let has_session = own.is_some_and(|slot| self.flows[slot].session.is_some());
        let mut relieved = 0;
        let mut compacted = 0;
        for collector in [Collector::Sessions, Collector::Data] {
            let needs_none = match collector {
                Collector::Sessions => has_session,
                Collector::Data => packet.payload.is_empty(),
            };
            if needs_none {
                continue;
            }
            let (mut looks, mut in_vain) = (LOOKS_FOR_RELIEF, LOOKS_IN_VAIN);
            for class in [Class::TcpClosed, Class::TcpNew, Class::TcpEstablished] {
                if class == Class::TcpEstablished && collector == Collector::Sessions {
                    continue;
                }
                while relieved < budget
                    && looks.min(in_vain) > 0
                    && collector.is_needed(memory, options)
                {
                    let Some(slot) = self.idle.next_for(collector, class) else {
                        break;
                    };
                    let session = &mut self.flows[slot].session;
                    match session {
                        Some(_) => looks -= 1,
                        None => in_vain -= 1,
                    }
                    if Some(slot) == own {
                        continue;
                    }
                    match session {
                        Some(session) if class == Class::TcpEstablished => {
                            compacted += usize::from(session.compact());
                        }
                        Some(it) if collector == Collector::Sessions || it.holds_data() => {
                            *session = None;
                            relieved += 1;
                        }
                        _ => {}
                    }
                }
            }
        }
        memory.count_relief(relieved, compacted);
        relieved
    }

    /// Ends so many flows, those that began first; whether there are more. They are taken in the
    /// order in which they began. `order` is empty at first, and belongs to this.
    pub fn end_some(&mut self, order: &mut Vec<u32>, most: usize) -> bool {
        if order.is_empty() {
            order.extend(self.slots());
            let flow = |slot: &u32| &self.flows[*slot];
            order.sort_unstable_by_key(|slot| (flow(slot).start.monotonic_ns, flow(slot).id));
            order.reverse();
        }
        let first = order.len().saturating_sub(most);
        for slot in order.split_off(first) {
            self.discard(slot, FlowEnd::Shutdown);
        }
        !order.is_empty()
    }

    /// Changes the bounds; when there are too many flows now, others make room. What was taken for
    /// them is not given back.
    pub fn set_limits(&mut self, limits: FlowLimits) {
        self.limits = limits.possible();
        let used: Vec<u32> = self.slots().collect();
        self.index
            .resize(self.limits.max_flows as usize, used.into_iter());
        while self.index.len() > self.limits.max_flows as usize
            && let Some(slot) = self.longest_idle(&Class::ALL)
        {
            self.evict(slot);
        }
        let beyond = self
            .index
            .slots()
            .saturating_sub(self.limits.max_flows as usize);
        self.forgiven = beyond * BARE;
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
        let hash = self.hash(&packet.key);
        let slot = match self.find(&packet.key, hash) {
            Some(slot) if self.flows[slot].is_reopened_by(packet) => {
                self.counters.reused += 1;
                self.counters.created += 1;
                let id = self.take_id();
                let mut new = Flow::open(id, packet, now);
                new.begun = Begun::Again;
                let old = std::mem::replace(&mut self.flows[slot], new);
                self.note(slot, 0);
                self.keep_ended(old, FlowEnd::TcpReuse);
                slot
            }
            Some(slot) => slot,
            None if packet.is_icmp_error() => return Ok(None),
            None => self.create(hash, packet, now)?,
        };
        let flow = &mut self.flows[slot];
        let one_sided = flow.one_sided();
        let direction = flow.update(packet, now);
        self.counters.both_ways += u64::from(one_sided && !flow.one_sided());
        self.idle.refresh(slot, flow.class());
        Ok(Some((flow, direction)))
    }

    /// The flow with this key.
    pub fn get(&self, key: &FlowKey) -> Option<&Flow> {
        let slot = self.find(key, self.hash(key))?;
        self.flows.get(slot)
    }

    /// Forgets a flow, for example because its conviction was undone, and its connection.
    pub fn remove(&mut self, key: &FlowKey) -> Option<Flow> {
        let slot = self.find(key, self.hash(key))?;
        let session = self.flows[slot].session.take();
        let flow = self.flows[slot].clone();
        self.flows[slot].session = session;
        self.discard(slot, FlowEnd::Forced);
        Some(flow)
    }

    /// Forgets idle flows, at most `budget` of them; returns how many. To be called regularly,
    /// also when no packets arrive.
    pub fn expire(&mut self, now: Timestamp, budget: usize) -> usize {
        let mut expired = 0;
        for class in Class::ALL {
            let mut timeout = self.limits.timeouts.of(class);
            // What is dropped stays dropped.
            if self.emergency && !matches!(class, Class::TcpCondemned | Class::Condemned) {
                timeout = timeout.min(self.limits.emergency.of(class));
            }
            while expired < budget {
                let Some(slot) = self.idle.oldest(class) else {
                    break;
                };
                let idle_ns = now.since_ns(self.flows[slot].last);
                if u128::from(idle_ns) < timeout.as_nanos() {
                    break;
                }
                self.discard(slot, FlowEnd::Timeout);
                expired += 1;
            }
        }
        self.counters.expired += expired as u64;
        let most = u64::from(self.limits.max_flows);
        let free = most.saturating_sub(self.index.len() as u64);
        if self.emergency && free * 100 >= most * u64::from(self.limits.recovery.min(100)) {
            self.emergency = false;
            self.counters.recoveries += 1;
        }
        expired
    }

    /// Totals so far.
    pub fn counters(&self) -> FlowCounters {
        FlowCounters {
            current: self.index.len() as u64,
            memuse: self.memory() as u64,
            ..self.counters
        }
    }

    /// The flows in the table, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Flow> {
        self.slots().filter_map(|slot| self.flows.get(slot))
    }

    /// The keys of the flows in the table, in no order.
    pub fn keys(&self) -> impl Iterator<Item = &FlowKey> {
        self.iter().map(|flow| &flow.key)
    }

    /// The slots in use: each is in one list.
    fn slots(&self) -> impl Iterator<Item = u32> {
        Class::ALL.into_iter().flat_map(|class| {
            std::iter::successors(self.idle.oldest(class), |&slot| self.idle.younger(slot))
        })
    }

    /// The flows, the longest idle one first.
    pub(super) fn oldest_first(&self) -> impl Iterator<Item = &Flow> {
        // Each list is in this order already.
        let mut heads = Class::ALL.map(|class| self.idle.oldest(class));
        std::iter::from_fn(move || {
            let heads = heads
                .iter_mut()
                .filter_map(|head| head.map(|slot| (head, slot)));
            let (head, slot) = heads.min_by_key(|&(_, slot)| self.flows[slot].last.monotonic_ns)?;
            *head = self.idle.younger(slot);
            self.flows.get(slot)
        })
    }

    /// How many flows are in the table.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
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
            ..Self::new(self.limits, self.seed.key)
        }
    }

    /// Takes over a flow that has been active no earlier than all that are there; false when
    /// its key is there already. The caller keeps to the limit.
    pub(super) fn adopt(&mut self, flow: Flow) -> bool {
        let hash = self.hash(&flow.key);
        if self.find(&flow.key, hash).is_some() {
            return false;
        }
        self.occupy(hash, flow);
        true
    }

    pub(super) fn count_evicted(&mut self, flows: u64) {
        self.counters.evicted += flows;
    }

    fn hash(&self, key: &FlowKey) -> u32 {
        flow_hash(self.seed, key)
    }

    fn find(&self, key: &FlowKey, hash: u32) -> Option<u32> {
        self.index.find(hash, |slot| self.flows[slot].key == *key)
    }

    /// Bytes taken: slots that have been in use stay.
    fn memory(&self) -> usize {
        self.index.slots() * BARE - self.forgiven + self.all_noted
    }

    /// The marks of a flow take so many bytes now.
    fn note(&mut self, slot: u32, taken: usize) {
        self.all_noted = self.all_noted - self.noted[slot] as usize + taken;
        self.noted[slot] = taken as u32;
    }

    fn is_full(&self) -> bool {
        let slot = if self.index.has_free() { 0 } else { BARE };
        self.index.len() >= self.limits.max_flows as usize
            || self.memory() + slot > self.limits.memory()
    }

    fn create(
        &mut self,
        hash: u32,
        packet: &Decoded<'_>,
        now: Timestamp,
    ) -> Result<u32, TableFull> {
        self.make_room(now)?;
        let id = self.take_id();
        self.counters.created += 1;
        self.counters.midstream += u64::from(packet.tcp().is_some_and(|tcp| !tcp.syn()));
        Ok(self.occupy(hash, Flow::open(id, packet, now)))
    }

    /// Puts a flow into a slot that is free, or the next one.
    fn occupy(&mut self, hash: u32, flow: Flow) -> u32 {
        let slot = self.index.insert(hash);
        self.idle.insert(slot, flow.class());
        let taken = flow.marks.taken();
        self.flows.set(slot, flow);
        self.noted.set(slot, 0);
        self.note(slot, taken);
        slot
    }

    /// Makes room for a new flow.
    fn make_room(&mut self, now: Timestamp) -> Result<(), TableFull> {
        for _ in 0..EVICTED_AT_ONCE {
            if !self.is_full() {
                return Ok(());
            }
            if !self.emergency {
                self.emergency = true;
                self.counters.emergencies += 1;
            }
            let Some(slot) = self.least_worthy().or_else(|| self.long_idle(now)) else {
                break;
            };
            self.evict(slot);
        }
        if self.is_full() {
            self.counters.refused += 1;
            return Err(TableFull);
        }
        Ok(())
    }

    /// The longest idle flow that nobody would miss much.
    fn least_worthy(&self) -> Option<u32> {
        self.longest_idle(&Class::LEAST)
    }

    /// The longest idle of the others, if that is long enough.
    fn long_idle(&self, now: Timestamp) -> Option<u32> {
        let slot = self.longest_idle(&Class::WORTHY)?;
        let idle_ns = now.since_ns(self.flows[slot].last);
        (u128::from(idle_ns) >= self.limits.spared.as_nanos()).then_some(slot)
    }

    fn longest_idle(&self, classes: &[Class]) -> Option<u32> {
        let oldest = classes.iter().filter_map(|class| self.idle.oldest(*class));
        oldest.min_by_key(|&slot| self.flows[slot].last.monotonic_ns)
    }

    fn evict(&mut self, slot: u32) {
        self.discard(slot, FlowEnd::Forced);
        self.counters.evicted += 1;
    }

    fn discard(&mut self, slot: u32, end: FlowEnd) {
        self.note(slot, 0);
        self.index.remove(slot);
        self.idle.remove(slot);
        let flow = &mut self.flows[slot];
        let (session, marks) = (flow.session.take(), std::mem::take(&mut flow.marks));
        let app = std::mem::take(&mut flow.app);
        // What stays in the slot until it is used again has nothing besides.
        if self.tells_ends {
            let mut flow = flow.clone();
            flow.session = session;
            flow.marks = marks;
            flow.app = app;
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
