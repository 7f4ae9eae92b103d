//! The rejecter's counters, in memory that outlives it and that the supervisor reads.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};

use crate::sys::shared_words::SharedWords;

/// What each word holds.
#[derive(Clone, Copy)]
enum Word {
    Sent,
    Refused,
    Failed,
    /// Not a counter: the process that serves.
    Server,
}

const WORDS: usize = 4;

/// Counters that only the rejecter writes, and who that is.
#[derive(Debug)]
pub struct Tally {
    memory: SharedWords,
}

/// Their values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejecterCounters {
    /// Packets sent.
    pub sent: u64,
    /// Requests that were no rejections.
    pub refused: u64,
    /// Packets that the kernel did not take: no route, full buffer, forbidden by a filter.
    pub failed: u64,
}

impl Tally {
    /// Zeros.
    ///
    /// # Errors
    /// When memory or descriptors run out.
    pub fn create() -> io::Result<Self> {
        let memory = SharedWords::create(c"sluice-rejecter", WORDS)?;
        Ok(Self { memory })
    }

    /// Maps counters created by another process.
    ///
    /// # Errors
    /// When the descriptor is not of such counters.
    pub fn map(file: OwnedFd) -> io::Result<Self> {
        let memory = SharedWords::map(file)?;
        if memory.words().len() < WORDS {
            return Err(io::Error::other("too short for the rejecter's counters"));
        }
        Ok(Self { memory })
    }

    /// The values now.
    pub fn counters(&self) -> RejecterCounters {
        let value = |word: Word| self.memory.words()[word as usize].load(Ordering::Relaxed);
        RejecterCounters {
            sent: value(Word::Sent),
            refused: value(Word::Refused),
            failed: value(Word::Failed),
        }
    }

    /// Whether a process serves requests: it is in its sandbox by then.
    pub fn is_served_by(&self, pid: u32) -> bool {
        self.memory.words()[Word::Server as usize].load(Ordering::Acquire) == u64::from(pid)
    }

    pub(super) fn serves(&self, pid: u32) {
        self.memory.words()[Word::Server as usize].store(pid.into(), Ordering::Release);
    }

    pub(super) fn sent(&self) {
        self.count(Word::Sent);
    }

    /// Returns how many that are now.
    pub(super) fn refused(&self) -> u64 {
        self.count(Word::Refused)
    }

    pub(super) fn failed(&self) {
        self.count(Word::Failed);
    }

    fn count(&self, word: Word) -> u64 {
        self.memory.words()[word as usize].fetch_add(1, Ordering::Relaxed) + 1
    }
}

impl AsFd for Tally {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }
}
