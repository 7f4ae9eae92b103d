//! At the end: every packet has had exactly one verdict, and a clean stop leaves nothing.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use sluice_tests::Side;
use sluice_tests::datagram::{Replier, RequestPlan, Requester};

use crate::stage::report::Report;
use crate::stage::{Stage, command};

/// Outcomes of the TC program; each packet has one.
const TC_OUTCOMES: [&str; 7] = [
    "tc.worker",
    "tc.backup",
    "tc.bypass",
    "tc.convicted",
    "tc.not_ip",
    "tc.malformed",
    "tc.unconfigured",
];

/// Plays the act.
pub(super) fn play(stage: &Stage, report: &mut Report) -> Result<()> {
    report.act("the accounts are closed");
    let settled = stage.await_status(Duration::from_secs(5), |status| {
        status.balanced() && status.waiting() == 0
    })?;
    let status = match settled {
        Some(status) => status,
        None => stage.status()?,
    };
    let total = |of: fn(&crate::stage::status::Seat) -> u64| status.seats().map(of).sum::<u64>();
    let received = total(|seat| seat.received);
    let accepted = total(|seat| seat.accepted);
    let dropped = total(|seat| seat.dropped);
    let replaced = total(|seat| seat.replaced);
    let settled = total(|seat| seat.settled);
    let shed = total(|seat| seat.shed);
    let lost = total(|seat| seat.kernel.queue_dropped + seat.kernel.user_dropped);
    for seat in status.seats() {
        report.note(&format!(
            "{:<8} received {:>8}  accepted {:>8}  dropped {:>5}  settled {:>4}  waiting {}  restarts {}",
            seat.name,
            seat.received,
            seat.accepted,
            seat.dropped,
            seat.settled,
            seat.kernel.waiting,
            seat.restarts
        ));
    }
    report.add(
        "Every packet received has one verdict",
        status.balanced() && received > 0,
        format!(
            "{received} received = {accepted} accepted + {dropped} dropped + {replaced} replaced + {settled} settled for killed workers + {shed} shed"
        ),
        json!({
            "received": received, "accepted": accepted, "dropped": dropped,
            "replaced": replaced, "settled": settled, "shed": shed,
        }),
    );
    report.add(
        "No packet is left in a queue or lost by one",
        status.waiting() == 0 && lost == 0,
        format!(
            "waiting = {}, lost to full queues or buffers = {lost}",
            status.waiting()
        ),
        json!({ "waiting": status.waiting(), "lost": lost }),
    );
    let packets = status.counter("tc.packets");
    let outcomes: u64 = TC_OUTCOMES.iter().map(|name| status.counter(name)).sum();
    let xdp = status.counter("xdp.packets");
    let xdp_outcomes = status.counter("xdp.convicted") + status.counter("xdp.passed");
    report.add(
        "Every packet seen in the kernel has one outcome",
        packets > 0 && packets == outcomes && xdp == xdp_outcomes,
        format!(
            "TC {packets} seen = {outcomes} with an outcome; XDP {xdp} seen = {} passed + {} dropped",
            status.counter("xdp.passed"),
            status.counter("xdp.convicted")
        ),
        json!({ "counters": status.counters }),
    );
    Ok(())
}

/// Plays the last act.
pub(super) fn end(stage: &mut Stage, report: &mut Report) -> Result<()> {
    report.act("a clean stop (SIGTERM)");
    let (took, left) = stage.stop()?;
    let evidence = format!(
        "exit status 0 after {} ms; no program, map, rule, queue, socket or process left",
        took.as_millis()
    );
    let data = json!({ "milliseconds": took.as_millis(), "left": left });
    command::add_leftovers(report, &left, evidence, data);
    let (mut answered, mut sent) = (0, 0);
    for (_, address) in stage.lab.families(Side::Server) {
        let replier = Replier::start(stage.lab.server(), address, 0)?;
        let got = Requester::run(stage.lab.client(), RequestPlan::to(replier.address()))?;
        answered += got.answered;
        sent += got.sent;
    }
    report.add(
        "Traffic goes on without Sluice",
        sent > 0 && answered == sent,
        format!("{answered} of {sent} UDP requests answered"),
        json!({ "sent": sent, "answered": answered }),
    );
    Ok(())
}
