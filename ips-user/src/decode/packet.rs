//! A packet whose network and transport layers are understood.

use std::net::IpAddr;

use etherparse::TcpHeaderSlice;
use ips_common::{Direction, FAMILY_IPV4, FlowKey};

use super::key::{self, IcmpKind, KeyOutcome, icmp_kind, network_key};
use super::network::{Fragment, Network};
use super::{Invalid, protocol};

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
    /// A protocol that is not decoded further; its payload begins after the IP headers.
    Other,
    /// A fragment with an offset: its bytes belong to no header that is here.
    LaterFragment,
    /// A transport header, or the chain of extension headers before it, that cannot be read.
    /// Nobody's stack will deliver such a packet, but it still needs a verdict.
    Invalid(Invalid),
}

/// A decoded packet; borrows from the receive buffer.
#[derive(Clone, Debug)]
pub struct Decoded<'a> {
    /// The IP layer.
    pub network: Network<'a>,
    /// Canonical flow key; for a later fragment the key of an orphan.
    pub key: FlowKey,
    /// Which way this packet goes in `key`.
    pub direction: Direction,
    /// The transport layer.
    pub transport: Transport<'a>,
    /// What the transport carries; for ICMP what follows the first eight bytes.
    pub payload: &'a [u8],
    /// Source and destination port, for protocols that have them.
    pub ports: Option<(u16, u16)>,
}

impl<'a> Decoded<'a> {
    /// Decodes the packet that begins with the IP header `ip`.
    ///
    /// A bad transport layer is [`Transport::Invalid`], not an error: the packet still has
    /// addresses and a flow.
    ///
    /// # Errors
    /// When there is no complete, well-formed IPv4 or IPv6 header.
    pub fn parse(ip: &'a [u8]) -> Result<Self, Invalid> {
        Ok(Self::from_network(Network::parse(ip)?))
    }

    /// Decodes an Ethernet frame; `None` when it carries neither IPv4 nor IPv6.
    pub fn parse_frame(frame: &'a [u8]) -> Option<Result<Self, Invalid>> {
        Some(key::frame_network(frame)?.map(Self::from_network))
    }

    fn from_network(network: Network<'a>) -> Self {
        let located = network_key(&network);
        let key = match located.outcome {
            KeyOutcome::Flow { key, .. } | KeyOutcome::FirstFragment { key, .. } => key,
            KeyOutcome::LaterFragment { orphan_key, .. } => orphan_key,
            // A parsed network layer always has a key.
            KeyOutcome::NotIp | KeyOutcome::Malformed => FlowKey::default(),
        };
        let (transport, payload, ports) = transport_of(&network);
        Self {
            network,
            key,
            direction: located.direction,
            transport,
            payload,
            ports,
        }
    }

    /// Source address.
    pub fn source(&self) -> IpAddr {
        self.network.source_ip()
    }

    /// Destination address.
    pub fn destination(&self) -> IpAddr {
        self.network.destination_ip()
    }

    /// IP protocol of this packet (not of what an ICMP error quotes).
    pub fn protocol(&self) -> u8 {
        self.network.protocol
    }

    /// The TCP header, when there is one.
    pub fn tcp(&self) -> Option<&TcpHeaderSlice<'a>> {
        match &self.transport {
            Transport::Tcp(header) => Some(header),
            _ => None,
        }
    }

    /// Whether this is an ICMP message about another packet.
    pub fn is_icmp_error(&self) -> bool {
        match self.transport {
            Transport::Icmp { kind, .. } => icmp_kind(self.protocol(), kind) == IcmpKind::Error,
            _ => false,
        }
    }

    /// Why the transport layer cannot be read, when it cannot.
    pub fn invalid(&self) -> Option<Invalid> {
        match self.transport {
            Transport::Invalid(reason) => Some(reason),
            _ => None,
        }
    }

    /// Time to live, or hop limit.
    pub fn ttl(&self) -> u8 {
        let at = if self.is_ipv4() { 8 } else { 7 };
        self.network.header.get(at).copied().unwrap_or_default()
    }

    /// Type of service, or traffic class.
    pub fn tos(&self) -> u8 {
        match *self.network.header {
            [_, tos, ..] if self.is_ipv4() => tos,
            [first, second, ..] => first << 4 | second >> 4,
            _ => 0,
        }
    }

    /// IPv4 identification; zero for IPv6, which has none outside fragments.
    pub fn ip_id(&self) -> u16 {
        match *self.network.header {
            [_, _, _, _, high, low, ..] if self.is_ipv4() => u16::from_be_bytes([high, low]),
            _ => 0,
        }
    }

    /// IPv6 flow label; zero for IPv4.
    pub fn flow_label(&self) -> u32 {
        match *self.network.header {
            [_, high, middle, low, ..] if !self.is_ipv4() => {
                u32::from_be_bytes([0, high & 0x0f, middle, low])
            }
            _ => 0,
        }
    }

    /// Length of the packet, IP header included.
    pub fn len(&self) -> usize {
        self.network.packet.len()
    }

    /// Never: there is at least an IP header.
    pub fn is_empty(&self) -> bool {
        self.network.packet.is_empty()
    }

    /// Whether the family is IPv4.
    pub fn is_ipv4(&self) -> bool {
        self.network.family == FAMILY_IPV4
    }
}

type TransportParts<'a> = (Transport<'a>, &'a [u8], Option<(u16, u16)>);

fn transport_of<'a>(network: &Network<'a>) -> TransportParts<'a> {
    let bytes = network.payload;
    if network.chain_cut {
        return (Transport::Invalid(Invalid::ExtensionChain), bytes, None);
    }
    if matches!(network.fragment, Fragment::Later(_)) {
        return (Transport::LaterFragment, bytes, None);
    }
    let ports = || {
        bytes
            .first_chunk::<4>()
            .map(|&[a, b, c, d]| (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
    };
    match network.protocol {
        protocol::TCP => match TcpHeaderSlice::from_slice(bytes) {
            Ok(header) => {
                let payload = &bytes[header.slice().len()..];
                (Transport::Tcp(header), payload, ports())
            }
            Err(_) => (Transport::Invalid(Invalid::TcpHeader), bytes, ports()),
        },
        protocol::UDP => match bytes.split_first_chunk::<8>() {
            Some((&[_, _, _, _, high, low, _, _], rest)) => {
                let len = u16::from_be_bytes([high, low]);
                let claimed = usize::from(len);
                let partial = network.cut || network.fragment != Fragment::No;
                // Zero in a jumbogram: RFC 2675 §4.
                if claimed == 0 && bytes.len() > usize::from(u16::MAX) {
                    return (Transport::Udp { len }, rest, ports());
                }
                if claimed < 8 || (claimed > bytes.len() && !partial) {
                    return (Transport::Invalid(Invalid::UdpLength), rest, ports());
                }
                let payload = &rest[..rest.len().min(claimed - 8)];
                (Transport::Udp { len }, payload, ports())
            }
            None => (Transport::Invalid(Invalid::UdpHeader), bytes, ports()),
        },
        protocol::ICMP | protocol::ICMPV6 => match bytes.split_first_chunk::<8>() {
            Some((&[kind, code, ..], rest)) => (Transport::Icmp { kind, code }, rest, None),
            None => (Transport::Invalid(Invalid::IcmpHeader), bytes, None),
        },
        protocol::DCCP | protocol::SCTP | protocol::UDP_LITE => (Transport::Other, bytes, ports()),
        _ => (Transport::Other, bytes, None),
    }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    use super::*;

    fn udp(payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        PacketBuilder::ipv4([192, 0, 2, 1], [192, 0, 2, 2], 61)
            .udp(5353, 53)
            .write(&mut bytes, payload)
            .unwrap();
        bytes
    }

    fn tcp6(payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        PacketBuilder::ipv6([1; 16], [2; 16], 62)
            .tcp(1000, 80, 7, 512)
            .psh()
            .ack(9)
            .write(&mut bytes, payload)
            .unwrap();
        bytes
    }

    #[test]
    fn a_tcp_segment_shows_header_and_payload() {
        let bytes = tcp6(b"hello");
        let decoded = Decoded::parse(&bytes).unwrap();
        let tcp = decoded.tcp().unwrap();
        assert_eq!(tcp.sequence_number(), 7);
        assert_eq!(tcp.acknowledgment_number(), 9);
        assert!(tcp.psh() && tcp.ack() && !tcp.syn());
        assert_eq!(decoded.payload, b"hello");
        assert_eq!(decoded.ports, Some((1000, 80)));
        assert_eq!(decoded.ttl(), 62);
        assert_eq!(decoded.len(), bytes.len());
    }

    #[test]
    fn padding_after_the_packet_is_not_payload() {
        let mut bytes = udp(b"query");
        bytes.extend([0; 9]);
        let decoded = Decoded::parse(&bytes).unwrap();
        assert_eq!(decoded.payload, b"query");
        assert!(matches!(decoded.transport, Transport::Udp { len: 13 }));
    }

    #[test]
    fn bad_transport_headers_are_named() {
        let check = |bytes: &[u8], expect: Invalid| {
            assert_eq!(Decoded::parse(bytes).unwrap().invalid(), Some(expect));
        };
        let mut offset = tcp6(b"");
        offset[40 + 12] = 0x40;
        check(&offset, Invalid::TcpHeader);
        let mut offset = tcp6(b"");
        offset[40 + 12] = 0xf0;
        check(&offset, Invalid::TcpHeader);
        let mut short = udp(b"abc");
        short[24..26].copy_from_slice(&7u16.to_be_bytes());
        check(&short, Invalid::UdpLength);
        let mut long = udp(b"abc");
        long[24..26].copy_from_slice(&99u16.to_be_bytes());
        check(&long, Invalid::UdpLength);
        let mut none = udp(b"");
        none[2..4].copy_from_slice(&27u16.to_be_bytes());
        check(&none, Invalid::UdpHeader);
    }

    #[test]
    fn a_packet_cut_by_the_copy_range_is_inspected_as_far_as_it_goes() {
        let bytes = udp(&[7; 100]);
        let decoded = Decoded::parse(&bytes[..60]).unwrap();
        assert_eq!(decoded.invalid(), None);
        assert_eq!(decoded.payload.len(), 32);
        assert!(decoded.network.cut);
    }

    proptest! {
        #[test]
        fn no_mutation_of_a_packet_makes_it_panic(
            which in any::<bool>(),
            len in 0usize..120,
            changes in proptest::collection::vec((0usize..120, any::<u8>()), 0..8),
        ) {
            let mut bytes = if which { udp(&[3; 60]) } else { tcp6(&[4; 60]) };
            for (at, byte) in changes {
                if let Some(slot) = bytes.get_mut(at) { *slot = byte; }
            }
            bytes.truncate(len);
            if let Ok(decoded) = Decoded::parse(&bytes) {
                prop_assert!(decoded.payload.len() <= bytes.len());
                let _ = (decoded.ttl(), decoded.tos(), decoded.ip_id(), decoded.is_icmp_error());
            }
        }
    }
}
