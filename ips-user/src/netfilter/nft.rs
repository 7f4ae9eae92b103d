//! The nftables backend: one table, one base chain, one rule.
//!
//! The rule looks the masked mark up in a map of queue numbers. A mark that is not in the map
//! ends the rule, and the chain's policy accepts: released and unsteered packets cost one
//! failed hash lookup. Syntax since nft 1.0; `queue` from a register since Linux 4.10.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::command::{CommandFailure, find_program, run};
use super::plan::{Fail, Plan};

/// Name of an instance's table. The prefix keeps an instance called `filter` away from
/// somebody's `inet filter`.
pub fn table_name(instance: &str) -> String {
    if instance == "sluice" {
        instance.to_owned()
    } else {
        format!("sluice-{instance}")
    }
}

/// The whole installation as one nft transaction: whatever an unclean stop left is replaced
/// by the new table without a moment in between.
pub fn ruleset(plan: &Plan) -> String {
    let table = table_name(&plan.instance);
    let mask = plan.mark.mask();
    let flags = match plan.fail {
        Fail::Open => "flags bypass ",
        Fail::Closed => "",
    };
    let mut elements = String::new();
    for (mark, queue) in plan.marks() {
        if !elements.is_empty() {
            elements.push_str(", ");
        }
        let _ = write!(elements, "{mark:#010x} : {queue}");
    }
    format!(
        "add table inet {table}\n\
         delete table inet {table}\n\
         table inet {table} {{\n\
         \tchain steer {{\n\
         \t\ttype filter hook {hook} priority {priority}; policy accept;\n\
         \t\tqueue {flags}to meta mark & {mask:#010x} map {{ {elements} }}\n\
         \t}}\n\
         }}\n",
        hook = plan.hook,
        priority = plan.priority,
    )
}

/// The `nft` program.
pub(super) fn program() -> Option<PathBuf> {
    find_program("nft")
}

/// Installs, in one transaction: it is all there or nothing of it is.
pub(super) fn install(nft: &Path, plan: &Plan) -> Result<(), CommandFailure> {
    run(nft, &["-f", "-"], &ruleset(plan)).map(drop)
}

/// Whether the kernel can run the rule: the transaction is built and checked, never committed.
///
/// # Errors
/// What `nft` said.
pub fn probe_queue_expression(nft: &Path) -> Result<(), CommandFailure> {
    let text = "table inet sluice-probe {\n\
         \tchain steer {\n\
         \t\ttype filter hook forward priority 150; policy accept;\n\
         \t\tqueue flags bypass to meta mark & 0x00ff0000 map { 0x00010000 : 1 }\n\
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
        "nft is older than 1.0 and has no queue map"
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

/// Whether the instance's table exists.
pub(super) fn is_present(nft: &Path, instance: &str) -> Result<bool, CommandFailure> {
    let table = table_name(instance);
    match run(nft, &["list", "table", "inet", &table], "") {
        Ok(_) => Ok(true),
        Err(failure) if is_absent(&failure) => Ok(false),
        Err(failure) => Err(failure),
    }
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
    let text = match run(nft, &["-j", "list", "table", family, table], "") {
        Ok(text) => text,
        Err(failure) if is_absent(&failure) => return Ok(None),
        Err(failure) => return Err(failure),
    };
    let listing: serde_json::Value =
        serde_json::from_str(&text).map_err(|error| CommandFailure {
            command: format!("{} -j list table {family} {table}", nft.display()),
            status: "unreadable JSON".to_owned(),
            stderr: error.to_string(),
            input: String::new(),
        })?;
    let mut found = TableContents {
        chains: Vec::new(),
        rules: Vec::new(),
        others: 0,
    };
    for entry in listing["nftables"].as_array().into_iter().flatten() {
        let text = |object: &serde_json::Value, key: &str| {
            object[key].as_str().unwrap_or_default().to_owned()
        };
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

#[cfg(test)]
mod tests {
    use ips_common::{MarkLayout, Steer};

    use super::*;
    use crate::netfilter::Hook;

    fn plan(fail: Fail) -> Plan {
        Plan {
            instance: "sluice".to_owned(),
            hook: Hook::Forward,
            priority: 150,
            mark: MarkLayout::new(0x00ff_0000, 2).unwrap(),
            queues: vec![
                (Steer::Worker(0), 100),
                (Steer::Worker(1), 101),
                (Steer::Backup, 102),
            ],
            fail,
            backend: None,
        }
    }

    #[test]
    fn the_transaction_replaces_the_table_and_maps_marks_to_queues() {
        assert_eq!(
            ruleset(&plan(Fail::Open)),
            "add table inet sluice\n\
             delete table inet sluice\n\
             table inet sluice {\n\
             \tchain steer {\n\
             \t\ttype filter hook forward priority 150; policy accept;\n\
             \t\tqueue flags bypass to meta mark & 0x00ff0000 map \
             { 0x00010000 : 100, 0x00020000 : 101, 0x00fe0000 : 102 }\n\
             \t}\n\
             }\n"
        );
    }

    #[test]
    fn fail_closed_has_no_bypass_flag() {
        let text = ruleset(&plan(Fail::Closed));
        assert!(text.contains("\t\tqueue to meta mark"), "{text}");
        assert!(!text.contains("bypass"), "{text}");
    }

    #[test]
    fn an_instance_named_like_somebodys_table_gets_a_table_of_its_own() {
        assert_eq!(table_name("filter"), "sluice-filter");
        assert_eq!(table_name("sluice"), "sluice");
        assert_ne!(table_name("dmz"), table_name("sluice-dmz"));
    }
}
