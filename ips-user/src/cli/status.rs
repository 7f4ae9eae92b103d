//! `sluice status`

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;

use super::instance::InstanceArgs;
use crate::control::Request;
use crate::metrics::snapshot::Snapshot;

const PATIENCE: Duration = Duration::from_secs(10);

/// Arguments.
#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    instance: InstanceArgs,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let value = args.instance.ask(&Request::Status {}, PATIENCE)?;
    if args.json {
        println!("{value:#}");
    } else {
        let snapshot: Snapshot = serde_json::from_value(value)
            .context("the instance is of another version of sluice; try --json")?;
        print!("{snapshot}");
    }
    Ok(ExitCode::SUCCESS)
}
