//! The exception policies of one worker: applied, counted by cause, and reported now and then.

use crate::exception::{Cause, Treatments};
use crate::flow::Timestamp;

/// At most one record in this time for each cause: exceptions come in floods.
const REPORT_EVERY_NS: u64 = 1_000_000_000;

const CAUSES: usize = Cause::ALL.len();

/// How many packets went by an exception policy, by cause. Those whose policy is `ignore` are
/// not counted: they were inspected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExceptionCounters {
    applied: [u64; CAUSES],
    dropped: [u64; CAUSES],
}

impl ExceptionCounters {
    /// Packets that went by the policy.
    pub const fn applied(&self, cause: Cause) -> u64 {
        self.applied[cause as usize]
    }

    /// Of these: dropped.
    pub const fn dropped(&self, cause: Cause) -> u64 {
        self.dropped[cause as usize]
    }

    /// Dropped for any cause.
    pub fn all_dropped(&self) -> u64 {
        self.dropped.iter().sum()
    }
}

/// Policies, counters, and what has been reported.
#[derive(Debug)]
pub(super) struct Exceptions {
    pub(super) treatments: Treatments,
    pub(super) counters: ExceptionCounters,
    reported: [Option<Timestamp>; CAUSES],
    unreported: [u64; CAUSES],
}

impl Exceptions {
    pub(super) fn new(treatments: Treatments) -> Self {
        Self {
            treatments,
            counters: ExceptionCounters::default(),
            reported: [None; CAUSES],
            unreported: [0; CAUSES],
        }
    }

    /// Counts a packet that went by the policy of `cause`. When a record is due, returns of how
    /// many packets it tells, this one included.
    pub(super) fn count(&mut self, cause: Cause, dropped: bool, now: Timestamp) -> Option<u64> {
        let index = cause as usize;
        self.counters.applied[index] += 1;
        self.counters.dropped[index] += u64::from(dropped);
        self.unreported[index] += 1;
        let due = self.reported[index].is_none_or(|last| now.since_ns(last) >= REPORT_EVERY_NS);
        due.then(|| {
            self.reported[index] = Some(now);
            std::mem::take(&mut self.unreported[index])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_is_reported_at_once_and_then_once_a_second() {
        let at = |ms: u64| Timestamp {
            wall_us: 0,
            monotonic_ns: ms * 1_000_000,
        };
        let mut exceptions = Exceptions::new(Treatments::default());
        let quarantine = Cause::Quarantine;
        for (ms, told) in [(5, Some(1)), (6, None), (1004, None), (1005, Some(3))] {
            assert_eq!(exceptions.count(quarantine, true, at(ms)), told, "{ms}");
        }
        assert_eq!(exceptions.count(Cause::Overload, false, at(6)), Some(1));
        let counters = exceptions.counters;
        assert_eq!(
            (counters.applied(quarantine), counters.dropped(quarantine)),
            (4, 4)
        );
        assert_eq!(counters.applied(Cause::Overload), 1);
        assert_eq!(counters.all_dropped(), 4);
    }
}
