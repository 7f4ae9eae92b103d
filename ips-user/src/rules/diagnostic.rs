//! What is wrong with a rule, shown the way a compiler does.

use std::fmt::Write as _;
use std::path::PathBuf;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The rule works, but perhaps not as meant.
    Warning,
    /// The rule is correct but uses something Sluice does not have yet; it is skipped.
    Unsupported,
    /// The rule is wrong; it is skipped.
    Error,
}

impl Severity {
    const fn name(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Unsupported => "unsupported",
            Self::Error => "error",
        }
    }
}

/// One finding in a rule file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// The file.
    pub file: PathBuf,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Characters to underline, at least 1.
    pub length: usize,
    /// What is wrong.
    pub message: String,
    /// What would be right, if that can be said.
    pub help: Option<String>,
    /// The line itself, without its end; bytes that are not UTF-8 replaced.
    pub source_line: String,
}

/// Longest part of a source line that is shown, in characters.
const SHOWN: usize = 100;

impl Diagnostic {
    /// `file:line:col: error: message`, the source line, a caret line, and the help.
    pub fn render(&self) -> String {
        let mut text = format!(
            "{}:{}:{}: {}: {}\n",
            self.file.display(),
            self.line,
            self.column,
            self.severity.name(),
            printable(&self.message)
        );
        // Rules are long lines: show the part around the finding.
        let at = self.column.saturating_sub(1);
        let skip = at.saturating_sub(SHOWN / 2);
        let line: Vec<char> = printable(&self.source_line).chars().collect();
        let shown: String = line.iter().skip(skip).take(SHOWN).collect();
        let before = if skip > 0 { "…" } else { "" };
        let after = if line.len() > skip + SHOWN { "…" } else { "" };
        let gutter = self.line.to_string();
        let blank = " ".repeat(gutter.len());
        let indent = " ".repeat(at - skip + before.chars().count());
        let carets = "^".repeat(self.length.clamp(1, SHOWN - (at - skip).min(SHOWN - 1)));
        let _ = writeln!(text, "{gutter} | {before}{shown}{after}");
        let _ = writeln!(text, "{blank} | {indent}{carets}");
        if let Some(help) = &self.help {
            let _ = writeln!(text, "{blank} = help: {}", printable(help));
        }
        text
    }
}

/// One line that leaves the terminal as it is, whatever the rule file has in it.
fn printable(text: &str) -> String {
    let blank = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(blank).collect()
}

/// A word as it is quoted in a message: what was taken for one may be a whole file.
pub(super) fn shortened(word: &str) -> String {
    const LONGEST: usize = 40;
    match word.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &word[..end]),
        None => word.to_owned(),
    }
}

/// The candidate nearest to `word`, if one is near enough to be a slip of the finger.
pub(super) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    /// No word of the language is longer; comparing costs the product of the lengths.
    const LONGEST: usize = 64;
    let allowed = match word.len() {
        0..=2 => 0,
        LONGEST.. => return None,
        3..=5 => 1,
        6..=12 => 2,
        _ => 3,
    };
    candidates
        .into_iter()
        .map(|candidate| (edit_distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Damerau-Levenshtein distance in its restricted form (swapped neighbours count once), on
/// bytes.
fn edit_distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut two_back: Vec<usize> = Vec::new();
    let mut back: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let change = back[j - 1] + usize::from(!a[i - 1].eq_ignore_ascii_case(&b[j - 1]));
            row[j] = change.min(back[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(two_back[j - 2] + 1);
            }
        }
        two_back = std::mem::replace(&mut back, row);
    }
    back[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diagnostic_reads_like_a_compiler_error() {
        let diagnostic = Diagnostic {
            severity: Severity::Error,
            file: "local.rules".into(),
            line: 12,
            column: 7,
            length: 3,
            message: "unknown protocol `tpc`".into(),
            help: Some("did you mean `tcp`?".into()),
            source_line: "alert tpc any any -> any any (sid:1;)".into(),
        };
        assert_eq!(
            diagnostic.render(),
            "local.rules:12:7: error: unknown protocol `tpc`\n\
             12 | alert tpc any any -> any any (sid:1;)\n   \
             |       ^^^\n   \
             = help: did you mean `tcp`?\n"
        );
    }

    #[test]
    fn near_words_are_suggested_and_far_ones_are_not() {
        let check = |word, expect| {
            assert_eq!(
                nearest(word, ["content", "nocase", "sid", "rev", "depth"]),
                expect,
                "{word}"
            );
        };
        check("contnet", Some("content"));
        check("Content", Some("content"));
        check("nocas", Some("nocase"));
        check("dept", Some("depth"));
        check("flowbits", None);
        check("x", None);
        check(&"content".repeat(100_000), None);
    }

    #[test]
    fn nothing_in_a_rule_file_reaches_the_terminal_as_a_command() {
        let diagnostic = Diagnostic {
            severity: Severity::Error,
            file: "t".into(),
            line: 1,
            column: 1,
            length: 1,
            message: format!("unknown keyword `{}`", shortened(&"\u{1b}[2J".repeat(1000))),
            help: Some("\u{7}".into()),
            source_line: "\u{1b}[2J".into(),
        };
        let text = diagnostic.render();
        assert!(!text.contains(['\u{1b}', '\u{7}']));
        assert!(text.len() < 200, "{text}");
    }
}
