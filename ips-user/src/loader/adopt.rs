//! Maps that an unclean stop has left behind are used again, if they are what is needed.

use aya::maps::{MapInfo, MapType};
use ips_common::{
    Conviction, Counter, FlowKey, FragmentEntry, FragmentKey, HINT_COUNT, Placement, SteerConfig,
    TABLE_SLOTS, WORKER_SLOTS, WorkerSlot,
};

use super::pins::{Pins, remove_pin};
use super::{LoadError, LoadOptions};

/// `BPF_F_MMAPABLE` in `linux/bpf.h`.
const MMAPABLE: u32 = 1 << 10;
/// As in the eBPF crate.
const EVENTS_BYTES: u32 = 256 * 1024;

/// What a pinned map has to be like.
pub(super) struct Expected {
    pub(super) name: &'static str,
    kind: MapType,
    key_size: usize,
    value_size: usize,
    pub(super) max_entries: u32,
    flags: u32,
}

impl Expected {
    const fn new(name: &'static str, kind: MapType, sizes: (usize, usize), entries: u32) -> Self {
        Self {
            name,
            kind,
            key_size: sizes.0,
            value_size: sizes.1,
            max_entries: entries,
            flags: 0,
        }
    }

    const fn mmapable(mut self) -> Self {
        self.flags = MMAPABLE;
        self
    }

    /// Every map that is pinned.
    pub(super) fn all(options: &LoadOptions) -> [Self; 9] {
        use MapType::{Array, LruHash, PerCpuArray, RingBuf};
        const fn indexed<T>() -> (usize, usize) {
            (size_of::<u32>(), size_of::<T>())
        }
        const fn keyed<K, V>() -> (usize, usize) {
            (size_of::<K>(), size_of::<V>())
        }
        [
            Self::new("CONFIG", Array, indexed::<SteerConfig>(), 1),
            Self::new("TABLE", Array, indexed::<u32>(), TABLE_SLOTS),
            Self::new("WORKERS", Array, indexed::<WorkerSlot>(), WORKER_SLOTS).mmapable(),
            Self::new("HINTS", Array, indexed::<u64>(), HINT_COUNT).mmapable(),
            Self::new(
                "PLACED",
                LruHash,
                keyed::<FlowKey, Placement>(),
                options.max_placed,
            ),
            Self::new(
                "CONVICTED",
                LruHash,
                keyed::<FlowKey, Conviction>(),
                options.max_convicted,
            ),
            Self::new(
                "FRAGMENTS",
                LruHash,
                keyed::<FragmentKey, FragmentEntry>(),
                options.max_fragments,
            ),
            Self::new(
                "COUNTERS",
                PerCpuArray,
                indexed::<[u64; Counter::COUNT]>(),
                1,
            ),
            Self::new("EVENTS", RingBuf, (0, 0), EVENTS_BYTES),
        ]
    }

    /// What is wrong with a pinned map.
    fn misfit(&self, info: &MapInfo) -> Option<String> {
        let kind = info.map_type().ok();
        if kind != Some(self.kind) {
            return Some(format!("type {kind:?} instead of {:?}", self.kind));
        }
        let differences = [
            ("key size", info.key_size(), self.key_size as u32),
            ("value size", info.value_size(), self.value_size as u32),
            ("entries", info.max_entries(), self.max_entries),
            ("mmap flag", info.map_flags() & MMAPABLE, self.flags),
        ];
        differences
            .into_iter()
            .find(|(_, found, wanted)| found != wanted)
            .map(|(what, found, wanted)| format!("{what} {found} instead of {wanted}"))
    }
}

/// A pinned map that could not be used again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiscardedMap {
    /// Its name.
    pub name: String,
    /// What was wrong with it.
    pub reason: String,
}

/// Counts the pinned maps that fit, and removes the pins of those that do not.
pub(super) fn check_maps(
    pins: &Pins,
    expected: &[Expected],
) -> Result<(usize, Vec<DiscardedMap>), LoadError> {
    let mut fitting = 0;
    let mut discarded = Vec::new();
    for map in expected {
        let path = pins.map(map.name);
        if !path.exists() {
            continue;
        }
        let misfit = match MapInfo::from_pin(&path) {
            Ok(info) => map.misfit(&info),
            Err(error) => Some(error.to_string()),
        };
        match misfit {
            None => fitting += 1,
            Some(reason) => {
                remove_pin(&path)?;
                discarded.push(DiscardedMap {
                    name: map.name.to_owned(),
                    reason,
                });
            }
        }
    }
    Ok((fitting, discarded))
}
