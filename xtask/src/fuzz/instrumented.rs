//! The build with coverage, sanitizer and every check that a debug build has.
//!
//! The coverage is LLVM's own and needs no nightly compiler; `-Zsanitizer` does, or
//! `RUSTC_BOOTSTRAP`, which the stable compiler takes as well: its runtime comes with it. So
//! cargo-fuzz, which wants a nightly, is not needed; what is here works with it, too.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::progress;
use crate::toolchain::compiler::CxxCompiler;
use crate::toolchain::libhs;
use crate::workspace::Workspace;

/// What libFuzzer counts: edges, and the operands of comparisons. As cargo-fuzz has it.
const COVERAGE: [&str; 7] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "--cfg",
    "fuzzing",
];

/// Programs of `fuzz/`, built.
pub(super) struct Instrumented {
    directory: PathBuf,
    /// Where inputs and what was found are.
    pub(super) work: PathBuf,
    sanitizer: bool,
}

impl Instrumented {
    /// Builds these targets and the programs beside them.
    pub(super) fn build(workspace: &Workspace, targets: &[String]) -> Result<Self> {
        // libFuzzer comes as C++ sources.
        CxxCompiler::ensure()?;
        libhs::ensure();
        let compiler = Compiler::of(workspace)?;
        let target = workspace.target.join("fuzz");
        let mut flags = COVERAGE.map(str::to_owned).to_vec();
        if compiler.has_sanitizer {
            flags.push("-Zsanitizer=address".into());
        } else {
            eprintln!(
                "warning: this compiler comes without AddressSanitizer's runtime: only panics and wrong results are found"
            );
        }
        let mut cargo = workspace.cargo();
        cargo
            .current_dir(workspace.root.join("fuzz"))
            // With a target named, build scripts and macros are left as they are.
            .args(["build", "--release", "--target", &compiler.host])
            .args(["--bin", "seeds", "--bin", "captures"])
            .env("CARGO_TARGET_DIR", &target)
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
            .env("RUSTC_BOOTSTRAP", "1");
        if std::env::var_os("IPS_EBPF_OBJECT").is_none() {
            cargo.env("IPS_EBPF_OBJECT", workspace.bpf_object());
        }
        for name in targets {
            cargo.args(["--bin", name]);
        }
        progress::cargo("fuzz targets", &mut cargo)?;
        Ok(Self {
            directory: target.join(&compiler.host).join("release"),
            work: target,
            sanitizer: compiler.has_sanitizer,
        })
    }

    /// A program of it. A failure is an end with a report, also in C code.
    pub(super) fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.directory.join(name));
        command.env(
            "ASAN_OPTIONS",
            "detect_odr_violation=0:allocator_may_return_null=1:detect_leaks=0:abort_on_error=0",
        );
        command.env("RUST_BACKTRACE", "1");
        command
    }

    /// For people.
    pub(super) fn describe(&self) -> &'static str {
        match self.sanitizer {
            true => "built with AddressSanitizer, debug assertions and overflow checks",
            false => "built with debug assertions and overflow checks, without AddressSanitizer",
        }
    }
}

struct Compiler {
    host: String,
    has_sanitizer: bool,
}

impl Compiler {
    /// The one that cargo will use.
    fn of(workspace: &Workspace) -> Result<Self> {
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let ask = |arguments: &[&str]| -> Result<String> {
            let mut command = Command::new(&rustc);
            command.current_dir(&workspace.root).args(arguments);
            let output = command.output().context("cannot start rustc")?;
            if !output.status.success() {
                bail!("rustc {}: {}", arguments.join(" "), output.status);
            }
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        };
        let version = ask(&["-vV"])?;
        let host = (version.lines())
            .find_map(|line| line.strip_prefix("host: "))
            .context("rustc names no host")?
            .to_owned();
        let sysroot = PathBuf::from(ask(&["--print", "sysroot"])?);
        let libraries = sysroot.join("lib/rustlib").join(&host).join("lib");
        Ok(Self {
            has_sanitizer: has_runtime(&libraries),
            host,
        })
    }
}

/// Whether AddressSanitizer's runtime is there: `librustc-stable_rt.asan.a` and the like.
fn has_runtime(libraries: &Path) -> bool {
    let files = std::fs::read_dir(libraries).into_iter().flatten().flatten();
    files.into_iter().any(|file| {
        let name = file.file_name();
        name.to_string_lossy().ends_with("_rt.asan.a")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sanitizer_is_there_when_its_runtime_is() {
        let directory = tempfile::tempdir().unwrap();
        assert!(!has_runtime(&directory.path().join("absent")));
        std::fs::write(directory.path().join("librustc-stable_rt.tsan.a"), "").unwrap();
        assert!(!has_runtime(directory.path()));
        std::fs::write(directory.path().join("librustc-stable_rt.asan.a"), "").unwrap();
        assert!(has_runtime(directory.path()));
    }
}
