//! The value of `content`, and how its modifiers add up.

use super::ast::{Content, FastPattern, Position, Value};
use super::list::Finding;
use super::source::Span;

/// Longest pattern in bytes.
const MAX_PATTERN: usize = 65_535;

fn finding(start: usize, end: usize, message: impl Into<String>, help: Option<&str>) -> Finding {
    Finding {
        span: Span { start, end },
        message: message.into(),
        help: help.map(str::to_owned),
    }
}

/// The bytes that a quoted pattern (without its quotes) stands for: `|41 42|` is hexadecimal,
/// a backslash takes `"`, `\`, `;`, `:` and `|` literally.
pub(super) fn pattern(text: &[u8]) -> Result<Vec<u8>, Finding> {
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
                        Some("write two digits for each byte, as in |0D 0A|"),
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
                        format!("`{}` is not a hexadecimal digit", digit.escape_ascii()),
                        Some(
                            "between two `|` stand hexadecimal bytes; write a literal `|` as |7C|",
                        ),
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
                            Some("a backslash itself is written `\\\\` or |5C|"),
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
                    Some("write it as \\\" or |22|"),
                ));
            }
            (None, literal) => bytes.push(literal),
        }
        at += 1;
    }
    if let Some(from) = hex_from {
        return Err(finding(from, text.len(), "`|` without a second `|`", None));
    }
    if bytes.is_empty() {
        return Err(finding(0, text.len(), "empty pattern", None));
    }
    if bytes.len() > MAX_PATTERN {
        return Err(finding(
            0,
            text.len(),
            format!("pattern longer than {MAX_PATTERN} bytes"),
            None,
        ));
    }
    Ok(bytes)
}

/// A `content` whose modifiers are still being collected.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub(super) pattern: Vec<u8>,
    pub(super) negated: bool,
    pub(super) nocase: bool,
    pub(super) fast_pattern: bool,
    pub(super) starts: Option<Span>,
    pub(super) ends: bool,
    pub(super) offset: Option<(usize, Span)>,
    pub(super) depth: Option<(usize, Span)>,
    pub(super) distance: Option<(i64, Span)>,
    pub(super) within: Option<(usize, Span)>,
}

impl Draft {
    pub(super) fn new(pattern: Vec<u8>, negated: bool) -> Self {
        Self {
            pattern,
            negated,
            nocase: false,
            fast_pattern: false,
            starts: None,
            ends: false,
            offset: None,
            depth: None,
            distance: None,
            within: None,
        }
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
        let wrong = |span: Span, message: String, help: Option<String>| {
            Err(Finding {
                span,
                message,
                help,
            })
        };
        if let (Some(span), Some(_)) = (relative, absolute) {
            return wrong(
                span,
                "one content cannot be both relative (distance, within) and absolute (offset, depth)"
                    .into(),
                None,
            );
        }
        if let (Some(span), true) = (self.starts, relative.is_some() || absolute.is_some()) {
            return wrong(
                span,
                "startswith goes with none of offset, depth, distance, within".into(),
                None,
            );
        }
        let needed = self.pattern.len();
        for (name, limit) in [("depth", self.depth), ("within", self.within)] {
            if let Some((limit, span)) = limit
                && limit < needed
            {
                return wrong(
                    span,
                    format!("{name} {limit} is less than the length of its content, {needed}"),
                    Some(format!(
                        "{name} counts from the start of the area: at least {needed}"
                    )),
                );
            }
        }
        let position = if relative.is_some() {
            Position::Relative {
                distance: Value::Literal(self.distance.map_or(0, |(distance, _)| distance as i32)),
                within: self.within.map(|(within, _)| Value::Literal(within as i32)),
            }
        } else {
            Position::Absolute {
                offset: Value::Literal(self.offset.map_or(0, |(offset, _)| offset as u32)),
                depth: match self.starts {
                    Some(_) => Some(Value::Literal(needed as u32)),
                    None => self.depth.map(|(depth, _)| Value::Literal(depth as u32)),
                },
            }
        };
        Ok(Content {
            pattern: self.pattern,
            negated: self.negated,
            nocase: self.nocase,
            fast_pattern: self.fast_pattern.then_some(FastPattern::Whole),
            at_end: self.ends,
            at_start: self.starts.is_some(),
            position,
            replacement: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_stand_for_bytes() {
        let check = |text: &str, expect: &[u8]| {
            assert_eq!(pattern(text.as_bytes()).as_deref(), Ok(expect), "{text}");
        };
        check("abc", b"abc");
        check("|41 42|c", b"ABc");
        check("a|0d0A|b|00|", b"a\r\nb\0");
        check(r#"a\"b\\c\;d\:e"#, br#"a"b\c;d:e"#);
        check("http|3A|//", b"http://");
        check("|5c||22|", b"\\\"");
        check("ä", "ä".as_bytes());
        assert_eq!(pattern(b"\xff|ff|").unwrap(), [0xff, 0xff]);
    }

    #[test]
    fn wrong_patterns_are_placed() {
        let check = |text: &str, place: (usize, usize), message: &str| {
            let found = pattern(text.as_bytes()).unwrap_err();
            assert_eq!((found.span.start, found.span.end), place, "{text}");
            assert!(found.message.contains(message), "{found:?}");
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
