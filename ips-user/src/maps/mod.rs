//! The maps that the eBPF programs and userspace share, as typed operations.
//!
//! The supervisor takes them all ([`SteeringMaps`]); a worker process needs only descriptors:
//! [`WorkerPages::map`] to stamp its heartbeat and [`Convictions::from_fds`] to convict.
//! All times are CLOCK_MONOTONIC in nanoseconds.

use aya::Ebpf;
use aya::maps::{Array, Map, MapData, MapError};
use ips_common::SteerConfig;
use thiserror::Error;

mod convictions;
mod counters;
mod events;
mod memory;
mod placements;
pub mod table;
mod workers;

pub use convictions::Convictions;
pub use counters::{CounterTotals, Counters};
pub use events::EventRing;
pub use placements::{PlacementCount, Placements};
pub use table::{Table, worker_table};
pub use workers::WorkerPages;

/// Why a map could not be used.
#[derive(Debug, Error)]
pub enum MapsError {
    /// The object has no such map.
    #[error("the eBPF object has no map {0}")]
    Missing(&'static str),
    /// The kernel refused an operation.
    #[error("map {name}: {operation}: {source}")]
    Operation {
        /// The map.
        name: &'static str,
        /// What was tried.
        operation: &'static str,
        /// Why not.
        source: MapError,
    },
    /// The map could not be mapped into memory.
    #[error("map {name}: mmap: {source}")]
    Memory {
        /// The map.
        name: &'static str,
        /// Why not.
        source: nix::Error,
    },
}

impl MapsError {
    fn operation(name: &'static str, operation: &'static str) -> impl FnOnce(MapError) -> Self {
        move |source| Self::Operation {
            name,
            operation,
            source,
        }
    }
}

/// Every map of a loaded object.
pub struct SteeringMaps {
    config: Array<MapData, SteerConfig>,
    /// Worker of each slot of the hash.
    pub table: Table,
    /// Heartbeats and states.
    pub workers: WorkerPages,
    /// What the programs have counted.
    pub counters: Counters,
    /// Flows to be dropped.
    pub convictions: Convictions,
    /// Flows that go elsewhere than the table says.
    pub placements: Placements,
    /// Rare events.
    pub events: EventRing,
}

impl SteeringMaps {
    /// Takes the maps out of a loaded object; they stay usable when it is dropped.
    ///
    /// # Errors
    /// When one is missing, of another type, or cannot be mapped.
    pub fn take(ebpf: &mut Ebpf) -> Result<Self, MapsError> {
        let hints = take_data(ebpf, "HINTS")?;
        let placements = Placements::new(take_data(ebpf, "PLACED")?, &hints)?;
        Ok(Self {
            config: take(ebpf, "CONFIG")?,
            table: Table::new(take(ebpf, "TABLE")?)?,
            workers: WorkerPages::new(take_data(ebpf, "WORKERS")?)?,
            counters: Counters::new(take(ebpf, "COUNTERS")?),
            convictions: Convictions::new(take_data(ebpf, "CONVICTED")?, hints)?,
            placements,
            events: EventRing::new(take(ebpf, "EVENTS")?),
        })
    }

    /// What the programs are configured to; all zero until it was written once.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn config(&self) -> Result<SteerConfig, MapsError> {
        self.config
            .get(&0, 0)
            .map_err(MapsError::operation("CONFIG", "read"))
    }

    /// Configures the programs, from the next packet on. Not atomic against packets in flight:
    /// change the table and `workers` before flags and marks that depend on them.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn write_config(&mut self, config: &SteerConfig) -> Result<(), MapsError> {
        self.config
            .set(0, config, 0)
            .map_err(MapsError::operation("CONFIG", "write"))
    }
}

fn take<M>(ebpf: &mut Ebpf, name: &'static str) -> Result<M, MapsError>
where
    M: TryFrom<Map, Error = MapError>,
{
    let map = ebpf.take_map(name).ok_or(MapsError::Missing(name))?;
    M::try_from(map).map_err(MapsError::operation(name, "open"))
}

/// The bare map, of a type that is checked by whoever gets it.
fn take_data(ebpf: &mut Ebpf, name: &'static str) -> Result<MapData, MapsError> {
    match ebpf.take_map(name).ok_or(MapsError::Missing(name))? {
        Map::Array(data) | Map::LruHashMap(data) => Ok(data),
        _ => Err(MapsError::Missing(name)),
    }
}
