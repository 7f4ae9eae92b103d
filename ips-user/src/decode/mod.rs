//! From bytes to decoded packets: [`frame()`] walks from the link layer (or from the IP header, as
//! NFQUEUE delivers packets) to the transport header, into tunnels and through
//! [defragmentation](crate::reassembly::defrag), and shows every packet on its way.
//!
//! [`walk`] passes the layers below IP, [`network`] finds the ends of the IP packet and its
//! transport header, [`key`] names its flow, [`transport`] reads the transport header, and
//! [`tunnel`] finds the packet within the packet. [`event`] lists what can be wrong with any of it.
//!
//! Nothing here allocates, reads a clock or panics, whatever the bytes.

use thiserror::Error;

mod arp;
pub mod checksum;
pub mod event;
mod extension;
pub mod frame;
pub mod icmp;
mod igmp;
pub mod ipv4_options;
pub mod key;
pub mod link;
pub mod network;
pub mod packet;
mod pppoe;
mod sctp;
pub mod tcp_options;
pub mod transport;
pub mod tunnel;
mod walk;

pub use checksum::{ChecksumSample, Validity};
pub use event::{DecodeEvent, EventSet};
pub use frame::{ChecksumMode, DecodeOptions, Start, TunnelPorts, frame};
pub use icmp::Quoted;
pub use ipv4_options::Ipv4Options;
pub use key::{KeyOutcome, frame_key, packet_key};
pub use link::{Link, LinkType, MacAddress, VlanIds};
pub use network::{Fragment, Network, Part};
pub use packet::{Decoded, FragmentFate};
pub use tcp_options::TcpOptions;
pub use transport::Transport;
pub use tunnel::{PacketSource, Tunnel};

/// IP protocol numbers (IANA) that are treated by name.
pub mod protocol {
    /// ICMP, RFC 792.
    pub const ICMP: u8 = 1;
    /// IGMP, RFC 3376.
    pub const IGMP: u8 = 2;
    /// IPv4 in IP, RFC 2003.
    pub const IPV4: u8 = 4;
    /// TCP, RFC 9293.
    pub const TCP: u8 = 6;
    /// UDP, RFC 768.
    pub const UDP: u8 = 17;
    /// DCCP, RFC 4340.
    pub const DCCP: u8 = 33;
    /// IPv6 in IP, RFC 4213.
    pub const IPV6: u8 = 41;
    /// GRE, RFC 2784.
    pub const GRE: u8 = 47;
    /// Encapsulating security payload, RFC 4303.
    pub const ESP: u8 = 50;
    /// Authentication header, RFC 4302.
    pub const AH: u8 = 51;
    /// Nothing follows, RFC 8200 §4.7.
    pub const NO_NEXT_HEADER: u8 = 59;
    /// ICMPv6, RFC 4443.
    pub const ICMPV6: u8 = 58;
    /// SCTP, RFC 9260.
    pub const SCTP: u8 = 132;
    /// UDP-Lite, RFC 3828.
    pub const UDP_LITE: u8 = 136;
}

/// Why a packet cannot be inspected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum Invalid {
    /// No bytes at all.
    #[error("empty packet")]
    Empty,
    /// The version is neither 4 nor 6.
    #[error("IP version is neither 4 nor 6")]
    UnknownIpVersion,
    /// The IPv4 header is cut short, or its length or version field is wrong.
    #[error("incomplete or malformed IPv4 header")]
    Ipv4Header,
    /// The IPv4 total length is less than the header.
    #[error("IPv4 total length below the header length")]
    Ipv4TotalLength,
    /// The IPv6 header is cut short, or its version field is wrong.
    #[error("incomplete or malformed IPv6 header")]
    Ipv6Header,
    /// The chain of IPv6 extension headers is cut short or too long.
    #[error("IPv6 extension headers cut short or too many")]
    ExtensionChain,
    /// The TCP header is cut short, or its data offset is wrong.
    #[error("incomplete or malformed TCP header")]
    TcpHeader,
    /// The UDP header is cut short.
    #[error("incomplete UDP header")]
    UdpHeader,
    /// The UDP length field is below eight or beyond the packet.
    #[error("UDP length contradicts the packet")]
    UdpLength,
    /// The ICMP header is cut short.
    #[error("incomplete ICMP header")]
    IcmpHeader,
    /// A header below IP cannot be read.
    #[error("incomplete or malformed link header")]
    Link,
    /// More headers in each other than are looked at.
    #[error("too many layers")]
    TooManyLayers,
    /// The length field claims more than the frame has.
    #[error("packet cut short")]
    Truncated,
    /// The SCTP header is cut short.
    #[error("incomplete SCTP header")]
    SctpHeader,
    /// The ESP header is cut short.
    #[error("incomplete ESP header")]
    EspHeader,
    /// The header of a tunnel cannot be read.
    #[error("incomplete or malformed tunnel header")]
    Tunnel,
}

impl Invalid {
    /// Every reason, in the order of [`InvalidCounters`].
    pub const ALL: [Self; 16] = [
        Self::Empty,
        Self::UnknownIpVersion,
        Self::Ipv4Header,
        Self::Ipv4TotalLength,
        Self::Ipv6Header,
        Self::ExtensionChain,
        Self::TcpHeader,
        Self::UdpHeader,
        Self::UdpLength,
        Self::IcmpHeader,
        Self::Link,
        Self::TooManyLayers,
        Self::Truncated,
        Self::SctpHeader,
        Self::EspHeader,
        Self::Tunnel,
    ];

    /// Name of the counter, as in statistics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::UnknownIpVersion => "unknown_ip_version",
            Self::Ipv4Header => "ipv4_header",
            Self::Ipv4TotalLength => "ipv4_total_length",
            Self::Ipv6Header => "ipv6_header",
            Self::ExtensionChain => "ipv6_extension_chain",
            Self::TcpHeader => "tcp_header",
            Self::UdpHeader => "udp_header",
            Self::UdpLength => "udp_length",
            Self::IcmpHeader => "icmp_header",
            Self::Link => "link_header",
            Self::TooManyLayers => "too_many_layers",
            Self::Truncated => "truncated",
            Self::SctpHeader => "sctp_header",
            Self::EspHeader => "esp_header",
            Self::Tunnel => "tunnel_header",
        }
    }
}

/// How many packets could not be inspected, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InvalidCounters([u64; Invalid::ALL.len()]);

impl InvalidCounters {
    /// Counts one packet.
    pub fn count(&mut self, reason: Invalid) {
        self.0[reason as usize] += 1;
    }

    /// Packets with this reason.
    pub fn get(&self, reason: Invalid) -> u64 {
        self.0[reason as usize]
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Reason and count, every reason.
    pub fn iter(&self) -> impl Iterator<Item = (Invalid, u64)> + '_ {
        Invalid::ALL.into_iter().zip(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_counter() {
        for (position, reason) in Invalid::ALL.into_iter().enumerate() {
            assert_eq!(position, reason as usize);
            let mut counters = InvalidCounters::default();
            counters.count(reason);
            assert_eq!((counters.get(reason), counters.total()), (1, 1));
        }
    }
}
