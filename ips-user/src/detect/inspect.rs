//! One packet: which rules match, and what they leave behind.

use std::net::IpAddr;

use super::addresses::Memo;
use super::conditions::{AddressSets, Scene};
use super::dataset::{Datasets, Definitions};
use super::engine::{Engine, RuleIndex, Scratch, Spoken};
use super::group::{self, Haystacks};
use super::lower::{Deed, Kind, SectionProgram, Signature};
use super::marks::{FlowMarks, Once};
use super::matching::{Budget, Outcome, Sets, Tools, transform};
use super::report::{Counts, Detection, Queued};
use super::tables::Tables;
use super::transactions::{AppView, MAX_BUFFERS};
use super::view::{Class, View};
use super::{PacketDirection, hosts};
use crate::app::{Asked, Known, Part, Transaction};
use crate::decode::Decoded;
use crate::flow::{Tally, Timestamp};
use crate::reassembly::tcp::StreamEvents;
use crate::rules::ast::{
    AppBuffer, Arrow, BitChange, Buffer, CaptureScope, DatasetCommand, FlowIntChange, RuleProtocol,
    Track,
};

/// What rules may know about a packet's flow.
#[derive(Debug)]
pub struct FlowView<'a> {
    /// Which way the packet goes.
    pub direction: PacketDirection,
    /// TCP: the handshake was complete before this packet. Others: both ends have sent.
    pub established: bool,
    /// Seconds since its first packet.
    pub age_s: u32,
    /// What the client has sent, with this packet.
    pub to_server: Tally,
    /// What the server has sent, with this packet.
    pub to_client: Tally,
    /// Bytes of client and server by their sequence numbers; none without a TCP session.
    pub stream_sizes: Option<(u32, u32)>,
    /// Which application protocol it speaks.
    pub app: Known,
    /// What rules have noted about it.
    pub marks: &'a mut FlowMarks,
}

/// What of a stream comes with a packet.
#[derive(Clone, Copy, Debug, Default)]
pub struct StreamData<'a> {
    /// The bytes that are to be inspected now; empty if none are.
    pub data: &'a [u8],
    /// Whether the packet's payload has become part of the stream.
    pub holds_packet: bool,
    /// Where in `data` what the packet has brought begins.
    pub fresh_from: usize,
    /// How many bytes that is; 0 if it is not known.
    pub fresh_len: usize,
    /// So many of the first bytes of `data` were part of an inspection that was
    /// [quiet](Detection::quiet): they are not searched again.
    pub quiet: usize,
}

impl StreamData<'_> {
    /// Whether a packet's payload stands where its bytes should begin.
    fn covers(&self, payload: &[u8]) -> bool {
        let place = self.fresh_from..self.fresh_from + self.fresh_len;
        let covers = self.fresh_len == payload.len();
        debug_assert!(!covers || payload.is_empty() || self.data.get(place) == Some(payload));
        covers
    }
}

/// A transaction as it is in packets of a direction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Speech<'a> {
    pub(super) transaction: &'a Transaction,
    pub(super) direction: PacketDirection,
    /// What the rule asks for in the payload was found there before.
    pub(super) payload_matched: bool,
}

impl<'a> Speech<'a> {
    pub(super) fn part(&self, which: AppBuffer, number: usize) -> Part<'a> {
        self.transaction.part(self.direction, which, number)
    }

    pub(super) fn answers(&self, asked: &Asked) -> Option<bool> {
        self.transaction.answers(self.direction, asked)
    }
}

/// A packet, and what belongs to it.
pub struct Inspected<'a, 'f> {
    /// The packet.
    pub packet: &'a Decoded<'a>,
    /// Its flow, if it has one.
    pub flow: Option<FlowView<'f>>,
    /// Its stream, if it is one of a reassembled stream.
    pub stream: Option<StreamData<'a>>,
    /// What the stream engine finds wrong with it.
    pub stream_events: StreamEvents,
    /// Only what is in the stream is to be inspected: the packet was already, or there is none.
    pub only_stream: bool,
    /// Only rules are asked that ask for an established connection, and those that pass: the
    /// others were already.
    pub only_established: bool,
    /// What its application says.
    pub app: Option<AppView<'a>>,
    /// When it came.
    pub now: Timestamp,
    /// What the worker remembers beyond flows.
    pub tables: &'a mut Tables,
}

/// Sets of an engine with what the worker has changed in them.
struct WorkersSets<'a> {
    definitions: &'a Definitions,
    changes: &'a mut Datasets,
}

impl Sets for WorkersSets<'_> {
    fn dataset(&mut self, set: u32, command: DatasetCommand, value: &[u8]) -> bool {
        self.changes.command(self.definitions, set, command, value)
    }
}

/// How the sections of a rule came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Matched {
    No,
    /// In packet or headers.
    Yes,
    InStream,
    /// What it asks for may still come.
    Wait,
    GaveUp,
}

impl Engine {
    /// Evaluates the rules on one packet. `scratch` must come from this engine.
    pub fn inspect<'s>(
        &'s self,
        mut input: Inspected<'_, '_>,
        scratch: &'s mut Scratch,
    ) -> Detection<'s> {
        let view = View::new(input.packet);
        let class = view.class();
        scratch.memo.next_packet();
        scratch.noted.clear();
        scratch.texts.clear();
        scratch.queue.clear();
        scratch.budget = Budget::of_packet(self.steps);
        let mut scene = Scene {
            view,
            flow: input.flow.as_mut(),
            tables: input.tables,
            reputation: self.reputation.as_ref(),
            stream_events: input.stream_events,
            now: input.now,
        };
        let mut counts = Counts::default();
        if !input.only_stream {
            self.addresses(class, &mut scene, scratch, &mut counts);
        }
        self.packet(
            class,
            (input.stream, input.only_stream, input.only_established),
            input.app,
            &mut scene,
            scratch,
            &mut counts,
        );
        // Whether a match in the payload is one in the stream, where nothing is known of that.
        let payload_is_stream = class == Class::Tcp && input.stream.is_none();
        self.report(scene, payload_is_stream, counts, scratch)
    }

    /// Rules about addresses: for the first packet of each direction, and for every packet
    /// without a flow.
    fn addresses(
        &self,
        class: Class,
        scene: &mut Scene<'_, '_>,
        scratch: &mut Scratch,
        counts: &mut Counts,
    ) {
        if class == Class::NoIp {
            return;
        }
        if let Some(flow) = &mut scene.flow {
            let direction = flow.direction;
            if !flow.marks.first(Once::Addresses, direction) {
                return;
            }
        }
        scratch.candidates.clear();
        let ends = (scene.view.source(), scene.view.destination());
        self.by_address
            .select(ends.0, ends.1, &mut scratch.candidates);
        scratch.candidates.sort_unstable();
        scratch.candidates.dedup();
        for at in 0..scratch.candidates.len() {
            let index = scratch.candidates[at];
            let signature = &self.signatures[index.0 as usize];
            if group::is_about(signature.rule.protocol, class)
                && self.header(signature, &scene.view, &mut scratch.memo)
            {
                self.matched(index, (false, None), scene, scratch, counts);
            }
        }
    }

    fn packet(
        &self,
        class: Class,
        (stream, only_stream, only_established): (Option<StreamData<'_>>, bool, bool),
        mut app: Option<AppView<'_>>,
        scene: &mut Scene<'_, '_>,
        scratch: &mut Scratch,
        counts: &mut Counts,
    ) {
        let direction = scene.flow.as_ref().map(|flow| flow.direction);
        let to_server = direction != Some(PacketDirection::ToClient);
        let payload = match only_stream {
            true => &[][..],
            false => scene.view.payload(),
        };
        let holds_packet = only_stream || stream.is_some_and(|stream| stream.holds_packet);
        let data = stream.map_or(&[][..], |stream| stream.data);
        let haystacks = Haystacks {
            view: scene.view,
            packet: payload,
            // What is in no stream is looked at as if it were one, and for rules about packets what
            // is not in the window.
            streams: match stream {
                Some(stream) if stream.covers(payload) => [data, &[]],
                _ => [data, payload],
            },
            quiet: stream.map_or(0, |stream| stream.quiet),
        };
        let mut candidates = std::mem::take(&mut scratch.candidates);
        let always = self.group(class, to_server).select(
            service(&scene.view, to_server),
            &haystacks,
            (&mut scratch.working, &mut scratch.seen),
            &mut candidates,
        );
        let mut lists = [&candidates[..], always[0], always[1]];
        let searched = Searched {
            payload,
            stream: data,
            holds_packet,
            speech: None,
        };
        let tells_protocol = match &mut scene.flow {
            // A pass in which none of them is asked is not their turn.
            Some(flow) if flow.app != Known::NotYet && !only_stream => {
                flow.marks.first(Once::Protocol, flow.direction)
            }
            _ => false,
        };
        let spoken = scene.flow.as_ref().map(|flow| flow.app);
        let spoken = Spoken::known(spoken.unwrap_or_default());
        while let Some(index) = next(&mut lists) {
            if !self.spoken[index.0 as usize].allows(spoken) {
                continue;
            }
            if scratch.budget.is_spent() {
                counts.out_of_time = true;
                break;
            }
            let signature = &self.signatures[index.0 as usize];
            if only_stream && !signature.kind.in_stream()
                || only_established && !signature.holds_established()
                || signature.kind == Kind::Protocol && !tells_protocol
            {
                continue;
            }
            match self.ask(index, &searched, scene, scratch) {
                Matched::No | Matched::Wait => {}
                Matched::GaveUp => counts.given_up += 1,
                how => {
                    let in_stream = how == Matched::InStream;
                    self.matched(index, (in_stream, None), scene, scratch, counts);
                }
            }
        }
        if let Some(app) = &mut app {
            self.transactions(class, app, &searched, scene, scratch, counts);
        }
        scratch.candidates = candidates;
    }

    /// Whether a rule matches; what it has captured is kept then.
    pub(super) fn ask(
        &self,
        index: RuleIndex,
        searched: &Searched<'_>,
        scene: &mut Scene<'_, '_>,
        scratch: &mut Scratch,
    ) -> Matched {
        let signature = &self.signatures[index.0 as usize];
        if !self.header(signature, &scene.view, &mut scratch.memo) {
            return Matched::No;
        }
        if !self.tests(signature, searched.speech, scene, scratch) {
            // Of a transaction more may come, and the flow's marks may change.
            return match signature.kind {
                Kind::Transaction => Matched::Wait,
                _ => Matched::No,
            };
        }
        let noted = scratch.noted.now();
        let matched = self.sections(signature, searched, scene, scratch);
        match matched {
            Matched::No | Matched::Wait | Matched::GaveUp => scratch.noted.back_to(noted),
            Matched::Yes | Matched::InStream => {
                for (scope, name, value) in scratch.noted.captures(noted) {
                    match scope {
                        CaptureScope::Flow => {
                            if let Some(flow) = &mut scene.flow {
                                flow.marks.set_text(name, value);
                            }
                        }
                        CaptureScope::Packet | CaptureScope::Alert => {
                            scratch.texts.retain(|(text, _)| *text != name);
                            scratch.texts.push((name, value.into()));
                        }
                    }
                }
            }
        }
        matched
    }

    /// Whether family, ports and addresses are the rule's.
    fn header(&self, signature: &Signature, view: &View<'_>, memo: &mut Memo) -> bool {
        let family = match signature.rule.protocol {
            RuleProtocol::Ipv4 => view.is_ipv4(),
            RuleProtocol::Ipv6 => view.is_ipv6(),
            RuleProtocol::Ethernet => view.is_ethernet(),
            RuleProtocol::Arp => view.ethertype() == Some(ETHERTYPE_ARP),
            RuleProtocol::Igmp => view.protocol() == 2,
            _ => true,
        };
        let ends = (view.source(), view.destination());
        // Without addresses only rules that name none are about it.
        let placed = view.is_ip() || signature.is_about_all();
        family
            && placed
            && (self.ends(signature, view.ports(), ends, memo, false)
                || (signature.rule.direction != Arrow::Toward
                    && self.ends(signature, view.ports(), ends, memo, true)))
    }

    fn ends(
        &self,
        signature: &Signature,
        ports: Option<(u16, u16)>,
        ends: (IpAddr, IpAddr),
        memo: &mut Memo,
        reversed: bool,
    ) -> bool {
        let rule = &signature.rule;
        let (any_source, any_destination) = signature.any_ports;
        let ports_fit = match ports {
            None => any_source && any_destination,
            Some((one, other)) => {
                let (source, destination) = if reversed { (other, one) } else { (one, other) };
                (any_source || rule.source_ports.contains(source))
                    && (any_destination || rule.destination_ports.contains(destination))
            }
        };
        if !ports_fit {
            return false;
        }
        let mut asking = memo.asking(&self.addresses, ends.0, ends.1);
        match reversed {
            false => asking.source(signature.source) && asking.destination(signature.destination),
            true => asking.destination(signature.source) && asking.source(signature.destination),
        }
    }

    fn tests(
        &self,
        signature: &Signature,
        speech: Option<Speech<'_>>,
        scene: &Scene<'_, '_>,
        scratch: &mut Scratch,
    ) -> bool {
        let ends = (scene.view.source(), scene.view.destination());
        let mut asking = scratch.memo.asking(&self.addresses, ends.0, ends.1);
        let mut tests = signature.tests.iter();
        tests.all(|test| test.holds(scene, &mut asking, &scratch.texts, speech))
    }

    fn sections(
        &self,
        signature: &Signature,
        searched: &Searched<'_>,
        scene: &mut Scene<'_, '_>,
        scratch: &mut Scratch,
    ) -> Matched {
        let (mut matched, mut waits) = (Matched::Yes, false);
        for section in &signature.sections {
            let came_out = match section.buffer {
                Buffer::Payload => self.payload(signature.kind, section, searched, scene, scratch),
                Buffer::IpSource => self.address(section, scene.view.source(), scene, scratch),
                Buffer::IpDestination => {
                    self.address(section, scene.view.destination(), scene, scratch)
                }
                Buffer::App(which) => {
                    let mut speech = searched.speech;
                    if let Some(speech) = &mut speech
                        && signature.is_about_both()
                    {
                        speech.direction = section.direction.unwrap_or(speech.direction);
                    }
                    self.app(section, which, speech, scene, scratch)
                }
                buffer => {
                    let bytes = group::header(&scene.view, buffer);
                    self.section(section, bytes, scene, scratch)
                }
            };
            match came_out {
                Matched::Yes => {}
                Matched::InStream => matched = Matched::InStream,
                // One of the others may fail for good.
                Matched::Wait => waits = true,
                Matched::No | Matched::GaveUp => return came_out,
            }
        }
        if waits { Matched::Wait } else { matched }
    }

    /// Whether all that a rule about transactions asks for in the payload is there.
    pub(super) fn payload_matches(
        &self,
        signature: &Signature,
        searched: &Searched<'_>,
        scene: &mut Scene<'_, '_>,
        scratch: &mut Scratch,
    ) -> bool {
        let noted = scratch.noted.now();
        let mut sections = signature.sections.iter();
        let all = sections.all(|section| {
            section.buffer != Buffer::Payload
                || matches!(
                    self.payload_now(signature.kind, section, searched, scene, scratch),
                    Matched::Yes | Matched::InStream
                )
        });
        scratch.noted.back_to(noted);
        all
    }

    fn payload(
        &self,
        kind: Kind,
        section: &SectionProgram,
        searched: &Searched<'_>,
        scene: &mut Scene<'_, '_>,
        scratch: &mut Scratch,
    ) -> Matched {
        // Rules about transactions may ask for something of the stream besides.
        let of_transaction = kind == Kind::Transaction;
        let matched = match of_transaction && searched.speech.is_some_and(|it| it.payload_matched) {
            true => return Matched::Yes,
            false => self.payload_now(kind, section, searched, scene, scratch),
        };
        match matched {
            // What comes next can have it.
            Matched::No if of_transaction => Matched::Wait,
            matched => matched,
        }
    }

    fn payload_now(
        &self,
        kind: Kind,
        section: &SectionProgram,
        searched: &Searched<'_>,
        scene: &mut Scene<'_, '_>,
        scratch: &mut Scratch,
    ) -> Matched {
        let in_stream = kind.in_stream() || kind == Kind::Transaction;
        if in_stream && !searched.stream.is_empty() {
            let noted = scratch.noted.now();
            match self.section(section, Some(searched.stream), scene, scratch) {
                Matched::Yes => {
                    // Places in the stream are none in the packet.
                    scratch.noted.replace_nothing(noted);
                    return Matched::InStream;
                }
                Matched::GaveUp => return Matched::GaveUp,
                _ => scratch.noted.back_to(noted),
            }
        }
        if kind == Kind::Stream && searched.holds_packet {
            return Matched::No;
        }
        // A rule about the payload says nothing about a packet without one, not even when its
        // contents are all negated.
        if searched.payload.is_empty() {
            return Matched::No;
        }
        self.section(section, Some(searched.payload), scene, scratch)
    }

    /// Any of the buffers of this name.
    fn app(
        &self,
        section: &SectionProgram,
        which: AppBuffer,
        speech: Option<Speech<'_>>,
        scene: &mut Scene<'_, '_>,
        scratch: &mut Scratch,
    ) -> Matched {
        let mut may_come = false;
        for number in 0..=MAX_BUFFERS {
            if number == MAX_BUFFERS {
                return Matched::GaveUp;
            }
            let (bytes, complete) = match speech.map(|it| it.part(which, number)) {
                Some(Part::Bytes { data, complete, .. }) => (Some(data), complete),
                Some(Part::Pending) => return Matched::Wait,
                Some(Part::Absent) | None if number > 0 => break,
                Some(Part::Absent) | None => (None, true),
            };
            let noted = scratch.noted.now();
            match self.section(section, bytes, scene, scratch) {
                Matched::No => scratch.noted.back_to(noted),
                decided => return decided,
            }
            may_come |= !complete;
            if bytes.is_none() || !which.is_multiple() {
                break;
            }
        }
        if may_come { Matched::Wait } else { Matched::No }
    }

    fn address(
        &self,
        section: &SectionProgram,
        address: IpAddr,
        scene: &mut Scene<'_, '_>,
        scratch: &mut Scratch,
    ) -> Matched {
        match address {
            IpAddr::V4(v4) => self.section(section, Some(&v4.octets()), scene, scratch),
            IpAddr::V6(v6) => self.section(section, Some(&v6.octets()), scene, scratch),
        }
    }

    fn section(
        &self,
        section: &SectionProgram,
        bytes: Option<&[u8]>,
        scene: &mut Scene<'_, '_>,
        scratch: &mut Scratch,
    ) -> Matched {
        let Some(bytes) = bytes else {
            return match section.absent {
                Some(_) => Matched::Yes,
                None => Matched::No,
            };
        };
        // `absent` alone: it must not be there.
        if section.absent == Some(false) {
            return Matched::No;
        }
        let mut transformed = std::mem::take(&mut scratch.transformed);
        let mut there = Ok(());
        let bytes = match section.transforms.is_empty() {
            true => bytes,
            false => {
                transformed.clear();
                transformed.extend_from_slice(bytes);
                there = transform::apply(
                    &section.transforms,
                    &self.patterns,
                    &mut scratch.patterns,
                    &mut transformed,
                    &mut scratch.spare,
                    &mut scratch.budget,
                );
                &transformed
            }
        };
        let outcome = match there {
            Err(outcome) => outcome,
            Ok(()) => section.program.inspect(
                bytes,
                &mut Tools {
                    sources: &self.patterns,
                    patterns: &mut scratch.patterns,
                    variables: &mut scratch.variables,
                    noted: &mut scratch.noted,
                    decoded: &mut scratch.decoded,
                    sets: &mut WorkersSets {
                        definitions: &self.datasets,
                        changes: &mut scene.tables.datasets,
                    },
                    budget: &mut scratch.budget,
                },
            ),
        };
        scratch.transformed = transformed;
        match outcome {
            Outcome::Match => Matched::Yes,
            Outcome::NoMatch => Matched::No,
            Outcome::GaveUp => Matched::GaveUp,
        }
    }

    /// A rule has matched: what it changes is changed at once, whatever becomes of its alert.
    pub(super) fn matched(
        &self,
        index: RuleIndex,
        (in_stream, transaction): (bool, Option<usize>),
        scene: &mut Scene<'_, '_>,
        scratch: &mut Scratch,
        counts: &mut Counts,
    ) {
        let signature = &self.signatures[index.0 as usize];
        for deed in &signature.deeds {
            counts.bypass |= matches!(deed, Deed::Bypass);
            perform(deed, scene);
        }
        scratch.queue.push(Queued {
            rule: index,
            in_stream,
            transaction,
        });
    }
}

/// The port of the server's end of a packet.
pub(super) fn service(view: &View<'_>, to_server: bool) -> Option<u16> {
    let (source, destination) = view.ports()?;
    Some(if to_server { destination } else { source })
}

/// RFC 826.
const ETHERTYPE_ARP: u16 = 0x0806;

/// What there is to search for a packet.
#[derive(Clone, Copy)]
pub(super) struct Searched<'a> {
    pub(super) payload: &'a [u8],
    pub(super) stream: &'a [u8],
    pub(super) holds_packet: bool,
    pub(super) speech: Option<Speech<'a>>,
}

/// The smallest index at the front of ascending lists, taken from all that begin with it.
fn next(lists: &mut [&[RuleIndex]; 3]) -> Option<RuleIndex> {
    let next = lists
        .iter()
        .filter_map(|list| list.first())
        .min()
        .copied()?;
    for list in lists {
        if list.first() == Some(&next) {
            *list = &list[1..];
        }
    }
    Some(next)
}

fn perform(deed: &Deed, scene: &mut Scene<'_, '_>) {
    let (source, destination) = (scene.view.source(), scene.view.destination());
    match deed {
        Deed::Bypass => {}
        Deed::Bits { change, names } => {
            let Some(flow) = &mut scene.flow else { return };
            for &name in names {
                let set = match change {
                    BitChange::Set => true,
                    BitChange::Unset => false,
                    BitChange::Toggle => !flow.marks.bit(name),
                };
                flow.marks.set_bit(name, set);
            }
        }
        Deed::Int {
            name,
            change,
            value,
        } => {
            let Some(flow) = &mut scene.flow else { return };
            let value = value.get(flow.marks);
            let old = flow.marks.int(*name).unwrap_or(0);
            let new = match change {
                FlowIntChange::Set => value,
                FlowIntChange::Add => old.saturating_add(value),
                FlowIntChange::Subtract => old.saturating_sub(value),
            };
            flow.marks.set_int(*name, new);
        }
        Deed::HostBits {
            change,
            name,
            track,
            expire,
        } => {
            let now = scene.now;
            let hosts = &mut scene.tables.hosts;
            if matches!(track, Track::Source | Track::Both) {
                hosts.change(source, *name, *change, *expire, now);
            }
            if matches!(track, Track::Destination | Track::Both) {
                hosts.change(destination, *name, *change, *expire, now);
            }
            if matches!(track, Track::Pair) {
                let pair = hosts::pair(source, destination);
                scene
                    .tables
                    .pairs
                    .change(pair, *name, *change, *expire, now);
            }
        }
    }
}
