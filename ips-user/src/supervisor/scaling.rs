//! Workers that come and go at run time: `sluice scale`, `drain` and `resume`.
//!
//! A new worker serves its queue and has its rule before the table names it; one that goes is in
//! no table, holds no flow, and has an empty queue before its rule and its queue are removed. So
//! no packet is marked for a queue that nobody serves. In between [`Moving`] changes the table.
//!
//! One change at a time; further requests wait. [`Supervisor::advance_scaling`] is called often
//! and never waits in place: heartbeats are judged and dead workers replaced meanwhile.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use ips_common::{MAX_WORKERS, MarkLayout};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, spawn_blocking};

use super::Supervisor;
use super::duty::Duty;
use super::moving::{Moved, Moving};
use super::occupancy::{Occupancy, Phase};
use super::seat::Seat;
use super::steering;
use crate::config::Config;
use crate::control::Response;
use crate::metrics::board::Cell;
use crate::metrics::queue_truth::{self, QueueTruth};
use crate::metrics::snapshot::Retired;
use crate::netfilter::{self, Installed, NetfilterError};
use crate::sys::softirq::wait_for_packets_underway;

/// Requests that may wait for the change under way.
const WAITING: usize = 16;
/// How long what is still queued for a seat that goes may take.
const EMPTY_WITHIN: Duration = Duration::from_secs(2);
/// How long the process in it may take to end.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);

/// What the operator wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// That many workers.
    Scale(u32),
    /// No new flows for a worker.
    Drain(Seat),
    /// New flows for it again.
    Resume(Seat),
}

impl fmt::Display for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scale(workers) => write!(f, "scale to {workers} workers"),
            Self::Drain(seat) => write!(f, "drain {seat}"),
            Self::Resume(seat) => write!(f, "resume {seat}"),
        }
    }
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scaled {
    /// Workers that get new flows now.
    pub serving: Vec<Seat>,
    /// Workers that were added.
    pub added: Vec<Seat>,
    /// Workers that go as soon as they hold no flow any more.
    pub retiring: Vec<Seat>,
    /// What became of the flows.
    #[serde(flatten)]
    pub moved: Moved,
}

impl fmt::Display for Scaled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |seats: &[Seat]| {
            let names: Vec<_> = seats.iter().map(ToString::to_string).collect();
            names.join(", ")
        };
        write!(f, "new flows go to {}", names(&self.serving))?;
        if !self.added.is_empty() {
            write!(f, "; added {}", names(&self.added))?;
        }
        if !self.retiring.is_empty() {
            write!(f, "; {} will go without flows", names(&self.retiring))?;
        }
        let moved = &self.moved;
        write!(f, "\n{} slots moved; ", moved.slots)?;
        write!(f, "{} flows stay where they are", moved.flows_kept)?;
        if moved.flows_moved > 0 {
            write!(f, ", {} had no room to", moved.flows_moved)?;
        }
        for (seat, why) in &moved.unlisted {
            write!(f, "\n{seat} has not listed its flows: {why}")?;
        }
        Ok(())
    }
}

/// The changes, and what they have left.
#[derive(Debug, Default)]
pub(super) struct Scaling {
    change: Option<Change>,
    waiting: VecDeque<(Wish, oneshot::Sender<Response>)>,
    /// What the kernel and this process had counted of seats that are gone; their own counters
    /// stay on the board.
    retired: Retired,
}

impl Scaling {
    /// None yet, after what a predecessor has left.
    pub(super) fn after(retired: Retired) -> Self {
        Self {
            retired,
            ..Self::default()
        }
    }

    /// Puts a request behind those that wait.
    pub(super) fn ask(&mut self, wish: Wish, answer: oneshot::Sender<Response>) {
        if self.waiting.len() < WAITING {
            self.waiting.push_back((wish, answer));
            return;
        }
        let refusal = Response::Error("too many changes of the workers wait already".into());
        // The client may have gone: its answer is then nobody's.
        let _ = answer.send(refusal);
    }

    /// What is left of seats that are gone, but for the board.
    pub(super) fn retired(&self) -> &Retired {
        &self.retired
    }

    /// Whether rules are being installed in another thread.
    pub(super) fn is_installing(&self) -> bool {
        match &self.change {
            Some(Change::Table(change)) => matches!(change.step, TableStep::Rules(_)),
            Some(Change::Removal(removal)) => matches!(removal.step, RemovalStep::Rules(_)),
            None => false,
        }
    }

    /// Whether workers come, go, or move flows now, or soon.
    pub(super) fn is_changing(&self) -> bool {
        self.change.is_some() || !self.waiting.is_empty()
    }
}

/// One change under way.
#[derive(Debug)]
enum Change {
    /// Of the table, after new workers have come.
    Table(Box<TableChange>),
    /// Of seats that are not needed any more.
    Removal(Removal),
}

/// What a wish comes to.
struct Planned {
    /// Duties that change.
    duties: Vec<(Seat, Duty)>,
    /// Seats that do not exist yet.
    added: Vec<Seat>,
}

#[derive(Debug)]
struct TableChange {
    wish: Wish,
    answer: oneshot::Sender<Response>,
    /// Duties after it, and before it if they have been changed.
    duties: Vec<(Seat, Duty)>,
    former: Vec<(Seat, Duty)>,
    done: Scaled,
    began: Instant,
    step: TableStep,
}

#[derive(Debug)]
enum TableStep {
    /// New workers start.
    Joining,
    /// Their rules are installed.
    Rules(Rules),
    Moving(Moving),
}

#[derive(Debug)]
struct Removal {
    seats: Vec<Seat>,
    began: Instant,
    step: RemovalStep,
}

#[derive(Debug)]
enum RemovalStep {
    /// Their last flows were let go; packets may be on their way still.
    LettingGo(JoinHandle<()>),
    /// What is queued is worked off.
    Emptying,
    /// Their rules are removed.
    Rules(Rules),
    /// Their processes end.
    Leaving,
}

type Rules = JoinHandle<Result<Installed, NetfilterError>>;

impl Supervisor {
    /// Goes on with the change under way, or begins the next one.
    pub(super) async fn advance_scaling(&mut self) -> anyhow::Result<()> {
        match self.scaling.change.take() {
            Some(Change::Table(change)) => self.advance_table(*change).await,
            Some(Change::Removal(removal)) => self.advance_removal(removal).await,
            // Workers that hand over know two flow tables, and new ones need a launcher.
            None if self.seats.any_predecessor()
                || !self.launching.is_ready()
                || self.upgrade.is_some() =>
            {
                Ok(())
            }
            None => {
                if let Some((wish, answer)) = self.scaling.waiting.pop_front() {
                    self.begin(wish, answer);
                } else {
                    self.begin_removal();
                }
                Ok(())
            }
        }
    }

    /// Before a stop: what changes rules in another thread has to come to its end.
    pub(super) async fn abandon_scaling(&mut self) {
        let rules = match self.scaling.change.take() {
            Some(Change::Table(change)) => match change.step {
                TableStep::Rules(rules) => Some(rules),
                TableStep::Joining | TableStep::Moving(_) => None,
            },
            Some(Change::Removal(removal)) => match removal.step {
                RemovalStep::Rules(rules) => Some(rules),
                _ => None,
            },
            None => None,
        };
        if let Some(rules) = rules {
            // Whatever came of it is removed by the stop.
            let _ = rules.await;
        }
    }

    /// Begins what the operator wants, or answers why not.
    fn begin(&mut self, wish: Wish, answer: oneshot::Sender<Response>) {
        match self.plan_change(wish) {
            Ok(Planned { duties, added }) => {
                log::info!("{wish}");
                let joined = self.join(&added);
                let change = TableChange {
                    wish,
                    answer,
                    duties,
                    former: Vec::new(),
                    done: Scaled {
                        added,
                        ..Scaled::default()
                    },
                    began: Instant::now(),
                    step: TableStep::Joining,
                };
                match joined {
                    Ok(()) => self.scaling.change = Some(Change::Table(Box::new(change))),
                    Err(error) => self.refuse(change, &error),
                }
            }
            Err(error) => {
                log::warn!("{wish}: {error:#}");
                // The client may have gone.
                let _ = answer.send(Response::Error(format!("{error:#}")));
            }
        }
    }

    /// The duties after a change, and the seats that it needs.
    fn plan_change(&self, wish: Wish) -> anyhow::Result<Planned> {
        let one = |seat, duty| Planned {
            duties: vec![(seat, duty)],
            added: Vec::new(),
        };
        let planned = match wish {
            Wish::Scale(workers) => {
                check_count(&self.config, workers)?;
                self.plan_scale(workers)
            }
            Wish::Drain(seat) => one(seat, self.drained(seat)?),
            Wish::Resume(seat) => one(seat, self.resumed(seat)?),
        };
        let serves = |occupancy: &&Occupancy| {
            let assigned = planned
                .duties
                .iter()
                .find(|(seat, _)| *seat == occupancy.seat);
            let duty = assigned.map_or(occupancy.duty, |(_, duty)| *duty);
            duty == Duty::Serving && occupancy.seat != Seat::Backup
        };
        if planned.added.is_empty() && self.seats.iter().filter(serves).count() == 0 {
            bail!("no worker would be left to get new flows: resume another one first");
        }
        Ok(planned)
    }

    fn plan_scale(&self, workers: u32) -> Planned {
        let mut duties = Vec::new();
        for index in self.seats.workers(|_| true) {
            let seat = Seat::Worker(index);
            let duty = self.seats.get(seat).map(|it| it.duty);
            match duty {
                Some(Duty::Retiring { .. }) if index < workers => {
                    duties.push((seat, Duty::Serving));
                }
                Some(Duty::Serving | Duty::Drained) if index >= workers => {
                    duties.push((seat, Duty::retiring(&self.config)));
                }
                _ => {}
            }
        }
        let added: Vec<_> = (0..workers)
            .map(Seat::Worker)
            .filter(|seat| self.seats.get(*seat).is_none())
            .collect();
        duties.extend(added.iter().map(|seat| (*seat, Duty::Serving)));
        Planned { duties, added }
    }

    fn drained(&self, seat: Seat) -> anyhow::Result<Duty> {
        match self.worker_duty(seat)? {
            Duty::Serving | Duty::Drained => Ok(Duty::Drained),
            _ => bail!("{seat} is going already: `sluice scale` has made the workers fewer"),
        }
    }

    fn resumed(&self, seat: Seat) -> anyhow::Result<Duty> {
        match self.worker_duty(seat)? {
            Duty::Serving | Duty::Drained => Ok(Duty::Serving),
            _ => bail!("{seat} is going: `sluice scale` with more workers keeps it"),
        }
    }

    fn worker_duty(&self, seat: Seat) -> anyhow::Result<Duty> {
        if seat == Seat::Backup {
            bail!(
                "the backup gets only what others cannot take: it can be neither drained nor resumed"
            );
        }
        let occupancy = self.seats.get(seat);
        let workers = self.seats.workers(|_| true).len();
        let occupancy =
            occupancy.with_context(|| format!("there is no {seat}, but {workers} workers"))?;
        Ok(occupancy.duty)
    }

    /// Starts workers in new seats.
    fn join(&mut self, added: &[Seat]) -> anyhow::Result<()> {
        for &seat in added {
            self.steering.vacate_slot(seat.slot());
            self.seats.add(seat, &self.config)?;
            self.spawn(seat);
        }
        Ok(())
    }

    async fn advance_table(&mut self, mut change: TableChange) -> anyhow::Result<()> {
        match self.try_advance_table(&mut change).await {
            Ok(false) => self.scaling.change = Some(Change::Table(Box::new(change))),
            Ok(true) => {
                self.record()?;
                self.answer(change);
            }
            Err(error) => {
                if let TableStep::Moving(moving) = &change.step {
                    moving.give_up(&mut self.steering);
                }
                self.refuse(change, &error);
            }
        }
        Ok(())
    }

    /// Whether the change is done.
    async fn try_advance_table(&mut self, change: &mut TableChange) -> anyhow::Result<bool> {
        if let TableStep::Joining = &change.step {
            if !self.have_joined(&change.done.added, change.began)? {
                return Ok(false);
            }
            if !change.done.added.is_empty() {
                change.step = TableStep::Rules(self.install_rules(&[])?);
                return Ok(false);
            }
            self.change_duties(change)?;
        }
        if let TableStep::Rules(rules) = &mut change.step {
            if !rules.is_finished() {
                return Ok(false);
            }
            let installed = rules.await?.context("netfilter")?;
            self.steering.note_rules(installed);
            self.change_duties(change)?;
        }
        if let TableStep::Moving(moving) = &mut change.step {
            let (seats, steering) = (&self.seats, &mut self.steering);
            let Some(moved) = moving.advance(seats, steering, &self.config).await? else {
                return Ok(false);
            };
            change.done.moved = moved;
        }
        Ok(true)
    }

    /// Whether every new worker serves its queue.
    fn have_joined(&self, added: &[Seat], since: Instant) -> anyhow::Result<bool> {
        let patience = Duration::from_millis(self.config.workers.start_ms);
        for &seat in added {
            let occupancy = self.seats.get(seat).context("a new seat is gone")?;
            match occupancy.phase {
                Phase::Up => {}
                Phase::Vacant { .. } => {
                    let how = occupancy.last_exit().unwrap_or("unknown");
                    bail!("{seat} ended at its start: {how}");
                }
                Phase::Starting if since.elapsed() > patience => {
                    bail!("{seat} does not serve after {patience:?}");
                }
                Phase::Starting => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Gives the seats their duties and begins to change the table.
    fn change_duties(&mut self, change: &mut TableChange) -> anyhow::Result<()> {
        for &(seat, duty) in &change.duties {
            if let Some(former) = self.seats.get(seat) {
                change.former.push((seat, former.duty));
            }
            self.seats.assign(seat, duty);
        }
        let serving = self.serving();
        self.steering.write_workers(serving.len() as u32)?;
        let moving = Moving::begin(&serving, &self.seats, &mut self.steering)?;
        change.step = TableStep::Moving(moving);
        Ok(())
    }

    /// Indices of the workers that the table names.
    fn serving(&self) -> Vec<u32> {
        self.seats.workers(|duty| duty == Duty::Serving)
    }

    /// Has the rules say what the seats are, but for some, in a thread of its own: the tools
    /// take their time.
    fn install_rules(&self, without: &[Seat]) -> anyhow::Result<Rules> {
        let seats = self.seats.queued().filter(|seat| !without.contains(seat));
        let plan = steering::plan(&self.config, seats)?;
        Ok(spawn_blocking(move || netfilter::install(&plan)))
    }

    fn answer(&self, mut change: TableChange) {
        let seats = |duty: fn(Duty) -> bool| {
            let workers = self.seats.workers(duty).into_iter();
            workers.map(Seat::Worker).collect::<Vec<_>>()
        };
        change.done.serving = seats(|duty| duty == Duty::Serving);
        change.done.retiring = seats(|duty| matches!(duty, Duty::Retiring { .. }));
        let (moved, took) = (&change.done.moved, change.began.elapsed());
        log::info!(
            "{}: done in {took:?}: {} slots, {} listed flows kept, {} moved",
            change.wish,
            moved.slots,
            moved.flows_kept,
            moved.flows_moved
        );
        let response = match serde_json::to_value(&change.done) {
            Ok(value) => Response::Ok(value),
            Err(error) => Response::Error(error.to_string()),
        };
        // The client may have gone.
        let _ = change.answer.send(response);
    }

    /// Undoes what a failed change has begun: new seats go again.
    fn refuse(&mut self, change: TableChange, error: &anyhow::Error) {
        log::error!("{}: {error:#}", change.wish);
        for &(seat, duty) in &change.former {
            self.seats.assign(seat, duty);
        }
        let joined = |seat: &Seat| {
            let occupancy = self.seats.get(*seat);
            occupancy.is_some_and(|it| it.duty == Duty::Joining)
        };
        let seats: Vec<_> = change.done.added.into_iter().filter(joined).collect();
        if !seats.is_empty() {
            self.scaling.change = Some(Change::Removal(Removal {
                seats,
                began: Instant::now(),
                step: RemovalStep::Emptying,
            }));
        }
        // The client may have gone.
        let _ = change.answer.send(Response::Error(format!("{error:#}")));
    }

    /// Removes the seats that retire and hold nothing any more, or whose time is over.
    fn begin_removal(&mut self) {
        let now = Instant::now();
        let retiring = self
            .seats
            .iter()
            .filter_map(|occupancy| match occupancy.duty {
                Duty::Retiring { until } => Some((occupancy, until <= now)),
                _ => None,
            });
        let retiring: Vec<_> = retiring.collect();
        if retiring.is_empty() {
            return;
        }
        let queues = queue_truth::read().unwrap_or_default();
        let goes = |&&(occupancy, over): &&(&Occupancy, bool)| {
            over || self.holds_nothing(occupancy, &queues)
        };
        let due = retiring.iter().filter(goes);
        let seats: Vec<_> = due.map(|(occupancy, _)| occupancy.seat).collect();
        if seats.is_empty() {
            return;
        }
        for seat in &seats {
            let flows = self.board.row(*seat).get(Cell::Flows);
            match self.steering.placements().remove_at(seat.slot()) {
                Ok(placed) => {
                    log::info!("{seat} goes: {flows} flows, {placed} of them placed, are let go");
                    self.scaling.retired.flows_let_go += flows;
                }
                // Their packets find nobody there and go where the table says.
                Err(error) => log::warn!("{seat}: its flows stay placed there: {error}"),
            }
        }
        self.scaling.change = Some(Change::Removal(Removal {
            seats,
            began: now,
            step: RemovalStep::LettingGo(spawn_blocking(wait_for_packets_underway)),
        }));
    }

    /// Whether a worker has no flow in its table and no packet in its queue.
    pub(super) fn holds_nothing(&self, occupancy: &Occupancy, queues: &[QueueTruth]) -> bool {
        let waits = |truth: &QueueTruth| truth.queue == occupancy.queue && truth.waiting > 0;
        occupancy.phase == Phase::Up
            && self.board.row(occupancy.seat).get(Cell::Flows) == 0
            && !queues.iter().any(waits)
    }

    async fn advance_removal(&mut self, mut removal: Removal) -> anyhow::Result<()> {
        if self.try_advance_removal(&mut removal).await? {
            return self.record();
        }
        self.scaling.change = Some(Change::Removal(removal));
        Ok(())
    }

    /// Whether all is gone.
    async fn try_advance_removal(&mut self, removal: &mut Removal) -> anyhow::Result<bool> {
        match &mut removal.step {
            RemovalStep::LettingGo(waiting) => {
                if waiting.is_finished() {
                    waiting.await?;
                    removal.began = Instant::now();
                    removal.step = RemovalStep::Emptying;
                }
            }
            RemovalStep::Emptying => {
                let queues = queue_truth::read().unwrap_or_default();
                let waits = |seat: &Seat| {
                    let queue = self.seats.get(*seat).map(|it| it.queue);
                    let mut queues = queues.iter();
                    queues.any(|truth| Some(truth.queue) == queue && truth.waiting > 0)
                };
                let late = removal.began.elapsed() > EMPTY_WITHIN;
                if late || !removal.seats.iter().any(waits) {
                    removal.step = RemovalStep::Rules(self.install_rules(&removal.seats)?);
                }
            }
            RemovalStep::Rules(rules) => {
                if rules.is_finished() {
                    match rules.await? {
                        Ok(installed) => self.steering.note_rules(installed),
                        // Nothing is marked for them.
                        Err(error) => log::warn!("rules of seats that go stay: {error}"),
                    }
                    for &seat in &removal.seats {
                        self.seats.assign(seat, Duty::Leaving);
                        self.seats.signal_one(seat, Signal::SIGTERM);
                    }
                    removal.began = Instant::now();
                    removal.step = RemovalStep::Leaving;
                }
            }
            RemovalStep::Leaving => {
                if removal.began.elapsed() > LEAVE_WITHIN {
                    for &seat in &removal.seats {
                        log::warn!("{seat} has not left after {LEAVE_WITHIN:?}: killed");
                        self.seats.signal_one(seat, Signal::SIGKILL);
                    }
                    removal.began = Instant::now();
                }
                let left = std::mem::take(&mut removal.seats);
                removal.seats = left
                    .into_iter()
                    .filter(|seat| !self.remove(*seat))
                    .collect();
                return Ok(removal.seats.is_empty());
            }
        }
        Ok(false)
    }

    /// Takes a seat away once its process has ended.
    fn remove(&mut self, seat: Seat) -> bool {
        let Some(occupancy) = self.seats.remove(seat) else {
            return false;
        };
        let truth = queue_truth::of(occupancy.queue);
        if let Some(truth) = truth.filter(|it| it.waiting > 0) {
            occupancy.settle_pending(&self.config, &self.board, truth);
        }
        let retired = &mut self.scaling.retired;
        retired.restarts += occupancy.restarts;
        retired.trips += occupancy.trips;
        retired.hangs += occupancy.hangs;
        if let Some(truth) = truth {
            retired.queue_dropped += truth.queue_dropped;
            retired.user_dropped += truth.user_dropped;
        }
        self.board.row(seat).set(Cell::Flows, 0);
        self.steering.vacate_slot(seat.slot());
        log::info!("{seat} is gone, and queue {} with it", occupancy.queue);
        true
    }
}

/// Whether there can be so many workers.
pub(super) fn check_count(config: &Config, workers: u32) -> anyhow::Result<()> {
    if !(1..=MAX_WORKERS).contains(&workers) {
        bail!("1 to {MAX_WORKERS} workers, not {workers}");
    }
    MarkLayout::new(config.steering.mark_mask, workers).context("steering.mark_mask")?;
    let last = u32::from(config.queue.first) + workers;
    if last > u32::from(u16::MAX) {
        bail!(
            "the queue of worker {} would have the number {last}",
            workers - 1
        );
    }
    Ok(())
}
