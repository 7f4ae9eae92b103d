//! Splits the inside of a rule's parentheses into keywords and values.

use super::diagnostic::shortened;
use super::finding::{Finding, Findings};
use super::source::Span;
use super::text::Text;

/// A keyword and its value, as they stand.
#[derive(Clone, Copy)]
pub(super) struct Item<'a> {
    pub(super) name: &'a str,
    pub(super) name_span: Span,
    pub(super) value: Option<Value<'a>>,
}

#[derive(Clone, Copy)]
pub(super) struct Value<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) span: Span,
}

impl<'a> Item<'a> {
    /// The value, which must be there.
    pub(super) fn bytes(&self) -> Result<Value<'a>, Finding> {
        match self.value {
            Some(value) if !value.bytes.is_empty() => Ok(value),
            _ => Err(Finding::with_help(
                self.name_span,
                format!("`{}` needs a value", self.name),
                format!("{}:…;", self.name),
            )),
        }
    }

    /// The value as text, which must be there.
    pub(super) fn text(&self) -> Result<Text<'a>, Finding> {
        let value = self.bytes()?;
        match std::str::from_utf8(value.bytes) {
            Ok(text) => Ok(Text::new(text, value.span.start)),
            Err(_) => Err(Finding::with_help(
                value.span,
                format!("the value of `{}` is not UTF-8", self.name),
                "write other bytes in hexadecimal: |E4 F6|",
            )),
        }
    }

    /// The value as text, if there is one.
    pub(super) fn optional_text(&self) -> Result<Option<Text<'a>>, Finding> {
        match self.value {
            Some(value) if !value.bytes.is_empty() => self.text().map(Some),
            _ => Ok(None),
        }
    }

    /// Checks that there is no value.
    pub(super) fn no_value(&self) -> Result<(), Finding> {
        match self.value {
            Some(value) if !value.bytes.is_empty() => Err(Finding::with_help(
                value.span,
                format!("`{}` takes no value", self.name),
                format!("{};", self.name),
            )),
            _ => Ok(()),
        }
    }

    /// Inside of a quoted part of the value, and its place.
    pub(super) fn quoted(&self, bytes: &'a [u8], span: Span) -> Result<Quoted<'a>, Finding> {
        let inside = bytes
            .strip_prefix(b"\"")
            .and_then(|rest| rest.strip_suffix(b"\""));
        match inside {
            Some(inside) => Ok(Quoted {
                bytes: inside,
                at: span.start + 1,
            }),
            None if bytes.starts_with(b"\"") && !bytes[1..].contains(&b'"') => {
                Err(Finding::with_help(
                    span,
                    "no closing quote before the next `;`",
                    "a `;` inside a value is written `\\;` or |3B|",
                ))
            }
            None => {
                let written = String::from_utf8_lossy(bytes);
                let bare = written.trim_matches(['"', '\'', '“', '”', '„']);
                Err(Finding::with_help(
                    span,
                    format!("the value of `{}` stands in quotes", self.name),
                    format!("{}:\"{}\";", self.name, shortened(bare)),
                ))
            }
        }
    }

    /// A text in quotes; a backslash takes `"`, `\`, `;` and `:` literally.
    pub(super) fn quoted_text(&self) -> Result<String, Finding> {
        let value = self.bytes()?;
        let inside = self.quoted(value.bytes, value.span)?;
        let mut text = Vec::with_capacity(inside.bytes.len());
        let mut at = 0;
        while let Some(&byte) = inside.bytes.get(at) {
            match (byte, inside.bytes.get(at + 1)) {
                (b'\\', Some(&escaped @ (b'"' | b'\\' | b';' | b':'))) => {
                    text.push(escaped);
                    at += 1;
                }
                (b'"', _) => {
                    let span = Span {
                        start: inside.at + at,
                        end: inside.at + at + 1,
                    };
                    return Err(Finding::with_help(
                        span,
                        "quote inside a value",
                        "write it as \\\"",
                    ));
                }
                _ => text.push(byte),
            }
            at += 1;
        }
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

/// The inside of quotes.
#[derive(Clone, Copy)]
pub(super) struct Quoted<'a> {
    pub(super) bytes: &'a [u8],
    /// Place of the first byte.
    pub(super) at: usize,
}

/// The options of a rule, one after the other.
pub(super) struct Items<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Items<'a> {
    /// The options that begin at `at`, after the opening parenthesis.
    pub(super) const fn new(text: &'a [u8], at: usize) -> Self {
        Self { text, at }
    }

    fn skip_space(&mut self) {
        while self.text.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
    }

    /// The next option; `None` at the end, which is checked to be the closing parenthesis.
    pub(super) fn next(&mut self, findings: &mut Findings) -> Option<Item<'a>> {
        loop {
            match self.step(findings)? {
                Some(item) => return Some(item),
                None => continue,
            }
        }
    }

    /// One step of [`Self::next`]; `Some(None)` when an option had to be left out.
    fn step(&mut self, findings: &mut Findings) -> Option<Option<Item<'a>>> {
        self.skip_space();
        let start = self.at;
        match self.text.get(self.at) {
            None => {
                let span = Span { start, end: start };
                findings.error(
                    span,
                    "`)` missing at the end of the rule",
                    Some("a rule ends with `;)`".into()),
                );
                return None;
            }
            Some(b')') => {
                self.at += 1;
                self.skip_space();
                if self.at < self.text.len() {
                    let span = Span {
                        start: self.at,
                        end: self.text.len(),
                    };
                    findings.error(
                        span,
                        "text after the end of the rule",
                        Some("one rule a line; a `;` inside a value is written `\\;`".into()),
                    );
                }
                return None;
            }
            Some(_) => {}
        }
        let end = self.unescaped_semicolon(start);
        let Some(end) = end else {
            let rest = self.text[start..].trim_ascii_end();
            let rest = rest.strip_suffix(b")").unwrap_or(rest).trim_ascii_end();
            let span = Span {
                start,
                end: start + rest.len().max(1),
            };
            findings.error(
                span,
                "no `;` after this option",
                Some("every option ends with `;`, the last one too".into()),
            );
            return None;
        };
        self.at = end + 1;
        let body = &self.text[start..end];
        let colon = body.iter().position(|&byte| byte == b':');
        let name_bytes = body[..colon.unwrap_or(body.len())].trim_ascii_end();
        let name_span = Span {
            start,
            end: start + name_bytes.len().max(1),
        };
        let Ok(name) = std::str::from_utf8(name_bytes) else {
            findings.error(
                name_span,
                "keyword is not UTF-8",
                Some("keywords have letters, digits, `.`, `_` and `-`".into()),
            );
            return Some(None);
        };
        if name.is_empty() {
            findings.error(
                name_span,
                "option without a keyword",
                Some("take one `;` away".into()),
            );
            return Some(None);
        }
        let value = colon.map(|colon| {
            let raw = &body[colon + 1..];
            let trimmed = raw.trim_ascii_start();
            let from = start + colon + 1 + (raw.len() - trimmed.len());
            let bytes = trimmed.trim_ascii_end();
            Value {
                bytes,
                span: Span {
                    start: from,
                    end: from + bytes.len(),
                },
            }
        });
        Some(Some(Item {
            name,
            name_span,
            value,
        }))
    }

    fn unescaped_semicolon(&self, from: usize) -> Option<usize> {
        let mut at = from;
        while let Some(&byte) = self.text.get(at) {
            match byte {
                b'\\' => at += 2,
                b';' => return Some(at),
                _ => at += 1,
            }
        }
        None
    }
}
