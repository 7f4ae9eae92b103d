//! The changes of all sets, and what these were loaded with.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use crate::detect::dataset::catalogue::Entry;
use crate::detect::dataset::record::{self, Change};
use crate::detect::dataset::{Catalogue, Changes, SetId, value};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Table {
    catalogue: Arc<Catalogue>,
    held: BTreeMap<SetId, Held>,
}

/// What is known of one set.
#[derive(Clone, Debug, Default)]
pub(super) struct Held {
    pub(super) changes: Changes,
    /// Something has changed since it was written to its file.
    pub(super) unsaved: bool,
}

/// What came of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Changed,
    AsItWas,
}

/// Why there was none.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The rules have no such set.
    Unknown,
    /// It has no such values.
    Misfit,
    /// Its memory is used up.
    Full,
    /// What it was loaded with cannot be read.
    Failed(io::Error),
}

impl Table {
    /// Takes over what a predecessor knew; the rules say what of it makes a difference.
    pub(super) fn adopt(&mut self, changes: Vec<(SetId, Changes)>) {
        let held = changes.into_iter().map(|(set, changes)| {
            let unsaved = true;
            (set, Held { changes, unsaved })
        });
        self.held.extend(held);
    }

    /// There are other rules: what changes sets that they do not have is forgotten. Sets that are
    /// loaded from the file that they are saved to stay as they are, whatever that file said.
    pub(super) fn set_rules(&mut self, catalogue: Arc<Catalogue>) {
        let mut failed = None;
        for entry in catalogue.sets().iter().filter(|it| it.state) {
            match self.carried_over(entry, &catalogue) {
                Ok(Some(changes)) => self.held.entry(entry.id()).or_default().changes = changes,
                Ok(None) => {}
                Err(error) => failed = Some(error),
            }
        }
        self.held.retain(|set, held| {
            let Some(entry) = catalogue.numbered(*set) else {
                return false;
            };
            let normal = held
                .changes
                .normalise(|value| catalogue.is_loaded(entry, value));
            failed = normal.err().or(failed.take());
            !held.changes.is_empty()
        });
        if let Some(error) = failed {
            log::error!("{error}");
        }
        self.catalogue = catalogue;
    }

    /// What makes of a set as other rules load it the set that it is now; `None` if it is new.
    fn carried_over(&self, entry: &Entry, to: &Catalogue) -> io::Result<Option<Changes>> {
        let set = entry.id();
        let Some(present) = self.catalogue.numbered(set) else {
            return Ok(None);
        };
        let (before, after) = (self.catalogue.values(present)?, to.values(entry)?);
        let unchanged = Changes::default();
        let changes = self.held.get(&set).map_or(&unchanged, |it| &it.changes);
        let kept = before.iter().map(|value| &**value);
        let kept = kept.filter(|value| changes.present(value, true));
        let added = changes.records().filter_map(|change| match change {
            // Never what was loaded, unless all of that was removed.
            Change::Add(value) => Some(value),
            Change::Remove(_) | Change::Clear => None,
        });
        let added = added.filter(|value| {
            changes.is_cleared() || before.binary_search_by(|it| (**it).cmp(value)).is_err()
        });
        // Of a set that was cleared only what was added is kept.
        let kept = kept.filter(|_| !changes.is_cleared());
        let after = after.iter().map(|value| &**value);
        Ok(Some(Changes::between(after, kept.chain(added))))
    }

    pub(super) const fn catalogue(&self) -> &Arc<Catalogue> {
        &self.catalogue
    }

    /// What has changed in a set, if anything.
    pub(super) fn held(&self, set: SetId) -> Option<&Held> {
        self.held.get(&set)
    }

    pub(super) fn held_mut(&mut self, set: SetId) -> Option<&mut Held> {
        self.held.get_mut(&set)
    }

    /// Whether a value is in a set now.
    pub(super) fn is_present(&self, entry: &Entry, value: &[u8]) -> io::Result<bool> {
        let loaded = self.catalogue.is_loaded(entry, value)?;
        let held = self.held.get(&entry.id());
        Ok(held.map_or(loaded, |it| it.changes.present(value, loaded)))
    }

    /// Does what a worker has reported, or a command says.
    pub(super) fn change(&mut self, set: SetId, change: Change<'_>) -> Result<Outcome, Refusal> {
        let catalogue = Arc::clone(&self.catalogue);
        let entry = catalogue.numbered(set).ok_or(Refusal::Unknown)?;
        let (value, present) = match change {
            Change::Add(value) => (value, true),
            Change::Remove(value) => (value, false),
            Change::Clear => {
                let held = self.held.entry(set).or_default();
                held.changes.clear();
                held.unsaved = true;
                return Ok(Outcome::Changed);
            }
        };
        if !value::fits(entry.kind(), value) {
            return Err(Refusal::Misfit);
        }
        let loaded = catalogue.is_loaded(entry, value);
        let loaded = loaded.map_err(Refusal::Failed)?;
        let held = self.held.entry(set).or_default();
        if held.changes.present(value, loaded) == present {
            return Ok(Outcome::AsItWas);
        }
        if !held.changes.change(value, loaded, present, entry.memcap) {
            return Err(Refusal::Full);
        }
        held.unsaved = true;
        Ok(Outcome::Changed)
    }

    /// How many values make a difference, and the memory that they take.
    pub(super) fn totals(&self) -> (u64, u64) {
        let all = self.held.values().map(|it| {
            let (added, removed) = it.changes.counts();
            (added + removed, it.changes.bytes())
        });
        all.fold((0, 0), |sum, it| (sum.0 + it.0, sum.1 + it.1))
    }

    /// All changes, as records.
    pub(super) fn records(&self) -> Vec<u8> {
        let mut records = Vec::new();
        for (set, held) in &self.held {
            for change in held.changes.records() {
                record::push(&mut records, *set, change);
            }
        }
        records
    }
}
