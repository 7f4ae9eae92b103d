//! All seats: the workers' and the backup's.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::signal::Signal;

use super::duty::{Duty, LastingDuty};
use super::history::History;
use super::inheritance::Bequest;
use super::instance::Started;
use super::launching::Launching;
use super::message::ToWorker;
use super::occupancy::{Occupancy, Phase};
use super::seat::Seat;
use super::steering::Steering;
use super::succession::Predecessor;
use crate::config::{Config, Transport};
use crate::metrics::queue_truth;
use crate::source::nfqueue;

/// All seats.
#[derive(Debug)]
pub(super) struct Seats {
    seats: Vec<Occupancy>,
}

impl Seats {
    /// One for each of the workers, in order, and the backup: served by those that a predecessor
    /// has left, as far as they fit the configuration, or vacant. The others stay in `left`. Each
    /// goes on with its part of the history.
    ///
    /// # Errors
    /// When memory or descriptors run out.
    pub(super) fn new(
        config: &Config,
        workers: &[(Seat, LastingDuty)],
        left: &mut Vec<Bequest>,
        history: &mut History,
    ) -> io::Result<Self> {
        let workers = workers
            .iter()
            .map(|(seat, duty)| (*seat, Duty::of(*duty, config)))
            .chain([(Seat::Backup, Duty::Serving)]);
        let seats = workers.map(|(seat, duty)| {
            let fits = |it: &Bequest| it.fits(seat, config);
            let mut occupancy = match left.iter().position(fits) {
                Some(index) => Occupancy::inherited(left.swap_remove(index), duty),
                None => Occupancy::new(seat, duty, config)?,
            };
            occupancy.past = history.take(seat);
            Ok(occupancy)
        });
        Ok(Self {
            seats: seats.collect::<io::Result<_>>()?,
        })
    }

    /// Binds and configures every queue. With the `nfq` transport the workers do it.
    pub(super) fn open_queues(&mut self, config: &Config) -> anyhow::Result<()> {
        if config.queue.transport == Transport::Nfq {
            log::info!(
                "transport nfq: workers open their own sockets; what is queued when one dies \
                 goes by fail = {}",
                config.fail
            );
            return Ok(());
        }
        self.seats
            .iter_mut()
            .try_for_each(|it| it.open_queue(config))
    }

    /// Adds a worker's seat, with a queue that nothing is put into yet.
    ///
    /// # Errors
    /// When memory or descriptors run out, or somebody else has the queue.
    pub(super) fn add(&mut self, seat: Seat, config: &Config) -> anyhow::Result<()> {
        let mut occupancy =
            Occupancy::new(seat, Duty::Joining, config).context("memory shared with a worker")?;
        if config.queue.transport != Transport::Nfq {
            occupancy.open_queue(config)?;
        }
        self.seats.push(occupancy);
        self.seats.sort_by_key(|occupancy| occupancy.seat);
        Ok(())
    }

    /// Takes away a seat in which nobody sits, and its queue with it.
    pub(super) fn remove(&mut self, seat: Seat) -> Option<Occupancy> {
        let vacant = |it: &Occupancy| it.seat == seat && !it.is_occupied();
        let index = self.seats.iter().position(vacant)?;
        Some(self.seats.remove(index))
    }

    /// A seat.
    pub(super) fn get(&self, seat: Seat) -> Option<&Occupancy> {
        self.seats.iter().find(|it| it.seat == seat)
    }

    /// Gives a seat another duty.
    pub(super) fn assign(&mut self, seat: Seat, duty: Duty) {
        if let Some(occupancy) = self.of(seat) {
            occupancy.duty = duty;
        }
    }

    /// Indices of the workers whose duty is such.
    pub(super) fn workers(&self, which: impl Fn(Duty) -> bool) -> Vec<u32> {
        let such = self.seats.iter().filter(|it| which(it.duty));
        such.filter_map(|it| match it.seat {
            Seat::Worker(index) => Some(index),
            Seat::Backup => None,
        })
        .collect()
    }

    /// Those that packets are queued for.
    pub(super) fn queued(&self) -> impl Iterator<Item = Seat> + Clone {
        let stay = self.seats.iter().filter(|it| it.duty != Duty::Leaving);
        stay.map(|it| it.seat)
    }

    pub(super) fn of(&mut self, seat: Seat) -> Option<&mut Occupancy> {
        self.seats.iter_mut().find(|it| it.seat == seat)
    }

    /// The seat, if its process is this one.
    fn held_by(&mut self, seat: Seat, pid: u32) -> Option<&mut Occupancy> {
        self.of(seat).filter(|it| it.pid() == Some(pid))
    }

    fn up(&mut self) -> impl Iterator<Item = &mut Occupancy> {
        self.seats.iter_mut().filter(|it| it.phase == Phase::Up)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Occupancy> {
        self.seats.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Occupancy> {
        self.seats.iter_mut()
    }

    pub(super) fn all(&self) -> Vec<Seat> {
        self.seats.iter().map(|it| it.seat).collect()
    }

    /// Has the launcher start a process for a seat.
    ///
    /// # Errors
    /// When the launcher is gone, or descriptors run out.
    pub(super) fn spawn(&mut self, seat: Seat, launching: &Launching) -> anyhow::Result<()> {
        match self.of(seat) {
            Some(occupancy) => occupancy.spawn(launching),
            None => bail!("there is no {seat}"),
        }
    }

    pub(super) fn all_up(&self) -> bool {
        self.seats.iter().all(|it| it.phase == Phase::Up)
    }

    /// A seat whose process has ended, and how.
    pub(super) fn first_dead(&self) -> Option<(Seat, &str)> {
        let dead = |it: &&Occupancy| matches!(it.phase, Phase::Vacant { .. });
        let occupancy = self.seats.iter().find(dead)?;
        Some((occupancy.seat, occupancy.last_exit().unwrap_or("unknown")))
    }

    /// The launcher has started a process, which may have ended since: then its end is
    /// reported next. Returns whether it has said already that it serves its queue.
    pub(super) fn spawned(&mut self, seat: Seat, pid: u32) -> bool {
        self.of(seat).is_some_and(|it| it.spawned(pid))
    }

    /// A process has these rules and this configuration.
    pub(super) fn has_generation(&mut self, seat: Seat, pid: u32, generation: u32) {
        if let Some(occupancy) = self.of(seat).filter(|it| it.pid() == Some(pid)) {
            occupancy.generation = generation;
        }
    }

    /// Whether there is no process with others. One that is still being started has the newest.
    pub(super) fn all_have(&self, generation: u32) -> bool {
        self.outdated(generation).next().is_none()
    }

    fn outdated(&self, generation: u32) -> impl Iterator<Item = &Occupancy> {
        self.iter()
            .filter(move |it| it.process.is_some() && it.generation != generation)
    }

    /// Sends a message to the processes that have other rules than these.
    pub(super) fn tell_outdated(
        &self,
        generation: u32,
        message: &ToWorker,
        fds: &[BorrowedFd<'_>],
    ) {
        for occupancy in self.outdated(generation) {
            // One that has ended is reported, and one that does not listen will be late.
            if let Err(error) = occupancy.tell(message, fds) {
                log::warn!("{} cannot be told: {error}", occupancy.seat);
            }
        }
    }

    /// Kills the processes that have other rules than these: their replacements have them.
    pub(super) fn end_outdated(&self, generation: u32) {
        for occupancy in self.outdated(generation) {
            let (seat, pid) = (occupancy.seat, occupancy.pid().unwrap_or(0));
            log::warn!("{seat} (pid {pid}) does not take over generation {generation}: killed");
            let killed = occupancy.process.map(|it| it.signal(Signal::SIGKILL));
            if let Some(Err(error)) = killed {
                log::warn!("{seat}: {error}");
            }
        }
    }

    /// Changes how many packets may wait in each queue.
    pub(super) fn set_queue_length(&self, length: u32) {
        for occupancy in self.iter() {
            let Some(socket) = occupancy.socket() else {
                continue;
            };
            if let Err(error) = nfqueue::set_length(socket.as_fd(), occupancy.queue, length) {
                log::error!("{} keeps the length of its queue: {error}", occupancy.seat);
            }
        }
    }

    /// A process says that it serves its queue. Returns whether that is news about the current
    /// process. It comes by another way than the launcher's messages: before the launcher has
    /// said that the process exists it is remembered, and after it has ended it is of no use.
    pub(super) fn started(&mut self, seat: Seat, pid: u32) -> bool {
        self.of(seat).is_some_and(|it| it.started(pid))
    }

    /// A process has ended; its replacement is due after a pause that grows while processes
    /// keep dying young. Returns whether it was the seat's current process.
    pub(super) fn exited(&mut self, seat: Seat, pid: u32, how: &str, config: &Config) -> bool {
        let current = self.held_by(seat, pid);
        current.map(|it| it.exited(pid, how, config)).is_some()
    }

    /// The launcher could not start a process.
    pub(super) fn not_spawned(&mut self, seat: Seat, why: &str, config: &Config) {
        if let Some(occupancy) = self.of(seat) {
            occupancy.not_spawned(why, config);
        }
    }

    /// During a stop: a process has ended and is not replaced.
    pub(super) fn ended(&mut self, seat: Seat, pid: u32, how: &str) {
        if let Some(occupancy) = self.held_by(seat, pid) {
            occupancy.ended(pid, how);
        }
    }

    /// Seats whose replacement has taken too long.
    pub(super) fn given_up(&mut self) -> Vec<Seat> {
        let now = Instant::now();
        let given_up = self
            .seats
            .iter_mut()
            .filter_map(|it| it.is_given_up(now).then_some(it.seat));
        given_up.collect()
    }

    /// Vacant seats whose pause is over; they count as starting from now on.
    pub(super) fn due(&mut self) -> Vec<Seat> {
        let now = Instant::now();
        let due = self
            .seats
            .iter_mut()
            .filter_map(|it| it.falls_due(now).then_some(it.seat));
        due.collect()
    }

    /// Kills the processes that have not begun to serve in time: their end brings replacements,
    /// and what waits for them does not wait any longer.
    pub(super) fn end_late_starters(&mut self, config: &Config) {
        let waits = |queue| queue_truth::of(queue).is_some_and(|it| it.waiting > 0);
        for occupancy in &mut self.seats {
            occupancy.end_if_late(config, waits);
        }
    }

    /// Looks at all heartbeats.
    pub(super) fn judge(&mut self, config: &Config, steering: &mut Steering) {
        for occupancy in self.up() {
            occupancy.judge(config, steering);
        }
    }

    /// Looks at whether packets that wait are taken.
    pub(super) fn judge_progress(&mut self, config: &Config, steering: &Steering) {
        // Read once: each reading lists every queue of the network namespace.
        let Ok(queues) = queue_truth::read() else {
            return;
        };
        for occupancy in self.up() {
            occupancy.judge_progress(config, steering, &queues);
        }
    }

    /// When the next replacement is due.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.seats.iter().filter_map(Occupancy::due_at).min()
    }

    /// When heartbeats are to be judged next, after `latest` at the latest.
    pub(super) fn next_look(
        &self,
        config: &Config,
        steering: &Steering,
        latest: Duration,
    ) -> Duration {
        let up = self.seats.iter().filter(|it| it.phase == Phase::Up);
        let next = up.map(|it| it.next_look(config, steering, latest));
        next.min().unwrap_or(latest)
    }

    /// The processes in the seats.
    pub(super) fn processes(&self) -> impl Iterator<Item = Started> {
        let predecessors = self.seats.iter().filter_map(|it| it.predecessor.as_ref());
        let predecessors = predecessors.map(Predecessor::process);
        let present = self.seats.iter().filter_map(|it| it.process);
        present.chain(predecessors)
    }

    /// Whether there is a process, or will be one.
    pub(super) fn any_running(&self) -> bool {
        self.seats.iter().any(Occupancy::is_occupied)
    }

    /// Forgets the processes that have ended, for when nobody reports that any more.
    pub(super) fn forget_ended(&mut self) {
        self.seats.iter_mut().for_each(Occupancy::forget_ended);
    }

    /// SIGTERM: each leaves when its queue is empty.
    pub(super) fn ask_to_stop(&self) {
        self.signal(Signal::SIGTERM);
    }

    /// SIGKILL.
    pub(super) fn kill(&self) {
        self.signal(Signal::SIGKILL);
    }

    /// Signals one seat's process.
    pub(super) fn signal_one(&self, seat: Seat, signal: Signal) {
        if let Some(process) = self.get(seat).and_then(|it| it.process)
            && let Err(error) = process.signal(signal)
        {
            log::warn!("{seat}: {signal}: {error}");
        }
    }

    fn signal(&self, signal: Signal) {
        for process in self.processes() {
            if let Err(error) = process.signal(signal) {
                log::debug!("{signal} to {}: {error}", process.pid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEAT: Seat = Seat::Worker(0);

    fn seats() -> (Seats, Config) {
        let mut config = Config::default();
        config.workers.count = 1;
        let workers = [(SEAT, LastingDuty::Serving)];
        let history = &mut History::default();
        let seats = Seats::new(&config, &workers, &mut Vec::new(), history);
        (seats.unwrap(), config)
    }

    fn phase(seats: &Seats) -> Phase {
        seats.iter().next().unwrap().phase
    }

    /// A process id that no process has.
    fn dead() -> u32 {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        child.id()
    }

    #[test]
    fn a_worker_may_announce_itself_before_or_after_the_launcher_does() {
        let pid = std::process::id();
        let (mut seats, _) = seats();
        assert!(!seats.spawned(SEAT, pid));
        assert!(seats.started(SEAT, pid));
        assert!(!seats.started(SEAT, pid), "no news");
        let (mut seats, _) = self::seats();
        assert!(!seats.started(SEAT, pid));
        assert_eq!(phase(&seats), Phase::Starting);
        assert!(seats.spawned(SEAT, pid));
        assert_eq!(phase(&seats), Phase::Up);
    }

    #[test]
    fn what_a_dead_worker_said_before_its_end_does_not_keep_its_seat() {
        let (mut seats, config) = seats();
        let pid = dead();
        seats.spawned(SEAT, pid);
        assert!(seats.exited(SEAT, pid, "signal SIGSEGV", &config));
        assert!(!seats.started(SEAT, pid));
        assert!(matches!(phase(&seats), Phase::Vacant { .. }));
        assert_eq!(seats.due(), [SEAT]);
        let next = std::process::id();
        assert!(!seats.spawned(SEAT, next), "the dead one's word is not its");
        assert_eq!(phase(&seats), Phase::Starting);
    }

    #[test]
    fn a_worker_that_has_ended_before_it_was_heard_of_is_replaced() {
        let (mut seats, config) = seats();
        let pid = dead();
        seats.spawned(SEAT, pid);
        assert!(seats.exited(SEAT, pid, "exit status 1", &config));
        assert_eq!(seats.due(), [SEAT]);
    }
}
