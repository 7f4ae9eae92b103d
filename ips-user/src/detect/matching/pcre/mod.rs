//! `pcre`: expressions, compiled by each worker when it first needs them.
//!
//! What an engine's image holds is their text (see [`crate::detect::image`]). PCRE2's compiler to
//! machine code is not used: a worker's memory never becomes executable
//! ([`crate::sys::sandbox`]), and most expressions are for the other engine anyway.

use crate::rules::ast::{Capture, Pcre};
use crate::sys::pcre2::{Expression, Search};

mod dialect;

pub(crate) use dialect::Dialect;

/// Bound of one search by PCRE2 in its own words: how deep it may go, which is memory.
const LIMITS: &str = "(*LIMIT_DEPTH=50000)";

/// Most steps of one search by PCRE2, and how many more for each byte of the subject. Suricata's
/// defaults (3500 matches, 1500 deep) are for machine code, which counts only some of its steps;
/// interpreted, they would cut off ordinary searches.
const SEARCH_STEPS: u32 = 100_000;
const STEPS_OF_BYTE: u32 = 8;

/// Longest automaton of a linear expression, in bytes: the engine takes up to a step for each
/// state and byte where its cache does not help. Larger ones are for PCRE2, whose steps are
/// counted.
const SIZE_LIMIT: usize = 1 << 20;
/// What an automaton has for a letter of its expression, if not less.
const BYTES_OF_LETTER: u64 = 128;
/// Most memory for what it caches while searching.
const CACHE_LIMIT: usize = 1 << 20;

/// An expression of an engine.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    dialect: Dialect,
    /// Whether groups are asked for.
    captures: bool,
    /// Whether a search has a bound of its own, besides the packet's (all but with `O`).
    limited: bool,
}

impl Pattern {
    /// An expression that can be compiled.
    ///
    /// # Errors
    /// Why it cannot.
    pub(crate) fn new(pcre: &Pcre, end_matters: bool) -> Result<Self, String> {
        let mut dialect = dialect::choose(pcre, end_matters);
        if let Dialect::Linear(text) = &dialect
            && may_be_large(text)
            && linear(text).is_err()
        {
            dialect = dialect::choose(
                &Pcre {
                    // Not ASCII is never for the linear engine; this says nothing to PCRE2.
                    expression: format!("(?#\u{e9}){}", pcre.expression),
                    ..pcre.clone()
                },
                end_matters,
            );
        }
        if let Dialect::Backtracking(text) = &dialect {
            Expression::new(text)?;
        }
        Ok(Self {
            dialect,
            captures: !pcre.captures.is_empty(),
            limited: !pcre.override_limits,
        })
    }
}

#[cfg(feature = "fuzzing")]
impl Pattern {
    /// For the engine that backtracks, whatever it is for.
    pub(crate) fn backtracking(pcre: &Pcre) -> Result<Self, String> {
        Self::new(
            &Pcre {
                // As above.
                expression: format!("(?#\u{e9}){}", pcre.expression),
                ..pcre.clone()
            },
            true,
        )
    }

    /// Whether it is for the engine that is linear in the payload.
    pub(crate) fn is_linear(&self) -> bool {
        matches!(self.dialect, Dialect::Linear(_))
    }
}

/// Whether compiling it must be tried to know that it can be: repetitions multiply.
fn may_be_large(text: &str) -> bool {
    let counts = text.split('{').skip(1).filter_map(|rest| {
        let end = rest.find('}')?;
        rest[..end]
            .split(',')
            .filter_map(|n| n.trim().parse::<u64>().ok())
            .max()
    });
    let times = counts.fold(1u64, |product, count| product.saturating_mul(count.max(1)));
    let letters = times.saturating_mul(text.len() as u64);
    letters.saturating_mul(BYTES_OF_LETTER) > SIZE_LIMIT as u64
}

fn linear(text: &str) -> Result<regex::bytes::Regex, regex::Error> {
    regex::bytes::RegexBuilder::new(text)
        .unicode(false)
        .size_limit(SIZE_LIMIT)
        .dfa_size_limit(CACHE_LIMIT)
        .build()
}

#[derive(Debug)]
enum Compiled {
    Linear(regex::bytes::Regex, Option<regex::bytes::CaptureLocations>),
    Backtracking(Expression),
    /// It could not be compiled, for want of memory.
    Unusable,
}

/// A match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// How a search ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Searched {
    Found(Found),
    Nowhere,
    /// It took too long.
    GaveUp,
}

/// The expressions that a worker has compiled.
#[derive(Debug, Default)]
pub(crate) struct Patterns {
    compiled: Vec<Option<Box<Compiled>>>,
}

impl Patterns {
    /// For so many expressions, none of them compiled.
    pub(crate) fn new(count: usize) -> Self {
        let mut compiled = Vec::new();
        compiled.resize_with(count, || None);
        Self { compiled }
    }

    fn get<'a>(&'a mut self, number: usize, pattern: &Pattern) -> Option<&'a mut Compiled> {
        let slot = self.compiled.get_mut(number)?;
        Some(slot.get_or_insert_with(|| Box::new(compile(pattern))))
    }

    /// Searches from `start` on; what stands before is looked at by `\b` and the like. What an
    /// engine that backtracks may take, and has taken, is in `steps`.
    pub(crate) fn find(
        &mut self,
        number: usize,
        pattern: &Pattern,
        subject: &[u8],
        start: usize,
        steps: &mut u32,
    ) -> Searched {
        if start > subject.len() {
            return Searched::Nowhere;
        }
        match self.get(number, pattern) {
            Some(Compiled::Linear(regex, None)) => match regex.find_at(subject, start) {
                Some(found) => Searched::Found(Found {
                    start: found.start(),
                    end: found.end(),
                }),
                None => Searched::Nowhere,
            },
            Some(Compiled::Linear(regex, Some(groups))) => {
                match regex.captures_read_at(groups, subject, start) {
                    Some(found) => Searched::Found(Found {
                        start: found.start(),
                        end: found.end(),
                    }),
                    None => Searched::Nowhere,
                }
            }
            Some(Compiled::Backtracking(expression)) => {
                let most = match pattern.limited {
                    true => {
                        let len = u32::try_from(subject.len()).unwrap_or(u32::MAX);
                        SEARCH_STEPS.saturating_add(len.saturating_mul(STEPS_OF_BYTE))
                    }
                    false => u32::MAX,
                };
                let allowed = most.min(*steps);
                let mut left = allowed;
                let search = expression.find(subject, start, &mut left);
                *steps -= allowed - left;
                match search {
                    Search::Found(start, end) => Searched::Found(Found { start, end }),
                    Search::Nowhere => Searched::Nowhere,
                    Search::GaveUp => Searched::GaveUp,
                }
            }
            Some(Compiled::Unusable) => Searched::GaveUp,
            None => Searched::Nowhere,
        }
    }

    /// Where a group of the last match of this expression is.
    pub(crate) fn group(&self, number: usize, group: usize) -> Option<(usize, usize)> {
        match self.compiled.get(number)?.as_deref()? {
            Compiled::Linear(_, groups) => groups.as_ref()?.get(group),
            Compiled::Backtracking(expression) => expression.group(group),
            Compiled::Unusable => None,
        }
    }
}

fn compile(pattern: &Pattern) -> Compiled {
    match &pattern.dialect {
        Dialect::Linear(text) => linear(text).map_or(Compiled::Unusable, |regex| {
            let groups = pattern.captures.then(|| regex.capture_locations());
            Compiled::Linear(regex, groups)
        }),
        Dialect::Backtracking(text) => {
            Expression::new(text).map_or(Compiled::Unusable, Compiled::Backtracking)
        }
    }
}

/// `pcrexform`: an expression with a group.
pub(crate) fn capturing(expression: &str) -> Pcre {
    Pcre {
        expression: expression.to_owned(),
        negated: false,
        relative: false,
        caseless: false,
        multi_line: false,
        dot_all: false,
        extended: false,
        anchored: false,
        dollar_end_only: false,
        ungreedy: false,
        override_limits: false,
        captures: vec![Capture {
            scope: crate::rules::ast::CaptureScope::Packet,
            name: String::new(),
        }],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(expression: &str, subject: &[u8], start: usize) -> (Searched, Option<(usize, usize)>) {
        let pattern = Pattern::new(&capturing(expression), false).unwrap();
        let mut patterns = Patterns::new(1);
        let searched = patterns.find(0, &pattern, subject, start, &mut 10_000_000);
        (searched, patterns.group(0, 1))
    }

    #[test]
    fn both_engines_tell_matches_and_groups() {
        let found = |start, end| Searched::Found(Found { start, end });
        assert_eq!(find("a(b+)", b"xabbb", 0), (found(1, 5), Some((2, 5))));
        assert_eq!(find("a(b+)(?!c)", b"xabbb", 0), (found(1, 5), Some((2, 5))));
        assert_eq!(find("a(b)?", b"aab", 1), (found(1, 3), Some((2, 3))));
        assert_eq!(find("a(b)", b"ab", 1).0, Searched::Nowhere);
        assert_eq!(find("a", b"a", 2).0, Searched::Nowhere);
    }

    #[test]
    fn an_anchored_expression_begins_where_the_subject_does_with_either_engine() {
        for expression in ["a", "a(?!c)"] {
            let pcre = Pcre {
                anchored: true,
                ..capturing(expression)
            };
            let pattern = Pattern::new(&pcre, true).unwrap();
            let mut patterns = Patterns::new(1);
            let mut find = |start| patterns.find(0, &pattern, b"aab", start, &mut 1000);
            assert!(matches!(find(0), Searched::Found(_)), "{expression}");
            assert_eq!(find(1), Searched::Nowhere, "{expression}");
        }
    }

    #[test]
    fn a_search_that_would_not_end_is_given_up() {
        let (searched, _) = find("(a+)+\\1[b-d]", &[b'a'; 4000], 0);
        assert_eq!(searched, Searched::GaveUp);
        // The linear engine needs no bound.
        let (searched, _) = find("(a+)+b", &[b'a'; 60_000], 0);
        assert_eq!(searched, Searched::Nowhere);
    }

    #[test]
    fn wrong_expressions_are_refused_and_large_ones_are_not() {
        Pattern::new(&capturing("(a"), false).unwrap_err();
        Pattern::new(&capturing("[b"), false).unwrap_err();
        let large = Pattern::new(&capturing("(?:[^x]{100}){90,100}y"), false).unwrap();
        let mut patterns = Patterns::new(1);
        let subject = [vec![b'a'; 10_000], vec![b'y']].concat();
        let searched = patterns.find(0, &large, &subject, 0, &mut 10_000_000);
        assert!(matches!(searched, Searched::Found(_)), "{searched:?}");
    }
}
