//! A TCP segment as the stream engine reads it: a view of the header and its options.

use std::net::IpAddr;

use crate::decode::Decoded;

/// Bits of the flags byte (RFC 9293, section 3.1).
pub(super) mod flag {
    pub(in super::super) const FIN: u8 = 0x01;
    pub(in super::super) const SYN: u8 = 0x02;
    pub(in super::super) const RST: u8 = 0x04;
    pub(in super::super) const ACK: u8 = 0x10;
    pub(in super::super) const URG: u8 = 0x20;
}

/// Kinds of options (IANA, "TCP Option Kind Numbers").
mod option {
    pub(super) const END: u8 = 0;
    pub(super) const NOP: u8 = 1;
    pub(super) const WINDOW_SCALE: u8 = 3;
    pub(super) const SACK_PERMITTED: u8 = 4;
    pub(super) const SACK: u8 = 5;
    pub(super) const TIMESTAMP: u8 = 8;
    pub(super) const MD5: u8 = 19;
    pub(super) const AUTHENTICATION: u8 = 29;
    pub(super) const FAST_OPEN: u8 = 34;
    /// Experiments (RFC 6994); fast open used this one before it had a number.
    pub(super) const EXPERIMENT: u8 = 254;
    pub(super) const FAST_OPEN_MAGIC: [u8; 2] = [0xf9, 0x89];
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
    /// The segment in a packet, when it is one. `bad_checksum`: its checksum was verified and
    /// is wrong.
    pub fn of(packet: &Decoded<'a>, bad_checksum: bool) -> Option<Self> {
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
            bad_checksum,
        })
    }

    /// For tests: a segment out of its parts.
    #[cfg(test)]
    pub(super) fn new(seq: u32, ack: u32, flags: u8, payload: &'a [u8], options: &'a [u8]) -> Self {
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

    /// Its options; whatever follows a malformed one is not read, as in receivers.
    pub(super) fn options(&self) -> SegmentOptions {
        let mut found = SegmentOptions::default();
        let mut rest = self.options;
        while let [kind, after @ ..] = rest {
            match *kind {
                option::END => break,
                option::NOP => {
                    rest = after;
                    continue;
                }
                _ => {}
            }
            let Some(&len) = after.first() else { break };
            let Some((this, next)) = rest.split_at_checked(usize::from(len).max(2)) else {
                break;
            };
            if len < 2 {
                break;
            }
            found.read(*kind, &this[2..]);
            rest = next;
        }
        found
    }
}

impl SegmentOptions {
    fn read(&mut self, kind: u8, value: &[u8]) {
        match (kind, value) {
            // RFC 7323, section 2.3: more than 14 counts as 14.
            (option::WINDOW_SCALE, &[shift]) => self.window_scale = Some(shift.min(14)),
            (option::SACK_PERMITTED, []) => self.sack_permitted = true,
            (option::TIMESTAMP, &[a, b, c, d, e, f, g, h]) => {
                let value = u32::from_be_bytes([a, b, c, d]);
                self.timestamp = Some((value, u32::from_be_bytes([e, f, g, h])));
            }
            (option::SACK, blocks) if blocks.len() % 8 == 0 => {
                let pairs = blocks.chunks_exact(8).map(|block| {
                    let word = |at: usize| {
                        u32::from_be_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
                    };
                    (word(0), word(4))
                });
                for (slot, pair) in self.sack.iter_mut().zip(pairs) {
                    *slot = Some(pair);
                }
            }
            (option::FAST_OPEN, _) => self.fast_open = true,
            (option::EXPERIMENT, [a, b, ..]) if [*a, *b] == option::FAST_OPEN_MAGIC => {
                self.fast_open = true;
            }
            (option::MD5 | option::AUTHENTICATION, _) => self.signed = true,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(options: &[u8]) -> SegmentOptions {
        Segment::new(0, 0, 0, b"", options).options()
    }

    #[test]
    fn options_are_read_up_to_the_first_malformed_one() {
        let found = read(&[
            1, 1, 8, 10, 0, 0, 0, 7, 0, 0, 0, 9, 4, 2, 3, 3, 99, 5, 10, 0, 0, 0, 1, 0, 0, 0, 2, 34,
            2,
        ]);
        assert_eq!(found.timestamp, Some((7, 9)));
        assert_eq!(found.window_scale, Some(14));
        assert_eq!(found.sack[0], Some((1, 2)));
        assert!(found.sack_permitted && found.fast_open && !found.signed);
        assert!(read(&[254, 4, 0xf9, 0x89]).fast_open && !read(&[254, 4, 1, 2]).fast_open);
        assert!(read(&[19, 18, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).signed);
        for cut in [
            &[4u8, 0, 4, 2][..],
            &[4, 1, 4, 2],
            &[8, 10, 1, 2, 4, 2],
            &[0, 4, 2],
        ] {
            assert!(!read(cut).sack_permitted, "{cut:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(options in proptest::collection::vec(any::<u8>(), 0..44)) {
            read(&options);
        }
    }
}
