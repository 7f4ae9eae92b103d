//! Packets that wait for a seat which nobody serves, because its replacement is long in coming
//! or dies at each start. They wait for `workers.hang_max_ms`, as they would for a worker that
//! hangs; then the supervisor empties the queue's socket itself, and they get the verdict of
//! `exceptions.worker_death`, unseen.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use ips_common::Received;

use super::occupancy::{Occupancy, Phase};
use super::seat::Seat;
use super::seats::Seats;
use super::watch;
use crate::config::Config;
use crate::maps::WorkerPages;
use crate::metrics::board::{Board, Cell, Row};
use crate::metrics::queue_truth::{self, QueueTruth};
use crate::source::nfqueue::{settle_through, take_waiting};
use crate::source::{Disposition, PacketId, QueueError};
use crate::worker::settling::Gap;

/// Messages taken from a socket before anything else has its turn: under a flood they come as
/// fast as they are taken.
const AT_ONCE: usize = 8192;

/// The time in which nobody serves a seat.
#[derive(Clone, Copy, Debug)]
pub(super) struct Vacancy {
    since: Instant,
    /// What the kernel said when the last process ended, `None` once it needs no look any more:
    /// up to its last id that one may have taken packets from the socket without noting it.
    queued: Option<QueueTruth>,
    /// Packets that got the verdict of the policy.
    settled: u64,
    /// Whether that has begun.
    told: bool,
}

impl Vacancy {
    pub(super) fn since(now: Instant) -> Self {
        Self {
            since: now,
            queued: None,
            settled: 0,
            told: false,
        }
    }

    /// How long it has been.
    pub(super) fn lasts(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }
}

/// A queue whose packets are to be settled, and where that is counted.
pub(super) struct Unserved<'a> {
    pub(super) seat: Seat,
    pub(super) queue: u16,
    pub(super) socket: BorrowedFd<'a>,
    pub(super) row: Row<'a>,
    pub(super) pages: &'a WorkerPages,
}

impl Unserved<'_> {
    /// Gives everything that waits there one verdict; returns how many packets that were. Nobody
    /// may serve the queue meanwhile. The next worker neither settles them again nor counts them.
    ///
    /// What a dead worker took without noting it ends at the kernel's last id in `queued`, or
    /// before the first packet that is in the socket still.
    pub(super) fn settle(
        &self,
        queued: Option<QueueTruth>,
        disposition: Disposition,
    ) -> Result<u64, QueueError> {
        let taken = take_waiting(self.socket, AT_ONCE).map_err(|source| QueueError::Io {
            queue: self.queue,
            call: "recv",
            source,
        })?;
        let slot = self.seat.slot();
        let noted = self.pages.received(slot);
        if let Some(noted) = noted {
            self.row.take_back_unnoted(noted);
        }
        let noted = noted.map(|it| it.id);
        let in_hand = u32::try_from(self.row.unsettled()).unwrap_or(u32::MAX);
        let mut gap = queued.map_or(Gap::Closed, |mut queued| {
            // Those up to the noted id wait as well.
            queued.waiting = queued.waiting.saturating_sub(in_hand);
            Gap::after(noted.unwrap_or(0), Some(queued))
        });
        let gap = match taken.ends {
            Some((first, _)) => gap.before(first),
            None => gap.when_idle(),
        };
        let unnoted = gap.map_or(0, |(count, _)| u64::from(count));
        self.row.add(Cell::Received, taken.packets + unnoted);
        self.row.add(Cell::Refused, taken.refused);
        self.row.add(Cell::Undecodable, taken.undecodable);
        let unsettled = self.row.unsettled();
        let newest = taken.ends.map(|(_, last)| last);
        let last = newest.or(gap.map(|(_, last)| last));
        if let Some(last) = last {
            let received = Received::new(last.0, self.row.get(Cell::Received));
            self.pages.set_received(slot, received);
        }
        if unsettled > 0
            && let Some(last) = last.or(noted.map(PacketId))
        {
            settle_through(self.socket, self.queue, last, disposition)?;
            self.row.add(Cell::Settled, unsettled);
        }
        Ok(unsettled)
    }

    /// Does so with a queue that will not be served any more, and into which nothing is put.
    pub(super) fn settle_all(&self, truth: QueueTruth, disposition: Disposition) {
        let (seat, waiting) = (self.seat, truth.waiting);
        let rounds = waiting as usize / AT_ONCE;
        let first = self.settle(Some(truth), disposition);
        let settled = (0..rounds).fold(first, |settled, _| {
            Ok(settled? + self.settle(None, disposition)?)
        });
        match settled {
            Ok(settled) => {
                log::warn!("{seat}: {settled} packets were still queued: {disposition:?}");
            }
            Err(error) => {
                log::warn!("{seat}: {waiting} packets still queued are dropped: {error}");
            }
        }
    }
}

impl Occupancy {
    /// A process has ended: from now on nobody serves, unless there is another one that does.
    pub(super) fn begin_vacancy(&mut self) {
        if self.phase == Phase::Up || self.predecessor.is_some() {
            return;
        }
        let vacancy = self.vacancy.get_or_insert(Vacancy::since(Instant::now()));
        vacancy.queued = queue_truth::of(self.queue);
    }

    /// A process serves.
    pub(super) fn end_vacancy(&mut self) {
        if let Some(vacancy) = self.vacancy.take()
            && vacancy.settled > 0
        {
            log::info!(
                "{}: {} packets went by policy while nobody served it",
                self.seat,
                vacancy.settled
            );
        }
    }

    /// How long nobody has been serving; zero when somebody is.
    pub(super) fn unserved(&self, now: Instant) -> Duration {
        let lasts = |vacancy: &Vacancy| vacancy.lasts(now);
        self.vacancy.as_ref().map_or(Duration::ZERO, lasts)
    }

    fn queue_of<'a>(&'a self, board: &'a Board, pages: &'a WorkerPages) -> Option<Unserved<'a>> {
        Some(Unserved {
            seat: self.seat,
            queue: self.queue,
            socket: self.socket()?.as_fd(),
            row: board.row(self.seat),
            pages,
        })
    }

    /// Settles what waits, when it has waited for long enough and there is no process that could
    /// take it.
    fn settle_overdue(&mut self, config: &Config, board: &Board, pages: &WorkerPages) {
        let (seat, longest) = (self.seat, watch::patience(config).longest);
        let Some(vacancy) = self.vacancy.filter(|_| !self.is_occupied()) else {
            return;
        };
        if vacancy.lasts(Instant::now()) < longest {
            return;
        }
        let Some(unserved) = self.queue_of(board, pages) else {
            return;
        };
        let disposition = config.settle();
        let result = unserved.settle(vacancy.queued, disposition);
        let settled = *result.as_ref().unwrap_or(&0);
        if !vacancy.told {
            log::warn!(
                "{seat} has not been served for {longest:?}: {settled} packets that waited, and \
                 those to come: {disposition:?}"
            );
            if let Err(error) = result {
                log::error!("{seat}: what waits in its queue goes on waiting: {error}");
            }
            self.past.vacancies += 1;
        }
        self.vacancy = Some(Vacancy {
            queued: None,
            settled: vacancy.settled + settled,
            told: true,
            ..vacancy
        });
    }

    /// What waits in its queue gets the verdict of the policy: its worker is gone for good.
    pub(super) fn settle_pending(
        &self,
        config: &Config,
        board: &Board,
        pages: &WorkerPages,
        truth: QueueTruth,
    ) {
        if let Some(unserved) = self.queue_of(board, pages) {
            unserved.settle_all(truth, config.settle());
        }
    }
}

impl Seats {
    /// No packet waits for longer than `workers.hang_max_ms` for a process that does not come.
    pub(super) fn settle_overdue(&mut self, config: &Config, board: &Board, pages: &WorkerPages) {
        for occupancy in self.iter_mut() {
            occupancy.settle_overdue(config, board, pages);
        }
    }

    /// After the workers have left: what still waits, because one had to be killed, gets the
    /// verdict of the policy. Closing the sockets would drop it.
    pub(super) fn settle_pending(&self, config: &Config, board: &Board, pages: &WorkerPages) {
        for occupancy in self.iter() {
            if let Some(truth) = queue_truth::of(occupancy.queue).filter(|it| it.waiting > 0) {
                occupancy.settle_pending(config, board, pages, truth);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::duty::Duty;

    #[test]
    fn a_vacancy_ends_when_a_process_serves_and_not_when_one_is_started() {
        let config = Config::default();
        let mut occupancy = Occupancy::new(Seat::Backup, Duty::Serving, &config).unwrap();
        let since = |occupancy: &Occupancy| occupancy.vacancy.map(|it| it.since);
        assert!(since(&occupancy).is_some(), "nobody has come yet");
        let pid = std::process::id();
        occupancy.spawned(pid);
        assert!(occupancy.started(pid));
        assert_eq!(since(&occupancy), None);
        occupancy.exited(pid, "signal SIGSEGV", &config);
        let began = since(&occupancy).unwrap();
        for _ in 0..3 {
            occupancy.spawned(pid);
            occupancy.exited(pid, "exit status 1", &config);
            assert_eq!(since(&occupancy), Some(began));
        }
        occupancy.spawned(pid);
        assert!(occupancy.started(pid));
        assert_eq!(occupancy.unserved(Instant::now()), Duration::ZERO);
    }

    #[test]
    fn while_a_predecessor_serves_there_is_no_vacancy() {
        let config = Config::default();
        let mut occupancy = Occupancy::new(Seat::Backup, Duty::Serving, &config).unwrap();
        let pid = std::process::id();
        occupancy.spawned(pid);
        occupancy.started(pid);
        occupancy.relieve();
        occupancy.spawned(pid);
        occupancy.exited(pid, "exit status 1", &config);
        assert!(occupancy.vacancy.is_none());
        occupancy.predecessor = None;
        occupancy.begin_vacancy();
        assert!(occupancy.vacancy.is_some());
    }
}
