//! What rules ask of a packet's headers. Nothing panics, whatever is in them; `None` where a
//! packet has no such thing, and then no condition about it holds.

use std::net::IpAddr;

use crate::decode::event::EventSet;
use crate::decode::{Decoded, Network, PacketSource, Transport, protocol};

/// A packet as conditions see it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a> {
    packet: &'a Decoded<'a>,
}

/// Which rules a packet is checked against, by its protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Class {
    Tcp,
    Udp,
    Sctp,
    Icmp,
    Icmpv6,
    /// Any other protocol.
    Other,
    /// No IP packet, or one whose IP header cannot be read.
    NoIp,
}

impl Class {
    pub(crate) const ALL: [Self; 7] = [
        Self::Tcp,
        Self::Udp,
        Self::Sctp,
        Self::Icmp,
        Self::Icmpv6,
        Self::Other,
        Self::NoIp,
    ];

    /// Whether its packets have ports.
    pub(crate) const fn has_ports(self) -> bool {
        matches!(self, Self::Tcp | Self::Udp | Self::Sctp)
    }
}

impl<'a> View<'a> {
    /// Of a packet.
    pub(crate) fn new(packet: &'a Decoded<'a>) -> Self {
        Self { packet }
    }

    /// Which rules it is checked against. A packet whose transport cannot be read has what the IP
    /// header says: rules about headers, ports and payload do not match it.
    pub(crate) fn class(&self) -> Class {
        if self.packet.network.is_none() {
            return Class::NoIp;
        }
        match self.packet.protocol() {
            protocol::TCP => Class::Tcp,
            protocol::UDP => Class::Udp,
            protocol::SCTP => Class::Sctp,
            protocol::ICMP => Class::Icmp,
            protocol::ICMPV6 => Class::Icmpv6,
            _ => Class::Other,
        }
    }

    /// Source address; unspecified without an IP layer.
    pub(crate) fn source(&self) -> IpAddr {
        self.packet.source()
    }

    /// Destination address; unspecified without an IP layer.
    pub(crate) fn destination(&self) -> IpAddr {
        self.packet.destination()
    }

    /// Source and destination port; fragments have none that count.
    pub(crate) fn ports(&self) -> Option<(u16, u16)> {
        self.packet
            .ports
            .filter(|_| self.packet.invalid().is_none())
    }

    pub(crate) fn is_ip(&self) -> bool {
        self.packet.network.is_some()
    }

    pub(crate) fn is_ipv4(&self) -> bool {
        self.packet.is_ipv4()
    }

    pub(crate) fn is_ipv6(&self) -> bool {
        self.packet.is_ipv6()
    }

    /// EtherType of an Ethernet frame.
    pub(crate) fn ethertype(&self) -> Option<u16> {
        self.packet.link.ethertype
    }

    /// Whether it has an Ethernet header.
    pub(crate) fn is_ethernet(&self) -> bool {
        self.packet.link.macs.is_some()
    }

    /// VLAN ids, the outermost first.
    pub(crate) fn vlans(&self) -> &'a [u16] {
        self.packet.link.vlans.as_slice()
    }

    /// Whether it was put together from fragments.
    pub(crate) fn is_reassembled(&self) -> bool {
        self.packet.source == PacketSource::Defrag
    }

    /// Whether it came out of a tunnel.
    pub(crate) fn is_tunnelled(&self) -> bool {
        self.packet.tunnel.is_some()
    }

    /// What is remarkable or wrong about it.
    pub(crate) fn events(&self) -> EventSet {
        self.packet.events
    }

    /// Whether the checksum of the IPv4 header is right; `None` without one.
    pub(crate) fn ip_checksum(&self) -> Option<bool> {
        let validity = || self.packet.ip_checksum().is_acceptable();
        self.is_ipv4().then(validity)
    }

    /// Whether the checksum of the transport layer is right.
    pub(crate) fn transport_checksum(&self) -> bool {
        self.packet.transport_checksum().is_acceptable()
    }

    /// Protocol number of what the IP headers carry.
    pub(crate) fn protocol(&self) -> u8 {
        self.packet.protocol()
    }

    /// Bytes from the IP header on.
    pub(crate) fn len(&self) -> usize {
        self.packet.len()
    }

    /// What the transport carries; nothing where it cannot be read, or is a fragment.
    pub(crate) fn payload(&self) -> &'a [u8] {
        match self.packet.transport {
            Transport::Invalid(_) | Transport::Fragment | Transport::None => &[],
            _ => self.packet.payload,
        }
    }

    pub(crate) fn ttl(&self) -> Option<u8> {
        self.is_ip().then(|| self.packet.ttl())
    }

    pub(crate) fn tos(&self) -> Option<u8> {
        self.is_ipv4().then(|| self.packet.tos())
    }

    pub(crate) fn ip_id(&self) -> Option<u16> {
        self.is_ipv4().then(|| self.packet.ip_id())
    }

    fn network(&self) -> Option<&'a Network<'a>> {
        self.packet.network.as_ref()
    }

    /// The IPv4 header with its options.
    pub(crate) fn ipv4_header(&self) -> Option<&'a [u8]> {
        let network = self.network().filter(|_| self.is_ipv4())?;
        Some(network.header)
    }

    /// The IPv6 header with its extension headers.
    pub(crate) fn ipv6_header(&self) -> Option<&'a [u8]> {
        let network = self.network().filter(|_| self.is_ipv6())?;
        let carried = network.payload.len();
        network
            .packet
            .get(..network.packet.len().checked_sub(carried)?)
    }

    /// Flags and offset of an IPv4 header, or of an IPv6 fragment header in the same places.
    pub(crate) fn fragment_field(&self) -> Option<u16> {
        if self.is_ipv4() {
            let field = self.ipv4_header()?.get(6..8)?;
            return Some(u16::from_be_bytes([field[0], field[1]]));
        }
        let part = self.network()?.part?;
        Some((part.offset / 8) as u16 | u16::from(part.more) << 13)
    }

    /// What the IP headers carry, from the transport header on.
    fn transport(&self) -> &'a [u8] {
        match self.packet.transport {
            Transport::Fragment | Transport::Invalid(_) | Transport::None => &[],
            _ => self.network().map_or(&[], |network| network.payload),
        }
    }

    fn header(&self, number: u8) -> Option<&'a [u8]> {
        let whole = self.transport();
        let header = whole.get(..whole.len().checked_sub(self.payload().len())?)?;
        (self.packet.protocol() == number && !header.is_empty()).then_some(header)
    }

    /// The TCP header with its options.
    pub(crate) fn tcp(&self) -> Option<&'a [u8]> {
        self.header(protocol::TCP).filter(|it| it.len() >= 20)
    }

    /// The UDP header.
    pub(crate) fn udp(&self) -> Option<&'a [u8]> {
        self.header(protocol::UDP).and_then(|it| it.get(..8))
    }

    /// The ICMP header.
    pub(crate) fn icmpv4(&self) -> Option<&'a [u8]> {
        self.header(protocol::ICMP).and_then(|it| it.get(..8))
    }

    /// The ICMPv6 header.
    pub(crate) fn icmpv6(&self) -> Option<&'a [u8]> {
        self.header(protocol::ICMPV6).and_then(|it| it.get(..8))
    }

    /// The IGMP message.
    pub(crate) fn igmp(&self) -> Option<&'a [u8]> {
        const IGMP: u8 = 2;
        let whole = self.transport();
        (self.packet.protocol() == IGMP && whole.len() >= 8).then_some(whole)
    }

    /// Type and code of an ICMP message of either family.
    pub(crate) fn icmp_type(&self) -> Option<(u8, u8)> {
        match self.packet.transport {
            Transport::Icmp { kind, code } => Some((kind, code)),
            _ => None,
        }
    }

    /// Identifier and sequence number of ICMP messages that have them.
    pub(crate) fn icmp_query(&self) -> Option<(u16, u16)> {
        let header = self.icmpv4().or_else(|| self.icmpv6())?;
        let (kind, _) = self.icmp_type()?;
        let has = match self.packet.protocol() {
            // Echo, timestamp, information, address mask.
            protocol::ICMP => matches!(kind, 0 | 8 | 13..=18),
            _ => matches!(kind, 128 | 129),
        };
        let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        has.then(|| (word(4), word(6)))
    }

    /// MTU of an ICMPv6 message that a packet was too big.
    pub(crate) fn icmpv6_mtu(&self) -> Option<u32> {
        const TOO_BIG: u8 = 2;
        let header = self.icmpv6()?;
        let mtu = header.get(4..8)?;
        (header[0] == TOO_BIG).then(|| u32::from_be_bytes([mtu[0], mtu[1], mtu[2], mtu[3]]))
    }

    /// The value of a TCP option, without kind and length.
    fn tcp_option(&self, kind: u8) -> Option<&'a [u8]> {
        find_option(self.tcp()?.get(20..)?, kind)
    }

    pub(crate) fn tcp_mss(&self) -> Option<u16> {
        let value: [u8; 2] = self.tcp_option(2)?.try_into().ok()?;
        Some(u16::from_be_bytes(value))
    }

    pub(crate) fn tcp_wscale(&self) -> Option<u8> {
        match self.tcp_option(3)? {
            [scale] => Some(*scale),
            _ => None,
        }
    }

    pub(crate) fn tcp_flags(&self) -> Option<u8> {
        self.tcp().map(|header| header[13])
    }

    /// A number of the TCP header at this offset.
    fn tcp_u32(&self, at: usize) -> Option<u32> {
        let bytes = self.tcp()?.get(at..at + 4)?;
        Some(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    pub(crate) fn tcp_sequence(&self) -> Option<u32> {
        self.tcp_u32(4)
    }

    pub(crate) fn tcp_acknowledgment(&self) -> Option<u32> {
        self.tcp_u32(8)
    }

    pub(crate) fn tcp_window(&self) -> Option<u16> {
        self.tcp()
            .map(|header| u16::from_be_bytes([header[14], header[15]]))
    }

    /// Whether the IPv4 header has this option; any, if `None`.
    pub(crate) fn has_ip_option(&self, kind: Option<u8>) -> bool {
        let Some(options) = self.ipv4_header().and_then(|header| header.get(20..)) else {
            return false;
        };
        match kind {
            None => !options.is_empty(),
            // End of the list, and no operation: single bytes.
            Some(0) => walk(options).any(|(kind, _)| kind == 0),
            Some(kind) => find_option(options, kind).is_some(),
        }
    }
}

/// Kind and value of each option; ends at what is no option.
fn walk(options: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut rest = options;
    std::iter::from_fn(move || match *rest {
        [] => None,
        [0, ..] => {
            rest = &[];
            Some((0, rest))
        }
        [1, ref next @ ..] => {
            rest = next;
            Some((1, &next[..0]))
        }
        [kind, length, ..] if length >= 2 => {
            let value = rest.get(2..usize::from(length))?;
            rest = &rest[usize::from(length)..];
            Some((kind, value))
        }
        _ => None,
    })
}

fn find_option(options: &[u8], kind: u8) -> Option<&[u8]> {
    walk(options)
        .find(|(found, _)| *found == kind)
        .map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_walked_to_the_first_that_is_none() {
        let options = [1, 2, 4, 5, 0xb4, 1, 3, 3, 7, 0, 9, 9];
        assert_eq!(find_option(&options, 2), Some(&[5, 0xb4][..]));
        assert_eq!(find_option(&options, 3), Some(&[7][..]));
        assert_eq!(find_option(&options, 9), None);
        assert_eq!(find_option(&[2, 9, 1], 2), None);
        assert_eq!(find_option(&[2, 1, 3, 3, 7], 3), None);
        assert_eq!(find_option(&[2], 2), None);
        assert!(walk(&[1, 0]).any(|(kind, _)| kind == 0));
    }
}
