//! The records about one packet.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use super::case::{Case, InFlow};
use super::exceptions::Exceptions;
use super::options::InspectionOptions;
use crate::app::{AppProtocol, StoreOptions, Transaction, http1};
use crate::config::settings::{DropFlows, Records};
use crate::detect::{Detection, Engine};
use crate::exception::{Cause, Treatment};
use crate::flow::{Flow, FlowEnd, PacketDirection, Timestamp};
use crate::log::EventSink;
use crate::log::eve::{self, Anomaly, DropReason, EndedFlow, Matched, Noted, PacketContext};
use crate::reassembly::tcp::StreamEvents;
use crate::verdict::{Decision, Outcome, except};

/// Makes records and hands them on.
pub(super) struct Reports<S> {
    pub(super) events: S,
    /// Reused for every record.
    line: Vec<u8>,
    settings: Settings,
}

/// What of the options is about records.
struct Settings {
    records: Records,
    ips: bool,
    guess_transaction: bool,
    store: StoreOptions,
    capture: Option<String>,
    interfaces: BTreeMap<u32, String>,
    utc_offset_s: i32,
}

impl Settings {
    fn new(options: &InspectionOptions) -> Self {
        Self {
            records: options.records.clone(),
            ips: options.ips,
            guess_transaction: options.guess_transaction,
            store: options.app.store,
            capture: options.capture.clone(),
            interfaces: options.interfaces.clone(),
            utc_offset_s: options.utc_offset_s,
        }
    }

    fn context<'c>(
        &'c self,
        case: &Case<'c>,
        flow: Option<(&'c Flow, PacketDirection)>,
        outcome: Outcome,
    ) -> PacketContext<'c> {
        let name = |index: u32| self.interfaces.get(&index).map(String::as_str);
        PacketContext {
            noted: None,
            time: case.now,
            utc_offset_s: self.utc_offset_s,
            packet: case.packet,
            flow,
            in_interface: name(case.in_interface),
            out_interface: name(case.out_interface),
            outcome,
            capture: self.capture.as_deref().map(|name| (name, case.id)),
            records: &self.records,
            ips: self.ips,
        }
    }

    /// Whether a packet that is dropped gets a record: each one, or the first of each direction of
    /// its flow.
    fn records_drop(&self, flow: &mut InFlow<'_>) -> bool {
        let drops = self.records.types.drop.as_ref();
        drops.is_some_and(|drops| {
            let first = match flow {
                Some((flow, direction)) => flow.observed.first_drop(*direction),
                None => true,
            };
            first || drops.flows == DropFlows::All
        })
    }
}

fn shown<'c>(flow: &'c InFlow<'_>) -> Option<(&'c Flow, PacketDirection)> {
    flow.as_ref().map(|(flow, direction)| (&**flow, *direction))
}

impl<S: EventSink> Reports<S> {
    pub(super) fn new(events: S, options: &InspectionOptions) -> Self {
        Self {
            events,
            line: Vec::with_capacity(4096),
            settings: Settings::new(options),
        }
    }

    pub(super) fn set_options(&mut self, options: &InspectionOptions) {
        self.settings = Settings::new(options);
    }

    fn emit(&mut self) {
        self.events.emit(&self.line);
    }

    fn drop(&mut self, case: &Case<'_>, flow: &InFlow<'_>, outcome: Outcome, reason: DropReason) {
        let context = self.settings.context(case, shown(flow), outcome);
        eve::drop(&context, reason, None, &mut self.line);
        self.emit();
    }

    /// A packet that is dropped for another reason than a rule, when it is to be recorded.
    pub(super) fn dropped(&mut self, case: &Case<'_>, flow: &mut InFlow<'_>, reason: DropReason) {
        if self.settings.records_drop(flow) {
            self.drop(case, flow, Outcome::Drop, reason);
        }
    }

    /// A fragment that is dropped because nobody can use it.
    pub(super) fn refused_fragment(&mut self, case: &Case<'_>) {
        if self.settings.records.types.wants("drop") {
            self.drop(case, &None, Outcome::Drop, DropReason::Defrag);
        }
    }

    /// What is strange about the packet.
    pub(super) fn anomalies(
        &mut self,
        case: &Case<'_>,
        flow: &InFlow<'_>,
        stream_events: StreamEvents,
    ) {
        let Some(anomalies) = &self.settings.records.types.anomaly else {
            return;
        };
        let (of_decode, of_stream) = (anomalies.types.decode, anomalies.types.stream);
        let mut record = |anomaly| {
            let context = self.settings.context(case, shown(flow), Outcome::Accept);
            eve::anomaly(&context, anomaly, &mut self.line);
            self.events.emit(&self.line);
        };
        if of_decode {
            for event in case.packet.events.iter() {
                record(Anomaly::Decode(event.name()));
            }
        }
        if of_stream {
            for event in stream_events.iter() {
                record(Anomaly::Stream(event.name()));
            }
        }
    }

    /// Does what the policy for `cause` says, counts and reports it. `None` when the inspection
    /// goes on.
    pub(super) fn except(
        &mut self,
        exceptions: &mut Exceptions,
        cause: Cause,
        treatment: Treatment,
        case: &Case<'_>,
        flow: &mut InFlow<'_>,
    ) -> Option<Outcome> {
        let of_flow = flow.as_mut().map(|(flow, _)| &mut **flow);
        let outcome = except(cause, treatment, case.packet, of_flow)?;
        let dropped = !outcome.accepts();
        if let Some(packets) = exceptions.count(cause, dropped, case.now) {
            let outcome_shown = if dropped { outcome } else { Outcome::Pass };
            let context = self.settings.context(case, shown(flow), outcome_shown);
            eve::exception(&context, cause, treatment, packets, &mut self.line);
            self.emit();
        }
        if dropped && self.settings.records.types.wants("drop") && cause.records_drops() {
            self.drop(case, flow, outcome, DropReason::Exception(cause));
        }
        Some(outcome)
    }

    /// The same about a packet that shows no addresses.
    pub(super) fn except_unreadable(
        &mut self,
        cause: Cause,
        treatment: Treatment,
        packets: u64,
        now: Timestamp,
    ) {
        let offset = self.settings.utc_offset_s;
        let line = eve::exception_without_addresses(now, offset, cause, treatment, packets);
        self.events.emit(&line);
    }

    /// Records of all matches and, if it is dropped, of the packet; returns how many alerts.
    /// `in_stream` is what of its stream was inspected with it.
    pub(super) fn matches(
        &mut self,
        case: &Case<'_>,
        flow: &mut InFlow<'_>,
        (engine, detection): (&Engine, &Detection<'_>),
        decision: Decision,
        in_stream: Matched<'_>,
    ) -> u64 {
        let mut alerts = 0;
        let shows = !detection.alerts.is_empty() || !decision.outcome.accepts();
        let marks = flow.as_ref().filter(|_| shows).map(|it| &it.0.marks);
        let noted = marks.map(|marks| Noted::of(engine, marks));
        let noted = noted.as_ref();
        for alert in detection.alerts {
            if !self.settings.records.types.wants("alert") {
                break;
            }
            let rule = engine.rule(alert.rule);
            let matched = match alert.in_stream {
                true => in_stream,
                false => Matched::Packet,
            };
            let context = PacketContext {
                noted,
                ..self.settings.context(case, shown(flow), decision.outcome)
            };
            let in_hand = flow.as_ref().map_or(&[][..], |flow| flow.0.app.in_hand());
            let transaction = match (alert.transaction, in_hand) {
                (Some(at), _) => in_hand.get(at),
                (None, [only]) if self.settings.guess_transaction => Some(only),
                (None, _) => None,
            };
            let rule = (rule, alert.action);
            eve::alert(&context, rule, (matched, transaction), &mut self.line);
            self.emit();
            alerts += 1;
        }
        if self.settings.ips
            && !decision.outcome.accepts()
            && let Some(rule) = decision.rule
            && self.settings.records_drop(flow)
        {
            let context = self.settings.context(case, shown(flow), decision.outcome);
            let act = detection.acts.iter().find(|act| act.rule == rule);
            let reason = match act.is_some_and(|act| act.rate_filtered) {
                true => DropReason::RateFilter,
                false => DropReason::Rules,
            };
            let rule = engine.rule(rule);
            let rule = (rule, act.map_or(rule.action, |act| act.action));
            eve::drop(&context, reason, Some(rule), &mut self.line);
            self.emit();
        }
        let records = &self.settings.records.types;
        if detection.tagged && records.alert.as_ref().is_some_and(|it| it.tagged_packets) {
            let context = self.settings.context(case, shown(flow), decision.outcome);
            eve::tagged(&context, &mut self.line);
            self.emit();
        }
        alerts
    }

    /// Records of what the flow's application has said, once that is complete, and of files once
    /// rules have seen them: they decide what becomes of those.
    pub(super) fn transactions(&mut self, case: &Case<'_>, flow: &mut InFlow<'_>) {
        let Some((in_flow, _)) = &*flow else { return };
        for transaction in in_flow.app.in_hand() {
            if transaction.is_over() {
                for direction in PacketDirection::ALL {
                    self.files(case, flow, (transaction, direction));
                }
            }
            let wanted =
                |protocol: AppProtocol| self.settings.records.types.wants(protocol.record());
            let complete = transaction.is_complete() && !transaction.recorded;
            if !complete || !wanted(transaction.protocol()) {
                continue;
            }
            let version = self.settings.records.dns_version;
            for mut fields in transaction.records(version) {
                if transaction.protocol() == AppProtocol::Http1
                    && !self.settings.records.http_extended
                {
                    http1::shorten(&mut fields);
                }
                let context = self.settings.context(case, shown(flow), Outcome::Accept);
                eve::transaction(&context, (transaction, version), fields, &mut self.line);
                self.events.emit(&self.line);
            }
        }
        if let Some((in_flow, _)) = flow {
            in_flow.app.let_go();
        }
    }

    /// Files of a transaction, stored or not.
    fn files(
        &mut self,
        case: &Case<'_>,
        flow: &InFlow<'_>,
        (transaction, direction): (&Transaction, PacketDirection),
    ) {
        let recorded = self.settings.records.types.wants("fileinfo");
        let StoreOptions { on, all, .. } = self.settings.store;
        if !recorded && on != Some(true) {
            return;
        }
        let all = all || shown(flow).is_some_and(|(flow, _)| flow.app.stores(direction));
        for (number, file) in transaction.files(direction).iter().enumerate() {
            let content = transaction.file_content(direction, number);
            let content = content.filter(|_| all || transaction.stores(direction, number));
            let stored = content.filter(|_| on == Some(true)).and_then(|content| {
                let hash: [u8; 32] = Sha256::digest(content).into();
                self.events.store(&hash, content).then_some(hash)
            });
            let context = self.settings.context(case, shown(flow), Outcome::Accept);
            eve::file(
                &context,
                transaction,
                (file, stored.is_some(), direction),
                &mut self.line,
            );
            if recorded {
                self.events.emit(&self.line);
            }
            if let Some(hash) = stored.filter(|_| self.settings.store.with_record) {
                self.events.describe(&hash, &self.line);
            }
        }
    }

    /// A flow that has ended.
    pub(super) fn ended(&mut self, engine: &Engine, flow: &Flow, end: FlowEnd, now: Timestamp) {
        let records = &self.settings.records;
        let noted = Noted::of(engine, &flow.marks);
        let ended = EndedFlow {
            noted: Some(&noted),
            flow,
            end,
            time: now,
            utc_offset_s: self.settings.utc_offset_s,
            records,
        };
        if records.types.wants("flow") {
            eve::flow(&ended, &mut self.line);
            self.events.emit(&self.line);
        }
        if records.types.wants("netflow") {
            for direction in [PacketDirection::ToServer, PacketDirection::ToClient] {
                if direction == PacketDirection::ToServer || flow.to_client.packets > 0 {
                    eve::netflow(&ended, direction, &mut self.line);
                    self.events.emit(&self.line);
                }
            }
        }
    }
}
