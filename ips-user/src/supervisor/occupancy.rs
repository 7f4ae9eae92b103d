//! One seat: what is held for it, who sits there, and what became of those who did.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::sys::signal::Signal;

use super::duty::Duty;
use super::history::Past;
use super::inheritance::Bequest;
use super::instance::Started;
use super::launching::Launching;
use super::message::{Channel, ToWorker};
use super::overload::Strain;
use super::seat::Seat;
use super::steering::Steering;
use super::succession::Predecessor;
use super::vacancy::Vacancy;
use super::watch::{self, Watch};
use crate::config::Config;
use crate::desk::Desk;
use crate::health::{Change, Limits, Pulse};
use crate::metrics::queue_truth::QueueTruth;
use crate::source::nfqueue::{NfQueue, QueueSocket};
use crate::sys::process::monotonic_ns;

/// A worker that served for this long did not die of its start: its replacement comes at once.
const LIVED: Duration = Duration::from_millis(250);
/// How long packets wait in the queue of a worker that has ended, when its replacement is due
/// within that: it serves them in order. Packets that went to the backup in the meantime would
/// overtake those that wait, and TCP would repeat what was overtaken.
const GRACE: Duration = Duration::from_millis(50);
/// The first pause; before it, one replacement comes at once.
const FIRST_PAUSE: Duration = Duration::from_millis(5);

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
    pub(super) duty: Duty,
    pub(super) queue: u16,
    socket: Option<OwnedFd>,
    pub(super) desk: Desk,
    /// To the present process.
    channel: Option<Channel>,
    pub(super) process: Option<Started>,
    /// Which rules and configuration that process has.
    pub(super) generation: u32,
    watch: Option<Watch>,
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
    /// Since when the present process has been serving.
    serves_since: Option<Instant>,
    /// Since when nobody has been serving the queue; `None` while somebody is.
    pub(super) vacancy: Option<Vacancy>,
    pause: Duration,
    /// When its flows go to the backup if it is not served until then.
    give_up_at: Option<Instant>,
    pub(super) pulse: Pulse,
    pub(super) strain: Strain,
    pub(super) past: Past,
}

/// What is held for it, and what it is.
impl Occupancy {
    /// A vacant seat.
    pub(super) fn new(seat: Seat, duty: Duty, config: &Config) -> io::Result<Self> {
        let queue = config.queue_number(seat);
        let buffers = NfQueue::buffer_bytes(&config.queue_options(queue));
        Ok(Self::with(seat, duty, queue, Desk::create(buffers)?))
    }

    /// A seat as a predecessor of the supervisor has left it.
    pub(super) fn inherited(bequest: Bequest, duty: Duty) -> Self {
        let mut occupancy = Self::with(bequest.seat, duty, bequest.queue, bequest.desk);
        occupancy.socket = Some(bequest.socket);
        occupancy.predecessor = bequest.process.map(Predecessor::new);
        occupancy.vacancy = occupancy.vacancy.filter(|_| bequest.process.is_none());
        occupancy
    }

    fn with(seat: Seat, duty: Duty, queue: u16, desk: Desk) -> Self {
        Self {
            seat,
            duty,
            queue,
            socket: None,
            desk,
            channel: None,
            process: None,
            generation: 0,
            watch: None,
            predecessor: None,
            orphan: false,
            asked: false,
            announced: None,
            phase: Phase::Starting,
            since: Instant::now(),
            serves_since: None,
            vacancy: Some(Vacancy::since(Instant::now())),
            pause: Duration::ZERO,
            give_up_at: None,
            pulse: Pulse::default(),
            strain: Strain::default(),
            past: Past::default(),
        }
    }

    /// The queue's socket, if the supervisor holds it.
    pub(super) const fn socket(&self) -> Option<&OwnedFd> {
        self.socket.as_ref()
    }

    /// Whether a process serves the queue that neither hangs nor has done so just now.
    pub(super) fn serves_steadily(&self) -> bool {
        self.phase == Phase::Up && !self.pulse.is_tripped()
    }

    /// Binds and configures its queue, unless that has been done.
    pub(super) fn open_queue(&mut self, config: &Config) -> anyhow::Result<()> {
        if self.socket.is_some() {
            return Ok(());
        }
        let socket = QueueSocket::open(&config.queue_options(self.queue))
            .with_context(|| format!("opening the queue of {}", self.seat))?;
        self.socket = Some(socket.into_fd());
        Ok(())
    }

    /// Its process.
    pub(super) fn pid(&self) -> Option<u32> {
        self.process.map(|process| process.pid)
    }

    /// Whether there is a process, or will be one.
    pub(super) fn is_occupied(&self) -> bool {
        self.process.is_some() || self.predecessor.is_some() || self.asked
    }

    /// Whether the launcher has not answered within `patience`.
    pub(super) fn is_unanswered(&self, patience: Duration) -> bool {
        self.asked && self.since.elapsed() > patience
    }

    /// How the last process ended.
    pub(super) fn last_exit(&self) -> Option<&str> {
        self.past.last_exit()
    }
}

/// Processes come and go.
impl Occupancy {
    /// Has the launcher start one.
    pub(super) fn spawn(&mut self, launching: &Launching) -> anyhow::Result<()> {
        // A channel of its own for each process: what the former has not read is not for it.
        let (ours, theirs) = Channel::pair().context("a channel to a worker")?;
        for end in [&ours, &theirs] {
            end.never_wait().context("a channel to a worker")?;
        }
        self.channel = Some(ours);
        self.desk.clear_command();
        let socket = self.socket.as_ref().map(AsFd::as_fd);
        let succeeds = self.predecessor.is_some();
        launching.spawn(self.seat, succeeds, &self.desk, &theirs, socket)?;
        self.asked = true;
        self.since = Instant::now();
        Ok(())
    }

    /// Sends the present one a message.
    pub(super) fn tell(&self, message: &ToWorker, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let channel = self.channel.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        channel.send(message, fds)?;
        self.desk.announce_mail();
        Ok(())
    }

    /// The present one is to be relieved by the next.
    pub(super) fn relieve(&mut self) {
        self.predecessor = self.process.take().map(Predecessor::new);
        self.watch = None;
        self.phase = Phase::Starting;
        self.since = Instant::now();
    }

    /// The launcher has started one; whether it has said already that it serves.
    pub(super) fn spawned(&mut self, pid: u32) -> bool {
        let process = Started::of(pid).unwrap_or(Started::ended(pid));
        self.asked = false;
        self.process = Some(process);
        self.watch = Some(Watch::over(process));
        self.phase = Phase::Starting;
        self.since = Instant::now();
        self.announced.take() == Some(pid) && self.serves()
    }

    /// A process says that it serves; whether that is news about the current one.
    pub(super) fn started(&mut self, pid: u32) -> bool {
        if self.pid() == Some(pid) {
            return self.serves();
        }
        self.announced = Some(pid);
        false
    }

    fn serves(&mut self) -> bool {
        let news = self.phase == Phase::Starting;
        if news {
            self.give_up_at = None;
            self.serves_since = Some(Instant::now());
            self.phase = Phase::Up;
            self.pulse = Pulse::default();
            self.end_vacancy();
        }
        news
    }

    /// Its process has ended.
    pub(super) fn exited(&mut self, pid: u32, how: &str, config: &Config) {
        // A signal that was ours says nothing.
        let hung = self.watch.as_ref().and_then(Watch::hung);
        let how = hung.map_or_else(|| how.to_owned(), |hang| hang.to_string());
        if self.duty == Duty::Leaving {
            log::info!("{} (pid {pid}) has left: {how}", self.seat);
            self.vacate(how, config);
            return;
        }
        log::warn!("{} (pid {pid}) ended: {how}", self.seat);
        self.vacate(how, config);
        log::info!("{} is replaced in {:?}", self.seat, self.pause);
    }

    /// The launcher could not start one.
    pub(super) fn not_spawned(&mut self, why: &str, config: &Config) {
        self.asked = false;
        self.vacate(why.to_owned(), config);
    }

    pub(super) fn vacate(&mut self, how: String, config: &Config) {
        let longest = Duration::from_millis(config.workers.restart_pause_max_ms);
        let served = self.serves_since.take();
        let lived = served.is_some_and(|since| since.elapsed() >= LIVED);
        self.pause = if self.past.restarts == 0 || lived {
            Duration::ZERO
        } else {
            (self.pause * 2).clamp(FIRST_PAUSE, longest.max(FIRST_PAUSE))
        };
        self.process = None;
        self.watch = None;
        self.past.ended(monotonic_ns(), how);
        self.phase = Phase::Vacant {
            until: Instant::now() + self.pause,
        };
        self.begin_vacancy();
    }

    /// Its process has ended: whether its flows go to the backup at once. If not,
    /// [`Self::is_given_up`] tells when they do.
    pub(super) fn gives_up(&mut self, replaceable: bool) -> bool {
        let waits = replaceable && self.pause < GRACE;
        // Those who die before they serve do not make it later.
        let from_now = || Instant::now() + GRACE;
        self.give_up_at = waits.then(|| self.give_up_at.unwrap_or_else(from_now));
        !waits
    }

    /// Whether the replacement has taken too long; told once.
    pub(super) fn is_given_up(&mut self, now: Instant) -> bool {
        let over = self.give_up_at.take_if(|at| *at <= now);
        over.is_some() && self.phase != Phase::Up
    }

    /// When its replacement is due, if it is vacant.
    pub(super) fn due_at(&self) -> Option<Instant> {
        match self.phase {
            Phase::Vacant { until } if self.duty != Duty::Leaving => Some(until),
            _ => None,
        }
    }

    /// Whether it is vacant and its pause is over; then it counts as starting from now on.
    pub(super) fn falls_due(&mut self, now: Instant) -> bool {
        let due = self.due_at().is_some_and(|at| at <= now);
        if due {
            self.phase = Phase::Starting;
            self.since = now;
            self.past.restarts += 1;
        }
        due
    }

    /// Kills a process that has not begun to serve within `workers.start_ms`; when nobody else
    /// serves the queue and packets wait there, within `workers.hang_max_ms` if that is sooner.
    pub(super) fn end_if_late(&mut self, config: &Config, waits: impl FnOnce(u16) -> bool) {
        let start = Duration::from_millis(config.workers.start_ms);
        let longest = watch::patience(config).longest.min(start);
        let elapsed = self.since.elapsed();
        if self.phase != Phase::Starting || self.process.is_none() || elapsed <= longest {
            return;
        }
        // What the kernel says is asked last: that lists every queue of the network namespace.
        let missed = elapsed <= start && self.predecessor.is_none() && waits(self.queue);
        let patience = if missed { longest } else { start };
        let Some(process) = self.process.filter(|_| elapsed > patience) else {
            return;
        };
        let (seat, pid) = (self.seat, process.pid);
        log::warn!("{seat} (pid {pid}) does not serve after {patience:?}: killed");
        self.since = Instant::now();
        if let Err(error) = process.signal(Signal::SIGKILL) {
            log::warn!("{seat}: {error}");
        }
    }

    /// During a stop: its process has ended and is not replaced.
    pub(super) fn ended(&mut self, pid: u32, how: &str) {
        self.process = None;
        if how != "exit status 0" {
            log::warn!("{} (pid {pid}) ended while stopping: {how}", self.seat);
        }
    }

    /// Forgets a process that has ended, for when nobody reports that any more.
    pub(super) fn forget_ended(&mut self) {
        self.process = self.process.filter(Started::is_alive);
        self.predecessor.take_if(|it| !it.process().is_alive());
        self.asked = false;
    }
}

/// Whether its process does what it is there for.
impl Occupancy {
    /// Looks at its heartbeat.
    pub(super) fn judge(&mut self, config: &Config, steering: &mut Steering) {
        let (seat, pages) = (self.seat, steering.pages());
        let now_ns = monotonic_ns();
        let heartbeat_ns = pages.heartbeat(seat.slot());
        let tripped = pages.tripped(seat.slot()).is_some();
        let limits = Limits {
            stale: config.stale(),
            recover: Duration::from_millis(config.steering.recover_ms),
        };
        match self.pulse.judge(now_ns, heartbeat_ns, tripped, limits) {
            Some(Change::Tripped) => {
                self.past.trips += 1;
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
        let watch = self.watch.as_mut();
        let hung = watch.is_some_and(|it| it.look(seat, now_ns, heartbeat_ns, patience));
        self.past.hangs += u64::from(hung);
    }

    /// Looks at whether it takes the packets that wait for it.
    pub(super) fn judge_progress(
        &mut self,
        config: &Config,
        steering: &Steering,
        queues: &[QueueTruth],
    ) {
        let seat = self.seat;
        let waits = |truth: &QueueTruth| truth.queue == self.queue && truth.waiting > 0;
        let waiting = queues.iter().any(waits);
        let received = steering.pages().received(seat.slot()).map(|it| it.id);
        let (now_ns, patience) = (monotonic_ns(), watch::patience(config));
        let look = |it: &mut Watch| it.look_at_progress(seat, now_ns, received, waiting, patience);
        self.past.hangs += u64::from(self.watch.as_mut().is_some_and(look));
    }

    /// When its heartbeat is to be judged next: when it turns stale, or what was found can be
    /// confirmed, and after `latest` at the latest.
    pub(super) fn next_look(
        &self,
        config: &Config,
        steering: &Steering,
        latest: Duration,
    ) -> Duration {
        let heartbeat_ns = steering.pages().heartbeat(self.seat.slot());
        let next =
            |watch: &Watch| watch.next_look(monotonic_ns(), heartbeat_ns, config.stale(), latest);
        self.watch.as_ref().map_or(latest, next)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    fn occupancy() -> (Occupancy, Config) {
        let config = Config::default();
        let occupancy = Occupancy::new(Seat::Backup, Duty::Serving, &config);
        (occupancy.unwrap(), config)
    }

    #[test]
    fn the_first_replacement_comes_at_once_and_those_that_die_young_after_growing_pauses() {
        let (mut occupancy, mut config) = occupancy();
        config.workers.restart_pause_max_ms = 35;
        let mut pauses = Vec::new();
        for pid in 0..5 {
            occupancy.exited(pid, "signal SIGSEGV", &config);
            pauses.push(occupancy.pause.as_millis());
            let Phase::Vacant { until } = occupancy.phase else {
                panic!("{occupancy:?}");
            };
            assert!(occupancy.falls_due(until));
            assert!(!occupancy.falls_due(until), "it counts as starting");
        }
        assert_eq!(pauses, [0, 5, 10, 20, 35]);
        assert_eq!(occupancy.past.restarts, 5);
    }

    #[test]
    fn those_who_die_before_they_serve_do_not_have_packets_wait_longer() {
        let (mut occupancy, config) = occupancy();
        occupancy.exited(1, "signal SIGSEGV", &config);
        assert!(!occupancy.gives_up(true));
        let until = occupancy.give_up_at.expect("a deadline");
        occupancy.exited(2, "signal SIGSEGV", &config);
        assert!(!occupancy.gives_up(true));
        assert_eq!(occupancy.give_up_at, Some(until));
        assert!(!occupancy.is_given_up(until - Duration::from_nanos(1)));
        assert!(occupancy.is_given_up(until));
        // With a pause that is longer than they may wait, at once.
        occupancy.pause = GRACE;
        assert!(occupancy.gives_up(true));
    }

    #[test]
    fn a_starter_that_packets_wait_for_has_no_longer_than_a_worker_may_hang() {
        let sleeping = || {
            let sleeping = std::process::Command::new("sleep").arg("1000").spawn();
            sleeping.unwrap()
        };
        for (elapsed, waits, relieves, killed) in [
            (15, true, false, true),
            (15, false, false, false),
            (15, true, true, false),
            (2, true, false, false),
            (55, false, false, true),
            (55, true, true, true),
        ] {
            let (mut occupancy, mut config) = occupancy();
            (config.workers.start_ms, config.workers.hang_max_ms) = (50_000, 10_000);
            let (mut child, mut former) = (sleeping(), sleeping());
            let predecessor = relieves.then(|| Started::of(former.id()).unwrap());
            occupancy.predecessor = predecessor.map(Predecessor::new);
            occupancy.spawned(child.id());
            let since = Instant::now().checked_sub(Duration::from_secs(elapsed));
            occupancy.since = since.unwrap();
            occupancy.end_if_late(&config, |_| waits);
            let signal = |status: std::process::ExitStatus| status.signal();
            if !killed {
                assert!(child.try_wait().unwrap().is_none(), "{elapsed} {waits}");
                // The test ends it with another signal than the supervisor does.
                let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
                nix::sys::signal::kill(pid, Signal::SIGTERM).unwrap();
            }
            let expected = if killed { libc::SIGKILL } else { libc::SIGTERM };
            assert_eq!(signal(child.wait().unwrap()), Some(expected));
            former.kill().unwrap();
            former.wait().unwrap();
        }
    }

    #[test]
    fn who_is_to_leave_is_not_replaced() {
        let (mut occupancy, config) = occupancy();
        occupancy.duty = Duty::Leaving;
        occupancy.exited(1, "exit status 0", &config);
        let later = Instant::now() + Duration::from_secs(3600);
        assert!(!occupancy.falls_due(later));
        assert!(!occupancy.is_occupied());
    }
}
