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

use anyhow::{Context, bail};
use nix::net::if_::if_nametoindex;
use nix::sys::prctl;
use tokio::sync::mpsc;
use tokio::time::{Instant as TokioInstant, MissedTickBehavior, interval, sleep, timeout};

use self::datasets::Sets;
use self::deaths::{Deaths, End, Finding};
use self::feedback::{FeedbackSocket, Message};
use self::history::History;
use self::inheritance::Inheritance;
use self::instance::{Instance, KeptRules, Record, Started};
use self::launching::Launching;
use self::message::{Compiled, FromLauncher};
use self::misfits::{Misfit, Sorting};
pub use self::moving::Moved;
use self::rejecter::Rejecter;
use self::reload::Reloading;
pub use self::scaling::Scaled;
use self::scaling::{Scaling, Wish as ScalingWish};
use self::seat::Seat;
use self::seats::Seats;
use self::signals::{Signals, Wish};
use self::steering::{Steering, nanoseconds};
use self::upgrade::Upgrade;
use self::upkeep::Upkeep;
use crate::config::Config;
use crate::control::{self, Ask, Request, Response};
use crate::desk::watchlist::{Standing, Watched};
use crate::flow::Timestamp;
use crate::loader::LoadError;
use crate::log::eve;
use crate::log::pipe::{Emitted, EventPipe, EventWriter};
use crate::metrics::board::Board;
use crate::netfilter::Fail;
use crate::source::Disposition;
use crate::sys::process::{
    monotonic_ns, set_nice, set_oom_score, take_usual_priority, utc_offset_s, wall_us,
};
use crate::sys::readable::Readable;

/// What the kernel's OOM killer is told of supervisor and launcher: a worker goes first.
const OOM_SCORE_ADJUSTMENT: i32 = -900;
/// The first of all, sched(7).
const LEAST_NICE: i32 = -20;
/// By how much supervisor and launcher, and workers until they serve, go before those who do: some
/// three times as much of a CPU that is not enough for all.
const LEAD: i32 = 5;
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
/// How long the workers of a predecessor may take to be relieved.
const SUCCEED_WITHIN: Duration = Duration::from_secs(60);
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
    /// How many times in a row it has not told what it must know.
    launcher_silent: u32,
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
    /// Claims the instance and makes what needs no undoing in the kernel.
    fn new(config: Config, read_config: ReadConfig, trace: bool) -> anyhow::Result<Self> {
        // Before there is a second thread: then it cannot be told any more.
        let utc_offset_s = utc_offset_s();
        let instance = Instance::claim(&config.control.directory, &config.name)?;
        // Before anything else: should this start be cut short, nothing passes uninspected.
        let left = instance.read()?;
        match gate::close_claimed(&config) {
            Ok(true) => log::info!("the gate is closed until packets are steered"),
            Ok(false) => {}
            // Its rules let nothing pass uninspected either.
            Err(error) if left.is_served() => {
                log::error!("the gate could not be closed, what runs goes on: {error:#}");
            }
            Err(error) => return Err(error),
        }
        if let Err(error) = set_oom_score(OOM_SCORE_ADJUSTMENT) {
            log::warn!(
                "oom_score_adj {OOM_SCORE_ADJUSTMENT} (CAP_SYS_RESOURCE?): {error}; without memory \
                 workers still end first, but other programs may end later"
            );
        }
        // Packets wait for what this process and the launcher do when a worker ends: not behind
        // the other workers.
        let nice = (config.workers.nice - LEAD).max(LEAST_NICE);
        if let Err(error) = set_nice(nice) {
            log::warn!("scheduling priority {nice} (CAP_SYS_NICE?): {error}");
        }
        check_interfaces(&config, left.is_served())?;
        std::fs::create_dir_all(&config.log.directory)
            .with_context(|| format!("creating {}", config.log.directory.display()))?;
        // Workers whose launcher has ended are this process's to forget.
        prctl::set_child_subreaper(true).context("PR_SET_CHILD_SUBREAPER")?;
        let workers = left.workers(&config);
        let mut inheritance = Inheritance::of(&left);
        let logs = config.event_logs(utc_offset_s)?;
        let (writer, events) = match inheritance.events.take() {
            Some(ends) => EventWriter::resume(ends, logs)?,
            None => EventWriter::start(logs, config.log.buffer)?,
        };
        let now_ns = monotonic_ns();
        let goes_on = inheritance.board.is_some();
        let mut history = History::after(&left, goes_on, now_ns);
        let (mut retired, upgrades) = history::totals(&left, goes_on);
        let board = inheritance.board.take().map_or_else(Board::create, Ok)?;
        let (feedback, workers_feedback) = match inheritance.feedback.take() {
            Some(ends) => ends.map(FeedbackSocket::from_fd).into(),
            None => FeedbackSocket::pair()?,
        };
        let spoken = Readable::of(&feedback)?;
        let sets = Sets::new(std::mem::take(&mut inheritance.sets)).context("sets")?;
        let (upgrade_checks, upgrades_checked) = mpsc::unbounded_channel();
        let deaths = Deaths::new(
            &config,
            inheritance.watchlist.take(),
            history.deaths,
            now_ns,
        )
        .context("the list of suspects")?;
        let launching = Launching::start()?;
        // Last: from here on there is something in the kernel that `stop` removes.
        // The kernel's verifier gives up when a signal comes (EAGAIN), and what aya tries then,
        // with the verifier's log, takes seconds.
        let steering = Signals::undisturbed(|| Steering::load(&config, &workers))??;
        let beats_here = steering.workers_map()? == left.workers_map;
        let mut sorting = Sorting::of(&left, inheritance.seats, beats_here);
        let seats = Seats::new(&config, &workers, &mut sorting.usable, &mut history)
            .context("memory shared with the workers")?;
        // Those that a predecessor had bound: others are yet to be.
        let bound = seats.iter().filter(|it| it.socket().is_some());
        let bound: Vec<_> = bound.map(|it| it.queue).collect();
        let mut passed = std::mem::take(&mut history.passed).resume(now_ns, &bound);
        history.retire(&mut retired);
        let queues: Vec<_> = seats.iter().map(|it| it.queue).collect();
        retired.queue_passed += passed.close_others(&queues);
        let generation = history.next_generation();
        Ok(Self {
            trace,
            utc_offset_s,
            started_ns: history.started_ns,
            instance,
            writer,
            events,
            board,
            rejecter: Rejecter::new(
                inheritance.tally.take(),
                left.rejecter,
                history.rejecter_restarts,
            )
            .context("the rejecter's counters")?,
            feedback,
            spoken,
            workers_feedback,
            sets,
            steering,
            launching,
            launcher_due: None,
            launcher_since: Instant::now(),
            launcher_restarts: history.launcher_restarts,
            launcher_silent: 0,
            seats,
            misfits: sorting.misfits(),
            scaling: Scaling::after(retired),
            upkeep: Upkeep::new(passed),
            upgrade: None,
            upgrade_checks,
            upgrades_checked,
            upgrades,
            left,
            deaths,
            generation,
            compiled: Compiled::default(),
            sources: None,
            former_rules: inheritance.rules.take(),
            last_generation: generation,
            reloading: None,
            took_over: false,
            rests_on_former: false,
            read_config,
            config,
        })
    }

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

    async fn start(&mut self) -> anyhow::Result<()> {
        self.prepare_launcher().await?;
        // Only now: a predecessor's workers have gone on inspecting.
        self.take_over()?;
        self.shut_out_quarantined();
        // The launcher, by which a successor finds workers that were never recorded.
        self.record();
        self.seats.open_queues(&self.config)?;
        for seat in self.seats.all() {
            self.spawn(seat);
        }
        self.wait_for_workers().await?;
        self.put_rules_in().await?;
        log::info!(
            "{}: {} workers and a backup serve {} queues from {} on, {} rules ({} skipped)",
            self.config.name,
            self.seats.workers(|_| true).len(),
            self.seats.all().len(),
            self.config.queue.first,
            self.compiled.rules,
            self.compiled.skipped
        );
        Ok(())
    }

    /// Ends what a predecessor left running, except for the workers that will hand over their
    /// queues. From here on a failure undoes everything, as long as there are no such workers.
    fn take_over(&mut self) -> anyhow::Result<()> {
        self.let_misfits_go()?;
        let mut staying: Vec<_> = self.seats.processes().collect();
        let workers = staying.len();
        if workers > 0 {
            // It ends by itself when the last of them does.
            staying.extend(self.left.rejecter);
        }
        let mut ending = self.left.alive();
        // The launcher's own children are among those that nobody recorded.
        let own = Started::of(std::process::id());
        ending.retain(|it| !staying.contains(it) && Some(*it) != own);
        instance::end(&ending)?;
        if let Some(launcher) = self.left.launcher {
            launcher.reap();
        }
        if workers > 0 {
            log::info!("{workers} workers of a former run are taken over");
        } else if !ending.is_empty() {
            let ended = ending.len();
            log::warn!("a former run was not stopped cleanly: {ended} of its processes ended");
        }
        self.steering.vacate(&self.seats);
        self.took_over = true;
        self.rests_on_former = workers > 0;
        Ok(())
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

    /// Until each has beaten once: before that nothing is steered.
    ///
    /// A start from nothing fails with its first process that does. When workers are taken over
    /// there is something to lose, and what ends is replaced as at any other time.
    async fn wait_for_workers(&mut self) -> anyhow::Result<()> {
        let succeeding = self.seats.any_predecessor();
        let mut patience = Duration::from_millis(self.config.workers.start_ms);
        if succeeding {
            patience = patience.max(SUCCEED_WITHIN);
        }
        let all = self.attend_until(succeeding, |this| this.seats.all_up());
        timeout(patience, all)
            .await
            .with_context(|| format!("no heartbeat from every worker in {patience:?}"))?
    }

    /// Answers what launcher and workers say during a start, until `done`; `replacing` what ends
    /// meanwhile, or failing with it.
    async fn attend_until(
        &mut self,
        replacing: bool,
        done: impl Fn(&Self) -> bool,
    ) -> anyhow::Result<()> {
        // One for all rounds: what workers say may come more often.
        let mut look = ticks(LOOK_EVERY);
        while !done(self) {
            tokio::select! {
                message = self.launching.next(), if self.launcher_due.is_none() => {
                    match message? {
                        None if !replacing => bail!("the launcher has ended"),
                        message => self.on_launcher(message)?,
                    }
                }
                () = self.spoken.wait() => self.on_feedback(),
                _ = look.tick() => if replacing {
                    self.seats.judge(&self.config, &mut self.steering);
                    self.look()?;
                    self.seats.end_late_starters(&self.config);
                }
            }
            if !replacing && let Some((seat, how)) = self.seats.first_dead() {
                bail!("{seat} ended at its start: {how}");
            }
        }
        Ok(())
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

    /// Also while the rules are compiled at a start: those who serve die of packets then as well.
    pub(super) fn look_after_predecessors(&mut self) {
        self.rejecter.look_after_former();
        let pages = self.steering.pages();
        let departed = self.seats.look_after_predecessors(&self.config, pages);
        if departed.is_empty() {
            return;
        }
        let mut findings = Vec::new();
        for departed in &departed {
            let seat = departed.seat;
            if departed.untimely
                && let Some(occupancy) = self.seats.get(seat)
            {
                let end = End {
                    seat,
                    pid: departed.pid,
                    how: departed.how.clone(),
                };
                let finding = self.deaths.ended(end, &occupancy.desk, monotonic_ns());
                self.act_on(&finding);
                findings.push(finding);
            }
            if departed.leaves_nobody() {
                self.steering.set_down(seat);
            }
            self.seats.let_go_on(departed);
        }
        // Before that the record is the former supervisor's, and says what it has started.
        if self.took_over {
            self.record();
        }
        for finding in findings {
            self.report(finding);
        }
    }

    /// What has to be looked at often because nobody tells.
    fn look(&mut self) -> anyhow::Result<()> {
        self.look_after_predecessors();
        for seat in self.seats.given_up() {
            self.steering.set_down(seat);
        }
        for (seat, pid) in self.seats.look_after_orphans(&self.config) {
            if let Some(finding) = self.examine(seat, pid) {
                self.report(finding);
            }
        }
        // Before there is somebody again who may receive what waits.
        self.seats
            .settle_overdue(&self.config, &self.board, self.steering.pages());
        if self.launcher_due.is_some_and(|due| due <= Instant::now()) {
            self.replace_launcher();
        }
        if self.launching.is_ready() {
            for seat in self.seats.due() {
                self.spawn(seat);
            }
        }
        Ok(())
    }

    /// A process has ended. What is known of its last packet is passed on before any flow of its
    /// seat can go to the backup.
    fn on_exit(&mut self, seat: Seat, pid: u32, how: &str) -> Option<Finding> {
        if !self.seats.exited(seat, pid, how, &self.config) {
            return None;
        }
        self.examine(seat, pid)
    }

    /// What the process that had a seat held in its hands, and what follows from that.
    fn examine(&mut self, seat: Seat, pid: u32) -> Option<Finding> {
        let occupancy = self.seats.iter().find(|it| it.seat == seat)?;
        if occupancy.predecessor.is_some() {
            // What the desk says is in hand is with him, and he serves.
            return None;
        }
        let end = End {
            seat,
            pid,
            how: occupancy.last_exit().unwrap_or_default().to_owned(),
        };
        let now_ns = monotonic_ns();
        let finding = self.deaths.ended(end, &occupancy.desk, now_ns);
        let replaceable = self.launching.is_ready();
        if self
            .seats
            .of(seat)
            .is_none_or(|it| it.gives_up(replaceable))
        {
            self.steering.set_down(seat);
        }
        self.act_on(&finding);
        Some(finding)
    }

    /// Has the programs know what is thought of flows now.
    fn act_on(&mut self, finding: &Finding) {
        if let Some(flow) = &finding.forgotten {
            self.steering.acquit(&flow.key);
        }
        if let Some(flow) = &finding.accused {
            self.shut_out(flow);
        }
    }

    /// Has the programs drop a flow that is quarantined, if that is the policy.
    fn shut_out(&mut self, flow: &Watched) {
        if flow.standing == Standing::Quarantined && self.config.quarantine() == Disposition::Drop {
            let quarantine = nanoseconds(self.deaths.quarantine());
            let until_ns = flow.since_ns.saturating_add(quarantine);
            self.steering.shut_out(&flow.key, until_ns);
        }
    }

    /// Those of a predecessor: the maps may not be the ones that it had, nor the policy.
    fn shut_out_quarantined(&mut self) {
        for flow in self.deaths.flows().to_vec() {
            self.shut_out(&flow);
        }
    }

    fn report(&mut self, finding: Finding) {
        let now = Timestamp {
            wall_us: wall_us(),
            monotonic_ns: monotonic_ns(),
        };
        let report = self.deaths.report(finding, now.wall_us);
        let flow = report.flow.as_ref();
        let line = eve::incident(now, self.utc_offset_s, flow, &report.details);
        if self.events.emit(&line) == Emitted::Lost {
            log::warn!("an event was lost: the event writer does not keep up");
        }
    }

    fn serves(&mut self, seat: Seat, pid: u32) {
        self.steering.set_up(seat);
        self.return_suspects();
        log::info!("{seat} serves its queue, pid {pid}");
    }

    /// Suspects go back from the backup, which does not inspect them, to their own workers.
    fn return_suspects(&mut self) {
        for flow in self.deaths.flows() {
            if flow.standing == Standing::Suspect {
                self.steering.give_back(&flow.key);
            }
        }
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

/// That there are all of them, in the words of the loader, which would find it last. One that is
/// absent at this moment is no reason to end workers that serve: it is waited for then.
fn check_interfaces(config: &Config, is_served: bool) -> Result<(), LoadError> {
    for interface in &config.interfaces {
        if if_nametoindex(interface.as_str()).is_err() {
            let absent = LoadError::NoInterface(interface.clone());
            if !is_served {
                return Err(absent);
            }
            log::warn!("{absent}: what runs goes on without it until it comes");
        }
    }
    Ok(())
}

fn stats_period(config: &Config) -> Duration {
    Duration::from_secs(config.log.stats_seconds.max(1))
}

fn ticks(period: Duration) -> tokio::time::Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absent_interface_ends_a_start_but_nothing_that_serves() {
        let config = Config {
            interfaces: vec!["lo".into(), "absent0".into()],
            ..Config::default()
        };
        let error = check_interfaces(&config, false).unwrap_err();
        assert!(error.to_string().contains("absent0"), "{error}");
        check_interfaces(&config, true).unwrap();
    }
}
