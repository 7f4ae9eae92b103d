//! A packet changed to what was inspected before.

use std::net::IpAddr;

/// How a packet is changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replacement {
    /// Bytes, and where in the payload they go.
    pub bytes: Vec<(usize, Vec<u8>)>,
    /// The urgent flag and pointer are cleared.
    pub clear_urgent: bool,
}

impl Replacement {
    /// Changes the TCP segment `tcp`, from its header to its end, in place; its checksum stays
    /// as right, or as wrong, as it was. False when it is no such segment: then nothing is
    /// changed.
    pub fn apply(&self, tcp: &mut [u8]) -> bool {
        let Some(&offset) = tcp.get(12) else {
            return false;
        };
        let header = usize::from(offset >> 4) * 4;
        let fits = |(at, bytes): &(usize, Vec<u8>)| header + at + bytes.len() <= tcp.len();
        if header < 20 || tcp.len() < header || !self.bytes.iter().all(fits) {
            return false;
        }
        let mut sum = Sum::default();
        for (at, bytes) in &self.bytes {
            for (at, &byte) in (header + at..).zip(bytes) {
                sum.change(at, tcp[at], byte);
                tcp[at] = byte;
            }
        }
        if self.clear_urgent {
            for (at, byte) in [(13, tcp[13] & !super::segment::flag::URG), (18, 0), (19, 0)] {
                sum.change(at, tcp[at], byte);
                tcp[at] = byte;
            }
        }
        let old = u16::from_be_bytes([tcp[16], tcp[17]]);
        let new = sum.applied_to(old).to_be_bytes();
        tcp[16..18].copy_from_slice(&new);
        true
    }
}

/// Writes the checksum of a TCP segment anew: for one whose checksum was left to the network
/// card. False when it is no such segment.
pub fn write_checksum(source: IpAddr, destination: IpAddr, tcp: &mut [u8]) -> bool {
    let Some(checksum) = tcp.get_mut(16..18) else {
        return false;
    };
    checksum.fill(0);
    let mut sum = Sum(tcp.len() as u64 + u64::from(crate::decode::protocol::TCP));
    for address in [source, destination] {
        match address {
            IpAddr::V4(address) => sum.add(&address.octets()),
            IpAddr::V6(address) => sum.add(&address.octets()),
        }
    }
    sum.add(tcp);
    // Of a sum that is zero so far.
    let checksum = sum.applied_to(0xffff);
    tcp[16..18].copy_from_slice(&checksum.to_be_bytes());
    true
}

/// Changes of an internet checksum (RFC 1624).
#[derive(Default)]
struct Sum(u64);

impl Sum {
    fn add(&mut self, bytes: &[u8]) {
        for (at, &byte) in bytes.iter().enumerate() {
            self.0 += u64::from(byte) << if at.is_multiple_of(2) { 8 } else { 0 };
        }
    }

    fn change(&mut self, at: usize, old: u8, new: u8) {
        let shift = if at.is_multiple_of(2) { 8 } else { 0 };
        self.0 += u64::from(!(u16::from(old) << shift)) + (u64::from(new) << shift);
    }

    fn applied_to(&self, checksum: u16) -> u16 {
        let mut sum = self.0 + u64::from(!checksum);
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    use super::*;

    fn packet(payload: &[u8], urgent: bool) -> Vec<u8> {
        let mut builder = PacketBuilder::ipv4([192, 0, 2, 1], [192, 0, 2, 2], 64)
            .tcp(1000, 80, 1, 512)
            .ack(1);
        if urgent {
            builder = builder.urg(3);
        }
        let mut bytes = Vec::new();
        builder.write(&mut bytes, payload).unwrap();
        bytes
    }

    proptest! {
        #[test]
        fn the_checksum_is_that_of_the_changed_packet(
            payload in proptest::collection::vec(any::<u8>(), 1..80),
            other in proptest::collection::vec(any::<u8>(), 1..80),
            at in 0usize..80,
            clear_urgent in any::<bool>(),
        ) {
            let at = at % payload.len();
            let other = &other[..other.len().min(payload.len() - at)];
            let mut changed = packet(&payload, true);
            let replacement = Replacement { bytes: vec![(at, other.to_vec())], clear_urgent };
            prop_assert!(replacement.apply(&mut changed[20..]));
            let mut expect = payload.clone();
            expect[at..at + other.len()].copy_from_slice(other);
            prop_assert_eq!(&changed, &packet(&expect, !clear_urgent));
            let checksum = changed[36..38].to_vec();
            let (source, destination) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
            prop_assert!(write_checksum(source, destination, &mut changed[20..]));
            prop_assert_eq!(&changed[36..38], &checksum[..]);
        }
    }

    #[test]
    fn what_is_no_such_segment_is_left_alone() {
        let replacement = Replacement {
            bytes: vec![(4, b"x".to_vec())],
            clear_urgent: false,
        };
        for len in 0..packet(b"abc", false).len() - 20 {
            let mut bytes = packet(b"abc", false)[20..20 + len].to_vec();
            let before = bytes.clone();
            assert!(!replacement.apply(&mut bytes));
            assert_eq!(bytes, before);
        }
    }
}
