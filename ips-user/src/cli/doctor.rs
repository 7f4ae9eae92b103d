//! `sluice doctor`

use std::process::ExitCode;

use clap::Args;

use super::Settings;
use crate::config::Config;
use crate::control::{self, Request, Response};
use crate::doctor::{self, Context, Instance};
use crate::metrics::snapshot::Snapshot;

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
        instance: running(&config),
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

/// The instance of this configuration, when it runs and this version understands it.
fn running(config: &Config) -> Option<Instance> {
    let response = control::ask(&config.control_socket(), &Request::Status {}).ok()?;
    let snapshot = match response {
        Response::Ok(value) => serde_json::from_value::<Snapshot>(value),
        Response::Error(message) => {
            log::warn!("the running instance does not say what it is: {message}");
            return None;
        }
    };
    snapshot
        .inspect_err(|error| log::warn!("the running instance is of another version: {error}"))
        .ok()
        .map(|snapshot| Instance::of(&snapshot))
}
