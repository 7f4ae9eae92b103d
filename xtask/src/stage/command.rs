//! The frame of a command that plays on a stage: what it needs beforehand, how the stage is left,
//! and how the command ends.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::interrupt::{INTERRUPTED, Interrupt, Interrupted};
use super::report::Report;
use super::{Settings, Stage};
use crate::toolchain::system;
use crate::workspace::Workspace;
use crate::{build, setup};

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Every promise held.
    Held,
    /// Some did not.
    Failed,
    /// A signal came.
    Interrupted,
}

impl From<Ending> for ExitCode {
    fn from(ending: Ending) -> Self {
        match ending {
            Ending::Held => Self::SUCCESS,
            Ending::Failed => Self::FAILURE,
            Ending::Interrupted => Self::from(INTERRUPTED),
        }
    }
}

/// Sees that there is a kernel for it, the tools, and the program, from now.
pub(crate) fn prepare(workspace: &Workspace, what: &str, release: bool) -> Result<()> {
    ensure_queues(what)?;
    let setup = setup::ensure(workspace, system::ALL)?;
    build::object(workspace, setup.source)?;
    build::program(workspace, release)
}

/// Sees that there is a kernel for it.
pub(crate) fn ensure_queues(what: &str) -> Result<()> {
    if let Some(reason) = sluice_tests::requirement::missing_for_queues() {
        bail!("{what} cannot run here: {reason}");
    }
    Ok(())
}

/// Has it played, prints the table, and writes it with all figures to `json`; `about` says there
/// what was run. An error is a promise that did not hold.
pub(crate) fn perform(
    what: &str,
    json: Option<&Path>,
    play: impl FnOnce(Interrupt, &mut Report, &mut Value) -> Result<()>,
) -> Result<Ending> {
    let interrupt = Interrupt::take_over()?;
    let (mut report, mut about) = (Report::new(), json!({}));
    if let Err(error) = play(interrupt, &mut report, &mut about) {
        if error.is::<Interrupted>() {
            println!("Interrupted; everything has been removed.");
            return Ok(Ending::Interrupted);
        }
        report.failed(&format!("{what} comes to its end"), &error);
    }
    report.print();
    if let Some(path) = json {
        report.write(path, &about)?;
        println!("The table with all figures: {}", path.display());
    }
    Ok(match report.holds() {
        true => Ending::Held,
        false => Ending::Failed,
    })
}

/// Sets a stage, has it played on, and takes it down whatever happens. What helps to find out why
/// something failed is kept.
pub(crate) fn on_stage<T>(
    program: &Path,
    interrupt: Interrupt,
    settings: Settings,
    report: &mut Report,
    play: impl FnOnce(&mut Stage, &mut Report) -> Result<T>,
) -> Result<T> {
    let mut stage = Stage::set(program, interrupt, settings)?;
    let before = report.broken();
    let played = play(&mut stage, report);
    let worth_a_look = match &played {
        Ok(_) => report.broken() > before,
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

/// Adds what a clean stop has left behind; `evidence` is for when that is nothing.
pub(crate) fn add_leftovers(report: &mut Report, left: &[String], evidence: String, data: Value) {
    let evidence = match left {
        [] => evidence,
        left => format!("left behind: {}", left.join(", ")),
    };
    let promise = "A clean stop leaves nothing behind";
    report.add(promise, left.is_empty(), evidence, data);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_behind_is_a_broken_promise() {
        let mut report = Report::new();
        add_leftovers(&mut report, &[], "nothing".to_owned(), Value::Null);
        assert_eq!(report.broken(), 0);
        let left = ["queue 100".to_owned()];
        add_leftovers(&mut report, &left, "nothing".to_owned(), Value::Null);
        assert_eq!(report.broken(), 1);
    }
}
