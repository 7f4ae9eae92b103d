use super::value::{bytes_of, parse, written};
use super::*;
use crate::rules::ast::Compare;

fn places<'a>(rules: &'a Path, sources: &'a Sources) -> Places<'a> {
    Places {
        rules,
        data: None,
        sources,
    }
}

fn dataset(command: DatasetCommand, kind: DatasetKind, load: Option<&str>) -> Dataset {
    Dataset {
        command,
        name: "set".into(),
        kind,
        load: load.map(Into::into),
        save: Some("out.lst".into()),
        memcap: Some(1000),
        hash_size: None,
        timeout: None,
        format: DatasetFormat::Csv,
        value_key: None,
        array_key: None,
        context_key: None,
        remove_key: false,
    }
}

#[test]
fn values_are_added_asked_for_and_removed() {
    use DatasetCommand::{IsNotSet, IsSet, Set, Unset};
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("in.lst"), "# names\nYQ==\nYg==\n").unwrap();
    let mut definitions = Definitions::default();
    let of = dataset(IsSet, DatasetKind::String, Some("in.lst"));
    let set = definitions
        .add(&of, places(directory.path(), &Sources::disk()))
        .unwrap();
    let again = dataset(Set, DatasetKind::String, None);
    assert_eq!(
        definitions.add(&again, places(directory.path(), &Sources::disk())),
        Ok(set)
    );
    let mut sets = Datasets::default();
    let mut ask = |command, value: &str| sets.command(&definitions, set, command, value.as_bytes());
    assert!(ask(IsSet, "a") && !ask(IsSet, "c") && ask(IsNotSet, "c"));
    assert!(ask(Set, "c"), "it is new");
    assert!(!ask(Set, "c") && !ask(Set, "a") && ask(IsSet, "c"));
    assert!(ask(Unset, "a") && !ask(Unset, "a") && !ask(IsSet, "a"));
    assert!(ask(Set, "a") && ask(IsSet, "a") && ask(Unset, "a"));
    let saved = to_save(&definitions, &sets);
    assert_eq!(saved, [("out.lst".into(), "Yg==\nYw==\n".to_owned())]);
}

#[test]
fn reputations_are_compared() {
    let directory = tempfile::tempdir().unwrap();
    let text = "192.0.2.1,200\n2001:db8::1,10\n";
    std::fs::write(directory.path().join("in.rep"), text).unwrap();
    let mut definitions = Definitions::default();
    let command = DatasetCommand::Reputation(Compare::Greater(100));
    let of = dataset(command, DatasetKind::Ip, Some("in.rep"));
    let set = definitions
        .add(&of, places(directory.path(), &Sources::disk()))
        .unwrap();
    let mut sets = Datasets::default();
    let mut ask = |value: &[u8]| sets.command(&definitions, set, command, value);
    assert!(ask(&[192, 0, 2, 1]));
    assert!(!ask(&[192, 0, 2, 2]));
    assert!(!ask(&bytes_of("2001:db8::1".parse().unwrap())));
    assert!(!ask(b"abc"));
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let fail = |of: &Dataset| {
        let error = Definitions::default().add(of, places(directory.path(), &Sources::disk()));
        error.unwrap_err().to_string()
    };
    let of = dataset(DatasetCommand::IsSet, DatasetKind::Md5, Some("none.lst"));
    assert!(fail(&of).contains("none.lst"), "{}", fail(&of));
    std::fs::write(directory.path().join("bad.lst"), "00\n").unwrap();
    let of = dataset(DatasetCommand::IsSet, DatasetKind::Md5, Some("bad.lst"));
    assert!(fail(&of).contains("line 1"), "{}", fail(&of));
}

#[test]
fn rules_do_not_choose_files_elsewhere() {
    for (save, expect) in [
        ("seen.lst", true),
        ("deeper/seen.lst", true),
        ("/etc/passwd", false),
        ("../seen.lst", false),
    ] {
        let of = Dataset {
            save: Some(save.into()),
            ..dataset(DatasetCommand::Set, DatasetKind::String, None)
        };
        assert_eq!(Definitions::check(&of).is_ok(), expect, "{save}");
    }
}

#[test]
fn a_set_keeps_to_its_memory() {
    let mut definitions = Definitions::default();
    let of = dataset(DatasetCommand::Set, DatasetKind::String, None);
    let set = definitions
        .add(&of, places(Path::new(""), &Sources::disk()))
        .unwrap();
    let mut sets = Datasets::default();
    let added = (0..1000u32)
        .filter(|n| {
            let value = n.to_le_bytes();
            sets.command(&definitions, set, DatasetCommand::Set, &value)
        })
        .count();
    assert!((10..100).contains(&added), "{added}");
    assert_eq!(sets.refused, 1000 - added as u64);
}

#[test]
fn values_are_written_as_they_are_read() {
    for (kind, text) in [
        (DatasetKind::String, "U3VyaWNhdGE="),
        (DatasetKind::String, "U3VyaWNhdGEh"),
        (DatasetKind::Md5, "900150983cd24fb0d6963f7d28e17f72"),
        (DatasetKind::Ipv4, "192.0.2.1"),
        (DatasetKind::Ip, "192.0.2.1"),
        (DatasetKind::Ip, "2001:db8::1"),
    ] {
        assert_eq!(written(&parse(text, kind).unwrap(), kind), text);
    }
    assert_eq!(parse("xyz", DatasetKind::Sha256), None);
    assert_eq!(parse("no base64!", DatasetKind::String), None);
}
