//! The flow key of a packet, by the definition in `ips-common/src/flow_key.rs`.
//!
//! This is the userspace half of a pair: the eBPF parser implements the same text, and a test
//! compares the two on captures.

use etherparse::{Ethernet2HeaderSlice, SingleVlanHeaderSlice};
use ips_common::{Direction, Endpoint, FAMILY_IPV4, FlowKey, FragmentKey};

use super::event::EventSet;
use super::network::{Bounds, Fragment, Network};
use super::protocol::{DCCP, ICMP, ICMPV6, SCTP, TCP, UDP, UDP_LITE};

/// VLAN tags that are looked through (IEEE 802.1Q: one or two).
const MAX_VLAN_TAGS: usize = 2;
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPES_VLAN: [u16; 3] = [0x8100, 0x88a8, 0x9100];

/// Length of the fixed part of an ICMP message, RFC 792 and RFC 4443 §2.1.
const ICMP_HEADER_LEN: usize = 8;

/// What a packet's bytes say about the flow it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyOutcome {
    /// Neither IPv4 nor IPv6 (or too short to tell).
    NotIp,
    /// An IPv4 or IPv6 packet without a complete, well-formed IP header.
    Malformed,
    /// A whole datagram.
    Flow {
        /// Its key.
        key: FlowKey,
        /// What the key is made of was cut short: the ports, the ICMP header, or the chain of
        /// extension headers (also when that was too long). What an ICMP error quotes does
        /// not count: it is cut short as a rule.
        truncated: bool,
    },
    /// The first fragment of a datagram.
    FirstFragment {
        /// The key that the whole datagram would have.
        key: FlowKey,
        /// What the later fragments are recognised by.
        fragment: FragmentKey,
        /// As for [`KeyOutcome::Flow`].
        truncated: bool,
    },
    /// A fragment without a transport header.
    LaterFragment {
        /// What it has in common with the first fragment.
        fragment: FragmentKey,
        /// Its key when no first fragment is known.
        orphan_key: FlowKey,
    },
}

/// The key of an Ethernet frame.
pub fn frame_key(frame: &[u8]) -> KeyOutcome {
    match frame_network(frame) {
        None => KeyOutcome::NotIp,
        Some(Err(_)) => KeyOutcome::Malformed,
        Some(Ok(network)) => network_key(&network).outcome,
    }
}

/// The key of a packet from its IP header on, as NFQUEUE delivers it.
///
/// Without an EtherType the version nibble decides what the packet is, so a version other
/// than 4 and 6 is [`KeyOutcome::NotIp`] here.
pub fn packet_key(ip: &[u8]) -> KeyOutcome {
    match ip.first().map(|byte| byte >> 4) {
        Some(4 | 6) => match Network::parse(ip) {
            Ok(network) => network_key(&network).outcome,
            Err(_) => KeyOutcome::Malformed,
        },
        _ => KeyOutcome::NotIp,
    }
}

/// The IP packet in an Ethernet frame, `None` when the frame carries none.
pub(crate) fn frame_network(frame: &[u8]) -> Option<Result<Network<'_>, super::Invalid>> {
    let ethernet = Ethernet2HeaderSlice::from_slice(frame).ok()?;
    let mut ethertype = ethernet.ether_type().0;
    let mut rest = &frame[ethernet.slice().len()..];
    for _ in 0..MAX_VLAN_TAGS {
        if !ETHERTYPES_VLAN.contains(&ethertype) {
            break;
        }
        let tag = SingleVlanHeaderSlice::from_slice(rest).ok()?;
        ethertype = tag.ether_type().0;
        rest = &rest[tag.slice().len()..];
    }
    match ethertype {
        ETHERTYPE_IPV4 => Some(Network::parse_v4(
            rest,
            Bounds::LengthField,
            &mut EventSet::default(),
        )),
        ETHERTYPE_IPV6 => Some(Network::parse_v6(
            rest,
            Bounds::LengthField,
            &mut EventSet::default(),
        )),
        _ => None,
    }
}

/// A key and which way the packet goes in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NetworkKey {
    pub(crate) outcome: KeyOutcome,
    pub(crate) direction: Direction,
}

/// The key of a packet whose network layer is parsed.
pub(crate) fn network_key(network: &Network<'_>) -> NetworkKey {
    let located = match network.fragment {
        Fragment::Later(_) => Located::without_ports(network, false),
        _ => locate(network, Depth::Outer),
    };
    let (key, direction) = (located.key, located.direction);
    let truncated = located.truncated;
    let outcome = match network.fragment {
        Fragment::No => KeyOutcome::Flow { key, truncated },
        Fragment::First(fragment) => KeyOutcome::FirstFragment {
            key,
            fragment,
            truncated,
        },
        Fragment::Later(fragment) => KeyOutcome::LaterFragment {
            fragment,
            orphan_key: key,
        },
    };
    NetworkKey { outcome, direction }
}

/// Whether a packet is on the wire or quoted by an ICMP error.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Depth {
    Outer,
    Quoted,
}

struct Located {
    key: FlowKey,
    direction: Direction,
    truncated: bool,
}

impl Located {
    fn new(network: &Network<'_>, ports: (u16, u16), truncated: bool) -> Self {
        let (key, direction) = FlowKey::canonical(
            network.family,
            network.protocol,
            Endpoint {
                address: network.source,
                port: ports.0,
            },
            Endpoint {
                address: network.destination,
                port: ports.1,
            },
        );
        Self {
            key,
            direction,
            truncated,
        }
    }

    fn without_ports(network: &Network<'_>, truncated: bool) -> Self {
        Self::new(network, (0, 0), truncated)
    }
}

fn locate(network: &Network<'_>, depth: Depth) -> Located {
    if network.chain_cut {
        return Located::without_ports(network, true);
    }
    match network.protocol {
        TCP | UDP | DCCP | SCTP | UDP_LITE => match network.payload.first_chunk::<4>() {
            Some(&[a, b, c, d]) => {
                let ports = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
                Located::new(network, ports, false)
            }
            None => Located::without_ports(network, true),
        },
        ICMP | ICMPV6 => {
            let Some((header, quote)) = network.payload.split_first_chunk::<ICMP_HEADER_LEN>()
            else {
                return Located::without_ports(network, true);
            };
            match icmp_kind(network.protocol, header[0]) {
                IcmpKind::Query => {
                    let identifier = u16::from_be_bytes([header[4], header[5]]);
                    Located::new(network, (identifier, identifier), false)
                }
                IcmpKind::Error if depth == Depth::Outer => quoted(network.family, quote)
                    .unwrap_or_else(|| Located::without_ports(network, false)),
                IcmpKind::Error | IcmpKind::Other => Located::without_ports(network, false),
            }
        }
        _ => Located::without_ports(network, false),
    }
}

/// The key of the packet that an ICMP error quotes.
fn quoted(family: u8, quote: &[u8]) -> Option<Located> {
    let quoted = if family == FAMILY_IPV4 {
        Network::parse_v4(quote, Bounds::Buffer, &mut EventSet::default())
    } else {
        Network::parse_v6(quote, Bounds::Buffer, &mut EventSet::default())
    }
    .ok()?;
    let located = match quoted.fragment {
        Fragment::Later(_) => Located::without_ports(&quoted, false),
        _ => locate(&quoted, Depth::Quoted),
    };
    Some(Located {
        key: located.key,
        // The error goes to the source of what it quotes.
        direction: match located.direction {
            Direction::LowToHigh => Direction::HighToLow,
            Direction::HighToLow => Direction::LowToHigh,
        },
        truncated: false,
    })
}

/// The kinds of ICMP message that matter to the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IcmpKind {
    /// Carries an identifier.
    Query,
    /// Quotes the packet it is about.
    Error,
    /// Neither.
    Other,
}

pub(crate) fn icmp_kind(protocol: u8, icmp_type: u8) -> IcmpKind {
    match (protocol, icmp_type) {
        (ICMP, 0 | 8 | 13..=16) | (ICMPV6, 128 | 129) => IcmpKind::Query,
        (ICMP, 3 | 4 | 5 | 11 | 12) | (ICMPV6, 1..=4) => IcmpKind::Error,
        _ => IcmpKind::Other,
    }
}

#[cfg(test)]
mod tests;
