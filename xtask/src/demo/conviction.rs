//! A convicted flow dies in XDP: its packets do not reach any queue.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;
use sluice_tests::frame::FrameSocket;
use sluice_tests::{Lab, Side};

use super::rules::CASES;
use crate::stage::Stage;
use crate::stage::report::Report;
use crate::stage::status::Status;
use sluice_tests::witness::{Transport, Witness, attempt};

/// How often the convicted segment is sent again.
const FRAMES: u64 = 1_000;

/// Plays the act.
pub(super) fn play(stage: &Stage, report: &mut Report) -> Result<()> {
    report.act("a convicted flow dies in XDP");
    let case = CASES
        .iter()
        .find(|case| case.action == "drop" && case.transport == Transport::Tcp)
        .context("there is a drop rule for TCP")?;
    let mut data = Vec::new();
    let mut ok = true;
    let mut shown = Vec::new();
    for (family, address) in stage.lab.families(Side::Server) {
        stage.interrupt.check()?;
        let wire = FrameSocket::open(stage.lab.client(), Lab::CLIENT_INTERFACE)?;
        let server = Witness::start(stage.lab.server(), address, 0)?;
        let tried = attempt(
            stage.lab.client(),
            case.transport,
            server.address(),
            b"good morning",
            case.attack.as_bytes(),
            Duration::from_millis(100),
        )?;
        let attack = case.attack.as_bytes();
        let frame = wire
            .collect(1, Duration::from_secs(2), |frame| {
                frame.windows(attack.len()).any(|window| window == attack)
            })?
            .pop()
            .context("the attack's own segment was not seen leaving the client")?;
        // What earlier connections still had to say is not to be mistaken for this flow's.
        stage.await_quiet()?;
        // The client's own repetitions come until it gives up; they are counted as well.
        let before = stage.status()?;
        let queued_before = stage.queued()?;
        for _ in 0..FRAMES {
            wire.send(&frame)?;
        }
        let after = stage.await_status(Duration::from_secs(2), |status| {
            dropped(status) - dropped(&before) >= FRAMES
        })?;
        let after = match after {
            Some(status) => status,
            None => stage.status()?,
        };
        let queued_after = stage.queued()?;
        let xdp = dropped(&after) - dropped(&before);
        let queued: u32 = queued_after
            .iter()
            .zip(&queued_before)
            .map(|((_, after), (_, before))| after.wrapping_sub(*before))
            .sum();
        // A packet of this flow that reached a queue would also have been dropped by its worker:
        // what was queued and accepted is a straggler of another connection.
        let settled = stage.status()?;
        let by_workers = dropped_by_workers(&settled) - dropped_by_workers(&before);
        let queued = u64::from(queued).min(by_workers);
        ok &= xdp >= FRAMES && queued == 0;
        shown.push(format!(
            "{family} {FRAMES} sent again, {xdp} dropped in XDP, {queued} queued"
        ));
        data.push(json!({
            "family": family, "client": tried.local, "frames_sent": FRAMES,
            "xdp_convicted": xdp, "queued": queued,
        }));
    }
    report.add(
        "A convicted flow dies in XDP",
        ok,
        shown.join("; "),
        json!({ "runs": data }),
    );
    Ok(())
}

fn dropped_by_workers(status: &Status) -> u64 {
    status.seats().map(|seat| seat.dropped).sum()
}

fn dropped(status: &Status) -> u64 {
    status.counter("xdp.convicted")
}
