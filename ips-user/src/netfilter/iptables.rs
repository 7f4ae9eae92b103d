//! The iptables backends: an own chain and a jump to it for marked packets, and one with the
//! gate and a jump to it for the others.
//!
//! The jumps are appended, not inserted: an accept verdict of NFQUEUE skips the rest of its
//! table, so anything behind it would be lost to its owner. A terminating rule before
//! them hides packets from inspection in turn; [`Family::warnings`] names those.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use super::change::{Wanted, change_text};
use super::command::{CommandFailure, find_program, run};
use super::nft;
use super::plan::{Backend, Extent, Hook, Plan};
use super::saved::{Made, Present, own_jump};

/// Which address family, in the words of nft.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    V4,
    V6,
}

impl Version {
    pub(super) const fn nft_family(self) -> &'static str {
        match self {
            Self::V4 => "ip",
            Self::V6 => "ip6",
        }
    }

    const fn command(self) -> &'static str {
        match self {
            Self::V4 => "iptables",
            Self::V6 => "ip6tables",
        }
    }
}

/// The tools of one backend and one address family.
#[derive(Clone, Debug)]
pub(super) struct Family {
    pub(super) version: Version,
    pub(super) backend: Backend,
    restore: PathBuf,
    save: PathBuf,
}

/// The tables that may be used, best first. `security` (150) runs after `filter`, so only
/// what the firewall accepted is inspected; it has no prerouting chain.
pub(super) fn tables(hook: Hook, priority: i32) -> &'static [&'static str] {
    if hook == Hook::Prerouting || priority <= 0 {
        &["mangle"]
    } else {
        &["security", "mangle"]
    }
}

/// Every table that a plan may use.
pub(super) const TABLES: [&str; 2] = ["security", "mangle"];

fn remove_text(table: &str, present: &Present) -> String {
    let mut text = format!("*{table}\n");
    for jump in &present.jumps {
        text.push_str(&format!("-D {}\n", jump.text));
    }
    // First every chain is emptied, for they refer to each other.
    for command in ["-F", "-X"] {
        for name in &present.chains {
            text.push_str(&format!("{command} {name}\n"));
        }
    }
    text.push_str("COMMIT\n");
    text
}

/// The families found so far: to find one costs a process, and some callers come every second.
static FOUND: Mutex<Vec<Family>> = Mutex::new(Vec::new());

impl Family {
    /// The tools of `backend`, if they are installed.
    pub(super) fn find(backend: Backend, version: Version) -> Option<Self> {
        let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = |it: &&Self| it.backend == backend && it.version == version;
        if let Some(family) = found.iter().find(wanted) {
            return Some(family.clone());
        }
        let family = Self::search(backend, version)?;
        found.push(family.clone());
        Some(family)
    }

    fn search(backend: Backend, version: Version) -> Option<Self> {
        let command = version.command();
        let variant = match backend {
            Backend::Nft => return None,
            Backend::IptablesNft => "nft",
            Backend::IptablesLegacy => "legacy",
        };
        [format!("{command}-{variant}"), command.to_owned()]
            .into_iter()
            .find_map(|name| {
                let restore = find_program(&format!("{name}-restore"))?;
                let save = find_program(&format!("{name}-save"))?;
                // A plain name is whichever variant the distribution chose.
                let version_text = run(&save, &["--version"], "").unwrap_or_default();
                let is_nft = version_text.contains("nf_tables");
                (is_nft == (backend == Backend::IptablesNft)).then_some(Self {
                    version,
                    backend,
                    restore,
                    save,
                })
            })
    }

    fn save(&self, table: &str) -> Result<String, CommandFailure> {
        run(&self.save, &["-c", "-t", table], "")
    }

    fn restore(&self, text: &str) -> Result<(), CommandFailure> {
        // The legacy variant takes a lock that others may hold; the nft variant ignores -w.
        let options = ["--noflush", "--counters", "-w", "5"];
        run(&self.restore, &options, text).map(drop)
    }

    /// What of `instance` is in `table`.
    pub(super) fn present(&self, table: &str, instance: &str) -> Result<Present, CommandFailure> {
        if self.backend == Backend::IptablesLegacy && !self.legacy_table_exists(table) {
            // Asking the legacy tools for a table creates it.
            return Ok(Present::default());
        }
        if self.backend == Backend::IptablesNft
            && let Some(nft) = nft::program()
            && nft::contents(&nft, self.version.nft_family(), table)?.is_none()
        {
            return Ok(Present::default());
        }
        self.listed(table, instance)
    }

    /// The same of a table that is known to exist: one process.
    pub(super) fn listed(&self, table: &str, instance: &str) -> Result<Present, CommandFailure> {
        Ok(Present::parse(&self.save(table)?, instance))
    }

    fn legacy_table_exists(&self, table: &str) -> bool {
        // Not /proc/net: that is the main thread's namespace, whatever this thread has joined.
        let path = match self.version {
            Version::V4 => "/proc/thread-self/net/ip_tables_names",
            Version::V6 => "/proc/thread-self/net/ip6_tables_names",
        };
        std::fs::read_to_string(path).is_ok_and(|names| names.lines().any(|name| name == table))
    }

    /// What of the table and the base chain is missing and will be made by the tools.
    fn will_make(&self, table: &str, builtin: &str) -> Result<Made, CommandFailure> {
        if self.backend != Backend::IptablesNft {
            return Ok(Made::Nothing);
        }
        let Some(nft) = nft::program() else {
            return Ok(Made::Nothing);
        };
        Ok(
            match nft::contents(&nft, self.version.nft_family(), table)? {
                None => Made::Table,
                Some(contents) if !contents.chains.iter().any(|(name, _)| name == builtin) => {
                    Made::BaseChain
                }
                Some(_) => Made::Nothing,
            },
        )
    }

    /// Has `table` say what `extent` of the plan says, changing no more than that needs; whether
    /// there was nothing of the instance before.
    pub(super) fn install(
        &self,
        plan: &Plan,
        extent: Extent,
        table: &str,
    ) -> Result<bool, CommandFailure> {
        let builtin = plan.hook.builtin_chain();
        let present = self.present(table, &plan.instance)?;
        let (same_hook, other_hook): (Vec<_>, Vec<_>) = present
            .jumps
            .iter()
            .partition(|jump| jump.chain() == builtin);
        let made = match present.made {
            Made::Table => Made::Table,
            Made::BaseChain if !same_hook.is_empty() => Made::BaseChain,
            // An existing jump of ours says that the base chain was there before.
            Made::Nothing if !same_hook.is_empty() => Made::Nothing,
            Made::BaseChain | Made::Nothing => self.will_make(table, builtin)?,
        };
        let wanted = Wanted::of(plan, extent, &present, made);
        let Some(text) = change_text(table, &present, &wanted) else {
            return Ok(false);
        };
        self.restore(&text)?;
        if present.made > Made::Nothing {
            for jump in other_hook {
                self.remove_made(table, jump.chain(), Made::BaseChain)?;
            }
        }
        Ok(present.is_empty())
    }

    /// Removes everything of `instance` from `table`; whether there was anything.
    pub(super) fn remove(&self, table: &str, instance: &str) -> Result<bool, CommandFailure> {
        let present = self.present(table, instance)?;
        if present.is_empty() {
            return Ok(false);
        }
        self.restore(&remove_text(table, &present))?;
        if present.made > Made::Nothing {
            for jump in &present.jumps {
                self.remove_made(table, jump.chain(), present.made)?;
            }
        }
        Ok(true)
    }

    /// Removes the base chain and the table that the first installation brought into being,
    /// unless somebody has put something there since. iptables itself cannot delete a table.
    ///
    /// Between the look and the deletion a rule could be added by somebody else; nf_tables has
    /// no conditional delete, and the window is some milliseconds.
    fn remove_made(&self, table: &str, builtin: &str, made: Made) -> Result<(), CommandFailure> {
        let Some(nft) = nft::program() else {
            return Ok(());
        };
        let family = self.version.nft_family();
        let Some(contents) = nft::contents(&nft, family, table)? else {
            return Ok(());
        };
        let untouched = contents.others == 0
            && contents.rules.is_empty()
            && contents.chains.iter().all(|(_, accepts)| *accepts);
        let chain_untouched = contents.rules.iter().all(|chain| chain != builtin)
            && contents
                .chains
                .iter()
                .any(|(name, accepts)| name == builtin && *accepts);
        if made == Made::Table && untouched {
            run(&nft, &["delete", "table", family, table], "").map(drop)
        } else if chain_untouched {
            run(&nft, &["delete", "chain", family, table, builtin], "").map(drop)
        } else {
            Ok(())
        }
    }

    /// Rules of others in front of the jump that end the table for some packets.
    pub(super) fn warnings(&self, plan: &Plan, table: &str) -> Vec<String> {
        let Ok(saved) = run(&self.save, &["-t", table], "") else {
            return Vec::new();
        };
        let prefix = format!("-A {} ", plan.hook.builtin_chain());
        saved
            .lines()
            .filter(|line| line.starts_with(&prefix))
            .take_while(|line| own_jump(&line[3..], &plan.instance).is_none())
            .filter(|line| {
                ["-j ACCEPT", "-j NFQUEUE", "-g "]
                    .iter()
                    .any(|end| line.contains(end))
            })
            .map(|line| {
                format!(
                    "{} table {table}: packets that match `{line}` are never inspected",
                    self.version.command()
                )
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removal_deletes_the_jump_then_empties_then_deletes_the_chains() {
        let saved = ":SLUICE-a-1 - [0:0]\n\
            [3:4] -A FORWARD -m mark ! --mark 0x0/0xff00 -m comment --comment \"sluice:a-1:made-nothing\" -j SLUICE-a-1\n";
        assert_eq!(
            remove_text("security", &Present::parse(saved, "a-1")),
            "*security\n\
             -D FORWARD -m mark ! --mark 0x0/0xff00 -m comment --comment \"sluice:a-1:made-nothing\" -j SLUICE-a-1\n\
             -F SLUICE-a-1\n\
             -X SLUICE-a-1\n\
             COMMIT\n"
        );
    }

    #[test]
    fn the_table_follows_the_hook_and_the_priority() {
        assert_eq!(tables(Hook::Forward, 150), ["security", "mangle"]);
        assert_eq!(tables(Hook::Input, 10), ["security", "mangle"]);
        assert_eq!(tables(Hook::Prerouting, 150), ["mangle"]);
        assert_eq!(tables(Hook::Forward, -150), ["mangle"]);
    }
}
