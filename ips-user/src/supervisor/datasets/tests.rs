use std::fs::File;
use std::path::Path;
use std::rc::Rc;

use super::command::named;
use super::*;
use crate::detect::dataset::id_of;
use crate::detect::dataset::record::Change;
use crate::detect::{CompileOptions, Engine};
use crate::rules::ast::DatasetKind;
use crate::rules::{RuleSet, Sources};

const ADDRESS: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1];

/// The sets of these rules, as the compiling process writes them.
fn sets_of(directory: &Path, rules: &str) -> OwnedFd {
    let path = directory.join("test.rules");
    std::fs::write(&path, rules).unwrap();
    let sources = Rc::new(Sources::disk());
    let loaded = RuleSet::default().load(&[path], &sources);
    assert!(!loaded.has_errors(), "{:?}", loaded.diagnostics);
    let compiled = Engine::compile(loaded.rules, &CompileOptions::default()).unwrap();
    assert!(compiled.refused.is_empty(), "{:?}", compiled.refused);
    let file: File = Catalogue::file().unwrap();
    compiled.engine.write_sets(&file).unwrap();
    file.into()
}

const RULES: &str = "alert ip any any -> any any (ip.src; dataset:isset,hosts,type ip,\
                     load hosts.lst,save out.lst,memcap 1000; sid:1;)\n\
                     alert ip any any -> any any (ip.src; \
                     dataset:isset,words,type string; sid:2;)\n";

fn sets(left: SetsLeft) -> (tempfile::TempDir, Sets) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("hosts.lst"), "192.0.2.1\n192.0.2.2\n").unwrap();
    let mut sets = Sets::new(left).unwrap();
    sets.set_rules(sets_of(directory.path(), RULES));
    (directory, sets)
}

/// What workers are told from the beginning on.
fn told(sets: &Sets) -> Vec<(SetId, Changes)> {
    let journal = sets.journal.readers().try_clone_to_owned().unwrap();
    read(journal).unwrap()
}

fn has(sets: &Sets, value: &str) -> bool {
    let entry = named(&sets.table, "hosts").unwrap();
    let value = crate::detect::dataset::value::parse(value, DatasetKind::Ip).unwrap();
    sets.table.is_present(entry, &value).unwrap()
}

fn hosts() -> SetId {
    id_of("hosts", DatasetKind::Ip)
}

fn record(change: Change<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    record::push(&mut bytes, hosts(), change);
    bytes
}

#[tokio::test]
async fn reports_become_what_all_workers_are_told() {
    let (_directory, mut sets) = sets(SetsLeft::default());
    assert!(has(&sets, "192.0.2.1") && !has(&sets, "192.0.2.9"));
    sets.hear(&record(Change::Remove(&ADDRESS)));
    assert!(!has(&sets, "192.0.2.1") && has(&sets, "192.0.2.2"));
    let known = told(&sets);
    assert_eq!(known.len(), 1);
    let (set, changes) = &known[0];
    assert_eq!((*set, changes.counts()), (hosts(), (0, 1)));
    // As it was at first: nothing is to be known of it.
    sets.hear(&record(Change::Add(&ADDRESS)));
    assert_eq!(sets.table.totals(), (0, 0));
    sets.rewrite();
    assert!(told(&sets).is_empty());
    assert_eq!(sets.figures().reported, 2);
}

#[tokio::test]
async fn what_no_rule_could_have_reported_changes_nothing_and_is_counted() {
    let (_directory, mut sets) = sets(SetsLeft::default());
    sets.hear(&record(Change::Add(b"short")));
    let mut other = Vec::new();
    record::push(&mut other, SetId::of("other"), Change::Add(&ADDRESS));
    sets.hear(&other);
    sets.hear(b"nonsense that is long enough");
    assert!(told(&sets).is_empty());
    let figures = sets.figures();
    assert_eq!((figures.unknown, figures.nonsense), (2, 1));
}

#[tokio::test]
async fn a_set_keeps_to_its_memory_and_the_journal_to_a_multiple_of_it() {
    let (_directory, mut sets) = sets(SetsLeft::default());
    for number in 0..100_u8 {
        let mut value = ADDRESS;
        value[15] = number;
        sets.hear(&record(Change::Add(&value)));
    }
    let (values, bytes) = sets.table.totals();
    assert!(
        (5..50).contains(&values) && bytes <= 1000,
        "{values} {bytes}"
    );
    assert!(sets.figures().refused > 0);
    let report: Vec<u8> = (0..1000)
        .flat_map(|turn| {
            record(match turn % 2 {
                0 => Change::Remove(&ADDRESS),
                _ => Change::Add(&ADDRESS),
            })
        })
        .collect();
    for _ in 0..200 {
        sets.hear(&report);
        assert!(sets.journal.bytes() <= SHORT + report.len() as u64);
    }
    let known = told(&sets);
    assert_eq!(known.len(), 1);
    assert_eq!(known[0].1.counts().0, values);
}

#[tokio::test]
async fn a_reload_keeps_what_its_rules_name_and_a_successor_has_it_all() {
    let (directory, mut sets) = sets(SetsLeft::default());
    let words = id_of("words", DatasetKind::String);
    let mut report = record(Change::Remove(&ADDRESS));
    record::push(&mut report, words, Change::Add(b"word"));
    sets.hear(&report);
    // Rules that do not name one of them any more, and a file that does not have the value.
    std::fs::write(directory.path().join("hosts.lst"), "192.0.2.2\n").unwrap();
    let rules = RULES.replace("isset,words,type string", "isset,words,type md5");
    sets.set_rules(sets_of(directory.path(), &rules));
    assert!(told(&sets).is_empty());
    std::fs::write(directory.path().join("hosts.lst"), "192.0.2.1\n").unwrap();
    sets.set_rules(sets_of(directory.path(), RULES));
    let mut value = ADDRESS;
    value[15] = 9;
    sets.hear(&record(Change::Clear));
    sets.hear(&record(Change::Add(&value)));
    let left = SetsLeft {
        journal: Some(sets.journal.readers().try_clone_to_owned().unwrap()),
        reports: None,
    };
    let mut successor = Sets::new(left).unwrap();
    successor.set_rules(sets_of(directory.path(), RULES));
    assert!(has(&successor, "192.0.2.9") && !has(&successor, "192.0.2.1"));
    assert_eq!(told(&successor).len(), 1);
}

#[tokio::test]
async fn a_set_with_a_file_of_its_own_stays_as_it_is_whatever_that_said_at_a_reload() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("own.lst");
    let write = |text: &str| std::fs::write(&file, text).unwrap();
    write("192.0.2.1\n192.0.2.2\n");
    let rules = "alert ip any any -> any any (ip.src; dataset:isset,hosts,type ip,state own.lst; \
                 sid:1;)\n";
    let mut sets = Sets::new(SetsLeft::default()).unwrap();
    sets.set_rules(sets_of(directory.path(), rules));
    let mut value = ADDRESS;
    value[15] = 9;
    // Added, saved, and removed before the next time.
    sets.hear(&record(Change::Add(&value)));
    write("192.0.2.1\n192.0.2.2\n192.0.2.9\n");
    sets.hear(&record(Change::Remove(&value)));
    sets.hear(&record(Change::Remove(&ADDRESS)));
    assert_eq!(sets.table.totals().0, 1);
    sets.set_rules(sets_of(directory.path(), rules));
    let as_it_was = |sets: &Sets| {
        ["192.0.2.1", "192.0.2.2", "192.0.2.9"].map(|value| has(sets, value))
            == [false, true, false]
    };
    assert!(as_it_was(&sets));
    assert_eq!(told(&sets)[0].1.counts(), (0, 2));
    // Saved in the meantime: nothing is different any more.
    write("192.0.2.2\n");
    sets.set_rules(sets_of(directory.path(), rules));
    assert!(as_it_was(&sets) && told(&sets).is_empty());
    sets.hear(&record(Change::Clear));
    sets.hear(&record(Change::Add(&ADDRESS)));
    sets.set_rules(sets_of(directory.path(), rules));
    assert!(has(&sets, "192.0.2.1") && !has(&sets, "192.0.2.2"));
}
