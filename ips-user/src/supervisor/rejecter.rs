//! What the supervisor knows of the rejecter.

use std::io;

use super::instance::Started;
use crate::metrics::snapshot;
use crate::rejecter::Tally;

/// The rejecter, which the launcher starts and starts again.
#[derive(Debug)]
pub(super) struct Rejecter {
    pub(super) tally: Tally,
    process: Option<Started>,
    ends: u64,
}

impl Rejecter {
    /// Its counters, before there is a process.
    pub(super) fn create() -> io::Result<Self> {
        Ok(Self {
            tally: Tally::create()?,
            process: None,
            ends: 0,
        })
    }

    /// The launcher has started one, or says that it has ended.
    pub(super) fn became(&mut self, pid: Option<u32>) {
        self.ends += u64::from(pid.is_none());
        self.process = pid.map(|pid| Started::of(pid).unwrap_or(Started::ended(pid)));
    }

    /// Its process.
    pub(super) fn process(&self) -> Option<Started> {
        self.process
    }

    /// For `sluice status`.
    pub(super) fn snapshot(&self) -> snapshot::Rejecter {
        snapshot::Rejecter {
            pid: self.process.map_or(0, |process| process.pid),
            restarts: self.ends,
            counters: self.tally.counters(),
        }
    }
}
