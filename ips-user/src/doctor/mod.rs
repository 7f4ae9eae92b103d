//! Examines the machine: what Sluice needs, what it found, why it matters, how to mend it.
//!
//! What a kernel can do is tried, not read from its configuration; trials happen in a network
//! namespace of their own, so nothing that carries traffic is touched. (A trial may make the
//! kernel load a module, as starting Sluice would.) Everything else is read in the calling
//! thread's network namespace.

mod config_gz;
mod foreign;
mod instance;
mod interfaces;
mod kernel;
mod marks;
mod mend;
mod process;
mod queues;
mod render;
mod sysctl;
mod tools;
mod trial;

use serde::Serialize;

pub use instance::{Capabilities, Instance, Process};
use mend::Mend;
pub use render::render;

/// What shall be examined, and for which configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// Interfaces that traffic comes in by.
    pub interfaces: Vec<String>,
    /// Bits of `skb->mark` that the configuration claims.
    pub mark_mask: u32,
    /// Workers, without the backup.
    pub workers: u32,
    /// Number of the first queue. Workers and the backup are taken to have adjacent ones.
    pub first_queue: u16,
    /// The instance of this configuration, when it runs.
    pub instance: Option<Instance>,
    /// Mend what can be mended safely.
    pub fix: bool,
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should be.
    Ok,
    /// Works, but worse than it could, or not for everything.
    Warn,
    /// Sluice cannot work like this.
    Fail,
    /// Neither good nor bad, or not to be found out.
    Info,
}

/// One thing examined.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// What it is about, for example `kernel: ring buffer map`.
    pub name: String,
    /// How it ended.
    pub status: Status,
    /// What was found.
    pub found: String,
    /// Why it matters.
    pub matters: String,
    /// A command or an advice that mends it.
    pub mend: Option<String>,
    /// Whether `--fix` does that.
    pub fixable: bool,
    #[serde(skip)]
    fix: Option<Mend>,
}

impl Check {
    fn new(name: impl Into<String>, matters: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            status: Status::Info,
            found: String::new(),
            matters: matters.into(),
            mend: None,
            fixable: false,
            fix: None,
        }
    }

    fn is(mut self, status: Status, found: impl Into<String>) -> Self {
        self.status = status;
        self.found = found.into();
        self
    }

    /// An advice that `--fix` does not follow.
    fn advise(mut self, mend: impl Into<String>) -> Self {
        self.mend = Some(mend.into());
        self
    }

    /// Something that `--fix` does.
    fn fix(mut self, mend: Mend) -> Self {
        self.mend = Some(mend.command());
        self.fixable = true;
        self.fix = Some(mend);
        self
    }
}

/// Something that `--fix` has done, or tried to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Applied {
    /// The check that asked for it.
    pub check: String,
    /// What was changed.
    pub what: String,
    /// Its value before.
    pub old: String,
    /// Its value now.
    pub new: String,
    /// Why it could not be changed.
    pub error: Option<String>,
}

/// The whole examination.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The running kernel's release.
    pub kernel: String,
    /// Everything examined, after what was mended.
    pub checks: Vec<Check>,
    /// What `--fix` changed.
    pub applied: Vec<Applied>,
    /// The processes of the running instance.
    pub processes: Vec<Process>,
}

impl Report {
    /// Whether nothing that is needed is missing: the exit code's meaning.
    pub fn healthy(&self) -> bool {
        self.checks.iter().all(|check| check.status != Status::Fail)
    }

    /// Checks that ended in a given way.
    pub fn count(&self, status: Status) -> usize {
        self.checks
            .iter()
            .filter(|check| check.status == status)
            .count()
    }
}

/// Examines the machine and, when the context asks for it, mends what is safe to mend and
/// examines it again.
pub fn examine(context: &Context) -> Report {
    let mut checks = all(context);
    let mut applied = Vec::new();
    if context.fix {
        for check in &checks {
            if let Some(mend) = &check.fix {
                applied.push(mend.apply(&check.name));
            }
        }
        if !applied.is_empty() {
            checks = all(context);
        }
    }
    let mut processes = Vec::new();
    if let Some(instance) = &context.instance {
        let (seen, found) = instance::examine(instance);
        processes = seen;
        checks.extend(found);
    }
    Report {
        kernel: kernel::release(),
        checks,
        applied,
        processes,
    }
}

fn all(context: &Context) -> Vec<Check> {
    let mut checks = process::examine();
    checks.extend(kernel::examine());
    checks.extend(tools::examine());
    checks.extend(sysctl::examine(context));
    checks.extend(interfaces::examine(context));
    checks.extend(process::examine_cpus(context));
    let foreign = foreign::collect();
    checks.push(marks::examine(context, &foreign));
    checks.push(queues::examine(context, &foreign));
    checks
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn context() -> Context {
        Context {
            interfaces: vec!["lo".to_owned(), "sluice-none".to_owned()],
            mark_mask: 0x00ff_0000,
            workers: 2,
            first_queue: 100,
            instance: None,
            fix: false,
        }
    }

    #[test]
    fn an_examination_ends_and_explains_every_finding() {
        let report = examine(&context());
        assert!(report.applied.is_empty());
        for check in &report.checks {
            assert!(!check.name.is_empty());
            assert!(!check.found.is_empty(), "{}", check.name);
            assert!(!check.matters.is_empty(), "{}", check.name);
            if matches!(check.status, Status::Fail | Status::Warn) {
                assert!(check.mend.is_some(), "{}: {}", check.name, check.found);
            }
            assert_eq!(check.fixable, check.fix.is_some());
        }
        // An interface that is configured and does not exist.
        assert!(!report.healthy());
    }

    #[test]
    fn the_json_holds_what_the_report_holds() {
        let report = examine(&Context {
            interfaces: Vec::new(),
            ..context()
        });
        let json: serde_json::Value = serde_json::to_value(&report).unwrap();
        let checks = json["checks"].as_array().unwrap();
        assert_eq!(checks.len(), report.checks.len());
        for key in ["name", "status", "found", "matters", "mend", "fixable"] {
            assert!(checks[0].get(key).is_some(), "{key}");
        }
    }
}
