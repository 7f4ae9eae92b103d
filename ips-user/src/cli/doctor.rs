//! `sluice doctor`

use std::process::ExitCode;

use clap::Args;

use super::Settings;
use crate::doctor::{self, Context};

/// Arguments.
#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    #[command(flatten)]
    settings: Settings,
    /// Mend what can be mended safely.
    #[arg(long)]
    fix: bool,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    let config = args.settings.load()?;
    let report = doctor::examine(&Context {
        workers: config.worker_count(),
        mark_mask: config.steering.mark_mask,
        first_queue: config.queue.first,
        interfaces: config.interfaces,
        fix: args.fix,
    });
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", doctor::render(&report));
    }
    Ok(if report.healthy() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
