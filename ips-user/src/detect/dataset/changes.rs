//! What has been added to sets and removed from them since they were loaded: as a worker has it,
//! and as the supervisor does.

use std::collections::HashMap;

use super::record::{self, Change, LONGEST_VALUE};
use super::value::fitted;
use super::{Definition, Definitions, SetId};
use crate::rules::ast::DatasetCommand;

/// Bytes that a value takes besides its own.
const VALUE_BYTES: u64 = (size_of::<(Box<[u8]>, bool)>() + 16) as u64;

/// Most bytes of changes that wait to be reported.
const UNREPORTED: usize = 512 << 10;

/// How a set differs from what it was loaded with.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// Nothing of what was loaded counts any more.
    cleared: bool,
    /// True: added; false: removed, though loaded.
    values: HashMap<Box<[u8]>, bool>,
    bytes: u64,
}

impl Changes {
    /// Whether a value is in the set, which may have been `loaded` with it.
    pub fn present(&self, value: &[u8], loaded: bool) -> bool {
        let changed = self.values.get(value).copied();
        changed.unwrap_or(loaded && !self.cleared)
    }

    /// Adds or removes a value; whether there was memory for that.
    pub fn change(&mut self, value: &[u8], loaded: bool, present: bool, memcap: u64) -> bool {
        if present == (loaded && !self.cleared) {
            self.forget(value);
            return true;
        }
        let known = self.values.contains_key(value);
        if !known && self.bytes + cost(value) > memcap {
            return false;
        }
        self.insert(value, present);
        true
    }

    /// The same whatever the set was loaded with, which is not known.
    fn insert(&mut self, value: &[u8], present: bool) {
        match self.values.get_mut(value) {
            Some(changed) => *changed = present,
            None => {
                self.values.insert(value.into(), present);
                self.bytes += cost(value);
            }
        }
    }

    /// It is as it was at first.
    fn forget(&mut self, value: &[u8]) {
        if self.values.remove(value).is_some() {
            self.bytes -= cost(value);
        }
    }

    /// Removes everything.
    pub fn clear(&mut self) {
        *self = Self {
            cleared: true,
            ..Self::default()
        };
    }

    /// Does what a record says. `loaded` tells whether the set was loaded with a value; `None`
    /// when nothing is known of the set yet.
    pub fn apply(&mut self, change: Change<'_>, loaded: Option<bool>) {
        let (value, present) = match change {
            Change::Add(value) => (value, true),
            Change::Remove(value) => (value, false),
            Change::Clear => return self.clear(),
        };
        match loaded {
            // Whoever wrote the record has looked at the memory.
            Some(loaded) => {
                self.change(value, loaded, present, u64::MAX);
            }
            None => self.insert(value, present),
        }
    }

    /// What makes a set that was `loaded` with these values one that has those.
    pub fn between<'a>(
        loaded: impl IntoIterator<Item = &'a [u8]>,
        wanted: impl IntoIterator<Item = &'a [u8]>,
    ) -> Self {
        let mut changes = Self::default();
        // Removed, unless it is wanted.
        for value in loaded {
            changes.insert(value, false);
        }
        for value in wanted {
            match changes.values.contains_key(value) {
                true => changes.forget(value),
                false => changes.insert(value, true),
            }
        }
        changes
    }

    /// Keeps only what makes a difference to a set that was loaded like this.
    ///
    /// # Errors
    /// When `loaded` cannot tell; then some may be left that make none.
    pub fn normalise<E>(
        &mut self,
        mut loaded: impl FnMut(&[u8]) -> Result<bool, E>,
    ) -> Result<(), E> {
        let cleared = self.cleared;
        let mut failed = None;
        self.values
            .retain(|value, present| match (cleared, &failed) {
                (true, _) => *present,
                (false, Some(_)) => true,
                (false, None) => match loaded(value) {
                    Ok(loaded) => loaded != *present,
                    Err(error) => {
                        failed = Some(error);
                        true
                    }
                },
            });
        self.bytes = self.values.keys().map(|value| cost(value)).sum();
        failed.map_or(Ok(()), Err)
    }

    /// The records that make a set like this from what it was loaded with.
    pub fn records(&self) -> impl Iterator<Item = Change<'_>> {
        let clear = self.cleared.then_some(Change::Clear);
        let values = self.values.iter().map(|(value, present)| match present {
            true => Change::Add(value),
            false => Change::Remove(value),
        });
        clear.into_iter().chain(values)
    }

    /// Whether nothing of what was loaded counts any more.
    pub const fn is_cleared(&self) -> bool {
        self.cleared
    }

    /// Whether the set is as it was loaded.
    pub fn is_empty(&self) -> bool {
        !self.cleared && self.values.is_empty()
    }

    /// How many values were added, and how many of those loaded were removed one by one.
    pub fn counts(&self) -> (u64, u64) {
        let added = self.values.values().filter(|present| **present).count();
        (added as u64, (self.values.len() - added) as u64)
    }

    /// Memory that it takes.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }
}

const fn cost(value: &[u8]) -> u64 {
    value.len() as u64 + VALUE_BYTES
}

/// What is different in a worker's sets. It outlives a reload of the rules.
#[derive(Debug, Default)]
pub struct Datasets {
    changes: HashMap<SetId, Changes>,
    /// Records of what this worker's rules have changed, for others.
    unreported: Option<Vec<u8>>,
    /// Values that were not added because the set's memory was used up.
    pub refused: u64,
    /// Changes that others are not told of: too many at once, or the value is too long.
    pub unshared: u64,
}

impl Datasets {
    /// Keeps records of what rules change from now on: see [`Self::report`].
    pub fn share(&mut self) {
        self.unreported.get_or_insert_default();
    }

    /// Does what a keyword says, and says whether it matches.
    pub(in crate::detect) fn command(
        &mut self,
        definitions: &Definitions,
        set: u32,
        command: DatasetCommand,
        value: &[u8],
    ) -> bool {
        let Some(definition) = definitions.0.get(set as usize) else {
            return false;
        };
        let mut mapped = [0; 16];
        let Some(value) = fitted(definition.kind, value, &mut mapped) else {
            return false;
        };
        let loaded = definition.find(value);
        let changes = self.changes.get(&definition.id);
        let present = changes.map_or(loaded.is_some(), |it| it.present(value, loaded.is_some()));
        match command {
            DatasetCommand::IsSet => present,
            DatasetCommand::IsNotSet => !present,
            DatasetCommand::Reputation(compare) => {
                present && loaded.is_some_and(|reputation| compare.holds(reputation))
            }
            DatasetCommand::Set => {
                !present && self.change(definition, value, loaded.is_some(), true)
            }
            DatasetCommand::Unset => {
                present && self.change(definition, value, loaded.is_some(), false)
            }
        }
    }

    /// Whether there was memory for it.
    fn change(&mut self, of: &Definition, value: &[u8], loaded: bool, present: bool) -> bool {
        let changes = self.changes.entry(of.id).or_default();
        let done = changes.change(value, loaded, present, of.memcap);
        self.refused += u64::from(!done);
        if done && let Some(unreported) = &mut self.unreported {
            let length = unreported.len() + record::HEAD + value.len();
            if value.len() > LONGEST_VALUE || length > UNREPORTED {
                self.unshared += 1;
            } else {
                let change = match present {
                    true => Change::Add(value),
                    false => Change::Remove(value),
                };
                record::push(unreported, of.id, change);
            }
        }
        done
    }

    /// Hands out what is to be told to others, at most `limit` bytes of whole records at a time,
    /// as long as `send` takes them. Costs next to nothing when there is nothing.
    ///
    /// # Errors
    /// Those of `send`; what it has not taken is kept.
    pub fn report<E>(
        &mut self,
        limit: usize,
        mut send: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some(unreported) = self.unreported.as_mut().filter(|it| !it.is_empty()) else {
            return Ok(());
        };
        let mut sent = 0;
        let result = loop {
            let rest = &unreported[sent..];
            let mut length = 0;
            while let record::Next::Record(_, _, more) = record::next(&rest[length..])
                && (length == 0 || length + more <= limit)
            {
                length += more;
            }
            if length == 0 {
                break Ok(());
            }
            if let Err(error) = send(&rest[..length]) {
                break Err(error);
            }
            sent += length;
        };
        unreported.drain(..sent);
        result
    }

    /// Nobody is there to be told.
    pub fn give_up_reporting(&mut self) {
        let Some(unreported) = &mut self.unreported else {
            return;
        };
        let mut rest = &unreported[..];
        while let record::Next::Record(_, _, length) = record::next(rest) {
            self.unshared += 1;
            rest = &rest[length..];
        }
        unreported.clear();
    }

    /// Does what a record of others says.
    pub(in crate::detect) fn apply(
        &mut self,
        definitions: &Definitions,
        set: SetId,
        change: Change<'_>,
    ) {
        let definition = definitions.0.iter().find(|it| it.id == set);
        let loaded = match change {
            Change::Add(value) | Change::Remove(value) => {
                definition.map(|it| it.find(value).is_some())
            }
            Change::Clear => None,
        };
        self.changes.entry(set).or_default().apply(change, loaded);
    }

    /// All sets are as they were loaded. What is still to be reported stays so.
    pub fn forget(&mut self) {
        self.changes.clear();
    }

    pub(super) fn of(&self, set: SetId) -> Option<&Changes> {
        self.changes.get(&set)
    }
}
