//! Running a case and judging what it wrote.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::{Map, Value};

use super::case::{Case, Check};
use super::filter::{self, UnknownOperator};

/// Most of a program's messages that is shown.
const MESSAGE_BYTES: usize = 2000;

/// What became of a case.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub(crate) enum Outcome {
    /// Every check holds.
    Passed,
    /// Events are missing, or there are too many.
    Failed {
        /// The checks that do not hold.
        checks: Vec<Miss>,
    },
    /// The program did not do its work, or wrote what cannot be read.
    Broken {
        /// What happened.
        problem: String,
    },
}

/// A check that does not hold.
#[derive(Debug, Serialize)]
pub(crate) struct Miss {
    /// Events that should have matched.
    pub(crate) expected: usize,
    /// Events that did.
    pub(crate) got: usize,
    /// What was asked for.
    #[serde(rename = "match")]
    pub(crate) filter: Map<String, Value>,
}

/// Runs `case` with `sluice`, which writes into `directory`.
pub(crate) fn run(case: &Case, sluice: &Path, directory: &Path, limit: Duration) -> Outcome {
    let judged = execute(case, sluice, directory, limit).and_then(|ended| match ended {
        Ended::Well => {
            let events = read_events(&directory.join("eve.json"))?;
            judge(&case.checks, &events)
        }
        Ended::Badly(problem) => Ok(Outcome::Broken { problem }),
    });
    judged.unwrap_or_else(|error| Outcome::Broken {
        problem: format!("{error:#}"),
    })
}

enum Ended {
    Well,
    Badly(String),
}

fn execute(case: &Case, sluice: &Path, directory: &Path, limit: Duration) -> Result<Ended> {
    fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    let messages = directory.join("messages");
    let file = File::create(&messages).with_context(|| messages.display().to_string())?;
    let mut child = Command::new(sluice)
        .args(case.arguments(directory))
        .envs(case.environment())
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .spawn()
        .with_context(|| sluice.display().to_string())?;
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if started.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            let problem = format!("still running after {} s", limit.as_secs());
            return Ok(Ended::Badly(problem));
        }
        thread::sleep(Duration::from_millis(5));
    };
    if status.success() {
        return Ok(Ended::Well);
    }
    Ok(Ended::Badly(format!("{status}: {}", tail(&messages)?)))
}

fn tail(path: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.read_to_end(&mut bytes)?;
    let from = bytes.len().saturating_sub(MESSAGE_BYTES);
    Ok(String::from_utf8_lossy(&bytes[from..]).trim().to_owned())
}

/// One record a line. A file that is not there has no records.
fn read_events(path: &Path) -> Result<Vec<Value>> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let bytes = fs::read(path).with_context(|| path.display().to_string())?;
    let text = String::from_utf8_lossy(&bytes);
    let lines = text.lines().enumerate();
    lines
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(index, line)| {
            serde_json::from_str(line).with_context(|| format!("{}:{}", path.display(), index + 1))
        })
        .collect()
}

fn judge(checks: &[Check], events: &[Value]) -> Result<Outcome> {
    let mut misses = Vec::new();
    for check in checks {
        let mut got = 0;
        for event in events {
            let counts =
                filter::matches(event, &check.filter).map_err(|UnknownOperator(name)| {
                    anyhow::anyhow!("a check uses {name}, which is unknown here")
                })?;
            got += usize::from(counts);
        }
        if got != check.count {
            misses.push(Miss {
                expected: check.count,
                got,
                filter: check.filter.clone(),
            });
        }
    }
    Ok(match misses.is_empty() {
        true => Outcome::Passed,
        false => Outcome::Failed { checks: misses },
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(checks: &Value, events: &[Value]) -> Result<Outcome> {
        let checks: Vec<Check> = serde_json::from_value(checks.clone()).unwrap();
        judge(&checks, events)
    }

    #[test]
    fn a_check_wants_neither_fewer_nor_more_events() {
        let checks = json!([
            {"count": 1, "match": {"event_type": "alert"}},
            {"count": 0, "match": {"event_type": "drop"}},
        ]);
        let [alert, drop] = ["alert", "drop"].map(|kind| json!({"event_type": kind}));
        let outcome = |events: &[Value]| check(&checks, events).unwrap();
        assert!(matches!(
            outcome(std::slice::from_ref(&alert)),
            Outcome::Passed
        ));
        let Outcome::Failed { checks } = outcome(&[alert.clone(), alert.clone(), drop]) else {
            panic!("passed");
        };
        let counts: Vec<_> = checks
            .iter()
            .map(|miss| (miss.expected, miss.got))
            .collect();
        assert_eq!(counts, [(1, 2), (0, 1)]);
        assert!(matches!(outcome(&[]), Outcome::Failed { checks } if checks.len() == 1));
    }

    #[test]
    fn a_check_that_cannot_be_understood_is_not_passed() {
        let checks = json!([{"count": 0, "match": {"x.__new": 1}}]);
        assert!(check(&checks, &[json!({})]).is_err());
    }

    #[test]
    fn a_line_that_is_no_record_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("eve.json");
        fs::write(&path, "{}\n\n{\"a\":").unwrap();
        let error = read_events(&path).unwrap_err();
        assert!(error.to_string().ends_with("eve.json:3"), "{error}");
        assert!(
            read_events(&directory.path().join("none"))
                .unwrap()
                .is_empty()
        );
    }
}
