//! The per-CPU counters of the eBPF programs.

/// Index into the `COUNTERS` map. Every packet that a program sees ends in exactly one of the
/// outcomes marked *outcome*; the sum of a hook's outcomes equals its packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Counter {
    /// Packets seen by the TC program (GRO aggregates count once).
    TcPackets,
    /// Bytes seen by the TC program.
    TcBytes,
    /// Outcome: marked for a worker.
    TcWorker,
    /// Outcome: marked for the backup.
    TcBackup,
    /// Outcome: the flow is placed at nobody, marked to bypass the queues.
    TcBypass,
    /// Outcome: dropped because the flow is convicted.
    TcConvicted,
    /// Outcome: neither IPv4 nor IPv6, left unmarked.
    TcNotIp,
    /// Outcome: malformed IP header, left unmarked; the kernel's IP layer drops it.
    TcMalformed,
    /// Outcome: Sluice has no workers configured, left unmarked.
    TcUnconfigured,
    /// Flows that the backup took over from a worker that was down.
    Adoptions,
    /// Flows placed at their old worker because their slot was moving.
    Kept,
    /// Placements that could not be recorded (map full); the packet still went where it should.
    PlacementsLost,
    /// Packets whose worker and backup were both down; sent to the worker's queue.
    NobodyAlive,
    /// Transport header or extension-header chain cut short or too long; steered by addresses.
    Truncated,
    /// First fragments recorded.
    FragmentsFirst,
    /// Later fragments that followed their first one.
    FragmentsFollowed,
    /// Later fragments without a recorded first one; steered by addresses and protocol.
    FragmentsOrphaned,
    /// Events that did not fit into the ring buffer.
    EventsLost,
    /// Packets seen by the XDP program.
    XdpPackets,
    /// Bytes seen by the XDP program.
    XdpBytes,
    /// Outcome: dropped because the flow is convicted.
    XdpConvicted,
    /// Bytes of the packets dropped in XDP because the flow is convicted.
    XdpConvictedBytes,
    /// Outcome: passed on.
    XdpPassed,
}

impl Counter {
    /// Every counter, in the order of the map.
    pub const ALL: [Self; 23] = [
        Self::TcPackets,
        Self::TcBytes,
        Self::TcWorker,
        Self::TcBackup,
        Self::TcBypass,
        Self::TcConvicted,
        Self::TcNotIp,
        Self::TcMalformed,
        Self::TcUnconfigured,
        Self::Adoptions,
        Self::Kept,
        Self::PlacementsLost,
        Self::NobodyAlive,
        Self::Truncated,
        Self::FragmentsFirst,
        Self::FragmentsFollowed,
        Self::FragmentsOrphaned,
        Self::EventsLost,
        Self::XdpPackets,
        Self::XdpBytes,
        Self::XdpConvicted,
        Self::XdpConvictedBytes,
        Self::XdpPassed,
    ];

    /// Number of counters, the size of the map.
    pub const COUNT: usize = Self::ALL.len();

    /// Name in `sluice status` and in EVE `stats` records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TcPackets => "tc.packets",
            Self::TcBytes => "tc.bytes",
            Self::TcWorker => "tc.worker",
            Self::TcBackup => "tc.backup",
            Self::TcBypass => "tc.bypass",
            Self::TcConvicted => "tc.convicted",
            Self::TcNotIp => "tc.not_ip",
            Self::TcMalformed => "tc.malformed",
            Self::TcUnconfigured => "tc.unconfigured",
            Self::Adoptions => "adoptions",
            Self::Kept => "kept",
            Self::PlacementsLost => "placements_lost",
            Self::NobodyAlive => "nobody_alive",
            Self::Truncated => "truncated",
            Self::FragmentsFirst => "fragments.first",
            Self::FragmentsFollowed => "fragments.followed",
            Self::FragmentsOrphaned => "fragments.orphaned",
            Self::EventsLost => "events_lost",
            Self::XdpPackets => "xdp.packets",
            Self::XdpBytes => "xdp.bytes",
            Self::XdpConvicted => "xdp.convicted",
            Self::XdpConvictedBytes => "xdp.convicted_bytes",
            Self::XdpPassed => "xdp.passed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_lists_every_counter_at_its_index() {
        for (index, counter) in Counter::ALL.iter().enumerate() {
            assert_eq!(*counter as usize, index, "{}", counter.name());
        }
    }
}
