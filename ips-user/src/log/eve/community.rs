//! The community id of a flow: <https://github.com/corelight/community-id-spec>, version 1.

use std::net::IpAddr;

use sha1::{Digest, Sha1};

use super::base64::Base64;
use crate::decode::protocol;
use crate::flow::{Flow, PacketDirection};

/// The id of a flow, with the `seed` that all sensors of a site share.
pub(super) fn community_id(seed: u16, flow: &Flow) -> String {
    let (client, server) = flow.key.ends(flow.client);
    let family = flow.key.family;
    let (source, destination) = (client.ip(family), server.ip(family));
    let number = flow.key.protocol;
    let (ports, one_way) = match number {
        protocol::ICMP | protocol::ICMPV6 => {
            let first = flow.observed.icmp(PacketDirection::ToServer);
            icmp_ports(number == protocol::ICMPV6, first.unwrap_or_default())
        }
        protocol::TCP | protocol::UDP | protocol::SCTP => ((client.port, server.port), false),
        _ => return encode(seed, source, destination, number, None),
    };
    let ends = ((source, ports.0), (destination, ports.1));
    let ordered = one_way || ends.0 <= ends.1;
    let ((source, from), (destination, to)) = match ordered {
        true => ends,
        false => (ends.1, ends.0),
    };
    encode(seed, source, destination, number, Some((from, to)))
}

fn encode(
    seed: u16,
    source: IpAddr,
    destination: IpAddr,
    number: u8,
    ports: Option<(u16, u16)>,
) -> String {
    let (source, destination) = match ports {
        None if destination < source => (destination, source),
        _ => (source, destination),
    };
    let mut hash = Sha1::new();
    hash.update(seed.to_be_bytes());
    for address in [source, destination] {
        match address {
            IpAddr::V4(v4) => hash.update(v4.octets()),
            IpAddr::V6(v6) => hash.update(v6.octets()),
        }
    }
    hash.update([number, 0]);
    if let Some((from, to)) = ports {
        hash.update(from.to_be_bytes());
        hash.update(to.to_be_bytes());
    }
    format!("1:{}", Base64(&hash.finalize()))
}

/// Type and, for a question, the type of its answer stand for ports; whether there is none: then
/// the code does, and the ends keep their order.
fn icmp_ports(v6: bool, (kind, code): (u8, u8)) -> ((u16, u16), bool) {
    const V4: [(u8, u8); 10] = [
        (8, 0),
        (0, 8),
        (13, 14),
        (14, 13),
        (15, 16),
        (16, 15),
        (10, 9),
        (9, 10),
        (17, 18),
        (18, 17),
    ];
    const V6: [(u8, u8); 12] = [
        (128, 129),
        (129, 128),
        (133, 134),
        (134, 133),
        (135, 136),
        (136, 135),
        (130, 131),
        (131, 130),
        (139, 140),
        (140, 139),
        (144, 145),
        (145, 144),
    ];
    let pairs = if v6 { &V6[..] } else { &V4[..] };
    let answer = pairs.iter().find(|(question, _)| *question == kind);
    match answer {
        Some((_, answer)) => ((u16::from(kind), u16::from(*answer)), false),
        None => ((u16::from(kind), u16::from(code)), true),
    }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;
    use crate::decode::Decoded;
    use crate::flow::{FlowLimits, FlowTable, Timestamp};

    fn check(seed: u16, bytes: &[u8], expect: &str) {
        let mut flows = FlowTable::new(FlowLimits::default(), [1, 2]);
        let packet = Decoded::parse(bytes).unwrap();
        let (flow, _) = flows
            .packet(&packet, Timestamp::default())
            .unwrap()
            .unwrap();
        assert_eq!(community_id(seed, flow), expect);
    }

    /// The specification's own examples (baseline and seeded).
    #[test]
    fn the_vectors_of_the_specification_come_out() {
        let tcp = |source: [u8; 4], from, destination: [u8; 4], to| {
            let mut bytes = Vec::new();
            PacketBuilder::ipv4(source, destination, 64)
                .tcp(from, to, 1, 1)
                .write(&mut bytes, b"")
                .unwrap();
            bytes
        };
        let there = tcp([128, 232, 110, 120], 34855, [66, 35, 250, 204], 80);
        let back = tcp([66, 35, 250, 204], 80, [128, 232, 110, 120], 34855);
        check(0, &there, "1:LQU9qZlK+B5F3KDmev6m5PMibrg=");
        check(0, &back, "1:LQU9qZlK+B5F3KDmev6m5PMibrg=");
        check(1, &there, "1:3V71V58M3Ksw/yuFALMcW0LAHvc=");
        let mut udp = Vec::new();
        PacketBuilder::ipv4([192, 168, 1, 52], [8, 8, 8, 8], 64)
            .udp(54585, 53)
            .write(&mut udp, b"")
            .unwrap();
        check(0, &udp, "1:d/FP5EW3wiY1vCndhwleRRKHowQ=");
        let mut icmp = Vec::new();
        PacketBuilder::ipv4([192, 168, 0, 89], [192, 168, 0, 1], 64)
            .icmpv4_raw(8, 0, [0; 4])
            .write(&mut icmp, b"")
            .unwrap();
        check(0, &icmp, "1:X0snYXpgwiv9TZtqg64sgzUn6Dk=");
    }
}
