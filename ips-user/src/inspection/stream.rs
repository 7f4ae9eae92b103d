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
use super::passed::listens;
use crate::app::{Heard, Hearing};
use crate::decode::protocol;
use crate::decode::{Decoded, PacketSource};
use crate::detect::StreamData;
use crate::exception::{Cause, Treatment};
use crate::flow::{Exception, Flow, FlowAction, PacketDirection, TcpState, Timestamp};
use crate::log::EventSink;
use crate::reassembly::tcp::{
    QuietWindow, Session, StreamCause, StreamDisposition, StreamDrop, StreamException,
    StreamMemory, StreamOptions,
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
            unheard,
            ..
        } = self.limited;
        let undecided = |flow: &InFlow<'_>| {
            let decided = |(flow, _): &(&mut Flow, _)| flow.action != FlowAction::Inspect;
            !flow.as_ref().is_some_and(decided)
        };
        let asked = unfinished && end.0 != Disposition::Drop;
        if !(asked || unheard) || passed || !undecided(flow) {
            return end;
        }
        // Nothing that follows is heard either, even if this packet is dropped.
        let excepted = unheard.then(|| self.except_unheard(case, flow)).flatten();
        let limited = match excepted {
            None if asked => self.except_limited(case, flow, alone),
            excepted => excepted,
        };
        let Some(limited) = limited.filter(|_| end.0 != Disposition::Drop) else {
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
        let mut direction = *direction;
        let was_established = in_flow.session.as_deref().map(Session::is_established);
        let by_flags = matches!(
            in_flow.tcp,
            TcpState::Established | TcpState::Closing | TcpState::Closed
        );
        self.limited.before = in_flow.app.undecided();
        let options = &self.options.stream;
        let tracked = in_flow.track(case.packet, direction, case.now, options, memory);
        let Some(outcome) = tracked else {
            let (_, mut hearing) = self.hearing(in_flow);
            let heard = in_flow.hear_datagram(case.packet, direction, &mut hearing);
            self.limited.unheard |= heard == Heard::Badly;
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
        if !outside
            && let Some((flow, toward)) = flow
            && let Some(session) = &mut session
        {
            let options = (&self.options.stream, &self.options.app);
            let any = [direction, direction.other()];
            if (any.into_iter()).any(|it| flow.turn_if_wrong(it, session, memory, options)) {
                direction = direction.other();
                *toward = direction;
                streamed.sizes = Some(sizes(session));
                self.limited.before = flow.app.undecided();
            }
            let (options, mut hearing) = self.hearing(flow);
            let mut unheard = false;
            // Watching, a packet brings what it acknowledges of the other direction first; inline
            // what has waited there for something of this one.
            let order = match options.inline {
                true => [direction, direction.other()],
                false => [direction.other(), direction],
            };
            // What is acknowledged with a SYN is heard with what comes after it.
            let opens = !options.inline && case.packet.tcp().is_some_and(TcpHeaderSlice::syn);
            let own = options.inline
                || session.is_one_sided()
                || case.packet.tcp().is_some_and(|tcp| tcp.fin() || tcp.rst());
            for direction in order
                .into_iter()
                .filter(|it| !opens && (own || *it == order[0]))
            {
                let heard = flow.hear(direction, session, options, &mut hearing);
                unheard |= heard == Heard::Badly;
            }
            self.limited.unheard |= unheard;
        }
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
        if self.options.stream.inline
            && end.0 == Disposition::Accept
            && let Some((in_flow, _)) = flow
            && in_flow.action == FlowAction::Inspect
            && in_flow.app.has_changed(direction.other())
        {
            self.untold = None;
            self.inspect_apart(in_flow, direction.other(), case.now, memory);
            if let Some(target) = self.untold.take() {
                self.reject(case, target.turned());
            }
            if let Some(decided) = self.decided_before(case, flow) {
                end = decided;
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

    /// What listening to a flow's application needs.
    pub(super) fn hearing(&mut self, flow: &Flow) -> (&StreamOptions, Hearing<'_>) {
        let hearing = Hearing {
            options: &self.options.app,
            memory: &self.applications,
            figures: &mut self.figures,
            transport: flow.key.protocol,
        };
        (&self.options.stream, hearing)
    }

    /// What is known of an application whose flow is not inspected any more, and that nobody listens
    /// to either, is all that is told of it.
    pub(super) fn let_out(&mut self, case: &Case<'_>, flow: &mut InFlow<'_>) {
        if let Some((in_flow, _)) = flow
            && in_flow.action != FlowAction::Inspect
            && in_flow.app.is_open()
            && !listens(&self.options.records.types, in_flow)
        {
            in_flow.leave();
            self.reports.transactions(case, flow);
        }
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
            (FlowAction::Inspect, Disposition::Drop) if self.options.delivered => {}
            (FlowAction::Inspect, Disposition::Drop) => flow.dropped(self.limited.before, memory),
            (FlowAction::Inspect, Disposition::Accept) => {}
            _ if listens(&self.options.records.types, flow) => {}
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
        self.except_flow(case, flow, (cause, observed), treatment)
    }

    /// The same of a packet with which its application has become unreadable.
    fn except_unheard(&mut self, case: &Case<'_>, flow: &mut InFlow<'_>) -> Option<End> {
        let what = (Cause::AppLayerError, Exception::AppLayer);
        self.except_flow(case, flow, what, self.options.app.error)
    }

    fn except_flow(
        &mut self,
        case: &Case<'_>,
        flow: &mut InFlow<'_>,
        (cause, observed): (Cause, Exception),
        treatment: Treatment,
    ) -> Option<End> {
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
        Some(self.excepted(cause, outcome, case))
    }

    /// Everything of the flow's streams that was not inspected, when nothing comes any more.
    pub(super) fn inspect_ended(
        &mut self,
        flow: &mut Flow,
        now: Timestamp,
        memory: &mut StreamMemory,
    ) {
        if listens(&self.options.records.types, flow) {
            let direction = PacketDirection::ToServer;
            let done = self.with_nothing(flow, direction, now, Self::listen_ended);
            if done.is_some() {
                memory.count_pseudo();
            }
        }
        if flow.action != FlowAction::Inspect {
            return;
        }
        if let Some(mut session) = flow.session.take() {
            session.finish();
            let options = (&self.options.stream, &self.options.app);
            DIRECTIONS
                .into_iter()
                .any(|it| flow.turn_if_wrong(it, &mut session, memory, options));
            for direction in DIRECTIONS {
                let (options, mut hearing) = self.hearing(flow);
                // Nothing comes any more that a policy could be for.
                let _ = flow.hear(direction, &mut session, options, &mut hearing);
            }
            flow.session = Some(session);
        }
        flow.app.finish();
        for direction in DIRECTIONS {
            let left = (flow.session.as_ref())
                .is_some_and(|it| it.is_left(direction, &self.options.stream));
            if !left && !flow.app.has_changed(direction) {
                continue;
            }
            self.inspect_apart(flow, direction, now, memory);
        }
        if flow.app.in_hand().is_empty() {
            flow.app.let_out();
        } else {
            // Rules that had no time have none later.
            let direction = PacketDirection::ToServer;
            let last = self.with_nothing(flow, direction, now, |own, case, flow| {
                if let Some((flow, _)) = flow {
                    flow.app.let_out();
                }
                own.reports.transactions(case, flow);
            });
            debug_assert!(last.is_some());
        }
    }

    /// What is left of a direction with a packet that nobody has sent.
    fn inspect_apart(
        &mut self,
        flow: &mut Flow,
        direction: PacketDirection,
        now: Timestamp,
        memory: &mut StreamMemory,
    ) {
        let done = self.with_nothing(flow, direction, now, |own, case, flow| {
            own.inspect_rest(case, flow, direction);
        });
        if done.is_some() {
            memory.count_pseudo();
        }
    }

    /// Does something with a packet of a direction that nobody has sent.
    fn with_nothing<T>(
        &mut self,
        flow: &mut Flow,
        direction: PacketDirection,
        now: Timestamp,
        work: impl FnOnce(&mut Self, &Case<'_>, &mut InFlow<'_>) -> T,
    ) -> Option<T> {
        let bytes = pseudo_packet(flow, direction);
        let mut packet = Decoded::parse(&bytes).ok()?;
        packet.source = PacketSource::FlowTimeout;
        packet.key = flow.key;
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
        Some(work(self, &case, &mut Some((flow, direction))))
    }

    /// Every further view of this direction.
    fn inspect_rest(&mut self, case: &Case<'_>, flow: &mut InFlow<'_>, direction: PacketDirection) {
        loop {
            let Some((in_flow, _)) = flow else { return };
            if in_flow.action != FlowAction::Inspect
                && !listens(&self.options.records.types, in_flow)
            {
                in_flow.session = None;
            }
            let heard = in_flow.app.has_changed(direction);
            let Some(mut session) = in_flow.session.take() else {
                if heard {
                    let streamed = Streamed {
                        alone: true,
                        ..Streamed::default()
                    };
                    self.detect(case, flow, &streamed);
                }
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
            } else if heard {
                self.detect(case, flow, &streamed);
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

/// A packet without data of this direction of a flow.
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
    let mut bytes = Vec::new();
    // Into memory nothing fails.
    let _ = match flow.key.protocol {
        protocol::UDP => builder.udp(from.port, to.port).write(&mut bytes, &[]),
        _ => {
            let builder = builder.tcp(from.port, to.port, 0, 0).ack(0);
            builder.write(&mut bytes, &[])
        }
    };
    bytes
}
