//! Internet checksums (RFC 1071), verified when somebody asks.

use ips_common::FAMILY_IPV4;

use super::frame::ChecksumMode;
use super::network::{Fragment, Network};
use super::packet::Decoded;
use super::protocol;

/// What a checksum says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// It is right.
    Valid,
    /// It is wrong: no receiver takes such a packet.
    Invalid,
    /// There is none, or nobody can or shall tell: counts as right.
    Unchecked,
}

impl Validity {
    /// Whether the packet is as good as its checksum.
    pub const fn is_acceptable(self) -> bool {
        !matches!(self, Self::Invalid)
    }

    const fn of(right: bool) -> Self {
        if right { Self::Valid } else { Self::Invalid }
    }
}

/// Whether a capture was made where checksums are computed after it, by the card: then most are
/// wrong, and none means anything. Suricata decides after as many packets, by the same part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChecksumSample {
    packets: u32,
    wrong: u32,
}

impl ChecksumSample {
    const PACKETS: u32 = 1000;
    const WRONG: u32 = Self::PACKETS / 10;

    /// Looks at a packet: TCP's checksums are those that cards compute, and that matter.
    pub fn packet(&mut self, packet: &Decoded<'_>) {
        let wrong = packet.tcp().is_some() && !packet.transport_checksum().is_acceptable();
        self.wrong += u32::from(wrong);
    }

    /// Counts a frame; the mode from now on, when enough were seen.
    pub fn decide(&mut self) -> Option<ChecksumMode> {
        self.packets += 1;
        (self.packets >= Self::PACKETS).then_some(match self.wrong > Self::WRONG {
            true => ChecksumMode::Ignore,
            false => ChecksumMode::Verify,
        })
    }
}

/// How much is verified for a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verify {
    /// Nothing.
    Nothing,
    /// The IP header only: the rest is verified already, or not computed yet.
    Header,
    /// All.
    All,
}

/// The one's complement sum of `bytes` and `start`, folded to 16 bits.
pub(crate) fn sum(start: u64, bytes: &[u8]) -> u16 {
    let (words, rest) = bytes.as_chunks::<4>();
    let mut sum = start;
    for word in words {
        sum += u64::from(u32::from_be_bytes(*word));
    }
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    sum += u64::from(u32::from_be_bytes(last));
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    // No carry is left: checked by the loop.
    sum as u16
}

/// The checksum of the IPv4 header; IPv6 has none.
pub(super) fn header(network: &Network<'_>) -> Validity {
    if network.family != FAMILY_IPV4 {
        return Validity::Unchecked;
    }
    Validity::of(sum(0, network.header) == 0xffff)
}

/// The checksum of the transport header and what it carries.
pub(super) fn transport(network: &Network<'_>) -> Validity {
    let v4 = network.family == FAMILY_IPV4;
    let whole = network.fragment == Fragment::No && !network.cut && !network.chain_cut;
    let mut bytes = network.payload;
    // A jumbogram's or an aggregate's length is not in a field that the sum would cover.
    if !whole || network.readdressed || bytes.len() > usize::from(u16::MAX) {
        return Validity::Unchecked;
    }
    let pseudo_header = match (network.protocol, v4) {
        (protocol::TCP, _) if bytes.len() >= 20 => true,
        (protocol::UDP, _) if bytes.len() >= 8 => {
            let len = usize::from(u16::from_be_bytes([bytes[4], bytes[5]]));
            match bytes.get(..len) {
                Some(datagram) if len >= 8 => bytes = datagram,
                _ => return Validity::Unchecked,
            }
            // RFC 768: none was made. IPv6 needs one (RFC 8200 §8.1).
            if bytes[6..8] == [0, 0] {
                return if v4 {
                    Validity::Unchecked
                } else {
                    Validity::Invalid
                };
            }
            true
        }
        (protocol::ICMP, true) | (protocol::IGMP, true) if bytes.len() >= 8 => false,
        (protocol::ICMPV6, false) if bytes.len() >= 4 => true,
        _ => return Validity::Unchecked,
    };
    let start = if pseudo_header {
        pseudo_header_sum(network, bytes.len())
    } else {
        0
    };
    Validity::of(sum(start, bytes) == 0xffff)
}

/// The sum over the pseudo header (RFC 9293, RFC 768, RFC 8200 §8.1) of something of this length.
pub(crate) fn pseudo_header_sum(network: &Network<'_>, len: usize) -> u64 {
    // The 0xffff of a mapped IPv4 address is no part of it.
    let mask = match network.family {
        FAMILY_IPV4 => 0xffff_ffff,
        _ => u64::MAX,
    };
    let words = |half: u64| (half & mask & 0xffff_ffff) + ((half & mask) >> 32);
    let address = |halves: [u64; 2]| words(halves[0]) + words(halves[1]);
    address(network.source)
        + address(network.destination)
        + u64::from(network.protocol)
        + len as u64
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;

    fn packets() -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        for payload in [&b""[..], b"a", b"ab", b"abc", b"abcdefg"] {
            let v4 = || PacketBuilder::ipv4([10, 1, 2, 3], [192, 0, 2, 77], 61);
            let v6 = || PacketBuilder::ipv6([0xfd; 16], [0x20; 16], 61);
            for packet in 0..6 {
                let mut bytes = Vec::new();
                match packet {
                    0 => v4().tcp(1, 2, 3, 4).write(&mut bytes, payload),
                    1 => v6().tcp(1, 2, 3, 4).write(&mut bytes, payload),
                    2 => v4().udp(1, 2).write(&mut bytes, payload),
                    3 => v6().udp(1, 2).write(&mut bytes, payload),
                    4 => v4().icmpv4_echo_request(1, 2).write(&mut bytes, payload),
                    _ => v6().icmpv6_echo_request(1, 2).write(&mut bytes, payload),
                }
                .unwrap();
                packets.push(bytes);
            }
        }
        packets
    }

    #[test]
    fn right_checksums_are_valid_and_any_changed_byte_is_noticed() {
        for packet in packets() {
            let network = Network::parse(&packet).unwrap();
            assert_ne!(header(&network), Validity::Invalid);
            assert_eq!(transport(&network), Validity::Valid, "{packet:02x?}");
            let transport_at = packet.len() - network.payload.len();
            for at in transport_at..packet.len() {
                let mut changed = packet.clone();
                changed[at] ^= 0x10;
                let network = Network::parse(&changed).unwrap();
                // A changed UDP length is another matter.
                if network.protocol != 17 || !(4..6).contains(&(at - transport_at)) {
                    assert_eq!(transport(&network), Validity::Invalid, "{at} {packet:02x?}");
                }
            }
        }
    }

    #[test]
    fn a_tenth_of_wrong_checksums_in_a_thousand_packets_is_too_much() {
        let right = packets().swap_remove(0);
        let mut wrong = right.clone();
        wrong[37] ^= 1;
        for (every, expect) in [(9, ChecksumMode::Ignore), (11, ChecksumMode::Verify)] {
            let mut sample = ChecksumSample::default();
            for number in 1..1000 {
                let bytes = if number % every == 0 { &wrong } else { &right };
                sample.packet(&Decoded::parse(bytes).unwrap());
                assert_eq!(sample.decide(), None);
            }
            assert_eq!(sample.decide(), Some(expect));
        }
    }

    #[test]
    fn what_nobody_can_tell_is_unchecked() {
        let mut udp = packets().swap_remove(2);
        udp[26..28].fill(0);
        assert_eq!(
            transport(&Network::parse(&udp).unwrap()),
            Validity::Unchecked
        );
        let mut udp6 = packets().swap_remove(3);
        udp6[46..48].fill(0);
        assert_eq!(
            transport(&Network::parse(&udp6).unwrap()),
            Validity::Invalid
        );
        let mut fragment = packets().swap_remove(0);
        fragment[6] = 0x20;
        let network = Network::parse(&fragment).unwrap();
        assert_eq!(transport(&network), Validity::Unchecked);
        assert_eq!(header(&network), Validity::Invalid);
        let whole = packets().pop().unwrap();
        let cut = Network::parse(&whole[..whole.len() - 1]).unwrap();
        assert_eq!(transport(&cut), Validity::Unchecked);
    }
}
