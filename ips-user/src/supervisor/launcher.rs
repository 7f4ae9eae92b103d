//! The launcher: a process with one thread that forks the workers, and for each set of rules a
//! process that compiles it. The compiled rules are an image that all workers map; the launcher
//! itself only has its file, and the configuration that goes with it.
//!
//! Its standard input is the socket to the supervisor. When that ends it leaves; the workers
//! stay, because they hold the queues.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context, bail};
use ips_common::{MarkLayout, Steer};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::compiling::{Origin, compile};
use super::feedback::FeedbackSocket;
use super::message::{Channel, Compiled, Equipment, FromLauncher, ToLauncher};
use super::seat::Seat;
use super::set_reports::SetReports;
use crate::config::Config;
use crate::desk::hands::Hands;
use crate::desk::watchlist::Watchlist;
use crate::detect::dataset::Catalogue;
use crate::detect::{Building, Image, ImageError};
use crate::log::pipe::EventPipe;
use crate::maps::WorkerPages;
use crate::metrics::board::Board;
use crate::rejecter::{Keeper, Place, Tally};
use crate::rules::Sources;
use crate::sys::process::{self, set_name, take_usual_priority};
use crate::sys::sandbox::{Account, Support};
use crate::worker::{self, Dangers, Orders, Shared};

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

    let Some((shared, rejecter)) = prepare(&channel)? else {
        return Ok(());
    };
    let mut launcher = Launcher {
        channel,
        shared,
        rejecter,
        blocked,
        seats: HashMap::new(),
        current: None,
        building: None,
    };
    loop {
        let due = [
            launcher.look_after_rejecter()?,
            launcher.look_after_compiling()?,
        ];
        let due = due.into_iter().flatten().min();
        let patience = due.map_or(PollTimeout::NONE, milliseconds);
        let mut ready = [
            PollFd::new(launcher.channel.as_fd(), PollFlags::POLLIN),
            PollFd::new(children_ended.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut ready, patience) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error).context("poll"),
        }
        let spoken = ready[0].any().unwrap_or(false);
        while children_ended.read_signal().context("signalfd")?.is_some() {}
        launcher.reap()?;
        if !spoken {
            continue;
        }
        let Some((message, fds)) = launcher.channel.receive()? else {
            launcher.leave();
            return Ok(());
        };
        match message {
            ToLauncher::Compile {
                generation,
                lenient,
                config,
            } => launcher.compile(generation, lenient, *config, fds.into_iter().next())?,
            ToLauncher::Spawn { seat, succeeds } => launcher.spawn(seat, succeeds, fds)?,
            other @ ToLauncher::Prepare { .. } => bail!("unexpected {other:?}"),
        }
    }
}

/// Receives the first message. `None`: the supervisor is gone.
fn prepare(channel: &Channel) -> anyhow::Result<Option<(Shared, Keeper)>> {
    let Some((message, fds)) = channel.receive()? else {
        return Ok(None);
    };
    let ToLauncher::Prepare { config, trace } = message else {
        bail!("unexpected {message:?}")
    };
    let [
        pages,
        board,
        events,
        feedback,
        tally,
        watchlist,
        hands,
        sets,
        set_reports,
    ]: [OwnedFd; 9] = fds
        .try_into()
        .map_err(|fds: Vec<_>| anyhow::anyhow!("{} descriptors", fds.len()))?;
    let account = Account::named(&config.sandbox.user)?;
    let support = support(&config);
    let layout = MarkLayout::new(config.steering.mark_mask, config.worker_count())?;
    let place = Place {
        mark: layout.bits(Steer::Bypass),
        account,
        landlock: config.sandbox.landlock,
        seccomp: config.sandbox.seccomp,
        support,
    };
    let tally = Tally::map(tally).context("mapping the rejecter's counters")?;
    let (rejecter, rejects) = Keeper::new(place, tally).context("the rejecter's socket")?;
    let shared = Shared {
        pages: WorkerPages::map(pages.as_fd()).context("mapping the workers' heartbeats")?,
        board: Board::map(board).context("mapping the workers' counters")?,
        dangers: Dangers {
            watchlist: Watchlist::map(watchlist).context("mapping the list of flows")?,
            hands: Hands::map(hands).context("mapping the workers' hands")?,
        },
        events: EventPipe::from_fd(events),
        feedback: FeedbackSocket::from_fd(feedback),
        sets,
        set_reports: SetReports::from_fd(set_reports),
        rejects,
        account,
        support,
        trace,
        utc_offset_s: process::utc_offset_s(),
    };
    Ok(Some((shared, rejecter)))
}

/// What the kernel has of the sandbox; says what is missing, once for all processes.
fn support(config: &Config) -> Support {
    let support = Support::of_kernel();
    let sandbox = &config.sandbox;
    if sandbox.landlock && support.landlock.is_none() {
        log::warn!("the kernel has no Landlock, or it is not enabled: workers do without");
    }
    if sandbox.seccomp && !support.seccomp {
        log::warn!("the kernel cannot filter system calls: workers do without");
    }
    support
}

fn milliseconds(duration: Duration) -> PollTimeout {
    // Rounded up: not before it is due.
    PollTimeout::try_from(duration.as_millis() + 1).unwrap_or(PollTimeout::MAX)
}

/// What it has and whom it has started.
struct Launcher {
    channel: Channel,
    shared: Shared,
    rejecter: Keeper,
    /// Signals that are blocked here, and not in workers.
    blocked: SigSet,
    seats: HashMap<Pid, Seat>,
    /// What workers begin with.
    current: Option<(Config, Image)>,
    building: Option<Underway>,
}

/// What is being compiled.
struct Underway {
    config: Config,
    origin: Origin,
    /// Of the sets, for the supervisor.
    sets: File,
    building: Building,
}

impl Underway {
    /// How long it may still take.
    fn left(&self) -> Duration {
        self.building.left_of(self.config.compile_within())
    }
}

impl Launcher {
    /// Starts the rejecter when it is due; returns how long nothing else is.
    fn look_after_rejecter(&mut self) -> anyhow::Result<Option<Duration>> {
        // Without rules there are no workers that could ask it.
        if self.current.is_none() {
            return Ok(None);
        }
        if self.rejecter.due_in().is_some()
            && let Some(pid) = self.rejecter.start()
        {
            let pid = Some(pid.as_raw() as u32);
            self.channel.send(&FromLauncher::Rejecter { pid }, &[])?;
        }
        Ok(self.rejecter.due_in())
    }

    /// Gives up what has been compiling for too long; returns how long nothing else is.
    fn look_after_compiling(&mut self) -> anyhow::Result<Option<Duration>> {
        let left = self.building.as_ref().map(Underway::left);
        if left.is_none_or(|left| !left.is_zero()) {
            return Ok(left);
        }
        if let Some(late) = self.building.take() {
            let generation = late.building.generation();
            let error = late.building.give_up(late.config.compile_within());
            self.not_compiled(generation, error)?;
        }
        Ok(None)
    }

    /// The supervisor is gone.
    fn leave(self) {
        let Self {
            seats,
            shared,
            rejecter,
            ..
        } = self;
        if seats.is_empty() {
            // Nobody is left who asks for rejections, once this process does not either.
            drop(shared);
            rejecter.end();
        }
    }

    /// Has the rules compiled by another process; [`Self::reap`] answers when that has ended.
    fn compile(
        &mut self,
        generation: u32,
        lenient: bool,
        config: Config,
        kept: Option<OwnedFd>,
    ) -> anyhow::Result<()> {
        let underway = match self.building {
            Some(_) => Err("other rules are being compiled".to_owned()),
            None => begin(generation, lenient, config, kept).map_err(|error| error.to_string()),
        };
        match underway {
            Ok(underway) => self.building = Some(underway),
            Err(message) => {
                let answer = FromLauncher::NotCompiled {
                    generation,
                    message,
                };
                self.channel.send(&answer, &[])?;
            }
        }
        Ok(())
    }

    /// The compiling process has ended.
    fn compiled(&mut self, underway: Underway, how: &WaitStatus) -> anyhow::Result<()> {
        let Underway {
            config,
            origin,
            sets,
            building,
        } = underway;
        let generation = building.generation();
        match building.finish(how) {
            Ok(image) => {
                let sources = origin.into_kept();
                let summary = image.summary();
                let answer = FromLauncher::Compiled {
                    generation,
                    compiled: Compiled {
                        rules: summary.rules,
                        skipped: summary.skipped,
                        wrong: summary.wrong,
                        image_bytes: image.bytes(),
                        source_bytes: sources.metadata()?.len(),
                        peak_bytes: image.peak_bytes(),
                        took_ms: image.took().as_millis() as u64,
                    },
                    files: None,
                };
                let files = [image.as_fd(), sources.as_fd(), sets.as_fd()];
                self.channel.send(&answer, &files)?;
                self.current = Some((config, image));
            }
            Err(error) => {
                self.not_compiled(generation, error)?;
            }
        }
        Ok(())
    }

    fn not_compiled(&self, generation: u32, error: ImageError) -> anyhow::Result<()> {
        let message = format!("{:#}", anyhow::Error::from(error));
        let answer = FromLauncher::NotCompiled {
            generation,
            message,
        };
        Ok(self.channel.send(&answer, &[])?)
    }

    fn spawn(&mut self, seat: Seat, succeeds: bool, fds: Vec<OwnedFd>) -> anyhow::Result<()> {
        let spawned = Equipment::of(fds).and_then(|equipment| {
            let (_, image) = self
                .current
                .as_ref()
                .ok_or_else(|| io::Error::other("no rules yet"))?;
            let generation = image.generation();
            process::fork(|| {
                // The child must not keep the launcher's ends open, nor its blocked signals.
                let ends = [
                    self.channel.as_raw_fd(),
                    self.rejecter.requests().as_raw_fd(),
                ];
                for end in ends {
                    if let Err(error) = nix::unistd::close(end) {
                        log::warn!("{seat}: closing the launcher's socket: {error}");
                    }
                }
                let status = self.enter_worker(seat, succeeds, equipment);
                i32::from(status.is_err())
            })
            .map(|pid| (pid, generation))
        });
        let answer = match spawned {
            Ok((pid, generation)) => {
                self.seats.insert(pid, seat);
                FromLauncher::Spawned {
                    seat,
                    pid: pid.as_raw() as u32,
                    generation,
                }
            }
            Err(error) => FromLauncher::NotSpawned {
                seat,
                message: error.to_string(),
            },
        };
        Ok(self.channel.send(&answer, &[])?)
    }

    /// What a forked child does before it is a worker.
    fn enter_worker(
        &mut self,
        seat: Seat,
        succeeds: bool,
        equipment: Equipment,
    ) -> anyhow::Result<()> {
        // The files that are being filled are no matter of its: it would keep them in memory.
        self.building = None;
        let stop = Arc::new(AtomicBool::new(false));
        let result = heed_signals(&stop, &self.blocked)
            .and_then(|()| self.orders())
            .and_then(|orders| worker::run(&self.shared, orders, seat, equipment, succeeds, &stop));
        if let Err(error) = &result {
            log::error!("{seat} ends: {error:#}");
        }
        result
    }

    /// In a forked child: the present rules, mapped; the image's file is closed.
    fn orders(&mut self) -> anyhow::Result<Orders> {
        let (config, image) = self.current.take().context("no rules yet")?;
        Ok(Orders {
            config,
            engine: image.map().context("mapping the rules")?,
        })
    }

    /// Tells the supervisor about every process that has ended.
    fn reap(&mut self) -> anyhow::Result<()> {
        loop {
            let ended = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) | Err(nix::Error::ECHILD) => return Ok(()),
                Ok(ended) => ended,
                Err(nix::Error::EINTR) => continue,
                Err(error) => return Err(error).context("waitpid"),
            };
            let (pid, how) = match ended {
                WaitStatus::Exited(pid, status) => (pid, format!("exit status {status}")),
                WaitStatus::Signaled(pid, signal, _) => (pid, format!("signal {signal}")),
                _ => continue,
            };
            if let Some(underway) = self
                .building
                .take_if(|underway| underway.building.process() == pid)
            {
                self.compiled(underway, &ended)?;
            } else if self.rejecter.ended(pid, &how) {
                self.channel
                    .send(&FromLauncher::Rejecter { pid: None }, &[])?;
            } else if let Some(seat) = self.seats.remove(&pid) {
                self.channel.send(
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
}

/// Forks the process that compiles, from `kept` files or from those on disk.
fn begin(
    generation: u32,
    lenient: bool,
    config: Config,
    kept: Option<OwnedFd>,
) -> io::Result<Underway> {
    let origin = match kept {
        Some(kept) => Origin::Kept(File::from(kept)),
        None => Origin::Disk(Sources::file()?),
    };
    let sets = Catalogue::file()?;
    let building = Image::build(generation, || {
        take_usual_priority();
        compile(&config, lenient, &origin, &sets)
    })?;
    Ok(Underway {
        config,
        origin,
        sets,
        building,
    })
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
