//! IGMP (RFC 2236, RFC 3376), for what is wrong with it.

use super::event::{DecodeEvent as Event, EventSet};

const MEMBERSHIP_QUERY: u8 = 0x11;
const V3_REPORT: u8 = 0x22;

/// Checks a message.
pub(super) fn check(bytes: &[u8], events: &mut EventSet) {
    let Some((header, rest)) = bytes.split_first_chunk::<8>() else {
        events.insert(Event::IgmpTooSmall);
        return;
    };
    match header[0] {
        // Longer than version 2: version 3, with a number of sources.
        MEMBERSHIP_QUERY if !rest.is_empty() => {
            let Some((fixed, sources)) = rest.split_first_chunk::<4>() else {
                events.insert(Event::Igmp3TooSmall);
                return;
            };
            let count = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
            if sources.len() < count * 4 {
                events.insert(Event::IgmpMalformed);
            }
        }
        V3_REPORT => {
            let mut records = rest;
            for _ in 0..u16::from_be_bytes([header[6], header[7]]) {
                let Some((record, rest)) = records.split_first_chunk::<8>() else {
                    events.insert(Event::IgmpMalformed);
                    return;
                };
                let sources = usize::from(u16::from_be_bytes([record[2], record[3]]));
                let Some(rest) = rest.get((sources + usize::from(record[1])) * 4..) else {
                    events.insert(Event::IgmpMalformed);
                    return;
                };
                records = rest;
            }
        }
        _ => {}
    }
}
