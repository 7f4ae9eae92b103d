//! Values of the maps that the eBPF programs and userspace share.

use bytemuck::{Pod, Zeroable};

use crate::{FlowKey, HashSeed, MarkLayout};

/// Slots of the worker table; a power of two, so that a slot is picked by masking.
///
/// With rendezvous hashing the share of one of n workers deviates by about
/// sqrt(n / TABLE_SLOTS): 3 % for 16 workers.
pub const TABLE_SLOTS: u32 = 16_384;

/// Most workers of one instance.
pub const MAX_WORKERS: u32 = 1024;

/// Index of the backup in the `WORKERS` map.
pub const BACKUP: u32 = MAX_WORKERS;

/// Entries of the `WORKERS` map: all workers and the backup.
pub const WORKER_SLOTS: u32 = MAX_WORKERS + 1;

/// Target of a [`Placement`] whose packets are not to be queued at all.
pub const BYPASS: u32 = u32::MAX;

/// Bit of a table entry: the slot is about to be given to another worker. The entry still names
/// the old one, and every flow seen in the slot is placed there.
pub const MOVING: u32 = 1 << 31;

const _: () = assert!(WORKER_SLOTS <= MOVING);

/// The worker that a table entry names.
#[inline(always)]
pub const fn table_worker(entry: u32) -> u32 {
    entry & !MOVING
}

/// The table slot of a hash.
#[inline(always)]
pub const fn slot_of(hash: u32) -> u32 {
    hash & (TABLE_SLOTS - 1)
}

/// Switches in [`SteerConfig::flags`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SteerFlags(pub u32);

impl SteerFlags {
    /// The programs write to aya-log.
    pub const LOG: u32 = 1;
    /// TC drops convicted flows as well (interfaces without XDP).
    pub const CONVICT_IN_TC: u32 = 1 << 1;

    /// Whether a switch is on.
    #[inline(always)]
    pub const fn has(self, flag: u32) -> bool {
        self.0 & flag != 0
    }
}

/// What the programs need to know; the only entry of the `CONFIG` map.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct SteerConfig {
    /// Secret of the flow hash.
    pub seed: HashSeed,
    /// A heartbeat older than this is a worker that is down, nanoseconds.
    pub stale_ns: u64,
    /// How long a first fragment is remembered, nanoseconds.
    pub fragment_ns: u64,
    /// A placement idle for longer than this is forgotten, nanoseconds.
    pub placement_idle_ns: u64,
    /// Mask of the mark.
    pub mark_mask: u32,
    /// Position of the mask's lowest bit.
    pub mark_shift: u32,
    /// Workers in the table; zero leaves all packets unmarked.
    pub workers: u32,
    /// [`SteerFlags`].
    pub flags: u32,
}

const _: () = assert!(size_of::<SteerConfig>() == 56 && align_of::<SteerConfig>() == 8);

impl SteerConfig {
    /// The mark layout.
    #[inline(always)]
    pub const fn mark(&self) -> MarkLayout {
        MarkLayout::from_parts(self.mark_mask, self.mark_shift)
    }

    /// The switches.
    #[inline(always)]
    pub const fn flags(&self) -> SteerFlags {
        SteerFlags(self.flags)
    }
}

/// Whether a worker may be given packets; set by the supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum WorkerState {
    /// Not running, or being replaced.
    Down = 0,
    /// Running; the heartbeat decides.
    Up = 1,
    /// Its heartbeat stopped; down until it has been steady again for a while (hysteresis).
    Stale = 2,
}

/// One worker's entry in the `WORKERS` map, which userspace maps into memory.
///
/// A cache line of its own: the worker writes the heartbeat, the TC program on every CPU reads
/// it. `heartbeat_ns` and `received` are written by the worker only, `state` by the
/// supervisor, `tripped_ns` by the TC program (set) and the supervisor (cleared).
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct WorkerSlot {
    /// CLOCK_MONOTONIC of the last turn of the worker's loop, nanoseconds.
    pub heartbeat_ns: u64,
    /// When the TC program first found the heartbeat stale, nanoseconds; zero when it has not.
    pub tripped_ns: u64,
    /// A [`WorkerState`].
    pub state: u32,
    /// Process id of the worker, zero when none.
    pub pid: u32,
    /// A [`Received`]; zero when there is none.
    pub received: u64,
    /// In the backup's entry, for all workers: how often flows may have begun to go another way,
    /// or past everybody. What a worker remembers of a connection from before that may be out of
    /// date. Written by the supervisor.
    pub detours: u64,
    /// Zero.
    pub reserved: [u64; 3],
}

const _: () = assert!(size_of::<WorkerSlot>() == 64);

/// What a worker has received from its queue, noted in one piece: a worker that is killed between
/// its counter and its note leaves a difference that tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Highest packet id. Not settled: what is pending in the kernel up to this id when the worker
    /// dies was in its hands.
    pub id: u32,
    /// How many packets that were in all, as the seat's counter has it; modulo
    /// [`Received::COUNTED`].
    pub count: u32,
}

impl Received {
    /// So far [`Received::count`] goes.
    pub const COUNTED: u32 = 1 << 31;

    /// Up to this id, and so many packets in all.
    pub const fn new(id: u32, count: u64) -> Self {
        Self {
            id,
            count: count as u32 % Self::COUNTED,
        }
    }

    /// As it is noted: never zero, whatever the id (ids start anywhere after a wrap).
    pub const fn word(self) -> u64 {
        ((Self::COUNTED | self.count) as u64) << 32 | self.id as u64
    }

    /// From a note; `None` when nothing is noted.
    pub const fn of_word(word: u64) -> Option<Self> {
        if word == 0 {
            return None;
        }
        Some(Self {
            id: word as u32,
            count: (word >> 32) as u32 % Self::COUNTED,
        })
    }

    /// By how much a counter is ahead of the note.
    pub const fn behind(self, count: u64) -> u32 {
        (count as u32).wrapping_sub(self.count) % Self::COUNTED
    }
}

/// Why a flow is placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum PlacementReason {
    /// The backup took it over from a worker that was down.
    Adopted = 1,
    /// It stays with its worker while the table changes.
    Kept = 2,
    /// It killed workers and is inspected by nobody.
    Quarantined = 3,
}

/// Value of the LRU map `PLACED`: where a flow goes, whatever the table says.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Placement {
    /// Last packet, nanoseconds of CLOCK_MONOTONIC; may lag behind by [`hint_slack`].
    pub last_ns: u64,
    /// Index in the `WORKERS` map ([`BACKUP`] included), or [`BYPASS`].
    pub target: u32,
    /// The worker that had the flow before.
    pub from_worker: u32,
    /// A [`PlacementReason`].
    pub reason: u32,
    /// Zero.
    pub reserved: u32,
}

const _: () = assert!(size_of::<Placement>() == 24 && align_of::<Placement>() == 8);

/// Value of the LRU map `CONVICTED`: packets of this flow are dropped until `expires_ns`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Conviction {
    /// End of the sentence, nanoseconds of CLOCK_MONOTONIC.
    pub expires_ns: u64,
    /// Packets dropped.
    pub packets: u64,
    /// Bytes dropped.
    pub bytes: u64,
    /// The rule that convicted, zero when the operator did.
    pub signature_id: u32,
    /// Zero.
    pub reserved: u32,
}

/// Value of the LRU map `FRAGMENTS`: the flow of a datagram whose first fragment was seen.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct FragmentEntry {
    /// The flow.
    pub key: FlowKey,
    /// When the first fragment came, nanoseconds of CLOCK_MONOTONIC.
    pub seen_ns: u64,
}

const _: () = assert!(size_of::<FragmentEntry>() == 48);

/// Index into the mmapable map `HINTS` of u64: what lets the programs skip look-ups that cannot
/// find anything, which is what nearly every packet would otherwise pay for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Hint {
    /// When a placement was last recorded or refreshed, by the TC program or by userspace (after
    /// the entry was written). No entry of `PLACED` is younger than this (but for
    /// [`hint_slack`]).
    PlacedNs = 0,
    /// The latest `expires_ns` of any entry ever put into `CONVICTED`; raised by whoever
    /// convicts, after the entry was written.
    ConvictedUntilNs = 1,
}

/// Entries of the map `HINTS`.
pub const HINT_COUNT: u32 = 2;

/// How long the TC program goes without refreshing a placement, so that a placed flow does
/// not cost two shared writes a packet.
#[inline(always)]
pub const fn hint_slack(placement_idle_ns: u64) -> u64 {
    placement_idle_ns / 16
}

/// What an [`Event`] tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum EventKind {
    /// The backup took over a flow.
    Adopted = 1,
    /// A worker's heartbeat was found stale.
    Stale = 2,
}

/// Record of the ring buffer `EVENTS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Event {
    /// When, nanoseconds of CLOCK_MONOTONIC.
    pub time_ns: u64,
    /// The flow, zero when the event is not about one.
    pub key: FlowKey,
    /// An [`EventKind`].
    pub kind: u32,
    /// The worker concerned.
    pub worker: u32,
}

const _: () = assert!(size_of::<Event>() == 56);

/// What the parser made of a packet; written by the test program `sluice_probe` into the
/// `PROBE` map so that both implementations can be compared.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Probe {
    /// The key; zero when there is none.
    pub key: FlowKey,
    /// The fragment key; zero when the packet is no fragment.
    pub fragment: crate::FragmentKey,
    /// Hash of the key with the configured seed.
    pub hash: u32,
    /// 0 = not IP, 1 = malformed, 2 = key, 3 = first fragment (key and fragment key), 4 = later
    /// fragment (fragment key; the key is the one of an orphan).
    pub kind: u32,
    /// 1 when a header was cut short (counter `truncated`).
    pub truncated: u32,
    /// Zero.
    pub reserved: u32,
}

const _: () = assert!(size_of::<Probe>() == 96);

#[cfg(feature = "user")]
mod user {
    use super::{Conviction, Event, FragmentEntry, Placement, Probe, SteerConfig, WorkerSlot};

    macro_rules! pod {
        ($($type:ty),*) => {$(
            // SAFETY: bytemuck::Pod was derived for the type, which asserts the same: repr(C),
            // no padding, every bit pattern valid.
            unsafe impl aya::Pod for $type {}
        )*};
    }
    pod!(
        Conviction,
        Event,
        FragmentEntry,
        Placement,
        Probe,
        SteerConfig,
        WorkerSlot
    );
}
