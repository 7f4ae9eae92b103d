//! From a frame of a capture to the IP packet in it.

/// `LINKTYPE_…` of <https://www.tcpdump.org/linktypes.html>.
mod link_type {
    pub(super) const NULL: u16 = 0;
    pub(super) const ETHERNET: u16 = 1;
    pub(super) const PPP: u16 = 9;
    /// What OpenBSD and others call `DLT_RAW`.
    pub(super) const RAW_BSD: [u16; 2] = [12, 14];
    pub(super) const RAW: u16 = 101;
    pub(super) const C_HDLC: u16 = 104;
    pub(super) const LOOP: u16 = 108;
    pub(super) const LINUX_SLL: u16 = 113;
    pub(super) const IPV4: u16 = 228;
    pub(super) const IPV6: u16 = 229;
    pub(super) const LINUX_SLL2: u16 = 276;
}

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPES_VLAN: [u16; 3] = [0x8100, 0x88a8, 0x9100];

/// Whether frames of this kind are understood.
pub(super) fn is_known(kind: u16) -> bool {
    use link_type::{C_HDLC, ETHERNET, IPV4, IPV6, LINUX_SLL, LINUX_SLL2, LOOP, NULL, PPP, RAW};
    [
        NULL, ETHERNET, PPP, RAW, C_HDLC, LOOP, LINUX_SLL, IPV4, IPV6, LINUX_SLL2,
    ]
    .contains(&kind)
        || link_type::RAW_BSD.contains(&kind)
}

/// The IP packet in a frame, if it carries one, without what pads the frame.
pub(super) fn ip_packet(kind: u16, frame: &[u8]) -> Option<&[u8]> {
    let (ethertype, rest) = match kind {
        link_type::ETHERNET => (number(frame, 12)?, frame.get(14..)?),
        link_type::LINUX_SLL => (number(frame, 14)?, frame.get(16..)?),
        link_type::LINUX_SLL2 => (number(frame, 0)?, frame.get(20..)?),
        link_type::C_HDLC => (number(frame, 2)?, frame.get(4..)?),
        link_type::PPP => ppp(frame)?,
        // The family, a number that differs from system to system for IPv6.
        link_type::NULL | link_type::LOOP => return by_version(frame.get(4..)?),
        _ => return by_version(frame),
    };
    tagged(ethertype, rest)
}

fn tagged(mut ethertype: u16, mut rest: &[u8]) -> Option<&[u8]> {
    while ETHERTYPES_VLAN.contains(&ethertype) {
        ethertype = number(rest, 2)?;
        rest = rest.get(4..)?;
    }
    match ethertype {
        ETHERTYPE_IPV4 | ETHERTYPE_IPV6 => by_version(rest),
        _ => None,
    }
}

/// RFC 1661 §2 with or without the address and control fields of RFC 1662 §3.1.
fn ppp(frame: &[u8]) -> Option<(u16, &[u8])> {
    let frame = frame.strip_prefix(&[0xff, 0x03]).unwrap_or(frame);
    let ethertype = match number(frame, 0)? {
        0x0021 => ETHERTYPE_IPV4,
        0x0057 => ETHERTYPE_IPV6,
        _ => return None,
    };
    Some((ethertype, frame.get(2..)?))
}

fn by_version(bytes: &[u8]) -> Option<&[u8]> {
    let len = match bytes.first()? >> 4 {
        4 => usize::from(number(bytes, 2)?),
        6 => usize::from(number(bytes, 4)?) + 40,
        _ => return None,
    };
    // Zero under segmentation offload and in jumbograms.
    Some(
        bytes
            .get(..len)
            .filter(|packet| packet.len() >= 20)
            .unwrap_or(bytes),
    )
}

fn number(bytes: &[u8], at: usize) -> Option<u16> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|chunk| u16::from_be_bytes(*chunk))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packet_is_found_behind_every_kind_of_header() {
        let ip: Vec<u8> = [0x45, 0, 0, 20].into_iter().chain([7; 16]).collect();
        let check = |kind: u16, header: &[u8], found: bool| {
            let frame = [header, &ip, &[0; 6]].concat();
            assert!(is_known(kind));
            assert_eq!(ip_packet(kind, &frame), found.then_some(&ip[..]), "{kind}");
            for end in 0..header.len() {
                assert_eq!(ip_packet(kind, &frame[..end]), None, "{kind} {end}");
            }
        };
        let ethernet = [&[1; 12][..], &[8, 0]].concat();
        let tagged = [&[1; 12][..], &[0x88, 0xa8, 0, 5, 0x81, 0, 0, 7, 8, 0]].concat();
        check(1, &ethernet, true);
        check(1, &tagged, true);
        check(1, &[&[1; 12][..], &[8, 6]].concat(), false);
        check(0, &[2, 0, 0, 0], true);
        check(108, &[0, 0, 0, 2], true);
        for raw in [12, 14, 101, 228, 229] {
            check(raw, &[], true);
        }
        check(9, &[0xff, 3, 0, 0x21], true);
        check(9, &[0, 0x21], true);
        check(9, &[0xc0, 0x21], false);
        check(104, &[0x0f, 0, 8, 0], true);
        check(113, &[&[0; 14][..], &[8, 0]].concat(), true);
        check(276, &[&[8, 0][..], &[0; 18]].concat(), true);
        assert!(!is_known(105));
    }
}
