//! First inputs of every target, made here, and more of them out of the files of a folder.

use std::fs;
use std::path::{Path, PathBuf};

use etherparse::PacketBuilder;
use sluice::config::Config;
use sluice::decode::{LinkType, Start};
use sluice::inspection::InspectionOptions;
use sluice::replay::capture::Capture;
use sluice::rules::{RuleSet, RuleSource};
use sluice::source::Checksum;

use crate::engine::{RULES, at, engine, inspection, show};

const A: [u8; 4] = [10, 0, 0, 1];
const B: [u8; 4] = [10, 2, 0, 2];

fn tcp(to_server: bool, flags: &str, (seq, ack): (u32, u32), payload: &[u8]) -> Vec<u8> {
    let mut builder = match to_server {
        true => PacketBuilder::ipv4(A, B, 64).tcp(1000, 80, seq, 9999),
        false => PacketBuilder::ipv4(B, A, 64).tcp(80, 1000, seq, 9999),
    };
    for flag in flags.chars() {
        builder = match flag {
            'S' => builder.syn(),
            'F' => builder.fin(),
            'R' => builder.rst(),
            'P' => builder.psh(),
            'U' => builder.urg(2),
            _ => builder.ack(ack),
        };
    }
    let mut bytes = Vec::new();
    let written = builder.write(&mut bytes, payload);
    written.expect("into memory");
    bytes
}

fn udp(ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let builder = PacketBuilder::ipv4(A, B, 64).udp(ports.0, ports.1);
    builder.write(&mut bytes, payload).expect("into memory");
    bytes
}

fn v6(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x60, 0, 0, 0];
    bytes.extend((payload.len() as u16).to_be_bytes());
    bytes.extend([next, 64]);
    bytes.extend([[0x20, 1, 0xd, 0xb8].as_slice(), &[1; 12]].concat());
    bytes.extend([[0x20, 1, 0xd, 0xb8].as_slice(), &[2; 12]].concat());
    bytes.extend(payload);
    bytes
}

/// Of an IPv4 header whose checksum is zero still.
pub fn checksum(header: &[u8]) -> u16 {
    let words = header.chunks_exact(2);
    let sum = words
        .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]))
        .sum::<u32>();
    let folded = (sum & 0xffff) + (sum >> 16);
    !(((folded & 0xffff) + (folded >> 16)) as u16)
}

fn v4(protocol: u8, field: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x45, 0];
    bytes.extend((20 + payload.len() as u16).to_be_bytes());
    bytes.extend([0, 7]);
    bytes.extend(field.to_be_bytes());
    bytes.extend([64, protocol, 0, 0]);
    bytes.extend(A);
    bytes.extend(B);
    let sum = checksum(&bytes);
    bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// Packets of every kind, from the IP header on; among them a connection in its order.
pub fn packets() -> Vec<Vec<u8>> {
    let inner = udp((53, 53), b"inner");
    let ethernet = [[0u8; 12].as_slice(), &[8, 0], &inner].concat();
    let request = b"GET /attack HTTP/1.1\r\nlen=00007 b64:c2VjcmV0\r\n\r\n";
    let end = 101 + request.len() as u32;
    let options = {
        let mut bytes = Vec::new();
        let elements = [
            etherparse::TcpOptionElement::MaximumSegmentSize(536),
            etherparse::TcpOptionElement::WindowScale(7),
            etherparse::TcpOptionElement::SelectiveAcknowledgementPermitted,
            etherparse::TcpOptionElement::Timestamp(5, 0),
        ];
        let builder = PacketBuilder::ipv4(A, B, 64).tcp(1001, 80, 5, 9999).syn();
        let builder = builder.options(&elements).expect("options that fit");
        builder.write(&mut bytes, &[]).expect("into memory");
        bytes
    };
    vec![
        tcp(true, "S", (100, 0), b""),
        tcp(false, "SA", (500, 101), b""),
        tcp(true, "A", (101, 501), b""),
        tcp(true, "PA", (101, 501), request),
        tcp(false, "PA", (501, end), b"login admin evil  deed replaceme"),
        tcp(true, "PA", (end + 5, 501), b"abc123 tagme"),
        tcp(true, "PAU", (end, 501), b"qqaaxaz"),
        tcp(true, "FA", (end + 17, 533), b""),
        tcp(false, "R", (533, 0), b""),
        options,
        udp((1024, 53), b"\x01\x02reject the end"),
        udp(
            (4789, 4789),
            &[&[8, 0, 0, 0, 0, 0, 1, 0], &ethernet[..]].concat(),
        ),
        udp(
            (6081, 6081),
            &[&[0, 0, 0x65, 0x58, 0, 0, 1, 0], &ethernet[..]].concat(),
        ),
        udp((3544, 3544), &v6(17, &inner[20..])),
        v4(4, 0, &inner),
        v4(41, 0, &v6(6, &tcp(true, "S", (1, 0), b"")[20..])),
        v4(47, 0, &[&[0, 0, 8, 0], &inner[..]].concat()),
        v4(
            47,
            0,
            &[
                &[0x10, 0, 0x88, 0xbe, 0, 0, 0, 1, 0x10, 5, 0, 0, 0, 0, 0, 0],
                &ethernet[..],
            ]
            .concat(),
        ),
        v4(
            47,
            0,
            &[
                &[
                    0x30, 0x81, 0x88, 0x0b, 0, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0x21,
                ],
                &inner[..],
            ]
            .concat(),
        ),
        v4(1, 0, &[8, 0, 0xf7, 0xff, 0, 7, 0, 1, 1, 2, 3]),
        v4(1, 0, &[&[3, 3, 0, 0, 0, 0, 0, 0], &inner[..]].concat()),
        v4(2, 0, &[0x11, 0, 0xee, 0xff, 0, 0, 0, 0]),
        v4(132, 0, &[0, 80, 0, 81, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 4]),
        v4(
            17,
            0x2000,
            &[0, 53, 0, 53, 0, 24, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8],
        ),
        v4(17, 0x0002, &[9; 8]),
        v6(
            0,
            &[
                &[
                    60, 0, 1, 4, 0, 0, 0, 0, 43, 0, 0, 0, 0, 0, 0, 0, 44, 0, 0, 0, 0, 0, 0, 0, 17,
                    0, 0, 1, 0, 0, 0, 9,
                ],
                &[0u8, 53, 0, 53, 0, 24, 0, 0][..],
            ]
            .concat(),
        ),
        v6(44, &[17, 0, 0, 8, 0, 0, 0, 9, 1, 2, 3, 4, 5, 6, 7, 8]),
        v6(
            58,
            &[&[1, 0, 0, 0, 0, 0, 0, 0], &v6(17, &inner[20..])[..]].concat(),
        ),
        v6(
            51,
            &[
                17, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 53, 0, 53, 0, 8, 0, 0,
            ],
        ),
    ]
}

fn frames() -> Vec<Vec<u8>> {
    let ethertype = |packet: &[u8]| match packet[0] >> 4 {
        4 => [8, 0],
        _ => [0x86, 0xdd],
    };
    let mut frames = Vec::new();
    for packet in packets() {
        let kind = ethertype(&packet);
        frames.push([[2u8; 12].as_slice(), &kind, &packet].concat());
        frames.push([[2u8; 12].as_slice(), &[0x81, 0, 0, 9], &kind, &packet].concat());
    }
    let first = &packets()[0];
    frames.push(
        [
            [2u8; 12].as_slice(),
            &[0x88, 0xa8, 0, 9, 0x81, 0, 0, 8, 8, 0],
            first,
        ]
        .concat(),
    );
    frames.push(
        [
            [2u8; 12].as_slice(),
            &[0x88, 0x64, 0x11, 0, 0, 1, 0, 42, 0, 0x21],
            first,
        ]
        .concat(),
    );
    frames.push(
        [
            [2u8; 12].as_slice(),
            &[0x88, 0x47, 0, 0, 0x10, 64, 0, 0, 0x21, 64],
            first,
        ]
        .concat(),
    );
    frames.push(
        [
            [2u8; 12].as_slice(),
            &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1],
            &[0; 20],
        ]
        .concat(),
    );
    frames
}

/// A sequence for the target `inspection`.
fn sequence(head: [u8; 2], frames: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = head.to_vec();
    for frame in frames {
        bytes.push(1);
        bytes.extend((frame.len() as u16).to_be_bytes());
        bytes.extend(frame);
    }
    bytes
}

fn with(head: &[u8], rest: &[u8]) -> Vec<u8> {
    [head, rest].concat()
}

fn pcap(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    bytes.extend([0, 0, 4, 0, 1, 0, 0, 0]);
    for frame in frames {
        let len = (frame.len() as u32).to_le_bytes();
        bytes.extend([[5, 0, 0, 0], [6, 0, 0, 0], len, len].concat());
        bytes.extend(frame);
    }
    bytes
}

fn pcapng(frames: &[Vec<u8>]) -> Vec<u8> {
    let block = |kind: u32, body: &[u8]| {
        let len = (12 + body.len().next_multiple_of(4)) as u32;
        let mut bytes = [kind.to_le_bytes(), len.to_le_bytes()].concat();
        bytes.extend(body);
        bytes.resize(len as usize - 4, 0);
        bytes.extend(len.to_le_bytes());
        bytes
    };
    let section = [
        0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255,
    ];
    let mut bytes = block(0x0a0d_0d0a, &section);
    bytes.extend(block(
        1,
        &[
            1, 0, 0, 0, 0, 0, 0, 0, 9, 0, 1, 0, 9, 0, 0, 0, 14, 0, 8, 0, 1, 0, 0, 0, 0, 0, 0, 0,
        ],
    ));
    for frame in frames {
        let len = (frame.len() as u32).to_le_bytes();
        let mut body = [[0; 4], [1, 0, 0, 0], [9, 0, 0, 0], len, len].concat();
        body.extend(frame);
        bytes.extend(block(6, &body));
        bytes.extend(block(3, &with(&len, frame)));
    }
    bytes
}

/// What a worker with the connection of [`packets`] writes for its successor.
fn exported() -> Vec<u8> {
    let mut harness = inspection(&engine(RULES), InspectionOptions::default(), false);
    for (number, packet) in (1..).zip(packets().iter().take(7)) {
        let start = Start::Ip(Checksum::Unverified);
        show(
            &mut harness,
            packet,
            start,
            number,
            at(u64::from(number) * 1000),
        );
    }
    let mut bytes = Vec::new();
    let export = harness.flows().export(&mut bytes, || {});
    export.expect("into memory");
    bytes.truncate(bytes.len() - 4);
    bytes
}

fn session() -> Vec<u8> {
    let mut harness = inspection(&engine(RULES), InspectionOptions::default(), false);
    for (number, packet) in (1..).zip(packets().iter().take(6)) {
        show(
            &mut harness,
            packet,
            Start::Link(LinkType::Raw),
            number,
            at(5),
        );
    }
    let mut bytes = Vec::new();
    let mut sessions = harness
        .flows()
        .iter()
        .filter_map(|flow| flow.session.as_ref());
    if let Some(session) = sessions.next() {
        session.export(&mut bytes);
    }
    bytes
}

const PCRES: [(u8, &str, &str); 12] = [
    (0, "ab+c[0-9]{2,}", "xabbc123"),
    (1, "^GET\\s+/[^\\s]*\\.php\\?id=\\d+", "get /x.php?id=7"),
    (2, "^a$|b\\b", "x\na\nb"),
    (4, "a.c(?!d)", "a\nce"),
    (32, "end$", "end\n"),
    (0, "(a+)x\\1", "aaxaa"),
    (64, "a+?b*", "aaab"),
    (0, "[[:alpha:]]+[^\\x00-\\x1f]\\xff", "abc!\u{7f}"),
    (16, "\\Aab|cd", "cdab"),
    (8, "a b # comment\nc", "abc"),
    (0, "\\bfoo\\B.{0,10}(?:x|y){2}", "a fooz xy"),
    (0, "(?i)A(?-i)b$", "ab"),
];

fn control() -> Vec<Vec<u8>> {
    let config = serde_json::to_string(&Config::default()).expect("the defaults");
    let texts = [
        (0, r#"{"command":"drain","worker":{"worker":1}}"#.to_owned()),
        (0, r#"{"command":"upgrade","program":"/bin/x"}"#.to_owned()),
        (1, r#"{"ok":{"a":[1,2]}}"#.to_owned()),
        (1, r#"{"error":"no"}"#.to_owned()),
        (2, format!(r#"{{"Prepare":{{"config":{config},"trace":true}}}}"#)),
        (2, r#"{"Spawn":{"seat":"Backup","succeeds":true}}"#.to_owned()),
        (3, r#"{"Exited":{"seat":{"Worker":1},"pid":7,"how":"signal SIGSEGV"}}"#.to_owned()),
        (3, r#"{"Compiled":{"generation":1,"compiled":{"rules":1,"skipped":0,"wrong":0,"image_bytes":1,"peak_bytes":1,"took_ms":1}}}"#.to_owned()),
        (4, format!(r#"{{"Reload":{{"generation":2,"config":{config}}}}}"#)),
        (6, r#"{"launcher":null,"rejecter":null,"workers_map":1,"configured":1,"seats":[],"retired":{},"upgrades":0,"history":{"generation":4294967295},"kept":null}"#.to_owned()),
        (8, "    0   4242     3 2 65531     0     0       17  1\n".to_owned()),
        (9, ":sluice-a - [0:0]\n[5:300] -A sluice-a -m mark --mark 0x1/0xff -j NFQUEUE --queue-num 7\n-A FORWARD -m comment --comment \"sluice:a:made-chain\" -j sluice-a\n".to_owned()),
        (10, r#"{"nftables":[{"map":{"name":"queues","elem":[[1,{"jump":{"target":"queue-7"}}]]}},{"rule":{"chain":"queue-7","expr":[{"counter":{"packets":1,"bytes":2}}]}},{"set":{"name":"steered","elem":["eth0"]}},{"chain":{"name":"steer","policy":"accept","prio":-5,"hook":"forward"}}]}"#.to_owned()),
    ];
    let mut seeds: Vec<_> = texts
        .iter()
        .map(|(kind, text)| with(&[*kind], text.as_bytes()))
        .collect();
    // A datagram of a queue: header, family, packet header, mark, payload.
    let mut datagram = vec![
        0x3c, 0, 0, 0, 0, 3, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 7,
    ];
    datagram.extend([11, 0, 1, 0, 0, 0, 0, 9, 8, 0, 2, 0, 8, 0, 3, 0, 0, 0, 0, 5]);
    datagram.extend([
        20, 0, 10, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16,
    ]);
    seeds.push(with(&[7], &datagram));
    let packets = packets();
    seeds.push(with(&[11], &packets[8]));
    seeds.push(with(&[11], &packets[20]));
    for kind in 1..5 {
        seeds.push(with(&[12, kind, 0, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0], &[0; 64]));
    }
    seeds.push(with(&[13], &[3; 200]));
    seeds.push(with(
        &[14],
        &[
            1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7,
        ],
    ));
    seeds
}

/// Made for this target.
pub fn own(target: &str) -> Vec<Vec<u8>> {
    let packets = packets();
    match target {
        "decode" => {
            let ethernet = frames().into_iter().map(|frame| with(&[0, 0], &frame));
            let raw = packets.iter().map(|packet| with(&[4, 0], packet));
            let ip = packets.iter().map(|packet| with(&[11, 0], packet));
            let cooked = packets.iter().map(|packet| {
                let mut head = vec![7, 0];
                head.extend([0; 14]);
                head.extend([8, 0]);
                with(&head, packet)
            });
            ethernet.chain(raw).chain(ip).chain(cooked).collect()
        }
        "steering" => frames(),
        "inspection" => {
            let ethernet = sequence([0, 0], &frames());
            let raw = sequence([0x11, 4], &packets);
            let ip = sequence([4, 128], &packets);
            vec![ethernet, raw, ip, sequence([2, 0], &frames()), sequence([9, 4], &packets)]
        }
        "defrag" => vec![
            // The whole in order, backwards, with an overlap, with a repetition.
            vec![0, 4, 0, 8, 0, 0, 4, 1, 8, 0, 0, 0, 2, 8, 0, 0],
            vec![0, 0, 2, 8, 0, 0, 4, 1, 8, 0, 0, 4, 0, 8, 0, 0],
            vec![0, 5, 0, 16, 0, 0, 5, 1, 16, 1, 1, 1, 2, 16, 0, 0],
            vec![1, 12, 0, 16, 0, 0, 36, 9, 0, 1, 16, 1, 1, 0, 2, 16, 0, 0],
            vec![2, 68, 0, 63, 0, 0, 64, 1, 63, 0, 0],
        ],
        "stream" => vec![
            vec![0, 0, 0, 0, 0, 0, 1, 9, 0, 1, 9, 0, 8, 1, 9, 0],
            vec![1, 0, 1, 1, 1, 1, 9, 5, 20, 1, 1, 10, 0, 8, 9, 0, 4, 0, 1, 40, 0],
            vec![2, 1, 2, 2, 2, 0, 0x41, 5, 0, 5, 0, 0x41, 5, 0, 2, 3, 255, 1, 7, 0],
            vec![4, 3, 3, 3, 1, 1, 0x21, 200, 0, 0x19, 0, 9, 9, 1, 8, 0xe7, 9, 0, 1, 9, 0],
        ],
        "rules" => {
            let lines = RULES.lines().map(|line| line.as_bytes().to_vec());
            lines.chain([RULES.as_bytes().to_vec()]).collect()
        }
        "pcre" => PCRES
            .iter()
            .flat_map(|&(flags, expression, subject)| {
                let head = [flags, 0, expression.len() as u8];
                let other = [flags, 1, expression.len() as u8];
                let rest = [expression.as_bytes(), subject.as_bytes()].concat();
                [with(&head, &rest), with(&other, &rest)]
            })
            .collect(),
        "config" => {
            let defaults = include_bytes!("../../ips-user/src/config/defaults.toml");
            let set = b"stream.midstream=true\nvars.port-groups.X=[80,443]\ndefrag.memcap=1mb\nflow-timeouts.tcp.new=5\naction-order=[\"pass\"]\nhost-os-policy.linux=[\"10.0.0.0/8\"]\noutputs.0.eve-log.enabled=yes\n";
            vec![with(&[0], defaults), with(&[1], set)]
        }
        "control" => control(),
        "handover" => vec![with(&[0], &exported()), with(&[1], &session()), with(&[2], &session())],
        "lists" => vec![
            with(&[0], b"suppress gen_id 1, sig_id 2, track by_src, ip [10.0.0.0/8,!10.1.1.1]\nthreshold gen_id 1, sig_id 3, type both, track by_dst, count 3, seconds 5\nrate_filter gen_id 1, sig_id 3, track by_rule, count 3, seconds 5, new_action drop, timeout 7\n"),
            with(&[1], b"config classification: a-b,Some text,3\n# no\n"),
            with(&[2], b"config reference: cve http://x/\n"),
            with(&[3], b"YWJj\n00112233445566778899aabbccddeeff\n10.0.0.1\n::1\n"),
            with(&[4], b"1,bad,Bad\n2,good,Good\n\n10.0.0.0/8,1,90\n10.1.2.3,1,5\n2001:db8::/32,1,7\n0.0.0.0/0,1,1\n"),
        ],
        "applications" => APPLICATIONS
            .iter()
            .map(|(kind, pieces)| {
                let mut bytes = vec![*kind];
                for (direction, piece) in *pieces {
                    bytes.push(*direction);
                    bytes.extend((piece.len() as u16).to_be_bytes());
                    bytes.extend(*piece);
                }
                bytes
            })
            .collect(),
        "capture" => {
            let frames = &frames()[..4];
            vec![pcap(frames), pcapng(frames)]
        }
        _ => Vec::new(),
    }
}

fn files(folder: &Path, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let ending = path.extension().and_then(|it| it.to_str()).unwrap_or("");
            if path.is_dir() {
                folders.push(path);
            } else if endings.contains(&ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Longest input that is taken from a file.
const LONGEST: usize = 4096;
/// Most of them.
const MOST: usize = 1500;

/// Out of the captures and rules below a folder.
pub fn found(target: &str, folder: &Path) -> Vec<Vec<u8>> {
    let captures = || files(folder, &["pcap", "pcapng", "cap", "trace"]);
    let mut seeds = Vec::new();
    match target {
        "decode" | "steering" | "inspection" => {
            for path in captures() {
                let Ok(mut capture) = Capture::open(&path) else {
                    continue;
                };
                let mut frames = Vec::new();
                while frames.len() < 12
                    && let Ok(Some(packet)) = capture.next_packet()
                {
                    if packet.link_type == 1 && packet.bytes.len() < 1600 {
                        frames.push(packet.bytes.to_vec());
                    }
                }
                match target {
                    "inspection" => seeds.push(sequence([seeds.len() as u8 & 3, 0], &frames)),
                    "decode" => seeds.extend(frames.iter().take(2).map(|it| with(&[0, 0], it))),
                    _ => seeds.extend(frames.into_iter().take(2)),
                }
            }
        }
        "capture" => seeds.extend(captures().iter().filter_map(|path| fs::read(path).ok())),
        "rules" | "pcre" => {
            let texts = files(folder, &["rules"]);
            let texts = texts.iter().filter_map(|path| fs::read(path).ok());
            let lines = texts.flat_map(|text| {
                let lines = text.split(|byte| *byte == b'\n').map(<[u8]>::to_vec);
                lines.collect::<Vec<_>>()
            });
            // Not only those at the beginning.
            let lines: Vec<_> = lines.filter(|line| line.len() > 40).collect();
            let step = lines.len().div_ceil(MOST).max(1);
            for line in lines.into_iter().step_by(step) {
                match target {
                    "rules" => seeds.push(line),
                    _ => seeds.extend(expression(&line)),
                }
            }
        }
        "lists" => {
            for path in files(folder, &["config"]) {
                let name = path.file_name().and_then(|it| it.to_str()).unwrap_or("");
                let kind = match name {
                    "threshold.config" => 0,
                    "classification.config" => 1,
                    "reference.config" => 2,
                    _ => continue,
                };
                seeds.extend(fs::read(&path).ok().map(|text| with(&[kind], &text)));
            }
        }
        _ => {}
    }
    seeds
        .retain(|seed| seed.len() <= LONGEST || target == "inspection" && seed.len() < 4 * LONGEST);
    let step = seeds.len().div_ceil(MOST).max(1);
    seeds.into_iter().step_by(step).collect()
}

/// The expression of a rule, with a subject that is not quite it.
fn expression(line: &[u8]) -> Option<Vec<u8>> {
    let loaded = RuleSet::default().load_sources(&[RuleSource::new("seed", line.to_vec())]);
    let rule = loaded.rules.into_iter().next()?;
    let mut matches = rule.options.sections.iter().flat_map(|it| &it.matches);
    let pcre = matches.find_map(|found| match found {
        sluice::rules::ast::Match::Pcre(pcre) => Some(pcre),
        _ => None,
    })?;
    let flags = [
        pcre.caseless,
        pcre.multi_line,
        pcre.dot_all,
        pcre.extended,
        pcre.anchored,
        pcre.dollar_end_only,
        pcre.ungreedy,
    ];
    let bits = (0..)
        .zip(flags)
        .map(|(bit, set)| u8::from(set) << bit)
        .sum();
    let len = u8::try_from(pcre.expression.len())
        .ok()
        .filter(|len| *len < 128)?;
    let subject: Vec<u8> = pcre
        .expression
        .bytes()
        .filter(|it| !b"\\[]()^$".contains(it))
        .collect();
    let text = [pcre.expression.as_bytes(), &subject].concat();
    Some(with(&[bits, 1, len], &text))
}

/// Conversations: kind, then who says what.
type Conversation = (u8, &'static [(u8, &'static [u8])]);
const APPLICATIONS: [Conversation; 7] = [
    (
        0,
        &[
            (0, b"POST /a%20b?c=%64 HTTP/1.1\r\nHost: a.example\r\nCookie: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
            (1, b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\nContent-Disposition: attachment; filename=\"x.exe\"\r\n\r\nhello"),
        ],
    ),
    (
        0,
        &[
            (1, b"SSH-2.0-OpenSSH_9.2p1\r\n"),
            (0, b"SSH-2.0-Me x\n\0\0\0\x3e\x04\x14aaaaaaaaaaaaaaaa\0\0\0\x01a\0\0\0\x01b\0\0\0\x01c\0\0\0\x01d\0\0\0\x01e\0\0\0\x01f\0\0\0\x01g\0\0\0\x01h\0\0\0\0"),
        ],
    ),
    (
        0,
        &[
            (0, b"\x16\x03\x01\0\x2d\x01\0\0\x29\x03\x03aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\0\0\x02\x13\x01\x01\0"),
            (1, b"\x16\x03\x03\0\x2a\x02\0\0\x26\x03\x03aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\0\x13\x01\0\x17\x03\x03\0\x01a"),
        ],
    ),
    (
        1,
        &[
            (0, b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03www\x07example\0\0\x01\0\x01"),
            (1, b"\x12\x34\x81\x80\0\x01\0\x01\0\0\0\0\x03www\x07example\0\0\x01\0\x01\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x01"),
        ],
    ),
    (
        0,
        &[(0, b"\0\x1d\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03www\x07example\0\0\x01\0\x01")],
    ),
    (
        0,
        &[
            (1, b"220 a ESMTP\r\n"),
            (0, b"EHLO a\r\nAUTH LOGIN\r\n"),
            (1, b"250-CHUNKING\r\n250 ok\r\n334 a\r\n"),
            (0, b"YQ==\r\nMAIL FROM:<a@b> SIZE=1\r\nRCPT TO:<c@d>\r\nDATA\r\n"),
            (1, b"235 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n"),
            (0, b"Subject: a\r\n b\r\nContent-Type: multipart/mixed; boundary=\"x\"\r\n\r\n--x\r\nContent-Type: text/html\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nhttp://a=2E=\r\nb/\r\n--x\r\nContent-Type: message/rfc822\r\n\r\nContent-Disposition: attachment; filename*0=a; filename*1*=%2Eb\r\nContent-Transfer-Encoding: base64\r\n\r\naGVs\r\nbG8=\r\n..\n.\n--x--\r\n.\r\nRSET\r\nQUIT\r\n"),
            (1, b"250 ok\r\n250 ok\r\n221 bye\r\n"),
        ],
    ),
    (
        0,
        &[
            (0, b"EHLO a\r\nMAIL FROM:<a@b>\r\nDATA\r\nBDAT 10\r\nSubject: aBDAT 0 LAST\r\nSTARTTLS\r\n"),
            (1, b"220 a\r\n250 ok\r\n250 ok\r\n503 no\r\n250 ok\r\n250 ok\r\n220 go\r\n"),
            (0, b"\x16\x03\x01\0\x2d\x01\0\0\x29\x03\x03aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\0\0\x02\x13\x01\x01\0"),
        ],
    ),
];
