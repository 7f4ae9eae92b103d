//! Compiled databases on disk, found by what they were compiled from.
//!
//! A cache only: an entry that cannot be used is made anew, and one that cannot be written is
//! made again at the next start. Entries are written under another name and renamed, so that a
//! reader never sees half of one.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest, Sha256};

/// Begins every entry; changes with its format.
const MAGIC: &[u8; 8] = b"sluicec1";
/// Magic and checksum.
const HEADER: usize = 12;

/// A directory of entries.
#[derive(Clone, Debug)]
pub struct Cache {
    directory: PathBuf,
}

/// Identifies an entry by everything that its content depends on.
pub struct Key(Sha256);

impl Key {
    /// Of an engine and its version.
    pub fn new(engine: &str, version: &str) -> Self {
        let mut key = Self(Sha256::new());
        key.add(engine.as_bytes());
        key.add(version.as_bytes());
        key.add(std::env::consts::ARCH.as_bytes());
        key
    }

    /// Adds a part: also where it ends counts.
    pub fn add(&mut self, part: &[u8]) {
        self.0.update((part.len() as u64).to_le_bytes());
        self.0.update(part);
    }

    /// The name of the entry.
    pub fn finish(self) -> String {
        let digest = self.0.finalize();
        digest.iter().fold(String::new(), |mut name, byte| {
            name.push_str(&format!("{byte:02x}"));
            name
        })
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

impl Cache {
    /// In this directory, which is made when the first entry is written.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
        }
    }

    /// What was written under this name, if it is whole.
    pub fn read(&self, name: &str) -> Option<Vec<u8>> {
        let mut bytes = fs::read(self.directory.join(name)).ok()?;
        let (magic, rest) = bytes.split_first_chunk::<8>()?;
        let (sum, content) = rest.split_first_chunk::<4>()?;
        if magic != MAGIC || u32::from_le_bytes(*sum) != crc32fast::hash(content) {
            log::warn!(
                "{}: damaged, compiled anew",
                self.directory.join(name).display()
            );
            return None;
        }
        bytes.drain(..HEADER);
        Some(bytes)
    }

    /// Writes an entry.
    pub fn write(&self, name: &str, content: &[u8]) {
        let write = || -> std::io::Result<()> {
            fs::create_dir_all(&self.directory)?;
            // Several threads may write the same entry.
            static WRITTEN: AtomicU64 = AtomicU64::new(0);
            let number = WRITTEN.fetch_add(1, Ordering::Relaxed);
            let unfinished = format!(".{name}.{}.{number}", std::process::id());
            let unfinished = self.directory.join(unfinished);
            let mut file = fs::File::create(&unfinished)?;
            let written = file
                .write_all(MAGIC)
                .and_then(|()| file.write_all(&crc32fast::hash(content).to_le_bytes()))
                .and_then(|()| file.write_all(content))
                .and_then(|()| fs::rename(&unfinished, self.directory.join(name)));
            if written.is_err() {
                let _ = fs::remove_file(&unfinished);
            }
            written
        };
        if let Err(error) = write() {
            log::warn!(
                "{}: compiled rules are not cached: {error}",
                self.directory.display()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_key_do_not_run_into_each_other() {
        let key = |parts: &[&str]| {
            let mut key = Key::new("e", "1");
            parts.iter().for_each(|part| key.add(part.as_bytes()));
            key.finish()
        };
        assert_eq!(key(&["ab", "c"]), key(&["ab", "c"]));
        assert_ne!(key(&["ab", "c"]), key(&["a", "bc"]));
        assert_ne!(Key::new("e", "1").finish(), Key::new("e", "2").finish());
    }

    #[test]
    fn damaged_entries_are_as_good_as_none() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::new(directory.path().join("deep/er"));
        assert_eq!(cache.read("x"), None);
        cache.write("x", b"content");
        assert_eq!(cache.read("x").as_deref(), Some(&b"content"[..]));
        let path = directory.path().join("deep/er/x");
        let whole = fs::read(&path).unwrap();
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            assert_eq!(cache.read("x"), None, "{length}");
        }
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x10;
            fs::write(&path, damaged).unwrap();
            assert_eq!(cache.read("x"), None, "{at}");
        }
        cache.write("x", b"new");
        assert_eq!(cache.read("x").as_deref(), Some(&b"new"[..]));
        // Nothing unfinished is left.
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[cfg(libhs)]
    #[test]
    fn what_is_in_the_cache_is_used_unless_it_is_foreign() {
        use crate::detect::prefilter::{Hyperscan, Literal, Working};
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::new(directory.path());
        let literals: Vec<Literal> = (0..300)
            .map(|n| Literal {
                bytes: format!("<{n}>").into_bytes(),
                nocase: false,
            })
            .collect();
        let check = || {
            let prefilter = Hyperscan::build(&literals, Some(&cache)).unwrap();
            let mut working = Working::default();
            prefilter.prepare(&mut working).unwrap();
            let mut found = Vec::new();
            prefilter.scan(b"x<7>x", &mut working, &mut |id| found.push(id));
            assert_eq!(found, [7]);
        };
        check();
        let names: Vec<_> = fs::read_dir(directory.path()).unwrap().flatten().collect();
        assert_eq!(names.len(), 1);
        let name = names[0].file_name().into_string().unwrap();
        let right = cache.read(&name).unwrap();
        check();
        // Whole, but no database of this library: it is replaced.
        cache.write(&name, b"something else");
        check();
        assert!(cache.read(&name).unwrap() == right);
    }
}
