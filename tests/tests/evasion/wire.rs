//! Packets byte by byte, right or wrong as a case wants them.

use std::net::IpAddr;

use sluice_tests::frame::internet_checksum;

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const IPV6_FRAGMENT: u8 = 44;

pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const PSH: u8 = 0x08;
pub(crate) const ACK: u8 = 0x10;
pub(crate) const URG: u8 = 0x20;

/// Hops to the server: gateway and router take one each.
pub(crate) const FAR: u8 = 64;
/// Passes the gateway, and dies at the router behind it.
pub(crate) const TOO_SHORT: u8 = 2;

/// What both ends of one case's connection are.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    /// Our initial sequence number; place 0 is the byte after it.
    pub(crate) isn: u32,
    /// The server's initial sequence number, once it is known.
    pub(crate) peer_isn: u32,
    /// Whether the server's SYN or SYN-ACK has come.
    pub(crate) answered: bool,
    /// Whether the server's FIN has come.
    pub(crate) ended: bool,
    /// The timestamp option: ours, and the server's latest.
    pub(crate) timestamps: Option<(u32, u32)>,
    /// What the server has acknowledged, as a place.
    pub(crate) acknowledged: i64,
    /// Begins the identifications of its fragments; no two connections have the same.
    pub(crate) identification: u16,
}

/// The layer below.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    pub(crate) ttl: u8,
    /// IPv4 options, padded to four bytes by who makes them.
    pub(crate) options: Vec<u8>,
    /// IPv6 extension headers in order: protocol, and the header from its third byte on.
    pub(crate) extensions: Vec<(u8, Vec<u8>)>,
    /// Bytes behind the packet, in the same frame.
    pub(crate) trailer: Vec<u8>,
    pub(crate) bad_checksum: bool,
    pub(crate) tos: u8,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            ttl: FAR,
            options: Vec::new(),
            extensions: Vec::new(),
            trailer: Vec::new(),
            bad_checksum: false,
            tos: 0,
        }
    }
}

/// Where a fragment is in its datagram.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) identification: u16,
    pub(crate) offset: usize,
    pub(crate) more: bool,
}

/// An IP packet around `content`, which is of `protocol`; a fragment if it has a place.
pub(crate) fn packet(
    connection: &Connection,
    network: &Network,
    protocol: u8,
    content: &[u8],
    place: Option<Place>,
) -> Vec<u8> {
    let mut packet = match (connection.source, connection.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let header_len = 20 + network.options.len();
            let mut header = vec![0x40 | (header_len / 4) as u8, network.tos];
            header.extend(((header_len + content.len()) as u16).to_be_bytes());
            let (id, fragment) = place.map_or((0, 0x4000), |place| {
                let more = u16::from(place.more) << 13;
                (place.identification, more | (place.offset / 8) as u16)
            });
            header.extend(id.to_be_bytes());
            header.extend(fragment.to_be_bytes());
            header.extend([network.ttl, protocol, 0, 0]);
            header.extend(source.octets());
            header.extend(destination.octets());
            header.extend(&network.options);
            let sum = internet_checksum(&[&header]) ^ u16::from(network.bad_checksum);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            header
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let mut extensions = network.extensions.clone();
            if let Some(place) = place {
                let mut fragment = vec![0; 6];
                let offset = place.offset as u16 | u16::from(place.more);
                fragment[..2].copy_from_slice(&offset.to_be_bytes());
                fragment[4..].copy_from_slice(&place.identification.to_be_bytes());
                extensions.push((IPV6_FRAGMENT, fragment));
            }
            let chain = chain(&extensions, protocol);
            let first = extensions.first().map_or(protocol, |(first, _)| *first);
            let mut header = vec![0x60 | network.tos >> 4, network.tos << 4, 0, 0];
            header.extend(((chain.len() + content.len()) as u16).to_be_bytes());
            header.extend([first, network.ttl]);
            header.extend(source.octets());
            header.extend(destination.octets());
            header.extend(chain);
            header
        }
        _ => panic!("both ends speak the same protocol"),
    };
    packet.extend(content);
    packet.extend(&network.trailer);
    packet
}

/// Extension headers as bytes, the last followed by `protocol`.
pub(crate) fn chain(extensions: &[(u8, Vec<u8>)], protocol: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (index, (kind, body)) in extensions.iter().enumerate() {
        let next = extensions
            .get(index + 1)
            .map_or(protocol, |(next, _)| *next);
        // Its length in units of eight bytes without the first; of a fragment header reserved.
        let len = match *kind {
            IPV6_FRAGMENT => 0,
            _ => ((body.len() + 2) / 8 - 1) as u8,
        };
        bytes.extend([next, len]);
        bytes.extend(body);
    }
    bytes
}

/// The checksum of `content`, TCP or UDP.
pub(crate) fn transport_checksum(connection: &Connection, protocol: u8, content: &[u8]) -> u16 {
    let mut pseudo = Vec::new();
    for address in [connection.source, connection.destination] {
        match address {
            IpAddr::V4(address) => pseudo.extend(address.octets()),
            IpAddr::V6(address) => pseudo.extend(address.octets()),
        }
    }
    pseudo.extend((content.len() as u32).to_be_bytes());
    pseudo.extend([0, 0, 0, protocol]);
    internet_checksum(&[&pseudo, content])
}

/// A UDP datagram without its IP header.
pub(crate) fn datagram(connection: &Connection, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(connection.source_port.to_be_bytes());
    bytes.extend(connection.destination_port.to_be_bytes());
    bytes.extend(((payload.len() + 8) as u16).to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(payload);
    let sum = match transport_checksum(connection, UDP, &bytes) {
        0 => 0xffff,
        sum => sum,
    };
    bytes[6..8].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// What the server says in a TCP segment.
#[derive(Debug)]
pub(crate) struct Reply {
    /// Our port.
    pub(crate) port: u16,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u8,
    pub(crate) timestamp: Option<u32>,
}

/// Reads a frame from the server, if it is a TCP segment.
pub(crate) fn reply(frame: &[u8]) -> Option<Reply> {
    let tcp = match frame.get(12..14)? {
        [0x08, 0x00] => {
            let header = usize::from(frame.get(14)? & 15) * 4;
            (*frame.get(23)? == TCP).then_some(())?;
            frame.get(14 + header..)?
        }
        [0x86, 0xdd] => {
            (*frame.get(20)? == TCP).then_some(())?;
            frame.get(54..)?
        }
        _ => return None,
    };
    let word = |at: usize| Some(u32::from_be_bytes(tcp.get(at..at + 4)?.try_into().ok()?));
    let header = usize::from(tcp.get(12)? >> 4) * 4;
    let mut options = tcp.get(20..header)?;
    let mut timestamp = None;
    while let [kind, rest @ ..] = options {
        if *kind == 1 {
            options = rest;
            continue;
        }
        let Some(&len) = rest.first().filter(|len| **len >= 2) else {
            break;
        };
        if *kind == 8 {
            timestamp = Some(u32::from_be_bytes(options.get(2..6)?.try_into().ok()?));
        }
        options = options.get(usize::from(len)..)?;
    }
    Some(Reply {
        port: u16::from_be_bytes([tcp[2], tcp[3]]),
        seq: word(4)?,
        ack: word(8)?,
        flags: *tcp.get(13)?,
        timestamp,
    })
}
