//! `cargo xtask build`: the eBPF object, then the `sluice` program that carries it.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::progress;
use crate::toolchain::bpf::{self, Source};
use crate::toolchain::libhs;
use crate::workspace::Workspace;

/// Options of `cargo xtask build`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Optimise; the result is in target/release/sluice
    #[arg(long)]
    release: bool,
}

/// Runs the command.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<ExitCode> {
    object(workspace, bpf::ensure(workspace)?)?;
    program(workspace, arguments.release)?;
    println!("{}", workspace.sluice(arguments.release).display());
    Ok(ExitCode::SUCCESS)
}

/// Builds the eBPF object, unless a prebuilt one is named. Cargo decides what is out of date.
pub(crate) fn object(workspace: &Workspace, source: Source) -> Result<()> {
    let Source::Toolchain(toolchain) = source else {
        return Ok(());
    };
    progress::cargo("eBPF programs", &mut toolchain.cargo_build(workspace))?;
    let object = workspace.bpf_object();
    if !is_bpf_object(&object)? {
        bail!("{} is not an eBPF object", object.display());
    }
    Ok(())
}

/// Builds `sluice`. The debug profile builds the whole workspace, with the same selection of
/// packages as `cargo xtask test`: another selection means other features of the dependencies,
/// and cargo would compile those twice.
pub(crate) fn program(workspace: &Workspace, release: bool) -> Result<()> {
    libhs::ensure();
    let mut cargo = workspace.cargo();
    cargo.arg("build");
    if release {
        cargo.args(["--release", "--package", "ips-user"]);
        progress::cargo("sluice (release)", &mut cargo)
    } else {
        cargo.args(["--workspace", "--exclude", "ips-ebpf"]);
        progress::cargo("sluice (debug)", &mut cargo)
    }
}

/// Whether a file is an ELF object for the BPF machine (`EM_BPF`, 247).
pub(crate) fn is_bpf_object(path: &Path) -> Result<bool> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(bytes.starts_with(b"\x7fELF") && bytes.get(18..20) == Some(&[247, 0][..]))
}
