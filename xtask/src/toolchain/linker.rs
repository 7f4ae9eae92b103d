//! bpf-linker: turns LLVM bitcode into an eBPF object. It must understand the bitcode of the
//! compiler, so its LLVM has to be at least as new as the compiler's.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::search;
use crate::progress;
use crate::workspace::{Workspace, cargo_program, clean_library_path};

/// The version that is installed when there is none.
pub(super) const VERSION: &str = "0.13.0";

/// The bpf-linker on PATH, if there is one.
pub(super) fn find() -> Option<PathBuf> {
    search::executable("bpf-linker")
}

/// Whether it starts at all: after a system upgrade its libLLVM may be gone.
pub(super) fn starts(linker: &Path) -> Result<(), String> {
    let mut command = Command::new(linker);
    clean_library_path(&mut command);
    match command.arg("--version").output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// The major version of the libLLVM it loads; nothing when it is linked statically.
pub(super) fn llvm_major(linker: &Path) -> Option<u32> {
    let output = Command::new("ldd").arg(linker).output().ok()?;
    llvm_major_in(&String::from_utf8_lossy(&output.stdout))
}

fn llvm_major_in(libraries: &str) -> Option<u32> {
    let (_, rest) = libraries
        .split_once("libLLVM.so.")
        .or_else(|| libraries.split_once("libLLVM-"))?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

/// Compiles and installs bpf-linker against the distribution's LLVM, with the cargo that runs
/// us and none of the settings that are meant for this workspace.
pub(super) fn install(workspace: &Workspace, llvm_major: u32, llvm_prefix: &Path) -> Result<()> {
    // In the target directory, so that an interrupted build goes on where it stopped.
    let build = workspace.bpf_target().join("bpf-linker-build");
    let cargo = cargo_program();
    let mut command = Command::new(&cargo);
    clean_library_path(&mut command);
    command
        .args(["install", "bpf-linker", "--locked", "--force"])
        .args(["--version", VERSION, "--no-default-features"])
        .args(["--features", &format!("llvm-{llvm_major}")])
        .arg("--target-dir")
        .arg(&build)
        .current_dir("/")
        .env("LLVM_PREFIX", llvm_prefix);
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let ours = text.starts_with("CARGO_PROFILE_")
            || text.starts_with("CARGO_BUILD_")
            || text.starts_with("CARGO_UNSTABLE_")
            || text.starts_with("CARGO_ENCODED_")
            || text.starts_with("CARGO_TARGET_")
            || text.starts_with("RUSTC")
            || text == "RUSTFLAGS";
        if ours {
            command.env_remove(&name);
        }
    }
    // Debian's rustc may come before rustup's on PATH.
    let rustc = Path::new(&cargo).with_file_name("rustc");
    if rustc.is_file() {
        command.env("RUSTC", rustc);
    }
    progress::run(
        &format!("bpf-linker {VERSION} for LLVM {llvm_major} (cargo install)"),
        &mut command,
    )?;
    std::fs::remove_dir_all(&build)
        .with_context(|| format!("cannot remove {}", build.display()))?;
    let Some(linker) = find() else {
        bail!("cargo installed bpf-linker somewhere that is not on PATH");
    };
    if let Err(message) = starts(&linker) {
        bail!(
            "{} was just installed and does not start: {message}",
            linker.display()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_llvm_version_is_read_from_the_loaded_library() {
        let check = |text, expected| assert_eq!(llvm_major_in(text), expected, "{text}");
        check(
            "\tlibLLVM.so.22.1 => /usr/lib/llvm-22/lib/libLLVM.so.22.1",
            Some(22),
        );
        check("\tlibLLVM-17.so.1 => /lib/libLLVM-17.so.1", Some(17));
        check("\tlibLLVM.so.21.1 => not found", Some(21));
        check("\tlibc.so.6 => /lib/libc.so.6", None);
    }
}
