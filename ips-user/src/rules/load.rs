//! Rule files into a rule set.

use std::collections::BTreeMap;
use std::collections::hash_map::{Entry, HashMap};
use std::path::{Path, PathBuf};

use super::ast::Rule;
use super::classification::Classification;
use super::diagnostic::{Diagnostic, Severity};
use super::parse::{Context, Findings, rule};
use super::source::{RuleSource, Span};
use super::variables::Variables;

/// What came out of loading rule files.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The rules that can be used, in the order of the files.
    pub rules: Vec<Rule>,
    /// Everything found wrong.
    pub diagnostics: Vec<Diagnostic>,
    /// Rules seen, comments aside.
    pub seen: usize,
    /// Rules skipped because they are wrong.
    pub wrong: usize,
    /// Rules skipped because they need something that is not supported yet.
    pub unsupported: usize,
    /// How many rules each unsupported word (keyword, protocol, action) keeps from loading.
    pub unsupported_words: BTreeMap<String, usize>,
    /// Rules replaced by a later one with the same sid and a higher revision.
    pub superseded: usize,
}

impl Loaded {
    /// Whether anything is wrong (as opposed to unsupported or dubious).
    pub fn has_errors(&self) -> bool {
        self.diagnostics
            .iter()
            .any(|diagnostic| diagnostic.severity == Severity::Error)
    }
}

/// Loads rules.
#[derive(Clone, Debug, Default)]
pub struct RuleSet {
    /// Address and port variables.
    pub variables: Variables,
    /// Classes.
    pub classification: Classification,
}

impl RuleSet {
    /// Reads and parses files. A file that cannot be read is a diagnostic like any other.
    pub fn load(&self, files: &[PathBuf]) -> Loaded {
        let mut loaded = Loaded::default();
        let mut sources = Vec::with_capacity(files.len());
        for path in files {
            match RuleSource::read(path) {
                Ok(source) => sources.push(source),
                Err(error) => loaded.diagnostics.push(unreadable(path, &error)),
            }
        }
        self.add_sources(&sources, &mut loaded);
        loaded
    }

    /// Parses rules that are already in memory.
    pub fn load_sources(&self, sources: &[RuleSource]) -> Loaded {
        let mut loaded = Loaded::default();
        self.add_sources(sources, &mut loaded);
        loaded
    }

    fn add_sources(&self, sources: &[RuleSource], loaded: &mut Loaded) {
        let context = Context {
            variables: &self.variables,
            classification: &self.classification,
        };
        let mut by_id: HashMap<(u32, u32), usize> = HashMap::new();
        let mut rules: Vec<Option<Rule>> = Vec::new();
        for source in sources {
            for line in source.logical_lines() {
                loaded.seen += 1;
                let mut findings = Findings::default();
                let parsed = rule(source, &line, context, &mut findings);
                let first = line.file_span(Span { start: 0, end: 1 });
                report(source, &line, &findings, parsed.is_none(), loaded);
                let Some(parsed) = parsed else { continue };
                let id = (parsed.options.group_id, parsed.options.signature_id);
                match by_id.entry(id) {
                    Entry::Vacant(place) => {
                        place.insert(rules.len());
                        rules.push(Some(parsed));
                    }
                    Entry::Occupied(mut place) => {
                        let (message, help, severity, keep) =
                            compare(rules[*place.get()].as_ref(), &parsed);
                        let finding = source.diagnostic(severity, first, message, help);
                        loaded.diagnostics.push(finding);
                        if keep {
                            loaded.superseded += 1;
                            rules[*place.get()] = None;
                            *place.get_mut() = rules.len();
                            rules.push(Some(parsed));
                        } else {
                            loaded.wrong += 1;
                        }
                    }
                }
            }
        }
        loaded.rules = rules.into_iter().flatten().collect();
    }
}

/// What to say about a second rule with the same number, and whether to keep it instead.
fn compare(old: Option<&Rule>, new: &Rule) -> (String, Option<String>, Severity, bool) {
    let sid = new.options.signature_id;
    let (place, old_revision) = old.map_or((String::new(), 0), |old| {
        (
            format!("{}:{}", old.file.display(), old.line),
            old.options.revision,
        )
    });
    if new.options.revision > old_revision {
        (
            format!("sid {sid} again with a higher rev: it replaces the rule at {place}"),
            None,
            Severity::Warning,
            true,
        )
    } else {
        (
            format!("sid {sid} is already taken by the rule at {place}"),
            Some(format!(
                "use another sid, or a rev above {old_revision} to replace that rule"
            )),
            Severity::Error,
            false,
        )
    }
}

fn report(
    source: &RuleSource,
    line: &super::source::LogicalLine,
    findings: &Findings,
    skipped: bool,
    loaded: &mut Loaded,
) {
    let mut wrong = false;
    for graded in &findings.graded {
        wrong |= graded.severity == Severity::Error;
        loaded.diagnostics.push(source.diagnostic(
            graded.severity,
            line.file_span(graded.finding.span),
            graded.finding.message.clone(),
            graded.finding.help.clone(),
        ));
    }
    if let Some((_, span)) = findings.unsupported.first() {
        // One finding a rule: thirty thousand rules with four such words each are not read.
        let words: Vec<String> = findings
            .unsupported
            .iter()
            .map(|(word, _)| format!("`{word}`"))
            .collect();
        loaded.diagnostics.push(source.diagnostic(
            Severity::Unsupported,
            line.file_span(*span),
            format!(
                "not supported yet: {}; the rule is skipped",
                words.join(", ")
            ),
            None,
        ));
        for (word, _) in &findings.unsupported {
            *loaded.unsupported_words.entry(word.clone()).or_default() += 1;
        }
    }
    if skipped && wrong {
        loaded.wrong += 1;
    } else if skipped {
        loaded.unsupported += 1;
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> Diagnostic {
    Diagnostic {
        severity: Severity::Error,
        file: path.to_owned(),
        line: 1,
        column: 1,
        length: 1,
        message: format!("cannot read the rule file: {error}"),
        help: None,
        source_line: String::new(),
    }
}

#[cfg(test)]
mod tests;
