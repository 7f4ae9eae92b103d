//! The canonical flow key: one value for both directions of a conversation.
//!
//! # Which key a packet has
//!
//! Both implementations (the eBPF parser and the userspace decoder) follow this definition,
//! and a test compares them on captures.
//!
//! 1. Ethernet with up to two VLAN tags (0x8100, 0x88a8, 0x9100) around IPv4 or IPv6.
//!    Anything else has no key. VLAN ids are not part of the key: a router sees the two
//!    directions of one flow on two VLANs.
//! 2. IPv4: version 4, at least 20 bytes, header length at least 20 and present in full.
//!    The packet ends at the total length, or at the end of the buffer when that is shorter
//!    or the field is zero (BIG TCP). A total length below the header length, and every other
//!    violation, is *malformed* and has no key (the kernel drops such packets itself).
//! 3. IPv6: version 6 and 40 bytes. The packet ends at 40 + payload length, or at the end of
//!    the buffer when that is shorter or the field is zero (jumbograms).
//!    At most [`FlowKey::MAX_EXTENSION_HEADERS`] extension headers are walked: hop-by-hop (0),
//!    routing (43), destination options (60), mobility (135), HIP (139), shim6 (140) with
//!    `(len + 1) * 8` bytes, authentication (51) with `(len + 2) * 4` bytes, and fragment (44)
//!    with 8. A chain that is cut short or too long ends the walk: the protocol is the number
//!    of the header that could not be walked, the ports are zero.
//! 4. A fragment with offset zero and more fragments to come is a *first* fragment and has
//!    the key that the whole packet would have; one with a non-zero offset has only a
//!    [`FragmentKey`] and takes the key recorded for it by the first one. When none is
//!    recorded (reordering) its key is made of addresses and protocol, ports zero; for IPv6
//!    the protocol is then the next-header value of the fragment header.
//!    An IPv6 fragment header with offset zero and no more fragments is walked through.
//! 5. TCP (6), UDP (17), DCCP (33), SCTP (132), UDP-Lite (136): the first four bytes of the
//!    transport header are the ports. If they are not all there, the ports are zero.
//! 6. ICMP (1) with at least 8 bytes: echo, timestamp and information (types 0, 8, 13, 14, 15,
//!    16) and ICMPv6 (58) echo (128, 129) use the identifier as both ports. Errors (ICMP 3, 4,
//!    5, 11, 12; ICMPv6 1, 2, 3, 4) take the key of the packet they quote, protocol included,
//!    so that they reach the worker of the flow they are about. The quoted packet is read by
//!    the same rules with what is there of it (its length field does not limit it), except
//!    that an ICMP error inside an error has ports zero, and a quoted non-first fragment
//!    has ports zero. A quote without a complete IP header of the same family leaves the outer
//!    key, ports zero. Every other type has ports zero.
//! 7. Every other protocol has ports zero.

use bytemuck::{Pod, Zeroable};

/// [`FlowKey::family`] of IPv4.
pub const FAMILY_IPV4: u8 = 4;
/// [`FlowKey::family`] of IPv6.
pub const FAMILY_IPV6: u8 = 6;

/// One end of a flow: an address and a port (or an ICMP identifier, or zero).
///
/// The address is the 128-bit number that the IPv6 address spells, high half first; an IPv4
/// address is IPv4-mapped (`::ffff:a.b.c.d`), see [`ipv4_address`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// High and low half of the address, as numbers.
    pub address: [u64; 2],
    /// Port number, host byte order.
    pub port: u16,
}

/// The 128-bit form of an IPv4 address given as a number (`192.0.2.1` is `0xc000_0201`).
#[inline(always)]
pub const fn ipv4_address(address: u32) -> [u64; 2] {
    [0, 0x0000_ffff_0000_0000 | address as u64]
}

/// The two halves of an IPv6 address as it stands in a packet.
#[inline(always)]
pub const fn ipv6_address(bytes: [u8; 16]) -> [u64; 2] {
    let number = u128::from_be_bytes(bytes);
    [(number >> 64) as u64, number as u64]
}

/// Which way a packet goes, relative to its canonical key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The packet's source is the key's lower endpoint.
    LowToHigh,
    /// The packet's source is the key's upper endpoint.
    HighToLow,
}

/// Canonical key of a flow: the lower (address, port) pair stands first, so both directions
/// have the same key. 40 bytes, alignment 8, no padding; usable as a BPF map key.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
pub struct FlowKey {
    /// Address of the lower endpoint (high half, low half).
    pub low_address: [u64; 2],
    /// Address of the upper endpoint (high half, low half).
    pub high_address: [u64; 2],
    /// Port of the lower endpoint, host byte order.
    pub low_port: u16,
    /// Port of the upper endpoint, host byte order.
    pub high_port: u16,
    /// IP protocol number; of the quoted packet for ICMP errors.
    pub protocol: u8,
    /// [`FAMILY_IPV4`] or [`FAMILY_IPV6`].
    pub family: u8,
    /// Zero; room for a zone (overlapping address spaces).
    pub zone: u16,
}

const _: () = assert!(size_of::<FlowKey>() == 40 && align_of::<FlowKey>() == 8);

impl FlowKey {
    /// How many IPv6 extension headers are walked to find the transport header.
    pub const MAX_EXTENSION_HEADERS: usize = 8;

    /// Orders the two ends of a packet into the key of its flow.
    #[inline(always)]
    pub fn canonical(
        family: u8,
        protocol: u8,
        source: Endpoint,
        destination: Endpoint,
    ) -> (Self, Direction) {
        // Compared half by half: a slice comparison would become a call of memcmp in BPF.
        let source_is_low = if source.address[0] != destination.address[0] {
            source.address[0] < destination.address[0]
        } else if source.address[1] != destination.address[1] {
            source.address[1] < destination.address[1]
        } else {
            source.port <= destination.port
        };
        let (low, high, direction) = if source_is_low {
            (source, destination, Direction::LowToHigh)
        } else {
            (destination, source, Direction::HighToLow)
        };
        let key = Self {
            low_address: low.address,
            high_address: high.address,
            low_port: low.port,
            high_port: high.port,
            protocol,
            family,
            zone: 0,
        };
        (key, direction)
    }

    /// The lower end.
    #[inline(always)]
    pub const fn low(&self) -> Endpoint {
        Endpoint {
            address: self.low_address,
            port: self.low_port,
        }
    }

    /// The upper end.
    #[inline(always)]
    pub const fn high(&self) -> Endpoint {
        Endpoint {
            address: self.high_address,
            port: self.high_port,
        }
    }

    /// Source and destination of a packet of this flow that goes in `direction`.
    #[inline(always)]
    pub const fn ends(&self, direction: Direction) -> (Endpoint, Endpoint) {
        match direction {
            Direction::LowToHigh => (self.low(), self.high()),
            Direction::HighToLow => (self.high(), self.low()),
        }
    }

    /// The five words that are hashed.
    #[inline(always)]
    pub(crate) const fn words(&self) -> [u64; 5] {
        [
            self.low_address[0],
            self.low_address[1],
            self.high_address[0],
            self.high_address[1],
            self.low_port as u64
                | (self.high_port as u64) << 16
                | (self.protocol as u64) << 32
                | (self.family as u64) << 40
                | (self.zone as u64) << 48,
        ]
    }
}

/// What all fragments of one datagram have in common. 40 bytes, alignment 8, no padding.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct FragmentKey {
    /// Source address (high half, low half); fragments are not symmetric.
    pub source: [u64; 2],
    /// Destination address (high half, low half).
    pub destination: [u64; 2],
    /// Identification field: 16 bits of IPv4, 32 bits of IPv6, as a number.
    pub identification: u32,
    /// IPv4 protocol; zero for IPv6, whose fragments may differ in it (RFC 8200 §4.5).
    pub protocol: u8,
    /// [`FAMILY_IPV4`] or [`FAMILY_IPV6`].
    pub family: u8,
    /// Zero.
    pub reserved: u16,
}

const _: () = assert!(size_of::<FragmentKey>() == 40 && align_of::<FragmentKey>() == 8);

#[cfg(feature = "user")]
mod user {
    use core::fmt;
    use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use super::{Endpoint, FAMILY_IPV4, FlowKey, FragmentKey, ipv4_address, ipv6_address};

    // SAFETY: repr(C), only integers, no padding (asserted above), every bit pattern valid.
    unsafe impl aya::Pod for FlowKey {}
    // SAFETY: repr(C), only integers, no padding (asserted above), every bit pattern valid.
    unsafe impl aya::Pod for FragmentKey {}

    impl Endpoint {
        /// The end made of a std address and a port.
        pub fn new(address: IpAddr, port: u16) -> Self {
            let address = match address {
                IpAddr::V4(v4) => ipv4_address(u32::from(v4)),
                IpAddr::V6(v6) => ipv6_address(v6.octets()),
            };
            Self { address, port }
        }

        /// The address as std has it; `family` is that of the key.
        pub fn ip(&self, family: u8) -> IpAddr {
            if family == FAMILY_IPV4 {
                IpAddr::V4(Ipv4Addr::from(self.address[1] as u32))
            } else {
                IpAddr::V6(Ipv6Addr::from(
                    (self.address[0] as u128) << 64 | self.address[1] as u128,
                ))
            }
        }
    }

    impl fmt::Display for FlowKey {
        /// `proto low:port high:port`, for logs.
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            let name = match self.protocol {
                1 => "icmp",
                6 => "tcp",
                17 => "udp",
                58 => "icmpv6",
                132 => "sctp",
                other => {
                    return write!(
                        f,
                        "ip-proto-{other} {} {}",
                        self.low().ip(self.family),
                        self.high().ip(self.family)
                    );
                }
            };
            let low = core::net::SocketAddr::new(self.low().ip(self.family), self.low_port);
            let high = core::net::SocketAddr::new(self.high().ip(self.family), self.high_port);
            write!(f, "{name} {low} {high}")
        }
    }
}
