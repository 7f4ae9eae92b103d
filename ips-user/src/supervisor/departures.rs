//! What follows when the process in a seat ends: its last packet is judged, its flows are cared for,
//! its seat is filled again.

use std::time::Instant;

use super::Supervisor;
use super::deaths::{End, Finding};
use super::seat::Seat;
use super::steering::nanoseconds;
use crate::desk::watchlist::{Standing, Watched};
use crate::flow::Timestamp;
use crate::log::eve;
use crate::log::pipe::Emitted;
use crate::source::Disposition;
use crate::sys::process::{monotonic_ns, wall_us};

impl Supervisor {
    /// What has to be looked at often because nobody tells.
    pub(super) fn look(&mut self) -> anyhow::Result<()> {
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

    /// A process has ended. What is known of its last packet is passed on before any flow of its
    /// seat can go to the backup.
    pub(super) fn on_exit(&mut self, seat: Seat, pid: u32, how: &str) -> Option<Finding> {
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
    pub(super) fn shut_out_quarantined(&mut self) {
        for flow in self.deaths.flows().to_vec() {
            self.shut_out(&flow);
        }
    }

    pub(super) fn report(&mut self, finding: Finding) {
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

    pub(super) fn serves(&mut self, seat: Seat, pid: u32) {
        self.steering.set_up(seat);
        self.return_suspects();
        log::info!("{seat} serves its queue, pid {pid}");
    }

    /// Suspects go back from the backup, which does not inspect them, to their own workers.
    pub(super) fn return_suspects(&mut self) {
        for flow in self.deaths.flows() {
            if flow.standing == Standing::Suspect {
                self.steering.give_back(&flow.key);
            }
        }
    }
}
