//! What `sluice status --json` says, as far as the promises are about it.

use std::collections::BTreeMap;

use serde::Deserialize;

/// One instance at one moment.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Status {
    /// How marks become queues.
    pub(crate) netfilter: String,
    /// What is attached to each interface.
    pub(crate) interfaces: BTreeMap<String, Attachment>,
    /// Rules in use.
    pub(crate) rules: usize,
    /// How many times another program has taken its place.
    #[serde(default)]
    pub(crate) upgrades: u64,
    /// How many times the launcher was replaced.
    #[serde(default)]
    pub(crate) launcher_restarts: u64,
    /// The workers in order.
    pub(crate) workers: Vec<Seat>,
    /// The backup.
    pub(crate) backup: Seat,
    /// Counters of the eBPF programs.
    pub(crate) counters: BTreeMap<String, u64>,
}

/// Programs on an interface.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Attachment {
    /// Kind of the TC attachment.
    pub(crate) tc: String,
    /// Mode of the XDP attachment.
    pub(crate) xdp: String,
}

/// A worker or the backup.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Seat {
    /// `worker 0` and so on, or `backup`.
    #[serde(rename = "seat")]
    pub(crate) name: String,
    /// Process.
    pub(crate) pid: u32,
    /// `up`, `starting`, `stale`, `down`; of a worker that serves and gets no new flows also
    /// `joining`, `draining`, `drained`, `retiring`, `leaving`.
    pub(crate) state: String,
    /// Number of its queue.
    pub(crate) queue: u16,
    /// How many times its process was replaced.
    pub(crate) restarts: u64,
    /// How many times its heartbeat was found stale.
    pub(crate) trips: u64,
    /// How many of its processes were killed because they hung.
    #[serde(default)]
    pub(crate) hangs: u64,
    /// Packets received, over all its processes.
    pub(crate) received: u64,
    /// Packets accepted.
    pub(crate) accepted: u64,
    /// Packets dropped.
    pub(crate) dropped: u64,
    /// Packets accepted with other bytes.
    #[serde(default)]
    pub(crate) replaced: u64,
    /// Packets of a dead process that its successor gave their verdict.
    #[serde(default)]
    pub(crate) settled: u64,
    /// Packets that overload cost their inspection.
    #[serde(default)]
    pub(crate) shed: u64,
    /// Of these: those dropped.
    #[serde(default)]
    pub(crate) shed_dropped: u64,
    /// Of the dropped: those of flows that workers died of.
    #[serde(default)]
    pub(crate) quarantine_dropped: u64,
    /// Of the dropped: those that are no valid IP.
    #[serde(default)]
    pub(crate) invalid_dropped: u64,
    /// TCP flows learnt from the middle of a connection.
    #[serde(default)]
    pub(crate) flows_midstream: u64,
    /// Packets that the socket's buffer had no room for.
    #[serde(default)]
    pub(crate) overruns: u64,
    /// How its last process ended.
    #[serde(default)]
    pub(crate) last_exit: Option<String>,
    /// The kernel's counters of the queue.
    pub(crate) kernel: Kernel,
}

impl Seat {
    /// Whether it is the backup's.
    pub(crate) fn is_backup(&self) -> bool {
        self.name == "backup"
    }

    /// Whether its process does its work, also when it gets no new flows: a worker that retires
    /// keeps the flows that it holds for up to `scaling.drain_seconds`, which outlasts any
    /// campaign, and is replaced when it dies, as one that is drained. One that is leaving gets no
    /// packets and is not replaced; then its seat is gone.
    pub(crate) fn serves(&self) -> bool {
        self.pid != 0 && !["starting", "stale", "down"].contains(&self.state.as_str())
    }

    /// Packets received that nothing became of yet.
    pub(crate) fn in_hand(&self) -> i64 {
        let done = self.accepted + self.dropped + self.replaced + self.settled + self.shed;
        self.received.cast_signed() - done.cast_signed()
    }

    /// Whether every packet received has had one verdict. What a killed worker had received and
    /// not decided is settled by its successor.
    pub(crate) fn balanced(&self) -> bool {
        self.in_hand() == 0
    }

    /// What the kernel has given ids to and nobody received; negative: what was counted twice.
    /// Of a queue that was bound once and has come to rest; ids wrap.
    ///
    /// The kernel gives an id before it finds that the socket's buffer is full, and none when the
    /// queue is full. This is the only figure about packets received that is not Sluice's own.
    pub(crate) fn unreceived(&self) -> i64 {
        let seen = (self.received + self.overruns) as u32;
        self.kernel.last_id.wrapping_sub(seen).cast_signed().into()
    }

    /// Whether every id is accounted for. What a process took and died before it had noted it is
    /// known within what a full buffer refused in the meantime, and exactly when it refused none.
    pub(crate) fn received_all(&self) -> bool {
        (-self.overruns.cast_signed()..=0).contains(&self.unreceived())
    }
}

/// The kernel's view of a queue.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Kernel {
    /// Packets without a verdict.
    pub(crate) waiting: u64,
    /// Dropped because the queue was full.
    pub(crate) queue_dropped: u64,
    /// Dropped because the socket's buffer was full.
    pub(crate) user_dropped: u64,
    /// Id of the last packet queued.
    #[serde(default)]
    pub(crate) last_id: u32,
}

impl Status {
    /// The workers and the backup.
    pub(crate) fn seats(&self) -> impl Iterator<Item = &Seat> {
        self.workers.iter().chain([&self.backup])
    }

    /// Whether every seat is occupied by a process that works.
    pub(crate) fn all_up(&self) -> bool {
        self.seats().all(|seat| seat.state == "up" && seat.pid != 0)
    }

    /// Whether every seat is occupied by a process that does its work, drained or not.
    pub(crate) fn all_serve(&self) -> bool {
        self.seats().all(Seat::serves)
    }

    /// How many times any heartbeat was found stale.
    pub(crate) fn trips(&self) -> u64 {
        self.seats().map(|seat| seat.trips).sum()
    }

    /// How many processes were killed because they hung.
    pub(crate) fn hangs(&self) -> u64 {
        self.seats().map(|seat| seat.hangs).sum()
    }

    /// The seat that a queue belongs to.
    pub(crate) fn seat_of(&self, queue: u16) -> Option<&Seat> {
        self.seats().find(|seat| seat.queue == queue)
    }

    /// Packets received, over all seats.
    pub(crate) fn received(&self) -> u64 {
        self.seats().map(|seat| seat.received).sum()
    }

    /// Packets shed, over all seats.
    pub(crate) fn shed(&self) -> u64 {
        self.seats().map(|seat| seat.shed).sum()
    }

    /// Packets without a verdict, over all queues.
    pub(crate) fn waiting(&self) -> u64 {
        self.seats().map(|seat| seat.kernel.waiting).sum()
    }

    /// Whether every packet received, at any seat, has had one verdict.
    pub(crate) fn balanced(&self) -> bool {
        self.seats().all(Seat::balanced)
    }

    /// A counter of the eBPF programs; one that is not there has never counted.
    pub(crate) fn counter(&self, name: &str) -> u64 {
        self.counters.get(name).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_nobody_received_and_packets_counted_twice_are_told_apart() {
        for (received, overruns, last_id, unreceived, fine) in [
            (10, 0, 10, 0, true),
            (10, 0, 11, 1, false),
            (11, 0, 10, -1, false),
            (10, 5, 15, 0, true),
            // How much of the buffer's refusals lay in a gap is not always known.
            (13, 5, 15, -3, true),
            (16, 5, 15, -6, false),
            (9, 5, 15, 1, false),
            ((1_u64 << 32) + 3, 0, 3, 0, true),
        ] {
            let seat = serde_json::from_value(serde_json::json!({
                "seat": "worker 0", "pid": 1, "state": "up", "queue": 101, "restarts": 0,
                "trips": 0, "received": received, "accepted": 0, "dropped": 0,
                "overruns": overruns,
                "kernel": {
                    "waiting": 0, "queue_dropped": 0, "user_dropped": 0, "last_id": last_id,
                },
            }));
            let seat: Seat = seat.expect("a seat");
            let found = (seat.unreceived(), seat.received_all());
            assert_eq!(found, (unreceived, fine), "{received} {overruns} {last_id}");
        }
    }
}
