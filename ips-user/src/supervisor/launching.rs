//! The supervisor's hold on the launcher.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;

use super::datasets::Sets;
use super::deaths::Deaths;
use super::feedback::FeedbackSocket;
use super::message::{Channel, CompiledFiles, FromLauncher, ToLauncher};
use super::seat::Seat;
use crate::config::Config;
use crate::desk::Desk;
use crate::log::pipe::EventPipe;
use crate::maps::WorkerPages;
use crate::metrics::board::Board;
use crate::rejecter::Tally;
use crate::sys::readable::Readable;

/// How long the launcher may take to end once its socket is closed.
const END_WITHIN: Duration = Duration::from_secs(2);

/// What all workers and the rejecter share with the supervisor.
pub(super) struct Common<'a> {
    pub(super) pages: &'a WorkerPages,
    pub(super) board: &'a Board,
    pub(super) events: &'a EventPipe,
    pub(super) feedback: &'a FeedbackSocket,
    pub(super) tally: &'a Tally,
    pub(super) deaths: &'a Deaths,
    pub(super) sets: &'a Sets,
}

/// The launcher process and the socket to it.
#[derive(Debug)]
pub(super) struct Launching {
    process: Child,
    /// `None` once it is to end.
    channel: Option<(Channel, Readable)>,
    /// It has compiled the rules.
    ready: bool,
}

impl Launching {
    /// Starts it. It waits for [`Self::prepare`].
    pub(super) fn start() -> anyhow::Result<Self> {
        let (ours, theirs) = Channel::pair()?;
        let process = Command::new("/proc/self/exe")
            .arg("launcher")
            .stdin(Stdio::from(theirs.into_fd()))
            // Ctrl-C in a terminal is for the supervisor, which stops the others in order.
            .process_group(0)
            .spawn()
            .context("starting the launcher")?;
        ours.never_wait()?;
        let spoken = Readable::of(&ours)?;
        Ok(Self {
            process,
            channel: Some((ours, spoken)),
            ready: false,
        })
    }

    /// Gives it the configuration and what all workers share.
    pub(super) fn prepare(
        &self,
        config: &Config,
        trace: bool,
        common: &Common<'_>,
    ) -> anyhow::Result<()> {
        let message = ToLauncher::Prepare {
            config: Box::new(config.clone()),
            trace,
        };
        let pages = common.pages.fd();
        let fds = [
            pages.context("the heartbeat map has no descriptor")?,
            common.board.as_fd(),
            common.events.as_fd(),
            common.feedback.as_fd(),
            common.tally.as_fd(),
            common.deaths.watchlist(),
            common.deaths.hands(),
            common.sets.journal.readers(),
            common.sets.workers_reports.as_fd(),
        ];
        self.send(&message, &fds).context("preparing the launcher")
    }

    /// Has the rules compiled, from the files as the disk has them now or as they were when they
    /// were compiled before; [`FromLauncher::Compiled`] or [`FromLauncher::NotCompiled`] answers.
    pub(super) fn compile(
        &self,
        generation: u32,
        config: &Config,
        lenient: bool,
        sources: Option<BorrowedFd<'_>>,
    ) -> anyhow::Result<()> {
        let message = ToLauncher::Compile {
            generation,
            lenient,
            config: Box::new(config.clone()),
        };
        self.send(&message, sources.as_slice())
            .context("having the launcher compile the rules")
    }

    /// Asks for a worker; [`FromLauncher::Spawned`] or [`FromLauncher::NotSpawned`] answers.
    pub(super) fn spawn(
        &self,
        seat: Seat,
        succeeds: bool,
        desk: &Desk,
        channel: &Channel,
        socket: Option<BorrowedFd<'_>>,
    ) -> anyhow::Result<()> {
        let own = desk.files().into_iter().chain([channel.as_fd()]);
        let fds: Vec<_> = own.chain(socket).collect();
        self.send(&ToLauncher::Spawn { seat, succeeds }, &fds)
            .with_context(|| format!("asking the launcher for {seat}"))
    }

    fn send(&self, message: &ToLauncher, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let (channel, _) = self.channel.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        channel.send(message, fds)
    }

    /// The next message; `None` when the launcher is gone.
    pub(super) async fn next(&mut self) -> anyhow::Result<Option<FromLauncher>> {
        let Some((channel, spoken)) = &self.channel else {
            return Ok(None);
        };
        loop {
            match channel.receive::<FromLauncher>() {
                Ok(Some((mut message, fds))) => {
                    if let FromLauncher::Compiled { files, .. } = &mut message {
                        *files = CompiledFiles::of(fds);
                    }
                    return Ok(Some(message));
                }
                Ok(None) => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => spoken.wait().await,
                Err(error) => return Err(error).context("listening to the launcher"),
            }
        }
    }

    /// SIGKILL: its end is noticed as any other.
    pub(super) fn kill(&mut self) {
        // It may end by itself in between.
        let _ = self.process.kill();
    }

    /// It can start workers.
    pub(super) fn set_ready(&mut self) {
        self.ready = true;
    }

    /// Whether it can start workers.
    pub(super) fn is_ready(&self) -> bool {
        self.ready && self.channel.is_some()
    }

    /// Its process.
    pub(super) fn pid(&self) -> Option<u32> {
        self.channel.is_some().then(|| self.process.id())
    }

    /// Ends it: first by closing its socket, then by force.
    pub(super) fn end(&mut self) {
        self.channel = None;
        let deadline = Instant::now() + END_WITHIN;
        loop {
            match self.process.try_wait() {
                Ok(None) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Ok(None) => {
                    log::warn!("the launcher did not end: killed");
                    // It may end by itself in between.
                    let _ = self.process.kill();
                    let _ = self.process.wait();
                    return;
                }
                Ok(Some(_)) | Err(_) => return,
            }
        }
    }
}

impl Drop for Launching {
    fn drop(&mut self) {
        if self.channel.is_some() {
            self.end();
        }
    }
}
