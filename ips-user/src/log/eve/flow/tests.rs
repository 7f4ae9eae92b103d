use etherparse::PacketBuilder;
use serde_json::{Value, json};

use super::*;
use crate::decode::Decoded;
use crate::exception::Treatment;
use crate::flow::{Exception, FlowLimits, FlowTable};

fn at(ms: u64) -> Timestamp {
    Timestamp {
        wall_us: 1_695_017_621_900_000 + ms as i64 * 1000,
        monotonic_ns: ms * 1_000_000,
    }
}

fn segment(from_client: bool, flags: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let (source, destination) = match from_client {
        true => (([1; 16], 1000), ([2; 16], 80)),
        false => (([2; 16], 80), ([1; 16], 1000)),
    };
    let mut packet = PacketBuilder::ipv6(
        source.0,
        destination.0,
        if from_client { 60 } else { 50 },
    )
    .tcp(source.1, destination.1, 1, 1);
    for flag in flags.chars() {
        packet = match flag {
            'S' => packet.syn(),
            'A' => packet.ack(1),
            'R' => packet.rst(),
            _ => packet.fin(),
        };
    }
    packet.write(&mut bytes, b"").unwrap();
    bytes
}

fn record(write: impl Fn(&EndedFlow<'_>, &mut Vec<u8>), change: impl Fn(&mut Flow)) -> Value {
    let mut table = FlowTable::new(FlowLimits::default(), [1, 2]);
    table.tell_ends(true);
    for (ms, from_client, flags) in [(0, true, "S"), (50, false, "SA"), (2200, true, "R")] {
        let bytes = segment(from_client, flags);
        table
            .packet(&Decoded::parse(&bytes).unwrap(), at(ms))
            .unwrap();
    }
    assert_eq!(table.take_ended().map(|(_, end)| end), None);
    table.end_some(&mut Vec::new(), usize::MAX);
    let (mut flow, end) = table.take_ended().unwrap();
    change(&mut flow);
    let mut records = Records {
        community_id: Some(0),
        ..Records::default()
    };
    records.types.flow = Some(FlowRecords {
        exception_policy: true,
    });
    let ended = EndedFlow {
        noted: None,
        flow: &flow,
        end,
        time: at(9000),
        utc_offset_s: 0,
        records: &records,
    };
    let mut line = b"left over".to_vec();
    write(&ended, &mut line);
    let mut value: Value = serde_json::from_slice(&line).unwrap();
    let table = value.as_object_mut().unwrap();
    assert!(table.remove("flow_id").is_some());
    assert!(table.remove("community_id").is_some());
    value
}

#[test]
fn a_flow_record_has_the_fields_of_suricata() {
    let value = record(flow, |flow| {
        flow.clean_bytes = None;
        flow.action = FlowAction::Drop { signature_id: 7 };
        flow.observed
            .excepted(Exception::Midstream, Treatment::PassFlow);
    });
    assert_eq!(
        value,
        json!({
            "timestamp": "2023-09-18T06:13:50.900000+0000", "event_type": "flow",
            "src_ip": "0101:0101:0101:0101:0101:0101:0101:0101", "src_port": 1000,
            "dest_ip": "0202:0202:0202:0202:0202:0202:0202:0202", "dest_port": 80,
            "proto": "TCP", "ip_v": 6,
            "flow": {
                "pkts_toserver": 2, "pkts_toclient": 1,
                "bytes_toserver": 120, "bytes_toclient": 60,
                "start": "2023-09-18T06:13:41.900000+0000",
                "end": "2023-09-18T06:13:44.100000+0000",
                "age": 3, "state": "closed", "reason": "shutdown", "alerted": true,
                "action": "drop",
                "exception_policy": [{"target": "stream_midstream", "policy": "pass_flow"}],
            },
            "tcp": {
                "tcp_flags": "16", "tcp_flags_ts": "06", "tcp_flags_tc": "12",
                "syn": true, "rst": true, "ack": true, "state": "closed",
            },
        })
    );
}

#[test]
fn each_direction_has_a_netflow_record() {
    let value = record(
        |ended, line| netflow(ended, PacketDirection::ToClient, line),
        |_| {},
    );
    assert_eq!(value["src_port"], 80);
    assert_eq!(value["event_type"], "netflow");
    assert_eq!(
        value["netflow"],
        json!({
            "pkts": 1, "bytes": 60, "age": 3, "min_ttl": 50, "max_ttl": 50,
            "start": "2023-09-18T06:13:41.900000+0000", "end": "2023-09-18T06:13:44.100000+0000",
        })
    );
    assert_eq!(
        value["tcp"],
        json!({"tcp_flags": "12", "syn": true, "ack": true})
    );
}
