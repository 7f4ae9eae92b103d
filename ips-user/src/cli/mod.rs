//! The command line.

use std::process::ExitCode;

use clap::Parser;

pub mod accept_all;

#[derive(Parser)]
#[command(name = "sluice")]
enum Command {
    /// Serve one queue and accept everything.
    #[command(hide = true)]
    AcceptAll(accept_all::AcceptAllArgs),
}

/// Runs the command line.
#[must_use]
pub fn main() -> ExitCode {
    let Command::AcceptAll(args) = Command::parse();
    match accept_all::run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sluice: {error:#}");
            ExitCode::FAILURE
        }
    }
}
