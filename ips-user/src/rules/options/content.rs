//! `content`, and how its modifiers add up.

use super::super::ast::{Content, FastPattern, Position, Value};
use super::super::diagnostic::shortened;
use super::super::finding::Finding;
use super::super::item::Item;
use super::super::source::Span;
use super::number::{ranged, signed};
use super::sections::Pending;
use super::{Builder, Handler};

/// Longest pattern in bytes.
const MAX_PATTERN: usize = 65_535;
/// Largest distance or within.
const MAX_RELATIVE: i64 = 1_048_576;

pub(super) const KEYWORDS: &[(&str, Handler)] = &[
    ("content", content),
    ("nocase", nocase),
    ("rawbytes", rawbytes),
    ("startswith", startswith),
    ("endswith", endswith),
    ("fast_pattern", fast_pattern),
    ("offset", offset),
    ("depth", depth),
    ("distance", distance),
    ("within", within),
    ("replace", replace),
];

/// The bytes that a quoted pattern (without its quotes, at `base`) stands for: `|41 42|` is
/// hexadecimal, a backslash takes `"`, `\`, `;`, `:` and `|` literally.
pub(super) fn pattern(text: &[u8], base: usize) -> Result<Vec<u8>, Finding> {
    let finding = |start: usize, end: usize, message: &str, help: &str| {
        let span = Span {
            start: base + start,
            end: base + end,
        };
        Finding::with_help(span, message, help)
    };
    let mut bytes = Vec::with_capacity(text.len());
    let mut hex_from: Option<usize> = None;
    let mut half: Option<(usize, u8)> = None;
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        match (hex_from, byte) {
            (Some(_), b'|') => {
                if let Some((digit_at, _)) = half.take() {
                    return Err(finding(
                        digit_at,
                        digit_at + 1,
                        "half a byte: an odd number of hexadecimal digits",
                        "write two digits for each byte, as in |0D 0A|",
                    ));
                }
                hex_from = None;
            }
            (None, b'|') => hex_from = Some(at),
            (Some(_), b' ' | b'\t') => {}
            (Some(_), digit) => {
                let Some(value) = (digit as char).to_digit(16) else {
                    return Err(finding(
                        at,
                        at + 1,
                        &format!("`{}` is not a hexadecimal digit", digit.escape_ascii()),
                        "between two `|` stand hexadecimal bytes; write a literal `|` as |7C|",
                    ));
                };
                match half.take() {
                    Some((_, high)) => bytes.push(high << 4 | value as u8),
                    None => half = Some((at, value as u8)),
                }
            }
            (None, b'\\') => {
                match text.get(at + 1) {
                    Some(&escaped @ (b'"' | b'\\' | b';' | b':' | b'|')) => bytes.push(escaped),
                    _ => {
                        return Err(finding(
                            at,
                            (at + 2).min(text.len()),
                            "unknown escape",
                            "a backslash itself is written `\\\\` or |5C|",
                        ));
                    }
                }
                at += 1;
            }
            (None, b'"') => {
                return Err(finding(
                    at,
                    at + 1,
                    "quote inside a pattern",
                    "write it as \\\" or |22|",
                ));
            }
            (None, literal) => bytes.push(literal),
        }
        at += 1;
    }
    if let Some(from) = hex_from {
        return Err(finding(
            from,
            text.len(),
            "`|` without a second `|`",
            "hexadecimal bytes stand between two of them; a literal one is |7C|",
        ));
    }
    if bytes.is_empty() {
        return Err(finding(
            0,
            text.len(),
            "empty pattern",
            "at least one byte between the quotes",
        ));
    }
    if bytes.len() > MAX_PATTERN {
        return Err(finding(
            0,
            text.len(),
            &format!("pattern longer than {MAX_PATTERN} bytes"),
            "a part of it is enough to find it",
        ));
    }
    Ok(bytes)
}

/// A `content` whose modifiers are still being collected.
#[derive(Clone, Debug, Default)]
pub(super) struct Draft {
    /// Empty: a stand-in for one that could not be read, so that its modifiers have a home.
    pub(super) pattern: Vec<u8>,
    pub(super) negated: bool,
    pub(super) nocase: bool,
    pub(super) fast_pattern: Option<(FastPattern, Span)>,
    pub(super) starts: Option<Span>,
    pub(super) ends: Option<Span>,
    pub(super) offset: Option<(Value<u32>, Span)>,
    pub(super) depth: Option<(Value<u32>, Span)>,
    pub(super) distance: Option<(Value<i32>, Span)>,
    pub(super) within: Option<(Value<i32>, Span)>,
    pub(super) replacement: Option<(Vec<u8>, Span)>,
}

impl Draft {
    pub(super) fn is_relative(&self) -> bool {
        self.distance.is_some() || self.within.is_some()
    }

    /// Checks that the modifiers go together.
    pub(super) fn finish(self) -> Result<Content, Finding> {
        let relative = self
            .distance
            .map(|(_, span)| span)
            .or(self.within.map(|(_, span)| span));
        let absolute = self
            .offset
            .map(|(_, span)| span)
            .or(self.depth.map(|(_, span)| span));
        if let (Some(span), Some(_)) = (relative, absolute) {
            return Err(Finding::with_help(
                span,
                "one content cannot be both relative (distance, within) and absolute (offset, depth)",
                "distance and within go together, and offset and depth",
            ));
        }
        if let (Some(span), true) = (self.starts, relative.is_some() || absolute.is_some()) {
            return Err(Finding::with_help(
                span,
                "startswith goes with none of offset, depth, distance, within",
                "it means offset:0 and the depth of the content: take the others away",
            ));
        }
        self.long_enough()?;
        self.check_fast_pattern()?;
        let position = if relative.is_some() {
            Position::Relative {
                distance: self
                    .distance
                    .map_or(Value::Literal(0), |(distance, _)| distance),
                within: self.within.map(|(within, _)| within),
            }
        } else {
            Position::Absolute {
                offset: self.offset.map_or(Value::Literal(0), |(offset, _)| offset),
                depth: match self.starts {
                    Some(_) => Some(Value::Literal(self.pattern.len() as u32)),
                    None => self.depth.map(|(depth, _)| depth),
                },
            }
        };
        Ok(Content {
            pattern: self.pattern,
            negated: self.negated,
            nocase: self.nocase,
            fast_pattern: self.fast_pattern.map(|(kind, _)| kind),
            at_end: self.ends.is_some(),
            at_start: self.starts.is_some(),
            position,
            replacement: self.replacement.map(|(bytes, _)| bytes),
        })
    }

    /// An area shorter than the pattern never has it.
    fn long_enough(&self) -> Result<(), Finding> {
        let needed = self.pattern.len() as i64;
        let depth = match self.depth {
            Some((Value::Literal(depth), span)) => Some(("depth", i64::from(depth), span)),
            _ => None,
        };
        let within = match self.within {
            Some((Value::Literal(within), span)) => Some(("within", i64::from(within), span)),
            _ => None,
        };
        for (name, limit, span) in [depth, within].into_iter().flatten() {
            if limit < needed {
                return Err(Finding::with_help(
                    span,
                    format!("{name} {limit} is less than the length of its content, {needed}"),
                    format!("{name} is the length of the area searched: at least {needed}"),
                ));
            }
        }
        Ok(())
    }

    fn check_fast_pattern(&self) -> Result<(), Finding> {
        let Some((kind, span)) = self.fast_pattern else {
            return Ok(());
        };
        let placed = self.is_relative()
            || self.offset.is_some()
            || self.depth.is_some()
            || self.starts.is_some();
        if self.negated && (placed || kind != FastPattern::Whole) {
            return Err(Finding::with_help(
                span,
                "a negated content with a place cannot be the fast pattern",
                "mark a content that is not negated",
            ));
        }
        if kind == FastPattern::Only && placed {
            return Err(Finding::with_help(
                span,
                "fast_pattern:only goes with none of offset, depth, distance, within",
                "fast_pattern; alone",
            ));
        }
        if let FastPattern::Chop { offset, length } = kind
            && usize::from(offset) + usize::from(length) > self.pattern.len()
        {
            return Err(Finding::with_help(
                span,
                format!(
                    "fast_pattern:{offset},{length} reaches beyond its content, which has {} bytes",
                    self.pattern.len()
                ),
                "offset and length of a part of the content",
            ));
        }
        Ok(())
    }
}

/// `content:[!]"…"`
pub(super) fn content(builder: &mut Builder<'_>, item: &Item<'_>) -> Result<(), Finding> {
    let section = builder.layout.here(item.name_span);
    add(builder, item, section)
}

/// Reads a content into a section. One that cannot be read still stands there for its modifiers.
pub(super) fn add(
    builder: &mut Builder<'_>,
    item: &Item<'_>,
    section: usize,
) -> Result<(), Finding> {
    let mut draft = Draft::default();
    let read = item.bytes().and_then(|value| {
        let (negated, bytes) = match value.bytes.strip_prefix(b"!") {
            Some(rest) => (true, rest.trim_ascii_start()),
            None => (false, value.bytes),
        };
        draft.negated = negated;
        let span = Span {
            start: value.span.end - bytes.len(),
            end: value.span.end,
        };
        let inside = item.quoted(bytes, span)?;
        draft.pattern = pattern(inside.bytes, inside.at)?;
        Ok(())
    });
    let span = item.value.map_or(item.name_span, |value| value.span);
    builder.layout.push(section, Pending::Content(draft), span);
    read
}

/// The content before a modifier.
fn modified<'b>(builder: &'b mut Builder<'_>, item: &Item<'_>) -> Result<&'b mut Draft, Finding> {
    builder.layout.last_content().ok_or_else(|| {
        Finding::with_help(
            item.name_span,
            format!("`{}` without a content before it", item.name),
            format!("content:\"…\"; {};", item.name),
        )
    })
}

fn twice(item: &Item<'_>, already: bool) -> Result<(), Finding> {
    if already {
        return Err(Finding::with_help(
            item.name_span,
            format!("`{}` twice for the same content", item.name),
            "take one of them away",
        ));
    }
    Ok(())
}

fn nocase(builder: &mut Builder<'_>, item: &Item<'_>) -> Result<(), Finding> {
    let draft = modified(builder, item)?;
    item.no_value()?;
    twice(item, std::mem::replace(&mut draft.nocase, true))
}

/// No effect: contents are looked for in what the buffer has.
fn rawbytes(builder: &mut Builder<'_>, item: &Item<'_>) -> Result<(), Finding> {
    modified(builder, item)?;
    item.no_value()
}

fn startswith(builder: &mut Builder<'_>, item: &Item<'_>) -> Result<(), Finding> {
    let draft = modified(builder, item)?;
    item.no_value()?;
    twice(item, draft.starts.replace(item.name_span).is_some())
}

fn endswith(builder: &mut Builder<'_>, item: &Item<'_>) -> Result<(), Finding> {
    let draft = modified(builder, item)?;
    item.no_value()?;
    twice(item, draft.ends.replace(item.name_span).is_some())
}

fn fast_pattern(builder: &mut Builder<'_>, item: &Item<'_>) -> Result<(), Finding> {
    modified(builder, item)?;
    let kind = match item.optional_text()? {
        None => FastPattern::Whole,
        Some(text) if text.as_str() == "only" => FastPattern::Only,
        Some(text) => {
            let Some((offset, length)) = text.split_once(",") else {
                return Err(text.fail(
                    format!("`{}` is not a part of a content", shortened(text.as_str())),
                    "fast_pattern; or fast_pattern:only; or fast_pattern:offset,length;",
                ));
            };
            FastPattern::Chop {
                offset: ranged(offset, 0, u16::MAX)?,
                length: ranged(length, 1, u16::MAX)?,
            }
        }
    };
    let draft = modified(builder, item)?;
    let marked = draft.fast_pattern.replace((kind, item.name_span));
    twice(item, marked.is_some())
}

fn offset(builder: &mut Builder<'_>, item: &Item<'_>) -> Result<(), Finding> {
    modified(builder, item)?;
    let text = item.text()?;
    let value = builder
        .names
        .value(text, |text| ranged(text, 0, u32::from(u16::MAX)))?;
    let draft = modified(builder, item)?;
    twice(item, draft.offset.replace((value, text.span())).is_some())
}

fn depth(builder: &mut Builder<'_>, item: &Item<'_>) -> Result<(), Finding> {
    modified(builder, item)?;
    let text = item.text()?;
    let value = builder
        .names
        .value(text, |text| ranged(text, 0, u32::from(u16::MAX)))?;
    let draft = modified(builder, item)?;
    twice(item, draft.depth.replace((value, text.span())).is_some())
}

fn distance(builder: &mut Builder<'_>, item: &Item<'_>) -> Result<(), Finding> {
    modified(builder, item)?;
    let text = item.text()?;
    let value = builder.names.value(text, |text| {
        signed(text, -MAX_RELATIVE, MAX_RELATIVE).map(|number| number as i32)
    })?;
    let draft = modified(builder, item)?;
    twice(item, draft.distance.replace((value, text.span())).is_some())
}

fn within(builder: &mut Builder<'_>, item: &Item<'_>) -> Result<(), Finding> {
    modified(builder, item)?;
    let text = item.text()?;
    let value = builder.names.value(text, |text| {
        signed(text, 1, MAX_RELATIVE).map(|number| number as i32)
    })?;
    let draft = modified(builder, item)?;
    twice(item, draft.within.replace((value, text.span())).is_some())
}

fn replace(builder: &mut Builder<'_>, item: &Item<'_>) -> Result<(), Finding> {
    modified(builder, item)?;
    let value = item.bytes()?;
    let inside = item.quoted(value.bytes, value.span)?;
    let bytes = pattern(inside.bytes, inside.at)?;
    let sticky = builder.layout.sticky();
    let draft = modified(builder, item)?;
    if let Some(buffer) = sticky {
        return Err(Finding::with_help(
            item.name_span,
            format!("`replace` cannot change `{}`", buffer.name()),
            "it changes packets: its content stands before all sticky buffers or after `pkt_data;`",
        ));
    }
    if draft.negated {
        return Err(Finding::with_help(
            item.name_span,
            "there is nothing to replace: the content is negated",
            "`replace` follows a content that is found",
        ));
    }
    let needed = draft.pattern.len();
    if needed > 0 && bytes.len() != needed {
        return Err(Finding::with_help(
            value.span,
            format!("{} bytes cannot take the place of {needed}", bytes.len()),
            format!("exactly {needed} bytes"),
        ));
    }
    let set = draft.replacement.replace((bytes, value.span));
    twice(item, set.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_stand_for_bytes() {
        let check = |text: &str, expect: &[u8]| {
            assert_eq!(pattern(text.as_bytes(), 0).as_deref(), Ok(expect), "{text}");
        };
        check("abc", b"abc");
        check("|41 42|c", b"ABc");
        check("a|0d0A|b|00|", b"a\r\nb\0");
        check(r#"a\"b\\c\;d\:e"#, br#"a"b\c;d:e"#);
        check("http|3A|//", b"http://");
        check("|5c||22|", b"\\\"");
        check("ä", "ä".as_bytes());
        assert_eq!(pattern(b"\xff|ff|", 0).unwrap(), [0xff, 0xff]);
    }

    #[test]
    fn wrong_patterns_are_placed() {
        let check = |text: &str, place: (usize, usize), message: &str| {
            let found = pattern(text.as_bytes(), 7).unwrap_err();
            assert_eq!(
                (found.span.start, found.span.end),
                (place.0 + 7, place.1 + 7),
                "{text}"
            );
            assert!(found.message.contains(message), "{found:?}");
            assert!(found.help.is_some(), "{text}");
        };
        check("", (0, 0), "empty");
        check("||", (0, 2), "empty");
        check("ab|4|", (3, 4), "half a byte");
        check("|4G|", (2, 3), "not a hexadecimal digit");
        check("a|41", (1, 4), "without a second");
        check(r"a\n", (1, 3), "unknown escape");
        check(r"a\", (1, 2), "unknown escape");
        check("a\"b", (1, 2), "quote");
    }
}
