//! Suricata's rule language, as far as Sluice speaks it: from files to typed [`Rule`]s.
//!
//! [`RuleSource`] splits a file into logical lines, `parse` reads header and options of one,
//! `list` its addresses and ports, `content` its patterns; `vocabulary` has the words. A word
//! that Suricata knows and Sluice does not is *unsupported*, not wrong; either way the rule is
//! skipped with a [`Diagnostic`], and one run shows all of them.
//!
//! Reference: <https://docs.suricata.io/en/suricata-8.0.3/rules/intro.html>.

pub mod ast;
pub mod classification;
mod configured;
mod content;
pub mod diagnostic;
mod item;
mod list;
mod load;
mod options;
mod parse;
pub mod range_set;
mod source;
mod sources;
mod variables;
mod vocabulary;

pub use ast::{
    Action, AddressSet, Arrow, Class, Content, Options, PortSet, Position, RejectTarget, Rule,
    RuleProtocol,
};
pub use classification::Classification;
pub use configured::{Unusable, check_sources, load, load_from};
pub use diagnostic::{Diagnostic, Severity};
pub use load::{Loaded, RuleSet};
pub use source::RuleSource;
pub use sources::Sources;
pub use variables::Variables;
