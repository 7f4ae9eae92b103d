use etherparse::PacketBuilder;
use proptest::prelude::*;

use super::*;
use crate::decode::{DecodeEvent, KeyOutcome, Validity, packet_key};
use crate::reassembly::defrag::DefragOptions;

mod tunnels;

/// One packet of a frame, as one line.
fn line(packet: &Decoded<'_>) -> String {
    let mut line = packet.source.name().to_owned();
    for id in packet.link.vlans.as_slice() {
        line += &format!(" vlan {id}");
    }
    if let Some((source, destination)) = packet.addresses() {
        line += &format!(" {source} > {destination} proto {}", packet.protocol());
    }
    if let Some((from, to)) = packet.ports {
        line += &format!(" {from} > {to}");
    }
    line += match packet.transport {
        Transport::Tcp(_) => " tcp",
        Transport::Udp { .. } => " udp",
        Transport::Icmp { .. } => " icmp",
        Transport::Sctp { .. } => " sctp",
        Transport::Esp { .. } => " esp",
        Transport::Other => " other",
        Transport::Fragment => " fragment",
        Transport::None => " none",
        Transport::Invalid(_) => " invalid",
    };
    for event in packet.events.iter() {
        line += &format!(" !{event}");
    }
    line
}

fn decoded_with(options: &DecodeOptions, start: Start, bytes: &[u8]) -> Vec<String> {
    let mut defragmenter = Defragmenter::new(DefragOptions::default(), [1, 2]);
    let mut lines = Vec::new();
    frame(
        bytes,
        start,
        options,
        &mut defragmenter,
        Timestamp::default(),
        &mut |packet| {
            lines.push(line(packet));
            Disposition::Accept
        },
    );
    lines
}

#[track_caller]
fn check(link: LinkType, bytes: &[u8], expect: &[&str]) {
    let lines = decoded_with(&DecodeOptions::default(), Start::Link(link), bytes);
    assert_eq!(lines, expect, "{bytes:02x?}");
}

#[track_caller]
fn check_ip(ip: &[u8], expect: &[&str]) {
    let start = Start::Ip(Checksum::Unverified);
    let lines = decoded_with(&DecodeOptions::default(), start, ip);
    assert_eq!(lines, expect, "{ip:02x?}");
    check(LinkType::Raw, ip, expect);
    check(LinkType::Ethernet, &ethernet_ip(ip), expect);
}

fn ethernet(kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    frame.extend(kind.to_be_bytes());
    frame.extend(payload);
    frame
}

fn ethertype_of(ip: &[u8]) -> u16 {
    if ip[0] >> 4 == 4 { 0x0800 } else { 0x86dd }
}

fn ethernet_ip(ip: &[u8]) -> Vec<u8> {
    ethernet(ethertype_of(ip), ip)
}

/// 10.0.0.1:1000 > 10.0.0.2:`port`
fn udp_to(port: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
        .udp(1000, port)
        .write(&mut bytes, payload)
        .unwrap();
    bytes
}

fn udp() -> Vec<u8> {
    udp_to(53, b"query")
}

const UDP: &str = "10.0.0.1 > 10.0.0.2 proto 17 1000 > 53 udp";
const WIRE_UDP: &str = "wire/pcap 10.0.0.1 > 10.0.0.2 proto 17 1000 > 53 udp";
const WIRE_UDP6: &str = "wire/pcap fd00::1 > fd00::2 proto 17 1000 > 53 udp";

fn udp6() -> Vec<u8> {
    let (mut a, mut b) = ([0; 16], [0; 16]);
    (a[0], a[15], b[0], b[15]) = (0xfd, 1, 0xfd, 2);
    let mut bytes = Vec::new();
    PacketBuilder::ipv6(a, b, 64)
        .udp(1000, 53)
        .write(&mut bytes, b"query")
        .unwrap();
    bytes
}

/// 1.1.1.1 > 2.2.2.2
fn v4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    v4_fragment(protocol, 0, payload)
}

fn v4_fragment(protocol: u8, flags_and_offset: u16, payload: &[u8]) -> Vec<u8> {
    let mut ip = vec![0x45, 0];
    ip.extend((20 + payload.len() as u16).to_be_bytes());
    ip.extend([0, 7]);
    ip.extend(flags_and_offset.to_be_bytes());
    ip.extend([64, protocol, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]);
    let sum = !crate::decode::checksum::sum(0, &ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    ip.extend(payload);
    ip
}

fn v6(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut ip = vec![0x60, 0, 0, 0];
    ip.extend((payload.len() as u16).to_be_bytes());
    ip.extend([next, 64]);
    ip.extend([[0x20; 16], [0x21; 16]].concat());
    ip.extend(payload);
    ip
}

const V6: &str = "wire/pcap 2020:2020:2020:2020:2020:2020:2020:2020 > \
                  2121:2121:2121:2121:2121:2121:2121:2121 proto";

#[test]
fn every_link_layer_leads_to_the_packet() {
    for (ip, expect) in [(udp(), WIRE_UDP), (udp6(), WIRE_UDP6)] {
        let kind = ethertype_of(&ip).to_be_bytes();
        let ppp = if ip[0] >> 4 == 4 { 0x21 } else { 0x57 };
        let family = if ip[0] >> 4 == 4 { 2 } else { 30 };
        let after = |header: &[u8]| [header, &ip].concat();
        for (link, bytes) in [
            (LinkType::Ethernet, ethernet_ip(&ip)),
            (LinkType::Raw, ip.clone()),
            (LinkType::Ipv4, ip.clone()),
            (LinkType::Null, after(&[family, 0, 0, 0])),
            (LinkType::Null, after(&[0, 0, 0, family])),
            (LinkType::Loop, after(&[0, 0, 0, family])),
            (LinkType::Ppp, after(&[ppp])),
            (LinkType::Ppp, after(&[0, ppp])),
            (LinkType::PppSerial, after(&[0xff, 3, 0, ppp])),
            (LinkType::Chdlc, after(&[0x0f, 0, kind[0], kind[1]])),
            (
                LinkType::LinuxSll,
                after(&[[0; 14].as_slice(), &kind].concat()),
            ),
            (
                LinkType::LinuxSll2,
                after(&[&kind, [0; 18].as_slice()].concat()),
            ),
        ] {
            check(link, &bytes, &[expect]);
        }
    }
}

#[test]
fn every_layer_between_ethernet_and_ip_is_passed() {
    let ip = udp();
    let after = |kind: u16, header: &[u8]| ethernet(kind, &[header, &ip].concat());
    let ether = |frame: Vec<u8>| check(LinkType::Ethernet, &frame, &[WIRE_UDP]);
    let len = (ip.len() as u16 + 2).to_be_bytes();
    ether(after(0x8864, &[0x11, 0, 0, 1, len[0], len[1], 0, 0x21]));
    ether(after(0x8847, &[0, 1, 0, 64, 0, 2, 1, 64]));
    ether(after(0x8848, &[0, 0, 1, 64]));
    let pseudowire = [&[0, 1, 1, 64, 0, 0, 0, 0], ethernet_ip(&ip).as_slice()].concat();
    ether(ethernet(0x8847, &pseudowire));
    ether(after(0x8926, &[0, 0, 0, 0, 8, 0]));
    ether(after(0x893f, &[0, 0, 0, 0, 0, 0, 8, 0]));
    ether(after(0x88e7, &[&[0; 16][..], &[8, 0]].concat()));
    ether(ethernet(
        0x8903,
        &[&[0, 0], ethernet_ip(&ip).as_slice()].concat(),
    ));
    ether(after(0x894f, &[0, 2, 2, 1, 0, 0, 1, 2]));
    ether(after(0x894f, &[&[0, 6, 1, 1][..], &[0; 20]].concat()));
    let nested = [&[0, 2, 2, 3, 0, 0, 1, 2], ethernet_ip(&ip).as_slice()].concat();
    ether(ethernet(0x894f, &nested));
    let (wire, tags) = (
        "wire/pcap vlan 5 vlan 6 vlan 7 ",
        [0, 5, 0x81, 0, 0, 6, 0x91, 0],
    );
    let tagged = after(0x88a8, &[&tags[..], &[0x20, 7, 8, 0]].concat());
    check(LinkType::Ethernet, &tagged, &[&format!("{wire}{UDP}")]);
}

#[test]
fn what_is_wrong_below_ip_is_told_and_the_packet_shown() {
    let ether = |kind, payload: &[u8], expect: &str| {
        check(
            LinkType::Ethernet,
            &ethernet(kind, payload),
            &[&format!("wire/pcap {expect}")],
        );
    };
    check(
        LinkType::Ethernet,
        &[0; 13],
        &["wire/pcap invalid !ethernet.pkt_too_small"],
    );
    ether(0x1234, &[], "none !ethernet.unknown_ethertype");
    ether(0x8100, &[0, 1, 8], "invalid !vlan.header_too_small");
    ether(
        0x8100,
        &[0, 1, 0x12, 0x34],
        "vlan 1 none !vlan.unknown_type",
    );
    let tags = [0, 1, 0x81, 0].repeat(4);
    ether(
        0x8100,
        &tags,
        "vlan 1 vlan 1 vlan 1 invalid !vlan.too_many_layers",
    );
    ether(0x8926, &[0; 5], "invalid !vntag.header_too_small");
    ether(0x8926, &[0; 6], "none !vntag.unknown_type");
    ether(0x893f, &[0; 7], "invalid !etag.header_too_small");
    ether(0x893f, &[0; 8], "none !etag.unknown_type");
    ether(0x88e7, &[0; 17], "invalid !ieee8021ah.header_too_small");
    ether(0x8903, &[0], "invalid !dce.pkt_too_small");
    ether(0x8847, &[0, 1, 1], "invalid !mpls.header_too_small");
    ether(0x8847, &[0, 1, 1, 0, 0x45], "invalid !mpls.pkt_too_small");
    ether(
        0x8847,
        &[0, 0, 0x11, 0],
        "invalid !mpls.bad_label_router_alert",
    );
    ether(
        0x8847,
        &[0, 0, 0x31, 0],
        "invalid !mpls.bad_label_implicit_null",
    );
    ether(0x8847, &[0, 0, 0x51, 0], "invalid !mpls.bad_label_reserved");
    ether(
        0x8847,
        &[0, 1, 1, 0, 0x50, 0, 0, 0],
        "invalid !mpls.unknown_payload_type",
    );
    ether(0x8864, &[0x11, 0, 0, 1, 0], "invalid !pppoe.pkt_too_small");
    ether(
        0x8864,
        &[0x11, 0, 0, 1, 0, 9, 0, 0x21],
        "invalid !pppoe.pkt_too_small",
    );
    ether(
        0x8864,
        &[0x11, 0, 0, 1, 0, 1, 0],
        "invalid !ppp.pkt_too_small",
    );
    ether(0x8864, &[0x11, 0, 0, 1, 0, 4, 0xc0, 0x21, 1, 1], "none");
    ether(
        0x8864,
        &[0x11, 0, 0, 1, 0, 2, 0, 0x2b],
        "none !ppp.unsup_proto",
    );
    ether(
        0x8864,
        &[0x11, 0, 0, 1, 0, 2, 0x12, 0x35],
        "none !ppp.wrong_type",
    );
    ether(
        0x8864,
        &[0x11, 0, 0, 1, 0, 2, 0, 0x21],
        "invalid !ppp.ip4_pkt_too_small",
    );
    ether(
        0x8864,
        &[0x11, 0, 0, 1, 0, 2, 0, 0x57],
        "invalid !ppp.ip6_pkt_too_small",
    );
    ether(
        0x8864,
        &[0x11, 0, 0, 1, 0, 2, 0, 0x2f],
        "invalid !ppp.vju_pkt_too_small",
    );
    ether(0x8863, &[0x11, 9, 0, 0, 0, 4, 1, 1, 0, 0], "none");
    ether(0x8863, &[0x11, 8, 0, 0, 0, 0], "invalid !pppoe.wrong_code");
    ether(
        0x8863,
        &[0x11, 9, 0, 0, 0, 4, 1, 1, 0, 1],
        "invalid !pppoe.malformed_tags",
    );
    ether(
        0x8863,
        &[0x11, 9, 0, 0, 0, 3, 1, 1, 0],
        "invalid !pppoe.malformed_tags",
    );
    ether(0x894f, &[0; 7], "invalid !nsh.header_too_small");
    ether(
        0x894f,
        &[0x40, 2, 2, 1, 0, 0, 0, 0],
        "invalid !nsh.unsupported_version",
    );
    ether(
        0x894f,
        &[0, 2, 0, 1, 0, 0, 0, 0],
        "invalid !nsh.reserved_type",
    );
    ether(
        0x894f,
        &[0, 2, 3, 1, 0, 0, 0, 0],
        "invalid !nsh.unsupported_type",
    );
    ether(
        0x894f,
        &[0, 2, 1, 1, 0, 0, 0, 0],
        "invalid !nsh.bad_header_length",
    );
    ether(
        0x894f,
        &[0, 9, 2, 1, 0, 0, 0, 0],
        "invalid !nsh.bad_header_length",
    );
    ether(
        0x894f,
        &[0, 2, 2, 9, 0, 0, 0, 0],
        "invalid !nsh.unknown_payload",
    );
    ether(0x0806, &[0; 7], "none !arp.pkt_too_small");
    let mut arp = [0; 28];
    arp[..8].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, 1]);
    ether(0x0806, &arp, "none");
    for (at, event) in [
        (0, "unsupported_hardware"),
        (2, "unsupported_protocol"),
        (4, "invalid_hardware_size"),
        (5, "invalid_protocol_size"),
        (6, "unsupported_opcode"),
    ] {
        let mut wrong = arp;
        wrong[at] = 99;
        ether(0x0806, &wrong, &format!("none !arp.{event}"));
    }
    let other = |link, bytes: &[u8], expect: &str| {
        check(link, bytes, &[&format!("wire/pcap invalid !{expect}")]);
    };
    other(LinkType::Null, &[2, 0, 0], "ltnull.pkt_too_small");
    other(LinkType::Null, &[9, 0, 0, 0], "ltnull.unsupported_type");
    other(LinkType::Chdlc, &[0; 3], "chdlc.pkt_too_small");
    other(LinkType::LinuxSll, &[0; 15], "sll.pkt_too_small");
    other(LinkType::LinuxSll2, &[0; 19], "sll2.pkt_too_small");
    other(LinkType::Ppp, &[0], "ppp.pkt_too_small");
    other(LinkType::Raw, &[0x50; 40], "ipraw.invalid_ip_version");
}

#[test]
fn what_is_wrong_with_ip_is_told_and_the_packet_shown() {
    let ip = |kind, bytes: &[u8], expect: &str| {
        let frame = ethernet(kind, bytes);
        check(
            LinkType::Ethernet,
            &frame,
            &[&format!("wire/pcap {expect}")],
        );
    };
    ip(0x0800, &[0x45; 19], "invalid !ipv4.pkt_too_small");
    ip(0x0800, &[0x65; 40], "invalid !ipv4.wrong_ip_version");
    ip(0x0800, &[0x44; 40], "invalid !ipv4.hlen_too_small");
    ip(0x86dd, &[0x60; 39], "invalid !ipv6.pkt_too_small");
    ip(0x86dd, &[0x45; 40], "invalid !ipv6.wrong_ip_version");
    let mut short = v4(17, &[]);
    short[3] = 19;
    ip(0x0800, &short, "invalid !ipv4.iplen_smaller_than_hlen");
    let cut = &udp()[..30];
    ip(
        0x0800,
        cut,
        "10.0.0.1 > 10.0.0.2 proto 17 invalid !ipv4.trunc_pkt",
    );
    let cut = &udp6()[..46];
    ip(
        0x86dd,
        cut,
        "fd00::1 > fd00::2 proto 17 invalid !ipv6.trunc_pkt",
    );
    // The kernel forwards whole packets: a cut one is short of the copy range only.
    assert_eq!(
        decoded_with(
            &DecodeOptions::default(),
            Start::Ip(Checksum::Verified),
            &udp()[..30]
        ),
        [WIRE_UDP]
    );
}

#[test]
fn what_is_wrong_with_the_transport_is_told() {
    let says = |protocol, payload: &[u8], expect: &str| {
        let line = format!("wire/pcap 1.1.1.1 > 2.2.2.2 proto {protocol} {expect}");
        check_ip(&v4(protocol, payload), &[&line]);
    };
    says(6, &[], "invalid !tcp.pkt_too_small");
    says(6, &[0; 20], "0 > 0 invalid !tcp.hlen_too_small");
    let header = |options: &[u8]| {
        let mut tcp = vec![0; 12];
        tcp.extend([(5 + options.len() as u8 / 4) << 4, 2, 0, 0, 0, 0, 0, 0]);
        tcp.extend(options);
        tcp
    };
    says(6, &header(&[]), "0 > 0 tcp");
    says(6, &header(&[2, 3, 0, 0]), "0 > 0 tcp !tcp.opt_invalid_len");
    says(
        6,
        &header(&[3, 3, 1, 3, 3, 1, 0, 0]),
        "0 > 0 tcp !tcp.opt_duplicate",
    );
    says(17, &[], "invalid !udp.hlen_too_small");
    says(17, &[0, 1, 0, 2], "1 > 2 invalid !udp.hlen_too_small");
    says(
        17,
        &[0, 1, 0, 2, 0, 5, 0, 0],
        "1 > 2 invalid !udp.len_invalid",
    );
    says(
        17,
        &[0, 1, 0, 2, 0, 9, 0, 0],
        "1 > 2 invalid !udp.pkt_too_small",
    );
    says(1, &[8, 0, 0], "invalid !icmpv4.pkt_too_small");
    says(1, &[77, 0, 0, 0, 0, 0, 0, 0], "icmp !icmpv4.unknown_type");
    says(58, &[128, 0, 0, 0, 0, 0, 0, 0], "icmp !ipv4.icmpv6");
    says(132, &[0; 11], "0 > 0 invalid !sctp.pkt_too_small");
    says(132, &[0; 12], "0 > 0 sctp");
    says(50, &[0; 7], "invalid !esp.pkt_too_small");
    says(50, &[0; 8], "esp");
    says(2, &[0; 7], "other !igmp.pkt_too_small");
    says(
        2,
        &[0x11, 0, 0, 0, 0, 0, 0, 0, 0],
        "other !igmp.v3_pkt_too_small",
    );
    says(2, &[0x22, 0, 0, 0, 0, 0, 0, 1], "other !igmp.malformed");
    says(2, &[0x16, 0, 0, 0, 0, 0, 0, 0], "other");
    says(99, &[], "other !ipv4.unknown_protocol");
    check_ip(
        &v6(99, &[]),
        &[&format!("{V6} 99 other !ipv6.unknown_next_header")],
    );
    check_ip(
        &v6(59, &[1]),
        &[&format!("{V6} 59 other !ipv6.data_after_none_header")],
    );
    check_ip(&v6(59, &[]), &[&format!("{V6} 59 other")]);
    check_ip(
        &v6(58, &[]),
        &[&format!("{V6} 58 invalid !icmpv6.pkt_too_small")],
    );
    check_ip(
        &v6(1, &[8, 0, 0, 0, 0, 0, 0, 0]),
        &[&format!("{V6} 1 icmp !ipv6.icmpv4")],
    );
}

#[test]
fn any_drop_among_its_packets_drops_the_frame() {
    let packet = v4(4, &v4(4, &udp()));
    for dropped in 0..4 {
        let mut defragmenter = Defragmenter::new(DefragOptions::default(), [1, 2]);
        let (mut number, mut inner) = (0, Vec::new());
        let disposition = frame(
            &packet,
            Start::Ip(Checksum::Unverified),
            &DecodeOptions::default(),
            &mut defragmenter,
            Timestamp::default(),
            &mut |packet| {
                inner.push(packet.inner_dropped);
                number += 1;
                match number - 1 == dropped {
                    true => Disposition::Drop,
                    false => Disposition::Accept,
                }
            },
        );
        assert_eq!(disposition == Disposition::Drop, dropped < 3);
        assert_eq!(inner, [false, dropped == 0, dropped <= 1]);
    }
}

#[test]
fn checksums_count_as_far_as_somebody_is_asked_to_verify_them() {
    let mut wrong = udp();
    wrong[26] ^= 1;
    let nested = v4(4, &wrong);
    let validity = |start, mode, bytes: &[u8]| {
        let mut defragmenter = Defragmenter::new(DefragOptions::default(), [1, 2]);
        let options = DecodeOptions {
            checksums: mode,
            ..DecodeOptions::default()
        };
        let mut found = None;
        frame(
            bytes,
            start,
            &options,
            &mut defragmenter,
            Timestamp::default(),
            &mut |packet| {
                // Asked twice: the second answer is remembered.
                let both = (packet.ip_checksum(), packet.transport_checksum());
                assert_eq!(both, (packet.ip_checksum(), packet.transport_checksum()));
                found.get_or_insert(both);
                Disposition::Accept
            },
        );
        found.unwrap()
    };
    use ChecksumMode::{Ignore, Verify};
    use Validity::{Invalid, Unchecked, Valid};
    for (start, mode, alone, in_tunnel) in [
        (Start::Link(LinkType::Raw), Verify, Invalid, Invalid),
        (Start::Ip(Checksum::Unverified), Verify, Invalid, Invalid),
        (Start::Ip(Checksum::NotReady), Verify, Unchecked, Unchecked),
        (Start::Ip(Checksum::Verified), Verify, Unchecked, Invalid),
        (Start::Link(LinkType::Raw), Ignore, Unchecked, Unchecked),
    ] {
        let header = if mode == Verify { Valid } else { Unchecked };
        assert_eq!(validity(start, mode, &wrong), (header, alone), "{start:?}");
        assert_eq!(
            validity(start, mode, &nested),
            (header, in_tunnel),
            "{start:?}"
        );
    }
}

#[test]
fn fragments_come_after_the_datagram_that_they_complete() {
    let datagram = udp();
    let data = &datagram[20..];
    let mut defragmenter = Defragmenter::new(DefragOptions::default(), [1, 2]);
    let mut shown = |bytes: &[u8]| {
        let mut lines = Vec::new();
        frame(
            &ethernet_ip(bytes),
            Start::Link(LinkType::Ethernet),
            &DecodeOptions::default(),
            &mut defragmenter,
            Timestamp::default(),
            &mut |packet| {
                assert_eq!(
                    packet.link.macs,
                    Some(([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]))
                );
                lines.push((line(packet), packet.frame.to_vec(), packet.payload.to_vec()));
                Disposition::Accept
            },
        );
        lines
    };
    let first = v4_fragment(17, 0x2000, &data[..8]);
    let wire = "wire/pcap 1.1.1.1 > 2.2.2.2 proto 17 fragment";
    assert_eq!(
        shown(&first),
        [(wire.to_owned(), ethernet_ip(&first), vec![])]
    );
    let last = v4_fragment(17, 1, &data[8..]);
    let whole = "defrag 1.1.1.1 > 2.2.2.2 proto 17 1000 > 53 udp";
    let together = ethernet_ip(&v4(17, data));
    assert_eq!(
        shown(&last),
        [
            (whole.to_owned(), together, b"query".to_vec()),
            (wire.to_owned(), ethernet_ip(&last), vec![]),
        ]
    );
}

fn any_frame() -> impl Strategy<Value = (LinkType, Vec<u8>)> {
    let vxlan = [&[8, 0, 0, 0, 0, 0, 1, 0], ethernet_ip(&udp6()).as_slice()].concat();
    let frames = vec![
        (LinkType::Ethernet, ethernet_ip(&udp())),
        (LinkType::Ethernet, ethernet_ip(&v4(4, &v6(41, &udp6())))),
        (LinkType::Ethernet, ethernet_ip(&udp_to(4789, &vxlan))),
        (LinkType::Ethernet, ethernet_ip(&udp_to(3544, &udp6()))),
        (
            LinkType::Raw,
            v4(
                47,
                &[&[0, 0, 0x65, 0x58][..], &ethernet_ip(&udp())].concat(),
            ),
        ),
        (
            LinkType::Raw,
            v6(
                0,
                &[
                    &[44, 0, 1, 4, 0, 0, 0, 0, 17, 0, 0, 1, 0, 0, 0, 9][..],
                    &[0; 40],
                ]
                .concat(),
            ),
        ),
        (
            LinkType::Raw,
            v4(
                132,
                &[&[0; 12][..], &[1, 0, 0, 20], &[0; 16], &[0, 0, 0, 16]].concat(),
            ),
        ),
        (
            LinkType::Ethernet,
            ethernet(
                0x8100,
                &[
                    &[0, 1, 0x88, 0x64, 0x11, 0, 0, 1, 0, 40, 0, 0x21][..],
                    &udp(),
                ]
                .concat(),
            ),
        ),
        (
            LinkType::Ethernet,
            ethernet(
                0x8847,
                &[&[0, 1, 1, 64, 0, 0, 0, 0][..], &ethernet_ip(&udp())].concat(),
            ),
        ),
        (
            LinkType::Ethernet,
            ethernet(
                0x894f,
                &[
                    &[0, 2, 2, 4, 0, 0, 0, 0, 0, 2, 2, 1, 0, 0, 0, 0][..],
                    &udp(),
                ]
                .concat(),
            ),
        ),
    ];
    proptest::sample::select(frames)
}

proptest! {
    #[test]
    fn no_change_of_a_frame_makes_it_panic_and_every_packet_is_shown(
        (link, mut bytes) in any_frame(),
        len in 0usize..160,
        changes in proptest::collection::vec((0usize..160, any::<u8>()), 0..8),
        ip_start in any::<bool>(),
    ) {
        for (at, byte) in changes {
            if let Some(slot) = bytes.get_mut(at) { *slot = byte; }
        }
        bytes.truncate(len);
        let start = if ip_start { Start::Ip(Checksum::Unverified) } else { Start::Link(link) };
        let mut defragmenter = Defragmenter::new(DefragOptions::default(), [1, 2]);
        let mut shown = 0;
        for _ in 0..2 {
            frame(&bytes, start, &DecodeOptions::default(), &mut defragmenter, Timestamp::default(), &mut |packet| {
                shown += 1;
                let _ = (packet.ttl(), packet.tos(), packet.ip_id(), packet.flow_label(), packet.quoted());
                let _ = (packet.ip_options(), packet.tcp_options(), packet.ip_checksum(), packet.transport_checksum());
                // What is wrong is told.
                assert!(packet.invalid().is_none() || !packet.events.is_empty());
                assert!(!packet.has_flow() || packet.network.is_some());
                if ip_start && packet.source == PacketSource::Wire && packet.network.is_some() {
                    // The key that the kernel steers by.
                    let (KeyOutcome::Flow { key, .. }
                    | KeyOutcome::FirstFragment { key, .. }
                    | KeyOutcome::LaterFragment { orphan_key: key, .. }) = packet_key(&bytes)
                    else {
                        panic!("no key");
                    };
                    assert_eq!(packet.key, key);
                }
                Disposition::Accept
            });
        }
        prop_assert!(shown >= 2);
    }
}

#[test]
fn every_event_of_the_decoders_is_raised_somewhere() {
    // Raised by the defragmenter, by sources that are not built in, or reserved by name.
    const ELSEWHERE: [DecodeEvent; 6] = [
        DecodeEvent::AfpacketTruncated,
        DecodeEvent::ArpInvalid,
        // Behind an ESP header nothing can be read.
        DecodeEvent::Ipv6DuplicateEsp,
        // A source route is refused as a whole.
        DecodeEvent::Gre1MalformedRoute,
        DecodeEvent::UdpHeaderLength,
        DecodeEvent::TcpInvalidOptionLength,
    ];
    let sources = [
        include_str!("../arp.rs"),
        include_str!("../extension.rs"),
        include_str!("../frame.rs"),
        include_str!("../icmp.rs"),
        include_str!("../igmp.rs"),
        include_str!("../ipv4_options.rs"),
        include_str!("../network.rs"),
        include_str!("../pppoe.rs"),
        include_str!("../sctp.rs"),
        include_str!("../tcp_options.rs"),
        include_str!("../transport.rs"),
        include_str!("../tunnel.rs"),
        include_str!("../walk.rs"),
        include_str!("../../reassembly/defrag/mod.rs"),
    ];
    for &event in DecodeEvent::ALL {
        let variant = format!("Event::{event:?}");
        let raised = sources.iter().any(|source| {
            source.match_indices(&variant).any(|(at, found)| {
                !source[at + found.len()..].starts_with(|next: char| next.is_alphanumeric())
            })
        });
        assert_eq!(raised, !ELSEWHERE.contains(&event), "{event}");
    }
}
