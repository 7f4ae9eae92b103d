//! From bytes to a decoded packet: [`network`] finds the ends of the IP packet and its
//! transport header, [`key`] names its flow.
//!
//! Nothing here allocates, reads a clock or panics, whatever the bytes.

pub mod key;
pub mod network;

pub use key::{KeyOutcome, frame_key, packet_key};

use thiserror::Error;

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
}
