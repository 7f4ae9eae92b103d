//! Puts steered packets into the workers' queues, and takes away exactly what it put there.
//!
//! The eBPF program has written a decision into `skb->mark`; here that mark becomes a queue
//! number, for IPv4 and IPv6. Three backends, best first: [`Backend::Nft`] (one map rule in an
//! own table), [`Backend::IptablesNft`] where the kernel has no `nft_queue`, and
//! [`Backend::IptablesLegacy`] as the last resort. Which one works is found out by trying.
//!
//! Everything runs in the calling thread's network namespace.

mod chains;
mod command;
mod iptables;
mod nft;
mod plan;

use std::fmt;
use std::path::Path;

use thiserror::Error;

pub use command::CommandFailure;
pub(crate) use command::{find_program, run};
use iptables::{Family, TABLES, Version};
pub use nft::{probe_queue_expression, ruleset, table_name};
use plan::check_instance;
pub use plan::{Backend, DEFAULT_PRIORITY, Fail, Hook, Plan, PlanError};

/// Why steering could not be installed or removed.
#[derive(Debug, Error)]
pub enum NetfilterError {
    /// The plan makes no sense.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Neither tool is on the machine.
    #[error(
        "neither nft nor iptables is installed: install the package nftables (or iptables), for example `apt-get install nftables iptables`"
    )]
    NoTool,
    /// The caller may not change the firewall.
    #[error("changing netfilter rules needs root or CAP_NET_ADMIN: {0}")]
    Privilege(CommandFailure),
    /// A command failed.
    #[error("{0}")]
    Command(CommandFailure),
    /// No backend works on this machine.
    #[error("no way to queue packets works here:\n{}", attempts.join("\n"))]
    NoBackend {
        /// What was tried and what came of it.
        attempts: Vec<String>,
    },
}

/// What has been installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// Name of the instance: what [`remove`] wants.
    pub instance: String,
    /// By which backend.
    pub backend: Backend,
    /// Why this one: for the log.
    pub reason: String,
    /// Where the rules are, for example `table inet sluice` or `table security, chain
    /// SLUICE-sluice`.
    pub place: String,
    /// The priority that the rules really run at.
    pub priority: i32,
    /// What the administrator should know: packets that will not be inspected, and so on.
    pub warnings: Vec<String>,
}

impl fmt::Display for Installed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} ({}), priority {}: {}",
            self.place, self.backend, self.priority, self.reason
        )
    }
}

/// Something of an instance that is in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// Which backend it belongs to.
    pub backend: Backend,
    /// nft's name of the family: `inet`, `ip` or `ip6`.
    pub family: &'static str,
    /// The table.
    pub table: String,
    /// What is there.
    pub what: String,
}

impl fmt::Display for Leftover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} in table {} {} ({})",
            self.what, self.family, self.table, self.backend
        )
    }
}

/// Installs the plan. What an unclean stop of the same instance left is replaced: within a
/// table and a family in one transaction, and what is elsewhere is removed only afterwards.
///
/// # Errors
/// When the plan is unsound, no tool is installed, privilege is missing or no backend works;
/// then nothing of the instance has been changed by this call except rules of its own that a
/// failed backend had begun, which are taken back.
pub fn install(plan: &Plan) -> Result<Installed, NetfilterError> {
    plan.check()?;
    let wanted = |backend| plan.backend.is_none_or(|only| only == backend);
    let mut attempts = Vec::new();
    let mut any_tool = false;

    if wanted(Backend::Nft)
        && let Some(nft) = nft::program()
    {
        any_tool = true;
        match nft::install(&nft, plan) {
            Ok(()) => {
                let mut installed = Installed {
                    instance: plan.instance.clone(),
                    backend: Backend::Nft,
                    reason: "the kernel has the nft queue expression".to_owned(),
                    place: format!("table inet {}", table_name(&plan.instance)),
                    priority: plan.priority,
                    warnings: Vec::new(),
                };
                tidy_up((Backend::Nft, ""), &mut installed);
                return Ok(installed);
            }
            Err(failure) if failure.lacks_privilege() => {
                return Err(NetfilterError::Privilege(failure));
            }
            Err(failure) => attempts.push(format!("nft: {}", nft::explain(&failure))),
        }
    }

    for backend in [Backend::IptablesNft, Backend::IptablesLegacy] {
        if !wanted(backend) {
            continue;
        }
        let Some(v4) = Family::find(backend, Version::V4) else {
            attempts.push(format!("{backend}: not installed"));
            continue;
        };
        any_tool = true;
        for &table in iptables::tables(plan.hook, plan.priority) {
            match install_iptables(plan, &v4, table) {
                Ok(warnings) => {
                    let mut installed =
                        installed_iptables(plan, backend, table, &attempts, warnings);
                    tidy_up((backend, table), &mut installed);
                    return Ok(installed);
                }
                Err(failure) if failure.lacks_privilege() => {
                    return Err(NetfilterError::Privilege(failure));
                }
                Err(failure) => attempts.push(format!("{backend}, table {table}: {failure}")),
            }
        }
    }
    if any_tool {
        Err(NetfilterError::NoBackend { attempts })
    } else {
        Err(NetfilterError::NoTool)
    }
}

/// Removes what an earlier start of the instance left elsewhere. The new rules stand: a failure
/// costs packets a second inspection and is a warning.
fn tidy_up(keep: (Backend, &str), installed: &mut Installed) {
    if let Err(error) = remove_all(&installed.instance, Some(keep)) {
        installed.warnings.push(format!(
            "older rules of this instance could not be removed: {error}"
        ));
    }
}

fn installed_iptables(
    plan: &Plan,
    backend: Backend,
    table: &str,
    attempts: &[String],
    mut warnings: Vec<String>,
) -> Installed {
    let priority = if table == "security" { 150 } else { -150 };
    let why_table = match table {
        "security" => "the security table runs after the firewall's filter table",
        _ if priority > 0 || plan.priority <= 0 || plan.hook == Hook::Prerouting => {
            "the mangle table has this hook before filtering"
        }
        _ => {
            warnings.push(
                "the security table cannot be used: packets are inspected before the firewall filters them"
                    .to_owned(),
            );
            "the security table cannot be used"
        }
    };
    let why_backend = if attempts.is_empty() {
        format!("{backend} was asked for")
    } else {
        attempts.join("; ")
    };
    Installed {
        instance: plan.instance.clone(),
        backend,
        reason: format!("{why_backend}; {why_table}"),
        place: format!(
            "table {table}, chain {}",
            chains::chain_name(&plan.instance)
        ),
        priority,
        warnings,
    }
}

/// Both families into one table, or neither; returns warnings.
fn install_iptables(plan: &Plan, v4: &Family, table: &str) -> Result<Vec<String>, CommandFailure> {
    v4.install(plan, table)?;
    let mut warnings = v4.warnings(plan, table);
    if !Path::new("/proc/thread-self/net/if_inet6").exists() {
        warnings.push("the kernel has no IPv6: only IPv4 is queued".to_owned());
        return Ok(warnings);
    }
    let v6 = Family::find(v4.backend, Version::V6).ok_or_else(|| CommandFailure {
        command: "ip6tables-restore".to_owned(),
        status: "not run".to_owned(),
        stderr: format!("ip6tables of {} is not installed", v4.backend),
        input: String::new(),
    });
    let installed = v6.and_then(|v6| {
        v6.install(plan, table)?;
        Ok(v6)
    });
    match installed {
        Ok(v6) => {
            warnings.extend(v6.warnings(plan, table));
            Ok(warnings)
        }
        Err(failure) => {
            // Half of the addresses uninspected would be worse than a refusal.
            v4.remove(table, &plan.instance)?;
            Err(failure)
        }
    }
}

/// Removes everything that the instance has in this network namespace, by whichever backend,
/// and nothing else. That there is nothing is not an error.
///
/// # Errors
/// When the name is unsound or a command failed; the rest has been attempted.
pub fn remove(instance: &str) -> Result<(), NetfilterError> {
    check_instance(instance)?;
    remove_all(instance, None)
}

/// Everything of the instance but what is in `keep`.
fn remove_all(instance: &str, keep: Option<(Backend, &str)>) -> Result<(), NetfilterError> {
    let mut first_failure = None;
    let mut note = |result: Result<(), CommandFailure>| {
        if let Err(failure) = result {
            first_failure.get_or_insert(failure);
        }
    };
    if let Some(nft) = nft::program()
        && keep.is_none_or(|(backend, _)| backend != Backend::Nft)
    {
        note(nft::is_present(&nft, instance).and_then(|present| {
            if present {
                nft::remove(&nft, instance)
            } else {
                Ok(())
            }
        }));
    }
    for (family, table) in iptables_places() {
        if keep == Some((family.backend, table)) {
            continue;
        }
        note(family.remove(table, instance).map(drop));
    }
    match first_failure {
        None => Ok(()),
        Some(failure) if failure.lacks_privilege() => Err(NetfilterError::Privilege(failure)),
        Some(failure) => Err(NetfilterError::Command(failure)),
    }
}

/// Every iptables table where rules of ours may be.
fn iptables_places() -> impl Iterator<Item = (Family, &'static str)> {
    [Backend::IptablesNft, Backend::IptablesLegacy]
        .into_iter()
        .flat_map(|backend| [Version::V4, Version::V6].map(|version| (backend, version)))
        .filter_map(|(backend, version)| Family::find(backend, version))
        .flat_map(|family| TABLES.map(|table| (family.clone(), table)))
}

/// What the instance has in this network namespace: after an unclean stop, or to see whether
/// somebody has flushed the rules away.
///
/// # Errors
/// When the name is unsound or the rules cannot be listed.
pub fn leftovers(instance: &str) -> Result<Vec<Leftover>, NetfilterError> {
    check_instance(instance)?;
    let mut found = Vec::new();
    if let Some(nft) = nft::program()
        && nft::is_present(&nft, instance)?
    {
        found.push(Leftover {
            backend: Backend::Nft,
            family: "inet",
            table: table_name(instance),
            what: "the whole table".to_owned(),
        });
    }
    for (family, table) in iptables_places() {
        let present = family.present(table, instance)?;
        if !present.is_empty() {
            found.push(Leftover {
                backend: family.backend,
                family: family.version.nft_family(),
                table: table.to_owned(),
                what: present.describe(),
            });
        }
    }
    Ok(found)
}
