//! Flows that go elsewhere than the table says: the map `PLACED`.
//!
//! The TC program writes it for flows that the backup takes over and, while slots move, for
//! those seen in them; the supervisor writes the flows that workers have listed. It can hold
//! hundreds of thousands, so everything here goes by batches.

use std::cell::Cell;
use std::num::NonZeroUsize;
use std::os::fd::AsFd as _;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use aya::maps::{MapData, MapError};
use bytemuck::Zeroable as _;
use ips_common::{BACKUP, BYPASS, FlowKey, HINT_COUNT, Hint, Placement};

use super::MapsError;
use super::memory::SharedArray;
use crate::sys::bpf_batch::{BatchMap, Position};

const NAME: &str = "PLACED";
const HINTS_LEN: NonZeroUsize = NonZeroUsize::new(HINT_COUNT as usize * size_of::<u64>()).unwrap();
/// Entries read or written by one system call.
const AT_ONCE: usize = 4096;
/// Such calls of one sweep.
const SWEPT_AT_ONCE: usize = 8;
/// A count is good for this many times of what counting took.
const COUNT_LASTS: u32 = 20;

/// How many flows are placed where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlacementCount {
    /// At the backup.
    pub adopted: usize,
    /// At a worker.
    pub kept: usize,
    /// Not to be queued.
    pub bypassed: usize,
}

impl PlacementCount {
    fn add(&mut self, placement: &Placement) {
        match placement.target {
            BACKUP => self.adopted += 1,
            BYPASS => self.bypassed += 1,
            _ => self.kept += 1,
        }
    }

    /// All of them.
    pub fn total(&self) -> usize {
        self.adopted + self.kept + self.bypassed
    }
}

/// The map `PLACED`, and the hint without which the TC program would not look into it.
pub struct Placements {
    map: BatchMap<FlowKey, Placement>,
    /// The same map. Programs that are loaded later know it by the number of this descriptor.
    _data: MapData,
    hints: SharedArray,
    /// Where the sweep goes on.
    swept: Position,
    /// The last count, when it was made and what it took.
    counted: Cell<Option<(PlacementCount, Instant, Duration)>>,
}

impl Placements {
    pub(super) fn new(data: MapData, hints: &MapData) -> Result<Self, MapsError> {
        let placed = data.fd().as_fd().try_clone_to_owned();
        let map = placed.and_then(BatchMap::new).map_err(failed("open"))?;
        let hints = SharedArray::map(hints.fd().as_fd(), HINTS_LEN).map_err(|source| {
            MapsError::Memory {
                name: "HINTS",
                source,
            }
        })?;
        Ok(Self {
            map,
            _data: data,
            hints,
            swept: Position::default(),
            counted: Cell::new(None),
        })
    }

    /// Places flows from their next packet on; where one is placed already, the new placement
    /// counts. When the map is full the flows whose packets were seen longest ago make room.
    /// Returns how many could not be placed.
    ///
    /// # Errors
    /// When the kernel refuses; the flows before are placed.
    pub fn insert(&mut self, flows: &[(FlowKey, Placement)]) -> Result<usize, MapsError> {
        let mut refused = 0;
        for flows in flows.chunks(AT_ONCE) {
            let (keys, placements): (Vec<_>, Vec<_>) = flows.iter().copied().unzip();
            refused += self
                .map
                .update(&keys, &placements)
                .map_err(failed("insert"))?;
            let latest = placements.iter().map(|it| it.last_ns).max().unwrap_or(0);
            let offset = Hint::PlacedNs as usize * size_of::<u64>();
            self.hints.u64(offset).fetch_max(latest, Ordering::Release);
        }
        self.counted.set(None);
        Ok(refused)
    }

    /// Placements, idle ones included, at most about `limit` (a few more of the last bucket).
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn list(&self, limit: usize) -> Result<Vec<(FlowKey, Placement)>, MapsError> {
        let mut list = Vec::new();
        let mut position = Position::default();
        let mut chunk = Chunk::new();
        loop {
            let more = chunk.read(&self.map, &mut position)?;
            list.extend(chunk.entries().map(|(key, placement)| (*key, *placement)));
            if !more || list.len() >= limit {
                list.truncate(limit);
                return Ok(list);
            }
        }
    }

    /// Gives one flow back to the table; false when it was not placed.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn remove(&mut self, key: &FlowKey) -> Result<bool, MapsError> {
        self.counted.set(None);
        Ok(self.map.remove(&[*key]).map_err(failed("remove"))? > 0)
    }

    /// Gives one flow back to the table if it is placed at `target`; false when it is not.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn remove_from(&mut self, key: &FlowKey, target: u32) -> Result<bool, MapsError> {
        match self.map.get(key).map_err(failed("look up"))? {
            Some(placement) if placement.target == target => self.remove(key),
            _ => Ok(false),
        }
    }

    /// Gives all flows that are placed at `target` back to the table; returns how many.
    ///
    /// # Errors
    /// When the kernel refuses; some may have been removed.
    pub fn remove_at(&mut self, target: u32) -> Result<usize, MapsError> {
        let mut removed = 0;
        let mut position = Position::default();
        while self.remove_some(&mut position, &mut removed, |it| it.target == target)? {}
        Ok(removed)
    }

    /// Forgets placements without a packet since `oldest_ns` in the next part of the map, so
    /// that a full one does not hold the caller up; returns how many.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn sweep(&mut self, oldest_ns: u64) -> Result<usize, MapsError> {
        let mut removed = 0;
        let mut position = self.swept;
        for _ in 0..SWEPT_AT_ONCE {
            if !self.remove_some(&mut position, &mut removed, |it| it.last_ns < oldest_ns)? {
                break;
            }
        }
        self.swept = position;
        Ok(removed)
    }

    /// Whether the walk goes on.
    fn remove_some(
        &mut self,
        position: &mut Position,
        removed: &mut usize,
        which: impl Fn(&Placement) -> bool,
    ) -> Result<bool, MapsError> {
        let mut chunk = Chunk::new();
        let more = chunk.read(&self.map, position)?;
        let keys: Vec<_> = chunk
            .entries()
            .filter(|(_, placement)| which(placement))
            .map(|(key, _)| *key)
            .collect();
        if !keys.is_empty() {
            *removed += self.map.remove(&keys).map_err(failed("remove"))?;
            self.counted.set(None);
        }
        Ok(more)
    }

    /// How many flows are placed, idle ones included. The kernel does not tell, so they have to
    /// be walked through: what is returned may be old by a few times of what that takes (tens
    /// of milliseconds for a full map), so that nobody who asks often holds up the caller.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn count(&self) -> Result<PlacementCount, MapsError> {
        let hint = Hint::PlacedNs as usize * size_of::<u64>();
        if self.hints.u64(hint).load(Ordering::Acquire) == 0 {
            return Ok(PlacementCount::default());
        }
        if let Some((count, when, took)) = self.counted.get()
            && when.elapsed() < took * COUNT_LASTS
        {
            return Ok(count);
        }
        let started = Instant::now();
        let mut count = PlacementCount::default();
        let mut position = Position::default();
        let mut chunk = Chunk::new();
        loop {
            let more = chunk.read(&self.map, &mut position)?;
            chunk.entries().for_each(|(_, it)| count.add(it));
            if !more {
                break;
            }
        }
        let took = started.elapsed();
        self.counted.set(Some((count, Instant::now(), took)));
        Ok(count)
    }
}

/// Room for the entries of one system call.
struct Chunk {
    keys: Vec<FlowKey>,
    placements: Vec<Placement>,
    filled: usize,
}

impl Chunk {
    fn new() -> Self {
        Self {
            keys: vec![FlowKey::default(); AT_ONCE],
            placements: vec![Placement::zeroed(); AT_ONCE],
            filled: 0,
        }
    }

    /// Whether there may be more.
    fn read(
        &mut self,
        map: &BatchMap<FlowKey, Placement>,
        position: &mut Position,
    ) -> Result<bool, MapsError> {
        let (filled, more) = map
            .read(position, &mut self.keys, &mut self.placements)
            .map_err(failed("read"))?;
        self.filled = filled;
        Ok(more)
    }

    fn entries(&self) -> impl Iterator<Item = (&FlowKey, &Placement)> {
        self.keys.iter().zip(&self.placements).take(self.filled)
    }
}

fn failed(operation: &'static str) -> impl FnOnce(std::io::Error) -> MapsError {
    move |error| MapsError::operation(NAME, operation)(MapError::IoError(error))
}
