//! Rule files into a rule set.

use std::collections::hash_map::{Entry, HashMap};
use std::path::PathBuf;

use super::ast::Rule;
use super::classification::Classification;
use super::diagnostic::{Diagnostic, Severity};
use super::files;
use super::finding::Findings;
use super::flowbits::FlowBits;
use super::parse::{Context, rule};
use super::reference::References;
use super::rejection::Rejections;
use super::source::{LogicalLine, RuleSource, Span};
use super::sources::Sources;
use super::unsupported::Supported;
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
    /// Rules skipped because they need something that is not supported.
    pub unsupported: usize,
    /// Rules skipped because their `requires` says that they are for another engine.
    pub not_for_us: usize,
    /// Rules replaced by a later one with the same sid and a higher revision.
    pub superseded: usize,
    /// Why rules are not used, and how many of them for each reason.
    pub rejections: Rejections,
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
#[derive(Clone, Debug)]
pub struct RuleSet {
    /// Address and port variables.
    pub variables: Variables,
    /// Classes.
    pub classification: Classification,
    /// Systems of references.
    pub references: References,
    /// Which rules the engine can evaluate.
    pub supported: Supported,
}

impl Default for RuleSet {
    /// The stock values, and this engine.
    fn default() -> Self {
        Self {
            variables: Variables::default(),
            classification: Classification::default(),
            references: References::default(),
            supported: crate::detect::supported,
        }
    }
}

impl RuleSet {
    /// Reads and parses files, and those that they include. A file that cannot be read is a
    /// diagnostic like any other.
    pub fn load(&self, paths: &[PathBuf], from: &Sources) -> Loaded {
        let mut reader = files::Reader::new(from);
        for path in paths {
            reader.add_or_say(path);
        }
        self.load_read(reader)
    }

    /// Parses what was read.
    pub(super) fn load_read(&self, reader: files::Reader<'_>) -> Loaded {
        let (sources, diagnostics) = reader.finish();
        let mut loaded = Loaded {
            diagnostics,
            ..Loaded::default()
        };
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
            references: &self.references,
        };
        let mut by_id: HashMap<(u32, u32), usize> = HashMap::new();
        let mut rules: Vec<Option<Rule>> = Vec::new();
        let mut flowbits = FlowBits::default();
        for source in sources {
            for line in source.logical_lines() {
                if files::included(&line).is_some() {
                    continue;
                }
                loaded.seen += 1;
                let mut findings = Findings::default();
                let parsed = rule(source, &line, context, &mut findings);
                report(source, &line, &findings, parsed.is_none(), loaded);
                let Some(parsed) = parsed else { continue };
                flowbits.note(&parsed.options, source, &line);
                if let Err(unsupported) = (self.supported)(&parsed) {
                    let span = word(&line, &unsupported.keyword);
                    let place = line.file_span(span);
                    let message = format!(
                        "`{}`: {}; the rule is skipped",
                        unsupported.keyword, unsupported.reason
                    );
                    let found = source.diagnostic(Severity::Unsupported, place, message, None);
                    loaded
                        .rejections
                        .add(unsupported.reason, unsupported.keyword, &found);
                    loaded.diagnostics.push(found);
                    loaded.unsupported += 1;
                    continue;
                }
                let first = line.file_span(Span { start: 0, end: 1 });
                let id = (parsed.options.group_id, parsed.options.signature_id);
                match by_id.entry(id) {
                    Entry::Vacant(place) => {
                        place.insert(rules.len());
                        rules.push(Some(parsed));
                    }
                    Entry::Occupied(mut place) => {
                        let (message, help, severity, keep) =
                            compare(rules[*place.get()].as_ref(), &parsed);
                        let finding = source.diagnostic(severity, first, message, Some(help));
                        let reason = if keep {
                            "replaced by a later revision"
                        } else {
                            "the sid is already taken"
                        };
                        loaded
                            .rejections
                            .add(reason.to_owned(), "sid".to_owned(), &finding);
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
        loaded.diagnostics.extend(flowbits.never_set());
    }
}

/// Where a word stands in a rule; its beginning, if it is a name of something that has another.
fn word(line: &LogicalLine, word: &str) -> Span {
    let found = line
        .text
        .windows(word.len().max(1))
        .position(|bytes| bytes == word.as_bytes());
    match found {
        Some(start) => Span {
            start,
            end: start + word.len(),
        },
        None => Span { start: 0, end: 1 },
    }
}

/// What to say about a second rule with the same number, and whether to keep it instead.
fn compare(old: Option<&Rule>, new: &Rule) -> (String, String, Severity, bool) {
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
            "take the older rule out".into(),
            Severity::Warning,
            true,
        )
    } else {
        (
            format!("sid {sid} is already taken by the rule at {place}"),
            format!("use another sid, or a rev above {old_revision} to replace that rule"),
            Severity::Error,
            false,
        )
    }
}

fn report(
    source: &RuleSource,
    line: &LogicalLine,
    findings: &Findings,
    skipped: bool,
    loaded: &mut Loaded,
) {
    if findings.unmet {
        let first = line.file_span(Span { start: 0, end: 1 });
        let place = source.diagnostic(Severity::Unsupported, first, String::new(), None);
        let reason = "its requires is not met: the rule is for another engine or version";
        loaded
            .rejections
            .add(reason.to_owned(), "requires".to_owned(), &place);
        loaded.not_for_us += 1;
        return;
    }
    let mut wrong = false;
    for graded in &findings.graded {
        let found = source.diagnostic(
            graded.severity,
            line.file_span(graded.finding.span),
            graded.finding.message.clone(),
            graded.finding.help.clone(),
        );
        if graded.severity == Severity::Error && !wrong {
            wrong = true;
            let reason = graded.finding.message.clone();
            loaded
                .rejections
                .add(reason, graded.keyword.clone(), &found);
        }
        loaded.diagnostics.push(found);
    }
    if let Some((first, reason, span)) = findings.unsupported.first() {
        // One finding a rule: thirty thousand rules with four such words each are not read.
        let words: Vec<String> = findings
            .unsupported
            .iter()
            .map(|(word, ..)| format!("`{word}`"))
            .collect();
        let found = source.diagnostic(
            Severity::Unsupported,
            line.file_span(*span),
            format!("{}: {reason}; the rule is skipped", words.join(", ")),
            None,
        );
        if !wrong {
            loaded
                .rejections
                .add((*reason).to_owned(), first.clone(), &found);
        }
        loaded.diagnostics.push(found);
    }
    if skipped && wrong {
        loaded.wrong += 1;
    } else if skipped {
        loaded.unsupported += 1;
    }
}

#[cfg(test)]
mod tests;
