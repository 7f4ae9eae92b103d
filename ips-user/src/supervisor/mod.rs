//! The supervisor: owns the queue sockets, starts and replaces workers, steers, and undoes it
//! all at the end.
//!
//! Start: rules compiled → queues bound and configured → workers serving → netfilter rules →
//! eBPF programs attached. So no packet reaches a queue that is not ready for it. Stop: the
//! programs stop marking, so that nothing more is queued; the workers empty their queues and
//! end; rules and programs are removed. With `fail = "closed"` a gate is closed before all this
//! and stays when it is over: nothing passes uninspected in between either.

mod compiling;
pub mod datasets;
mod deaths;
mod departures;
mod duty;
pub mod feedback;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod gate;
mod history;
mod inheritance;
mod instance;
pub mod launcher;
mod launcher_life;
mod launching;
pub mod message;
mod misfits;
mod moving;
mod occupancy;
mod overload;
mod rejecter;
pub mod reload;
mod saved_packets;
mod scaling;
pub mod seat;
mod seats;
pub mod set_reports;
mod signals;
mod starting;
mod status;
mod steering;
mod stop;
mod succession;
mod suspects;
pub mod upgrade;
mod upkeep;
mod vacancy;
mod watch;

use std::io;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::sync::mpsc;
use tokio::time::{Instant as TokioInstant, MissedTickBehavior, interval, sleep};

use self::datasets::Sets;
use self::deaths::Deaths;
use self::feedback::{FeedbackSocket, Message};
use self::instance::{Instance, KeptRules, Record, Started};
use self::launcher_life::Silence;
use self::launching::Launching;
use self::message::{Compiled, FromLauncher};
use self::misfits::Misfit;
pub use self::moving::Moved;
use self::rejecter::Rejecter;
use self::reload::Reloading;
pub use self::scaling::Scaled;
use self::scaling::{Scaling, Wish as ScalingWish};
use self::seat::Seat;
use self::seats::Seats;
use self::signals::{Signals, Wish};
use self::steering::Steering;
use self::upgrade::Upgrade;
use self::upkeep::Upkeep;
use crate::config::Config;
use crate::control::{self, Ask, Request, Response};
use crate::desk::watchlist::Standing;
use crate::log::pipe::{EventPipe, EventWriter};
use crate::metrics::board::Board;
use crate::netfilter::Fail;
use crate::sys::process::{monotonic_ns, take_usual_priority};
use crate::sys::readable::Readable;

/// How often heartbeats are judged, at least.
const JUDGE_EVERY: Duration = Duration::from_millis(10);
/// A heartbeat that turns stale is looked at so much later.
const ROUNDING: Duration = Duration::from_micros(200);
/// How often the interfaces are looked at, and whether waiting packets are taken.
const INTERFACES_EVERY: Duration = Duration::from_millis(500);
/// How often it is heard whether somebody has changed netfilter rules, and seen whether queues
/// may be full.
const RULES_EVERY: Duration = Duration::from_millis(500);
/// How often idle adoptions and expired convictions are swept from the maps.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// Messages handled before anything else has its turn.
const AT_ONCE: usize = 256;
/// How many launchers may end at a start before they have compiled the rules.
const LAUNCHERS_AT_START: usize = 4;
/// A launcher that lived this long is replaced at once.
const LAUNCHER_LIVED: Duration = Duration::from_secs(5);
/// Otherwise after this pause.
const LAUNCHER_PAUSE: Duration = Duration::from_secs(1);

/// How often processes are looked at that nobody reports.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// The first set of rules.
const FIRST_GENERATION: u32 = 1;

/// Reads the configuration that the instance was started with once more.
pub type ReadConfig = Box<dyn Fn() -> anyhow::Result<Config>>;

/// Runs an instance until SIGINT or SIGTERM; `read_config` is for reloads.
///
/// # Errors
/// When it cannot start, or the launcher fails for good. What it had installed is removed then
/// as well, but for the gate with `fail = "closed"`; what a dead predecessor had installed stays
/// if that was not taken over yet.
pub fn run(config: Config, read_config: ReadConfig, trace: bool) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .on_thread_start(|| {
            Signals::are_for_others();
            // Netfilter's tools may take their time over other programs' rules.
            take_usual_priority();
        })
        .build()?;
    runtime.block_on(async {
        let mut signals = Signals::new()?;
        let gated = config.fail == Fail::Closed;
        let mut supervisor = Supervisor::new(config, read_config, trace).inspect_err(|_| {
            if gated {
                log::warn!("fail is closed: a gate that has been closed stays so");
            }
        })?;
        let result = supervisor.start_and_serve(&mut signals).await;
        let failed = |error: &anyhow::Error| !error.is::<Interrupted>();
        let leaves = supervisor.seats.any_predecessor() || supervisor.rests_on_former;
        if result.as_ref().is_err_and(failed) && leaves {
            supervisor.leave();
            return result;
        }
        let stopped = supervisor.stop().await;
        result.and(stopped)
    })
}

/// A stop was wished for before everything was up. It stops a former run's workers, too.
#[derive(Debug, thiserror::Error)]
#[error("{0} during start")]
struct Interrupted(&'static str);

struct Supervisor {
    config: Config,
    read_config: ReadConfig,
    trace: bool,
    utc_offset_s: i32,
    /// When the instance started, CLOCK_MONOTONIC; predecessors that were taken over included.
    started_ns: u64,
    instance: Instance,
    writer: EventWriter,
    events: EventPipe,
    board: Board,
    rejecter: Rejecter,
    feedback: FeedbackSocket,
    /// When workers have said something through it.
    spoken: Readable,
    workers_feedback: FeedbackSocket,
    sets: Sets,
    steering: Steering,
    launching: Launching,
    /// When a launcher that has ended is to be replaced.
    launcher_due: Option<Instant>,
    launcher_since: Instant,
    launcher_restarts: u64,
    /// What it had not told at the last look.
    launcher_silence: Silence,
    seats: Seats,
    /// Workers of a predecessor that nobody can relieve.
    misfits: Vec<Misfit>,
    scaling: Scaling,
    /// What a predecessor has recorded.
    left: Record,
    upkeep: Upkeep,
    /// The program to become.
    upgrade: Option<Upgrade>,
    /// Where programs that were asked whether they can go on here come back.
    upgrade_checks: mpsc::UnboundedSender<upgrade::Checked>,
    upgrades_checked: mpsc::UnboundedReceiver<upgrade::Checked>,
    upgrades: u64,
    deaths: Deaths,
    /// Which rules and configuration are in force.
    generation: u32,
    /// What became of these rules.
    compiled: Compiled,
    /// The files that they were compiled from, as they were: what is in force does not change
    /// because another launcher has to compile it once more.
    sources: Option<OwnedFd>,
    /// What an upgrade has left of the rules that were in force, until those on disk are compiled.
    former_rules: Option<KeptRules<OwnedFd>>,
    /// The last one that was tried.
    last_generation: u32,
    reloading: Option<Reloading>,
    /// Whether what is in the kernel is this supervisor's. Before that it may be a dead
    /// predecessor's, whose workers go on inspecting.
    took_over: bool,
    /// Workers of a predecessor were taken over, and its netfilter rules are still those in force:
    /// a failure leaves them all, because a stop would take away what works.
    rests_on_former: bool,
}

impl Supervisor {
    async fn start_and_serve(&mut self, signals: &mut Signals) -> anyhow::Result<()> {
        tokio::select! {
            started = self.start() => started?,
            name = signals.stop() => {
                if !self.took_over {
                    self.take_over()?;
                }
                return Err(Interrupted(name).into());
            }
        }
        self.serve(signals).await
    }

    /// Asks for a process. A launcher that is gone cannot be asked; that is noticed soon, and
    /// then the seat is still vacant.
    fn spawn(&mut self, seat: Seat) {
        if let Err(error) = self.seats.spawn(seat, &self.launching) {
            let why = format!("{error:#}");
            log::warn!("{why}");
            self.seats.not_spawned(seat, &why, &self.config);
        }
    }

    async fn serve(&mut self, signals: &mut Signals) -> anyhow::Result<()> {
        let (asks, mut asked) = mpsc::channel::<Ask>(16);
        let socket = self.config.control_socket();
        let control = control::serve(&socket, asks)
            .with_context(|| format!("control socket {}", socket.display()))?;
        let control = tokio::spawn(control);
        let mut judge = pin!(sleep(JUDGE_EVERY));
        let mut look = ticks(INTERFACES_EVERY);
        let mut rules = ticks(RULES_EVERY);
        let mut sweep = ticks(SWEEP_EVERY);
        let mut stats = ticks(stats_period(&self.config));
        log::info!("ready");
        let result = loop {
            tokio::select! {
                wish = signals.next() => match wish {
                    Wish::Stop(name) => {
                        log::info!("{name}: stopping");
                        break Ok(());
                    }
                    Wish::ReopenLog => {
                        log::info!("SIGHUP: event log reopened");
                        self.writer.reopen();
                    }
                },
                message = self.launching.next(), if self.launcher_due.is_none() => {
                    if let Err(error) = message.and_then(|message| self.on_launcher(message)) {
                        break Err(error);
                    }
                }
                () = self.spoken.wait() => self.on_feedback(),
                () = self.steering.event() => self.steering.drain_events(),
                () = &mut judge => {
                    self.seats.judge(&self.config, &mut self.steering);
                    self.judge_overload();
                    self.seats.end_late_starters(&self.config);
                    if let Err(error) = self.look() {
                        break Err(error);
                    }
                    if let Err(error) = self.advance_scaling().await {
                        break Err(error);
                    }
                    self.pursue_reload();
                    if stats.period() != stats_period(&self.config) {
                        stats = ticks(stats_period(&self.config));
                    }
                    let next = self.seats.next_look(&self.config, &self.steering, JUDGE_EVERY);
                    // tokio's timers count milliseconds: none shall come just too early.
                    judge.as_mut().reset(TokioInstant::now() + next + ROUNDING);
                }
                () = self.sets.spoken.wait() => self.on_set_reports(),
                Some(saved) = self.sets.saved.recv() => self.on_sets_saved(saved),
                Some(checked) = self.upgrades_checked.recv() => self.upgrade_checked(checked),
                () = Upgrade::due(self.upgrade.as_ref()),
                    // What changes rules would end in the middle of it.
                    if self.upgrade.is_some() && !self.upkeep.is_busy() =>
                {
                    match self.advance_upgrade(signals).await {
                        Ok(None) => {}
                        Ok(Some(name)) => {
                            log::info!("{name}: stopping, and no upgrade");
                            break Ok(());
                        }
                        Err(error) => log::error!("not upgraded: {error:#}"),
                    }
                }
                _ = look.tick() => {
                    self.steering.follow_interfaces(&self.config);
                    self.watch_launcher();
                    self.seats.judge_progress(&self.config, &self.steering);
                    self.return_suspects();
                }
                _ = rules.tick() => self.keep_up_rules(),
                ended = self.upkeep.ended() => self.upkept(ended),
                _ = sweep.tick() => self.sweep(),
                _ = stats.tick(), if self.config.log.stats_seconds > 0 => self.record_stats(),
                Some(ask) = asked.recv() => self.on_ask(ask),
            }
            // Packets wait in the queue of who has ended: not a moment longer than the pause.
            if let Some(due) = self.seats.due_at().map(|due| due + ROUNDING)
                && TokioInstant::from_std(due) < judge.deadline()
                && self.launching.is_ready()
            {
                judge.as_mut().reset(due.into());
            }
        };
        control.abort();
        result
    }

    fn on_ask(&mut self, Ask { request, answer }: Ask) {
        // Where the client has gone, its answer is nobody's.
        match request {
            Request::Status {} => {
                let _ = answer.send(self.status_response());
            }
            Request::Upgrade { program } => {
                self.prepare_upgrade(program, answer);
            }
            Request::Reload { lenient } => self.begin_reload(lenient, answer),
            Request::Dataset { request } => self.on_set_request(&request, answer),
            Request::Scale { workers } => self.scaling.ask(ScalingWish::Scale(workers), answer),
            Request::Drain { worker } => self.scaling.ask(ScalingWish::Drain(worker), answer),
            Request::Resume { worker } => self.scaling.ask(ScalingWish::Resume(worker), answer),
        }
    }

    fn status_response(&mut self) -> Response {
        // For the next one who asks: nobody waits for the tools.
        self.count_if_due();
        match serde_json::to_value(self.snapshot()) {
            Ok(value) => Response::Ok(value),
            Err(error) => Response::Error(error.to_string()),
        }
    }

    /// A message of the launcher's; `None` when it is gone: then it is replaced.
    fn on_launcher(&mut self, message: Option<FromLauncher>) -> anyhow::Result<()> {
        match message {
            Some(FromLauncher::Spawned {
                seat,
                pid,
                generation,
            }) => {
                if self.seats.spawned(seat, pid) {
                    self.serves(seat, pid);
                }
                self.seats.has_generation(seat, pid, generation);
                self.record();
            }
            Some(FromLauncher::Exited { seat, pid, how }) => {
                let finding = self.on_exit(seat, pid, &how);
                self.look()?;
                // The disk last: nothing waits for it.
                if let Some(finding) = finding {
                    self.report(finding);
                }
            }
            Some(FromLauncher::NotSpawned { seat, message }) => {
                log::error!("{seat} could not be started: {message}");
                self.seats.not_spawned(seat, &message, &self.config);
            }
            Some(FromLauncher::Compiled {
                generation,
                compiled,
                files,
            }) if self.launching.is_ready() => self.compiled(generation, compiled, files)?,
            Some(FromLauncher::Compiled { compiled, .. }) => self.launcher_is_back(compiled)?,
            Some(FromLauncher::NotCompiled {
                generation,
                message,
            }) if self.launching.is_ready() => self.not_compiled(generation, &message)?,
            Some(FromLauncher::NotCompiled { message, .. }) => {
                log::error!("the new launcher cannot use the rules: {message}");
                self.launcher_lost();
            }
            None => self.launcher_lost(),
            Some(FromLauncher::Rejecter { pid }) => {
                self.rejecter.became(pid);
                self.record();
            }
        }
        Ok(())
    }

    /// Forgets what has been long ago, and notes for a successor what has been since.
    fn sweep(&mut self) {
        self.save_sets_if_due();
        self.steering.sweep(&self.config);
        for flow in self.deaths.forget_old(monotonic_ns()) {
            if flow.standing == Standing::Quarantined {
                self.steering.acquit(&flow.key);
            }
        }
        self.record();
    }

    /// What the workers have said, up to a bound: they can say more than this process can
    /// hear, and signals and dead workers must not wait for that.
    fn on_feedback(&mut self) {
        for _ in 0..AT_ONCE {
            match self.feedback.receive() {
                Ok(Message::Started { seat, pid }) => {
                    if self.seats.started(seat, pid) {
                        self.serves(seat, pid);
                    }
                }
                Ok(Message::Waiting { seat, pid }) => self.seats.waits(seat, pid),
                Ok(Message::Loaded {
                    seat,
                    pid,
                    generation,
                }) => self.on_loaded(seat, pid, generation),
                Ok(Message::Convict {
                    seat,
                    key,
                    signature_id,
                }) => {
                    self.steering
                        .convict(seat, &key, signature_id, &self.config);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => log::warn!("a worker sent what is no message: {error}"),
            }
        }
        self.spoken.again();
    }

    /// Notes the running processes for a successor.
    fn record(&self) {
        let record = self.for_successor();
        if let Err(error) = record.and_then(|record| Ok(self.instance.write(&record)?)) {
            log::error!("recording the processes for a successor: {error:#}");
        }
    }

    fn for_successor(&self) -> anyhow::Result<Record> {
        Ok(Record {
            launcher: self.launching.pid().and_then(Started::of),
            rejecter: self.rejecter.process(),
            workers_map: self.steering.workers_map()?,
            configured: self.config.worker_count(),
            seats: self.seats.sitting(),
            retired: self.scaling.retired().clone(),
            upgrades: self.upgrades,
            backend: self.backend(),
            history: self.history(),
            kept: None,
        })
    }

    /// Leaves everything as it is: workers of a predecessor still serve their queues.
    fn leave(&mut self) {
        log::error!("the workers, and what is installed in the kernel, are left as they are");
        self.record();
        self.launching.end();
    }
}

fn stats_period(config: &Config) -> Duration {
    Duration::from_secs(config.log.stats_seconds.max(1))
}

fn ticks(period: Duration) -> tokio::time::Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks
}
