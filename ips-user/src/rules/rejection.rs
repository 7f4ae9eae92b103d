//! Why rules are not used: counted, for `sluice rules coverage` and `sluice check`.

use std::collections::HashMap;

use serde::Serialize;

use super::diagnostic::Diagnostic;
use super::load::Loaded;

/// Rules that are not used for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rejection {
    /// Why.
    pub reason: String,
    /// The keyword or other word that it is about; empty for a rule as a whole.
    pub keyword: String,
    /// How many rules.
    pub count: usize,
    /// Where the first of them is: `file:line`.
    pub example: String,
}

/// All reasons.
#[derive(Clone, Debug, Default)]
pub struct Rejections(HashMap<(String, String), (usize, String)>);

impl Rejections {
    pub(super) fn add(&mut self, reason: String, keyword: String, at: &Diagnostic) {
        self.0
            .entry((reason, keyword))
            .or_insert_with(|| (0, format!("{}:{}", at.file.display(), at.line)))
            .0 += 1;
    }

    /// The reasons, those of most rules first.
    pub fn sorted(&self) -> Vec<Rejection> {
        let mut all: Vec<Rejection> = self
            .0
            .iter()
            .map(|((reason, keyword), (count, example))| Rejection {
                reason: reason.clone(),
                keyword: keyword.clone(),
                count: *count,
                example: example.clone(),
            })
            .collect();
        all.sort_by(|a, b| {
            let key = |r: &Rejection| (usize::MAX - r.count, r.keyword.clone(), r.reason.clone());
            key(a).cmp(&key(b))
        });
        all
    }
}

/// How much of rule files is used.
#[derive(Clone, Debug, Serialize)]
pub struct Coverage {
    /// Rules that are not commented out.
    pub active: usize,
    /// Rules that parser and engine take.
    pub loaded: usize,
    /// Why the others are not used. The counts add up to `active - loaded`.
    pub rejected: Vec<Rejection>,
}

impl From<&Loaded> for Coverage {
    fn from(loaded: &Loaded) -> Self {
        Self {
            active: loaded.seen,
            loaded: loaded.rules.len(),
            rejected: loaded.rejections.sorted(),
        }
    }
}
