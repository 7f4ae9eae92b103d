//! Sticky buffers and their modifiers, and matches about a buffer as a whole.

use super::super::ast::{AppBuffer, Asn1, Buffer, Compare, Match};
use super::super::diagnostic::shortened;
use super::super::finding::Finding;
use super::super::item::Item;
use super::super::text::Text;
use super::content;
use super::number::{compare, ranged, signed};
use super::sections::Pending;
use super::{Builder, Handler};

pub(super) const KEYWORDS: &[(&str, Handler)] = &[
    ("pkt_data", pkt_data),
    ("bsize", bsize),
    ("absent", absent),
    ("entropy", entropy),
    ("urilen", urilen),
    ("uricontent", uricontent),
    ("base64_decode", base64_decode),
    ("asn1", asn1),
];

/// Sticky buffers that are of the packet, not of an application protocol.
pub(super) const PACKET_BUFFERS: [Buffer; 10] = [
    Buffer::Ipv4Header,
    Buffer::Ipv6Header,
    Buffer::TcpHeader,
    Buffer::UdpHeader,
    Buffer::Icmpv4Header,
    Buffer::Icmpv6Header,
    Buffer::IgmpHeader,
    Buffer::IpSource,
    Buffer::IpDestination,
    Buffer::Base64Data,
];

/// Other names of sticky buffers.
pub(super) const ALIASES: [(&str, AppBuffer); 43] = {
    use AppBuffer as B;
    [
        ("file_data", B::FileData),
        ("http_accept", B::HttpAccept),
        ("http_accept_enc", B::HttpAcceptEnc),
        ("http_accept_lang", B::HttpAcceptLang),
        ("http_connection", B::HttpConnection),
        ("http_content_len", B::HttpContentLen),
        ("http_content_type", B::HttpContentType),
        ("http_header_names", B::HttpHeaderNames),
        ("http_location", B::HttpLocation),
        ("http_protocol", B::HttpProtocol),
        ("http_referer", B::HttpReferer),
        ("http_request_line", B::HttpRequestLine),
        ("http_response_line", B::HttpResponseLine),
        ("http_server", B::HttpServer),
        ("http_start", B::HttpStart),
        ("dns_query", B::DnsQuery),
        ("tls_sni", B::TlsSni),
        ("tls_alpn", B::TlsAlpn),
        ("tls_cert_subject", B::TlsCertSubject),
        ("tls_cert_issuer", B::TlsCertIssuer),
        ("tls_cert_serial", B::TlsCertSerial),
        ("tls_cert_fingerprint", B::TlsCertFingerprint),
        ("tls_certs", B::TlsCerts),
        ("ja3_hash", B::Ja3Hash),
        ("ja3_string", B::Ja3String),
        ("ja3s_hash", B::Ja3sHash),
        ("ja3s_string", B::Ja3sString),
        ("ja4_hash", B::Ja4Hash),
        ("ssh_proto", B::SshProto),
        ("ssh_software", B::SshSoftware),
        ("krb5_cname", B::KrbCname),
        ("krb5_sname", B::KrbSname),
        ("smb_named_pipe", B::SmbNamedPipe),
        ("smb_share", B::SmbShare),
        ("dce_stub_data", B::DceStubData),
        ("dnp3_data", B::Dnp3Data),
        ("rfb_name", B::RfbName),
        ("snmp_community", B::SnmpCommunity),
        ("snmp_usm", B::SnmpUsm),
        ("quic_version", B::QuicVersion),
        ("quic_sni", B::QuicSni),
        ("quic_ua", B::QuicUa),
        ("sip.ua", B::SipUserAgent),
    ]
};

/// Modifiers, which follow the content that they move to a buffer.
pub(super) const MODIFIERS: [(&str, AppBuffer); 14] = [
    ("http_uri", AppBuffer::HttpUri),
    ("http_raw_uri", AppBuffer::HttpUriRaw),
    ("http_method", AppBuffer::HttpMethod),
    ("http_header", AppBuffer::HttpHeader),
    ("http_raw_header", AppBuffer::HttpHeaderRaw),
    ("http_cookie", AppBuffer::HttpCookie),
    ("http_raw_cookie", AppBuffer::HttpCookie),
    ("http_client_body", AppBuffer::HttpRequestBody),
    ("http_server_body", AppBuffer::HttpResponseBody),
    ("http_stat_code", AppBuffer::HttpStatCode),
    ("http_stat_msg", AppBuffer::HttpStatMsg),
    ("http_user_agent", AppBuffer::HttpUserAgent),
    ("http_host", AppBuffer::HttpHost),
    ("http_raw_host", AppBuffer::HttpHostRaw),
];

type Done = Result<(), Finding>;

/// A sticky buffer; behind it may stand a direction.
pub(super) fn sticky(builder: &mut Builder<'_>, item: &Item<'_>, buffer: Buffer) -> Done {
    let directions = [("to_server", true), ("to_client", false)];
    let to_server = match (item.optional_text()?, buffer) {
        (None, _) => None,
        (Some(text), Buffer::App(app)) => {
            let to_server = text.choose("a direction", &directions)?;
            if app.to_server().is_some_and(|only| only != to_server) {
                return Err(text.fail(
                    format!("`{}` is never in this direction", app.name()),
                    format!("{};", item.name),
                ));
            }
            Some(to_server)
        }
        (Some(_), _) => return item.no_value(),
    };
    builder.uses(buffer, to_server, item)?;
    builder.layout.open(buffer, to_server, item.name_span)
}

/// A modifier that moves the content before it.
pub(super) fn modifier(builder: &mut Builder<'_>, item: &Item<'_>, buffer: Buffer) -> Done {
    item.no_value()?;
    if let Some(sticky) = builder.layout.sticky() {
        return Err(Finding::with_help(
            item.name_span,
            format!(
                "`{}` moves a content, but it stands behind the sticky buffer `{}`",
                item.name,
                sticky.name()
            ),
            format!(
                "`pkt_data;` before the content ends the sticky buffer; or write `{};` before it",
                buffer.name()
            ),
        ));
    }
    builder.uses(buffer, None, item)?;
    builder.layout.move_last_content(buffer, item.name_span)
}

fn pkt_data(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    item.no_value()?;
    builder.layout.close()
}

fn bsize(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    let text = item.text()?;
    let size = compare::<u64>(text)?;
    builder.needs_sticky(item)?;
    let section = builder.layout.here(item.name_span);
    let found = Pending::Done(Match::Size(size));
    builder.layout.push(section, found, text.span());
    Ok(())
}

fn absent(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    let or_else = match item.optional_text()? {
        None => false,
        Some(text) => text.choose("`or_else`", &[("or_else", true)])?,
    };
    builder.needs_sticky(item)?;
    let section = builder.layout.here(item.name_span);
    if !builder.layout.sections[section].slots.is_empty() {
        return Err(Finding::with_help(
            item.name_span,
            "`absent` stands before the matches in its buffer",
            "the buffer, `absent;` or `absent:or_else;`, then the others",
        ));
    }
    let found = Pending::Done(Match::Absent { or_else });
    builder.layout.push(section, found, item.name_span);
    Ok(())
}

/// Thousandths of a number up to 8 with decimals.
fn thousandths(text: Text<'_>) -> Result<u64, Finding> {
    text.as_str()
        .parse::<f64>()
        .ok()
        .filter(|number| (0.0..=8.0).contains(number))
        .map(|number| (number * 1000.0).round() as u64)
        .ok_or_else(|| {
            text.fail(
                format!("`{}` is not an entropy", shortened(text.as_str())),
                "a number of bits a byte, from 0.0 to 8.0",
            )
        })
}

fn entropy_value(text: Text<'_>) -> Result<Compare<u64>, Finding> {
    if let Some(rest) = text.strip_prefix("<=") {
        return thousandths(rest).map(Compare::AtMost);
    }
    if let Some(rest) = text.strip_prefix(">=") {
        return thousandths(rest).map(Compare::AtLeast);
    }
    if let Some(rest) = text.strip_prefix("<") {
        return thousandths(rest).map(Compare::Less);
    }
    if let Some(rest) = text.strip_prefix(">") {
        return thousandths(rest).map(Compare::Greater);
    }
    let (negated, rest) = text.negation();
    if let Some((low, high)) = rest.split_once("-") {
        let (low, high) = (thousandths(low)?, thousandths(high)?);
        return Ok(match negated {
            true => Compare::NotBetween(low, high),
            false => Compare::Between(low, high),
        });
    }
    let rest = rest.strip_prefix("=").unwrap_or(rest);
    Ok(match negated {
        true => Compare::NotEqual(thousandths(rest)?),
        false => Compare::Equal(thousandths(rest)?),
    })
}

fn entropy(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    let text = item.text()?;
    let (mut bytes, mut offset, mut value) = (0, 0, None);
    for part in text.split(',') {
        let (word, rest) = part.first_word();
        match word.as_str() {
            "bytes" => bytes = ranged(rest, 0, u32::MAX)?,
            "offset" => offset = ranged(rest, 0, u32::MAX)?,
            "value" => value = Some(entropy_value(rest)?),
            _ if value.is_none() => value = Some(entropy_value(part)?),
            _ => return Err(word.not_one_of("an option of entropy", &["bytes", "offset", "value"])),
        }
    }
    let Some(compare) = value else {
        return Err(text.fail("the value is missing", "entropy:value >= 7.5;"));
    };
    let section = builder.layout.here(item.name_span);
    let found = Pending::Done(Match::Entropy {
        bytes,
        offset,
        compare,
    });
    builder.layout.push(section, found, item.name_span);
    Ok(())
}

/// The length of the URI: the same as `bsize` in its buffer.
fn urilen(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    let text = item.text()?;
    let (size, buffer) = match text.split_once(",") {
        None => (text, AppBuffer::HttpUri),
        Some((size, kind)) => {
            let kinds = [("norm", AppBuffer::HttpUri), ("raw", AppBuffer::HttpUriRaw)];
            (size, kind.choose("`norm` or `raw`", &kinds)?)
        }
    };
    let size = compare::<u64>(size)?;
    let buffer = Buffer::App(buffer);
    builder.uses(buffer, None, item)?;
    let section = builder.layout.section_of(buffer, item.name_span);
    let found = Pending::Done(Match::Size(size));
    builder.layout.push(section, found, text.span());
    Ok(())
}

/// A content in the URI.
fn uricontent(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    if let Some(sticky) = builder.layout.sticky() {
        return Err(Finding::with_help(
            item.name_span,
            format!("`uricontent` behind the sticky buffer `{}`", sticky.name()),
            "http.uri; content:\"…\";",
        ));
    }
    let buffer = Buffer::App(AppBuffer::HttpUri);
    builder.uses(buffer, None, item)?;
    let section = builder.layout.section_of(buffer, item.name_span);
    content::add(builder, item, section)
}

fn base64_decode(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    let (mut bytes, mut offset, mut relative) = (None, 0, false);
    if let Some(text) = item.optional_text()? {
        for part in text.split(',') {
            let (word, rest) = part.first_word();
            match word.as_str() {
                "bytes" => bytes = Some(ranged(rest, 1, 65_536)?),
                "offset" => offset = ranged(rest, 0, u32::from(u16::MAX))?,
                "relative" => relative = true,
                _ => {
                    let words = ["bytes", "offset", "relative"];
                    return Err(word.not_one_of("an option of base64_decode", &words));
                }
            }
        }
    }
    let span = item.name_span;
    let section = if relative {
        builder.layout.relative(span)
    } else {
        builder.layout.here(span)
    };
    let found = Pending::Done(Match::Base64Decode {
        bytes,
        offset,
        relative,
    });
    builder.layout.push(section, found, span);
    Ok(())
}

fn asn1(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    let text = item.text()?;
    let mut asn1 = Asn1::default();
    for part in text.split(',') {
        // Snort writes a `!` or a second space here and there; the words are the same.
        let (word, rest) = part.first_word();
        match word.as_str() {
            "bitstring_overflow" => asn1.bitstring_overflow = true,
            "double_overflow" => asn1.double_overflow = true,
            "oversize_length" => asn1.oversize_length = Some(ranged(rest, 0, u32::MAX)?),
            "absolute_offset" => asn1.offset = signed(rest, 0, 65_535)? as i32,
            "relative_offset" => {
                asn1.offset = signed(rest, -65_535, 65_535)? as i32;
                asn1.relative = true;
            }
            _ => {
                let words = [
                    "bitstring_overflow",
                    "double_overflow",
                    "oversize_length",
                    "absolute_offset",
                    "relative_offset",
                ];
                return Err(word.not_one_of("an option of asn1", &words));
            }
        }
    }
    let found = Pending::Done(Match::Asn1(asn1));
    let section = builder.layout.here(item.name_span);
    builder.layout.push(section, found, item.name_span);
    Ok(())
}
