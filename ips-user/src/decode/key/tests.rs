use std::net::IpAddr;

use etherparse::{IcmpEchoHeader, Icmpv4Type, PacketBuilder};
use ips_common::{Direction, FAMILY_IPV6};
use proptest::prelude::*;

use super::*;

const A4: [u8; 4] = [192, 0, 2, 1];
const B4: [u8; 4] = [198, 51, 100, 7];

/// An IPv4 packet of 20 header bytes around `payload`; `flags` is the flags-and-offset field.
fn v4(protocol: u8, flags: u16, source: [u8; 4], destination: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0];
    packet.extend(((20 + payload.len()) as u16).to_be_bytes());
    packet.extend([0x12, 0x34]);
    packet.extend(flags.to_be_bytes());
    packet.extend([64, protocol, 0, 0]);
    packet.extend(source);
    packet.extend(destination);
    packet.extend(payload);
    packet
}

fn v6(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([next, 64]);
    packet.extend(a6());
    packet.extend(b6());
    packet.extend(payload);
    packet
}

fn a6() -> [u8; 16] {
    "2001:db8::1"
        .parse::<std::net::Ipv6Addr>()
        .unwrap()
        .octets()
}

fn b6() -> [u8; 16] {
    "2001:db8::2"
        .parse::<std::net::Ipv6Addr>()
        .unwrap()
        .octets()
}

/// 1000 → 80, then a dozen bytes of no meaning.
const PORTS: [u8; 16] = [0x03, 0xe8, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn key4(protocol: u8, ports: (u16, u16)) -> FlowKey {
    FlowKey::canonical(
        FAMILY_IPV4,
        protocol,
        Endpoint::new(IpAddr::from(A4), ports.0),
        Endpoint::new(IpAddr::from(B4), ports.1),
    )
    .0
}

fn key6(protocol: u8, ports: (u16, u16)) -> FlowKey {
    FlowKey::canonical(
        FAMILY_IPV6,
        protocol,
        Endpoint::new(IpAddr::from(a6()), ports.0),
        Endpoint::new(IpAddr::from(b6()), ports.1),
    )
    .0
}

fn whole(key: FlowKey) -> KeyOutcome {
    KeyOutcome::Flow {
        key,
        truncated: false,
    }
}

fn cut(key: FlowKey) -> KeyOutcome {
    KeyOutcome::Flow {
        key,
        truncated: true,
    }
}

fn frame(tags: &[u16], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 12];
    for tag in tags {
        frame.extend(tag.to_be_bytes());
        frame.extend([0, 42]);
    }
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

fn check(packet: &[u8], expect: KeyOutcome) {
    assert_eq!(packet_key(packet), expect, "{packet:02x?}");
    let ethertype = if packet.first().is_some_and(|byte| byte >> 4 == 6) {
        ETHERTYPE_IPV6
    } else {
        ETHERTYPE_IPV4
    };
    if packet_key(packet) != KeyOutcome::NotIp {
        for tags in [&[][..], &[0x8100], &[0x88a8, 0x8100], &[0x9100, 0x9100]] {
            assert_eq!(
                frame_key(&frame(tags, ethertype, packet)),
                expect,
                "{tags:x?}"
            );
        }
    }
}

#[test]
fn ports_are_read_for_every_protocol_that_has_them() {
    for protocol in [6, 17, 33, 132, 136] {
        check(
            &v4(protocol, 0, A4, B4, &PORTS),
            whole(key4(protocol, (1000, 80))),
        );
        check(&v6(protocol, &PORTS), whole(key6(protocol, (1000, 80))));
        check(
            &v4(protocol, 0, A4, B4, &PORTS[..4]),
            whole(key4(protocol, (1000, 80))),
        );
        check(
            &v4(protocol, 0, A4, B4, &PORTS[..3]),
            cut(key4(protocol, (0, 0))),
        );
    }
    for protocol in [2, 47, 50, 51, 89] {
        check(
            &v4(protocol, 0, A4, B4, &PORTS),
            whole(key4(protocol, (0, 0))),
        );
    }
    check(&v6(59, &PORTS), whole(key6(59, (0, 0))));
}

#[test]
fn both_directions_have_one_key_and_opposite_directions() {
    let there = v4(6, 0, A4, B4, &PORTS);
    let back = v4(6, 0, B4, A4, &[0, 80, 0x03, 0xe8, 0, 0, 0, 0]);
    assert_eq!(packet_key(&there), packet_key(&back));
    let direction = |packet: &[u8]| network_key(&Network::parse(packet).unwrap()).direction;
    assert_eq!(direction(&there), Direction::LowToHigh);
    assert_eq!(direction(&back), Direction::HighToLow);
}

#[test]
fn a_packet_ends_at_its_length_field_or_at_the_buffer() {
    let mut padded = v4(17, 0, A4, B4, &[]);
    padded.extend(PORTS);
    check(&padded, cut(key4(17, (0, 0))));
    padded[2..4].fill(0);
    check(&padded, whole(key4(17, (1000, 80))));
    padded[2..4].copy_from_slice(&19u16.to_be_bytes());
    check(&padded, KeyOutcome::Malformed);

    let mut padded = v6(17, &[]);
    padded.extend(PORTS);
    // Payload length zero: to the end of the buffer.
    check(&padded, whole(key6(17, (1000, 80))));
    padded[5] = 3;
    check(&padded, cut(key6(17, (0, 0))));
}

#[test]
fn headers_that_are_wrong_or_cut_are_malformed() {
    let packet = v4(6, 0, A4, B4, &PORTS);
    for len in 1..20 {
        check(&packet[..len], KeyOutcome::Malformed);
    }
    let mut small = packet.clone();
    small[0] = 0x44;
    check(&small, KeyOutcome::Malformed);
    let mut options = packet;
    options[0] = 0x4f;
    check(&options, KeyOutcome::Malformed);
    let packet = v6(6, &PORTS);
    for len in 1..40 {
        check(&packet[..len], KeyOutcome::Malformed);
    }
    check(&[], KeyOutcome::NotIp);
    check(&[0x55; 60], KeyOutcome::NotIp);
    assert_eq!(
        frame_key(&frame(&[], 0x86dd, &v4(6, 0, A4, B4, &PORTS))),
        KeyOutcome::Malformed
    );
}

#[test]
fn frames_without_ip_have_no_key() {
    let ip = v4(6, 0, A4, B4, &PORTS);
    for frame in [
        frame(&[], 0x0806, &ip),
        frame(&[0x8100, 0x8100, 0x8100], 0x0800, &ip),
        frame(&[], 0x8100, &[0, 1]),
        vec![0; 13],
        vec![],
    ] {
        assert_eq!(frame_key(&frame), KeyOutcome::NotIp, "{frame:02x?}");
    }
}

#[test]
fn extension_headers_are_walked_up_to_eight() {
    let options = |next: u8| [next, 0, 1, 4, 0, 0, 0, 0];
    for kind in [0, 43, 60, 135, 139, 140] {
        let packet = v6(kind, &[&options(6)[..], &PORTS].concat());
        check(&packet, whole(key6(6, (1000, 80))));
    }
    let authentication = [17, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    check(
        &v6(51, &[&authentication[..], &PORTS].concat()),
        whole(key6(17, (1000, 80))),
    );
    // Length zero is eight bytes: too little for RFC 4302, enough to be walked.
    check(
        &v6(51, &[&options(17)[..], &PORTS].concat()),
        whole(key6(17, (1000, 80))),
    );

    let chain = |count: usize| {
        let mut chain = Vec::new();
        for step in 1..=count {
            chain.extend(options(if step == count { 6 } else { 60 }));
        }
        v6(60, &[&chain[..], &PORTS].concat())
    };
    check(&chain(8), whole(key6(6, (1000, 80))));
    check(&chain(9), cut(key6(60, (0, 0))));
    // Claims 24 bytes, has 16.
    check(
        &v6(43, &[6, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        cut(key6(43, (0, 0))),
    );
    check(&v6(60, &[6]), cut(key6(60, (0, 0))));
    check(&v6(44, &[6, 0, 0, 0, 0, 0, 0]), cut(key6(44, (0, 0))));
}

#[test]
fn fragments_are_told_apart() {
    let fragment4 = FragmentKey {
        source: Endpoint::new(IpAddr::from(A4), 0).address,
        destination: Endpoint::new(IpAddr::from(B4), 0).address,
        identification: 0x1234,
        protocol: 17,
        family: FAMILY_IPV4,
        reserved: 0,
    };
    check(
        &v4(17, 0x2000, A4, B4, &PORTS),
        KeyOutcome::FirstFragment {
            key: key4(17, (1000, 80)),
            fragment: fragment4,
            truncated: false,
        },
    );
    for flags in [0x2001, 0x0001, 0x1fff] {
        check(
            &v4(17, flags, A4, B4, &PORTS),
            KeyOutcome::LaterFragment {
                fragment: fragment4,
                orphan_key: key4(17, (0, 0)),
            },
        );
    }
    check(&v4(17, 0x4000, A4, B4, &PORTS), whole(key4(17, (1000, 80))));

    let fragment6 = FragmentKey {
        source: Endpoint::new(IpAddr::from(a6()), 0).address,
        destination: Endpoint::new(IpAddr::from(b6()), 0).address,
        identification: 0xdead_beef,
        protocol: 0,
        family: FAMILY_IPV6,
        reserved: 0,
    };
    let header = |next: u8, offset_more: u8| [next, 0, 0, offset_more, 0xde, 0xad, 0xbe, 0xef];
    check(
        &v6(44, &[&header(17, 1)[..], &PORTS].concat()),
        KeyOutcome::FirstFragment {
            key: key6(17, (1000, 80)),
            fragment: fragment6,
            truncated: false,
        },
    );
    check(
        &v6(44, &[&header(60, 8)[..], &PORTS].concat()),
        KeyOutcome::LaterFragment {
            fragment: fragment6,
            orphan_key: key6(60, (0, 0)),
        },
    );
    // Atomic fragment, RFC 6946.
    check(
        &v6(44, &[&header(17, 0)[..], &PORTS].concat()),
        whole(key6(17, (1000, 80))),
    );
}

#[test]
fn icmp_queries_use_their_identifier() {
    for kind in [0, 8, 13, 14, 15, 16] {
        check(
            &v4(1, 0, A4, B4, &[kind, 0, 0, 0, 0x12, 0x34, 0, 1]),
            whole(key4(1, (0x1234, 0x1234))),
        );
    }
    for kind in [128, 129] {
        check(
            &v6(58, &[kind, 0, 0, 0, 0x12, 0x34, 0, 1]),
            whole(key6(58, (0x1234, 0x1234))),
        );
    }
    for kind in [9, 10, 17, 18, 128] {
        check(
            &v4(1, 0, A4, B4, &[kind, 0, 0, 0, 1, 2, 0, 1]),
            whole(key4(1, (0, 0))),
        );
    }
    check(
        &v4(1, 0, A4, B4, &[8, 0, 0, 0, 1, 2, 0]),
        cut(key4(1, (0, 0))),
    );
}

#[test]
fn icmp_errors_have_the_key_of_what_they_quote() {
    let router = [203, 0, 113, 9];
    let error = |kind: u8, quote: &[u8]| {
        v4(
            1,
            0,
            router,
            A4,
            &[&[kind, 1, 0, 0, 0, 0, 0, 0][..], quote].concat(),
        )
    };
    let outer = FlowKey::canonical(
        FAMILY_IPV4,
        1,
        Endpoint::new(IpAddr::from(router), 0),
        Endpoint::new(IpAddr::from(A4), 0),
    )
    .0;
    let quote = v4(6, 0, A4, B4, &PORTS);
    for kind in [3, 4, 5, 11, 12] {
        check(&error(kind, &quote), whole(key4(6, (1000, 80))));
        check(&error(kind, &quote[..24]), whole(key4(6, (1000, 80))));
        check(&error(kind, &quote[..23]), whole(key4(6, (0, 0))));
        check(&error(kind, &quote[..19]), whole(outer));
        check(&error(kind, &v6(6, &PORTS)), whole(outer));
    }
    // The quoted length field does not limit, not even when it is nonsense.
    let mut nonsense = quote.clone();
    nonsense[3] = 1;
    check(&error(3, &nonsense), whole(key4(6, (1000, 80))));
    check(
        &error(3, &v4(17, 0x0010, A4, B4, &PORTS)),
        whole(key4(17, (0, 0))),
    );
    check(
        &error(3, &v4(17, 0x2000, A4, B4, &PORTS)),
        whole(key4(17, (1000, 80))),
    );
    let echo = v4(1, 0, A4, B4, &[8, 0, 0, 0, 0, 77, 0, 1]);
    check(&error(11, &echo), whole(key4(1, (77, 77))));
    let nested = v4(
        1,
        0,
        A4,
        B4,
        &[&[3, 0, 0, 0, 0, 0, 0, 0][..], &quote].concat(),
    );
    check(&error(3, &nested), whole(key4(1, (0, 0))));

    let error6 =
        |kind: u8, quote: &[u8]| v6(58, &[&[kind, 0, 0, 0, 0, 0, 0, 0][..], quote].concat());
    for kind in 1..=4 {
        check(&error6(kind, &v6(17, &PORTS)), whole(key6(17, (1000, 80))));
        check(
            &error6(kind, &v4(17, 0, A4, B4, &PORTS)),
            whole(key6(58, (0, 0))),
        );
    }
}

#[test]
fn an_icmp_error_goes_against_the_packet_it_quotes() {
    let quote = v4(6, 0, A4, B4, &PORTS);
    let error = v4(
        1,
        0,
        B4,
        A4,
        &[&[3, 1, 0, 0, 0, 0, 0, 0][..], &quote].concat(),
    );
    let there = network_key(&Network::parse(&quote).unwrap());
    let error = network_key(&Network::parse(&error).unwrap());
    assert_eq!(there.outcome, error.outcome);
    assert_ne!(there.direction, error.direction);
}

#[test]
fn packets_built_by_etherparse_have_the_expected_keys() {
    let mut bytes = Vec::new();
    PacketBuilder::ipv4(A4, B4, 64)
        .tcp(1000, 80, 1, 1024)
        .write(&mut bytes, b"GET / HTTP/1.1\r\n")
        .unwrap();
    check(&bytes, whole(key4(6, (1000, 80))));
    let mut bytes = Vec::new();
    PacketBuilder::ipv4(A4, B4, 64)
        .icmpv4(Icmpv4Type::EchoRequest(IcmpEchoHeader { id: 5, seq: 1 }))
        .write(&mut bytes, b"ping")
        .unwrap();
    check(&bytes, whole(key4(1, (5, 5))));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        frame_key(&bytes);
        packet_key(&bytes);
    }

    #[test]
    fn no_bytes_after_a_plausible_start_make_it_panic(
        version in prop_oneof![Just(0x45u8), Just(0x46), Just(0x4f), Just(0x60)],
        next in prop_oneof![Just(0u8), Just(1), Just(6), Just(43), Just(44), Just(51), Just(58)],
        mut bytes in proptest::collection::vec(0u8..70, 0..200),
    ) {
        if let Some(first) = bytes.first_mut() { *first = version; }
        if let Some(byte) = bytes.get_mut(if version == 0x60 { 6 } else { 9 }) { *byte = next; }
        packet_key(&bytes);
        frame_key(&frame(&[], if version == 0x60 { 0x86dd } else { 0x0800 }, &bytes));
    }
}
