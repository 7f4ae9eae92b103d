//! Bits that rules ask for and no rule sets: such a rule never matches, and nobody would see it.

use std::collections::{BTreeMap, HashSet};

use super::ast::{Condition, Effect, Options};
use super::diagnostic::{Diagnostic, Severity, nearest};
use super::source::{LogicalLine, RuleSource, Span};

/// The flowbits of all rules.
#[derive(Debug, Default)]
pub(super) struct FlowBits {
    set: HashSet<String>,
    /// First rule that asks whether it is set.
    asked: BTreeMap<String, Diagnostic>,
}

impl FlowBits {
    /// Notes what a rule sets and asks.
    pub(super) fn note(&mut self, options: &Options, source: &RuleSource, line: &LogicalLine) {
        for effect in &options.effects {
            if let Effect::FlowBits { names, .. } = effect {
                for name in names {
                    if !self.set.contains(name) {
                        self.set.insert(name.clone());
                    }
                }
            }
        }
        for condition in &options.conditions {
            let Condition::FlowBits { set: true, any_of } = condition else {
                continue;
            };
            for name in any_of {
                if !self.asked.contains_key(name) {
                    let first = line.file_span(Span { start: 0, end: 1 });
                    let found = source.diagnostic(Severity::Warning, first, String::new(), None);
                    self.asked.insert(name.clone(), found);
                }
            }
        }
    }

    /// One warning for each bit that no rule sets.
    pub(super) fn never_set(self) -> impl Iterator<Item = Diagnostic> {
        let Self { set, asked } = self;
        asked.into_iter().filter_map(move |(name, mut found)| {
            if set.contains(&name) {
                return None;
            }
            found.message = format!("flowbit `{name}` is asked for, but no rule sets it");
            found.help = Some(match nearest(&name, set.iter().map(String::as_str)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "load the rule that sets it, too".into(),
            });
            Some(found)
        })
    }
}
