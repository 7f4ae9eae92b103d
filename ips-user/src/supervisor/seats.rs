//! The seats and who sits there: sockets held for them, processes that come and go.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::signal::Signal;

use super::inheritance::Bequest;
use super::instance::Started;
use super::launching::Launching;
use super::message::{Channel, ToWorker};
use super::seat::Seat;
use super::steering::Steering;
use super::succession::Predecessor;
use super::watch::{self, Watch};
use crate::config::{Config, Transport};
use crate::desk::Desk;
use crate::health::{Change, Limits, Pulse};
use crate::metrics::board::{Board, Cell};
use crate::metrics::queue_truth;
use crate::source::PacketId;
use crate::source::nfqueue::{self, NfQueue, QueueSocket, settle_through};
use crate::sys::process::{monotonic_ns, wall_us};

/// A worker that lived this long did not die of its start: the next pause is the shortest.
const LIVED: Duration = Duration::from_secs(1);
/// The first pause; before it, one replacement comes at once.
const FIRST_PAUSE: Duration = Duration::from_millis(10);

/// How many ends of processes are remembered of each seat.
const EXITS: usize = 8;

/// What a seat is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// A process has been asked for.
    Starting,
    /// It serves its queue.
    Up,
    /// Nobody; a process will be asked for then.
    Vacant {
        /// When.
        until: Instant,
    },
}

/// The end of a process.
#[derive(Debug)]
pub(super) struct Exit {
    /// When.
    pub(super) at: Instant,
    /// Microseconds since 1970-01-01 00:00 UTC.
    pub(super) wall_us: i64,
    /// Why.
    pub(super) how: String,
}

/// One seat.
#[derive(Debug)]
pub(super) struct Occupancy {
    pub(super) seat: Seat,
    pub(super) queue: u16,
    socket: Option<OwnedFd>,
    pub(super) desk: Desk,
    /// To the present process.
    channel: Option<Channel>,
    process: Option<Started>,
    watch: Option<Watch>,
    /// Which rules and configuration that process has.
    pub(super) generation: u32,
    /// Who serves the queue until `process` can.
    pub(super) predecessor: Option<Predecessor>,
    /// The launcher that would report the end of the process has ended itself.
    pub(super) orphan: bool,
    /// The launcher was asked for a process and has not answered yet.
    pub(super) asked: bool,
    /// A process that says it serves before the launcher has said that it exists.
    announced: Option<u32>,
    pub(super) phase: Phase,
    since: Instant,
    pause: Duration,
    pub(super) pulse: Pulse,
    pub(super) restarts: u64,
    pub(super) trips: u64,
    pub(super) hangs: u64,
    /// The last ones, the latest at the end.
    pub(super) exits: VecDeque<Exit>,
}

/// All seats.
#[derive(Debug)]
pub(super) struct Seats {
    seats: Vec<Occupancy>,
}

impl Seats {
    /// One for each worker and the backup: served by those that a predecessor has left, as far
    /// as they fit the configuration, or vacant. The others of `left` are dropped.
    ///
    /// # Errors
    /// When memory or descriptors run out.
    pub(super) fn new(config: &Config, mut left: Vec<Bequest>) -> io::Result<Self> {
        let seats = Seat::all(config.worker_count()).map(|seat| {
            let fits = |it: &Bequest| it.fits(seat, config);
            match left.iter().position(fits) {
                Some(index) => Ok(Occupancy::inherited(left.swap_remove(index))),
                None => Occupancy::new(seat, config),
            }
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
        for occupancy in self.seats.iter_mut().filter(|it| it.socket.is_none()) {
            let socket = QueueSocket::open(&config.queue_options(occupancy.queue))
                .with_context(|| format!("opening the queue of {}", occupancy.seat))?;
            occupancy.socket = Some(socket.into_fd());
        }
        Ok(())
    }

    pub(super) fn of(&mut self, seat: Seat) -> Option<&mut Occupancy> {
        self.seats
            .iter_mut()
            .find(|occupancy| occupancy.seat == seat)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Occupancy> {
        self.seats.iter_mut()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Occupancy> {
        self.seats.iter()
    }

    pub(super) fn all(&self) -> Vec<Seat> {
        self.seats.iter().map(|occupancy| occupancy.seat).collect()
    }

    /// Has the launcher start a process for a seat.
    ///
    /// # Errors
    /// When the launcher is gone, or descriptors run out.
    pub(super) fn spawn(&mut self, seat: Seat, launching: &Launching) -> anyhow::Result<()> {
        let Some(occupancy) = self.of(seat) else {
            bail!("there is no {seat}");
        };
        // A channel of its own for each process: what the former has not read is not for it.
        let (ours, theirs) = Channel::pair().context("a channel to a worker")?;
        for end in [&ours, &theirs] {
            end.never_wait().context("a channel to a worker")?;
        }
        occupancy.channel = Some(ours);
        occupancy.desk.clear_command();
        let socket = occupancy.socket.as_ref().map(AsFd::as_fd);
        let succeeds = occupancy.predecessor.is_some();
        launching.spawn(seat, succeeds, &occupancy.desk, &theirs, socket)?;
        occupancy.asked = true;
        Ok(())
    }

    pub(super) fn all_up(&self) -> bool {
        self.seats
            .iter()
            .all(|occupancy| occupancy.phase == Phase::Up)
    }

    /// A seat whose process has ended, and how.
    pub(super) fn first_dead(&self) -> Option<(Seat, &str)> {
        let dead = |occupancy: &&Occupancy| matches!(occupancy.phase, Phase::Vacant { .. });
        let occupancy = self.seats.iter().find(dead)?;
        Some((occupancy.seat, occupancy.last_exit().unwrap_or("unknown")))
    }

    /// The launcher has started a process, which may have ended since: then its end is
    /// reported next. Returns whether it has said already that it serves its queue.
    pub(super) fn spawned(&mut self, seat: Seat, pid: u32) -> bool {
        let Some(occupancy) = self.of(seat) else {
            return false;
        };
        occupancy.asked = false;
        let process = Started::of(pid).unwrap_or(Started::ended(pid));
        occupancy.process = Some(process);
        occupancy.watch = Some(Watch::over(process));
        occupancy.phase = Phase::Starting;
        occupancy.since = Instant::now();
        occupancy.announced.take() == Some(pid) && occupancy.serves()
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
        self.seats
            .iter()
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
            let Some(channel) = &occupancy.channel else {
                continue;
            };
            match channel.send(message, fds) {
                Ok(()) => occupancy.desk.announce_mail(),
                // It has ended, which will be reported, or it will be late.
                Err(error) => log::warn!("{} cannot be told: {error}", occupancy.seat),
            }
        }
    }

    /// Kills the processes that have other rules than these: their replacements have them.
    pub(super) fn end_outdated(&self, generation: u32) {
        for occupancy in self.outdated(generation) {
            let (seat, process) = (occupancy.seat, occupancy.process);
            let pid = occupancy.pid().unwrap_or(0);
            log::warn!("{seat} (pid {pid}) does not take over generation {generation}: killed");
            if let Some(Err(error)) = process.map(|process| process.signal(Signal::SIGKILL)) {
                log::warn!("{seat}: {error}");
            }
        }
    }

    /// Changes how many packets may wait in each queue.
    pub(super) fn set_queue_length(&self, length: u32) {
        for occupancy in &self.seats {
            let Some(socket) = &occupancy.socket else {
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
        let Some(occupancy) = self.of(seat) else {
            return false;
        };
        if occupancy.pid() == Some(pid) {
            return occupancy.serves();
        }
        occupancy.announced = Some(pid);
        false
    }

    /// A process has ended; its replacement is due after a pause that grows while processes
    /// keep dying young. Returns whether it was the seat's current process.
    pub(super) fn exited(&mut self, seat: Seat, pid: u32, how: &str, config: &Config) -> bool {
        let Some(occupancy) = self.of(seat).filter(|it| it.pid() == Some(pid)) else {
            return false;
        };
        // A signal that was ours says nothing.
        let hung = occupancy.watch.as_ref().and_then(Watch::hung);
        let how = hung.map_or_else(|| how.to_owned(), |hang| hang.to_string());
        log::warn!("{seat} (pid {pid}) ended: {how}");
        occupancy.vacate(how, config);
        log::info!("{seat} is replaced in {:?}", occupancy.pause);
        true
    }

    /// The launcher could not start a process.
    pub(super) fn not_spawned(&mut self, seat: Seat, why: &str, config: &Config) {
        if let Some(occupancy) = self.of(seat) {
            occupancy.asked = false;
            occupancy.vacate(why.to_owned(), config);
        }
    }

    /// During a stop: a process has ended and is not replaced.
    pub(super) fn ended(&mut self, seat: Seat, pid: u32, how: &str) {
        if let Some(occupancy) = self.of(seat).filter(|it| it.pid() == Some(pid)) {
            occupancy.process = None;
            if how != "exit status 0" {
                log::warn!("{seat} (pid {pid}) ended by {how} while stopping");
            }
        }
    }

    /// Vacant seats whose pause is over; they count as starting from now on.
    pub(super) fn due(&mut self) -> Vec<Seat> {
        let now = Instant::now();
        let due = |occupancy: &&mut Occupancy| matches!(occupancy.phase, Phase::Vacant { until } if until <= now);
        let due = self.seats.iter_mut().filter(due).map(|occupancy| {
            occupancy.phase = Phase::Starting;
            occupancy.since = now;
            occupancy.restarts += 1;
            occupancy.seat
        });
        due.collect()
    }

    /// Kills the processes that have not begun to serve within `workers.start_ms`: their end
    /// brings replacements.
    pub(super) fn end_late_starters(&mut self, config: &Config) {
        let patience = Duration::from_millis(config.workers.start_ms);
        for occupancy in &mut self.seats {
            let late = occupancy.phase == Phase::Starting && occupancy.since.elapsed() > patience;
            if let Some(process) = occupancy.process.filter(|_| late) {
                log::warn!(
                    "{} (pid {}) does not serve after {patience:?}: killed",
                    occupancy.seat,
                    process.pid
                );
                occupancy.since = Instant::now();
                if let Err(error) = process.signal(Signal::SIGKILL) {
                    log::warn!("{}: {error}", occupancy.seat);
                }
            }
        }
    }

    /// Looks at all heartbeats.
    pub(super) fn judge(&mut self, config: &Config, steering: &mut Steering) {
        let limits = Limits {
            stale: config.stale(),
            recover: Duration::from_millis(config.steering.recover_ms),
        };
        for occupancy in self.seats.iter_mut().filter(|it| it.phase == Phase::Up) {
            let (seat, slot) = (occupancy.seat, occupancy.seat.slot());
            let pages = steering.pages();
            let now_ns = monotonic_ns();
            let heartbeat_ns = pages.heartbeat(slot);
            let tripped = pages.tripped(slot).is_some();
            match occupancy.pulse.judge(now_ns, heartbeat_ns, tripped, limits) {
                Some(Change::Tripped) => {
                    occupancy.trips += 1;
                    steering.set_stale(seat);
                    let flows = match seat {
                        Seat::Worker(_) => "its flows go to the backup",
                        Seat::Backup => "workers keep their own flows",
                    };
                    let age_ms = now_ns.saturating_sub(heartbeat_ns) / 1_000_000;
                    log::warn!("{seat} has not beaten for {age_ms} ms: {flows}");
                }
                Some(Change::Recovered) => {
                    steering.set_up(seat);
                    log::info!("{seat} is steady again and gets new flows");
                }
                None => {}
            }
            let patience = watch::patience(config);
            let watch = occupancy.watch.as_mut();
            if watch.is_some_and(|it| it.look(seat, now_ns, heartbeat_ns, patience)) {
                occupancy.hangs += 1;
            }
        }
    }

    /// Looks at whether packets that wait are taken.
    pub(super) fn judge_progress(&mut self, config: &Config, steering: &Steering) {
        let Ok(queues) = queue_truth::read() else {
            return;
        };
        let now_ns = monotonic_ns();
        for occupancy in self.seats.iter_mut().filter(|it| it.phase == Phase::Up) {
            let (seat, number) = (occupancy.seat, occupancy.queue);
            let waiting = queues.iter().any(|it| it.queue == number && it.waiting > 0);
            let received = steering.pages().received(seat.slot());
            let patience = watch::patience(config);
            let watch = occupancy.watch.as_mut();
            let hung =
                |it: &mut Watch| it.look_at_progress(seat, now_ns, received, waiting, patience);
            occupancy.hangs += u64::from(watch.is_some_and(hung));
        }
    }

    /// When heartbeats are to be judged next: when the oldest one turns stale, or what was found
    /// can be confirmed, and after `latest` at the latest.
    pub(super) fn next_look(
        &self,
        config: &Config,
        steering: &Steering,
        latest: Duration,
    ) -> Duration {
        let now_ns = monotonic_ns();
        let next = |occupancy: &Occupancy| {
            let heartbeat_ns = steering.pages().heartbeat(occupancy.seat.slot());
            let watch = occupancy.watch.as_ref()?;
            Some(watch.next_look(now_ns, heartbeat_ns, config.stale(), latest))
        };
        let up = self.seats.iter().filter(|it| it.phase == Phase::Up);
        up.filter_map(next).min().unwrap_or(latest)
    }

    /// The processes in the seats.
    pub(super) fn processes(&self) -> impl Iterator<Item = Started> {
        let predecessors = self.seats.iter().filter_map(|it| it.predecessor.as_ref());
        let predecessors = predecessors.map(Predecessor::process);
        self.seats
            .iter()
            .filter_map(|it| it.process)
            .chain(predecessors)
    }

    /// Whether there is a process, or will be one.
    pub(super) fn any_running(&self) -> bool {
        self.processes().next().is_some() || self.seats.iter().any(|it| it.asked)
    }

    /// Forgets the processes that have ended, for when nobody reports that any more.
    pub(super) fn forget_ended(&mut self) {
        for occupancy in &mut self.seats {
            occupancy.process = occupancy.process.filter(Started::is_alive);
            occupancy
                .predecessor
                .take_if(|former| !former.process().is_alive());
            occupancy.asked = false;
        }
    }

    /// SIGTERM: each leaves when its queue is empty.
    pub(super) fn ask_to_stop(&self) {
        self.signal(Signal::SIGTERM);
    }

    /// SIGKILL.
    pub(super) fn kill(&self) {
        self.signal(Signal::SIGKILL);
    }

    fn signal(&self, signal: Signal) {
        for process in self.processes() {
            if let Err(error) = process.signal(signal) {
                log::debug!("{signal} to {}: {error}", process.pid);
            }
        }
    }

    /// After the workers have left: what still waits, because one had to be killed, gets the
    /// verdict of the policy. Closing the sockets would drop it.
    pub(super) fn settle_pending(&mut self, config: &Config, board: &Board) {
        for occupancy in &mut self.seats {
            let Some(truth) = queue_truth::of(occupancy.queue).filter(|it| it.waiting > 0) else {
                continue;
            };
            let Some(socket) = &occupancy.socket else {
                continue;
            };
            let (last, disposition) = (PacketId(truth.last_id), config.settle());
            match settle_through(socket.as_fd(), occupancy.queue, last, disposition) {
                Ok(()) => {
                    let row = board.row(occupancy.seat);
                    row.add(Cell::Settled, row.unsettled());
                    log::warn!(
                        "{}: {} packets were still queued: {disposition:?}",
                        occupancy.seat,
                        truth.waiting
                    );
                }
                Err(error) => log::warn!(
                    "{}: {} packets still queued are dropped: {error}",
                    occupancy.seat,
                    truth.waiting
                ),
            }
        }
    }
}

impl Occupancy {
    fn new(seat: Seat, config: &Config) -> io::Result<Self> {
        let queue = config.queue_number(seat);
        let buffers = NfQueue::buffer_bytes(&config.queue_options(queue));
        Ok(Self::with(seat, queue, Desk::create(buffers)?))
    }

    fn inherited(bequest: Bequest) -> Self {
        let mut occupancy = Self::with(bequest.seat, bequest.queue, bequest.desk);
        occupancy.socket = Some(bequest.socket);
        occupancy.predecessor = bequest.process.map(Predecessor::new);
        occupancy
    }

    fn with(seat: Seat, queue: u16, desk: Desk) -> Self {
        Self {
            seat,
            queue,
            socket: None,
            desk,
            channel: None,
            process: None,
            watch: None,
            generation: 0,
            predecessor: None,
            orphan: false,
            asked: false,
            announced: None,
            phase: Phase::Starting,
            since: Instant::now(),
            pause: Duration::ZERO,
            pulse: Pulse::default(),
            restarts: 0,
            trips: 0,
            hangs: 0,
            exits: VecDeque::with_capacity(EXITS),
        }
    }

    /// Its process.
    pub(super) const fn process(&self) -> Option<Started> {
        self.process
    }

    /// The queue's socket, if the supervisor holds it.
    pub(super) const fn socket(&self) -> Option<&OwnedFd> {
        self.socket.as_ref()
    }

    /// Its process is to be relieved by the next one.
    pub(super) fn relieve(&mut self) {
        self.predecessor = self.process.take().map(Predecessor::new);
        self.watch = None;
        self.phase = Phase::Starting;
        self.since = Instant::now();
    }

    /// Its process.
    pub(super) fn pid(&self) -> Option<u32> {
        self.process.map(|process| process.pid)
    }

    /// It serves its queue from now on; whether that is news.
    fn serves(&mut self) -> bool {
        let news = self.phase == Phase::Starting;
        if news {
            self.phase = Phase::Up;
            self.pulse = Pulse::default();
        }
        news
    }

    /// How the last process ended.
    pub(super) fn last_exit(&self) -> Option<&str> {
        self.exits.back().map(|exit| exit.how.as_str())
    }

    pub(super) fn vacate(&mut self, how: String, config: &Config) {
        let longest = Duration::from_millis(config.workers.restart_pause_max_ms);
        self.pause = if self.restarts == 0 || self.since.elapsed() >= LIVED {
            Duration::ZERO
        } else {
            (self.pause * 2).clamp(FIRST_PAUSE, longest.max(FIRST_PAUSE))
        };
        self.process = None;
        self.watch = None;
        if self.exits.len() == EXITS {
            self.exits.pop_front();
        }
        self.exits.push_back(Exit {
            at: Instant::now(),
            wall_us: wall_us(),
            how,
        });
        self.phase = Phase::Vacant {
            until: Instant::now() + self.pause,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEAT: Seat = Seat::Worker(0);

    fn seats() -> (Seats, Config) {
        let mut config = Config::default();
        config.workers.count = 1;
        (Seats::new(&config, Vec::new()).unwrap(), config)
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
