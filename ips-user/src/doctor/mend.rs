//! What `--fix` may do: only what is reversible and local, and never silently.

use std::path::Path;

use nix::mount::{MsFlags, mount};

use super::Applied;
use crate::netfilter::{find_program, run};
use crate::sys::ethtool::Ethtool;

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mend {
    /// Writes a kernel parameter, by its dotted name.
    Sysctl { name: String, value: String },
    /// Mounts the BPF file system at `/sys/fs/bpf`.
    MountBpffs,
    /// Switches generic receive offload on.
    GroOn { interface: String },
    /// Switches large receive offload off.
    LroOff { interface: String },
    /// Loads a kernel module.
    Modprobe { module: &'static str },
}

/// The file of a kernel parameter. Dots separate; an interface's own dots are written as
/// slashes, as in `sysctl`(8).
pub(super) fn sysctl_path(name: &str) -> String {
    let swapped: String = name
        .chars()
        .map(|c| match c {
            '.' => '/',
            '/' => '.',
            other => other,
        })
        .collect();
    format!("/proc/sys/{swapped}")
}

fn on_off(on: bool) -> String {
    if on { "on" } else { "off" }.to_owned()
}

impl Mend {
    /// The command that does the same by hand.
    pub(super) fn command(&self) -> String {
        match self {
            Self::Sysctl { name, value } => format!("sysctl -w {name}={value}"),
            Self::MountBpffs => "mount -t bpf bpf /sys/fs/bpf".to_owned(),
            Self::GroOn { interface } => format!("ethtool -K {interface} gro on"),
            Self::LroOff { interface } => format!("ethtool -K {interface} lro off"),
            Self::Modprobe { module } => format!("modprobe {module}"),
        }
    }

    /// Does it and says what changed.
    pub(super) fn apply(&self, check: &str) -> Applied {
        let old = self.state();
        let error = self.change().err();
        Applied {
            check: check.to_owned(),
            what: self.command(),
            old,
            new: self.state(),
            error,
        }
    }

    fn state(&self) -> String {
        let unknown = || "unknown".to_owned();
        match self {
            Self::Sysctl { name, .. } => std::fs::read_to_string(sysctl_path(name))
                .map_or_else(|_| unknown(), |value| value.trim().to_owned()),
            Self::MountBpffs => if super::kernel::bpffs_is_mounted() {
                "mounted"
            } else {
                "not mounted"
            }
            .to_owned(),
            Self::GroOn { interface } => Ethtool::new(interface)
                .and_then(|device| device.offloads())
                .map_or_else(|_| unknown(), |offloads| on_off(offloads.gro)),
            Self::LroOff { interface } => Ethtool::new(interface)
                .and_then(|device| device.offloads())
                .map_or_else(|_| unknown(), |offloads| on_off(offloads.lro)),
            Self::Modprobe { module } => if Path::new("/sys/module").join(module).exists() {
                "loaded"
            } else {
                "not loaded"
            }
            .to_owned(),
        }
    }

    fn change(&self) -> Result<(), String> {
        let text = |error: std::io::Error| error.to_string();
        match self {
            Self::Sysctl { name, value } => std::fs::write(sysctl_path(name), value).map_err(text),
            Self::MountBpffs => {
                let none: Option<&str> = None;
                mount(
                    Some("bpf"),
                    "/sys/fs/bpf",
                    Some("bpf"),
                    MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
                    none,
                )
                .map_err(|errno| errno.to_string())
            }
            Self::GroOn { interface } => Ethtool::new(interface)
                .and_then(|device| device.set_gro(true))
                .map_err(text),
            Self::LroOff { interface } => Ethtool::new(interface)
                .and_then(|device| device.disable_lro())
                .map_err(text),
            Self::Modprobe { module } => {
                let program =
                    find_program("modprobe").ok_or("modprobe is not installed (package kmod)")?;
                run(&program, &[module], "")
                    .map(drop)
                    .map_err(|failure| failure.to_string())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_of_an_interface_with_a_dot_has_the_right_file() {
        assert_eq!(
            sysctl_path("net.ipv4.conf.eth0/7.rp_filter"),
            "/proc/sys/net/ipv4/conf/eth0.7/rp_filter"
        );
    }

    #[test]
    fn a_change_that_fails_says_so() {
        let applied = Mend::Sysctl {
            name: "sluice.no_such_parameter".to_owned(),
            value: "1".to_owned(),
        }
        .apply("test");
        assert!(applied.error.is_some());
        assert_eq!(applied.old, "unknown");
    }
}
