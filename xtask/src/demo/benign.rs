//! Harmless traffic passes, every byte of it.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use sluice_tests::Side;
use sluice_tests::datagram::{Replier, RequestPlan, Requester};
use sluice_tests::elsewhere::{Elsewhere, attribute};
use sluice_tests::stream::{Extent, Sender, Sink};

use crate::stage::Stage;
use crate::stage::report::Report;

/// Bytes of each TCP stream.
const STREAM_BYTES: u64 = 64 << 20;
/// UDP requests of each run.
const REQUESTS: u64 = 1_000;
/// Time between two: the replier's socket holds some 25 datagrams that came in fragments.
const INTERVAL: Duration = Duration::from_millis(1);

/// Plays the act.
pub(super) fn play(stage: &Stage, report: &mut Report) -> Result<()> {
    report.act("harmless traffic passes");
    streams(stage, report)?;
    datagrams(stage, report, "UDP passes, every reply right", 64)?;
    // More than the MTU: every request and every reply is three fragments.
    datagrams(
        stage,
        report,
        "UDP in fragments passes, every reply right",
        3_500,
    )
}

fn streams(stage: &Stage, report: &mut Report) -> Result<()> {
    let lab = &stage.lab;
    let mut runs = Vec::new();
    for (family, address) in lab.families(Side::Server) {
        runs.push((family, "to the server", lab.server(), lab.client(), address));
    }
    for (family, address) in lab.families(Side::Client) {
        runs.push((family, "to the client", lab.client(), lab.server(), address));
    }
    let mut data = Vec::new();
    let (mut sent_total, mut received_total, mut faults_total) = (0, 0, Vec::new());
    for (family, direction, receiver, sender, address) in runs {
        stage.interrupt.check()?;
        let sink = Sink::start(receiver, address, 0)?;
        let sent = Sender::start(sender, sink.address(), Extent::Bytes(STREAM_BYTES)).finish();
        let received = sink.received();
        let mut faults = sink.faults();
        faults.extend(sent.error.clone());
        let rate = gigabits(received, sent.elapsed);
        report.note(&format!(
            "TCP {family} {direction}: {} MiB, {rate:.1} Gbit/s",
            received >> 20
        ));
        sent_total += sent.sent;
        received_total += received;
        data.push(json!({
            "family": family, "direction": direction, "sent": sent.sent,
            "received_and_compared": received, "gbit_per_s": rate, "faults": faults,
        }));
        faults_total.extend(faults);
    }
    let expected = STREAM_BYTES * data.len() as u64;
    let ok = faults_total.is_empty() && sent_total == expected && received_total == expected;
    report.add(
        "TCP passes both ways, every byte right",
        ok,
        format!(
            "IPv4 and IPv6, {} MiB sent, {} MiB compared, lost = {}, wrong = {}",
            sent_total >> 20,
            received_total >> 20,
            expected.saturating_sub(received_total),
            faults_total.len()
        ),
        json!({ "streams": data }),
    );
    Ok(())
}

fn datagrams(stage: &Stage, report: &mut Report, promise: &str, size: usize) -> Result<()> {
    let lab = &stage.lab;
    let mut data = Vec::new();
    let (mut answered, mut lost, mut wrong) = (0, 0, 0);
    let elsewhere = Elsewhere::watch(lab)?;
    for (family, address) in lab.families(Side::Server) {
        stage.interrupt.check()?;
        let replier = Replier::start(lab.server(), address, 0)?;
        let got = Requester::run(
            lab.client(),
            RequestPlan {
                flows: 16,
                requests: REQUESTS,
                size,
                interval: INTERVAL,
                ..RequestPlan::to(replier.address())
            },
        )?;
        answered += got.answered;
        lost += got.lost;
        wrong += got.corrupt + got.duplicates + got.errors;
        data.push(json!({ "family": family, "bytes_each": size, "report": got }));
    }
    let elsewhere = elsewhere.lost(lab)?;
    let (by_sluice, shown) = attribute(lost, elsewhere);
    let sent = REQUESTS * data.len() as u64;
    report.add(
        promise,
        by_sluice == 0 && wrong == 0 && answered + lost == sent,
        format!("IPv4 and IPv6, {answered} of {sent} answered, {shown}, wrong = {wrong}"),
        json!({ "runs": data, "lost_elsewhere": elsewhere }),
    );
    Ok(())
}

/// A rate for people.
#[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
pub(super) fn gigabits(bytes: u64, elapsed: Duration) -> f64 {
    bytes as f64 * 8e-9 / elapsed.as_secs_f64().max(1e-9)
}
