//! After the load: what was promised of every byte, connection and datagram.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use sluice_tests::elsewhere::{attribute, snmp};

use super::checks::{Found, with_wrong};
use crate::stage::Stage;
use crate::stage::report::Report;

/// Judges what the ends of the traffic have seen.
pub(super) fn examine(stage: &Stage, found: &Found, report: &mut Report) -> Result<()> {
    streams(found, report);
    connections(stage, found, report)?;
    datagrams(found, report);
    Ok(())
}

fn streams(found: &Found, report: &mut Report) {
    let streams = &found.outcome.streams;
    for stream in streams {
        report.note(&format!(
            "TCP {}: {} connections, {} MiB, longest gap {} ms",
            stream.name,
            stream.connections,
            stream.received >> 20,
            stream.longest_gap.as_millis()
        ));
    }
    let wrong: Vec<String> = streams
        .iter()
        .filter(|stream| !stream.intact())
        .flat_map(|stream| {
            let lost = (stream.sent != stream.received).then(|| {
                format!(
                    "{}: {} of {} bytes arrived",
                    stream.name, stream.received, stream.sent
                )
            });
            let fault = |fault: &String| format!("{}: {fault}", stream.name);
            lost.into_iter().chain(stream.faults.iter().map(fault))
        })
        .collect();
    let bytes: u64 = streams.iter().map(|stream| stream.received).sum();
    let connections: u64 = streams.iter().map(|stream| stream.connections).sum();
    let gap = streams.iter().map(|stream| stream.longest_gap).max();
    let evidence = format!(
        "{} MiB over {connections} streams compared, longest gap {} ms",
        bytes >> 20,
        gap.unwrap_or_default().as_millis()
    );
    report.add(
        "Every TCP stream is complete and every byte right",
        wrong.is_empty() && bytes > 0,
        with_wrong(evidence, &wrong),
        json!({ "streams": streams, "wrong": wrong }),
    );
}

fn connections(stage: &Stage, found: &Found, report: &mut Report) -> Result<()> {
    let mut wrong = Vec::new();
    for (family, pages) in &found.outcome.pages {
        wrong.extend(pages.mishaps.iter().map(|mishap| {
            format!(
                "{family}: {} at {:.2?}{}",
                mishap.what,
                mishap.at,
                found.before(mishap.at)
            )
        }));
    }
    // What the ends themselves say (`tcpEstabResets`, RFC 4022).
    let mut reset = 0;
    for namespace in [stage.lab.client(), stage.lab.server()] {
        reset += snmp(namespace, "Tcp", "EstabResets")?;
    }
    let pages = &found.outcome.pages;
    let fetched: u64 = pages.iter().map(|(_, pages)| pages.fetched).sum();
    let slowest = pages.iter().map(|(_, pages)| pages.slowest).max();
    let evidence = format!(
        "{fetched} short connections, slowest {} ms; {reset} resets at either end",
        slowest.unwrap_or_default().as_millis()
    );
    report.add(
        "No connection is reset or broken",
        wrong.is_empty() && fetched > 0 && reset == 0,
        with_wrong(evidence, &wrong),
        json!({ "pages": pages, "resets": reset, "wrong": wrong }),
    );
    Ok(())
}

fn datagrams(found: &Found, report: &mut Report) {
    let mut lost = 0;
    let (mut sent, mut answered, mut bad) = (0, 0, 0);
    let mut when = Vec::new();
    let mut slowest = Duration::ZERO;
    for (family, got) in &found.outcome.datagrams {
        sent += got.sent;
        answered += got.answered;
        lost += got.lost;
        bad += got.corrupt + got.duplicates;
        slowest = slowest.max(got.slowest);
        when.extend(
            got.lost_at
                .iter()
                .map(|at| format!("{family} at {at:.2?}{}", found.before(*at))),
        );
    }
    let (by_sluice, lost_text) = attribute(lost, found.outcome.lost_elsewhere);
    // Good packets that our own counters say were lost. With `fail = "open"` those settled have
    // passed.
    let total = |name| found.watch.total(name);
    let mut causes = BTreeMap::from([
        ("shed", total("shed_dropped")),
        ("quarantined", total("quarantine_dropped")),
        ("queue full", total("queue_dropped")),
        ("buffer full", total("user_dropped")),
    ]);
    if found.fails_closed {
        causes.insert("settled", total("settled"));
        causes.insert("gate", found.gate);
    }
    causes.retain(|_, packets| *packets > 0);
    let explained: u64 = causes.values().sum();
    let shown: Vec<String> = causes
        .iter()
        .map(|(cause, packets)| format!("{packets} {cause}"))
        .collect();
    let evidence = format!(
        "{answered} of {sent} answered, {lost_text}, counted: {}; {bad} wrong or double; slowest {} ms",
        if shown.is_empty() {
            "none".to_owned()
        } else {
            shown.join(", ")
        },
        slowest.as_millis()
    );
    let kept = answered > 0 && by_sluice <= explained && bad == 0;
    report.add(
        "Every UDP packet lost is counted, and no other",
        kept,
        with_wrong(evidence, if kept { &[] } else { &when }),
        json!({
            "datagrams": found.outcome.datagrams, "elsewhere": found.outcome.lost_elsewhere,
            "causes": causes, "lost": when,
        }),
    );
}
