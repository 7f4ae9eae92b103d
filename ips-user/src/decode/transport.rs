//! The transport header of a packet.

use etherparse::TcpHeaderSlice;
use ips_common::FAMILY_IPV4;

use super::event::{DecodeEvent as Event, EventSet};
use super::network::{Fragment, Network};
use super::tcp_options::TcpOptions;
use super::{Invalid, icmp, igmp, protocol, sctp};

/// The transport layer of a packet.
#[derive(Clone, Debug)]
pub enum Transport<'a> {
    /// TCP, RFC 9293.
    Tcp(TcpHeaderSlice<'a>),
    /// UDP, RFC 768.
    Udp {
        /// The length field.
        len: u16,
    },
    /// ICMP (RFC 792) or ICMPv6 (RFC 4443).
    Icmp {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
    },
    /// SCTP, RFC 9260.
    Sctp {
        /// The verification tag.
        verification_tag: u32,
    },
    /// ESP, RFC 4303.
    Esp {
        /// The security parameters index.
        spi: u32,
    },
    /// A protocol that is not decoded further; its payload begins after the IP headers.
    Other,
    /// A fragment: its bytes are inspected when the datagram is complete. Where nobody
    /// reassembles, only one with an offset, whose bytes belong to no header that is here.
    Fragment,
    /// No IP packet.
    None,
    /// A header that cannot be read: that of the transport layer, the chain of extension headers
    /// before it, or one below. Nobody's stack will deliver such a packet, but it still needs a
    /// verdict.
    Invalid(Invalid),
}

/// Transport layer, what it carries, ports.
pub(super) type Parts<'a> = (Transport<'a>, &'a [u8], Option<(u16, u16)>);

/// Reads the transport header of a packet.
pub(super) fn read<'a>(network: &Network<'a>, events: &mut EventSet) -> Parts<'a> {
    let bytes = network.payload;
    if network.chain_cut {
        return (Transport::Invalid(Invalid::ExtensionChain), bytes, None);
    }
    if matches!(network.fragment, Fragment::Later(_)) {
        return (Transport::Fragment, bytes, None);
    }
    let ports = || {
        bytes
            .first_chunk::<4>()
            .map(|&[a, b, c, d]| (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
    };
    let v4 = network.family == FAMILY_IPV4;
    match network.protocol {
        protocol::TCP => match TcpHeaderSlice::from_slice(bytes) {
            Ok(header) => {
                TcpOptions::checked(header.options(), events);
                let payload = &bytes[header.slice().len()..];
                (Transport::Tcp(header), payload, ports())
            }
            Err(_) => {
                events.insert(match bytes.len() {
                    ..20 => Event::TcpTooSmall,
                    _ => Event::TcpHeaderTooSmall,
                });
                (Transport::Invalid(Invalid::TcpHeader), bytes, ports())
            }
        },
        protocol::UDP => {
            let (transport, payload) = udp(network, events);
            (transport, payload, ports())
        }
        protocol::ICMP | protocol::ICMPV6 => {
            let (transport, payload) = match bytes.split_first_chunk::<8>() {
                Some((&[kind, code, ..], rest)) => (Transport::Icmp { kind, code }, rest),
                None => (Transport::Invalid(Invalid::IcmpHeader), bytes),
            };
            match (network.protocol, v4, &transport) {
                (protocol::ICMP, true, &Transport::Icmp { kind, code }) => {
                    icmp::check_v4(kind, code, payload, events);
                }
                (protocol::ICMPV6, false, &Transport::Icmp { kind, code }) => {
                    icmp::check_v6(kind, code, network.hop_limit(), payload, events);
                }
                (protocol::ICMP, true, _) => events.insert(Event::Icmpv4TooSmall),
                (protocol::ICMPV6, false, _) => events.insert(Event::Icmpv6TooSmall),
                (_, true, _) => events.insert(Event::Ipv4WithIcmpv6),
                (_, false, _) => events.insert(Event::Ipv6WithIcmpv4),
            }
            (transport, payload, None)
        }
        protocol::SCTP => match bytes.split_first_chunk::<{ sctp::HEADER_LEN }>() {
            Some((header, chunks)) => {
                let verification_tag =
                    u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
                if !network.cut && network.fragment == Fragment::No {
                    sctp::check_chunks(verification_tag, chunks, events);
                }
                (Transport::Sctp { verification_tag }, chunks, ports())
            }
            None => {
                events.insert(Event::SctpTooSmall);
                (Transport::Invalid(Invalid::SctpHeader), bytes, ports())
            }
        },
        protocol::ESP => match bytes.split_first_chunk::<8>() {
            Some((&[a, b, c, d, ..], rest)) => {
                let spi = u32::from_be_bytes([a, b, c, d]);
                (Transport::Esp { spi }, rest, None)
            }
            None => {
                events.insert(Event::EspTooSmall);
                (Transport::Invalid(Invalid::EspHeader), bytes, None)
            }
        },
        protocol::DCCP | protocol::UDP_LITE => (Transport::Other, bytes, ports()),
        other => {
            match other {
                protocol::IGMP if v4 => igmp::check(bytes, events),
                protocol::NO_NEXT_HEADER if !v4 => {
                    if !bytes.is_empty() {
                        events.insert(Event::Ipv6DataAfterNone);
                    }
                }
                protocol::IPV4 | protocol::IPV6 | protocol::GRE | protocol::AH => {}
                _ if v4 => events.insert(Event::Ipv4UnknownProtocol),
                _ => events.insert(Event::Ipv6UnknownNextHeader),
            }
            (Transport::Other, bytes, None)
        }
    }
}

fn udp<'a>(network: &Network<'a>, events: &mut EventSet) -> (Transport<'a>, &'a [u8]) {
    let bytes = network.payload;
    let Some((&[_, _, _, _, high, low, _, _], rest)) = bytes.split_first_chunk::<8>() else {
        events.insert(Event::UdpHeaderTooSmall);
        return (Transport::Invalid(Invalid::UdpHeader), bytes);
    };
    let len = u16::from_be_bytes([high, low]);
    let claimed = usize::from(len);
    let partial = network.cut || network.fragment != Fragment::No;
    // Zero in a jumbogram: RFC 2675 §4.
    if claimed == 0 && bytes.len() > usize::from(u16::MAX) {
        return (Transport::Udp { len }, rest);
    }
    if claimed < 8 || (claimed > bytes.len() && !partial) {
        events.insert(match claimed {
            ..8 => Event::UdpLength,
            _ => Event::UdpTooSmall,
        });
        return (Transport::Invalid(Invalid::UdpLength), rest);
    }
    let payload = &rest[..rest.len().min(claimed - 8)];
    (Transport::Udp { len }, payload)
}
