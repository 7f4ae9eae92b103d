//! Frames byte by byte, and a rig that runs the eBPF programs on them (`BPF_PROG_TEST_RUN`).
#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    clippy::allow_attributes,
    reason = "each test binary uses a part of this module"
)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ips_common::{Endpoint, FlowKey};

pub mod capture;
pub mod rig;

pub use rig::Rig;

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const DCCP: u8 = 33;
pub const SCTP: u8 = 132;
pub const UDP_LITE: u8 = 136;
pub const ICMP: u8 = 1;
pub const ICMPV6: u8 = 58;

pub const A4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub const B4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
pub const A6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0xa);
pub const B6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 0xb);

/// Leaves the calling test, saying why, where eBPF programs cannot be loaded.
#[macro_export]
macro_rules! rig {
    () => {
        match $crate::common_packets::Rig::new() {
            Ok(rig) => rig,
            Err(reason) => {
                eprintln!("SKIPPED {}: {reason}", module_path!());
                return;
            }
        }
    };
}

/// The key of a flow between `a` and `b`, whichever way.
pub fn key(protocol: u8, a: (IpAddr, u16), b: (IpAddr, u16)) -> FlowKey {
    let family = if a.0.is_ipv4() { 4 } else { 6 };
    let (a, b) = (Endpoint::new(a.0, a.1), Endpoint::new(b.0, b.1));
    FlowKey::canonical(family, protocol, a, b).0
}

/// An Ethernet frame with the given VLAN tag types.
pub fn ethernet(tags: &[u16], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    for (number, tag) in (1_u16..).zip(tags) {
        frame.extend(tag.to_be_bytes());
        frame.extend((number + 100).to_be_bytes());
    }
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A frame around an IP packet, by its version.
pub fn frame(ip: &[u8]) -> Vec<u8> {
    tagged(&[], ip)
}

/// A frame with VLAN tags around an IP packet, by its version.
pub fn tagged(tags: &[u16], ip: &[u8]) -> Vec<u8> {
    let ethertype = if ip[0] >> 4 == 4 { 0x0800 } else { 0x86dd };
    ethernet(tags, ethertype, ip)
}

/// An IPv4 header to be: `options` in 32-bit words, offset and flags as on the wire.
#[derive(Clone, Copy)]
pub struct V4 {
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
    pub options: u8,
    pub flags_and_offset: u16,
    pub identification: u16,
}

impl V4 {
    pub const fn between(source: Ipv4Addr, destination: Ipv4Addr) -> Self {
        Self {
            source,
            destination,
            options: 0,
            flags_and_offset: 0,
            identification: 7,
        }
    }

    pub fn packet(self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let header_len = 20 + usize::from(self.options) * 4;
        let mut ip = vec![0x45 + self.options, 0];
        ip.extend(((header_len + payload.len()) as u16).to_be_bytes());
        ip.extend(self.identification.to_be_bytes());
        ip.extend(self.flags_and_offset.to_be_bytes());
        ip.extend([64, protocol, 0, 0]);
        ip.extend(self.source.octets());
        ip.extend(self.destination.octets());
        ip.resize(header_len, 1); // no-operation options
        ip.extend(payload);
        ip
    }
}

/// An IPv4 packet without options.
pub fn v4(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    V4::between(source, destination).packet(protocol, payload)
}

/// An IPv6 packet; `payload` begins with the header `next`.
pub fn v6(source: Ipv6Addr, destination: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
    let mut ip = vec![0x60, 0, 0, 0];
    ip.extend((payload.len() as u16).to_be_bytes());
    ip.extend([next, 64]);
    ip.extend(source.octets());
    ip.extend(destination.octets());
    ip.extend(payload);
    ip
}

/// An IPv6 extension header of `length` in its own unit, followed by `rest`.
pub fn extension(kind: u8, length: u8, next: u8, rest: &[u8]) -> Vec<u8> {
    let bytes = match kind {
        51 => (usize::from(length) + 2) * 4,
        44 => 8,
        _ => (usize::from(length) + 1) * 8,
    };
    let mut header = vec![0; bytes];
    header[0] = next;
    header[1] = length;
    header.extend(rest);
    header
}

/// An IPv6 fragment header, offset in bytes.
pub fn v6_fragment(next: u8, offset: u16, more: bool, id: u32, rest: &[u8]) -> Vec<u8> {
    let mut header = vec![next, 0];
    header.extend((offset & 0xfff8 | u16::from(more)).to_be_bytes());
    header.extend(id.to_be_bytes());
    header.extend(rest);
    header
}

/// Ports and 16 bytes of whatever follows them.
pub fn ports(source: u16, destination: u16) -> Vec<u8> {
    let mut header = Vec::new();
    header.extend(source.to_be_bytes());
    header.extend(destination.to_be_bytes());
    header.extend([0x50; 16]);
    header
}

/// An ICMP header with an identifier, then `rest`.
pub fn icmp(kind: u8, identifier: u16, rest: &[u8]) -> Vec<u8> {
    let mut header = vec![kind, 0, 0, 0];
    header.extend(identifier.to_be_bytes());
    header.extend([0, 1]);
    header.extend(rest);
    header
}

/// xorshift64*, so that a failure can be repeated.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}
