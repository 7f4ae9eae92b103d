//! A TCP segment as the stream engine reads it: a view of the header and its options.

use std::net::IpAddr;

use crate::decode::{Decoded, TcpOptions};

/// Bits of the flags byte (RFC 9293, section 3.1).
pub(super) mod flag {
    pub(in super::super) const FIN: u8 = 0x01;
    pub(in super::super) const SYN: u8 = 0x02;
    pub(in super::super) const RST: u8 = 0x04;
    pub(in super::super) const ACK: u8 = 0x10;
    pub(in super::super) const URG: u8 = 0x20;
}

/// Blocks of one SACK option; more do not fit.
pub(super) type SackBlocks = [Option<(u32, u32)>; 4];

/// One segment.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    /// Its sequence number.
    pub seq: u32,
    /// Its acknowledgement number, whether or not the flag is set.
    pub ack: u32,
    /// The flags byte.
    pub flags: u8,
    /// The window field, not scaled.
    pub window: u16,
    /// The urgent pointer.
    pub urgent: u16,
    /// What it carries.
    pub payload: &'a [u8],
    /// The options.
    options: &'a [u8],
    /// Who shall receive it: resolves overlaps in its way.
    pub receiver: IpAddr,
    /// Its checksum is wrong: the receiver will not take it.
    pub bad_checksum: bool,
}

/// The options of one segment that matter here.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SegmentOptions {
    pub(super) window_scale: Option<u8>,
    pub(super) sack_permitted: bool,
    pub(super) timestamp: Option<(u32, u32)>,
    pub(super) sack: SackBlocks,
    pub(super) fast_open: bool,
    /// RFC 2385 or RFC 5925: a receiver without the key takes no such segment.
    pub(super) signed: bool,
}

impl<'a> Segment<'a> {
    /// The segment in a packet, when it is one.
    pub fn of(packet: &Decoded<'a>) -> Option<Self> {
        let header = packet.tcp()?;
        let bytes = header.slice();
        let flags = *bytes.get(13)?;
        Some(Self {
            seq: header.sequence_number(),
            ack: header.acknowledgment_number(),
            flags,
            window: header.window_size(),
            urgent: header.urgent_pointer(),
            payload: packet.payload,
            options: bytes.get(20..)?,
            receiver: packet.destination(),
            bad_checksum: !packet.transport_checksum().is_acceptable(),
        })
    }

    /// For tests: a segment out of its parts.
    #[cfg(any(test, feature = "fuzzing"))]
    pub fn new(seq: u32, ack: u32, flags: u8, payload: &'a [u8], options: &'a [u8]) -> Self {
        Self {
            seq,
            ack,
            flags,
            window: u16::MAX,
            urgent: 0,
            payload,
            options,
            receiver: [192, 0, 2, 1].into(),
            bad_checksum: false,
        }
    }

    pub(super) const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Its options.
    pub(super) fn options(&self) -> SegmentOptions {
        let options = TcpOptions::parse(self.options);
        let mut sack = SackBlocks::default();
        for (slot, block) in sack.iter_mut().zip(options.sack_blocks()) {
            *slot = Some(block);
        }
        SegmentOptions {
            // RFC 7323, section 2.3: more than 14 counts as 14.
            window_scale: options.window_scale.map(|scale| scale.min(14)),
            sack_permitted: options.sack_permitted,
            timestamp: options.timestamps,
            sack,
            fast_open: options.fast_open.is_some(),
            signed: options.authenticated,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_those_that_matter_here() {
        let options = [
            1, 1, 8, 10, 0, 0, 0, 7, 0, 0, 0, 9, 4, 2, 3, 3, 99, 5, 10, 0, 0, 0, 1, 0, 0, 0, 2, 34,
            2,
        ];
        let found = Segment::new(0, 0, 0, b"", &options).options();
        assert_eq!(found.timestamp, Some((7, 9)));
        assert_eq!(found.window_scale, Some(14));
        assert_eq!(found.sack, [Some((1, 2)), None, None, None]);
        assert!(found.sack_permitted && found.fast_open && !found.signed);
    }
}
