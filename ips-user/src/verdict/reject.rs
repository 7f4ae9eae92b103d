//! The packets that tell the ends of a rejected flow: a TCP reset or an ICMP error.
//!
//! They look as if the other end had sent them, because no other sender would be believed.

use std::net::IpAddr;

use etherparse::icmpv4::DestUnreachableHeader;
use etherparse::icmpv6::DestUnreachableCode;
use etherparse::{Icmpv4Type, Icmpv6Type, PacketBuilder};

use crate::decode::{Decoded, Transport, protocol};

/// TTL and hop limit of what is sent: the usual initial value (RFC 1700).
const TTL: u8 = 64;
/// Longest ICMP error: RFC 1812 §4.3.2.3.
pub(crate) const MAX_ICMPV4_ERROR: usize = 576;
/// Longest ICMPv6 error: the least MTU, RFC 4443 §2.4 (c).
pub(crate) const MAX_ICMPV6_ERROR: usize = 1280;
/// IP and ICMP header before the quote.
const ICMPV4_OVERHEAD: usize = 28;
const ICMPV6_OVERHEAD: usize = 48;

/// Which end is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Toward {
    /// The one that sent the packet.
    Source,
    /// The one that would have received it.
    Destination,
}

/// Sends rejections.
pub trait RejectSender {
    /// Sends a packet that is complete from the IP header on. Failures are the sender's to
    /// count: a rejected packet is dropped anyway.
    fn send(&mut self, packet: &[u8], to: IpAddr);
}

/// What kind of packet tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A TCP reset.
    TcpReset,
    /// An ICMP error.
    Icmp,
}

/// How an end of this packet's flow is told, if it may be.
///
/// Nothing is sent about a reset (RFC 9293 §3.5.2), an ICMP error (ICMPv6: also one of a type
/// unknown here, and a redirect), a fragment, a packet in a tunnel (its addresses may mean
/// others here than there), or a packet to or from an address that is
/// not a single host's (RFC 1122 §3.2.2, RFC 4443 §2.4 (e)).
pub fn notice(packet: &Decoded<'_>) -> Option<Notice> {
    if packet.tunnel.is_some() || !is_host(packet.source()) || !is_host(packet.destination()) {
        return None;
    }
    match &packet.transport {
        Transport::Tcp(tcp) if tcp.rst() => None,
        Transport::Tcp(_) => Some(Notice::TcpReset),
        Transport::Invalid(_) | Transport::Fragment | Transport::None => None,
        Transport::Icmp { .. } if packet.is_icmp_error() => None,
        Transport::Icmp { kind, .. } if !packet.is_ipv4() && !answerable_icmpv6(*kind) => None,
        Transport::Udp { .. }
        | Transport::Icmp { .. }
        | Transport::Sctp { .. }
        | Transport::Esp { .. }
        | Transport::Other => Some(Notice::Icmp),
    }
}

/// Writes the packet that tells one end into `out` (cleared first); returns the address to
/// send it to, or `None` when there is nothing to send.
pub fn build(packet: &Decoded<'_>, toward: Toward, out: &mut Vec<u8>) -> Option<IpAddr> {
    out.clear();
    let written = match notice(packet)? {
        Notice::TcpReset => reset(packet, toward, out),
        Notice::Icmp => icmp_error(packet, toward, out),
    };
    written.map(|()| match toward {
        Toward::Source => packet.source(),
        Toward::Destination => packet.destination(),
    })
}

/// Types below 128 are errors, 137 is the redirect: RFC 4443 §2.1 and §2.4 (e).
const fn answerable_icmpv6(kind: u8) -> bool {
    const REDIRECT: u8 = 137;
    kind >= 128 && kind != REDIRECT
}

pub(crate) fn is_host(address: IpAddr) -> bool {
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast() || v4.octets()[0] >= 240);
    !(address.is_multicast() || address.is_unspecified() || broadcast)
}

/// The sender and receiver of what is told.
fn ends(packet: &Decoded<'_>, toward: Toward) -> (IpAddr, IpAddr) {
    match toward {
        Toward::Source => (packet.destination(), packet.source()),
        Toward::Destination => (packet.source(), packet.destination()),
    }
}

fn reset(packet: &Decoded<'_>, toward: Toward, out: &mut Vec<u8>) -> Option<()> {
    let tcp = packet.tcp()?;
    let flags = u32::from(tcp.syn()) + u32::from(tcp.fin());
    let end = tcp
        .sequence_number()
        .wrapping_add(packet.payload.len() as u32)
        .wrapping_add(flags);
    let (source_port, destination_port) = (tcp.source_port(), tcp.destination_port());
    let (ports, sequence, acknowledgment) = match toward {
        // RFC 9293 §3.5.2: a segment with ACK is answered with its acknowledgment number and
        // no ACK, one without is answered with sequence zero and acknowledged.
        Toward::Source if tcp.ack() => (
            (destination_port, source_port),
            tcp.acknowledgment_number(),
            None,
        ),
        Toward::Source => ((destination_port, source_port), 0, Some(end)),
        // In place of the segment that is dropped: exactly the next sequence number that the
        // receiver expects, so that it needs no challenge (RFC 5961 §3.2).
        Toward::Destination => (
            (source_port, destination_port),
            tcp.sequence_number(),
            tcp.ack().then(|| tcp.acknowledgment_number()),
        ),
    };
    let builder = match ends(packet, toward) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            PacketBuilder::ipv4(from.octets(), to.octets(), TTL).tcp(ports.0, ports.1, sequence, 0)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            PacketBuilder::ipv6(from.octets(), to.octets(), TTL).tcp(ports.0, ports.1, sequence, 0)
        }
        _ => return None,
    }
    .rst();
    let builder = match acknowledgment {
        Some(number) => builder.ack(number),
        None => builder,
    };
    builder.write(out, &[]).ok()
}

fn icmp_error(packet: &Decoded<'_>, toward: Toward, out: &mut Vec<u8>) -> Option<()> {
    let port_unreachable = packet.protocol() == protocol::UDP;
    let whole = packet.network?.packet;
    let limit = if packet.is_ipv4() {
        MAX_ICMPV4_ERROR - ICMPV4_OVERHEAD
    } else {
        MAX_ICMPV6_ERROR - ICMPV6_OVERHEAD
    };
    let quote = &whole[..whole.len().min(limit)];
    let turned;
    let quote = match toward {
        Toward::Source => quote,
        // The receiver has not sent this packet, so quoting it would mean nothing to it. What
        // means something is its own side of the flow: the same packet turned round.
        Toward::Destination => {
            turned = turn_round(packet, quote)?;
            turned.as_slice()
        }
    };
    match ends(packet, toward) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let code = match port_unreachable {
                true => DestUnreachableHeader::Port,
                // Communication administratively prohibited, RFC 1812 §5.2.7.1.
                false => DestUnreachableHeader::FilterProhibited,
            };
            PacketBuilder::ipv4(from.octets(), to.octets(), TTL)
                .icmpv4(Icmpv4Type::DestinationUnreachable(code))
                .write(out, quote)
                .ok()
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let code = match port_unreachable {
                true => DestUnreachableCode::Port,
                false => DestUnreachableCode::Prohibited,
            };
            PacketBuilder::ipv6(from.octets(), to.octets(), TTL)
                .icmpv6(Icmpv6Type::DestinationUnreachable(code))
                .write(out, quote)
                .ok()
        }
        _ => None,
    }
}

/// IP header and first eight bytes of a packet with source and destination exchanged. All
/// checksums stay right: exchanging two words changes no sum.
fn turn_round(packet: &Decoded<'_>, quote: &[u8]) -> Option<Vec<u8>> {
    let network = packet.network?;
    let transport_at = network.packet.len() - network.payload.len();
    let mut turned = quote.get(..quote.len().min(transport_at + 8))?.to_vec();
    let (addresses_at, length) = if packet.is_ipv4() { (12, 4) } else { (8, 16) };
    let addresses = turned.get_mut(addresses_at..addresses_at + 2 * length)?;
    let (source, destination) = addresses.split_at_mut(length);
    source.swap_with_slice(destination);
    if packet.ports.is_some() {
        let ports = turned.get_mut(transport_at..transport_at + 4)?;
        let (source, destination) = ports.split_at_mut(2);
        source.swap_with_slice(destination);
    }
    Some(turned)
}

#[cfg(test)]
mod tests;
