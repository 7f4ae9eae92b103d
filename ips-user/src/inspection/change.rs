//! Packets that go on with other bytes than they came with.
//!
//! Only what lies in the received packet as it is can be changed: not what was put together from
//! fragments, nor what a tunnel carries, whose own checksums may cover it, nor a packet of which
//! the kernel has shown a part.

use super::case::Case;
use crate::decode::checksum::{pseudo_header_sum, sum};
use crate::decode::{Decoded, PacketSource, Transport};
use crate::reassembly::tcp::{Replacement, write_checksum};

/// Length of a UDP header.
const UDP_HEADER: usize = 8;

/// The packet's bytes, to be changed, and where its transport header begins.
fn copy(case: &Case<'_>) -> Option<(Vec<u8>, usize, usize)> {
    let packet = case.packet;
    let network = packet.network.as_ref()?;
    let changeable = packet.source == PacketSource::Wire && !case.cut && !network.cut;
    if !changeable || case.pseudo {
        return None;
    }
    let at = (network.payload.as_ptr().addr()).checked_sub(packet.frame.as_ptr().addr())?;
    let end = at + network.payload.len();
    (end <= packet.frame.len()).then(|| (packet.frame.to_vec(), at, end))
}

/// The packet with this segment's change; `None` when it cannot be changed.
pub(super) fn segment(case: &Case<'_>, change: &Replacement) -> Option<Vec<u8>> {
    let (mut bytes, at, end) = copy(case)?;
    let tcp = &mut bytes[at..end];
    if !change.apply(tcp) {
        return None;
    }
    if case.partial_checksum {
        write_checksum(case.packet.source(), case.packet.destination(), tcp);
    }
    Some(bytes)
}

/// The packet with other bytes at these places of its payload; `None` when it cannot be changed.
pub(super) fn payload<'r>(
    case: &Case<'_>,
    places: impl Iterator<Item = (usize, &'r [u8])>,
) -> Option<Vec<u8>> {
    match &case.packet.transport {
        Transport::Tcp(_) => {
            let change = Replacement {
                bytes: places.map(|(at, bytes)| (at, bytes.to_vec())).collect(),
                clear_urgent: false,
            };
            segment(case, &change)
        }
        Transport::Udp { .. } => {
            let (mut bytes, at, end) = copy(case)?;
            let udp = &mut bytes[at..end];
            for (at, new) in places {
                let at = at + UDP_HEADER;
                udp.get_mut(at..at + new.len())?.copy_from_slice(new);
            }
            write_udp_checksum(case.packet, udp);
            Some(bytes)
        }
        _ => None,
    }
}

/// A datagram without a checksum stays without one (RFC 768).
fn write_udp_checksum(packet: &Decoded<'_>, udp: &mut [u8]) {
    let (Some(network), Some(&[_, _, _, _, a, b, c, d])) =
        (&packet.network, udp.first_chunk::<UDP_HEADER>())
    else {
        return;
    };
    if (c, d) == (0, 0) && packet.is_ipv4() {
        return;
    }
    let len = usize::from(u16::from_be_bytes([a, b]));
    udp[6..8].fill(0);
    let Some(datagram) = udp.get(..len) else {
        return;
    };
    let checksum = match !sum(pseudo_header_sum(network, len), datagram) {
        // Zero says that there is none.
        0 => u16::MAX,
        checksum => checksum,
    };
    udp[6..8].copy_from_slice(&checksum.to_be_bytes());
}
