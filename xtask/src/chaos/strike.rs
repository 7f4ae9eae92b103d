//! Faults that hit a process: killed, stopped, out of memory.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use super::campaign::Campaign;
use super::plan::{Fault, Kind};
use super::watch::Fate;
use crate::stage::processes::{self, kilobytes};
use crate::stage::status::Seat;

/// What has to be undone later.
#[derive(Clone, Debug)]
pub(super) enum Undo {
    /// A process was stopped.
    Continue(u32),
    /// A process's memory was limited; its limits before, as `prlimit` writes them.
    Limit(u32, String),
    /// A worker was drained.
    Resume(usize),
}

impl Campaign<'_> {
    /// Strikes a worker, the backup, the launcher or the rejecter. What was done, in words;
    /// `None` when there is nobody to strike at this moment.
    pub(super) fn strike(&mut self, fault: Fault) -> Result<Option<String>> {
        match fault.kind {
            Kind::KillLauncher => return self.strike_helper("launcher"),
            Kind::KillRejecter => return self.strike_helper("reject"),
            _ => {}
        }
        // While the supervisor becomes another program nobody answers.
        let Ok(status) = self.stage.glance() else {
            return Ok(None);
        };
        // The supervisor may not have heard yet of the end of one that was struck just now.
        let struck: Vec<u32> = self.watch.unanswered().map(|struck| struck.pid).collect();
        let alive = |seat: &&Seat| seat.pid != 0 && !struck.contains(&seat.pid);
        let seat = if fault.kind == Kind::KillBackup {
            Some(&status.backup).filter(alive)
        } else {
            chosen(&status.workers, fault.choice, alive)
        };
        let Some(seat) = seat else {
            return Ok(None);
        };
        let (pid, name) = (seat.pid, &seat.name);
        let place = (seat.queue, pid);
        let did = match fault.kind {
            Kind::Stop => {
                processes::signal(pid, Signal::SIGSTOP)?;
                format!("SIGSTOP to {name}, pid {pid}, for good")
            }
            Kind::Pause => {
                processes::signal(pid, Signal::SIGSTOP)?;
                self.later(fault.lasting, Undo::Continue(pid));
                format!("SIGSTOP to {name}, pid {pid}, for {:?}", fault.lasting)
            }
            Kind::Pressure => {
                let Some(limits) = press(pid)? else {
                    return Ok(None);
                };
                self.later(fault.lasting, Undo::Limit(pid, limits));
                format!(
                    "no more memory for {name}, pid {pid}, for {:?}",
                    fault.lasting
                )
            }
            _ => {
                processes::signal(pid, Signal::SIGKILL)?;
                format!("SIGKILL to {name}, pid {pid}")
            }
        };
        let fate = match fault.kind {
            // It goes on, or is taken for hung, as the time may be.
            Kind::Pause => return Ok(Some(did)),
            // It may need no memory meanwhile.
            Kind::Pressure => Fate::Open,
            _ => Fate::Replaced,
        };
        let at = self.load.started().elapsed();
        self.watch.struck(did.clone(), at, place, fate);
        Ok(Some(did))
    }

    /// Kills a process that has no seat, by a part of its name.
    fn strike_helper(&mut self, name: &str) -> Result<Option<String>> {
        let members = processes::of(self.stage.lab.gateway())?;
        let Some(member) = members.iter().find(|member| member.name.contains(name)) else {
            return Ok(None);
        };
        processes::signal(member.pid, Signal::SIGKILL)?;
        self.helpers_killed.push((name.to_owned(), member.pid));
        let did = format!("SIGKILL to {}, pid {}", member.name, member.pid);
        Ok(Some(did))
    }
}

/// The worker chosen, or the next one that is alive.
fn chosen(workers: &[Seat], choice: u64, alive: impl Fn(&&Seat) -> bool) -> Option<&Seat> {
    let first = usize::try_from(choice).unwrap_or(0) % workers.len().max(1);
    let (before, from) = workers.split_at(first.min(workers.len()));
    from.iter().chain(before).find(alive)
}

/// Sets a process's data limit to what it has now: its next allocation fails. Its limits before,
/// or `None` when it has ended.
fn press(pid: u32) -> Result<Option<String>> {
    let Some(data) = kilobytes(pid, "VmData") else {
        return Ok(None);
    };
    let Ok(limits) = fs::read_to_string(format!("/proc/{pid}/limits")) else {
        return Ok(None);
    };
    let before = data_limits(&limits).context("no data size in /proc/PID/limits")?;
    limit(pid, &(data * 1024).to_string())?;
    Ok(Some(before))
}

/// Sets a process's data limits: soft, or `soft:hard`. One that has ended needs none.
pub(super) fn limit(pid: u32, limits: &str) -> Result<()> {
    // A soft limit alone: the hard one could not be raised again everywhere.
    let limits = if limits.contains(':') {
        limits.to_owned()
    } else {
        format!("{limits}:")
    };
    while let Some(owner) = owner_of(pid) {
        let (user, group) = owner;
        let output = Command::new("prlimit")
            .args(["--pid", &pid.to_string(), &format!("--data={limits}")])
            // As the process itself: without CAP_SYS_RESOURCE, which containers lack, nobody may
            // set the limits of others, not even root.
            .uid(user)
            .gid(group)
            .output()
            .context("cannot start prlimit")?;
        if output.status.success() {
            break;
        }
        // A worker that starts becomes another user.
        if owner_of(pid) == Some(owner) {
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            bail!("prlimit --pid {pid} --data={limits}: {}", error.trim());
        }
    }
    Ok(())
}

/// Real user and group of a process; `None` when it has ended.
fn owner_of(pid: u32) -> Option<(u32, u32)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let real = |field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(field))?;
        line.split_whitespace().next()?.parse().ok()
    };
    Some((real("Uid:")?, real("Gid:")?))
}

/// `soft:hard` of the line `Max data size` (proc_pid_limits(5)).
fn data_limits(limits: &str) -> Option<String> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max data size"))?;
    let mut fields = line.split_whitespace();
    Some(format!("{}:{}", fields.next()?, fields.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_of_a_process_are_read_as_prlimit_wants_them() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max data size             unlimited            unlimited            bytes     \n";
        assert_eq!(data_limits(text).as_deref(), Some("unlimited:unlimited"));
        assert_eq!(data_limits("Limit"), None);
    }
}
