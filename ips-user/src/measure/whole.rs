//! The whole inspection: decode → flow → stream → detect → verdict, with and without rules.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;

use ips_common::FlowKey;
use serde::Serialize;

use super::mix::Mix;
use super::{Rounds, cpu_time, since};
use crate::decode::{Decoded, LinkType, Start, frame};
use crate::detect::{CompileOptions, Engine};
use crate::inspection::{Feedback, Inspection, InspectionOptions, RejectSender, Unguarded};
use crate::log::EventSink;
use crate::reassembly::defrag::Defragmenter;
use crate::source::{Checksum, Disposition, Packet, PacketId};

/// How long a part of the inspection takes for the whole mix.
#[derive(Debug, Default, Serialize)]
pub(super) struct Stage {
    seconds: Rounds,
    alerts: u64,
    dropped: u64,
    flows: u64,
    records: u64,
}

/// Records are made, and go nowhere.
#[derive(Default)]
struct Nowhere {
    records: u64,
}

impl EventSink for Nowhere {
    fn emit(&mut self, line: &[u8]) {
        self.records += 1;
        black_box(line);
    }

    fn store(&mut self, _hash: &[u8; 32], content: &[u8]) -> bool {
        black_box(content);
        true
    }

    fn describe(&mut self, _hash: &[u8; 32], line: &[u8]) {
        black_box(line);
    }
}

impl RejectSender for Nowhere {
    fn send(&mut self, _packet: &[u8], _to: IpAddr) {}
}

impl Feedback for Nowhere {
    fn convict(&mut self, _key: &FlowKey, _signature_id: u32) {}
}

/// Measures once: decoding alone, inspection without and with rules.
pub(super) fn measure(
    mix: &Mix,
    engine: &Arc<Engine>,
    options: &InspectionOptions,
    stages: &mut BTreeMap<&'static str, Stage>,
    counts: bool,
) {
    let mut add = |name, (seconds, stage): (f64, Stage)| {
        let before = stages.remove(name).unwrap_or_default();
        let mut all = before.seconds;
        all.extend(counts.then_some(seconds));
        let stage = Stage {
            seconds: all,
            ..stage
        };
        stages.insert(name, stage);
    };
    add("decode", decode(mix, options));
    let none = Engine::compile(Vec::new(), &CompileOptions::default());
    if let Ok(none) = none {
        add("no rules", inspect(mix, &Arc::new(none.engine), options));
    }
    add("all rules", inspect(mix, engine, options));
}

fn decode(mix: &Mix, options: &InspectionOptions) -> (f64, Stage) {
    let mut defragmenter = Defragmenter::new(options.defrag.clone(), options.seed);
    let start = Start::Link(LinkType::Ethernet);
    let begun = cpu_time();
    for it in mix.frames() {
        let mut each = |packet: &Decoded<'_>| {
            black_box(packet);
            Disposition::Accept
        };
        let decoding = &options.decode;
        frame(
            it.bytes,
            start,
            decoding,
            &mut defragmenter,
            it.time,
            &mut each,
        );
    }
    (since(begun), Stage::default())
}

fn inspect(mix: &Mix, engine: &Arc<Engine>, options: &InspectionOptions) -> (f64, Stage) {
    let mut inspection = Inspection::new(
        Arc::clone(engine),
        options.clone(),
        Nowhere::default(),
        Nowhere::default(),
        Nowhere::default(),
        None,
    );
    let begun = cpu_time();
    for (number, frame) in (0..).zip(mix.frames()) {
        // As a worker does between two batches.
        if number % 64 == 0 {
            inspection.expire(frame.time);
        }
        let packet = Packet {
            id: PacketId(number),
            hook: 0,
            ethertype: 0,
            mark: 0,
            in_interface: 0,
            out_interface: 0,
            payload: frame.bytes,
            original_len: frame.bytes.len() as u32,
            checksum: Checksum::Unverified,
            gso: false,
        };
        let start = Start::Link(LinkType::Ethernet);
        let verdict = inspection.inspect_frame(packet, start, frame.time, &mut Unguarded);
        black_box(verdict);
    }
    let seconds = since(begun);
    let counters = inspection.counters();
    let stage = Stage {
        seconds: Vec::new(),
        alerts: counters.alerts,
        dropped: counters.dropped,
        flows: counters.flows.created,
        records: inspection.events().records,
    };
    (seconds, stage)
}
