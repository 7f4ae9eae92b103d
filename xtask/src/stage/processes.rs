//! The processes of the instance: who runs in the gateway.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sluice_tests::Namespace;

/// A process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    /// Its id.
    pub(crate) pid: u32,
    /// Its name (`/proc/PID/comm`, at most 15 characters).
    pub(crate) name: String,
}

/// Everything that runs in a namespace.
pub(crate) fn of(namespace: &Namespace) -> Result<Vec<Member>> {
    // From outside: inside it would find itself.
    let output = Command::new("ip")
        .args(["netns", "pids", namespace.name()])
        .output()
        .context("ip netns pids")?;
    ensure!(output.status.success(), "ip netns pids: {}", output.status);
    let pids = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(pids
        .split_whitespace()
        .filter_map(|pid| {
            let pid = pid.parse().ok()?;
            // It may have ended meanwhile.
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
            Some(Member {
                pid,
                name: name.trim_end().to_owned(),
            })
        })
        .collect())
}

/// Sends a signal to a process; whether it was still there.
pub(crate) fn signal(pid: u32, signal: Signal) -> Result<bool> {
    match kill(Pid::from_raw(i32::try_from(pid)?), signal) {
        Ok(()) => Ok(true),
        Err(nix::errno::Errno::ESRCH) => Ok(false),
        Err(error) => Err(error).with_context(|| format!("{signal} to process {pid}")),
    }
}

/// A field of `/proc/PID/status` in kilobytes, for example `VmRSS`; `None` when it has ended.
pub(crate) fn kilobytes(pid: u32, field: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_a_process_is_read_and_of_none_is_not() {
        assert!(kilobytes(std::process::id(), "VmRSS").is_some_and(|size| size > 100));
        assert_eq!(kilobytes(std::process::id(), "VmNothing"), None);
        assert_eq!(kilobytes(u32::MAX, "VmRSS"), None);
    }
}
