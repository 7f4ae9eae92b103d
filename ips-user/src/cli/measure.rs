//! `sluice measure`: how fast packets in memory are inspected. Hidden; what the prefilter benchmark
//! runs.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use crate::measure::{Measurement, Mix};
use crate::sys::process::bind_to_cpu;

/// Arguments.
#[derive(Debug, Args)]
pub(super) struct MeasureArgs {
    /// Rule file; repeat for each.
    #[arg(short, long, value_name = "FILE")]
    rules: Vec<PathBuf>,
    /// Capture with the traffic; repeat for each [default: made up].
    #[arg(short, long, value_name = "FILE")]
    mix: Vec<PathBuf>,
    /// How often everything is measured.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Megabytes of the traffic that is made up.
    #[arg(long, default_value_t = 64)]
    megabytes: usize,
    /// CPU to run on; any when absent.
    #[arg(long)]
    cpu: Option<usize>,
}

/// Prints one line of JSON.
///
/// # Errors
/// When rules or captures cannot be used.
pub(super) fn run(args: &MeasureArgs) -> anyhow::Result<()> {
    let mix = match args.mix.is_empty() {
        true => Mix::made_up(args.megabytes << 20),
        false => Mix::read(&args.mix)?,
    };
    let measurement = Measurement::prepare(&mix, &args.rules)?;
    // Not before the rules are compiled, which threads do.
    if let Some(cpu) = args.cpu {
        bind_to_cpu(cpu).with_context(|| format!("run on CPU {cpu}"))?;
    }
    let report = measurement.run(args.rounds.max(1))?;
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}
