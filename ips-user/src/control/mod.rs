//! The control socket: one JSON request a line, one JSON answer a line.

mod client;
mod server;

pub use client::{ask, ask_within};
pub use server::{Ask, serve};

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// The instance's [`crate::metrics::snapshot::Snapshot`].
    // With braces, because serde lets a unit variant have any further field.
    Status {},
    /// Other rules and settings, as the instance's configuration file now has them: a
    /// [`crate::supervisor::reload::Reloaded`] when all workers use them.
    Reload {},
    /// Another program goes on in the supervisor's place; answered before that happens.
    Upgrade {
        /// The program.
        program: PathBuf,
    },
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
