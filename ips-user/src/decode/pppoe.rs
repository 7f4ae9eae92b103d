//! PPP (RFC 1661) and PPP over Ethernet (RFC 2516).

use super::event::{DecodeEvent as Event, EventSet};

/// PPP protocol numbers (IANA, "PPP DLL protocol numbers").
pub(super) const PPP_IPV4: u16 = 0x0021;
pub(super) const PPP_VJ_UNCOMPRESSED: u16 = 0x002f;
pub(super) const PPP_IPV6: u16 = 0x0057;
pub(super) const PPP_MPLS: u16 = 0x0281;
pub(super) const PPP_MPLS_MULTICAST: u16 = 0x0283;

const HEADER_LEN: usize = 6;

/// The protocol number (compressed to one byte, RFC 1661 §6.5, or not), after the address and
/// control field if that is there.
pub(super) fn protocol(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let bytes = bytes.strip_prefix(&[0xff, 0x03]).unwrap_or(bytes);
    match *bytes {
        // The last byte of a protocol number is odd, any other even.
        [one, ref rest @ ..] if one & 1 == 1 => Some((u16::from(one), rest)),
        [high, low, ref rest @ ..] => Some((u16::from_be_bytes([high, low]), rest)),
        _ => None,
    }
}

/// The event of a protocol whose content is not looked at. Link and network control have none:
/// they carry nothing to inspect.
pub(super) fn not_inspected(protocol: u16) -> Option<Event> {
    match protocol {
        // 8xxx: network control; Cxxx and above: link control (RFC 1661 §2).
        0x8000.. => None,
        // OSI, XNS, DECnet, AppleTalk, IPX, VJ compressed, bridging, ST-II, Vines, multilink,
        // encrypted and compressed datagrams, Cisco discovery.
        0x0023 | 0x0025 | 0x0027 | 0x0029 | 0x002b | 0x002d | 0x0031 | 0x0033 | 0x0035 | 0x003d
        | 0x0053 | 0x0055 | 0x00fb | 0x00fd | 0x0207 => Some(Event::PppUnsupported),
        _ => Some(Event::PppWrongType),
    }
}

/// What a session packet carries, from the PPP protocol number on.
pub(super) fn session<'a>(
    bytes: &'a [u8],
    reassembled: bool,
    events: &mut EventSet,
) -> Result<&'a [u8], Event> {
    let (header, rest) = bytes
        .split_first_chunk::<HEADER_LEN>()
        .ok_or(Event::PppoeTooSmall)?;
    if header[1] != 0 {
        events.insert(Event::PppoeWrongCode);
    }
    let len = usize::from(u16::from_be_bytes([header[4], header[5]]));
    if !reassembled && len > rest.len() {
        return Err(Event::PppoeTooSmall);
    }
    let ppp = if reassembled { rest } else { &rest[..len] };
    if ppp.is_empty() {
        return Err(Event::PppoeTooSmall);
    }
    Ok(ppp)
}

/// Checks a packet of the discovery stage.
pub(super) fn discovery(bytes: &[u8]) -> Result<(), Event> {
    let (header, rest) = bytes
        .split_first_chunk::<HEADER_LEN>()
        .ok_or(Event::PppoeTooSmall)?;
    // PADO, PADI, PADR, PADS, PADT.
    if !matches!(header[1], 0x07 | 0x09 | 0x19 | 0x65 | 0xa7) {
        return Err(Event::PppoeWrongCode);
    }
    let len = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let mut tags = rest.get(..len).ok_or(Event::PppoeTooSmall)?;
    while !tags.is_empty() {
        let (tag, value) = tags
            .split_first_chunk::<4>()
            .ok_or(Event::PppoeMalformedTags)?;
        let len = usize::from(u16::from_be_bytes([tag[2], tag[3]]));
        tags = value.get(len..).ok_or(Event::PppoeMalformedTags)?;
        if tag[..2] == [0, 0] {
            // End of list.
            break;
        }
    }
    Ok(())
}
