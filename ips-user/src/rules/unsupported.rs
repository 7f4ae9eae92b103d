//! Rules that are right but cannot be evaluated.

use thiserror::Error;

/// A rule is right, but the engine cannot evaluate it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{keyword}`: {reason}")]
pub struct Unsupported {
    /// The word of the rule that it is about.
    pub keyword: String,
    /// Why not.
    pub reason: String,
}

impl Unsupported {
    /// About this keyword, for this reason.
    pub fn new(keyword: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            keyword: keyword.into(),
            reason: reason.into(),
        }
    }
}

/// Says whether an engine can evaluate a rule.
pub type Supported = fn(&super::Rule) -> Result<(), Unsupported>;
