//! Finding executables, also where the user's PATH does not look.

use std::env;
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

/// Directories of system programs; `su` without `-` and some containers leave them out of PATH.
const SYSTEM: [&str; 4] = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin"];

/// Restarts this program with the missing directories at the end of PATH, if any are missing.
/// Everything that is started later, also by libraries, then finds its programs.
pub(crate) fn with_full_path() -> Result<()> {
    let path = env::var_os("PATH").unwrap_or_default();
    let Some(full) = completed(&path, cargo_bin().as_deref()) else {
        return Ok(());
    };
    let program = env::current_exe().context("cannot find this program's own path")?;
    let error = Command::new(&program)
        .args(env::args_os().skip(1))
        .env("PATH", full)
        .exec();
    Err(error).with_context(|| format!("cannot restart {}", program.display()))
}

/// The completed PATH, or nothing when it is complete already.
fn completed(path: &OsString, cargo_bin: Option<&Path>) -> Option<OsString> {
    let mut entries: Vec<PathBuf> = env::split_paths(path).collect();
    let before = entries.len();
    for directory in SYSTEM.iter().map(Path::new).chain(cargo_bin) {
        if !entries.iter().any(|entry| entry == directory) {
            entries.push(directory.to_path_buf());
        }
    }
    if entries.len() == before {
        return None;
    }
    env::join_paths(entries).ok()
}

/// Where `cargo install` puts programs.
pub(crate) fn cargo_bin() -> Option<PathBuf> {
    env::var_os("CARGO_INSTALL_ROOT")
        .or_else(|| env::var_os("CARGO_HOME"))
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")))
        .map(|home| home.join("bin"))
}

/// The first executable of this name on PATH.
pub(crate) fn executable(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|directory| directory.join(name))
        .find(|candidate| {
            candidate
                .metadata()
                .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_directories_are_appended_and_the_users_come_first() {
        let full = completed(
            &"/opt/x:/usr/bin".into(),
            Some(Path::new("/root/.cargo/bin")),
        );
        assert_eq!(
            full,
            Some("/opt/x:/usr/bin:/usr/local/sbin:/usr/sbin:/sbin:/root/.cargo/bin".into())
        );
    }

    #[test]
    fn a_complete_path_is_left_alone() {
        let path = "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin".into();
        assert_eq!(completed(&path, None), None);
    }
}
