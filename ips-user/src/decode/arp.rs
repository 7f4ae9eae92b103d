//! ARP (RFC 826), for what is wrong with it.

use super::event::{DecodeEvent as Event, EventSet};

/// Hardware and protocol addresses of Ethernet and IPv4.
const LEN: usize = 28;

/// Checks a message; what follows it is padding.
pub(super) fn check(bytes: &[u8], events: &mut EventSet) {
    let Some(&[h0, h1, p0, p1, hardware_len, protocol_len, o0, o1]) = bytes.first_chunk::<8>()
    else {
        events.insert(Event::ArpTooSmall);
        return;
    };
    let event = if bytes.len() < LEN {
        Event::ArpTooSmall
    } else if [h0, h1] != [0, 1] {
        Event::ArpUnsupportedHardware
    } else if [p0, p1] != [8, 0] {
        Event::ArpUnsupportedProtocol
    } else if hardware_len != 6 {
        Event::ArpInvalidHardwareSize
    } else if protocol_len != 4 {
        Event::ArpInvalidProtocolSize
    // Request and reply, RARP (RFC 903), InARP (RFC 2390).
    } else if !matches!([o0, o1], [0, 1..=4 | 8 | 9]) {
        Event::ArpUnsupportedOpcode
    } else {
        return;
    };
    events.insert(event);
}
