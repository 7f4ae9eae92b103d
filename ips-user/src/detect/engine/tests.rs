use etherparse::{IcmpEchoHeader, Icmpv4Type, PacketBuilder};
use proptest::prelude::*;

use super::*;
use crate::detect::Daachorse;
use crate::rules::{RuleSet, RuleSource};

fn engine(rules: &str) -> Engine {
    let loaded = RuleSet::default().load_sources(&[RuleSource::new("t.rules", rules.into())]);
    let told: Vec<String> = loaded
        .diagnostics
        .iter()
        .map(crate::rules::Diagnostic::render)
        .collect();
    assert!(told.is_empty(), "{}", told.concat());
    Engine::compile(loaded.rules, Daachorse::build).unwrap()
}

fn tcp(source: (&str, u16), destination: (&str, u16), payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let address = |text: &str| text.parse::<std::net::Ipv4Addr>().unwrap().octets();
    PacketBuilder::ipv4(address(source.0), address(destination.0), 64)
        .tcp(source.1, destination.1, 1, 1024)
        .write(&mut bytes, payload)
        .unwrap();
    bytes
}

fn udp6(payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    PacketBuilder::ipv6([1; 16], [2; 16], 64)
        .udp(1000, 53)
        .write(&mut bytes, payload)
        .unwrap();
    bytes
}

fn ping(payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    PacketBuilder::ipv4([1, 1, 1, 1], [2, 2, 2, 2], 64)
        .icmpv4(Icmpv4Type::EchoRequest(IcmpEchoHeader { id: 1, seq: 1 }))
        .write(&mut bytes, payload)
        .unwrap();
    bytes
}

/// Sids that match, in order; a pass rule last and negative.
fn sids(engine: &Engine, packet: &[u8]) -> Vec<i64> {
    let mut scratch = engine.scratch();
    let detection = engine.inspect(&Decoded::parse(packet).unwrap(), &mut scratch);
    let sid = |index: RuleIndex| i64::from(engine.rule(index).options.signature_id);
    let matched = detection.matches.iter().map(|&index| sid(index));
    matched
        .chain(detection.passed_by.map(|index| -sid(index)))
        .collect()
}

fn check(rules: &str, packet: &[u8], expect: &[i64]) {
    assert_eq!(sids(&engine(rules), packet), expect, "{rules}");
}

#[test]
fn headers_decide_without_contents() {
    let web = tcp(("203.0.113.9", 4000), ("192.168.1.1", 80), b"");
    let back = tcp(("192.168.1.1", 80), ("203.0.113.9", 4000), b"");
    let toward = "alert tcp $EXTERNAL_NET any -> $HOME_NET 80 (sid:1;)";
    check(toward, &web, &[1]);
    check(toward, &back, &[]);
    let either = "alert tcp $EXTERNAL_NET any <> $HOME_NET 80 (sid:1;)";
    check(either, &web, &[1]);
    check(either, &back, &[1]);
    check("alert tcp any any -> any !80 (sid:1;)", &web, &[]);
    check("alert tcp any 1:3999 -> any any (sid:1;)", &web, &[]);
}

#[test]
fn protocols_select_packets() {
    let rules = "alert tcp any any -> any any (sid:1;)\n\
                 alert udp any any -> any any (sid:2;)\n\
                 alert icmp any any -> any any (sid:3;)\n\
                 alert ip any any -> any any (sid:4;)\n\
                 alert ipv4 any any -> any any (sid:5;)\n\
                 alert ipv6 any any -> any any (sid:6;)\n\
                 alert icmpv6 any any -> any any (sid:7;)\n\
                 alert sctp any any -> any any (sid:8;)\n\
                 alert icmpv4 any any -> any any (sid:9;)\n";
    check(rules, &tcp(("1.1.1.1", 1), ("2.2.2.2", 2), b""), &[1, 4, 5]);
    check(rules, &udp6(b"x"), &[2, 4, 6]);
    check(rules, &ping(b"x"), &[3, 4, 5, 9]);
    let mut sctp = ping(&[0; 12]);
    sctp[9] = 132;
    check(rules, &sctp, &[4, 5, 8]);
}

#[test]
fn contents_decide_on_the_payload_only() {
    let rules = "alert tcp any any -> any any (content:\"attack\"; nocase; sid:1;)\n\
                 alert tcp any any -> any any (content:\"Attack\"; sid:2;)\n\
                 alert tcp any any -> any any (content:!\"attack\"; sid:3;)\n\
                 alert ip any any -> any any (content:\"att\"; sid:4;)\n";
    let packet = |payload: &[u8]| tcp(("1.1.1.1", 1), ("2.2.2.2", 2), payload);
    check(rules, &packet(b"an attack"), &[1, 4]);
    check(rules, &packet(b"an Attack"), &[1, 2, 3]);
    check(rules, &packet(b"nothing"), &[3]);
    check(rules, &packet(b""), &[]);
    check(rules, &udp6(b"an attack"), &[4]);
    check(
        "alert icmp any any -> any any (content:\"abc\"; depth:3; sid:1;)",
        &ping(b"abcd"),
        &[1],
    );
}

#[test]
fn actions_and_priorities_give_the_order() {
    let rules = "alert ip any any -> any any (priority:3; sid:1;)\n\
                 alert ip any any -> any any (priority:1; sid:2;)\n\
                 reject ip any any -> any any (sid:3;)\n\
                 drop ip any any -> any any (sid:4;)\n\
                 alert ip any any -> any any (priority:1; sid:5;)\n";
    check(rules, &ping(b"x"), &[4, 3, 2, 5, 1]);
    let with_pass = format!("{rules}pass ip any any -> any any (content:\"y\"; sid:9;)\n");
    check(&with_pass, &ping(b"x"), &[4, 3, 2, 5, 1]);
    check(&with_pass, &ping(b"y"), &[-9]);
}

#[test]
fn noalert_acts_but_does_not_report() {
    check(
        "alert ip any any -> any any (noalert; sid:1;)",
        &ping(b"x"),
        &[],
    );
    check(
        "drop ip any any -> any any (noalert; sid:1;)",
        &ping(b"x"),
        &[1],
    );
}

#[test]
fn alerts_beyond_the_limit_are_counted_and_drops_come_first() {
    let mut rules = String::new();
    for sid in 1..=20 {
        rules += &format!("alert ip any any -> any any (content:\"x\"; sid:{sid};)\n");
    }
    rules += "drop ip any any -> any any (content:\"x\"; sid:99;)\n";
    let engine = engine(&rules);
    let mut scratch = engine.scratch();
    let bytes = ping(b"x");
    let detection = engine.inspect(&Decoded::parse(&bytes).unwrap(), &mut scratch);
    assert_eq!(detection.matches.len(), PACKET_ALERT_MAX);
    assert_eq!(detection.beyond_limit, 6);
    assert_eq!(engine.rule(detection.matches[0]).options.signature_id, 99);
}

#[test]
fn working_memory_carries_nothing_from_packet_to_packet() {
    let engine = engine("alert ip any any -> any any (content:\"abc\"; sid:1;)");
    let mut scratch = engine.scratch();
    for (payload, expect) in [("abc", 1), ("xyz", 0), ("", 0), ("xabcabc", 1), ("ab", 0)] {
        let bytes = ping(payload.as_bytes());
        let detection = engine.inspect(&Decoded::parse(&bytes).unwrap(), &mut scratch);
        assert_eq!(detection.matches.len(), expect, "{payload}");
    }
}

#[test]
fn an_engine_without_rules_finds_nothing() {
    let engine = engine("");
    assert_eq!(engine.rule_count(), 0);
    check("", &ping(b"x"), &[]);
}

#[test]
fn an_engine_can_be_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Engine>();
}

proptest! {
    /// The prefilter only leaves out rules that cannot match.
    #[test]
    fn the_prefilter_changes_no_result(
        patterns in proptest::collection::vec(("[abAB]{1,4}", any::<bool>(), any::<bool>()), 1..12),
        payload in "[abAB]{0,30}",
    ) {
        let mut rules = String::new();
        let mut expect = Vec::new();
        for (sid, (pattern, nocase, negated)) in (1..).zip(&patterns) {
            let bang = if *negated { "!" } else { "" };
            let case = if *nocase { "nocase;" } else { "" };
            rules += &format!("alert ip any any -> any any (content:{bang}\"{pattern}\"; {case} sid:{sid};)\n");
            let found = if *nocase {
                payload.to_ascii_lowercase().contains(&pattern.to_ascii_lowercase())
            } else {
                payload.contains(pattern.as_str())
            };
            if found != *negated && !payload.is_empty() { expect.push(sid); }
        }
        prop_assert_eq!(sids(&engine(&rules), &ping(payload.as_bytes())), expect);
    }
}
