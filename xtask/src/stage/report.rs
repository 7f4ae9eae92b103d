//! The promises, what was found, and the table at the end.

use std::fmt::Write as _;
use std::fs;
use std::io::{IsTerminal, stdout};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::{Value, json};

/// One promise and what was found.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    /// What is promised.
    promise: String,
    /// Whether it held.
    ok: bool,
    /// What was found, for people.
    evidence: String,
    /// The same with every figure, for programs.
    data: Value,
}

/// All promises of one run.
pub(crate) struct Report {
    rows: Vec<Row>,
    started: Instant,
    colour: bool,
}

impl Report {
    /// An empty one.
    pub(crate) fn new() -> Self {
        Self {
            rows: Vec::new(),
            started: Instant::now(),
            colour: stdout().is_terminal(),
        }
    }

    /// Says what is done now.
    pub(crate) fn act(&self, title: &str) {
        let seconds = self.started.elapsed().as_secs_f32();
        println!("\n{seconds:5.1} s  {}", self.paint("1", title));
    }

    /// Says something about the act.
    pub(crate) fn note(&self, text: &str) {
        println!("         {text}");
    }

    /// Adds a promise with what was found, and shows it.
    pub(crate) fn add(&mut self, promise: &str, ok: bool, evidence: String, data: Value) {
        println!("      {}  {promise}: {evidence}", self.mark(ok));
        self.rows.push(Row {
            promise: promise.to_owned(),
            ok,
            evidence,
            data,
        });
    }

    /// Adds a promise that could not even be examined.
    pub(crate) fn failed(&mut self, promise: &str, error: &anyhow::Error) {
        let text = format!("{error:#}");
        // The rest is a log; it is in the directory that is named at the end.
        let first = text.lines().next().unwrap_or_default().to_owned();
        self.add(promise, false, first, json!({ "error": text }));
    }

    /// How many promises did not hold so far.
    pub(crate) fn broken(&self) -> usize {
        self.rows.iter().filter(|row| !row.ok).count()
    }

    /// Whether there are promises and all of them held.
    pub(crate) fn holds(&self) -> bool {
        !self.rows.is_empty() && self.broken() == 0
    }

    /// Prints the table.
    pub(crate) fn print(&self) {
        let width = self
            .rows
            .iter()
            .map(|row| row.promise.chars().count())
            .max()
            .unwrap_or_default();
        let mut table = String::new();
        for row in &self.rows {
            let _ = writeln!(
                table,
                "  {}  {:<width$}  {}",
                self.mark(row.ok),
                row.promise,
                row.evidence
            );
        }
        let kept = self.rows.len() - self.broken();
        println!(
            "\n{}\n{table}\n{kept} of {} promises held, {:.0} s",
            self.paint("1", "  ok  promise and evidence"),
            self.rows.len(),
            self.started.elapsed().as_secs_f32()
        );
    }

    /// Writes the table with all figures; `about` says what was run.
    pub(crate) fn write(&self, path: &Path, about: &Value) -> Result<()> {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let document = json!({
            "ok": self.holds(),
            "about": about,
            "seconds": self.started.elapsed().as_secs_f64(),
            "kernel": kernel.trim(),
            "cpus": std::thread::available_parallelism().map_or(0, usize::from),
            "promises": self.rows,
        });
        fs::write(path, format!("{document:#}\n"))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    fn mark(&self, ok: bool) -> String {
        if ok {
            self.paint("32", "yes")
        } else {
            self.paint("31;1", "NO ")
        }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_holds_only_with_promises_that_all_held() {
        let mut report = Report::new();
        assert!(!report.holds(), "nothing was promised");
        report.add("one", true, "seen".to_owned(), Value::Null);
        assert!(report.holds());
        report.add("two", false, "not seen".to_owned(), Value::Null);
        assert!(!report.holds());
        assert_eq!(report.broken(), 1);
    }
}
