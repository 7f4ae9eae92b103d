//! The way through the layers below IP: from the first byte of a frame to the packet that it
//! carries.
//!
//! Each step looks at one header and says which comes next; the loop counts them, so that no
//! frame makes it run longer than `max_layers`.

use etherparse::{Ethernet2HeaderSlice, SingleVlanHeaderSlice};

use super::Invalid;
use super::event::{DecodeEvent as Event, EventSet};
use super::link::{Link, LinkType};
use super::pppoe;

/// EtherTypes (IEEE, "EtherType field public assignments").
pub(super) mod ethertype {
    pub(crate) const IPV4: u16 = 0x0800;
    pub(crate) const ARP: u16 = 0x0806;
    pub(crate) const BRIDGED: u16 = 0x6558;
    pub(crate) const VLAN: u16 = 0x8100;
    pub(crate) const IPV6: u16 = 0x86dd;
    pub(crate) const PPP: u16 = 0x880b;
    pub(crate) const MPLS: u16 = 0x8847;
    pub(crate) const MPLS_UPSTREAM: u16 = 0x8848;
    pub(crate) const PPPOE_DISCOVERY: u16 = 0x8863;
    pub(crate) const PPPOE_SESSION: u16 = 0x8864;
    pub(crate) const VLAN_8021AD: u16 = 0x88a8;
    pub(crate) const BACKBONE_8021AH: u16 = 0x88e7;
    pub(crate) const DCE: u16 = 0x8903;
    pub(crate) const VNTAG: u16 = 0x8926;
    pub(crate) const ETAG: u16 = 0x893f;
    pub(crate) const NSH: u16 = 0x894f;
    pub(crate) const VLAN_QINQ: u16 = 0x9100;
}

/// A header that is about to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Header {
    /// As a capture file says.
    Link(LinkType),
    /// What an EtherType says; the carrier decides which event an unknown one is.
    Type(u16, Carrier),
    /// A PPP protocol number comes first.
    Ppp,
    /// Version nibble, then IPv4 or IPv6.
    Ip,
    /// IPv4 for certain.
    Ipv4,
    /// IPv6 for certain.
    Ipv6,
    /// A network service header, RFC 8300.
    Nsh,
    /// MPLS labels.
    Mpls,
}

/// Who carries a payload of an EtherType.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carrier {
    Ethernet,
    Vlan,
    Vntag,
    Etag,
    Geneve,
    Other,
}

impl Carrier {
    const fn unknown_type(self) -> Option<Event> {
        match self {
            Self::Ethernet => Some(Event::EthernetUnknownType),
            Self::Vlan => Some(Event::VlanUnknownType),
            Self::Vntag => Some(Event::VntagUnknownType),
            Self::Etag => Some(Event::EtagUnknownType),
            Self::Geneve => Some(Event::GeneveUnknownPayload),
            Self::Other => None,
        }
    }
}

/// What is at the end of the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carried<'a> {
    /// An IPv4 packet, if its header is right.
    Ipv4(&'a [u8]),
    /// An IPv6 packet, if its header is right.
    Ipv6(&'a [u8]),
    /// An ARP message.
    Arp(&'a [u8]),
    /// Nothing that is inspected: control protocols, unknown types.
    Nothing(&'a [u8]),
    /// A header that cannot be read.
    Failed(Invalid),
}

/// Walks over the headers of one frame.
pub(super) struct Walk<'e> {
    pub(super) events: &'e mut EventSet,
    pub(super) link: &'e mut Link,
    pub(super) layers: &'e mut u8,
    pub(super) max_layers: u8,
    /// The frame is made of reassembled parts: lengths below IP are those of one part.
    pub(super) reassembled: bool,
}

enum Step<'a> {
    On(Header, &'a [u8]),
    Done(Carried<'a>),
}

type Stepped<'a> = Result<Step<'a>, Event>;

impl Walk<'_> {
    /// To the packet in `bytes`, which begin with `header`.
    pub(super) fn run<'a>(&mut self, mut header: Header, mut bytes: &'a [u8]) -> Carried<'a> {
        loop {
            *self.layers += 1;
            if *self.layers > self.max_layers {
                self.events.insert(Event::TooManyLayers);
                return Carried::Failed(Invalid::TooManyLayers);
            }
            match self.step(header, bytes) {
                Ok(Step::On(next, rest)) => (header, bytes) = (next, rest),
                Ok(Step::Done(carried)) => return carried,
                Err(event) => {
                    self.events.insert(event);
                    return Carried::Failed(Invalid::Link);
                }
            }
        }
    }

    fn step<'a>(&mut self, header: Header, bytes: &'a [u8]) -> Stepped<'a> {
        match header {
            Header::Link(link) => self.link_layer(link, bytes),
            Header::Type(kind, carrier) => self.by_ethertype(kind, carrier, bytes),
            Header::Ppp => self.ppp(bytes),
            Header::Ip => match bytes.first().map(|first| first >> 4) {
                Some(4) => Ok(Step::Done(Carried::Ipv4(bytes))),
                Some(6) => Ok(Step::Done(Carried::Ipv6(bytes))),
                Some(_) => {
                    self.events.insert(Event::RawInvalidVersion);
                    Ok(Step::Done(Carried::Failed(Invalid::UnknownIpVersion)))
                }
                None => {
                    self.events.insert(Event::Ipv4TooSmall);
                    Ok(Step::Done(Carried::Failed(Invalid::Empty)))
                }
            },
            Header::Ipv4 => Ok(Step::Done(Carried::Ipv4(bytes))),
            Header::Ipv6 => Ok(Step::Done(Carried::Ipv6(bytes))),
            Header::Nsh => nsh(bytes),
            Header::Mpls => mpls(bytes),
        }
    }

    fn link_layer<'a>(&mut self, link: LinkType, bytes: &'a [u8]) -> Stepped<'a> {
        match link {
            LinkType::Ethernet => self.ethernet(bytes),
            LinkType::Raw | LinkType::Ipv4 | LinkType::Ipv6 => Ok(Step::On(Header::Ip, bytes)),
            LinkType::Ppp | LinkType::PppSerial => Ok(Step::On(Header::Ppp, bytes)),
            LinkType::Null | LinkType::Loop => null(bytes),
            LinkType::Chdlc => {
                let (header, rest) = bytes.split_first_chunk::<4>().ok_or(Event::ChdlcTooSmall)?;
                Ok(self.cooked([header[2], header[3]], rest))
            }
            LinkType::LinuxSll => {
                let (header, rest) = bytes.split_first_chunk::<16>().ok_or(Event::SllTooSmall)?;
                Ok(self.cooked([header[14], header[15]], rest))
            }
            LinkType::LinuxSll2 => {
                let (header, rest) = bytes.split_first_chunk::<20>().ok_or(Event::Sll2TooSmall)?;
                Ok(self.cooked([header[0], header[1]], rest))
            }
        }
    }

    fn cooked<'a>(&mut self, kind: [u8; 2], rest: &'a [u8]) -> Step<'a> {
        let kind = u16::from_be_bytes(kind);
        self.link.ethertype = Some(kind);
        Step::On(Header::Type(kind, Carrier::Other), rest)
    }

    fn ethernet<'a>(&mut self, bytes: &'a [u8]) -> Stepped<'a> {
        let header =
            Ethernet2HeaderSlice::from_slice(bytes).map_err(|_| Event::EthernetTooSmall)?;
        let kind = header.ether_type().0;
        self.link.macs = Some((header.source(), header.destination()));
        self.link.ethertype = Some(kind);
        let rest = &bytes[header.slice().len()..];
        if kind == ethertype::DCE {
            // FabricPath: two bytes, then a whole frame again.
            let (_, inner) = rest.split_first_chunk::<2>().ok_or(Event::DceTooSmall)?;
            return Ok(Step::On(Header::Link(LinkType::Ethernet), inner));
        }
        Ok(Step::On(Header::Type(kind, Carrier::Ethernet), rest))
    }

    fn by_ethertype<'a>(&mut self, kind: u16, carrier: Carrier, bytes: &'a [u8]) -> Stepped<'a> {
        Ok(match kind {
            ethertype::IPV4 => Step::Done(Carried::Ipv4(bytes)),
            ethertype::IPV6 => Step::Done(Carried::Ipv6(bytes)),
            ethertype::ARP => Step::Done(Carried::Arp(bytes)),
            ethertype::VLAN | ethertype::VLAN_8021AD | ethertype::VLAN_QINQ => {
                return self.vlan(bytes);
            }
            ethertype::PPPOE_SESSION => {
                let ppp = pppoe::session(bytes, self.reassembled, self.events)?;
                Step::On(Header::Ppp, ppp)
            }
            ethertype::PPPOE_DISCOVERY => {
                pppoe::discovery(bytes)?;
                Step::Done(Carried::Nothing(bytes))
            }
            ethertype::PPP => Step::On(Header::Ppp, bytes),
            ethertype::MPLS | ethertype::MPLS_UPSTREAM => Step::On(Header::Mpls, bytes),
            ethertype::BRIDGED => Step::On(Header::Link(LinkType::Ethernet), bytes),
            ethertype::NSH => Step::On(Header::Nsh, bytes),
            ethertype::VNTAG => {
                let (tag, rest) = bytes
                    .split_first_chunk::<6>()
                    .ok_or(Event::VntagHeaderTooSmall)?;
                let kind = u16::from_be_bytes([tag[4], tag[5]]);
                Step::On(Header::Type(kind, Carrier::Vntag), rest)
            }
            ethertype::ETAG => {
                let (tag, rest) = bytes
                    .split_first_chunk::<8>()
                    .ok_or(Event::EtagHeaderTooSmall)?;
                let kind = u16::from_be_bytes([tag[6], tag[7]]);
                Step::On(Header::Type(kind, Carrier::Etag), rest)
            }
            ethertype::BACKBONE_8021AH => {
                let (tag, rest) = bytes
                    .split_first_chunk::<18>()
                    .ok_or(Event::Ieee8021ahTooSmall)?;
                let kind = u16::from_be_bytes([tag[16], tag[17]]);
                Step::On(Header::Type(kind, Carrier::Ethernet), rest)
            }
            _ => {
                if let Some(event) = carrier.unknown_type() {
                    self.events.insert(event);
                }
                Step::Done(Carried::Nothing(bytes))
            }
        })
    }

    fn vlan<'a>(&mut self, bytes: &'a [u8]) -> Stepped<'a> {
        let tag =
            SingleVlanHeaderSlice::from_slice(bytes).map_err(|_| Event::VlanHeaderTooSmall)?;
        if !self.link.vlans.push(tag.vlan_identifier().value()) {
            return Err(Event::VlanTooManyLayers);
        }
        let rest = &bytes[tag.slice().len()..];
        Ok(Step::On(
            Header::Type(tag.ether_type().0, Carrier::Vlan),
            rest,
        ))
    }

    fn ppp<'a>(&mut self, bytes: &'a [u8]) -> Stepped<'a> {
        let (protocol, rest) = pppoe::protocol(bytes).ok_or(Event::PppTooSmall)?;
        let minimum = |len, event| if rest.len() < len { Err(event) } else { Ok(()) };
        Ok(match protocol {
            pppoe::PPP_IPV4 => {
                minimum(20, Event::PppIpv4TooSmall)?;
                Step::Done(Carried::Ipv4(rest))
            }
            pppoe::PPP_IPV6 => {
                minimum(40, Event::PppIpv6TooSmall)?;
                Step::Done(Carried::Ipv6(rest))
            }
            pppoe::PPP_VJ_UNCOMPRESSED => {
                minimum(20, Event::PppVjuTooSmall)?;
                Step::Done(Carried::Ipv4(rest))
            }
            pppoe::PPP_MPLS | pppoe::PPP_MPLS_MULTICAST => Step::On(Header::Mpls, rest),
            other => {
                if let Some(event) = pppoe::not_inspected(other) {
                    self.events.insert(event);
                }
                Step::Done(Carried::Nothing(rest))
            }
        })
    }
}

/// BSD loopback: an address family of whatever system captured, in its byte order.
fn null(bytes: &[u8]) -> Stepped<'_> {
    let (&family, rest) = bytes.split_first_chunk::<4>().ok_or(Event::NullTooSmall)?;
    let family = match u32::from_le_bytes(family) {
        small @ 0..=0xffff => small,
        _ => u32::from_be_bytes(family),
    };
    match family {
        2 => Ok(Step::Done(Carried::Ipv4(rest))),
        // Linux, NetBSD and OpenBSD, FreeBSD, macOS.
        10 | 24 | 28 | 30 => Ok(Step::Done(Carried::Ipv6(rest))),
        _ => Err(Event::NullUnsupportedType),
    }
}

/// RFC 3032; what follows the labels is told by its first nibble (RFC 4928 §3, RFC 4385 §3).
fn mpls(mut bytes: &[u8]) -> Stepped<'_> {
    let label = loop {
        let (&entry, rest) = bytes
            .split_first_chunk::<4>()
            .ok_or(Event::MplsHeaderTooSmall)?;
        bytes = rest;
        let entry = u32::from_be_bytes(entry);
        if entry & 0x100 != 0 {
            break entry >> 12;
        }
    };
    match label {
        0 => return Ok(Step::Done(Carried::Ipv4(bytes))),
        1 => return Err(Event::MplsRouterAlert),
        2 => return Ok(Step::Done(Carried::Ipv6(bytes))),
        3 => return Err(Event::MplsImplicitNull),
        4..=15 => return Err(Event::MplsReserved),
        _ => {}
    }
    let (control_word, pseudowire) = bytes.split_first_chunk::<4>().ok_or(Event::MplsTooSmall)?;
    match control_word[0] >> 4 {
        4 => Ok(Step::Done(Carried::Ipv4(bytes))),
        6 => Ok(Step::Done(Carried::Ipv6(bytes))),
        0 => Ok(Step::On(Header::Link(LinkType::Ethernet), pseudowire)),
        _ => Err(Event::MplsUnknownPayload),
    }
}

/// RFC 8300.
fn nsh(bytes: &[u8]) -> Stepped<'_> {
    let (base, _) = bytes
        .split_first_chunk::<8>()
        .ok_or(Event::NshHeaderTooSmall)?;
    if base[0] >> 6 != 0 {
        return Err(Event::NshUnsupportedVersion);
    }
    let len = usize::from(base[1] & 0x3f) * 4;
    match base[2] & 0x0f {
        0 => return Err(Event::NshReservedType),
        1 if len != 24 => return Err(Event::NshBadHeaderLength),
        2 if len < 8 => return Err(Event::NshBadHeaderLength),
        1 | 2 => {}
        _ => return Err(Event::NshUnsupportedType),
    }
    let rest = bytes.get(len..).ok_or(Event::NshBadHeaderLength)?;
    Ok(Step::On(
        match base[3] {
            1 => Header::Ipv4,
            2 => Header::Ipv6,
            3 => Header::Link(LinkType::Ethernet),
            4 => Header::Nsh,
            5 => Header::Mpls,
            _ => return Err(Event::NshUnknownPayload),
        },
        rest,
    ))
}
