//! What libFuzzer has said, and the table at the end.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

/// What is known of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Status {
    executions: u64,
    /// Edges, or what else was counted as such.
    coverage: u64,
    /// Inputs that reach something of their own.
    corpus: u64,
    reproducer: Option<PathBuf>,
}

impl Status {
    /// Takes a line of libFuzzer's output; whether it says how far it is.
    pub(super) fn line(&mut self, line: &str) -> bool {
        if let Some(path) = line.split("Test unit written to ").nth(1) {
            self.reproducer = Some(path.into());
        }
        if let Some(count) = line.strip_prefix("stat::number_of_executed_units:") {
            self.executions = count.trim().parse().unwrap_or(self.executions);
        }
        let Some((number, rest)) = line.strip_prefix('#').and_then(|it| it.split_once('\t')) else {
            return false;
        };
        let Ok(number) = number.trim().parse() else {
            return false;
        };
        self.executions = number;
        let words: Vec<&str> = rest.split_whitespace().collect();
        let after = |name: &str| {
            let at = words.iter().position(|word| *word == name)?;
            let value = words.get(at + 1)?;
            value.split('/').next()?.parse().ok()
        };
        self.coverage = after("cov:").unwrap_or(self.coverage);
        self.corpus = after("corp:").unwrap_or(self.corpus);
        true
    }
}

/// How a run ended.
#[derive(Debug)]
pub(super) struct Result {
    pub(super) target: String,
    pub(super) took: Duration,
    pub(super) status: Status,
    pub(super) failed: bool,
}

impl Result {
    /// Whether nothing was found.
    pub(super) fn is_clean(&self) -> bool {
        !self.failed
    }
}

/// One line a target.
pub(super) fn table(results: &[Result]) -> String {
    let mut text = format!(
        "{:<12}{:>9}{:>14}{:>10}{:>10}{:>8}{:>9}\n",
        "target", "seconds", "executions", "per s", "coverage", "corpus", "crashes"
    );
    for result in results {
        let status = &result.status;
        let seconds = result.took.as_secs_f64().max(0.001);
        let _ = writeln!(
            text,
            "{:<12}{:>9.0}{:>14}{:>10.0}{:>10}{:>8}{:>9}",
            result.target,
            seconds,
            status.executions,
            status.executions as f64 / seconds,
            status.coverage,
            status.corpus,
            u8::from(result.failed),
        );
        if let Some(path) = &status.reproducer {
            let _ = writeln!(text, "  reproducer: {}", path.display());
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_libfuzzer_are_read() {
        let mut status = Status::default();
        assert!(!status.line("INFO: Seed: 1"));
        assert!(status.line(
            "#524288\tpulse  cov: 1163 ft: 5201 corp: 602/81Kb lim: 1017 exec/s: 87381 rss: 512Mb"
        ));
        assert!(!status.line("stat::number_of_executed_units: 600000"));
        assert!(!status.line("artifact_prefix='/x/'; Test unit written to /x/crash-1"));
        let expected = Status {
            executions: 600_000,
            coverage: 1163,
            corpus: 602,
            reproducer: Some("/x/crash-1".into()),
        };
        assert_eq!(status, expected);
    }

    #[test]
    fn a_crash_is_in_the_table_with_what_reproduces_it() {
        let result = Result {
            target: "decode".into(),
            took: Duration::from_secs(10),
            status: Status {
                executions: 1000,
                reproducer: Some("/x/crash-1".into()),
                ..Status::default()
            },
            failed: true,
        };
        let text = table(&[result]);
        let line = "decode             10          1000       100         0       0        1\n";
        assert!(text.contains(line), "{text}");
        assert!(text.ends_with("  reproducer: /x/crash-1\n"), "{text}");
    }
}
