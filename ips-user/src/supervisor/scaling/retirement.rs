//! Seats that are not needed any more go: once they hold no flow, or when their time is over.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio::task::{JoinHandle, spawn_blocking};

use super::{Change, Rules};
use crate::metrics::board::Cell;
use crate::metrics::queue_truth;
use crate::supervisor::Supervisor;
use crate::supervisor::duty::Duty;
use crate::supervisor::occupancy::{Occupancy, Phase};
use crate::supervisor::seat::Seat;
use crate::sys::softirq::wait_for_packets_underway;

/// How long what is still queued for a seat that goes may take.
const EMPTY_WITHIN: Duration = Duration::from_secs(2);
/// How long the process in it may take to end.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);

/// A removal under way.
#[derive(Debug)]
pub(super) struct Removal {
    pub(super) seats: Vec<Seat>,
    /// When the present step began.
    pub(super) began: Instant,
    pub(super) step: RemovalStep,
}

/// How far it has come.
#[derive(Debug)]
pub(super) enum RemovalStep {
    /// Their last flows were let go; packets may be on their way still.
    LettingGo(JoinHandle<()>),
    /// What is queued is worked off.
    Emptying,
    /// Their rules are removed.
    Rules(Rules),
    /// Their processes end.
    Leaving,
}

impl Supervisor {
    /// Removes the seats that retire and hold nothing any more, or whose time is over.
    pub(super) fn begin_removal(&mut self) {
        let now = Instant::now();
        let goes = |occupancy: &&Occupancy| match occupancy.duty {
            Duty::Retiring { until } => until <= now || self.holds_nothing(occupancy),
            _ => false,
        };
        let due = self.seats.iter().filter(goes);
        let seats: Vec<_> = due.map(|occupancy| occupancy.seat).collect();
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
    pub(in crate::supervisor) fn holds_nothing(&self, occupancy: &Occupancy) -> bool {
        // The queue last: reading it lists every queue of the network namespace.
        occupancy.phase == Phase::Up
            && self.board.row(occupancy.seat).get(Cell::Flows) == 0
            && queue_truth::of(occupancy.queue).is_none_or(|truth| truth.waiting == 0)
    }

    pub(super) async fn advance_removal(&mut self, mut removal: Removal) -> anyhow::Result<()> {
        if self.try_advance_removal(&mut removal).await? {
            self.record();
            return Ok(());
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
                // What looks after the rules knows those of these seats.
                let free = !self.upkeep.is_busy();
                if free && (late || !removal.seats.iter().any(waits)) {
                    removal.step = RemovalStep::Rules(self.install_rules(&removal.seats)?);
                }
            }
            RemovalStep::Rules(rules) => {
                if rules.is_finished() {
                    let rules = rules.await?;
                    if let Err(error) = self.take_rules(rules) {
                        // Nothing is marked for them.
                        log::warn!("rules of seats that go stay: {error:#}");
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
            let pages = self.steering.pages();
            occupancy.settle_pending(&self.config, &self.board, pages, truth);
        }
        let retired = &mut self.scaling.retired;
        occupancy.past.retire(retired);
        retired.queue_passed += self.upkeep.passed.close(occupancy.queue);
        if let Some(truth) = truth {
            self.scaling.note_dropped(truth);
        }
        self.board.row(seat).set(Cell::Flows, 0);
        self.steering.vacate_slot(seat.slot());
        log::info!("{seat} is gone, and queue {} with it", occupancy.queue);
        true
    }
}
