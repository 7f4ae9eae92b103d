//! `sluice upgrade`: another program goes on in the place of the running one.

use std::path::PathBuf;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;

use super::{Settings, ask};
use crate::control::Request;
use crate::metrics::snapshot::{Snapshot, Worker};
use crate::supervisor;

/// How long every worker may take to be relieved.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Arguments.
#[derive(Debug, Args)]
pub(super) struct UpgradeArgs {
    #[command(flatten)]
    instance: super::InstanceArgs,
    /// The program that goes on [default: this one].
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
}

pub(super) fn run(args: &UpgradeArgs) -> anyhow::Result<ExitCode> {
    let config = args.instance.config()?;
    let program = match &args.program {
        Some(program) => program
            .canonicalize()
            .with_context(|| program.display().to_string())?,
        None => std::env::current_exe().context("the path of this program")?,
    };
    let began = Instant::now();
    let answer = ask(
        &config,
        &Request::Upgrade {
            program: program.clone(),
        },
    )?;
    let before = answer["upgrades"].as_u64().context("an unknown answer")?;
    loop {
        sleep(LOOK_EVERY);
        // In between nobody listens.
        let status = ask(&config, &Request::Status {}).ok();
        let status = status.and_then(|value| serde_json::from_value::<Snapshot>(value).ok());
        if let Some(status) = status
            && status.upgrades > before
            && status.seats().all(Worker::serves)
        {
            println!(
                "{} goes on in process {} after {:.1} s",
                program.display(),
                status.pid,
                began.elapsed().as_secs_f32()
            );
            return Ok(ExitCode::SUCCESS);
        }
        if began.elapsed() > PATIENCE {
            bail!("not every worker has been relieved within {PATIENCE:?}: see the log");
        }
    }
}

/// Arguments.
#[derive(Debug, Args)]
pub(super) struct CanSucceedArgs {
    #[command(flatten)]
    settings: Settings,
    #[arg(short, long)]
    verbose: bool,
}

/// Says whether this program could go on in the place of one that was given these arguments.
pub(super) fn can_succeed(args: &CanSucceedArgs) -> anyhow::Result<ExitCode> {
    args.settings.load()?;
    println!("{}", supervisor::upgrade::can_succeed()?);
    Ok(ExitCode::SUCCESS)
}
