//! The start: what a predecessor has left is taken over, what is missing is made.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::net::if_::if_nametoindex;
use nix::sys::prctl;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::datasets::Sets;
use super::deaths::Deaths;
use super::feedback::FeedbackSocket;
use super::history::{self, History};
use super::inheritance::Inheritance;
use super::instance::{self, Instance, Started};
use super::launcher_life::Silence;
use super::launching::Launching;
use super::message::Compiled;
use super::misfits::Sorting;
use super::rejecter::Rejecter;
use super::scaling::Scaling;
use super::seats::Seats;
use super::signals::Signals;
use super::steering::Steering;
use super::upkeep::Upkeep;
use super::{LOOK_EVERY, ReadConfig, Supervisor, gate, ticks};
use crate::config::Config;
use crate::loader::LoadError;
use crate::log::pipe::EventWriter;
use crate::metrics::board::Board;
use crate::sys::process::{monotonic_ns, set_nice, set_oom_score, utc_offset_s};
use crate::sys::readable::Readable;

/// What the kernel's OOM killer is told of supervisor and launcher: a worker goes first.
const OOM_SCORE_ADJUSTMENT: i32 = -900;
/// The first of all, sched(7).
const LEAST_NICE: i32 = -20;
/// By how much supervisor and launcher, and workers until they serve, go before those who do: some
/// three times as much of a CPU that is not enough for all.
const LEAD: i32 = 5;
/// How long the workers of a predecessor may take to be relieved.
const SUCCEED_WITHIN: Duration = Duration::from_secs(60);

impl Supervisor {
    /// Claims the instance and makes what needs no undoing in the kernel.
    pub(super) fn new(
        config: Config,
        read_config: ReadConfig,
        trace: bool,
    ) -> anyhow::Result<Self> {
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
            launcher_silence: Silence::none(),
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

    pub(super) async fn start(&mut self) -> anyhow::Result<()> {
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
    pub(super) fn take_over(&mut self) -> anyhow::Result<()> {
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
    pub(super) async fn attend_until(
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
