//! Installing Debian packages without questions, and what to tell the user elsewhere.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use nix::unistd::Uid;

use super::search;
use crate::progress::{self, Outcome};

/// How long another package manager may keep its locks.
const LOCK_WAIT: Duration = Duration::from_secs(300);

/// Families of distributions whose package names are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Distribution {
    /// Debian, Ubuntu and what descends from them.
    Debian,
    /// Fedora, RHEL and what descends from them.
    Fedora,
    /// Arch and what descends from it.
    Arch,
    /// Anything else.
    Other,
}

impl Distribution {
    /// Reads os-release(5).
    pub(crate) fn read() -> Self {
        Self::from_os_release(&fs::read_to_string("/etc/os-release").unwrap_or_default())
    }

    fn from_os_release(text: &str) -> Self {
        let ids: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("ID=").or(line.strip_prefix("ID_LIKE=")))
            .flat_map(|value| value.trim_matches(['"', '\'']).split_whitespace())
            .collect();
        let is = |names: &[&str]| names.iter().any(|name| ids.contains(name));
        if is(&["debian", "ubuntu"]) {
            Self::Debian
        } else if is(&["fedora", "rhel", "centos"]) {
            Self::Fedora
        } else if is(&["arch"]) {
            Self::Arch
        } else {
            Self::Other
        }
    }

    /// The commands that install packages here.
    pub(crate) fn commands(self, packages: &[&str]) -> Vec<String> {
        let packages = packages.join(" ");
        match self {
            Self::Debian => vec![
                "sudo apt-get update".to_owned(),
                format!("sudo apt-get install --no-install-recommends {packages}"),
            ],
            Self::Fedora => vec![format!("sudo dnf install {packages}")],
            Self::Arch => vec![format!("sudo pacman -S --needed {packages}")],
            Self::Other => vec![format!(
                "(your package manager; Debian's names are) {packages}"
            )],
        }
    }
}

/// Whether packages can be installed from here; the error says why not.
pub(crate) fn can_install() -> Result<(), &'static str> {
    if Distribution::read() != Distribution::Debian {
        Err("this is not Debian, so nothing is installed without you")
    } else if search::executable("apt-get").is_none() {
        Err("there is no apt-get here")
    } else if !Uid::effective().is_root() {
        Err("only root can install packages")
    } else {
        Ok(())
    }
}

/// Installs packages. Nothing that is installed already is ever removed for them.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    eprintln!("Installing with apt-get: {}", packages.join(" "));
    // A repository that cannot be reached is no reason to stop: the package may come from
    // another one, and installing says so if not.
    let update = with_lock_wait("package lists", &["update"])?;
    if !update.status.success() {
        eprintln!(
            "warning: apt-get update was not complete:\n{}",
            errors(&update)
        );
    }
    let mut arguments = vec!["install", "--yes", "--no-install-recommends", "--no-remove"];
    arguments.extend(packages);
    let mut outcome = with_lock_wait("packages", &arguments)?;
    if !outcome.status.success() && outcome.text().contains("dpkg --configure -a") {
        eprintln!("An earlier installation was interrupted; finishing it first.");
        progress::run(
            "dpkg --configure -a",
            quiet(Command::new("dpkg")).args(["--force-confold", "--configure", "-a"]),
        )?;
        outcome = with_lock_wait("packages", &arguments)?;
    }
    if !outcome.status.success() {
        bail!(
            "apt-get cannot install {}:\n{}",
            packages.join(" "),
            errors(&outcome)
        );
    }
    Ok(())
}

/// Whether the package lists offer a package.
pub(crate) fn offers(package: &str) -> bool {
    Command::new("apt-cache")
        .args(["policy", package])
        .env("LC_ALL", "C")
        .output()
        .is_ok_and(|output| {
            String::from_utf8_lossy(&output.stdout)
                .lines()
                .filter_map(|line| line.trim().strip_prefix("Candidate: "))
                .any(|version| version != "(none)")
        })
}

/// Fetches the package lists if there are none.
pub(crate) fn ensure_lists() -> Result<()> {
    let any = fs::read_dir("/var/lib/apt/lists")
        .is_ok_and(|files| files.flatten().any(|file| is_package_list(&file.path())));
    if !any {
        with_lock_wait("package lists", &["update"])?;
    }
    Ok(())
}

fn is_package_list(path: &Path) -> bool {
    path.to_string_lossy().contains("_Packages")
}

/// Runs apt-get. `DPkg::Lock::Timeout` does not cover the lock of the package lists, so a
/// failure to get that one is tried again.
fn with_lock_wait(label: &str, arguments: &[&str]) -> Result<Outcome> {
    let started = Instant::now();
    loop {
        let outcome = progress::observe(
            label,
            quiet(Command::new("apt-get"))
                .args(["-o", "Acquire::Retries=3"])
                .arg("-o")
                .arg(format!("DPkg::Lock::Timeout={}", LOCK_WAIT.as_secs()))
                .args(["-o", "Dpkg::Options::=--force-confold"])
                .args(arguments),
        )?;
        let locked = outcome.text().contains("Could not get lock");
        if outcome.status.success() || !locked || started.elapsed() > LOCK_WAIT {
            return Ok(outcome);
        }
        eprintln!("Another package manager is at work; waiting for it.");
        sleep(Duration::from_secs(5));
    }
}

/// Without questions, in English (the output is searched), without restarting services.
fn quiet(mut command: Command) -> Command {
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("NEEDRESTART_SUSPEND", "1")
        .env("LC_ALL", "C");
    command
}

/// apt's own error lines, or the end of what it said.
fn errors(outcome: &Outcome) -> String {
    let errors: Vec<&str> = outcome
        .tail
        .iter()
        .map(String::as_str)
        .filter(|line| line.starts_with("E: ") || line.starts_with("dpkg: error"))
        .collect();
    if errors.is_empty() {
        let skip = outcome.tail.len().saturating_sub(20);
        return outcome
            .tail
            .iter()
            .skip(skip)
            .fold(String::new(), |text, line| text + line + "\n");
    }
    errors.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distributions_are_told_by_id_or_by_what_they_are_like() {
        let check = |text, expected| assert_eq!(Distribution::from_os_release(text), expected);
        check("NAME=x\nID=debian\n", Distribution::Debian);
        check(
            "ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n",
            Distribution::Debian,
        );
        check(
            "ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n",
            Distribution::Fedora,
        );
        check("ID=arch\n", Distribution::Arch);
        check("ID=alpine\n", Distribution::Other);
        check("", Distribution::Other);
    }
}
