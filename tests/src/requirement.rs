//! Why a test cannot run here: said aloud, never silently.

use std::path::Path;
use std::process::{Command, Stdio};

/// What the lab lacks on this machine, in words; `None` when it can be built.
#[must_use]
pub fn missing_for_lab() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("needs root (network namespaces)".to_owned());
    }
    if !Path::new("/proc/self/ns/net").exists() {
        return Some("the kernel has no network namespaces (CONFIG_NET_NS)".to_owned());
    }
    missing_program("ip").or_else(|| missing_program("ethtool"))
}

/// What NFQUEUE rules lack on this machine, in words.
#[must_use]
pub fn missing_for_queues() -> Option<String> {
    missing_for_lab()
        .or_else(|| missing_program("iptables"))
        .or_else(|| {
            (!Path::new("/proc/net/netfilter/nfnetlink_queue").exists()).then(|| {
                "the kernel has no nfnetlink_queue (CONFIG_NETFILTER_NETLINK_QUEUE)".to_owned()
            })
        })
}

/// Says that a program is not installed; `None` when it is.
#[must_use]
pub fn missing_program(program: &str) -> Option<String> {
    let found = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    match found {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Some(format!("{program} is not installed"))
        }
        _ => None,
    }
}

/// Leaves the calling test, saying why, when a requirement is missing:
/// `skip_if!(requirement::missing_for_lab())`.
#[macro_export]
macro_rules! skip_if {
    ($missing:expr) => {
        if let Some(reason) = $missing {
            eprintln!("SKIPPED {}: {reason}", module_path!());
            return;
        }
    };
}

/// Leaves the calling test, saying why, where no lab can be built.
#[macro_export]
macro_rules! require_lab {
    () => {
        $crate::skip_if!($crate::requirement::missing_for_lab());
    };
}

/// Leaves the calling test, saying why, where no lab with NFQUEUE rules can be built.
#[macro_export]
macro_rules! require_queues {
    () => {
        $crate::skip_if!($crate::requirement::missing_for_queues());
    };
}
