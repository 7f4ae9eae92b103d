//! Limits of what is known of applications, and what is left of it in the end.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;

use super::InspectionOptions;
use super::applications::{records, request, segment_of};
use super::tests::{Tested, feed, verdict, with, with_options};
use crate::app::{AppOptions, AppProtocol, HashKind};
use crate::config::settings::EngineSettings;
use crate::exception::{Cause, Treatment};
use crate::flow::{PacketDirection, Timestamp};
use crate::metrics::figures::memory_refused;
use crate::reassembly::tcp::StreamOptions;
use crate::source::Disposition;

/// Options of an inspection that can drop, with these settings.
fn options(settings: &[(&str, &str)]) -> InspectionOptions {
    let mut engine = EngineSettings::default();
    for (name, value) in settings {
        engine.set(name, value).unwrap();
    }
    InspectionOptions {
        app: AppOptions::configured(&engine, true),
        ..InspectionOptions::default()
    }
}

/// A counter of `stats` records.
fn figure(inspection: &Tested, name: &str) -> u64 {
    let mut tree = serde_json::Map::new();
    let settings = EngineSettings::default().stats;
    crate::metrics::figures::tree(inspection.figures().counts(), &settings, &mut tree);
    let mut parts = name.split('.');
    let first = tree.get(parts.next().unwrap());
    let found = parts.try_fold(first.unwrap(), |at, part| at.get(part));
    found
        .and_then(Value::as_u64)
        .unwrap_or_else(|| panic!("{name}"))
}

fn to_server(port: u16, seq: u32, payload: &[u8]) -> Vec<u8> {
    segment_of(port, true, "A", (seq, 7001), payload)
}

fn to_client(port: u16, seq: u32, ack: u32, payload: &[u8]) -> Vec<u8> {
    segment_of(port, false, "A", (seq, ack), payload)
}

#[test]
fn what_applications_take_stays_below_its_cap_and_goes_with_their_flows() {
    let protocols = ["app-layer.memcap", "app-layer.protocols.http.memcap"];
    for cap in protocols {
        let mut inspection = with_options("", options(&[(cap, "200kb")]));
        let (mut accepted, mut refused) = (0, 0);
        for port in 1000..1060 {
            let begin = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 90000\r\n\r\n";
            let body = [b'x'; 20_000];
            feed(
                &mut inspection,
                &segment_of(port, true, "S", (5000, 0), b""),
            );
            feed(
                &mut inspection,
                &segment_of(port, false, "SA", (7000, 5001), b""),
            );
            feed(&mut inspection, &to_server(port, 5001, begin));
            let next = 5001 + begin.len() as u32;
            match feed(&mut inspection, &to_server(port, next, &body)) {
                Disposition::Accept => accepted += 1,
                Disposition::Drop => refused += 1,
            }
            let used = inspection.counters().applications;
            assert!(used.memuse <= 200 << 10, "{used:?}");
            assert_eq!(used.of[AppProtocol::Http1 as usize], used.memuse);
        }
        assert!(accepted > 3 && refused > 40, "{accepted} {refused}");
        let refused = figure(&inspection, "app_layer.error.http.alloc");
        assert!(refused > 40);
        let counts = inspection.figures().counts();
        assert_eq!(memory_refused(counts, AppProtocol::Http1), refused);
        let dropped = inspection
            .counters()
            .exceptions
            .dropped(Cause::AppLayerError);
        assert!(dropped > 40);
        inspection.finish(Timestamp::default());
        assert_eq!(inspection.counters().applications.memuse, 0);
        assert_eq!(
            records(&mut inspection, "http").len(),
            60,
            "each is recorded"
        );
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn a_body_that_becomes_much_longer_takes_no_more_than_its_limit() {
    // In a build without optimisation it takes longer.
    let limit = "app-layer.protocols.http.libhtp.default-config.decompression-time-limit";
    let mut inspection = with_options("", options(&[(limit, "100000000")]));
    let packed = gzip(&vec![0; 30 << 20]);
    assert!(packed.len() < 40_000);
    let answer = [
        format!(
            "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
            packed.len()
        )
        .as_bytes(),
        &packed[..packed.len() - 20],
    ]
    .concat();
    request(&mut inspection, &[b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"]);
    assert_eq!(
        feed(&mut inspection, &to_client(80, 7001, 5028, &answer)),
        Disposition::Accept
    );
    let used = inspection.counters().applications;
    // What was given out is in no list on its way.
    assert!(used.memuse_max < 40 << 20, "{used:?}");
    inspection.finish(Timestamp::default());
    let lines = inspection.events_mut().take();
    let of = |kind: &str| lines.iter().find(|it| it["event_type"] == kind).unwrap();
    // On its way it was short.
    assert!(of("http")["http"]["length"].as_u64().unwrap() < 40_000);
    assert!(of("fileinfo")["fileinfo"]["size"].as_u64().unwrap() > 29 << 20);
}

#[test]
fn what_is_not_decompressed_any_further_is_an_event_and_counted() {
    let rules = "alert http any any -> any any (app-layer-event:http.too_many_encoding_layers; sid:1;)\n\
                 alert http any any -> any any (app-layer-event:http.compression_bomb; sid:2;)\n";
    let packed = gzip(&gzip(&vec![0; 8 << 20]));
    for (encodings, most, sid) in [("gzip, gzip, gzip", "1mb", 1), ("gzip, gzip", "1kb", 2)] {
        let limit = "app-layer.protocols.http.libhtp.default-config.compression-bomb-limit";
        let mut inspection = with_options(rules, options(&[(limit, most)]));
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Encoding: {encodings}\r\nContent-Length: {}\r\n\r\n",
            packed.len()
        );
        let answer = [head.as_bytes(), &packed].concat();
        request(&mut inspection, &[b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"]);
        feed(&mut inspection, &to_client(80, 7001, 5028, &answer));
        let alerts = records(&mut inspection, "alert");
        let mut rules = alerts.iter().map(|it| &it["alert"]["signature_id"]);
        assert!(rules.any(|it| *it == sid), "{encodings}");
        assert!(figure(&inspection, "app_layer.limit.http") > 0);
    }
}

#[test]
fn what_is_pending_is_recorded_when_its_flow_is_not_inspected_any_more() {
    // What passes is listened to until it ends; what is dropped is no conversation.
    let ends = [
        (
            "pass http any any -> any any (http.uri; content:\"/evil\"; sid:1;)\n",
            [0, 1],
        ),
        (
            "drop http any any -> any any (http.uri; content:\"/evil\"; sid:1;)\n",
            [0, 0],
        ),
        (
            "alert http any any -> any any (http.uri; content:\"/evil\"; bypass; sid:1;)\n",
            [1, 0],
        ),
    ];
    for (rule, [at_once, in_the_end]) in ends {
        let mut inspection = with(rule);
        request(
            &mut inspection,
            &[b"PUT /evil HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\npart"],
        );
        let check = |inspection: &mut Tested, expected: usize| {
            let lines = inspection.events_mut().take();
            let of = |kind: &str| lines.iter().filter(|it| it["event_type"] == kind).count();
            assert_eq!(of("http"), expected, "{rule}");
            assert_eq!(of("fileinfo"), expected, "{rule}");
            let files = lines.iter().filter(|it| it["event_type"] == "fileinfo");
            for file in files {
                assert_eq!(file["fileinfo"]["state"], "TRUNCATED");
            }
        };
        check(&mut inspection, at_once);
        let used = inspection.counters().applications.memuse;
        let listens = in_the_end > 0;
        assert_eq!(used > 1 << 10, listens, "{rule}: {used}");
        inspection.finish(Timestamp::default());
        check(&mut inspection, in_the_end);
        assert_eq!(inspection.counters().applications.memuse, 0, "{rule}");
    }
    // A policy: the request was delivered before what cannot be read.
    for treatment in [Treatment::PassFlow, Treatment::DropFlow] {
        let mut options = InspectionOptions::default();
        options.app.error = treatment;
        let mut inspection = with_options("", options);
        let begin = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n";
        request(&mut inspection, &[begin]);
        let nonsense = [b"HTTP/1.1 200 OK\r\n".as_slice(), &[b'x'; 40_000]].concat();
        for (at, part) in nonsense.chunks(10_000).enumerate() {
            let seq = 7001 + at as u32 * 10_000;
            feed(&mut inspection, &to_client(80, seq, 5029, part));
        }
        inspection.finish(Timestamp::default());
        let found = records(&mut inspection, "http").len();
        assert_eq!(found, 1, "{treatment}");
        assert_eq!(inspection.counters().applications.memuse, 0);
    }
}

#[test]
fn what_is_dropped_says_nothing_about_the_protocol_of_what_comes_instead() {
    let rules = "drop tcp any any -> any 80 (msg:\"packet\"; dsize:30; sid:2;)\n\
                 drop http any any -> any any (msg:\"evil\"; http.uri; content:\"/evil\"; sid:1;)\n";
    let evil = b"GET /evil HTTP/1.1\r\nHost: a\r\n\r\n";
    // Nobody's, another protocol's; and what the server says before is nobody's.
    for dropped in [&[0xff; 30][..], b"SSH-2.0-xxxxxxxxxxxxxxxxxxxxxx"] {
        for banner in [&b""[..], b"\xff\xff\xff hello"] {
            let mut inspection = with(rules);
            request(&mut inspection, &[b""]);
            let next = 7001 + banner.len() as u32;
            if !banner.is_empty() {
                feed(&mut inspection, &to_client(80, 7001, 5001, banner));
            }
            let packet = segment_of(80, true, "A", (5001, next), dropped);
            assert_eq!(feed(&mut inspection, &packet), Disposition::Drop);
            let other = segment_of(80, true, "A", (5001, next), evil);
            let what = format!("{dropped:?} {banner:?}");
            assert_eq!(feed(&mut inspection, &other), Disposition::Drop, "{what}");
            let lines = inspection.events_mut().take();
            let mut alerts = lines.iter().filter(|it| it["event_type"] == "alert");
            let last = &alerts.next_back().unwrap()["alert"];
            assert_eq!(last["signature_id"], 1, "{what}: {lines:#?}");
        }
    }
}

const EVIL: &str = "drop http any any -> any any (http.uri; content:\"/evil\"; sid:1;)\n\
                    drop dns any any -> any any (dns.query; content:\"evil\"; sid:2;)\n";

/// The same flows at another process.
fn handed_over(inspection: &Tested, rules: &str) -> Tested {
    let mut bytes = Vec::new();
    inspection.flows().export(&mut bytes, || {}).unwrap();
    let mut other = with(rules);
    let imported = other
        .import_flows(&bytes, Timestamp::default(), || {})
        .unwrap();
    assert_eq!(imported.sessions_lost, 0);
    other
}

#[test]
fn a_conversation_goes_on_at_another_process_with_its_next_message() {
    let mut inspection = with(EVIL);
    let first = b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n";
    request(&mut inspection, &[first]);
    let next = 5001 + first.len() as u32;
    let answer = b"HTTP/1.1 204 No\r\n\r\n";
    feed(&mut inspection, &to_client(80, 7001, next, answer));
    assert_eq!(records(&mut inspection, "http").len(), 1);
    let mut inspection = handed_over(&inspection, EVIL);
    let ack = 7001 + answer.len() as u32;
    let harmless = segment_of(80, true, "A", (next, ack), b"GET /2 HTTP/1.1\r\nHo");
    assert_eq!(feed(&mut inspection, &harmless), Disposition::Accept);
    let next = next + 19;
    let rest = b"st: a\r\n\r\nGET /evil HTTP/1.1\r\nHost: a\r\n\r\n";
    let evil = segment_of(80, true, "A", (next, ack), rest);
    assert_eq!(feed(&mut inspection, &evil), Disposition::Drop);
    let alert = &records(&mut inspection, "alert")[0];
    assert_eq!(alert["tx_id"], 2, "they are counted on");
    assert_eq!(figure(&inspection, "app_layer.not_taken_over.http"), 0);
}

#[test]
fn in_the_middle_of_a_message_the_next_one_is_waited_for_and_that_is_counted() {
    let mut inspection = with(EVIL);
    let first = b"POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 30\r\n\r\n0123456789";
    request(&mut inspection, &[first]);
    let mut inspection = handed_over(&inspection, EVIL);
    let next = 5001 + first.len() as u32;
    let rest = to_server(80, next, b"0123456789GET /evil ");
    assert_eq!(feed(&mut inspection, &rest), Disposition::Accept);
    assert_eq!(figure(&inspection, "app_layer.not_taken_over.http"), 1);
    let evil = to_server(80, next + 20, b"GET /evil HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(feed(&mut inspection, &evil), Disposition::Drop);
    assert_eq!(figure(&inspection, "app_layer.not_taken_over.http"), 1);
}

#[test]
fn what_nobody_listens_to_stays_so_at_another_process() {
    let mut inspection = with(EVIL);
    request(&mut inspection, &[b"SSH-2.0-a\r\n"]);
    let mut inspection = handed_over(&inspection, EVIL);
    let more = to_server(80, 5012, b"GET /evil HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(feed(&mut inspection, &more), Disposition::Accept);
    assert_eq!(figure(&inspection, "app_layer.not_taken_over.ssh"), 1);
    // That is known of it, and not counted once more.
    let mut inspection = handed_over(&inspection, EVIL);
    let more = to_server(80, 5042, b"GET /evil HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(feed(&mut inspection, &more), Disposition::Accept);
    assert_eq!(figure(&inspection, "app_layer.not_taken_over.ssh"), 0);
    inspection.finish(Timestamp::default());
    assert_eq!(records(&mut inspection, "flow")[0]["app_proto"], "ssh");
}

#[test]
fn events_are_those_of_the_exchange_in_which_they_occurred() {
    let rules = "alert http any any -> any any (app-layer-event:http.request_field_missing_colon; \
                 sid:1;)\n\
                 alert http any any -> any any (app-layer-event:http.response_field_missing_colon; \
                 sid:2;)\n";
    let mut inspection = with(rules);
    let requests = b"GET /0 HTTP/1.1\r\nHost: a\r\n\r\n\
                     GET /1 HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n\
                     GET /2 HTTP/1.1\r\nHost: a\r\n\r\n";
    request(&mut inspection, &[requests]);
    let answer = b"HTTP/1.1 200 OK\r\nno colon\r\nContent-Length: 0\r\n\r\n";
    let next = 5001 + requests.len() as u32;
    feed(&mut inspection, &to_client(80, 7001, next, answer));
    let alerts = records(&mut inspection, "alert");
    let of = alerts.iter().map(|it| {
        let rule = it["alert"]["signature_id"].as_u64();
        (rule, it["tx_id"].as_u64())
    });
    let of: Vec<_> = of.collect();
    assert_eq!(of, [(Some(1), Some(1)), (Some(2), Some(0))]);
}

#[test]
fn headers_behind_a_body_are_seen_by_rules() {
    let rules = "drop http any any -> any any (http.header; content:\"X-Evil: 1\"; sid:1;)\n\
                 alert http any any -> any any (http.header; content:\"Host\"; sid:2;)\n";
    let mut inspection = with(rules);
    let begin = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";
    let end = b"0\r\nX-Evil: 1\r\n\r\n";
    let found = request(&mut inspection, &[begin, end]);
    assert_eq!(found, [Disposition::Accept, Disposition::Drop]);
    assert_eq!(records(&mut inspection, "alert").len(), 2);
}

#[test]
fn a_file_of_which_something_is_missing_says_so() {
    let mut watching = InspectionOptions {
        ips: false,
        stream: StreamOptions::default(),
        app: AppOptions::configured(&EngineSettings::default(), false),
        ..InspectionOptions::default()
    };
    watching.app.hashes.want(HashKind::Md5);
    let mut inspection = with_options("", watching);
    let begin = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n";
    request(&mut inspection, &[begin]);
    let next = 5001 + begin.len() as u32;
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n0123456789";
    feed(&mut inspection, &to_client(80, 7001, next, head));
    let at = 7001 + head.len() as u32;
    // Ten bytes are lost on the way here, and not on the way to the client.
    feed(
        &mut inspection,
        &to_client(80, at + 10, next, b"0123456789"),
    );
    feed(
        &mut inspection,
        &segment_of(80, true, "A", (next, at + 20), b""),
    );
    inspection.finish(Timestamp::default());
    let lines = inspection.events_mut().take();
    let file = lines.iter().find(|it| it["event_type"] == "fileinfo");
    let file = &file.expect("a file")["fileinfo"];
    assert_eq!(file["gaps"], true, "{file}");
    assert_eq!(file["state"], "TRUNCATED");
    assert_eq!(file["size"], 30);
    assert_eq!(file.get("md5"), None);
}

#[test]
fn counters_tell_which_protocols_there_were() {
    let mut inspection = with("");
    request(
        &mut inspection,
        &[b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"],
    );
    for (name, count) in [
        ("app_layer.flow.http", 1),
        ("app_layer.tx.http", 2),
        ("app_layer.error.http.parser", 0),
        ("app_layer.flow.failed_tcp", 0),
    ] {
        assert_eq!(figure(&inspection, name), count, "{name}");
    }
    let verdict = verdict(&mut inspection, &to_client(80, 7001, 5055, b"\xff\xfe"));
    assert_eq!(verdict.disposition, Disposition::Accept);
}

#[test]
fn a_rule_about_both_directions_waits_in_each_of_them_once() {
    let rules = "alert http any any => any any (http.uri; content:\"/a\"; http.stat_code; \
                 content:\"500\"; sid:1;)\n";
    let mut inspection = with(rules);
    let begin = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 900\r\n\r\n";
    request(&mut inspection, &[begin]);
    let next = 5001 + begin.len() as u32;
    for at in 0..200 {
        feed(&mut inspection, &to_server(80, next + at, b"x"));
    }
    let flow = inspection.flows().iter().next().unwrap();
    let [transaction] = flow.app.in_hand() else {
        panic!("{:?}", flow.app);
    };
    for direction in PacketDirection::ALL {
        let taken = transaction.way(direction).marks.taken();
        assert!(taken < 200, "{direction:?}: {taken}");
    }
    let refuses = b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n";
    feed(&mut inspection, &to_client(80, 7001, next + 200, refuses));
    assert_eq!(records(&mut inspection, "alert").len(), 1);
}

#[test]
fn a_literal_that_is_cut_by_segments_of_a_body_is_found() {
    let rules = "drop http any any -> any any (http.request_body; content:\"attack\"; sid:1;)\n\
                 alert http any any -> any any (http.request_body; content:\"!\"; sid:2;)\n";
    let body = b"this is no attack at all";
    for size in 1..=body.len() {
        let mut inspection = with(rules);
        let begin = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 900\r\n\r\n";
        request(&mut inspection, &[begin]);
        let mut next = 5001 + begin.len() as u32;
        let mut dropped_at = None;
        for (number, part) in body.chunks(size).enumerate() {
            if feed(&mut inspection, &to_server(80, next, part)) == Disposition::Drop {
                dropped_at = dropped_at.or(Some(number));
            }
            next += part.len() as u32;
        }
        // Its last letter is the 17th byte.
        assert_eq!(dropped_at, Some(16 / size), "{size}");
    }
}

#[test]
fn what_waits_in_front_of_a_gap_does_not_wait_for_ever() {
    let known = b"POST / HTTP/1.1\r\nHost".as_slice();
    // What nobody knows, and what begins like something that is known.
    for begin in [b"\xff\xff\xff\xff".as_slice(), b"POST", known] {
        let mut options = InspectionOptions::default();
        options.stream.midstream = true;
        let mut inspection = with_options("", options);
        // From the middle, as at a worker to which a flow has been moved.
        feed(&mut inspection, &to_client(80, 7001, 5001, b""));
        feed(&mut inspection, &to_server(80, 5001, begin));
        // So much was delivered by somebody else.
        let mut next = 5001 + begin.len() as u32 + 1000;
        feed(&mut inspection, &to_client(80, 7001, next, b""));
        for _ in 0..300 {
            let data = [0xff; 10_000];
            let found = feed(&mut inspection, &to_server(80, next, &data));
            assert_eq!(found, Disposition::Accept);
            next += data.len() as u32;
            feed(&mut inspection, &to_client(80, 7001, next, b""));
        }
        let kept = inspection.counters().stream.reassembly_memuse;
        assert!(kept < 100_000, "{begin:?}: {kept}");
    }
}

#[test]
fn what_is_incomplete_at_the_depth_does_not_keep_what_follows() {
    let mut options = InspectionOptions::default();
    options.stream.reassembly.depth = 10_000;
    let mut inspection = with_options("", options);
    // A record that is longer than what is read of the stream.
    let begin = b"\x16\x03\x01\x3f\xff\x01\0\x3f\xfb\x03\x03".as_slice();
    let hello = [begin, &[0; 15_000]].concat();
    request(&mut inspection, &[b"", &hello]);
    let mut next = 5001 + hello.len() as u32;
    for _ in 0..300 {
        let data = [0x16; 10_000];
        feed(&mut inspection, &to_server(80, next, &data));
        next += data.len() as u32;
        feed(&mut inspection, &to_client(80, 7001, next, b""));
    }
    let kept = inspection.counters().stream.reassembly_memuse;
    assert!(kept < 100_000, "{kept}");
}
