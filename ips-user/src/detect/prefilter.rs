//! Which rules can match a payload at all: many literals searched at once.

use std::fmt;

use daachorse::{DoubleArrayAhoCorasick, DoubleArrayAhoCorasickBuilder};
use thiserror::Error;

/// Number of a literal, as it stands in the list that the prefilter was built from.
pub type LiteralId = u32;

/// Searches for many literals at once. Shared by all workers, so it holds no scratch space.
pub trait Prefilter: Send + Sync + fmt::Debug {
    /// Calls `hit` for every literal that occurs in `lowered`, at least once each. `lowered`
    /// is in lower case, and so are the literals.
    fn scan(&self, lowered: &[u8], hit: &mut dyn FnMut(LiteralId));

    /// Bytes of memory that it takes.
    fn heap_bytes(&self) -> usize;

    /// A copy that owns everything that it points to, allocated while this runs (see
    /// [`crate::sys::frozen::Freeze`]).
    fn boxed_clone(&self) -> Box<dyn Prefilter>;
}

impl Clone for Box<dyn Prefilter> {
    fn clone(&self) -> Self {
        self.as_ref().boxed_clone()
    }
}

/// Why no prefilter can be built.
#[derive(Debug, Error)]
#[error("{engine}: {reason}")]
pub struct PrefilterError {
    /// The library.
    pub engine: &'static str,
    /// What it says.
    pub reason: String,
}

/// Makes a prefilter of distinct, non-empty literals in lower case.
pub type BuildPrefilter = fn(&[Vec<u8>]) -> Result<Box<dyn Prefilter>, PrefilterError>;

/// The pure Rust implementation: a double-array Aho-Corasick automaton.
#[derive(Clone)]
pub struct Daachorse(DoubleArrayAhoCorasick<LiteralId>);

impl Daachorse {
    /// Builds it; a [`BuildPrefilter`].
    ///
    /// # Errors
    /// When a literal is empty or stands in the list twice, or they are too many.
    pub fn build(literals: &[Vec<u8>]) -> Result<Box<dyn Prefilter>, PrefilterError> {
        let numbered = (0..).zip(literals).map(|(id, literal)| (literal, id));
        DoubleArrayAhoCorasickBuilder::new()
            .build_with_values(numbered)
            .map(|automaton| Box::new(Self(automaton)) as Box<dyn Prefilter>)
            .map_err(|error| PrefilterError {
                engine: "daachorse",
                reason: error.to_string(),
            })
    }
}

impl fmt::Debug for Daachorse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Daachorse({} states)", self.0.num_states())
    }
}

impl Prefilter for Daachorse {
    fn scan(&self, lowered: &[u8], hit: &mut dyn FnMut(LiteralId)) {
        for found in self.0.find_overlapping_iter(lowered) {
            hit(found.value());
        }
    }

    fn heap_bytes(&self) -> usize {
        self.0.heap_bytes()
    }

    fn boxed_clone(&self) -> Box<dyn Prefilter> {
        Box::new(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The cases that every implementation has to pass.
    fn check_all(build: BuildPrefilter) {
        let check = |literals: &[&[u8]], text: &[u8], expect: &[LiteralId]| {
            let literals: Vec<Vec<u8>> = literals.iter().map(|l| l.to_vec()).collect();
            let prefilter = build(&literals).unwrap();
            let mut found = Vec::new();
            prefilter.scan(text, &mut |id| found.push(id));
            found.sort_unstable();
            found.dedup();
            assert_eq!(found, expect, "{literals:?} in {text:?}");
        };
        check(&[b"abc"], b"xxabcxx", &[0]);
        check(&[b"abc"], b"", &[]);
        check(&[b"he", b"she", b"his", b"hers"], b"ushers", &[0, 1, 3]);
        check(&[b"a", b"aa", b"aaa"], b"aa", &[0, 1]);
        check(&[b"\0\xff", b"\xff"], b"x\0\xffx", &[0, 1]);
        check(&[b"ab", b"abcd", b"bc"], b"abcd", &[0, 1, 2]);
    }

    #[test]
    fn daachorse_finds_every_literal() {
        check_all(Daachorse::build);
    }
}
