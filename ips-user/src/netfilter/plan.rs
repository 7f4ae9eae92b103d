//! What shall be installed: a [`Plan`], checked before anything is touched.

use std::collections::BTreeSet;
use std::fmt;

use ips_common::{MarkLayout, Steer};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Default priority of the base chain: that of the kernel's `security` table
/// (`NF_IP_PRI_SECURITY`), after every filter chain (0, firewalld 10), so only what the
/// firewall let through is inspected.
pub const DEFAULT_PRIORITY: i32 = 150;

/// Longest instance name.
const INSTANCE_MAX: usize = 32;

/// Where on its way through the kernel a packet is queued.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Hook {
    /// Routed packets (and bridged ones where `br_netfilter` calls the IP hooks).
    #[default]
    Forward,
    /// Packets for this host.
    Input,
    /// Packets from this host. They never crossed an ingress program: something else must
    /// have marked them.
    Output,
    /// Every packet that arrives, before routing.
    Prerouting,
}

impl Hook {
    /// nft's name of the hook.
    pub const fn nft_name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Input => "input",
            Self::Output => "output",
            Self::Prerouting => "prerouting",
        }
    }

    /// The built-in chain of iptables.
    pub const fn builtin_chain(self) -> &'static str {
        match self {
            Self::Forward => "FORWARD",
            Self::Input => "INPUT",
            Self::Output => "OUTPUT",
            Self::Prerouting => "PREROUTING",
        }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.nft_name())
    }
}

/// What becomes of a steered packet when nobody listens at its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fail {
    /// It passes (the queue's bypass flag). Covers only an absent listener: a full queue is
    /// the transport's `fail_open`.
    Open,
    /// It is dropped.
    Closed,
}

impl fmt::Display for Fail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Closed => "closed",
        })
    }
}

/// By what the rules are put into the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// An own nftables table with one map rule (needs `nft_queue`, Linux 4.10 for maps).
    Nft,
    /// An own chain through the nf_tables variant of iptables.
    IptablesNft,
    /// An own chain through the old kernel interface of iptables.
    IptablesLegacy,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nft => "nft",
            Self::IptablesNft => "iptables-nft",
            Self::IptablesLegacy => "iptables-legacy",
        })
    }
}

/// Everything that [`super::install`] needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Name of this Sluice: letters, digits, `-` and `_`, beginning with a letter. What is
    /// installed carries it, so that several instances do not meet.
    pub instance: String,
    /// Where packets are queued.
    pub hook: Hook,
    /// Priority of the base chain. iptables knows only two places: above zero the `security`
    /// table (150), else the `mangle` table (-150).
    pub priority: i32,
    /// Where the decision is found in `skb->mark`.
    pub mark: MarkLayout,
    /// Which decision goes to which queue: workers and the backup. Packets with any other
    /// value (unset, bypass) pass by.
    pub queues: Vec<(Steer, u16)>,
    /// Interfaces whose packets must carry a decision when they come here: with
    /// [`Fail::Closed`] those without one are dropped, see [`Plan::has_gate`].
    pub interfaces: Vec<String>,
    /// What happens to packets that cannot be inspected: at a queue without a listener, and
    /// without a decision.
    pub fail: Fail,
    /// Only this backend; `None` takes the best one that works.
    pub backend: Option<Backend>,
}

/// How much of a plan is put into the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// Queues and gate.
    Everything,
    /// The gate; queue rules that are there stay, without their bypass flag.
    GateBeside,
    /// The gate and nothing else.
    GateAlone,
}

/// Why a plan cannot be installed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PlanError {
    /// The name would not survive being part of a table's or a chain's name.
    #[error(
        "instance name {0:?}: use 1 to {INSTANCE_MAX} letters, digits, '-' and '_', beginning with a letter"
    )]
    Instance(String),
    /// An interface's name that nft or iptables would read as something else.
    #[error(
        "interface {0:?} cannot be named in a netfilter rule: at most 15 visible ASCII characters, none of them a quote or one of / \\ * + !, and no '-' first"
    )]
    Interface(String),
    /// Nothing to steer to.
    #[error("no queue is given")]
    NoQueues,
    /// A decision that is never queued.
    #[error("{0:?} cannot be given a queue")]
    NotQueueable(Steer),
    /// Two queues for one mark.
    #[error("two queues are given for mark {0:#010x}")]
    DuplicateMark(u32),
    /// A worker index that does not fit into the mask.
    #[error("worker {worker} does not fit into the mark mask {mask:#010x}")]
    OutsideMask {
        /// Index of the worker.
        worker: u32,
        /// The mask.
        mask: u32,
    },
}

/// Whether `instance` can be part of the names of a table and a chain.
pub(super) fn check_instance(instance: &str) -> Result<(), PlanError> {
    let good = instance.len() <= INSTANCE_MAX
        && instance.starts_with(|first: char| first.is_ascii_alphabetic())
        && instance
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    if good {
        Ok(())
    } else {
        Err(PlanError::Instance(instance.to_owned()))
    }
}

/// Whether nft and iptables take an interface's name for nothing but a name.
fn is_plain_name(interface: &str) -> bool {
    (1..=15).contains(&interface.len())
        && !interface.starts_with('-')
        && interface
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !b"\"'/\\*+!".contains(&byte))
}

impl Plan {
    /// Whether there is a gate: the rule that drops what came in by a steered interface without
    /// a decision. At the output hook there is no input interface, so none can be there.
    pub fn has_gate(&self) -> bool {
        self.fail == Fail::Closed && !self.interfaces.is_empty() && self.hook != Hook::Output
    }

    /// Checks what a gate alone needs.
    ///
    /// # Errors
    /// See [`PlanError`].
    pub fn check_gate(&self) -> Result<(), PlanError> {
        check_instance(&self.instance)?;
        match self.interfaces.iter().find(|name| !is_plain_name(name)) {
            Some(name) if self.has_gate() => Err(PlanError::Interface(name.clone())),
            _ => Ok(()),
        }
    }

    /// Checks what no backend could install.
    ///
    /// # Errors
    /// See [`PlanError`].
    pub fn check(&self) -> Result<(), PlanError> {
        self.check_gate()?;
        if self.queues.is_empty() {
            return Err(PlanError::NoQueues);
        }
        let mut seen = BTreeSet::new();
        for &(steer, _) in &self.queues {
            match steer {
                Steer::Unset | Steer::Bypass => return Err(PlanError::NotQueueable(steer)),
                Steer::Worker(worker) if self.mark.read(self.mark.bits(steer)) != steer => {
                    return Err(PlanError::OutsideMask {
                        worker,
                        mask: self.mark.mask(),
                    });
                }
                Steer::Worker(_) | Steer::Backup => {}
            }
            let bits = self.mark.bits(steer);
            if !seen.insert(bits) {
                return Err(PlanError::DuplicateMark(bits));
            }
        }
        Ok(())
    }

    /// The marked values and their queues, by ascending mark.
    pub(super) fn marks(&self) -> Vec<(u32, u16)> {
        let mut marks: Vec<_> = self
            .queues
            .iter()
            .map(|&(steer, queue)| (self.mark.bits(steer), queue))
            .collect();
        marks.sort_unstable();
        marks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan {
            instance: "sluice".to_owned(),
            hook: Hook::Forward,
            priority: DEFAULT_PRIORITY,
            mark: MarkLayout::new(0x00ff_0000, 2).unwrap(),
            queues: vec![(Steer::Worker(0), 100), (Steer::Backup, 102)],
            interfaces: vec!["eth0".to_owned()],
            fail: Fail::Open,
            backend: None,
        }
    }

    #[test]
    fn a_sound_plan_is_accepted_and_its_marks_are_sorted() {
        let mut plan = plan();
        plan.queues.insert(0, (Steer::Worker(1), 101));
        assert_eq!(plan.check(), Ok(()));
        assert_eq!(
            plan.marks(),
            [(0x0001_0000, 100), (0x0002_0000, 101), (0x00fe_0000, 102)]
        );
    }

    #[test]
    fn names_that_could_mean_something_else_to_nft_or_iptables_are_refused() {
        for name in ["", "1a", "a b", "a;b", "a.b", "-a", "a\"", &"a".repeat(33)] {
            assert_eq!(
                check_instance(name),
                Err(PlanError::Instance(name.to_owned()))
            );
        }
    }

    #[test]
    fn a_queue_for_an_unqueueable_doubled_or_unrepresentable_mark_is_refused() {
        for (queues, error) in [
            (vec![], PlanError::NoQueues),
            (
                vec![(Steer::Bypass, 1)],
                PlanError::NotQueueable(Steer::Bypass),
            ),
            (
                vec![(Steer::Unset, 1)],
                PlanError::NotQueueable(Steer::Unset),
            ),
            (
                vec![(Steer::Worker(0), 1), (Steer::Worker(0), 2)],
                PlanError::DuplicateMark(0x0001_0000),
            ),
            (
                vec![(Steer::Worker(300), 1)],
                PlanError::OutsideMask {
                    worker: 300,
                    mask: 0x00ff_0000,
                },
            ),
        ] {
            assert_eq!(Plan { queues, ..plan() }.check(), Err(error));
        }
    }

    #[test]
    fn a_gate_needs_fail_closed_an_interface_and_a_hook_that_knows_it() {
        let closed = Plan {
            fail: Fail::Closed,
            ..plan()
        };
        assert!(closed.has_gate());
        assert!(!plan().has_gate());
        for without in [
            Plan {
                interfaces: Vec::new(),
                ..closed.clone()
            },
            Plan {
                hook: Hook::Output,
                ..closed.clone()
            },
        ] {
            assert!(!without.has_gate(), "{without:?}");
        }
        for name in [
            "eth0",
            "br-lan",
            "wg0.12",
            "ens3f0np0",
            "a b",
            "*",
            "eth+",
            "-i",
            "a\"b",
        ] {
            let named = Plan {
                interfaces: vec![name.to_owned()],
                ..closed.clone()
            };
            let refused = ["a b", "*", "eth+", "-i", "a\"b"].contains(&name);
            assert_eq!(named.check().is_err(), refused, "{name}");
            assert_eq!(named.check_gate().is_err(), refused, "{name}");
        }
    }
}
