//! `/proc/net/netfilter/nfnetlink_queue`: what the kernel says about each queue.

use anyhow::{Context, Result};
use serde::Serialize;

use crate::Namespace;

/// One line of the file (`seq_show` in `net/netfilter/nfnetlink_queue.c`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct QueueState {
    /// Queue number.
    pub queue: u16,
    /// Netlink port of the socket that bound it.
    pub port: u32,
    /// Packets without a verdict: queued, or received and not settled.
    pub waiting: u32,
    /// 0 nothing, 1 metadata, 2 packets are copied.
    pub copy_mode: u8,
    /// Bytes of each packet copied.
    pub copy_range: u32,
    /// Packets dropped because the queue was full.
    pub queue_dropped: u64,
    /// Packets dropped because the socket took no more.
    pub user_dropped: u64,
    /// Id of the last packet queued.
    pub last_id: u32,
}

/// The queues of a namespace.
///
/// # Errors
/// When the kernel has no NFQUEUE, or the file is not as expected.
pub fn read(namespace: &Namespace) -> Result<Vec<QueueState>> {
    let text = namespace
        .proc_net("netfilter/nfnetlink_queue")
        .context("read /proc/net/netfilter/nfnetlink_queue")?;
    text.lines().map(parse).collect()
}

/// One queue of a namespace; `None` when nobody has bound it.
///
/// # Errors
/// As [`read`].
pub fn of(namespace: &Namespace, queue: u16) -> Result<Option<QueueState>> {
    Ok(read(namespace)?
        .into_iter()
        .find(|state| state.queue == queue))
}

fn parse(line: &str) -> Result<QueueState> {
    let unexpected = || format!("unexpected line {line:?}");
    let fields: Vec<u64> = line
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()
        .with_context(unexpected)?;
    let [
        queue,
        port,
        waiting,
        copy_mode,
        copy_range,
        queue_dropped,
        user_dropped,
        last_id,
        ..,
    ] = fields[..]
    else {
        anyhow::bail!(unexpected());
    };
    Ok(QueueState {
        queue: u16::try_from(queue).with_context(unexpected)?,
        port: u32::try_from(port).with_context(unexpected)?,
        waiting: u32::try_from(waiting).with_context(unexpected)?,
        copy_mode: u8::try_from(copy_mode).with_context(unexpected)?,
        copy_range: u32::try_from(copy_range).with_context(unexpected)?,
        queue_dropped,
        user_dropped,
        last_id: u32::try_from(last_id).with_context(unexpected)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_kernel_is_understood() {
        let line = "    3  21017     5 2 65531     7     9     1234  1";
        let expected = QueueState {
            queue: 3,
            port: 21017,
            waiting: 5,
            copy_mode: 2,
            copy_range: 65531,
            queue_dropped: 7,
            user_dropped: 9,
            last_id: 1234,
        };
        assert_eq!(parse(line).unwrap(), expected);
        assert!(parse("3 4").is_err());
        assert!(parse("3 4 5 6 7 8 9 x").is_err());
    }
}
