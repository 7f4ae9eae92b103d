//! The pure Rust implementation: a double-array Aho-Corasick automaton.

use std::collections::HashMap;
use std::fmt;

use daachorse::{DoubleArrayAhoCorasick, DoubleArrayAhoCorasickBuilder};

use super::{Cache, Literal, LiteralId, Prefilter, PrefilterError, Working};

/// An automaton over bytes in lower case; hits of literals whose case matters are confirmed.
#[derive(Clone)]
pub struct Daachorse {
    automaton: DoubleArrayAhoCorasick<u32>,
    /// For each entry of the automaton the literals that are the same in lower case.
    same: Vec<Box<[LiteralId]>>,
    /// For each literal whose case matters its bytes.
    exact: Vec<Option<Box<[u8]>>>,
}

impl Daachorse {
    /// Builds it; a [`BuildPrefilter`](super::BuildPrefilter). Nothing is cached: building takes
    /// no longer than reading.
    ///
    /// # Errors
    /// When a literal is empty or they are too many.
    pub fn build(
        literals: &[Literal],
        _cache: Option<&Cache>,
    ) -> Result<Box<dyn Prefilter>, PrefilterError> {
        let mut entries: Vec<Vec<u8>> = Vec::new();
        let mut same: Vec<Vec<LiteralId>> = Vec::new();
        let mut numbers = HashMap::new();
        for (id, literal) in (0..).zip(literals) {
            let lowered = literal.bytes.to_ascii_lowercase();
            let entry = *numbers.entry(lowered).or_insert_with_key(|lowered| {
                entries.push(lowered.clone());
                same.push(Vec::new());
                entries.len() - 1
            });
            same[entry].push(id);
        }
        let fail = |reason: String| PrefilterError {
            engine: "daachorse",
            reason,
        };
        if entries.iter().any(Vec::is_empty) {
            return Err(fail("an empty literal".into()));
        }
        let exact = literals.iter().map(|literal| {
            let matters = !literal.nocase && literal.bytes.iter().any(u8::is_ascii_alphabetic);
            matters.then(|| literal.bytes.as_slice().into())
        });
        let automaton = DoubleArrayAhoCorasickBuilder::new()
            .build_with_values(entries.into_iter().zip(0..))
            .map_err(|error| fail(error.to_string()))?;
        Ok(Box::new(Self {
            automaton,
            same: same.into_iter().map(Into::into).collect(),
            exact: exact.collect(),
        }))
    }
}

impl fmt::Debug for Daachorse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Daachorse({} states)", self.automaton.num_states())
    }
}

impl Prefilter for Daachorse {
    fn scan(&self, data: &[u8], _working: &mut Working, hit: &mut dyn FnMut(LiteralId)) {
        let lowered = data.iter().map(u8::to_ascii_lowercase);
        for found in self.automaton.find_overlapping_iter_from_iter(lowered) {
            for &id in &self.same[found.value() as usize] {
                let confirmed = match &self.exact[id as usize] {
                    Some(bytes) => data.get(found.start()..found.end()) == Some(bytes),
                    None => true,
                };
                if confirmed {
                    hit(id);
                }
            }
        }
    }

    fn prepare(&self, _working: &mut Working) -> Result<(), PrefilterError> {
        Ok(())
    }

    fn heap_bytes(&self) -> usize {
        let same: usize = self.same.iter().map(|ids| ids.len() * 4 + 16).sum();
        let exact: usize = self.exact.iter().flatten().map(|bytes| bytes.len()).sum();
        self.automaton.heap_bytes() + same + exact
    }

    fn boxed_clone(&self) -> Box<dyn Prefilter> {
        Box::new(self.clone())
    }
}
