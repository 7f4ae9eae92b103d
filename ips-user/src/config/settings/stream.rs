//! `stream`: how TCP connections are followed and put together.

use super::node::settings;
use super::value::{ByteSize, choice};
use crate::exception::ExceptionPolicy;

settings! {
    /// `stream`
    pub Stream {
        /// Most memory of all sessions.
        memcap("memcap"): ByteSize = ByteSize::mib(64),
        /// What happens then.
        memcap_policy("memcap-policy"): ExceptionPolicy = ExceptionPolicy::Auto,
        /// Whether segments with wrong checksums are ignored, as their receiver ignores them.
        checksum_validation("checksum-validation"): bool = true,
        /// Whether each segment is inspected before it is let through.
        inline("inline"): Inline = Inline::Auto,
        /// Whether connections are followed whose beginning was not seen.
        midstream("midstream"): Midstream = Midstream::Auto,
        /// What happens to them.
        midstream_policy("midstream-policy"): ExceptionPolicy = ExceptionPolicy::Auto,
        /// Whether connections are followed of which one direction is seen.
        async_oneside("async-oneside"): bool = false,
        /// Whether flows are released at the end of their inspected depth.
        bypass("bypass"): bool = false,
        /// Whether segments are dropped, inline, that do not belong into their connection.
        drop_invalid("drop-invalid"): bool = true,
        /// Whether a segment's timestamp may be one step older than the latest.
        liberal_timestamps("liberal-timestamps"): bool = true,
        /// Different SYNs that are remembered.
        max_syn_queued("max-syn-queued"): u8 = 10,
        /// Different SYN-ACKs that are remembered.
        max_synack_queued("max-synack-queued"): u8 = 5,
        /// Putting together.
        reassembly("reassembly"): Reassembly = Reassembly::default(),
    }
}

choice! {
    /// `stream.inline`
    pub Inline {
        /// When packets can be dropped.
        Auto = "auto",
        /// Always.
        Yes = "yes" | "true" | "on" | "1",
        /// Never.
        No = "no" | "false" | "off" | "0",
    }
}

choice! {
    /// `stream.midstream`
    pub Midstream {
        /// In a gateway: a connection outlives the worker that has seen its beginning. Not in a
        /// replay, as in Suricata.
        Auto = "auto",
        /// Yes.
        Yes = "yes" | "true" | "on" | "1",
        /// No.
        No = "no" | "false" | "off" | "0",
    }
}

impl Stream {
    /// Whether connections are followed whose beginning was not seen.
    pub fn follows_midstream(&self) -> bool {
        self.midstream == Midstream::Yes
    }

    /// Whether segments are inspected before they are let through, in a run that can (`ips`) or
    /// cannot drop them.
    pub fn is_inline(&self, ips: bool) -> bool {
        match self.inline {
            Inline::Auto => ips,
            Inline::Yes => true,
            Inline::No => false,
        }
    }
}

settings! {
    /// `stream.reassembly`
    pub Reassembly {
        /// Most memory of all segments.
        memcap("memcap"): ByteSize = ByteSize::mib(256),
        /// What happens then.
        memcap_policy("memcap-policy"): ExceptionPolicy = ExceptionPolicy::Auto,
        /// How far into each direction is looked; 0 for all of it.
        depth("depth"): ByteSize = ByteSize::mib(1),
        /// Bytes that are inspected at a time.
        toserver_chunk_size("toserver-chunk-size"): ByteSize = ByteSize(2560),
        /// Bytes that are inspected at a time.
        toclient_chunk_size("toclient-chunk-size"): ByteSize = ByteSize(2560),
        /// Whether the sizes vary, so that nobody can aim between two chunks.
        randomize_chunk_size("randomize-chunk-size"): bool = true,
        /// By how many percent.
        randomize_chunk_range("randomize-chunk-range"): u8 = 10,
        /// Whether streams are inspected by contents.
        raw("raw"): bool = true,
        /// Whether retransmissions with other data are noticed.
        check_overlap_different_data("check-overlap-different-data"): bool = true,
        /// Separate regions of one direction that are kept; 0 for no bound.
        max_regions("max-regions"): u32 = 8,
        /// Urgent data.
        urgent("urgent"): Urgent = Urgent::default(),
    }
}

settings! {
    /// `stream.reassembly.urgent`
    pub Urgent {
        /// What the receiver makes of urgent data.
        policy("policy"): UrgentPolicy = UrgentPolicy::OutOfBand,
        /// What happens beyond what can be taken out of band.
        oob_limit_policy("oob-limit-policy"): UrgentLimitPolicy = UrgentLimitPolicy::Drop,
    }
}

choice! {
    /// `stream.reassembly.urgent.policy`
    pub UrgentPolicy {
        /// The last urgent byte is not in the stream (as with most sockets).
        OutOfBand = "oob",
        /// It is in the stream (`SO_OOBINLINE`).
        Inline = "inline",
        /// Segments with urgent data are dropped.
        Drop = "drop",
        /// Urgent data leaves a gap.
        Gap = "gap",
    }
}

choice! {
    /// `stream.reassembly.urgent.oob-limit-policy`
    pub UrgentLimitPolicy {
        /// As [`UrgentPolicy::Drop`].
        Drop = "drop",
        /// As [`UrgentPolicy::Inline`].
        Inline = "inline",
        /// As [`UrgentPolicy::Gap`].
        Gap = "gap",
    }
}
