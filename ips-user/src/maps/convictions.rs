//! Flows that are dropped until their sentence ends.

use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;

use aya::maps::{HashMap, Map, MapData, MapError};
use ips_common::{Conviction, FlowKey, HINT_COUNT, Hint};

use super::MapsError;
use super::memory::SharedArray;

const NAME: &str = "CONVICTED";
const HINTS_LEN: NonZeroUsize = NonZeroUsize::new(HINT_COUNT as usize * size_of::<u64>()).unwrap();

/// The map `CONVICTED`, and the hint without which the programs would not look into it.
pub struct Convictions {
    map: HashMap<MapData, FlowKey, Conviction>,
    hints: SharedArray,
    /// Of `CONVICTED`; aya's map does not give out its own.
    convicted_fd: OwnedFd,
    hints_data: MapData,
}

impl Convictions {
    pub(super) fn new(convicted: MapData, hints: MapData) -> Result<Self, MapsError> {
        let array = SharedArray::map(hints.fd().as_fd(), HINTS_LEN).map_err(|source| {
            MapsError::Memory {
                name: "HINTS",
                source,
            }
        })?;
        Ok(Self {
            convicted_fd: duplicate(NAME, &convicted)?,
            map: HashMap::try_from(Map::LruHashMap(convicted))
                .map_err(MapsError::operation(NAME, "open"))?,
            hints: array,
            hints_data: hints,
        })
    }

    /// Opens the maps behind two descriptors, as a worker process does that inherited them.
    ///
    /// # Errors
    /// When they are not those of `CONVICTED` and `HINTS`.
    pub fn from_fds(convicted: OwnedFd, hints: OwnedFd) -> Result<Self, MapsError> {
        Self::new(
            MapData::from_fd(convicted).map_err(MapsError::operation(NAME, "open"))?,
            MapData::from_fd(hints).map_err(MapsError::operation("HINTS", "open"))?,
        )
    }

    /// Descriptors of `CONVICTED` and `HINTS` (close-on-exec), for [`Self::from_fds`].
    pub fn fds(&self) -> (BorrowedFd<'_>, BorrowedFd<'_>) {
        (self.convicted_fd.as_fd(), self.hints_data.fd().as_fd())
    }

    /// Drops the flow's packets until `conviction.expires_ns`. When the map is full, the flow
    /// whose packets were seen longest ago is forgotten.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn convict(&mut self, key: &FlowKey, conviction: &Conviction) -> Result<(), MapsError> {
        self.map
            .insert(key, conviction, 0)
            .map_err(MapsError::operation(NAME, "insert"))?;
        let offset = Hint::ConvictedUntilNs as usize * size_of::<u64>();
        self.hints
            .u64(offset)
            .fetch_max(conviction.expires_ns, Ordering::Release);
        Ok(())
    }

    /// Lets the flow go; false when it was not convicted.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn pardon(&mut self, key: &FlowKey) -> Result<bool, MapsError> {
        match self.map.remove(key) {
            Ok(()) => Ok(true),
            Err(error) if is_absent(&error) => Ok(false),
            Err(error) => Err(MapsError::operation(NAME, "remove")(error)),
        }
    }

    /// All convictions whose time is not over at `now_ns`; the programs remove an expired one
    /// only when its flow sends again.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn list(&self, now_ns: u64) -> Result<Vec<(FlowKey, Conviction)>, MapsError> {
        let mut convictions = Vec::new();
        for entry in self.map.iter() {
            let (key, conviction) = entry.map_err(MapsError::operation(NAME, "iterate"))?;
            if conviction.expires_ns > now_ns {
                convictions.push((key, conviction));
            }
        }
        Ok(convictions)
    }
}

fn duplicate(name: &'static str, map: &MapData) -> Result<OwnedFd, MapsError> {
    map.fd()
        .as_fd()
        .try_clone_to_owned()
        .map_err(|error| MapsError::Operation {
            name,
            operation: "dup",
            source: MapError::IoError(error),
        })
}

/// Whether an operation failed because there is no such key.
pub(super) fn is_absent(error: &MapError) -> bool {
    match error {
        MapError::KeyNotFound | MapError::ElementNotFound => true,
        MapError::SyscallError(error) => error.io_error.raw_os_error() == Some(libc::ENOENT),
        _ => false,
    }
}
