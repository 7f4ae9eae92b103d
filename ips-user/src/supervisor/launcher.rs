//! The launcher: a process with one thread that compiles the rules once and forks the workers,
//! so that they share the compiled rules' memory.
//!
//! Its standard input is the socket to the supervisor. When that ends it leaves; the workers
//! stay, because they hold the queues.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::feedback::FeedbackSocket;
use super::message::{Channel, Equipment, FromLauncher, ToLauncher};
use super::seat::Seat;
use crate::config::Config;
use crate::detect::{Daachorse, Engine};
use crate::log::pipe::EventPipe;
use crate::maps::WorkerPages;
use crate::metrics::board::Board;
use crate::rules;
use crate::sys::process::{self, set_name};
use crate::worker::{self, Shared};

/// Findings about rules that go to the log at a start.
const DIAGNOSTICS_SHOWN: usize = 20;

/// Serves the supervisor at the other end of `socket` until it is gone.
///
/// # Errors
/// When the supervisor does not keep to the protocol, or the system refuses.
pub fn run(socket: OwnedFd) -> anyhow::Result<()> {
    set_name("sluice-launcher");
    let channel = Channel::from_fd(socket);
    let mut ends = SigSet::empty();
    ends.add(Signal::SIGCHLD);
    // What is meant to stop Sluice is sent to all of its processes by some (systemd, killall):
    // it is the supervisor that stops the others, and in order.
    let mut blocked = ends;
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        blocked.add(signal);
    }
    blocked.thread_block().context("blocking signals")?;
    let children_ended =
        SignalFd::with_flags(&ends, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .context("signalfd")?;

    let Some(shared) = prepare(&channel)? else {
        return Ok(());
    };
    let mut seats: HashMap<Pid, Seat> = HashMap::new();
    loop {
        let mut ready = [
            PollFd::new(channel.as_fd(), PollFlags::POLLIN),
            PollFd::new(children_ended.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut ready, PollTimeout::NONE) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error).context("poll"),
        }
        let spoken = ready[0].any().unwrap_or(false);
        while children_ended.read_signal().context("signalfd")?.is_some() {}
        report_ended(&channel, &mut seats)?;
        if !spoken {
            continue;
        }
        let Some((message, fds)) = channel.receive()? else {
            return Ok(());
        };
        let ToLauncher::Spawn { seat } = message else {
            bail!("unexpected {message:?}")
        };
        let spawned = Equipment::of(fds).and_then(|equipment| {
            process::fork(|| {
                // The child must not keep the launcher's end open, nor its blocked signals.
                if let Err(error) = nix::unistd::close(channel.as_raw_fd()) {
                    log::warn!("{seat}: closing the launcher's socket: {error}");
                }
                let status = enter_worker(&shared, seat, equipment, &blocked);
                i32::from(status.is_err())
            })
        });
        let answer = match spawned {
            Ok(pid) => {
                seats.insert(pid, seat);
                FromLauncher::Spawned {
                    seat,
                    pid: pid.as_raw() as u32,
                }
            }
            Err(error) => FromLauncher::NotSpawned {
                seat,
                message: error.to_string(),
            },
        };
        channel.send(&answer, &[])?;
    }
}

/// Receives the first message, compiles the rules, answers. `None`: the rules cannot be used,
/// and the supervisor has been told.
fn prepare(channel: &Channel) -> anyhow::Result<Option<Shared>> {
    let Some((message, fds)) = channel.receive()? else {
        return Ok(None);
    };
    let ToLauncher::Prepare { config, trace } = message else {
        bail!("unexpected {message:?}")
    };
    let [pages, board, events, feedback]: [OwnedFd; 4] = fds
        .try_into()
        .map_err(|fds: Vec<_>| anyhow::anyhow!("{} descriptors", fds.len()))?;
    let engine = match compile(&config) {
        Ok((engine, skipped, wrong)) => {
            let ready = FromLauncher::Ready {
                rules: engine.rule_count(),
                skipped,
                wrong,
            };
            channel.send(&ready, &[])?;
            engine
        }
        Err(error) => {
            channel.send(
                &FromLauncher::Failed {
                    message: format!("{error:#}"),
                },
                &[],
            )?;
            return Ok(None);
        }
    };
    Ok(Some(Shared {
        config: *config,
        engine: Arc::new(engine),
        pages: WorkerPages::map(pages.as_fd()).context("mapping the workers' heartbeats")?,
        board: Board::map(board).context("mapping the workers' counters")?,
        events: EventPipe::from_fd(events),
        feedback: FeedbackSocket::from_fd(feedback),
        trace,
        utc_offset_s: process::utc_offset_s(),
    }))
}

/// The engine, how many rules were skipped, and how many of these are wrong.
fn compile(config: &Config) -> anyhow::Result<(Engine, usize, usize)> {
    let loaded = rules::load(&config.rules)?;
    let skipped = loaded.wrong + loaded.unsupported;
    // The worst first: errors must not drown in what is merely not supported yet.
    let mut diagnostics: Vec<_> = loaded.diagnostics.iter().collect();
    diagnostics.sort_by_key(|found| Reverse(found.severity));
    for diagnostic in diagnostics.into_iter().take(DIAGNOSTICS_SHOWN) {
        log::warn!("{}", diagnostic.render());
    }
    if loaded.diagnostics.len() > DIAGNOSTICS_SHOWN {
        log::warn!(
            "{} more findings in the rules: `sluice check` shows all",
            loaded.diagnostics.len() - DIAGNOSTICS_SHOWN
        );
    }
    let engine = Engine::compile(loaded.rules, Daachorse::build)?;
    Ok((engine, skipped, loaded.wrong))
}

fn report_ended(channel: &Channel, seats: &mut HashMap<Pid, Seat>) -> anyhow::Result<()> {
    loop {
        let (pid, how) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, status)) => (pid, format!("exit status {status}")),
            Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, format!("signal {signal}")),
            Ok(WaitStatus::StillAlive) | Err(nix::Error::ECHILD) => return Ok(()),
            Ok(_) | Err(nix::Error::EINTR) => continue,
            Err(error) => return Err(error).context("waitpid"),
        };
        if let Some(seat) = seats.remove(&pid) {
            channel.send(
                &FromLauncher::Exited {
                    seat,
                    pid: pid.as_raw() as u32,
                    how,
                },
                &[],
            )?;
        }
    }
}

/// SIGTERM sets `stop`; SIGINT and SIGHUP are for the supervisor.
fn heed_signals(stop: &Arc<AtomicBool>, blocked: &SigSet) -> anyhow::Result<()> {
    signal_hook::flag::register(signal_hook::consts::SIGTERM, Arc::clone(stop))
        .context("SIGTERM")?;
    let mut waiting = *blocked;
    waiting.remove(Signal::SIGINT);
    waiting.remove(Signal::SIGHUP);
    waiting.thread_unblock().context("unblocking signals")
}

/// What a forked child does before it is a worker.
fn enter_worker(
    shared: &Shared,
    seat: Seat,
    equipment: Equipment,
    blocked: &SigSet,
) -> anyhow::Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    let result =
        heed_signals(&stop, blocked).and_then(|()| worker::run(shared, seat, equipment, &stop));
    if let Err(error) = &result {
        log::error!("{seat} ends: {error:#}");
    }
    result
}
