//! `sluice dataset`: what is asked, and what is answered.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::table::{Outcome, Refusal, Table};
use super::{Sets, Supervisor};
use crate::control::Response;
use crate::detect::dataset::catalogue::Entry;
use crate::detect::dataset::record::{self, Change, LONGEST_VALUE};
use crate::detect::dataset::value;

/// What can be asked of sets. `type` is the kind of the set's values as rules name it, and `value`
/// written as in files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum SetRequest {
    /// All sets of the rules in force: [`SetShown`].
    // With braces, because serde lets a unit variant have any further field.
    List {},
    /// Whether a value is in a set.
    Lookup(SetValue),
    /// Adds it.
    Add(SetValue),
    /// Removes it.
    Remove(SetValue),
    /// Removes all.
    Clear {
        /// The set.
        name: String,
    },
    /// Writes sets to their files.
    Dump {
        /// Which; all of them that have a file, if absent.
        name: Option<String>,
    },
}

/// A value of a set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetValue {
    /// The set.
    pub name: String,
    /// The kind of its values.
    #[serde(rename = "type")]
    pub kind: String,
    /// The value.
    pub value: String,
}

/// A set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetShown {
    /// Its name.
    pub name: String,
    /// The kind of its values.
    #[serde(rename = "type")]
    pub kind: String,
    /// How many values are in it.
    pub values: u64,
    /// How many it was loaded with.
    pub loaded: u64,
    /// How many were added since.
    pub added: u64,
    /// How many of those loaded were removed since.
    pub removed: u64,
    /// Bytes that these changes take.
    pub bytes: u64,
    /// How many they may take.
    pub memcap: u64,
    /// Its file, below the data directory.
    pub save: Option<PathBuf>,
    /// Whether something has changed since that was written.
    pub unsaved: bool,
}

impl fmt::Display for SetShown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} ({}): {} values, {} added and {} removed since it was loaded, {} of {} bytes",
            self.name, self.kind, self.values, self.added, self.removed, self.bytes, self.memcap
        )?;
        match &self.save {
            Some(path) if self.unsaved => write!(f, ", to be saved to {}", path.display()),
            Some(path) => write!(f, ", saved to {}", path.display()),
            None => Ok(()),
        }
    }
}

fn shown(table: &Table, entry: &Entry) -> SetShown {
    let held = table.held(entry.id()).cloned().unwrap_or_default();
    let (added, one_by_one) = held.changes.counts();
    let removed = match held.changes.is_cleared() {
        true => entry.loaded,
        false => one_by_one,
    };
    SetShown {
        name: entry.name.clone(),
        kind: value::kind_name(entry.kind()).to_owned(),
        values: entry.loaded.saturating_sub(removed) + added,
        loaded: entry.loaded,
        added,
        removed,
        bytes: held.changes.bytes(),
        memcap: entry.memcap,
        save: entry.save.clone(),
        unsaved: held.unsaved,
    }
}

/// The set of this name.
pub(super) fn named<'a>(table: &'a Table, name: &str) -> Result<&'a Entry, String> {
    let catalogue = table.catalogue();
    catalogue.named(name).ok_or_else(|| {
        let names: Vec<_> = catalogue.sets().iter().map(|it| &*it.name).collect();
        match names.is_empty() {
            true => format!("no set is called `{name}`: the rules in force have none"),
            false => format!(
                "no set is called `{name}`: the rules in force have {}",
                names.join(", ")
            ),
        }
    })
}

/// The set and the bytes that are meant.
fn meant<'a>(table: &'a Table, asked: &SetValue) -> Result<(&'a Entry, Vec<u8>), String> {
    let entry = named(table, &asked.name)?;
    let kind = value::kind_of(&asked.kind).ok_or_else(|| {
        let kind = &asked.kind;
        format!("`{kind}` is no type of set: string, md5, sha256, ipv4, ip or ipv6 is expected")
    })?;
    if kind != entry.kind() {
        return Err(format!(
            "`{}` is a set of type {}, not {}",
            entry.name,
            value::kind_name(entry.kind()),
            asked.kind
        ));
    }
    let bytes = value::parse(&asked.value, kind).ok_or_else(|| {
        format!(
            "`{}` is no value of type {}: {} expected",
            asked.value,
            asked.kind,
            value::described(kind)
        )
    })?;
    if bytes.len() > LONGEST_VALUE {
        let length = bytes.len();
        return Err(format!(
            "a value of {length} bytes: at most {LONGEST_VALUE} are possible"
        ));
    }
    Ok((entry, bytes))
}

impl Sets {
    fn answer(&mut self, request: &SetRequest) -> Result<Value, String> {
        match request {
            SetRequest::List {} => {
                let sets = self.table.catalogue().sets().iter();
                let sets: Vec<_> = sets.map(|it| shown(&self.table, it)).collect();
                Ok(json!(sets))
            }
            SetRequest::Lookup(asked) => {
                let (entry, bytes) = meant(&self.table, asked)?;
                let found = self.table.is_present(entry, &bytes);
                Ok(json!({ "found": found.map_err(|error| error.to_string())? }))
            }
            SetRequest::Add(asked) => self.change(asked, true),
            SetRequest::Remove(asked) => self.change(asked, false),
            SetRequest::Clear { name } => {
                let entry = named(&self.table, name)?;
                let (set, values) = (entry.id(), shown(&self.table, entry).values);
                self.carry_out(name, set, Change::Clear)?;
                log::info!("the set {name} is cleared of {values} values");
                Ok(json!({ "removed": values }))
            }
            SetRequest::Dump { .. } => Err("is answered when it is done".into()),
        }
    }

    fn change(&mut self, asked: &SetValue, present: bool) -> Result<Value, String> {
        let (entry, bytes) = meant(&self.table, asked)?;
        let set = entry.id();
        let change = match present {
            true => Change::Add(&bytes),
            false => Change::Remove(&bytes),
        };
        let outcome = self.carry_out(&asked.name, set, change)?;
        Ok(json!({ "changed": outcome == Outcome::Changed }))
    }

    fn carry_out(
        &mut self,
        name: &str,
        set: crate::detect::dataset::SetId,
        change: Change<'_>,
    ) -> Result<Outcome, String> {
        let outcome = self.table.change(set, change).map_err(|why| match why {
            Refusal::Full => {
                self.figures.refused += 1;
                format!("`{name}` has no memory left for that: see its memcap")
            }
            Refusal::Unknown => format!("no set is called `{name}`"),
            Refusal::Misfit => format!("`{name}` has no such values"),
            Refusal::Failed(error) => error.to_string(),
        })?;
        // Also when nothing changes for the supervisor: a worker whose report was lost may know
        // otherwise.
        let mut records = Vec::new();
        record::push(&mut records, set, change);
        self.tell(&records);
        Ok(outcome)
    }
}

impl Supervisor {
    /// Somebody asks about sets, or changes them.
    pub(in crate::supervisor) fn on_set_request(
        &mut self,
        request: &SetRequest,
        answer: oneshot::Sender<Response>,
    ) {
        if let SetRequest::Dump { name } = request {
            return self.dump_sets(name.as_deref(), answer);
        }
        let said = self.sets.answer(request);
        // The client may have gone: its answer is then nobody's.
        let _ = answer.send(match said {
            Ok(value) => Response::Ok(value),
            Err(message) => Response::Error(message),
        });
    }
}
