//! A command of the operator's that runs while faults go on: `sluice reload`, `scale`, …

use std::time::{Duration, Instant};

use anyhow::Result;
use sluice_tests::Process;

use super::plan::Kind;
use crate::stage::Stage;

/// How long one may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A command that was given.
pub(super) struct Order {
    /// The fault it belongs to.
    pub(super) kind: Kind,
    /// As it was given.
    pub(super) shown: String,
    process: Process,
    since: Instant,
    refusal: bool,
    /// Its supervisor was killed meanwhile: any end is right.
    pub(super) interrupted: bool,
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
        let mut command = stage.command(subcommand);
        command.args(arguments);
        Ok(Self {
            kind,
            shown: [&["sluice".to_owned(), subcommand.to_owned()], arguments]
                .concat()
                .join(" "),
            process: Process::spawn(&mut command)?,
            since: Instant::now(),
            refusal,
            interrupted: false,
        })
    }

    /// How it ended; `None` while it runs.
    pub(super) fn ended(&mut self) -> Result<Option<Ended>> {
        let took = self.since.elapsed();
        if self.process.is_running() {
            let late = format!("has not ended after {PATIENCE:?}");
            return Ok((took > PATIENCE).then_some(Ended::Wrong(late)));
        }
        let status = self.process.wait(Duration::from_secs(1))?;
        let log = self.process.log();
        let last = log.lines().last().unwrap_or("nothing");
        Ok(Some(match (status.success(), self.refusal) {
            _ if self.interrupted => Ended::Right(took),
            (true, false) => Ended::Right(took),
            (false, true) if status.code().is_some() && !log.trim().is_empty() => {
                Ended::Right(took)
            }
            (true, true) => Ended::Wrong(format!("was not refused; it said {last:?}")),
            (false, _) => Ended::Wrong(format!("ended with {status}; it said {last:?}")),
        }))
    }
}
