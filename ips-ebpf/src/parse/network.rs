//! IPv4, IPv6 and its extension headers (points 2 to 4 of the definition).

use core::hint::black_box;

use ips_common::{FAMILY_IPV4, FAMILY_IPV6, FlowKey, FragmentKey, ipv4_address};

use super::wire::{Extension, Ipv4Header, Ipv6Header};
use super::{Cursor, Packet};

/// Whether a length field limits the packet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Bounds {
    /// On the wire: it ends where its length field says.
    Length,
    /// Quoted by an ICMP error: it ends with the error.
    Buffer,
}

/// Where in its datagram a packet stands: the offset in its upper 13 bits and whether more
/// follow in its lowest one, as an IPv6 fragment header has them; zero is a whole datagram.
///
/// Numbers instead of an enum, because each variant would be a path of its own to the verifier.
#[derive(Clone, Copy)]
pub(super) struct Position(u16);

impl Position {
    const WHOLE: Self = Self(0);

    #[inline(always)]
    const fn new(offset_and_more: u16) -> Self {
        Self(offset_and_more & 0xfff9)
    }

    #[inline(always)]
    pub(super) const fn is_whole(self) -> bool {
        self.0 == 0
    }

    /// Not the first: there is no transport header.
    #[inline(always)]
    pub(super) const fn is_later(self) -> bool {
        self.0 & 0xfff8 != 0
    }
}

/// A network header, its chain of extension headers walked.
#[derive(Clone, Copy)]
pub(super) struct Network {
    pub(super) family: u8,
    /// Of the transport header, or of the header that could not be walked.
    pub(super) protocol: u8,
    pub(super) position: Position,
    /// The chain of extension headers is cut short or too long.
    pub(super) chain_cut: bool,
    pub(super) identification: u32,
    /// Offset of the transport header.
    pub(super) transport: usize,
    pub(super) source: [u64; 2],
    pub(super) destination: [u64; 2],
}

impl Network {
    /// Reads the header at `offset` and gives the cursor that ends where its packet does;
    /// `None` when it is malformed.
    #[inline(always)]
    pub(super) fn read<P: Packet>(
        packet: &P,
        end: usize,
        family: u8,
        offset: usize,
        bounds: Bounds,
    ) -> Option<(Self, Cursor<'_, P>)> {
        let cursor = Cursor { packet, end };
        if family == FAMILY_IPV4 {
            Self::read_v4(cursor, offset, bounds)
        } else {
            Self::read_v6(cursor, offset, bounds)
        }
    }

    #[inline(always)]
    fn read_v4<P: Packet>(
        mut cursor: Cursor<'_, P>,
        offset: usize,
        bounds: Bounds,
    ) -> Option<(Self, Cursor<'_, P>)> {
        let header: Ipv4Header = cursor.read(offset)?;
        let header_len = usize::from(header.version_and_length & 0x0f) * 4;
        if header.version_and_length >> 4 != 4
            || header_len < size_of::<Ipv4Header>()
            || offset + header_len > cursor.end
        {
            return None;
        }
        if bounds == Bounds::Length {
            let total_len = usize::from(u16::from_be(header.total_length));
            // Zero: an aggregate beyond 64 KiB (BIG TCP, Linux 6.3).
            if total_len != 0 {
                if total_len < header_len {
                    return None;
                }
                cursor.end = cursor.end.min(offset + total_len);
            }
        }
        let flags_and_offset = u16::from_be(header.flags_and_offset);
        let network = Self {
            family: FAMILY_IPV4,
            protocol: header.protocol,
            // IPv4 has the flag above the offset.
            position: Position::new((flags_and_offset << 3) | ((flags_and_offset >> 13) & 1)),
            chain_cut: false,
            identification: u32::from(u16::from_be(header.identification)),
            transport: offset + header_len,
            source: ipv4_address(u32::from_be(header.source)),
            destination: ipv4_address(u32::from_be(header.destination)),
        };
        Some((network, cursor))
    }

    #[inline(always)]
    fn read_v6<P: Packet>(
        mut cursor: Cursor<'_, P>,
        offset: usize,
        bounds: Bounds,
    ) -> Option<(Self, Cursor<'_, P>)> {
        let header: Ipv6Header = cursor.read(offset)?;
        if header.version_and_class >> 4 != 6 {
            return None;
        }
        let mut network = Self {
            family: FAMILY_IPV6,
            protocol: header.next_header,
            position: Position::WHOLE,
            chain_cut: false,
            identification: 0,
            transport: offset + size_of::<Ipv6Header>(),
            source: header.source.map(u64::from_be),
            destination: header.destination.map(u64::from_be),
        };
        if bounds == Bounds::Length {
            let payload_len = usize::from(u16::from_be(header.payload_length));
            // Zero: a jumbogram (RFC 2675) or an aggregate beyond 64 KiB.
            if payload_len != 0 {
                cursor.end = cursor.end.min(network.transport + payload_len);
            }
        }
        network.walk_extensions(&cursor);
        Some((network, cursor))
    }

    #[inline(always)]
    fn walk_extensions<P: Packet>(&mut self, cursor: &Cursor<'_, P>) {
        // A bound that the compiler does not know keeps it from writing the body eight times.
        let mut left = black_box(FlowKey::MAX_EXTENSION_HEADERS);
        while left != 0 {
            left -= 1;
            let packet = cursor.packet;
            self.transport = packet.forget_origin(self.transport);
            self.protocol = packet.forget_origin(usize::from(self.protocol)) as u8;
            self.position.0 = packet.forget_origin(usize::from(self.position.0)) as u16;
            let Some(kind) = ExtensionKind::of(self.protocol) else {
                return;
            };
            // None is shorter than these eight bytes.
            let Some(header) = cursor.read::<Extension>(self.transport) else {
                break;
            };
            let end = self.transport + kind.header_len(header.length);
            if end > cursor.end {
                break;
            }
            self.transport = end;
            self.protocol = header.next_header;
            if kind == ExtensionKind::Fragment && self.fragment(&header) {
                return;
            }
        }
        self.chain_cut = ExtensionKind::of(self.protocol).is_some();
    }

    /// Takes note of a fragment header; true when no header follows it in this packet.
    #[inline(always)]
    fn fragment(&mut self, header: &Extension) -> bool {
        let position = Position::new(u16::from_be(header.offset_and_more));
        if self.position.is_whole() {
            self.position = position;
            self.identification = u32::from_be(header.identification);
        } else {
            // A fragment of a fragment: the outer one is what the receiver reassembles first,
            // and in a later one there are no ports.
            self.chain_cut = position.is_later();
        }
        position.is_later()
    }

    #[inline(always)]
    pub(super) fn fragment_key(&self) -> FragmentKey {
        FragmentKey {
            source: self.source,
            destination: self.destination,
            identification: self.identification,
            protocol: if self.family == FAMILY_IPV4 {
                self.protocol
            } else {
                0
            },
            family: self.family,
            reserved: 0,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ExtensionKind {
    /// RFC 8200 §4.5: 8 bytes.
    Fragment,
    /// RFC 4302 §2.2: counts in 4 bytes and leaves two of them out.
    Authentication,
    /// RFC 6564 §4: counts in 8 bytes and leaves one of them out.
    Other,
}

impl ExtensionKind {
    /// IANA, "IPv6 Extension Header Types".
    #[inline(always)]
    fn of(protocol: u8) -> Option<Self> {
        match protocol {
            0 | 43 | 60 | 135 | 139 | 140 => Some(Self::Other),
            51 => Some(Self::Authentication),
            44 => Some(Self::Fragment),
            _ => None,
        }
    }

    #[inline(always)]
    fn header_len(self, length: u8) -> usize {
        let length = usize::from(length);
        match self {
            Self::Fragment => size_of::<Extension>(),
            Self::Authentication => (length + 2) * 4,
            Self::Other => (length + 1) * 8,
        }
    }
}
