//! SCTP (RFC 9260): the common header, and the chunks for what is wrong with them.

use super::event::{DecodeEvent as Event, EventSet};

/// Length of the common header.
pub(super) const HEADER_LEN: usize = 12;

/// Chunks of a packet that is still taken for ordinary: an Ethernet frame holds about 70.
const MAX_CHUNKS: usize = 128;
/// Of those, with user data.
const MAX_DATA_CHUNKS: usize = 64;

const DATA: u8 = 0;
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
const SHUTDOWN_COMPLETE: u8 = 14;

/// Walks over the chunks that follow the common header.
pub(super) fn check_chunks(verification_tag: u32, mut bytes: &[u8], events: &mut EventSet) {
    let (mut chunks, mut data_chunks, mut alone) = (0, 0, false);
    while !bytes.is_empty() {
        let Some(&[kind, _, high, low]) = bytes.first_chunk::<4>() else {
            events.insert(Event::SctpChunkTooSmall);
            return;
        };
        let len = usize::from(u16::from_be_bytes([high, low]));
        if len < 4 || len > bytes.len() {
            events.insert(Event::SctpChunkLength);
            return;
        }
        chunks += 1;
        match kind {
            DATA => {
                data_chunks += 1;
                if verification_tag == 0 {
                    events.insert(Event::SctpDataTag);
                }
            }
            INIT if verification_tag != 0 => events.insert(Event::SctpInitTag),
            _ => {}
        }
        // RFC 9260 §6.10: these are never bundled.
        alone |= matches!(kind, INIT | INIT_ACK | SHUTDOWN_COMPLETE);
        if alone && chunks > 1 {
            events.insert(Event::SctpInitBundled);
        }
        if chunks > MAX_CHUNKS {
            events.insert(Event::SctpTooManyChunks);
            return;
        }
        if data_chunks > MAX_DATA_CHUNKS {
            events.insert(Event::SctpTooManyDataChunks);
        }
        // Padded to four bytes, but the last may not be (RFC 9260 §3.2).
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn says(tag: u32, chunks: &[u8], expect: &[Event]) {
        let mut events = EventSet::default();
        check_chunks(tag, chunks, &mut events);
        assert_eq!(events, expect.iter().copied().collect(), "{chunks:?}");
    }

    #[test]
    fn chunks_are_judged() {
        says(1, &[], &[]);
        says(0, &[1, 0, 0, 4], &[]);
        says(9, &[1, 0, 0, 4], &[Event::SctpInitTag]);
        says(0, &[1, 0, 0, 4, 11, 0, 0, 4], &[Event::SctpInitBundled]);
        says(1, &[11, 0, 0, 4, 2, 0, 0, 4], &[Event::SctpInitBundled]);
        says(0, &[0, 0, 0, 5, 7], &[Event::SctpDataTag]);
        says(1, &[0, 0, 0, 5, 7, 0, 0, 0, 10, 0, 0, 4], &[]);
        says(1, &[0, 0, 0], &[Event::SctpChunkTooSmall]);
        says(1, &[0, 0, 0, 3], &[Event::SctpChunkLength]);
        says(1, &[0, 0, 0, 9], &[Event::SctpChunkLength]);
        says(1, &[0, 0, 0, 4].repeat(65), &[Event::SctpTooManyDataChunks]);
        says(1, &[9, 0, 0, 4].repeat(129), &[Event::SctpTooManyChunks]);
    }
}
