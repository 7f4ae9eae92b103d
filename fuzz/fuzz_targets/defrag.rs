//! Fragments with their times. Whatever a receiver makes of those that were let through, it has
//! been inspected and accepted in just that form.
#![no_main]

use std::collections::{BTreeMap, BTreeSet};

use libfuzzer_sys::fuzz_target;
use sluice::decode::{DecodeOptions, LinkType, PacketSource, Start, frame};
use sluice::reassembly::defrag::{DefragOptions, Defragmenter};
use sluice::source::Disposition;
use sluice_fuzz::Input;
use sluice_fuzz::engine::at;
use sluice_fuzz::receiver::{FragmentReceiver, Overlap};
use sluice_fuzz::seeds::checksum;

struct Step<'a> {
    v6: bool,
    id: u8,
    ttl: u8,
    offset: u32,
    more: bool,
    data: &'a [u8],
}

impl Step<'_> {
    fn packet(&self) -> Vec<u8> {
        let len = self.data.len() as u16;
        let mut bytes = Vec::new();
        if self.v6 {
            bytes.extend([0x60, 0, 0, 0]);
            bytes.extend((len + 8).to_be_bytes());
            bytes.extend([44, self.ttl]);
            bytes.extend([[0x20; 16], [0x21; 16]].concat());
            bytes.extend([17, 0]);
            bytes.extend((self.offset as u16 | u16::from(self.more)).to_be_bytes());
            bytes.extend([0, 0, 0, self.id]);
        } else {
            bytes.extend([0x45, 0]);
            bytes.extend((len + 20).to_be_bytes());
            bytes.extend([0, self.id]);
            let field = (self.offset / 8) as u16 | u16::from(self.more) << 13;
            bytes.extend(field.to_be_bytes());
            bytes.extend([self.ttl, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
            let sum = checksum(&bytes);
            bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        bytes.extend(self.data);
        bytes
    }
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let flags = input.u8();
    let inline = flags & 1 == 0;
    let small = flags & 2 != 0;
    let mut options = DefragOptions {
        inline,
        ordered: flags & 4 != 0,
        // Memory for them is taken at once.
        max_trackers: 16,
        ..DefragOptions::default()
    };
    if small {
        options.memcap = 3000;
        options.max_fragments = 8;
        options.max_trackers = 2;
    }
    let mut defragmenter = Defragmenter::new(options, [1, 2]);
    let decode = DecodeOptions::default();
    let mut receivers: BTreeMap<(bool, u8), [FragmentReceiver; 3]> = BTreeMap::new();
    let mut inspected: BTreeSet<(bool, u8, Vec<u8>)> = BTreeSet::new();
    let mut now = 0u64;
    for _ in 0..100 {
        if input.is_empty() {
            break;
        }
        let head = input.u8();
        let (v6, id, more) = (head & 1 != 0, head >> 1 & 1, head & 4 != 0);
        let (odd_ttl, drop, waits) = (head & 8 != 0, head & 16 != 0, head & 32 != 0);
        if waits {
            now += u64::from(input.u8()) * 400_000_000;
            if input.u8() & 7 == 0 {
                defragmenter.expire(at(now), 10);
            }
        }
        // Now and then at the very end of what is possible.
        let offset = match head & 64 {
            0 => u32::from(input.u8() & 31) * 8,
            _ => 65_528 - u32::from(input.u8() & 31) * 8,
        };
        let len = usize::from(input.u8() & 63);
        // Few different bytes: what overlaps agrees now and then.
        let (seed, step) = (input.u8() & 1, input.u8() & 1);
        let data: Vec<u8> = (offset..)
            .map(|place| (place / 4) as u8 ^ seed.wrapping_mul(place as u8 & step))
            .take(len)
            .collect();
        let fragment = Step {
            v6,
            id,
            ttl: if odd_ttl { 3 } else { 64 },
            offset,
            more,
            data: &data,
        };
        // Others are complete as they are (for IPv6 RFC 6946).
        let is_fragment = more || offset != 0;
        let packet = fragment.packet();
        let mut excused = false;
        let disposition = frame(
            &packet,
            Start::Link(LinkType::Raw),
            &decode,
            &mut defragmenter,
            at(now),
            &mut |shown| {
                use sluice::decode::FragmentFate::{NoRoom, Refused};
                if let Refused(_) | NoRoom = shown.fragment_fate {
                    excused = shown.fragment_fate == NoRoom;
                }
                if drop {
                    return Disposition::Drop;
                }
                if let Some(network) = shown.network
                    && shown.source == PacketSource::Defrag
                {
                    inspected.insert((v6, id, network.payload.to_vec()));
                }
                Disposition::Accept
            },
        );
        if excused {
            // By the exception policy of its cause, which is not asked here.
            return;
        }
        if disposition == Disposition::Drop || !inline || !is_fragment {
            continue;
        }
        let policies = [Overlap::First, Overlap::Last, Overlap::GivesUp];
        let receivers = receivers
            .entry((v6, id))
            .or_insert_with(|| policies.map(FragmentReceiver::new));
        for receiver in receivers {
            if let Some(datagram) = receiver.take(offset, more, &data, now) {
                let seen = inspected.contains(&(v6, id, datagram.clone()));
                assert!(
                    seen,
                    "{receiver:?} has {datagram:02x?}, which nobody inspected"
                );
            }
        }
    }
});
