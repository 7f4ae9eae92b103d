//! A connection between its handshake and its end: what the receiver of a segment would take,
//! and how FINs end it.

use super::event::StreamEvent;
use super::segment::flag;
use super::session::{CLIENT, Pass, Refused, SERVER, Session, SessionState};
use super::side::Side;

/// How far beyond what was seen a segment may be: more than is in flight anywhere, and less than
/// an unknown window allows.
const REACH: i64 = 1 << 25;

impl Session {
    pub(super) fn connected(&mut self, pass: &mut Pass<'_, '_>) -> Result<(), Refused> {
        if pass.has(flag::SYN) {
            return self.syn_of_connected(pass);
        }
        if pass.has(flag::RST) {
            return self.reset(pass);
        }
        if !self.takes_timestamp(pass) {
            return pass.refuse(StreamEvent::PktInvalidTimestamp);
        }
        self.synchronize(pass);
        if !self.takes_ack(pass) {
            pass.event(StreamEvent::PktInvalidAck);
            let event = if pass.has(flag::FIN) && self.control.state == SessionState::Established {
                StreamEvent::FinInvalidAck
            } else {
                self.invalid_ack()
            };
            return pass.refuse(event);
        }
        let start = self.control.sides[pass.from].data_place(pass.segment);
        if self.shrinks_window(pass, start) {
            pass.event(StreamEvent::PktBadWindowUpdate);
            return Ok(());
        }
        let end = start + pass.segment.payload.len() as i64;
        self.check_place(pass, start, end)?;
        if pass.from == CLIENT {
            self.control.confirmed = true;
        }
        self.take_data(pass, start)?;
        if self.control.one_sided && !pass.options.inline {
            // Nobody tells what has arrived; what has come is taken as such.
            let side = &mut self.control.sides[pass.from];
            side.acked = side.acked.max(end);
        }
        self.take_ack(pass);
        if pass.has(flag::FIN) {
            let side = &mut self.control.sides[pass.from];
            side.fin = Some(end);
            if !self.control.sides.iter().all(|side| side.fin.is_some()) {
                self.control.client_first = pass.from == CLIENT;
            }
        }
        let side = &mut self.control.sides[pass.from];
        // Picked up midstream, it is not known what the receiver waits for, and it remembers
        // none before that has come.
        let known = !self.control.midstream || side.acked > 0;
        if let Some((value, _)) = pass.fields.timestamp
            && known
        {
            side.note_timestamp(value, start, pass.now.monotonic_ns);
        }
        self.advance();
        Ok(())
    }

    /// Whether the receiver takes the segment's timestamp.
    pub(super) fn takes_timestamp(&self, pass: &Pass<'_, '_>) -> bool {
        let Some((value, _)) = pass.fields.timestamp else {
            return true;
        };
        let negotiated = self
            .control
            .sides
            .iter()
            .all(|side| side.offered_timestamps);
        let liberal = pass.options.liberal_timestamps;
        !negotiated
            || self.control.sides[pass.from].takes_timestamp(value, pass.now.monotonic_ns, liberal)
    }

    /// Picked up midstream, an end's numbers are those of whatever was seen first, which the
    /// receiver may not have taken. What the receiver acknowledges first tells.
    fn synchronize(&mut self, pass: &Pass<'_, '_>) {
        let to = pass.to();
        let side = &mut self.control.sides[to];
        if !(self.control.midstream && pass.options.inline && pass.has(flag::ACK)) || side.acked > 0
        {
            return;
        }
        let place = side.place(pass.segment.ack);
        if !(0..=side.highest + REACH).contains(&place) {
            let timestamps = side.offered_timestamps;
            *side = Side {
                edge: side.edge,
                flags: side.flags,
                offered_timestamps: timestamps,
                ..Side::midstream(pass.segment.ack, true)
            };
            self.streams[to].begin_anew();
            self.streams[to].base = 0;
        }
    }

    /// Whether what a segment acknowledges can be (RFC 9293, section 3.10.7.4; RFC 5961,
    /// section 5.2).
    pub(super) fn takes_ack(&self, pass: &Pass<'_, '_>) -> bool {
        if !pass.has(flag::ACK) || self.control.one_sided {
            return true;
        }
        let side = &self.control.sides[pass.to()];
        let place = side.place(pass.segment.ack);
        let fin = side.fin.map_or(0, |fin| fin + 1);
        let oldest = side.acked - side.span.max(i64::from(u16::MAX));
        (oldest..=side.edge.max(side.highest).max(fin)).contains(&place)
    }

    fn invalid_ack(&self) -> StreamEvent {
        match self.control.state {
            SessionState::FinWait1 => StreamEvent::Fin1InvalidAck,
            SessionState::FinWait2 => StreamEvent::Fin2InvalidAck,
            SessionState::Closing => StreamEvent::ClosingInvalidAck,
            SessionState::CloseWait => StreamEvent::ClosewaitInvalidAck,
            SessionState::LastAck => StreamEvent::LastackInvalidAck,
            SessionState::TimeWait | SessionState::Closed => StreamEvent::TimewaitInvalidAck,
            _ => StreamEvent::EstInvalidAck,
        }
    }

    fn wrong_place(&self, fin: bool) -> StreamEvent {
        match (self.control.state, fin) {
            (SessionState::FinWait1, true) => StreamEvent::Fin1FinWrongSeq,
            (SessionState::FinWait1, false) => StreamEvent::Fin1AckWrongSeq,
            (SessionState::FinWait2, true) => StreamEvent::Fin2FinWrongSeq,
            (SessionState::FinWait2, false) => StreamEvent::Fin2AckWrongSeq,
            (SessionState::Closing, _) => StreamEvent::ClosingAckWrongSeq,
            (SessionState::CloseWait, true) => StreamEvent::ClosewaitFinOutOfWindow,
            (SessionState::CloseWait, false) => StreamEvent::ClosewaitAckOutOfWindow,
            (SessionState::LastAck, _) => StreamEvent::LastackAckWrongSeq,
            (SessionState::TimeWait | SessionState::Closed, _) => StreamEvent::TimewaitAckWrongSeq,
            (_, true) => StreamEvent::FinOutOfWindow,
            (_, false) => StreamEvent::EstPacketOutOfWindow,
        }
    }

    /// A bare ACK beyond both streams that offers less than before.
    fn shrinks_window(&self, pass: &Pass<'_, '_>, start: i64) -> bool {
        let (side, peer) = (
            &self.control.sides[pass.from],
            &self.control.sides[pass.to()],
        );
        let window = u32::from(pass.segment.window) << side.scale;
        pass.segment.flags == flag::ACK
            && !pass.carries_data()
            && !self.control.midstream
            && window < side.window
            && start > side.next.max(side.highest)
            && peer.place(pass.segment.ack) > peer.highest.max(peer.next) + 1
    }

    /// Whether the receiver has a use for what is at `start..end`.
    fn check_place(
        &mut self,
        pass: &mut Pass<'_, '_>,
        start: i64,
        end: i64,
    ) -> Result<(), Refused> {
        let side = &mut self.control.sides[pass.from];
        let fin = pass.has(flag::FIN);
        let mut right = end <= side.edge;
        if !right && start == side.next && end - start <= 1 {
            // One byte into a closed window asks whether it is open again.
            right = start <= side.edge;
            if end > start {
                side.probe = Some(start);
            }
        }
        // Midstream, the edge is not known.
        let known = side.next.max(side.acked).max(side.highest);
        right &= start <= known.saturating_add(REACH);
        match side.fin {
            // Nothing follows a FIN, and it stays where it is.
            Some(place) => right &= if fin { end == place } else { end <= place + 1 },
            None if fin => right &= end >= side.acked && end >= side.highest,
            None => {}
        }
        if !right {
            let event = self.wrong_place(fin);
            return pass.refuse(event);
        }
        let keep_alive = end - start <= 1 && start == side.next - 1;
        let before = end < side.acked && !pass.carries_data();
        if before && !keep_alive && !fin {
            pass.event(match self.control.state {
                SessionState::CloseWait => StreamEvent::ClosewaitPktBeforeLastAck,
                _ => StreamEvent::EstPktBeforeLastAck,
            });
        }
        Ok(())
    }

    /// A SYN in the midst of it. Receivers answer it with an ACK at most (RFC 5961, section 4).
    fn syn_of_connected(&mut self, pass: &mut Pass<'_, '_>) -> Result<(), Refused> {
        if self.control.state == SessionState::Closed {
            return pass.leave_out();
        }
        if self.control.state != SessionState::Established {
            return pass.refuse(StreamEvent::ShutdownSynResend);
        }
        let [client, server] = &self.control.sides;
        let event = match (pass.has(flag::ACK), pass.from) {
            (true, CLIENT) if self.control.four_way => {
                // Simultaneous open: the second of the two.
                return pass.leave_out();
            }
            (true, CLIENT) => StreamEvent::EstSynackToserver,
            (true, _) => {
                let taken = pass.segment.ack.wrapping_sub(client.isn.wrapping_add(1));
                if taken != 0 && taken != client.syn_data {
                    StreamEvent::EstSynackResendWithDifferentAck
                } else if pass.segment.seq != server.isn {
                    StreamEvent::EstSynackResendWithDiffSeq
                } else if self.control.confirmed && client.next > 0 {
                    StreamEvent::EstSynackResend
                } else {
                    // The client's ACK was lost.
                    return pass.leave_out();
                }
            }
            (false, SERVER) => StreamEvent::EstSynToclient,
            (false, _) if pass.segment.seq != client.isn => StreamEvent::EstSynResendDiffSeq,
            (false, _) => StreamEvent::EstSynResend,
        };
        pass.refuse(event)
    }

    /// The state that FINs and their acknowledgements make.
    fn advance(&mut self) {
        let [client, server] = &self.control.sides;
        self.control.state = match self.control.state {
            // The handshake is completed elsewhere, and nothing follows the end.
            state @ (SessionState::SynSent | SessionState::SynRecv | SessionState::Closed) => state,
            _ => match (client.fin, server.fin) {
                (None, None) => SessionState::Established,
                (Some(_), None) => SessionState::CloseWait,
                (None, Some(_)) if server.fin_acked() => SessionState::FinWait2,
                (None, Some(_)) => SessionState::FinWait1,
                (Some(_), Some(_)) if client.fin_acked() && server.fin_acked() => {
                    SessionState::Closed
                }
                (Some(_), Some(_)) if self.control.client_first => SessionState::LastAck,
                (Some(_), Some(_)) if server.fin_acked() => SessionState::TimeWait,
                (Some(_), Some(_)) => SessionState::Closing,
            },
        };
    }
}
