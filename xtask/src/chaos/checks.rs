//! After the load: what was promised, row by row; what is promised of the traffic is in
//! [`super::traffic`].

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use super::load::{Mishap, Outcome};
use super::plan::Kind;
use super::traffic;
use super::watch::{Fate, Struck, Watch};
use crate::stage::report::Report;
use crate::stage::status::Status;
use crate::stage::{Stage, command};

/// How long queues and accounts may take to settle without load.
const SETTLING: Duration = Duration::from_secs(60);
/// What failed is shown up to here; the rest is in the JSON file.
const SHOWN: usize = 5;
/// Lines that no process may print.
const CRIES: [&str; 3] = ["panicked at", "assertion", "BUG"];

/// What the campaign has left to be judged.
pub(super) struct Found {
    pub(super) outcome: Outcome,
    pub(super) watch: Watch,
    pub(super) history: Vec<Mishap>,
    pub(super) findings: Vec<String>,
    pub(super) done: BTreeMap<Kind, u32>,
    pub(super) fails_closed: bool,
    /// Packets that the gate has dropped because they carried no decision.
    pub(super) gate: u64,
}

/// Judges it, stops the instance, and looks at what that leaves.
pub(super) fn examine(stage: &mut Stage, mut found: Found, report: &mut Report) -> Result<()> {
    let settled = stage.await_status(SETTLING, |status| {
        status.all_serve() && status.balanced() && status.waiting() == 0
    });
    let status = match settled? {
        Some(status) => status,
        None => stage.status()?,
    };
    found.watch.see(status.clone());
    found.gate = gate_dropped(stage);
    traffic::examine(stage, &found, report)?;
    faults(&found, report);
    seats(&status, report);
    accounts(&status, &found, report);
    log(stage, report);
    stop(stage, &found, report)
}

fn faults(found: &Found, report: &mut Report) {
    let done: Vec<String> = found
        .done
        .iter()
        .map(|(kind, times)| format!("{times} {}", kind.name()))
        .collect();
    let (ended, starved): (Vec<&Struck>, Vec<&Struck>) = found
        .watch
        .all()
        .iter()
        .partition(|struck| struck.fate == Fate::Replaced);
    let mut after: Vec<Duration> = ended.iter().filter_map(|it| it.replaced_after()).collect();
    after.sort_unstable();
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for struck in &ended {
        *reasons.entry(struck.reason().unwrap_or("?")).or_default() += 1;
    }
    let reasons: Vec<String> = reasons
        .iter()
        .map(|(reason, times)| format!("{times} {reason}"))
        .collect();
    let restarts = found.watch.total("restarts");
    report.note(&format!("faults: {}", done.join(", ")));
    report.note(&format!(
        "a replacement worked after {} ms at most, the median after {} ms; a seat was empty for {} ms; {} of {} processes without memory died",
        after.last().copied().unwrap_or_default().as_millis(),
        after.get(after.len() / 2).copied().unwrap_or_default().as_millis(),
        found.watch.longest_vacancy().as_millis(),
        starved.iter().filter(|struck| struck.became.is_some()).count(),
        starved.len(),
    ));
    let mut wrong = found.findings.clone();
    // What the last supervisor counted after the last look has died with it.
    if !found.done.contains_key(&Kind::Takeover) && restarts < after.len() as u64 {
        wrong.push(format!(
            "{} processes were replaced, and {restarts} restarts counted",
            after.len()
        ));
    }
    for (kind, counter) in [
        (Kind::KillLauncher, "launcher_restarts"),
        (Kind::Upgrade, "upgrades"),
    ] {
        let (done, counted) = (found.times(kind), found.watch.total(counter));
        report.note(&format!("{}: {done} times, {counted} counted", kind.name()));
        if counted < done && !found.done.contains_key(&Kind::Takeover) {
            wrong.push(format!("{done} {}, and {counted} counted", kind.name()));
        }
    }
    let evidence = format!(
        "{} processes ended, {} replaced, {restarts} restarts counted ({}); {} trips, {} flows learnt from the middle",
        ended.len(),
        after.len(),
        reasons.join(", "),
        found.watch.total("trips"),
        found.watch.total("flows_midstream"),
    );
    report.add(
        "Every fault is answered and every order obeyed",
        wrong.is_empty(),
        with_wrong(evidence, &wrong),
        json!({
            "done": done, "struck": found.watch.all(), "restarts": restarts, "findings": wrong,
            "history": found.history, "malformed_frames": found.outcome.malformed,
        }),
    );
}

fn seats(status: &Status, report: &mut Report) {
    let down: Vec<String> = status
        .seats()
        // Whether flows come to it or not: see there.
        .filter(|seat| !seat.serves())
        .map(|seat| format!("{} is {}", seat.name, seat.state))
        .collect();
    report.add(
        "Every seat is served at the end",
        down.is_empty(),
        with_wrong(
            format!("{} workers and the backup are up", status.workers.len()),
            &down,
        ),
        json!({ "down": down }),
    );
}

fn accounts(status: &Status, found: &Found, report: &mut Report) {
    let (mut wrong, mut compared) = (Vec::new(), 0);
    for seat in status.seats() {
        let name = &seat.name;
        if found.watch.bound_once(seat.queue) {
            compared += 1;
            if !seat.received_all() {
                wrong.push(format!(
                    "{name}: the kernel's last id is {}: {} packets that nobody received \
                     (negative: counted twice), beside {} refused for want of room",
                    seat.kernel.last_id,
                    seat.unreceived(),
                    seat.overruns
                ));
            }
        }
        report.note(&format!(
            "{name:<8} received {:>8} = accepted {:>8} + dropped {:>5} + replaced {} + settled {:>4} + shed {}; waiting {}, restarts {}",
            seat.received,
            seat.accepted,
            seat.dropped,
            seat.replaced,
            seat.settled,
            seat.shed,
            seat.kernel.waiting,
            seat.restarts
        ));
        if !seat.balanced() {
            wrong.push(format!(
                "{name}: {} packets unaccounted for",
                seat.in_hand()
            ));
        }
        if seat.kernel.waiting > 0 {
            wrong.push(format!("{name}: {} packets waiting", seat.kernel.waiting));
        }
    }
    let received = found.watch.total("received");
    report.add(
        "The accounts of every seat balance, and no packet waits",
        wrong.is_empty() && received > 0,
        with_wrong(
            format!(
                "{received} received, {} settled for dead workers, {} malformed ones dropped; those of {compared} seats compared with the kernel's ids",
                found.watch.total("settled"),
                found.watch.total("invalid_dropped")
            ),
            &wrong,
        ),
        json!({ "received": received, "wrong": wrong }),
    );
}

fn log(stage: &Stage, report: &mut Report) {
    let log = stage.log();
    let cries: Vec<String> = log
        .lines()
        .filter(|line| CRIES.iter().any(|cry| line.contains(cry)))
        .map(str::to_owned)
        .collect();
    let errors = log.lines().filter(|line| line.contains("ERROR")).count();
    report.add(
        "No process panics",
        cries.is_empty(),
        with_wrong(
            format!(
                "{} lines logged, {errors} of them errors",
                log.lines().count()
            ),
            &cries,
        ),
        json!({ "cries": cries }),
    );
}

fn stop(stage: &mut Stage, found: &Found, report: &mut Report) -> Result<()> {
    report.act("a clean stop (SIGTERM)");
    let (took, mut left) = stage.stop()?;
    let gate: Vec<String> = left.extract_if(.., |line| is_gate(line)).collect();
    let mut text = format!("exit status 0 after {} ms; nothing left", took.as_millis());
    if found.fails_closed && !gate.is_empty() {
        // What fail closed means: what comes in is dropped until somebody opens the gate.
        let opened = stage.command_inside(&["gate", "open"]).output()?;
        if !opened.status.success() {
            let error = String::from_utf8_lossy(&opened.stderr).into_owned();
            left.push(format!("sluice gate open: {}", error.trim()));
        }
        left.extend(stage.left_behind()?);
        text += " but the closed gate, and nothing after it was opened";
    } else {
        left.extend(gate.iter().cloned());
    }
    let data = json!({ "milliseconds": took.as_millis(), "left": left, "gate": gate });
    command::add_leftovers(report, &left, text, data);
    Ok(())
}

/// What the gate has dropped; nothing when there is none.
fn gate_dropped(stage: &Stage) -> u64 {
    let Ok(output) = stage.command_inside(&["gate", "status"]).output() else {
        return 0;
    };
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    let before = shown.split(" packets dropped").next().unwrap_or_default();
    let number = before.rsplit(' ').next().unwrap_or_default();
    number.parse().unwrap_or(0)
}

/// Whether a line of a leftover is part of the gate that `fail = "closed"` leaves: rules and
/// chains, but none that queues.
fn is_gate(line: &str) -> bool {
    let line = line.to_lowercase();
    ["nft:", "iptables:", "ip6tables:"]
        .iter()
        .any(|program| line.starts_with(program))
        && !line.contains("queue")
}

/// After everything is taken down: no namespace of the lab is left.
pub(super) fn namespaces(lab: &str, report: &mut Report) {
    let left: Vec<String> = std::fs::read_dir("/run/netns")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !lab.is_empty() && name.starts_with(lab))
        .collect();
    report.add(
        "No namespace is left",
        left.is_empty(),
        with_wrong("the lab is gone".to_owned(), &left),
        json!({ "left": left }),
    );
}

/// The evidence, or the first of what is wrong.
pub(super) fn with_wrong(evidence: String, wrong: &[String]) -> String {
    if wrong.is_empty() {
        return evidence;
    }
    let more = wrong.len().saturating_sub(SHOWN);
    let mut shown = wrong[..wrong.len().min(SHOWN)].join("; ");
    if more > 0 {
        shown += &format!("; {more} more");
    }
    format!("{shown} ({evidence})")
}

impl Found {
    fn times(&self, kind: Kind) -> u64 {
        self.done.get(&kind).copied().unwrap_or(0).into()
    }

    /// The last fault before a moment, for people.
    pub(super) fn before(&self, at: Duration) -> String {
        self.history
            .iter()
            .rev()
            .find(|event| event.at <= at)
            .map_or_else(String::new, |event| {
                format!(" ({} ms after {})", (at - event.at).as_millis(), event.what)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_comes_first_and_not_all_of_it() {
        assert_eq!(with_wrong("fine".into(), &[]), "fine");
        let wrong: Vec<String> = (0..7).map(|number| number.to_string()).collect();
        assert_eq!(
            with_wrong("seen".into(), &wrong),
            "0; 1; 2; 3; 4; 2 more (seen)"
        );
    }

    #[test]
    fn only_rules_that_do_not_queue_are_a_gate() {
        assert!(is_gate("nft: table inet chaos {"));
        assert!(!is_gate("iptables: -A x -j NFQUEUE --queue-num 100"));
        assert!(!is_gate("process 7 (sluice-0)"));
    }
}
