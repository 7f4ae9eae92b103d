//! Puts steered packets into the workers' queues, and takes away exactly what it put there.
//!
//! The eBPF program has written a decision into `skb->mark`; here that mark becomes a queue
//! number, for IPv4 and IPv6. Three backends, best first: [`Backend::Nft`] (one map in an own
//! table), [`Backend::IptablesNft`] where the kernel has no `nft_queue`, and
//! [`Backend::IptablesLegacy`] as the last resort. Which one works is found out by trying.
//!
//! With [`Fail::Closed`] there is a *gate* as well: what came in by a steered interface and
//! carries no decision is dropped, so that nothing passes uninspected when the programs are
//! gone, not there yet, or could not read a packet. [`close_gate`] leaves the gate alone.
//!
//! Rules that exist are changed in place, in one transaction for each family, and only where
//! they differ: the base chain stays, because its removal makes the kernel drop what is queued
//! anywhere in the network namespace (`nfqnl_nf_hook_drop`). Only another hook, priority, table
//! or backend needs another base chain.
//!
//! Everything runs in the calling thread's network namespace. The tools may wait, for a lock that
//! somebody else holds or for the kernel; one that takes too long is killed, and with it ends the
//! whole attempt ([`NetfilterError::was_given_up`]).

mod chains;
mod change;
mod command;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod iptables;
mod nft;
mod nft_table;
mod plan;
mod saved;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use thiserror::Error;

pub use command::CommandFailure;
pub(crate) use command::{find_program, run};
use iptables::{Family, TABLES, Version};
pub use nft::probe_queue_expression;
pub use nft_table::table_name;
pub use plan::{Backend, DEFAULT_PRIORITY, Fail, Hook, Plan, PlanError};
use plan::{Extent, check_instance};
pub use watch::RuleWatch;

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

impl NetfilterError {
    /// Whether a program has waited in vain, for a lock for example: then the same may work
    /// later.
    pub fn was_given_up(&self) -> bool {
        match self {
            Self::Privilege(failure) | Self::Command(failure) => failure.was_given_up(),
            Self::Plan(_) | Self::NoTool | Self::NoBackend { .. } => false,
        }
    }
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
    /// The table's name.
    table: String,
    /// The rules of each family as the kernel listed them afterwards.
    listing: Vec<Vec<String>>,
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

/// Has the kernel do what the plan says. Rules of the instance that are there, from an unclean
/// stop or an earlier plan, are changed in place where they differ; what is in another table or
/// of another backend is removed only afterwards.
///
/// # Errors
/// When the plan is unsound, no tool is installed, privilege is missing or no backend works;
/// then nothing of the instance has been changed by this call except rules of its own that a
/// failed backend had begun, which are taken back.
pub fn install(plan: &Plan) -> Result<Installed, NetfilterError> {
    plan.check()?;
    put(plan, Extent::Everything)
}

/// Has nothing pass that comes in by a steered interface to the plan's hook: the gate alone, no
/// queues. `None` when the plan has no gate ([`Plan::has_gate`]): then nothing is done.
///
/// # Errors
/// As those of [`install`].
pub fn close_gate(plan: &Plan) -> Result<Option<Installed>, NetfilterError> {
    plan.check_gate()?;
    let closed = plan.has_gate().then(|| put(plan, Extent::GateAlone));
    closed.transpose()
}

/// The same for a start: if a former run has left queue rules, its workers may go on
/// inspecting. Their rules stay, closed for packets that nobody listens to.
///
/// # Errors
/// As those of [`install`].
pub fn close_gate_beside(plan: &Plan) -> Result<Option<Installed>, NetfilterError> {
    plan.check_gate()?;
    let closed = plan.has_gate().then(|| put(plan, Extent::GateBeside));
    closed.transpose()
}

/// Lets everything pass: removes all that the instance has here.
///
/// # Errors
/// As those of [`remove`].
pub fn open_gate(instance: &str) -> Result<(), NetfilterError> {
    remove(instance)
}

fn put(plan: &Plan, extent: Extent) -> Result<Installed, NetfilterError> {
    let wanted = |backend| plan.backend.is_none_or(|only| only == backend);
    let mut attempts = Vec::new();
    let mut any_tool = false;

    if wanted(Backend::Nft)
        && let Some(nft) = nft::program()
    {
        any_tool = true;
        // A gate needs no queue expression, but shall be where the queues will be.
        match probe_queue_expression(&nft).and_then(|()| nft::install(&nft, plan, extent)) {
            Ok(()) => {
                let installed = Installed {
                    instance: plan.instance.clone(),
                    backend: Backend::Nft,
                    reason: "the kernel has the nft queue expression".to_owned(),
                    place: format!("table inet {}", table_name(&plan.instance)),
                    priority: plan.priority,
                    warnings: Vec::new(),
                    table: table_name(&plan.instance),
                    listing: Vec::new(),
                };
                return Ok(completed(installed, plan, extent));
            }
            Err(failure) if failure.lacks_privilege() => {
                return Err(NetfilterError::Privilege(failure));
            }
            // That it did not answer does not say that it cannot.
            Err(failure) if failure.was_given_up() => return Err(failure.into()),
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
            match install_iptables(plan, extent, &v4, table) {
                Ok(warnings) => {
                    let installed = installed_iptables(plan, backend, table, &attempts, warnings);
                    return Ok(completed(installed, plan, extent));
                }
                Err(failure) if failure.lacks_privilege() => {
                    return Err(NetfilterError::Privilege(failure));
                }
                Err(failure) if failure.was_given_up() => return Err(failure.into()),
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

/// Once the rules stand: removes older ones, and notes what is there now.
fn completed(mut installed: Installed, plan: &Plan, extent: Extent) -> Installed {
    if extent != Extent::GateBeside {
        let table = installed.table.clone();
        tidy_up((installed.backend, &table), &mut installed);
    }
    warn_of_the_gate(plan, &mut installed.warnings);
    match listing(&installed) {
        Ok(listing) => installed.listing = listing,
        Err(error) => installed
            .warnings
            .push(format!("the rules could not be listed: {error}")),
    }
    installed
}

/// What a gate does not cover.
fn warn_of_the_gate(plan: &Plan, warnings: &mut Vec<String>) {
    if plan.fail != Fail::Closed {
        return;
    }
    if plan.hook == Hook::Output {
        warnings.push(
            "the output hook knows no input interface: packets without a decision pass though fail is closed"
                .to_owned(),
        );
        return;
    }
    for interface in &plan.interfaces {
        // To netfilter, what comes by a port has come by its bridge.
        if Path::new("/sys/class/net")
            .join(interface)
            .join("brport")
            .exists()
        {
            warnings.push(format!(
                "{interface} is a port of a bridge: packets without a decision that come by it pass though fail is closed"
            ));
        }
    }
}

/// The rules of each family, without counters: one process each.
fn listing(installed: &Installed) -> Result<Vec<Vec<String>>, CommandFailure> {
    let instance = &installed.instance;
    if installed.backend == Backend::Nft {
        let Some(nft) = nft::program() else {
            return Ok(Vec::new());
        };
        let present = nft::present(&nft, instance)?;
        return Ok(present.iter().map(nft_table::Present::listing).collect());
    }
    let listed = iptables_families(installed)
        .map(|family| Ok(family.listed(&installed.table, instance)?.listing()));
    listed.collect()
}

/// The families that rules were installed for.
fn iptables_families(installed: &Installed) -> impl Iterator<Item = Family> {
    let has_v6 = has_ipv6();
    [Version::V4, Version::V6]
        .into_iter()
        .filter(move |version| has_v6 || *version == Version::V4)
        .filter_map(|version| Family::find(installed.backend, version))
}

fn has_ipv6() -> bool {
    Path::new("/proc/thread-self/net/if_inet6").exists()
}

/// Whether the rules are still as they were when they were installed: somebody may have flushed
/// or changed them.
///
/// # Errors
/// When they cannot be listed.
pub fn is_intact(installed: &Installed) -> Result<bool, NetfilterError> {
    Ok(listing(installed)? == installed.listing)
}

/// Packets that matched each queue's rule since it was installed, of both families: those that
/// were queued, and those that the kernel dropped or let pass because the queue was full or
/// without a listener.
///
/// An in-place change keeps the figures of rules that stay as they are. A rule that changes
/// itself (by the fail policy, or by moving to a sub-chain) hands its figure on, except for the
/// packets of that moment, and except with ip6tables-nft, which sets no counters (1.8.9): a
/// caller must expect a figure to fall.
///
/// # Errors
/// When the rules cannot be listed.
pub fn queue_counters(installed: &Installed) -> Result<BTreeMap<u16, u64>, NetfilterError> {
    if installed.backend == Backend::Nft {
        let nft = nft::program().ok_or(NetfilterError::NoTool)?;
        let present = nft::present(&nft, &installed.instance)?;
        return Ok(present.map(|it| it.queue_packets()).unwrap_or_default());
    }
    let mut sums: BTreeMap<u16, u64> = BTreeMap::new();
    for family in iptables_families(installed) {
        let present = family.listed(&installed.table, &installed.instance)?;
        for rule in &present.rules {
            if let Some(queue) = rule.queue() {
                let sum = sums.entry(queue).or_default();
                *sum = sum.saturating_add(rule.counted.packets);
            }
        }
    }
    Ok(sums)
}

/// A closed gate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gate {
    /// What comes in by these is dropped when it carries no decision.
    pub interfaces: BTreeSet<String>,
    /// Packets dropped so far.
    pub dropped: u64,
    /// Whether packets with a decision are queued; without that they are dropped as well.
    pub queues: bool,
}

/// The instance's gate; `None` when it is open.
///
/// # Errors
/// When the name is unsound or the rules cannot be listed.
pub fn gate(instance: &str) -> Result<Option<Gate>, NetfilterError> {
    check_instance(instance)?;
    let mut found: Option<Gate> = None;
    if let Some(nft) = nft::program()
        && let Some(present) = nft::present(&nft, instance)?
        && let Some((interfaces, dropped)) = present.gate()
    {
        found = Some(Gate {
            interfaces,
            dropped,
            queues: present.has_queues(),
        });
    }
    for (family, table) in iptables_places() {
        let present = family.present(table, instance)?;
        if let Some(watched) = present.gate(instance) {
            let gate = found.get_or_insert_default();
            gate.queues |= present.has_queues();
            for (interface, dropped) in watched {
                gate.interfaces.insert(interface);
                gate.dropped = gate.dropped.saturating_add(dropped);
            }
        }
    }
    Ok(found)
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
        table: table.to_owned(),
        listing: Vec::new(),
    }
}

/// Both families into one table, or neither; returns warnings.
fn install_iptables(
    plan: &Plan,
    extent: Extent,
    v4: &Family,
    table: &str,
) -> Result<Vec<String>, CommandFailure> {
    let is_new = v4.install(plan, extent, table)?;
    let mut warnings = v4.warnings(plan, table);
    if !has_ipv6() {
        warnings.push("the kernel has no IPv6: only IPv4 is queued".to_owned());
        return Ok(warnings);
    }
    let v6 = Family::find(v4.backend, Version::V6).ok_or_else(|| CommandFailure {
        command: "ip6tables-restore".to_owned(),
        status: "not run".to_owned(),
        stderr: format!("ip6tables of {} is not installed", v4.backend),
        input: String::new(),
        late: false,
    });
    let installed = v6.and_then(|v6| {
        v6.install(plan, extent, table)?;
        Ok(v6)
    });
    match installed {
        Ok(v6) => {
            warnings.extend(v6.warnings(plan, table));
            Ok(warnings)
        }
        Err(failure) => {
            // Half of the addresses uninspected would be worse than a refusal. Rules that were
            // there before are better than none.
            if is_new {
                v4.remove(table, &plan.instance)?;
            }
            Err(failure)
        }
    }
}

/// Removes everything that the instance has in this network namespace, by whichever backend,
/// and nothing else. That there is nothing is not an error.
///
/// # Errors
/// When the name is unsound or a command failed; the rest has been attempted, unless the command
/// was given up.
pub fn remove(instance: &str) -> Result<(), NetfilterError> {
    check_instance(instance)?;
    remove_all(instance, None)
}

/// Everything of the instance but what is in `keep`.
fn remove_all(instance: &str, keep: Option<(Backend, &str)>) -> Result<(), NetfilterError> {
    let mut first_failure: Option<CommandFailure> = None;
    let mut note = |result: Result<(), CommandFailure>| {
        let Err(failure) = result else { return true };
        // Whoever has waited in vain once would do so for the rest as well.
        let goes_on = !failure.was_given_up();
        first_failure.get_or_insert(failure);
        goes_on
    };
    let nft = nft::program().filter(|_| keep.is_none_or(|(backend, _)| backend != Backend::Nft));
    let goes_on = nft.is_none_or(|nft| {
        note(
            nft::present(&nft, instance).and_then(|present| match present {
                Some(_) => nft::remove(&nft, instance),
                None => Ok(()),
            }),
        )
    });
    if goes_on {
        for (family, table) in iptables_places() {
            if keep != Some((family.backend, table))
                && !note(family.remove(table, instance).map(drop))
            {
                break;
            }
        }
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
        && nft::present(&nft, instance)?.is_some()
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
