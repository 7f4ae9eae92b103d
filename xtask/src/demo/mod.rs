//! The demonstration: `cargo xtask run` without arguments.
//!
//! Three namespaces, the real `sluice` in the middle one with two workers and a backup, real
//! traffic. Each act is a file; each adds promises with their evidence to the [`report`].

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};

mod accounting;
mod benign;
mod conviction;
mod dip;
mod events;
mod failover;
mod interrupt;
mod load;
mod report;
mod rules;
mod stage;
mod status;
mod steering;
mod verdicts;

use interrupt::{Interrupt, Interrupted};
use report::Report;
use stage::Stage;

/// What a process ended by SIGINT reports (128 + 2), as shells do.
const INTERRUPTED: u8 = 130;

/// Plays the demonstration with this `sluice`; success only if every promise held.
pub(crate) fn run(sluice: &Path, json: Option<&Path>) -> Result<ExitCode> {
    if let Some(reason) = sluice_tests::requirement::missing_for_queues() {
        bail!("the demonstration cannot run here: {reason}");
    }
    let interrupt = Interrupt::take_over()?;
    let mut report = Report::new();
    let played = play(sluice, interrupt, &mut report);
    if let Err(error) = played {
        if error.is::<Interrupted>() {
            println!("Interrupted; everything has been removed.");
            return Ok(ExitCode::from(INTERRUPTED));
        }
        report.failed("The demonstration comes to its end", &error);
    }
    report.print();
    if let Some(path) = json {
        report.write(path)?;
        println!("The table with all figures: {}", path.display());
    }
    Ok(if report.holds() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Sets the stage, plays all acts, and takes the stage down whatever happens.
fn play(sluice: &Path, interrupt: Interrupt, report: &mut Report) -> Result<()> {
    report.act("three namespaces: client ── gateway with Sluice ── server");
    let mut stage = Stage::set(sluice, interrupt)?;
    introduce(&stage, report)?;
    let played = acts(&mut stage, report);
    let worth_a_look = match &played {
        Ok(()) => !report.holds(),
        Err(error) => !error.is::<Interrupted>(),
    };
    if !worth_a_look {
        stage.discard_directory();
    } else if let Ok(directory) = stage.keep_log() {
        println!(
            "\nSluice's logs, events and configuration: {}",
            directory.display()
        );
    }
    played
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
fn acts(stage: &mut Stage, report: &mut Report) -> Result<()> {
    type Act = fn(&Stage, &mut Report) -> Result<()>;
    let acts: [(&str, Act); 6] = [
        ("Harmless traffic passes", benign::play),
        ("Flows are steered", steering::play),
        // Before the others: the far ends of rejected connections repeat themselves for seconds,
        // and that would be counted here.
        ("Convicted flows die in XDP", conviction::play),
        ("Attacks are stopped", verdicts::play),
        ("Workers fail over", failover::play),
        ("The accounts balance", accounting::play),
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
