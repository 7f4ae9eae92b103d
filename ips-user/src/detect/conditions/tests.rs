use etherparse::{IpNumber, PacketBuilder, TcpOptionElement};

use super::packet::holds;
use super::*;
use crate::decode::Decoded;
use crate::rules::ast::{BitModifier, IpOption, TcpFlags};

fn check(packet: &[u8], condition: &Condition, expect: bool) {
    let decoded = Decoded::parse(packet).unwrap();
    let view = View::new(&decoded);
    assert_eq!(holds(condition, &view), expect, "{condition:?}");
}

fn tcp(payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    PacketBuilder::ipv4([1, 1, 1, 1], [2, 2, 2, 2], 64)
        .tcp(1000, 80, 7, 512)
        .syn()
        .ece()
        .ack(9)
        .options(&[
            TcpOptionElement::MaximumSegmentSize(1460),
            TcpOptionElement::WindowScale(7),
        ])
        .unwrap()
        .write(&mut bytes, payload)
        .unwrap();
    bytes
}

fn icmp() -> Vec<u8> {
    let mut bytes = Vec::new();
    PacketBuilder::ipv4([1, 1, 1, 1], [1, 1, 1, 1], 3)
        .icmpv4_echo_request(77, 5)
        .write(&mut bytes, b"abc")
        .unwrap();
    bytes
}

fn flags(modifier: BitModifier, flags: u8, ignored: u8) -> Condition {
    Condition::TcpFlags(TcpFlags {
        modifier,
        flags,
        ignored,
    })
}

#[test]
fn tcp_fields_are_compared() {
    let packet = tcp(b"xyz");
    let is = |condition: Condition, expect| check(&packet, &condition, expect);
    // SYN, ACK and ECE are set.
    is(flags(BitModifier::Exactly, 0x52, 0), true);
    is(flags(BitModifier::Exactly, 0x12, 0), false);
    is(flags(BitModifier::Exactly, 0x12, 0xc0), true);
    is(flags(BitModifier::All, 0x02, 0), true);
    is(flags(BitModifier::All, 0x03, 0), false);
    is(flags(BitModifier::Any, 0x03, 0), true);
    is(flags(BitModifier::Any, 0x01, 0), false);
    is(flags(BitModifier::Not, 0x01, 0), true);
    is(flags(BitModifier::Not, 0x02, 0), false);
    is(Condition::Seq(7), true);
    is(Condition::Seq(8), false);
    is(Condition::Ack(9), true);
    is(
        Condition::Window {
            negated: false,
            value: 512,
        },
        true,
    );
    is(
        Condition::Window {
            negated: true,
            value: 512,
        },
        false,
    );
    is(Condition::TcpMss(Compare::Equal(1460)), true);
    is(Condition::TcpMss(Compare::Less(1460)), false);
    is(Condition::TcpWscale(Compare::Equal(7)), true);
    is(Condition::PayloadSize(Compare::Equal(3)), true);
    is(Condition::PayloadSize(Compare::Greater(3)), false);
    is(Condition::IcmpType(Compare::Equal(0)), false);
    is(Condition::IgmpType(Compare::Equal(0)), false);
    check(&tcp(b""), &Condition::PayloadSize(Compare::Equal(0)), true);
}

#[test]
fn ip_fields_are_compared() {
    let packet = tcp(b"");
    let is = |condition: Condition, expect| check(&packet, &condition, expect);
    is(Condition::Ttl(Compare::Equal(64)), true);
    is(Condition::Ttl(Compare::Less(64)), false);
    is(Condition::IpProtocol(Compare::Equal(6)), true);
    is(Condition::IpProtocol(Compare::NotEqual(6)), false);
    is(Condition::IpVersion(4), true);
    is(Condition::IpVersion(6), false);
    is(Condition::SameIp, false);
    is(Condition::IpOption(IpOption::Any), false);
    is(Condition::FragOffset(Compare::Equal(0)), true);
    check(&icmp(), &Condition::SameIp, true);
    let mut marked = tcp(b"");
    marked[1] = 0x2e;
    marked[4..6].copy_from_slice(&4711u16.to_be_bytes());
    marked[6..8].copy_from_slice(&0x4000u16.to_be_bytes());
    let is = |condition: Condition, expect| check(&marked, &condition, expect);
    is(Condition::Tos(Compare::Equal(0x2e)), true);
    is(Condition::IpId(4711), true);
    is(Condition::IpId(4712), false);
    let bits = |modifier, bits| Condition::FragBits { modifier, bits };
    is(bits(BitModifier::Exactly, 0x4000), true);
    is(bits(BitModifier::All, 0x2000), false);
    is(bits(BitModifier::Any, 0x6000), true);
    is(bits(BitModifier::Not, 0x2000), true);
}

#[test]
fn options_of_ipv4_are_found() {
    let mut bytes = vec![
        0x46, 0, 0, 24, 0, 0, 0, 0, 64, 99, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2,
    ];
    // Router alert.
    bytes.extend([0x94, 4, 0, 0]);
    check(&bytes, &Condition::IpOption(IpOption::Any), true);
    check(&bytes, &Condition::IpOption(IpOption::Number(0x94)), true);
    check(&bytes, &Condition::IpOption(IpOption::Number(0x83)), false);
}

#[test]
fn icmp_fields_are_compared() {
    let packet = icmp();
    let is = |condition: Condition, expect| check(&packet, &condition, expect);
    is(Condition::IcmpType(Compare::Equal(8)), true);
    is(Condition::IcmpType(Compare::Between(7, 9)), true);
    is(Condition::IcmpCode(Compare::Equal(0)), true);
    is(Condition::IcmpId(77), true);
    is(Condition::IcmpId(78), false);
    is(Condition::IcmpSeq(5), true);
    is(Condition::Icmpv6Mtu(Compare::AtLeast(0)), false);
    is(Condition::PayloadSize(Compare::Equal(3)), true);
    let mut unreachable = Vec::new();
    PacketBuilder::ipv4([1, 1, 1, 1], [2, 2, 2, 2], 3)
        .icmpv4_raw(3, 1, [0, 77, 0, 5])
        .write(&mut unreachable, b"")
        .unwrap();
    // What stands there is no identifier.
    check(&unreachable, &Condition::IcmpId(77), false);
    let mut too_big = Vec::new();
    PacketBuilder::ipv6([1; 16], [2; 16], 9)
        .icmpv6_raw(2, 0, 1280u32.to_be_bytes())
        .write(&mut too_big, b"")
        .unwrap();
    check(&too_big, &Condition::Icmpv6Mtu(Compare::Equal(1280)), true);
    check(&too_big, &Condition::IpVersion(6), true);
    check(&too_big, &Condition::Tos(Compare::AtLeast(0)), false);
    check(&too_big, &Condition::IpId(0), false);
}

#[test]
fn fragments_tell_where_they_stand() {
    let mut later = Vec::new();
    PacketBuilder::ipv4([1, 1, 1, 1], [2, 2, 2, 2], 9)
        .write(&mut later, IpNumber::UDP, &[1; 24])
        .unwrap();
    later[6..8].copy_from_slice(&(0x2000u16 | 185).to_be_bytes());
    check(&later, &Condition::FragOffset(Compare::Equal(185)), true);
    check(&later, &Condition::FragOffset(Compare::Less(185)), false);
    let more = Condition::FragBits {
        modifier: BitModifier::Exactly,
        bits: 0x2000,
    };
    check(&later, &more, true);
    // The same behind an IPv6 header.
    let mut six = vec![0x60, 0, 0, 0, 0, 16, 44, 64];
    six.extend([1; 16]);
    six.extend([2; 16]);
    let field = (185u16 << 3) | 1;
    six.extend([17, 0, (field >> 8) as u8, field as u8, 0, 0, 0, 1]);
    six.extend([0; 8]);
    check(&six, &Condition::FragOffset(Compare::Equal(185)), true);
    check(&six, &more, true);
}

#[test]
fn rpc_calls_are_read_over_udp_and_tcp() {
    let call: Vec<u8> = [1u32, 0, 2, 100_000, 4, 3]
        .iter()
        .flat_map(|it| it.to_be_bytes())
        .collect();
    let rpc = |program, version, procedure| Condition::Rpc {
        program,
        version,
        procedure,
    };
    let mut udp = Vec::new();
    PacketBuilder::ipv4([1, 1, 1, 1], [2, 2, 2, 2], 9)
        .udp(1, 111)
        .write(&mut udp, &call)
        .unwrap();
    let over_tcp = tcp(&[&[0x80, 0, 0, 24][..], &call].concat());
    for packet in [&udp, &over_tcp] {
        check(packet, &rpc(100_000, None, None), true);
        check(packet, &rpc(100_000, Some(4), Some(3)), true);
        check(packet, &rpc(100_000, Some(3), None), false);
        check(packet, &rpc(100_001, None, None), false);
    }
    check(&tcp(&call), &rpc(100_000, None, None), false);
}
