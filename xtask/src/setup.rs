//! `cargo xtask setup`: everything any command needs, without building the product.

use std::process::ExitCode;

use anyhow::Result;

use crate::toolchain::{bpf, system};
use crate::workspace::Workspace;

/// Runs the command.
pub(crate) fn run(workspace: &Workspace) -> Result<ExitCode> {
    match bpf::ensure(workspace)? {
        bpf::Source::Prebuilt(object) => println!("eBPF object   {} (prebuilt)", object.display()),
        bpf::Source::Toolchain(toolchain) => {
            println!("BPF compiler  {toolchain}");
            println!("BPF linker    {}", toolchain.linker.display());
        }
    }
    let programs = system::ALL;
    for (program, path) in system::ensure(programs)? {
        println!("{:<13} {}", program.executable, path.display());
    }
    println!("Everything is there; next: cargo xtask run");
    Ok(ExitCode::SUCCESS)
}
