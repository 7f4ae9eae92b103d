//! A place in the set of workers.

use std::fmt;
use std::str::FromStr;

use ips_common::{BACKUP, MAX_WORKERS, Steer};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A worker's place: its process may be replaced, the seat stays. In JSON and on the command
/// line `worker 0` or `backup`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
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

    /// Index in the `WORKERS` map, and of its row on the board.
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

    /// Its queue counted from `queue.first`: the backup's is the first, so that workers can be
    /// added behind the others.
    pub const fn queue_offset(self) -> u32 {
        match self {
            Self::Worker(index) => index + 1,
            Self::Backup => 0,
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

impl From<Seat> for String {
    fn from(seat: Seat) -> Self {
        seat.to_string()
    }
}

impl TryFrom<String> for Seat {
    type Error = NoSeat;

    fn try_from(text: String) -> Result<Self, NoSeat> {
        text.parse()
    }
}

/// What was said names no seat.
#[derive(Debug, Error)]
#[error("{0:?} is no seat: `worker 0` (or `0`) and so on, or `backup`")]
pub struct NoSeat(String);

impl FromStr for Seat {
    type Err = NoSeat;

    fn from_str(text: &str) -> Result<Self, NoSeat> {
        if text == "backup" {
            return Ok(Self::Backup);
        }
        let number = text.strip_prefix("worker ").unwrap_or(text).parse();
        let index = number.ok().filter(|index| *index < MAX_WORKERS);
        index
            .map(Self::Worker)
            .ok_or_else(|| NoSeat(text.to_owned()))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seat_is_read_as_it_is_shown() {
        for seat in Seat::all(3) {
            assert_eq!(seat.to_string().parse::<Seat>().unwrap(), seat);
        }
        assert_eq!("2".parse::<Seat>().unwrap(), Seat::Worker(2));
        for nonsense in ["", "worker", "worker -1", "1024", "x"] {
            nonsense.parse::<Seat>().unwrap_err();
        }
    }
}
