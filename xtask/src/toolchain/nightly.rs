//! A nightly toolchain of rustup that has the sources of `core`.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::bpf::CompilerVersion;
use super::search;
use crate::workspace::clean_library_path;

/// The nightly compiler, if it can build `core` for BPF.
pub(super) fn find() -> Option<(PathBuf, CompilerVersion)> {
    let rustup = search::executable("rustup")?;
    let name = String::from_utf8(run(&rustup, &["toolchain", "list"])?)
        .ok()?
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .find(|name| name.starts_with("nightly"))?
        .to_owned();
    let sysroot = run(&rustup, &["run", &name, "rustc", "--print", "sysroot"])?;
    let sysroot = PathBuf::from(String::from_utf8(sysroot).ok()?.trim());
    if !has_sources(&sysroot) {
        return None;
    }
    let rustc = sysroot.join("bin/rustc");
    let version = CompilerVersion::of(&rustc)?;
    Some((rustc, version))
}

/// Whether the component rust-src is installed.
fn has_sources(sysroot: &Path) -> bool {
    sysroot
        .join("lib/rustlib/src/rust/library/core/src/lib.rs")
        .is_file()
}

fn run(program: &Path, arguments: &[&str]) -> Option<Vec<u8>> {
    let mut command = Command::new(program);
    clean_library_path(&mut command);
    let output = command.args(arguments).output().ok()?;
    output.status.success().then_some(output.stdout)
}
