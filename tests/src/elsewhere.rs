//! Packets lost beside Sluice: by full rings of the virtual wires, by full buffers of the servers'
//! sockets. On a busy machine both happen, and both are counted by the kernel.

use anyhow::Result;

use crate::{Lab, Namespace};

/// Counts from its making on.
#[derive(Debug)]
pub struct Elsewhere {
    before: u64,
}

impl Elsewhere {
    /// Starts counting.
    ///
    /// # Errors
    /// When a counter cannot be read.
    pub fn watch(lab: &Lab) -> Result<Self> {
        Ok(Self {
            before: total(lab)?,
        })
    }

    /// Packets lost since.
    ///
    /// # Errors
    /// When a counter cannot be read.
    pub fn lost(&self, lab: &Lab) -> Result<u64> {
        Ok(total(lab)?.saturating_sub(self.before))
    }
}

/// `lost` of the whole, with what was lost elsewhere named; the rest is Sluice's.
pub fn attribute(lost: u64, elsewhere: u64) -> (u64, String) {
    let by_sluice = lost.saturating_sub(elsewhere);
    let text = if lost == by_sluice {
        format!("lost = {lost}")
    } else {
        format!(
            "lost = {by_sluice} ({} more by full rings or buffers of the test's own ends)",
            lost - by_sluice
        )
    };
    (by_sluice, text)
}

fn total(lab: &Lab) -> Result<u64> {
    let mut total = 0;
    for (namespace, interface) in lab.interfaces() {
        // A veth whose peer's ring is full counts on the sending side (drivers/net/veth.c). What
        // the XDP program drops is counted on the receiving side, and is Sluice's.
        total += namespace.interface_counter(interface, "tx_dropped")?;
    }
    for namespace in [lab.client(), lab.server()] {
        total += snmp(namespace, "Udp", "RcvbufErrors")?;
        total += snmp6(namespace, "Udp6RcvbufErrors")?;
    }
    Ok(total)
}

/// A counter of `/proc/net/snmp`. Zero when the kernel does not have it.
///
/// # Errors
/// When the file cannot be read.
pub fn snmp(namespace: &Namespace, protocol: &str, name: &str) -> Result<u64> {
    counter(namespace, "snmp", protocol, name)
}

/// A counter of TCP in `/proc/net/netstat`, for example `TCPDSACKRecvSegs`: what was sent again
/// though it had arrived (RFC 2883). Zero when the kernel does not have it.
///
/// # Errors
/// When the file cannot be read.
pub fn tcp_extended(namespace: &Namespace, name: &str) -> Result<u64> {
    counter(namespace, "netstat", "TcpExt", name)
}

/// A line of names, then a line of values.
fn counter(namespace: &Namespace, file: &str, protocol: &str, name: &str) -> Result<u64> {
    let text = namespace.proc_net(file)?;
    let mut lines = text
        .lines()
        .filter_map(|line| line.strip_prefix(protocol)?.strip_prefix(": "));
    let (names, values) = (lines.next().unwrap_or(""), lines.next().unwrap_or(""));
    Ok(names
        .split_whitespace()
        .zip(values.split_whitespace())
        .find(|(candidate, _)| *candidate == name)
        .and_then(|(_, value)| value.parse().ok())
        .unwrap_or(0))
}

/// A counter of `/proc/net/snmp6`: name and value on a line.
fn snmp6(namespace: &Namespace, name: &str) -> Result<u64> {
    let text = namespace.proc_net("snmp6")?;
    Ok(text
        .lines()
        .filter_map(|line| line.split_once(char::is_whitespace))
        .find(|(candidate, _)| *candidate == name)
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_counted_elsewhere_is_not_sluices_loss() {
        assert_eq!(attribute(0, 7), (0, "lost = 0".to_owned()));
        assert_eq!(attribute(3, 0), (3, "lost = 3".to_owned()));
        assert_eq!(attribute(3, 2).0, 1);
        assert!(attribute(3, 5).1.starts_with("lost = 0 (3 more"));
    }
}
