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
    /// Those of former launchers: each ends with the last worker of its launcher.
    former: Vec<Started>,
    ends: u64,
}

impl Rejecter {
    /// Before there is a process; with the counters and the rejecter of a predecessor, and how
    /// often that was started again.
    pub(super) fn new(
        tally: Option<Tally>,
        former: Option<Started>,
        restarts: u64,
    ) -> io::Result<Self> {
        Ok(Self {
            tally: tally.map_or_else(Tally::create, Ok)?,
            process: None,
            former: former.into_iter().collect(),
            ends: restarts,
        })
    }

    /// The launcher has started one, or says that it has ended.
    pub(super) fn became(&mut self, pid: Option<u32>) {
        self.ends += u64::from(pid.is_none());
        self.process = pid.map(|pid| Started::of(pid).unwrap_or(Started::ended(pid)));
    }

    /// Nobody tells of its end any more, and the next launcher starts another one.
    pub(super) fn launcher_lost(&mut self) {
        self.former.extend(self.process.take());
    }

    /// Forgets those of former launchers that have ended.
    pub(super) fn look_after_former(&mut self) {
        self.former.retain(|process| {
            let alive = process.is_alive();
            if !alive {
                process.reap();
            }
            alive
        });
    }

    /// Its process.
    pub(super) fn process(&self) -> Option<Started> {
        self.process
    }

    /// How many times it was started again.
    pub(super) fn restarts(&self) -> u64 {
        self.ends
    }

    /// For `sluice status`.
    pub(super) fn snapshot(&self) -> snapshot::Rejecter {
        let serving = |process: &Started| self.tally.is_served_by(process.pid);
        snapshot::Rejecter {
            pid: self.process.filter(serving).map_or(0, |it| it.pid),
            restarts: self.ends,
            counters: self.tally.counters(),
        }
    }
}
