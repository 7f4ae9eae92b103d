//! Both directions of a flow reach the same worker, and the flows spread over all of them.
//!
//! The evidence is the kernel's: it numbers the packets of each queue, so the numbers before
//! and after one flow's traffic tell which queue every packet went through.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use sluice_tests::Side;
use sluice_tests::datagram::{Replier, RequestPlan, Requester};
use sluice_tests::stream::{Echo, exchange};

use super::WORKERS;
use crate::stage::Stage;
use crate::stage::report::Report;
use crate::stage::status::Status;

/// UDP flows of each family.
const UDP_FLOWS: u32 = 48;
/// Requests of each.
const REQUESTS: u64 = 4;
/// UDP flows of each family whose packets are fragmented.
const FRAGMENTED_FLOWS: u32 = 16;
/// TCP connections of each family.
const CONNECTIONS: u32 = 12;
/// Measurements, until none is disturbed by a fail-over.
const ATTEMPTS: u32 = 4;

/// Packets that went through each queue.
type Through = BTreeMap<u16, u32>;

/// What a number of flows did.
#[derive(Default)]
struct Tally {
    flows: u32,
    /// Flows whose packets went through more than one queue.
    split: u32,
    /// Flows that were not counted in full.
    incomplete: u32,
    packets: u64,
    by_seat: BTreeMap<String, u32>,
}

impl Tally {
    fn add(&mut self, through: &Through, exactly: Option<u64>, status: &Status) {
        let packets: u64 = through.values().map(|count| u64::from(*count)).sum();
        self.flows += 1;
        self.packets += packets;
        self.split += u32::from(through.len() > 1);
        let complete = exactly.map_or(packets > 0, |exactly| packets == exactly);
        self.incomplete += u32::from(!complete);
        for queue in through.keys() {
            let seat = status
                .seat_of(*queue)
                .map_or_else(|| format!("queue {queue}"), |seat| seat.name.clone());
            *self.by_seat.entry(seat).or_default() += 1;
        }
    }

    fn held(&self) -> bool {
        self.flows > 0 && self.split == 0 && self.incomplete == 0
    }

    fn seats(&self) -> String {
        let seats: Vec<String> = self
            .by_seat
            .iter()
            .map(|(seat, flows)| format!("{seat}: {flows}"))
            .collect();
        seats.join(", ")
    }

    fn data(&self) -> serde_json::Value {
        json!({
            "flows": self.flows, "split": self.split, "incomplete": self.incomplete,
            "packets": self.packets, "flows_by_seat": self.by_seat,
        })
    }
}

/// What all flows did.
struct Measured {
    udp: Tally,
    fragments: Tally,
    tcp: Tally,
}

/// Plays the act. When the machine keeps a worker from running for so long that the backup has to
/// take over, it says so and measures again: failing over is another act.
pub(super) fn play(stage: &Stage, report: &mut Report) -> Result<()> {
    report.act("both directions of a flow at one worker, one flow after the other");
    for _ in 1..ATTEMPTS {
        let before = stage.await_all_up()?;
        let measured = measure(stage, &before)?;
        let trips = stage.status()?.trips() - before.trips();
        if trips == 0 {
            add(&measured, report);
            return Ok(());
        }
        report.note(&format!(
            "a busy machine held up a worker {trips} times, the backup helped out; once more"
        ));
    }
    let before = stage.await_all_up()?;
    add(&measure(stage, &before)?, report);
    Ok(())
}

fn measure(stage: &Stage, status: &Status) -> Result<Measured> {
    Ok(Measured {
        udp: udp(stage, status)?,
        fragments: udp_fragments(stage, status)?,
        tcp: tcp(stage, status)?,
    })
}

fn add(measured: &Measured, report: &mut Report) {
    let Measured {
        udp,
        fragments,
        tcp,
    } = measured;
    for (promise, tally, what) in [
        (
            "UDP: both directions at the same worker",
            udp,
            "flows, half of the packets replies",
        ),
        ("Fragments follow their flow", fragments, "flows"),
        (
            "TCP: both directions at the same worker",
            tcp,
            "connections",
        ),
    ] {
        report.add(
            promise,
            tally.held(),
            format!(
                "{} {what}, {} packets, at two workers = {}; {}",
                tally.flows,
                tally.packets,
                tally.split,
                tally.seats()
            ),
            tally.data(),
        );
    }
    let mut share: BTreeMap<String, u32> = BTreeMap::new();
    for (seat, flows) in [udp, fragments, tcp]
        .into_iter()
        .flat_map(|tally| &tally.by_seat)
    {
        *share.entry(seat.clone()).or_default() += flows;
    }
    let all: u32 = share.values().sum();
    // A fair coin stays above a quarter of 152 throws but for one time in 10^10.
    let spread = share.len() == WORKERS && share.values().all(|flows| flows * 4 > all);
    let shown: Vec<String> = share
        .iter()
        .map(|(seat, flows)| format!("{seat}: {flows}"))
        .collect();
    report.add(
        "Flows spread over the workers",
        spread,
        format!("of {all} flows {}", shown.join(", ")),
        json!({ "flows_by_seat": share }),
    );
}

fn udp(stage: &Stage, status: &Status) -> Result<Tally> {
    let mut tally = Tally::default();
    for (_, address) in stage.lab.families(Side::Server) {
        let replier = Replier::start(stage.lab.server(), address, 0)?;
        for _ in 0..UDP_FLOWS {
            let through = through(stage, || one_udp_flow(stage, replier.address(), 64))?;
            tally.add(&through, Some(2 * REQUESTS), status);
        }
    }
    Ok(tally)
}

/// How many packets are queued depends on whether connection tracking has put the fragments
/// together before, so only the queue matters.
fn udp_fragments(stage: &Stage, status: &Status) -> Result<Tally> {
    let mut tally = Tally::default();
    for (_, address) in stage.lab.families(Side::Server) {
        let replier = Replier::start(stage.lab.server(), address, 0)?;
        for _ in 0..FRAGMENTED_FLOWS {
            let through = through(stage, || one_udp_flow(stage, replier.address(), 3_500))?;
            tally.add(&through, None, status);
        }
    }
    Ok(tally)
}

fn one_udp_flow(stage: &Stage, to: SocketAddr, size: usize) -> Result<()> {
    let report = Requester::run(
        stage.lab.client(),
        RequestPlan {
            requests: REQUESTS,
            size,
            interval: Duration::ZERO,
            ..RequestPlan::to(to)
        },
    )?;
    anyhow::ensure!(
        report.lost == 0,
        "{} of {REQUESTS} requests lost",
        report.lost
    );
    Ok(())
}

fn tcp(stage: &Stage, status: &Status) -> Result<Tally> {
    let mut tally = Tally::default();
    for (_, address) in stage.lab.families(Side::Server) {
        let echo = Echo::start(stage.lab.server(), address, 0)?;
        for _ in 0..CONNECTIONS {
            let through = through(stage, || {
                let request = b"the same bytes come back";
                let patience = Duration::from_secs(2);
                let answer = exchange(stage.lab.client(), echo.address(), request, patience)?;
                anyhow::ensure!(answer == request, "the echo differs");
                stage.await_quiet()
            })?;
            tally.add(&through, None, status);
        }
    }
    Ok(tally)
}

/// How many packets `traffic` put into each queue.
fn through(stage: &Stage, traffic: impl FnOnce() -> Result<()>) -> Result<Through> {
    stage.interrupt.check()?;
    let before: Through = stage.queued()?.into_iter().collect();
    traffic()?;
    Ok(stage
        .queued()?
        .into_iter()
        .map(|(queue, id)| {
            (
                queue,
                id.wrapping_sub(before.get(&queue).copied().unwrap_or(0)),
            )
        })
        .filter(|(_, packets)| *packets > 0)
        .collect())
}
