//! What the eBPF parser makes of every form of header, by `sluice_probe`.

mod common_packets;

use std::net::IpAddr;

use common_packets::*;
use ips_common::{FlowKey, FragmentKey, Probe, flow_hash, ipv4_address, ipv6_address};

const NOT_IP: u32 = 0;
const MALFORMED: u32 = 1;
const FLOW: u32 = 2;
const FIRST: u32 = 3;
const LATER: u32 = 4;

fn a4(port: u16) -> (IpAddr, u16) {
    (A4.into(), port)
}

fn b4(port: u16) -> (IpAddr, u16) {
    (B4.into(), port)
}

fn a6(port: u16) -> (IpAddr, u16) {
    (A6.into(), port)
}

fn b6(port: u16) -> (IpAddr, u16) {
    (B6.into(), port)
}

fn flow(key: FlowKey) -> Probe {
    Probe {
        key,
        hash: flow_hash(rig::SEED, &key),
        kind: FLOW,
        ..Probe::default()
    }
}

fn truncated(key: FlowKey) -> Probe {
    Probe {
        truncated: 1,
        ..flow(key)
    }
}

fn keyless(kind: u32) -> Probe {
    Probe {
        kind,
        ..Probe::default()
    }
}

fn check(rig: &Rig, cases: &[(&str, Vec<u8>, Probe)]) {
    for (what, frame, expected) in cases {
        assert_eq!(rig.probe(frame), *expected, "{what}");
    }
}

#[test]
fn ports_are_found_in_every_transport_protocol_and_family() {
    let rig = rig!();
    for protocol in [TCP, UDP, DCCP, SCTP, UDP_LITE] {
        let payload = ports(1234, 80);
        let v4_key = flow(key(protocol, a4(1234), b4(80)));
        let v6_key = flow(key(protocol, a6(1234), b6(80)));
        check(
            &rig,
            &[
                ("IPv4", frame(&v4(A4, B4, protocol, &payload)), v4_key),
                ("IPv6", frame(&v6(A6, B6, protocol, &payload)), v6_key),
            ],
        );
    }
}

#[test]
fn both_directions_have_one_key() {
    let rig = rig!();
    for protocol in [TCP, UDP, SCTP] {
        let there = rig.probe(&frame(&v4(A4, B4, protocol, &ports(5, 6))));
        let back = rig.probe(&frame(&v4(B4, A4, protocol, &ports(6, 5))));
        assert_eq!(there, back);
        let there = rig.probe(&frame(&v6(A6, B6, protocol, &ports(5, 6))));
        let back = rig.probe(&frame(&v6(B6, A6, protocol, &ports(6, 5))));
        assert_eq!(there, back);
        let other = rig.probe(&frame(&v6(A6, B6, protocol, &ports(6, 5))));
        assert_ne!(there, other, "exchanged ports are another flow");
    }
}

#[test]
fn up_to_two_vlan_tags_are_looked_through() {
    let rig = rig!();
    let ip4 = v4(A4, B4, TCP, &ports(1, 2));
    let ip6 = v6(A6, B6, TCP, &ports(1, 2));
    let (key4, key6) = (flow(key(TCP, a4(1), b4(2))), flow(key(TCP, a6(1), b6(2))));
    for tags in [
        &[][..],
        &[0x8100],
        &[0x88a8],
        &[0x9100],
        &[0x88a8, 0x8100],
        &[0x8100, 0x8100],
    ] {
        check(
            &rig,
            &[
                ("IPv4", tagged(tags, &ip4), key4),
                ("IPv6", tagged(tags, &ip6), key6),
            ],
        );
    }
    let three = tagged(&[0x8100, 0x8100, 0x8100], &ip4);
    check(&rig, &[("three tags", three, keyless(NOT_IP))]);
}

#[test]
fn what_is_not_ip_has_no_key() {
    let rig = rig!();
    check(
        &rig,
        &[
            ("ARP", ethernet(&[], 0x0806, &[0; 28]), keyless(NOT_IP)),
            ("nothing", ethernet(&[], 0x0806, &[]), keyless(NOT_IP)),
            ("length field", ethernet(&[], 60, &[0; 46]), keyless(NOT_IP)),
            (
                "tag only",
                ethernet(&[0x8100], 0x0806, &[]),
                keyless(NOT_IP),
            ),
        ],
    );
}

#[test]
fn ipv4_options_are_skipped() {
    let rig = rig!();
    for options in 0..=10 {
        let header = V4 {
            options,
            ..V4::between(A4, B4)
        };
        let packet = header.packet(UDP, &ports(53, 53));
        let expected = flow(key(UDP, a4(53), b4(53)));
        check(&rig, &[("options", frame(&packet), expected)]);
    }
}

#[test]
fn malformed_ip_headers_have_no_key() {
    let rig = rig!();
    let good4 = v4(A4, B4, TCP, &ports(1, 2));
    let good6 = v6(A6, B6, TCP, &ports(1, 2));
    let with4 = |offset: usize, value: u8| {
        let mut ip = good4.clone();
        ip[offset] = value;
        ethernet(&[], 0x0800, &ip)
    };
    let with6 = |value: u8| {
        let mut ip = good6.clone();
        ip[0] = value;
        ethernet(&[], 0x86dd, &ip)
    };
    check(
        &rig,
        &[
            ("version 6 in IPv4", with4(0, 0x65), keyless(MALFORMED)),
            ("version 0 in IPv4", with4(0, 0x05), keyless(MALFORMED)),
            ("header of 16 bytes", with4(0, 0x44), keyless(MALFORMED)),
            ("header beyond the end", with4(0, 0x4f), keyless(MALFORMED)),
            ("total length 19", with4(3, 19), keyless(MALFORMED)),
            ("version 4 in IPv6", with6(0x40), keyless(MALFORMED)),
            ("version 7 in IPv6", with6(0x70), keyless(MALFORMED)),
        ],
    );
}

#[test]
fn the_length_field_ends_the_packet_and_zero_does_not() {
    let rig = rig!();
    let set_length = |mut ip: Vec<u8>, offset: usize, length: u16| {
        ip[offset..offset + 2].copy_from_slice(&length.to_be_bytes());
        frame(&ip)
    };
    let ip4 = v4(A4, B4, TCP, &ports(1, 2));
    let ip6 = v6(A6, B6, TCP, &ports(1, 2));
    let (whole4, whole6) = (key(TCP, a4(1), b4(2)), key(TCP, a6(1), b6(2)));
    let (cut4, cut6) = (key(TCP, a4(0), b4(0)), key(TCP, a6(0), b6(0)));
    check(
        &rig,
        &[
            (
                "IPv4, no payload",
                set_length(ip4.clone(), 2, 20),
                truncated(cut4),
            ),
            (
                "IPv4, 3 of 4 bytes",
                set_length(ip4.clone(), 2, 23),
                truncated(cut4),
            ),
            (
                "IPv4, 4 bytes",
                set_length(ip4.clone(), 2, 24),
                flow(whole4),
            ),
            ("IPv4, BIG TCP", set_length(ip4.clone(), 2, 0), flow(whole4)),
            (
                "IPv4, beyond the end",
                set_length(ip4, 2, 1500),
                flow(whole4),
            ),
            (
                "IPv6, 3 of 4 bytes",
                set_length(ip6.clone(), 4, 3),
                truncated(cut6),
            ),
            ("IPv6, 4 bytes", set_length(ip6.clone(), 4, 4), flow(whole6)),
            (
                "IPv6, jumbogram",
                set_length(ip6.clone(), 4, 0),
                flow(whole6),
            ),
            (
                "IPv6, beyond the end",
                set_length(ip6, 4, 1500),
                flow(whole6),
            ),
        ],
    );
}

#[test]
fn a_frame_cut_anywhere_has_the_key_of_what_is_left() {
    let rig = rig!();
    let (whole4, cut4) = (key(TCP, a4(1), b4(2)), key(TCP, a4(0), b4(0)));
    let full = frame(&v4(A4, B4, TCP, &ports(1, 2)));
    for len in 14..=full.len() {
        let expected = match len {
            0..34 => keyless(MALFORMED),
            34..38 => truncated(cut4),
            _ => flow(whole4),
        };
        match rig.probe_if_run(&full[..len]) {
            Some(probe) => assert_eq!(probe, expected, "IPv4, {len} bytes"),
            None => assert!(len < 34, "IPv4, {len} bytes were not run"),
        }
    }
    let (whole6, cut6) = (key(TCP, a6(1), b6(2)), key(TCP, a6(0), b6(0)));
    let hop_by_hop = |protocol| FlowKey { protocol, ..cut6 };
    let full = tagged(
        &[0x8100],
        &v6(A6, B6, 0, &extension(0, 1, TCP, &ports(1, 2))),
    );
    for len in 14..=full.len() {
        let expected = match len {
            0..18 => keyless(NOT_IP),
            18..58 => keyless(MALFORMED),
            58..74 => truncated(hop_by_hop(0)),
            74..78 => truncated(cut6),
            _ => flow(whole6),
        };
        assert_eq!(rig.probe(&full[..len]), expected, "IPv6, {len} bytes");
    }
}

#[test]
fn ipv6_extension_headers_are_walked_up_to_eight() {
    let rig = rig!();
    let whole = key(UDP, a6(9), b6(10));
    for kind in [0, 43, 60, 135, 139, 140, 51, 44] {
        for length in [0, 1, 5] {
            let length = if kind == 44 { 0 } else { length };
            let packet = v6(A6, B6, kind, &extension(kind, length, UDP, &ports(9, 10)));
            check(&rig, &[("one header", frame(&packet), flow(whole))]);
        }
    }
    for count in 1..=10 {
        let mut payload = ports(9, 10);
        let mut next = UDP;
        for _ in 0..count {
            payload = extension(60, 0, next, &payload);
            next = 60;
        }
        let expected = if count <= 8 {
            flow(whole)
        } else {
            truncated(key(60, a6(0), b6(0)))
        };
        let packet = frame(&v6(A6, B6, 60, &payload));
        assert_eq!(rig.probe(&packet), expected, "{count} headers");
    }
    let long = extension(43, 255, 60, &extension(60, 100, UDP, &ports(9, 10)));
    let cut = extension(43, 255, UDP, &[]);
    check(
        &rig,
        &[
            ("long headers", frame(&v6(A6, B6, 43, &long)), flow(whole)),
            (
                "no next header",
                frame(&v6(A6, B6, 60, &extension(60, 0, 59, &[]))),
                flow(key(59, a6(0), b6(0))),
            ),
            (
                "cut in the header",
                frame(&v6(A6, B6, 43, &cut[..100])),
                truncated(key(43, a6(0), b6(0))),
            ),
            (
                "cut before the header",
                frame(&v6(A6, B6, 60, &extension(60, 0, 44, &[0; 7]))),
                truncated(key(44, a6(0), b6(0))),
            ),
        ],
    );
}

#[test]
fn icmp_queries_use_their_identifier() {
    let rig = rig!();
    for kind in [0, 8, 13, 14, 15, 16] {
        let packet = v4(A4, B4, ICMP, &icmp(kind, 77, &[]));
        let expected = flow(key(ICMP, a4(77), b4(77)));
        check(&rig, &[("ICMP", frame(&packet), expected)]);
    }
    for kind in [128, 129] {
        let packet = v6(A6, B6, ICMPV6, &icmp(kind, 77, &[]));
        let expected = flow(key(ICMPV6, a6(77), b6(77)));
        check(&rig, &[("ICMPv6", frame(&packet), expected)]);
    }
    let without4 = key(ICMP, a4(0), b4(0));
    let without6 = key(ICMPV6, a6(0), b6(0));
    check(
        &rig,
        &[
            (
                "router advertisement",
                frame(&v4(A4, B4, ICMP, &icmp(9, 77, &[]))),
                flow(without4),
            ),
            (
                "neighbour solicitation",
                frame(&v6(A6, B6, ICMPV6, &icmp(135, 77, &[]))),
                flow(without6),
            ),
            (
                "seven bytes",
                frame(&v4(A4, B4, ICMP, &icmp(8, 77, &[])[..7])),
                truncated(without4),
            ),
        ],
    );
}

#[test]
fn icmp_errors_have_the_key_of_what_they_quote() {
    let rig = rig!();
    let router4 = std::net::Ipv4Addr::new(203, 0, 113, 99);
    let router6 = std::net::Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 9);
    let quoted4 = v4(A4, B4, TCP, &ports(1234, 80));
    let quoted6 = v6(A6, B6, UDP, &ports(1234, 80));
    let error4 = |kind, quote: &[u8]| frame(&v4(router4, A4, ICMP, &icmp(kind, 0, quote)));
    let error6 = |kind, quote: &[u8]| frame(&v6(router6, A6, ICMPV6, &icmp(kind, 0, quote)));
    let key4 = flow(key(TCP, a4(1234), b4(80)));
    let key6 = flow(key(UDP, a6(1234), b6(80)));
    for kind in [3, 4, 5, 11, 12] {
        check(&rig, &[("ICMP", error4(kind, &quoted4), key4)]);
    }
    for kind in [1, 2, 3, 4] {
        check(&rig, &[("ICMPv6", error6(kind, &quoted6), key6)]);
    }

    let outer4 = flow(key(ICMP, (router4.into(), 0), a4(0)));
    let no_ports = flow(key(TCP, a4(0), b4(0)));
    let options = V4 {
        options: 10,
        ..V4::between(A4, B4)
    };
    let fragment = V4 {
        flags_and_offset: 185,
        ..V4::between(A4, B4)
    };
    let chain = extension(60, 1, UDP, &ports(1234, 80));
    let nested = v4(A4, B4, ICMP, &icmp(3, 0, &quoted4));
    check(
        &rig,
        &[
            ("eight bytes quoted", error4(3, &quoted4[..28]), key4),
            ("three bytes quoted", error4(3, &quoted4[..23]), no_ports),
            ("half a header quoted", error4(3, &quoted4[..19]), outer4),
            ("nothing quoted", error4(3, &[]), outer4),
            ("other family quoted", error4(3, &quoted6), outer4),
            (
                "options quoted",
                error4(11, &options.packet(TCP, &ports(1234, 80))),
                key4,
            ),
            (
                "later fragment quoted",
                error4(11, &fragment.packet(TCP, &ports(1234, 80))),
                no_ports,
            ),
            (
                "extension headers quoted",
                error6(1, &v6(A6, B6, 60, &chain)),
                key6,
            ),
            (
                "error in an error",
                error4(3, &nested),
                flow(key(ICMP, a4(0), b4(0))),
            ),
            (
                "echo quoted",
                error4(11, &v4(A4, B4, ICMP, &icmp(8, 42, &[]))),
                flow(key(ICMP, a4(42), b4(42))),
            ),
        ],
    );
}

#[test]
fn fragments_have_a_key_of_their_own() {
    let rig = rig!();
    let fragment4 = FragmentKey {
        source: ipv4_address(A4.into()),
        destination: ipv4_address(B4.into()),
        identification: 7,
        protocol: UDP,
        family: 4,
        reserved: 0,
    };
    let fragment6 = FragmentKey {
        source: ipv6_address(A6.octets()),
        destination: ipv6_address(B6.octets()),
        identification: 0xdead_beef,
        protocol: 0,
        family: 6,
        reserved: 0,
    };
    let at = |flags_and_offset| V4 {
        flags_and_offset,
        ..V4::between(A4, B4)
    };
    let as_fragment = |kind, fragment, probe: Probe| Probe {
        kind,
        fragment,
        ..probe
    };
    let id = 0xdead_beef;
    let whole6 = v6_fragment(UDP, 0, false, id, &ports(1, 2));
    let first6 = v6_fragment(UDP, 0, true, id, &ports(1, 2));
    let later6 = extension(60, 0, 44, &v6_fragment(UDP, 1448, true, id, &ports(1, 2)));
    let behind6 = v6_fragment(60, 0, true, id, &extension(60, 0, UDP, &ports(1, 2)));
    let key4 = flow(key(UDP, a4(1), b4(2)));
    let orphan4 = flow(key(UDP, a4(0), b4(0)));
    let key6 = flow(key(UDP, a6(1), b6(2)));
    let orphan6 = flow(key(UDP, a6(0), b6(0)));
    check(
        &rig,
        &[
            (
                "don't fragment",
                frame(&at(0x4000).packet(UDP, &ports(1, 2))),
                key4,
            ),
            (
                "first",
                frame(&at(0x2000).packet(UDP, &ports(1, 2))),
                as_fragment(FIRST, fragment4, key4),
            ),
            (
                "later",
                frame(&at(0x2001).packet(UDP, &ports(1, 2))),
                as_fragment(LATER, fragment4, orphan4),
            ),
            (
                "last",
                frame(&at(0x1fff).packet(UDP, &[])),
                as_fragment(LATER, fragment4, orphan4),
            ),
            ("atomic IPv6", frame(&v6(A6, B6, 44, &whole6)), key6),
            (
                "first IPv6",
                frame(&v6(A6, B6, 44, &first6)),
                as_fragment(FIRST, fragment6, key6),
            ),
            (
                "later IPv6",
                frame(&v6(A6, B6, 60, &later6)),
                as_fragment(LATER, fragment6, orphan6),
            ),
            (
                "headers behind the fragment header",
                frame(&v6(A6, B6, 44, &behind6)),
                as_fragment(FIRST, fragment6, key6),
            ),
        ],
    );
}

#[test]
fn other_protocols_have_no_ports() {
    let rig = rig!();
    for protocol in [2, 41, 47, 50, 89, 112] {
        let packet = v4(A4, B4, protocol, &ports(1, 2));
        let expected = flow(key(protocol, a4(0), b4(0)));
        check(&rig, &[("IPv4", frame(&packet), expected)]);
    }
}
