//! The packet's way through a worker, on one page: decode → defragmentation → flow → detect →
//! verdict → log.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ips_common::FlowKey;

use crate::config::settings::{DropFlows, Records};
use crate::decode::{
    ChecksumMode, ChecksumSample, DecodeOptions, Decoded, FragmentFate, Invalid, InvalidCounters,
    Start, frame,
};
use crate::desk::Overload;
use crate::detect::{Detection, Engine, FlowView, Inspected, Rules, Scratch, TableLimits, Tables};
use crate::exception::{Cause, Treatments};
pub use crate::flow::Timestamp;
use crate::flow::{
    Flow, FlowAction, FlowCounters, FlowLimits, FlowTable, ImportError, Imported, PacketDirection,
    TableFull, TcpState,
};
pub use crate::log::EventSink;
use crate::log::eve::{self, Anomaly, DropReason, EndedFlow, Matched, PacketContext};
use crate::metrics::figures::Figures;
use crate::reassembly::defrag::{DefragCounters, DefragOptions, Defragmenter, Refusal};
use crate::rules::RejectTarget;
use crate::source::{Disposition, Packet, Verdict};
pub use crate::verdict::RejectSender;
use crate::verdict::{Decision, DropScope, Outcome, Toward, decide, except, reject};

mod exceptions;
pub mod trace;

pub use exceptions::ExceptionCounters;
use exceptions::Exceptions;
pub use trace::{PacketTrace, Traced, Why};

/// What a worker tells those who steer.
pub trait Feedback {
    /// The rest of this TCP flow is to be dropped before it reaches a queue.
    fn convict(&mut self, key: &FlowKey, signature_id: u32);
}

/// Who notes which flow is in hand, and knows the flows that are not to be inspected because
/// workers died of them.
pub trait Guard {
    /// Called when the flow of a packet is known and nothing else has been done with it.
    /// Whether it may be inspected.
    fn admit(&mut self, key: &FlowKey) -> bool;
}

/// For inspections whose death nobody would survive anyway: everything is inspected.
#[derive(Clone, Copy, Debug)]
pub struct Unguarded;

impl Guard for Unguarded {
    fn admit(&mut self, _key: &FlowKey) -> bool {
        true
    }
}

/// How packets are inspected.
#[derive(Clone, Debug)]
pub struct InspectionOptions {
    /// How frames are decoded.
    pub decode: DecodeOptions,
    /// How fragments are put together.
    pub defrag: DefragOptions,
    /// What happens to packets that cannot be inspected as they should be.
    pub exceptions: Treatments,
    /// Under a first level of overload, flows are shed of which so many bytes were inspected and
    /// no rule has matched.
    pub shed_first_bytes: u64,
    /// How far a drop reaches.
    pub drop_scope: DropScope,
    /// Bounds of the flow table.
    pub flows: FlowLimits,
    /// Bounds of what rules remember beyond flows.
    pub tables: TableLimits,
    /// Whether packets can be dropped. Otherwise rules that would only report.
    pub ips: bool,
    /// Secret of the flow table and of the flow ids: random, different for each worker.
    pub seed: [u64; 2],
    /// Whether dropped TCP flows are convicted.
    pub convict: bool,
    /// Which records are made, and what is in them.
    pub records: Records,
    /// The capture that packets come from, if from one: their ids are their numbers in it.
    pub capture: Option<String>,
    /// Interface names by index, for records.
    pub interfaces: BTreeMap<u32, String>,
    /// Offset of local time from UTC in seconds, for records.
    pub utc_offset_s: i32,
}

impl Default for InspectionOptions {
    fn default() -> Self {
        Self {
            decode: DecodeOptions::default(),
            defrag: DefragOptions::default(),
            exceptions: Treatments::default(),
            shed_first_bytes: 0,
            drop_scope: DropScope::default(),
            flows: FlowLimits::default(),
            tables: TableLimits::default(),
            ips: true,
            seed: [0; 2],
            convict: true,
            records: Records::default(),
            capture: None,
            interfaces: BTreeMap::new(),
            utc_offset_s: 0,
        }
    }
}

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
    /// Packets that went by an exception policy.
    pub exceptions: ExceptionCounters,
    /// Packets rejected by a rule or an exception policy.
    pub rejected: u64,
    /// Resets and ICMP errors handed to the sender.
    pub rejections: u64,
    /// Packets accepted with a new payload. Always zero: nothing replaces yet.
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
    /// Flows.
    pub flows: FlowCounters,
}

/// What turns frames into packets.
struct Decoding {
    options: DecodeOptions,
    defragmenter: Defragmenter,
    /// Decides while the mode is automatic.
    checksums: ChecksumSample,
}

impl Decoding {
    fn new(options: &InspectionOptions) -> Self {
        Self {
            options: options.decode.clone(),
            defragmenter: Defragmenter::new(options.defrag.clone(), options.seed),
            checksums: ChecksumSample::default(),
        }
    }
}

/// The inspection of one worker.
pub struct Inspection<S, R, F> {
    engine: Rules,
    scratch: Scratch,
    flows: FlowTable,
    tables: Tables,
    /// When the tables were last looked through.
    tables_expired: Timestamp,
    /// Absent while a frame is decoded with it.
    decoding: Option<Box<Decoding>>,
    /// Whether anything of the packet in hand was shed.
    shed: bool,
    options: InspectionOptions,
    exceptions: Exceptions,
    overload: Overload,
    events: S,
    rejects: R,
    feedback: F,
    trace: Option<Box<dyn PacketTrace>>,
    counters: InspectionCounters,
    figures: Figures,
    /// Reused for every record and every rejection.
    buffer: Vec<u8>,
}

/// A packet of a convicted flow that still arrives after this time means that the conviction
/// has aged out or was evicted: it is asked for again.
const CONVICT_AGAIN_NS: u64 = 1_000_000_000;

/// How often the tables of rules are looked through for what does not hold any more.
const EXPIRE_TABLES_NS: u64 = 30_000_000_000;

/// Most flows forgotten by one call of [`Inspection::expire`].
const EXPIRE_BUDGET: usize = 256;

impl<S: EventSink, R: RejectSender, F: Feedback> Inspection<S, R, F> {
    /// An inspection with these rules. `trace` is shown every packet with its verdict.
    pub fn new(
        engine: impl Into<Rules>,
        options: InspectionOptions,
        events: S,
        rejects: R,
        feedback: F,
        trace: Option<Box<dyn PacketTrace>>,
    ) -> Self {
        let engine = engine.into();
        Self {
            scratch: engine.scratch(),
            engine,
            flows: flow_table(&options),
            tables: Tables::new(options.tables),
            tables_expired: Timestamp::default(),
            decoding: Some(Box::new(Decoding::new(&options))),
            shed: false,
            exceptions: Exceptions::new(options.exceptions),
            overload: Overload::None,
            options,
            events,
            rejects,
            feedback,
            trace,
            counters: InspectionCounters::default(),
            figures: Figures::default(),
            buffer: Vec::with_capacity(4096),
        }
    }

    /// Decides about a packet from its IP header on. Called once for each; never panics, whatever
    /// its bytes.
    pub fn inspect(
        &mut self,
        packet: Packet<'_>,
        now: Timestamp,
        guard: &mut impl Guard,
    ) -> Verdict {
        let start = Start::Ip(packet.checksum);
        self.inspect_frame(packet, start, now, guard)
    }

    /// The same for a packet that begins with a link layer.
    pub fn inspect_frame(
        &mut self,
        packet: Packet<'_>,
        start: Start,
        now: Timestamp,
        guard: &mut impl Guard,
    ) -> Verdict {
        self.counters.packets += 1;
        self.counters.bytes += packet.payload.len() as u64;
        self.shed = false;
        // Both are used by what follows, and what follows uses all the rest.
        let Some(mut decoding) = self.decoding.take() else {
            return self.verdict(Disposition::Drop);
        };
        let Decoding {
            options,
            defragmenter,
            checksums,
        } = &mut *decoding;
        let samples = options.checksums == ChecksumMode::Auto;
        let disposition = frame(
            packet.payload,
            start,
            options,
            defragmenter,
            now,
            &mut |decoded| {
                if samples {
                    checksums.packet(decoded);
                }
                // Of what has no key nobody is asked.
                let admitted = decoded.network.is_none() || guard.admit(&decoded.key);
                let (disposition, why) = self.decoded(&packet, decoded, admitted, now);
                if let Some(trace) = &mut self.trace {
                    trace.packet(&Traced::new(&packet, Some(decoded), disposition, why));
                }
                disposition
            },
        );
        if samples && let Some(mode) = checksums.decide() {
            options.checksums = mode;
        }
        self.decoding = Some(decoding);
        self.record_ended(now);
        self.verdict(disposition)
    }

    /// How much is left undone from now on.
    pub fn set_overload(&mut self, level: Overload) {
        self.overload = level;
    }

    /// Goes on with other rules and options: what is known about flows, and what was decided
    /// about them, stays. The seed of the flow table stays, too.
    pub fn reload(&mut self, engine: impl Into<Rules>, options: InspectionOptions) {
        self.engine = engine.into();
        self.scratch = self.engine.scratch();
        self.flows.set_limits(options.flows);
        self.flows.tell_ends(tells_ends(&options));
        if let Some(decoding) = &mut self.decoding {
            decoding.options = options.decode.clone();
            decoding.defragmenter.set_options(options.defrag.clone());
        }
        self.exceptions.treatments = options.exceptions;
        self.options = options;
    }

    /// Has some more of the rules ready for use; false when all of them are. To be called
    /// between packets.
    pub fn warm(&mut self) -> bool {
        self.engine.warm()
    }

    /// How packets are inspected.
    pub fn options(&self) -> &InspectionOptions {
        &self.options
    }

    /// Forgets idle flows and incomplete datagrams. To be called regularly, also when no packets
    /// arrive.
    pub fn expire(&mut self, now: Timestamp) -> usize {
        if now.since_ns(self.tables_expired) >= EXPIRE_TABLES_NS {
            self.tables_expired = now;
            self.tables.expire(now);
        }
        if let Some(decoding) = &mut self.decoding {
            decoding.defragmenter.expire(now, EXPIRE_BUDGET);
        }
        let expired = self.flows.expire(now, EXPIRE_BUDGET);
        self.record_ended(now);
        expired
    }

    /// Forgets incomplete datagrams: nobody takes them over.
    pub fn give_up_datagrams(&mut self) {
        if let Some(decoding) = &mut self.decoding {
            decoding.defragmenter.give_up_all();
        }
    }

    /// Totals so far.
    pub fn counters(&self) -> InspectionCounters {
        InspectionCounters {
            flows: self.flows.counters(),
            defrag: self
                .decoding
                .as_ref()
                .map_or(self.counters.defrag, |it| it.defragmenter.counters()),
            exceptions: self.exceptions.counters,
            ..self.counters
        }
    }

    /// What packets were made of.
    pub fn figures(&self) -> &Figures {
        &self.figures
    }

    /// The flows.
    pub fn flows(&self) -> &FlowTable {
        &self.flows
    }

    /// Takes over the flows of another worker: see [`FlowTable::import`].
    ///
    /// # Errors
    /// When the bytes are no flows, or this inspection has some already.
    pub fn import_flows(
        &mut self,
        bytes: &[u8],
        now: Timestamp,
        progress: impl FnMut(),
    ) -> Result<Imported, ImportError> {
        self.flows.import(bytes, now, progress)
    }

    /// Files of rules' sets that are to be written at the end, with their content.
    pub fn sets_to_save(&self) -> Vec<(PathBuf, String)> {
        self.engine.sets_to_save(&self.tables)
    }

    /// Where events go.
    pub fn events(&self) -> &S {
        &self.events
    }

    /// The same, to be changed.
    pub fn events_mut(&mut self) -> &mut S {
        &mut self.events
    }

    /// There will be no further packet: every flow ends, and is recorded.
    pub fn finish(&mut self, now: Timestamp) {
        self.flows.end_all();
        self.record_ended(now);
    }

    /// Records the flows that have ended.
    fn record_ended(&mut self, now: Timestamp) {
        while let Some((flow, end)) = self.flows.take_ended() {
            let records = &self.options.records;
            let ended = EndedFlow {
                flow: &flow,
                end,
                time: now,
                utc_offset_s: self.options.utc_offset_s,
                records,
            };
            if records.types.wants("flow") {
                eve::flow(&ended, &mut self.buffer);
                self.events.emit(&self.buffer);
            }
            if records.types.wants("netflow") {
                for direction in [PacketDirection::ToServer, PacketDirection::ToClient] {
                    if direction == PacketDirection::ToServer || flow.to_client.packets > 0 {
                        eve::netflow(&ended, direction, &mut self.buffer);
                        self.events.emit(&self.buffer);
                    }
                }
            }
        }
    }

    /// Who sends rejections.
    pub fn rejects(&self) -> &R {
        &self.rejects
    }

    /// Who is told about convictions.
    pub fn feedback(&self) -> &F {
        &self.feedback
    }

    fn verdict(&mut self, disposition: Disposition) -> Verdict {
        match disposition {
            Disposition::Accept => {
                self.counters.accepted += 1;
                self.counters.shed_accepted += u64::from(self.shed);
                Verdict::ACCEPT
            }
            Disposition::Drop => {
                self.counters.dropped += 1;
                self.counters.shed_dropped += u64::from(self.shed);
                Verdict::DROP
            }
        }
    }

    /// What the policy says of a packet that cannot be read and has no addresses; `None` when it
    /// is ignored.
    fn unreadable(&mut self, reason: Invalid, now: Timestamp) -> Option<Disposition> {
        const CAUSE: Cause = Cause::Undecodable;
        self.counters.invalid.count(reason);
        let treatment = self.exceptions.treatments.of(CAUSE);
        let disposition = treatment.disposition()?;
        let dropped = disposition == Disposition::Drop;
        if let Some(packets) = self.exceptions.count(CAUSE, dropped, now) {
            let offset = self.options.utc_offset_s;
            let line = eve::exception_without_addresses(now, offset, CAUSE, treatment, packets);
            self.events.emit(&line);
        }
        Some(disposition)
    }

    fn decoded(
        &mut self,
        packet: &Packet<'_>,
        decoded: &Decoded<'_>,
        admitted: bool,
        now: Timestamp,
    ) -> (Disposition, Why) {
        self.figures.packet(decoded);
        if decoded.network.is_none()
            && let Some(reason) = decoded.invalid()
            && let Some(disposition) = self.unreadable(reason, now)
        {
            return (disposition, Why::Invalid(reason));
        }
        let capture = self.options.capture.as_deref();
        let mut report = Reporter {
            context: PacketContext {
                time: now,
                utc_offset_s: self.options.utc_offset_s,
                packet: decoded,
                flow: None,
                in_interface: name(&self.options.interfaces, packet.in_interface),
                out_interface: name(&self.options.interfaces, packet.out_interface),
                outcome: Outcome::Accept,
                capture: capture.map(|name| (name, packet.id.0)),
                records: &self.options.records,
                ips: self.options.ips,
            },
            events: &mut self.events,
            buffer: &mut self.buffer,
        };
        if !admitted {
            let cause = Cause::Quarantine;
            // Before anything looks further, and packet by packet: who is admitted changes.
            let outcome = report.except(&mut self.exceptions, cause, &mut None);
            return self.excepted(cause, outcome.unwrap_or(Outcome::Drop), decoded);
        }
        if decoded.fragment_fate == FragmentFate::NoRoom {
            let cause = Cause::DefragMemory;
            if let Some(outcome) = report.except(&mut self.exceptions, cause, &mut None) {
                return self.excepted(cause, outcome, decoded);
            }
        }
        if decoded.fragment_fate == FragmentFate::Refused(Refusal::Order) {
            let cause = Cause::FragmentOrder;
            if let Some(outcome) = report.except(&mut self.exceptions, cause, &mut None) {
                return self.excepted(cause, outcome, decoded);
            }
        }
        // The datagram has a flow, its fragments have none.
        let found = match decoded.network.is_some() && !decoded.is_fragment() {
            true => self.flows.packet(decoded, now),
            false => Ok(None),
        };
        if let Err(TableFull) = found {
            let cause = Cause::FlowMemory;
            if let Some(outcome) = report.except(&mut self.exceptions, cause, &mut None) {
                return self.excepted(cause, outcome, decoded);
            }
        }
        let mut flow = found.unwrap_or_default();
        match flow.as_ref().map(|(flow, _)| flow.action) {
            Some(FlowAction::Drop { signature_id }) => {
                self.counters.flow_dropped += 1;
                report.rest_of_flow(&mut flow);
                if let Some((flow, _)) = &mut flow
                    && let Some(convicted) = flow.convicted
                    && now.since_ns(convicted) >= CONVICT_AGAIN_NS
                {
                    flow.convicted = Some(now);
                    self.counters.convictions += 1;
                    self.feedback.convict(&flow.key, signature_id);
                }
                return (Disposition::Drop, Why::FlowDropped { signature_id });
            }
            Some(FlowAction::Refuse { cause }) => {
                self.counters.flow_dropped += 1;
                report.rest_of_flow(&mut flow);
                return (Disposition::Drop, Why::FlowRefused(cause));
            }
            Some(FlowAction::Pass) => {
                self.counters.passed += 1;
                return (Disposition::Accept, Why::FlowPassed);
            }
            Some(FlowAction::Inspect) | None => {}
        }
        if let Some(reason) = decoded.invalid().filter(|_| decoded.network.is_some()) {
            self.counters.invalid.count(reason);
            let cause = Cause::Undecodable;
            if let Some(outcome) = report.except(&mut self.exceptions, cause, &mut flow) {
                let (disposition, _) = self.excepted(cause, outcome, decoded);
                return (disposition, Why::Invalid(reason));
            }
            // The rules about its addresses can be asked all the same.
        }
        if sheds(self.overload, self.options.shed_first_bytes, flow.as_ref()) {
            let cause = Cause::Overload;
            if let Some(outcome) = report.except(&mut self.exceptions, cause, &mut flow) {
                self.shed = true;
                return self.excepted(cause, outcome, decoded);
            }
        }

        #[cfg(feature = "fault-injection")]
        crate::fault::inject(decoded.payload);
        let inspected = Inspected {
            packet: decoded,
            flow: flow
                .as_mut()
                .map(|(flow, direction)| view(flow, *direction, now)),
            stream: None,
            stream_events: crate::reassembly::tcp::StreamEvents::NONE,
            app: None,
            now,
            tables: &mut self.tables,
        };
        let detection = self.engine.inspect(inspected, &mut self.scratch);
        self.counters.alerts_suppressed += u64::from(detection.beyond_limit);
        self.counters.alerts_thresholded += u64::from(detection.suppressed);
        self.counters.searches_given_up += u64::from(detection.given_up);
        self.counters.out_of_time += u64::from(detection.out_of_time);
        if let Some((flow, _)) = &mut flow {
            flow.inspected(decoded.len(), !detection.alerts.is_empty());
        }
        let decision = decide(&detection, decoded, self.options.drop_scope);
        let signature_id = decision
            .rule
            .map_or(0, |rule| self.engine.rule(rule).options.signature_id);
        if decision.whole_flow
            && (self.options.ips || decision.outcome == Outcome::Pass)
            && let Some((flow, _)) = &mut flow
        {
            apply_to_flow(flow, decision.outcome, signature_id);
        }
        if detection.bypass
            && decision.outcome.accepts()
            && let Some((flow, _)) = &mut flow
        {
            apply_to_flow(flow, Outcome::Pass, signature_id);
        }
        report.anomalies(flow.as_ref());
        self.counters.alerts += report.matches(&self.engine, &detection, decision, &mut flow);

        if let FragmentFate::Refused(reason) = decoded.fragment_fate
            && self.options.defrag.inline
            && decision.outcome.accepts()
        {
            report.refused_fragment();
            self.counters.fragments_refused += 1;
            return (Disposition::Drop, Why::FragmentRefused(reason));
        }
        match decision.outcome {
            Outcome::Drop | Outcome::Reject(_) if !self.options.ips => {
                let why = Why::from_matches(&detection);
                if let Outcome::Reject(target) = decision.outcome {
                    self.counters.rejected += 1;
                    self.reject(decoded, target);
                }
                (Disposition::Accept, why)
            }
            Outcome::Accept => (
                Disposition::Accept,
                match (Why::from_matches(&detection), decoded.invalid()) {
                    (Why::Clean, Some(reason)) => Why::Invalid(reason),
                    (why, _) => why,
                },
            ),
            Outcome::Pass => {
                self.counters.passed += 1;
                (Disposition::Accept, Why::Passed { signature_id })
            }
            Outcome::Drop => {
                self.counters.rule_dropped += 1;
                if decision.whole_flow
                    && self.options.convict
                    && decoded.tcp().is_some()
                    && is_steered(decoded)
                    && let Some((flow, _)) = &mut flow
                {
                    flow.convicted = Some(now);
                    self.counters.convictions += 1;
                    self.feedback.convict(&decoded.key, signature_id);
                }
                (Disposition::Drop, Why::Dropped { signature_id })
            }
            Outcome::Reject(target) => {
                self.counters.rule_dropped += 1;
                self.counters.rejected += 1;
                self.reject(decoded, target);
                (Disposition::Drop, Why::Rejected { signature_id })
            }
        }
    }

    /// What an exception policy has decided.
    fn excepted(
        &mut self,
        cause: Cause,
        outcome: Outcome,
        packet: &Decoded<'_>,
    ) -> (Disposition, Why) {
        if let Outcome::Reject(target) = outcome {
            self.counters.rejected += 1;
            self.reject(packet, target);
        }
        let disposition = match outcome.accepts() {
            true => Disposition::Accept,
            false => Disposition::Drop,
        };
        (disposition, Why::Exception(cause))
    }

    fn reject(&mut self, packet: &Decoded<'_>, target: RejectTarget) {
        let ends: &[Toward] = match target {
            RejectTarget::Source => &[Toward::Source],
            RejectTarget::Destination => &[Toward::Destination],
            RejectTarget::Both => &[Toward::Source, Toward::Destination],
        };
        for &toward in ends {
            if let Some(to) = reject::build(packet, toward, &mut self.buffer) {
                self.counters.rejections += 1;
                self.rejects.send(&self.buffer, to);
            }
        }
    }
}

fn tells_ends(options: &InspectionOptions) -> bool {
    options.records.types.wants("flow") || options.records.types.wants("netflow")
}

fn flow_table(options: &InspectionOptions) -> FlowTable {
    let mut table = FlowTable::new(options.flows, options.seed);
    table.tell_ends(tells_ends(options));
    table
}

fn name(interfaces: &BTreeMap<u32, String>, index: u32) -> Option<&str> {
    interfaces.get(&index).map(String::as_str)
}

/// Whether the kernel knows the flow of a packet by the same key: it sees no tunnels' content.
fn is_steered(packet: &Decoded<'_>) -> bool {
    packet.tunnel.is_none() && packet.key.zone == 0
}

fn apply_to_flow(flow: &mut Flow, outcome: Outcome, signature_id: u32) {
    match outcome {
        Outcome::Accept => {}
        Outcome::Pass => flow.action = FlowAction::Pass,
        Outcome::Drop => flow.action = FlowAction::Drop { signature_id },
        Outcome::Reject(_) => {
            flow.action = FlowAction::Drop { signature_id };
            // This is also why a rejected flow is not convicted.
            flow.ends_told();
        }
    }
}

type InFlow<'a, 'f> = Option<&'a (&'f mut Flow, PacketDirection)>;

/// Whether a packet of this flow is not inspected under the present load.
fn sheds(level: Overload, first_bytes: u64, flow: InFlow<'_, '_>) -> bool {
    match level {
        Overload::None => false,
        Overload::Some => flow
            .and_then(|(flow, _)| flow.clean_bytes)
            .is_some_and(|clean| clean >= first_bytes),
        Overload::All => true,
    }
}

/// A flow as rules see it.
fn view(flow: &mut Flow, direction: PacketDirection, now: Timestamp) -> FlowView<'_> {
    let both = flow.to_server.packets > 0 && flow.to_client.packets > 0;
    FlowView {
        direction,
        established: match flow.tcp {
            TcpState::None => both,
            TcpState::SynSent | TcpState::SynReceived => false,
            TcpState::Established | TcpState::Closing | TcpState::Closed => true,
        },
        age_s: u32::try_from(now.since_ns(flow.start) / 1_000_000_000).unwrap_or(u32::MAX),
        to_server: flow.to_server,
        to_client: flow.to_client,
        stream_sizes: None,
        marks: &mut flow.marks,
    }
}

/// Makes the records about one packet.
struct Reporter<'a, S> {
    context: PacketContext<'a>,
    events: &'a mut S,
    buffer: &'a mut Vec<u8>,
}

impl<S: EventSink> Reporter<'_, S> {
    fn context<'c>(&'c self, flow: InFlow<'c, '_>, outcome: Outcome) -> PacketContext<'c> {
        PacketContext {
            flow: flow.map(|(flow, direction)| (&**flow, *direction)),
            outcome,
            ..self.context
        }
    }

    /// Whether a packet that is dropped gets a record: each one, or the first of each direction of
    /// its flow.
    fn records_drop(&self, flow: &mut Option<(&mut Flow, PacketDirection)>) -> bool {
        let drops = self.context.records.types.drop.as_ref();
        drops.is_some_and(|drops| {
            let first = match flow {
                Some((flow, direction)) => flow.observed.first_drop(*direction),
                None => true,
            };
            first || drops.flows == DropFlows::All
        })
    }

    fn rest_of_flow(&mut self, flow: &mut Option<(&mut Flow, PacketDirection)>) {
        if self.records_drop(flow) {
            let mut line = std::mem::take(self.buffer);
            let context = self.context(flow.as_ref(), Outcome::Drop);
            eve::drop(&context, DropReason::Flow, None, &mut line);
            self.emit(line);
        }
    }

    /// What is strange about the packet.
    fn anomalies(&mut self, flow: InFlow<'_, '_>) {
        let anomalies = self.context.records.types.anomaly.as_ref();
        if !anomalies.is_some_and(|anomalies| anomalies.types.decode) {
            return;
        }
        for event in self.context.packet.events.iter() {
            let mut line = std::mem::take(self.buffer);
            let context = self.context(flow, Outcome::Accept);
            eve::anomaly(&context, Anomaly::Decode(event.name()), &mut line);
            self.emit(line);
        }
    }

    fn refused_fragment(&mut self) {
        if self.context.records.types.drop.is_some() {
            let mut line = std::mem::take(self.buffer);
            let context = self.context(None, Outcome::Drop);
            eve::drop(&context, DropReason::Defrag, None, &mut line);
            self.emit(line);
        }
    }

    /// Does what the policy for `cause` says, counts and reports it. `None` when the inspection
    /// goes on.
    fn except(
        &mut self,
        exceptions: &mut Exceptions,
        cause: Cause,
        flow: &mut Option<(&mut Flow, PacketDirection)>,
    ) -> Option<Outcome> {
        let treatment = exceptions.treatments.of(cause);
        let of_flow = flow.as_mut().map(|(flow, _)| &mut **flow);
        let outcome = except(cause, treatment, self.context.packet, of_flow)?;
        let dropped = !outcome.accepts();
        let outcome_shown = if dropped { outcome } else { Outcome::Pass };
        if let Some(packets) = exceptions.count(cause, dropped, self.context.time) {
            let mut line = std::mem::take(self.buffer);
            let context = self.context(flow.as_ref(), outcome_shown);
            eve::exception(&context, cause, treatment, packets, &mut line);
            self.emit(line);
        }
        if dropped && self.context.records.types.wants("drop") && cause.records_drops() {
            let mut line = std::mem::take(self.buffer);
            let context = self.context(flow.as_ref(), outcome);
            eve::drop(&context, DropReason::Exception(cause), None, &mut line);
            self.emit(line);
        }
        Some(outcome)
    }

    /// Records of all matches and, if it is dropped, of the packet; returns how many alerts.
    fn matches(
        &mut self,
        engine: &Engine,
        detection: &Detection<'_>,
        decision: Decision,
        flow: &mut Option<(&mut Flow, PacketDirection)>,
    ) -> u64 {
        let mut alerts = 0;
        for alert in detection.alerts {
            if !self.context.records.types.wants("alert") {
                break;
            }
            let rule = engine.rule(alert.rule);
            let mut line = std::mem::take(self.buffer);
            let context = self.context(flow.as_ref(), decision.outcome);
            eve::alert(&context, rule, Matched::Packet, &mut line);
            self.emit(line);
            alerts += 1;
        }
        if self.context.ips && !decision.outcome.accepts() && self.records_drop(flow) {
            let rule = decision.rule.map(|index| engine.rule(index));
            let mut line = std::mem::take(self.buffer);
            let context = self.context(flow.as_ref(), decision.outcome);
            eve::drop(&context, DropReason::Rules, rule, &mut line);
            self.emit(line);
        }
        alerts
    }

    fn emit(&mut self, line: Vec<u8>) {
        self.events.emit(&line);
        *self.buffer = line;
    }
}

#[cfg(test)]
mod captures;
#[cfg(test)]
mod tests;
