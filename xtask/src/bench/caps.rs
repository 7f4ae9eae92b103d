//! `cargo xtask bench caps`: a flood for each table, far beyond its cap, and what it takes.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use serde_json::json;
use sluice_tests::flood::{Flood, Shown, Trial};

use crate::stage::command;
use crate::stage::report::Report;
use crate::toolchain::system;
use crate::workspace::Workspace;
use crate::{build, setup};

/// Options of `cargo xtask bench caps`.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct CapsArgs {
    /// Cap of the table that is flooded, in MiB
    #[arg(long, default_value_t = 32)]
    mib: u64,
    /// How many times as much as the cap holds is offered
    #[arg(long, default_value_t = 8)]
    times: u64,
    /// Only the floods whose name contains this
    #[arg(long)]
    only: Option<String>,
    /// Write all results to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Two MiB each: whether it works
    #[arg(long)]
    quick: bool,
}

/// The policies that are tried besides `auto`.
const fn policies(flood: Flood) -> &'static [&'static str] {
    match flood {
        Flood::AnsweredFlow => &["auto", "pass-packet", "reject", "ignore"],
        Flood::Connection | Flood::Hole => &[
            "auto",
            "drop-packet",
            "reject",
            "bypass",
            "pass-packet",
            "pass-flow",
            "ignore",
        ],
        Flood::Fragment => &["auto", "pass-packet", "ignore"],
        Flood::Flow | Flood::HalfOpen | Flood::Host | Flood::Pair | Flood::Threshold => &["auto"],
    }
}

/// Runs the command.
pub(crate) fn caps(workspace: &Workspace, arguments: &CapsArgs) -> Result<ExitCode> {
    let setup = setup::ensure(workspace, system::ALL)?;
    build::object(workspace, setup.source)?;
    build::program(workspace, true)?;
    let json = arguments.json.as_deref();
    let ending = command::perform("The benchmark", json, |interrupt, report, about| {
        let sluice = workspace.sluice(true);
        let directory = tempfile::tempdir()?;
        let (cap, times) = match arguments.quick {
            true => (2 << 20, 3),
            false => (arguments.mib << 20, arguments.times),
        };
        let mut lines = vec![heading()];
        let mut trials = Vec::new();
        for flood in Flood::ALL {
            let name = serde_json::to_value(flood)?;
            let name = name.as_str().unwrap_or_default();
            if !arguments
                .only
                .as_ref()
                .is_none_or(|only| name.contains(only))
            {
                continue;
            }
            report.act(&format!("{name}: {} of {} MiB", flood.cap(), cap >> 20));
            let mut below = None;
            for policy in policies(flood) {
                interrupt.check()?;
                let trial = Trial {
                    flood,
                    cap,
                    policy,
                    times,
                };
                let shown = trial.run(&sluice, directory.path())?;
                let below = match below {
                    Some(rate) => rate,
                    None => *below.insert(trial.rate_below_cap(&sluice, directory.path())?),
                };
                lines.push(line(name, &trial, &shown, below));
                judge(name, &trial, &shown, below, report);
                trials.push(json!({ "trial": trial, "shown": shown, "rate_below_cap": below }));
            }
        }
        println!();
        for line in lines {
            println!("{line}");
        }
        *about = json!({ "trials": trials });
        Ok(())
    })?;
    Ok(ending.into())
}

fn judge(name: &str, trial: &Trial, shown: &Shown, below: f64, report: &mut Report) {
    let complaints = trial.complaints(shown);
    let evidence = match complaints.is_empty() {
        true => format!(
            "{} KiB more in memory, {} KiB by all tables' account",
            shown.resident_kb,
            shown.accounted_all >> 10
        ),
        false => complaints.join("; "),
    };
    report.add(
        &format!(
            "{name}, {}: the cap holds and inspection goes on",
            trial.policy
        ),
        complaints.is_empty(),
        evidence,
        json!({ "trial": trial, "shown": shown, "rate_below_cap": below }),
    );
}

fn heading() -> String {
    format!(
        "{:<14} {:<12} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>8} {:>6}  {}",
        "flood",
        "policy",
        "cap KiB",
        "table",
        "all",
        "resident",
        "packets",
        "pruned",
        "refused",
        "policy",
        "rate",
        "attacks dropped: known, new, later, fragments"
    )
}

/// `rate` is that at the cap relative to that of the same flood below it.
fn line(name: &str, trial: &Trial, shown: &Shown, below: f64) -> String {
    let attacks = shown.attacks.map(|count| count.to_string()).join(" ");
    format!(
        "{name:<14} {:<12} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>8} {:>6.2}  {attacks}",
        trial.policy,
        trial.cap >> 10,
        shown.accounted >> 10,
        shown.accounted_all >> 10,
        shown.resident_kb,
        shown.offered,
        shown.pruned,
        shown.refused,
        shown.by_policy.0,
        shown.rate / below,
    )
}
