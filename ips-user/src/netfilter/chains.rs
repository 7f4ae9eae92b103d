//! The rules of the iptables backends: from a mark to a queue without a map.
//!
//! iptables has no mark → queue map, and `--queue-balance` chooses by its own hash, so each
//! queue needs a rule. Up to [`FAN_OUT`] of them stand in one chain. More are split by the
//! upper bits of the mark into sub-chains, so that 64 workers cost at most 18 comparisons
//! instead of 65.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use ips_common::Steer;

use super::plan::{Fail, Plan};

/// Most rules that decide in one chain.
const FAN_OUT: usize = 8;

/// Longest name that the kernel takes is 28 (`XT_EXTENSION_MAXNAMELEN` with its zero); a
/// sub-chain's suffix takes up to 7.
const NAME_MAX: usize = 21;
const PREFIX: &str = "SLUICE-";

/// Name of an instance's chain; a long instance name is cut and told apart by its hash.
pub(super) fn chain_name(instance: &str) -> String {
    let room = NAME_MAX - PREFIX.len();
    if instance.len() <= room {
        return format!("{PREFIX}{instance}");
    }
    // FNV-1a: stable over restarts, which `std`'s hashers do not promise.
    let hash = instance.bytes().fold(0x811c_9dc5u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    let kept: String = instance.chars().take(room - 9).collect();
    format!("{PREFIX}{kept}+{hash:08x}")
}

/// Whether `name` is the instance's chain or one of its sub-chains. Instance names have no
/// dot, so `a` does not claim the chains of `a-1`.
pub(super) fn is_own_chain(name: &str, chain: &str) -> bool {
    name.strip_prefix(chain)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Name of the chain with an instance's gate.
pub(super) fn gate_name(instance: &str) -> String {
    format!("{}.gate", chain_name(instance))
}

/// A match of the mark as `iptables-save` prints it: without the mask when that is complete.
pub(super) fn mark_match(value: u32, mask: u32) -> String {
    match mask {
        u32::MAX => format!("-m mark --mark {value:#x}"),
        _ => format!("-m mark --mark {value:#x}/{mask:#x}"),
    }
}

/// The chains of a plan and their rules, in `iptables-restore` syntax.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Chains {
    /// All chains, the entry first.
    pub(super) names: Vec<String>,
    /// One `-A` line each.
    pub(super) rules: String,
}

struct Builder<'a> {
    plan: &'a Plan,
    chains: Chains,
}

/// Builds the chains of a plan.
pub(super) fn build(plan: &Plan) -> Chains {
    let chain = chain_name(&plan.instance);
    let mask = plan.mark.mask();
    let mut builder = Builder {
        plan,
        chains: Chains::default(),
    };
    builder.chains.names.push(chain.clone());
    // Released flows are the busiest and need nothing: they leave first.
    let bypass = mark_match(plan.mark.bits(Steer::Bypass), mask);
    let _ = writeln!(builder.chains.rules, "-A {chain} {bypass} -j RETURN");
    let leaves: Vec<_> = plan
        .marks()
        .into_iter()
        .map(|(bits, queue)| (bits >> plan.mark.shift(), queue))
        .collect();
    builder.node(&chain, &chain, &leaves);
    builder.chains
}

impl Builder<'_> {
    fn node(&mut self, root: &str, chain: &str, leaves: &[(u32, u16)]) {
        if leaves.len() <= FAN_OUT {
            for &leaf in leaves {
                self.leaf(chain, leaf);
            }
            return;
        }
        let (bits, groups) = split(leaves);
        let mask = self.plan.mark.mask();
        let shift = self.plan.mark.shift();
        for (prefix, group) in groups {
            if let [leaf] = group[..] {
                self.leaf(chain, leaf);
                continue;
            }
            let digit = char::from_digit(bits, 36).unwrap_or('z');
            let below = format!("{root}.{digit}{prefix:x}");
            let value = (prefix << bits) << shift;
            let upper = mask & !(((1u32 << bits) - 1) << shift);
            let matched = mark_match(value, upper);
            let _ = writeln!(self.chains.rules, "-A {chain} {matched} -j {below}");
            self.chains.names.push(below.clone());
            self.node(root, &below, &group);
        }
    }

    fn leaf(&mut self, chain: &str, (value, queue): (u32, u16)) {
        let mark = value << self.plan.mark.shift();
        let matched = mark_match(mark, self.plan.mark.mask());
        let bypass = match self.plan.fail {
            Fail::Open => " --queue-bypass",
            Fail::Closed => "",
        };
        let _ = writeln!(
            self.chains.rules,
            "-A {chain} {matched} -j NFQUEUE --queue-num {queue}{bypass}"
        );
    }
}

/// Groups leaves by as many upper bits as give at most [`FAN_OUT`] groups.
fn split(leaves: &[(u32, u16)]) -> (u32, BTreeMap<u32, Vec<(u32, u16)>>) {
    for bits in 1..31 {
        let mut groups: BTreeMap<u32, Vec<(u32, u16)>> = BTreeMap::new();
        for &(value, queue) in leaves {
            groups
                .entry(value >> bits)
                .or_default()
                .push((value, queue));
        }
        if groups.len() <= FAN_OUT {
            return (bits, groups);
        }
    }
    // Two values that differ at all differ below bit 31 or form two groups by it.
    let mut groups: BTreeMap<u32, Vec<(u32, u16)>> = BTreeMap::new();
    for &(value, queue) in leaves {
        groups.entry(value >> 31).or_default().push((value, queue));
    }
    (31, groups)
}

#[cfg(test)]
mod tests {
    use ips_common::MarkLayout;
    use proptest::prelude::*;

    use super::*;
    use crate::netfilter::Hook;

    fn plan(mask: u32, workers: u32, fail: Fail) -> Plan {
        let queues = (0..workers)
            .map(|index| (Steer::Worker(index), 100 + u16::try_from(index).unwrap()))
            .chain([(Steer::Backup, 99)])
            .collect();
        Plan {
            instance: "sluice".to_owned(),
            hook: Hook::Forward,
            priority: 150,
            mark: MarkLayout::new(mask, workers).unwrap(),
            queues,
            interfaces: Vec::new(),
            fail,
            backend: None,
        }
    }

    /// What the kernel would do: the queue of a mark, and the rules it looked at.
    fn walk(chains: &Chains, chain: &str, mark: u32, looked: &mut usize) -> Option<Option<u16>> {
        let number = |text: &str| u32::from_str_radix(text.trim_start_matches("0x"), 16).unwrap();
        for line in chains.rules.lines() {
            let words: Vec<_> = line.split(' ').collect();
            if words[1] != chain {
                continue;
            }
            *looked += 1;
            let (value, mask) = words[5].split_once('/').unwrap();
            if mark & number(mask) != number(value) {
                continue;
            }
            match words[7] {
                "RETURN" => return None,
                "NFQUEUE" => return Some(Some(words[9].parse().unwrap())),
                below => {
                    if let Some(found) = walk(chains, below, mark, looked) {
                        return Some(found);
                    }
                }
            }
        }
        None
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn every_mark_reaches_its_queue_and_no_other_mark_reaches_one(
            width in 3u32..=16, shift in 0u32..=16, workers in 1u32..300, outside: u32,
        ) {
            let mask = ((1u32 << width) - 1) << shift;
            let fits = (1u32 << width) - 3;
            let plan = plan(mask, workers.min(fits), Fail::Open);
            let chains = build(&plan);
            for name in &chains.names {
                prop_assert!(name.len() <= 28, "{}", name);
            }
            for &(steer, queue) in &plan.queues {
                let mark = plan.mark.write(outside, steer);
                prop_assert_eq!(walk(&chains, &chains.names[0], mark, &mut 0), Some(Some(queue)));
            }
            for steer in [Steer::Unset, Steer::Bypass] {
                let mark = plan.mark.write(outside, steer);
                prop_assert_eq!(walk(&chains, &chains.names[0], mark, &mut 0), None);
            }
        }
    }

    #[test]
    fn sixty_four_workers_cost_no_more_than_eighteen_comparisons() {
        let plan = plan(0x00ff_0000, 64, Fail::Open);
        let chains = build(&plan);
        for &(steer, _) in &plan.queues {
            let mut looked = 0;
            walk(
                &chains,
                &chains.names[0],
                plan.mark.bits(steer),
                &mut looked,
            );
            assert!(looked <= 18, "{steer:?}: {looked}");
        }
    }

    #[test]
    fn a_few_workers_stand_in_one_chain() {
        let chains = build(&plan(0xff00, 1, Fail::Closed));
        assert_eq!(chains.names, ["SLUICE-sluice"]);
        assert_eq!(
            chains.rules,
            "-A SLUICE-sluice -m mark --mark 0xff00/0xff00 -j RETURN\n\
             -A SLUICE-sluice -m mark --mark 0x100/0xff00 -j NFQUEUE --queue-num 100\n\
             -A SLUICE-sluice -m mark --mark 0xfe00/0xff00 -j NFQUEUE --queue-num 99\n"
        );
    }

    #[test]
    fn long_instance_names_stay_apart_and_within_the_kernels_limit() {
        let one = chain_name("edge-firewall-berlin-1");
        let other = chain_name("edge-firewall-berlin-2");
        assert_ne!(one, other);
        assert!(one.len() <= NAME_MAX, "{one}");
    }

    #[test]
    fn one_instance_does_not_claim_the_chains_of_another() {
        assert!(is_own_chain("SLUICE-a", "SLUICE-a"));
        assert!(is_own_chain("SLUICE-a.30", "SLUICE-a"));
        assert!(!is_own_chain("SLUICE-a-1", "SLUICE-a"));
        assert!(!is_own_chain("SLUICE-ab", "SLUICE-a"));
    }
}
