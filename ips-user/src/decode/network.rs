//! The network layer: IPv4 and IPv6 headers, IPv6 extension headers, fragments.
//!
//! Follows the definition in `ips-common/src/flow_key.rs` to the letter, because the eBPF parser
//! does too and both must agree. etherparse's own walk is stricter in places (it refuses an
//! authentication header of length zero, for example), so only its fixed header views are
//! used.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{Ipv4HeaderSlice, Ipv6HeaderSlice};
use ips_common::{FAMILY_IPV4, FAMILY_IPV6, FragmentKey};
use ips_common::{ipv4_address, ipv6_address};

use super::Invalid;
use super::event::{DecodeEvent as Event, EventSet};
use super::extension::Chain;
use super::ipv4_options;

/// Whether a length field limits the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bounds {
    /// A packet from the kernel: it ends where its length field says, if the buffer has that
    /// much. Zero: the kernel has made an aggregate beyond 64 KiB of it.
    LengthField,
    /// A packet in a frame: the same, but zero is taken for what it is unless there are more
    /// bytes than the field could say. What is behind the packet is padding.
    Frame,
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
    /// What this packet contributes to its datagram, when it is a fragment.
    pub part: Option<Part<'a>>,
    /// The transport checksum covers other addresses than these: routed by the source, or with
    /// a home address.
    pub readdressed: bool,
}

/// A part of a fragmented datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part<'a> {
    /// Where in the datagram `data` belongs, in bytes.
    pub offset: u32,
    /// Whether there is more behind it.
    pub more: bool,
    /// The bytes.
    pub data: &'a [u8],
    /// How much of the packet stands before the datagram's bytes and is repeated in every
    /// fragment; without the fragment header of IPv6.
    pub header_len: usize,
    /// IPv6: what the datagram begins with.
    pub next_header: u8,
    /// IPv6: where in the packet that has to be written to undo the fragmentation.
    pub announced_at: usize,
}

impl<'a> Network<'a> {
    /// Reads the packet that begins with the IP header `ip`.
    ///
    /// # Errors
    /// When there is no complete, well-formed IPv4 or IPv6 header.
    pub fn parse(ip: &'a [u8]) -> Result<Self, Invalid> {
        match ip.first().map(|byte| byte >> 4) {
            Some(4) => Self::parse_v4(ip, Bounds::LengthField, &mut EventSet::default()),
            Some(6) => Self::parse_v6(ip, Bounds::LengthField, &mut EventSet::default()),
            Some(_) => Err(Invalid::UnknownIpVersion),
            None => Err(Invalid::Empty),
        }
    }

    pub(super) fn parse_v4(
        ip: &'a [u8],
        bounds: Bounds,
        events: &mut EventSet,
    ) -> Result<Self, Invalid> {
        let Ok(header) = Ipv4HeaderSlice::from_slice(ip) else {
            events.insert(match ip.first() {
                _ if ip.len() < 20 => Event::Ipv4TooSmall,
                Some(first) if first >> 4 != 4 => Event::Ipv4WrongVersion,
                Some(first) if first & 0x0f < 5 => Event::Ipv4HeaderTooSmall,
                _ => Event::Ipv4Truncated,
            });
            return Err(Invalid::Ipv4Header);
        };
        let header_len = header.slice().len();
        let total_len = usize::from(header.total_len());
        let (end, cut) = match (bounds, total_len) {
            // Zero: an aggregate beyond 64 KiB (BIG TCP, Linux 6.3).
            (Bounds::Buffer, _) | (Bounds::LengthField, 0) => (ip.len(), false),
            (Bounds::Frame, 0) if ip.len() > usize::from(u16::MAX) => (ip.len(), false),
            (_, len) if len < header_len => {
                events.insert(Event::Ipv4LengthBelowHeader);
                return Err(Invalid::Ipv4TotalLength);
            }
            (_, len) => (len.min(ip.len()), len > ip.len()),
        };
        let options = match &ip[20..header_len] {
            [] => ipv4_options::Ipv4Options::default(),
            options => ipv4_options::check(options, events),
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
        let payload = &ip[header_len..end];
        let part = (fragment != Fragment::No).then_some(Part {
            offset: u32::from(header.fragments_offset().value()) * 8,
            more: header.more_fragments(),
            data: payload,
            header_len,
            next_header: protocol,
            announced_at: 9,
        });
        Ok(Self {
            family: FAMILY_IPV4,
            source,
            destination,
            protocol,
            payload,
            fragment,
            chain_cut: false,
            cut,
            header: header.slice(),
            packet: &ip[..end],
            part,
            readdressed: options.source_routed(),
        })
    }

    pub(super) fn parse_v6(
        ip: &'a [u8],
        bounds: Bounds,
        events: &mut EventSet,
    ) -> Result<Self, Invalid> {
        let Ok(header) = Ipv6HeaderSlice::from_slice(ip) else {
            events.insert(match ip.first() {
                Some(first) if ip.len() >= 40 && first >> 4 != 6 => Event::Ipv6WrongVersion,
                _ => Event::Ipv6TooSmall,
            });
            return Err(Invalid::Ipv6Header);
        };
        let header_len = header.slice().len();
        let payload_len = usize::from(header.payload_length());
        let (end, cut) = match (bounds, payload_len) {
            // Zero: a jumbogram (RFC 2675) or an aggregate beyond 64 KiB.
            (Bounds::Buffer, _) | (Bounds::LengthField, 0) => (ip.len(), false),
            (Bounds::Frame, 0) if ip.len() > usize::from(u16::MAX) => (ip.len(), false),
            (_, len) => {
                let end = header_len + len;
                (end.min(ip.len()), end > ip.len())
            }
        };
        let source = ipv6_address(header.source());
        let destination = ipv6_address(header.destination());
        let chain = Chain::walk(header.next_header().0, &ip[header_len..end], events);
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
                None => Fragment::No,
                Some(it) if it.offset == 0 => Fragment::First(key_of(it.identification)),
                Some(it) => Fragment::Later(key_of(it.identification)),
            },
            chain_cut: chain.cut,
            cut,
            header: header.slice(),
            packet: &ip[..end],
            part: chain.fragment.map(|it| Part {
                offset: it.offset,
                more: it.more,
                data: it.data,
                header_len: it.at,
                next_header: it.next_header,
                announced_at: it.announced_at,
            }),
            readdressed: chain.readdressed,
        })
    }

    /// Time to live, or hop limit.
    pub fn hop_limit(&self) -> u8 {
        let at = if self.family == FAMILY_IPV4 { 8 } else { 7 };
        self.header.get(at).copied().unwrap_or_default()
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
