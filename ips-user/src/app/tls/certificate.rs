//! What is shown of a certificate (RFC 5280).

use std::net::IpAddr;

use crate::bounded::{heap, held};
use sha1::{Digest as _, Sha1};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// A server's certificate.
#[derive(Debug, Default)]
pub(super) struct Certificate {
    pub(super) subject: String,
    pub(super) issuer: String,
    /// Bytes as digits with colons between them.
    pub(super) serial: String,
    /// SHA-1 of the whole, in the same way.
    pub(super) fingerprint: String,
    /// Seconds since 1970.
    pub(super) not_before: i64,
    pub(super) not_after: i64,
    /// `subjectAltName`
    pub(super) names: Vec<String>,
}

impl Certificate {
    /// Bytes that it takes besides its place.
    pub(super) fn taken(&self) -> usize {
        let texts = [&self.subject, &self.issuer, &self.serial, &self.fingerprint];
        let texts = texts.into_iter().chain(&self.names);
        held(&self.names) + texts.map(|it| heap(it.capacity())).sum::<usize>()
    }

    /// `None` when it is none.
    pub(super) fn read(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let names = certificate.subject_alternative_name().ok().flatten();
        let names = names.map_or(&[][..], |it| &it.value.general_names);
        Some(Self {
            subject: certificate.subject().to_string(),
            issuer: certificate.issuer().to_string(),
            serial: digits(certificate.raw_serial()).to_uppercase(),
            fingerprint: digits(&Sha1::digest(der)),
            not_before: certificate.validity().not_before.timestamp(),
            not_after: certificate.validity().not_after.timestamp(),
            names: names.iter().filter_map(name).collect(),
        })
    }
}

fn digits(bytes: &[u8]) -> String {
    let digits = bytes.iter().map(|byte| format!("{byte:02x}"));
    digits.collect::<Vec<_>>().join(":")
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    Some(match name {
        GeneralName::DNSName(text) | GeneralName::RFC822Name(text) | GeneralName::URI(text) => {
            (*text).to_owned()
        }
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => IpAddr::from(<[u8; 4]>::try_from(*bytes).ok()?).to_string(),
            16 => IpAddr::from(<[u8; 16]>::try_from(*bytes).ok()?).to_string(),
            _ => return None,
        },
        GeneralName::DirectoryName(name) => name.to_string(),
        _ => return None,
    })
}
