use etherparse::PacketBuilder;
use serde_json::{Value, json};

use super::*;
use crate::flow::{FlowLimits, FlowTable};
use crate::rules::{RuleSet, RuleSource};

const TIME: Timestamp = Timestamp {
    wall_us: 1_695_017_621_532_140,
    monotonic_ns: 0,
};

fn rule(text: &str) -> Rule {
    let mut loaded = RuleSet::default().load_sources(&[RuleSource::new("t", text.into())]);
    loaded.rules.remove(0)
}

fn record(
    bytes: &[u8],
    outcome: Outcome,
    build: impl Fn(&PacketContext<'_>, &mut Vec<u8>),
) -> Value {
    let packet = Decoded::parse(bytes).unwrap();
    let mut flows = FlowTable::new(FlowLimits::default(), [1, 2]);
    let flow = flows.packet(&packet, TIME).unwrap();
    let flow = flow.map(|(flow, way)| (&*flow, way));
    let context = PacketContext {
        noted: None,
        time: TIME,
        utc_offset_s: 0,
        packet: &packet,
        flow,
        in_interface: Some("eth0"),
        out_interface: None,
        outcome,
        capture: None,
        records: &Records::default(),
        ips: true,
    };
    let mut line = b"left over".to_vec();
    build(&context, &mut line);
    assert!(!line.contains(&b'\n'));
    let mut value: Value = serde_json::from_slice(&line).unwrap();
    let id = value.as_object_mut().unwrap().remove("flow_id");
    assert!(id.is_some_and(|id| id.as_u64().unwrap() < 1 << 53));
    value
}

fn tcp() -> Vec<u8> {
    let mut bytes = Vec::new();
    PacketBuilder::ipv4([192, 0, 2, 1], [198, 51, 100, 7], 61)
        .tcp(1000, 80, 5000, 99)
        .ack(7000)
        .psh()
        .write(&mut bytes, b"hello")
        .unwrap();
    bytes
}

#[test]
fn an_alert_has_the_fields_of_suricata() {
    let rule = rule(
        "reject tcp any any -> any any (msg:\"a \\\"b\\\"\"; classtype:trojan-activity; sid:7; rev:2; \
         metadata:tag x, tag y, k v;)",
    );
    let outcome = Outcome::Reject(RejectTarget::Source);
    let value = record(&tcp(), outcome, |context, line| {
        alert(context, (&rule, rule.action), (Matched::Packet, None), line);
    });
    let time = "2023-09-18T06:13:41.532140+0000";
    assert_eq!(
        value,
        json!({
            "timestamp": time, "in_iface": "eth0", "event_type": "alert",
            "src_ip": "192.0.2.1", "src_port": 1000,
            "dest_ip": "198.51.100.7", "dest_port": 80,
            "proto": "TCP", "ip_v": 4, "pkt_src": "wire/pcap",
            "alert": {
                "action": "blocked", "gid": 1, "signature_id": 7, "rev": 2,
                "signature": "a \"b\"", "category": "A Network Trojan was detected",
                "severity": 1, "metadata": {"tag": ["x", "y"], "k": ["v"]},
            },
            "verdict": {"action": "drop", "reject-target": "to_client", "reject": ["tcp-reset"]},
            "direction": "to_server",
            "flow": {
                "pkts_toserver": 1, "pkts_toclient": 0,
                "bytes_toserver": 45, "bytes_toclient": 0, "start": time,
                "src_ip": "192.0.2.1", "dest_ip": "198.51.100.7",
                "src_port": 1000, "dest_port": 80,
            },
        })
    );
}

#[test]
fn an_alert_that_only_reports_says_so() {
    let rule = rule("alert tcp any any -> any any (sid:7;)");
    let value = record(&tcp(), Outcome::Accept, |context, line| {
        alert(context, (&rule, rule.action), (Matched::Packet, None), line);
    });
    assert_eq!(value["alert"]["action"], "allowed");
    assert_eq!(value["verdict"], json!({"action": "alert"}));
    assert_eq!(value["alert"]["category"], "");
    assert_eq!(value["alert"]["severity"], 3);
}

#[test]
fn a_drop_shows_the_headers() {
    let value = record(&tcp(), Outcome::Drop, |context, line| {
        drop(context, DropReason::Flow, None, line);
    });
    assert_eq!(value["event_type"], "drop");
    assert_eq!(
        value["drop"],
        json!({
            "len": 45, "tos": 0, "ttl": 61, "ipid": 0, "tcpseq": 5000, "tcpack": 7000,
            "tcpwin": 99, "syn": false, "ack": true, "psh": true, "rst": false, "urg": false,
            "fin": false, "tcpres": 0, "tcpurgp": 0, "reason": "flow drop",
        })
    );
    assert_eq!(value.get("alert"), None);
    let mut udp = Vec::new();
    PacketBuilder::ipv6([1; 16], [2; 16], 9)
        .udp(1, 2)
        .write(&mut udp, b"abc")
        .unwrap();
    let rule = rule("drop udp any any -> any any (sid:9;)");
    let value = record(&udp, Outcome::Drop, |context, line| {
        drop(context, DropReason::Rules, Some((&rule, rule.action)), line);
    });
    assert_eq!(
        value["drop"],
        json!({"len": 51, "tc": 0, "hoplimit": 9, "flowlbl": 0, "udplen": 11, "reason": "rules"})
    );
    assert_eq!(value["alert"]["signature_id"], 9);
}

#[test]
fn times_are_local_with_a_numeric_offset() {
    let check = |offset: i32, expect: &str| {
        assert_eq!(Time::new(TIME, offset).to_string(), expect);
    };
    check(0, "2023-09-18T06:13:41.532140+0000");
    check(7200, "2023-09-18T08:13:41.532140+0200");
    check(-12_600, "2023-09-18T02:43:41.532140-0330");
}

#[test]
fn stats_hold_the_given_tree() {
    let line = own(
        TIME,
        0,
        "stats",
        &json!({"uptime": 3, "capture": {"kernel_packets": 5}}),
    );
    let value: Value = serde_json::from_slice(&line).unwrap();
    assert_eq!(value["event_type"], "stats");
    assert_eq!(value["stats"]["capture"]["kernel_packets"], 5);
}

#[test]
fn an_incident_names_the_flow_that_it_is_about_if_there_is_one() {
    let details = json!({"event": "worker_died", "deaths": 1});
    let key = Decoded::parse(&tcp()).unwrap().key;
    let line = incident(TIME, 0, Some(&key), &details);
    let value: Value = serde_json::from_slice(&line).unwrap();
    assert_eq!(value["event_type"], "sluice");
    assert_eq!(value["sluice"], details);
    assert_eq!(
        (&value["proto"], &value["ip_v"]),
        (&json!("TCP"), &json!(4))
    );
    let mut ends = [&value["src_ip"], &value["dest_ip"]].map(|end| end.as_str().unwrap());
    ends.sort_unstable();
    assert_eq!(ends, ["192.0.2.1", "198.51.100.7"]);
    assert!(value["src_port"].is_u64() && value["dest_port"].is_u64());

    let line = incident(TIME, 0, None, &details);
    let value: Value = serde_json::from_slice(&line).unwrap();
    assert_eq!(value.as_object().unwrap().len(), 3, "{value}");
}
