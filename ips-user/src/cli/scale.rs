//! `sluice scale`, `sluice drain` and `sluice resume`

use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use super::{InstanceArgs, ask};
use crate::control::Request;
use crate::supervisor::Scaled;
use crate::supervisor::seat::Seat;

/// Arguments of `scale`.
#[derive(Debug, Args)]
pub(super) struct ScaleArgs {
    /// How many, without the backup.
    #[arg(value_name = "N")]
    workers: u32,
    #[command(flatten)]
    answer: AnswerArgs,
}

/// Arguments of `drain` and `resume`.
#[derive(Debug, Args)]
pub(super) struct WorkerArgs {
    /// Which, for example `0`.
    #[arg(value_name = "WORKER")]
    worker: Seat,
    #[command(flatten)]
    answer: AnswerArgs,
}

#[derive(Debug, Args)]
struct AnswerArgs {
    #[command(flatten)]
    instance: InstanceArgs,
    /// What came of it, as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn scale(args: &ScaleArgs) -> anyhow::Result<ExitCode> {
    let workers = args.workers;
    args.answer.to(&Request::Scale { workers })
}

pub(super) fn drain(args: &WorkerArgs) -> anyhow::Result<ExitCode> {
    let worker = args.worker;
    args.answer.to(&Request::Drain { worker })
}

pub(super) fn resume(args: &WorkerArgs) -> anyhow::Result<ExitCode> {
    let worker = args.worker;
    args.answer.to(&Request::Resume { worker })
}

impl AnswerArgs {
    fn to(&self, request: &Request) -> anyhow::Result<ExitCode> {
        let value = ask(&self.instance.config()?, request)?;
        if self.json {
            println!("{value:#}");
        } else {
            let scaled: Scaled = serde_json::from_value(value)
                .context("the instance is of another version of sluice; try --json")?;
            println!("{scaled}");
        }
        Ok(ExitCode::SUCCESS)
    }
}
