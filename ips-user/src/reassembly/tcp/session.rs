//! One connection: from a segment to an outcome.

use super::buffer::Buffer;
use super::data::Owned;
use super::event::{StreamEvent, StreamEvents};
use super::memory::{Account, StreamMemory};
use super::options::StreamOptions;
use super::overlap::Extent;
use super::rewrite::Replacement;
use super::segment::{Segment, SegmentOptions, flag};
use super::side::Side;
use crate::bounded::{grown, heap};
use crate::config::settings::OsPolicy;
use crate::exception::Treatment;
use crate::flow::{PacketDirection, Timestamp};

/// State of a connection, with Suricata's names. The client is who opened it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum SessionState {
    /// A SYN was seen.
    #[default]
    SynSent,
    /// A SYN-ACK was seen.
    SynRecv,
    /// The handshake is complete, or the connection was picked up later.
    Established,
    /// The server has sent a FIN.
    FinWait1,
    /// And the client has acknowledged it.
    FinWait2,
    /// Both have sent a FIN, the server first; its own is acknowledged.
    TimeWait,
    /// Both have sent a FIN, the client first.
    LastAck,
    /// The client has sent a FIN.
    CloseWait,
    /// Both have sent a FIN, the server first; its own is not acknowledged.
    Closing,
    /// Both FINs are acknowledged, or there was a reset.
    Closed,
}

impl SessionState {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 10] = [
        Self::SynSent,
        Self::SynRecv,
        Self::Established,
        Self::FinWait1,
        Self::FinWait2,
        Self::TimeWait,
        Self::LastAck,
        Self::CloseWait,
        Self::Closing,
        Self::Closed,
    ];

    /// The name in records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SynSent => "syn_sent",
            Self::SynRecv => "syn_recv",
            Self::Established => "established",
            Self::FinWait1 => "fin_wait1",
            Self::FinWait2 => "fin_wait2",
            Self::TimeWait => "time_wait",
            Self::LastAck => "last_ack",
            Self::CloseWait => "close_wait",
            Self::Closing => "closing",
            Self::Closed => "closed",
        }
    }
}

/// Why the stream engine drops a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamDrop {
    /// Its checksum is wrong.
    Checksum,
    /// The receiver would not take it.
    Invalid,
    /// It carries urgent data, which the policy does not let through.
    Urgent,
}

impl StreamDrop {
    /// The reason in `drop` records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Checksum | Self::Invalid => "stream error",
            Self::Urgent => "stream urgent",
        }
    }
}

/// What becomes of a packet as far as the stream engine is concerned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum StreamDisposition {
    /// It can go on as it is.
    #[default]
    Accept,
    /// It shall not go on. Its payload is not worth looking at, its events are.
    Drop(StreamDrop),
    /// It can go on after this change, and shall be inspected with it: see
    /// [`Replacement::apply`].
    Replace(Replacement),
}

/// Something that an exception policy is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamCause {
    /// The beginning of the connection was not seen.
    Midstream,
    /// There is no memory for the session.
    SessionMemory,
    /// There is no memory for the data.
    ReassemblyMemory,
}

impl StreamCause {
    /// The target's name in records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Midstream => "stream_midstream",
            Self::SessionMemory => "stream_memcap",
            Self::ReassemblyMemory => "stream_reassembly_memcap",
        }
    }
}

/// An exception and its policy, to be applied by the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamException {
    /// What happened.
    pub cause: StreamCause,
    /// What is to be done.
    pub treatment: Treatment,
}

/// What the stream engine says about a packet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamOutcome {
    /// Findings.
    pub events: StreamEvents,
    /// Whether it can go on.
    pub disposition: StreamDisposition,
    /// The connection is established, or was.
    pub established: bool,
    /// Its payload is part of a stream: rules that look at streams find it there.
    pub in_stream: bool,
    /// An exception policy is to be applied.
    pub exception: Option<StreamException>,
    /// The rest of the connection need not be looked at (`stream.bypass`).
    pub bypass: bool,
}

/// What is remembered of a connection apart from its data: small enough to be kept twice, so
/// that a packet that is dropped leaves nothing behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Control {
    pub(super) state: SessionState,
    /// Client and server.
    pub(super) sides: [Side; 2],
    /// Both sides have sent a SYN first.
    pub(super) four_way: bool,
    /// The beginning was not seen.
    pub(super) midstream: bool,
    /// Picked up with the SYN-ACK.
    pub(super) from_synack: bool,
    /// Only one direction is seen.
    pub(super) one_sided: bool,
    /// There was another on these ports: see [`Begun::Again`](super::Begun::Again).
    pub(super) again: bool,
    /// Something of the client after the handshake was seen.
    pub(super) confirmed: bool,
    /// The client's FIN came first.
    pub(super) client_first: bool,
    /// A gap was seen, from client and server.
    pub(super) gap: [bool; 2],
}

impl Control {
    fn turn_round(&mut self) {
        self.sides.swap(CLIENT, SERVER);
        self.gap.swap(CLIENT, SERVER);
        let both = self.sides.iter().all(|side| side.fin.is_some());
        self.client_first ^= both;
    }
}

/// One direction's data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stream {
    pub(super) buffer: Buffer,
    /// Everything before was let go.
    pub(super) base: u64,
    /// Watching: of which segments the data beyond what is acknowledged consists.
    pub(super) owned: Vec<Owned>,
    /// Out-of-band bytes, if there were any.
    pub(super) urgent: Option<Box<OutOfBand>>,
    /// Up to here somebody has read the whole stream, if anybody does.
    pub(super) reader: Option<u64>,
    /// How far this direction is put together, instead of the configured depth.
    pub(super) depth: Option<u64>,
    /// Most pieces at a time.
    pub(super) max_pieces: u16,
    /// Inline, what was searched without finding anything.
    pub(super) quiet: Quiet,
    /// What may have been read of it was not what its receiver has.
    pub(super) begun_anew: bool,
}

/// A stretch of a stream in which nothing was found of what the rules search for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Quiet {
    pub(super) to: u64,
    /// How many bytes before that.
    pub(super) len: u32,
    /// Which rules those were.
    pub(super) epoch: u32,
}

impl Quiet {
    pub(super) fn from(&self) -> u64 {
        self.to - u64::from(self.len)
    }
}

/// Nothing is different with it but the work.
impl PartialEq for Quiet {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Quiet {}

/// Bytes that are none of the stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct OutOfBand {
    /// Their places, in the order of their arrival.
    pub(super) places: Vec<u64>,
    /// A window without them.
    pub(super) view: Vec<u8>,
}

/// The packet that was seen last: its window is inspected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Current {
    pub(super) from: usize,
    /// Where its data is.
    pub(super) extent: Option<Extent>,
}

impl Stream {
    /// Places of out-of-band bytes.
    pub(super) fn out_of_band(&self) -> &[u64] {
        self.urgent.as_ref().map_or(&[], |urgent| &urgent.places)
    }
}

/// A TCP connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    pub(super) control: Control,
    /// Of client and server.
    pub(super) streams: [Stream; 2],
    /// SYNs, then SYN-ACKs, other than the one that `control` follows.
    pub(super) queued: Vec<Side>,
    pub(super) current: Current,
    /// There will be no more packets.
    pub(super) ended: bool,
    /// Somebody who reads it has been told that it is there.
    pub(super) announced: bool,
    /// Packets of it have gone past.
    pub(super) missed: bool,
    pub(super) account: Account,
}

/// A flood of SYNs makes many of them.
const _: () = assert!(size_of::<Session>() <= 752);

/// Number of the client in [`Control::sides`] and [`Session::streams`].
pub(super) const CLIENT: usize = 0;
/// Number of the server.
pub(super) const SERVER: usize = 1;

pub(super) const fn sender(direction: PacketDirection) -> usize {
    match direction {
        PacketDirection::ToServer => CLIENT,
        PacketDirection::ToClient => SERVER,
    }
}

/// The packet is not part of the connection; why is in the events.
#[derive(Debug)]
pub(super) struct Refused(pub(super) StreamDrop);

/// A segment on its way through.
pub(super) struct Pass<'a, 'p> {
    pub(super) segment: &'a Segment<'p>,
    pub(super) fields: SegmentOptions,
    pub(super) from: usize,
    pub(super) now: Timestamp,
    pub(super) options: &'a StreamOptions,
    pub(super) memory: &'a mut StreamMemory,
    pub(super) outcome: StreamOutcome,
}

impl Pass<'_, '_> {
    pub(super) fn event(&mut self, event: StreamEvent) {
        self.outcome.events.insert(event);
    }

    /// Refuses the packet because of this.
    pub(super) fn refuse<T>(&mut self, event: StreamEvent) -> Result<T, Refused> {
        self.event(event);
        Err(Refused(StreamDrop::Invalid))
    }

    pub(super) fn to(&self) -> usize {
        1 - self.from
    }

    pub(super) fn has(&self, flag: u8) -> bool {
        self.segment.has(flag)
    }

    pub(super) fn carries_data(&self) -> bool {
        !self.segment.payload.is_empty()
    }

    /// Leaves the data of a packet out of the stream; inline, nothing passes that way.
    pub(super) fn leave_out(&mut self) -> Result<(), Refused> {
        if self.options.inline && self.carries_data() {
            return Err(Refused(StreamDrop::Invalid));
        }
        Ok(())
    }
}

impl Session {
    /// Bytes that a session takes by itself.
    pub const BYTES: usize = heap(size_of::<Self>());

    pub(super) fn new(control: Control, memory: &mut StreamMemory) -> Self {
        memory.totals.sessions += 1;
        Self {
            control,
            streams: Default::default(),
            queued: Vec::new(),
            current: Current::default(),
            ended: false,
            announced: false,
            missed: false,
            account: memory.open(Self::BYTES),
        }
    }

    /// Takes a segment of this connection.
    pub fn packet(
        &mut self,
        segment: &Segment<'_>,
        direction: PacketDirection,
        now: Timestamp,
        options: &StreamOptions,
        memory: &mut StreamMemory,
    ) -> StreamOutcome {
        let mut pass = Pass {
            segment,
            fields: segment.options(),
            from: sender(direction),
            now,
            options,
            memory,
            outcome: StreamOutcome::default(),
        };
        self.run(&mut pass);
        pass.outcome
    }

    pub(super) fn run(&mut self, pass: &mut Pass<'_, '_>) {
        self.begin(pass);
        if pass.segment.bad_checksum && pass.options.checksum_validation {
            pass.memory.totals.invalid_checksum += 1;
            if pass.options.inline && pass.options.drop_invalid {
                pass.outcome.disposition = StreamDisposition::Drop(StreamDrop::Checksum);
            }
            pass.outcome.established = self.is_established();
            return;
        }
        note_flags(pass);
        let flags = pass.segment.flags;
        self.control.sides[pass.from].flags |= flags;
        // Flags of both: nobody is missing any more.
        self.control.one_sided &= self.control.sides.iter().any(|side| side.flags == 0);
        let over = self.control.state == SessionState::Closed;
        let events = pass.outcome.events;
        let result = match self.control.state {
            SessionState::SynSent => self.syn_sent(pass),
            SessionState::SynRecv => self.syn_received(pass),
            SessionState::Closed if !pass.options.inline => Ok(()),
            _ => self.connected(pass),
        };
        if !pass.has(flag::RST) && self.control.sides[pass.from].reset {
            pass.event(StreamEvent::SuspectedRstInject);
        }
        if let Err(refused) = result {
            self.refuse(pass, refused);
            if over {
                // After the end nothing is remarkable any more.
                pass.outcome.events = events;
            }
            // Seen is seen, for records.
            self.control.sides[pass.from].flags |= flags;
        }
        pass.outcome.established = self.is_established();
        pass.outcome.bypass =
            pass.options.bypass && self.control.sides.iter().any(|side| side.depth_reached);
        self.settle_account();
    }

    /// The packet is no part of the connection.
    pub(super) fn refuse(&mut self, pass: &mut Pass<'_, '_>, Refused(drop): Refused) {
        self.take_back(pass.memory);
        pass.outcome.in_stream = false;
        pass.outcome.disposition = StreamDisposition::Accept;
        if pass.options.inline && (pass.options.drop_invalid || drop != StreamDrop::Invalid) {
            pass.memory.totals.invalid_dropped += 1;
            pass.outcome.disposition = StreamDisposition::Drop(drop);
        }
    }

    /// A packet is delivered that this session does not see.
    pub fn misses_packet(&mut self) {
        self.missed = true;
        self.account.misses();
    }

    /// Whether packets were delivered that it has not seen, so that holes say nothing about its
    /// ends.
    pub const fn has_missed_packets(&self) -> bool {
        self.missed
    }

    /// Whether nobody knows of it yet: what was heard of the flow until now was of another one. It
    /// is asked once.
    pub const fn is_unannounced(&mut self) -> bool {
        !std::mem::replace(&mut self.announced, true)
    }

    /// Whether the packet is refused for what its connection was before others came to serve it,
    /// and perhaps not for what it is now.
    pub(super) fn is_out_of_date(&self, outcome: &StreamOutcome, memory: &StreamMemory) -> bool {
        outcome.disposition == StreamDisposition::Drop(StreamDrop::Invalid)
            && self.account.may_have_missed(memory)
    }

    /// Gets ready for the next packet: what the last one has added stays.
    fn begin(&mut self, pass: &mut Pass<'_, '_>) {
        self.let_go(pass.options);
        self.remember(pass);
    }

    /// Notes how things are, so that the packet can be taken back.
    pub(super) fn remember(&mut self, pass: &mut Pass<'_, '_>) {
        self.current = Current {
            from: pass.from,
            extent: None,
        };
        let undo = &mut pass.memory.undo;
        undo.session = self.account.serial;
        undo.from = pass.from;
        undo.control = self.control;
        undo.added.clear();
        undo.out_of_band = self.streams[pass.from].out_of_band().len();
    }

    /// The packet that was given last is not delivered: it leaves nothing behind. To be said
    /// before another one is given to any session of this memory; later it has no effect, which
    /// is safe: data is remembered that its receiver has not got. Whether it had the effect.
    pub fn dropped(&mut self, memory: &mut StreamMemory) -> bool {
        let taken_back = self.take_back(memory);
        self.settle_account();
        taken_back
    }

    fn take_back(&mut self, memory: &mut StreamMemory) -> bool {
        let undo = &mut memory.undo;
        if undo.session != self.account.serial {
            return false;
        }
        let stream = &self.streams[undo.from];
        let read = stream.reader.and_then(|reader| i64::try_from(reader).ok());
        if read.is_some_and(|reader| reader > undo.control.sides[undo.from].next) {
            // Somebody has taken its data for said: what comes instead has to say the same.
            self.current.extent = None;
            return false;
        }
        let inspected = self.control.sides.map(|side| (side.raw, side.flush));
        self.control = undo.control;
        for (side, (raw, flush)) in self.control.sides.iter_mut().zip(inspected) {
            (side.raw, side.flush) = (raw, flush);
        }
        let stream = &mut self.streams[undo.from];
        for (from, to) in undo.added.drain(..) {
            stream.buffer.remove(from, to);
        }
        if let Some(urgent) = &mut stream.urgent {
            urgent.places.truncate(undo.out_of_band);
        }
        self.current.extent = None;
        true
    }

    pub(super) fn settle_account(&mut self) {
        let mut bytes = heap(self.queued.capacity() * size_of::<Side>());
        for stream in &self.streams {
            bytes += stream.buffer.allocated();
            bytes += heap(stream.owned.capacity() * size_of::<Owned>());
            if let Some(urgent) = &stream.urgent {
                bytes += heap(size_of::<OutOfBand>()) + heap(urgent.view.capacity());
                bytes += heap(urgent.places.capacity() * size_of::<u64>());
            }
        }
        self.account.set_stream_bytes(bytes);
    }

    /// Whether it takes memory for data.
    pub fn holds_data(&self) -> bool {
        self.account.stream_bytes() > 0
    }

    /// Gives back memory that it does not need; whether there was any.
    pub(crate) fn compact(&mut self) -> bool {
        let before = self.account.stream_bytes();
        self.queued.shrink_to_fit();
        for stream in &mut self.streams {
            stream.buffer.compact();
            stream.owned.shrink_to_fit();
        }
        self.settle_account();
        self.account.stream_bytes() < before
    }

    /// Remembers one more SYN or SYN-ACK.
    pub(super) fn queue(&mut self, side: Side) {
        let len = self.queued.len();
        let room = grown(len, self.queued.capacity(), 1);
        self.queued.reserve_exact(room - len);
        self.queued.push(side);
    }

    /// Whether there is memory for one more.
    pub(super) fn can_queue(&self, pass: &Pass<'_, '_>) -> bool {
        let (len, capacity) = (self.queued.len(), self.queued.capacity());
        let bytes = |capacity: usize| heap(capacity * size_of::<Side>());
        let more = bytes(grown(len, capacity, 1)) - bytes(capacity);
        pass.memory.has_room_for_data(more, pass.options)
    }

    /// Where it stands.
    pub fn state(&self) -> SessionState {
        self.control.state
    }

    /// Whether the handshake was completed, even if it is over now.
    pub fn is_established(&self) -> bool {
        self.control.state >= SessionState::Established
    }

    /// Whether its beginning was not seen.
    pub fn is_midstream(&self) -> bool {
        self.control.midstream
    }

    /// The client is the server: what is known of the one is about the other.
    pub fn turn_round(&mut self, memory: &mut StreamMemory) {
        self.control.turn_round();
        self.streams.swap(CLIENT, SERVER);
        self.current.from = 1 - self.current.from;
        let undo = &mut memory.undo;
        if undo.session == self.account.serial {
            undo.control.turn_round();
            undo.from = 1 - undo.from;
        }
    }

    /// Whether only one direction of it is seen.
    pub fn is_one_sided(&self) -> bool {
        self.control.one_sided
    }

    /// Whether this segment opens another connection on the ports of this one, which is over.
    pub fn is_reopened_by(&self, segment: &Segment<'_>) -> bool {
        let opens = segment.flags & (flag::SYN | flag::ACK | flag::RST | flag::FIN) == flag::SYN;
        let client = &self.control.sides[CLIENT];
        opens
            && !segment.bad_checksum
            && match self.control.state {
                SessionState::Closed => true,
                // RFC 9293, section 3.6.1: a SYN beyond what was sent opens anew.
                SessionState::TimeWait | SessionState::LastAck | SessionState::FinWait2 => {
                    segment.seq != client.isn && client.place(segment.seq) > client.next
                }
                _ => false,
            }
    }

    /// Flags seen from the sender of this direction.
    pub fn flags(&self, direction: PacketDirection) -> u8 {
        self.control.sides[sender(direction)].flags
    }

    /// Whether data of this direction was missed.
    pub fn has_gap(&self, direction: PacketDirection) -> bool {
        self.control.gap[sender(direction)]
    }

    /// Most separate pieces of this direction at a time; one at least, as records have it.
    pub fn max_regions(&self, direction: PacketDirection) -> u16 {
        self.streams[sender(direction)].max_pieces.max(1)
    }

    /// Bytes of this direction so far, as `stream_size` counts them: in order, from the SYN on.
    pub fn stream_size(&self, direction: PacketDirection) -> u64 {
        let side = &self.control.sides[sender(direction)];
        // The SYN counts; a FIN in order does, too.
        let fin = i64::from(side.fin.is_some_and(|fin| side.next >= fin));
        (side.next - side.first + i64::from(side.known) + fin).max(0) as u64
    }

    /// Whether the side that sends in this direction has closed it.
    pub fn has_ended(&self, direction: PacketDirection) -> bool {
        let side = &self.control.sides[sender(direction)];
        side.fin.is_some_and(|fin| side.next >= fin)
            || self.control.state == SessionState::Closed
            || self.ended
    }

    /// Watching: what this policy's receivers keep of overlaps.
    pub(super) fn policy(pass: &Pass<'_, '_>) -> OsPolicy {
        pass.options.hosts.of(pass.segment.receiver)
    }
}

/// What is counted and found of every segment, whatever the connection.
pub(super) fn note_flags(pass: &mut Pass<'_, '_>) {
    let totals = &mut pass.memory.totals;
    match (pass.segment.has(flag::SYN), pass.segment.has(flag::ACK)) {
        (true, true) => totals.synack += 1,
        (true, false) => totals.syn += 1,
        _ => {}
    }
    totals.rst += u64::from(pass.segment.has(flag::RST));
    totals.urg += u64::from(pass.segment.has(flag::URG));
    if !pass.has(flag::ACK) && pass.segment.ack != 0 {
        pass.event(StreamEvent::PktBrokenAck);
    }
    if pass.has(flag::SYN) && pass.has(flag::FIN) {
        pass.event(StreamEvent::FinSyn);
    }
}
