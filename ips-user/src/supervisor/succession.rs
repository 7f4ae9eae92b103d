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
use super::occupancy::Phase;
use super::seat::Seat;
use super::seats::Seats;
use crate::config::Config;
use crate::desk::{Command, CommandNumber};
use crate::worker::handing_over::NOTHING;

/// How long a predecessor may take to hand over, and then to end.
const HAND_OVER_WITHIN: Duration = Duration::from_secs(2);

/// How a process ended that was nobody's child any more.
pub(super) const UNSEEN: &str = "nobody saw how";

/// A process that still serves the queue of a seat whose successor has been asked for.
#[derive(Debug)]
pub(super) struct Predecessor {
    process: Started,
    told: Option<(CommandNumber, Instant)>,
}

impl Predecessor {
    pub(super) const fn new(process: Started) -> Self {
        Self {
            process,
            told: None,
        }
    }

    pub(super) const fn process(&self) -> Started {
        self.process
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

    /// Looks whether predecessors have ended, and ends those that do not. When one has ended,
    /// returns the seats that nobody serves now because the successor is not ready yet.
    pub(super) fn look_after_predecessors(&mut self) -> Option<Vec<Seat>> {
        let mut unserved = None;
        for occupancy in self.iter_mut() {
            let Some(predecessor) = &mut occupancy.predecessor else {
                continue;
            };
            if !predecessor.process.is_alive() {
                predecessor.process.reap();
                if let Some((number, _)) = predecessor.told
                    && occupancy.desk.answer(number).is_none()
                {
                    log::warn!("{} ended before it had handed over", occupancy.seat);
                    occupancy.desk.carried_out(number, NOTHING);
                }
                let unready = predecessor.told.is_none();
                occupancy.predecessor = None;
                let unserved = unserved.get_or_insert_with(Vec::new);
                unserved.extend(unready.then_some(occupancy.seat));
                continue;
            }
            if let Some((_, since)) = &mut predecessor.told
                && since.elapsed() > HAND_OVER_WITHIN
            {
                log::warn!(
                    "{} (pid {}) does not hand over: killed",
                    occupancy.seat,
                    predecessor.process.pid
                );
                *since = Instant::now();
                if let Err(error) = predecessor.process.signal(Signal::SIGKILL) {
                    log::warn!("{}: {error}", occupancy.seat);
                }
            }
        }
        unserved
    }

    /// Whether a process has ended that the launcher should have told of.
    pub(super) fn any_dead_unreported(&self) -> bool {
        let mut reported = self.iter().filter(|it| !it.orphan);
        reported.any(|it| it.process.is_some_and(|process| !process.is_alive()))
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
