//! A packet whose network and transport layers are understood, as far as they can be.

use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr};

use etherparse::TcpHeaderSlice;
use ips_common::{Direction, FAMILY_IPV4, FlowKey};

use super::Invalid;
use super::checksum::{self, Validity, Verify};
use super::event::EventSet;
use super::icmp::Quoted;
use super::ipv4_options::Ipv4Options;
use super::key::{self, IcmpKind, KeyOutcome, icmp_kind, network_key};
use super::link::{Link, LinkType};
use super::network::Network;
use super::tcp_options::TcpOptions;
use super::transport::{self, Transport};
use super::tunnel::{PacketSource, Tunnel};
use crate::reassembly::defrag::Refusal;

/// What defragmentation makes of a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FragmentFate {
    /// It is no fragment, or nobody reassembles.
    #[default]
    NoFragment,
    /// It is kept until its datagram is complete.
    Kept,
    /// It completed a datagram, which has been shown before it.
    Completed {
        /// Whether that was dropped, and so this is, too.
        dropped: bool,
    },
    /// It cannot be used. Inline it is dropped, whatever else is decided.
    Refused(Refusal),
    /// There is no room for it: its datagram will not be inspected.
    NoRoom,
}

/// A decoded packet; borrows from the receive buffer.
///
/// A packet whose headers cannot be read up to the transport layer has less: no `network`, or
/// [`Transport::Invalid`]. Its `events` say why.
#[derive(Clone, Debug)]
pub struct Decoded<'a> {
    /// All its bytes, from the link layer on when that is there. For a packet in a tunnel: what
    /// the tunnel carries.
    pub frame: &'a [u8],
    /// What `frame` begins with. A tunnel's content counts as [`LinkType::Raw`].
    pub link_type: LinkType,
    /// What stood before the IP header.
    pub link: Link,
    /// How it came to be a packet.
    pub source: PacketSource,
    /// The outermost packet around it.
    pub tunnel: Option<Tunnel>,
    /// What is remarkable or wrong about it.
    pub events: EventSet,
    /// The IP layer.
    pub network: Option<Network<'a>>,
    /// Canonical flow key; for a later fragment the key of an orphan; without an IP layer all
    /// zero.
    pub key: FlowKey,
    /// Which way this packet goes in `key`.
    pub direction: Direction,
    /// The transport layer.
    pub transport: Transport<'a>,
    /// What the transport carries; for ICMP what follows the first eight bytes.
    pub payload: &'a [u8],
    /// Source and destination port, for protocols that have them.
    pub ports: Option<(u16, u16)>,
    /// What defragmentation makes of it.
    pub fragment_fate: FragmentFate,
    /// Whether a packet that it carries was dropped, and so it is, too.
    pub inner_dropped: bool,
    pub(super) verify: Verify,
    checked: Cell<[Option<Validity>; 2]>,
}

impl<'a> Decoded<'a> {
    /// Decodes the packet that begins with the IP header `ip`, on its own: fragments are not put
    /// together, tunnels not entered.
    ///
    /// A bad transport layer is [`Transport::Invalid`], not an error: the packet still has
    /// addresses and a flow.
    ///
    /// # Errors
    /// When there is no complete, well-formed IPv4 or IPv6 header.
    pub fn parse(ip: &'a [u8]) -> Result<Self, Invalid> {
        Ok(Self::alone(Network::parse(ip)?))
    }

    /// Decodes an Ethernet frame on its own; `None` when it carries neither IPv4 nor IPv6.
    pub fn parse_frame(frame: &'a [u8]) -> Option<Result<Self, Invalid>> {
        Some(key::frame_network(frame)?.map(Self::alone))
    }

    fn alone(network: Network<'a>) -> Self {
        let mut decoded = Self::without_network(network.packet, LinkType::Raw);
        decoded.set_network(network);
        let parts = transport::read(&network, &mut decoded.events);
        (decoded.transport, decoded.payload, decoded.ports) = parts;
        decoded
    }

    /// The same packet with other bytes: `frame` is as long as this one's, and differs in what the
    /// transport carries and in its header. `None` when there is no such packet in it.
    pub fn with_frame<'b>(&self, frame: &'b [u8]) -> Option<Decoded<'b>> {
        let old = self.network.as_ref()?;
        let at = (old.packet.as_ptr().addr()).checked_sub(self.frame.as_ptr().addr())?;
        let network = Network::parse(frame.get(at..)?).ok()?;
        Some(Decoded {
            frame,
            link_type: self.link_type,
            link: self.link,
            source: self.source,
            tunnel: self.tunnel,
            events: self.events,
            key: self.key,
            direction: self.direction,
            fragment_fate: self.fragment_fate,
            inner_dropped: self.inner_dropped,
            verify: self.verify,
            ..Decoded::alone(network)
        })
    }

    pub(super) fn without_network(frame: &'a [u8], link_type: LinkType) -> Self {
        Self {
            frame,
            link_type,
            link: Link::default(),
            source: PacketSource::Wire,
            tunnel: None,
            events: EventSet::EMPTY,
            network: None,
            key: FlowKey::default(),
            direction: Direction::LowToHigh,
            transport: Transport::None,
            payload: &[],
            ports: None,
            fragment_fate: FragmentFate::NoFragment,
            inner_dropped: false,
            verify: Verify::All,
            checked: Cell::default(),
        }
    }

    pub(super) fn set_network(&mut self, network: Network<'a>) {
        let located = network_key(&network);
        self.key = match located.outcome {
            KeyOutcome::Flow { key, .. } | KeyOutcome::FirstFragment { key, .. } => key,
            KeyOutcome::LaterFragment { orphan_key, .. } => orphan_key,
            // A parsed network layer always has a key.
            KeyOutcome::NotIp | KeyOutcome::Malformed => FlowKey::default(),
        };
        self.direction = located.direction;
        self.network = Some(network);
    }

    /// Source and destination, when there is an IP layer.
    pub fn addresses(&self) -> Option<(IpAddr, IpAddr)> {
        let network = self.network.as_ref()?;
        Some((network.source_ip(), network.destination_ip()))
    }

    /// Source address; unspecified without an IP layer.
    pub fn source(&self) -> IpAddr {
        const NONE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        self.network.as_ref().map_or(NONE, Network::source_ip)
    }

    /// Destination address; unspecified without an IP layer.
    pub fn destination(&self) -> IpAddr {
        const NONE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        self.network.as_ref().map_or(NONE, Network::destination_ip)
    }

    /// IP protocol of this packet (not of what an ICMP error quotes); zero without an IP layer.
    pub fn protocol(&self) -> u8 {
        self.network.as_ref().map_or(0, |network| network.protocol)
    }

    /// The TCP header, when there is one.
    pub fn tcp(&self) -> Option<&TcpHeaderSlice<'a>> {
        match &self.transport {
            Transport::Tcp(header) => Some(header),
            _ => None,
        }
    }

    /// The TCP header's options.
    pub fn tcp_options(&self) -> Option<TcpOptions<'a>> {
        let at = self.tcp()?.slice().len();
        let bytes = self.network.as_ref()?.payload;
        Some(TcpOptions::parse(bytes.get(20..at)?))
    }

    /// The IPv4 header's options.
    pub fn ip_options(&self) -> Ipv4Options {
        match &self.network {
            Some(network) if network.family == FAMILY_IPV4 => {
                Ipv4Options::of(network.header.get(20..).unwrap_or_default())
            }
            _ => Ipv4Options::default(),
        }
    }

    /// Whether this is an ICMP message about another packet.
    pub fn is_icmp_error(&self) -> bool {
        match self.transport {
            Transport::Icmp { kind, .. } => icmp_kind(self.protocol(), kind) == IcmpKind::Error,
            _ => false,
        }
    }

    /// The packet that an ICMP error quotes.
    pub fn quoted(&self) -> Option<Quoted> {
        let network = self.network.as_ref().filter(|_| self.is_icmp_error())?;
        Quoted::read(network.family, self.payload)
    }

    /// Whether it is a fragment, and its bytes are inspected with its datagram.
    pub fn is_fragment(&self) -> bool {
        matches!(self.transport, Transport::Fragment)
    }

    /// Whether it belongs to a flow: a whole packet of a protocol that has flows, not broken.
    pub fn has_flow(&self) -> bool {
        matches!(
            self.transport,
            Transport::Tcp(_)
                | Transport::Udp { .. }
                | Transport::Icmp { .. }
                | Transport::Sctp { .. }
                | Transport::Esp { .. }
        )
    }

    /// Why it cannot be read up to the transport layer, when it cannot.
    pub fn invalid(&self) -> Option<Invalid> {
        match self.transport {
            Transport::Invalid(reason) => Some(reason),
            _ => None,
        }
    }

    /// Time to live, or hop limit; zero without an IP layer.
    pub fn ttl(&self) -> u8 {
        self.network.as_ref().map_or(0, Network::hop_limit)
    }

    fn header(&self) -> &'a [u8] {
        self.network.map_or(&[], |network| network.header)
    }

    /// Type of service, or traffic class.
    pub fn tos(&self) -> u8 {
        match *self.header() {
            [_, tos, ..] if self.is_ipv4() => tos,
            [first, second, ..] => first << 4 | second >> 4,
            _ => 0,
        }
    }

    /// IPv4 identification; zero for IPv6, which has none outside fragments.
    pub fn ip_id(&self) -> u16 {
        match *self.header() {
            [_, _, _, _, high, low, ..] if self.is_ipv4() => u16::from_be_bytes([high, low]),
            _ => 0,
        }
    }

    /// IPv6 flow label; zero for IPv4.
    pub fn flow_label(&self) -> u32 {
        match *self.header() {
            [_, high, middle, low, ..] if !self.is_ipv4() => {
                u32::from_be_bytes([0, high & 0x0f, middle, low])
            }
            _ => 0,
        }
    }

    /// Length of the packet, IP header included; of the frame without an IP layer.
    pub fn len(&self) -> usize {
        let packet = self.network.map_or(self.frame, |network| network.packet);
        packet.len()
    }

    /// Whether there are no bytes at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the family is IPv4.
    pub fn is_ipv4(&self) -> bool {
        matches!(&self.network, Some(network) if network.family == FAMILY_IPV4)
    }

    /// Whether the family is IPv6.
    pub fn is_ipv6(&self) -> bool {
        self.network.is_some() && !self.is_ipv4()
    }

    /// What the checksum of the IPv4 header says.
    pub fn ip_checksum(&self) -> Validity {
        self.check(0, self.verify != Verify::Nothing, checksum::header)
    }

    /// What the checksum of the transport layer says.
    pub fn transport_checksum(&self) -> Validity {
        self.check(1, self.verify == Verify::All, checksum::transport)
    }

    fn check(&self, which: usize, wanted: bool, how: fn(&Network<'_>) -> Validity) -> Validity {
        let Some(network) = self.network.as_ref().filter(|_| wanted) else {
            return Validity::Unchecked;
        };
        let mut checked = self.checked.get();
        if let Some(validity) = checked[which] {
            return validity;
        }
        let validity = how(network);
        checked[which] = Some(validity);
        self.checked.set(checked);
        validity
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
    fn a_changed_packet_keeps_what_is_known_of_it() {
        let bytes = [&[9; 14][..], &tcp6(b"hello")].concat();
        let mut decoded = Decoded::parse(&bytes[14..]).unwrap();
        decoded.frame = &bytes;
        decoded.key.zone = 5;
        let mut other = bytes.clone();
        let len = other.len();
        other[len - 1] = b'!';
        let changed = decoded.with_frame(&other).unwrap();
        assert_eq!((changed.payload, changed.key), (&b"hell!"[..], decoded.key));
        assert_eq!(changed.ports, decoded.ports);
        assert!(decoded.with_frame(&[]).is_none());
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
        assert!(decoded.network.unwrap().cut);
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
