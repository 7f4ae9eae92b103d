//! Sets of values: `dataset` and `datarep`.
//!
//! What a set was loaded with is part of the engine; what rules add and remove is kept beside it
//! in each worker, for as long as the worker lives. Reference:
//! <https://docs.suricata.io/en/suricata-8.0.3/rules/datasets.html>.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Component, Path, PathBuf};

use super::matching::base64_decode;
use super::names::NameId;
use crate::rules::ast::{Dataset, DatasetCommand, DatasetFormat, DatasetKind};
use crate::rules::{Sources, Unsupported};

/// Most memory of what is added to a set, if its definition does not say.
const MEMCAP: u64 = 100 << 20;

/// A value with its reputation.
type Value = (Box<[u8]>, u16);

/// A set as rules define it.
#[derive(Clone, Debug)]
pub(super) struct Definition {
    name: Box<str>,
    id: NameId,
    kind: DatasetKind,
    /// Ascending, with their reputation.
    loaded: Vec<Value>,
    source: Option<PathBuf>,
    save: Option<PathBuf>,
    memcap: u64,
}

/// The sets of an engine.
#[derive(Clone, Debug, Default)]
pub(super) struct Definitions(Vec<Definition>);

impl Definitions {
    /// Whether there can be such a set, whatever its files say.
    ///
    /// # Errors
    /// When there is nothing for it yet.
    pub(super) fn check(dataset: &Dataset) -> Result<(), Unsupported> {
        let fail = |reason: &str| Err(Unsupported::new("dataset", reason));
        // Rules come from elsewhere: they must not choose what is overwritten.
        let inside = |path: &String| {
            let parts = Path::new(path).components();
            parts
                .into_iter()
                .all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
        };
        if dataset.format != DatasetFormat::Csv {
            fail("JSON formats are not supported yet")
        } else if !dataset.save.as_ref().is_none_or(inside) {
            fail("`save` and `state` name files below the data directory")
        } else {
            Ok(())
        }
    }

    /// The number of the set that a rule names, loaded if it is new. Paths are relative to
    /// `directory`, that of the rule's file.
    ///
    /// # Errors
    /// When the file cannot be read or used, or the set is another one elsewhere.
    pub(super) fn add(
        &mut self,
        dataset: &Dataset,
        directory: &Path,
        sources: &Sources,
    ) -> Result<u32, Unsupported> {
        Self::check(dataset)?;
        let keyword = match dataset.command {
            DatasetCommand::Reputation(_) => "datarep",
            _ => "dataset",
        };
        let fail = |reason: String| Err(Unsupported::new(keyword, reason));
        let source = dataset.load.as_ref().map(|path| directory.join(path));
        let save = dataset.save.as_ref().map(PathBuf::from);
        let known = self.0.iter().position(|it| *it.name == *dataset.name);
        if let Some(place) = known {
            let it = &mut self.0[place];
            if it.kind != dataset.kind {
                return fail(format!("`{}` is a set of another type elsewhere", it.name));
            }
            if it.save.is_none() {
                it.save.clone_from(&save);
            }
            if source.is_none() || it.source == source {
                return Ok(place as u32);
            }
            if it.source.is_some() {
                return fail(format!("`{}` is loaded from two files", it.name));
            }
        }
        let loaded = match &source {
            None => Vec::new(),
            Some(path) => match load(path, dataset, sources) {
                Ok(loaded) => loaded,
                Err(reason) => return fail(format!("{}: {reason}", path.display())),
            },
        };
        if let Some(place) = known {
            self.0[place].loaded = loaded;
            self.0[place].source = source;
            return Ok(place as u32);
        }
        self.0.push(Definition {
            name: dataset.name.as_str().into(),
            id: NameId::of(&dataset.name),
            kind: dataset.kind,
            loaded,
            source,
            save,
            memcap: dataset.memcap.unwrap_or(MEMCAP),
        });
        Ok(self.0.len() as u32 - 1)
    }
}

/// Reads a file: a value a line, for `datarep` with a comma and its reputation.
fn load(path: &Path, dataset: &Dataset, sources: &Sources) -> Result<Vec<Value>, String> {
    let text = match sources.read(path) {
        Ok(bytes) => String::from_utf8(bytes).map_err(|error| error.to_string())?,
        // What is written there at the end is there from the second start on.
        Err(error)
            if error.kind() == std::io::ErrorKind::NotFound && dataset.load == dataset.save =>
        {
            String::new()
        }
        Err(error) => return Err(error.to_string()),
    };
    let mut loaded = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (value, reputation) = match line.split_once(',') {
            Some((value, reputation)) => (value.trim(), reputation.trim().parse().ok()),
            None => (line, Some(0)),
        };
        let parsed = parse(value, dataset.kind).zip(reputation);
        let Some((value, reputation)) = parsed else {
            return Err(format!("line {number} is no value of this type"));
        };
        loaded.push((value.into_boxed_slice(), reputation));
    }
    loaded.sort();
    loaded.dedup_by(|one, other| one.0 == other.0);
    Ok(loaded)
}

fn bytes_of(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// A value as it is written in files and commands.
pub(super) fn parse(text: &str, kind: DatasetKind) -> Option<Vec<u8>> {
    let hexadecimal = |length: usize| {
        let digits = text.as_bytes();
        if digits.len() != length * 2 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let pairs = digits.chunks_exact(2).map(|pair| {
            let digit = |byte: u8| char::from(byte).to_digit(16).unwrap_or(0) as u8;
            digit(pair[0]) << 4 | digit(pair[1])
        });
        Some(pairs.collect())
    };
    match kind {
        DatasetKind::String => {
            let mut value = Vec::new();
            base64_decode(text.as_bytes(), &mut value).then_some(value)
        }
        DatasetKind::Md5 => hexadecimal(16),
        DatasetKind::Sha256 => hexadecimal(32),
        DatasetKind::Ipv4 => Some(text.parse::<Ipv4Addr>().ok()?.octets().to_vec()),
        DatasetKind::Ip => Some(bytes_of(text.parse().ok()?).to_vec()),
    }
}

/// A value as it is written to files.
fn written(value: &[u8], kind: DatasetKind) -> String {
    match kind {
        DatasetKind::String => base64(value),
        DatasetKind::Md5 | DatasetKind::Sha256 => {
            value.iter().map(|byte| format!("{byte:02x}")).collect()
        }
        DatasetKind::Ipv4 => <[u8; 4]>::try_from(value)
            .map(|octets| Ipv4Addr::from(octets).to_string())
            .unwrap_or_default(),
        DatasetKind::Ip => <[u8; 16]>::try_from(value)
            .map(|octets| std::net::Ipv6Addr::from(octets).to_canonical().to_string())
            .unwrap_or_default(),
    }
}

fn base64(value: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in value.chunks(3) {
        let at = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for index in 0..4 {
            text.push(match index <= chunk.len() {
                true => char::from(DIGITS[(bits >> (18 - 6 * index)) as usize & 63]),
                false => '=',
            });
        }
    }
    text
}

/// What rules have added to a set, and removed from it.
#[derive(Debug, Default)]
struct Changes {
    /// True: added; false: removed, though loaded.
    values: HashMap<Box<[u8]>, bool>,
    bytes: u64,
}

/// What a worker's rules have changed in sets. It outlives a reload of the rules.
#[derive(Debug, Default)]
pub struct Datasets {
    changes: HashMap<NameId, Changes>,
    /// Values that were not added because the set's memory was used up.
    pub refused: u64,
}

/// Bytes that a value takes besides its own.
const VALUE_BYTES: u64 = (size_of::<(Box<[u8]>, bool)>() + 16) as u64;

impl Datasets {
    /// Does what a keyword says, and says whether it matches.
    pub(super) fn command(
        &mut self,
        definitions: &Definitions,
        set: u32,
        command: DatasetCommand,
        value: &[u8],
    ) -> bool {
        let Some(definition) = definitions.0.get(set as usize) else {
            return false;
        };
        let mapped;
        let value = match definition.kind {
            DatasetKind::Md5 if value.len() != 16 => return false,
            DatasetKind::Sha256 if value.len() != 32 => return false,
            DatasetKind::Ipv4 if value.len() != 4 => return false,
            DatasetKind::Ip => match value.len() {
                4 => {
                    let mut octets = [0; 4];
                    octets.copy_from_slice(value);
                    mapped = bytes_of(IpAddr::from(octets));
                    &mapped[..]
                }
                16 => value,
                _ => return false,
            },
            _ => value,
        };
        let loaded = definition
            .loaded
            .binary_search_by(|(loaded, _)| (**loaded).cmp(value));
        let changed = self
            .changes
            .get(&definition.id)
            .and_then(|changes| changes.values.get(value).copied());
        let present = changed.unwrap_or(loaded.is_ok());
        match command {
            DatasetCommand::IsSet => present,
            DatasetCommand::IsNotSet => !present,
            DatasetCommand::Reputation(compare) => {
                present && loaded.is_ok_and(|at| compare.holds(definition.loaded[at].1))
            }
            DatasetCommand::Set => !present && self.change(definition, value, loaded.is_ok(), true),
            DatasetCommand::Unset => {
                present && self.change(definition, value, loaded.is_ok(), false)
            }
        }
    }

    /// Whether there was memory for it.
    fn change(&mut self, of: &Definition, value: &[u8], loaded: bool, present: bool) -> bool {
        let changes = self.changes.entry(of.id).or_default();
        let cost = value.len() as u64 + VALUE_BYTES;
        if present == loaded {
            // As it was at first.
            if changes.values.remove(value).is_some() {
                changes.bytes -= cost;
            }
            return true;
        }
        if changes.bytes + cost > of.memcap {
            self.refused += 1;
            return false;
        }
        if changes.values.insert(value.into(), present).is_none() {
            changes.bytes += cost;
        }
        true
    }

    /// The files that are to be written at the end, with their content.
    pub(super) fn to_save(&self, definitions: &Definitions) -> Vec<(PathBuf, String)> {
        let saved = definitions
            .0
            .iter()
            .filter_map(|it| Some((it, it.save.clone()?)));
        let empty = Changes::default();
        saved
            .map(|(definition, path)| {
                let changes = self.changes.get(&definition.id).unwrap_or(&empty);
                let loaded = definition.loaded.iter().map(|(value, _)| value);
                let kept = loaded.filter(|value| !changes.values.contains_key(*value));
                let added = changes.values.iter().filter(|(_, present)| **present);
                let mut lines: Vec<String> = kept
                    .chain(added.map(|(value, _)| value))
                    .map(|value| written(value, definition.kind) + "\n")
                    .collect();
                lines.sort();
                (path, lines.concat())
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::ast::Compare;

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
            .add(&of, directory.path(), &Sources::disk())
            .unwrap();
        let again = dataset(Set, DatasetKind::String, None);
        assert_eq!(
            definitions.add(&again, directory.path(), &Sources::disk()),
            Ok(set)
        );
        let mut sets = Datasets::default();
        let mut ask =
            |command, value: &str| sets.command(&definitions, set, command, value.as_bytes());
        assert!(ask(IsSet, "a") && !ask(IsSet, "c") && ask(IsNotSet, "c"));
        assert!(ask(Set, "c"), "it is new");
        assert!(!ask(Set, "c") && !ask(Set, "a") && ask(IsSet, "c"));
        assert!(ask(Unset, "a") && !ask(Unset, "a") && !ask(IsSet, "a"));
        assert!(ask(Set, "a") && ask(IsSet, "a") && ask(Unset, "a"));
        let saved = sets.to_save(&definitions);
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
            .add(&of, directory.path(), &Sources::disk())
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
            let error = Definitions::default().add(of, directory.path(), &Sources::disk());
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
            .add(&of, Path::new(""), &Sources::disk())
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
}
