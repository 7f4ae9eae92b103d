//! What a stopped instance has left behind.

use std::path::Path;

use anyhow::Result;
use sluice_tests::{Lab, queue_state};

use super::{entries, processes};

/// One line for each thing that is still there.
pub(super) fn find(lab: &Lab, name: &str, directory: &Path, pins: &Path) -> Result<Vec<String>> {
    let gateway = lab.gateway();
    let mut left = Vec::new();
    left.extend(
        processes::of(gateway)?
            .iter()
            .map(|member| format!("process {} ({})", member.pid, member.name)),
    );
    left.extend(entries(pins).map(|pin| format!("pin {pin}")));
    left.extend(
        entries(&directory.join("run"))
            .filter(|entry| entry.ends_with(".sock") || entry.ends_with(".socket"))
            .map(|entry| format!("socket {entry}")),
    );
    for (program, arguments) in [
        ("nft", &["list", "ruleset"][..]),
        ("iptables", &["-w", "-S"][..]),
        ("ip6tables", &["-w", "-S"][..]),
    ] {
        let rules = gateway.run(program, arguments).unwrap_or_default();
        left.extend(
            rules
                .lines()
                .filter(|line| {
                    let line = line.to_lowercase();
                    line.contains("sluice") || line.contains("queue") || line.contains(name)
                })
                .map(|line| format!("{program}: {}", line.trim())),
        );
    }
    let queues = queue_state::read(gateway)?;
    left.extend(queues.iter().map(|queue| format!("queue {}", queue.queue)));
    for interface in [Lab::GATEWAY_CLIENT_INTERFACE, Lab::GATEWAY_SERVER_INTERFACE] {
        let shown = gateway.run("ip", &["-details", "link", "show", "dev", interface])?;
        if shown.contains("xdp") {
            left.push(format!("XDP program on {interface}"));
        }
    }
    Ok(left)
}
