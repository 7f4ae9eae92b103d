//! A part of a rule's text that knows its place, so that whatever is wrong with it can be shown
//! there.

use super::diagnostic::{nearest, shortened};
use super::finding::Finding;
use super::source::Span;

/// A part of a value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Text<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Text<'a> {
    /// A text and the place of its first byte.
    pub(super) const fn new(text: &'a str, at: usize) -> Self {
        Self { text, at }
    }

    pub(super) const fn as_str(self) -> &'a str {
        self.text
    }

    pub(super) const fn is_empty(self) -> bool {
        self.text.is_empty()
    }

    pub(super) const fn span(self) -> Span {
        Span {
            start: self.at,
            end: self.at + self.text.len(),
        }
    }

    /// Without the white space around it.
    pub(super) fn trim(self) -> Self {
        let inner = self.text.trim_start();
        Self {
            text: inner.trim_end(),
            at: self.at + (self.text.len() - inner.len()),
        }
    }

    /// What follows `prefix`, trimmed.
    pub(super) fn strip_prefix(self, prefix: &str) -> Option<Self> {
        let rest = self.text.strip_prefix(prefix)?;
        Some(Self::new(rest, self.at + prefix.len()).trim())
    }

    /// What stands before `suffix`, trimmed.
    pub(super) fn strip_suffix(self, suffix: &str) -> Option<Self> {
        let rest = self.text.strip_suffix(suffix)?;
        Some(Self::new(rest, self.at).trim())
    }

    /// Without a `!` in front, and whether there was one.
    pub(super) fn negation(self) -> (bool, Self) {
        match self.strip_prefix("!") {
            Some(rest) => (true, rest),
            None => (false, self),
        }
    }

    /// Without the quotes around it, if there are any.
    pub(super) fn unquoted(self) -> Self {
        self.strip_prefix("\"")
            .and_then(|rest| rest.strip_suffix("\""))
            .unwrap_or(self)
    }

    /// The trimmed parts between separators; at least one.
    pub(super) fn split(self, separator: char) -> impl Iterator<Item = Self> {
        let mut at = self.at;
        self.text.split(separator).map(move |part| {
            let place = at;
            at += part.len() + separator.len_utf8();
            Self::new(part, place).trim()
        })
    }

    /// The trimmed parts around the first separator.
    pub(super) fn split_once(self, separator: &str) -> Option<(Self, Self)> {
        let found = self.text.find(separator)?;
        let after = found + separator.len();
        Some((
            Self::new(&self.text[..found], self.at).trim(),
            Self::new(&self.text[after..], self.at + after).trim(),
        ))
    }

    /// The first word and the rest, trimmed.
    pub(super) fn first_word(self) -> (Self, Self) {
        let end = self
            .text
            .find(|c: char| c.is_ascii_whitespace())
            .unwrap_or(self.text.len());
        (
            Self::new(&self.text[..end], self.at),
            Self::new(&self.text[end..], self.at + end).trim(),
        )
    }

    /// A finding about all of it that says what would be right.
    pub(super) fn fail(self, message: impl Into<String>, help: impl Into<String>) -> Finding {
        Finding::with_help(self.span(), message, help)
    }

    /// That this is none of the words expected.
    pub(super) fn not_one_of(self, what: &str, words: &[&str]) -> Finding {
        let help = match nearest(self.text, words.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("one of {}", words.join(", ")),
        };
        if self.is_empty() {
            return self.fail(format!("{what} is missing"), help);
        }
        self.fail(format!("`{}` is not {what}", shortened(self.text)), help)
    }

    /// The value that goes with this word, of a table.
    pub(super) fn choose<T: Copy>(self, what: &str, table: &[(&str, T)]) -> Result<T, Finding> {
        table
            .iter()
            .find(|(word, _)| word.eq_ignore_ascii_case(self.text))
            .map(|(_, value)| *value)
            .ok_or_else(|| {
                let words: Vec<&str> = table.iter().map(|(word, _)| *word).collect();
                self.not_one_of(what, &words)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_know_their_place() {
        let text = Text::new(" set , a|b ", 10);
        let parts: Vec<(&str, usize)> = text
            .split(',')
            .map(|part| (part.as_str(), part.span().start))
            .collect();
        assert_eq!(parts, [("set", 11), ("a|b", 17)]);
        let (word, rest) = Text::new("track  by_src", 3).first_word();
        assert_eq!((word.as_str(), rest.as_str()), ("track", "by_src"));
        assert_eq!(rest.span().start, 10);
        let (negated, rest) = Text::new("! x", 0).negation();
        assert!(negated);
        assert_eq!(rest.span(), Span { start: 2, end: 3 });
        assert_eq!(Text::new("\"x\"", 0).unquoted().span().start, 1);
    }
}
