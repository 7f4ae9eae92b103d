//! What is known about one flow.

use ips_common::{Direction, FlowKey};

use super::idle::Class;
use super::{Observed, Timestamp};
use crate::app::{AppLayer, AppOptions, Heard, Hearing, Known, Ports, Undecided};
use crate::decode::{Decoded, protocol};
use crate::detect::FlowMarks;
use crate::exception::Cause;
use crate::reassembly::tcp::{
    self, Begun, Segment, Session, SessionState, StreamMemory, StreamOptions, StreamOutcome,
};

/// Which way a packet goes, relative to who opened the flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PacketDirection {
    /// From the client.
    ToServer,
    /// From the server.
    ToClient,
}

impl PacketDirection {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::ToServer, Self::ToClient];

    /// Its place in arrays: the client's first.
    pub const fn number(self) -> usize {
        self as usize
    }

    /// The opposite one.
    pub const fn other(self) -> Self {
        match self {
            Self::ToServer => Self::ToClient,
            Self::ToClient => Self::ToServer,
        }
    }
}

/// Packets and bytes of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Packets; an aggregate of segments counts once.
    pub packets: u64,
    /// Bytes, from the link layer on where that is seen.
    pub bytes: u64,
}

/// Why a flow is no longer in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowEnd {
    /// It was idle for its time.
    Timeout,
    /// There was no room for it any more.
    Forced,
    /// A new connection has its addresses and ports.
    TcpReuse,
    /// There will be no more packets.
    Shutdown,
}

impl FlowEnd {
    /// Its name in records, Suricata's.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Forced => "forced",
            Self::TcpReuse => "tcp_reuse",
            Self::Shutdown => "shutdown",
        }
    }
}

/// Coarse state of a TCP connection: that of its session, and without one by the flags seen,
/// which is no check of sequence numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TcpState {
    /// Not TCP, or nothing seen yet.
    #[default]
    None,
    /// A SYN was seen.
    SynSent,
    /// A SYN-ACK was seen.
    SynReceived,
    /// Data or an acknowledgement after the handshake, or a connection picked up midstream.
    Established,
    /// A FIN from one side.
    Closing,
    /// FINs from both sides, or a reset.
    Closed,
}

/// What was decided for the rest of a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FlowAction {
    /// Every packet is inspected.
    #[default]
    Inspect,
    /// Packets are accepted without inspection (a `pass` rule, or an exception policy).
    Pass,
    /// Packets are dropped without inspection.
    Drop {
        /// The rule that decided it.
        signature_id: u32,
    },
    /// Packets are dropped without inspection (an exception policy).
    Refuse {
        /// Why.
        cause: Cause,
    },
}

/// A flow: both directions of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Number of the flow in records; below 2^53, so that JSON readers keep it exact.
    pub id: u64,
    /// Its key.
    pub key: FlowKey,
    /// The direction in which packets of the client go.
    pub client: Direction,
    /// Time of the first packet.
    pub start: Timestamp,
    /// Time of the latest packet.
    pub last: Timestamp,
    /// What the client sent.
    pub to_server: Tally,
    /// What the server sent.
    pub to_client: Tally,
    /// State of the connection.
    pub tcp: TcpState,
    /// What was decided for the rest of it.
    pub action: FlowAction,
    /// Bytes inspected while no rule has matched; `None` once one has.
    pub clean_bytes: Option<u64>,
    /// What rules have noted about it.
    pub marks: FlowMarks,
    /// When its conviction was last asked for.
    pub convicted: Option<Timestamp>,
    /// The connection, while it is tracked.
    pub session: Option<Box<Session>>,
    /// What is known of its beginning.
    pub begun: Begun,
    /// What its application says.
    pub app: AppLayer,
    /// What records say about it besides.
    pub observed: Observed,
    /// Who has sent a FIN.
    pub(super) fin: Option<PacketDirection>,
}

impl Flow {
    /// A flow that begins with `packet`, nothing counted yet.
    ///
    /// The sender of the first packet is the client, unless that packet is a SYN-ACK.
    pub(super) fn open(id: u64, packet: &Decoded<'_>, now: Timestamp) -> Self {
        let answers = packet.tcp().is_some_and(|tcp| tcp.syn() && tcp.ack());
        let client = if answers {
            reverse(packet.direction)
        } else {
            packet.direction
        };
        Self {
            id,
            key: packet.key,
            client,
            start: now,
            last: now,
            to_server: Tally::default(),
            to_client: Tally::default(),
            tcp: TcpState::None,
            action: FlowAction::Inspect,
            clean_bytes: Some(0),
            marks: FlowMarks::default(),
            convicted: None,
            session: None,
            begun: Begun::Unknown,
            app: AppLayer::default(),
            observed: Observed::default(),
            fin: None,
        }
    }

    /// Which way a packet of this flow goes.
    pub fn direction_of(&self, direction: Direction) -> PacketDirection {
        if direction == self.client {
            PacketDirection::ToServer
        } else {
            PacketDirection::ToClient
        }
    }

    /// Adds a packet.
    pub(super) fn update(&mut self, packet: &Decoded<'_>, now: Timestamp) -> PacketDirection {
        self.last = now;
        let about_another = packet.protocol() != self.key.protocol;
        if !about_another {
            self.update_tcp(packet);
        }
        let direction = self.direction_of(packet.direction);
        self.observed.packet(packet, direction);
        let tally = match direction {
            PacketDirection::ToServer => &mut self.to_server,
            PacketDirection::ToClient => &mut self.to_client,
        };
        // Another process may have counted before, to any number.
        tally.packets = tally.packets.saturating_add(1);
        tally.bytes = tally.bytes.saturating_add(packet.frame.len() as u64);
        direction
    }

    /// The client is the server.
    fn turn_round(&mut self) {
        self.client = reverse(self.client);
        std::mem::swap(&mut self.to_server, &mut self.to_client);
        self.fin = self.fin.map(PacketDirection::other);
        self.observed.turn_round();
        self.app.turn_round();
    }

    /// Turns the flow of a connection that was picked up midstream round when what there is of this
    /// direction says that it is the other one. Whether it was turned.
    pub(crate) fn turn_if_wrong(
        &mut self,
        direction: PacketDirection,
        session: &mut Session,
        memory: &mut StreamMemory,
        options: (&StreamOptions, &AppOptions),
    ) -> bool {
        let wrong = session.is_midstream()
            && self
                .app
                .is_wrong_way(direction, session, options, self.ports());
        if wrong {
            self.turn_round();
            session.turn_round(memory);
        }
        wrong
    }

    fn update_tcp(&mut self, packet: &Decoded<'_>) {
        let Some(tcp) = packet.tcp() else { return };
        let midstream = matches!(self.tcp, TcpState::Established) && self.one_sided();
        // Picked up in the middle and turned round wrongly: a handshake tells who is who.
        if tcp.syn() && self.session.is_none() && (matches!(self.tcp, TcpState::None) || midstream)
        {
            let client = if tcp.ack() {
                reverse(packet.direction)
            } else {
                packet.direction
            };
            if client != self.client {
                self.turn_round();
            }
        }
        let direction = self.direction_of(packet.direction);
        self.tcp = match self.tcp {
            _ if tcp.rst() => TcpState::Closed,
            TcpState::Closed => TcpState::Closed,
            state if tcp.fin() => match self.fin {
                Some(first) if first != direction => TcpState::Closed,
                Some(_) => state,
                None => {
                    self.fin = Some(direction);
                    TcpState::Closing
                }
            },
            TcpState::Closing => TcpState::Closing,
            _ if tcp.syn() && tcp.ack() => TcpState::SynReceived,
            TcpState::None if tcp.syn() => TcpState::SynSent,
            state if tcp.syn() => state,
            TcpState::SynSent => TcpState::SynSent,
            _ => TcpState::Established,
        };
    }

    /// Gives a packet of this flow to its connection. `None` when it is no TCP segment.
    /// When the answer changes [`Flow::tcp`], [`FlowTable::settle`](super::FlowTable::settle)
    /// applies the timeout of the new state.
    pub fn track(
        &mut self,
        packet: &Decoded<'_>,
        direction: PacketDirection,
        now: Timestamp,
        options: &StreamOptions,
        memory: &mut StreamMemory,
    ) -> Option<StreamOutcome> {
        let segment = Segment::of(packet)?;
        let session = &mut self.session;
        let outcome = tcp::track(
            session, self.begun, &segment, direction, now, options, memory,
        );
        self.take_state();
        Some(outcome)
    }

    /// Gives what there is of a direction of its connection to its application layer.
    pub(crate) fn hear(
        &mut self,
        direction: PacketDirection,
        session: &mut Session,
        options: &StreamOptions,
        hearing: &mut Hearing<'_>,
    ) -> Heard {
        let ports = self.ports();
        let is_other = session.is_unannounced() && self.app.is_of_another(session);
        if session.has_begun_anew() || is_other {
            self.app.begin_anew(hearing);
            self.marks.ask_for_protocol();
        }
        let before = self.app.known();
        let heard = self
            .app
            .segment(direction, session, options, ports, hearing);
        if matches!(before, Known::Is(_)) && self.app.known() != before {
            // It has become another one.
            self.marks.ask_for_protocol();
        }
        heard
    }

    /// The same with a packet that is of no connection.
    pub(crate) fn hear_datagram(
        &mut self,
        packet: &Decoded<'_>,
        direction: PacketDirection,
        hearing: &mut Hearing<'_>,
    ) -> Heard {
        let ports = self.ports();
        if packet.protocol() != protocol::UDP || packet.invalid().is_some() {
            return Heard::Well;
        }
        let before = self.app.known();
        let heard = (self.app).datagram(direction, packet.payload, ports, hearing);
        if before == Known::Failed && self.app.known() != before {
            self.marks.ask_for_protocol();
        }
        heard
    }

    fn ports(&self) -> Ports {
        let (client, server) = self.key.ends(self.client);
        Ports {
            client: client.port,
            server: server.port,
        }
    }

    /// The packet that was given to [`Flow::track`] last is not delivered. `before` is what was
    /// known of its application until it came.
    pub(crate) fn dropped(&mut self, before: Option<Undecided>, memory: &mut StreamMemory) {
        if let Some(session) = &mut self.session {
            let taken_back = session.dropped(memory);
            if taken_back
                && let Some(before) = before
                && self.app.take_back(before, session)
            {
                self.marks.ask_for_protocol();
            }
            self.take_state();
        }
    }

    /// The session knows better than the flags.
    fn take_state(&mut self) {
        if let Some(session) = &self.session {
            self.tcp = match session.state() {
                SessionState::SynSent => TcpState::SynSent,
                SessionState::SynRecv => TcpState::SynReceived,
                SessionState::Established => TcpState::Established,
                SessionState::Closed => TcpState::Closed,
                _ => TcpState::Closing,
            };
        }
    }

    /// Whether `packet` opens a new connection on the ports of this one, which has ended.
    pub(super) fn is_reopened_by(&self, packet: &Decoded<'_>) -> bool {
        if self.action == FlowAction::Inspect
            && let Some(session) = &self.session
        {
            return Segment::of(packet).is_some_and(|segment| session.is_reopened_by(&segment));
        }
        self.tcp == TcpState::Closed
            && packet
                .tcp()
                .is_some_and(|tcp| tcp.syn() && !tcp.ack() && !tcp.rst() && !tcp.fin())
    }

    /// Releases it from inspection, not because it is trusted but because it is not worth it.
    pub(crate) fn bypass(&mut self) {
        self.action = FlowAction::Pass;
        self.observed.bypassed();
    }

    /// Adds what an inspection has found.
    pub(crate) fn inspected(&mut self, bytes: usize, matched: bool) {
        self.clean_bytes = match matched {
            true => None,
            false => self
                .clean_bytes
                .map(|clean| clean.saturating_add(bytes as u64)),
        };
    }

    /// Its ends have been told that it was rejected: the next SYN on these ports opens a new
    /// connection.
    pub(crate) fn ends_told(&mut self) {
        if self.key.protocol == protocol::TCP {
            self.tcp = TcpState::Closed;
        }
    }

    /// Whether all packets so far came from one end.
    pub(super) fn one_sided(&self) -> bool {
        self.to_server.packets == 0 || self.to_client.packets == 0
    }

    /// Nobody asks rules about its application any more, nor listens to it for records.
    pub(crate) fn leave(&mut self) {
        match self.action {
            FlowAction::Drop { .. } | FlowAction::Refuse { .. } => self.app.cut_off(),
            FlowAction::Inspect | FlowAction::Pass => self.app.let_out(),
        }
    }

    /// Which timeout applies to it.
    pub(super) fn class(&self) -> Class {
        let answered = !self.one_sided();
        let condemned = matches!(
            self.action,
            FlowAction::Drop { .. } | FlowAction::Refuse { .. }
        );
        match (self.key.protocol, self.tcp) {
            (protocol::TCP, TcpState::None | TcpState::SynSent | TcpState::SynReceived) => {
                match condemned {
                    true => Class::TcpCondemned,
                    false => Class::TcpNew,
                }
            }
            (protocol::TCP, TcpState::Established | TcpState::Closing) => Class::TcpEstablished,
            (protocol::TCP, TcpState::Closed) => Class::TcpClosed,
            _ if answered => Class::Established,
            _ if condemned => Class::Condemned,
            _ => Class::New,
        }
    }
}

fn reverse(direction: Direction) -> Direction {
    match direction {
        Direction::LowToHigh => Direction::HighToLow,
        Direction::HighToLow => Direction::LowToHigh,
    }
}
