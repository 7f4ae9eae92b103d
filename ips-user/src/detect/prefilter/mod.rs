//! Which rules can match at all: many literals searched at once.

use std::fmt;

use thiserror::Error;

pub mod cache;
mod daachorse;
pub(super) mod facts;
#[cfg(libhs)]
mod hyperscan;
pub(super) mod pattern;

pub use cache::Cache;
pub use daachorse::Daachorse;
#[cfg(libhs)]
pub use hyperscan::Hyperscan;

/// Number of a literal, as it stands in the list that the prefilter was built from.
pub type LiteralId = u32;

/// Something to look for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Literal {
    /// The bytes, at least one.
    pub bytes: Vec<u8>,
    /// ASCII letters match in either case; `bytes` are in lower case then.
    pub nocase: bool,
}

/// Working memory that scans need, of one worker, for all its prefilters.
#[derive(Debug, Default)]
pub struct Working {
    #[cfg(libhs)]
    hyperscan: crate::sys::hyperscan::Scratch,
}

/// Searches for many literals at once. Shared by all workers, so it holds no working memory.
pub trait Prefilter: Send + Sync + fmt::Debug {
    /// Calls `hit` for every literal that occurs in `data`, at least once each, and for no other.
    fn scan(&self, data: &[u8], working: &mut Working, hit: &mut dyn FnMut(LiteralId));

    /// Sees to it that `working` suffices for it.
    ///
    /// # Errors
    /// When memory runs out.
    fn prepare(&self, working: &mut Working) -> Result<(), PrefilterError>;

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

/// Makes a prefilter of distinct, non-empty literals. What was compiled before may be taken
/// from, and what was not be put into, the cache.
pub type BuildPrefilter =
    fn(&[Literal], Option<&Cache>) -> Result<Box<dyn Prefilter>, PrefilterError>;

/// The fastest implementation there is in this program.
pub fn fastest() -> BuildPrefilter {
    #[cfg(libhs)]
    return Hyperscan::build;
    #[cfg(not(libhs))]
    Daachorse::build
}

#[cfg(test)]
mod tests {
    use super::*;

    fn literal(text: &[u8], nocase: bool) -> Literal {
        Literal {
            bytes: text.to_vec(),
            nocase,
        }
    }

    /// The cases that every implementation has to pass.
    fn check_all(build: BuildPrefilter) {
        let check = |literals: &[Literal], text: &[u8], expect: &[LiteralId]| {
            let prefilter = build(literals, None).unwrap().boxed_clone();
            let mut working = Working::default();
            prefilter.prepare(&mut working).unwrap();
            for _ in 0..2 {
                let mut found = Vec::new();
                prefilter.scan(text, &mut working, &mut |id| found.push(id));
                found.sort_unstable();
                found.dedup();
                assert_eq!(found, expect, "{literals:?} in {text:?}");
            }
        };
        let exact = |texts: &[&[u8]]| -> Vec<Literal> {
            texts.iter().map(|text| literal(text, false)).collect()
        };
        check(&exact(&[b"abc"]), b"xxabcxx", &[0]);
        check(&exact(&[b"abc"]), b"abc", &[0]);
        check(&exact(&[b"abc"]), b"ab", &[]);
        check(&exact(&[b"abc"]), b"", &[]);
        check(
            &exact(&[b"he", b"she", b"his", b"hers"]),
            b"ushers",
            &[0, 1, 3],
        );
        check(&exact(&[b"a", b"aa", b"aaa"]), b"aa", &[0, 1]);
        check(&exact(&[b"ab", b"abcd", b"bc"]), b"abcd", &[0, 1, 2]);
        check(&exact(&[b"\xff\n\r", b"\n"]), b"x\xff\n\rx", &[0, 1]);
        // Zero bytes at the beginning, inside, alone, and beside ordinary literals.
        let zeros = exact(&[b"\0\xff", b"\xff", b"a\0b", b"\0", b"\0\0\0"]);
        check(&zeros, b"x\0\xffx", &[0, 1, 3]);
        check(&zeros, b"a\0b", &[2, 3]);
        check(&zeros, b"\0\0\0\xff", &[0, 1, 3, 4]);
        check(&zeros, b"nothing", &[]);
        // What would be special in an expression.
        check(
            &exact(&[b".*", b"a|b", b"[x]", b"\\x41"]),
            b"a|b .* \\x41",
            &[0, 1, 3],
        );
        let cases = [literal(b"get ", true), literal(b"\xc4n", true)];
        check(&cases, b"GeT \xc4N", &[0, 1]);
        // Not a letter in ASCII.
        check(&cases, b"\xe4n", &[]);
        let long = vec![b'x'; 2000];
        check(&[literal(&long, false), literal(b"xy", false)], &long, &[0]);
    }

    #[test]
    fn daachorse_finds_every_literal() {
        check_all(Daachorse::build);
    }

    #[cfg(libhs)]
    #[test]
    fn hyperscan_finds_every_literal() {
        check_all(Hyperscan::build);
    }
}
