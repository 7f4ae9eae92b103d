//! The packet's way through a worker, on one page: decode → defragmentation → flow → stream →
//! detect → verdict → log.
//!
//! [`Inspection::inspect_frame`] takes a packet apart; `Inspection::decoded` is the way of each
//! packet in it. The stages are methods of the [`examiner`]: `examiner` what ends the way before
//! rules are asked, `stream` the connection, `detection` the rules and the decision, `change`
//! packets that go on with other bytes, `reports` the records.

use std::path::PathBuf;

use ips_common::FlowKey;

use crate::app::{AppMemory, AppProtocol};
use crate::decode::{ChecksumMode, ChecksumSample, DecodeOptions, Start, frame};
use crate::desk::Overload;
use crate::detect::dataset::record::Change;
use crate::detect::dataset::{Datasets, SetId};
use crate::detect::{Rules, Tables};
pub use crate::flow::Timestamp;
use crate::flow::{FlowTable, ImportError, Imported, Settled};
pub use crate::log::EventSink;
use crate::metrics::figures::Figures;
use crate::reassembly::defrag::Defragmenter;
use crate::reassembly::tcp::StreamMemory;
use crate::source::{Disposition, Packet, Verdict};
pub use crate::verdict::RejectSender;

mod case;
mod change;
mod counters;
mod detection;
mod examiner;
mod exceptions;
mod options;
mod passed;
mod reports;
mod stream;
pub mod trace;

pub use counters::InspectionCounters;
pub use exceptions::ExceptionCounters;
pub use options::InspectionOptions;
pub use trace::{PacketTrace, Traced, Why};

use case::{Case, InFlow};
use examiner::{End, Examiner, Limited};
use exceptions::Exceptions;
use reports::Reports;

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
    flows: FlowTable,
    /// Of their connections.
    memory: StreamMemory,
    /// Absent while a frame is decoded with it.
    decoding: Option<Box<Decoding>>,
    examiner: Examiner<S, R, F>,
    /// When the tables of rules were last looked through.
    tables_expired: Timestamp,
    trace: Option<Box<dyn PacketTrace>>,
}

/// How often the tables of rules are looked through for what does not hold any more.
const EXPIRE_TABLES_NS: u64 = 30_000_000_000;

/// Most flows forgotten by one call of [`Inspection::expire`].
const EXPIRE_BUDGET: usize = 256;

impl<S: EventSink, R: RejectSender, F: Feedback> Inspection<S, R, F> {
    /// An inspection with these rules. `trace` is shown every packet with its verdict.
    pub fn new(
        engine: impl Into<Rules>,
        mut options: InspectionOptions,
        events: S,
        rejects: R,
        feedback: F,
        trace: Option<Box<dyn PacketTrace>>,
    ) -> Self {
        let engine = engine.into();
        options.stream.randomize(options.seed[0] ^ options.seed[1]);
        let (hashes, stores) = (engine.file_hashes(), engine.stores_files());
        options
            .app
            .add_asked(hashes, stores, engine.asks_for_hassh());
        let mut flows = FlowTable::new(options.flows, options.seed);
        flows.tell_ends(tells_ends(&options));
        Self {
            flows,
            memory: StreamMemory::new(),
            decoding: Some(Box::new(Decoding::new(&options))),
            examiner: Examiner {
                scratch: engine.scratch(),
                engine,
                epoch: 1,
                quiet: false,
                limited: Limited::default(),
                tables: Tables::new(options.tables),
                applications: AppMemory::default(),
                exceptions: Exceptions::new(options.exceptions),
                overload: Overload::None,
                reports: Reports::new(events, &options),
                options,
                rejects,
                feedback,
                counters: InspectionCounters::default(),
                figures: Figures::default(),
                last_id: 0,
                shed: false,
                changed: None,
                rejection: Vec::new(),
                untold: None,
            },
            tables_expired: Timestamp::default(),
            trace,
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
        let examiner = &mut self.examiner;
        examiner.counters.packets += 1;
        examiner.counters.bytes += packet.payload.len() as u64;
        examiner.last_id = packet.id.0;
        examiner.shed = false;
        examiner.changed = None;
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
                let case = Case::new(&packet, decoded, now);
                let (disposition, why) = self.decoded(&case, admitted);
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

    /// The way of one packet.
    fn decoded(&mut self, case: &Case<'_>, admitted: bool) -> End {
        let Self {
            flows,
            memory,
            examiner,
            ..
        } = self;
        examiner.figures.packet(case.packet);
        if let Some(end) = examiner.without_flow(case, admitted) {
            return end;
        }
        let mut flow = match examiner.find_flow(case, flows, memory) {
            Ok(flow) => flow,
            Err(end) => return end,
        };
        if let Some(end) = examiner.decided_before(case, &mut flow) {
            examiner.listen(case, &mut flow, memory);
            return end;
        }
        if let Some(end) = examiner.left_out(case, &mut flow) {
            examiner.let_out(case, &mut flow);
            return end;
        }
        let settled = |flow: &InFlow<'_>| flow.as_ref().map(|(flow, _)| Settled::of(flow));
        let before = settled(&flow);
        let end = examiner.examine(case, &mut flow, memory);
        examiner.let_out(case, &mut flow);
        if before != settled(&flow) {
            flows.settle(&case.packet.key);
        }
        end
    }

    fn verdict(&mut self, disposition: Disposition) -> Verdict {
        let examiner = &mut self.examiner;
        let counters = &mut examiner.counters;
        match disposition {
            Disposition::Accept => {
                counters.accepted += 1;
                counters.shed_accepted += u64::from(examiner.shed);
                let replacement = examiner.changed.take();
                counters.replaced += u64::from(replacement.is_some());
                Verdict {
                    replacement,
                    ..Verdict::ACCEPT
                }
            }
            Disposition::Drop => {
                counters.dropped += 1;
                counters.shed_dropped += u64::from(examiner.shed);
                Verdict::DROP
            }
        }
    }

    /// How much is left undone from now on.
    pub fn set_overload(&mut self, level: Overload) {
        self.examiner.overload = level;
    }

    /// How often packets of flows that are known here may have gone another way, or past
    /// everybody. After an increase connections are picked up anew where they turn out not to be
    /// where they were.
    pub fn set_detours(&mut self, detours: u64, now: Timestamp) {
        self.memory.set_detours(detours, now.monotonic_ns);
    }

    /// Goes on with other rules and options: what is known about flows, and what was decided
    /// about them, stays. The seed of the flow table stays, too.
    pub fn reload(&mut self, engine: impl Into<Rules>, mut options: InspectionOptions) {
        let examiner = &mut self.examiner;
        examiner.engine = engine.into();
        examiner.scratch = examiner.engine.scratch();
        examiner.epoch = examiner.epoch.wrapping_add(1).max(1);
        options.stream.randomize(options.seed[0] ^ options.seed[1]);
        let engine = &examiner.engine;
        let (hashes, stores) = (engine.file_hashes(), engine.stores_files());
        options
            .app
            .add_asked(hashes, stores, engine.asks_for_hassh());
        self.flows.set_limits(options.flows);
        self.flows.tell_ends(tells_ends(&options));
        if let Some(decoding) = &mut self.decoding {
            decoding.options = options.decode.clone();
            decoding.defragmenter.set_options(options.defrag.clone());
        }
        examiner.exceptions.treatments = options.exceptions;
        examiner.reports.set_options(&options);
        examiner.options = options;
    }

    /// Has some more of the rules ready for use; false when all of them are. To be called
    /// between packets.
    pub fn warm(&mut self) -> bool {
        self.examiner.engine.warm()
    }

    /// How packets are inspected.
    pub fn options(&self) -> &InspectionOptions {
        &self.examiner.options
    }

    /// Forgets idle flows and incomplete datagrams. To be called regularly, also when no packets
    /// arrive.
    pub fn expire(&mut self, now: Timestamp) -> usize {
        if now.since_ns(self.tables_expired) >= EXPIRE_TABLES_NS {
            self.tables_expired = now;
            self.examiner.tables.expire(now);
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

    /// There will be no further packet: every flow ends, and is recorded.
    pub fn finish(&mut self, now: Timestamp) {
        let mut order = Vec::new();
        while self.flows.end_some(&mut order, EXPIRE_BUDGET) {
            self.record_ended(now);
        }
        self.record_ended(now);
    }

    /// Inspects what flows that have ended have left, and records them.
    fn record_ended(&mut self, now: Timestamp) {
        while let Some((mut flow, end)) = self.flows.take_ended() {
            self.examiner
                .inspect_ended(&mut flow, now, &mut self.memory);
            let examiner = &mut self.examiner;
            examiner.reports.ended(&examiner.engine, &flow, end, now);
        }
    }

    /// Totals so far.
    pub fn counters(&self) -> InspectionCounters {
        let counters = self.examiner.counters;
        InspectionCounters {
            flows: self.flows.counters(),
            stream: self.memory.counters(),
            defrag: self
                .decoding
                .as_ref()
                .map_or(counters.defrag, |it| it.defragmenter.counters()),
            exceptions: self.examiner.exceptions.counters,
            tables: self.examiner.tables.counters(),
            applications: self.examiner.applications.counters(),
            ..counters
        }
    }

    /// What packets were made of.
    pub fn figures(&self) -> &Figures {
        &self.examiner.figures
    }

    /// The flows.
    pub fn flows(&self) -> &FlowTable {
        &self.flows
    }

    /// Takes over the flows of another worker with their connections: see
    /// [`FlowTable::import_streams`].
    ///
    /// # Errors
    /// When the bytes are no flows, or this inspection has some already.
    pub fn import_flows(
        &mut self,
        bytes: &[u8],
        now: Timestamp,
        progress: impl FnMut(),
    ) -> Result<Imported, ImportError> {
        let options = &self.examiner.options.stream;
        let memory = &mut self.memory;
        self.flows
            .import_streams(bytes, now, options, memory, progress)
    }

    /// Files of rules' sets that are to be written at the end, with their content.
    pub fn sets_to_save(&self) -> Vec<(PathBuf, String)> {
        self.examiner.engine.sets_to_save(&self.examiner.tables)
    }

    /// Keeps records of what rules change in sets from now on.
    pub fn share_sets(&mut self) {
        self.examiner.tables.datasets.share();
    }

    /// What has changed in sets.
    pub fn sets(&self) -> &Datasets {
        &self.examiner.tables.datasets
    }

    /// The same, to be changed.
    pub fn sets_mut(&mut self) -> &mut Datasets {
        &mut self.examiner.tables.datasets
    }

    /// Does what others have done to a set.
    pub fn change_set(&mut self, set: SetId, change: Change<'_>) {
        let examiner = &mut self.examiner;
        examiner
            .engine
            .change_set(&mut examiner.tables, set, change);
    }

    /// Where events go.
    pub fn events(&self) -> &S {
        &self.examiner.reports.events
    }

    /// The same, to be changed.
    pub fn events_mut(&mut self) -> &mut S {
        &mut self.examiner.reports.events
    }

    /// Who sends rejections.
    pub fn rejects(&self) -> &R {
        &self.examiner.rejects
    }

    /// Who is told about convictions.
    pub fn feedback(&self) -> &F {
        &self.examiner.feedback
    }
}

/// Whether anybody wants to know when a flow ends: whoever records it, or inspects what is left.
fn tells_ends(options: &InspectionOptions) -> bool {
    let types = &options.records.types;
    let told = ["flow", "netflow", "fileinfo"];
    let of_app = AppProtocol::ALL.iter().map(|it| it.record());
    !options.stream.inline || told.into_iter().chain(of_app).any(|name| types.wants(name))
}

#[cfg(test)]
mod applications;
#[cfg(test)]
mod captures;
#[cfg(test)]
mod listening;
#[cfg(test)]
mod mails;
#[cfg(test)]
mod openings;
#[cfg(test)]
mod quiet;
#[cfg(test)]
mod tests;
