//! The rules are asked, one decision is made out of what they say, and it is carried out.

use super::case::{Case, InFlow};
use super::change;
use super::examiner::{End, Examiner};
use super::passed::listens;
use super::{Feedback, Why};
use crate::app::Transaction;
use crate::decode::{Decoded, FragmentFate};
use crate::detect::{AppView, Detection, FlowView, Inspected, StreamData};
use crate::flow::{Flow, FlowAction, PacketDirection, Timestamp};
use crate::log::EventSink;
use crate::log::eve::{DropReason, Matched};
use crate::reassembly::tcp::{StreamDrop, StreamEvents};
use crate::source::Disposition;
use crate::verdict::{Decision, Outcome, RejectSender, decide};

/// What the stream engine says about a packet.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Streamed<'a> {
    /// What is to be inspected; none outside a stream.
    pub(super) data: Option<StreamData<'a>>,
    /// Bytes before it that nobody has seen.
    pub(super) missing: u64,
    pub(super) events: StreamEvents,
    /// The handshake was complete before the packet. Of what is in no stream the flow knows.
    pub(super) established: bool,
    /// Bytes of client and server so far.
    pub(super) sizes: Option<(u32, u32)>,
    /// It is not delivered, whatever the rules say.
    pub(super) refused: Option<StreamDrop>,
    /// Only `data` is to be inspected.
    pub(super) alone: bool,
    /// It arrives before the handshake is complete. Rules about established connections are to
    /// be asked, the others were.
    pub(super) early: bool,
    /// What the rules say is about the packet, and not about its flow.
    pub(super) spares_flow: bool,
}

impl<S: EventSink, R: RejectSender, F: Feedback> Examiner<S, R, F> {
    /// Asks the rules about a packet, and does what they say.
    pub(super) fn detect(
        &mut self,
        case: &Case<'_>,
        flow: &mut InFlow<'_>,
        streamed: &Streamed<'_>,
    ) -> End {
        let packet = case.packet;
        #[cfg(feature = "fault-injection")]
        crate::fault::inject(packet.payload);
        let epoch = self.epoch;
        let (view, app) = match flow {
            Some((flow, direction)) => {
                let (view, transactions) = view(flow, *direction, streamed, case.now);
                let app = AppView {
                    transactions,
                    epoch,
                };
                (Some(view), Some(app))
            }
            None => (None, None),
        };
        let inspected = Inspected {
            packet,
            flow: view,
            stream: streamed.data,
            stream_events: streamed.events,
            only_stream: streamed.alone,
            only_established: streamed.early,
            app,
            now: case.now,
            tables: &mut self.tables,
        };
        let detection = self.engine.inspect(inspected, &mut self.scratch);
        self.quiet = detection.quiet;
        self.counters.alerts_suppressed += u64::from(detection.beyond_limit);
        self.counters.alerts_thresholded += u64::from(detection.suppressed);
        self.counters.searches_given_up += u64::from(detection.given_up);
        self.counters.out_of_time += u64::from(detection.out_of_time);
        self.limited.unfinished |= detection.given_up > 0 || detection.out_of_time;
        if let Some((flow, _)) = flow {
            let bytes = if streamed.alone { 0 } else { packet.len() };
            flow.inspected(bytes, !detection.alerts.is_empty());
        }
        let mut decision = decide(&detection, packet, self.options.drop_scope);
        decision.whole_flow &= !streamed.spares_flow;
        let signature_id = decision
            .rule
            .map_or(0, |rule| self.engine.rule(rule).options.signature_id);
        if decision.whole_flow
            && (self.options.ips || decision.outcome == Outcome::Pass)
            && let Some((flow, _)) = flow
        {
            apply_to_flow(flow, decision.outcome, signature_id);
        }
        if detection.bypass
            && decision.outcome.accepts()
            && let Some((flow, _)) = flow
        {
            flow.bypass();
        }
        let refused = streamed.refused.filter(|_| decision.outcome.accepts());
        if refused.is_some() {
            // What no receiver takes says nothing about the flow.
            decision = Decision {
                outcome: Outcome::Drop,
                rule: None,
                whole_flow: false,
            };
        }
        if !streamed.alone {
            self.reports.anomalies(case, flow, streamed.events);
        }
        let matched = (&*self.engine, &detection);
        let in_stream = Matched::Stream {
            data: streamed.data.map_or(&[][..], |stream| stream.data),
            missing: streamed.missing,
        };
        let alerts = (self.reports).matches(case, flow, matched, decision, in_stream);
        self.counters.alerts += alerts;
        if let Some((flow, _)) = flow
            && flow.action != FlowAction::Inspect
            // What else comes with this packet is inspected all the same.
            && !flow.observed.is_bypassed()
        {
            match listens(&self.options.records.types, flow) {
                true => flow.app.pass_over(),
                false => flow.leave(),
            }
        }
        self.reports.transactions(case, flow);
        if detection.replaces() && self.options.ips && decision.outcome.accepts() {
            match change::payload(case, detection.replacements()) {
                Some(bytes) => self.changed = Some(bytes),
                None => self.counters.not_replaced += 1,
            }
        }
        let why = Why::from_matches(&detection);
        if let Some(reason) = refused {
            self.counters.stream_dropped += 1;
            self.reports.dropped(case, flow, DropReason::Stream(reason));
            return (Disposition::Drop, Why::StreamDropped(reason));
        }
        if let FragmentFate::Refused(reason) = packet.fragment_fate
            && self.options.defrag.inline
            && decision.outcome.accepts()
        {
            self.reports.refused_fragment(case);
            self.counters.fragments_refused += 1;
            return (Disposition::Drop, Why::FragmentRefused(reason));
        }
        self.limited.passed |= decision.outcome == Outcome::Pass;
        self.carry_out(case, flow, decision, signature_id, why)
    }

    fn carry_out(
        &mut self,
        case: &Case<'_>,
        flow: &mut InFlow<'_>,
        decision: Decision,
        signature_id: u32,
        matches: Why,
    ) -> End {
        let packet = case.packet;
        match decision.outcome {
            Outcome::Drop | Outcome::Reject(_) if !self.options.ips => {
                if let Outcome::Reject(target) = decision.outcome {
                    self.counters.rejected += 1;
                    self.reject(case, target);
                }
                (Disposition::Accept, matches)
            }
            Outcome::Accept => (
                Disposition::Accept,
                match (matches, packet.invalid()) {
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
                    && packet.tcp().is_some()
                    && is_steered(packet)
                    && let Some((flow, _)) = flow
                {
                    flow.convicted = Some(case.now);
                    self.counters.convictions += 1;
                    self.feedback.convict(&packet.key, signature_id);
                }
                (Disposition::Drop, Why::Dropped { signature_id })
            }
            Outcome::Reject(target) => {
                self.counters.rule_dropped += 1;
                self.counters.rejected += 1;
                self.reject(case, target);
                (Disposition::Drop, Why::Rejected { signature_id })
            }
        }
    }
}

impl Why {
    fn from_matches(detection: &Detection<'_>) -> Self {
        match detection.alerts.len() {
            0 => Self::Clean,
            rules => Self::Alerted { rules },
        }
    }
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

/// A flow as rules see it, and what its application says.
fn view<'f>(
    flow: &'f mut Flow,
    direction: PacketDirection,
    streamed: &Streamed<'_>,
    now: Timestamp,
) -> (FlowView<'f>, &'f mut [Transaction]) {
    let both = flow.to_server.packets > 0 && flow.to_client.packets > 0;
    let view = FlowView {
        direction,
        established: match flow.key.protocol {
            crate::decode::protocol::TCP => streamed.established,
            _ => both,
        },
        age_s: u32::try_from(now.since_ns(flow.start) / 1_000_000_000).unwrap_or(u32::MAX),
        to_server: flow.to_server,
        to_client: flow.to_client,
        stream_sizes: streamed.sizes,
        app: flow.app.known(),
        marks: &mut flow.marks,
    };
    (view, flow.app.transactions())
}
