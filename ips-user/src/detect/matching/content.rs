//! `content`: a literal, and the part of the buffer that it may lie in.

use memchr::memmem;

use super::Variables;
use crate::rules::ast::{Content, Position};

/// Finds a literal. Both kinds own what they look for.
#[derive(Clone, Debug)]
enum Finder {
    Exact(Box<memmem::Finder<'static>>),
    Nocase(Nocase),
}

/// Finds a literal in either case by one of its bytes, the rarest.
#[derive(Clone, Debug)]
struct Nocase {
    /// In lower case.
    needle: Box<[u8]>,
    /// Place of the byte looked for.
    anchor: usize,
    lower: u8,
    upper: u8,
}

impl Nocase {
    fn new(needle: Vec<u8>) -> Self {
        // Letters have two spellings, and some are everywhere.
        let commonness = |byte: u8| match byte {
            b'e' | b't' | b'a' | b'o' | b'i' | b'n' | b's' | b'r' => 6,
            b'a'..=b'z' => 4,
            0 | b' ' => 5,
            b'0'..=b'9' | b'.' | b'/' | b'\r' | b'\n' => 3,
            0x20..=0x7e => 2,
            _ => 1,
        };
        let anchor = (0..needle.len())
            .min_by_key(|&at| commonness(needle[at]))
            .unwrap_or(0);
        let lower = needle.get(anchor).copied().unwrap_or(0);
        Self {
            anchor,
            lower,
            upper: lower.to_ascii_uppercase(),
            needle: needle.into(),
        }
    }

    /// Where it is, and how many bytes had to be compared.
    fn find(&self, bytes: &[u8]) -> (Option<usize>, usize) {
        let length = self.needle.len();
        let mut compared = 0;
        let Some(last) = bytes.len().checked_sub(length) else {
            return (None, 0);
        };
        if length == 0 {
            return (Some(0), 0);
        }
        // Where the anchor may stand.
        let area = &bytes[self.anchor..=last + self.anchor];
        let mut from = 0;
        while let Some(at) = memchr::memchr2(self.lower, self.upper, &area[from..]) {
            let start = from + at;
            compared += length;
            if bytes[start..start + length].eq_ignore_ascii_case(&self.needle) {
                return (Some(start), compared);
            }
            from = start + 1;
        }
        (None, compared)
    }
}

/// A compiled `content`.
#[derive(Clone, Debug)]
pub(crate) struct Literal {
    finder: Finder,
    length: usize,
    pub(super) negated: bool,
    at_end: bool,
    position: Position,
    /// A later step counts from this one: its other occurrences are tried, too.
    pub(super) revisited: bool,
    /// Without it here, no occurrence of a step before helps.
    pub(super) final_if_absent: bool,
    /// `replace`
    pub(super) replacement: Option<Box<[u8]>>,
}

impl Literal {
    pub(super) fn new(content: &Content, revisited: bool, final_if_absent: bool) -> Self {
        let finder = match content.nocase {
            true => Finder::Nocase(Nocase::new(content.pattern.to_ascii_lowercase())),
            false => Finder::Exact(Box::new(memmem::Finder::new(&content.pattern).into_owned())),
        };
        Self {
            finder,
            length: content.pattern.len(),
            negated: content.negated,
            at_end: content.at_end,
            position: content.position,
            revisited,
            final_if_absent,
            replacement: content.replacement.as_deref().map(Into::into),
        }
    }

    /// Its length.
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// Whether it counts from the match before.
    pub(super) fn is_relative(&self) -> bool {
        matches!(self.position, Position::Relative { .. })
    }

    /// Its first place within `bytes`, and what finding it cost in bytes looked at.
    pub(super) fn find(&self, bytes: &[u8]) -> (Option<usize>, usize) {
        match &self.finder {
            Finder::Exact(finder) => {
                let found = finder.find(bytes);
                (found, found.unwrap_or(bytes.len()))
            }
            Finder::Nocase(finder) => {
                let (found, compared) = finder.find(bytes);
                (found, found.unwrap_or(bytes.len()) + compared)
            }
        }
    }

    /// The part of a buffer that it may lie in; `None` when there is no such part.
    pub(super) fn area(
        &self,
        length: usize,
        previous_end: usize,
        variables: &Variables,
    ) -> Option<(usize, usize)> {
        let (mut from, to) = match self.position {
            Position::Absolute { offset, depth } => {
                let offset = variables.of_u32(offset);
                let to = depth.map_or(length, |depth| {
                    offset.saturating_add(variables.of_u32(depth))
                });
                (offset, to.min(length))
            }
            Position::Relative { distance, within } => {
                let start = previous_end as i64 + variables.of_i32(distance);
                let to = match within {
                    None => length,
                    Some(within) => usize::try_from(start + variables.of_i32(within))
                        .ok()?
                        .min(length),
                };
                (usize::try_from(start).unwrap_or(0), to)
            }
        };
        if self.at_end {
            if to < length {
                return None;
            }
            from = from.max(length.checked_sub(self.length)?);
        }
        (from < to).then_some((from, to))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_caseless_search_finds_what_comparing_everywhere_does(
            needle in "[abAB.]{1,4}",
            text in "[abAB.]{0,20}",
        ) {
            let finder = Nocase::new(needle.to_ascii_lowercase().into_bytes());
            let text = text.as_bytes();
            let expect = text
                .windows(needle.len())
                .position(|window| window.eq_ignore_ascii_case(needle.as_bytes()));
            prop_assert_eq!(finder.find(text).0, expect);
        }
    }
}
