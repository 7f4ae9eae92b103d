//! Values of sets: as they are written in files and commands, and as bytes.

use std::net::{IpAddr, Ipv4Addr};

use crate::detect::matching::base64_decode;
use crate::rules::ast::{DATASET_KINDS, DatasetKind};

/// An address as a set of addresses of either family has it.
pub(super) fn bytes_of(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// A kind by its name in rules.
pub fn kind_of(name: &str) -> Option<DatasetKind> {
    let known = DATASET_KINDS.iter().find(|(known, _)| *known == name);
    known.map(|(_, kind)| *kind)
}

/// The name of a kind, as rules have it.
pub fn kind_name(kind: DatasetKind) -> &'static str {
    let known = DATASET_KINDS.iter().find(|(_, known)| *known == kind);
    known.map_or("", |(name, _)| name)
}

/// How a value of this kind is written.
pub fn described(kind: DatasetKind) -> &'static str {
    match kind {
        DatasetKind::String => "bytes as base64",
        DatasetKind::Md5 => "32 hexadecimal digits",
        DatasetKind::Sha256 => "64 hexadecimal digits",
        DatasetKind::Ipv4 => "an IPv4 address",
        DatasetKind::Ip => "an IPv4 or IPv6 address",
    }
}

/// A value as the set has it, from the bytes of a buffer; `None` for what it cannot have.
pub(super) fn fitted<'a>(
    kind: DatasetKind,
    value: &'a [u8],
    mapped: &'a mut [u8; 16],
) -> Option<&'a [u8]> {
    match (kind, value.len()) {
        (DatasetKind::Md5, 16) | (DatasetKind::Sha256, 32) | (DatasetKind::Ipv4, 4) => Some(value),
        (DatasetKind::String, _) | (DatasetKind::Ip, 16) => Some(value),
        (DatasetKind::Ip, 4) => {
            let mut octets = [0; 4];
            octets.copy_from_slice(value);
            *mapped = bytes_of(IpAddr::from(octets));
            Some(mapped)
        }
        _ => None,
    }
}

/// Whether a set of this kind has such values.
pub fn fits(kind: DatasetKind, value: &[u8]) -> bool {
    match kind {
        DatasetKind::String => true,
        DatasetKind::Md5 | DatasetKind::Ip => value.len() == 16,
        DatasetKind::Sha256 => value.len() == 32,
        DatasetKind::Ipv4 => value.len() == 4,
    }
}

/// A value as it is written in files and commands.
pub fn parse(text: &str, kind: DatasetKind) -> Option<Vec<u8>> {
    let hexadecimal = |length: usize| {
        let digits = text.as_bytes();
        if digits.len() != length * 2 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let pairs = digits.chunks_exact(2).map(|pair| {
            let digit = |byte: u8| char::from(byte).to_digit(16).unwrap_or(0) as u8;
            digit(pair[0]) << 4 | digit(pair[1])
        });
        Some(pairs.collect())
    };
    match kind {
        DatasetKind::String => {
            let mut value = Vec::new();
            base64_decode(text.as_bytes(), &mut value).then_some(value)
        }
        DatasetKind::Md5 => hexadecimal(16),
        DatasetKind::Sha256 => hexadecimal(32),
        DatasetKind::Ipv4 => Some(text.parse::<Ipv4Addr>().ok()?.octets().to_vec()),
        DatasetKind::Ip => Some(bytes_of(text.parse().ok()?).to_vec()),
    }
}

/// A value as it is written to files.
pub fn written(value: &[u8], kind: DatasetKind) -> String {
    match kind {
        DatasetKind::String => base64(value),
        DatasetKind::Md5 | DatasetKind::Sha256 => {
            value.iter().map(|byte| format!("{byte:02x}")).collect()
        }
        DatasetKind::Ipv4 => <[u8; 4]>::try_from(value)
            .map(|octets| Ipv4Addr::from(octets).to_string())
            .unwrap_or_default(),
        DatasetKind::Ip => <[u8; 16]>::try_from(value)
            .map(|octets| std::net::Ipv6Addr::from(octets).to_canonical().to_string())
            .unwrap_or_default(),
    }
}

fn base64(value: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in value.chunks(3) {
        let at = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for index in 0..4 {
            text.push(match index <= chunk.len() {
                true => char::from(DIGITS[(bits >> (18 - 6 * index)) as usize & 63]),
                false => '=',
            });
        }
    }
    text
}
