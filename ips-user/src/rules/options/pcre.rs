//! `pcre`: an expression, its flags, the buffer that a flag may choose, and the variables that
//! its groups set.

use super::super::ast::{AppBuffer, Buffer, Capture, CaptureScope, Match, Pcre};
use super::super::finding::Finding;
use super::super::item::{Item, Quoted};
use super::super::source::Span;
use super::super::text::Text;
use super::sections::Pending;
use super::{Builder, Handler};

pub(super) const KEYWORDS: &[(&str, Handler)] = &[("pcre", pcre)];

const SHAPE: &str = "pcre:\"/expression/flags\";";

/// Most variables of one expression.
const MAX_CAPTURES: usize = 8;

fn pcre(builder: &mut Builder<'_>, item: &Item<'_>) -> Result<(), Finding> {
    let value = item.bytes()?;
    let (negated, bytes) = match value.bytes.strip_prefix(b"!") {
        Some(rest) => (true, rest.trim_ascii_start()),
        None => (false, value.bytes),
    };
    let span = Span {
        start: value.span.end - bytes.len(),
        end: value.span.end,
    };
    let parts = split(unquoted(item, bytes, span)?)?;
    balanced(parts.expression)?;
    let mut pcre = Pcre {
        expression: printable(parts.expression.bytes),
        negated,
        relative: false,
        caseless: false,
        multi_line: false,
        dot_all: false,
        extended: false,
        anchored: false,
        dollar_end_only: false,
        ungreedy: false,
        override_limits: false,
        captures: captures(parts)?,
    };
    let chosen = flags(&mut pcre, parts.flags)?;
    let section = match (chosen, builder.layout.sticky()) {
        (Some(buffer), Some(sticky)) if !is_same(buffer, sticky) => {
            return Err(Finding::with_help(
                span_of(parts.flags),
                format!(
                    "a flag chooses `{}`, but the sticky buffer `{}` stands before",
                    buffer.name(),
                    sticky.name()
                ),
                "`pkt_data;` before it ends the sticky buffer; or take the flag away",
            ));
        }
        (Some(buffer), None) => builder.layout.section_of(buffer, span),
        _ => builder.layout.here(span),
    };
    builder
        .layout
        .push(section, Pending::Done(Match::Pcre(pcre)), span);
    Ok(())
}

/// The quotes may be left out: `pcre:/expression/flags`.
fn unquoted<'a>(item: &Item<'a>, bytes: &'a [u8], span: Span) -> Result<Quoted<'a>, Finding> {
    if bytes.starts_with(b"/") {
        let at = span.start;
        return Ok(Quoted { bytes, at });
    }
    item.quoted(bytes, span)
}

/// `Q`, the response body, is also what `file.data` has of a response.
fn is_same(chosen: Buffer, sticky: Buffer) -> bool {
    let response = Buffer::App(AppBuffer::HttpResponseBody);
    chosen == sticky || (chosen == response && sticky == Buffer::App(AppBuffer::FileData))
}

fn span_of(part: Quoted<'_>) -> Span {
    Span {
        start: part.at,
        end: part.at + part.bytes.len(),
    }
}

#[derive(Clone, Copy)]
struct Parts<'a> {
    expression: Quoted<'a>,
    flags: Quoted<'a>,
    /// What follows the first comma behind the flags.
    captures: Option<Quoted<'a>>,
}

/// `/expression/flags[, variables]`. Names of variables may have slashes, and so may the
/// expression.
fn split(inside: Quoted<'_>) -> Result<Parts<'_>, Finding> {
    let fail = |message: &str| {
        Err(Finding::with_help(
            span_of(inside),
            message.to_owned(),
            SHAPE,
        ))
    };
    let part = |from: usize, to: usize| Quoted {
        bytes: &inside.bytes[from..to],
        at: inside.at + from,
    };
    if inside.bytes.first() != Some(&b'/') {
        return fail("an expression begins with `/`");
    }
    let mut last = None;
    let mut at = 1;
    while let Some(&byte) = inside.bytes.get(at) {
        match byte {
            b'\\' => at += 1,
            b'/' => {
                last = Some(at);
                if let Some(comma) = variables_follow(&inside.bytes[at + 1..]) {
                    let comma = at + 1 + comma;
                    return Ok(Parts {
                        expression: part(1, at),
                        flags: part(at + 1, comma),
                        captures: Some(part(comma + 1, inside.bytes.len())),
                    });
                }
            }
            _ => {}
        }
        at += 1;
    }
    let Some(end) = last else {
        return fail("an expression ends with `/`");
    };
    if end == 1 {
        return fail("empty expression");
    }
    Ok(Parts {
        expression: part(1, end),
        flags: part(end + 1, inside.bytes.len()),
        captures: None,
    })
}

/// Whether flags, a comma and a variable follow; where the comma is.
fn variables_follow(bytes: &[u8]) -> Option<usize> {
    let letters = bytes
        .iter()
        .take_while(|byte| byte.is_ascii_alphabetic())
        .count();
    let rest = bytes[letters..].trim_ascii_start();
    let comma = bytes.len() - rest.len();
    let names = rest.strip_prefix(b",")?.trim_ascii_start();
    SCOPES
        .iter()
        .any(|(word, _)| names.starts_with(word.as_bytes()))
        .then_some(comma)
}

/// The expression as text: bytes that are not UTF-8 in hexadecimal, which means the same.
fn printable(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

const SCOPES: [(&str, CaptureScope); 3] = [
    ("flow:", CaptureScope::Flow),
    ("pkt:", CaptureScope::Packet),
    ("alert:", CaptureScope::Alert),
];

/// The variables, listed behind the flags or named in the expression: `(?P<flow_name>…)`.
fn captures(parts: Parts<'_>) -> Result<Vec<Capture>, Finding> {
    let groups = groups(parts.expression.bytes);
    let Some(list) = parts.captures else {
        let named = groups.first().and_then(|name| name.as_deref());
        let scopes = [
            ("flow_", CaptureScope::Flow),
            ("pkt_", CaptureScope::Packet),
        ];
        let found = named.and_then(|name| {
            let of = |(prefix, scope)| Some((name.strip_prefix(prefix)?, scope));
            scopes.into_iter().find_map(of)
        });
        return Ok(found
            .map(|(name, scope)| Capture {
                scope,
                name: name.to_owned(),
            })
            .into_iter()
            .collect());
    };
    let text = std::str::from_utf8(list.bytes).map_err(|_| {
        Finding::with_help(
            span_of(list),
            "the names of variables are not UTF-8",
            "flow:name",
        )
    })?;
    let list = Text::new(text, list.at);
    let captures = list
        .split(',')
        .map(|text| {
            SCOPES
                .iter()
                .find_map(|(word, scope)| Some((text.strip_prefix(word)?, *scope)))
                .filter(|(name, _)| !name.is_empty())
                .map(|(name, scope)| Capture {
                    scope,
                    name: name.as_str().to_owned(),
                })
                .ok_or_else(|| {
                    text.fail(
                        format!("`{}` is not a variable", text.as_str()),
                        "flow:name, pkt:name or alert:name",
                    )
                })
        })
        .collect::<Result<Vec<_>, _>>()?;
    if captures.len() > groups.len() {
        return Err(list.fail(
            format!(
                "{} variables, but the expression has {} groups",
                captures.len(),
                groups.len()
            ),
            "each variable gets what one group `(…)` matches, in their order",
        ));
    }
    if captures.len() > MAX_CAPTURES {
        return Err(list.fail("too many variables", format!("at most {MAX_CAPTURES}")));
    }
    Ok(captures)
}

/// The capturing groups of an expression, each with its name.
fn groups(expression: &[u8]) -> Vec<Option<String>> {
    let mut groups = Vec::new();
    walk(expression, |at, byte| {
        if byte != b'(' {
            return;
        }
        let rest = &expression[at + 1..];
        let Some(rest) = rest.strip_prefix(b"?") else {
            if !rest.starts_with(b"*") {
                groups.push(None);
            }
            return;
        };
        let named = rest.strip_prefix(b"P").unwrap_or(rest);
        let name = match named.first() {
            Some(b'<') if !matches!(named.get(1), Some(b'=' | b'!')) => Some(b'>'),
            Some(b'\'') => Some(b'\''),
            _ => None,
        };
        if let Some(end) = name {
            let name = named[1..].iter().take_while(|&&byte| byte != end);
            let name: Vec<u8> = name.copied().collect();
            groups.push(Some(String::from_utf8_lossy(&name).into_owned()));
        }
    });
    groups
}

/// Calls `see` for every byte that is neither escaped nor in a class nor between `\Q` and `\E`;
/// for the `[` of a class, too, and `]` at its end. Returns where a class or escape is not ended.
fn walk(expression: &[u8], mut see: impl FnMut(usize, u8)) -> Option<usize> {
    let mut at = 0;
    while let Some(&byte) = expression.get(at) {
        match byte {
            b'\\' if expression.get(at + 1) == Some(&b'Q') => {
                let rest = &expression[at + 2..];
                let end = rest.windows(2).position(|pair| pair == b"\\E");
                at = end.map_or(expression.len(), |end| at + 2 + end + 1);
            }
            b'\\' => {
                if at + 1 == expression.len() {
                    return Some(at);
                }
                at += 1;
            }
            b'[' => match class_end(expression, at) {
                Some(end) => at = end,
                None => return Some(at),
            },
            _ => see(at, byte),
        }
        at += 1;
    }
    None
}

/// Where the class that begins at `from` ends.
fn class_end(expression: &[u8], from: usize) -> Option<usize> {
    let mut at = from + 1;
    if expression.get(at) == Some(&b'^') {
        at += 1;
    }
    // A `]` in front is itself a member.
    if expression.get(at) == Some(&b']') {
        at += 1;
    }
    while let Some(&byte) = expression.get(at) {
        match byte {
            b'\\' => at += 1,
            b'[' if matches!(expression.get(at + 1), Some(b':' | b'.' | b'=')) => {
                let kind = expression[at + 1];
                let rest = &expression[at + 2..];
                if let Some(end) = rest.windows(2).position(|pair| pair == [kind, b']']) {
                    at += 2 + end + 1;
                }
            }
            b']' => return Some(at),
            _ => {}
        }
        at += 1;
    }
    None
}

/// Brackets and parentheses that do not match are told with their place; everything else that
/// is wrong with an expression is told when it is compiled.
fn balanced(expression: Quoted<'_>) -> Result<(), Finding> {
    let mut open = Vec::new();
    let mut stray = None;
    let unended = walk(expression.bytes, |at, byte| match byte {
        b'(' => open.push(at),
        b')' if open.pop().is_none() && stray.is_none() => stray = Some(at),
        _ => {}
    });
    // In the extended form `#` begins a comment that may have anything in it.
    if expression.bytes.contains(&b'#') && (stray.is_some() || !open.is_empty()) {
        return Ok(());
    }
    let (at, message, help) = match (unended, stray, open.first()) {
        (Some(at), _, _) => (
            at,
            "not ended",
            "`]` ends a class; a literal one is written \\[",
        ),
        (None, Some(at), _) => (at, "`)` without `(`", "a literal one is written \\)"),
        (None, None, Some(&at)) => (at, "`(` without `)`", "a literal one is written \\("),
        (None, None, None) => return Ok(()),
    };
    let span = Span {
        start: expression.at + at,
        end: expression.at + at + 1,
    };
    Err(Finding::with_help(
        span,
        format!("in the expression: {message}"),
        help,
    ))
}

/// Sets what the flags say; the buffer that one of them chooses.
fn flags(pcre: &mut Pcre, flags: Quoted<'_>) -> Result<Option<Buffer>, Finding> {
    let mut chosen: Option<AppBuffer> = None;
    for (index, &flag) in flags.bytes.iter().enumerate() {
        let span = Span {
            start: flags.at + index,
            end: flags.at + index + 1,
        };
        let buffer = match flag {
            b'i' => Err(&mut pcre.caseless),
            b'm' => Err(&mut pcre.multi_line),
            b's' => Err(&mut pcre.dot_all),
            b'x' => Err(&mut pcre.extended),
            b'A' => Err(&mut pcre.anchored),
            b'E' => Err(&mut pcre.dollar_end_only),
            b'G' => Err(&mut pcre.ungreedy),
            b'R' => Err(&mut pcre.relative),
            b'O' => Err(&mut pcre.override_limits),
            // `B`, raw bytes, is what is searched anyway.
            b'B' | b' ' => continue,
            b'U' => Ok(AppBuffer::HttpUri),
            b'I' => Ok(AppBuffer::HttpUriRaw),
            b'P' => Ok(AppBuffer::HttpRequestBody),
            b'Q' => Ok(AppBuffer::HttpResponseBody),
            b'H' => Ok(AppBuffer::HttpHeader),
            b'D' => Ok(AppBuffer::HttpHeaderRaw),
            b'M' => Ok(AppBuffer::HttpMethod),
            b'C' | b'K' => Ok(AppBuffer::HttpCookie),
            b'S' => Ok(AppBuffer::HttpStatCode),
            b'Y' => Ok(AppBuffer::HttpStatMsg),
            b'V' => Ok(AppBuffer::HttpUserAgent),
            b'W' => Ok(AppBuffer::HttpHost),
            _ => {
                return Err(Finding::with_help(
                    span,
                    format!("`{}` is not a flag of pcre", flag.escape_ascii()),
                    "flags: i m s x A E G R O, and for a buffer one of U I P Q H D M C S Y V W",
                ));
            }
        };
        match (buffer, chosen) {
            (Err(set), _) => *set = true,
            (Ok(buffer), Some(other)) if buffer != other => {
                return Err(Finding::with_help(
                    span,
                    format!(
                        "two flags choose a buffer: `{}` and `{}`",
                        other.name(),
                        buffer.name()
                    ),
                    "one buffer a pcre",
                ));
            }
            (Ok(buffer), _) => chosen = Some(buffer),
        }
    }
    Ok(chosen.map(Buffer::App))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> Result<(String, String, usize), Finding> {
        let inside = Quoted {
            bytes: text.as_bytes(),
            at: 0,
        };
        let parts = split(inside)?;
        balanced(parts.expression)?;
        Ok((
            printable(parts.expression.bytes),
            printable(parts.flags.bytes),
            captures(parts)?.len(),
        ))
    }

    #[test]
    fn expression_flags_and_variables_are_told_apart() {
        let check = |text: &str, expression: &str, flags: &str, captures: usize| {
            assert_eq!(
                parts(text),
                Ok((expression.to_owned(), flags.to_owned(), captures)),
                "{text}"
            );
        };
        check("/a/", "a", "", 0);
        check("/a/b/iU", "a/b", "iU", 0);
        check(r"/a\/b/", r"a\/b", "", 0);
        check(
            r"/^(.*)\/(\d+)/VG, flow:key,flow:value",
            r"^(.*)\/(\d+)",
            "VG",
            2,
        );
        check("/(a)/R,flow:x/y", "(a)", "R", 1);
        check("/(?P<flow_name>a)/", "(?P<flow_name>a)", "", 1);
        check("/(?:a)[(]\\(/", "(?:a)[(]\\(", "", 0);
    }

    #[test]
    fn what_is_wrong_with_an_expression_is_placed() {
        let check = |text: &str, at: usize, message: &str| {
            let found = parts(text).unwrap_err();
            assert!(found.message.contains(message), "{text}: {found:?}");
            assert_eq!(found.span.start, at, "{text}");
            assert!(found.help.is_some());
        };
        check("a", 0, "begins with");
        check("/a", 0, "ends with");
        check("//", 0, "empty");
        check("/a(b/", 2, "`(` without");
        check("/ab)/", 3, "`)` without");
        check("/a[b/", 2, "not ended");
        check("/a/,flow:x", 4, "0 groups");
        check("/(a)/,flow:", 6, "not a variable");
    }
}
