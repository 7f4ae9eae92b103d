//! What examines a packet, and what ends a packet's way before its rules are asked.

use super::case::{Case, InFlow};
use super::exceptions::Exceptions;
use super::reports::Reports;
use super::{Feedback, InspectionCounters, InspectionOptions, Why};
use crate::app::{AppMemory, Undecided};
use crate::decode::{FragmentFate, Invalid};
use crate::desk::Overload;
use crate::detect::{Rules, Scratch, Tables};
use crate::exception::Cause;
use crate::flow::{FlowAction, FlowTable, TableFull};
use crate::log::EventSink;
use crate::log::eve::DropReason;
use crate::metrics::figures::Figures;
use crate::reassembly::defrag::Refusal;
use crate::reassembly::tcp::StreamMemory;
use crate::rules::RejectTarget;
use crate::source::Disposition;
use crate::verdict::{Outcome, RejectSender, Toward, reject};

/// How far the rules got with a packet, over all that they are asked about it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Limited {
    /// Some have given up, or were not asked.
    pub(super) unfinished: bool,
    /// One has passed it: that stands.
    pub(super) passed: bool,
    /// It says nothing about its flow.
    pub(super) alone: bool,
    /// What its application says cannot be read, nor what follows.
    pub(super) unheard: bool,
    /// What was known of its application before it came.
    pub(super) before: Option<Undecided>,
}

/// What becomes of a packet, and why.
pub(super) type End = (Disposition, Why);

/// A packet of a convicted flow that still arrives after this time means that the conviction
/// has aged out or was evicted: it is asked for again.
const CONVICT_AGAIN_NS: u64 = 1_000_000_000;

/// RFC 9776.
const IGMP: u8 = 2;

/// Connections given up for one packet, at most, when memory is short.
const RELIEF: usize = 8;

/// Everything but flows and what turns frames into packets.
pub(super) struct Examiner<S, R, F> {
    pub(super) engine: Rules,
    /// Which rules these are: counts the engines so far.
    pub(super) epoch: u32,
    /// Whether the rules found nothing in the stream that was inspected last.
    pub(super) quiet: bool,
    /// How far the rules got with the packet.
    pub(super) limited: Limited,
    pub(super) scratch: Scratch,
    pub(super) tables: Tables,
    /// What flows' applications take of the memory.
    pub(super) applications: AppMemory,
    pub(super) options: InspectionOptions,
    pub(super) exceptions: Exceptions,
    pub(super) overload: Overload,
    pub(super) reports: Reports<S>,
    pub(super) rejects: R,
    pub(super) feedback: F,
    pub(super) counters: InspectionCounters,
    pub(super) figures: Figures,
    /// Number of the packet that was received last.
    pub(super) last_id: u32,
    /// Whether anything of the packet in hand was shed.
    pub(super) shed: bool,
    /// What the packet in hand goes on as, when that is something else.
    pub(super) changed: Option<Vec<u8>>,
    /// Reused for every rejection.
    pub(super) rejection: Vec<u8>,
    /// Who is to be told of a packet that nobody has sent.
    pub(super) untold: Option<RejectTarget>,
}

impl<S: EventSink, R: RejectSender, F: Feedback> Examiner<S, R, F> {
    /// Nothing is known of it but itself.
    pub(super) fn without_flow(&mut self, case: &Case<'_>, admitted: bool) -> Option<End> {
        let packet = case.packet;
        if packet.network.is_none()
            && let Some(reason) = packet.invalid()
            && let Some(disposition) = self.unreadable(case, reason)
        {
            return Some((disposition, Why::Invalid(reason)));
        }
        if !admitted {
            let cause = Cause::Quarantine;
            // Before anything looks further, and packet by packet: who is admitted changes.
            let end = self.except(cause, case, &mut None);
            return end.or(Some((Disposition::Drop, Why::Exception(cause))));
        }
        match packet.fragment_fate {
            FragmentFate::NoRoom => self.except(Cause::DefragMemory, case, &mut None),
            FragmentFate::Refused(Refusal::Order) => {
                self.except(Cause::FragmentOrder, case, &mut None)
            }
            _ => None,
        }
    }

    /// What the policy says of a packet that cannot be read and has no addresses; `None` when it
    /// is ignored.
    fn unreadable(&mut self, case: &Case<'_>, reason: Invalid) -> Option<Disposition> {
        const CAUSE: Cause = Cause::Undecodable;
        self.counters.invalid.count(reason);
        let treatment = self.exceptions.treatments.of(CAUSE);
        let disposition = treatment.disposition()?;
        let dropped = disposition == Disposition::Drop;
        if let Some(packets) = self.exceptions.count(CAUSE, dropped, case.now) {
            let reports = &mut self.reports;
            reports.except_unreadable(CAUSE, treatment, packets, case.now);
        }
        Some(disposition)
    }

    /// The packet's flow. The datagram has one, its fragments have none.
    pub(super) fn find_flow<'f>(
        &mut self,
        case: &Case<'_>,
        flows: &'f mut FlowTable,
        memory: &mut StreamMemory,
    ) -> Result<InFlow<'f>, End> {
        let packet = case.packet;
        // Messages of group management are no conversation.
        if packet.network.is_none() || packet.is_fragment() || packet.protocol() == IGMP {
            return Ok(None);
        }
        if packet.tcp().is_some() && memory.is_short(&self.options.stream) {
            flows.relieve(packet, memory, &self.options.stream, RELIEF);
        }
        match flows.packet(packet, case.now) {
            Ok(flow) => Ok(flow),
            Err(TableFull) => match self.except(Cause::FlowMemory, case, &mut None) {
                Some(end) => Err(end),
                None => Ok(None),
            },
        }
    }

    /// What was decided about the flow before.
    pub(super) fn decided_before(&mut self, case: &Case<'_>, flow: &mut InFlow<'_>) -> Option<End> {
        match flow.as_ref()?.0.action {
            FlowAction::Drop { signature_id } => {
                self.rest_of_dropped(case, flow);
                if let Some((flow, _)) = flow
                    && let Some(convicted) = flow.convicted
                    && case.now.since_ns(convicted) >= CONVICT_AGAIN_NS
                {
                    flow.convicted = Some(case.now);
                    self.counters.convictions += 1;
                    self.feedback.convict(&flow.key, signature_id);
                }
                Some((Disposition::Drop, Why::FlowDropped { signature_id }))
            }
            FlowAction::Refuse { cause } => {
                self.rest_of_dropped(case, flow);
                Some((Disposition::Drop, Why::FlowRefused(cause)))
            }
            FlowAction::Pass => {
                self.counters.passed += 1;
                Some((Disposition::Accept, Why::FlowPassed))
            }
            FlowAction::Inspect => None,
        }
    }

    fn rest_of_dropped(&mut self, case: &Case<'_>, flow: &mut InFlow<'_>) {
        self.counters.flow_dropped += 1;
        self.reports.dropped(case, flow, DropReason::Flow);
    }

    /// What cannot be read beyond its addresses, and what is left out under load.
    pub(super) fn left_out(&mut self, case: &Case<'_>, flow: &mut InFlow<'_>) -> Option<End> {
        let packet = case.packet;
        if let Some(reason) = packet.invalid().filter(|_| packet.network.is_some()) {
            self.counters.invalid.count(reason);
            if let Some((disposition, _)) = self.except(Cause::Undecodable, case, flow) {
                return Some((disposition, Why::Invalid(reason)));
            }
            // The rules about its addresses can be asked all the same.
        }
        if !self.sheds(flow) {
            return None;
        }
        let end = self.except(Cause::Overload, case, flow);
        self.shed |= end.is_some();
        if let Some((Disposition::Accept, _)) = end
            && let Some((flow, _)) = flow
            && let Some(session) = &mut flow.session
        {
            session.misses_packet();
        }
        end
    }

    /// Whether a packet of this flow is not inspected under the present load.
    fn sheds(&self, flow: &InFlow<'_>) -> bool {
        match self.overload {
            Overload::None => false,
            Overload::Some => flow
                .as_ref()
                .and_then(|(flow, _)| flow.clean_bytes)
                .is_some_and(|clean| clean >= self.options.shed_first_bytes),
            Overload::All => true,
        }
    }

    /// Does what the configured policy for `cause` says; `None` when the inspection goes on.
    fn except(&mut self, cause: Cause, case: &Case<'_>, flow: &mut InFlow<'_>) -> Option<End> {
        let treatment = self.exceptions.treatments.of(cause);
        let reports = &mut self.reports;
        let outcome = reports.except(&mut self.exceptions, cause, treatment, case, flow)?;
        Some(self.excepted(cause, outcome, case))
    }

    /// What the policy says of a packet on which rules have given up; nothing about its flow if the
    /// packet stands `alone`.
    pub(super) fn except_limited(
        &mut self,
        case: &Case<'_>,
        flow: &mut InFlow<'_>,
        alone: bool,
    ) -> Option<End> {
        const CAUSE: Cause = Cause::InspectionLimit;
        let treatment = self.exceptions.treatments.of(CAUSE);
        let treatment = if alone {
            treatment.of_packet()
        } else {
            treatment
        };
        let reports = &mut self.reports;
        let outcome = reports.except(&mut self.exceptions, CAUSE, treatment, case, flow)?;
        Some(self.excepted(CAUSE, outcome, case))
    }

    /// What an exception policy has decided.
    pub(super) fn excepted(&mut self, cause: Cause, outcome: Outcome, case: &Case<'_>) -> End {
        if let Outcome::Reject(target) = outcome {
            self.counters.rejected += 1;
            self.reject(case, target);
        }
        let disposition = match outcome.accepts() {
            true => Disposition::Accept,
            false => Disposition::Drop,
        };
        (disposition, Why::Exception(cause))
    }

    pub(super) fn reject(&mut self, case: &Case<'_>, target: RejectTarget) {
        // Of a packet that nobody has sent the numbers are nobody's.
        if case.pseudo {
            self.untold = Some(target);
            return;
        }
        let ends: &[Toward] = match target {
            RejectTarget::Source => &[Toward::Source],
            RejectTarget::Destination => &[Toward::Destination],
            RejectTarget::Both => &[Toward::Source, Toward::Destination],
        };
        for &toward in ends {
            if let Some(to) = reject::build(case.packet, toward, &mut self.rejection) {
                self.counters.rejections += 1;
                self.rejects.send(&self.rejection, to);
            }
        }
    }
}
