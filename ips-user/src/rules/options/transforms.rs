//! Transforms: what is done with a buffer before it is looked at.

use super::super::ast::{Base64Mode, Transform};
use super::super::finding::Finding;
use super::super::item::Item;
use super::number::{ranged, signed};
use super::{Builder, Handler};

pub(super) const KEYWORDS: &[(&str, Handler)] = &[
    ("compress_whitespace", plain),
    ("strip_whitespace", plain),
    ("dotprefix", plain),
    ("domain", plain),
    ("tld", plain),
    ("to_md5", plain),
    ("to_sha1", plain),
    ("to_sha256", plain),
    ("to_lowercase", plain),
    ("to_uppercase", plain),
    ("header_lowercase", plain),
    ("strip_pseudo_headers", plain),
    ("url_decode", plain),
    ("from_base64", from_base64),
    ("xor", xor),
    ("pcrexform", pcrexform),
    ("gunzip", inflate),
    ("zlib_deflate", inflate),
    ("subslice", subslice),
];

/// Transforms without options.
const PLAIN: [Transform; 13] = [
    Transform::CompressWhitespace,
    Transform::StripWhitespace,
    Transform::DotPrefix,
    Transform::Domain,
    Transform::TopLevelDomain,
    Transform::Md5,
    Transform::Sha1,
    Transform::Sha256,
    Transform::Lowercase,
    Transform::Uppercase,
    Transform::HeaderLowercase,
    Transform::StripPseudoHeaders,
    Transform::UrlDecode,
];

/// What decompression may make of a buffer, when the rule does not say.
const DEFAULT_MAX_SIZE: u32 = 1024;

type Done = Result<(), Finding>;

fn plain(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    item.no_value()?;
    let transform = PLAIN
        .iter()
        .find(|transform| transform.keyword().eq_ignore_ascii_case(item.name));
    match transform {
        Some(transform) => builder.layout.transform(transform.clone(), item.name_span),
        None => Ok(()),
    }
}

fn from_base64(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    let modes = [
        ("rfc4648", Base64Mode::Rfc4648),
        ("rfc2045", Base64Mode::Rfc2045),
        ("strict", Base64Mode::Strict),
    ];
    let (mut bytes, mut offset, mut mode) = (0, 0, Base64Mode::Rfc4648);
    if let Some(text) = item.optional_text()? {
        for part in text.split(',') {
            let (word, rest) = part.first_word();
            match word.as_str().trim_end_matches(':') {
                "bytes" => bytes = ranged(rest, 1, u32::from(u16::MAX))?,
                "offset" => offset = ranged(rest, 0, u32::from(u16::MAX))?,
                "mode" => mode = rest.choose("a mode of base64", &modes)?,
                _ => {
                    let words = ["bytes", "offset", "mode"];
                    return Err(word.not_one_of("an option of from_base64", &words));
                }
            }
        }
    }
    let transform = Transform::FromBase64 {
        bytes,
        offset,
        mode,
    };
    builder.layout.transform(transform, item.name_span)
}

fn xor(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    let text = item.text()?.unquoted();
    let digits = text.as_str();
    let hex = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !hex || digits.len() % 2 != 0 {
        return Err(text.fail(
            format!("`{digits}` is not a key in hexadecimal"),
            "two digits a byte: xor:\"0d0ac8ff\";",
        ));
    }
    let key = digits
        .as_bytes()
        .chunks(2)
        .filter_map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect();
    builder
        .layout
        .transform(Transform::Xor(key), item.name_span)
}

fn pcrexform(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    let value = item.bytes()?;
    let inside = item.quoted(value.bytes, value.span)?;
    let expression = String::from_utf8_lossy(inside.bytes).into_owned();
    let groups = expression.replace("\\(", "").matches('(').count();
    if groups == 0 {
        return Err(Finding::with_help(
            value.span,
            "the expression has no group",
            "what the first group `(…)` matches becomes the buffer",
        ));
    }
    builder
        .layout
        .transform(Transform::PcreCapture(expression), item.name_span)
}

fn inflate(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    let mut max_size = DEFAULT_MAX_SIZE;
    if let Some(text) = item.optional_text()? {
        let (word, rest) = text.first_word();
        if word.as_str() != "max-size" {
            return Err(word.not_one_of(&format!("an option of {}", item.name), &["max-size"]));
        }
        max_size = ranged(rest, 1, u32::MAX)?;
    }
    let transform = if item.name.eq_ignore_ascii_case("gunzip") {
        Transform::Gunzip { max_size }
    } else {
        Transform::Inflate { max_size }
    };
    builder.layout.transform(transform, item.name_span)
}

fn subslice(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    const LIMIT: i64 = i32::MAX as i64;
    let text = item.text()?;
    let (offset, length) = match text.split_once(",") {
        Some((offset, length)) => (offset, Some(signed(length, -LIMIT, LIMIT)? as i32)),
        None => (text, None),
    };
    let transform = Transform::Subslice {
        offset: signed(offset, -LIMIT, LIMIT)? as i32,
        length,
    };
    builder.layout.transform(transform, item.name_span)
}
