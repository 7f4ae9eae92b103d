//! The control socket: one JSON request a line, one JSON answer a line.

mod client;
mod server;

pub use client::ask;
pub use server::{Ask, serve};

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::supervisor::datasets::SetRequest;
use crate::supervisor::seat::Seat;

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// The instance's [`crate::metrics::snapshot::Snapshot`].
    // With braces, because serde lets a unit variant have any further field.
    Status {},
    /// Has that many workers; answered by a [`crate::supervisor::Scaled`].
    Scale {
        /// Without the backup.
        workers: u32,
    },
    /// Has a worker get no new flows; answered by the same.
    Drain {
        /// Which.
        worker: Seat,
    },
    /// Has it get new flows again; answered by the same.
    Resume {
        /// Which.
        worker: Seat,
    },
    /// Other rules and settings, as the instance's configuration file now has them: a
    /// [`crate::supervisor::reload::Reloaded`] when all workers use them.
    Reload {
        /// Rules that are wrong are skipped, as at a start, instead of keeping all as it is.
        #[serde(default)]
        lenient: bool,
    },
    /// Asks about the sets of rules, or changes them.
    Dataset {
        /// What is asked.
        request: SetRequest,
    },
    /// Another program goes on in the supervisor's place; answered before that happens.
    Upgrade {
        /// The program.
        program: PathBuf,
    },
}

impl Request {
    /// How long an answer may take.
    pub(crate) fn patience(&self) -> Duration {
        match self {
            Self::Status {} => Duration::from_secs(10),
            // A disk may be asked.
            Self::Dataset { .. } => Duration::from_secs(30),
            // The other program is asked first.
            Self::Upgrade { .. } => Duration::from_secs(30),
            // Compiling tens of thousands of rules takes seconds, and a busy machine has little
            // time for it.
            Self::Reload { .. } => Duration::from_secs(600),
            // Workers start, rules are installed, other workers list their flows; and others may
            // have asked before.
            Self::Scale { .. } | Self::Drain { .. } | Self::Resume { .. } => {
                Duration::from_secs(60)
            }
        }
    }
}

/// The answer to a request.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// What was asked for.
    Ok(serde_json::Value),
    /// Why not.
    Error(String),
}
