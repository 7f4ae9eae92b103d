//! What a packet shows of the layers below IP.

use std::fmt;

/// How a captured frame begins: the pcap link type, as far as it is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkType {
    /// BSD loopback, family in the byte order of whoever captured.
    Null,
    /// Ethernet.
    Ethernet,
    /// PPP, with or without address and control field.
    Ppp,
    /// PPP in HDLC-like framing.
    PppSerial,
    /// IPv4 or IPv6 without anything before it; also what tunnels carry.
    Raw,
    /// Cisco HDLC.
    Chdlc,
    /// OpenBSD loopback, family in network byte order.
    Loop,
    /// Linux cooked capture.
    LinuxSll,
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
    /// Linux cooked capture, version 2.
    LinuxSll2,
}

impl LinkType {
    /// The type with this number in a capture file; `None` when it is not decoded.
    ///
    /// Raw IP has three numbers: 101 in files, 12 and 14 as libpcap's own on different systems.
    pub const fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::Null,
            1 => Self::Ethernet,
            9 => Self::Ppp,
            12 | 14 | 101 => Self::Raw,
            50 => Self::PppSerial,
            104 => Self::Chdlc,
            108 => Self::Loop,
            113 => Self::LinuxSll,
            228 => Self::Ipv4,
            229 => Self::Ipv6,
            276 => Self::LinuxSll2,
            _ => return None,
        })
    }

    /// libpcap's number, for records.
    pub const fn number(self) -> u32 {
        match self {
            Self::Null => 0,
            Self::Ethernet => 1,
            Self::Ppp => 9,
            Self::Raw => 12,
            Self::PppSerial => 50,
            Self::Chdlc => 104,
            Self::Loop => 108,
            Self::LinuxSll => 113,
            Self::Ipv4 => 228,
            Self::Ipv6 => 229,
            Self::LinuxSll2 => 276,
        }
    }

    /// libpcap's name, for records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Null => "NULL",
            Self::Ethernet => "EN10MB",
            Self::Ppp => "PPP",
            Self::Raw => "RAW",
            Self::PppSerial => "PPP_SERIAL",
            Self::Chdlc => "C_HDLC",
            Self::Loop => "LOOP",
            Self::LinuxSll => "LINUX_SLL",
            Self::Ipv4 => "IPV4",
            Self::Ipv6 => "IPV6",
            Self::LinuxSll2 => "LINUX_SLL2",
        }
    }
}

impl fmt::Display for LinkType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An Ethernet address.
pub type MacAddress = [u8; 6];

/// VLAN ids, the outermost first.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct VlanIds {
    ids: [u16; Self::MAX],
    len: u8,
}

impl VlanIds {
    /// Most tags of one packet.
    pub const MAX: usize = 3;

    /// Adds an inner one; false when there is no room.
    #[must_use]
    pub fn push(&mut self, id: u16) -> bool {
        let Some(slot) = self.ids.get_mut(usize::from(self.len)) else {
            return false;
        };
        *slot = id & 0x0fff;
        self.len += 1;
        true
    }

    /// All of them.
    pub fn as_slice(&self) -> &[u16] {
        &self.ids[..usize::from(self.len)]
    }

    /// 13 bits that tell tracked VLANs apart: exact for none and for one tag.
    pub(crate) fn folded(&self) -> u16 {
        match *self.as_slice() {
            [] => 0,
            [one] => 1 << 12 | one,
            ref more => more.iter().fold(0u16, |folded, id| {
                // An odd multiplier is a permutation: ids that differ in one tag never meet.
                (folded.wrapping_mul(0x9e5) ^ id).wrapping_add(1) & 0x1fff
            }),
        }
    }
}

impl fmt::Debug for VlanIds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.as_slice()).finish()
    }
}

/// What stood before the IP header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Source and destination address of the innermost Ethernet header.
    pub macs: Option<(MacAddress, MacAddress)>,
    /// EtherType of that header (or of the cooked header), before any tags.
    pub ethertype: Option<u16>,
    /// VLAN tags.
    pub vlans: VlanIds,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_types_are_known_by_every_number() {
        for number in 0..300 {
            if let Some(link) = LinkType::from_number(number) {
                assert_eq!(LinkType::from_number(link.number()), Some(link));
            }
        }
        assert_eq!(LinkType::from_number(101), Some(LinkType::Raw));
        assert_eq!(LinkType::from_number(105), None);
    }

    #[test]
    fn vlan_ids_keep_three_and_fold_apart() {
        let of = |ids: &[u16]| {
            let mut vlans = VlanIds::default();
            assert!(ids.iter().all(|&id| vlans.push(id)));
            vlans
        };
        let mut full = of(&[0x2001, 2, 3]);
        assert!(!full.push(4));
        assert_eq!(full.as_slice(), [1, 2, 3]);
        let folded: Vec<_> = [&[][..], &[0], &[1], &[1, 2], &[2, 1], &[1, 2, 3]]
            .map(|ids| of(ids).folded())
            .to_vec();
        for (at, value) in folded.iter().enumerate() {
            assert!(!folded[..at].contains(value), "{folded:?}");
            assert!(*value < 1 << 13);
        }
    }
}
