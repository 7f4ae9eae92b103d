//! The first segment that is seen of a connection: a SYN, or something from its middle.

use super::event::StreamEvent;
use super::memory::StreamMemory;
use super::options::StreamOptions;
use super::segment::{Segment, flag};
use super::session::{
    Control, Pass, Session, SessionState, StreamCause, StreamDisposition, StreamDrop,
    StreamException, StreamOutcome, note_flags, sender,
};
use super::side::Side;
use crate::exception::Treatment;
use crate::flow::{PacketDirection, Timestamp};

/// What is known about the beginning of a flow's connection when there is no session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Begun {
    /// As far as the packets tell.
    #[default]
    Unknown,
    /// Another process has tracked it and could not hand the session over: it is picked up
    /// whatever the midstream setting.
    Inherited,
    /// Its SYN came on the ports of a connection that seemed to be over. That may be a pretence
    /// which never gets to the receiver: it has begun when it is answered.
    Again,
}

/// Takes a segment of the flow that owns `session`; begins one where there is none.
pub fn track(
    session: &mut Option<Box<Session>>,
    mut begun: Begun,
    segment: &Segment<'_>,
    direction: PacketDirection,
    now: Timestamp,
    options: &StreamOptions,
    memory: &mut StreamMemory,
) -> StreamOutcome {
    if let Some(tracked) = session {
        if tracked.is_reopened_by(segment) {
            begun = Begun::Again;
        } else {
            let mut outcome = tracked.packet(segment, direction, now, options, memory);
            if segment.has(flag::SYN) || !tracked.is_out_of_date(&outcome, memory) {
                return outcome;
            }
            if segment.has(flag::RST) {
                // Its receiver knows better.
                outcome.disposition = StreamDisposition::Accept;
                return outcome;
            }
            memory.totals.picked_up_again += 1;
            begun = Begun::Inherited;
        }
        *session = None;
    }
    let mut pass = Pass {
        segment,
        fields: segment.options(),
        from: sender(direction),
        now,
        options,
        memory,
        outcome: StreamOutcome::default(),
    };
    if segment.bad_checksum && options.checksum_validation {
        pass.memory.totals.invalid_checksum += 1;
        if options.inline && options.drop_invalid {
            pass.outcome.disposition = StreamDisposition::Drop(StreamDrop::Checksum);
        }
        return pass.outcome;
    }
    let Some(control) = first_control(&mut pass, begun) else {
        note_flags(&mut pass);
        return pass.outcome;
    };
    if !pass.memory.has_room_for_session(Session::BYTES, options) {
        pass.memory.totals.ssn_memcap_drop += 1;
        pass.memory.totals.ssn_memcap_exceptions += 1;
        except(&mut pass, StreamCause::SessionMemory, options.memcap_policy);
        return pass.outcome;
    }
    let mut tracked = Box::new(Session::new(control, pass.memory));
    tracked.open(&mut pass);
    *session = Some(tracked);
    pass.outcome
}

pub(super) fn except(pass: &mut Pass<'_, '_>, cause: StreamCause, treatment: Treatment) {
    pass.outcome.exception = Some(StreamException { cause, treatment });
}

/// What a session begins with, when this segment begins one.
fn first_control(pass: &mut Pass<'_, '_>, begun: Begun) -> Option<Control> {
    let options = pass.options;
    let inherited = begun == Begun::Inherited;
    if pass.has(flag::RST) {
        pass.event(StreamEvent::RstButNoSession);
        return None;
    }
    if pass.has(flag::FIN) && (!(options.midstream || inherited) || !pass.carries_data()) {
        pass.event(StreamEvent::FinButNoSession);
        if options.inline && pass.carries_data() {
            midstream_exception(pass);
        }
        return None;
    }
    let now_ns = pass.now.monotonic_ns;
    let mut control = Control {
        again: begun == Begun::Again,
        ..Control::default()
    };
    match (pass.has(flag::SYN), pass.has(flag::ACK)) {
        (true, false) => {
            control.sides[pass.from] = Side::of_syn(pass.segment, &pass.fields, now_ns);
            return Some(control);
        }
        (true, true) => {
            if !(options.midstream || options.async_oneside || inherited) {
                midstream_exception(pass);
                return None;
            }
            control.state = SessionState::SynRecv;
            control.from_synack = true;
            let answer = Side::of_syn(pass.segment, &pass.fields, now_ns);
            // What the SYN must have offered, since it is answered.
            control.sides[pass.to()] = Side {
                isn: pass.segment.ack.wrapping_sub(1),
                known: true,
                offered_scale: answer.offered_scale.map(|_| 14),
                offered_timestamps: answer.offered_timestamps,
                offered_sack: answer.offered_sack,
                edge: i64::from(pass.segment.window),
                span: i64::from(pass.segment.window),
                ..Side::default()
            };
            control.sides[pass.from] = answer;
            // Nobody has said how much the server may send.
            control.sides[pass.from].edge = i64::from(u16::MAX) << 14;
        }
        (false, true) => {
            if !(options.midstream || inherited) {
                midstream_exception(pass);
                return None;
            }
            control.state = SessionState::Established;
            control.one_sided = options.async_oneside;
            let inline = options.inline;
            control.sides[pass.from] = Side::midstream(pass.segment.seq, inline);
            control.sides[pass.to()] = Side::midstream(pass.segment.ack, inline);
            for side in &mut control.sides {
                side.edge = i64::MAX / 2;
                side.offered_timestamps = pass.fields.timestamp.is_some();
            }
            let peer = &mut control.sides[pass.to()];
            peer.acked = peer.first;
        }
        (false, false) => {
            midstream_exception(pass);
            return None;
        }
    }
    control.midstream = true;
    pass.memory.totals.midstream_pickups += 1;
    if !inherited {
        pass.memory.totals.midstream_exceptions += 1;
        let treatment = pass.options.midstream_policy;
        except(pass, StreamCause::Midstream, treatment);
        if !matches!(treatment, Treatment::Ignore | Treatment::PassFlow) {
            return None;
        }
    }
    Some(control)
}

fn midstream_exception(pass: &mut Pass<'_, '_>) {
    pass.memory.totals.midstream_exceptions += 1;
    let treatment = pass.options.midstream_policy;
    except(pass, StreamCause::Midstream, treatment);
}

impl Session {
    /// The segment that begins the session.
    fn open(&mut self, pass: &mut Pass<'_, '_>) {
        if self.control.state != SessionState::SynSent
            && !(self.control.from_synack && self.control.state == SessionState::SynRecv)
        {
            // In the middle of it: as any other.
            self.run(pass);
            return;
        }
        note_flags(pass);
        self.control.sides[pass.from].flags |= pass.segment.flags;
        // If it is dropped, a session of a SYN that nobody has got does no harm.
        self.remember(pass);
        if self.control.state == SessionState::SynSent {
            let window = u32::from(pass.segment.window);
            self.control.sides[pass.to()].acknowledged(0, window);
            if let Err(refused) = self.syn_data(pass) {
                self.refuse(pass, refused);
            }
        }
        self.settle_account();
    }
}
