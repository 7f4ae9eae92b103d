use etherparse::{IcmpEchoHeader, Icmpv4Slice, Icmpv6Slice, Ipv4HeaderSlice, TcpHeaderSlice};

use super::*;

const A: [u8; 4] = [192, 0, 2, 1];
const B: [u8; 4] = [198, 51, 100, 7];
const A6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const B6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];

fn tcp(v6: bool, flags: &str, payload: &[u8]) -> Vec<u8> {
    let mut builder = match v6 {
        true => PacketBuilder::ipv6(A6, B6, 60).tcp(1000, 80, 5000, 99),
        false => PacketBuilder::ipv4(A, B, 60).tcp(1000, 80, 5000, 99),
    };
    for flag in flags.chars() {
        builder = match flag {
            'S' => builder.syn(),
            'A' => builder.ack(7000),
            'F' => builder.fin(),
            _ => builder.rst(),
        };
    }
    let mut bytes = Vec::new();
    builder.write(&mut bytes, payload).unwrap();
    bytes
}

fn udp(v6: bool, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    match v6 {
        true => PacketBuilder::ipv6(A6, B6, 60).udp(1000, 53),
        false => PacketBuilder::ipv4(A, B, 60).udp(1000, 53),
    }
    .write(&mut bytes, payload)
    .unwrap();
    bytes
}

fn built(packet: &[u8], toward: Toward) -> Option<(Vec<u8>, IpAddr)> {
    let mut out = vec![1, 2, 3];
    let to = build(&Decoded::parse(packet).unwrap(), toward, &mut out)?;
    Some((out, to))
}

/// Fails unless every checksum of `packet` is right.
fn verify_checksums(packet: &[u8]) {
    let decoded = Decoded::parse(packet).unwrap();
    let segment = decoded.network.unwrap().payload;
    if decoded.is_ipv4() {
        let header = Ipv4HeaderSlice::from_slice(packet).unwrap().to_header();
        assert_eq!(header.calc_header_checksum(), header.header_checksum);
    }
    match (decoded.source(), decoded.destination()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => match decoded.protocol() {
            6 => {
                let tcp = TcpHeaderSlice::from_slice(segment).unwrap();
                let sum = tcp.calc_checksum_ipv4_raw(from.octets(), to.octets(), decoded.payload);
                assert_eq!(sum.unwrap(), tcp.checksum());
            }
            _ => {
                let icmp = Icmpv4Slice::from_slice(segment).unwrap();
                let sum = icmp.icmp_type().calc_checksum(icmp.payload());
                assert_eq!(sum, icmp.checksum());
            }
        },
        (IpAddr::V6(from), IpAddr::V6(to)) => match decoded.protocol() {
            6 => {
                let tcp = TcpHeaderSlice::from_slice(segment).unwrap();
                let sum = tcp.calc_checksum_ipv6_raw(from.octets(), to.octets(), decoded.payload);
                assert_eq!(sum.unwrap(), tcp.checksum());
            }
            _ => {
                let icmp = Icmpv6Slice::from_slice(segment).unwrap();
                assert!(icmp.is_checksum_valid(from.octets(), to.octets()));
            }
        },
        _ => unreachable!("one family"),
    }
}

#[test]
fn resets_carry_the_numbers_that_their_receiver_expects() {
    // Flags and payload; toward whom; ports, sequence number, acknowledgment number if ACK.
    type Expect = ((u16, u16), u32, Option<u32>);
    let check = |flags: &str, payload: &[u8], toward: Toward, expect: Expect| {
        for v6 in [false, true] {
            let (packet, to) = built(&tcp(v6, flags, payload), toward).unwrap();
            verify_checksums(&packet);
            let reset = Decoded::parse(&packet).unwrap();
            assert_eq!(reset.destination(), to);
            let tcp = reset.tcp().unwrap();
            assert!(tcp.rst() && !tcp.syn() && !tcp.fin());
            let acknowledged = tcp.ack().then(|| tcp.acknowledgment_number());
            let told = (
                (tcp.source_port(), tcp.destination_port()),
                tcp.sequence_number(),
                acknowledged,
            );
            assert_eq!(told, expect, "{flags} {toward:?}");
        }
    };
    check("A", b"12345", Toward::Source, ((80, 1000), 7000, None));
    check("S", b"", Toward::Source, ((80, 1000), 0, Some(5001)));
    check("SF", b"12", Toward::Source, ((80, 1000), 0, Some(5004)));
    check("", b"123", Toward::Source, ((80, 1000), 0, Some(5003)));
    check(
        "A",
        b"12345",
        Toward::Destination,
        ((1000, 80), 5000, Some(7000)),
    );
    check("S", b"", Toward::Destination, ((1000, 80), 5000, None));
}

#[test]
fn resets_go_between_the_right_addresses() {
    let (packet, to) = built(&tcp(false, "A", b"x"), Toward::Source).unwrap();
    assert_eq!(to, IpAddr::from(A));
    assert_eq!(Decoded::parse(&packet).unwrap().source(), IpAddr::from(B));
    let (packet, to) = built(&tcp(true, "A", b"x"), Toward::Destination).unwrap();
    assert_eq!(to, IpAddr::from(B6));
    assert_eq!(Decoded::parse(&packet).unwrap().source(), IpAddr::from(A6));
}

#[test]
fn udp_is_answered_with_port_unreachable_that_belongs_to_its_flow() {
    for v6 in [false, true] {
        let original = udp(v6, b"query");
        let key = Decoded::parse(&original).unwrap().key;
        for toward in [Toward::Source, Toward::Destination] {
            let (packet, to) = built(&original, toward).unwrap();
            verify_checksums(&packet);
            let error = Decoded::parse(&packet).unwrap();
            assert_eq!(error.destination(), to);
            assert_eq!(error.key, key);
            let expect = if v6 { (1, 4) } else { (3, 3) };
            assert!(
                matches!(error.transport, Transport::Icmp { kind, code } if (kind, code) == expect)
            );
            // The receiver of an error must be the sender of what it quotes.
            let quoted = Decoded::parse(error.payload).unwrap();
            assert_eq!(quoted.source(), to);
            assert_eq!(
                quoted.ports.unwrap().0,
                if toward == Toward::Source { 1000 } else { 53 }
            );
        }
    }
}

#[test]
fn other_protocols_are_answered_with_administratively_prohibited() {
    let mut ping = Vec::new();
    PacketBuilder::ipv4(A, B, 60)
        .icmpv4(Icmpv4Type::EchoRequest(IcmpEchoHeader { id: 1, seq: 1 }))
        .write(&mut ping, b"x")
        .unwrap();
    let (packet, _) = built(&ping, Toward::Source).unwrap();
    verify_checksums(&packet);
    let error = Decoded::parse(&packet).unwrap();
    assert!(matches!(
        error.transport,
        Transport::Icmp { kind: 3, code: 13 }
    ));
}

#[test]
fn long_packets_are_quoted_in_part() {
    let (packet, _) = built(&udp(false, &[7; 3000]), Toward::Source).unwrap();
    assert_eq!(packet.len(), MAX_ICMPV4_ERROR);
    verify_checksums(&packet);
    let (packet, _) = built(&udp(true, &[7; 3000]), Toward::Source).unwrap();
    assert_eq!(packet.len(), MAX_ICMPV6_ERROR);
    verify_checksums(&packet);
}

#[test]
fn nothing_is_sent_where_an_answer_could_multiply() {
    let none = |packet: &[u8]| {
        for toward in [Toward::Source, Toward::Destination] {
            assert_eq!(built(packet, toward), None);
        }
    };
    none(&tcp(false, "R", b""));
    none(&tcp(true, "RA", b""));
    let (error, _) = built(&udp(false, b"x"), Toward::Source).unwrap();
    none(&error);
    let mut later = udp(false, b"x");
    later[7] = 1;
    none(&later);
    let icmpv6 = |kind| {
        let mut bytes = Vec::new();
        PacketBuilder::ipv6(A6, B6, 60)
            .icmpv6_raw(kind, 0, [0; 4])
            .write(&mut bytes, b"x")
            .unwrap();
        bytes
    };
    none(&icmpv6(1));
    none(&icmpv6(100));
    none(&icmpv6(137));
    assert!(built(&icmpv6(128), Toward::Source).is_some());
    for destination in [
        [224, 0, 0, 1],
        [255, 255, 255, 255],
        [240, 0, 0, 1],
        [0, 0, 0, 0],
    ] {
        let mut packet = udp(false, b"x");
        packet[16..20].copy_from_slice(&destination);
        none(&packet);
    }
}
