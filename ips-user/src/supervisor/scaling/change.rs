//! A change of the table by the operator's wish: new workers start and get their rules, then the
//! flows' slots move.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use ips_common::{MAX_WORKERS, MarkLayout};
use tokio::sync::oneshot;

use super::retirement::{Removal, RemovalStep};
use super::{Change, Rules, Scaled, Wish};
use crate::config::Config;
use crate::control::Response;
use crate::supervisor::Supervisor;
use crate::supervisor::duty::Duty;
use crate::supervisor::moving::Moving;
use crate::supervisor::occupancy::{Occupancy, Phase};
use crate::supervisor::seat::Seat;

/// What a wish comes to.
struct Planned {
    /// Duties that change.
    duties: Vec<(Seat, Duty)>,
    /// Seats that do not exist yet.
    added: Vec<Seat>,
}

/// One change under way.
#[derive(Debug)]
pub(super) struct TableChange {
    wish: Wish,
    answer: oneshot::Sender<Response>,
    /// Duties after it, and before it if they have been changed.
    duties: Vec<(Seat, Duty)>,
    former: Vec<(Seat, Duty)>,
    done: Scaled,
    began: Instant,
    pub(super) step: TableStep,
}

/// How far it has come.
#[derive(Debug)]
pub(super) enum TableStep {
    /// New workers start.
    Joining,
    /// Their rules are installed.
    Rules(Rules),
    Moving(Moving),
}

impl Supervisor {
    /// Begins what the operator wants, or answers why not.
    pub(super) fn begin(&mut self, wish: Wish, answer: oneshot::Sender<Response>) {
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

    pub(super) async fn advance_table(&mut self, mut change: TableChange) -> anyhow::Result<()> {
        match self.try_advance_table(&mut change).await {
            Ok(false) => self.scaling.change = Some(Change::Table(Box::new(change))),
            Ok(true) => {
                self.record();
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
                if self.upkeep.is_busy() {
                    // It knows the rules without the new seats.
                    return Ok(false);
                }
                change.step = TableStep::Rules(self.install_rules(&[])?);
                return Ok(false);
            }
            self.change_duties(change)?;
        }
        if let TableStep::Rules(rules) = &mut change.step {
            if !rules.is_finished() {
                return Ok(false);
            }
            let rules = rules.await?;
            self.take_rules(rules)?;
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
        if !change.former.is_empty() {
            // The table has been put back before this.
            let workers = self.serving().len() as u32;
            if let Err(error) = self.steering.write_workers(workers) {
                log::error!("the programs have another number of workers: {error:#}");
            }
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
}

/// Whether there can be so many workers.
pub(in crate::supervisor) fn check_count(config: &Config, workers: u32) -> anyhow::Result<()> {
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
