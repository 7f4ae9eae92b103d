//! ICMP (RFC 792) and ICMPv6 (RFC 4443): types and codes, and the packet that an error quotes.

use std::net::IpAddr;

use ips_common::FAMILY_IPV4;

use super::event::{DecodeEvent as Event, EventSet};
use super::key::{IcmpKind, icmp_kind};
use super::network::{Bounds, Fragment, Network};
use super::protocol;

/// What an ICMP error says of the packet it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quoted {
    /// Its IP protocol.
    pub protocol: u8,
    /// Its source.
    pub source: IpAddr,
    /// Its destination.
    pub destination: IpAddr,
    /// Its ports, when they are there.
    pub ports: Option<(u16, u16)>,
}

impl Quoted {
    /// Reads what follows the first eight bytes of an error.
    pub(super) fn read(family: u8, bytes: &[u8]) -> Option<Self> {
        let network = quoted(family, bytes)?;
        let has_ports = matches!(
            network.protocol,
            protocol::TCP | protocol::UDP | protocol::SCTP | protocol::DCCP | protocol::UDP_LITE
        );
        let whole = !network.chain_cut && !matches!(network.fragment, Fragment::Later(_));
        Some(Self {
            protocol: network.protocol,
            source: network.source_ip(),
            destination: network.destination_ip(),
            ports: network
                .payload
                .first_chunk::<4>()
                .filter(|_| has_ports && whole)
                .map(|&[a, b, c, d]| (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))),
        })
    }
}

fn quoted(family: u8, bytes: &[u8]) -> Option<Network<'_>> {
    let events = &mut EventSet::default();
    if family == FAMILY_IPV4 {
        Network::parse_v4(bytes, Bounds::Buffer, events)
    } else {
        Network::parse_v6(bytes, Bounds::Buffer, events)
    }
    .ok()
}

/// Checks an ICMPv4 message; `quote` is what follows its first eight bytes.
pub(super) fn check_v4(kind: u8, code: u8, quote: &[u8], events: &mut EventSet) {
    let known = match kind {
        0 | 4 | 8 | 10 | 13..=18 => code == 0,
        3 => code <= 15,
        5 => code <= 3,
        // 16: a mobility agent that forwards nothing else, RFC 3344 §2.1.
        9 => matches!(code, 0 | 16),
        11 => code <= 1,
        12 => code <= 2,
        _ => {
            events.insert(Event::Icmpv4UnknownType);
            return;
        }
    };
    if !known {
        events.insert(Event::Icmpv4UnknownCode);
    } else if icmp_kind(protocol::ICMP, kind) == IcmpKind::Error {
        if quote.len() < 20 {
            events.insert(Event::Icmpv4QuoteTruncated);
        } else if quote[0] >> 4 != 4 {
            events.insert(Event::Icmpv4QuoteVersion);
        }
    }
}

/// Checks an ICMPv6 message; `quote` is what follows its first eight bytes.
pub(super) fn check_v6(kind: u8, code: u8, hop_limit: u8, quote: &[u8], events: &mut EventSet) {
    let known = match kind {
        1 => code <= 7,
        3 => code <= 1,
        4 => code <= 2,
        // Multicast listener discovery does not leave the link (RFC 2710 §3, RFC 3810 §5).
        130..=132 | 143 => {
            if hop_limit != 1 {
                events.insert(Event::Icmpv6MldHopLimit);
            }
            code == 0
        }
        2 | 128 | 129 | 133..=137 | 141 | 142 | 144..=149 | 151..=153 => code == 0,
        138 => matches!(code, 0 | 1 | 255),
        139 | 140 => code <= 2,
        150 | 154..=159 => true,
        // RFC 4443 §2.1: kept for experiments.
        100 | 101 | 200 | 201 => {
            events.insert(Event::Icmpv6ExperimentationType);
            true
        }
        5..=126 | 160..=254 => {
            events.insert(Event::Icmpv6UnassignedType);
            true
        }
        0 | 127 | 255 => {
            events.insert(Event::Icmpv6UnknownType);
            true
        }
    };
    if !known {
        events.insert(Event::Icmpv6UnknownCode);
    } else if icmp_kind(protocol::ICMPV6, kind) == IcmpKind::Error {
        if quote.len() < 40 {
            events.insert(Event::Icmpv6QuoteTruncated);
        } else if quote[0] >> 4 != 6 {
            events.insert(Event::Icmpv6QuoteVersion);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_and_codes_are_judged() {
        let v4 = |kind, code| {
            let mut events = EventSet::default();
            check_v4(kind, code, &[0x45; 28], &mut events);
            events.iter().map(Event::name).collect::<Vec<_>>()
        };
        assert_eq!(v4(8, 0), [""; 0]);
        assert_eq!(v4(8, 1), ["icmpv4.unknown_code"]);
        assert_eq!(v4(3, 16), ["icmpv4.unknown_code"]);
        assert_eq!(v4(9, 16), [""; 0]);
        assert_eq!(v4(44, 0), ["icmpv4.unknown_type"]);
        let v6 = |kind, code, hop_limit| {
            let mut events = EventSet::default();
            check_v6(kind, code, hop_limit, &[0x60; 48], &mut events);
            events.iter().map(Event::name).collect::<Vec<_>>()
        };
        assert_eq!(v6(128, 0, 64), [""; 0]);
        assert_eq!(v6(128, 3, 64), ["icmpv6.unknown_code"]);
        assert_eq!(v6(143, 0, 1), [""; 0]);
        assert_eq!(v6(143, 0, 2), ["icmpv6.mld_message_with_invalid_hl"]);
        assert_eq!(v6(100, 0, 2), ["icmpv6.experimentation_type"]);
        assert_eq!(v6(5, 0, 2), ["icmpv6.unassigned_type"]);
        assert_eq!(v6(0, 0, 2), ["icmpv6.unknown_type"]);
    }

    #[test]
    fn quotes_are_judged() {
        let v4 = |quote: &[u8]| {
            let mut events = EventSet::default();
            check_v4(3, 1, quote, &mut events);
            events
        };
        assert!(v4(&[0x45; 19]).contains(Event::Icmpv4QuoteTruncated));
        assert!(v4(&[0x65; 28]).contains(Event::Icmpv4QuoteVersion));
        let v6 = |quote: &[u8]| {
            let mut events = EventSet::default();
            check_v6(1, 0, 64, quote, &mut events);
            events
        };
        assert!(v6(&[0x60; 39]).contains(Event::Icmpv6QuoteTruncated));
        assert!(v6(&[0x45; 48]).contains(Event::Icmpv6QuoteVersion));
    }
}
