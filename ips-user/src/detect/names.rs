//! Names of flow bits, variables and the like, as numbers that mean the same to every engine.
//!
//! Flows outlive the rules that left something in them, and go from worker to worker: so the
//! number of a name is a hash of it, not its place in a table of one engine.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

/// A name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NameId(pub u64);

impl NameId {
    /// Of this name. Letters count as they are written.
    pub fn of(name: &str) -> Self {
        let mut hasher = SipHasher13::new_with_keys(0x736c_7569_6365, 0x6e61_6d65_7300);
        hasher.write(name.as_bytes());
        Self(hasher.finish())
    }
}

/// The names that an engine's rules use.
#[derive(Clone, Debug, Default)]
pub(super) struct Names(Vec<(NameId, Box<str>)>);

impl Names {
    /// The number of a name, which is kept.
    pub(super) fn add(&mut self, name: &str) -> NameId {
        let id = NameId::of(name);
        if let Err(place) = self.0.binary_search_by_key(&id, |(id, _)| *id) {
            self.0.insert(place, (id, name.into()));
        }
        id
    }

    /// The name of a number, if a rule uses it.
    pub(super) fn get(&self, id: NameId) -> Option<&str> {
        let place = self.0.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        self.0.get(place).map(|(_, name)| &**name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_number_and_a_number_its_name() {
        let mut names = Names::default();
        let ids: Vec<NameId> = ["b", "a", "B", "a"].map(|name| names.add(name)).to_vec();
        assert_eq!(ids[1], ids[3]);
        assert_ne!(ids[0], ids[2]);
        assert_eq!(names.get(ids[0]), Some("b"));
        assert_eq!(names.get(NameId::of("c")), None);
        assert_eq!(NameId::of("a"), ids[1]);
    }
}
