use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use etherparse::PacketBuilder;
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::config::settings::{DropFlows, DropRecords};
use crate::decode::{Decoded, Invalid};
use crate::detect::{CompileOptions, Engine};
use crate::exception::{Cause, Treatment, Treatments};
use crate::flow::{FlowAction, FlowLimits};
use crate::reassembly::defrag::DefragOptions;
use crate::rules::{RuleSet, RuleSource};
use crate::source::{Checksum, PacketId};

#[derive(Default)]
pub(super) struct Lines(Vec<Value>);

impl Lines {
    /// What has come so far.
    pub(super) fn take(&mut self) -> Vec<Value> {
        std::mem::take(&mut self.0)
    }
}

impl EventSink for Lines {
    fn emit(&mut self, line: &[u8]) {
        self.0.push(serde_json::from_slice(line).unwrap());
    }

    fn store(&mut self, _hash: &[u8; 32], content: &[u8]) -> bool {
        let content = String::from_utf8_lossy(content);
        self.0
            .push(serde_json::json!({ "event_type": "stored", "content": content }));
        true
    }

    fn describe(&mut self, _hash: &[u8; 32], _line: &[u8]) {}
}

#[derive(Default)]
pub(super) struct Sent(Vec<(Vec<u8>, IpAddr)>);

impl Sent {
    /// Who was told.
    pub(super) fn ends(&self) -> impl Iterator<Item = IpAddr> {
        self.0.iter().map(|(_, to)| *to)
    }
}

impl RejectSender for Sent {
    fn send(&mut self, packet: &[u8], to: IpAddr) {
        self.0.push((packet.to_vec(), to));
    }
}

#[derive(Default)]
pub(super) struct Convicted(Vec<(FlowKey, u32)>);

impl Feedback for Convicted {
    fn convict(&mut self, key: &FlowKey, signature_id: u32) {
        self.0.push((*key, signature_id));
    }
}

struct Collected(Rc<RefCell<Vec<String>>>);

impl PacketTrace for Collected {
    fn packet(&mut self, traced: &Traced<'_>) {
        self.0.borrow_mut().push(traced.to_string());
    }
}

pub(super) type Tested = Inspection<Lines, Sent, Convicted>;

fn engine(rules: &str) -> Arc<Engine> {
    let loaded = RuleSet::default().load_sources(&[RuleSource::new("t", rules.into())]);
    assert!(loaded.diagnostics.is_empty(), "{:?}", loaded.diagnostics);
    Arc::new(
        Engine::compile(loaded.rules, &CompileOptions::default())
            .unwrap()
            .engine,
    )
}

pub(super) fn with_options(rules: &str, options: InspectionOptions) -> Tested {
    Inspection::new(
        engine(rules),
        options,
        Lines::default(),
        Sent::default(),
        Convicted::default(),
        None,
    )
}

pub(super) fn with(rules: &str) -> Tested {
    with_options(rules, InspectionOptions::default())
}

pub(super) fn feed(inspection: &mut Tested, bytes: &[u8]) -> Disposition {
    feed_at(inspection, bytes, Timestamp::default())
}

pub(super) fn feed_frame(inspection: &mut Tested, start: Start, bytes: &[u8]) -> Disposition {
    inspection
        .inspect_frame(packet(bytes), start, Timestamp::default(), &mut Unguarded)
        .disposition
}

pub(super) fn verdict(inspection: &mut Tested, bytes: &[u8]) -> Verdict {
    inspection.inspect(packet(bytes), Timestamp::default(), &mut Unguarded)
}

fn feed_at(inspection: &mut Tested, bytes: &[u8], now: Timestamp) -> Disposition {
    inspection
        .inspect(packet(bytes), now, &mut Unguarded)
        .disposition
}

fn packet(bytes: &[u8]) -> Packet<'_> {
    Packet {
        id: PacketId(17),
        hook: 2,
        ethertype: 0x0800,
        mark: 0,
        in_interface: 3,
        out_interface: 4,
        payload: bytes,
        original_len: bytes.len() as u32,
        checksum: Checksum::Unverified,
        gso: false,
    }
}

fn tcp(to_server: bool, flags: &str, payload: &[u8]) -> Vec<u8> {
    let seq = if to_server { 5000 } else { 7000 };
    segment(to_server, flags, (seq, 1), payload)
}

/// The segment that comes after so many bytes of the client.
fn after(bytes: u32, payload: &[u8]) -> Vec<u8> {
    segment(true, "A", (5000 + bytes, 1), payload)
}

pub(super) fn segment(
    to_server: bool,
    flags: &str,
    (seq, ack): (u32, u32),
    payload: &[u8],
) -> Vec<u8> {
    let (a, b) = ([192, 0, 2, 1], [198, 51, 100, 7]);
    let mut builder = match to_server {
        true => PacketBuilder::ipv4(a, b, 60).tcp(1000, 80, seq, 9999),
        false => PacketBuilder::ipv4(b, a, 60).tcp(80, 1000, seq, 9999),
    };
    for flag in flags.chars() {
        builder = match flag {
            'S' => builder.syn(),
            'F' => builder.fin(),
            'R' => builder.rst(),
            _ => builder.ack(ack),
        };
    }
    let mut bytes = Vec::new();
    builder.write(&mut bytes, payload).unwrap();
    bytes
}

fn udp(payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    PacketBuilder::ipv4([192, 0, 2, 1], [198, 51, 100, 7], 60)
        .udp(1000, 53)
        .write(&mut bytes, payload)
        .unwrap();
    bytes
}

fn kinds(inspection: &Tested) -> Vec<&str> {
    let lines = inspection.events().0.iter();
    lines
        .map(|line| line["event_type"].as_str().unwrap())
        .collect()
}

const ACCEPT: Disposition = Disposition::Accept;
const DROP: Disposition = Disposition::Drop;

#[test]
fn an_alert_is_reported_and_the_packet_goes_on() {
    let mut inspection = with("alert tcp any any -> any 80 (content:\"bad\"; sid:1;)");
    assert_eq!(feed(&mut inspection, &tcp(true, "A", b"good")), ACCEPT);
    assert_eq!(feed(&mut inspection, &after(4, b"bad")), ACCEPT);
    assert_eq!(kinds(&inspection), ["alert"]);
    let counters = inspection.counters();
    assert_eq!(
        (counters.packets, counters.accepted, counters.alerts),
        (2, 2, 1)
    );
    assert_eq!(counters.flows.created, 1);
}

#[test]
fn other_rules_leave_what_was_decided_about_flows() {
    let mut inspection = with("drop tcp any any -> any 80 (content:\"bad\"; sid:7;)");
    assert_eq!(feed(&mut inspection, &tcp(true, "A", b"")), ACCEPT);
    assert_eq!(feed(&mut inspection, &tcp(true, "A", b"bad")), DROP);
    assert_eq!(feed(&mut inspection, &udp(b"worse")), ACCEPT);
    let options = InspectionOptions {
        flows: FlowLimits {
            max_flows: 10,
            ..FlowLimits::default()
        },
        ..inspection.options().clone()
    };
    // Longer, so that working memory for the old rules would not do.
    let rules: String = (0..50)
        .map(|sid| format!("drop udp any any -> any any (content:\"{sid} worse\"; sid:{sid};)\n"))
        .collect();
    inspection.reload(
        engine(&rules.replace("0 worse\"; sid:0;", "worse\"; sid:90;")),
        options,
    );
    assert_eq!(feed(&mut inspection, &tcp(true, "A", b"good")), DROP);
    assert_eq!(feed(&mut inspection, &udp(b"worse")), DROP);
    let counters = inspection.counters();
    assert_eq!((counters.flows.created, counters.flows.midstream), (2, 1));
    assert_eq!((counters.flow_dropped, counters.packets), (1, 5));
}

#[test]
fn a_dropped_tcp_flow_stays_dropped_and_is_convicted() {
    let mut inspection = with("drop tcp any any -> any 80 (content:\"bad\"; sid:7;)");
    assert_eq!(feed(&mut inspection, &tcp(true, "A", b"good")), ACCEPT);
    assert_eq!(feed(&mut inspection, &after(4, b"bad")), DROP);
    assert_eq!(feed(&mut inspection, &after(7, b"good")), DROP);
    assert_eq!(feed(&mut inspection, &tcp(false, "A", b"good")), DROP);
    assert_eq!(kinds(&inspection), ["alert", "drop", "drop"]);
    assert_eq!(inspection.events().0[1]["drop"]["reason"], "rules");
    let [(key, 7)] = inspection.feedback().0.as_slice() else {
        panic!("{:?}", inspection.feedback().0)
    };
    assert_eq!(*key, Decoded::parse(&tcp(true, "A", b"")).unwrap().key);
    let counters = inspection.counters();
    assert_eq!(
        (
            counters.dropped,
            counters.rule_dropped,
            counters.flow_dropped
        ),
        (3, 1, 2)
    );
}

#[test]
fn a_conviction_that_is_gone_is_asked_for_again() {
    let at = |seconds: u64| Timestamp {
        wall_us: 0,
        monotonic_ns: seconds * 1_000_000_000,
    };
    let mut inspection = with("drop tcp any any -> any 80 (content:\"bad\"; sid:7;)");
    for (seconds, asked) in [(10, 1), (10, 1), (11, 2), (11, 2), (70, 3)] {
        feed_at(&mut inspection, &tcp(true, "A", b"bad"), at(seconds));
        assert_eq!(inspection.feedback().0.len(), asked, "after {seconds} s");
    }
    assert_eq!(inspection.counters().convictions, 3);
}

#[test]
fn a_dropped_udp_packet_leaves_its_flow_alone() {
    let mut inspection = with("drop udp any any -> any 53 (content:\"bad\"; sid:7;)");
    assert_eq!(feed(&mut inspection, &udp(b"bad")), DROP);
    assert_eq!(feed(&mut inspection, &udp(b"good")), ACCEPT);
    assert!(inspection.feedback().0.is_empty());
}

/// Lets all flows in but one, and remembers what it was asked.
struct Barring(FlowKey, Vec<FlowKey>);

impl Guard for Barring {
    fn admit(&mut self, key: &FlowKey) -> bool {
        self.1.push(*key);
        *key != self.0
    }
}

#[test]
fn a_flow_that_workers_died_of_is_settled_without_inspection() {
    let rules = "drop ip any any -> any any (content:\"bad\"; sid:7;)";
    let key = Decoded::parse(&udp(b"")).unwrap().key;
    for (treatment, disposition) in [
        (Treatment::PassFlow, ACCEPT),
        (Treatment::DropPacket, DROP),
        // Nobody inspects it whatever is said.
        (Treatment::Ignore, DROP),
    ] {
        let cause = Cause::Quarantine;
        let options = InspectionOptions {
            exceptions: Treatments::default().with(cause, treatment),
            ..InspectionOptions::default()
        };
        let mut inspection = with_options(rules, options);
        let mut guard = Barring(key, Vec::new());
        let mut inspect = |bytes: &[u8]| {
            let now = Timestamp::default();
            inspection
                .inspect(packet(bytes), now, &mut guard)
                .disposition
        };
        assert_eq!(inspect(&udp(b"bad")), disposition);
        assert_eq!(inspect(&tcp(true, "A", b"bad")), DROP);
        assert_eq!(inspect(b"no packet at all"), ACCEPT);
        assert_eq!(guard.1.len(), 2, "of what has no key nobody is asked");
        let mut kinds = kinds(&inspection);
        kinds.retain(|kind| *kind != "exception");
        assert_eq!(kinds, ["alert", "drop"]);
        let counters = inspection.counters();
        let quarantined = u64::from(treatment != Treatment::Ignore);
        assert_eq!(counters.packets, 3);
        assert_eq!(counters.exceptions.applied(cause), quarantined);
        assert_eq!(counters.accepted + counters.dropped, 3);
        assert_eq!(counters.flows.created, 1);
    }
}

#[test]
fn a_rejected_flow_is_reset_at_the_right_ends_and_can_be_opened_anew() {
    for (action, ends) in [("reject", 1), ("rejectdst", 1), ("rejectboth", 2)] {
        let mut inspection = with(&format!(
            "{action} tcp any any -> any any (content:\"bad\"; sid:7;)"
        ));
        assert_eq!(feed(&mut inspection, &tcp(true, "A", b"bad")), DROP);
        let sent = &inspection.rejects().0;
        assert_eq!(sent.len(), ends, "{action}");
        for (packet, to) in sent {
            let packet = Decoded::parse(packet).unwrap();
            assert!(packet.tcp().unwrap().rst());
            assert_eq!(packet.destination(), *to);
        }
        assert_eq!(feed(&mut inspection, &tcp(true, "A", b"more")), DROP);
        assert_eq!(feed(&mut inspection, &tcp(true, "S", b"")), ACCEPT);
        assert!(inspection.feedback().0.is_empty());
        let counters = inspection.counters();
        assert_eq!((counters.rejected, counters.rejections), (1, ends as u64));
    }
}

#[test]
fn a_rejected_datagram_is_answered_each_time() {
    let mut inspection = with("reject udp any any -> any 53 (content:\"bad\"; sid:7;)");
    feed(&mut inspection, &udp(b"bad"));
    feed(&mut inspection, &udp(b"bad"));
    assert_eq!(inspection.rejects().0.len(), 2);
}

#[test]
fn a_passed_flow_is_not_inspected_any_more() {
    let mut inspection = with(
        "pass tcp any any -> any any (content:\"trusted\"; sid:1;)\n\
         drop tcp any any -> any any (content:\"bad\"; sid:2;)",
    );
    assert_eq!(
        feed(&mut inspection, &tcp(true, "A", b"trusted bad")),
        ACCEPT
    );
    assert_eq!(feed(&mut inspection, &tcp(true, "A", b"bad")), ACCEPT);
    assert!(kinds(&inspection).is_empty());
    assert_eq!(inspection.counters().passed, 2);
}

#[test]
fn what_cannot_be_decoded_goes_by_policy_and_is_counted() {
    for (treatment, verdict, applied, dropped) in [
        (Treatment::Ignore, ACCEPT, 0, 0),
        (Treatment::PassPacket, ACCEPT, 4, 0),
        (Treatment::DropPacket, DROP, 4, 4),
    ] {
        let cause = Cause::Undecodable;
        let options = InspectionOptions {
            exceptions: Treatments::default().with(cause, treatment),
            ..InspectionOptions::default()
        };
        let mut inspection = with_options("", options);
        let mut cut = tcp(true, "A", b"");
        cut[3] = 30;
        for bytes in [&[][..], &[0x45; 10], &[0x99; 40], &cut] {
            assert_eq!(feed(&mut inspection, bytes), verdict, "{treatment}");
        }
        let counters = inspection.counters();
        assert_eq!(counters.invalid.total(), 4);
        assert_eq!(counters.invalid.get(Invalid::TcpHeader), 1);
        let exceptions = counters.exceptions;
        assert_eq!(
            (exceptions.applied(cause), exceptions.dropped(cause)),
            (applied, dropped)
        );
        assert_eq!(counters.dropped, dropped);
        // One record for all of them, and one of the drop that shows its addresses.
        let kinds = kinds(&inspection);
        let told = kinds.iter().filter(|kind| **kind == "exception").count();
        assert_eq!(told, usize::from(applied > 0), "{kinds:?}");
        let drops = kinds.iter().filter(|kind| **kind == "drop").count();
        assert_eq!(drops, usize::from(dropped > 0), "{kinds:?}");
    }
}

#[test]
fn a_damaged_transport_header_hides_no_address() {
    let mut damaged = tcp(true, "S", b"");
    damaged[32] = 0x10;
    for (rules, expect) in [
        ("drop ip any any -> any any (sid:1;)", Disposition::Drop),
        ("drop tcp any any -> any any (sid:1;)", Disposition::Drop),
        ("drop udp any any -> any any (sid:1;)", Disposition::Accept),
        // Its ports cannot be read, either.
        ("drop tcp any any -> any 80 (sid:1;)", Disposition::Accept),
        (
            "drop ip 203.0.113.9 any -> any any (sid:1;)",
            Disposition::Accept,
        ),
    ] {
        let mut inspection = with(rules);
        assert_eq!(feed(&mut inspection, &damaged), expect, "{rules}");
        assert_eq!(inspection.counters().invalid.get(Invalid::TcpHeader), 1);
        // It says nothing about the connection whose ports it shows.
        assert!(
            inspection
                .flows()
                .iter()
                .all(|flow| flow.action == FlowAction::Inspect)
        );
    }
}

#[test]
fn a_new_flow_without_room_in_the_table_goes_by_policy() {
    let cause = Cause::FlowMemory;
    for (treatment, verdict, rejected) in [
        (Treatment::DropPacket, DROP, 0),
        (Treatment::PassPacket, ACCEPT, 0),
        (Treatment::Reject, DROP, 1),
    ] {
        let options = InspectionOptions {
            exceptions: Treatments::default().with(cause, treatment),
            flows: FlowLimits {
                max_flows: 1,
                spared: std::time::Duration::from_secs(10),
                ..FlowLimits::default()
            },
            ..InspectionOptions::default()
        };
        let mut inspection = with_options("alert udp any any -> any any (sid:1;)", options);
        // A connection that is complete is not given up for what may be nothing.
        let acknowledgement = segment(true, "A", (5001, 7001), b"");
        assert_eq!(feed(&mut inspection, &tcp(true, "S", b"")), ACCEPT);
        let answer = segment(false, "SA", (7000, 5001), b"");
        assert_eq!(feed(&mut inspection, &answer), ACCEPT);
        assert_eq!(feed(&mut inspection, &acknowledgement), ACCEPT);
        assert_eq!(feed(&mut inspection, &udp(b"x")), verdict, "{treatment}");
        assert_eq!(feed(&mut inspection, &acknowledgement), ACCEPT);
        let counters = inspection.counters();
        assert_eq!(counters.exceptions.applied(cause), 1);
        assert_eq!((counters.alerts, counters.rejections), (0, rejected));
        assert_eq!(kinds(&inspection), ["exception"]);
        let record = &inspection.events().0[0];
        assert_eq!(record["exception"]["cause"], "flow_memory");
        assert_eq!(record["exception"]["policy"], treatment.name());
        assert_eq!(record["src_ip"], "192.0.2.1");
    }
}

fn overloaded(rules: &str, treatment: Treatment, first_bytes: u64) -> Tested {
    let options = InspectionOptions {
        exceptions: Treatments::default().with(Cause::Overload, treatment),
        shed_first_bytes: first_bytes,
        ..InspectionOptions::default()
    };
    with_options(rules, options)
}

#[test]
fn under_overload_packets_go_by_policy_without_inspection_and_are_counted_apart() {
    let rules = "alert udp any any -> any any (content:\"x\"; sid:1;)";
    for (treatment, verdict, shed, alerts) in [
        (Treatment::PassPacket, ACCEPT, (2, 0), 2),
        (Treatment::DropPacket, DROP, (2, 2), 2),
        (Treatment::Ignore, ACCEPT, (0, 0), 4),
    ] {
        let mut inspection = overloaded(rules, treatment, 0);
        for (level, verdict) in [
            (Overload::None, ACCEPT),
            (Overload::All, verdict),
            (Overload::All, verdict),
            (Overload::None, ACCEPT),
        ] {
            inspection.set_overload(level);
            assert_eq!(feed(&mut inspection, &udp(b"x")), verdict, "{treatment}");
        }
        let counters = inspection.counters();
        let exceptions = counters.exceptions;
        let cause = Cause::Overload;
        assert_eq!((exceptions.applied(cause), exceptions.dropped(cause)), shed);
        assert_eq!(counters.alerts, alerts, "{treatment}");
        // No record of each packet that is dropped, just when there is too much to do.
        assert!(!kinds(&inspection).contains(&"drop"), "{treatment}");
    }
}

#[test]
fn a_flow_that_overload_released_or_dropped_stays_so() {
    let rules = "alert udp any any -> any any (sid:1;)";
    for (treatment, verdict) in [
        (Treatment::PassFlow, ACCEPT),
        (Treatment::Bypass, ACCEPT),
        (Treatment::DropFlow, DROP),
    ] {
        let mut inspection = overloaded(rules, treatment, 0);
        inspection.set_overload(Overload::All);
        assert_eq!(feed(&mut inspection, &udp(b"x")), verdict, "{treatment}");
        inspection.set_overload(Overload::None);
        assert_eq!(feed(&mut inspection, &udp(b"x")), verdict, "{treatment}");
        let counters = inspection.counters();
        assert_eq!(counters.exceptions.applied(Cause::Overload), 1);
        assert_eq!(counters.alerts, 0, "{treatment}");
    }
}

#[test]
fn what_was_decided_before_the_overload_holds_under_it() {
    let rules = "drop tcp any any -> any 80 (content:\"bad\"; sid:7;)";
    let mut inspection = overloaded(rules, Treatment::PassPacket, 0);
    assert_eq!(feed(&mut inspection, &tcp(true, "A", b"bad")), DROP);
    inspection.set_overload(Overload::All);
    assert_eq!(feed(&mut inspection, &tcp(true, "A", b"more")), DROP);
    assert_eq!(inspection.counters().flow_dropped, 1);
}

#[test]
fn first_shed_are_flows_that_were_inspected_for_long_without_a_match() {
    let rules = "alert udp any any -> any any (content:\"evil\"; sid:1;)";
    let mut inspection = overloaded(rules, Treatment::PassPacket, 100);
    let shed = |inspection: &Tested| inspection.counters().exceptions.applied(Cause::Overload);
    inspection.set_overload(Overload::Some);
    // 28 bytes of headers each.
    for expected in [0, 0, 1, 2] {
        feed(&mut inspection, &udp(&[0; 22]));
        assert_eq!(shed(&inspection), expected);
    }
    // What was not inspected does not make it less risky; a new flow is inspected.
    feed(&mut inspection, &tcp(true, "A", &[0; 200]));
    assert_eq!(shed(&inspection), 2);
    let mut inspection = overloaded(rules, Treatment::PassPacket, 100);
    inspection.set_overload(Overload::Some);
    for payload in [&b"evil"[..], &[0; 1000], &[0; 1000]] {
        feed(&mut inspection, &udp(payload));
    }
    assert_eq!(shed(&inspection), 0);
}

#[test]
fn an_icmp_error_frees_no_connection_from_inspection() {
    let attack = tcp(true, "PA", b"attack");
    let mut error = Vec::new();
    PacketBuilder::ipv4([198, 51, 100, 7], [192, 0, 2, 1], 64)
        .icmpv4_raw(3, 1, [0; 4])
        .write(&mut error, &attack)
        .unwrap();
    let mut inspection = with(
        "pass icmp any any -> any any (sid:1;)\n\
         drop tcp any any -> any any (content:\"attack\"; sid:2;)",
    );
    feed(&mut inspection, &tcp(true, "A", b""));
    assert_eq!(feed(&mut inspection, &error), Disposition::Accept);
    assert_eq!(feed(&mut inspection, &attack), Disposition::Drop);
}

#[test]
fn every_dropped_packet_can_be_recorded() {
    for (flows, expect) in [
        (Some(DropFlows::All), &["alert", "drop", "drop"][..]),
        (Some(DropFlows::Start), &["alert", "drop"]),
        (None, &["alert"]),
    ] {
        let mut options = InspectionOptions::default();
        options.records.types.drop = flows.map(|flows| DropRecords {
            flows,
            ..DropRecords::default()
        });
        let mut inspection = with_options("drop tcp any any -> any any (sid:7;)", options);
        feed(&mut inspection, &tcp(true, "S", b""));
        feed(&mut inspection, &tcp(true, "S", b""));
        assert_eq!(kinds(&inspection), expect);
    }
}

#[test]
fn where_nothing_can_be_dropped_rules_that_would_report() {
    let options = InspectionOptions {
        ips: false,
        ..InspectionOptions::default()
    };
    let rules = "drop tcp any any -> any 80 (sid:7;)\nreject udp any any -> any any (sid:8;)";
    let mut inspection = with_options(rules, options);
    assert_eq!(feed(&mut inspection, &tcp(true, "S", b"")), ACCEPT);
    assert_eq!(feed(&mut inspection, &tcp(true, "S", b"")), ACCEPT);
    assert_eq!(feed(&mut inspection, &udp(b"")), ACCEPT);
    assert_eq!(kinds(&inspection), ["alert", "alert", "alert"]);
    let events = &inspection.events().0;
    assert_eq!(events[0]["alert"]["action"], "allowed");
    assert_eq!(events[0]["verdict"], serde_json::json!({"action": "alert"}));
    assert_eq!(events[2]["alert"]["action"], "blocked");
    assert_eq!(events[2]["verdict"]["action"], "alert");
    assert_eq!(events[2]["verdict"]["reject"][0], "icmp-prohib");
    let counters = inspection.counters();
    assert_eq!((counters.dropped, counters.rejections), (0, 1));
}

#[test]
fn packets_and_verdicts_can_be_watched() {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let mut inspection = with("drop udp any any -> any any (content:\"bad\"; sid:7;)");
    inspection.trace = Some(Box::new(Collected(Rc::clone(&seen))));
    feed(&mut inspection, &tcp(true, "SA", b""));
    feed(&mut inspection, &udp(b"bad"));
    feed(&mut inspection, &[0x45]);
    assert_eq!(
        *seen.borrow(),
        [
            "#17 tcp 192.0.2.1:1000 > 198.51.100.7:80 SA 40 bytes: accept",
            "#17 udp 192.0.2.1:1000 > 198.51.100.7:53 31 bytes: drop, sid 7",
            "#17 1 bytes: accept, incomplete or malformed IPv4 header",
        ]
    );
}

/// The parts of the datagram of [`udp`].
fn fragments(payload: &[u8]) -> [Vec<u8>; 2] {
    let whole = udp(payload);
    let part = |flags_and_offset: u16, data: &[u8]| {
        let mut bytes = whole[..20].to_vec();
        bytes[2..4].copy_from_slice(&(20 + data.len() as u16).to_be_bytes());
        bytes[6..8].copy_from_slice(&flags_and_offset.to_be_bytes());
        bytes[10..12].fill(0);
        let sum = !crate::decode::checksum::sum(0, &bytes);
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        bytes.extend(data);
        bytes
    };
    [part(0x2000, &whole[20..36]), part(2, &whole[36..])]
}

#[test]
fn the_fragment_that_completes_a_datagram_has_its_verdict() {
    let rule = "drop udp any any -> any 53 (content:\"across the cut\"; sid:9;)";
    let mut inspection = with(rule);
    let [first, last] = fragments(b"it goes across the cut");
    assert_eq!(feed(&mut inspection, &first), Disposition::Accept);
    assert_eq!(feed(&mut inspection, &last), Disposition::Drop);
    assert_eq!(inspection.counters().rule_dropped, 1);
    assert_eq!(inspection.counters().flows.created, 1);
    // Nothing that is repeated completes it afterwards.
    for again in [&last, &first, &last] {
        assert_eq!(feed(&mut inspection, again), Disposition::Drop);
    }
    let counters = inspection.counters();
    assert_eq!(counters.fragments_refused, 3);
    assert_eq!((counters.accepted, counters.dropped), (1, 4));
    let records = &inspection.events().0;
    let reasons: Vec<_> = records
        .iter()
        .filter(|record| record["event_type"] == "drop")
        .map(|record| record["drop"]["reason"].as_str().unwrap())
        .collect();
    assert_eq!(
        reasons,
        ["rules", "defrag error", "defrag error", "defrag error"]
    );
    let alert = records
        .iter()
        .find(|record| record["event_type"] == "alert");
    assert_eq!(alert.unwrap()["pkt_src"], "defrag");
}

#[test]
fn fragments_without_room_go_by_policy() {
    for (treatment, disposition) in [
        (Treatment::DropPacket, Disposition::Drop),
        (Treatment::PassPacket, Disposition::Accept),
        (Treatment::Ignore, Disposition::Accept),
    ] {
        let cause = Cause::DefragMemory;
        let options = InspectionOptions {
            exceptions: Treatments::default().with(cause, treatment),
            defrag: DefragOptions {
                max_trackers: 0,
                ..DefragOptions::default()
            },
            ..InspectionOptions::default()
        };
        let mut inspection = with_options("alert udp any any -> any 53 (sid:1;)", options);
        let [first, _] = fragments(b"it goes across the cut");
        assert_eq!(feed(&mut inspection, &first), disposition, "{treatment}");
        let counters = inspection.counters();
        let ignored = treatment == Treatment::Ignore;
        assert_eq!(counters.exceptions.applied(cause), u64::from(!ignored));
        // What can be seen of it alone is inspected.
        assert_eq!(counters.alerts, u64::from(ignored));
    }
}

#[test]
fn what_rules_have_given_up_on_goes_by_policy() {
    let cause = Cause::InspectionLimit;
    // Exponential at each place; then a rule that holds.
    let endless = r#"alert udp any any -> any 53 (content:"a"; pcre:"/(?:a|aa)+(?=b)n/"; sid:1;)"#;
    let drops = r#"drop udp any any -> any 53 (content:"evil"; sid:2;)"#;
    let passes = r#"pass udp any any -> any 53 (content:"good"; sid:3;)"#;
    let rules = format!("{endless}\n{drops}\n{passes}\n");
    let long = |end: &[u8]| udp(&[&[b'a'; 20_000][..], end, b" n"].concat());
    for (treatment, disposition) in [
        (Treatment::Ignore, Disposition::Accept),
        (Treatment::PassPacket, Disposition::Accept),
        (Treatment::DropPacket, Disposition::Drop),
    ] {
        let options = InspectionOptions {
            exceptions: Treatments::default().with(cause, treatment),
            ..InspectionOptions::default()
        };
        let mut inspection = with_options(&rules, options);
        assert_eq!(feed(&mut inspection, &udp(b"a")), Disposition::Accept);
        assert_eq!(
            feed(&mut inspection, &long(b"")),
            disposition,
            "{treatment}"
        );
        let excepted = u64::from(treatment != Treatment::Ignore);
        let counters = inspection.counters();
        assert_eq!(counters.searches_given_up, 1);
        assert_eq!(counters.exceptions.applied(cause), excepted);
        let dropped = u64::from(disposition == Disposition::Drop);
        assert_eq!(counters.exceptions.dropped(cause), dropped);
        let records = kinds(&inspection);
        assert_eq!(records.contains(&"drop"), dropped > 0, "{records:?}");
        // What rules have decided stands.
        assert_eq!(feed(&mut inspection, &long(b"good")), Disposition::Accept);
        assert_eq!(inspection.counters().exceptions.applied(cause), excepted);
    }
    let mut inspection = with(&rules);
    assert_eq!(feed(&mut inspection, &long(b"evil")), Disposition::Drop);
}

#[test]
fn fragments_out_of_order_go_by_policy() {
    let cause = Cause::FragmentOrder;
    let options = InspectionOptions {
        exceptions: Treatments::default().with(cause, Treatment::DropPacket),
        defrag: DefragOptions {
            ordered: true,
            ..DefragOptions::default()
        },
        ..InspectionOptions::default()
    };
    let mut inspection = with_options("alert ip any any -> any any (sid:1;)", options);
    let [first, last] = fragments(b"it goes across the cut");
    assert_eq!(feed(&mut inspection, &last), Disposition::Drop);
    assert_eq!(feed(&mut inspection, &first), Disposition::Accept);
    assert_eq!(feed(&mut inspection, &last), Disposition::Accept);
    let counters = inspection.counters();
    assert_eq!(counters.exceptions.dropped(cause), 1);
    assert_eq!((counters.defrag.ipv4_reassembled, counters.dropped), (1, 1));
}

#[test]
fn a_drop_in_a_tunnel_drops_the_tunnel_and_convicts_nobody() {
    let inner = tcp(true, "A", b"evil");
    let mut outer = udp(b"");
    outer.truncate(20);
    outer[9] = 4;
    outer[2..4].copy_from_slice(&(20 + inner.len() as u16).to_be_bytes());
    outer.extend(&inner);
    let mut inspection = with("drop tcp any any -> any 80 (content:\"evil\"; sid:3;)");
    assert_eq!(feed(&mut inspection, &outer), Disposition::Drop);
    let counters = inspection.counters();
    assert_eq!((counters.packets, counters.dropped), (1, 1));
    assert_eq!(counters.convictions, 0);
    assert!(inspection.rejects().0.is_empty());
    // The same connection outside is another one.
    let good = tcp(true, "A", b"good");
    assert_eq!(feed(&mut inspection, &good), Disposition::Accept);
    assert_eq!(feed(&mut inspection, &after(4, b"evil")), Disposition::Drop);
    assert_eq!(inspection.counters().convictions, 1);
}

mod streams;

proptest! {
    #[test]
    fn every_packet_is_counted_once_whatever_its_bytes(
        packets in proptest::collection::vec(
            (any::<bool>(), proptest::collection::vec((0usize..60, any::<u8>()), 0..4), 0usize..70),
            0..40,
        ),
    ) {
        let mut inspection = with(
            "drop tcp any any -> any any (content:\"x\"; sid:1;)\n\
             rejectboth ip any any <> any any (content:\"y\"; depth:9; sid:2;)\n\
             pass udp any any -> any 54 (sid:3;)\n\
             alert ip any any -> any any (sid:4;)",
        );
        for (kind, changes, length) in &packets {
            let mut bytes = if *kind { tcp(true, "A", b"abcxyz") } else { udp(b"abcyz") };
            for (at, byte) in changes {
                if let Some(slot) = bytes.get_mut(*at) { *slot = *byte; }
            }
            bytes.truncate(*length);
            feed(&mut inspection, &bytes);
        }
        let counters = inspection.counters();
        prop_assert_eq!(counters.packets, packets.len() as u64);
        prop_assert_eq!(counters.packets, counters.accepted + counters.dropped);
        prop_assert_eq!(
            counters.dropped,
            counters.rule_dropped
                + counters.flow_dropped
                + counters.fragments_refused
                + counters.stream_dropped
                + counters.exceptions.all_dropped()
        );
    }
}
