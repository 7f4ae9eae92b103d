//! Where packets come from and verdicts go: one [`PacketQueue`] a worker.
//!
//! Two implementations: [`nfqueue`] is the product's transport (batched, GSO, forced buffers,
//! its socket can be handed from process to process); [`crate_nfq`] is the `nfq` crate's, kept
//! as oracle and baseline. The crate opens its own socket and exposes no descriptor, so a
//! replaced worker cannot inherit it: with `transport = "nfq"` what is queued when a worker
//! dies is lost to the dead-listener policy.

use std::io;
use std::time::Duration;

use thiserror::Error;

pub mod crate_nfq;
pub mod nfqueue;

/// Id of a packet in its queue: counts up from 1 by one per packet, wraps at 2^32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PacketId(pub u32);

/// How far the kernel vouches for the checksums of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// Nothing known: verify if it matters.
    Unverified,
    /// Partial (offload): not computed yet, not an error (`NFQA_SKB_CSUMNOTREADY`).
    NotReady,
    /// The receiving hardware or the sender's stack has verified it.
    Verified,
}

/// A packet that waits for its verdict; borrowed from the receive buffer.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// Its id.
    pub id: PacketId,
    /// Netfilter hook number (2 = forward).
    pub hook: u8,
    /// EtherType (0x0800, 0x86dd).
    pub ethertype: u16,
    /// `skb->mark`, all bits.
    pub mark: u32,
    /// Index of the interface it came in by, zero when unknown.
    pub in_interface: u32,
    /// Index of the interface it will leave by, zero when unknown.
    pub out_interface: u32,
    /// From the IP header on; up to 64 KiB when the kernel aggregated segments (GSO).
    pub payload: &'a [u8],
    /// Bytes that the packet really has; more than `payload.len()` when it was cut.
    pub original_len: u32,
    /// State of the checksums.
    pub checksum: Checksum,
    /// Whether it is an aggregate of several segments.
    pub gso: bool,
}

/// What happens to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// Goes on its way.
    Accept,
    /// Is dropped by the kernel.
    Drop,
}

/// The one verdict of one packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What happens to it.
    pub disposition: Disposition,
    /// A new `skb->mark` (all 32 bits: keep what is outside the configured mask).
    pub mark: Option<u32>,
    /// A new packet from the IP header on, checksums included, at most 65,531 bytes (a longer
    /// one is counted as refused, and the packet dropped). Ignored on drop. The replacement of
    /// an aggregate keeps its length: the kernel will cut it into segments again.
    pub replacement: Option<Vec<u8>>,
}

impl Verdict {
    /// Accept, unchanged.
    pub const ACCEPT: Self = Self {
        disposition: Disposition::Accept,
        mark: None,
        replacement: None,
    };
    /// Drop.
    pub const DROP: Self = Self {
        disposition: Disposition::Drop,
        mark: None,
        replacement: None,
    };
}

/// The receiving side of a queue. Each packet is shown to [`Inspector::packet`] exactly once
/// and that call's return value is its verdict: there is no way to forget one or to give two.
pub trait Inspector {
    /// A batch has arrived whose first packet is `first`; called before [`Self::batch`]. When
    /// packets with lower ids may still be pending, what this returns is settled before any
    /// verdict of the batch: such a verdict may cover everything pending up to its packet.
    fn leftovers_before(&mut self, first: PacketId) -> Option<(PacketId, Disposition)> {
        let _ = first;
        None
    }

    /// A batch has arrived; called before its first packet.
    ///
    /// `highest` is the highest id of the batch: it is in this process's hands from now on.
    fn batch(&mut self, highest: PacketId, packets: usize);

    /// Decides about one packet.
    fn packet(&mut self, packet: Packet<'_>) -> Verdict;
}

/// Totals of one queue since it was opened in this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueCounters {
    /// Packets received.
    pub received: u64,
    /// Receive calls that returned at least one packet.
    pub batches: u64,
    /// Packets accepted unchanged.
    pub accepted: u64,
    /// Packets dropped.
    pub dropped: u64,
    /// Packets accepted with a new payload.
    pub replaced: u64,
    /// Datagrams from the kernel that could not be understood (no id: no verdict possible).
    pub undecodable: u64,
    /// Packets that the full receive buffer refused: dropped, or accepted by fail-open. With
    /// the batched transport since the socket was opened, in whatever process.
    pub overruns: u64,
    /// Verdicts that the kernel refused, by error reply (for example unknown id), and
    /// replacements too long for it.
    pub refused: u64,
}

/// Why a queue failed.
#[derive(Debug, Error)]
pub enum QueueError {
    /// A system call failed.
    #[error("queue {queue}: {call}: {source}")]
    Io {
        /// Queue number.
        queue: u16,
        /// The call, for example `recvmmsg`.
        call: &'static str,
        /// Its error.
        source: io::Error,
    },
    /// The kernel refused the configuration.
    #[error("queue {queue}: the kernel refused {request}: {source}")]
    Refused {
        /// Queue number.
        queue: u16,
        /// What was asked, for example `bind (is another program using this queue?)`.
        request: &'static str,
        /// Its error.
        source: io::Error,
    },
}

/// A queue of packets that wait for verdicts.
pub trait PacketQueue {
    /// Waits up to `timeout` for packets, shows at most one batch of them to `inspector`, and
    /// sends their verdicts. Returns the number of packets; zero after a timeout or a signal.
    ///
    /// # Errors
    /// When the socket fails. A full receive buffer is counted, not an error. All verdicts of
    /// packets shown so far have then been attempted.
    fn serve(
        &mut self,
        timeout: Duration,
        inspector: &mut dyn Inspector,
    ) -> Result<usize, QueueError>;

    /// Gives every packet still pending with an id up to `last` the same verdict: what a
    /// dead predecessor had received and not settled.
    ///
    /// # Errors
    /// When the socket fails. That nothing was pending is not an error.
    fn settle_through(
        &mut self,
        last: PacketId,
        disposition: Disposition,
    ) -> Result<(), QueueError>;

    /// Address of the buffers that all packets are shown from, if there are such.
    fn buffers_at(&self) -> Option<usize> {
        None
    }

    /// Totals so far.
    fn counters(&self) -> QueueCounters;

    /// What this process has counted itself, for after every batch: the same but for `overruns`
    /// where asking for that costs a system call.
    fn tallied(&self) -> QueueCounters {
        self.counters()
    }
}

/// How a queue is configured; both transports take this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueOptions {
    /// Queue number.
    pub number: u16,
    /// Packets that may wait in the kernel (`NFQA_CFG_QUEUE_MAXLEN`).
    pub max_length: u32,
    /// Receive buffer of the socket in bytes (`SO_RCVBUFFORCE`); the `nfq` crate cannot set it.
    pub receive_buffer: usize,
    /// Bytes of each packet copied to userspace, at most 65,535.
    pub copy_range: u16,
    /// Accept what does not fit into the queue or the buffer (`NFQA_CFG_F_FAIL_OPEN`).
    pub fail_open: bool,
    /// Receive aggregates whole (`NFQA_CFG_F_GSO`).
    pub gso: bool,
    /// Most packets of one receive call (batched transport), 1 to 1024.
    pub batch: usize,
}
