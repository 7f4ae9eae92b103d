//! Files that applications carry. Reference: "Event type: Fileinfo" in the EVE chapter of
//! Suricata's user guide.

use md5::{Digest as _, Md5};
use serde_json::{Value, json};
use sha1::Sha1;
use sha2::Sha256;

use super::content::Asked;

/// A kind of hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashKind {
    /// MD5
    Md5,
    /// SHA-1
    Sha1,
    /// SHA-256
    Sha256,
}

impl HashKind {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Md5, Self::Sha1, Self::Sha256];

    /// Its name in records and settings.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Md5 => "md5",
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
        }
    }

    /// Bytes of a hash.
    pub const fn bytes(self) -> usize {
        match self {
            Self::Md5 => 16,
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        }
    }
}

/// Which hashes are made of files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WantedHashes([bool; 3]);

impl WantedHashes {
    /// Adds a kind.
    pub fn want(&mut self, kind: HashKind) {
        self.0[kind as usize] = true;
    }

    /// Those of both.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        let mut both = self;
        for (own, other) in both.0.iter_mut().zip(other.0) {
            *own |= other;
        }
        both
    }

    fn wants(self, kind: HashKind) -> bool {
        self.0[kind as usize]
    }
}

/// Hashes of a file that comes.
#[derive(Clone, Debug, Default)]
pub(super) struct Hashing {
    md5: Option<Md5>,
    sha1: Option<Sha1>,
    sha256: Option<Sha256>,
}

impl Hashing {
    pub(super) fn new(wanted: WantedHashes) -> Self {
        Self {
            md5: wanted.wants(HashKind::Md5).then(Md5::new),
            sha1: wanted.wants(HashKind::Sha1).then(Sha1::new),
            sha256: wanted.wants(HashKind::Sha256).then(Sha256::new),
        }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        if let Some(md5) = &mut self.md5 {
            md5.update(bytes);
        }
        if let Some(sha1) = &mut self.sha1 {
            sha1.update(bytes);
        }
        if let Some(sha256) = &mut self.sha256 {
            sha256.update(bytes);
        }
    }

    /// That of what has come; `None` if it is not made.
    fn hash(&self, kind: HashKind) -> Option<Vec<u8>> {
        match kind {
            HashKind::Md5 => self.md5.clone().map(|it| it.finalize().to_vec()),
            HashKind::Sha1 => self.sha1.clone().map(|it| it.finalize().to_vec()),
            HashKind::Sha256 => self.sha256.clone().map(|it| it.finalize().to_vec()),
        }
    }
}

/// What is known of a file.
#[derive(Clone, Debug)]
pub struct File {
    /// What it is called.
    pub name: Vec<u8>,
    /// Bytes that have come.
    pub size: u64,
    /// Nothing more comes.
    pub ended: bool,
    /// Whether that is all of it, and all of it was seen.
    pub whole: bool,
    /// Whether something in between is missing.
    pub gaps: bool,
    pub(super) hashing: Hashing,
}

impl File {
    /// Its hash, once all of it has come.
    pub fn hash(&self, kind: HashKind) -> Option<Vec<u8>> {
        self.hashing.hash(kind).filter(|_| self.whole)
    }

    /// The object `fileinfo` of a record.
    pub(crate) fn fields(&self, transaction: u64) -> Value {
        let mut fields = json!({
            "filename": String::from_utf8_lossy(&self.name),
            "gaps": self.gaps,
            "state": match (self.ended, self.whole) {
                (false, _) => "UNKNOWN",
                (true, true) => "CLOSED",
                (true, false) => "TRUNCATED",
            },
            "stored": false,
            "size": self.size,
            "tx_id": transaction,
        });
        for kind in HashKind::ALL {
            if let Some(hash) = self.hash(kind) {
                let digits: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
                fields[kind.name()] = digits.into();
            }
        }
        fields
    }

    /// Whether something that rules ask of files holds for it; `None` while that is not known.
    pub(crate) fn answers(&self, asked: &Asked) -> Option<bool> {
        match asked {
            Asked::FileName {
                text,
                extension,
                negated,
            } => {
                let named = match extension {
                    true => self.has_extension(text),
                    false => self.is_named(text),
                };
                Some(named != *negated)
            }
            Asked::FileSize(compare) => self.ended.then(|| compare.holds(self.size)),
            Asked::FileHash {
                kind,
                hashes,
                negated,
            } => {
                let hash = self.hash(*kind)?;
                let found = hashes.binary_search_by(|it| (**it).cmp(&hash[..]));
                Some(found.is_ok() != *negated)
            }
            Asked::AnyFile => Some(true),
            _ => Some(false),
        }
    }

    /// Whether its name ends with a dot and this.
    fn has_extension(&self, extension: &str) -> bool {
        let dot = self.name.iter().rposition(|byte| *byte == b'.');
        dot.is_some_and(|dot| self.name[dot + 1..].eq_ignore_ascii_case(extension.as_bytes()))
    }

    /// Whether its name contains this, whatever the case.
    fn is_named(&self, text: &str) -> bool {
        let name = self.name.to_ascii_lowercase();
        memchr::memmem::find(&name, text.to_ascii_lowercase().as_bytes()).is_some()
    }
}
