//! Ethernet and VLAN tags (point 1 of the definition).

use ips_common::{FAMILY_IPV4, FAMILY_IPV6};

use super::Packet;
use super::wire::VlanTag;

const ETHERTYPE_OFFSET: usize = 12;
const ETHERNET_LEN: usize = 14;
/// IEEE 802.1Q: a service tag and a customer tag. A tag that the driver or the kernel has taken
/// off already (at TC ingress the outer one) does not count.
const MAX_VLAN_TAGS: usize = 2;

/// Address family and offset of the IP header, `None` when there is none.
#[inline(always)]
pub(super) fn payload<P: Packet>(packet: &P) -> Option<(u8, usize)> {
    let mut ethertype = u16::from_be(packet.load(ETHERTYPE_OFFSET)?);
    let mut offset = ETHERNET_LEN;
    for _ in 0..MAX_VLAN_TAGS {
        if !matches!(ethertype, 0x8100 | 0x88a8 | 0x9100) {
            break;
        }
        let tag: VlanTag = packet.load(offset)?;
        ethertype = u16::from_be(tag.ethertype);
        offset += size_of::<VlanTag>();
    }
    match ethertype {
        0x0800 => Some((FAMILY_IPV4, offset)),
        0x86dd => Some((FAMILY_IPV6, offset)),
        _ => None,
    }
}
