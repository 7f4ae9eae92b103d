use proptest::prelude::*;

use super::*;
use crate::rules::{
    Action, Arrow, Content, Coverage, Match, Options, Position, RejectTarget, RuleProtocol,
    Unsupported, Value,
};

/// What the parser says; whether an engine can evaluate the rules is not asked.
fn parser() -> RuleSet {
    RuleSet {
        supported: |_| Ok(()),
        ..RuleSet::default()
    }
}

fn load(text: &str) -> Loaded {
    parser().load_sources(&[RuleSource::new("t.rules", text.as_bytes().to_vec())])
}

fn one(text: &str) -> Rule {
    let mut loaded = load(text);
    let told: Vec<String> = loaded.diagnostics.iter().map(Diagnostic::render).collect();
    assert_eq!(loaded.rules.len(), 1, "{text}\n{}", told.concat());
    loaded.rules.remove(0)
}

fn contents(options: &Options) -> Vec<&Content> {
    let matches = options.sections.iter().flat_map(|s| &s.matches);
    matches
        .filter_map(|found| match found {
            Match::Content(content) => Some(content),
            _ => None,
        })
        .collect()
}

/// Wraps options into a rule that is otherwise right.
fn with(options: &str) -> String {
    format!("alert tcp any any -> any any ({options} sid:1;)")
}

#[test]
fn a_complete_rule_is_read() {
    let rule = one(
        "drop tcp $EXTERNAL_NET 1024: -> 192.0.2.0/24 [80,8080] (msg:\"ET \\\"quoted\\\" \\; thing\"; \
         content:\"GET |2f|\"; nocase; offset:0; depth:10; content:!\"x\"; distance:-2; within:7; \
         reference:cve,2021-44228; reference:url,example.org/a?b; classtype:trojan-activity; \
         sid:2000001; rev:7; gid:3; metadata:created_at 2020_01_01, tag x y; noalert;)",
    );
    assert_eq!(rule.action, Action::Drop);
    assert_eq!(rule.protocol, RuleProtocol::Tcp);
    assert_eq!(rule.direction, Arrow::Toward);
    assert_eq!(rule.source_ports.ranges(), [(1024, 65535)]);
    let options = rule.options;
    assert_eq!(options.message, "ET \"quoted\" ; thing");
    assert_eq!(
        (options.signature_id, options.revision, options.group_id),
        (2_000_001, 7, 3)
    );
    assert_eq!(options.priority, 1);
    assert_eq!(
        options.class.as_ref().unwrap().description,
        "A Network Trojan was detected"
    );
    assert_eq!(options.references[1].id, "example.org/a?b");
    assert_eq!(options.metadata[1], ("tag".into(), "x y".into()));
    assert!(options.no_alert);
    let contents = contents(&options);
    let [first, second] = contents.as_slice() else {
        panic!("{:?}", options.sections)
    };
    assert_eq!(first.pattern, b"GET /");
    assert!(first.nocase && !first.negated);
    let expect = Position::Absolute {
        offset: Value::Literal(0),
        depth: Some(Value::Literal(10)),
    };
    assert_eq!(first.position, expect);
    assert!(second.negated);
    let expect = Position::Relative {
        distance: Value::Literal(-2),
        within: Some(Value::Literal(7)),
    };
    assert_eq!(second.position, expect);
}

#[test]
fn every_action_protocol_and_direction_is_known() {
    for (word, action) in [
        ("alert", Action::Alert),
        ("pass", Action::Pass),
        ("drop", Action::Drop),
        ("reject", Action::Reject(RejectTarget::Source)),
        ("rejectsrc", Action::Reject(RejectTarget::Source)),
        ("rejectdst", Action::Reject(RejectTarget::Destination)),
        ("rejectboth", Action::Reject(RejectTarget::Both)),
    ] {
        assert_eq!(
            one(&format!("{word} ip any any <> any any (sid:1;)")).action,
            action
        );
    }
    for word in [
        "tcp", "tcp-pkt", "udp", "sctp", "icmp", "icmpv4", "icmpv6", "ip", "ip4", "ipv6",
    ] {
        let rule = one(&format!("alert {word} any any <> any any (sid:1;)"));
        assert_eq!(rule.direction, Arrow::Either);
    }
}

#[test]
fn findings_say_where_and_what_would_be_right() {
    let check = |text: &str, place: (usize, usize), length: usize, message: &str, help: &str| {
        let loaded = load(text);
        assert_eq!(loaded.rules.len(), 0, "{text}");
        let found = &loaded.diagnostics[0];
        assert_eq!(
            (found.line, found.column, found.length),
            (place.0, place.1, length),
            "{}",
            found.render()
        );
        assert!(found.message.contains(message), "{}", found.render());
        assert!(
            found.help.as_deref().unwrap_or("").contains(help),
            "{}",
            found.render()
        );
    };
    check(
        "alret tcp any any -> any any (sid:1;)",
        (1, 1),
        5,
        "unknown action",
        "`alert`",
    );
    check(
        "alert tpc any any -> any any (sid:1;)",
        (1, 7),
        3,
        "unknown protocol",
        "`tcp`",
    );
    check(
        "\n\nalert tcp any any <- any any (sid:1;)",
        (3, 19),
        2,
        "direction",
        "exchange",
    );
    check(
        "alert tcp any any -> any (sid:1;)",
        (1, 25),
        1,
        "destination port",
        "action protocol",
    );
    check(
        "alert tcp any any -> any any any (sid:1;)",
        (1, 30),
        3,
        "unexpected",
        "",
    );
    check(
        "alert tcp any 80:70 -> any any (sid:1;)",
        (1, 15),
        5,
        "reversed",
        "",
    );
    check(
        "alert tcp [1.1.1.1,x] any -> any any (sid:1;)",
        (1, 20),
        1,
        "not an address",
        "",
    );
    check(
        "alert tcp any any -> any any",
        (1, 29),
        1,
        "no options",
        "sid",
    );
    check(
        "alert tcp any any -> any any (msg:\"x\";)",
        (1, 30),
        1,
        "no sid",
        "sid:",
    );
    check(
        "alert tcp any any -> any any (sid:1; contnet:\"x\";)",
        (1, 38),
        7,
        "unknown keyword",
        "`content`",
    );
    check(
        "alert tcp any any -> any any (sid:1",
        (1, 31),
        5,
        "no `;`",
        "",
    );
    check(
        "alert tcp any any -> any any (sid:1;",
        (1, 37),
        1,
        "`)` missing",
        "",
    );
    check(
        "alert tcp any any -> any any (sid:1;) x",
        (1, 39),
        1,
        "after the end",
        "",
    );
    check(
        "alert tcp any any -> any any (sid:0;)",
        (1, 35),
        1,
        "from 1",
        "",
    );
    check(
        "alert tcp any any -> any any (sid:1; sid:2;)",
        (1, 38),
        3,
        "twice",
        "",
    );
    check(&with("content:x;"), (1, 39), 1, "quotes", "content:\"");
    check(
        &with("content:\"a|0|\";"),
        (1, 42),
        1,
        "half a byte",
        "two digits",
    );
    check(
        &with("nocase; content:\"a\";"),
        (1, 31),
        6,
        "without a content",
        "",
    );
    check(
        &with("distance:1; content:\"a\";"),
        (1, 31),
        8,
        "without a content",
        "",
    );
    check(
        &with("content:\"a\"; nocase; nocase;"),
        (1, 52),
        6,
        "twice",
        "",
    );
    check(
        &with("content:\"a\"; offset:1; offset:2;"),
        (1, 54),
        6,
        "twice",
        "",
    );
    check(
        &with("content:\"abc\"; depth:2;"),
        (1, 52),
        1,
        "less than the length",
        "at least 3",
    );
    check(
        &with("content:\"abc\"; within:2;"),
        (1, 53),
        1,
        "less than the length",
        "",
    );
    check(
        &with("content:\"a\"; depth:5; distance:1;"),
        (1, 62),
        1,
        "both relative",
        "",
    );
    check(&with("content:\"a\"; offset:-1;"), (1, 51), 2, "from 0", "");
    check(&with("nocase:1;"), (1, 31), 6, "without a content", "");
    check(
        &with("content:\"a\"; nocase:1;"),
        (1, 51),
        1,
        "takes no value",
        "",
    );
    check(&with("msg:plain;"), (1, 35), 5, "quotes", "");
    check(&with("msg;"), (1, 31), 3, "needs a value", "");
    check(&with("reference:x;"), (1, 41), 1, "system and an id", "");
}

#[test]
fn a_header_with_a_missing_part_says_which() {
    let check = |header: &str, column: usize, message: &str| {
        let loaded = load(&format!("alert tcp {header} (sid:1;)"));
        let found = &loaded.diagnostics[0];
        assert!(found.message.contains(message), "{header}: {found:?}");
        assert_eq!(found.column, column, "{header}: {found:?}");
        assert_eq!(loaded.diagnostics.len(), 1, "{header}");
    };
    check("[1.1.1.1 any -> any any", 11, "`[` without `]`");
    check("any any any any", 19, "`->` or `<>` is missing");
    check("any -> any any", 15, "no source port");
    check("-> any any", 11, "no source address");
    check("any any->any any", 15, "no spaces around");
    check("any any - > any any", 19, "is missing before");
    check("any any any -> any any", 19, "unexpected word");
    check("any any -> any", 25, "ends before its destination port");
    check("any any -> any any any", 30, "unexpected word");
    check("any any", 18, "ends before its direction");
}

#[test]
fn slips_in_options_are_told_apart() {
    let check = |options: &str, message: &str, help: &str| {
        let loaded = load(&with(options));
        let found = &loaded.diagnostics[0];
        assert!(found.message.contains(message), "{options}: {found:?}");
        let said = found.help.as_deref().unwrap_or_default();
        assert!(said.contains(help), "{options}: {found:?}");
    };
    check("msg:\"a;", "no closing quote", "\\;");
    check("content:\"a;b\";", "no closing quote", "|3B|");
    check("content:“a”;", "quotes", "content:\"");
    check("msg \"a\";", "unknown keyword", "`:` stands between");
    check("contnet \"a\";", "unknown keyword", "");
    let long = format!("{}:1;", "x".repeat(2_000_000));
    check(&long, "xxx…`", "");
}

#[test]
fn all_findings_of_a_file_come_in_one_run() {
    let loaded = load(
        "alert tcp any 99999 -> 1.2.3 any (contnet:\"a\"; depht:3; sid:1;)\n\
         alert udp any any -> any any (sid:2;)\n\
         alert udp any any -> any any (sid:x;)\n",
    );
    assert_eq!(loaded.rules.len(), 1);
    assert_eq!(loaded.diagnostics.len(), 5);
    assert_eq!((loaded.seen, loaded.wrong), (3, 2));
    assert!(loaded.has_errors());
}

#[test]
fn what_cannot_be_used_is_counted_by_reason_and_word_and_is_no_error() {
    let text = "alert tcp any any -> any any (lua:x.lua; sid:1;)\n\
                alert tcp any any -> any any (content:\"a\"; http_encode:uri,utf8; sid:2;)\n\
                log tcp any any -> any any (sid:3;)\n\
                accept:hook http1:request_line any any -> any any (lua:y.lua; sid:4;)\n\
                alert tcp any any -> any any (requires:version >= 99; contnet:\"x\"; sid:5;)\n\
                alert tcp any any -> any any (msg:\"refused\"; sid:6;)\n\
                alert tcp any any -> any any (contnet:\"x\"; sid:7;)\n\
                alert tcp any any -> any any (sid:8;)\n";
    let set = RuleSet {
        supported: |rule| match rule.options.message.as_str() {
            "refused" => Err(Unsupported::new("msg", "of no use")),
            _ => Ok(()),
        },
        ..RuleSet::default()
    };
    let loaded = set.load_sources(&[RuleSource::new("t.rules", text.into())]);
    let counts = (loaded.seen, loaded.rules.len(), loaded.wrong);
    assert_eq!(counts, (8, 1, 1), "{:?}", loaded.diagnostics);
    assert_eq!((loaded.unsupported, loaded.not_for_us), (5, 1));
    let coverage = Coverage::from(&loaded);
    let of = |keyword: &str| {
        let found = coverage.rejected.iter().find(|r| r.keyword == keyword);
        let found = found.unwrap_or_else(|| panic!("{keyword}: {coverage:?}"));
        (found.count, found.example.as_str())
    };
    assert_eq!(of("lua"), (1, "t.rules:1"));
    assert_eq!(of("http_encode"), (1, "t.rules:2"));
    assert_eq!(of("log"), (1, "t.rules:3"));
    assert_eq!(of("accept"), (1, "t.rules:4"));
    assert_eq!(of("requires"), (1, "t.rules:5"));
    assert_eq!(of("msg"), (1, "t.rules:6"));
    assert_eq!(of("contnet"), (1, "t.rules:7"));
    let rejected: usize = coverage.rejected.iter().map(|r| r.count).sum();
    assert_eq!(coverage.active, coverage.loaded + rejected);
    let json = serde_json::to_value(&coverage).unwrap();
    assert_eq!(json["active"], 8);
    assert!(json["rejected"][0]["reason"].is_string());
}

#[test]
fn a_flowbit_that_no_rule_sets_is_a_warning_at_the_rule_that_asks() {
    let loaded = load(
        "alert tcp any any -> any any (flowbits:set,seen.it; sid:1;)\n\
         alert tcp any any -> any any (flowbits:isset,seen.it; sid:2;)\n\
         alert tcp any any -> any any (flowbits:isset,sene.it; sid:3;)\n",
    );
    assert_eq!((loaded.rules.len(), loaded.diagnostics.len()), (3, 1));
    let found = &loaded.diagnostics[0];
    assert_eq!((found.severity, found.line), (Severity::Warning, 3));
    assert_eq!(found.help.as_deref(), Some("did you mean `seen.it`?"));
}

#[test]
fn a_second_rule_with_the_same_sid_needs_a_higher_rev() {
    let rule = |rev: u32, message: &str| {
        format!("alert ip any any -> any any (msg:\"{message}\"; sid:5; rev:{rev};)\n")
    };
    let replaced = load(&(rule(1, "old") + &rule(2, "new")));
    assert_eq!(replaced.rules[0].options.message, "new");
    assert_eq!((replaced.superseded, replaced.has_errors()), (1, false));
    for rev in [1, 2] {
        let refused = load(&(rule(2, "old") + &rule(rev, "new")));
        assert_eq!(refused.rules.len(), 1);
        assert_eq!(refused.rules[0].options.message, "old");
        assert!(refused.has_errors());
        assert_eq!(refused.diagnostics[0].line, 2);
    }
    let other_group = rule(1, "a") + "alert ip any any -> any any (gid:2; sid:5;)";
    assert_eq!(load(&other_group).rules.len(), 2);
}

#[test]
fn an_unknown_class_is_a_warning() {
    let loaded = load(&with("classtype:trojan-activty;"));
    assert_eq!(loaded.rules.len(), 1);
    assert_eq!(loaded.diagnostics[0].severity, Severity::Warning);
    assert_eq!(
        loaded.diagnostics[0].help.as_deref(),
        Some("did you mean `trojan-activity`?")
    );
    assert_eq!(
        one(&with("priority:2; classtype:trojan-activity;"))
            .options
            .priority,
        2
    );
}

#[test]
fn rules_go_over_lines_and_need_not_be_utf8() {
    let text = b"alert ip any any -> any any \\\r\n  (msg:\"caf\xe9\"; \\\r\n content:\"\xe9\"; sid:1;)\r\n";
    let source = RuleSource::new("t.rules", text.to_vec());
    let loaded = RuleSet::default().load_sources(&[source]);
    assert_eq!(contents(&loaded.rules[0].options)[0].pattern, [0xe9]);
    assert_eq!(loaded.rules[0].options.message, "caf\u{fffd}");
    let source = RuleSource::new(
        "t.rules",
        b"al\xe9rt ip any any -> any any (sid:1;)".to_vec(),
    );
    let loaded = RuleSet::default().load_sources(&[source]);
    assert!(loaded.diagnostics[0].message.contains("UTF-8"));
}

#[test]
fn variables_can_be_set() {
    let mut set = RuleSet::default();
    set.variables.set_addresses("HOME_NET", "192.0.2.0/24");
    set.variables.set_ports("MY_PORTS", "[1,2]");
    let text = "alert tcp $EXTERNAL_NET $MY_PORTS -> $HOME_NET any (sid:1;)";
    let loaded = set.load_sources(&[RuleSource::new("t", text.into())]);
    assert!(
        !loaded.rules[0]
            .source
            .contains("192.0.2.9".parse().unwrap())
    );
    assert!(loaded.rules[0].source.contains("10.0.0.1".parse().unwrap()));
    assert_eq!(loaded.rules[0].source_ports.ranges(), [(1, 2)]);
}

#[test]
fn a_file_that_cannot_be_read_is_a_finding() {
    let loaded = RuleSet::default().load(&["/nonexistent/x.rules".into()], &Sources::disk());
    assert!(loaded.has_errors());
    assert!(
        loaded.diagnostics[0]
            .render()
            .contains("/nonexistent/x.rules:1:1: error: cannot read")
    );
}

#[test]
fn endless_empty_options_exhaust_neither_stack_nor_memory() {
    let text = format!(
        "alert ip any any -> any any ({}sid:1;)",
        ";".repeat(300_000)
    );
    let loaded = load(&text);
    assert!(loaded.has_errors());
    assert!(loaded.diagnostics.len() < 30);
}

#[test]
fn published_rule_files_load_without_a_panic() {
    let Some(directory) = std::env::var_os("SLUICE_RULES") else {
        println!("skipped: SLUICE_RULES names no directory with *.rules files");
        return;
    };
    let files: Vec<PathBuf> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "rules")
        })
        .collect();
    assert!(!files.is_empty());
    for file in files {
        let loaded = parser().load(std::slice::from_ref(&file), &Sources::disk());
        println!(
            "{}: {} rules, {} loaded, {} unsupported, {} wrong",
            file.display(),
            loaded.seen,
            loaded.rules.len(),
            loaded.unsupported,
            loaded.wrong
        );
        let errors = loaded
            .diagnostics
            .iter()
            .filter(|d| d.severity == Severity::Error);
        for diagnostic in errors.take(10) {
            print!("{}", diagnostic.render());
        }
        let accounted = loaded.rules.len()
            + loaded.unsupported
            + loaded.wrong
            + loaded.not_for_us
            + loaded.superseded;
        assert_eq!(loaded.seen, accounted);
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let loaded = RuleSet::default().load_sources(&[RuleSource::new("t", bytes)]);
        for diagnostic in &loaded.diagnostics { diagnostic.render(); }
    }

    #[test]
    fn no_mutation_of_any_keyword_makes_it_panic(
        from in 0usize..40,
        changes in proptest::collection::vec((0usize..400, prop_oneof![
            Just(b';'), Just(b'"'), Just(b'\\'), Just(b'('), Just(b')'), Just(b'['), Just(b','),
            Just(b'|'), Just(b'!'), Just(b':'), Just(b' '), Just(b'-'), Just(b'<'), any::<u8>(),
        ]), 0..8),
    ) {
        let keywords = include_str!("../tests/keywords.txt").lines().collect::<Vec<_>>();
        let taken = keywords.iter().cycle().skip(from).take(6).copied();
        let options = taken.collect::<Vec<_>>().join(" ");
        let mut bytes = format!("alert ip any any => any any ({options} sid:1;)").into_bytes();
        let length = bytes.len();
        for (at, byte) in changes {
            bytes[at % length] = byte;
        }
        let loaded = parser().load_sources(&[RuleSource::new("t", bytes)]);
        for diagnostic in &loaded.diagnostics { diagnostic.render(); }
    }

    #[test]
    fn no_mutation_of_a_rule_makes_it_panic(
        changes in proptest::collection::vec((0usize..200, prop_oneof![
            Just(b';'), Just(b'"'), Just(b'\\'), Just(b'\n'), Just(b'('), Just(b')'), Just(b'['),
            Just(b'|'), Just(b'!'), Just(b':'), Just(b' '), any::<u8>(),
        ]), 0..10),
        length in 0usize..260,
    ) {
        let mut bytes = b"alert tcp [10.0.0.0/8,!$HOME_NET] 1024: -> any [80,!81] (msg:\"a\"; \
            content:!\"b|41 42|\"; nocase; distance:1; within:9; content:\"c\"; offset:2; depth:5; \
            classtype:trojan-activity; reference:cve,1; metadata:a b; sid:1; rev:2;)".to_vec();
        for (at, byte) in changes {
            if let Some(slot) = bytes.get_mut(at) { *slot = byte; }
        }
        bytes.truncate(length);
        let loaded = RuleSet::default().load_sources(&[RuleSource::new("t", bytes)]);
        for diagnostic in &loaded.diagnostics { diagnostic.render(); }
    }
}
