//! Carries the plan out while the load runs, and follows what becomes of it.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use nix::sys::signal::Signal;

use super::load::{Load, Mishap};
use super::order::{Ended, Order};
use super::plan::{Event, Fault, Kind};
use super::strike::{self, Undo};
use super::watch::{REPLACED_WITHIN, Watch};
use super::{nonsense, rules};
use crate::stage::Stage;
use crate::stage::processes;
use crate::stage::report::Report;

/// Between two looks at the instance.
const LOOK: Duration = Duration::from_millis(50);
/// How long the supervisor may leave questions without an answer: while it becomes another
/// program nobody listens, and a busy machine takes its time for that.
const SILENCE: Duration = Duration::from_secs(60);
/// How long another supervisor may take to be ready: it compiles the rules first, and the
/// machine is busy with the load.
const READY: Duration = Duration::from_secs(60);
/// How long everything may take to end after the last fault.
const AFTERMATH: Duration = Duration::from_secs(80);

/// The campaign at work.
pub(super) struct Campaign<'a> {
    pub(super) stage: &'a mut Stage,
    pub(super) load: &'a mut Load,
    pub(super) watch: Watch,
    /// Processes without a seat that were killed, by a part of their name.
    pub(super) helpers_killed: Vec<(String, u32)>,
    /// What happened when.
    pub(super) history: Vec<Mishap>,
    /// What was not as it should be.
    pub(super) findings: Vec<String>,
    /// Faults carried out, by kind.
    pub(super) done: BTreeMap<Kind, u32>,
    undo: Vec<(Instant, Undo)>,
    order: Option<Order>,
    /// The good rules in the file.
    variant: u64,
    /// Whether the instance uses them for sure.
    certain: bool,
    drained: bool,
    absence: Option<Absence>,
    answered: Instant,
}

/// Nobody supervises.
enum Absence {
    /// Until then.
    Until(Instant),
    /// A new supervisor is starting, since then.
    Starting(Instant),
}

/// Whether an event has had its turn.
#[derive(PartialEq, Eq)]
enum Turn {
    Had,
    Later,
}

impl<'a> Campaign<'a> {
    pub(super) fn new(stage: &'a mut Stage, load: &'a mut Load) -> Self {
        Self {
            stage,
            load,
            watch: Watch::default(),
            helpers_killed: Vec::new(),
            history: Vec::new(),
            findings: Vec::new(),
            done: BTreeMap::new(),
            undo: Vec::new(),
            order: None,
            variant: 0,
            certain: true,
            drained: false,
            absence: None,
            answered: Instant::now(),
        }
    }

    /// Carries out the plan; returns when it is over, the time too, and everything is undone.
    pub(super) fn run(
        &mut self,
        plan: Vec<Event>,
        length: Duration,
        report: &Report,
    ) -> Result<()> {
        let started = self.load.started();
        let mut plan = VecDeque::from(plan);
        let mut over: Option<Instant> = None;
        loop {
            self.stage.interrupt.pause(LOOK)?;
            self.look(report)?;
            while let Some(event) = plan.front().filter(|event| started.elapsed() >= event.at) {
                let fault = event.fault;
                if self.perform(fault, report)? == Turn::Later {
                    break;
                }
                plan.pop_front();
            }
            if !plan.is_empty() || started.elapsed() < length {
                continue;
            }
            let since = *over.get_or_insert_with(Instant::now);
            if self.is_at_rest() {
                return Ok(());
            }
            if since.elapsed() > AFTERMATH {
                self.findings
                    .push(format!("not at rest {AFTERMATH:?} after the last fault"));
                return Ok(());
            }
        }
    }

    fn is_at_rest(&self) -> bool {
        self.undo.is_empty()
            && self.order.is_none()
            && self.absence.is_none()
            && !self.watch.is_waiting()
    }

    /// Looks at everything that goes on by itself.
    fn look(&mut self, report: &Report) -> Result<()> {
        self.follow_absence(report)?;
        self.follow_order(report)?;
        self.undo_due(report)?;
        let stalled = self.load.stalled();
        if !stalled.is_empty() {
            bail!("streams stand still: {}", stalled.join(", "));
        }
        if matches!(self.absence, Some(Absence::Until(_))) {
            return Ok(());
        }
        if !self.stage.is_running() {
            bail!("the supervisor has ended by itself");
        }
        match self.stage.glance() {
            Ok(status) => {
                self.answered = Instant::now();
                self.watch.see(status);
            }
            Err(error) if self.absence.is_none() && self.answered.elapsed() > SILENCE => {
                return Err(error.context(format!("no answer for {SILENCE:?}")));
            }
            // While it is being replaced, or the machine is busy.
            Err(_) => {}
        }
        Ok(())
    }

    fn perform(&mut self, fault: Fault, report: &Report) -> Result<Turn> {
        // Nobody would replace what is struck now.
        if self.absence.is_some() {
            return Ok(Turn::Later);
        }
        let did = match fault.kind {
            Kind::Kill
            | Kind::KillBackup
            | Kind::Stop
            | Kind::Pause
            | Kind::Pressure
            | Kind::KillLauncher
            | Kind::KillRejecter => match self.strike(fault)? {
                Some(did) => did,
                None => return Ok(Turn::Later),
            },
            Kind::Reload | Kind::BadReload | Kind::Scale | Kind::Drain | Kind::Upgrade => {
                if self.order.is_some() || self.stage.glance().is_err() {
                    return Ok(Turn::Later);
                }
                self.give_order(fault)?
            }
            Kind::Takeover => {
                // The new supervisor would begin with the broken rules.
                if matches!(&self.order, Some(order) if order.kind == Kind::BadReload) {
                    return Ok(Turn::Later);
                }
                if !self.every_queue_is_held_twice() {
                    return Ok(Turn::Later);
                }
                // Whether an order that was not carried out yet will be, nobody knows.
                if let Some(order) = self.order.take() {
                    self.certain &= order.kind != Kind::Reload;
                }
                self.stage.kill_supervisor()?;
                self.absence = Some(Absence::Until(Instant::now() + fault.lasting));
                format!(
                    "SIGKILL to the supervisor; another one after {:?}",
                    fault.lasting
                )
            }
            Kind::Hangup => {
                processes::signal(self.stage.supervisor(), Signal::SIGHUP)?;
                "SIGHUP to the supervisor".to_owned()
            }
            Kind::Nonsense => {
                nonsense::say(self.stage.control_socket(), fault.choice);
                "nonsense at the control socket".to_owned()
            }
        };
        *self.done.entry(fault.kind).or_default() += 1;
        self.note(report, did);
        Ok(Turn::Had)
    }

    /// Whether each queue's socket is open in a worker as well as in the supervisor. Without that
    /// the supervisor's end is the end of a queue, and nobody is left who could count what was
    /// in it: that everything dies is not what this campaign is about.
    fn every_queue_is_held_twice(&self) -> bool {
        // One that has been killed and not been waited for has no memory any more.
        let lives = |pid| processes::kilobytes(pid, "VmRSS").is_some();
        self.stage
            .glance()
            .is_ok_and(|status| status.seats().all(|seat| seat.pid != 0 && lives(seat.pid)))
    }

    fn give_order(&mut self, fault: Fault) -> Result<String> {
        let choice = fault.choice;
        let stage = &*self.stage;
        let give = |subcommand, arguments: &[String], refusal| {
            Order::give(stage, fault.kind, subcommand, arguments, refusal)
        };
        let (order, shown) = match fault.kind {
            Kind::Reload => {
                fs::write(stage.rules(), rules::text(choice))?;
                let order = give("reload", &[], false)?;
                (self.variant, self.certain) = (choice, true);
                (
                    order,
                    format!("sluice reload with {} rules", rules::count(choice)),
                )
            }
            Kind::BadReload => {
                let (why, text) = rules::broken(choice);
                fs::write(stage.rules(), text)?;
                (
                    give("reload", &[], true)?,
                    format!("sluice reload with {why}"),
                )
            }
            Kind::Scale => {
                let order = give("scale", &[choice.to_string()], false)?;
                (order, format!("sluice scale {choice}"))
            }
            Kind::Drain => {
                let status = stage.glance()?;
                let able: Vec<usize> = (0..status.workers.len())
                    .filter(|worker| status.workers[*worker].state == "up")
                    .collect();
                // One has to be left.
                if self.drained || able.len() < 2 {
                    return Ok("no second worker gets new flows: none drained".to_owned());
                }
                let worker = able[usize::try_from(choice)? % able.len()];
                let order = give("drain", &[worker.to_string()], false)?;
                self.drained = true;
                self.later(fault.lasting, Undo::Resume(worker));
                (
                    order,
                    format!("sluice drain {worker} for {:?}", fault.lasting),
                )
            }
            _ => (
                give("upgrade", &[], false)?,
                "sluice upgrade to the same program".to_owned(),
            ),
        };
        self.order = Some(order);
        Ok(shown)
    }

    fn follow_order(&mut self, report: &Report) -> Result<()> {
        let Some(order) = &mut self.order else {
            return Ok(());
        };
        let Some(ended) = order.ended(self.stage)? else {
            return Ok(());
        };
        let Some(order) = self.order.take() else {
            return Ok(());
        };
        match ended {
            Ended::Right(took) => self.note(report, format!("{}: done in {took:.2?}", order.shown)),
            Ended::Wrong(how) => self.find(report, format!("{} {how}", order.shown)),
        }
        match order.kind {
            Kind::BadReload => {
                // Whoever starts next shall find good rules again: those that are in use.
                fs::write(self.stage.rules(), rules::text(self.variant))?;
                self.compare_rules(report);
            }
            Kind::Reload => self.compare_rules(report),
            _ => {}
        }
        Ok(())
    }

    fn compare_rules(&mut self, report: &Report) {
        let wanted = rules::count(self.variant);
        match self.stage.glance() {
            Ok(status) if self.certain && status.rules != wanted => self.find(
                report,
                format!("{} rules are in use, not {wanted}", status.rules),
            ),
            _ => {}
        }
    }

    fn follow_absence(&mut self, report: &Report) -> Result<()> {
        match self.absence {
            Some(Absence::Until(end)) if Instant::now() >= end => {
                self.stage.start_again()?;
                self.absence = Some(Absence::Starting(Instant::now()));
            }
            Some(Absence::Starting(since)) => {
                let up = self.stage.glance().is_ok_and(|status| status.all_serve());
                if up {
                    self.absence = None;
                    self.answered = Instant::now();
                    self.note(
                        report,
                        format!("the next supervisor is ready after {:.2?}", since.elapsed()),
                    );
                } else if since.elapsed() > READY {
                    bail!("the next supervisor is not ready after {READY:?}");
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Undoes something after a while.
    pub(super) fn later(&mut self, after: Duration, undo: Undo) {
        self.undo.push((Instant::now() + after, undo));
    }

    fn undo_due(&mut self, report: &Report) -> Result<()> {
        let now = Instant::now();
        let due: Vec<_> = self
            .undo
            .extract_if(.., |(at, _)| *at <= now)
            .map(|(_, undo)| undo)
            .collect();
        for undo in due {
            match undo {
                Undo::Continue(pid) => {
                    processes::signal(pid, Signal::SIGCONT)?;
                }
                Undo::Limit(pid, limits) => strike::limit(pid, &limits)?,
                Undo::Resume(worker) => {
                    if self.order.is_some() || self.absence.is_some() {
                        self.later(LOOK, Undo::Resume(worker));
                        continue;
                    }
                    self.drained = false;
                    // It may have been dissolved, or its supervisor with what it knew.
                    let drained = self.watch.last().is_some_and(|status| {
                        let seat = status.workers.get(worker);
                        seat.is_some_and(|seat| seat.state.starts_with("drain"))
                    });
                    if drained {
                        let arguments = [worker.to_string()];
                        let order =
                            Order::give(self.stage, Kind::Drain, "resume", &arguments, false)?;
                        self.order = Some(order);
                        self.note(report, format!("sluice resume {worker}"));
                    }
                }
            }
        }
        Ok(())
    }

    /// After the end: each helper that was killed has a successor.
    pub(super) fn examine_helpers(&mut self) -> Result<()> {
        let members = processes::of(self.stage.lab.gateway())?;
        for (name, pid) in &self.helpers_killed {
            let successor = members
                .iter()
                .any(|member| member.name.contains(name) && member.pid != *pid);
            if !successor {
                self.findings.push(format!(
                    "{name}, pid {pid}, was killed and nobody took its place"
                ));
            }
        }
        for struck in self.watch.unanswered() {
            self.findings.push(format!(
                "{} at {:.2?}: not replaced within {REPLACED_WITHIN:?}",
                struck.fault, struck.at
            ));
        }
        Ok(())
    }

    fn note(&mut self, report: &Report, what: String) {
        let at = self.load.started().elapsed();
        report.note(&format!("{:7.2} s  {what}", at.as_secs_f32()));
        self.history.push(Mishap { at, what });
    }

    fn find(&mut self, report: &Report, what: String) {
        self.note(report, format!("WRONG: {what}"));
        self.findings.push(what);
    }
}
