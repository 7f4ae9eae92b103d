//! Hellos, and the fingerprints that are made of them: JA3 (<https://github.com/salesforce/ja3>) and
//! JA4 (<https://github.com/FoxIO-LLC/ja4>).

use crate::bounded::held;
use md5::{Digest as _, Md5};
use sha2::Sha256;
use tls_parser::{TlsClientHelloContents, TlsServerHelloContents};

/// What fingerprints and rules need of a hello.
#[derive(Debug, Default)]
pub(super) struct Hello {
    pub(super) version: u16,
    pub(super) random: Vec<u8>,
    pub(super) session: Vec<u8>,
    pub(super) ciphers: Vec<u16>,
    /// Types of the extensions, in their order.
    pub(super) extensions: Vec<u16>,
    pub(super) name: Option<Vec<u8>>,
    /// Of ALPN.
    pub(super) protocols: Vec<Vec<u8>>,
    groups: Vec<u16>,
    points: Vec<u8>,
    signatures: Vec<u16>,
    /// Of `supported_versions`.
    versions: Vec<u16>,
}

/// Types of extensions (IANA).
mod extension {
    pub(super) const SERVER_NAME: u16 = 0;
    pub(super) const GROUPS: u16 = 10;
    pub(super) const POINTS: u16 = 11;
    pub(super) const SIGNATURES: u16 = 13;
    pub(super) const ALPN: u16 = 16;
    pub(super) const VERSIONS: u16 = 43;
}

impl Hello {
    pub(super) fn client(hello: &TlsClientHelloContents<'_>) -> Self {
        let mut own = Self {
            version: hello.version.0,
            random: hello.random.to_vec(),
            session: hello.session_id.unwrap_or_default().to_vec(),
            ciphers: hello.ciphers.iter().map(|it| it.0).collect(),
            ..Self::default()
        };
        own.read_extensions(hello.ext.unwrap_or_default(), true);
        own
    }

    /// In the form of SSL 2.0, of which no fingerprints are made.
    pub(super) fn old(version: u16, session: &[u8]) -> Self {
        Self {
            version,
            session: session.to_vec(),
            ..Self::default()
        }
    }

    pub(super) fn server(hello: &TlsServerHelloContents<'_>) -> Self {
        let mut own = Self {
            version: hello.version.0,
            random: hello.random.to_vec(),
            session: hello.session_id.unwrap_or_default().to_vec(),
            ciphers: vec![hello.cipher.0],
            ..Self::default()
        };
        own.read_extensions(hello.ext.unwrap_or_default(), false);
        own
    }

    /// Bytes that it takes besides its place.
    pub(super) fn taken(&self) -> usize {
        let words = [
            &self.ciphers,
            &self.extensions,
            &self.groups,
            &self.signatures,
            &self.versions,
        ];
        let bytes = [&self.random, &self.session, &self.points];
        let names = self.name.iter().chain(&self.protocols);
        words.map(held).iter().sum::<usize>()
            + bytes.map(held).iter().sum::<usize>()
            + names.map(held).sum::<usize>()
            + held(&self.protocols)
    }

    /// The version that a server has chosen, or the highest that a client offers.
    pub(super) fn version_in_use(&self) -> u16 {
        let offered = self.versions.iter().copied().filter(|it| !is_grease(*it));
        offered.max().unwrap_or(self.version)
    }

    /// What cannot be read ends them.
    fn read_extensions(&mut self, mut bytes: &[u8], of_client: bool) {
        while let Some((kind, rest)) = word(bytes) {
            let Some((data, rest)) = counted(rest, 2) else {
                break;
            };
            bytes = rest;
            self.extensions.push(kind);
            match kind {
                extension::SERVER_NAME if of_client => {
                    // A list of types and names: the first that is a host's.
                    let mut list = counted(data, 2).map_or(&[][..], |(list, _)| list);
                    while let Some((kind, rest)) = list.split_first() {
                        let Some((name, rest)) = counted(rest, 2) else {
                            break;
                        };
                        if *kind == 0 && self.name.is_none() {
                            self.name = Some(name.to_vec());
                        }
                        list = rest;
                    }
                }
                extension::GROUPS => self.groups = words(counted(data, 2)),
                extension::POINTS => {
                    self.points = counted(data, 1).map_or_else(Vec::new, |(it, _)| it.to_vec());
                }
                extension::SIGNATURES => self.signatures = words(counted(data, 2)),
                extension::ALPN => {
                    let mut list = counted(data, 2).map_or(&[][..], |(list, _)| list);
                    while let Some((name, rest)) = counted(list, 1) {
                        self.protocols.push(name.to_vec());
                        list = rest;
                    }
                }
                extension::VERSIONS if of_client => self.versions = words(counted(data, 1)),
                extension::VERSIONS => self.versions.extend(word(data).map(|(it, _)| it)),
                _ => {}
            }
        }
    }
}

fn word(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let (word, rest) = bytes.split_first_chunk::<2>()?;
    Some((u16::from_be_bytes(*word), rest))
}

/// Bytes behind their number, which has so many bytes itself.
fn counted(bytes: &[u8], width: usize) -> Option<(&[u8], &[u8])> {
    let (number, rest) = bytes.split_at_checked(width)?;
    let length = number
        .iter()
        .fold(0, |sum, byte| sum << 8 | usize::from(*byte));
    rest.split_at_checked(length)
}

fn words(counted: Option<(&[u8], &[u8])>) -> Vec<u16> {
    let bytes = counted.map_or(&[][..], |(bytes, _)| bytes);
    let pairs = bytes.chunks_exact(2);
    pairs
        .map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
        .collect()
}

/// RFC 8701: values that mean nothing.
const fn is_grease(value: u16) -> bool {
    value & 0x0f0f == 0x0a0a && value >> 8 == value & 0xff
}

fn joined(values: impl Iterator<Item = u16>) -> String {
    let values = values.filter(|it| !is_grease(*it));
    values
        .map(|it| it.to_string())
        .collect::<Vec<_>>()
        .join("-")
}

fn hashed(string: String) -> (String, String) {
    let hash = hex(&Md5::digest(string.as_bytes()));
    (string, hash)
}

/// Bytes as digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The string and its hash.
pub(super) fn ja3(hello: &Hello) -> (String, String) {
    hashed(format!(
        "{},{},{},{},{}",
        hello.version,
        joined(hello.ciphers.iter().copied()),
        joined(hello.extensions.iter().copied()),
        joined(hello.groups.iter().copied()),
        joined(hello.points.iter().map(|it| u16::from(*it))),
    ))
}

/// The same of a server.
pub(super) fn ja3s(hello: &Hello) -> (String, String) {
    hashed(format!(
        "{},{},{}",
        hello.version,
        joined(hello.ciphers.iter().copied()),
        joined(hello.extensions.iter().copied()),
    ))
}

/// `transport` is `t` for TCP, `q` for QUIC.
pub(super) fn ja4(hello: &Hello, transport: &str) -> String {
    let version = match hello.version_in_use() {
        0x0304 => "13",
        0x0303 => "12",
        0x0302 => "11",
        0x0301 => "10",
        0x0300 => "s3",
        0x0002 => "s2",
        _ => "00",
    };
    let named = if hello.name.is_some() { 'd' } else { 'i' };
    let known = |values: &[u16]| -> Vec<u16> {
        values
            .iter()
            .copied()
            .filter(|it| !is_grease(*it))
            .collect()
    };
    let mut ciphers = known(&hello.ciphers);
    let mut extensions = known(&hello.extensions);
    let (cipher_count, extension_count) = (ciphers.len().min(99), extensions.len().min(99));
    let protocol = match hello.protocols.first().map(Vec::as_slice) {
        None | Some([]) => "00".to_owned(),
        Some(name) => {
            let (first, last) = (name[0], name[name.len() - 1]);
            match first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric() {
                true => format!("{}{}", char::from(first), char::from(last)),
                false => {
                    let digits = hex(name);
                    format!("{}{}", &digits[..1], &digits[digits.len() - 1..])
                }
            }
        }
    };
    ciphers.sort_unstable();
    extensions.retain(|it| !matches!(*it, extension::SERVER_NAME | extension::ALPN));
    extensions.sort_unstable();
    let list = |values: &[u16]| {
        let values = values.iter().map(|it| format!("{it:04x}"));
        values.collect::<Vec<_>>().join(",")
    };
    let short = |text: String, empty: bool| match empty {
        true => "000000000000".to_owned(),
        false => hex(&Sha256::digest(text.as_bytes()))[..12].to_owned(),
    };
    let mut others = list(&extensions);
    if !hello.signatures.is_empty() {
        others = format!("{others}_{}", list(&known(&hello.signatures)));
    }
    format!(
        "{transport}{version}{named}{cipher_count:02}{extension_count:02}{protocol}_{}_{}",
        short(list(&ciphers), ciphers.is_empty()),
        short(others, extensions.is_empty()),
    )
}
