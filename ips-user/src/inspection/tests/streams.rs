//! Connections: what crosses packets, what is rewritten, what is left at the end.

use super::*;
use crate::decode::Validity;
use crate::reassembly::tcp::StreamOptions;

fn watching() -> InspectionOptions {
    InspectionOptions {
        ips: false,
        stream: StreamOptions::default(),
        ..InspectionOptions::default()
    }
}

/// A handshake; the next byte of the client is 5001, of the server 7001.
fn open(inspection: &mut Tested) {
    for (to_server, flags, numbers) in [
        (true, "S", (5000, 0)),
        (false, "SA", (7000, 5001)),
        (true, "A", (5001, 7001)),
    ] {
        let bytes = segment(to_server, flags, numbers, b"");
        assert_eq!(feed(inspection, &bytes), ACCEPT);
    }
}

fn client(seq: u32, payload: &[u8]) -> Vec<u8> {
    segment(true, "A", (5001 + seq, 7001), payload)
}

#[test]
fn the_packet_that_completes_a_match_is_dropped_and_its_flow_convicted() {
    let rule = "drop tcp any any -> any 80 (flow:established,to_server; content:\"evil\"; sid:7;)";
    let mut options = InspectionOptions::default();
    let alerts = options.records.types.alert.get_or_insert_default();
    alerts.payload_printable = true;
    let mut inspection = with_options(rule, options);
    open(&mut inspection);
    // The end first: it goes on, and waits for what makes it one.
    assert_eq!(feed(&mut inspection, &client(2, b"il!")), ACCEPT);
    assert_eq!(feed(&mut inspection, &client(0, b"ev")), DROP);
    assert_eq!(feed(&mut inspection, &client(5, b"more")), DROP);
    let alert = &inspection.events().0[0];
    assert_eq!(
        (&alert["event_type"], &alert["stream"]),
        (&"alert".into(), &1.into())
    );
    let counters = inspection.counters();
    assert_eq!((counters.rule_dropped, counters.flow_dropped), (1, 1));
    assert_eq!(counters.convictions, 1);
    // Nothing of a decided flow is kept.
    assert_eq!(counters.stream.active_sessions, 0);
}

#[test]
fn data_that_a_syn_carries_is_that_of_a_packet_and_of_the_stream() {
    let rules = "drop tcp any any -> any 80 (content:\"evil\"; sid:7;)";
    let syn = |payload| segment(true, "S", (5000, 0), payload);
    let mut inspection = with(rules);
    assert_eq!(feed(&mut inspection, &syn(b"evil")), DROP);
    // Most receivers do not take it: it is the packet that is dropped.
    assert_eq!(inspection.counters().convictions, 0);
    assert_eq!(feed(&mut inspection, &syn(b"good")), ACCEPT);
    let mut inspection = with(rules);
    assert_eq!(feed(&mut inspection, &syn(b"ev")), ACCEPT);
    let answer = segment(false, "SA", (7000, 5003), b"");
    assert_eq!(feed(&mut inspection, &answer), ACCEPT);
    assert_eq!(feed(&mut inspection, &client(2, b"il")), DROP);
    assert_eq!(inspection.counters().convictions, 1);
}

#[test]
fn rules_about_established_connections_see_what_arrives_before_the_handshake_ends() {
    let rule = "drop tcp any any -> any 80 (flow:established,to_server; content:\"evil\"; sid:7;)";
    let syn = |payload| segment(true, "S", (5000, 0), payload);
    let answer = segment(false, "SA", (7000, 5001), b"");
    // With the SYN: fast open, asked for or not.
    let mut inspection = with(rule);
    assert_eq!(feed(&mut inspection, &syn(b"evil")), DROP);
    assert_eq!(inspection.counters().convictions, 0);
    assert_eq!(feed(&mut inspection, &syn(b"good")), ACCEPT);
    // With the ACK that completes the handshake.
    let mut inspection = with(rule);
    assert_eq!(feed(&mut inspection, &syn(b"")), ACCEPT);
    assert_eq!(feed(&mut inspection, &answer), ACCEPT);
    assert_eq!(feed(&mut inspection, &client(0, b"evil")), DROP);
    assert_eq!(inspection.counters().convictions, 1);
    // A rule that asks for the opposite still has its say.
    let mut inspection = with("drop tcp any any -> any 80 (flow:not_established; flags:S; sid:8;)");
    assert_eq!(feed(&mut inspection, &syn(b"good")), DROP);
}

#[test]
fn bypass_releases_the_flow_and_is_recorded() {
    let rule = "pass udp any any -> any 53 (content:\"trusted\"; bypass; sid:7;)\n\
                drop udp any any -> any 53 (content:\"evil\"; sid:8;)";
    let mut options = InspectionOptions::default();
    options.records.types.flow = Some(Default::default());
    let mut inspection = with_options(rule, options);
    assert_eq!(feed(&mut inspection, &udp(b"trusted")), ACCEPT);
    assert_eq!(feed(&mut inspection, &udp(b"evil")), ACCEPT);
    inspection.finish(Timestamp::default());
    assert_eq!(inspection.events().0[0]["flow"]["state"], "bypassed");
}

#[test]
fn a_dropped_packet_leaves_no_data_behind() {
    let rules = "drop tcp any any -> any 80 (content:\"evil\"; dsize:4; sid:7;)\n\
                 drop tcp any any -> any 80 (content:\"evil works\"; sid:8;)";
    let mut inspection = with(rules);
    open(&mut inspection);
    assert_eq!(feed(&mut inspection, &client(0, b"evil")), DROP);
    // Another four bytes in their place.
    assert_eq!(feed(&mut inspection, &client(0, b"good")), ACCEPT);
    assert_eq!(feed(&mut inspection, &client(4, b" works")), ACCEPT);
    assert_eq!(inspection.counters().stream.rewritten, 0);
}

#[test]
fn other_data_for_the_same_place_is_rewritten_to_what_was_inspected() {
    let mut inspection = with("drop tcp any any -> any 80 (content:\"evil\"; sid:7;)");
    open(&mut inspection);
    assert_eq!(feed(&mut inspection, &client(0, b"good")), ACCEPT);
    let again = client(0, b"evil!");
    let verdict = inspection.inspect(packet(&again), Timestamp::default(), &mut Unguarded);
    assert_eq!(verdict.disposition, ACCEPT);
    let replacement = verdict.replacement.unwrap();
    let delivered = Decoded::parse(&replacement).unwrap();
    assert_eq!(delivered.payload, b"good!");
    assert_eq!(delivered.transport_checksum(), Validity::Valid);
    assert_eq!(inspection.counters().replaced, 1);
    // What the kernel has shown a part of cannot be changed.
    let other = client(0, b"else!");
    let mut cut = packet(&other);
    cut.original_len += 1;
    let verdict = inspection.inspect(cut, Timestamp::default(), &mut Unguarded);
    assert_eq!(verdict, Verdict::DROP);
    assert_eq!(inspection.counters().stream_dropped, 1);
}

#[test]
fn a_rule_replaces_in_segments_and_datagrams_with_right_checksums() {
    let rules = "alert tcp any any -> any 80 (content:\"evil\"; replace:\"good\"; sid:7;)\n\
                 alert udp any any -> any 53 (content:\"evil\"; replace:\"good\"; sid:8;)";
    let mut inspection = with(rules);
    open(&mut inspection);
    for bytes in [client(0, b"an evil word"), udp(b"an evil word")] {
        let verdict = inspection.inspect(packet(&bytes), Timestamp::default(), &mut Unguarded);
        assert_eq!(verdict.disposition, ACCEPT);
        let replacement = verdict.replacement.unwrap();
        let delivered = Decoded::parse(&replacement).unwrap();
        assert_eq!(delivered.payload, b"an good word");
        assert_eq!(delivered.transport_checksum(), Validity::Valid);
        assert_eq!(delivered.ip_checksum(), Validity::Valid);
    }
    assert_eq!(inspection.counters().replaced, 2);
    let mut inspection = with_options(rules, watching());
    let verdict = inspection.inspect(packet(&udp(b"evil")), Timestamp::default(), &mut Unguarded);
    assert_eq!(verdict, Verdict::ACCEPT);
}

#[test]
fn what_no_receiver_takes_is_dropped_and_counted() {
    let mut inspection = with("");
    open(&mut inspection);
    assert_eq!(feed(&mut inspection, &client(1 << 30, b"far away")), DROP);
    let mut broken = client(0, b"broken");
    broken[36] ^= 1;
    assert_eq!(feed(&mut inspection, &broken), DROP);
    assert_eq!(inspection.counters().stream_dropped, 2);
    let reasons: Vec<_> = (inspection.events().0.iter())
        .filter_map(|event| event["drop"]["reason"].as_str())
        .collect();
    assert_eq!(reasons, ["stream error"]);
}

#[test]
fn watching_what_is_left_is_inspected_at_the_end_of_the_flow() {
    let rules = "alert tcp any any -> any 80 (flow:to_server; content:\"across packets\"; sid:7;)\n\
                 alert tcp any any -> any 80 (flags:A; dsize:0; sid:8; noalert;)";
    let mut inspection = with_options(rules, watching());
    open(&mut inspection);
    feed(&mut inspection, &client(0, b"across "));
    feed(&mut inspection, &client(7, b"packets"));
    assert!(kinds(&inspection).is_empty());
    inspection.finish(Timestamp::default());
    let alerts: Vec<_> = (inspection.events().0.iter())
        .filter(|event| event["event_type"] == "alert")
        .collect();
    assert_eq!(alerts.len(), 1, "{alerts:?}");
    assert_eq!(alerts[0]["pkt_src"], "stream (flow timeout)");
    assert_eq!(alerts[0]["src_ip"], "192.0.2.1");
    assert_eq!(alerts[0]["alert"]["signature_id"], 7);
    assert_eq!(inspection.counters().stream.pseudo, 1);
}

#[test]
fn a_connection_picked_up_late_goes_by_its_policy() {
    for (treatment, verdict) in [
        (Treatment::DropFlow, DROP),
        (Treatment::PassFlow, ACCEPT),
        (Treatment::Ignore, ACCEPT),
    ] {
        let options = InspectionOptions {
            stream: StreamOptions {
                inline: true,
                midstream: false,
                midstream_policy: treatment,
                ..StreamOptions::default()
            },
            ..InspectionOptions::default()
        };
        let rule = "drop tcp any any -> any 80 (content:\"evil\"; sid:7;)";
        let mut inspection = with_options(rule, options);
        assert_eq!(feed(&mut inspection, &client(0, b"late")), verdict);
        assert_eq!(feed(&mut inspection, &client(4, b"more")), verdict);
        let applied = inspection.counters().exceptions.applied(Cause::Midstream);
        assert_eq!(applied, u64::from(treatment != Treatment::Ignore));
        let dropped = treatment != Treatment::PassFlow;
        let evil = feed(&mut inspection, &client(8, b"evil"));
        assert_eq!(evil, if dropped { DROP } else { ACCEPT }, "{treatment}");
    }
}

#[test]
fn a_successor_goes_on_in_the_middle_of_a_match() {
    let rule = "drop tcp any any -> any 80 (flow:established; content:\"evil\"; sid:7;)";
    let mut inspection = with(rule);
    open(&mut inspection);
    assert_eq!(feed(&mut inspection, &client(0, b"ev")), ACCEPT);
    let mut bytes = Vec::new();
    inspection.flows().export(&mut bytes, || {}).unwrap();
    let mut successor = with(rule);
    let imported = successor.import_flows(&bytes, Timestamp::default(), || {});
    assert_eq!(imported.unwrap().sessions, 1);
    assert_eq!(feed(&mut successor, &client(2, b"il")), DROP);
}
