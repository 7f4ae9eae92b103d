//! Running `nft`: for the instance's own table ([`super::nft_table`]), and to look into the
//! tables of iptables.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::command::{CommandFailure, find_program, run};
use super::nft_table::{Present, change, table_name};
use super::plan::{Extent, Plan};

/// The `nft` program.
pub(super) fn program() -> Option<PathBuf> {
    find_program("nft")
}

/// Has the instance's table say what `extent` of the plan says, in one transaction.
pub(super) fn install(nft: &Path, plan: &Plan, extent: Extent) -> Result<(), CommandFailure> {
    let present = present(nft, &plan.instance)?;
    match change(plan, extent, present.as_ref()) {
        Some(text) => run(nft, &["-f", "-"], &text).map(drop),
        None => Ok(()),
    }
}

/// The instance's table; `None` when it does not exist.
pub(super) fn present(nft: &Path, instance: &str) -> Result<Option<Present>, CommandFailure> {
    Ok(list(nft, "inet", &table_name(instance))?.map(|listing| Present::parse(&listing)))
}

/// A table as JSON; `None` when it does not exist.
fn list(nft: &Path, family: &str, table: &str) -> Result<Option<Value>, CommandFailure> {
    let text = match run(nft, &["-j", "list", "table", family, table], "") {
        Ok(text) => text,
        Err(failure) if is_absent(&failure) => return Ok(None),
        Err(failure) => return Err(failure),
    };
    let listing = serde_json::from_str(&text).map_err(|error| CommandFailure {
        command: format!("{} -j list table {family} {table}", nft.display()),
        status: "unreadable JSON".to_owned(),
        stderr: error.to_string(),
        input: String::new(),
        late: false,
    })?;
    Ok(Some(listing))
}

/// Whether the kernel can run the rule: the transaction is built and checked, never committed.
///
/// Not in a base chain: a kernel that gives up a hook, also that of a transaction that fails,
/// drops everything that is queued in the network namespace.
///
/// # Errors
/// What `nft` said.
pub fn probe_queue_expression(nft: &Path) -> Result<(), CommandFailure> {
    let text = "table inet sluice-probe {\n\
         \tchain steer {\n\
         \t\tcounter queue flags bypass to 1\n\
         \t}\n\
         }\n";
    run(nft, &["-c", "-f", "-"], text).map(drop)
}

/// Why `nft` refused, in words: the messages of nft name a line, not a cause.
pub(super) fn explain(failure: &CommandFailure) -> String {
    let text = &failure.stderr;
    let cause = if text.contains("No such file or directory") {
        "the kernel has no nft queue expression (CONFIG_NFT_QUEUE)"
    } else if text.contains("syntax error") {
        "nft does not know what Sluice writes: it is older than 1.0"
    } else {
        "nft refused the table"
    };
    // Without the position in a file that nobody can look at.
    let message = failure.summary();
    let message = message
        .split_once("Error: ")
        .map_or(message, |(_, rest)| rest);
    format!("{cause}: {message}")
}

/// Deletes the instance's table; its absence is not an error.
pub(super) fn remove(nft: &Path, instance: &str) -> Result<(), CommandFailure> {
    let table = table_name(instance);
    run(
        nft,
        &["-f", "-"],
        &format!("add table inet {table}\ndelete table inet {table}\n"),
    )
    .map(drop)
}

/// No such table, or a kernel without nf_tables: nothing of ours can be there.
fn is_absent(failure: &CommandFailure) -> bool {
    [
        "No such file or directory",
        "not supported",
        "Protocol not supported",
    ]
    .iter()
    .any(|text| failure.stderr.contains(text))
}

/// What one of the iptables tables holds in nf_tables' eyes: the iptables tools cannot tell a
/// missing table or base chain from an empty one.
pub(super) struct TableContents {
    /// Chains and whether each is a base chain with policy accept.
    pub(super) chains: Vec<(String, bool)>,
    /// Chain of each rule.
    pub(super) rules: Vec<String>,
    /// Sets, maps, flow tables and the like.
    pub(super) others: usize,
}

/// Lists `table` of `family`; `None` when it does not exist.
pub(super) fn contents(
    nft: &Path,
    family: &str,
    table: &str,
) -> Result<Option<TableContents>, CommandFailure> {
    let Some(listing) = list(nft, family, table)? else {
        return Ok(None);
    };
    let mut found = TableContents {
        chains: Vec::new(),
        rules: Vec::new(),
        others: 0,
    };
    for entry in listing["nftables"].as_array().into_iter().flatten() {
        let text = |object: &Value, key: &str| object[key].as_str().unwrap_or_default().to_owned();
        if let Some(chain) = entry.get("chain") {
            found
                .chains
                .push((text(chain, "name"), text(chain, "policy") == "accept"));
        } else if let Some(rule) = entry.get("rule") {
            found.rules.push(text(rule, "chain"));
        } else if entry.get("metainfo").is_none() && entry.get("table").is_none() {
            found.others += 1;
        }
    }
    Ok(Some(found))
}
