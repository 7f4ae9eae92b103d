//! Becomes another program without stopping: the process stays, and so do the queues' sockets
//! and what is shared with the workers, which go on until they are relieved one by one
//! ([`super::succession`]).

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use ips_common::LAYOUT_VERSION;
use tokio::process::Command;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::Supervisor;
use super::instance::{Kept, Record, Started};
use super::signals::Signals;
use crate::config::Transport;
use crate::control::Response;
use crate::sys::descriptors::{close_on_exec, keep_over_exec};

/// How long the answer has to reach who asked.
const ANSWERED_WITHIN: Duration = Duration::from_millis(100);
/// How long the new program may take to say that it can go on here.
const CHECKED_WITHIN: Duration = Duration::from_secs(20);

/// What came of asking a program whether it can go on here.
pub(super) struct Checked {
    program: PathBuf,
    result: anyhow::Result<()>,
    answer: oneshot::Sender<Response>,
}

/// What a program says that can take over from this one: see [`crate::cli`].
pub fn can_succeed() -> String {
    format!("can succeed: layout {LAYOUT_VERSION}")
}

impl Supervisor {
    /// Asks the program whether it can go on here; [`Self::upgrade_checked`] follows. It is
    /// asked beside everything else, because it may take its time.
    pub(super) fn prepare_upgrade(&self, program: PathBuf, answer: oneshot::Sender<Response>) {
        if let Some(why) = self.cannot_upgrade() {
            // The client may have gone: its answer is then nobody's.
            let _ = answer.send(Response::Error(why.into()));
            return;
        }
        // What only a restart can change would have the queues dropped.
        if let Err(error) = self.reread() {
            let _ = answer.send(Response::Error(format!("{error:#}; nothing was changed")));
            return;
        }
        let checks = self.upgrade_checks.clone();
        tokio::spawn(async move {
            let result = check(&program).await;
            // The supervisor has stopped: then nobody is answered.
            let _ = checks.send(Checked {
                program,
                result,
                answer,
            });
        });
    }

    /// The program has said whether it can go on here. If so, it does that soon.
    pub(super) fn upgrade_checked(&mut self, checked: Checked) {
        let response = match (checked.result, self.cannot_upgrade()) {
            (Err(error), _) => Response::Error(format!("{error:#}; nothing was changed")),
            (Ok(()), Some(why)) => Response::Error(why.into()),
            (Ok(()), None) => {
                self.upgrade = Some((Instant::now() + ANSWERED_WITHIN, checked.program));
                Response::Ok(serde_json::json!({ "upgrades": self.upgrades }))
            }
        };
        let _ = checked.answer.send(response);
    }

    /// Why there can be no upgrade at this moment.
    fn cannot_upgrade(&self) -> Option<&'static str> {
        if self.upgrade.is_some() {
            return Some("an upgrade is under way");
        }
        if self.config.queue.transport == Transport::Nfq {
            return Some(
                "with transport = \"nfq\" the queues cannot be handed over: restart instead",
            );
        }
        if self.reloading.is_some() || self.scaling.is_changing() {
            return Some("rules or workers are being changed: try again in a moment");
        }
        if !self.seats.all_up() || self.seats.any_predecessor() || !self.launching.is_ready() {
            return Some("not every worker is up: try again in a moment");
        }
        None
    }

    /// Does not return when it succeeds. Returns a stop that was wished for just before that.
    pub(super) async fn become_other_program(
        &mut self,
        signals: &mut Signals,
    ) -> anyhow::Result<&'static str> {
        let (_, program) = self.upgrade.take().context("no upgrade is due")?;
        let path = CString::new(program.as_os_str().as_bytes())?;
        let arguments: Vec<_> = std::env::args_os()
            .map(|argument| CString::new(argument.as_bytes()))
            .collect::<Result<_, _>>()?;
        log::info!("upgrade: {} goes on from here", program.display());
        // First: it is a thread that could catch a signal.
        self.writer.pause();
        let result = match signals.hold_back().await {
            Ok(Some(stop)) => Ok(stop),
            Ok(None) => Err(match self.leave_for_successor() {
                Ok(()) => {
                    let Err(errno) = nix::unistd::execv(&path, &arguments);
                    anyhow::Error::from(io::Error::from(errno))
                }
                Err(error) => error,
            }),
            Err(error) => Err(error.into()),
        };
        // Nothing has happened, except that nobody writes events.
        signals.let_through()?;
        self.keep_no_more();
        let ends = [self.events.as_fd(), self.writer.reader()];
        let ends = ends.map(|end| end.try_clone_to_owned());
        let [writer, reader] = ends;
        (self.writer, self.events) =
            crate::log::pipe::EventWriter::resume([writer?, reader?], &self.config.event_log())?;
        self.record();
        result.with_context(|| format!("becoming {}", program.display()))
    }

    /// Records everything, and keeps it open.
    fn leave_for_successor(&self) -> anyhow::Result<()> {
        let record = Record {
            upgrades: self.upgrades + 1,
            kept: Some(self.keep().context("keeping descriptors open")?),
            ..self.for_successor()?
        };
        Ok(self.instance.write(&record)?)
    }

    /// After a failure: no program that this one starts shall hold a queue.
    fn keep_no_more(&self) {
        let of_seats = self.seats.iter().flat_map(|it| {
            let socket = it.socket().map(AsFd::as_fd);
            it.desk.files().into_iter().chain(socket)
        });
        let shared = [
            self.board.as_fd(),
            self.events.as_fd(),
            self.writer.reader(),
            self.feedback.as_fd(),
            self.workers_feedback.as_fd(),
            self.rejecter.tally.as_fd(),
        ];
        for descriptor in of_seats.chain(shared) {
            if let Err(error) = close_on_exec(&descriptor) {
                log::error!("a descriptor stays open for programs started: {error}");
            }
        }
    }

    /// Keeps everything open that a successor in this process takes over.
    fn keep(&self) -> anyhow::Result<Kept> {
        let mut seats = Vec::new();
        for occupancy in self.seats.iter() {
            let socket = occupancy.socket().context("a seat without a socket")?;
            let [words, buffers, flows] = occupancy.desk.files();
            let desk = [
                keep_over_exec(&words)?,
                keep_over_exec(&buffers)?,
                keep_over_exec(&flows)?,
            ];
            seats.push((keep_over_exec(socket)?, desk));
        }
        Ok(Kept {
            by: Started::of(std::process::id()).context("/proc/self")?,
            seats,
            board: keep_over_exec(&self.board)?,
            events: both(&self.events, &self.writer.reader())?,
            feedback: both(&self.feedback, &self.workers_feedback)?,
            tally: keep_over_exec(&self.rejecter.tally)?,
        })
    }
}

fn both(one: &impl AsFd, other: &impl AsFd) -> io::Result<[RawFd; 2]> {
    Ok([keep_over_exec(one)?, keep_over_exec(other)?])
}

/// Runs the program to see whether it would go on here, with the arguments of this one.
async fn check(program: &Path) -> anyhow::Result<()> {
    let mut command = Command::new(program);
    command.arg("can-succeed");
    command.args(std::env::args_os().skip(2));
    command.kill_on_drop(true);
    let output = timeout(CHECKED_WITHIN, command.output())
        .await
        .with_context(|| format!("{} says nothing for {CHECKED_WITHIN:?}", program.display()))?
        .with_context(|| format!("running {}", program.display()))?;
    let said = String::from_utf8_lossy(&output.stdout);
    if output.status.success() && said.trim() == can_succeed() {
        return Ok(());
    }
    if output.status.success() && said.starts_with("can succeed: ") {
        bail!(
            "{} has another layout of what is in the kernel ({} here): stop this instance and \
             start the new one",
            program.display(),
            LAYOUT_VERSION
        );
    }
    let why = String::from_utf8_lossy(&output.stderr);
    let why = why.lines().last().unwrap_or("it does not say why");
    bail!("{} cannot go on here: {why}", program.display())
}
