//! The iptables backends: an own chain, and one jump to it for marked packets.
//!
//! The jump is appended, not inserted: an accept verdict of NFQUEUE skips the rest of its
//! table, so anything behind it would be lost to its owner. A terminating rule before it
//! hides packets from inspection in turn; [`Family::warnings`] names those.

use std::path::PathBuf;

use super::chains::{self, chain_name, is_own_chain};
use super::command::{CommandFailure, find_program, run};
use super::nft;
use super::plan::{Backend, Hook, Plan};

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

/// What did not exist before Sluice, so that it goes again: kept in the comment of the jump,
/// because it must survive an unclean stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Made {
    #[default]
    Nothing,
    BaseChain,
    Table,
}

impl Made {
    const fn word(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::BaseChain => "chain",
            Self::Table => "table",
        }
    }

    fn of(word: &str) -> Self {
        match word {
            "table" => Self::Table,
            "chain" => Self::BaseChain,
            _ => Self::Nothing,
        }
    }
}

/// What of an instance is in a table.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Present {
    /// Built-in chain and complete rule of each jump.
    jumps: Vec<(String, String)>,
    chains: Vec<String>,
    made: Made,
}

impl Present {
    pub(super) fn is_empty(&self) -> bool {
        self.jumps.is_empty() && self.chains.is_empty()
    }

    /// For people.
    pub(super) fn describe(&self) -> String {
        let jumps = self
            .jumps
            .iter()
            .map(|(chain, _)| format!("a jump in {chain}"));
        let chains = self.chains.iter().map(|chain| format!("chain {chain}"));
        jumps.chain(chains).collect::<Vec<_>>().join(", ")
    }
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

fn comment(instance: &str, made: Made) -> String {
    format!("sluice:{instance}:made-{}", made.word())
}

/// The `made` of a jump rule of this instance, `None` for anybody else's rule.
fn own_jump(rule: &str, instance: &str) -> Option<Made> {
    let tag = format!("sluice:{instance}:made-");
    let target = format!("-j {}", chain_name(instance));
    if !rule.ends_with(&target) {
        return None;
    }
    let (_, rest) = rule.split_once(&tag)?;
    Some(Made::of(rest.split(['"', ' ']).next().unwrap_or_default()))
}

fn parse(saved: &str, instance: &str) -> Present {
    let chain = chain_name(instance);
    let mut present = Present::default();
    for line in saved.lines() {
        if let Some(rest) = line.strip_prefix(':') {
            let name = rest.split(' ').next().unwrap_or_default();
            if is_own_chain(name, &chain) {
                present.chains.push(name.to_owned());
            }
        } else if let Some(rule) = line.strip_prefix("-A ")
            && let Some(made) = own_jump(rule, instance)
        {
            let builtin = rule.split(' ').next().unwrap_or_default();
            present.jumps.push((builtin.to_owned(), rule.to_owned()));
            present.made = present.made.max(made);
        }
    }
    present
}

/// The transaction that replaces whatever is `present` by the plan.
fn install_text(plan: &Plan, table: &str, present: &Present, made: Made) -> String {
    let built = chains::build(plan);
    let chain = &built.names[0];
    let mut text = format!("*{table}\n");
    // With --noflush, a chain that is declared is created, or flushed when it exists.
    for name in &built.names {
        text.push_str(&format!(":{name} - [0:0]\n"));
    }
    for (_, rule) in &present.jumps {
        text.push_str(&format!("-D {rule}\n"));
    }
    for name in present
        .chains
        .iter()
        .filter(|name| !built.names.contains(name))
    {
        text.push_str(&format!("-F {name}\n-X {name}\n"));
    }
    text.push_str(&built.rules);
    text.push_str(&format!(
        "-A {builtin} -m mark ! --mark 0x0/{mask:#x} -m comment --comment {comment} -j {chain}\n",
        builtin = plan.hook.builtin_chain(),
        mask = plan.mark.mask(),
        comment = comment(&plan.instance, made),
    ));
    text.push_str("COMMIT\n");
    text
}

fn remove_text(table: &str, present: &Present) -> String {
    let mut text = format!("*{table}\n");
    for (_, rule) in &present.jumps {
        text.push_str(&format!("-D {rule}\n"));
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

impl Family {
    /// The tools of `backend`, if they are installed.
    pub(super) fn find(backend: Backend, version: Version) -> Option<Self> {
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
        run(&self.save, &["-t", table], "")
    }

    fn restore(&self, text: &str) -> Result<(), CommandFailure> {
        // The legacy variant takes a lock that others may hold; the nft variant ignores -w.
        run(&self.restore, &["--noflush", "-w", "5"], text).map(drop)
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
        Ok(parse(&self.save(table)?, instance))
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

    /// Installs the plan into `table`, replacing what an unclean stop left there.
    pub(super) fn install(&self, plan: &Plan, table: &str) -> Result<(), CommandFailure> {
        let builtin = plan.hook.builtin_chain();
        let present = self.present(table, &plan.instance)?;
        let (same_hook, other_hook): (Vec<_>, Vec<_>) = present
            .jumps
            .iter()
            .partition(|(chain, _)| chain == builtin);
        let made = match present.made {
            Made::Table => Made::Table,
            Made::BaseChain if !same_hook.is_empty() => Made::BaseChain,
            // An existing jump of ours says that the base chain was there before.
            Made::Nothing if !same_hook.is_empty() => Made::Nothing,
            Made::BaseChain | Made::Nothing => self.will_make(table, builtin)?,
        };
        self.restore(&install_text(plan, table, &present, made))?;
        if present.made > Made::Nothing {
            for (chain, _) in other_hook {
                self.remove_made(table, chain, Made::BaseChain)?;
            }
        }
        Ok(())
    }

    /// Removes everything of `instance` from `table`; whether there was anything.
    pub(super) fn remove(&self, table: &str, instance: &str) -> Result<bool, CommandFailure> {
        let present = self.present(table, instance)?;
        if present.is_empty() {
            return Ok(false);
        }
        self.restore(&remove_text(table, &present))?;
        if present.made > Made::Nothing {
            for (builtin, _) in &present.jumps {
                self.remove_made(table, builtin, present.made)?;
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
        let Ok(saved) = self.save(table) else {
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

    const SAVED: &str = "# Generated by iptables-nft-save\n\
        *security\n\
        :INPUT ACCEPT [0:0]\n\
        :FORWARD ACCEPT [0:0]\n\
        :SLUICE-a - [0:0]\n\
        :SLUICE-a.30 - [0:0]\n\
        :SLUICE-a-1 - [0:0]\n\
        -A FORWARD -s 192.0.2.1/32 -j ACCEPT\n\
        -A FORWARD -s 192.0.2.2/32 -j SLUICE-a\n\
        -A FORWARD -m mark ! --mark 0x0/0xff -m comment --comment \"sluice:a:made-table\" -j SLUICE-a\n\
        -A FORWARD -m mark ! --mark 0x0/0xff00 -m comment --comment \"sluice:a-1:made-nothing\" -j SLUICE-a-1\n\
        COMMIT\n";

    #[test]
    fn only_the_instances_own_rules_are_recognised() {
        let present = parse(SAVED, "a");
        assert_eq!(present.chains, ["SLUICE-a", "SLUICE-a.30"]);
        assert_eq!(present.made, Made::Table);
        assert_eq!(
            present.jumps,
            [(
                "FORWARD".to_owned(),
                "FORWARD -m mark ! --mark 0x0/0xff -m comment --comment \"sluice:a:made-table\" -j SLUICE-a".to_owned()
            )]
        );
        assert!(parse(SAVED, "b").is_empty());
    }

    #[test]
    fn removal_deletes_the_jump_then_empties_then_deletes_the_chains() {
        assert_eq!(
            remove_text("security", &parse(SAVED, "a-1")),
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
