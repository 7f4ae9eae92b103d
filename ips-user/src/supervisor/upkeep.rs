//! Upkeep of the netfilter rules: they are put in, looked at when somebody has changed rules, put
//! back, and their counters read.
//!
//! The tools for that take their time, and wait for locks that somebody else may hold for long
//! (`/run/xtables.lock`). Heartbeats must be judged meanwhile, so that the tools run in a thread
//! of their own: one piece of work at a time, and none while [`super::scaling`] installs rules or
//! the other way round, so that what comes of it is always of the rules that stand. A tool that
//! does not end is given up by [`netfilter`], which is counted here, and tried again later.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::task::{JoinError, JoinHandle, spawn_blocking};

use super::occupancy::Occupancy;
use super::{Supervisor, steering};
use crate::desk::Overload;
use crate::metrics::passed::Passed;
use crate::metrics::queue_truth::{self, QueueTruth};
use crate::netfilter::Backend::IptablesLegacy;
use crate::netfilter::{self, Backend, Fail, Installed, NetfilterError, Plan, RuleWatch};
use crate::sys::process::monotonic_ns;

/// The rules are looked at without a reason every so many times: of the legacy tables of
/// iptables nothing is heard.
const IDLE_LOOKS: u32 = 10;
/// The rules' counters are read no more often.
const COUNT_EVERY: Duration = Duration::from_secs(1);
/// So long after a queue was overloaded they are still read: what passed at its end is counted.
const COUNT_AFTER: Duration = Duration::from_secs(3);

/// The work under way, and what has come of the rest.
#[derive(Debug)]
pub(super) struct Upkeep {
    work: Option<JoinHandle<Outcome>>,
    /// Hears when somebody changes rules; `None` when the kernel lets nobody listen.
    watch: Option<RuleWatch>,
    /// Looks at the rules since the last one that nothing but time was the reason for.
    idle_looks: u32,
    /// The last attempt has failed: the rules are looked at again though nothing may be heard.
    unsettled: bool,
    /// How often the rules were put back after somebody had changed or removed them.
    pub(super) restored: u64,
    /// How often a tool was given up.
    pub(super) given_up: u64,
    /// What passed because a queue was full, and when that was looked at.
    pub(super) passed: Passed,
    counted: Instant,
    /// When a queue was last seen overloaded.
    strained: Option<Instant>,
    /// Since when a `stats` record waits for the counters, to be read from then on.
    record_due: Option<Instant>,
}

/// What has come of a piece of work.
#[derive(Debug)]
enum Outcome {
    Installed(Result<Installed, NetfilterError>),
    /// The rules are as they were; or they could not be looked at.
    Looked(Result<(), NetfilterError>),
    Restored(Result<Installed, NetfilterError>),
    Counted(Result<Reading, NetfilterError>),
}

/// The queues' counters, the rules', and the queues' again (see [`Passed::update`]).
#[derive(Debug)]
struct Reading {
    earlier: Vec<QueueTruth>,
    rules: BTreeMap<u16, u64>,
    queues: Vec<QueueTruth>,
}

impl Upkeep {
    /// Nothing to do yet; with what is known to have passed.
    pub(super) fn new(passed: Passed) -> Self {
        Self {
            work: None,
            watch: None,
            idle_looks: 0,
            unsettled: false,
            restored: 0,
            given_up: 0,
            passed,
            counted: Instant::now(),
            strained: None,
            record_due: None,
        }
    }

    /// Whether a thread is at work on the rules.
    pub(super) fn is_busy(&self) -> bool {
        self.work.is_some()
    }

    fn begin(&mut self, work: impl FnOnce() -> Outcome + Send + 'static) {
        self.work = Some(spawn_blocking(work));
    }

    /// Whether what is under way, if anything, has come to its end.
    fn has_ended(&self) -> bool {
        self.work.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits until what is under way has come to its end; never returns when nothing is.
    pub(super) async fn ended(&mut self) -> Ended {
        let Some(work) = &mut self.work else {
            return std::future::pending().await;
        };
        let outcome = work.await;
        self.work = None;
        Ended(outcome)
    }

    /// Counts an attempt that was given up.
    pub(super) fn note_failure(&mut self, error: &NetfilterError) {
        if error.was_given_up() {
            self.given_up += 1;
        }
    }

    /// Listens to changes of rules, if that is possible.
    fn listen(&mut self) {
        self.watch = RuleWatch::open()
            .inspect_err(|error| log::warn!("changes of netfilter rules cannot be heard: {error}"))
            .ok();
    }

    /// Whether the rules have to be looked at: costs a read of a socket while nobody changes any.
    fn look_is_due(&mut self, backend: Backend) -> bool {
        self.idle_looks += 1;
        let heard = self.watch.as_ref().map(RuleWatch::has_changed);
        let may_go_unheard = heard.is_none() || backend == IptablesLegacy || self.unsettled;
        let due = may_go_unheard && self.idle_looks >= IDLE_LOOKS;
        if heard != Some(true) && !due {
            return false;
        }
        self.idle_looks = 0;
        true
    }

    /// Whether more has passed.
    fn take(&mut self, reading: Result<Reading, NetfilterError>) -> bool {
        let before = self.passed.total();
        match reading {
            Ok(Reading {
                earlier,
                rules,
                queues,
            }) => self
                .passed
                .update(monotonic_ns(), &earlier, &rules, &queues),
            Err(error) => {
                self.note_failure(&error);
                log::warn!("the counters of the netfilter rules: {error}");
            }
        }
        self.passed.total() > before
    }
}

/// What [`Supervisor::upkept`] has to be told.
#[derive(Debug)]
pub(super) struct Ended(Result<Outcome, JoinError>);

/// Puts the rules back when they are not as they were, as after a firewall's reload.
fn look(installed: &Installed, plan: &Plan) -> Outcome {
    match netfilter::is_intact(installed) {
        Ok(true) => return Outcome::Looked(Ok(())),
        Ok(false) => log::warn!("somebody has changed the netfilter rules: putting them back"),
        // They may be as they were.
        Err(error) if error.was_given_up() => return Outcome::Looked(Err(error)),
        Err(error) => log::warn!("netfilter rules: {error}: putting them in anew"),
    }
    Outcome::Restored(netfilter::install(plan))
}

fn count(installed: &Installed) -> Result<Reading, NetfilterError> {
    let earlier = queue_truth::read().unwrap_or_default();
    let rules = netfilter::queue_counters(installed)?;
    let queues = queue_truth::read().unwrap_or_default();
    Ok(Reading {
        earlier,
        rules,
        queues,
    })
}

impl Supervisor {
    /// Has packets queued, and then marked. Deaths are answered while the tools run. Where a
    /// predecessor's rules are in force, they stay so when that fails, and it is tried again by
    /// [`Self::keep_up_rules`].
    pub(super) async fn put_rules_in(&mut self) -> anyhow::Result<()> {
        self.begin_install()?;
        self.attend_until(true, |this| this.upkeep.has_ended())
            .await?;
        let Ended(Ok(Outcome::Installed(installed))) = self.upkeep.ended().await else {
            bail!("installing the netfilter rules ended without a result");
        };
        match installed {
            Ok(installed) => self.rules_are_in(installed),
            Err(error) if self.rests_on_former => {
                self.not_put_in(&error);
                Ok(())
            }
            Err(error) => {
                self.upkeep.note_failure(&error);
                Err(error).context("netfilter")
            }
        }
    }

    fn begin_install(&mut self) -> anyhow::Result<()> {
        let mut plan = steering::plan(&self.config, self.seats.queued())?;
        if self.rests_on_former {
            // By another tool they would stand beside the former ones, and packets be queued
            // twice.
            plan.backend = plan.backend.or(self.left.backend);
        }
        let install = move || Outcome::Installed(netfilter::install(&plan));
        self.upkeep.begin(install);
        Ok(())
    }

    /// For the first time by this supervisor.
    fn rules_are_in(&mut self, installed: Installed) -> anyhow::Result<()> {
        log::info!("netfilter: {installed}");
        self.steering.note_rules(installed);
        self.upkeep.listen();
        self.upkeep.unsettled = false;
        self.steering
            .begin_marking(&self.config, &self.seats, self.rests_on_former)?;
        self.rests_on_former = false;
        self.record();
        // What was before is nobody's.
        self.begin_count();
        Ok(())
    }

    /// By what the rules are in the kernel: those of a former run, as long as they are in force.
    pub(super) fn backend(&self) -> Option<Backend> {
        let ours = self.steering.installed().map(|it| it.backend);
        ours.or(self.left.backend)
    }

    fn not_put_in(&mut self, error: &NetfilterError) {
        log::error!("netfilter: {error}; a former run's rules go on, tried again soon");
        self.upkeep.note_failure(error);
        self.upkeep.unsettled = true;
    }

    /// Whether a thread may begin to work on the rules.
    fn may_begin(&self) -> bool {
        !self.upkeep.is_busy() && !self.scaling.is_installing() && self.upgrade.is_none()
    }

    /// Begins whatever is due. What is heard meanwhile is for the next time.
    pub(super) fn keep_up_rules(&mut self) {
        self.note_strain();
        if !self.may_begin() {
            return;
        }
        let Some(installed) = self.steering.installed() else {
            // Those of a predecessor are in force.
            self.upkeep.idle_looks += 1;
            if self.upkeep.idle_looks >= IDLE_LOOKS {
                self.upkeep.idle_looks = 0;
                if let Err(error) = self.begin_install() {
                    log::error!("netfilter: {error:#}");
                }
            }
            return;
        };
        if self.upkeep.look_is_due(installed.backend) {
            match steering::plan(&self.config, self.seats.queued()) {
                Ok(plan) => {
                    let installed = installed.clone();
                    self.upkeep.begin(move || look(&installed, &plan));
                }
                Err(error) => log::error!("netfilter: {error:#}"),
            }
            return;
        }
        let strained = self.upkeep.strained;
        if strained.is_some_and(|at| at.elapsed() < COUNT_AFTER) {
            self.count_if_due();
        }
    }

    /// Notes when a queue may be full: then packets may pass that nobody counts but the rules.
    fn note_strain(&mut self) {
        let queues = queue_truth::read().unwrap_or_default();
        let half = self.config.queue.length / 2;
        let strained = |it: &Occupancy| {
            let mut queues = queues.iter();
            it.strain.level() != Overload::None
                || queues.any(|truth| truth.queue == it.queue && truth.waiting > half)
        };
        if self.seats.iter().any(strained) {
            self.upkeep.strained = Some(Instant::now());
        }
    }

    /// Begins to count what has passed if that was not done within the last second, and is worth
    /// two processes: if there was any overload.
    pub(super) fn count_if_due(&mut self) {
        let strained = |it: &Occupancy| it.past.overloads > 0;
        if self.upkeep.counted.elapsed() >= COUNT_EVERY
            && (self.upkeep.strained.is_some() || self.seats.iter().any(strained))
        {
            self.begin_count();
        }
    }

    /// Whether there are packets that nobody but the rules counts.
    fn counts_passed(&self) -> bool {
        self.config.fail == Fail::Open && self.config.queue.gso
    }

    /// Begins to count what passed because a queue was full; whether it has begun.
    fn begin_count(&mut self) -> bool {
        if !self.counts_passed() || !self.may_begin() {
            return false;
        }
        let Some(installed) = self.steering.installed().cloned() else {
            return false;
        };
        self.upkeep.counted = Instant::now();
        self.upkeep
            .begin(move || Outcome::Counted(count(&installed)));
        true
    }

    /// Writes a `stats` event, with what has passed until now if that can be told soon.
    pub(super) fn record_stats(&mut self) {
        if self.upkeep.record_due.take().is_some() {
            // The last record still waits: that is long enough.
            self.emit_stats();
        }
        let now = Instant::now();
        // While other work is under way it waits as well; the counters are read after that.
        let enabled = self.config.engine.stats.enabled;
        let wants_count = enabled && self.counts_passed() && self.steering.installed().is_some();
        if wants_count && (self.begin_count() || self.upkeep.is_busy()) {
            self.upkeep.record_due = Some(now);
        } else {
            self.emit_stats();
        }
    }

    /// A piece of work has come to its end.
    pub(super) fn upkept(&mut self, Ended(outcome): Ended) {
        let counted = matches!(outcome, Ok(Outcome::Counted(_)));
        let began = self.upkeep.counted;
        match outcome {
            Ok(outcome) => self.take_outcome(outcome),
            Err(error) => {
                log::error!("the work on the netfilter rules has failed: {error}");
                self.upkeep.unsettled = true;
            }
        }
        if let Some(due) = self.upkeep.record_due
            && (counted && began >= due || !self.begin_count())
        {
            self.upkeep.record_due = None;
            self.emit_stats();
        }
    }

    fn take_outcome(&mut self, outcome: Outcome) {
        let upkeep = &mut self.upkeep;
        match outcome {
            Outcome::Looked(Ok(())) => upkeep.unsettled = false,
            Outcome::Looked(Err(error)) => {
                log::warn!("the netfilter rules could not be looked at: {error}");
                upkeep.note_failure(&error);
                upkeep.unsettled = true;
            }
            // What a start could not do at once.
            Outcome::Installed(Ok(installed)) => {
                if let Err(error) = self.rules_are_in(installed) {
                    log::error!("packets are NOT marked by this program: {error:#}");
                }
            }
            Outcome::Installed(Err(error)) => self.not_put_in(&error),
            Outcome::Restored(Ok(installed)) => {
                upkeep.restored += 1;
                upkeep.unsettled = false;
                self.steering.put_back(installed);
                if upkeep.watch.is_none() {
                    upkeep.listen();
                }
            }
            Outcome::Restored(Err(error)) => {
                log::error!("packets are NOT queued: netfilter: {error}");
                upkeep.note_failure(&error);
                upkeep.unsettled = true;
            }
            Outcome::Counted(reading) => {
                if upkeep.take(reading) {
                    self.steering.pages().note_detour();
                }
            }
        }
    }

    /// Before a stop removes the rules: nothing may put them back after that. What has passed is
    /// counted for the last time; that waits, but there is nobody left to judge.
    pub(super) async fn end_upkeep(&mut self) {
        if self.upkeep.is_busy() {
            // Whatever it has put in is removed by the stop.
            let Ended(outcome) = self.upkeep.ended().await;
            if let Ok(Outcome::Counted(reading)) = outcome {
                self.upkeep.take(reading);
            }
        }
        if self.counts_passed()
            && let Some(installed) = self.steering.installed()
        {
            let reading = count(installed);
            self.upkeep.take(reading);
        }
    }
}
