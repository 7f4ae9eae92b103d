//! What one worker's inspection counts.

use super::ExceptionCounters;
use crate::app::AppCounters;
use crate::decode::InvalidCounters;
use crate::detect::TableCounters;
use crate::flow::FlowCounters;
use crate::reassembly::defrag::DefragCounters;
use crate::reassembly::tcp::StreamCounters;

/// Totals of one worker. Seen, accepted, dropped and shed are the packets that were received;
/// everything else counts those in tunnels and reassembled ones, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InspectionCounters {
    /// Packets seen.
    pub packets: u64,
    /// Their bytes, from the IP header on.
    pub bytes: u64,
    /// Packets accepted.
    pub accepted: u64,
    /// Packets dropped, for every reason.
    pub dropped: u64,
    /// Of those accepted: shed, or something that they carry.
    pub shed_accepted: u64,
    /// Of those dropped: shed, or something that they carry.
    pub shed_dropped: u64,
    /// Of those dropped: by a rule that drops or rejects.
    pub rule_dropped: u64,
    /// Of those dropped: rest of a dropped flow.
    pub flow_dropped: u64,
    /// Of those dropped: fragments that cannot be used.
    pub fragments_refused: u64,
    /// Of those accepted: a rule wanted to replace something in them that cannot be.
    pub not_replaced: u64,
    /// Packets that went by an exception policy.
    pub exceptions: ExceptionCounters,
    /// Packets rejected by a rule or an exception policy.
    pub rejected: u64,
    /// Resets and ICMP errors handed to the sender.
    pub rejections: u64,
    /// Of those dropped: segments that their receiver would not take, or that cannot be changed to
    /// what was inspected before.
    pub stream_dropped: u64,
    /// Packets accepted with a new payload.
    pub replaced: u64,
    /// Packets accepted by a pass rule, the rest of passed flows included.
    pub passed: u64,
    /// Alert records made.
    pub alerts: u64,
    /// Rule matches beyond the limit for one packet, and so without a record.
    pub alerts_suppressed: u64,
    /// Rule matches that a threshold kept from being reported, or that their rule never reports.
    pub alerts_thresholded: u64,
    /// Rules given up because they took too many steps.
    pub searches_given_up: u64,
    /// Packets for which rules were left out because they took too long.
    pub out_of_time: u64,
    /// Convictions asked for.
    pub convictions: u64,
    /// Packets that could not be decoded, by reason.
    pub invalid: InvalidCounters,
    /// Fragments.
    pub defrag: DefragCounters,
    /// Streams.
    pub stream: StreamCounters,
    /// Flows.
    pub flows: FlowCounters,
    /// What rules remember beyond flows.
    pub tables: TableCounters,
    /// What flows' applications take.
    pub applications: AppCounters,
}
