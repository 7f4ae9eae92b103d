//! What applications say, from packet to decision and record.

use std::net::IpAddr;

use etherparse::PacketBuilder;
use serde_json::Value;

use super::InspectionOptions;
use super::tests::{Tested, feed, verdict, with, with_options};
use crate::app::AppOptions;
use crate::config::settings::EngineSettings;
use crate::exception::{Cause, Treatment};
use crate::source::Disposition;

const CLIENT: [u8; 4] = [192, 0, 2, 1];
const SERVER: [u8; 4] = [198, 51, 100, 2];

/// A question for the address of a name.
fn question(name: &str) -> Vec<u8> {
    let mut message = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(label.len() as u8);
        message.extend_from_slice(label.as_bytes());
    }
    message.extend_from_slice(&[0, 0, 1, 0, 1]);
    message
}

fn udp(payload: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ipv4(CLIENT, SERVER, 64).udp(4000, 53);
    let mut packet = Vec::new();
    builder.write(&mut packet, payload).unwrap();
    packet
}

fn segment(to_server: bool, flags: &str, numbers: (u32, u32), payload: &[u8]) -> Vec<u8> {
    segment_of(53, to_server, flags, numbers, payload)
}

pub(super) fn segment_of(
    port: u16,
    to_server: bool,
    flags: &str,
    (seq, ack): (u32, u32),
    payload: &[u8],
) -> Vec<u8> {
    let (from, to, ports) = match to_server {
        true => (CLIENT, SERVER, (4000, port)),
        false => (SERVER, CLIENT, (port, 4000)),
    };
    let mut builder = PacketBuilder::ipv4(from, to, 64).tcp(ports.0, ports.1, seq, 65_000);
    if flags.contains('S') {
        builder = builder.syn();
    }
    if flags.contains('A') {
        builder = builder.ack(ack);
    }
    let mut packet = Vec::new();
    builder.write(&mut packet, payload).unwrap();
    packet
}

pub(super) fn records(inspection: &mut Tested, kind: &str) -> Vec<Value> {
    let lines = inspection.events_mut().take();
    lines
        .into_iter()
        .filter(|line| line["event_type"] == kind)
        .collect()
}

const RULES: &str =
    "drop dns any any -> any any (msg:\"evil\"; dns.query; content:\"evil.example\"; sid:1;)\n";

#[test]
fn a_name_in_a_datagram_drops_it_and_the_flow() {
    let mut inspection = with(RULES);
    let harmless = udp(&question("www.example.org"));
    assert_eq!(feed(&mut inspection, &harmless), Disposition::Accept);
    let found = records(&mut inspection, "dns");
    assert_eq!(found.len(), 1);
    assert_eq!(found[0]["dns"]["queries"][0]["rrname"], "www.example.org");
    assert_eq!(found[0]["app_proto"], "dns");
    let evil = udp(&question("www.evil.example"));
    assert_eq!(feed(&mut inspection, &evil), Disposition::Drop);
    let lines = inspection.events_mut().take();
    let alert = lines
        .iter()
        .find(|line| line["event_type"] == "alert")
        .expect("an alert");
    assert_eq!(alert["dns"]["queries"][0]["rrname"], "www.evil.example");
    assert_eq!(alert["tx_id"], 1);
    assert_eq!(alert["alert"]["action"], "blocked");
    assert_eq!(
        feed(&mut inspection, &harmless),
        Disposition::Drop,
        "it is of that flow"
    );
}

#[test]
fn a_name_in_a_stream_drops_the_segment_that_completes_the_message() {
    let message = question("www.evil.example");
    let mut stream = (message.len() as u16).to_be_bytes().to_vec();
    stream.extend_from_slice(&message);
    for cut in 1..stream.len() {
        let mut inspection = with(RULES);
        let (first, rest) = stream.split_at(cut);
        let next = 5001 + cut as u32;
        for (packet, expected) in [
            (segment(true, "S", (5000, 0), b""), Disposition::Accept),
            (segment(false, "SA", (7000, 5001), b""), Disposition::Accept),
            (segment(true, "A", (5001, 7001), first), Disposition::Accept),
            (segment(true, "A", (next, 7001), rest), Disposition::Drop),
        ] {
            assert_eq!(feed(&mut inspection, &packet), expected, "{cut}");
        }
        assert_eq!(records(&mut inspection, "alert").len(), 1, "{cut}");
    }
    // The other way round: what arrives early is forwarded, and what fills the hole is dropped.
    let mut inspection = with(RULES);
    let (first, rest) = stream.split_at(10);
    for (packet, expected) in [
        (segment(true, "S", (5000, 0), b""), Disposition::Accept),
        (segment(false, "SA", (7000, 5001), b""), Disposition::Accept),
        (segment(true, "A", (5011, 7001), rest), Disposition::Accept),
        (segment(true, "A", (5001, 7001), first), Disposition::Drop),
    ] {
        assert_eq!(feed(&mut inspection, &packet), expected);
    }
}

#[test]
fn what_was_heard_cannot_be_said_otherwise_after_its_packet_was_dropped() {
    let rules = "drop tcp any any -> any 80 (msg:\"packet\"; dsize:20; sid:2;)\n\
                 drop http any any -> any any (msg:\"evil\"; http.uri; content:\"/evil\"; sid:1;)\n";
    let mut inspection = with(rules);
    let to_80 =
        |flags: &str, seq, payload: &[u8]| segment_of(80, true, flags, (seq, 7001), payload);
    let answer = segment_of(80, false, "SA", (7000, 5001), b"");
    let heard = b"GET /harmless HTTP/1";
    for (packet, expected) in [
        (to_80("S", 5000, b""), Disposition::Accept),
        (answer, Disposition::Accept),
        (to_80("A", 5001, heard), Disposition::Drop),
    ] {
        assert_eq!(feed(&mut inspection, &packet), expected);
    }
    let other = to_80("A", 5001, b"GET /evilevil HTTP/1.1\r\nHost: a\r\n\r\n");
    let verdict = verdict(&mut inspection, &other);
    assert_eq!(verdict.disposition, Disposition::Accept);
    let delivered = verdict.replacement.expect("it is rewritten");
    assert!(delivered.ends_with(b"GET /harmless HTTP/1.1\r\nHost: a\r\n\r\n"));
    inspection.finish(crate::flow::Timestamp::default());
    let found = records(&mut inspection, "http");
    assert_eq!(found[0]["http"]["url"], "/harmless");
}

#[test]
fn a_request_is_refused_before_it_is_complete_at_its_server() {
    let rules = "drop http any any -> any any (msg:\"evil\"; http.method; content:\"POST\"; \
                 http.request_body; content:\"attack\"; sid:1;)\n";
    let request = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nan attack!";
    let whole = request.len() as u32;
    // The packet that completes the attack is the one with its last byte.
    for cut in 1..whole {
        let mut inspection = with(rules);
        feed(&mut inspection, &segment(true, "S", (5000, 0), b""));
        feed(&mut inspection, &segment(false, "SA", (7000, 5001), b""));
        let (first, rest) = request.split_at(cut as usize);
        let drops_first = cut == whole - 1;
        let expected = match drops_first {
            true => Disposition::Drop,
            false => Disposition::Accept,
        };
        let one = segment(true, "A", (5001, 7001), first);
        assert_eq!(feed(&mut inspection, &one), expected, "{cut}");
        let two = segment(true, "A", (5001 + cut, 7001), rest);
        assert_eq!(feed(&mut inspection, &two), Disposition::Drop, "{cut}");
        let found = records(&mut inspection, "alert");
        assert_eq!(found.len(), 1);
        assert_eq!(found[0]["http"]["http_method"], "POST");
    }
}

const EVIL_URI: &str = "drop http any any -> any any (msg:\"evil\"; flow:established,to_server; \
                        http.uri; content:\"/evil\"; sid:1;)\n";

/// The handshake of a connection to port 80, and these bytes of the client in segments.
pub(super) fn request(inspection: &mut Tested, segments: &[&[u8]]) -> Vec<Disposition> {
    let to_80 =
        |flags: &str, seq, payload: &[u8]| segment_of(80, true, flags, (seq, 7001), payload);
    feed(inspection, &to_80("S", 5000, b""));
    feed(inspection, &segment_of(80, false, "SA", (7000, 5001), b""));
    let mut next = 5001;
    let mut dispositions = Vec::new();
    for payload in segments {
        dispositions.push(feed(inspection, &to_80("A", next, payload)));
        next += payload.len() as u32;
    }
    dispositions
}

#[test]
fn a_datagram_of_something_else_does_not_hide_what_follows() {
    let mut inspection = with(RULES);
    let nothing = udp(b"nothing");
    assert_eq!(feed(&mut inspection, &nothing), Disposition::Accept);
    let evil = udp(&question("www.evil.example"));
    assert_eq!(feed(&mut inspection, &evil), Disposition::Drop);
}

#[test]
fn what_a_later_datagram_shows_is_asked_about() {
    let mut inspection = with("alert udp any any -> any any (app-layer-protocol:dns; sid:1;)\n");
    feed(&mut inspection, &udp(b"nothing"));
    let lines = inspection.events_mut().take();
    assert!(lines.is_empty());
    feed(&mut inspection, &udp(&question("www.example.org")));
    assert_eq!(records(&mut inspection, "alert").len(), 1);
}

#[test]
fn empty_lines_in_front_do_not_hide_a_request() {
    for count in [50, 20_000] {
        let mut inspection = with(EVIL_URI);
        let lines = b"\r\n".repeat(count);
        let mut segments: Vec<_> = lines.chunks(1000).collect();
        segments.push(b"GET /evil HTTP/1.1\r\nHost: a\r\n\r\n");
        let dispositions = request(&mut inspection, &segments);
        assert_eq!(dispositions.last(), Some(&Disposition::Drop), "{count}");
    }
}

#[test]
fn what_cannot_be_read_goes_by_policy() {
    let cause = Cause::AppLayerError;
    // A handshake, and then a record of no type.
    let hello = [&[22, 3, 1, 0, 4, 1, 0, 0, 0][..], &[99, 3, 1, 0, 1, 0]].concat();
    for (treatment, disposition) in [
        (Treatment::Ignore, Disposition::Accept),
        (Treatment::DropPacket, Disposition::Drop),
        (Treatment::DropFlow, Disposition::Drop),
    ] {
        let mut options = InspectionOptions::default();
        options.app.error = treatment;
        let mut inspection = with_options("", options);
        let found = request(
            &mut inspection,
            &[b"\x16\x03\x01\x00\x04", &hello[5..], b"x"],
        );
        let next = match treatment {
            Treatment::DropFlow => Disposition::Drop,
            _ => Disposition::Accept,
        };
        assert_eq!(
            found,
            [Disposition::Accept, disposition, next],
            "{treatment}"
        );
        let counters = inspection.counters();
        let excepted = u64::from(treatment != Treatment::Ignore);
        assert_eq!(counters.exceptions.applied(cause), excepted);
        assert_eq!(counters.exceptions.dropped(cause), excepted);
    }
}

#[test]
fn what_waits_for_the_other_direction_is_asked_when_it_is_heard() {
    let mut inspection = with(EVIL_URI);
    let asks = b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\nGET /evil HTTP/1.1\r\nHost: a\r\n\r\n";
    request(&mut inspection, &[asks]);
    let next = 5001 + asks.len() as u32;
    let refuses = b"HTTP/1.1 405 No\r\nContent-Length: 0\r\n\r\n";
    let answer = segment_of(80, false, "A", (7001, next), refuses);
    assert_eq!(feed(&mut inspection, &answer), Disposition::Drop);
    assert_eq!(records(&mut inspection, "alert").len(), 1);
}

/// As a replay that watches is configured.
fn watching(settings: &[(&str, &str)]) -> InspectionOptions {
    let mut engine = EngineSettings::default();
    for (name, value) in settings {
        engine.set(name, value).unwrap();
    }
    InspectionOptions::of_replay(&engine, false).unwrap()
}

const GET: &[u8] = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";

/// A request and its response on port 80, each acknowledged; what the packets become.
fn exchange(inspection: &mut Tested, asks: &[u8], answers: &[u8]) -> Vec<Disposition> {
    let (asked, answered) = (5001 + asks.len() as u32, 7001 + answers.len() as u32);
    let packets = [
        segment_of(80, true, "S", (5000, 0), b""),
        segment_of(80, false, "SA", (7000, 5001), b""),
        segment_of(80, true, "A", (5001, 7001), b""),
        segment_of(80, true, "A", (5001, 7001), asks),
        segment_of(80, false, "A", (7001, asked), answers),
        segment_of(80, true, "A", (asked, answered), b""),
    ];
    packets.iter().map(|it| feed(inspection, it)).collect()
}

#[test]
fn a_conversation_is_recorded_with_the_packet_that_completes_it() {
    let mut inspection = with_options("", watching(&[]));
    exchange(&mut inspection, GET, OK);
    // Rules of the direction of the answer are asked with its next packet only.
    assert_eq!(records(&mut inspection, "http").len(), 1);
    inspection.finish(crate::flow::Timestamp::default());
    assert!(records(&mut inspection, "http").is_empty());
}

#[test]
fn a_flow_that_passes_is_recorded_but_not_inspected() {
    let rules = "pass http any any -> any any (http.uri; content:\"/a\"; sid:1;)\n\
                 alert http any any -> any any (file_data; content:\"abc\"; sid:2;)\n";
    for options in [InspectionOptions::default(), watching(&[])] {
        let mut inspection = with_options(rules, options);
        exchange(&mut inspection, GET, OK);
        inspection.finish(crate::flow::Timestamp::default());
        let lines = inspection.events_mut().take();
        let of = |kind: &str| lines.iter().filter(|it| it["event_type"] == kind).count();
        assert_eq!((of("alert"), of("http")), (0, 1));
        let http = lines.iter().find(|it| it["event_type"] == "http").unwrap();
        assert_eq!(http["http"]["status"], 200);
    }
}

#[test]
fn of_a_flow_that_is_dropped_nothing_incomplete_is_recorded() {
    let mut inspection = with(EVIL_URI);
    let evil = b"GET /evil HTTP/1.1\r\nHost: a\r\n\r\n";
    assert!(exchange(&mut inspection, evil, OK).contains(&Disposition::Drop));
    inspection.finish(crate::flow::Timestamp::default());
    assert!(records(&mut inspection, "http").is_empty());
}

#[test]
fn a_session_that_is_seen_from_its_server_first_is_turned_round() {
    let rules = "alert http any any -> any any (msg:\"code\"; flow:to_client; http.stat_code; \
                 content:\"200\"; sid:1;)\n";
    for options in [
        InspectionOptions::default(),
        watching(&[("stream.midstream", "true")]),
    ] {
        let mut inspection = with_options(rules, options);
        for packet in [
            segment_of(80, false, "A", (7001, 5001), OK),
            segment_of(80, true, "A", (5001, 7001 + OK.len() as u32), b""),
            segment_of(80, false, "A", (7001 + OK.len() as u32, 5001), b""),
        ] {
            assert_eq!(feed(&mut inspection, &packet), Disposition::Accept);
        }
        inspection.finish(crate::flow::Timestamp::default());
        let lines = inspection.events_mut().take();
        let of = |kind: &str| lines.iter().find(|it| it["event_type"] == kind).unwrap();
        assert_eq!(of("alert")["alert"]["signature_id"], 1);
        assert_eq!(of("http")["dest_port"], 80);
        assert_eq!(of("flow")["dest_port"], 80);
        assert_eq!(of("flow")["flow"]["pkts_toclient"], 2);
    }
}

#[test]
fn contents_of_the_payload_stand_beside_those_of_buffers() {
    let rules = "alert http any any -> any any (content:\"GET /a\"; http.host; content:\"a\"; sid:1;)\n\
                 alert http any any -> any any (content:\"GET /b\"; http.host; content:\"a\"; sid:2;)\n";
    for options in [InspectionOptions::default(), watching(&[])] {
        let mut inspection = with_options(rules, options);
        let (line, rest) = GET.split_at(17);
        let to_80 =
            |flags: &str, seq, payload: &[u8]| segment_of(80, true, flags, (seq, 7001), payload);
        for packet in [
            to_80("S", 5000, b""),
            segment_of(80, false, "SA", (7000, 5001), b""),
            to_80("A", 5001, line),
            to_80("A", 5018, rest),
        ] {
            feed(&mut inspection, &packet);
        }
        inspection.finish(crate::flow::Timestamp::default());
        let alerts = records(&mut inspection, "alert");
        assert_eq!(alerts.len(), 1);
        assert_eq!(alerts[0]["alert"]["signature_id"], 1);
    }
}

#[test]
fn an_alert_shows_the_only_transaction_when_that_may_be_guessed() {
    let rules = "alert tcp any any -> any 80 (content:\"GET\"; sid:1;)\n";
    for guess in [false, true] {
        let options = InspectionOptions {
            guess_transaction: guess,
            ..InspectionOptions::default()
        };
        let mut inspection = with_options(rules, options);
        exchange(&mut inspection, GET, OK);
        let alerts = records(&mut inspection, "alert");
        assert_eq!(alerts[0]["http"]["url"] == "/a", guess);
    }
}

const UPLOAD: &[u8] = b"POST /up HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.77, 192.0.2.78\r\n\
    Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 160\r\n\r\n\
    --b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"one.txt\"\r\n\r\nfirst\r\n\
    --b\r\nContent-Disposition: form-data; name=\"g\"; filename=\"two.txt\"\r\n\r\nsecond\r\n--b--\r\n";

#[test]
fn files_in_a_body_are_told_apart_and_stored_as_rules_say() {
    let rules = "alert http any any -> any any (filename:\"two.txt\"; filestore; sid:1;)\n\
                 alert http any any -> any any (file.data; content:\"first\"; content:\"second\"; sid:2;)\n\
                 alert http any any -> any any (file.name; content:\"one.\"; file.data; content:\"second\"; sid:3;)\n";
    let mut options = watching(&[]);
    options
        .records
        .types
        .application
        .push(("files".to_owned(), Value::Null));
    let mut inspection = with_options(rules, options);
    exchange(&mut inspection, UPLOAD, OK);
    inspection.finish(crate::flow::Timestamp::default());
    let lines = inspection.events_mut().take();
    let of = |kind: &str| -> Vec<&Value> {
        lines.iter().filter(|it| it["event_type"] == kind).collect()
    };
    let stored: Vec<_> = of("stored")
        .iter()
        .map(|it| it["content"].clone())
        .collect();
    assert_eq!(stored, ["second"]);
    let alerts: Vec<_> = of("alert")
        .iter()
        .map(|it| it["alert"]["signature_id"].clone())
        .collect();
    assert_eq!(alerts, [1, 3]);
    let uploads: Vec<_> = of("fileinfo")
        .iter()
        .filter(|it| it["direction"] == "to_server")
        .map(|it| {
            (
                it["fileinfo"]["filename"].clone(),
                it["fileinfo"]["stored"].clone(),
            )
        })
        .collect();
    assert_eq!(
        uploads,
        [
            ("one.txt".into(), false.into()),
            ("two.txt".into(), true.into())
        ]
    );
}

#[test]
fn an_alert_names_the_client_that_a_proxy_names() {
    let rules = "alert http any any -> any any (http.uri; content:\"/up\"; sid:1;)\n";
    for (options, key, expected) in [
        (r#"{"enabled": true}"#, "xff", "192.0.2.78"),
        (
            r#"{"enabled": true, "deployment": "forward"}"#,
            "xff",
            "192.0.2.77",
        ),
        (
            r#"{"enabled": true, "mode": "overwrite"}"#,
            "src_ip",
            "192.0.2.78",
        ),
        (r#"{"enabled": false}"#, "src_ip", "192.0.2.1"),
    ] {
        let outputs =
            format!(r#"[{{"eve-log": {{"types": [{{"alert": {{"xff": {options}}}}}]}}}}]"#);
        let mut inspection = with_options(rules, watching(&[("outputs", &outputs)]));
        exchange(&mut inspection, UPLOAD, OK);
        let alerts = records(&mut inspection, "alert");
        assert_eq!(alerts[0][key], expected, "{options}");
    }
}

#[test]
fn records_of_http_are_extended_where_that_is_wanted() {
    for extended in [false, true] {
        let outputs =
            format!(r#"[{{"eve-log": {{"types": [{{"http": {{"extended": {extended}}}}}]}}}}]"#);
        let mut inspection = with_options("", watching(&[("outputs", &outputs)]));
        exchange(&mut inspection, GET, OK);
        let found = records(&mut inspection, "http");
        assert_eq!(found[0]["http"]["url"], "/a");
        assert_eq!(found[0]["http"]["status"] == 200, extended);
    }
}

#[test]
fn what_is_seen_of_one_direction_only_is_read_at_once() {
    let settings = [
        ("stream.async-oneside", "true"),
        ("stream.midstream", "true"),
    ];
    let mut inspection = with_options(EVIL_URI, watching(&settings));
    let evil = b"GET /evil HTTP/1.1\r\nHost: a\r\n\r\n";
    feed(
        &mut inspection,
        &segment_of(80, true, "A", (5001, 7001), b""),
    );
    feed(
        &mut inspection,
        &segment_of(80, true, "A", (5001, 7001), evil),
    );
    assert_eq!(records(&mut inspection, "alert").len(), 1);
}

#[test]
fn watching_data_is_heard_with_what_the_other_end_sends_after_the_handshake() {
    let rules = "alert http any any -> any any (flow:to_server; sid:1;)\n";
    let mut inspection = with_options(rules, watching(&[]));
    let next = 5001 + GET.len() as u32;
    for (packet, alerts) in [
        (segment_of(80, true, "S", (5000, 0), GET), 0),
        (segment_of(80, false, "SA", (7000, next), b""), 0),
        (segment_of(80, true, "A", (next, 7001), b""), 0),
        (segment_of(80, false, "A", (7001, next), OK), 0),
        (segment_of(80, true, "A", (next, 7042), b""), 1),
    ] {
        feed(&mut inspection, &packet);
        assert_eq!(records(&mut inspection, "alert").len(), alerts);
    }
}

#[test]
fn fingerprints_of_ssh_are_made_when_somebody_asks() {
    let mut options = AppOptions::default();
    options.add_asked(Default::default(), false, false);
    assert_eq!(options.hassh, None);
    options.add_asked(Default::default(), false, true);
    assert_eq!(options.hassh, Some(true));
    options.hassh = Some(false);
    options.add_asked(Default::default(), false, true);
    assert_eq!(options.hassh, Some(false));
}

#[test]
fn what_is_rejected_of_the_other_direction_is_told_with_the_packet_in_hand() {
    for (action, ends) in [
        ("rejectsrc", &[SERVER][..]),
        ("rejectdst", &[CLIENT]),
        ("rejectboth", &[CLIENT, SERVER]),
    ] {
        let rule = format!(
            "{action} ssh any any -> any any (flow:to_client; ssh.software; content:\"evil\"; sid:1;)"
        );
        let mut inspection = with(&rule);
        request(&mut inspection, &[b""]);
        let greeting = b"hello\r\nSSH-2.0-evil\r\n";
        let packet = segment_of(80, false, "A", (7001, 5001), greeting);
        assert_eq!(feed(&mut inspection, &packet), Disposition::Accept);
        // Only this tells what the greeting was.
        let next = 7001 + greeting.len() as u32;
        let packet = segment_of(80, true, "A", (5001, next), b"SSH-2.0-a\r\n");
        assert_eq!(feed(&mut inspection, &packet), Disposition::Drop);
        let told = inspection.rejects().ends();
        assert!(told.eq(ends.iter().map(|it| IpAddr::from(*it))), "{action}");
        let counters = inspection.counters();
        assert_eq!(counters.rejections, ends.len() as u64);
    }
}
