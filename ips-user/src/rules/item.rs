//! Splits the inside of a rule's parentheses into keywords and values.

use super::parse::Findings;
use super::source::Span;

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
                findings.error(span, "`)` missing at the end of the rule", None);
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
            findings.error(span, "no `;` after this option", None);
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
            findings.error(name_span, "keyword is not UTF-8", None);
            return Some(None);
        };
        if name.is_empty() {
            findings.error(name_span, "option without a keyword", None);
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
