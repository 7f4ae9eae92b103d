//! The chain of IPv6 extension headers (RFC 8200 §4), walked as the definition in
//! `ips-common/src/flow_key.rs` says, with what is remarkable about each header.

use ips_common::FlowKey;

use super::event::{DecodeEvent as Event, EventSet};
use super::protocol;

/// IPv6 extension headers (IANA, "IPv6 Extension Header Types").
mod header {
    pub(super) const HOP_BY_HOP: u8 = 0;
    pub(super) const ROUTING: u8 = 43;
    pub(super) const FRAGMENT: u8 = 44;
    pub(super) const AUTHENTICATION: u8 = 51;
    pub(super) const DESTINATION_OPTIONS: u8 = 60;
    pub(super) const MOBILITY: u8 = 135;
    pub(super) const HIP: u8 = 139;
    pub(super) const SHIM6: u8 = 140;
}

/// Option types (IANA, "Destination Options and Hop-by-Hop Options").
mod option {
    pub(super) const PAD1: u8 = 0;
    pub(super) const PADN: u8 = 1;
    pub(super) const ROUTER_ALERT: u8 = 0x05;
    pub(super) const JUMBO: u8 = 0xc2;
    pub(super) const HOME_ADDRESS: u8 = 0xc9;
}

/// A fragment header that makes its packet a fragment.
#[derive(Clone, Copy, Debug)]
pub(super) struct FragmentHeader<'a> {
    /// Offset of the data in the datagram, in bytes.
    pub(super) offset: u32,
    pub(super) more: bool,
    pub(super) identification: u32,
    /// What follows in the datagram, by the header of this fragment.
    pub(super) next_header: u8,
    /// Where in the packet the fragment header begins.
    pub(super) at: usize,
    /// Where in the packet the next-header field stands that announces it.
    pub(super) announced_at: usize,
    pub(super) data: &'a [u8],
}

/// Where the walk over the extension headers ended.
pub(super) struct Chain<'a> {
    pub(super) protocol: u8,
    pub(super) rest: &'a [u8],
    /// The outermost one: what the receiver reassembles first.
    pub(super) fragment: Option<FragmentHeader<'a>>,
    /// Cut short, or too long.
    pub(super) cut: bool,
    /// A routing header or a home address: the addresses of the fixed header are not those that
    /// the transport checksum covers (RFC 8200 §8.1, RFC 6275 §11.3.1).
    pub(super) readdressed: bool,
}

/// Length of the fixed IPv6 header.
const IPV6_LEN: usize = 40;
/// Where its next-header field stands.
const NEXT_HEADER_AT: usize = 6;

impl<'a> Chain<'a> {
    /// From the protocol of the fixed header on; `payload` is what follows that header.
    pub(super) fn walk(first: u8, payload: &'a [u8], events: &mut EventSet) -> Self {
        let mut chain = Self {
            protocol: first,
            rest: payload,
            fragment: None,
            cut: false,
            readdressed: false,
        };
        let mut seen = Seen::default();
        let mut announced_at = NEXT_HEADER_AT;
        for walked in 0..=FlowKey::MAX_EXTENSION_HEADERS {
            if walked > 0 && chain.rest.len() < 2 && chain.protocol != protocol::NO_NEXT_HEADER {
                events.insert(Event::Ipv6TruncatedExtension);
            }
            let Some(step) = length(chain.protocol, chain.rest) else {
                return chain;
            };
            if walked == FlowKey::MAX_EXTENSION_HEADERS {
                // One more extension header than is walked.
                chain.cut = true;
                return chain;
            }
            let Some((header, rest)) = step.and_then(|len| chain.rest.split_at_checked(len)) else {
                events.insert(Event::Ipv6TruncatedExtension);
                chain.cut = true;
                return chain;
            };
            seen.check(chain.protocol, header, events);
            chain.readdressed |= seen.readdressed;
            let at = IPV6_LEN + payload.len() - chain.rest.len();
            if chain.protocol == header::FRAGMENT {
                let field = u16::from_be_bytes([header[2], header[3]]);
                let fragment = FragmentHeader {
                    offset: u32::from(field & 0xfff8),
                    more: field & 1 != 0,
                    identification: u32::from_be_bytes([
                        header[4], header[5], header[6], header[7],
                    ]),
                    next_header: header[0],
                    at,
                    announced_at,
                    data: rest,
                };
                if fragment.offset != 0 {
                    // Of a fragment of a fragment nothing more can be read.
                    chain.cut = chain.fragment.is_some();
                    chain.fragment = chain.fragment.or(Some(fragment));
                    (chain.protocol, chain.rest) = (header[0], rest);
                    return chain;
                }
                if fragment.more {
                    chain.fragment = chain.fragment.or(Some(fragment));
                } else {
                    events.insert(Event::Ipv6UselessFragment);
                }
            }
            announced_at = at;
            (chain.protocol, chain.rest) = (header[0], rest);
        }
        chain
    }
}

/// `None`: not an extension header. `Some(None)`: one, but too short to tell its length.
fn length(protocol: u8, bytes: &[u8]) -> Option<Option<usize>> {
    use header::{
        AUTHENTICATION, DESTINATION_OPTIONS, FRAGMENT, HIP, HOP_BY_HOP, MOBILITY, ROUTING, SHIM6,
    };
    let unit = bytes.get(1).copied().map(usize::from);
    match protocol {
        HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS | MOBILITY | HIP | SHIM6 => {
            Some(unit.map(|len| (len + 1) * 8))
        }
        AUTHENTICATION => Some(unit.map(|len| (len + 2) * 4)),
        FRAGMENT => Some(Some(8)),
        _ => None,
    }
}

/// Which headers a packet has had.
#[derive(Default)]
struct Seen {
    hop_by_hop: bool,
    routing: bool,
    fragment: bool,
    authentication: bool,
    destination: u8,
    readdressed: bool,
}

impl Seen {
    fn check(&mut self, kind: u8, header: &[u8], events: &mut EventSet) {
        let mut once = |seen: &mut bool, event| {
            if std::mem::replace(seen, true) {
                events.insert(event);
            }
        };
        match kind {
            header::HOP_BY_HOP => {
                once(&mut self.hop_by_hop, Event::Ipv6DuplicateHopByHop);
                let only_padding = Event::Ipv6HopByHopOnlyPadding;
                check_options(
                    header,
                    Event::Ipv6HopByHopUnknownOption,
                    only_padding,
                    events,
                );
            }
            header::DESTINATION_OPTIONS => {
                // One for the routers of a routing header, one for the destination.
                self.destination = self.destination.saturating_add(1);
                if self.destination > 2 {
                    events.insert(Event::Ipv6DuplicateDestination);
                }
                let only_padding = Event::Ipv6DestinationOnlyPadding;
                self.readdressed |= check_options(
                    header,
                    Event::Ipv6DestinationUnknownOption,
                    only_padding,
                    events,
                );
            }
            header::ROUTING => {
                once(&mut self.routing, Event::Ipv6DuplicateRouting);
                // Segments left.
                self.readdressed |= header.get(3).is_some_and(|&left| left != 0);
                if header.get(2) == Some(&0) {
                    // RFC 5095: deprecated, forwards packets in circles.
                    events.insert(Event::Ipv6RoutingType0);
                }
            }
            header::FRAGMENT => {
                once(&mut self.fragment, Event::Ipv6DuplicateFragment);
                if header[1] != 0 || header[3] & 0x06 != 0 {
                    events.insert(Event::Ipv6FragmentReserved);
                }
            }
            header::AUTHENTICATION => {
                once(&mut self.authentication, Event::Ipv6DuplicateAuthentication);
                if header.get(2..4).is_some_and(|reserved| reserved != [0, 0]) {
                    events.insert(Event::Ipv6AuthenticationReserved);
                }
            }
            _ => {}
        }
    }
}

/// Whether there is a home address among them.
fn check_options(
    header: &[u8],
    unknown: Event,
    only_padding: Event,
    events: &mut EventSet,
) -> bool {
    let mut home_address = false;
    let mut options = header.get(2..).unwrap_or_default();
    let mut others = 0u32;
    while let Some((&kind, rest)) = options.split_first() {
        if kind == option::PAD1 {
            options = rest;
            continue;
        }
        let Some((&len, rest)) = rest.split_first() else {
            events.insert(Event::Ipv6InvalidOptionLength);
            return home_address;
        };
        let Some((_, rest)) = rest.split_at_checked(usize::from(len)) else {
            events.insert(Event::Ipv6InvalidOptionLength);
            return home_address;
        };
        let right_len = match kind {
            option::PADN => {
                if len == 0 {
                    events.insert(Event::Ipv6ZeroLengthPad);
                }
                len
            }
            option::ROUTER_ALERT => 2,
            option::JUMBO => 4,
            option::HOME_ADDRESS => 16,
            _ => {
                events.insert(unknown);
                len
            }
        };
        if len != right_len {
            events.insert(Event::Ipv6InvalidOptionLength);
            return home_address;
        }
        others += u32::from(kind != option::PADN);
        home_address |= kind == option::HOME_ADDRESS;
        options = rest;
    }
    if others == 0 {
        events.insert(only_padding);
    }
    home_address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn says(first: u8, payload: &[u8], expect: &[Event]) {
        let mut events = EventSet::default();
        Chain::walk(first, payload, &mut events);
        assert_eq!(events, expect.iter().copied().collect(), "{payload:02x?}");
    }

    #[test]
    fn extension_headers_are_judged_by_their_own_rules() {
        let alert = [58, 0, 5, 2, 0, 0, 1, 0, 0, 0];
        says(0, &alert[..], &[Event::Ipv6ZeroLengthPad]);
        says(
            0,
            &[58, 0, 1, 4, 0, 0, 0, 0, 9, 9],
            &[Event::Ipv6HopByHopOnlyPadding],
        );
        says(
            60,
            &[58, 0, 1, 4, 0, 0, 0, 0, 9, 9],
            &[Event::Ipv6DestinationOnlyPadding],
        );
        says(
            0,
            &[58, 0, 0x3e, 4, 0, 0, 0, 0, 9, 9],
            &[Event::Ipv6HopByHopUnknownOption],
        );
        says(
            60,
            &[58, 0, 0x3e, 4, 0, 0, 0, 0, 9, 9],
            &[Event::Ipv6DestinationUnknownOption],
        );
        says(
            0,
            &[58, 0, 5, 3, 0, 0, 0, 1, 9, 9],
            &[Event::Ipv6InvalidOptionLength],
        );
        says(
            0,
            &[58, 0, 5, 9, 0, 0, 0, 1, 9, 9],
            &[Event::Ipv6InvalidOptionLength],
        );
        says(
            43,
            &[58, 0, 0, 0, 0, 0, 0, 0, 9, 9],
            &[Event::Ipv6RoutingType0],
        );
        says(43, &[58, 0, 2, 0, 0, 0, 0, 0, 9, 9], &[]);
        says(
            51,
            &[58, 0, 0, 1, 0, 0, 0, 0, 9, 9],
            &[Event::Ipv6AuthenticationReserved],
        );
        says(51, &[58, 0, 0, 0, 0, 0, 0, 0, 9, 9], &[]);
        says(44, &[58, 0, 0, 8, 0, 0, 0, 1, 9, 9], &[]);
        says(44, &[58, 0, 0, 1, 0, 0, 0, 1, 9, 9], &[]);
        says(
            44,
            &[58, 0, 0, 0, 0, 0, 0, 1, 9, 9],
            &[Event::Ipv6UselessFragment],
        );
        says(
            44,
            &[58, 0, 0, 10, 0, 0, 0, 1, 9, 9],
            &[Event::Ipv6FragmentReserved],
        );
        says(
            44,
            &[58, 7, 0, 9, 0, 0, 0, 1, 9, 9],
            &[Event::Ipv6FragmentReserved],
        );
        says(0, &[58], &[Event::Ipv6TruncatedExtension]);
        says(
            0,
            &[58, 1, 0, 0, 0, 0, 0, 0],
            &[Event::Ipv6TruncatedExtension],
        );
        says(58, &[], &[]);
        says(59, &[], &[]);
    }

    #[test]
    fn repeated_headers_are_told_by_kind() {
        let twice = |kind: u8, rest: [u8; 7]| {
            let mut bytes = vec![kind];
            bytes.extend(rest);
            bytes.push(58);
            bytes.extend(rest);
            bytes.extend([9, 9]);
            bytes
        };
        let option = [0, 5, 2, 0, 0, 0, 0];
        says(0, &twice(0, option), &[Event::Ipv6DuplicateHopByHop]);
        says(60, &twice(60, option), &[]);
        says(
            43,
            &twice(43, [0, 2, 0, 0, 0, 0, 0]),
            &[Event::Ipv6DuplicateRouting],
        );
        says(
            51,
            &twice(51, [0; 7]),
            &[Event::Ipv6DuplicateAuthentication],
        );
        says(
            44,
            &twice(44, [0; 7]),
            &[Event::Ipv6DuplicateFragment, Event::Ipv6UselessFragment],
        );
        let mut thrice = twice(60, option);
        thrice[8] = 60;
        thrice.splice(16.., [58, 0, 5, 2, 0, 0, 0, 0, 9, 9]);
        says(60, &thrice, &[Event::Ipv6DuplicateDestination]);
    }

    #[test]
    fn the_outermost_fragment_header_is_the_one_that_counts() {
        let bytes = [
            44, 0, 0, 1, 0, 0, 0, 7, // first of datagram 7
            58, 0, 0, 0x11, 0, 0, 0, 8, // at 16 of datagram 8
            1, 2, 3, 4,
        ];
        let chain = Chain::walk(44, &bytes, &mut EventSet::default());
        let fragment = chain.fragment.unwrap();
        assert_eq!((fragment.identification, fragment.offset), (7, 0));
        assert_eq!((fragment.at, fragment.announced_at), (40, 6));
        assert_eq!(fragment.data, &bytes[8..]);
        assert!(chain.cut);
    }
}
