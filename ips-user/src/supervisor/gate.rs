//! The gate of an instance that is not running: what a dead program lets pass.

use anyhow::Context;

use super::instance::Instance;
use super::steering;
use crate::config::Config;
use crate::netfilter::{self, Gate};

/// Closes it, beside the queue rules of a former run whose workers may go on inspecting.
/// Whether there is one: only with `fail = "closed"`.
///
/// # Errors
/// When the instance runs, or the rules cannot be changed.
pub fn close(config: &Config) -> anyhow::Result<bool> {
    let _instance = Instance::claim(&config.control.directory, &config.name)?;
    close_claimed(config)
}

/// The same for whoever holds the instance already.
pub(super) fn close_claimed(config: &Config) -> anyhow::Result<bool> {
    let plan = steering::plan(config)?;
    let closed = netfilter::close_gate_beside(&plan).context("closing the gate")?;
    for warning in closed.iter().flat_map(|closed| &closed.warnings) {
        log::warn!("netfilter: {warning}");
    }
    Ok(closed.is_some())
}

/// Opens it: removes every netfilter rule of the instance.
///
/// # Errors
/// When the instance runs, or the rules cannot be removed.
pub fn open(config: &Config) -> anyhow::Result<()> {
    let instance = Instance::claim(&config.control.directory, &config.name)?;
    let left = instance.read()?.alive().len();
    if left > 0 {
        log::warn!("{left} processes of a former run go on, but no packet reaches them any more");
    }
    netfilter::open_gate(&config.name).context("opening the gate")
}

/// The gate as it is now, also of a running instance; `None` when it is open.
///
/// # Errors
/// When the rules cannot be listed.
pub fn status(config: &Config) -> anyhow::Result<Option<Gate>> {
    netfilter::gate(&config.name).context("looking at the gate")
}
