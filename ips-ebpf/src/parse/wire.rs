//! Fixed parts of headers as they stand in a packet, in network byte order.
//!
//! All multiples of their alignment in size and without padding. A packet's headers are *not*
//! aligned like this in memory; how they are read is the business of the `Packet`.

use bytemuck::AnyBitPattern;

/// A header that may be read from any bytes.
pub trait Wire: AnyBitPattern {}

macro_rules! wire {
    ($($(#[$doc:meta])* struct $name:ident { $($field:ident: $type:ty,)* } = $size:literal;)*) => {$(
        $(#[$doc])*
        #[repr(C)]
        #[derive(Clone, Copy, AnyBitPattern)]
        pub(super) struct $name { $(pub(super) $field: $type,)* }
        impl Wire for $name {}
        const _: () = assert!(size_of::<$name>() == $size);
    )*};
}

impl Wire for u16 {}
impl Wire for [u16; 2] {}

wire! {
    /// IEEE 802.1Q tag and the EtherType after it.
    struct VlanTag { _control: u16, ethertype: u16, } = 4;

    /// RFC 791, without options.
    struct Ipv4Header {
        version_and_length: u8,
        _service: u8,
        total_length: u16,
        identification: u16,
        flags_and_offset: u16,
        _time_to_live: u8,
        protocol: u8,
        _checksum: u16,
        source: u32,
        destination: u32,
    } = 20;

    /// RFC 8200 §3.
    struct Ipv6Header {
        version_and_class: u8,
        _class_and_label: [u8; 3],
        payload_length: u16,
        next_header: u8,
        _hop_limit: u8,
        source: [u64; 2],
        destination: [u64; 2],
    } = 40;

    /// The first eight bytes of any extension header; the last two fields are those of a
    /// fragment header (RFC 8200 §4.5), which has no length.
    struct Extension {
        next_header: u8,
        length: u8,
        offset_and_more: u16,
        identification: u32,
    } = 8;

    /// RFC 792, RFC 4443 §2.1: the identifier is that of queries.
    struct IcmpHeader {
        kind: u8,
        _code: u8,
        _checksum: u16,
        identifier: u16,
        _sequence: u16,
    } = 8;
}
