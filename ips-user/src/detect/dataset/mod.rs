//! Sets of values: `dataset` and `datarep`.
//!
//! What a set was loaded with is part of the engine ([`Definitions`]); what rules and commands add
//! and remove is kept beside it ([`changes`]): in each worker, and in the supervisor, which has
//! every worker know the changes of the others ([`record`]). What the supervisor has to know of
//! the sets themselves is in the [`catalogue`]. Reference:
//! <https://docs.suricata.io/en/suricata-8.0.3/rules/datasets.html>.

use std::collections::BTreeSet;
use std::io;
use std::path::{Component, Path, PathBuf};

use super::names::NameId;
use crate::rules::ast::{Dataset, DatasetCommand, DatasetFormat, DatasetKind};
use crate::rules::{Sources, Unsupported};

pub mod catalogue;
mod changes;
pub mod record;
pub mod value;

pub use catalogue::Catalogue;
pub use changes::{Changes, Datasets};

/// Most memory of what is added to a set, if its definition does not say.
const MEMCAP: u64 = 100 << 20;

/// A value of a file is no longer than that, nor the list of all sets: more is damage.
const LONGEST_LOADED: u64 = 256 << 20;

/// A set: a number made of its name and the kind of its values, the same in every engine that has
/// it.
pub type SetId = NameId;

/// The number of a set.
pub fn id_of(name: &str, kind: DatasetKind) -> SetId {
    NameId::of(&format!("{}\0{name}", value::kind_name(kind)))
}

/// A value with its reputation.
type Value = (Box<[u8]>, u16);

/// A set as rules define it.
#[derive(Clone, Debug)]
pub(super) struct Definition {
    name: Box<str>,
    id: SetId,
    kind: DatasetKind,
    /// Ascending, with their reputation.
    loaded: Vec<Value>,
    source: Option<PathBuf>,
    save: Option<PathBuf>,
    /// What it is saved to is what it is loaded from.
    state: bool,
    memcap: u64,
}

impl Definition {
    /// The reputation of a value that the set was loaded with.
    fn find(&self, value: &[u8]) -> Option<u16> {
        let at = self
            .loaded
            .binary_search_by(|(loaded, _)| (**loaded).cmp(value));
        at.ok().map(|at| self.loaded[at].1)
    }
}

/// Where the files of sets are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Places<'a> {
    /// Of the rule's file.
    pub(super) rules: &'a Path,
    /// Where sets are saved to; what was saved there is loaded from there.
    pub(super) data: Option<&'a Path>,
    pub(super) sources: &'a Sources,
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
        let inside = |path: &String| is_inside(Path::new(path));
        if dataset.format != DatasetFormat::Csv {
            fail("JSON formats are not supported yet")
        } else if !dataset.save.as_ref().is_none_or(inside) {
            fail("`save` and `state` name files below the data directory")
        } else {
            Ok(())
        }
    }

    /// The number of the set that a rule names, loaded if it is new. Paths are relative to that
    /// of the rule's file; `state` is looked for where it is saved first.
    ///
    /// # Errors
    /// When the file cannot be read or used, or the set is another one elsewhere.
    pub(super) fn add(
        &mut self,
        dataset: &Dataset,
        places: Places<'_>,
    ) -> Result<u32, Unsupported> {
        Self::check(dataset)?;
        let keyword = match dataset.command {
            DatasetCommand::Reputation(_) => "datarep",
            _ => "dataset",
        };
        let fail = |reason: String| Err(Unsupported::new(keyword, reason));
        let source = dataset.load.as_ref().map(|path| places.rules.join(path));
        let save = dataset.save.as_ref().map(PathBuf::from);
        let state = save.is_some() && dataset.load == dataset.save;
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
            Some(path) => match load(path, dataset, places) {
                Ok(loaded) => loaded,
                Err(reason) => return fail(format!("{}: {reason}", path.display())),
            },
        };
        if let Some(place) = known {
            self.0[place].loaded = loaded;
            self.0[place].source = source;
            self.0[place].state = state;
            return Ok(place as u32);
        }
        self.0.push(Definition {
            name: dataset.name.as_str().into(),
            id: id_of(&dataset.name, dataset.kind),
            kind: dataset.kind,
            loaded,
            source,
            save,
            state,
            memcap: dataset.memcap.unwrap_or(MEMCAP),
        });
        Ok(self.0.len() as u32 - 1)
    }
}

/// Reads a file: a value a line, for `datarep` with a comma and its reputation.
fn load(path: &Path, dataset: &Dataset, places: Places<'_>) -> Result<Vec<Value>, String> {
    let text = match read(path, dataset, places) {
        Ok(bytes) => String::from_utf8(bytes).map_err(|error| error.to_string())?,
        // What is written there at the end is there from the second start on.
        Err(error) if error.kind() == io::ErrorKind::NotFound && dataset.load == dataset.save => {
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
        let parsed = value::parse(value, dataset.kind).zip(reputation);
        let Some((value, reputation)) = parsed else {
            return Err(format!("line {number} is no value of this type"));
        };
        loaded.push((value.into_boxed_slice(), reputation));
    }
    loaded.sort();
    loaded.dedup_by(|one, other| one.0 == other.0);
    Ok(loaded)
}

fn read(path: &Path, dataset: &Dataset, places: Places<'_>) -> io::Result<Vec<u8>> {
    if let Some(data) = places.data
        && let Some(state) = dataset
            .load
            .as_ref()
            .filter(|_| dataset.load == dataset.save)
    {
        match places.sources.read(&data.join(state)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => return result,
        }
    }
    places.sources.read(path)
}

/// Whether a path names something below the directory that it is put behind.
pub fn is_inside(path: &Path) -> bool {
    let mut parts = path.components();
    parts.all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}

/// The files that are to be written at the end, with their content.
pub(super) fn to_save(definitions: &Definitions, sets: &Datasets) -> Vec<(PathBuf, String)> {
    let saved = definitions
        .0
        .iter()
        .filter_map(|it| Some((it, it.save.clone()?)));
    let empty = Changes::default();
    saved
        .map(|(definition, path)| {
            let changes = sets.of(definition.id).unwrap_or(&empty);
            let loaded = definition.loaded.iter().map(|(value, _)| &**value);
            (path, content(definition.kind, loaded, changes))
        })
        .collect()
}

/// A set as it is written to its file: a value a line, in order.
pub fn content<'a>(
    kind: DatasetKind,
    loaded: impl Iterator<Item = &'a [u8]>,
    changes: &'a Changes,
) -> String {
    let kept = loaded.filter(|value| changes.present(value, true));
    // What was added may be among what is loaded now.
    let added = changes.records().filter_map(|change| match change {
        record::Change::Add(value) => Some(value),
        record::Change::Remove(_) | record::Change::Clear => None,
    });
    let lines: BTreeSet<String> = kept
        .chain(added)
        .map(|it| value::written(it, kind) + "\n")
        .collect();
    lines.into_iter().collect()
}

#[cfg(test)]
mod tests;
