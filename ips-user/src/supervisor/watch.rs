//! Keeps an eye on the process in one seat, and ends it when it hangs.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::instance::Started;
use super::seat::Seat;
use crate::config::Config;
use crate::health::hang::{CONFIRM_AFTER, Hang, Patience, Progress, Suspicion};
use crate::sys::vitals::Vitals;

/// The process in a seat, and what speaks against it.
#[derive(Debug)]
pub(super) struct Watch {
    process: Started,
    /// Absent when the process had ended before they could be opened.
    vitals: Option<Vitals>,
    suspicion: Suspicion,
    progress: Progress,
    /// Why it was killed.
    hung: Option<Hang>,
}

impl Watch {
    /// Watches a process from its start on.
    pub(super) fn over(process: Started) -> Self {
        // Files about a process never become those of another one; so when it is still the same
        // one after they were opened, they are about this one.
        let vitals = Vitals::of(process.pid).ok();
        Self {
            vitals: vitals.filter(|_| process.is_alive()),
            process,
            suspicion: Suspicion::default(),
            progress: Progress::default(),
            hung: None,
        }
    }

    /// Why it was killed.
    pub(super) fn hung(&self) -> Option<Hang> {
        self.hung
    }

    /// Looks at the heartbeat, and kills the process when it hangs. Returns whether it did.
    pub(super) fn look(
        &mut self,
        seat: Seat,
        now_ns: u64,
        heartbeat_ns: u64,
        patience: Patience,
    ) -> bool {
        let sample = || self.vitals.as_ref()?.sample();
        let hang = self.suspicion.judge(now_ns, heartbeat_ns, sample, patience);
        self.end(seat, hang)
    }

    /// Looks at the packets that it takes, and kills the process when it hangs. Returns whether
    /// it did.
    pub(super) fn look_at_progress(
        &mut self,
        seat: Seat,
        now_ns: u64,
        received: Option<u32>,
        waiting: bool,
        patience: Patience,
    ) -> bool {
        let hang = self.progress.judge(now_ns, received, waiting, patience);
        self.end(seat, hang)
    }

    /// How long until the next look could find something, if that is before `latest`.
    pub(super) fn next_look(
        &self,
        now_ns: u64,
        heartbeat_ns: u64,
        stale: Duration,
        latest: Duration,
    ) -> Duration {
        if self.hung.is_some() {
            return latest;
        }
        if self.suspicion.is_unconfirmed(now_ns) {
            return CONFIRM_AFTER.min(latest);
        }
        let age = Duration::from_nanos(now_ns.saturating_sub(heartbeat_ns));
        match stale.checked_sub(age) {
            Some(left) => left.min(latest),
            None => latest,
        }
    }

    fn end(&mut self, seat: Seat, hang: Option<Hang>) -> bool {
        // Once: inside the kernel it may take a while to go.
        let Some(hang) = hang.filter(|_| self.hung.is_none()) else {
            return false;
        };
        self.hung = Some(hang);
        log::warn!("{seat} (pid {}) {hang}: killed", self.process.pid);
        if let Err(error) = self.process.signal(Signal::SIGKILL) {
            log::warn!("{seat}: {error}");
        }
        true
    }
}

/// The limits as configured.
pub(super) fn patience(config: &Config) -> Patience {
    Patience {
        stale: config.stale(),
        computing: Duration::from_millis(config.workers.hang_ms),
        longest: Duration::from_millis(config.workers.hang_max_ms),
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};
    use std::time::Instant;

    use super::*;
    use crate::sys::process::monotonic_ns;

    const SEAT: Seat = Seat::Worker(0);
    const PATIENCE: Patience = Patience {
        stale: Duration::from_millis(20),
        computing: Duration::from_millis(50),
        longest: Duration::from_secs(600),
    };

    /// Watches a process whose only heartbeat is now, until it is killed.
    fn judged(mut child: Child) -> String {
        let heartbeat_ns = monotonic_ns();
        let mut watch = Watch::over(Started::of(child.id()).unwrap());
        let deadline = Instant::now() + Duration::from_secs(20);
        while !watch.look(SEAT, monotonic_ns(), heartbeat_ns, PATIENCE) {
            assert!(Instant::now() < deadline, "{watch:?}");
            std::thread::sleep(Duration::from_millis(2));
        }
        assert!(!child.wait().unwrap().success(), "it was killed");
        assert!(!watch.look(SEAT, monotonic_ns(), heartbeat_ns, PATIENCE));
        watch.hung().unwrap().to_string()
    }

    #[test]
    fn a_process_that_sleeps_and_one_in_a_loop_are_told_apart_and_killed() {
        let sleeping = Command::new("sleep").arg("1000").spawn().unwrap();
        assert_eq!(judged(sleeping), "hung: sleeps");
        let looping = ["-c", "while :; do :; done"];
        let looping = Command::new("sh").args(looping).spawn().unwrap();
        let reason = judged(looping);
        assert!(reason.starts_with("hung: endless loop"), "{reason}");
    }

    #[test]
    fn the_next_look_comes_when_the_heartbeat_turns_stale_and_again_to_confirm() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let mut watch = Watch::over(Started::of(child.id()).unwrap());
        let (ms, latest) = (Duration::from_millis, Duration::from_millis(10));
        let next = |watch: &Watch, now_ms: u64| {
            watch.next_look(now_ms * 1_000_000, 1_000_000_000, PATIENCE.stale, latest)
        };
        assert_eq!(next(&watch, 1001), latest);
        assert_eq!(next(&watch, 1013), ms(7));
        assert!(!watch.look(SEAT, 1_020_000_000, 1_000_000_000, PATIENCE));
        assert_eq!(next(&watch, 1020), CONFIRM_AFTER);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(next(&watch, 1030), latest);
    }
}
