//! What `sluice status --json` says, as far as the promises are about it.

use std::collections::BTreeMap;

use serde::Deserialize;

/// One instance at one moment.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Status {
    /// How marks become queues.
    pub(super) netfilter: String,
    /// What is attached to each interface.
    pub(super) interfaces: BTreeMap<String, Attachment>,
    /// Rules in use.
    pub(super) rules: usize,
    /// The workers in order.
    pub(super) workers: Vec<Seat>,
    /// The backup.
    pub(super) backup: Seat,
    /// Counters of the eBPF programs.
    pub(super) counters: BTreeMap<String, u64>,
}

/// Programs on an interface.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Attachment {
    /// Kind of the TC attachment.
    pub(super) tc: String,
    /// Mode of the XDP attachment.
    pub(super) xdp: String,
}

/// A worker or the backup.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Seat {
    /// `worker 0` and so on, or `backup`.
    #[serde(rename = "seat")]
    pub(super) name: String,
    /// Process.
    pub(super) pid: u32,
    /// `up`, `starting`, `stale`, `down`.
    pub(super) state: String,
    /// Number of its queue.
    pub(super) queue: u16,
    /// How many times its process was replaced.
    pub(super) restarts: u64,
    /// How many times its heartbeat was found stale.
    pub(super) trips: u64,
    /// How many of its processes were killed because they hung.
    pub(super) hangs: u64,
    /// How its last process ended.
    pub(super) last_exit: Option<String>,
    /// Packets received, over all its processes.
    pub(super) received: u64,
    /// Packets accepted.
    pub(super) accepted: u64,
    /// Packets dropped.
    pub(super) dropped: u64,
    /// Packets of a dead process that its successor gave their verdict.
    #[serde(default)]
    pub(super) settled: u64,
    /// The kernel's counters of the queue.
    pub(super) kernel: Kernel,
}

impl Seat {
    /// Whether it is the backup's.
    pub(super) fn is_backup(&self) -> bool {
        self.name == "backup"
    }
}

/// The kernel's view of a queue.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Kernel {
    /// Packets without a verdict.
    pub(super) waiting: u64,
    /// Dropped because the queue was full.
    pub(super) queue_dropped: u64,
    /// Dropped because the socket's buffer was full.
    pub(super) user_dropped: u64,
}

impl Status {
    /// The workers and the backup.
    pub(super) fn seats(&self) -> impl Iterator<Item = &Seat> {
        self.workers.iter().chain([&self.backup])
    }

    /// Whether every seat is occupied by a process that works.
    pub(super) fn all_up(&self) -> bool {
        self.seats().all(|seat| seat.state == "up" && seat.pid != 0)
    }

    /// How many times any heartbeat was found stale.
    pub(super) fn trips(&self) -> u64 {
        self.seats().map(|seat| seat.trips).sum()
    }

    /// How many processes were killed because they hung.
    pub(super) fn hangs(&self) -> u64 {
        self.seats().map(|seat| seat.hangs).sum()
    }

    /// The seat that a queue belongs to.
    pub(super) fn seat_of(&self, queue: u16) -> Option<&Seat> {
        self.seats().find(|seat| seat.queue == queue)
    }

    /// A counter of the eBPF programs; one that is not there has never counted.
    pub(super) fn counter(&self, name: &str) -> u64 {
        self.counters.get(name).copied().unwrap_or(0)
    }
}
