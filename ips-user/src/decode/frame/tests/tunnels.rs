use super::*;

#[test]
fn tunnels_are_entered_and_their_content_comes_first() {
    let ip = udp();
    let both = |how: &str, outer: &str| [format!("{how} {UDP}"), format!("wire/pcap {outer}")];
    let check = |packet: &[u8], how: &str, outer: &str| {
        let both = both(how, outer);
        check_ip(packet, &[&both[0], &both[1]]);
    };
    let v4_to = |protocol| format!("1.1.1.1 > 2.2.2.2 proto {protocol} other");
    check(&v4(4, &ip), "ipv4 tunnel", &v4_to(4));
    let v6_to = V6.strip_prefix("wire/pcap ").unwrap();
    check(&v6(4, &ip), "ipv6 tunnel", &format!("{v6_to} 4 other"));
    let gre = |header: &[u8], inner: &[u8]| v4(47, &[header, inner].concat());
    check(&gre(&[0, 0, 8, 0], &ip), "gre tunnel", &v4_to(47));
    let all = [0xb0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 1];
    check(&gre(&all, &ip), "gre tunnel", &v4_to(47));
    let routed = [0x40, 0, 8, 0, 0, 0, 0, 0, 0, 1, 0, 2, 9, 9, 0, 0, 0, 0];
    check(&gre(&routed, &ip), "gre tunnel", &v4_to(47));
    check(
        &gre(&[0, 0, 0x65, 0x58], &ethernet_ip(&ip)),
        "gre tunnel",
        &v4_to(47),
    );
    check(
        &gre(
            &[
                0x30, 0x81, 0x88, 0x0b, 0, 9, 0, 1, 0, 0, 0, 1, 0, 0, 0, 2, 0x21,
            ],
            &ip,
        ),
        "gre tunnel",
        &v4_to(47),
    );
    let erspan = [0x10, 0, 0x88, 0xbe, 0, 0, 0, 1, 0x10, 23, 0, 0, 0, 0, 0, 0];
    check(
        &gre(&erspan, &ethernet_ip(&ip)),
        "gre tunnel vlan 23",
        &v4_to(47),
    );
    let erspan3 = [
        0x10, 0, 0x22, 0xeb, 0, 0, 0, 1, 0x20, 23, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    check(
        &gre(&erspan3, &ethernet_ip(&ip)),
        "gre tunnel vlan 23",
        &v4_to(47),
    );
    let outer = |port| format!("10.0.0.1 > 10.0.0.2 proto 17 1000 > {port} udp");
    let vxlan = [&[8, 0, 0, 0, 0, 0, 1, 0], ethernet_ip(&ip).as_slice()].concat();
    check(&udp_to(4789, &vxlan), "vxlan encapsulation", &outer(4789));
    let geneve = [&[0, 0, 0x65, 0x58, 0, 0, 1, 0], ethernet_ip(&ip).as_slice()].concat();
    check(&udp_to(6081, &geneve), "geneve encapsulation", &outer(6081));
    let geneve = [&[1, 0, 8, 0, 0, 0, 1, 0, 0, 0, 0, 0][..], &ip].concat();
    check(&udp_to(6081, &geneve), "geneve encapsulation", &outer(6081));

    let inner6 = WIRE_UDP6.strip_prefix("wire/pcap ").unwrap();
    for (packet, how, outer) in [
        (v4(41, &udp6()), "ipv4 tunnel", v4_to(41)),
        (v6(41, &udp6()), "ipv6 tunnel", format!("{v6_to} 41 other")),
        (udp_to(3544, &udp6()), "teredo tunnel", outer(3544)),
        (
            udp_to(3544, &[&[0, 0, 1, 2, 3, 4, 5, 6][..], &udp6()].concat()),
            "teredo tunnel",
            outer(3544),
        ),
    ] {
        check_ip(
            &packet,
            &[&format!("{how} {inner6}"), &format!("wire/pcap {outer}")],
        );
    }
}

#[test]
fn what_only_looks_like_a_tunnel_is_none() {
    let outer = |port| format!("wire/pcap 10.0.0.1 > 10.0.0.2 proto 17 1000 > {port} udp");
    check_ip(&udp_to(3544, b"hello"), &[&outer(3544)]);
    // With authentication they agree on a tunnel.
    let agreeing = [&[0, 1, 0, 0][..], &[0; 9], &udp6()].concat();
    check_ip(&udp_to(3544, &agreeing), &[&outer(3544)]);
    let mut wrong_length = udp6();
    wrong_length.push(0);
    check_ip(&udp_to(3544, &wrong_length), &[&outer(3544)]);
    check_ip(&udp_to(4789, &[8, 0, 0]), &[&outer(4789)]);
    let unknown = [&[8, 0, 0, 0, 0, 0, 1, 0], &[0; 14][..]].concat();
    check_ip(
        &udp_to(4789, &unknown),
        &[&format!("{} !vxlan.unknown_payload_type", outer(4789))],
    );
    check_ip(
        &udp_to(6081, &[0, 0, 0, 9, 0, 0, 1, 0]),
        &[&format!("{} !geneve.unknown_payload_type", outer(6081))],
    );
    // Off, or on another port.
    let vxlan = [&[8, 0, 0, 0, 0, 0, 1, 0], ethernet_ip(&udp()).as_slice()].concat();
    check_ip(&udp_to(4790, &vxlan), &[&outer(4790)]);
    let options = DecodeOptions {
        vxlan: TunnelPorts::one(4790),
        ..DecodeOptions::default()
    };
    let lines = decoded_with(
        &options,
        Start::Ip(Checksum::Unverified),
        &udp_to(4790, &vxlan),
    );
    assert_eq!(lines.len(), 2);
}

#[test]
fn broken_tunnel_headers_are_told() {
    let gre = |header: &[u8], expect: &str| {
        let line = format!("wire/pcap 1.1.1.1 > 2.2.2.2 proto 47 {expect}");
        check_ip(&v4(47, header), &[&line]);
    };
    gre(&[0, 0], "invalid !gre.pkt_too_small");
    gre(&[0, 2, 8, 0], "invalid !gre.wrong_version");
    gre(&[1, 0, 8, 0], "invalid !gre.version0_recur");
    gre(&[0, 8, 8, 0], "invalid !gre.version0_flags");
    gre(&[0x80, 0, 8, 0], "invalid !gre.version0_hdr_too_big");
    gre(
        &[0x40, 0, 8, 0, 0, 0, 0, 0, 0, 1, 0, 0],
        "invalid !gre.version0_malformed_sre_hdr",
    );
    gre(&[0xa0, 1, 0x88, 0x0b], "invalid !gre.version1_chksum");
    gre(&[0x60, 1, 0x88, 0x0b], "invalid !gre.version1_route");
    gre(&[0x28, 1, 0x88, 0x0b], "invalid !gre.version1_ssr");
    gre(&[0x21, 1, 0x88, 0x0b], "invalid !gre.version1_recur");
    gre(&[0x20, 9, 0x88, 0x0b], "invalid !gre.version1_flags");
    gre(&[0x20, 1, 8, 0], "invalid !gre.version1_wrong_protocol");
    gre(&[0, 1, 0x88, 0x0b], "invalid !gre.version1_no_key");
    gre(
        &[0x20, 1, 0x88, 0x0b, 0],
        "invalid !gre.version1_hdr_too_big",
    );
    gre(
        &[0x10, 0, 0x88, 0xbe, 0, 0, 0, 1, 0x10],
        "other !erspan.header_too_small",
    );
    gre(
        &[0x10, 0, 0x88, 0xbe, 0, 0, 0, 1, 0x20, 0, 0, 0, 0, 0, 0, 0],
        "other !erspan.unsupported_version",
    );
    gre(&[0, 0, 0x88, 0xbe], "other");
    for (next, inner, event) in [
        (4, &[0x45; 19][..], "ipv4_in_ipv6_too_small"),
        (4, &[0x65; 40], "ipv4_in_ipv6_wrong_version"),
        (41, &[0x65; 39], "ipv6_in_ipv6_too_small"),
        (41, &[0x45; 40], "ipv6_in_ipv6_wrong_version"),
    ] {
        check_ip(
            &v6(next, inner),
            &[&format!("{V6} {next} other !ipv6.{event}")],
        );
    }
}

#[test]
fn packets_within_packets_end_at_the_most_layers() {
    let mut packet = udp();
    for _ in 0..40 {
        packet = v4(4, &packet);
    }
    let lines = decoded_with(
        &DecodeOptions::default(),
        Start::Ip(Checksum::Unverified),
        &packet,
    );
    assert!((8..16).contains(&lines.len()), "{}", lines.len());
    assert!(lines[0].ends_with("!too_many_layers"), "{lines:?}");
    assert!(!lines[1].contains("too_many_layers"));
    let tags = ethernet(
        0x8847,
        &ethernet(0x8847, &[0, 1, 1, 0, 0, 0, 0, 0]).repeat(30),
    );
    let lines = decoded_with(
        &DecodeOptions {
            max_layers: 3,
            ..DecodeOptions::default()
        },
        Start::Link(LinkType::Ethernet),
        &ethernet(0x8100, &[0, 1, 0x81, 0, 0, 2, 0x81, 0, 0, 3, 8, 0]),
    );
    assert_eq!(lines, ["wire/pcap vlan 1 vlan 2 invalid !too_many_layers"]);
    assert_eq!(
        decoded_with(
            &DecodeOptions::default(),
            Start::Link(LinkType::Ethernet),
            &tags
        )
        .len(),
        1
    );
}

#[test]
fn a_packet_in_a_tunnel_knows_the_outermost_one_and_has_a_flow_of_its_own() {
    let packet = v4(4, &v4(4, &udp()));
    let mut defragmenter = Defragmenter::new(DefragOptions::default(), [1, 2]);
    let mut seen = Vec::new();
    let start = Start::Ip(Checksum::Unverified);
    let mut run = |bytes: &[u8], options: &DecodeOptions| {
        seen.clear();
        frame(
            bytes,
            start,
            options,
            &mut defragmenter,
            Timestamp::default(),
            &mut |packet| {
                seen.push((packet.tunnel, packet.key));
                Disposition::Accept
            },
        );
        seen.clone()
    };
    let options = DecodeOptions::default();
    let nested = run(&packet, &options);
    let tunnel = nested[0].0.unwrap();
    assert_eq!((tunnel.depth, tunnel.protocol, tunnel.ports), (2, 4, None));
    assert_eq!(tunnel.source, std::net::IpAddr::from([1, 1, 1, 1]));
    assert_eq!(nested[1].0.unwrap().depth, 1);
    assert_eq!(nested[2].0, None);
    let plain = run(&udp(), &options)[0].1;
    assert_eq!(plain.zone, 0);
    assert_ne!(nested[0].1, plain);
    let untracked = DecodeOptions {
        depth_tracking: false,
        ..options
    };
    assert_eq!(run(&packet, &untracked)[0].1, plain);
}
