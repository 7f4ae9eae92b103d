//! `sluice config`

use std::process::ExitCode;

use clap::Args;

use super::Settings;
use crate::config::DEFAULTS;

/// Arguments.
#[derive(Debug, Args)]
pub(super) struct ConfigArgs {
    /// Print every key with its default and what it means.
    #[arg(long)]
    defaults: bool,
    #[command(flatten)]
    settings: Settings,
}

pub(super) fn run(args: &ConfigArgs) -> anyhow::Result<ExitCode> {
    if args.defaults {
        print!("{DEFAULTS}");
    } else {
        print!("{}", toml::to_string(&args.settings.load()?)?);
    }
    Ok(ExitCode::SUCCESS)
}
