//! How a connection begins: three-way and four-way handshakes, fast open, several SYNs and
//! SYN-ACKs.

use super::event::StreamEvent;
use super::segment::flag;
use super::session::{CLIENT, Control, Pass, Refused, SERVER, Session, SessionState, StreamDrop};
use super::side::Side;

/// How much earlier than the SYN that is known the first one can have been: in five minutes
/// everybody has given up, and a timestamp counts milliseconds at most (RFC 7323, section 5.4).
const EARLIER_SYN: u32 = 5 * 60 * 1000;

impl Session {
    /// What a SYN carries: part of the stream when the receiver takes it. Watching, only when
    /// fast open says that it may.
    pub(super) fn syn_data(&mut self, pass: &mut Pass<'_, '_>) -> Result<(), Refused> {
        if !pass.carries_data() || !(pass.options.inline || pass.fields.fast_open) {
            return Ok(());
        }
        // What may be in flight before the first window is offered (RFC 7413, section 4.1.3).
        let side = &mut self.control.sides[pass.from];
        side.edge = side.edge.max(i64::from(u16::MAX));
        self.take_data(pass, 0)
    }

    pub(super) fn syn_sent(&mut self, pass: &mut Pass<'_, '_>) -> Result<(), Refused> {
        if pass.from == SERVER && !self.answers_timestamp(pass) {
            return pass.refuse(StreamEvent::PktInvalidTimestamp);
        }
        if pass.has(flag::RST) {
            return self.reset_of_syn(pass);
        }
        match (pass.has(flag::SYN), pass.has(flag::ACK), pass.from) {
            (true, true, SERVER) => self.answer(pass),
            (true, true, _) => self.answer_of_client(pass),
            (true, false, SERVER) => self.syn_of_server(pass),
            (true, false, _) => self.another_syn(pass),
            (false, true, _) => self.ack_of_syn(pass),
            (false, false, _) => pass.leave_out(),
        }
    }

    /// A server's segment that has timestamps must answer those of a SYN; receivers ignore
    /// others (a reset among them), and so must we.
    fn answers_timestamp(&self, pass: &Pass<'_, '_>) -> bool {
        let Some((_, echo)) = pass.fields.timestamp else {
            return true;
        };
        let client = &self.control.sides[CLIENT];
        let offers = || std::iter::once(client).chain(&self.queued);
        if self.control.four_way {
            return true;
        }
        if !offers().any(|syn| syn.offered_timestamps) {
            return false;
        }
        let answers = |syn: &Side| {
            syn.timestamp.is_some_and(|sent| {
                // Who serves the flow now may know only a repetition; the server answers what it
                // got first, and the client takes that (RFC 7323, section 3.2, leaves it open).
                let of_earlier = (1..=EARLIER_SYN).contains(&sent.wrapping_sub(echo));
                sent == echo || of_earlier && pass.has(flag::SYN)
            })
        };
        // Some servers leave the echo of their SYN-ACK empty.
        echo == 0 && pass.has(flag::SYN) || offers().any(answers)
    }

    /// RFC 9293, section 3.10.7.3: a reset that acknowledges the SYN ends the attempt.
    fn reset_of_syn(&mut self, pass: &mut Pass<'_, '_>) -> Result<(), Refused> {
        if pass.from == CLIENT {
            // It answers something that is no part of this, or gives up: either way what the
            // server says next tells.
            return Ok(());
        }
        let client = &self.control.sides[CLIENT];
        let acknowledges = |syn: &Side| {
            let after = syn.isn.wrapping_add(1);
            pass.segment.ack == after || pass.segment.ack == after.wrapping_add(syn.syn_data)
        };
        if pass.has(flag::ACK)
            && std::iter::once(client)
                .chain(&self.queued)
                .any(acknowledges)
        {
            self.control.state = SessionState::Closed;
            self.control.sides[SERVER].reset = true;
            return Ok(());
        }
        pass.refuse(StreamEvent::RstInvalidAck)
    }

    /// A SYN-ACK of the server.
    fn answer(&mut self, pass: &mut Pass<'_, '_>) -> Result<(), Refused> {
        let ack = pass.segment.ack;
        if self.control.four_way {
            return self.crossing_answer(pass);
        }
        if !acknowledges(&self.control.sides[CLIENT], ack) {
            let Some(found) = self.queued.iter().position(|syn| acknowledges(syn, ack)) else {
                return pass.refuse(StreamEvent::HandshakeSynackWithWrongAck);
            };
            // Another SYN is the one that counts; what the first one carried is not.
            let flags = self.control.sides[CLIENT].flags;
            self.control.sides[CLIENT] = self.queued.swap_remove(found);
            self.control.sides[CLIENT].flags |= flags;
            self.streams[CLIENT].begin_anew();
        }
        self.queued.clear();
        let offered = self.control.sides[CLIENT].window;
        self.control.sides[SERVER].acknowledged(0, offered);
        self.begin_answer(pass);
        let client = &mut self.control.sides[CLIENT];
        let taken = client.place(ack);
        if taken == 0 && client.syn_data > 0 {
            if client.fast_open {
                pass.event(StreamEvent::HandshakeSynackTfoDataIgnored);
            }
            (client.next, client.highest) = (0, 0);
            client.syn_data = 0;
            client.raw = 0;
            self.streams[CLIENT].begin_anew();
            self.streams[CLIENT].owned.clear();
        } else if taken > 0 {
            client.acked = taken;
            client.next = client.next.max(taken);
        }
        self.take_data_of_answer(pass)
    }

    /// State and window scaling after a SYN-ACK.
    fn begin_answer(&mut self, pass: &Pass<'_, '_>) {
        let control = &mut self.control;
        let flags = control.sides[SERVER].flags;
        let before = control.sides[SERVER];
        let mut server = Side::of_syn(pass.segment, &pass.fields, pass.now.monotonic_ns);
        server.flags |= flags;
        (server.edge, server.span) = (before.edge, before.span);
        control.sides[SERVER] = server;
        agree(control);
        let window = u32::from(pass.segment.window);
        control.sides[CLIENT].acknowledged(0, window);
        control.state = SessionState::SynRecv;
    }

    /// A fast-open server may send data with its SYN-ACK.
    fn take_data_of_answer(&mut self, pass: &mut Pass<'_, '_>) -> Result<(), Refused> {
        if pass.carries_data() && (pass.options.inline || self.control.sides[CLIENT].syn_data > 0) {
            return self.take_data(pass, 0);
        }
        Ok(())
    }

    /// A SYN-ACK of the client: right after a SYN of the server only.
    fn answer_of_client(&mut self, pass: &mut Pass<'_, '_>) -> Result<(), Refused> {
        if !self.control.four_way {
            return pass.refuse(StreamEvent::HandshakeSynackInWrongDirection);
        }
        let [client, server] = &self.control.sides;
        if pass.segment.ack != server.isn.wrapping_add(1) {
            return pass.refuse(StreamEvent::FourWaySynackWithWrongAck);
        }
        if pass.segment.seq != client.isn {
            return pass.refuse(StreamEvent::FourWaySynackWithWrongSyn);
        }
        let window = u32::from(pass.segment.window);
        self.control.sides[SERVER].acknowledged(0, window);
        agree(&mut self.control);
        self.control.state = SessionState::SynRecv;
        self.syn_data(pass)
    }

    /// Simultaneous open: the server's SYN-ACK after its SYN.
    fn crossing_answer(&mut self, pass: &mut Pass<'_, '_>) -> Result<(), Refused> {
        let [client, server] = &self.control.sides;
        if pass.segment.ack != client.isn.wrapping_add(1) {
            return pass.refuse(StreamEvent::FourWaySynackWithWrongAck);
        }
        if pass.segment.seq != server.isn {
            // A server that has answered the SYN after all.
            self.control.four_way = false;
            return self.answer(pass);
        }
        let window = u32::from(pass.segment.window);
        self.control.sides[CLIENT].acknowledged(0, window);
        agree(&mut self.control);
        self.control.state = SessionState::SynRecv;
        self.syn_data(pass)
    }

    /// A SYN of the server: the four-way handshake, or both open at once.
    fn syn_of_server(&mut self, pass: &mut Pass<'_, '_>) -> Result<(), Refused> {
        let control = &mut self.control;
        if control.four_way && control.sides[SERVER].isn != pass.segment.seq {
            return pass.refuse(StreamEvent::FourWaySynackWithWrongSyn);
        }
        let flags = control.sides[SERVER].flags;
        let before = control.sides[SERVER];
        let mut server = Side::of_syn(pass.segment, &pass.fields, pass.now.monotonic_ns);
        server.flags |= flags;
        (server.edge, server.span) = (before.edge, before.span);
        control.sides[SERVER] = server;
        let window = u32::from(pass.segment.window);
        control.sides[CLIENT].acknowledged(0, window);
        control.four_way = true;
        self.syn_data(pass)
    }

    /// The client's SYN again, or another one.
    fn another_syn(&mut self, pass: &mut Pass<'_, '_>) -> Result<(), Refused> {
        let syn = Side::of_syn(pass.segment, &pass.fields, pass.now.monotonic_ns);
        let client = &self.control.sides[CLIENT];
        let same = |other: &Side| {
            other.isn == syn.isn && other.timestamp == syn.timestamp && other.window == syn.window
        };
        if client.isn == syn.isn && (pass.carries_data() || client.syn_data > 0) {
            // Again: its data must be the same as before.
            if client.syn_data == 0 {
                self.control.sides[CLIENT].syn_data = syn.syn_data;
                self.control.sides[CLIENT].fast_open |= syn.fast_open;
            }
            self.syn_data(pass)?;
        } else if pass.carries_data() && pass.options.inline {
            // Which SYN counts is the server's choice: only one of them can bring data that is
            // known when the choice is made.
            return Err(Refused(StreamDrop::Invalid));
        }
        if same(&self.control.sides[CLIENT]) || self.queued.iter().any(same) {
            return Ok(());
        }
        let most = usize::from(pass.options.max_syn_queued);
        if self.queued.len() >= most || !self.can_queue(pass) {
            pass.event(StreamEvent::HandshakeSynFlood);
            // The latest ones are those that may still be answered.
            if self.queued.is_empty() {
                return Ok(());
            }
            self.queued.remove(0);
        }
        self.queue(syn);
        Ok(())
    }

    /// No SYN-ACK was seen, and somebody acknowledges.
    fn ack_of_syn(&mut self, pass: &mut Pass<'_, '_>) -> Result<(), Refused> {
        if pass.from == SERVER {
            // An old connection's server says that it is still there.
            return pass.leave_out();
        }
        let place = self.control.sides[CLIENT].place(pass.segment.seq);
        if pass.options.async_oneside {
            if place != 0 {
                return pass.refuse(StreamEvent::HandshakeAsyncWrongSeq);
            }
            let inline = pass.options.inline;
            let mut server = Side::midstream(pass.segment.ack, inline);
            server.acked = server.first;
            server.edge = i64::MAX / 2;
            self.control.sides[SERVER] = server;
            self.control.sides[CLIENT].edge = i64::MAX / 2;
            self.control.one_sided = true;
            self.control.state = SessionState::Established;
            return self.connected(pass);
        }
        // The SYN-ACK may have gone another way: what is delivered shall be known.
        if pass.options.inline && pass.carries_data() {
            // A connection whose end was a pretence goes on: what came before is not known here.
            if self.control.again || place < 0 || place > i64::from(u16::MAX) {
                return pass.refuse(StreamEvent::HandshakeWrongSeqWrongAck);
            }
            return self.take_data(pass, place);
        }
        Ok(())
    }

    pub(super) fn syn_received(&mut self, pass: &mut Pass<'_, '_>) -> Result<(), Refused> {
        if pass.has(flag::RST) {
            return self.reset(pass);
        }
        match (pass.has(flag::SYN), pass.has(flag::ACK), pass.from) {
            (true, true, _) if self.control.four_way => self.second_answer(pass),
            (true, true, SERVER) => self.another_answer(pass),
            (true, true, _) => pass.refuse(StreamEvent::HandshakeSynackToserverOnSynRecv),
            (true, false, SERVER) => {
                if self.control.four_way && pass.segment.seq == self.control.sides[SERVER].isn {
                    return pass.leave_out();
                }
                pass.refuse(StreamEvent::HandshakeSynToclientOnSynRecv)
            }
            (true, false, _) => self.syn_after_answer(pass),
            (false, true, SERVER) => self.ack_of_server(pass),
            (false, true, _) => self.ack_of_client(pass),
            (false, false, _) => pass.leave_out(),
        }
    }

    /// Simultaneous open: the second SYN-ACK completes it.
    fn second_answer(&mut self, pass: &mut Pass<'_, '_>) -> Result<(), Refused> {
        let (this, that) = (
            &self.control.sides[pass.from],
            &self.control.sides[pass.to()],
        );
        if pass.segment.seq != this.isn {
            return pass.refuse(StreamEvent::FourWaySynackWithWrongSyn);
        }
        if pass.segment.ack != that.isn.wrapping_add(1) {
            return pass.refuse(StreamEvent::FourWaySynackWithWrongAck);
        }
        pass.leave_out()
    }

    /// The client's SYN once more.
    fn syn_after_answer(&mut self, pass: &mut Pass<'_, '_>) -> Result<(), Refused> {
        if pass.segment.seq != self.control.sides[CLIENT].isn {
            return pass.refuse(StreamEvent::HandshakeSynResendDiffSeqOnSynRecv);
        }
        // Its data, if any, is what the server has seen already.
        self.syn_data(pass)
    }

    /// The server's SYN-ACK once more, or another one.
    fn another_answer(&mut self, pass: &mut Pass<'_, '_>) -> Result<(), Refused> {
        let [client, server] = &self.control.sides;
        let ack = client.place(pass.segment.ack);
        if ack != 0 && ack != i64::from(client.syn_data) {
            return pass.refuse(StreamEvent::HandshakeSynackResendWithDifferentAck);
        }
        if pass.segment.seq == server.isn {
            return self.take_data_of_answer(pass);
        }
        if self
            .queued
            .iter()
            .any(|other| other.isn == pass.segment.seq)
        {
            return pass.leave_out();
        }
        let most = usize::from(pass.options.max_synack_queued);
        if self.queued.len() >= most || !self.can_queue(pass) {
            return pass.refuse(StreamEvent::HandshakeSynackFlood);
        }
        let other = Side::of_syn(pass.segment, &pass.fields, pass.now.monotonic_ns);
        self.queue(other);
        pass.leave_out()
    }

    /// The server acknowledges before the client has.
    fn ack_of_server(&mut self, pass: &mut Pass<'_, '_>) -> Result<(), Refused> {
        if self.control.four_way {
            let [client, server] = &self.control.sides;
            // Its data may come in another order.
            let (place, edge) = (server.place(pass.segment.seq), server.edge);
            let within = pass.options.inline && pass.carries_data() && (0..=edge).contains(&place);
            if place != 0 && !within {
                return pass.refuse(StreamEvent::FourWayWrongSeq);
            }
            if pass.segment.ack != client.isn.wrapping_add(1) {
                return pass.refuse(StreamEvent::FourWayInvalidAck);
            }
            return self.establish(pass);
        }
        if self.control.from_synack {
            // The client may never be seen.
            self.control.one_sided = pass.options.async_oneside;
            return self.establish(pass);
        }
        if self.control.sides[CLIENT].syn_data > 0 {
            // Fast open: the server need not wait.
            return self.connected(pass);
        }
        if pass.carries_data() {
            let [client, server] = &self.control.sides;
            let right = server.place(pass.segment.seq) == 0
                && client.place(pass.segment.ack) == client.next;
            if right && !pass.options.inline {
                // The client's ACK was not captured, or is late. Inline there would be none
                // that the server has got.
                return self.establish(pass);
            }
            pass.event(StreamEvent::HandshakeAckDataInject);
        }
        pass.refuse(StreamEvent::HandshakeAckInWrongDir)
    }

    /// The last of the three.
    fn ack_of_client(&mut self, pass: &mut Pass<'_, '_>) -> Result<(), Refused> {
        let client = self.control.sides[CLIENT];
        let place = client.place(pass.segment.seq);
        let after = |server: &Side| server.isn.wrapping_add(1);
        let mut right_ack = pass.segment.ack == after(&self.control.sides[SERVER])
            // Fast open: it may have got data already.
            || self.control.sides[SERVER].next > 0
                && (0..=self.control.sides[SERVER].next)
                    .contains(&self.control.sides[SERVER].place(pass.segment.ack));
        if !right_ack
            && let Some(found) = self
                .queued
                .iter()
                .position(|server| after(server) == pass.segment.ack)
        {
            // The client has taken another SYN-ACK than the first.
            let before = self.control.sides[SERVER];
            let mut server = self.queued.swap_remove(found);
            server.flags |= before.flags;
            (server.edge, server.span) = (before.edge, before.span);
            self.control.sides[SERVER] = server;
            self.streams[SERVER].begin_anew();
            agree(&mut self.control);
            right_ack = true;
        }
        // Its own ACK may be lost while data that follows is not.
        let right_seq = place == client.next
            || (place == 0 && client.syn_data > 0)
            || (right_ack && place > 0 && place <= client.edge)
            || (right_ack && self.control.from_synack);
        if self.control.four_way && right_seq && right_ack {
            // Both have opened: the client's ACK completes its half.
            return self.establish(pass);
        }
        match (right_seq, right_ack) {
            (true, true) => {
                self.queued = Vec::new();
                self.establish(pass)
            }
            (true, false) => pass.refuse(StreamEvent::HandshakeRightSeqWrongAckEvasion),
            (false, true) if place < 0 && !pass.carries_data() => Ok(()),
            (false, _) => pass.refuse(StreamEvent::HandshakeWrongSeqWrongAck),
        }
    }

    fn establish(&mut self, pass: &mut Pass<'_, '_>) -> Result<(), Refused> {
        let before = self.control.state;
        self.control.state = SessionState::Established;
        let result = self.connected(pass);
        if result.is_err() {
            self.control.state = before;
        }
        result
    }
}

/// Whether a SYN-ACK that acknowledges `ack` answers this SYN, with its data or without.
fn acknowledges(syn: &Side, ack: u32) -> bool {
    let after = syn.isn.wrapping_add(1);
    let taken = ack.wrapping_sub(after);
    taken == 0 || (syn.syn_data > 0 && taken <= syn.syn_data)
}

/// Options hold when both SYNs have them (RFC 7323, sections 2.2 and 3.2).
fn agree(control: &mut Control) {
    let both_scale = control
        .sides
        .iter()
        .all(|side| side.offered_scale.is_some());
    for side in &mut control.sides {
        side.scale = match side.offered_scale {
            Some(scale) if both_scale => scale,
            _ => 0,
        };
    }
}
