//! libhs, which searches packets for many patterns at once: Hyperscan, on other processors than
//! x86-64 Vectorscan. The build finds it by pkg-config; without it `sluice` searches by itself,
//! more slowly.

use std::process::Command;

use super::debian;

/// The least version that the build takes.
const VERSION: &str = "5.2";

/// Where it is, and which version.
pub(crate) fn found() -> Option<String> {
    let output = Command::new("pkg-config")
        .args(["--atleast-version", VERSION, "libhs"])
        .status()
        .ok()
        .filter(std::process::ExitStatus::success)
        .and_then(|_| {
            Command::new("pkg-config")
                .args(["--modversion", "libhs"])
                .output()
                .ok()
        })?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Debian's package for this processor.
fn package() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "libhyperscan-dev",
        _ => "libvectorscan-dev",
    }
}

/// Sees to it that it is there, where that can be done; says what is missing otherwise. Nothing
/// depends on it but speed.
pub(crate) fn ensure() -> Option<String> {
    if let Some(version) = found() {
        return Some(version);
    }
    let package = package();
    let installed = match debian::can_install() {
        Ok(()) => debian::install(&["pkg-config", package]).map_err(|error| format!("{error:#}")),
        Err(obstacle) => Err(obstacle.to_owned()),
    };
    let version = found();
    if version.is_none() {
        let reason = installed.err().unwrap_or_else(|| "not found".into());
        eprintln!(
            "warning: without libhs ({package}), patterns are searched more slowly ({reason})"
        );
    }
    version
}
