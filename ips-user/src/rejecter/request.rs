//! What a worker may have sent: a TCP reset without data, or an ICMP or ICMPv6 "destination
//! unreachable" about a packet of the host that it goes to. Everything else is refused, because
//! a worker that an attacker has taken over asks too.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::icmpv4::DestUnreachableHeader;
use etherparse::icmpv6::DestUnreachableCode;
use etherparse::{
    Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type, IpNumber, Ipv4Header, Ipv6Header, TcpHeader,
};
use thiserror::Error;

use crate::verdict::reject::{MAX_ICMPV4_ERROR, MAX_ICMPV6_ERROR, is_host};

/// The longest request that can be a rejection.
pub(super) const MAX_BYTES: usize = MAX_ICMPV6_ERROR;

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum Refusal {
    #[error("longer than any rejection")]
    TooLong,
    #[error("no IP packet of exactly its length, without options or fragments")]
    Network,
    #[error("an address that is no single host's")]
    Address,
    #[error("a wrong checksum")]
    Checksum,
    #[error("neither TCP nor ICMP")]
    Protocol,
    #[error("no reset without data")]
    NoReset,
    #[error("no destination unreachable")]
    NoUnreachable,
    #[error("about a packet that its receiver has not sent")]
    Quote,
}

/// Whether `packet` is a rejection, and to whom.
pub(super) fn check(packet: &[u8]) -> Result<IpAddr, Refusal> {
    match packet.first().map(|first| first >> 4) {
        Some(4) => check_v4(packet),
        Some(6) => check_v6(packet),
        _ => Err(Refusal::Network),
    }
}

fn check_v4(packet: &[u8]) -> Result<IpAddr, Refusal> {
    let (ip, payload) = Ipv4Header::from_slice(packet).map_err(|_| Refusal::Network)?;
    canonical(packet, &ip.to_bytes(), Refusal::Network)?;
    let whole = usize::from(ip.total_len) == packet.len();
    let fragment = ip.more_fragments || ip.fragment_offset.value() != 0;
    if !whole || fragment || !ip.options.is_empty() {
        return Err(Refusal::Network);
    }
    let from = IpAddr::from(ip.source);
    let to = IpAddr::from(ip.destination);
    hosts(from, to)?;
    if ip.calc_header_checksum() != ip.header_checksum {
        return Err(Refusal::Checksum);
    }
    match ip.protocol {
        IpNumber::TCP => {
            let (tcp, data) = reset(payload)?;
            let sum = tcp.calc_checksum_ipv4(&ip, data);
            matches(sum.ok(), tcp.checksum)?;
        }
        IpNumber::ICMP => {
            if packet.len() > MAX_ICMPV4_ERROR {
                return Err(Refusal::TooLong);
            }
            let (icmp, quote) =
                Icmpv4Header::from_slice(payload).map_err(|_| Refusal::NoUnreachable)?;
            use DestUnreachableHeader::{FilterProhibited, Port};
            let Icmpv4Type::DestinationUnreachable(Port | FilterProhibited) = icmp.icmp_type else {
                return Err(Refusal::NoUnreachable);
            };
            canonical(payload, &icmp.to_bytes(), Refusal::NoUnreachable)?;
            matches(Some(icmp.icmp_type.calc_checksum(quote)), icmp.checksum)?;
            let quoted = |at: usize| -> Option<Ipv4Addr> {
                Some(<[u8; 4]>::try_from(quote.get(at..at + 4)?).ok()?.into())
            };
            let ends = (quoted(12).map(IpAddr::V4), quoted(16).map(IpAddr::V4));
            about(quote, 4, ends, (to, from))?;
        }
        _ => return Err(Refusal::Protocol),
    }
    Ok(to)
}

fn check_v6(packet: &[u8]) -> Result<IpAddr, Refusal> {
    let (ip, payload) = Ipv6Header::from_slice(packet).map_err(|_| Refusal::Network)?;
    if usize::from(ip.payload_length) != payload.len() {
        return Err(Refusal::Network);
    }
    let from = IpAddr::from(ip.source);
    let to = IpAddr::from(ip.destination);
    hosts(from, to)?;
    match ip.next_header {
        IpNumber::TCP => {
            let (tcp, data) = reset(payload)?;
            let sum = tcp.calc_checksum_ipv6(&ip, data);
            matches(sum.ok(), tcp.checksum)?;
        }
        IpNumber::IPV6_ICMP => {
            if packet.len() > MAX_ICMPV6_ERROR {
                return Err(Refusal::TooLong);
            }
            let (icmp, quote) =
                Icmpv6Header::from_slice(payload).map_err(|_| Refusal::NoUnreachable)?;
            use DestUnreachableCode::{Port, Prohibited};
            let Icmpv6Type::DestinationUnreachable(Port | Prohibited) = icmp.icmp_type else {
                return Err(Refusal::NoUnreachable);
            };
            canonical(payload, &icmp.to_bytes(), Refusal::NoUnreachable)?;
            let sum = icmp
                .icmp_type
                .calc_checksum(ip.source, ip.destination, quote);
            matches(sum.ok(), icmp.checksum)?;
            let quoted = |at: usize| -> Option<Ipv6Addr> {
                Some(<[u8; 16]>::try_from(quote.get(at..at + 16)?).ok()?.into())
            };
            let ends = (quoted(8).map(IpAddr::V6), quoted(24).map(IpAddr::V6));
            about(quote, 6, ends, (to, from))?;
        }
        _ => return Err(Refusal::Protocol),
    }
    Ok(to)
}

/// Whether a header that is written again is the same: then no bit stands where none belongs.
fn canonical(bytes: &[u8], written: &[u8], refusal: Refusal) -> Result<(), Refusal> {
    match bytes.starts_with(written) {
        true => Ok(()),
        false => Err(refusal),
    }
}

fn hosts(from: IpAddr, to: IpAddr) -> Result<(), Refusal> {
    match is_host(from) && is_host(to) {
        true => Ok(()),
        false => Err(Refusal::Address),
    }
}

fn matches(computed: Option<u16>, written: u16) -> Result<(), Refusal> {
    match computed == Some(written) {
        true => Ok(()),
        false => Err(Refusal::Checksum),
    }
}

/// A segment that does nothing but reset.
fn reset(payload: &[u8]) -> Result<(TcpHeader, &[u8]), Refusal> {
    let (tcp, data) = TcpHeader::from_slice(payload).map_err(|_| Refusal::NoReset)?;
    let other = tcp.syn || tcp.fin || tcp.psh || tcp.urg;
    if !tcp.rst || other || !tcp.options.is_empty() || !data.is_empty() {
        return Err(Refusal::NoReset);
    }
    canonical(payload, &tcp.to_bytes(), Refusal::NoReset)?;
    Ok((tcp, data))
}

/// An error tells a host about a packet of its own, in the name of that packet's receiver.
fn about(
    quote: &[u8],
    version: u8,
    ends: (Option<IpAddr>, Option<IpAddr>),
    expected: (IpAddr, IpAddr),
) -> Result<(), Refusal> {
    let same_version = quote.first().is_some_and(|first| first >> 4 == version);
    match same_version && ends == (Some(expected.0), Some(expected.1)) {
        true => Ok(()),
        false => Err(Refusal::Quote),
    }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    use super::*;

    const CLIENT: [u8; 4] = [10, 0, 0, 1];
    const SERVER: [u8; 4] = [10, 0, 1, 2];

    fn v6(last: u8) -> [u8; 16] {
        let mut address = [0; 16];
        (address[0], address[1], address[15]) = (0x20, 0x01, last);
        address
    }

    fn quote_v4() -> Vec<u8> {
        let mut quote = Vec::new();
        PacketBuilder::ipv4(CLIENT, SERVER, 64)
            .udp(5, 6)
            .write(&mut quote, b"abc")
            .unwrap();
        quote
    }

    fn quote_v6() -> Vec<u8> {
        let mut quote = Vec::new();
        PacketBuilder::ipv6(v6(1), v6(2), 64)
            .udp(5, 6)
            .write(&mut quote, b"abc")
            .unwrap();
        quote
    }

    fn reset_v4() -> Vec<u8> {
        let mut packet = Vec::new();
        PacketBuilder::ipv4(SERVER, CLIENT, 64)
            .tcp(6, 5, 77, 0)
            .rst()
            .write(&mut packet, &[])
            .unwrap();
        packet
    }

    fn reset_v6() -> Vec<u8> {
        let mut packet = Vec::new();
        PacketBuilder::ipv6(v6(2), v6(1), 64)
            .tcp(6, 5, 77, 0)
            .rst()
            .ack(5)
            .write(&mut packet, &[])
            .unwrap();
        packet
    }

    fn error_v4(kind: Icmpv4Type, quote: &[u8]) -> Vec<u8> {
        let mut packet = Vec::new();
        PacketBuilder::ipv4(SERVER, CLIENT, 64)
            .icmpv4(kind)
            .write(&mut packet, quote)
            .unwrap();
        packet
    }

    fn error_v6(kind: Icmpv6Type, quote: &[u8]) -> Vec<u8> {
        let mut packet = Vec::new();
        PacketBuilder::ipv6(v6(2), v6(1), 64)
            .icmpv6(kind)
            .write(&mut packet, quote)
            .unwrap();
        packet
    }

    const PORT_V4: Icmpv4Type = Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::Port);
    const PORT_V6: Icmpv6Type = Icmpv6Type::DestinationUnreachable(DestUnreachableCode::Port);

    fn tcp(change: impl FnOnce(&mut TcpHeader), data: &[u8]) -> Vec<u8> {
        let mut header = TcpHeader::new(6, 5, 77, 0);
        header.rst = true;
        change(&mut header);
        let mut packet = Vec::new();
        PacketBuilder::ipv4(SERVER, CLIENT, 64)
            .tcp_header(header)
            .write(&mut packet, data)
            .unwrap();
        packet
    }

    #[test]
    fn rejections_of_every_kind_are_sent_to_whom_they_are_addressed() {
        let prohibited_v4 =
            Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::FilterProhibited);
        let prohibited_v6 = Icmpv6Type::DestinationUnreachable(DestUnreachableCode::Prohibited);
        for packet in [
            reset_v4(),
            error_v4(PORT_V4, &quote_v4()),
            error_v4(prohibited_v4, &quote_v4()[..20]),
        ] {
            assert_eq!(check(&packet), Ok(CLIENT.into()), "{packet:x?}");
        }
        for packet in [
            reset_v6(),
            error_v6(PORT_V6, &quote_v6()),
            error_v6(prohibited_v6, &quote_v6()[..40]),
        ] {
            assert_eq!(check(&packet), Ok(v6(1).into()), "{packet:x?}");
        }
    }

    fn refused(packet: &[u8], expected: Refusal) {
        assert_eq!(check(packet), Err(expected), "{packet:x?}");
    }

    #[test]
    fn what_is_no_rejection_is_refused_and_says_why() {
        refused(&[], Refusal::Network);
        refused(b"hello", Refusal::Network);
        refused(&reset_v4()[..39], Refusal::Network);
        refused(&[reset_v4(), vec![0]].concat(), Refusal::Network);
        refused(&[reset_v6(), vec![0]].concat(), Refusal::Network);
        refused(&tcp(|_| {}, b"data"), Refusal::NoReset);
        refused(&tcp(|tcp| tcp.rst = false, &[]), Refusal::NoReset);
        refused(&tcp(|tcp| tcp.syn = true, &[]), Refusal::NoReset);
        let options = |tcp: &mut TcpHeader| tcp.set_options_raw(&[1; 4]).unwrap();
        refused(&tcp(options, &[]), Refusal::NoReset);
        let echo = Icmpv4Type::EchoRequest(etherparse::IcmpEchoHeader { id: 1, seq: 1 });
        refused(&error_v4(echo, &quote_v4()), Refusal::NoUnreachable);
        // Would change the path's MTU.
        let too_big =
            Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::FragmentationNeeded {
                next_hop_mtu: 68,
            });
        refused(&error_v4(too_big, &quote_v4()), Refusal::NoUnreachable);
        let too_big = Icmpv6Type::PacketTooBig { mtu: 1280 };
        refused(&error_v6(too_big, &quote_v6()), Refusal::NoUnreachable);
        let mut udp = Vec::new();
        PacketBuilder::ipv4(SERVER, CLIENT, 64)
            .udp(6, 5)
            .write(&mut udp, b"x")
            .unwrap();
        refused(&udp, Refusal::Protocol);
        refused(&error_v4(PORT_V4, &[0x45; 549]), Refusal::TooLong);
    }

    #[test]
    fn rejections_about_somebody_elses_packet_are_refused() {
        // Turned round, it is the packet of the one in whose name the error goes out.
        let mut other = quote_v4();
        other[12..16].copy_from_slice(&SERVER);
        other[16..20].copy_from_slice(&CLIENT);
        refused(&error_v4(PORT_V4, &other), Refusal::Quote);
        refused(&error_v4(PORT_V4, &[]), Refusal::Quote);
        refused(&error_v4(PORT_V4, &quote_v6()), Refusal::Quote);
        let mut other = quote_v6();
        other[39] ^= 4;
        refused(&error_v6(PORT_V6, &other), Refusal::Quote);
        refused(&error_v6(PORT_V6, &quote_v6()[..39]), Refusal::Quote);
    }

    #[test]
    fn addresses_and_checksums_are_looked_at() {
        let mut packet = Vec::new();
        PacketBuilder::ipv4(SERVER, [224, 0, 0, 1], 64)
            .tcp(6, 5, 77, 0)
            .rst()
            .write(&mut packet, &[])
            .unwrap();
        refused(&packet, Refusal::Address);
        for (mut packet, sum_at) in [
            (reset_v4(), 10),
            (reset_v4(), 36),
            (reset_v6(), 56),
            (error_v4(PORT_V4, &quote_v4()), 22),
            (error_v6(PORT_V6, &quote_v6()), 42),
        ] {
            packet[sum_at] ^= 1;
            refused(&packet, Refusal::Checksum);
        }
    }

    proptest! {
        #[test]
        fn a_forged_byte_is_noticed_or_harmless(at in 0_usize..60, bit in 0_u32..8) {
            for mut packet in [reset_v4(), reset_v6(), error_v4(PORT_V4, &quote_v4())] {
                let at = at % packet.len();
                packet[at] ^= 1 << bit;
                let to = check(&packet);
                // Not covered by a checksum of IPv6: traffic class, flow label, hop limit.
                let uncovered = packet[0] >> 4 == 6 && (at < 4 || at == 7);
                prop_assert!(to.is_err() || uncovered, "{at} {bit} {to:?}");
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = check(&bytes);
        }
    }
}
