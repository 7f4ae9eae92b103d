//! Flows that the backup took over from a worker that was down.

use aya::maps::{HashMap, MapData};
use ips_common::{Adoption, FlowKey};

use super::MapsError;
use super::convictions::is_absent;

const NAME: &str = "ADOPTED";

/// The map `ADOPTED`, which the TC program fills.
pub struct Adoptions {
    map: HashMap<MapData, FlowKey, Adoption>,
}

impl Adoptions {
    pub(super) fn new(map: HashMap<MapData, FlowKey, Adoption>) -> Self {
        Self { map }
    }

    /// All adoptions, idle ones included.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn list(&self) -> Result<Vec<(FlowKey, Adoption)>, MapsError> {
        self.map
            .iter()
            .collect::<Result<_, _>>()
            .map_err(MapsError::operation(NAME, "iterate"))
    }

    /// Gives one flow back to its worker; false when it was not adopted.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn release(&mut self, key: &FlowKey) -> Result<bool, MapsError> {
        match self.map.remove(key) {
            Ok(()) => Ok(true),
            Err(error) if is_absent(&error) => Ok(false),
            Err(error) => Err(MapsError::operation(NAME, "remove")(error)),
        }
    }

    /// Forgets the adoptions without a packet since `oldest_ns`; returns how many.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn purge_idle(&mut self, oldest_ns: u64) -> Result<usize, MapsError> {
        let mut purged = 0;
        for (key, adoption) in self.list()? {
            if adoption.last_ns < oldest_ns && self.release(&key)? {
                purged += 1;
            }
        }
        Ok(purged)
    }
}
