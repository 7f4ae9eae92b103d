//! What the kernel says of each NFQUEUE: `/proc/net/netfilter/nfnetlink_queue`.
//!
//! The only place where packets that never reached userspace are counted
//! (net/netfilter/nfnetlink_queue.c, `seq_show`).

use std::fs::File;
use std::io::{self, Read, Seek};

use serde::Serialize;

/// One line of the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct QueueTruth {
    /// Queue number.
    pub queue: u16,
    /// Netlink port of the socket that bound it.
    pub port: u32,
    /// Packets without a verdict: in the socket's buffer or in a worker's hands.
    pub waiting: u32,
    /// Packets dropped because the queue was full.
    pub queue_dropped: u64,
    /// Packets dropped because the netlink message could not be delivered.
    pub user_dropped: u64,
    /// Id of the last packet queued.
    pub last_id: u32,
}

/// The file, which needs to be opened only once.
#[derive(Debug)]
pub struct Reader {
    file: File,
}

impl Reader {
    /// Opens the file of the calling thread's network namespace.
    ///
    /// # Errors
    /// When the kernel has no NFQUEUE.
    pub fn open() -> io::Result<Self> {
        let file = File::open("/proc/thread-self/net/netfilter/nfnetlink_queue")?;
        Ok(Self { file })
    }

    /// All queues, as they are now.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read(&mut self) -> io::Result<Vec<QueueTruth>> {
        self.file.rewind()?;
        let mut text = String::new();
        self.file.read_to_string(&mut text)?;
        Ok(parse(&text))
    }

    /// One queue; `None` when it is not bound.
    pub fn of(&mut self, queue: u16) -> Option<QueueTruth> {
        self.read().ok()?.into_iter().find(|it| it.queue == queue)
    }
}

/// Reads all queues of the calling thread's network namespace.
///
/// # Errors
/// When the file cannot be read: the kernel has no NFQUEUE.
pub fn read() -> io::Result<Vec<QueueTruth>> {
    Reader::open()?.read()
}

/// One queue of the calling thread's network namespace; `None` when it is not bound.
pub fn of(queue: u16) -> Option<QueueTruth> {
    Reader::open().ok()?.of(queue)
}

pub(crate) fn parse(text: &str) -> Vec<QueueTruth> {
    text.lines().filter_map(parse_line).collect()
}

/// Columns: queue, port, waiting, copy mode, copy range, queue dropped, user dropped, last id, 1.
fn parse_line(line: &str) -> Option<QueueTruth> {
    let columns: Vec<u64> = line
        .split_ascii_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()
        .ok()?;
    let &[
        queue,
        port,
        waiting,
        _mode,
        _range,
        queue_dropped,
        user_dropped,
        last_id,
        ..,
    ] = columns.as_slice()
    else {
        return None;
    };
    Some(QueueTruth {
        queue: queue.try_into().ok()?,
        port: port as u32,
        waiting: waiting as u32,
        queue_dropped,
        user_dropped,
        last_id: last_id as u32,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_and_nonsense_is_skipped() {
        let text = "  100  12345     3 2 65535     7     8       99  1\nx y\n1 2\n";
        assert_eq!(
            parse(text),
            [QueueTruth {
                queue: 100,
                port: 12345,
                waiting: 3,
                queue_dropped: 7,
                user_dropped: 8,
                last_id: 99,
            }]
        );
    }
}
