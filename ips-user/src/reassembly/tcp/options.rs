//! How streams are tracked and put together: Suricata's `stream` section, with its stock
//! defaults (user guide, "Stream-engine"), and `host-os-policy`.

use crate::config::settings::HostPolicies;
use crate::exception::Treatment;
use crate::reassembly::host_policy::HostPolicyTable;

/// The `stream` section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamOptions {
    /// `stream.inline`: what is inspected is what is delivered. Otherwise the engine watches,
    /// and inspects what receivers have acknowledged.
    pub inline: bool,
    /// `stream.midstream`: track connections whose beginning was not seen.
    pub midstream: bool,
    /// `stream.midstream-policy`: what becomes of such connections.
    pub midstream_policy: Treatment,
    /// `stream.async-oneside`: track connections of which only one direction is seen.
    pub async_oneside: bool,
    /// `stream.drop-invalid`: inline, drop packets that the receiver would not take.
    pub drop_invalid: bool,
    /// `stream.bypass`: release connections of which a direction has reached its depth.
    pub bypass: bool,
    /// `stream.max-syn-queued`: different SYNs remembered for one connection.
    pub max_syn_queued: u8,
    /// `stream.max-synack-queued`: different SYN-ACKs remembered for one connection.
    pub max_synack_queued: u8,
    /// `stream.memcap`: most bytes for sessions, zero for no limit.
    pub memcap: u64,
    /// `stream.memcap-policy`.
    pub memcap_policy: Treatment,
    /// `stream.checksum-validation`: packets with a wrong checksum are not looked at.
    pub checksum_validation: bool,
    /// `stream.liberal-timestamps`: timestamps may be one step old.
    pub liberal_timestamps: bool,
    /// `stream.reassembly`.
    pub reassembly: ReassemblyOptions,
    /// `host-os-policy`.
    pub hosts: HostPolicyTable,
}

/// The `stream.reassembly` section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReassemblyOptions {
    /// `memcap`: most bytes for stream data, zero for no limit.
    pub memcap: u64,
    /// `memcap-policy`.
    pub memcap_policy: Treatment,
    /// `depth`: bytes of each direction that are put together, zero for no limit.
    pub depth: u64,
    /// Inline: beyond `depth` go on with the sliding window, which needs no more memory than
    /// before; only what reads the whole stream stops. Suricata stops altogether.
    pub window_beyond_depth: bool,
    /// `toserver-chunk-size`.
    pub toserver_chunk_size: u32,
    /// `toclient-chunk-size`.
    pub toclient_chunk_size: u32,
    /// `randomize-chunk-size`: see [`StreamOptions::randomize`].
    pub randomize_chunk_size: bool,
    /// `randomize-chunk-range`, in per cent.
    pub randomize_chunk_range: u8,
    /// `raw`: inspect streams for rules without a buffer of their own.
    pub raw: bool,
    /// `urgent.policy`.
    pub urgent: UrgentPolicy,
    /// `urgent.oob-limit-policy`, after [`OOB_LIMIT`] bytes.
    pub urgent_oob_limit: UrgentPolicy,
    /// `max-regions`, zero for no bound. A region has room for many pieces: see
    /// [`PIECES_OF_REGION`].
    pub max_regions: u16,
    /// `check-overlap-different-data`: compare overlapping data. Inline it always is.
    pub check_overlap_different_data: bool,
    /// `segment-prealloc`. Nothing is allocated in advance here; kept so that the setting is
    /// known.
    pub segment_prealloc: u32,
}

/// How many out-of-band bytes of a direction are told apart from the stream, as in Suricata.
pub const OOB_LIMIT: usize = 64;

/// Separate pieces of a stream that make a region of it: holes are smaller here than those that
/// Suricata counts.
pub const PIECES_OF_REGION: usize = 128;

/// What is made of the byte to which the urgent pointer points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UrgentPolicy {
    /// A byte of the stream. Inline the urgent flag is cleared, so that it is that for the
    /// receiver, too.
    Inline,
    /// The packet is dropped; watching, its data is not looked at.
    Drop,
    /// The packet's data is left out of the stream.
    Gap,
    /// The byte is not part of the stream (RFC 6093, section 3.1), as most receivers have it.
    Oob,
}

impl UrgentPolicy {
    /// The policy of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "inline" => Self::Inline,
            "drop" => Self::Drop,
            "gap" => Self::Gap,
            "oob" => Self::Oob,
            _ => return None,
        })
    }
}

impl Default for StreamOptions {
    fn default() -> Self {
        Self {
            inline: false,
            midstream: false,
            midstream_policy: Treatment::Ignore,
            async_oneside: false,
            drop_invalid: true,
            bypass: false,
            max_syn_queued: 10,
            max_synack_queued: 5,
            memcap: 64 << 20,
            memcap_policy: Treatment::Ignore,
            checksum_validation: true,
            liberal_timestamps: true,
            reassembly: ReassemblyOptions::default(),
            hosts: HostPolicyTable::new(&HostPolicies::default()),
        }
    }
}

impl Default for ReassemblyOptions {
    fn default() -> Self {
        Self {
            memcap: 256 << 20,
            memcap_policy: Treatment::Ignore,
            depth: 1 << 20,
            window_beyond_depth: true,
            toserver_chunk_size: 2560,
            toclient_chunk_size: 2560,
            randomize_chunk_size: true,
            randomize_chunk_range: 10,
            raw: true,
            urgent: UrgentPolicy::Oob,
            urgent_oob_limit: UrgentPolicy::Drop,
            max_regions: 8,
            check_overlap_different_data: true,
            segment_prealloc: 2048,
        }
    }
}

impl StreamOptions {
    /// Varies the chunk sizes within `randomize-chunk-range`, so that nobody outside knows where
    /// chunks end. To be called once, at the start, with a random number.
    pub fn randomize(&mut self, seed: u64) {
        let reassembly = &mut self.reassembly;
        if !reassembly.randomize_chunk_size {
            return;
        }
        let range = i64::from(reassembly.randomize_chunk_range.min(100));
        for (size, half) in [
            (&mut reassembly.toserver_chunk_size, seed as u32),
            (&mut reassembly.toclient_chunk_size, (seed >> 32) as u32),
        ] {
            // Half the range to either side.
            let span = i64::from(*size) * range / 100;
            let change = ((span * i64::from(half)) >> 32) - span / 2;
            *size = (i64::from(*size) + change).clamp(1, i64::from(u32::MAX)) as u32;
        }
    }

    /// How many separate pieces of one direction are kept.
    pub(super) fn max_pieces(&self) -> usize {
        match self.reassembly.max_regions {
            0 => usize::MAX,
            regions => usize::from(regions) * PIECES_OF_REGION,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn randomized_chunks_stay_within_the_range() {
        for seed in [0, u64::MAX, 0x8000_0000, 0x1234_5678_9abc_def0] {
            let mut options = StreamOptions::default();
            options.randomize(seed);
            let ReassemblyOptions {
                toserver_chunk_size: server,
                toclient_chunk_size: client,
                ..
            } = options.reassembly;
            assert!((2432..=2688).contains(&server) && (2432..=2688).contains(&client));
        }
    }
}
