//! Suricata's rule language: from files to typed [`Rule`]s.
//!
//! [`RuleSource`] splits a file into logical lines, `parse` reads header and options of one:
//! `list` its addresses and ports, `options/` its keywords. Everything knows its place, so that
//! each mistake is a [`Diagnostic`] there, and one run shows all of them. What is right but
//! cannot be evaluated, as [`RuleSet::supported`] says, is skipped and counted in
//! [`Rejections`].
//!
//! Reference: <https://docs.suricata.io/en/suricata-8.0.3/rules/index.html>.

pub mod ast;
pub mod classification;
mod configured;
pub mod diagnostic;
mod files;
mod finding;
mod flowbits;
mod item;
mod list;
mod load;
mod options;
mod parse;
pub mod range_set;
mod reference;
mod rejection;
mod source;
mod sources;
mod text;
mod threshold_file;
mod unsupported;
mod variables;
mod vocabulary;

pub use ast::*;
pub use classification::Classification;
pub use configured::{Unusable, check_sources, load, load_from, ports_of_setting};
pub use diagnostic::{Diagnostic, Severity};
pub use load::{Loaded, RuleSet};
pub(crate) use options::number::comparison;
pub use reference::References;
pub use rejection::{Coverage, Rejection, Rejections};
pub use source::RuleSource;
pub use sources::Sources;
pub use threshold_file::{ThresholdEntry, Thresholds};
pub use unsupported::{Supported, Unsupported};
pub use variables::Variables;
