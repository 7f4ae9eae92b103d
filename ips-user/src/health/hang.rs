//! Judges whether a worker that gives no sign of life hangs, and must be replaced, or merely
//! gets no CPU.
//!
//! A worker stamps its heartbeat after every batch, and every [`HEARTBEAT`] when there is
//! nothing to do. So one that sleeps without a heartbeat waits for something that it should not
//! wait for; one that computes without a heartbeat is in a loop; and one that would run but gets
//! no CPU has done nothing wrong: to replace it would change nothing, because its successor
//! would get none either.

use std::fmt;
use std::time::Duration;

use super::HEARTBEAT;
use crate::sys::vitals::{RunState, Sample};

/// From this age of a heartbeat on its process is looked at. Workers that are well cost nothing.
const OVERDUE: Duration = HEARTBEAT.saturating_mul(2);

/// What one look finds is confirmed by another one after this time: a worker whose wake-up is on
/// its way, or which has just been let go on with everything else on this machine, has had its
/// turn by then.
pub const CONFIRM_AFTER: Duration = Duration::from_millis(2);

/// How a worker hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hang {
    /// A signal has stopped it.
    Stopped,
    /// It waits for something other than its queue.
    Sleeps,
    /// It computes and does not come round.
    Loops {
        /// Time on a CPU since its last heartbeat.
        cpu: Duration,
    },
    /// Whatever the reason, it has given no sign of life for too long.
    Silent {
        /// Age of its last heartbeat.
        age: Duration,
    },
    /// It beats, but takes no packets though packets wait.
    TakesNothing {
        /// Since when.
        since: Duration,
    },
}

impl fmt::Display for Hang {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => f.write_str("hung: stopped"),
            Self::Sleeps => f.write_str("hung: sleeps"),
            Self::Loops { cpu } => write!(
                f,
                "hung: endless loop, {} ms of CPU without a heartbeat",
                cpu.as_millis()
            ),
            Self::Silent { age } => write!(f, "hung: no heartbeat for {} ms", age.as_millis()),
            Self::TakesNothing { since } => write!(
                f,
                "hung: took no packet for {} ms while packets waited",
                since.as_millis()
            ),
        }
    }
}

/// Limits of the judgement.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Age at which a heartbeat is stale.
    pub stale: Duration,
    /// Time on a CPU without a heartbeat that is a loop.
    pub computing: Duration,
    /// Longest time that a packet may wait for a worker, whatever the worker does.
    pub longest: Duration,
}

/// Judgement of one worker by its heartbeat and its process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Suspicion {
    /// The heartbeat that all the rest is about.
    heartbeat_ns: u64,
    /// Time on a CPU when it was found overdue.
    cpu: Option<Duration>,
    /// When it was first found stale.
    stale_since_ns: Option<u64>,
    /// When the worker was first found asleep with it.
    asleep_since_ns: Option<u64>,
    /// When it was last found to be held by a debugger: until then it could not beat.
    held_ns: u64,
}

impl Suspicion {
    /// Looks at a heartbeat; `look` tells about the process and is called only when needed.
    pub fn judge(
        &mut self,
        now_ns: u64,
        heartbeat_ns: u64,
        look: impl FnOnce() -> Option<Sample>,
        patience: Patience,
    ) -> Option<Hang> {
        if heartbeat_ns != self.heartbeat_ns {
            *self = Self {
                heartbeat_ns,
                ..Self::default()
            };
        }
        let age = elapsed(now_ns, heartbeat_ns.max(self.held_ns));
        if age < OVERDUE.min(patience.stale) && self.held_ns == 0 {
            return None;
        }
        // When it is gone its end will be reported.
        let sample = look()?;
        if sample.state == RunState::Traced {
            *self = Self {
                heartbeat_ns,
                held_ns: now_ns,
                ..Self::default()
            };
            return None;
        }
        let computed = sample
            .cpu
            .saturating_sub(*self.cpu.get_or_insert(sample.cpu));
        if age < patience.stale {
            return None;
        }
        let confirmed = |first_ns: &mut Option<u64>| {
            elapsed(now_ns, *first_ns.get_or_insert(now_ns)) >= CONFIRM_AFTER
        };
        let silent = confirmed(&mut self.stale_since_ns) && age >= patience.longest;
        match sample.state {
            RunState::Ended => None,
            RunState::Stopped => Some(Hang::Stopped),
            RunState::Sleeping if confirmed(&mut self.asleep_since_ns) => Some(Hang::Sleeps),
            RunState::Running if computed >= patience.computing => {
                Some(Hang::Loops { cpu: computed })
            }
            _ => silent.then_some(Hang::Silent { age }),
        }
    }

    /// Whether what was found waits for its confirmation.
    pub fn is_unconfirmed(&self, now_ns: u64) -> bool {
        [self.stale_since_ns, self.asleep_since_ns]
            .into_iter()
            .flatten()
            .any(|first_ns| elapsed(now_ns, first_ns) < CONFIRM_AFTER)
    }
}

/// Judgement of one worker by the packets that it takes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// Highest packet id that it had taken.
    received: Option<u32>,
    /// Since when packets have been waiting without another one being taken.
    waiting_since_ns: Option<u64>,
}

impl Progress {
    /// Looks at the highest packet id that the worker has taken, and at whether packets wait.
    pub fn judge(
        &mut self,
        now_ns: u64,
        received: Option<u32>,
        waiting: bool,
        patience: Patience,
    ) -> Option<Hang> {
        if !waiting || received != self.received {
            *self = Self {
                received,
                waiting_since_ns: waiting.then_some(now_ns),
            };
            return None;
        }
        let since = elapsed(now_ns, *self.waiting_since_ns.get_or_insert(now_ns));
        (since >= patience.longest).then_some(Hang::TakesNothing { since })
    }
}

fn elapsed(now_ns: u64, since_ns: u64) -> Duration {
    Duration::from_nanos(now_ns.saturating_sub(since_ns))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience {
        stale: Duration::from_millis(200),
        computing: Duration::from_millis(300),
        longest: Duration::from_millis(5000),
    };
    /// When the heartbeats of these tests were.
    const BEAT_MS: u64 = 1000;

    /// Looks, each a time in milliseconds after the heartbeat, a state and the time on a CPU;
    /// at the last one the judgement must be as expected, and before it that all is well.
    fn check(looks: &[(u64, RunState, u64)], expected: Option<Hang>) {
        let mut suspicion = Suspicion::default();
        let mut judge = |&(at_ms, state, cpu_ms): &(u64, RunState, u64)| {
            let cpu = Duration::from_millis(cpu_ms);
            let now_ns = (BEAT_MS + at_ms) * 1_000_000;
            let look = || Some(Sample { state, cpu });
            suspicion.judge(now_ns, BEAT_MS * 1_000_000, look, PATIENCE)
        };
        let (last, before) = looks.split_last().unwrap();
        for look in before {
            assert_eq!(judge(look), None, "{look:?} of {looks:?}");
        }
        assert_eq!(judge(last), expected, "{looks:?}");
    }

    use RunState::{Ended, Running, Sleeping, Stopped, Traced, Uninterruptible};

    #[test]
    fn a_stopped_worker_hangs_as_soon_as_its_heartbeat_is_stale() {
        check(&[(30, Stopped, 7), (199, Stopped, 7)], None);
        check(&[(30, Stopped, 7), (200, Stopped, 7)], Some(Hang::Stopped));
        check(&[(900, Stopped, 7)], Some(Hang::Stopped));
    }

    #[test]
    fn a_worker_that_sleeps_hangs_when_another_look_confirms_it() {
        check(&[(30, Sleeping, 7), (200, Sleeping, 7)], None);
        check(&[(200, Sleeping, 7), (201, Sleeping, 7)], None);
        check(
            &[(200, Sleeping, 7), (202, Sleeping, 7)],
            Some(Hang::Sleeps),
        );
        // It was woken, ran, and sleeps again without a heartbeat.
        check(
            &[(200, Sleeping, 7), (202, Running, 7), (204, Sleeping, 8)],
            Some(Hang::Sleeps),
        );
    }

    #[test]
    fn a_worker_that_was_being_woken_is_left_alone() {
        check(
            &[(200, Sleeping, 7), (202, Running, 7), (210, Running, 8)],
            None,
        );
    }

    #[test]
    fn a_worker_that_computes_without_a_heartbeat_is_in_a_loop() {
        check(&[(25, Running, 107), (324, Running, 406)], None);
        check(
            &[(25, Running, 107), (325, Running, 407)],
            Some(Hang::Loops {
                cpu: Duration::from_millis(300),
            }),
        );
        // What it computed before this heartbeat does not count.
        check(&[(900, Running, 100_000), (910, Running, 100_010)], None);
    }

    #[test]
    fn a_worker_without_cpu_is_starved_until_a_packet_would_wait_too_long() {
        let starved = [(25, Running, 7), (200, Running, 8), (4999, Running, 299)];
        check(&starved, None);
        let hung = [&starved[..], &[(5000, Running, 299)]].concat();
        let age = Duration::from_millis(5000);
        check(&hung, Some(Hang::Silent { age }));
    }

    #[test]
    fn a_worker_inside_the_kernel_is_waited_for() {
        check(
            &[(25, Uninterruptible, 7), (4999, Uninterruptible, 7)],
            None,
        );
        let age = Duration::from_millis(5003);
        check(
            &[
                (25, Uninterruptible, 7),
                (4999, Uninterruptible, 7),
                (5003, Uninterruptible, 7),
            ],
            Some(Hang::Silent { age }),
        );
    }

    #[test]
    fn a_worker_that_a_debugger_holds_or_that_has_ended_is_left_alone() {
        check(
            &[(25, Traced, 7), (900, Traced, 7), (60_000, Traced, 7)],
            None,
        );
        // Let go, it gets its turn first.
        let held = [(200, Traced, 7), (60_000, Traced, 7)];
        let let_go = [(60_010, Sleeping, 7), (60_199, Sleeping, 7)];
        check(&[&held[..], &let_go].concat(), None);
        let hung = [(60_200, Sleeping, 7), (60_202, Sleeping, 7)];
        check(&[&held[..], &hung].concat(), Some(Hang::Sleeps));
        check(&[(25, Running, 7), (60_000, Ended, 7)], None);
        let mut suspicion = Suspicion::default();
        let gone = suspicion.judge(9_000_000_000, 0, || None, PATIENCE);
        assert_eq!(gone, None);
    }

    #[test]
    fn after_a_pause_of_the_whole_machine_nobody_hangs_before_having_had_a_turn() {
        check(&[(60_000, Sleeping, 7)], None);
        check(&[(60_000, Running, 7)], None);
        check(&[(60_000, Running, 7), (60_001, Running, 7)], None);
    }

    #[test]
    fn a_heartbeat_ends_every_suspicion() {
        let mut suspicion = Suspicion::default();
        let mut judge = |now_ms: u64, beat_ms: u64, state, cpu_ms| {
            let cpu = Duration::from_millis(cpu_ms);
            let look = || Some(Sample { state, cpu });
            suspicion.judge(now_ms * 1_000_000, beat_ms * 1_000_000, look, PATIENCE)
        };
        assert_eq!(judge(1025, 1000, Running, 50), None);
        assert_eq!(judge(1200, 1000, Sleeping, 200), None);
        assert_eq!(judge(1230, 1205, Running, 300), None);
        assert_eq!(judge(1500, 1205, Running, 500), None);
        assert_eq!(judge(1501, 1205, Sleeping, 500), None);
    }

    #[test]
    fn a_worker_that_is_well_is_not_even_looked_at() {
        let mut suspicion = Suspicion::default();
        for now_ms in (1000..2000).step_by(10) {
            let beat_ms = now_ms - 9;
            let look = || panic!("looked at");
            let judged = suspicion.judge(now_ms * 1_000_000, beat_ms * 1_000_000, look, PATIENCE);
            assert_eq!(judged, None);
        }
    }

    #[test]
    fn a_worker_that_beats_but_takes_no_waiting_packet_hangs_after_the_longest_wait() {
        let mut progress = Progress::default();
        let mut judge = |now_ms: u64, received, waiting| {
            progress.judge(now_ms * 1_000_000, received, waiting, PATIENCE)
        };
        assert_eq!(judge(0, None, true), None);
        assert_eq!(judge(4000, Some(1), true), None);
        assert_eq!(judge(8000, Some(1), true), None);
        // Nothing waits: it may rest.
        assert_eq!(judge(8500, Some(1), false), None);
        assert_eq!(judge(20_000, Some(1), true), None);
        assert_eq!(judge(24_999, Some(1), true), None);
        let since = Duration::from_millis(5000);
        assert_eq!(
            judge(25_000, Some(1), true),
            Some(Hang::TakesNothing { since })
        );
        assert_eq!(judge(26_000, Some(2), true), None);
    }

    #[test]
    fn reasons_say_what_was_found() {
        let cpu = Duration::from_millis(312);
        assert_eq!(
            Hang::Loops { cpu }.to_string(),
            "hung: endless loop, 312 ms of CPU without a heartbeat"
        );
        assert_eq!(Hang::Stopped.to_string(), "hung: stopped");
    }
}
