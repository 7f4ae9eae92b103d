//! `sluice status`

use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use super::{InstanceArgs, ask};
use crate::control::Request;
use crate::metrics::snapshot::Snapshot;

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
    let value = ask(&args.instance.config()?, &Request::Status {})?;
    if args.json {
        println!("{value:#}");
    } else {
        let snapshot: Snapshot = serde_json::from_value(value)
            .context("the instance is of another version of sluice; try --json")?;
        print!("{snapshot}");
    }
    Ok(ExitCode::SUCCESS)
}
