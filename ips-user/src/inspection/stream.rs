//! TCP: a segment is given to its connection, and what of the stream comes with it to the rules.
//!
//! Inline that is the window around the segment's data, as it is delivered. Watching, it is what
//! the other end has acknowledged; what nothing comes after is inspected when the flow ends.

use etherparse::{PacketBuilder, TcpHeaderSlice};

use super::Feedback;
use super::case::{Case, InFlow};
use super::change;
use super::detection::Streamed;
use super::examiner::{End, Examiner, Limited};
use crate::decode::{Decoded, PacketSource};
use crate::detect::StreamData;
use crate::exception::{Cause, Treatment};
use crate::flow::{Exception, Flow, FlowAction, PacketDirection, TcpState, Timestamp};
use crate::log::EventSink;
use crate::reassembly::tcp::{
    QuietWindow, Session, StreamCause, StreamDisposition, StreamDrop, StreamException, StreamMemory,
};
use crate::source::Disposition;
use crate::verdict::RejectSender;

const DIRECTIONS: [PacketDirection; 2] = [PacketDirection::ToServer, PacketDirection::ToClient];

impl<S: EventSink, R: RejectSender, F: Feedback> Examiner<S, R, F> {
    /// A packet that is to be inspected.
    pub(super) fn examine(
        &mut self,
        case: &Case<'_>,
        flow: &mut InFlow<'_>,
        memory: &mut StreamMemory,
    ) -> End {
        self.limited = Limited::default();
        let end = self.ask(case, flow, memory);
        let Limited {
            unfinished,
            passed,
            alone,
        } = self.limited;
        let undecided = |flow: &InFlow<'_>| {
            let decided = |(flow, _): &(&mut Flow, _)| flow.action != FlowAction::Inspect;
            !flow.as_ref().is_some_and(decided)
        };
        if !unfinished || passed || end.0 == Disposition::Drop || !undecided(flow) {
            return end;
        }
        let Some(limited) = self.except_limited(case, flow, alone) else {
            return end;
        };
        if limited.0 == Disposition::Drop
            && let Some((flow, direction)) = flow
            && let Some(session) = &mut flow.session
        {
            // It is not known that there was nothing in it.
            session.take_quiet(*direction);
        }
        self.settle(flow, limited.0, memory);
        limited
    }

    /// The rules' answer, and the stream engine's.
    fn ask(&mut self, case: &Case<'_>, flow: &mut InFlow<'_>, memory: &mut StreamMemory) -> End {
        let Some((in_flow, direction)) = flow else {
            return self.detect(case, flow, &Streamed::default());
        };
        let direction = *direction;
        let was_established = in_flow.session.as_deref().map(Session::is_established);
        let by_flags = matches!(
            in_flow.tcp,
            TcpState::Established | TcpState::Closing | TcpState::Closed
        );
        let options = &self.options.stream;
        let tracked = in_flow.track(case.packet, direction, case.now, options, memory);
        let Some(outcome) = tracked else {
            return self.detect(case, flow, &Streamed::default());
        };
        // From here on known only where it is put back.
        let quiet = (in_flow.session.as_mut()).map(|it| it.take_quiet(direction));
        let quiet = quiet.unwrap_or_default();
        let mut streamed = Streamed {
            events: outcome.events,
            established: match (&in_flow.session, was_established) {
                (Some(session), _) if session.is_midstream() => session.is_established(),
                // Its data is delivered with the ACK that completes the handshake.
                (Some(session), _) if options.inline && outcome.in_stream => {
                    session.is_established()
                }
                (Some(_), before) => before.unwrap_or(false),
                // Without memory for it.
                (None, _) => by_flags && outcome.exception.is_some_and(is_about_memory),
            },
            ..Streamed::default()
        };
        if let Some(exception) = outcome.exception
            && let Some(end) = self.excepted_stream(case, flow, exception)
        {
            self.settle(flow, end.0, memory);
            return end;
        }
        let mut changed = None;
        // Where nothing is rewritten, what the packet has may not be what the stream has.
        let differs = !self.options.ips
            && matches!(&outcome.disposition, StreamDisposition::Replace(it) if !it.bytes.is_empty());
        match outcome.disposition {
            StreamDisposition::Drop(reason) if self.options.ips => streamed.refused = Some(reason),
            StreamDisposition::Replace(change) if self.options.ips => {
                changed = change::segment(case, &change);
                if changed.is_none() {
                    // Something else would be delivered than is inspected.
                    streamed.refused = Some(StreamDrop::Invalid);
                }
            }
            _ => {}
        }
        let packet = (changed.as_deref()).and_then(|bytes| case.packet.with_frame(bytes));
        let case = &Case {
            packet: packet.as_ref().unwrap_or(case.packet),
            ..*case
        };
        // Its view is borrowed while the flow is shown to others.
        let mut session = flow.as_mut().and_then(|(flow, _)| flow.session.take());
        let is_tracked = session.is_some();
        streamed.sizes = session.as_deref().map(sizes);
        let outside = streamed.refused.is_some() || is_plain_syn(case.packet);
        let view = match outside {
            true => None,
            false => (session.as_mut()).and_then(|it| it.raw(direction, &self.options.stream)),
        };
        let has_view = view.is_some();
        let window = view.as_ref().and_then(QuietWindow::of);
        if is_tracked {
            streamed.missing = view.map_or(0, |view| view.missing);
            streamed.data = Some(StreamData {
                data: view.map_or(&[], |view| view.data),
                // What nobody takes is in no stream; an attack it can be all the same.
                holds_packet: outcome.in_stream && !outside,
                fresh_from: view.map_or(0, |view| view.fresh_from),
                fresh_len: view.filter(|_| !differs).map_or(0, |view| view.fresh_len),
                quiet: view.map_or(0, |view| quiet.of(&view, self.epoch)),
            });
        }
        // Neither what nobody takes nor what anybody can send in somebody's name says anything
        // about the flow.
        self.limited.alone =
            is_plain_syn(case.packet) || is_tracked && (outside || !outcome.in_stream);
        let (established, sizes) = (streamed.established, streamed.sizes);
        let mut end = self.detect(case, flow, &streamed);
        let was_quiet = self.quiet;
        if end.0 == Disposition::Accept
            && let Some(session) = &mut session
            && let Some(view) = session.raw_with_urgent(direction, &self.options.stream)
        {
            // As a receiver has it that reads urgent data inline.
            let streamed = Streamed {
                data: Some(StreamData {
                    data: view.data,
                    holds_packet: true,
                    fresh_from: view.fresh_from,
                    fresh_len: view.fresh_len,
                    quiet: 0,
                }),
                established,
                sizes,
                alone: true,
                ..Streamed::default()
            };
            end = self.detect(case, flow, &streamed);
        }
        if end.0 == Disposition::Accept
            && self.options.stream.inline
            && outcome.in_stream
            && !established
            && let Some(session) = &mut session
            && let Some(view) = session.raw(direction, &self.options.stream)
        {
            // A receiver that takes data before the handshake is complete has it now: rules about
            // established connections will see no more of it.
            let streamed = Streamed {
                data: Some(StreamData {
                    data: view.data,
                    holds_packet: true,
                    fresh_from: view.fresh_from,
                    fresh_len: view.fresh_len,
                    quiet: 0,
                }),
                established: true,
                sizes,
                alone: true,
                early: true,
                // Anybody can send a SYN in somebody's name.
                spares_flow: is_plain_syn(case.packet),
                ..Streamed::default()
            };
            end = self.detect(case, flow, &streamed);
        }
        if has_view && let Some(session) = &mut session {
            session.raw_done(direction, &self.options.stream);
        }
        if end.0 == Disposition::Accept
            && self.options.stream.inline
            && let Some(session) = &mut session
        {
            match window {
                Some(window) if was_quiet => {
                    session.found_quiet(direction, window, quiet, self.epoch);
                }
                None if !has_view && case.packet.payload.is_empty() => {
                    session.still_quiet(direction, quiet);
                }
                _ => {}
            }
        }
        if let Some((flow, _)) = flow {
            flow.session = session;
            if outcome.bypass && flow.action == FlowAction::Inspect {
                flow.bypass();
            }
        }
        if has_view && !self.options.stream.inline {
            // Behind a gap there may be more.
            self.inspect_rest(case, flow, direction);
        }
        if self.changed.is_none() {
            self.changed = changed;
        }
        self.settle(flow, end.0, memory);
        end
    }

    /// What is left after the packet: nothing of one that is dropped, and no connection of a flow
    /// about which everything is decided.
    fn settle(
        &mut self,
        flow: &mut InFlow<'_>,
        disposition: Disposition,
        memory: &mut StreamMemory,
    ) {
        let Some((flow, _)) = flow else { return };
        match (flow.action, disposition) {
            (FlowAction::Inspect, Disposition::Drop) => flow.dropped(memory),
            (FlowAction::Inspect, Disposition::Accept) => {}
            _ => flow.session = None,
        }
        if disposition == Disposition::Drop {
            self.changed = None;
        }
    }

    /// What the stream engine's exception policy says; `None` when the inspection goes on.
    fn excepted_stream(
        &mut self,
        case: &Case<'_>,
        flow: &mut InFlow<'_>,
        StreamException { cause, treatment }: StreamException,
    ) -> Option<End> {
        let (cause, observed) = match cause {
            StreamCause::Midstream => (Cause::Midstream, Exception::Midstream),
            StreamCause::SessionMemory => (Cause::StreamMemory, Exception::StreamMemory),
            StreamCause::ReassemblyMemory => (Cause::ReassemblyMemory, Exception::ReassemblyMemory),
        };
        if let Some((flow, _)) = flow {
            flow.observed.excepted(observed, treatment);
        }
        let treatment = match (treatment.disposition(), self.options.ips) {
            // Nothing can be dropped.
            (Some(Disposition::Drop), false) => Treatment::Ignore,
            _ => treatment,
        };
        let reports = &mut self.reports;
        let outcome = reports.except(&mut self.exceptions, cause, treatment, case, flow)?;
        Some(self.excepted(cause, outcome, case.packet))
    }

    /// Everything of the flow's streams that was not inspected, when nothing comes any more.
    pub(super) fn inspect_ended(
        &mut self,
        flow: &mut Flow,
        now: Timestamp,
        memory: &mut StreamMemory,
    ) {
        if self.options.stream.inline || flow.action != FlowAction::Inspect {
            return;
        }
        let Some(session) = &mut flow.session else {
            return;
        };
        session.finish();
        for direction in DIRECTIONS {
            let left = (flow.session.as_ref())
                .is_some_and(|it| it.is_left(direction, &self.options.stream));
            if !left {
                continue;
            }
            let bytes = pseudo_packet(flow, direction);
            let Ok(mut packet) = Decoded::parse(&bytes) else {
                continue;
            };
            packet.source = PacketSource::FlowTimeout;
            packet.key = flow.key;
            memory.count_pseudo();
            let case = Case {
                packet: &packet,
                now,
                id: self.last_id,
                in_interface: 0,
                out_interface: 0,
                cut: false,
                partial_checksum: false,
                pseudo: true,
            };
            self.inspect_rest(&case, &mut Some((flow, direction)), direction);
        }
    }

    /// Every further view of this direction.
    fn inspect_rest(&mut self, case: &Case<'_>, flow: &mut InFlow<'_>, direction: PacketDirection) {
        loop {
            let Some((in_flow, _)) = flow else { return };
            if in_flow.action != FlowAction::Inspect {
                in_flow.session = None;
            }
            let Some(mut session) = in_flow.session.take() else {
                return;
            };
            let mut streamed = Streamed {
                established: session.is_established(),
                sizes: Some(sizes(&session)),
                alone: true,
                ..Streamed::default()
            };
            let view = session.raw(direction, &self.options.stream);
            let found = view.is_some();
            if let Some(view) = view {
                streamed.missing = view.missing;
                streamed.data = Some(StreamData {
                    data: view.data,
                    holds_packet: true,
                    fresh_from: view.fresh_from,
                    fresh_len: view.fresh_len,
                    quiet: 0,
                });
                self.detect(case, flow, &streamed);
                session.raw_done(direction, &self.options.stream);
            }
            if let Some((in_flow, _)) = flow {
                in_flow.session = Some(session);
            }
            if !found {
                return;
            }
        }
    }
}

/// Whether it is a SYN without fast open: most receivers do not take its data, and wait for it
/// again. What the others have of it is in the stream with what follows.
fn is_plain_syn(packet: &Decoded<'_>) -> bool {
    let opens = packet.tcp().is_some_and(TcpHeaderSlice::syn);
    opens && (packet.tcp_options()).is_none_or(|options| options.fast_open.is_none())
}

fn is_about_memory(exception: StreamException) -> bool {
    exception.cause != StreamCause::Midstream
}

/// Bytes of client and server.
fn sizes(session: &Session) -> (u32, u32) {
    let [client, server] = DIRECTIONS.map(|direction| session.stream_size(direction) as u32);
    (client, server)
}

/// A segment without data of this direction of a flow.
fn pseudo_packet(flow: &Flow, direction: PacketDirection) -> Vec<u8> {
    let (client, server) = flow.key.ends(flow.client);
    let (from, to) = match direction {
        PacketDirection::ToServer => (client, server),
        PacketDirection::ToClient => (server, client),
    };
    let family = flow.key.family;
    let builder = match (from.ip(family), to.ip(family)) {
        (std::net::IpAddr::V4(from), std::net::IpAddr::V4(to)) => {
            PacketBuilder::ipv4(from.octets(), to.octets(), 64)
        }
        (from, to) => {
            let octets = |address| match address {
                std::net::IpAddr::V4(v4) => std::net::Ipv4Addr::to_ipv6_mapped(&v4).octets(),
                std::net::IpAddr::V6(v6) => v6.octets(),
            };
            PacketBuilder::ipv6(octets(from), octets(to), 64)
        }
    };
    let builder = builder.tcp(from.port, to.port, 0, 0).ack(0);
    let mut bytes = Vec::with_capacity(builder.size(0));
    // Into memory nothing fails.
    let _ = builder.write(&mut bytes, &[]);
    bytes
}
