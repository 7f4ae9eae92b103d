//! Asking a running instance.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;

use super::Settings;
use crate::control::{self, Request, Response};

/// Which instance.
#[derive(Debug, Args)]
pub(super) struct InstanceArgs {
    /// Configuration file, for the instance's name and run directory.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Instance, when not the configuration's.
    #[arg(long, value_name = "NAME")]
    instance: Option<String>,
}

impl InstanceArgs {
    /// Its answer, which may take as long as `patience`.
    pub(super) fn ask(
        &self,
        request: &Request,
        patience: Duration,
    ) -> anyhow::Result<serde_json::Value> {
        let settings = Settings {
            config: self.config.clone(),
            ..Settings::default()
        };
        let mut config = settings.load()?;
        if let Some(instance) = &self.instance {
            config.name.clone_from(instance);
            config.validate()?;
        }
        let path = config.control_socket();
        let response = match control::ask_within(&path, request, patience) {
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
        match response {
            Response::Ok(value) => Ok(value),
            Response::Error(message) => bail!("{message}"),
        }
    }
}
