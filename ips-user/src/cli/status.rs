//! `sluice status`

use std::io::ErrorKind;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;

use super::Settings;
use crate::control::{self, Request, Response};
use crate::metrics::snapshot::Snapshot;

/// Arguments.
#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// Configuration file, for the instance's name and run directory.
    #[arg(short, long, value_name = "FILE")]
    config: Option<std::path::PathBuf>,
    /// Instance, when not the configuration's.
    #[arg(long, value_name = "NAME")]
    instance: Option<String>,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let settings = Settings {
        config: args.config.clone(),
        ..Settings::default()
    };
    let mut config = settings.load()?;
    if let Some(instance) = &args.instance {
        config.name.clone_from(instance);
        config.validate()?;
    }
    let path = config.control_socket();
    let response = match control::ask(&path, &Request::Status {}) {
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::NotFound | ErrorKind::ConnectionRefused
            ) =>
        {
            bail!(
                "instance {:?} is not running (nobody listens at {})",
                config.name,
                path.display()
            )
        }
        result => result.with_context(|| path.display().to_string())?,
    };
    let value = match response {
        Response::Ok(value) => value,
        Response::Error(message) => bail!("{message}"),
    };
    if args.json {
        println!("{value:#}");
    } else {
        let snapshot: Snapshot = serde_json::from_value(value)
            .context("the instance is of another version of sluice; try --json")?;
        print!("{snapshot}");
    }
    Ok(ExitCode::SUCCESS)
}
