//! What the stream engine finds wrong with a packet, under the names that `stream-event` takes.

use std::fmt;

macro_rules! events {
    ($($variant:ident $name:literal $text:literal;)*) => {
        /// A finding about one packet of a connection. The names are Suricata's.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum StreamEvent {
            $(#[doc = $text] $variant,)*
        }

        impl StreamEvent {
            /// All of them, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name that rules and records use.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

events! {
    HandshakeAckInWrongDir "3whs_ack_in_wrong_dir" "The server acknowledges before the client has completed the handshake.";
    HandshakeAsyncWrongSeq "3whs_async_wrong_seq" "One-sided connection: the segment after the SYN has another sequence number.";
    HandshakeRightSeqWrongAckEvasion "3whs_right_seq_wrong_ack_evasion" "The handshake's last ACK names a SYN-ACK that was not sent.";
    HandshakeSynackInWrongDirection "3whs_synack_in_wrong_direction" "SYN-ACK from the client.";
    HandshakeSynackResendWithDifferentAck "3whs_synack_resend_with_different_ack" "SYN-ACK again, acknowledging something else.";
    HandshakeSynackResendWithDiffSeq "3whs_synack_resend_with_diff_seq" "SYN-ACK again, with another sequence number.";
    HandshakeSynackToserverOnSynRecv "3whs_synack_toserver_on_syn_recv" "SYN-ACK from the client after the server's.";
    HandshakeSynackWithWrongAck "3whs_synack_with_wrong_ack" "SYN-ACK that acknowledges no SYN that was sent.";
    HandshakeSynackFlood "3whs_synack_flood" "More different SYN-ACKs than are remembered.";
    HandshakeSynackTfoDataIgnored "3whs_synack_tfo_data_ignored" "SYN-ACK that does not take the data of a fast-open SYN.";
    HandshakeSynFlood "3whs_syn_flood" "More different SYNs than are remembered.";
    HandshakeSynResendDiffSeqOnSynRecv "3whs_syn_resend_diff_seq_on_syn_recv" "SYN with another sequence number after the SYN-ACK.";
    HandshakeSynToclientOnSynRecv "3whs_syn_toclient_on_syn_recv" "SYN from the server after its SYN-ACK.";
    HandshakeWrongSeqWrongAck "3whs_wrong_seq_wrong_ack" "Neither number of the handshake's last ACK is right.";
    HandshakeAckDataInject "3whs_ack_data_inject" "Data from the server before the handshake is complete.";
    FourWaySynackWithWrongAck "4whs_synack_with_wrong_ack" "Four-way handshake: the SYN-ACK acknowledges another SYN.";
    FourWaySynackWithWrongSyn "4whs_synack_with_wrong_syn" "Four-way handshake: the SYN-ACK has another number than the SYN before.";
    FourWayWrongSeq "4whs_wrong_seq" "Four-way handshake: the last ACK has another sequence number.";
    FourWayInvalidAck "4whs_invalid_ack" "Four-way handshake: the last ACK acknowledges something else.";
    ClosewaitAckOutOfWindow "closewait_ack_out_of_window" "After the client's FIN: segment out of window.";
    ClosewaitFinOutOfWindow "closewait_fin_out_of_window" "After the client's FIN: FIN out of window.";
    ClosewaitPktBeforeLastAck "closewait_pkt_before_last_ack" "After the client's FIN: segment before what is acknowledged.";
    ClosewaitInvalidAck "closewait_invalid_ack" "After the client's FIN: invalid acknowledgement.";
    ClosingAckWrongSeq "closing_ack_wrong_seq" "After both FINs: wrong sequence number.";
    ClosingInvalidAck "closing_invalid_ack" "After both FINs: invalid acknowledgement.";
    EstPacketOutOfWindow "est_packet_out_of_window" "Segment out of window.";
    EstPktBeforeLastAck "est_pkt_before_last_ack" "Segment before what is acknowledged.";
    EstSynackResend "est_synack_resend" "SYN-ACK again in an established connection.";
    EstSynackResendWithDifferentAck "est_synack_resend_with_different_ack" "SYN-ACK again, acknowledging something else.";
    EstSynackResendWithDiffSeq "est_synack_resend_with_diff_seq" "SYN-ACK again, with another sequence number.";
    EstSynackToserver "est_synack_toserver" "SYN-ACK from the client in an established connection.";
    EstSynResend "est_syn_resend" "SYN again in an established connection.";
    EstSynResendDiffSeq "est_syn_resend_diff_seq" "SYN again, with another sequence number.";
    EstSynToclient "est_syn_toclient" "SYN from the server in an established connection.";
    EstInvalidAck "est_invalid_ack" "Invalid acknowledgement.";
    EstAckZwpData "est_ack_zwp_data" "Acknowledges the byte of a zero window probe.";
    FinInvalidAck "fin_invalid_ack" "FIN with an invalid acknowledgement.";
    Fin1AckWrongSeq "fin1_ack_wrong_seq" "After the server's FIN: wrong sequence number.";
    Fin1FinWrongSeq "fin1_fin_wrong_seq" "After the server's FIN: FIN with a wrong sequence number.";
    Fin1InvalidAck "fin1_invalid_ack" "After the server's FIN: invalid acknowledgement.";
    Fin2AckWrongSeq "fin2_ack_wrong_seq" "After the server's FIN was acknowledged: wrong sequence number.";
    Fin2FinWrongSeq "fin2_fin_wrong_seq" "After the server's FIN was acknowledged: FIN with a wrong sequence number.";
    Fin2InvalidAck "fin2_invalid_ack" "After the server's FIN was acknowledged: invalid acknowledgement.";
    FinButNoSession "fin_but_no_session" "FIN of an unknown connection.";
    FinOutOfWindow "fin_out_of_window" "FIN out of window.";
    FinSyn "fin_syn" "FIN and SYN in one segment.";
    LastackAckWrongSeq "lastack_ack_wrong_seq" "Before the last ACK: wrong sequence number.";
    LastackInvalidAck "lastack_invalid_ack" "Before the last ACK: invalid acknowledgement.";
    RstButNoSession "rst_but_no_session" "Reset of an unknown connection.";
    TimewaitAckWrongSeq "timewait_ack_wrong_seq" "After the end: wrong sequence number.";
    TimewaitInvalidAck "timewait_invalid_ack" "After the end: invalid acknowledgement.";
    ShutdownSynResend "shutdown_syn_resend" "SYN while the connection closes.";
    PktInvalidTimestamp "pkt_invalid_timestamp" "Timestamp option that the receiver does not take.";
    PktInvalidAck "pkt_invalid_ack" "Acknowledges what was not sent, or what is long past.";
    PktBrokenAck "pkt_broken_ack" "Acknowledgement number without the ACK flag.";
    RstInvalidAck "rst_invalid_ack" "Reset with an invalid acknowledgement.";
    PktRetransmission "pkt_retransmission" "Data that was seen before.";
    PktSpuriousRetransmission "pkt_spurious_retransmission" "Data that is acknowledged already.";
    PktBadWindowUpdate "pkt_bad_window_update" "Shrinks the window below what was offered.";
    SuspectedRstInject "suspected_rst_inject" "The sender of a reset goes on, or the reset cannot be its.";
    WrongThread "wrong_thread" "Seen by another worker than the one that has the flow.";
    ReassemblySegmentBeforeBaseSeq "reassembly_segment_before_base_seq" "Data before what is kept.";
    ReassemblyNoSegment "reassembly_no_segment" "There is no memory for a segment.";
    ReassemblySeqGap "reassembly_seq_gap" "Data is acknowledged that was not seen.";
    ReassemblyOverlapDifferentData "reassembly_overlap_different_data" "Other data in the place of data seen before.";
    ReassemblyDepthReached "reassembly_depth_reached" "The depth of reassembly is reached.";
    ReassemblyInsertMemcap "reassembly_insert_memcap" "Data is not kept: the memory cap is reached.";
    ReassemblyInsertLimit "reassembly_insert_limit" "Data is not kept: too many pieces.";
    ReassemblyInsertInvalid "reassembly_insert_invalid" "Data is not kept: it does not fit the stream.";
    ReassemblyUrgentOobLimitReached "reassembly_urgent_oob_limit_reached" "More out-of-band bytes than are told apart.";
}

impl StreamEvent {
    /// The event of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|event| event.name() == name)
    }

    /// Its number, below [`StreamEvent::ALL`]'s length.
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for StreamEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of [`StreamEvent`]s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamEvents(u128);

const _: () = assert!(StreamEvent::ALL.len() <= 128);

impl StreamEvents {
    /// None.
    pub const NONE: Self = Self(0);

    /// Adds one.
    pub const fn insert(&mut self, event: StreamEvent) {
        self.0 |= 1 << event as u8;
    }

    /// Whether it is among them.
    pub const fn contains(self, event: StreamEvent) -> bool {
        self.0 & 1 << event as u8 != 0
    }

    /// Whether there are none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Those in the set.
    pub fn iter(self) -> impl Iterator<Item = StreamEvent> {
        StreamEvent::ALL
            .iter()
            .copied()
            .filter(move |&event| self.contains(event))
    }
}

impl FromIterator<StreamEvent> for StreamEvents {
    fn from_iter<I: IntoIterator<Item = StreamEvent>>(events: I) -> Self {
        let mut set = Self::NONE;
        for event in events {
            set.insert(event);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_their_events() {
        for (number, &event) in StreamEvent::ALL.iter().enumerate() {
            assert_eq!(event.index(), number);
            assert_eq!(StreamEvent::from_name(event.name()), Some(event));
        }
        assert_eq!(StreamEvent::from_name("est_nothing"), None);
    }

    #[test]
    fn a_set_holds_what_was_put_in() {
        let events = [
            StreamEvent::HandshakeAckInWrongDir,
            StreamEvent::ReassemblyUrgentOobLimitReached,
        ];
        let set: StreamEvents = events.into_iter().collect();
        assert!(set.iter().eq(events));
        assert!(!set.contains(StreamEvent::FinSyn));
        assert!(StreamEvents::NONE.is_empty() && !set.is_empty());
    }
}
