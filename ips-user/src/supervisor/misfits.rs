//! Workers of a former run that cannot be relieved, because the configuration has other queues,
//! buffers, seats or another transport now. They leave as at a stop, each when its queue is
//! empty, and lose nothing.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::thread::sleep;
use std::time::Instant;

use anyhow::Context;
use ips_common::Received;
use nix::sys::signal::Signal;

use super::inheritance::Bequest;
use super::instance::{self, Record, Sitting, Started};
use super::seat::Seat;
use super::stop::STOP_WITHIN;
use super::vacancy::Unserved;
use super::watch::{Watch, patience};
use super::{LOOK_EVERY, Supervisor};
use crate::metrics::board::Cell;
use crate::metrics::queue_truth::{self, QueueTruth};
use crate::sys::process::monotonic_ns;
use crate::sys::softirq::wait_for_packets_underway;

/// A worker, and what it serves.
#[derive(Debug)]
pub(super) struct Misfit {
    seat: Seat,
    queue: u16,
    process: Option<Started>,
    /// Open until nothing waits there; `None` when it could not be had.
    socket: Option<OwnedFd>,
    /// Whether its heartbeats and ids are in the map that this supervisor has.
    beats_here: bool,
}

/// What a predecessor has left: usable, or not.
#[derive(Debug)]
pub(super) struct Sorting {
    /// What fits is taken out of these.
    pub(super) usable: Vec<Bequest>,
    /// What cannot be taken out: its workers beat where nobody looks any more.
    astray: Vec<Bequest>,
    /// What nothing could be had from.
    unfetched: Vec<Sitting>,
    beats_here: bool,
}

impl Sorting {
    /// `beats_here`: whether their workers beat in the map that this supervisor has.
    pub(super) fn of(left: &Record, fetched: Vec<Bequest>, beats_here: bool) -> Self {
        let had = |it: &Started| fetched.iter().any(|had| had.process.as_ref() == Some(it));
        let unfetched = |it: &&Sitting| it.serving().is_some_and(|it| !had(&it));
        let unfetched = left.seats.iter().filter(unfetched).copied().collect();
        let (usable, astray) = match beats_here {
            true => (fetched, Vec::new()),
            false => (Vec::new(), fetched),
        };
        if !astray.is_empty() {
            log::warn!("the workers of a former run beat in another map");
        }
        Self {
            usable,
            astray,
            unfetched,
            beats_here,
        }
    }

    /// Once what fits has been taken out.
    pub(super) fn misfits(self) -> Vec<Misfit> {
        let misfit = |seat, queue, process, socket| Misfit {
            seat,
            queue,
            process,
            socket,
            beats_here: self.beats_here,
        };
        let fetched = self.usable.into_iter().chain(self.astray);
        let fetched = fetched.map(|it| misfit(it.seat, it.queue, it.process, Some(it.socket)));
        let unfetched = self.unfetched.into_iter();
        let unfetched = unfetched.map(|it| misfit(it.seat, it.queue, it.serving(), None));
        fetched.chain(unfetched).collect()
    }
}

impl Misfit {
    fn alive(&self) -> Option<Started> {
        self.process.filter(Started::is_alive)
    }

    /// One whose heartbeats are to be judged.
    fn watched(&self) -> Option<(Seat, Watch)> {
        let process = self.alive().filter(|_| self.beats_here)?;
        Some((self.seat, Watch::over(process)))
    }
}

impl Supervisor {
    /// Has them leave. Until the start is over their packets go to those who stay; if nobody
    /// stays, none is queued.
    pub(super) fn let_misfits_go(&mut self) -> anyhow::Result<()> {
        let misfits = std::mem::take(&mut self.misfits);
        if misfits.is_empty() {
            return Ok(());
        }
        if !self.seats.any_predecessor() {
            self.steering.suspend()?;
        }
        for misfit in misfits.iter().filter(|it| it.beats_here) {
            self.steering.set_down(misfit.seat);
        }
        wait_for_packets_underway();
        for misfit in &misfits {
            let seat = misfit.seat;
            log::info!("{seat} of the former run does not fit the configuration and leaves");
            let asked = misfit.process.map(|it| it.signal(Signal::SIGTERM));
            if let Some(Err(error)) = asked {
                log::warn!("{seat}: {error}");
            }
        }
        // Those whose socket could not be had close it as they end.
        let closing = misfits.iter().filter(|it| it.socket.is_none());
        let closing: BTreeMap<u16, QueueTruth> = closing
            .filter_map(|it| Some((it.queue, queue_truth::of(it.queue)?)))
            .collect();
        let mut watched: Vec<_> = misfits.iter().filter_map(Misfit::watched).collect();
        let deadline = Instant::now() + STOP_WITHIN;
        let alive = || misfits.iter().filter_map(Misfit::alive);
        while alive().next().is_some() && Instant::now() < deadline {
            sleep(LOOK_EVERY);
            for (seat, watch) in &mut watched {
                let heartbeat_ns = self.steering.pages().heartbeat(seat.slot());
                watch.look(*seat, monotonic_ns(), heartbeat_ns, patience(&self.config));
            }
        }
        let late: Vec<_> = alive().collect();
        if !late.is_empty() {
            let late = late.len();
            log::warn!("{late} of them did not leave within {STOP_WITHIN:?}: killed");
        }
        instance::end(&late).context("workers that do not fit")?;
        for misfit in &misfits {
            if let Some(process) = misfit.process {
                process.reap();
            }
            let truth = queue_truth::of(misfit.queue);
            // With the socket goes what the kernel has counted.
            if let Some(truth) = truth.or(closing.get(&misfit.queue).copied()) {
                self.scaling.note_dropped(truth);
            }
            if let Some(truth) = truth.filter(|it| it.waiting > 0) {
                self.settle_misfit(misfit, truth);
            }
        }
        Ok(())
    }

    /// What one had to leave behind gets the verdict of the policy.
    fn settle_misfit(&self, misfit: &Misfit, truth: QueueTruth) {
        let (seat, queue, pages) = (misfit.seat, misfit.queue, self.steering.pages());
        let Some(socket) = &misfit.socket else {
            return;
        };
        if !misfit.beats_here {
            // What it had noted is not known: everything that was queued, then.
            let count = self.board.row(seat).get(Cell::Received);
            pages.set_received(seat.slot(), Received::new(truth.last_id, count));
        }
        let unserved = Unserved {
            seat,
            queue,
            socket: socket.as_fd(),
            row: self.board.row(seat),
            pages,
        };
        unserved.settle_all(truth, self.config.settle());
    }
}
