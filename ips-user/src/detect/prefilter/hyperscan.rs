//! libhs, which searches with the processor's wide registers.

use super::cache::Key;
use super::{Cache, Literal, LiteralId, Prefilter, PrefilterError, Working};
use crate::sys::hyperscan::{self, Database};

/// One or two databases: literals that begin with a zero byte need one of their own.
#[derive(Clone, Debug)]
pub struct Hyperscan {
    databases: Vec<Database>,
}

/// Fewer literals are compiled as fast as they are read. A start has many small databases: together
/// they take longer than the few large ones.
const WORTH_CACHING: usize = 16;

fn fail(reason: String) -> PrefilterError {
    PrefilterError {
        engine: "libhs",
        reason,
    }
}

impl Hyperscan {
    /// Builds it; a [`BuildPrefilter`](super::BuildPrefilter).
    ///
    /// # Errors
    /// What the library says.
    pub fn build(
        literals: &[Literal],
        cache: Option<&Cache>,
    ) -> Result<Box<dyn Prefilter>, PrefilterError> {
        let numbered = (0..).zip(literals).map(|(id, literal)| hyperscan::Literal {
            bytes: &literal.bytes,
            nocase: literal.nocase,
            id,
        });
        let (zero, ordinary): (Vec<_>, Vec<_>) =
            numbered.partition(|literal| literal.bytes.first() == Some(&0));
        let mut databases = Vec::new();
        for literals in [ordinary, zero] {
            if !literals.is_empty() {
                databases.push(database(&literals, cache)?);
            }
        }
        Ok(Box::new(Self { databases }))
    }
}

/// From the cache, or compiled and put there.
fn database(
    literals: &[hyperscan::Literal<'_>],
    cache: Option<&Cache>,
) -> Result<Database, PrefilterError> {
    let Some(cache) = cache.filter(|_| literals.len() >= WORTH_CACHING) else {
        return Database::compile(literals).map_err(fail);
    };
    let mut key = Key::new("libhs", &hyperscan::version());
    for literal in literals {
        key.add(&literal.id.to_le_bytes());
        key.add(&[u8::from(literal.nocase)]);
        key.add(literal.bytes);
    }
    let entry = key.finish();
    // What is damaged, or of another version or processor, is made anew.
    if let Some(bytes) = cache.read(&entry)
        && let Ok(database) = Database::deserialize(&bytes)
    {
        return Ok(database);
    }
    let database = Database::compile(literals).map_err(fail)?;
    cache.write(&entry, &database.serialize().map_err(fail)?);
    Ok(database)
}

impl Prefilter for Hyperscan {
    fn scan(&self, data: &[u8], working: &mut Working, hit: &mut dyn FnMut(LiteralId)) {
        for database in &self.databases {
            database.scan(data, &mut working.hyperscan, hit);
        }
    }

    fn prepare(&self, working: &mut Working) -> Result<(), PrefilterError> {
        let mut databases = self.databases.iter();
        databases
            .try_for_each(|database| working.hyperscan.reserve(database))
            .map_err(fail)
    }

    fn heap_bytes(&self) -> usize {
        self.databases.iter().map(Database::heap_bytes).sum()
    }

    fn boxed_clone(&self) -> Box<dyn Prefilter> {
        Box::new(self.clone())
    }
}
