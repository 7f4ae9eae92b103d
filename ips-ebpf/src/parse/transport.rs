//! Ports and what stands in for them (points 5 to 7 of the definition).

use super::network::Network;
use super::wire::IcmpHeader;
use super::{Cursor, Packet};

/// What a transport header says about the flow.
pub(super) enum Ports {
    /// Source and destination.
    Pair(u16, u16),
    /// The protocol or message has none, or this is a later fragment.
    None,
    /// They are not all there.
    Truncated,
    /// An ICMP error: the flow is that of the packet quoted at this offset.
    Quote(usize),
}

#[inline(always)]
pub(super) fn ports<P: Packet>(cursor: &Cursor<'_, P>, network: &Network) -> Ports {
    if network.chain_cut {
        return Ports::Truncated;
    }
    if network.position.is_later() {
        return Ports::None;
    }
    match network.protocol {
        // TCP, UDP, DCCP, SCTP, UDP-Lite
        6 | 17 | 33 | 132 | 136 => match cursor.read::<[u16; 2]>(network.transport) {
            Some([source, destination]) => {
                Ports::Pair(u16::from_be(source), u16::from_be(destination))
            }
            None => Ports::Truncated,
        },
        protocol @ (1 | 58) => match cursor.read::<IcmpHeader>(network.transport) {
            Some(header) => icmp(protocol, &header, network.transport),
            None => Ports::Truncated,
        },
        _ => Ports::None,
    }
}

#[inline(always)]
fn icmp(protocol: u8, header: &IcmpHeader, offset: usize) -> Ports {
    match (protocol, header.kind) {
        (1, 0 | 8 | 13..=16) | (58, 128 | 129) => {
            let identifier = u16::from_be(header.identifier);
            Ports::Pair(identifier, identifier)
        }
        (1, 3 | 4 | 5 | 11 | 12) | (58, 1..=4) => Ports::Quote(offset + size_of::<IcmpHeader>()),
        _ => Ports::None,
    }
}
