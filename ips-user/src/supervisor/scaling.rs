//! Workers that come and go at run time: `sluice scale`, `drain` and `resume`.
//!
//! A new worker serves its queue and has its rule before the table names it; one that goes is in
//! no table, holds no flow, and has an empty queue before its rule and its queue are removed. So
//! no packet is marked for a queue that nobody serves. In between [`Moving`] changes the table.
//!
//! One change at a time; further requests wait. [`Supervisor::advance_scaling`] is called often
//! and never waits in place: heartbeats are judged and dead workers replaced meanwhile.

mod change;
mod retirement;

use std::collections::VecDeque;
use std::fmt;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, spawn_blocking};

pub(super) use self::change::check_count;
use self::change::{TableChange, TableStep};
use self::retirement::{Removal, RemovalStep};
use super::moving::Moved;
use super::seat::Seat;
use super::{Supervisor, steering};
use crate::control::Response;
use crate::metrics::queue_truth::QueueTruth;
use crate::metrics::snapshot::Retired;
use crate::netfilter::{self, Installed, NetfilterError};

/// Requests that may wait for the change under way.
const WAITING: usize = 16;
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

    /// What the kernel had counted of a queue whose socket is closed next.
    pub(super) fn note_dropped(&mut self, truth: QueueTruth) {
        self.retired.queue_dropped += truth.queue_dropped;
        self.retired.user_dropped += truth.user_dropped;
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

pub(super) type Rules = JoinHandle<Result<Installed, NetfilterError>>;

impl Supervisor {
    /// Goes on with the change under way, or begins the next one.
    pub(super) async fn advance_scaling(&mut self) -> anyhow::Result<()> {
        match self.scaling.change.take() {
            Some(Change::Table(change)) => self.advance_table(*change).await,
            Some(Change::Removal(removal)) => self.advance_removal(removal).await,
            // Workers that hand over know two flow tables, and new ones need a launcher.
            None if self.seats.any_predecessor()
                || !self.launching.is_ready()
                || self.rests_on_former
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

    /// Before a stop: returns what changes rules in another thread, which has to come to its end
    /// before the stop removes them.
    pub(super) fn abandon_scaling(&mut self) -> Option<Rules> {
        match self.scaling.change.take() {
            Some(Change::Table(change)) => match change.step {
                TableStep::Rules(rules) => Some(rules),
                TableStep::Joining | TableStep::Moving(_) => None,
            },
            Some(Change::Removal(removal)) => match removal.step {
                RemovalStep::Rules(rules) => Some(rules),
                _ => None,
            },
            None => None,
        }
    }

    /// Takes the rules that a change has had installed.
    fn take_rules(&mut self, rules: Result<Installed, NetfilterError>) -> anyhow::Result<()> {
        let installed = rules.inspect_err(|error| self.upkeep.note_failure(error));
        self.steering.note_rules(installed.context("netfilter")?);
        Ok(())
    }

    /// Has the rules say what the seats are, but for some, in a thread of its own: the tools
    /// take their time.
    fn install_rules(&self, without: &[Seat]) -> anyhow::Result<Rules> {
        let seats = self.seats.queued().filter(|seat| !without.contains(seat));
        let plan = steering::plan(&self.config, seats)?;
        Ok(spawn_blocking(move || netfilter::install(&plan)))
    }
}
