//! The contents of one rule against one payload, exactly.
//!
//! `offset` and `depth` count from the start of the payload; `distance` and `within` from the
//! end of the match of the last content before that is not negated (from the start of the
//! payload if there is none). Where a later content depends on the place of an earlier one,
//! every occurrence of the earlier one is tried. Reference:
//! <https://docs.suricata.io/en/suricata-8.0.3/rules/payload-keywords.html>.

use memchr::memmem::Finder;

use crate::rules::{Content, Match, Position, Rule, Value};

/// Most searches for one rule in one payload. Trying every occurrence of every content is
/// exponential in their number; Suricata's `inspection-recursion-limit` bounds the same.
const MAX_SEARCHES: u32 = 3000;

/// A payload in both spellings.
#[derive(Clone, Copy)]
pub(super) struct Haystack<'a> {
    pub(super) exact: &'a [u8],
    /// The same in lower case.
    pub(super) lowered: &'a [u8],
}

/// How a search ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Match,
    NoMatch,
    /// Given up after [`MAX_SEARCHES`].
    GaveUp,
}

#[derive(Clone, Debug)]
struct Literal {
    finder: Finder<'static>,
    negated: bool,
    nocase: bool,
    at_end: bool,
    position: Position,
    /// A later content is relative to this one: its other occurrences are tried too.
    revisited: bool,
}

/// The contents of a rule, in order.
#[derive(Clone, Debug)]
pub(super) struct Contents(Box<[Literal]>);

impl Contents {
    /// Those of a rule that [`supported`](super::supported) lets through.
    pub(super) fn of(rule: &Rule) -> Self {
        let matches = rule.options.sections.iter().flat_map(|s| &s.matches);
        let contents: Vec<Content> = matches
            .filter_map(|found| match found {
                Match::Content(content) => Some(content.clone()),
                _ => None,
            })
            .collect();
        Self::compile(&contents)
    }

    fn compile(contents: &[Content]) -> Self {
        let literals = contents.iter().enumerate().map(|(index, content)| {
            let needle = if content.nocase {
                content.pattern.to_ascii_lowercase()
            } else {
                content.pattern.clone()
            };
            Literal {
                finder: Finder::new(&needle).into_owned(),
                negated: content.negated,
                nocase: content.nocase,
                at_end: content.at_end,
                position: content.position,
                revisited: !content.negated && is_referred_to(&contents[index + 1..]),
            }
        });
        Self(literals.collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn matches(&self, haystack: Haystack<'_>) -> Outcome {
        let mut search = Search {
            haystack,
            left: MAX_SEARCHES,
        };
        match search.run(&self.0, 0) {
            Step::Found => Outcome::Match,
            Step::Retry | Step::Hopeless => Outcome::NoMatch,
            Step::GaveUp => Outcome::GaveUp,
        }
    }
}

/// Whether a content of `later` counts from the content before them.
fn is_referred_to(later: &[Content]) -> bool {
    for content in later {
        if matches!(content.position, Position::Relative { .. }) {
            return true;
        }
        if !content.negated {
            return false;
        }
    }
    false
}

struct Search<'a> {
    haystack: Haystack<'a>,
    left: u32,
}

/// What came of looking for a literal and all after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Found,
    /// Not here, but perhaps after another occurrence of the content before.
    Retry,
    /// Not after any further occurrence of any content before.
    Hopeless,
    /// Out of searches.
    GaveUp,
}

impl Search<'_> {
    fn run(&mut self, literals: &[Literal], previous_end: usize) -> Step {
        let Some((literal, rest)) = literals.split_first() else {
            return Step::Found;
        };
        let bytes = if literal.nocase {
            self.haystack.lowered
        } else {
            self.haystack.exact
        };
        let length = literal.finder.needle().len();
        let (mut from, to) = area(literal, bytes.len(), previous_end).unwrap_or((0, 0));
        loop {
            if self.left == 0 {
                return Step::GaveUp;
            }
            self.left -= 1;
            let found = literal.finder.find(&bytes[from..to]);
            match found {
                None if literal.negated => return self.run(rest, previous_end),
                None => return literal.exhausted(),
                Some(_) if literal.negated => return literal.ruled_out(),
                Some(at) => {
                    let start = from + at;
                    match self.run(rest, start + length) {
                        Step::Retry => {}
                        decided => return decided,
                    }
                    if !literal.revisited {
                        return literal.exhausted();
                    }
                    from = start + 1;
                }
            }
        }
    }
}

impl Literal {
    /// No occurrence of this content, or none that suits the contents after it.
    ///
    /// Occurrences of the contents before are tried from left to right, so the area of a
    /// content without an end of its own only shrinks: what was not in it will not be. This
    /// keeps payloads made of repetitions from costing a search for every pair of positions.
    fn exhausted(&self) -> Step {
        match self.position {
            Position::Relative {
                within: Some(_), ..
            } => Step::Retry,
            Position::Relative { within: None, .. } | Position::Absolute { .. } => Step::Hopeless,
        }
    }

    /// A negated content was found.
    fn ruled_out(&self) -> Step {
        match self.position {
            Position::Relative { .. } => Step::Retry,
            Position::Absolute { .. } => Step::Hopeless,
        }
    }
}

/// A number as written: there are no variables in the rules that are let through.
fn number<T: Default>(value: Value<T>) -> T {
    match value {
        Value::Literal(number) => number,
        Value::Variable(_) => T::default(),
    }
}

/// The part of the payload that a literal may lie in; `None` when there is no such part.
fn area(literal: &Literal, len: usize, previous_end: usize) -> Option<(usize, usize)> {
    let (mut from, to) = match literal.position {
        Position::Absolute { offset, depth } => {
            let offset = number(offset) as usize;
            let to = depth.map_or(len, |depth| offset.saturating_add(number(depth) as usize));
            (offset, to.min(len))
        }
        Position::Relative { distance, within } => {
            let start = previous_end as i64 + i64::from(number(distance));
            let to = match within {
                None => len,
                Some(within) => usize::try_from(start + i64::from(number(within)))
                    .ok()?
                    .min(len),
            };
            (usize::try_from(start).unwrap_or(0), to)
        }
    };
    if literal.at_end {
        if to < len {
            return None;
        }
        from = from.max(len.checked_sub(literal.finder.needle().len())?);
    }
    (from < to).then_some((from, to))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rules::{RuleSet, RuleSource};

    fn contents(options: &str) -> Contents {
        let text = format!("alert tcp any any -> any any ({options} sid:1;)");
        let loaded = RuleSet::default().load_sources(&[RuleSource::new("t", text.into())]);
        assert_eq!(loaded.rules.len(), 1, "{:?}", loaded.diagnostics);
        Contents::of(&loaded.rules[0])
    }

    fn outcome(options: &str, payload: &[u8]) -> Outcome {
        contents(options).matches(Haystack {
            exact: payload,
            lowered: &payload.to_ascii_lowercase(),
        })
    }

    fn check(options: &str, payload: &str, expect: bool) {
        let expect = if expect {
            Outcome::Match
        } else {
            Outcome::NoMatch
        };
        assert_eq!(
            outcome(options, payload.as_bytes()),
            expect,
            "{options} in {payload}"
        );
    }

    #[test]
    fn a_content_is_found_anywhere_and_in_its_case() {
        check(r#"content:"abc";"#, "xxabcxx", true);
        check(r#"content:"abc";"#, "xxaBcxx", false);
        check(r#"content:"aBc"; nocase;"#, "xxAbCxx", true);
        check(r#"content:!"abc";"#, "xxabcxx", false);
        check(r#"content:!"abc";"#, "xxxx", true);
        check(r#"content:"abc";"#, "", false);
        check(r#"content:"|00 ff|";"#, "x", false);
    }

    #[test]
    fn offset_and_depth_count_from_the_start() {
        check(r#"content:"abc"; offset:2;"#, "xxabc", true);
        check(r#"content:"abc"; offset:3;"#, "xxabc", false);
        check(r#"content:"abc"; offset:9;"#, "xxabc", false);
        check(r#"content:"abc"; depth:3;"#, "abcx", true);
        check(r#"content:"abc"; depth:3;"#, "xabc", false);
        check(r#"content:"abc"; offset:1; depth:3;"#, "xabcx", true);
        check(r#"content:"abc"; offset:1; depth:3;"#, "xxabc", false);
        check(r#"content:"abc"; depth:30;"#, "xxabc", true);
        check(r#"content:!"abc"; offset:1; depth:3;"#, "xxabc", true);
        check(r#"content:!"abc"; offset:9;"#, "xxabc", true);
        check(
            r#"content:"a"; content:"b"; offset:0; depth:1;"#,
            "ba",
            true,
        );
    }

    #[test]
    fn distance_and_within_count_from_the_previous_match() {
        check(
            r#"content:"abc"; content:"def"; distance:0;"#,
            "abcdef",
            true,
        );
        check(
            r#"content:"abc"; content:"def"; distance:0;"#,
            "defabc",
            false,
        );
        check(
            r#"content:"abc"; content:"def"; distance:1;"#,
            "abcdef",
            false,
        );
        check(
            r#"content:"abc"; content:"def"; distance:1;"#,
            "abcxdef",
            true,
        );
        check(
            r#"content:"abc"; content:"def"; distance:-6;"#,
            "defabc",
            true,
        );
        check(
            r#"content:"abc"; content:"def"; distance:-60;"#,
            "defabc",
            true,
        );
        check(r#"content:"abc"; content:"def"; within:3;"#, "abcdef", true);
        check(
            r#"content:"abc"; content:"def"; within:3;"#,
            "abcxdef",
            false,
        );
        check(
            r#"content:"abc"; content:"def"; within:4;"#,
            "abcxdef",
            true,
        );
        check(
            r#"content:"abc"; content:"def"; distance:1; within:3;"#,
            "abcxdef",
            true,
        );
        check(
            r#"content:"abc"; content:"def"; distance:1; within:3;"#,
            "abcxxdef",
            false,
        );
        check(
            r#"content:"abc"; content:!"def"; within:4;"#,
            "abcxxdef",
            true,
        );
        check(
            r#"content:"abc"; content:!"def"; within:4;"#,
            "abcxdef",
            false,
        );
        check(
            r#"content:"abc"; content:!"def"; distance:0;"#,
            "defabc",
            true,
        );
        // Relative without a match before: from the start of the payload.
        check(r#"content:"abc"; within:3;"#, "abcx", true);
        check(r#"content:"abc"; within:3;"#, "xabc", false);
        check(r#"content:!"abc"; within:4;"#, "xabc", false);
    }

    #[test]
    fn a_negated_content_is_no_point_of_reference() {
        let rule = r#"content:"a"; content:!"b"; distance:0; within:1; content:"c"; distance:0; within:2;"#;
        check(rule, "axc", true);
        check(rule, "abc", false);
        check(rule, "xxac", true);
        check(rule, "axxc", false);
    }

    #[test]
    fn every_occurrence_of_an_earlier_content_is_tried() {
        let pair = r#"content:"ab"; content:"cd"; distance:0; within:2;"#;
        check(pair, "ab ab abcd", true);
        check(pair, "ab cd ab cd", false);
        let chain = r#"content:"a"; content:"b"; within:2; content:"c"; within:2;"#;
        check(chain, "a.ab.ab.abxc", true);
        check(chain, "axb abxxc", false);
        check(r#"content:"aa"; content:"b"; within:1;"#, "aaab", true);
        check(r#"content:"a"; content:!"b"; within:1;"#, "abax", true);
        check(r#"content:"a"; content:!"b"; within:1;"#, "abab", false);
        check(
            r#"content:"a"; offset:2; content:"b"; within:1;"#,
            "ab ax ab",
            true,
        );
        check(
            r#"content:"a"; depth:4; content:"b"; within:1;"#,
            "ax ax ab",
            false,
        );
    }

    #[test]
    fn startswith_and_endswith_pin_the_ends() {
        check(r#"content:"abc"; startswith;"#, "abcx", true);
        check(r#"content:"abc"; startswith;"#, "xabc", false);
        check(r#"content:"abc"; endswith;"#, "abcabc", true);
        check(r#"content:"abc"; endswith;"#, "abcx", false);
        check(r#"content:!"abc"; endswith;"#, "abcx", true);
        check(r#"content:"abc"; startswith; endswith;"#, "abc", true);
        check(r#"content:"abc"; startswith; endswith;"#, "abcabc", false);
        check(
            r#"content:"a"; content:"bc"; distance:0; endswith;"#,
            "abcxbc",
            true,
        );
        check(r#"content:"abc"; endswith;"#, "bc", false);
    }

    #[test]
    fn a_search_that_would_not_end_is_given_up() {
        let options = r#"content:"a"; content:"a"; within:500; content:"a"; within:500; content:"b"; within:9;"#;
        assert_eq!(outcome(options, &[b'a'; 2000]), Outcome::GaveUp);
    }

    #[test]
    fn repetitions_cost_no_search_for_every_pair_of_positions() {
        let options = r#"content:"a"; content:"a"; distance:0; content:"a"; distance:0; content:"b"; distance:0;"#;
        assert_eq!(outcome(options, &[b'a'; 60_000]), Outcome::NoMatch);
        let options = r#"content:"a"; content:"a"; distance:0; content:"b"; offset:1;"#;
        assert_eq!(outcome(options, &[b'a'; 60_000]), Outcome::NoMatch);
    }

    #[test]
    fn a_rule_of_very_many_contents_does_not_exhaust_the_stack() {
        let options = r#"content:!"a"; offset:9; "#.repeat(100_000);
        assert_eq!(outcome(&options, b"x"), Outcome::GaveUp);
    }

    /// What the keywords say, without any cleverness: every position of every content.
    fn by_definition(contents: &[Content], payload: &[u8], previous_end: usize) -> bool {
        let Some((content, rest)) = contents.split_first() else {
            return true;
        };
        let length = content.pattern.len();
        let (low, high) = match content.position {
            Position::Absolute { offset, depth } => (
                i64::from(number(offset)),
                depth.map_or(i64::MAX, |depth| i64::from(number(offset) + number(depth))),
            ),
            Position::Relative { distance, within } => {
                let low = previous_end as i64 + i64::from(number(distance));
                let high = within.map_or(i64::MAX, |within| low + i64::from(number(within)));
                (low, high)
            }
        };
        let mut ends = (0..=payload.len().saturating_sub(length)).filter_map(|start| {
            let bytes = payload.get(start..start + length)?;
            let same = match content.nocase {
                true => bytes.eq_ignore_ascii_case(&content.pattern),
                false => bytes == content.pattern,
            };
            let end = start + length;
            let inside = low <= start as i64 && end as i64 <= high;
            (same && inside && (!content.at_end || end == payload.len())).then_some(end)
        });
        if content.negated {
            ends.next().is_none() && by_definition(rest, payload, previous_end)
        } else {
            ends.any(|end| by_definition(rest, payload, end))
        }
    }

    fn any_content() -> impl Strategy<Value = Content> {
        let position = prop_oneof![
            (0u32..6, proptest::option::of(3u32..8)).prop_map(|(offset, depth)| {
                Position::Absolute {
                    offset: Value::Literal(offset),
                    depth: depth.map(Value::Literal),
                }
            }),
            (-4i32..4, proptest::option::of(3i32..8)).prop_map(|(distance, within)| {
                Position::Relative {
                    distance: Value::Literal(distance),
                    within: within.map(Value::Literal),
                }
            }),
        ];
        let flags = (
            proptest::bool::weighted(0.25),
            any::<bool>(),
            proptest::bool::weighted(0.1),
        );
        ("[abA]{1,3}", flags, position).prop_map(
            |(pattern, (negated, nocase, at_end), position)| Content {
                pattern: pattern.into_bytes(),
                negated,
                nocase,
                fast_pattern: None,
                at_end,
                at_start: false,
                position,
                replacement: None,
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn a_search_finds_what_the_definition_says(
            contents in proptest::collection::vec(any_content(), 1..5),
            payload in "[abAB]{0,14}",
        ) {
            let payload = payload.as_bytes();
            let expect = match by_definition(&contents, payload, 0) {
                true => Outcome::Match,
                false => Outcome::NoMatch,
            };
            let lowered = payload.to_ascii_lowercase();
            let haystack = Haystack { exact: payload, lowered: &lowered };
            prop_assert_eq!(Contents::compile(&contents).matches(haystack), expect);
        }
    }
}
