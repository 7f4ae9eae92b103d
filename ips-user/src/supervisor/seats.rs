//! The seats and who sits there: sockets held for them, processes that come and go.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::sys::signal::Signal;

use super::instance::Started;
use super::seat::Seat;
use super::steering::Steering;
use crate::config::{Config, Transport};
use crate::health::{Change, Limits, Pulse};
use crate::metrics::queue_truth;
use crate::source::nfqueue::QueueSocket;
use crate::sys::process::monotonic_ns;

/// A worker that lived this long did not die of its start: the next pause is the shortest.
const LIVED: Duration = Duration::from_secs(1);
/// The first pause; before it, one replacement comes at once.
const FIRST_PAUSE: Duration = Duration::from_millis(10);

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

/// One seat.
#[derive(Debug)]
pub(super) struct Occupancy {
    pub(super) seat: Seat,
    pub(super) queue: u16,
    socket: Option<OwnedFd>,
    process: Option<Started>,
    /// A process has been asked for and the launcher has not answered yet.
    asked: bool,
    pub(super) phase: Phase,
    since: Instant,
    pause: Duration,
    pub(super) pulse: Pulse,
    pub(super) restarts: u64,
    pub(super) trips: u64,
    pub(super) last_exit: Option<String>,
}

/// All seats.
#[derive(Debug)]
pub(super) struct Seats {
    seats: Vec<Occupancy>,
}

impl Seats {
    /// One for each worker and the backup, vacant.
    pub(super) fn new(config: &Config) -> Self {
        let workers = config.worker_count();
        let seats = Seat::all(workers).map(|seat| Occupancy {
            seat,
            queue: config.queue_number(seat.position(workers)),
            socket: None,
            process: None,
            asked: false,
            phase: Phase::Starting,
            since: Instant::now(),
            pause: Duration::ZERO,
            pulse: Pulse::default(),
            restarts: 0,
            trips: 0,
            last_exit: None,
        });
        Self {
            seats: seats.collect(),
        }
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
        for occupancy in &mut self.seats {
            let socket = QueueSocket::open(&config.queue_options(occupancy.queue))
                .with_context(|| format!("opening the queue of {}", occupancy.seat))?;
            occupancy.socket = Some(socket.into_fd());
        }
        Ok(())
    }

    fn of(&mut self, seat: Seat) -> Option<&mut Occupancy> {
        self.seats
            .iter_mut()
            .find(|occupancy| occupancy.seat == seat)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Occupancy> {
        self.seats.iter()
    }

    pub(super) fn all(&self) -> Vec<Seat> {
        self.seats.iter().map(|occupancy| occupancy.seat).collect()
    }

    /// The queue socket held for a seat.
    pub(super) fn socket(&self, seat: Seat) -> Option<BorrowedFd<'_>> {
        let occupancy = self.seats.iter().find(|occupancy| occupancy.seat == seat)?;
        occupancy.socket.as_ref().map(AsFd::as_fd)
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
        Some((
            occupancy.seat,
            occupancy.last_exit.as_deref().unwrap_or("unknown"),
        ))
    }

    /// A process is being asked for.
    pub(super) fn asked(&mut self, seat: Seat) {
        if let Some(occupancy) = self.of(seat) {
            occupancy.asked = true;
        }
    }

    /// The launcher has started a process.
    pub(super) fn spawned(&mut self, seat: Seat, pid: u32) {
        let Some(occupancy) = self.of(seat) else {
            return;
        };
        occupancy.asked = false;
        // Its own message may have come first.
        if occupancy.pid() != Some(pid) {
            occupancy.process = Started::of(pid);
            occupancy.phase = Phase::Starting;
            occupancy.since = Instant::now();
        }
    }

    /// A process serves its queue. Returns whether that is news about the current process.
    pub(super) fn started(&mut self, seat: Seat, pid: u32) -> bool {
        let Some(occupancy) = self.of(seat) else {
            return false;
        };
        if occupancy.pid() != Some(pid) {
            occupancy.since = Instant::now();
        }
        occupancy.process = Started::of(pid);
        occupancy.phase = Phase::Up;
        occupancy.pulse = Pulse::default();
        true
    }

    /// A process has ended; its replacement is due after a pause that grows while processes
    /// keep dying young. Returns whether it was the seat's current process.
    pub(super) fn exited(&mut self, seat: Seat, pid: u32, how: &str, config: &Config) -> bool {
        let Some(occupancy) = self.of(seat).filter(|it| it.pid() == Some(pid)) else {
            return false;
        };
        occupancy.vacate(how, config);
        let pause = occupancy.pause;
        log::warn!("{seat} (pid {pid}) ended by {how}; replaced in {pause:?}");
        true
    }

    /// The launcher could not start a process.
    pub(super) fn not_spawned(&mut self, seat: Seat, why: &str, config: &Config) {
        if let Some(occupancy) = self.of(seat) {
            occupancy.asked = false;
            occupancy.vacate(why, config);
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
        }
    }

    /// The processes in the seats.
    pub(super) fn processes(&self) -> impl Iterator<Item = Started> {
        self.seats.iter().filter_map(|occupancy| occupancy.process)
    }

    /// Whether there is a process, or one to come.
    pub(super) fn any_running(&self) -> bool {
        self.seats
            .iter()
            .any(|occupancy| occupancy.asked || occupancy.process.is_some())
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

    /// After the workers have left: what still waits is lost when the sockets are closed, and
    /// that is said.
    pub(super) fn report_pending(&self) {
        for occupancy in &self.seats {
            let waiting = queue_truth::of(occupancy.queue).map_or(0, |truth| truth.waiting);
            if waiting > 0 {
                log::warn!(
                    "{}: {waiting} packets still queued are dropped",
                    occupancy.seat
                );
            }
        }
    }
}

impl Occupancy {
    /// Its process.
    pub(super) fn pid(&self) -> Option<u32> {
        self.process.map(|process| process.pid)
    }

    fn vacate(&mut self, how: &str, config: &Config) {
        let longest = Duration::from_millis(config.workers.restart_pause_max_ms);
        self.pause = if self.restarts == 0 || self.since.elapsed() >= LIVED {
            Duration::ZERO
        } else {
            (self.pause * 2).clamp(FIRST_PAUSE, longest.max(FIRST_PAUSE))
        };
        self.process = None;
        self.last_exit = Some(how.to_owned());
        self.phase = Phase::Vacant {
            until: Instant::now() + self.pause,
        };
    }
}
