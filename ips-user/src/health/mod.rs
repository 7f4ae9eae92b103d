//! Judges workers by their heartbeats, with hysteresis.
//!
//! The TC program bypasses a stale worker at once, packet by packet. This is the slower half:
//! it keeps a worker that tripped out of the table's use until its heartbeat has been steady
//! for a while, so that a worker at the edge does not flap. Whether a stale worker is to be
//! replaced is judged in [`hang`]; whether one that beats has too much to do in [`overload`], by
//! how long packets wait ([`delay`]).

pub mod delay;
pub mod hang;
pub mod overload;

use std::time::Duration;

/// Longest time between two heartbeats of an idle worker.
pub const HEARTBEAT: Duration = Duration::from_millis(10);

/// What changed about a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Its heartbeat is older than the limit.
    Tripped,
    /// It has been steady for long enough.
    Recovered,
}

/// Limits of the judgement.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Age at which a heartbeat is stale.
    pub stale: Duration,
    /// How long it must be fresh again.
    pub recover: Duration,
}

/// Judgement of one worker over time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pulse {
    /// Since when the heartbeat has been fresh again after a trip; `None` before the first
    /// fresh one.
    steady_since_ns: Option<u64>,
    tripped: bool,
}

impl Pulse {
    /// Whether the worker is out of use.
    pub fn is_tripped(&self) -> bool {
        self.tripped
    }

    /// Looks at a heartbeat. `tripped_in_kernel` tells that the TC program has found it stale
    /// since the last look, even if it is fresh now.
    pub fn judge(
        &mut self,
        now_ns: u64,
        heartbeat_ns: u64,
        tripped_in_kernel: bool,
        limits: Limits,
    ) -> Option<Change> {
        let age = Duration::from_nanos(now_ns.saturating_sub(heartbeat_ns));
        let fresh = age < limits.stale;
        if !self.tripped {
            if fresh && !tripped_in_kernel {
                return None;
            }
            self.tripped = true;
            self.steady_since_ns = fresh.then_some(now_ns);
            return Some(Change::Tripped);
        }
        if !fresh {
            self.steady_since_ns = None;
            return None;
        }
        let since = *self.steady_since_ns.get_or_insert(now_ns);
        if Duration::from_nanos(now_ns.saturating_sub(since)) < limits.recover {
            return None;
        }
        *self = Self::default();
        Some(Change::Recovered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        stale: Duration::from_nanos(100),
        recover: Duration::from_nanos(1000),
    };

    #[test]
    fn a_stale_heartbeat_trips_once_and_recovers_only_after_being_steady() {
        let mut pulse = Pulse::default();
        assert_eq!(pulse.judge(1000, 950, false, LIMITS), None);
        assert_eq!(pulse.judge(1060, 950, false, LIMITS), Some(Change::Tripped));
        assert_eq!(pulse.judge(1100, 950, false, LIMITS), None);
        // Fresh, but only for a moment, then stale again: the wait starts anew.
        assert_eq!(pulse.judge(2000, 1990, false, LIMITS), None);
        assert_eq!(pulse.judge(2500, 1990, false, LIMITS), None);
        assert_eq!(pulse.judge(3000, 2990, false, LIMITS), None);
        assert_eq!(pulse.judge(3999, 3990, false, LIMITS), None);
        assert_eq!(
            pulse.judge(4000, 3990, false, LIMITS),
            Some(Change::Recovered)
        );
        assert_eq!(pulse.judge(4010, 4000, false, LIMITS), None);
    }

    #[test]
    fn a_trip_seen_by_the_kernel_counts_even_when_the_heartbeat_is_fresh_again() {
        let mut pulse = Pulse::default();
        assert_eq!(pulse.judge(1000, 990, true, LIMITS), Some(Change::Tripped));
        assert_eq!(pulse.judge(1500, 1490, false, LIMITS), None);
        assert_eq!(
            pulse.judge(2000, 1990, false, LIMITS),
            Some(Change::Recovered)
        );
    }
}
