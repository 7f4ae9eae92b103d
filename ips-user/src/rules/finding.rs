//! What is found wrong with one rule, by its place in the rule's text.

use super::diagnostic::Severity;
use super::source::Span;

/// A finding and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) span: Span,
    pub(super) message: String,
    pub(super) help: Option<String>,
}

impl Finding {
    /// A finding that says what would be right, too.
    pub(super) fn with_help(
        span: Span,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Self {
            span,
            message: message.into(),
            help: Some(help.into()),
        }
    }
}

impl Finding {
    /// With this help, if it has none.
    pub(super) fn or_help(mut self, help: &str) -> Self {
        self.help.get_or_insert_with(|| help.to_owned());
        self
    }
}

/// Most findings about one rule: what follows is noise, and a file of nothing but semicolons
/// must not fill the memory.
const MAX_FINDINGS: usize = 20;

/// A finding and how bad it is.
#[derive(Clone, Debug)]
pub(super) struct Graded {
    pub(super) severity: Severity,
    pub(super) finding: Finding,
    /// The keyword that was read; empty for the header and the whole.
    pub(super) keyword: String,
}

/// Collects findings about one rule; spans are those of the logical line.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) graded: Vec<Graded>,
    /// Words that cannot be used, and why, first occurrence of each.
    pub(super) unsupported: Vec<(String, &'static str, Span)>,
    /// The rule is for another engine or version, as its `requires` says: skipped silently.
    pub(super) unmet: bool,
    /// The keyword that is being read.
    pub(super) keyword: String,
}

impl Findings {
    pub(super) fn error(&mut self, span: Span, message: impl Into<String>, help: Option<String>) {
        self.add(
            Severity::Error,
            Finding {
                span,
                message: message.into(),
                help,
            },
        );
    }

    pub(super) fn warning(&mut self, finding: Finding) {
        self.add(Severity::Warning, finding);
    }

    /// A finding whose span is relative to `base`.
    pub(super) fn error_at(&mut self, base: usize, mut finding: Finding) {
        finding.span.start += base;
        finding.span.end += base;
        self.add(Severity::Error, finding);
    }

    pub(super) fn unsupported(&mut self, word: &str, reason: &'static str, span: Span) {
        if !self.unsupported.iter().any(|(known, ..)| known == word) {
            self.unsupported.push((word.to_owned(), reason, span));
        }
    }

    pub(super) fn add(&mut self, severity: Severity, finding: Finding) {
        // An error always gets in: it decides that the rule is skipped.
        let first_error = severity == Severity::Error && !self.skips_rule();
        if self.graded.len() < MAX_FINDINGS || first_error {
            self.graded.push(Graded {
                severity,
                finding,
                keyword: self.keyword.clone(),
            });
        }
    }

    pub(super) fn has_errors(&self) -> bool {
        self.graded
            .iter()
            .any(|graded| graded.severity == Severity::Error)
    }

    pub(super) fn skips_rule(&self) -> bool {
        self.unmet || !self.unsupported.is_empty() || self.has_errors()
    }
}
