//! `cargo xtask bench`: measurements, most of them in the namespace lab.

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

use crate::workspace::Workspace;

mod caps;
mod endurance;
mod generator;
mod kills;
mod memory;
mod overload;
mod path;
mod pinned;
mod prefilter;
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
    /// TCP streams while a worker is killed every 100 ms, against undisturbed ones
    Endurance(endurance::EnduranceArgs),
    /// How fast the prefilters and the whole inspection are on one core, without a kernel
    Prefilter(prefilter::PrefilterArgs),
    /// Three times the packets that can be inspected, and where each has ended
    Overload(overload::OverloadArgs),
    /// A flood for each bounded table, far beyond its cap, and what it takes
    Caps(caps::CapsArgs),
}

/// Runs the command.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<ExitCode> {
    match &arguments.what {
        What::Transport(arguments) => transport::transport(workspace, arguments),
        What::Overload(arguments) => overload::overload(workspace, arguments),
        What::Caps(arguments) => caps::caps(workspace, arguments),
        What::Prefilter(arguments) => prefilter::prefilter(workspace, arguments),
        What::Endurance(arguments) => endurance::endurance(workspace, arguments),
    }
}
