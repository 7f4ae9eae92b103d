//! A place in the set of workers.

use std::fmt;

use ips_common::{BACKUP, Steer};
use serde::{Deserialize, Serialize};

/// A worker's place: its process may be replaced, the seat stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Seat {
    /// Worker 0 to n-1.
    Worker(u32),
    /// The backup.
    Backup,
}

impl Seat {
    /// All seats: the workers in order, then the backup.
    pub fn all(workers: u32) -> impl Iterator<Item = Self> {
        (0..workers).map(Self::Worker).chain([Self::Backup])
    }

    /// Index in the `WORKERS` map.
    pub const fn slot(self) -> u32 {
        match self {
            Self::Worker(index) => index,
            Self::Backup => BACKUP,
        }
    }

    /// The seat of an index in the `WORKERS` map.
    pub const fn of_slot(slot: u32) -> Self {
        if slot == BACKUP {
            Self::Backup
        } else {
            Self::Worker(slot)
        }
    }

    /// Position among `workers` workers with the backup last: its row on the board, its queue
    /// counted from the first.
    pub const fn position(self, workers: u32) -> u32 {
        match self {
            Self::Worker(index) => index,
            Self::Backup => workers,
        }
    }

    /// The mark that leads to it.
    pub const fn steer(self) -> Steer {
        match self {
            Self::Worker(index) => Steer::Worker(index),
            Self::Backup => Steer::Backup,
        }
    }
}

impl fmt::Display for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Worker(index) => write!(f, "worker {index}"),
            Self::Backup => f.write_str("backup"),
        }
    }
}
