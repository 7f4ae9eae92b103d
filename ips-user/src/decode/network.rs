//! The network layer: IPv4 and IPv6 headers, IPv6 extension headers, fragments.
//!
//! Follows the definition in `ips-common/src/flow_key.rs` to the letter, because the eBPF parser
//! does too and both must agree. etherparse's own walk is stricter in places (it refuses an
//! authentication header of length zero, for example), so only its fixed header views are
//! used.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{Ipv4HeaderSlice, Ipv6HeaderSlice};
use ips_common::{FAMILY_IPV4, FAMILY_IPV6, FlowKey, FragmentKey};
use ips_common::{ipv4_address, ipv6_address};

use super::Invalid;

/// IPv6 extension headers (IANA, "IPv6 Extension Header Types").
mod extension {
    pub(super) const HOP_BY_HOP: u8 = 0;
    pub(super) const ROUTING: u8 = 43;
    pub(super) const FRAGMENT: u8 = 44;
    pub(super) const AUTHENTICATION: u8 = 51;
    pub(super) const DESTINATION_OPTIONS: u8 = 60;
    pub(super) const MOBILITY: u8 = 135;
    pub(super) const HIP: u8 = 139;
    pub(super) const SHIM6: u8 = 140;
}

/// Whether a length field limits the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bounds {
    /// A packet on the wire: it ends where its length field says, if the buffer has that much.
    LengthField,
    /// A packet quoted by an ICMP error: it ends with the buffer.
    Buffer,
}

/// Where in its datagram a packet stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// It is the whole datagram.
    No,
    /// Offset zero, more to come.
    First(FragmentKey),
    /// Offset not zero.
    Later(FragmentKey),
}

/// An IP packet, its chain of headers walked to the transport header.
#[derive(Clone, Copy, Debug)]
pub struct Network<'a> {
    /// [`FAMILY_IPV4`] or [`FAMILY_IPV6`].
    pub family: u8,
    /// Source address in the key's form.
    pub source: [u64; 2],
    /// Destination address in the key's form.
    pub destination: [u64; 2],
    /// Protocol of `payload`; the number of the extension header that could not be walked
    /// when `chain_cut`.
    pub protocol: u8,
    /// From the transport header to the end of the packet.
    pub payload: &'a [u8],
    /// Fragment or not.
    pub fragment: Fragment,
    /// The chain of extension headers is cut short or too long.
    pub chain_cut: bool,
    /// The length field claims more than the buffer has.
    pub cut: bool,
    /// The fixed header (for IPv4 with options).
    pub header: &'a [u8],
    /// From the first byte of the header to the end of the packet, without trailing padding.
    pub packet: &'a [u8],
}

impl<'a> Network<'a> {
    /// Reads the packet that begins with the IP header `ip`.
    ///
    /// # Errors
    /// When there is no complete, well-formed IPv4 or IPv6 header.
    pub fn parse(ip: &'a [u8]) -> Result<Self, Invalid> {
        match ip.first().map(|byte| byte >> 4) {
            Some(4) => Self::parse_v4(ip, Bounds::LengthField),
            Some(6) => Self::parse_v6(ip, Bounds::LengthField),
            Some(_) => Err(Invalid::UnknownIpVersion),
            None => Err(Invalid::Empty),
        }
    }

    pub(super) fn parse_v4(ip: &'a [u8], bounds: Bounds) -> Result<Self, Invalid> {
        let header = Ipv4HeaderSlice::from_slice(ip).map_err(|_| Invalid::Ipv4Header)?;
        let header_len = header.slice().len();
        let total_len = usize::from(header.total_len());
        let (end, cut) = match (bounds, total_len) {
            // Zero: an aggregate beyond 64 KiB (BIG TCP, Linux 6.3).
            (Bounds::Buffer, _) | (Bounds::LengthField, 0) => (ip.len(), false),
            (Bounds::LengthField, len) if len < header_len => {
                return Err(Invalid::Ipv4TotalLength);
            }
            (Bounds::LengthField, len) => (len.min(ip.len()), len > ip.len()),
        };
        let source = ipv4_address(u32::from_be_bytes(header.source()));
        let destination = ipv4_address(u32::from_be_bytes(header.destination()));
        let protocol = header.protocol().0;
        let fragment_key = FragmentKey {
            source,
            destination,
            identification: u32::from(header.identification()),
            protocol,
            family: FAMILY_IPV4,
            reserved: 0,
        };
        let fragment = if header.fragments_offset().value() != 0 {
            Fragment::Later(fragment_key)
        } else if header.more_fragments() {
            Fragment::First(fragment_key)
        } else {
            Fragment::No
        };
        Ok(Self {
            family: FAMILY_IPV4,
            source,
            destination,
            protocol,
            payload: &ip[header_len..end],
            fragment,
            chain_cut: false,
            cut,
            header: header.slice(),
            packet: &ip[..end],
        })
    }

    pub(super) fn parse_v6(ip: &'a [u8], bounds: Bounds) -> Result<Self, Invalid> {
        let header = Ipv6HeaderSlice::from_slice(ip).map_err(|_| Invalid::Ipv6Header)?;
        let header_len = header.slice().len();
        let payload_len = usize::from(header.payload_length());
        let (end, cut) = match (bounds, payload_len) {
            // Zero: a jumbogram (RFC 2675) or an aggregate beyond 64 KiB.
            (Bounds::Buffer, _) | (Bounds::LengthField, 0) => (ip.len(), false),
            (Bounds::LengthField, len) => {
                let end = header_len + len;
                (end.min(ip.len()), end > ip.len())
            }
        };
        let source = ipv6_address(header.source());
        let destination = ipv6_address(header.destination());
        let chain = Chain::walk(header.next_header().0, &ip[header_len..end]);
        let key_of = |identification| FragmentKey {
            source,
            destination,
            identification,
            protocol: 0,
            family: FAMILY_IPV6,
            reserved: 0,
        };
        Ok(Self {
            family: FAMILY_IPV6,
            source,
            destination,
            protocol: chain.protocol,
            payload: chain.rest,
            fragment: match chain.fragment {
                ChainFragment::No => Fragment::No,
                ChainFragment::First(identification) => Fragment::First(key_of(identification)),
                ChainFragment::Later(identification) => Fragment::Later(key_of(identification)),
            },
            chain_cut: chain.cut,
            cut,
            header: header.slice(),
            packet: &ip[..end],
        })
    }

    /// Source address as std has it.
    pub fn source_ip(&self) -> IpAddr {
        ip_of(self.family, self.source)
    }

    /// Destination address as std has it.
    pub fn destination_ip(&self) -> IpAddr {
        ip_of(self.family, self.destination)
    }
}

fn ip_of(family: u8, address: [u64; 2]) -> IpAddr {
    if family == FAMILY_IPV4 {
        IpAddr::V4(Ipv4Addr::from(address[1] as u32))
    } else {
        IpAddr::V6(Ipv6Addr::from(
            u128::from(address[0]) << 64 | u128::from(address[1]),
        ))
    }
}

#[derive(Clone, Copy)]
enum ChainFragment {
    No,
    First(u32),
    Later(u32),
}

/// Where the walk over the extension headers ended.
struct Chain<'a> {
    protocol: u8,
    rest: &'a [u8],
    fragment: ChainFragment,
    cut: bool,
}

impl<'a> Chain<'a> {
    fn walk(first: u8, payload: &'a [u8]) -> Self {
        let mut chain = Self {
            protocol: first,
            rest: payload,
            fragment: ChainFragment::No,
            cut: false,
        };
        for _ in 0..FlowKey::MAX_EXTENSION_HEADERS {
            let Some(step) = extension_length(chain.protocol, chain.rest) else {
                return chain;
            };
            let Some((header, rest)) = step.and_then(|len| chain.rest.split_at_checked(len)) else {
                chain.cut = true;
                return chain;
            };
            if chain.protocol == extension::FRAGMENT {
                let offset_and_more = u16::from_be_bytes([header[2], header[3]]);
                let identification =
                    u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
                if offset_and_more & 0xfff8 != 0 {
                    return Self {
                        protocol: header[0],
                        rest,
                        // A fragment of a fragment: the outer one is what the receiver
                        // reassembles first.
                        fragment: match chain.fragment {
                            ChainFragment::No => ChainFragment::Later(identification),
                            outer => outer,
                        },
                        cut: !matches!(chain.fragment, ChainFragment::No),
                    };
                }
                if offset_and_more & 1 != 0 && matches!(chain.fragment, ChainFragment::No) {
                    chain.fragment = ChainFragment::First(identification);
                }
            }
            chain.protocol = header[0];
            chain.rest = rest;
        }
        // One more extension header than is walked.
        chain.cut = extension_length(chain.protocol, chain.rest).is_some();
        chain
    }
}

/// `None`: not an extension header. `Some(None)`: one, but too short to tell its length.
fn extension_length(protocol: u8, bytes: &[u8]) -> Option<Option<usize>> {
    use extension::{
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
