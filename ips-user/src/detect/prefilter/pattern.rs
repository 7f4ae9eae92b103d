//! Which content of a rule is looked for first.
//!
//! Reference: "Suricata Fast Pattern Determination Explained" in its user guide: the one that is
//! marked, else the strongest that is not negated, where length and variety make strength.

use super::Literal;
use crate::rules::ast::{Content, FastPattern, Match, Section};

/// The chosen content.
#[derive(Clone, Debug)]
pub(crate) struct Chosen {
    /// Its section within the rule.
    pub(crate) section: usize,
    /// What is looked for.
    pub(crate) literal: Literal,
}

/// Chooses among the sections that `usable` allows.
pub(crate) fn choose(sections: &[Section], usable: impl Fn(&Section) -> bool) -> Option<Chosen> {
    let mut best: Option<((bool, u32), Chosen)> = None;
    for (number, section) in sections.iter().enumerate() {
        if !usable(section) {
            continue;
        }
        // With `or_else` its matches may fail and the rule still match.
        if section
            .matches
            .iter()
            .any(|it| matches!(it, Match::Absent { .. }))
        {
            continue;
        }
        for found in &section.matches {
            let Match::Content(content) = found else {
                continue;
            };
            // What must not be there cannot select.
            if content.negated {
                continue;
            }
            let bytes = part(content);
            if bytes.is_empty() {
                continue;
            }
            let rank = (content.fast_pattern.is_some(), strength(bytes));
            if best.as_ref().is_none_or(|(other, _)| rank > *other) {
                let literal = Literal {
                    bytes: match content.nocase {
                        true => bytes.to_ascii_lowercase(),
                        false => bytes.to_vec(),
                    },
                    nocase: content.nocase,
                };
                best = Some((
                    rank,
                    Chosen {
                        section: number,
                        literal,
                    },
                ));
            }
        }
    }
    best.map(|(_, chosen)| chosen)
}

/// What of it is looked for.
fn part(content: &Content) -> &[u8] {
    let whole = content.pattern.as_slice();
    match content.fast_pattern {
        Some(FastPattern::Chop { offset, length }) => {
            let start = usize::from(offset);
            whole
                .get(start..start + usize::from(length))
                .unwrap_or(whole)
        }
        Some(FastPattern::Whole | FastPattern::Only) | None => whole,
    }
}

/// How rarely it is found: each byte counts, less if it is common in traffic, and least if the
/// pattern has had it before.
fn strength(bytes: &[u8]) -> u32 {
    let mut seen = [false; 256];
    bytes
        .iter()
        .map(|&byte| {
            if std::mem::replace(&mut seen[usize::from(byte)], true) {
                return 1;
            }
            match byte {
                0 | 1 | 0xff | b' ' => 2,
                b'a'..=b'z' | b'A'..=b'Z' => 4,
                b'\r' | b'\n' | b'0'..=b'9' => 3,
                0x20..=0x7e => 5,
                _ => 6,
            }
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::ast::{Buffer, Position, Value};

    fn content(pattern: &str) -> Content {
        Content {
            pattern: pattern.into(),
            negated: false,
            nocase: false,
            fast_pattern: None,
            at_end: false,
            at_start: false,
            position: Position::Absolute {
                offset: Value::Literal(0),
                depth: None,
            },
            replacement: None,
        }
    }

    fn check(contents: &[Content], expect: Option<&str>) {
        let section = Section {
            buffer: Buffer::Payload,
            transforms: Vec::new(),
            to_server: None,
            matches: contents.iter().cloned().map(Match::Content).collect(),
        };
        let chosen = choose(&[section], |_| true).map(|chosen| chosen.literal.bytes);
        assert_eq!(chosen.as_deref(), expect.map(str::as_bytes), "{contents:?}");
    }

    #[test]
    fn the_longest_and_most_varied_is_chosen() {
        check(
            &[content("ab"), content("abcd"), content("abc")],
            Some("abcd"),
        );
        check(&[content("aaaaaa"), content("abcd")], Some("abcd"));
        check(&[content("abcd"), content("wxyz")], Some("abcd"));
        check(&[content("\0\0\0\0\0\0"), content("xy")], Some("xy"));
        check(&[], None);
    }

    #[test]
    fn a_mark_decides_and_negated_ones_are_never_chosen() {
        let marked = |pattern, how| Content {
            fast_pattern: Some(how),
            ..content(pattern)
        };
        let negated = Content {
            negated: true,
            ..content("much longer than the other")
        };
        check(&[negated.clone(), content("a")], Some("a"));
        check(&[negated], None);
        check(
            &[content("long one"), marked("ab", FastPattern::Whole)],
            Some("ab"),
        );
        check(
            &[content("long one"), marked("ab", FastPattern::Only)],
            Some("ab"),
        );
        let chop = FastPattern::Chop {
            offset: 2,
            length: 3,
        };
        check(
            &[content("long one"), marked("abcdefgh", chop)],
            Some("cde"),
        );
    }
}
