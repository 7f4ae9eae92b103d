//! `sluice reload`

use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use super::{InstanceArgs, ask};
use crate::control::Request;
use crate::supervisor::reload::Reloaded;

/// Arguments.
#[derive(Debug, Args)]
pub(super) struct ReloadArgs {
    #[command(flatten)]
    instance: InstanceArgs,
    /// Skip rules that are wrong, as at a start, instead of changing nothing.
    #[arg(long)]
    lenient: bool,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &ReloadArgs) -> anyhow::Result<ExitCode> {
    let lenient = args.lenient;
    let value = ask(&args.instance.config()?, &Request::Reload { lenient })?;
    if args.json {
        println!("{value:#}");
        return Ok(ExitCode::SUCCESS);
    }
    let Reloaded {
        generation,
        compiled,
        seats,
        total_ms,
    } = serde_json::from_value(value)
        .context("the instance is of another version of sluice; try --json")?;
    println!(
        "generation {generation}: {} rules ({} skipped, {} of them wrong) in {} KiB, compiled with \
         {} KiB at most, their files kept in {} KiB; in use by {seats} seats after {total_ms} ms",
        compiled.rules,
        compiled.skipped,
        compiled.wrong,
        compiled.image_bytes >> 10,
        compiled.peak_bytes >> 10,
        compiled.source_bytes.div_ceil(1024),
    );
    Ok(ExitCode::SUCCESS)
}
