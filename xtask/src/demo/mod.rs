//! The demonstration: `cargo xtask run` without arguments.
//!
//! Three namespaces, the real `sluice` in the middle one with two workers and a backup, real
//! traffic. Each act is a file; each adds promises with their evidence to the [`report`].

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use serde_json::json;

mod accounting;
mod benign;
mod conviction;
mod dip;
mod events;
mod failover;
mod load;
mod rules;
mod steering;
mod verdicts;

use events::Events;

use crate::stage::interrupt::Interrupted;
use crate::stage::report::Report;
use crate::stage::{Settings, Stage, command};

/// A worker whose heartbeat is older than this is bypassed; the default of Sluice.
const STALE: Duration = Duration::from_millis(200);
/// Workers besides the backup.
const WORKERS: usize = 2;

/// Plays the demonstration with this `sluice`; success only if every promise held.
pub(crate) fn run(sluice: &Path, json: Option<&Path>) -> Result<ExitCode> {
    command::ensure_queues("the demonstration")?;
    let ending = command::perform("The demonstration", json, |interrupt, report, about| {
        *about = json!({ "workers": WORKERS });
        report.act("three namespaces: client ── gateway with Sluice ── server");
        command::on_stage(sluice, interrupt, settings(), report, |stage, report| {
            let events = Events::follow(&stage.event_log());
            introduce(stage, report)?;
            acts(stage, &events, report)
        })
    })?;
    Ok(ending.into())
}

fn settings() -> Settings {
    Settings {
        name: "demo",
        rules: rules::text(),
        keys: format!(
            "fail = \"open\"\n\
             workers.count = {WORKERS}\n\
             steering.stale_ms = {}\n\
             steering.xdp = \"native\"\n\
             log.stats_seconds = 5\n",
            STALE.as_millis()
        ),
    }
}

fn introduce(stage: &Stage, report: &Report) -> Result<()> {
    let status = stage.status()?;
    for seat in status.seats() {
        let name = &seat.name;
        report.note(&format!("{name:<8} pid {}, queue {}", seat.pid, seat.queue));
    }
    for (interface, attached) in &status.interfaces {
        report.note(&format!(
            "{interface:<8} TC by {}, XDP {}",
            attached.tc, attached.xdp
        ));
    }
    report.note(&format!(
        "marks to queues by {}; {} rules",
        status.netfilter, status.rules
    ));
    Ok(())
}

/// An act that fails is a promise that did not hold; the others are played all the same, as
/// long as Sluice runs.
fn acts(stage: &mut Stage, events: &Events, report: &mut Report) -> Result<()> {
    type Act<'a> = &'a dyn Fn(&Stage, &mut Report) -> Result<()>;
    let acts: [(&str, Act<'_>); 6] = [
        ("Harmless traffic passes", &benign::play),
        ("Flows are steered", &steering::play),
        // Before the others: the far ends of rejected connections repeat themselves for seconds,
        // and that would be counted here.
        ("Convicted flows die in XDP", &conviction::play),
        ("Attacks are stopped", &|stage, report| {
            verdicts::play(stage, events, report)
        }),
        ("Workers fail over", &failover::play),
        ("The accounts balance", &accounting::play),
    ];
    for (name, act) in acts {
        if let Err(error) = act(stage, report) {
            if error.is::<Interrupted>() {
                return Err(error);
            }
            report.failed(name, &error);
        }
        stage.ensure_running()?;
    }
    accounting::end(stage, report)
}
