use proptest::prelude::{ProptestConfig, Strategy, any, prop_assert_eq, prop_oneof, proptest};

use super::*;
use crate::rules::ast::{
    Capture, Dataset, IsDataAt, JumpFrom, Options, Rule, TestOperator, Transform,
};
use crate::rules::{RuleSet, RuleSource};

/// Sets as a test sees them.
#[derive(Default)]
struct Asked(Vec<(u32, Vec<u8>)>);

impl Sets for Asked {
    fn dataset(&mut self, set: u32, _command: DatasetCommand, value: &[u8]) -> bool {
        self.0.push((set, value.to_vec()));
        value.starts_with(b"known")
    }
}

#[derive(Default)]
struct Around {
    patterns: Vec<Pattern>,
}

impl Surroundings for Around {
    fn set(&mut self, _dataset: &Dataset) -> Result<u32, Unsupported> {
        Ok(7)
    }

    fn name(&mut self, name: &str) -> NameId {
        NameId::of(name)
    }

    fn pattern(&mut self, pattern: Pattern) -> u32 {
        self.patterns.push(pattern);
        self.patterns.len() as u32 - 1
    }
}

struct Run {
    outcome: Outcome,
    noted: Noted,
    asked: Asked,
    spent: bool,
}

fn run_sections(section: &Section, base64: &[&Section], payload: &[u8]) -> Run {
    let mut around = Around::default();
    let program = Program::compile(section, base64, &mut around)
        .unwrap()
        .clone();
    let mut patterns = Patterns::new(around.patterns.len());
    let mut variables = Variables::default();
    variables.reserve(8);
    let mut noted = Noted::default();
    let mut asked = Asked::default();
    let mut budget = Budget::of_packet(MAX_STEPS);
    let outcome = program.inspect(
        payload,
        &mut Tools {
            sources: &around.patterns,
            patterns: &mut patterns,
            variables: &mut variables,
            noted: &mut noted,
            decoded: &mut Vec::new(),
            sets: &mut asked,
            budget: &mut budget,
        },
    );
    Run {
        outcome,
        noted,
        asked,
        spent: budget.is_spent(),
    }
}

fn section(matches: Vec<Match>) -> Section {
    Section {
        buffer: Buffer::Payload,
        transforms: Vec::<Transform>::new(),
        to_server: None,
        matches,
    }
}

fn run(matches: &[Match], payload: &[u8]) -> Run {
    run_sections(&section(matches.to_vec()), &[], payload)
}

fn rule(options: &str) -> Rule {
    let text = format!("alert tcp any any -> any any ({options} sid:1;)");
    let mut loaded = RuleSet::default().load_sources(&[RuleSource::new("t", text.into())]);
    assert_eq!(loaded.rules.len(), 1, "{:?}", loaded.diagnostics);
    loaded.rules.remove(0)
}

fn outcome(options: &str, payload: &[u8]) -> Outcome {
    let Options { sections, .. } = rule(options).options;
    run_sections(&sections[0], &[], payload).outcome
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
    let rule =
        r#"content:"a"; content:!"b"; distance:0; within:1; content:"c"; distance:0; within:2;"#;
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
    let options =
        r#"content:"a"; content:"a"; within:500; content:"a"; within:500; content:"b"; within:9;"#;
    assert_eq!(outcome(options, &[b'a'; 2000]), Outcome::GaveUp);
}

#[test]
fn filling_up_with_what_is_looked_for_hides_nothing_behind_it() {
    for (length, options) in [
        (
            65_000,
            r#"content:"x"; content:"evil"; distance:5; within:4;"#,
        ),
        // Each search is taken for one of all that follows.
        (
            7_000,
            r#"pcre:"/x/"; content:"evil"; distance:5; within:4;"#,
        ),
    ] {
        let payload = [vec![b'x'; length], b"abcdeevil".to_vec()].concat();
        assert_eq!(outcome(options, &payload), Outcome::Match, "{options}");
    }
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
    assert_eq!(outcome(&options, b"x"), Outcome::Match);
    let each_retried = r#"content:"a"; "#.to_owned() + &r#"content:"a"; within:9; "#.repeat(20_000);
    assert_eq!(outcome(&each_retried, &[b'a'; 30_000]), Outcome::GaveUp);
}

fn number<T: Copy>(value: Value<T>) -> T {
    match value {
        Value::Literal(value) => value,
        Value::Variable(_) => unreachable!("literals only"),
    }
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
    ("[abA]{1,3}", flags, position).prop_map(|(pattern, (negated, nocase, at_end), position)| {
        Content {
            pattern: pattern.into_bytes(),
            negated,
            nocase,
            fast_pattern: None,
            at_end,
            at_start: false,
            position,
            replacement: None,
        }
    })
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
        let matches: Vec<Match> = contents.into_iter().map(Match::Content).collect();
        prop_assert_eq!(run(&matches, payload).outcome, expect);
    }
}

fn content(pattern: &str, position: Position) -> Match {
    Match::Content(Content {
        pattern: pattern.into(),
        negated: false,
        nocase: false,
        fast_pattern: None,
        at_end: false,
        at_start: false,
        position,
        replacement: None,
    })
}

fn anywhere() -> Position {
    Position::Absolute {
        offset: Value::Literal(0),
        depth: None,
    }
}

fn after(distance: i32, within: Option<i32>) -> Position {
    Position::Relative {
        distance: Value::Literal(distance),
        within: within.map(Value::Literal),
    }
}

fn pcre(expression: &str, relative: bool, negated: bool) -> Match {
    Match::Pcre(Pcre {
        negated,
        relative,
        captures: Vec::new(),
        ..pcre::capturing(expression)
    })
}

fn field(bytes: u32, offset: i32, relative: bool) -> Field {
    Field {
        bytes: Value::Literal(bytes),
        offset: Value::Literal(offset),
        relative,
        encoding: Encoding::BigEndian,
        bitmask: None,
    }
}

fn extract(field: Field, result: u8) -> Match {
    Match::ByteExtract(ByteExtract {
        field,
        multiplier: 1,
        align: None,
        result: Variable(result),
    })
}

fn verify(matches: &[Match], payload: &[u8], expect: bool) {
    let expect = match expect {
        true => Outcome::Match,
        false => Outcome::NoMatch,
    };
    assert_eq!(
        run(matches, payload).outcome,
        expect,
        "{matches:?} in {payload:?}"
    );
}

#[test]
fn an_expression_is_searched_everywhere_or_behind_the_match_before() {
    verify(&[pcre("a.c", false, false)], b"xabcx", true);
    verify(&[pcre("a.c", false, true)], b"xabcx", false);
    verify(&[pcre("a.c", false, true)], b"xabx", true);
    let relative = [content("ab", anywhere()), pcre("^c\\d", true, false)];
    verify(&relative, b"abc1", true);
    verify(&relative, b"abxc1", false);
    // Every occurrence of the content is tried.
    verify(&relative, b"ab abxc1 abc1", true);
    let negated = [content("ab", anywhere()), pcre("^c\\d", true, true)];
    verify(&negated, b"abc1", false);
    verify(&negated, b"abc1 ab", true);
}

#[test]
fn every_match_of_an_expression_is_tried() {
    let matches = [pcre("a\\d", false, false), content("b", after(0, Some(1)))];
    verify(&matches, b"a1 a2 a3b", true);
    verify(&matches, b"a1 a2 a3", false);
    // Also one that begins within the one before.
    let overlapping = [pcre("aa", false, false), content("b", after(0, Some(1)))];
    verify(&overlapping, b"aaab", true);
}

#[test]
fn groups_are_noted_only_if_all_of_it_matches() {
    let capture = |name: &str| Capture {
        scope: CaptureScope::Flow,
        name: name.into(),
    };
    let expression = Match::Pcre(Pcre {
        captures: vec![capture("one"), capture("two")],
        ..pcre::capturing("(\\w)=(\\d+)")
    });
    let matches = [expression, content(";", after(0, Some(1)))];
    let run = run(&matches, b"a=1, b=22;");
    assert_eq!(run.outcome, Outcome::Match);
    let noted = run.noted.captures(NotedUpTo(0, 0, 0));
    let noted: Vec<_> = noted
        .map(|(_, name, value)| (name, value.to_vec()))
        .collect();
    let expect = [
        (NameId::of("one"), b"b".to_vec()),
        (NameId::of("two"), b"22".to_vec()),
    ];
    assert_eq!(noted, expect);
}

#[test]
fn values_that_were_read_stand_for_numbers() {
    let variable = Value::Variable(Variable(3));
    let within = Position::Relative {
        distance: Value::Literal(0),
        within: Some(Value::Variable(Variable(3))),
    };
    let matches = [extract(field(1, 0, false), 3), content("ab", within)];
    verify(&matches, b"\x04..ab", true);
    verify(&matches, b"\x03..ab", false);
    let offset = Position::Absolute {
        offset: variable_u32(),
        depth: Some(Value::Literal(2)),
    };
    let matches = [extract(field(1, 0, false), 3), content("ab", offset)];
    verify(&matches, b"\x03..ab", true);
    verify(&matches, b"\x02..ab", false);
    let depth = Position::Absolute {
        offset: Value::Literal(1),
        depth: Some(variable_u32()),
    };
    let matches = [extract(field(1, 0, false), 3), content("ab", depth)];
    verify(&matches, b"\x04..ab", true);
    verify(&matches, b"\x03..ab", false);
    let is = IsDataAt {
        position: variable_u32(),
        negated: false,
        relative: false,
    };
    verify(
        &[extract(field(1, 0, false), 3), Match::IsDataAt(is)],
        b"\x02..",
        true,
    );
    verify(
        &[extract(field(1, 0, false), 3), Match::IsDataAt(is)],
        b"\x03..",
        false,
    );
    let test = Match::ByteTest(ByteTest {
        field: field(1, 1, false),
        negated: false,
        operator: TestOperator::Equal,
        value: variable,
    });
    verify(
        &[extract(field(1, 0, false), 3), test.clone()],
        b"\x09\x09",
        true,
    );
    verify(&[extract(field(1, 0, false), 3), test], b"\x09\x08", false);
}

fn variable_u32() -> Value<u32> {
    Value::Variable(Variable(3))
}

#[test]
fn reading_moves_the_point_and_other_occurrences_are_tried_for_it() {
    // The length behind the second `#` fits.
    let is = IsDataAt {
        position: Value::Variable(Variable(0)),
        negated: true,
        relative: true,
    };
    let matches = [
        content("#", anywhere()),
        extract(field(1, 0, true), 0),
        Match::IsDataAt(is),
    ];
    verify(&matches, b"#\x02....#\x05..", true);
    verify(&matches, b"#\x02....#\x02..", false);
    // An absolute content between them does not end the search.
    let matches = [
        content("#", anywhere()),
        extract(field(1, 0, true), 0),
        content(".", anywhere()),
        content(
            "x",
            Position::Absolute {
                offset: Value::Variable(Variable(0)),
                depth: Some(Value::Literal(1)),
            },
        ),
    ];
    verify(&matches, b"#\x01#\x05.x", true);
    verify(&matches, b"#\x01#\x04.x", false);
    let jump = Match::ByteJump(ByteJump {
        field: field(1, 0, true),
        multiplier: 1,
        align: false,
        from: JumpFrom::Field,
        post_offset: Value::Literal(0),
    });
    let matches = [
        content("#", anywhere()),
        jump,
        content("x", after(0, Some(1))),
    ];
    verify(&matches, b"#\x01.x", true);
    verify(&matches, b"#\x02.x#\x01.x", true);
    verify(&matches, b"#\x02.x.", false);
}

#[test]
fn what_is_decoded_is_looked_at_in_sections_of_its_own() {
    let decode = |relative| Match::Base64Decode {
        bytes: None,
        offset: 0,
        relative,
    };
    let data = Section {
        buffer: Buffer::Base64Data,
        ..section(vec![
            content("Suri", anywhere()),
            content("cata", after(0, Some(4))),
        ])
    };
    let check = |matches: Vec<Match>, payload: &[u8], expect| {
        let run = run_sections(&section(matches.clone()), &[&data], payload);
        assert_eq!(run.outcome, expect, "{matches:?} in {payload:?}");
    };
    check(vec![decode(false)], b"U3VyaWNhdGE=", Outcome::Match);
    check(vec![decode(false)], b"U3VyaQ==", Outcome::NoMatch);
    check(vec![decode(false)], b"", Outcome::NoMatch);
    let relative = vec![content("x:", anywhere()), decode(true)];
    check(relative.clone(), b"x:U3VyaWNhdGE=", Outcome::Match);
    check(relative, b"x:AAAA x:U3VyaWNhdGE=", Outcome::Match);
}

#[test]
fn sets_are_asked_for_the_whole_buffer() {
    let dataset = Dataset {
        command: DatasetCommand::IsSet,
        name: "n".into(),
        kind: crate::rules::ast::DatasetKind::String,
        load: None,
        save: None,
        memcap: None,
        hash_size: None,
        timeout: None,
        format: crate::rules::ast::DatasetFormat::Csv,
        value_key: None,
        array_key: None,
        context_key: None,
        remove_key: false,
    };
    let first = run(&[Match::Dataset(dataset.clone())], b"known x");
    assert_eq!(first.outcome, Outcome::Match);
    assert_eq!(first.asked.0, [(7, b"known x".to_vec())]);
    assert_eq!(
        run(&[Match::Dataset(dataset)], b"other").outcome,
        Outcome::NoMatch
    );
}

#[test]
fn sizes_are_those_of_the_buffer() {
    verify(&[Match::Size(Compare::Equal(3))], b"abc", true);
    verify(&[Match::Size(Compare::Between(3, 9))], b"abc", false);
}

#[test]
fn replacements_stand_where_the_match_was() {
    let Match::Content(found) = content("evil", anywhere()) else {
        unreachable!("it is one");
    };
    let replaced = Match::Content(Content {
        replacement: Some(b"good".to_vec()),
        ..found
    });
    let matches = [replaced, content("!", after(0, Some(1)))];
    let run = run(&matches, b"evil? evil!");
    assert_eq!(run.outcome, Outcome::Match);
    assert!(run.noted.replaces());
    let places: Vec<_> = run.noted.replacements().collect();
    assert_eq!(places, [(6, &b"good"[..])]);
}

#[test]
fn keywords_of_other_layers_are_refused() {
    let dce = Match::ByteTest(ByteTest {
        field: Field {
            encoding: Encoding::Dce,
            ..field(2, 0, false)
        },
        negated: false,
        operator: TestOperator::Equal,
        value: Value::Literal(1),
    });
    let refused = Program::compile(&section(vec![dce]), &[], &mut Around::default());
    assert_eq!(refused.unwrap_err().keyword, "dce");
    let refused = Program::compile(
        &section(vec![pcre("(a", false, false)]),
        &[],
        &mut Around::default(),
    );
    assert_eq!(refused.unwrap_err().keyword, "pcre");
}

#[test]
fn a_packet_has_a_bound_for_all_its_rules() {
    let mut budget = Budget::of_packet(MAX_STEPS);
    budget.look(PACKET_BYTES as usize);
    assert!(budget.is_spent() && !budget.step());
    assert!(!run(&[content("a", anywhere())], b"a").spent);
}
