//! What rules can ask of the protocols that are taken apart.

use super::content::Asked;
use super::dns::names;
use super::file::HashKind;
use crate::flow::PacketDirection;
use crate::rules::ast::{AppBuffer, Compare};
use crate::rules::comparison;

/// Whether transactions have this buffer.
pub(crate) const fn has(buffer: AppBuffer) -> bool {
    matches!(
        buffer,
        AppBuffer::DnsQuery
            | AppBuffer::DnsQueryName
            | AppBuffer::DnsQueriesRrname
            | AppBuffer::DnsAnswerName
            | AppBuffer::DnsAnswersRrname
            | AppBuffer::DnsAuthoritiesRrname
            | AppBuffer::DnsAdditionalsRrname
            | AppBuffer::DnsResponseRrname
            | AppBuffer::FileData
            | AppBuffer::FileName
            | AppBuffer::HttpUri
            | AppBuffer::HttpUriRaw
            | AppBuffer::HttpMethod
            | AppBuffer::HttpRequestLine
            | AppBuffer::HttpRequestBody
            | AppBuffer::HttpHeader
            | AppBuffer::HttpHeaderRaw
            | AppBuffer::HttpHeaderNames
            | AppBuffer::HttpRequestHeader
            | AppBuffer::HttpResponseHeader
            | AppBuffer::HttpCookie
            | AppBuffer::HttpUserAgent
            | AppBuffer::HttpAccept
            | AppBuffer::HttpAcceptEnc
            | AppBuffer::HttpAcceptLang
            | AppBuffer::HttpReferer
            | AppBuffer::HttpHost
            | AppBuffer::HttpHostRaw
            | AppBuffer::HttpConnection
            | AppBuffer::HttpContentLen
            | AppBuffer::HttpContentType
            | AppBuffer::HttpLocation
            | AppBuffer::HttpServer
            | AppBuffer::HttpStart
            | AppBuffer::HttpProtocol
            | AppBuffer::HttpStatCode
            | AppBuffer::HttpStatMsg
            | AppBuffer::HttpResponseLine
            | AppBuffer::HttpResponseBody
            | AppBuffer::TlsSni
            | AppBuffer::TlsAlpn
            | AppBuffer::TlsCertSubject
            | AppBuffer::TlsCertIssuer
            | AppBuffer::TlsCertSerial
            | AppBuffer::TlsCertFingerprint
            | AppBuffer::TlsCerts
            | AppBuffer::TlsSubjectAltName
            | AppBuffer::TlsRandom
            | AppBuffer::TlsRandomTime
            | AppBuffer::TlsRandomBytes
            | AppBuffer::Ja3Hash
            | AppBuffer::Ja3String
            | AppBuffer::Ja3sHash
            | AppBuffer::Ja3sString
            | AppBuffer::Ja4Hash
            | AppBuffer::SshProto
            | AppBuffer::SshSoftware
            | AppBuffer::SshHassh
            | AppBuffer::SshHasshString
            | AppBuffer::SshHasshServer
            | AppBuffer::SshHasshServerString
            | AppBuffer::SmtpHelo
            | AppBuffer::SmtpMailFrom
            | AppBuffer::SmtpRcptTo
            | AppBuffer::EmailFrom
            | AppBuffer::EmailTo
            | AppBuffer::EmailCc
            | AppBuffer::EmailSubject
            | AppBuffer::EmailDate
            | AppBuffer::EmailMessageId
            | AppBuffer::EmailXMailer
            | AppBuffer::EmailUrl
            | AppBuffer::EmailReceived
            | AppBuffer::EmailBodyMd5
    )
}

/// What a keyword with this value asks; `None` for one that nobody answers.
pub(crate) fn asked(keyword: &str, value: &str) -> Option<Asked> {
    Some(match keyword {
        "dns.opcode" => Asked::DnsOpcode(comparison(value)?),
        "dns.rcode" => Asked::DnsRcode(named(value, names::rcode_named)?),
        "dns.rrtype" => Asked::DnsType(named(value, names::kind_named)?),
        "filename" | "fileext" => {
            let (negated, text) = quoted(value);
            Asked::FileName {
                text,
                extension: keyword == "fileext",
                negated,
            }
        }
        "filesize" => {
            let (direction, value) = toward(value);
            let asked = Asked::FileSize(comparison(value)?);
            match direction {
                Some(direction) => Asked::Toward(direction, Box::new(asked)),
                None => asked,
            }
        }
        "tls.version" | "ssl_version" => Asked::TlsVersion(tls_version(value)?),
        "tls.cert_chain_len" => Asked::TlsChainLength(comparison(value)?),
        "tls.subject" => tls_text(AppBuffer::TlsCertSubject, value),
        "tls.issuerdn" => tls_text(AppBuffer::TlsCertIssuer, value),
        "tls.fingerprint" => tls_text(AppBuffer::TlsCertFingerprint, &value.to_ascii_lowercase()),
        _ => return None,
    })
}

/// The direction in front of a value, and what follows it.
fn toward(value: &str) -> (Option<PacketDirection>, &str) {
    let (first, rest) = value.split_once(',').unwrap_or((value, ""));
    match first.trim() {
        "to_server" | "toserver" => (Some(PacketDirection::ToServer), rest),
        "to_client" | "toclient" => (Some(PacketDirection::ToClient), rest),
        _ => (None, value),
    }
}

fn tls_version(name: &str) -> Option<u16> {
    Some(
        match name.trim().trim_matches('"').to_ascii_lowercase().as_str() {
            "sslv2" => 0x0002,
            "sslv3" => 0x0300,
            "1.0" | "tls1.0" => 0x0301,
            "1.1" | "tls1.1" => 0x0302,
            "1.2" | "tls1.2" => 0x0303,
            "1.3" | "tls1.3" => 0x0304,
            _ => return None,
        },
    )
}

fn tls_text(of: AppBuffer, value: &str) -> Asked {
    let (negated, text) = quoted(value);
    Asked::TlsText { of, text, negated }
}

/// Whether a `!` stands in front, and what it stands in front of, without quotation marks.
fn quoted(value: &str) -> (bool, String) {
    let value = value.trim();
    let (negated, text) = match value.strip_prefix('!') {
        Some(rest) => (true, rest),
        None => (false, value),
    };
    (negated, text.trim().trim_matches('"').to_owned())
}

/// The kind of hash that a keyword takes a list of, whether a `!` stands in front, and the file.
pub(crate) fn hash_list(keyword: &str, value: &str) -> Option<(HashKind, bool, String)> {
    let kind = HashKind::ALL.into_iter();
    let mut kind = kind.filter(|it| keyword.strip_prefix("file") == Some(it.name()));
    let (negated, file) = quoted(value);
    Some((kind.next()?, negated, file))
}

/// The event that rules call this, `dns.malformed_data` for example.
pub(crate) fn event(name: &str) -> Option<&'static str> {
    let (protocol, event) = name.split_once('.')?;
    match protocol {
        "dns" => super::dns::EVENTS.into_iter().find(|it| *it == event),
        "http" | "http1" => super::http1::event::known(event),
        "smtp" => super::smtp::EVENTS.into_iter().find(|it| *it == event),
        "ssh" => super::ssh::EVENTS.into_iter().find(|it| *it == event),
        "tls" | "ssl" => super::tls::EVENTS.into_iter().find(|it| *it == event),
        _ => None,
    }
}

/// A comparison with a number, or with the one that has a name.
fn named(value: &str, number: impl Fn(&str) -> Option<u16>) -> Option<Compare<u16>> {
    comparison(value).or_else(|| {
        let text = value.trim();
        match text.strip_prefix('!') {
            Some(name) => number(name.trim()).map(Compare::NotEqual),
            None => number(text).map(Compare::Equal),
        }
    })
}
