//! How one worker of a seat relieves another while the queue goes on filling: after an upgrade,
//! after a takeover from a dead supervisor, and when the launcher had to be replaced (workers of
//! different launchers cannot share rules).
//!
//! The successor is started first and says when it could serve; only then is the predecessor
//! told to hand over. It finishes its batch, writes its flows and ends; the successor reads
//! them and goes on. Packets wait in the kernel meanwhile.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::instance::{Sitting, Started};
use super::occupancy::{Occupancy, Phase};
use super::seat::Seat;
use super::seats::Seats;
use super::watch::{Watch, patience};
use crate::config::Config;
use crate::desk::{Command, CommandNumber};
use crate::health::hang::Patience;
use crate::maps::WorkerPages;
use crate::sys::process::monotonic_ns;
use crate::worker::handing_over::NOTHING;

/// A predecessor may take this long at least to hand over, and then to end: a full table of
/// 262,144 flows takes 200 ms of CPU to write, and there may be others to be served.
const HAND_OVER_WITHIN: Duration = Duration::from_secs(1);

/// How a process ended that was nobody's child any more.
pub(super) const UNSEEN: &str = "nobody saw how";

/// A process that still serves the queue of a seat whose successor has been asked for.
#[derive(Debug)]
pub(super) struct Predecessor {
    process: Started,
    /// Packets wait for it as for any other worker.
    watch: Watch,
    told: Option<(CommandNumber, Instant)>,
}

impl Predecessor {
    pub(super) fn new(process: Started) -> Self {
        Self {
            process,
            watch: Watch::over(process),
            told: None,
        }
    }

    pub(super) const fn process(&self) -> Started {
        self.process
    }

    /// Kills it when it hangs, as it goes on serving or as it hands over. Returns whether it did.
    fn end_if_hung(&mut self, seat: Seat, heartbeat_ns: u64, patience: Patience) -> bool {
        if self
            .watch
            .look(seat, monotonic_ns(), heartbeat_ns, patience)
        {
            return true;
        }
        let within = patience.longest.max(HAND_OVER_WITHIN);
        let Some((_, since)) = self.told.as_mut().filter(|it| it.1.elapsed() > within) else {
            return false;
        };
        *since = Instant::now();
        let pid = self.process.pid;
        log::warn!("{seat} (pid {pid}) does not hand over within {within:?}: killed");
        if let Err(error) = self.process.signal(Signal::SIGKILL) {
            log::warn!("{seat}: {error}");
        }
        true
    }
}

/// A predecessor that has ended.
#[derive(Debug)]
pub(super) struct Departed {
    pub(super) seat: Seat,
    pub(super) pid: u32,
    pub(super) how: String,
    told: Option<CommandNumber>,
    /// It had not handed over: what the desk says is in hand was in its hands.
    pub(super) untimely: bool,
}

impl Departed {
    /// Whether nobody serves the seat now because the successor is not ready yet.
    pub(super) fn leaves_nobody(&self) -> bool {
        self.told.is_none()
    }
}

impl Occupancy {
    /// Takes leave of a predecessor that has ended. If it had not handed over, that is an end
    /// like any other worker's, and the successor its replacement.
    fn take_leave(&mut self) -> Option<Departed> {
        let gone = |it: &mut Predecessor| !it.process.is_alive();
        let Predecessor {
            process,
            watch,
            told,
        } = self.predecessor.take_if(gone)?;
        let (seat, pid, reaped) = (self.seat, process.pid, process.reap());
        // A signal that was ours says nothing.
        let hung = watch.hung().map(|hang| hang.to_string());
        let how = hung.or(reaped).unwrap_or_else(|| UNSEEN.to_owned());
        let told = told.map(|(number, _)| number);
        let untimely = told.is_none_or(|number| self.desk.answer(number).is_none());
        if untimely {
            log::warn!("{seat} (pid {pid}) ended before it had handed over: {how}");
            self.past.ended(monotonic_ns(), how.clone());
            self.past.restarts += 1;
        }
        self.begin_vacancy();
        Some(Departed {
            seat,
            pid,
            how,
            told,
            untimely,
        })
    }
}

impl Seats {
    /// Whether somebody is still to be relieved.
    pub(super) fn any_predecessor(&self) -> bool {
        self.iter().any(|it| it.predecessor.is_some())
    }

    /// A successor could serve its queue: whoever does so is told to hand it over.
    pub(super) fn waits(&mut self, seat: Seat, pid: u32) {
        let Some(occupancy) = self.of(seat) else {
            return;
        };
        if occupancy.pid().is_some_and(|present| present != pid) {
            // Of one that has ended since.
            return;
        }
        let number = occupancy.desk.give(Command::HandOver);
        match &mut occupancy.predecessor {
            Some(predecessor) => predecessor.told = Some((number, Instant::now())),
            // It has ended in the meantime.
            None => occupancy.desk.carried_out(number, NOTHING),
        }
    }

    /// Looks whether predecessors have ended, and ends those that hang. Whoever has ended is
    /// returned, and before its successor may go on ([`Self::let_go_on`]) what it had in hand is
    /// to be looked at.
    pub(super) fn look_after_predecessors(
        &mut self,
        config: &Config,
        pages: &WorkerPages,
    ) -> Vec<Departed> {
        let mut departed = Vec::new();
        for occupancy in self.iter_mut() {
            let seat = occupancy.seat;
            departed.extend(occupancy.take_leave());
            if let Some(predecessor) = &mut occupancy.predecessor {
                // Its successor's, once it has handed over.
                let heartbeat_ns = pages.heartbeat(seat.slot());
                let hung = predecessor.end_if_hung(seat, heartbeat_ns, patience(config));
                occupancy.past.hangs += u64::from(hung);
            }
        }
        departed
    }

    /// The successor of one that has ended need not wait for its flows any more.
    pub(super) fn let_go_on(&mut self, departed: &Departed) {
        if let Some(number) = departed.told.filter(|_| departed.untimely)
            && let Some(occupancy) = self.of(departed.seat)
        {
            occupancy.desk.carried_out(number, NOTHING);
        }
    }

    /// Processes that have ended and that the launcher has not told of yet.
    pub(super) fn dead_unreported(&self) -> Vec<Started> {
        let reported = self.iter().filter(|it| !it.orphan);
        let processes = reported.filter_map(|it| it.process);
        processes.filter(|it| !it.is_alive()).collect()
    }

    /// Where the launcher has not said within `workers.start_ms` what became of a process that it
    /// was asked for.
    pub(super) fn unanswered(&self, config: &Config) -> Vec<Seat> {
        let patience = Duration::from_millis(config.workers.start_ms);
        let unanswered = self.iter().filter(|it| it.is_unanswered(patience));
        unanswered.map(|it| it.seat).collect()
    }

    /// The launcher has ended: nobody reports the end of its workers any more, and what it was
    /// asked for will not come.
    pub(super) fn launcher_lost(&mut self) {
        for occupancy in self.iter_mut() {
            occupancy.orphan = occupancy.process.is_some();
            if std::mem::take(&mut occupancy.asked) && !occupancy.orphan {
                occupancy.phase = Phase::Vacant {
                    until: Instant::now(),
                };
            }
        }
    }

    /// Looks for orphans that have ended, and were in which process; their seats are vacant now.
    pub(super) fn look_after_orphans(&mut self, config: &Config) -> Vec<(Seat, u32)> {
        let mut ended = Vec::new();
        for occupancy in self.iter_mut().filter(|it| it.orphan) {
            let Some(process) = occupancy.process.filter(|it| !it.is_alive()) else {
                continue;
            };
            let how = process.reap();
            occupancy.orphan = false;
            occupancy.vacate(how.unwrap_or_else(|| UNSEEN.to_owned()), config);
            ended.push((occupancy.seat, process.pid));
        }
        ended
    }

    /// There is a launcher again: who takes the place of each orphan is to be spawned.
    pub(super) fn relieve_orphans(&mut self) -> Vec<Seat> {
        let mut relieved = Vec::new();
        for occupancy in self.iter_mut().filter(|it| it.orphan) {
            occupancy.orphan = false;
            occupancy.relieve();
            relieved.push(occupancy.seat);
        }
        relieved
    }

    /// Who serves which queue, for a successor of this supervisor.
    pub(super) fn sitting(&self) -> Vec<Sitting> {
        self.iter()
            .map(|it| {
                let former = it.predecessor.as_ref().map(Predecessor::process);
                Sitting {
                    seat: it.seat,
                    queue: it.queue,
                    duty: it.duty.lasting(),
                    process: former.or(it.process),
                    successor: it.process.filter(|_| former.is_some()),
                }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use super::*;
    use crate::desk::Desk;
    use crate::supervisor::duty::Duty;

    #[test]
    fn a_predecessor_that_beats_but_does_not_hand_over_is_killed_after_the_longest_wait() {
        let longest = Duration::from_secs(30);
        let patience = Patience {
            stale: Duration::from_secs(600),
            computing: Duration::from_secs(600),
            longest,
        };
        let sleeping = std::process::Command::new("sleep").arg("1000").spawn();
        let mut child = sleeping.unwrap();
        let mut predecessor = Predecessor::new(Started::of(child.id()).unwrap());
        let number = Desk::create(4096).unwrap().give(Command::HandOver);
        let mut told_before = |time: Option<Duration>| {
            predecessor.told = time.map(|time| (number, Instant::now().checked_sub(time).unwrap()));
            predecessor.end_if_hung(Seat::Backup, monotonic_ns(), patience)
        };
        assert!(!told_before(None));
        assert!(!told_before(Some(longest / 3)));
        assert!(child.try_wait().unwrap().is_none());
        assert!(told_before(Some(longest + Duration::from_millis(1))));
        assert!(!child.wait().unwrap().success());
    }

    /// A seat whose predecessor aborts; `told` to hand over, and having `answered`.
    fn aborted(told: bool, answered: bool) -> (Occupancy, Departed) {
        let config = Config::default();
        let mut occupancy = Occupancy::new(Seat::Worker(1), Duty::Serving, &config).unwrap();
        let abort = ["-c", "read it; kill -ABRT $$"];
        let mut aborting = std::process::Command::new("sh");
        let aborting = aborting.args(abort).stdin(Stdio::piped()).spawn();
        let mut child = aborting.unwrap();
        let mut predecessor = Predecessor::new(Started::of(child.id()).unwrap());
        if told {
            let number = occupancy.desk.give(Command::HandOver);
            predecessor.told = Some((number, Instant::now()));
            if answered {
                occupancy.desk.carried_out(number, NOTHING);
            }
        }
        occupancy.predecessor = Some(predecessor);
        assert!(occupancy.take_leave().is_none(), "it serves");
        drop(child.stdin.take());
        let deadline = Instant::now() + Duration::from_secs(20);
        let departed = loop {
            if let Some(departed) = occupancy.take_leave() {
                break departed;
            }
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::sleep(Duration::from_millis(1));
        };
        // It has been reaped already.
        child.wait().unwrap_err();
        (occupancy, departed)
    }

    #[test]
    fn a_predecessor_that_dies_before_it_has_handed_over_is_a_death_of_its_seat() {
        for (told, answered, untimely) in [
            (false, false, true),
            (true, false, true),
            (true, true, false),
        ] {
            let (occupancy, departed) = aborted(told, answered);
            assert_eq!(departed.how, "signal SIGABRT");
            assert_eq!(
                (departed.untimely, departed.leaves_nobody()),
                (untimely, !told)
            );
            assert_eq!(occupancy.past.restarts, u64::from(untimely));
            let exit = untimely.then_some("signal SIGABRT");
            assert_eq!(occupancy.last_exit(), exit, "{told} {answered}");
            assert!(occupancy.predecessor.is_none() && occupancy.vacancy.is_some());
        }
    }
}
