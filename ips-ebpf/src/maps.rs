//! The maps that the programs share with userspace; their values are in `ips-common`.

use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, LruHashMap, PerCpuArray, RingBuf};
use ips_common::{
    BACKUP, Conviction, Counter, FlowKey, FragmentEntry, FragmentKey, HINT_COUNT, Hint, Placement,
    Probe, SteerConfig, TABLE_SLOTS, WORKER_SLOTS, WorkerSlot,
};

#[map]
static CONFIG: Array<SteerConfig> = Array::with_max_entries(1, 0);

/// Worker of each slot of the hash, with [`ips_common::MOVING`] while it changes.
#[map]
static TABLE: Array<u32> = Array::with_max_entries(TABLE_SLOTS, 0);

#[map]
static WORKERS: Array<WorkerSlot> = Array::with_max_entries(WORKER_SLOTS, BPF_F_MMAPABLE);

#[map]
static HINTS: Array<u64> = Array::with_max_entries(HINT_COUNT, BPF_F_MMAPABLE);

/// Flows that go elsewhere than the table says.
#[map]
pub(crate) static PLACED: LruHashMap<FlowKey, Placement> = LruHashMap::with_max_entries(262_144, 0);

/// Flows to be dropped.
#[map]
pub(crate) static CONVICTED: LruHashMap<FlowKey, Conviction> =
    LruHashMap::with_max_entries(65_536, 0);

/// Flows of datagrams whose first fragment was seen.
#[map]
pub(crate) static FRAGMENTS: LruHashMap<FragmentKey, FragmentEntry> =
    LruHashMap::with_max_entries(16_384, 0);

/// All counters in one entry: one look-up a packet instead of one a counter.
#[map]
pub(crate) static COUNTERS: PerCpuArray<[u64; Counter::COUNT]> =
    PerCpuArray::with_max_entries(1, 0);

#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(256 * 1024, 0);

/// Written by `sluice_probe` only.
#[map]
pub(crate) static PROBE: Array<Probe> = Array::with_max_entries(1, 0);

/// The configuration.
#[inline(always)]
pub(crate) fn config() -> Option<&'static SteerConfig> {
    CONFIG.get(0)
}

/// The table's entry of a slot.
#[inline(always)]
pub(crate) fn table_entry(slot: u32) -> Option<u32> {
    TABLE.get(slot).copied()
}

/// A worker's entry; shared with userspace, so it is only ever read field by field.
#[inline(always)]
pub(crate) fn worker(index: u32) -> Option<*mut WorkerSlot> {
    WORKERS.get_ptr_mut(index)
}

/// The backup's entry.
#[inline(always)]
pub(crate) fn backup() -> Option<*mut WorkerSlot> {
    worker(BACKUP)
}

/// The value of a hint, zero when it was never set.
#[inline(always)]
pub(crate) fn hint(hint: Hint) -> u64 {
    match HINTS.get_ptr(hint as u32) {
        // SAFETY: the pointer is that of an array map's element, which is never freed.
        Some(value) => unsafe { value.read_volatile() },
        None => 0,
    }
}

/// Sets a hint.
#[inline(always)]
pub(crate) fn set_hint(hint: Hint, value: u64) {
    if let Some(slot) = HINTS.get_ptr_mut(hint as u32) {
        // SAFETY: as in `hint`; an aligned 64-bit store is atomic.
        unsafe { slot.write_volatile(value) };
    }
}
