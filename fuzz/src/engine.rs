//! Engines with rules of every kind, and an inspection around them.

use std::net::IpAddr;
use std::sync::Arc;

use ips_common::FlowKey;
use sluice::decode::Start;
use sluice::detect::{CompileOptions, Engine};
use sluice::inspection::{
    EventSink, Feedback, Inspection, InspectionOptions, PacketTrace, RejectSender, Timestamp,
    Traced, Unguarded,
};
use sluice::rules::{RuleSet, RuleSource};
use sluice::source::{Checksum, Disposition, Packet, PacketId, Verdict};

/// A rule of every kind that looks at packets and streams.
pub const RULES: &str = include_str!("fuzz.rules");

/// Compiles rules, which must be right.
pub fn engine(rules: &str) -> Arc<Engine> {
    let loaded = RuleSet::default().load_sources(&[RuleSource::new("fuzz.rules", rules.into())]);
    for diagnostic in &loaded.diagnostics {
        eprintln!("{}", diagnostic.render());
    }
    assert!(!loaded.has_errors(), "the targets' own rules are wrong");
    let compiled = Engine::compile(loaded.rules, &CompileOptions::default());
    let compiled = compiled.expect("a prefilter");
    assert!(compiled.refused.is_empty(), "{:?}", compiled.refused);
    Arc::new(compiled.engine)
}

/// Every event must be a line of JSON.
#[derive(Debug, Default)]
pub struct Checked;

impl EventSink for Checked {
    fn emit(&mut self, line: &[u8]) {
        assert!(!line.contains(&b'\n'));
        let parsed = serde_json::from_slice::<serde_json::Value>(line);
        if let Err(error) = parsed {
            panic!("{error}: {}", String::from_utf8_lossy(line));
        }
    }
}

impl RejectSender for Checked {
    fn send(&mut self, packet: &[u8], to: IpAddr) {
        // What the inspection makes the rejecter must be willing to send.
        if let Some(checked) = sluice::fuzzing::rejecter::check(packet) {
            assert_eq!(checked, to);
        }
    }
}

impl Feedback for Checked {
    fn convict(&mut self, _key: &FlowKey, _signature_id: u32) {}
}

impl PacketTrace for Checked {
    fn packet(&mut self, traced: &Traced<'_>) {
        assert!(!traced.to_string().is_empty());
    }
}

/// An inspection whose records and rejections are checked.
pub type Harness = Inspection<Checked, Checked, Checked>;

/// With these rules and options.
pub fn inspection(engine: &Arc<Engine>, options: InspectionOptions, trace: bool) -> Harness {
    let trace = trace.then(|| Box::new(Checked) as Box<dyn PacketTrace>);
    Inspection::new(
        Arc::clone(engine),
        options,
        Checked,
        Checked,
        Checked,
        trace,
    )
}

/// Shows it a packet.
pub fn show(
    inspection: &mut Harness,
    bytes: &[u8],
    start: Start,
    number: u32,
    now: Timestamp,
) -> Verdict {
    let packet = Packet {
        id: PacketId(number),
        hook: 2,
        ethertype: 0x0800,
        mark: 0,
        in_interface: 1,
        out_interface: 2,
        payload: bytes,
        original_len: bytes.len() as u32,
        checksum: match start {
            Start::Ip(checksum) => checksum,
            Start::Link(_) => Checksum::Unverified,
        },
        gso: false,
    };
    let verdict = inspection.inspect_frame(packet, start, now, &mut Unguarded);
    if verdict.disposition == Disposition::Accept
        && let Some(replacement) = &verdict.replacement
    {
        assert_eq!(replacement.len(), bytes.len());
    }
    verdict
}

/// So many nanoseconds after the beginning.
pub fn at(ns: u64) -> Timestamp {
    Timestamp {
        wall_us: 1_700_000_000_000_000 + (ns / 1000) as i64,
        monotonic_ns: 1_000_000_000 + ns,
    }
}
