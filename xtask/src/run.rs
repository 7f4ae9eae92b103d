//! `cargo xtask run`: the demonstration, or Sluice on real interfaces.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::toolchain::system;
use crate::workspace::{Workspace, clean_library_path};
use crate::{build, demo, setup};

/// Options of `cargo xtask run`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Inspect what is forwarded by this interface (several times: all of them)
    #[arg(long, short)]
    interface: Vec<String>,
    /// Configuration file of Sluice
    #[arg(long, short)]
    config: Option<PathBuf>,
    /// Write the table of the demonstration with all its evidence to this file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["interface", "config"])]
    json: Option<PathBuf>,
    /// Use the debug build: slower, but it checks its arithmetic and its assertions
    #[arg(long)]
    debug: bool,
    /// Further arguments of `sluice run`
    #[arg(last = true)]
    further: Vec<String>,
}

/// Runs the command.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<ExitCode> {
    let setup = setup::ensure(workspace, system::RUN)?;
    build::object(workspace, setup.source)?;
    build::program(workspace, !arguments.debug)?;
    let program = workspace.sluice(!arguments.debug);
    if arguments.interface.is_empty() && arguments.config.is_none() {
        if !arguments.further.is_empty() {
            bail!("arguments after -- go to `sluice run`: give --interface or --config as well");
        }
        return demo::run(&program, arguments.json.as_deref());
    }
    let mut sluice = Command::new(&program);
    clean_library_path(&mut sluice);
    sluice.arg("run");
    if let Some(config) = &arguments.config {
        sluice.arg("--config").arg(config);
    }
    for interface in &arguments.interface {
        sluice.arg("--interface").arg(interface);
    }
    sluice.args(&arguments.further);
    // Replaces this process: signals and the exit code are Sluice's own.
    Err(sluice.exec()).with_context(|| format!("cannot start {}", program.display()))
}
