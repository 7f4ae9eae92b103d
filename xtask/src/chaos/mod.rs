//! `cargo xtask chaos`: faults drawn from a seed under mixed load, and what became of every
//! byte, every packet and every process.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;
use serde_json::json;

mod ability;
mod campaign;
mod checks;
mod dice;
mod load;
mod malformed;
mod nonsense;
mod order;
mod plan;
mod rules;
mod strike;
mod traffic;
mod watch;

use ability::Abilities;
use campaign::Campaign;
use load::Load;
use plan::{Event, Kind};

use crate::stage::command::{self, Ending};
use crate::stage::interrupt::Interrupt;
use crate::stage::report::Report;
use crate::stage::{Settings, Stage};
use crate::workspace::Workspace;

/// Workers at the start, besides the backup.
const WORKERS: usize = 3;

/// Options of `cargo xtask chaos`.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Arguments {
    /// How long faults are made
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(3..=280))]
    seconds: u64,
    /// What the plan is drawn from: the same seed gives the same plan
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The fail policy; without it the seed decides
    #[arg(long, value_parser = ["open", "closed"])]
    fail: Option<String>,
    /// Use the debug build: slower, but it checks its arithmetic and its assertions
    #[arg(long)]
    debug: bool,
    /// Only these kinds of fault
    #[arg(long, value_delimiter = ',', value_name = "KINDS")]
    only: Vec<Kind>,
    /// Write the table with all figures to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Arguments {
    fn fail(&self) -> &str {
        match &self.fail {
            Some(fail) => fail,
            None if self.seed.is_multiple_of(2) => "closed",
            None => "open",
        }
    }

    fn kinds(&self) -> Vec<Kind> {
        if self.only.is_empty() {
            Kind::value_variants().to_vec()
        } else {
            self.only.clone()
        }
    }

    fn length(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    /// The command line that does the same again.
    fn again(&self) -> String {
        let mut line = format!(
            "cargo xtask chaos --seconds {} --seed {} --fail {}",
            self.seconds,
            self.seed,
            self.fail()
        );
        if self.debug {
            line += " --debug";
        }
        if !self.only.is_empty() {
            let names: Vec<String> = self.only.iter().map(|kind| kind.name()).collect();
            line += &format!(" --only {}", names.join(","));
        }
        line
    }
}

/// Runs the command; success only if nothing was lost, broken or unaccounted for.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<ExitCode> {
    command::prepare(workspace, "the campaign", !arguments.debug)?;
    let json = arguments.json.as_deref();
    let ending = command::perform("The campaign", json, |interrupt, report, about| {
        *about = json!({
            "seed": arguments.seed, "seconds": arguments.seconds, "fail": arguments.fail(),
            "again": arguments.again(),
        });
        let mut lab = String::new();
        let played = play(workspace, arguments, interrupt, report, &mut lab);
        checks::namespaces(&lab, report);
        played
    })?;
    if ending == Ending::Failed {
        println!(
            "\nSeed {} failed; the same plan again: {}",
            arguments.seed,
            arguments.again()
        );
    }
    Ok(ending.into())
}

fn play(
    workspace: &Workspace,
    arguments: &Arguments,
    interrupt: Interrupt,
    report: &mut Report,
    lab: &mut String,
) -> Result<()> {
    report.act(&format!(
        "seed {}, {} s, fail {}: client ── gateway with Sluice ── server",
        arguments.seed,
        arguments.seconds,
        arguments.fail()
    ));
    let settings = Settings {
        name: "chaos",
        rules: rules::text(0),
        // A flow that is in hand when two workers hang or run out of memory is held to be their
        // murderer; here it is innocent.
        keys: format!(
            "fail = \"{}\"\n\
             workers.count = {WORKERS}\n\
             exceptions.quarantine = \"pass-flow\"\n\
             log.stats_seconds = 5\n",
            arguments.fail()
        ),
    };
    let program = workspace.sluice(!arguments.debug);
    command::on_stage(&program, interrupt, settings, report, |stage, report| {
        lab.push_str(stage.lab.name());
        disturb(stage, arguments, report)
    })
}

fn disturb(stage: &mut Stage, arguments: &Arguments, report: &mut Report) -> Result<()> {
    let plan = possible(stage, arguments, report)?;
    report.act(&format!("{} faults under load", plan.len()));
    let mut load = Load::start(&stage.lab, arguments.seed, arguments.length())?;
    let mut campaign = Campaign::new(stage, &mut load);
    let ran = campaign.run(plan, arguments.length(), report);
    if ran.is_ok() {
        campaign.examine_helpers()?;
    }
    let Campaign {
        watch,
        history,
        findings,
        done,
        ..
    } = campaign;
    ran?;
    report.act("the load ends, everything settles");
    let outcome = load.finish(&stage.lab)?;
    let found = checks::Found {
        outcome,
        watch,
        history,
        findings,
        done,
        fails_closed: arguments.fail() == "closed",
        gate: 0,
    };
    checks::examine(stage, found, report)
}

/// The plan without what the program has no answer to.
fn possible(stage: &Stage, arguments: &Arguments, report: &Report) -> Result<Vec<Event>> {
    let abilities = Abilities::probe(stage)?;
    let mut plan = plan::draw(arguments.seed, arguments.length(), &arguments.kinds());
    for event in &plan {
        report.note(&format!(
            "{:7.2} s  {}",
            event.at.as_secs_f32(),
            event.fault
        ));
    }
    for kind in arguments.kinds() {
        if let Some(reason) = abilities.missing(kind) {
            report.note(&format!("left out: {}, because {reason}", kind.name()));
            plan.retain(|event| event.fault.kind != kind);
        }
    }
    Ok(plan)
}
