//! One frame of every link type, or a packet from its IP header on, and every packet in it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sluice::decode::{ChecksumMode, DecodeOptions, KeyOutcome, LinkType, Start, frame, packet_key};
use sluice::decode::{Decoded, PacketSource};
use sluice::reassembly::defrag::{DefragOptions, Defragmenter};
use sluice::reassembly::tcp::Segment;
use sluice::source::{Checksum, Disposition};
use sluice_fuzz::Input;
use sluice_fuzz::engine::at;

const STARTS: [Start; 14] = [
    Start::Link(LinkType::Ethernet),
    Start::Link(LinkType::Null),
    Start::Link(LinkType::Ppp),
    Start::Link(LinkType::PppSerial),
    Start::Link(LinkType::Raw),
    Start::Link(LinkType::Chdlc),
    Start::Link(LinkType::Loop),
    Start::Link(LinkType::LinuxSll),
    Start::Link(LinkType::Ipv4),
    Start::Link(LinkType::Ipv6),
    Start::Link(LinkType::LinuxSll2),
    Start::Ip(Checksum::Unverified),
    Start::Ip(Checksum::NotReady),
    Start::Ip(Checksum::Verified),
];

fn look_at(packet: &Decoded<'_>) {
    let _ = (packet.addresses(), packet.protocol(), packet.tcp_options());
    let _ = (
        packet.ip_options().any(),
        packet.is_icmp_error(),
        packet.quoted(),
    );
    let _ = (
        packet.has_flow(),
        packet.invalid(),
        packet.ttl(),
        packet.tos(),
    );
    let _ = (
        packet.ip_id(),
        packet.flow_label(),
        packet.len(),
        packet.is_empty(),
    );
    let _ = (
        packet.ip_checksum(),
        packet.transport_checksum(),
        Segment::of(packet),
    );
    if let Some(options) = packet.tcp_options() {
        assert!(options.sack_blocks().count() <= 4);
    }
    for event in packet.events.iter() {
        assert!(!event.name().is_empty());
    }
    let inside = |part: &[u8]| {
        let (all, part) = (packet.frame.as_ptr_range(), part.as_ptr_range());
        all.start <= part.start && part.end <= all.end
    };
    assert!(packet.payload.is_empty() || inside(packet.payload));
    if let Some(network) = packet.network {
        assert!(inside(network.packet) && inside(network.payload));
        assert_eq!(network.source_ip(), packet.source());
    }
    if let Some(same) = packet.with_frame(packet.frame) {
        assert_eq!(same.key, packet.key);
    }
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let start = input.one_of(&STARTS);
    let flags = input.u8();
    let options = DecodeOptions {
        erspan_type1: flags & 1 != 0,
        vlan_tracking: flags & 2 == 0,
        checksums: match flags & 4 {
            0 => ChecksumMode::Verify,
            _ => ChecksumMode::Ignore,
        },
        ..DecodeOptions::default()
    };
    let mut defragmenter = Defragmenter::new(
        DefragOptions {
            inline: flags & 8 == 0,
            max_trackers: 16,
            ..DefragOptions::default()
        },
        [1, 2],
    );
    let bytes = input.rest();
    let drops = flags & 16 != 0;
    let mut packets = 0;
    let mut from_ip = matches!(start, Start::Ip(_)).then_some(());
    let disposition = frame(
        bytes,
        start,
        &options,
        &mut defragmenter,
        at(0),
        &mut |packet| {
            packets += 1;
            look_at(packet);
            if packet.source == PacketSource::Wire && packet.network.is_some() {
                // The two ways to a key are one.
                if from_ip.take().is_some() {
                    let key = match packet_key(bytes) {
                        KeyOutcome::Flow { key, .. } | KeyOutcome::FirstFragment { key, .. } => key,
                        KeyOutcome::LaterFragment { orphan_key, .. } => orphan_key,
                        other => panic!("{other:?}"),
                    };
                    assert_eq!(key, packet.key);
                }
            }
            match drops {
                true => Disposition::Drop,
                false => Disposition::Accept,
            }
        },
    );
    assert!((1..=40).contains(&packets), "{packets} packets");
    assert!(!drops || disposition == Disposition::Drop);
});
