//! Attacks are alerted, dropped and rejected, over IPv4 and IPv6.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::{Value, json};
use sluice_tests::Side;

use super::events::Events;
use super::rules::{CASES, Case};
use crate::stage::Stage;
use crate::stage::report::Report;
use sluice_tests::witness::{End, Witness, attempt};

/// Goes before every attack, to show that the connection worked until then.
const GREETING: &[u8] = b"good morning";
/// What an attack that is dropped waits for in vain.
const PATIENCE: Duration = Duration::from_millis(700);

/// What was found about one attack.
struct Finding {
    ok: bool,
    faults: Vec<String>,
    data: Value,
}

/// Plays the act.
pub(super) fn play(stage: &Stage, events: &Events, report: &mut Report) -> Result<()> {
    report.act("attacks are alerted, dropped, rejected");
    let servers = stage
        .lab
        .families(Side::Server)
        .into_iter()
        .map(|(family, address)| Ok((family, Witness::start(stage.lab.server(), address, 8080)?)))
        .collect::<Result<Vec<_>>>()?;
    for case in &CASES {
        let mut findings = Vec::new();
        for (family, server) in &servers {
            stage.interrupt.check()?;
            findings.push(examine(stage, events, case, family, server)?);
        }
        let faults: Vec<String> = findings
            .iter()
            .flat_map(|finding| finding.faults.clone())
            .collect();
        let evidence = if faults.is_empty() {
            expectation(case)
        } else {
            faults.join("; ")
        };
        report.add(
            &format!("{} {}", case.transport.name(), promise(case)),
            findings.iter().all(|finding| finding.ok),
            evidence,
            json!({ "runs": findings.into_iter().map(|finding| finding.data).collect::<Vec<_>>() }),
        );
    }
    Ok(())
}

fn promise(case: &Case) -> &'static str {
    match case.action {
        "alert" => "attack alerted and delivered",
        "drop" => "attack dropped",
        "reject" => "attack rejected to the sender",
        _ => "attack rejected to both sides",
    }
}

/// What the evidence is when all of it was found.
fn expectation(case: &Case) -> String {
    let client = match case.client {
        End::Answered => "client answered",
        End::Reset => "client saw ECONNRESET",
        End::Unreachable => "client saw an ICMP error",
        _ => "client got nothing",
    };
    let server = match (case.delivered, case.server) {
        (true, _) => "server got every byte",
        (false, Some(End::Reset)) => "server got only the greeting, then ECONNRESET",
        (false, _) => "server got only the greeting",
    };
    let eve = if case.delivered {
        "alert allowed"
    } else {
        "alert blocked and drop"
    };
    format!(
        "IPv4 and IPv6: {server}, {client}, EVE {eve} (sid {})",
        case.sid
    )
}

fn examine(
    stage: &Stage,
    events: &Events,
    case: &Case,
    family: &str,
    server: &Witness,
) -> Result<Finding> {
    let mark = events.mark();
    let attack = case.attack.as_bytes();
    let to = server.address();
    let tried = attempt(
        stage.lab.client(),
        case.transport,
        to,
        GREETING,
        attack,
        PATIENCE,
    )?;
    let mut faults = Vec::new();
    let mut expect = |holds: bool, fault: String| {
        if !holds {
            faults.push(format!("{family}: {fault}"));
        }
    };
    expect(
        tried.greeting == End::Answered,
        format!("the greeting ended with {:?}", tried.greeting),
    );
    expect(
        tried.end == case.client,
        format!(
            "for the client it ended with {:?}, not {:?}",
            tried.end, case.client
        ),
    );
    let expected = if case.delivered {
        [GREETING, attack].concat()
    } else {
        GREETING.to_vec()
    };
    if let Some(end) = case.server {
        await_server_end(server, tried.local, end);
    }
    let delivery = server.delivery(tried.local);
    let bytes = delivery
        .as_ref()
        .map_or(&[][..], |delivery| &delivery.bytes);
    expect(
        bytes == expected,
        format!(
            "the server got {} bytes, not {}",
            bytes.len(),
            expected.len()
        ),
    );
    let server_end = delivery.as_ref().and_then(|delivery| delivery.end);
    expect(
        case.server.is_none() || server_end == case.server,
        format!(
            "for the server it ended with {server_end:?}, not {:?}",
            case.server
        ),
    );
    let action = if case.delivered { "allowed" } else { "blocked" };
    let of_flow = |event: &Value| of_flow(event, tried.local, to);
    let alert = events.find(mark, Duration::from_secs(2), |event| {
        event["event_type"] == "alert"
            && event["alert"]["signature_id"] == case.sid
            && event["alert"]["action"] == action
            && of_flow(event)
    });
    expect(
        alert.is_some(),
        format!("no EVE alert with action {action} for sid {}", case.sid),
    );
    let patience = if case.delivered {
        Duration::ZERO
    } else {
        Duration::from_secs(2)
    };
    let drop = events.find(mark, patience, |event| {
        event["event_type"] == "drop" && of_flow(event)
    });
    expect(
        drop.is_some() != case.delivered,
        format!(
            "{} EVE drop",
            if case.delivered {
                "an unexpected"
            } else {
                "no"
            }
        ),
    );
    Ok(Finding {
        ok: faults.is_empty(),
        data: json!({
            "family": family, "action": case.action, "sid": case.sid,
            "client": tried.end, "server": server_end,
            "server_bytes": bytes.len(), "attack_bytes": attack.len(),
            "alert": alert, "drop": drop, "faults": faults,
        }),
        faults,
    })
}

fn await_server_end(server: &Witness, peer: SocketAddr, end: End) {
    let deadline = Instant::now() + Duration::from_secs(1);
    while Instant::now() < deadline
        && server.delivery(peer).and_then(|delivery| delivery.end) != Some(end)
    {
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Whether a record is about a packet between these two, in either direction.
fn of_flow(event: &Value, one: SocketAddr, other: SocketAddr) -> bool {
    let ends = |address: &str, port: &str| {
        let address = event[address].as_str()?.parse().ok()?;
        let port = u16::try_from(event[port].as_u64()?).ok()?;
        Some(SocketAddr::new(address, port))
    };
    match (ends("src_ip", "src_port"), ends("dest_ip", "dest_port")) {
        (Some(from), Some(to)) => (from, to) == (one, other) || (from, to) == (other, one),
        _ => false,
    }
}
