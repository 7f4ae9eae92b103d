//! `cargo xtask bench`: measurements in the namespace lab.

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

use crate::workspace::Workspace;

mod generator;
mod path;
mod pinned;
mod report;
mod transport;
mod udp;

/// Options of `cargo xtask bench`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Both queue transports accepting everything, against plain forwarding
    Transport(transport::TransportArgs),
}

/// Runs the command.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<ExitCode> {
    match &arguments.what {
        What::Transport(arguments) => transport::transport(workspace, arguments),
    }
}
