//! Packets within packets: what a packet carries that is inspected on its own.

use std::net::IpAddr;

use ips_common::FAMILY_IPV4;

use super::event::{DecodeEvent as Event, EventSet};
use super::frame::DecodeOptions;
use super::link::LinkType;
use super::network::Network;
use super::protocol;
use super::transport::Transport;
use super::walk::{Carrier, Header, ethertype};

/// How a packet came to be one: Suricata's `pkt_src`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PacketSource {
    /// Received, or read from a capture.
    #[default]
    Wire,
    /// Carried by IPv4.
    Ipv4Tunnel,
    /// Carried by IPv6.
    Ipv6Tunnel,
    /// Carried by GRE, ERSPAN included.
    Gre,
    /// Carried by Teredo.
    Teredo,
    /// Carried by VXLAN.
    Vxlan,
    /// Carried by Geneve.
    Geneve,
    /// Reassembled from fragments.
    Defrag,
    /// Nobody has sent it: it stands for what a connection has left to inspect at its end.
    FlowTimeout,
}

impl PacketSource {
    /// The name in records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Wire => "wire/pcap",
            Self::Ipv4Tunnel => "ipv4 tunnel",
            Self::Ipv6Tunnel => "ipv6 tunnel",
            Self::Gre => "gre tunnel",
            Self::Teredo => "teredo tunnel",
            Self::Vxlan => "vxlan encapsulation",
            Self::Geneve => "geneve encapsulation",
            Self::Defrag => "defrag",
            Self::FlowTimeout => "stream (flow timeout)",
        }
    }
}

/// The outermost packet around this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// Its source.
    pub source: IpAddr,
    /// Its destination.
    pub destination: IpAddr,
    /// Its ports.
    pub ports: Option<(u16, u16)>,
    /// Its IP protocol.
    pub protocol: u8,
    /// How many packets are around this one.
    pub depth: u8,
}

/// A packet found in another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inner<'a> {
    pub(super) bytes: &'a [u8],
    /// Bytes at the front that only count: a header that describes the packet.
    pub(super) skip: usize,
    pub(super) header: Header,
    pub(super) source: PacketSource,
    /// A VLAN id that the tunnel's header tells.
    pub(super) vlan: Option<u16>,
    /// It only looks like a packet: when it is none, there is no tunnel.
    pub(super) guessed: bool,
}

/// The tunnel header cannot be read; an event says why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Broken;

type Found<'a> = Result<Option<Inner<'a>>, Broken>;

/// The packet that this one carries, if it does.
pub(super) fn find<'a>(
    network: &Network<'a>,
    transport: &Transport<'a>,
    payload: &'a [u8],
    ports: Option<(u16, u16)>,
    options: &DecodeOptions,
    events: &mut EventSet,
) -> Found<'a> {
    match (transport, ports) {
        (Transport::Udp { .. }, Some(ports)) => Ok(in_udp(payload, ports, options, events)),
        (Transport::Other, _) => match network.protocol {
            protocol::IPV4 | protocol::IPV6 => Ok(in_ip(network, payload, events)),
            protocol::GRE => gre(payload, options, events).map_err(|event| {
                events.insert(event);
                Broken
            }),
            _ => Ok(None),
        },
        _ => Ok(None),
    }
}

fn in_ip<'a>(network: &Network<'_>, bytes: &'a [u8], events: &mut EventSet) -> Option<Inner<'a>> {
    let (header, version, least) = match network.protocol {
        protocol::IPV4 => (Header::Ipv4, 4, 20),
        _ => (Header::Ipv6, 6, 40),
    };
    let source = if network.family == FAMILY_IPV4 {
        PacketSource::Ipv4Tunnel
    } else {
        let (small, wrong) = match header {
            Header::Ipv4 => (Event::Ipv4InIpv6TooSmall, Event::Ipv4InIpv6WrongVersion),
            _ => (Event::Ipv6InIpv6TooSmall, Event::Ipv6InIpv6WrongVersion),
        };
        if bytes.len() < least {
            events.insert(small);
            return None;
        }
        if bytes[0] >> 4 != version {
            events.insert(wrong);
            return None;
        }
        PacketSource::Ipv6Tunnel
    };
    Some(Inner {
        bytes,
        header,
        source,
        vlan: None,
        skip: 0,
        guessed: false,
    })
}

fn in_udp<'a>(
    payload: &'a [u8],
    ports: (u16, u16),
    options: &DecodeOptions,
    events: &mut EventSet,
) -> Option<Inner<'a>> {
    let inner = |(header, bytes), source, guessed| Inner {
        bytes,
        header,
        source,
        vlan: None,
        skip: 0,
        guessed,
    };
    if options.teredo.match_either(ports)
        && let Some(bytes) = teredo(payload)
    {
        return Some(inner((Header::Ipv6, bytes), PacketSource::Teredo, true));
    }
    if options.geneve.match_either(ports)
        && let Some(found) = geneve(payload, events)
    {
        return Some(inner(found, PacketSource::Geneve, false));
    }
    if options.vxlan.match_either(ports)
        && let Some(bytes) = vxlan(payload, events)
    {
        let ethernet = Header::Link(LinkType::Ethernet);
        return Some(inner((ethernet, bytes), PacketSource::Vxlan, false));
    }
    None
}

/// RFC 4380 §5.1.1: an IPv6 packet, perhaps after an origin indication. With an authentication
/// header it is none that is carried: client and server agree on the tunnel.
fn teredo(mut payload: &[u8]) -> Option<&[u8]> {
    if let [0, 0, ..] = *payload {
        payload = payload.get(8..)?;
    }
    let (header, rest) = payload.split_first_chunk::<40>()?;
    let len = usize::from(u16::from_be_bytes([header[4], header[5]]));
    (header[0] >> 4 == 6 && len == rest.len()).then_some(payload)
}

/// RFC 7348 §5.
fn vxlan<'a>(payload: &'a [u8], events: &mut EventSet) -> Option<&'a [u8]> {
    let (header, frame) = payload.split_first_chunk::<8>()?;
    // Only the flag that says that the network identifier is valid.
    if header[0] != 0x08 || header[1..4] != [0; 3] || header[7] != 0 {
        return None;
    }
    let kind = frame.get(12..14)?;
    if !frame_may_carry([kind[0], kind[1]]) {
        events.insert(Event::VxlanUnknownPayload);
        return None;
    }
    Some(frame)
}

fn frame_may_carry(kind: [u8; 2]) -> bool {
    matches!(
        u16::from_be_bytes(kind),
        ethertype::IPV4
            | ethertype::IPV6
            | ethertype::ARP
            | ethertype::VLAN
            | ethertype::VLAN_8021AD
            | ethertype::VLAN_QINQ
            | ethertype::MPLS
            | ethertype::NSH
    )
}

/// RFC 8926 §3.4.
fn geneve<'a>(payload: &'a [u8], events: &mut EventSet) -> Option<(Header, &'a [u8])> {
    let header = payload.first_chunk::<8>()?;
    if header[0] >> 6 != 0 || header[7] != 0 {
        return None;
    }
    let bytes = payload.get(8 + usize::from(header[0] & 0x3f) * 4..)?;
    Some(match u16::from_be_bytes([header[2], header[3]]) {
        ethertype::BRIDGED => (Header::Link(LinkType::Ethernet), bytes),
        ethertype::IPV4 => (Header::Ipv4, bytes),
        ethertype::IPV6 => (Header::Ipv6, bytes),
        kind @ (ethertype::VLAN | ethertype::VLAN_8021AD | ethertype::VLAN_QINQ) => {
            (Header::Type(kind, Carrier::Geneve), bytes)
        }
        _ => {
            events.insert(Event::GeneveUnknownPayload);
            return None;
        }
    })
}

/// GRE flag bits, RFC 1701, RFC 2637 §4.1, RFC 2784, RFC 2890.
mod gre_flag {
    pub(super) const CHECKSUM: u16 = 0x8000;
    pub(super) const ROUTING: u16 = 0x4000;
    pub(super) const KEY: u16 = 0x2000;
    pub(super) const SEQUENCE: u16 = 0x1000;
    pub(super) const STRICT_ROUTE: u16 = 0x0800;
    pub(super) const RECURSION: u16 = 0x0700;
    /// Version 1.
    pub(super) const ACKNOWLEDGEMENT: u16 = 0x0080;
    /// What is zero in version 0 and in version 1 besides the acknowledgement.
    pub(super) const RESERVED_0: u16 = 0x00f8;
    pub(super) const RESERVED_1: u16 = 0x0078;
}

const ERSPAN: u16 = 0x88be;
const ERSPAN_3: u16 = 0x22eb;

fn gre<'a>(
    bytes: &'a [u8],
    options: &DecodeOptions,
    events: &mut EventSet,
) -> Result<Option<Inner<'a>>, Event> {
    let (&[f0, f1, k0, k1], rest) = bytes.split_first_chunk::<4>().ok_or(Event::GreTooSmall)?;
    let flags = u16::from_be_bytes([f0, f1]);
    let kind = u16::from_be_bytes([k0, k1]);
    let carried = match flags & 7 {
        0 => gre_0(flags, rest)?,
        1 => gre_1(flags, kind, rest)?,
        _ => return Err(Event::GreWrongVersion),
    };
    let inner = |header, bytes| Inner {
        bytes,
        header,
        source: PacketSource::Gre,
        vlan: None,
        skip: 0,
        guessed: false,
    };
    Ok(Some(match kind {
        ethertype::IPV4 => inner(Header::Ipv4, carried),
        ethertype::IPV6 => inner(Header::Ipv6, carried),
        ethertype::PPP => inner(Header::Ppp, carried),
        ethertype::BRIDGED => inner(Header::Link(LinkType::Ethernet), carried),
        ethertype::MPLS | ethertype::MPLS_UPSTREAM => inner(Header::Mpls, carried),
        ethertype::NSH => inner(Header::Nsh, carried),
        ethertype::VLAN | ethertype::VLAN_8021AD => {
            inner(Header::Type(kind, Carrier::Other), carried)
        }
        // Type I has no header of its own, and no sequence number in GRE's.
        ERSPAN if flags & gre_flag::SEQUENCE == 0 => {
            if !options.erspan_type1 {
                return Ok(None);
            }
            inner(Header::Link(LinkType::Ethernet), carried)
        }
        ERSPAN | ERSPAN_3 => match erspan(kind, carried) {
            Ok((vlan, frame)) => Inner {
                vlan,
                skip: carried.len() - frame.len(),
                ..inner(Header::Link(LinkType::Ethernet), carried)
            },
            Err(event) => {
                events.insert(event);
                return Ok(None);
            }
        },
        _ => return Ok(None),
    }))
}

fn gre_0(flags: u16, mut rest: &[u8]) -> Result<&[u8], Event> {
    const TOO_BIG: Event = Event::Gre0HeaderTooBig;
    if flags & gre_flag::RECURSION != 0 {
        return Err(Event::Gre0Recursion);
    }
    if flags & gre_flag::RESERVED_0 != 0 {
        return Err(Event::Gre0Flags);
    }
    // Checksum and offset come together; key and sequence number alone.
    for present in [
        gre_flag::CHECKSUM | gre_flag::ROUTING,
        gre_flag::KEY,
        gre_flag::SEQUENCE,
    ] {
        if flags & present != 0 {
            rest = rest.get(4..).ok_or(TOO_BIG)?;
        }
    }
    if flags & gre_flag::ROUTING != 0 {
        // Entries of family, offset and length up to one that is all zero.
        loop {
            let (entry, behind) = rest.split_first_chunk::<4>().ok_or(TOO_BIG)?;
            if entry[..2] == [0, 0] && entry[3] == 0 {
                return Ok(behind);
            }
            if entry[3] == 0 {
                return Err(Event::Gre0MalformedRoute);
            }
            rest = behind.get(usize::from(entry[3])..).ok_or(TOO_BIG)?;
        }
    }
    Ok(rest)
}

fn gre_1(flags: u16, kind: u16, rest: &[u8]) -> Result<&[u8], Event> {
    let refused = [
        (flags & gre_flag::CHECKSUM != 0, Event::Gre1Checksum),
        (flags & gre_flag::ROUTING != 0, Event::Gre1Route),
        (flags & gre_flag::STRICT_ROUTE != 0, Event::Gre1StrictRoute),
        (flags & gre_flag::RECURSION != 0, Event::Gre1Recursion),
        (flags & gre_flag::RESERVED_1 != 0, Event::Gre1Flags),
        (kind != ethertype::PPP, Event::Gre1WrongProtocol),
        (flags & gre_flag::KEY == 0, Event::Gre1NoKey),
    ];
    if let Some((_, event)) = refused.into_iter().find(|(wrong, _)| *wrong) {
        return Err(event);
    }
    let mut len = 4;
    for present in [gre_flag::SEQUENCE, gre_flag::ACKNOWLEDGEMENT] {
        if flags & present != 0 {
            len += 4;
        }
    }
    rest.get(len..).ok_or(Event::Gre1HeaderTooBig)
}

/// Types II and III (draft-foschiano-erspan-03 §4.2, §4.3): the mirrored frame and its VLAN.
fn erspan(kind: u16, bytes: &[u8]) -> Result<(Option<u16>, &[u8]), Event> {
    let (header, rest) = bytes
        .split_first_chunk::<8>()
        .ok_or(Event::ErspanHeaderTooSmall)?;
    let vlan = u16::from_be_bytes([header[0] & 0x0f, header[1]]);
    let frame = match (kind, header[0] >> 4) {
        (ERSPAN, 1) => rest,
        (ERSPAN_3, 2) => {
            let (last, rest) = rest
                .split_first_chunk::<4>()
                .ok_or(Event::ErspanHeaderTooSmall)?;
            // The platform's own subheader follows when the lowest bit says so.
            let own = if last[3] & 1 == 1 { 8 } else { 0 };
            rest.get(own..).ok_or(Event::ErspanHeaderTooSmall)?
        }
        _ => return Err(Event::ErspanUnsupportedVersion),
    };
    Ok(((vlan != 0).then_some(vlan), frame))
}
