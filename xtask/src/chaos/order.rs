//! A command of the operator's that runs while faults go on: `sluice reload`, `scale`, … One
//! whose supervisor is killed is given up: what becomes of it, nobody knows.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use sluice_tests::Process;

use super::plan::Kind;
use crate::stage::Stage;

/// How long one may take: an upgrade waits until every worker is relieved.
const PATIENCE: Duration = Duration::from_secs(70);
/// How often one is given again that could not be obeyed at this moment, and the time between.
const ATTEMPTS: u32 = 50;
const PAUSE: Duration = Duration::from_millis(200);
/// What is said to one that may be given again.
const NOT_NOW: [&str; 4] = ["try again", "ask again", "under way", "going on"];

/// A command that was given.
#[derive(Debug)]
pub(super) struct Order {
    /// The fault it belongs to.
    pub(super) kind: Kind,
    /// As it was given.
    pub(super) shown: String,
    given: Vec<String>,
    process: Process,
    since: Instant,
    attempts: u32,
    /// When it was refused for the moment.
    refused: Option<Instant>,
    refusal: bool,
}

/// How it ended.
pub(super) enum Ended {
    /// As it should, after so long.
    Right(Duration),
    /// Not as it should.
    Wrong(String),
}

impl Order {
    /// Gives `sluice SUBCOMMAND -c FILE ARGUMENTS`. With `refusal` the right end is an error.
    pub(super) fn give(
        stage: &Stage,
        kind: Kind,
        subcommand: &str,
        arguments: &[String],
        refusal: bool,
    ) -> Result<Self> {
        let given = [&[subcommand.to_owned()], arguments].concat();
        Ok(Self {
            kind,
            shown: format!("sluice {}", given.join(" ")),
            process: start(stage, &given)?,
            given,
            since: Instant::now(),
            attempts: 1,
            refused: None,
            refusal,
        })
    }

    /// How it ended; `None` while it runs. One that could not be obeyed at this moment, because
    /// a seat was just being filled, is given again.
    pub(super) fn ended(&mut self, stage: &Stage) -> Result<Option<Ended>> {
        let took = self.since.elapsed();
        if let Some(refused) = self.refused {
            if refused.elapsed() > PAUSE {
                self.process = start(stage, &self.given)?;
                self.attempts += 1;
                self.refused = None;
            }
            return Ok(None);
        }
        if self.process.is_running() {
            let late = format!("has not ended after {PATIENCE:?}");
            return Ok((took > PATIENCE).then_some(Ended::Wrong(late)));
        }
        let status = self.process.wait(Duration::from_secs(1))?;
        let log = self.process.log();
        if !status.success()
            && NOT_NOW.iter().any(|words| log.contains(words))
            && self.attempts < ATTEMPTS
        {
            self.refused = Some(Instant::now());
            return Ok(None);
        }
        let last = log.lines().last().unwrap_or("nothing");
        Ok(Some(match (status.success(), self.refusal) {
            (true, false) => Ended::Right(took),
            (false, true) if status.code().is_some() && !log.trim().is_empty() => {
                Ended::Right(took)
            }
            (true, true) => Ended::Wrong(format!("was not refused; it said {last:?}")),
            (false, _) => Ended::Wrong(format!("ended with {status}; it said {last:?}")),
        }))
    }
}

fn start(stage: &Stage, given: &[String]) -> Result<Process> {
    let (subcommand, arguments) = given.split_first().context("a subcommand")?;
    Process::spawn(stage.command(subcommand).args(arguments))
}
