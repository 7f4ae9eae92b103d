//! Where the sources and the results are, and how cargo is called on them.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The workspace this program was built from.
pub(crate) struct Workspace {
    /// Directory of the top `Cargo.toml`.
    pub(crate) root: PathBuf,
    /// Cargo's target directory, `CARGO_TARGET_DIR` and configuration considered.
    pub(crate) target: PathBuf,
}

impl Workspace {
    /// Asks cargo for the target directory.
    pub(crate) fn find() -> Result<Self> {
        let here = env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = here
            .parent()
            .context("the package has no parent directory")?
            .to_path_buf();
        let output = cargo(&root)
            .args(["metadata", "--no-deps", "--format-version", "1"])
            .output()
            .context("cannot start cargo")?;
        if !output.status.success() {
            bail!(
                "cargo metadata failed: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        let metadata: serde_json::Value =
            serde_json::from_slice(&output.stdout).context("cargo metadata is not JSON")?;
        let target = metadata["target_directory"]
            .as_str()
            .context("cargo metadata names no target directory")?
            .into();
        Ok(Self { root, target })
    }

    /// Cargo, to be run on this workspace.
    pub(crate) fn cargo(&self) -> Command {
        cargo(&self.root)
    }

    /// Target directory of the eBPF programs: another compiler and other flags than the rest,
    /// so that neither makes cargo rebuild the other. `ips-user/build.rs` knows this path.
    pub(crate) fn bpf_target(&self) -> PathBuf {
        self.target.join("bpf")
    }

    /// The eBPF object that `cargo xtask build` makes.
    pub(crate) fn bpf_object(&self) -> PathBuf {
        self.bpf_target().join("bpfel-unknown-none/release/sluice")
    }

    /// The `sluice` program of a profile.
    pub(crate) fn sluice(&self, release: bool) -> PathBuf {
        self.target
            .join(if release { "release" } else { "debug" })
            .join("sluice")
    }
}

/// The cargo that runs us. `cargo run` puts the target directory and the compiler's libraries on
/// the loader's path; other compilers and the programs under test must not see those.
fn cargo(root: &Path) -> Command {
    let mut command = Command::new(cargo_program());
    command.current_dir(root).env("CARGO_TERM_COLOR", "auto");
    clean_library_path(&mut command);
    command
}

/// Path of the cargo that runs us.
pub(crate) fn cargo_program() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// Removes from `LD_LIBRARY_PATH` what cargo has added to it.
pub(crate) fn clean_library_path(command: &mut Command) {
    let Some(path) = env::var_os("LD_LIBRARY_PATH") else {
        return;
    };
    let kept: Vec<PathBuf> = env::split_paths(&path)
        .filter(|entry| {
            let text = entry.to_string_lossy();
            !text.contains("/rustlib/")
                && !text.contains("/toolchains/")
                && !text.ends_with("/deps")
                && !entry
                    .parent()
                    .is_some_and(|p| p.join("CACHEDIR.TAG").exists())
        })
        .collect();
    match env::join_paths(kept) {
        Ok(kept) if !kept.is_empty() => command.env("LD_LIBRARY_PATH", kept),
        _ => command.env_remove("LD_LIBRARY_PATH"),
    };
}
