//! `sluice run`

use std::process::ExitCode;

use clap::Args;

use super::Settings;
use crate::config::Config;
use crate::supervisor;

/// Whether any interface is named: without one nothing would be inspected.
pub(super) fn check_interfaces(config: &Config) -> anyhow::Result<()> {
    if config.interfaces.is_empty() {
        anyhow::bail!("no interfaces: give `--interface IF` for each, or `interfaces` in the file");
    }
    Ok(())
}

/// Arguments.
#[derive(Debug, Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    settings: Settings,
    /// Show packets and verdicts as they pass.
    #[arg(short, long)]
    verbose: bool,
}

pub(super) fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let config = args.settings.load()?;
    check_interfaces(&config)?;
    let settings = args.settings.clone();
    supervisor::run(config, Box::new(move || settings.load()), args.verbose)?;
    Ok(ExitCode::SUCCESS)
}
