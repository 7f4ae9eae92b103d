//! The launcher's hold on the rejecter: starts it, and starts it again when it ends.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::raw_socket::RawSocket;
use super::{NAME, RejectSocket, Requests, Tally, pair, sandbox, serve};
use crate::sys::process::{self, set_name, take_usual_priority};
use crate::sys::sandbox::{Account, Support};

/// A rejecter that lived this long did not die of its start.
const LIVED: Duration = Duration::from_secs(1);
/// The first pause before it is started again; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How long it may take to end when nobody can ask any more.
const END_WITHIN: Duration = Duration::from_millis(500);

/// In what a rejecter runs.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// `skb->mark` of what is sent.
    pub mark: u32,
    /// Whom it becomes.
    pub account: Account,
    /// Whether Landlock confines it.
    pub landlock: bool,
    /// Whether its system calls are filtered.
    pub seccomp: bool,
    /// What the kernel has of that.
    pub support: Support,
}

/// Keeps one rejecter running. While there is none, requests wait; what does not fit then is
/// lost, and counted by the workers.
#[derive(Debug)]
pub struct Keeper {
    requests: Requests,
    tally: Tally,
    place: Place,
    process: Option<Pid>,
    since: Instant,
    pause: Duration,
    due: Option<Instant>,
    failing: bool,
}

impl Keeper {
    /// A keeper without a rejecter yet, and where workers put rejections.
    ///
    /// # Errors
    /// When descriptors run out.
    pub fn new(place: Place, tally: Tally) -> io::Result<(Self, RejectSocket)> {
        let (workers, requests) = pair()?;
        let keeper = Self {
            requests,
            tally,
            place,
            process: None,
            since: Instant::now(),
            pause: Duration::ZERO,
            due: Some(Instant::now()),
            failing: false,
        };
        Ok((keeper, workers))
    }

    /// When [`Self::start`] is due, from now; `None` while it runs.
    pub fn due_in(&self) -> Option<Duration> {
        self.due
            .map(|due| due.saturating_duration_since(Instant::now()))
    }

    /// Starts it if that is due; returns the new process. The calling process has one thread.
    /// When raw sockets cannot be opened (CAP_NET_RAW) or fork fails, what has been asked for is
    /// given up and counted, and it is tried again later.
    pub fn start(&mut self) -> Option<Pid> {
        if self.due_in().is_none_or(|pause| !pause.is_zero()) {
            return None;
        }
        self.since = Instant::now();
        match self.fork() {
            Ok(pid) => {
                self.failing = false;
                self.due = None;
                self.process = Some(pid);
            }
            Err(error) => {
                // Once, not with every attempt.
                if !std::mem::replace(&mut self.failing, true) {
                    log::warn!("no rejections will be sent: starting the rejecter: {error}");
                }
                self.requests.give_up(&self.tally);
                self.postpone();
            }
        }
        self.process
    }

    fn fork(&self) -> io::Result<Pid> {
        // Here, so that its failure is known here.
        let raw = RawSocket::open(self.place.mark)?;
        let mut keep: Vec<BorrowedFd<'_>> = raw.descriptors().collect();
        keep.push(self.requests.socket.as_fd());
        process::fork_with_only(&keep, || self.run(&raw))
    }

    /// The rejecter's process.
    fn run(&self, raw: &RawSocket) -> i32 {
        set_name(NAME);
        take_usual_priority();
        let Place {
            account,
            landlock,
            seccomp,
            support,
            ..
        } = self.place;
        if let Err(error) = sandbox(account, landlock, seccomp).enter(support) {
            log::error!("the rejecter ends: {error}");
            return 1;
        }
        self.tally.serves(std::process::id());
        match serve(&self.requests, raw, &self.tally) {
            Ok(()) => 0,
            Err(error) => {
                log::error!("the rejecter ends: {error}");
                1
            }
        }
    }

    /// A child of this process has ended; whether it was the rejecter.
    pub fn ended(&mut self, pid: Pid, how: &str) -> bool {
        if self.process != Some(pid) {
            return false;
        }
        self.process = None;
        self.postpone();
        log::warn!(
            "the rejecter (pid {pid}) ended by {how}; started again in {:?}",
            self.pause
        );
        true
    }

    fn postpone(&mut self) {
        self.pause = match self.since.elapsed() >= LIVED {
            true => FIRST_PAUSE,
            false => (self.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE),
        };
        self.due = Some(Instant::now() + self.pause);
    }

    /// The descriptor that only the rejecter and this process may hold: a worker that held it
    /// would not notice their end.
    pub fn requests(&self) -> BorrowedFd<'_> {
        self.requests.socket.as_fd()
    }

    /// Waits for its end, once every [`RejectSocket`] is closed.
    pub fn end(self) {
        let Some(pid) = self.process else { return };
        let deadline = Instant::now() + END_WITHIN;
        loop {
            match waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Ok(WaitStatus::StillAlive) => {
                    log::warn!("the rejecter did not end: killed");
                    // It may end by itself in between.
                    let _ = kill(pid, Signal::SIGKILL);
                    let _ = waitpid(pid, None);
                    return;
                }
                Err(Errno::EINTR) => {}
                Ok(_) | Err(_) => return,
            }
        }
    }
}
