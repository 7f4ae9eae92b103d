//! `cargo xtask setup`: everything any command needs, without building the product.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use crate::toolchain::system::{self, Program};
use crate::toolchain::{bpf, libhs};
use crate::workspace::Workspace;

/// Sees to both the programs and the BPF toolchain. What is missing of the second is said also
/// when the first cannot be installed: the user shall not have to come back for it.
pub(crate) fn ensure(workspace: &Workspace, programs: &[Program]) -> Result<Setup> {
    let found = system::ensure(programs);
    let source = bpf::ensure(workspace);
    let libhs = libhs::ensure();
    Ok(Setup {
        libhs,
        programs: found?,
        source: source?,
    })
}

/// What was found or installed.
pub(crate) struct Setup {
    programs: Vec<(Program, PathBuf)>,
    /// Version of libhs, if it is there.
    libhs: Option<String>,
    /// Where the eBPF object comes from.
    pub(crate) source: bpf::Source,
}

/// Runs the command.
pub(crate) fn run(workspace: &Workspace) -> Result<ExitCode> {
    let setup = ensure(workspace, system::ALL)?;
    match setup.source {
        bpf::Source::Prebuilt(object) => println!("eBPF object   {} (prebuilt)", object.display()),
        bpf::Source::Toolchain(toolchain) => {
            println!("BPF compiler  {toolchain}");
            println!("BPF linker    {}", toolchain.linker.display());
        }
    }
    match setup.libhs {
        Some(version) => println!("libhs         {version}"),
        None => println!("libhs         none: patterns are searched more slowly"),
    }
    for (program, path) in setup.programs {
        println!("{:<13} {}", program.executable, path.display());
    }
    println!("Everything is there; next: cargo xtask run");
    Ok(ExitCode::SUCCESS)
}
