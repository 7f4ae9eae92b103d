//! Files that a mail carries.

use crate::app::content::Part;
use crate::app::file::{File, Hashing, WantedHashes};
use crate::bounded::held;

/// How much of a file is kept, and how much there must be to be shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Keeping {
    /// Bytes that are shown.
    pub(super) limit: usize,
    /// Bytes that are kept, as they may be stored.
    pub(super) kept: usize,
    pub(super) least: usize,
    pub(super) hashes: WantedHashes,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Attachment {
    pub(super) name: Vec<u8>,
    data: Vec<u8>,
    total: u64,
    revision: u32,
    pub(super) ended: bool,
    /// All of it has come.
    whole: bool,
    gaps: bool,
    hashing: Hashing,
    keeping: Keeping,
}

impl Attachment {
    pub(super) fn new(name: Vec<u8>, keeping: Keeping) -> Self {
        Self {
            name,
            data: Vec::new(),
            total: 0,
            revision: 0,
            ended: false,
            whole: false,
            gaps: false,
            hashing: Hashing::new(keeping.hashes),
            keeping,
        }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.ended {
            return;
        }
        self.total += bytes.len() as u64;
        self.hashing.update(bytes);
        let room = self.keeping.kept.saturating_sub(self.data.len());
        let kept = &bytes[..bytes.len().min(room)];
        if !kept.is_empty() {
            self.data.extend_from_slice(kept);
            self.revision += 1;
        }
    }

    /// Nothing more comes of it; `whole` if that is all of it.
    pub(super) fn end(&mut self, whole: bool) {
        if !self.ended {
            self.ended = true;
            self.whole = whole && !self.gaps;
        }
    }

    /// Some bytes are missing. What follows is not where it should be.
    pub(super) fn gap(&mut self) {
        self.gaps |= !self.ended;
        self.end(false);
    }

    /// Bytes that it takes besides its place.
    pub(super) fn taken(&self) -> usize {
        held(&self.name) + held(&self.data)
    }

    /// Bytes that are kept.
    pub(super) fn kept(&self) -> usize {
        self.data.len()
    }

    /// Lets go of its bytes, which rules have seen.
    pub(super) fn forget(&mut self) {
        self.data = Vec::new();
    }

    /// Its bytes, as far as they are kept; none if they were let go.
    pub(super) fn content(&self) -> Option<&[u8]> {
        let kept = self.total == 0 || !self.data.is_empty();
        kept.then_some(&self.data)
    }

    pub(super) fn part(&self) -> Part<'_> {
        let complete = self.ended || self.total >= self.keeping.limit as u64;
        if !complete && self.data.len() < self.keeping.least {
            return Part::Pending;
        }
        Part::Bytes {
            data: &self.data[..self.data.len().min(self.keeping.limit)],
            complete,
            // That it is complete is news as well.
            revision: self.revision << 1 | u32::from(complete),
        }
    }

    pub(super) fn file(&self) -> File {
        File {
            name: self.name.clone(),
            size: self.total,
            ended: self.ended,
            whole: self.whole,
            gaps: self.gaps,
            hashing: self.hashing.clone(),
        }
    }
}
