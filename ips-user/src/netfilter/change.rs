//! The iptables transaction that turns the rules that are there into those that are wanted.
//!
//! A rule that stays is not touched, so it keeps its counters; the base chain never goes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::chains::{self, chain_name, gate_name};
use super::plan::{Extent, Plan};
use super::saved::{Counted, Made, Present, comment, queue_of};

/// The chains and rules that shall be there; rules without `-A `.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    chains: Vec<String>,
    rules: Vec<String>,
    jumps: Vec<String>,
}

impl Wanted {
    /// What `extent` of a plan wants where `present` is now.
    pub(super) fn of(plan: &Plan, extent: Extent, present: &Present, made: Made) -> Self {
        let mut wanted = Self::default();
        let builtin = plan.hook.builtin_chain();
        let comment = comment(&plan.instance, made);
        let mut mask = plan.mark.mask();
        let mut queues = true;
        match extent {
            Extent::Everything => {
                let built = chains::build(plan);
                wanted.chains = built.names;
                let rules = built.rules.lines();
                let rules = rules.filter_map(|line| line.strip_prefix("-A "));
                wanted.rules = rules.map(str::to_owned).collect();
            }
            Extent::GateBeside if present.has_queues() => {
                // The programs of a former run may go on marking by its mask.
                mask = present.mask().unwrap_or(mask);
                wanted.keep_closed(present, &plan.instance);
            }
            Extent::GateBeside | Extent::GateAlone => queues = false,
        }
        let unmarked = match mask {
            u32::MAX => "--mark 0x0".to_owned(),
            _ => format!("--mark 0x0/{mask:#x}"),
        };
        if queues {
            let chain = chain_name(&plan.instance);
            wanted.jumps.push(format!(
                "{builtin} -m mark ! {unmarked} {comment} -j {chain}"
            ));
        }
        if plan.has_gate() {
            let gate = gate_name(&plan.instance);
            for interface in &plan.interfaces {
                wanted.rules.push(format!("{gate} -i {interface} -j DROP"));
            }
            // Where nothing queues marked packets, they must not pass either.
            let which = if queues {
                format!("-m mark {unmarked} ")
            } else {
                String::new()
            };
            wanted
                .jumps
                .push(format!("{builtin} {which}{comment} -j {gate}"));
            wanted.chains.push(gate);
        }
        wanted
    }

    /// The queue rules that are there, closed where nobody listens.
    fn keep_closed(&mut self, present: &Present, instance: &str) {
        let gate = gate_name(instance);
        let chains = present.chains.iter().filter(|name| **name != gate);
        self.chains.extend(chains.cloned());
        let rules = present.rules.iter().filter(|rule| rule.chain() != gate);
        self.rules
            .extend(rules.map(|rule| rule.text.replace(" --queue-bypass", "")));
    }
}

/// The transaction, or `None` when everything is as wanted already.
pub(super) fn change_text(table: &str, present: &Present, wanted: &Wanted) -> Option<String> {
    let mut missing: Vec<&str> = Vec::new();
    let mut surplus: Vec<_> = present.jumps.iter().chain(&present.rules).collect();
    // Jumps last: what they jump to is complete when they come.
    for rule in wanted.rules.iter().chain(&wanted.jumps) {
        match surplus.iter().position(|it| it.text == *rule) {
            Some(at) => {
                surplus.remove(at);
            }
            None => missing.push(rule),
        }
    }
    let kept: BTreeSet<&String> = wanted.chains.iter().collect();
    let new_chains = wanted
        .chains
        .iter()
        .filter(|name| !present.chains.contains(name));
    let old_chains: Vec<_> = present
        .chains
        .iter()
        .filter(|name| !kept.contains(name))
        .collect();

    let mut text = String::new();
    for name in new_chains {
        // With --noflush, a chain that is declared is created, or flushed when it exists.
        let _ = writeln!(text, ":{name} - [0:0]");
    }
    // What a queue's rule has counted goes to the rule that takes its place.
    let mut counted: BTreeMap<u16, Counted> = BTreeMap::new();
    for rule in &surplus {
        if let Some(queue) = rule.queue() {
            let sum = counted.entry(queue).or_default();
            sum.packets = sum.packets.saturating_add(rule.counted.packets);
            sum.bytes = sum.bytes.saturating_add(rule.counted.bytes);
        }
        if !old_chains.iter().any(|name| *name == rule.chain()) {
            let _ = writeln!(text, "-D {}", rule.text);
        }
    }
    // First every chain is emptied, for they refer to each other.
    for name in &old_chains {
        let _ = writeln!(text, "-F {name}");
    }
    for rule in missing {
        let inherited = queue_of(rule).and_then(|queue| counted.remove(&queue));
        let Counted { packets, bytes } = inherited.unwrap_or_default();
        let _ = writeln!(text, "[{packets}:{bytes}] -A {rule}");
    }
    for name in &old_chains {
        let _ = writeln!(text, "-X {name}");
    }
    (!text.is_empty()).then(|| format!("*{table}\n{text}COMMIT\n"))
}

#[cfg(test)]
mod tests {
    use ips_common::{MarkLayout, Steer};

    use super::*;
    use crate::netfilter::{Fail, Hook};

    fn plan(workers: u32, fail: Fail) -> Plan {
        let queues = (0..workers).map(|index| (Steer::Worker(index), 101 + index as u16));
        Plan {
            instance: "a".to_owned(),
            hook: Hook::Forward,
            priority: 150,
            mark: MarkLayout::new(0xff, workers).unwrap(),
            queues: queues.chain([(Steer::Backup, 100)]).collect(),
            interfaces: vec!["eth0".to_owned()],
            fail,
            backend: None,
        }
    }

    /// What `iptables-save -c` would say after the plan was installed; each queue rule has
    /// counted as many packets as its queue's number.
    fn installed(plan: &Plan, extent: Extent) -> Present {
        let wanted = Wanted::of(plan, extent, &Present::default(), Made::Table);
        let chains = wanted.chains.iter().map(|name| format!(":{name} - [0:0]"));
        let rules = wanted.jumps.iter().chain(&wanted.rules).map(|rule| {
            let packets = queue_of(rule).unwrap_or(0);
            format!("[{packets}:{}] -A {rule}", u32::from(packets) * 60)
        });
        let saved: Vec<_> = chains.chain(rules).collect();
        Present::parse(&saved.join("\n"), "a")
    }

    fn change(present: &Present, plan: &Plan, extent: Extent) -> Option<String> {
        let wanted = Wanted::of(plan, extent, present, Made::Table);
        change_text("security", present, &wanted)
    }

    #[test]
    fn what_is_as_wanted_is_not_touched() {
        for workers in [1, 2, 20] {
            for (fail, extent) in [
                (Fail::Open, Extent::Everything),
                (Fail::Closed, Extent::Everything),
                (Fail::Closed, Extent::GateAlone),
                (Fail::Closed, Extent::GateBeside),
            ] {
                let plan = plan(workers, fail);
                let present = installed(&plan, extent);
                assert!(!present.is_empty());
                assert_eq!(change(&present, &plan, extent), None);
            }
        }
    }

    #[test]
    fn a_worker_more_is_one_rule_more_and_one_less_one_less() {
        let (two, three) = (plan(2, Fail::Open), plan(3, Fail::Open));
        assert_eq!(
            change(
                &installed(&two, Extent::Everything),
                &three,
                Extent::Everything
            )
            .unwrap(),
            "*security\n\
             [0:0] -A SLUICE-a -m mark --mark 0x3/0xff -j NFQUEUE --queue-num 103 --queue-bypass\n\
             COMMIT\n"
        );
        assert_eq!(
            change(
                &installed(&three, Extent::Everything),
                &two,
                Extent::Everything
            )
            .unwrap(),
            "*security\n\
             -D SLUICE-a -m mark --mark 0x3/0xff -j NFQUEUE --queue-num 103 --queue-bypass\n\
             COMMIT\n"
        );
    }

    #[test]
    fn a_rule_that_must_change_hands_on_what_it_has_counted() {
        let open = installed(&plan(1, Fail::Open), Extent::Everything);
        let text = change(&open, &plan(1, Fail::Closed), Extent::Everything).unwrap();
        assert!(
            text.contains(
                "[101:6060] -A SLUICE-a -m mark --mark 0x1/0xff -j NFQUEUE --queue-num 101\n"
            ),
            "{text}"
        );
        // Into sub-chains too.
        let flat = installed(&plan(2, Fail::Open), Extent::Everything);
        let text = change(&flat, &plan(30, Fail::Open), Extent::Everything).unwrap();
        assert!(text.contains("[102:6120] -A SLUICE-a."), "{text}");
        assert!(!text.contains("-F "), "{text}");
    }

    #[test]
    fn a_gate_alone_is_for_every_packet_and_beside_queues_for_those_without_a_mark() {
        let plan = plan(1, Fail::Closed);
        let alone = change(&Present::default(), &plan, Extent::GateAlone).unwrap();
        assert_eq!(
            alone,
            "*security\n\
             :SLUICE-a.gate - [0:0]\n\
             [0:0] -A SLUICE-a.gate -i eth0 -j DROP\n\
             [0:0] -A FORWARD -m comment --comment \"sluice:a:made-table\" -j SLUICE-a.gate\n\
             COMMIT\n"
        );
        let there = installed(&plan, Extent::GateAlone);
        let text = change(&there, &plan, Extent::Everything).unwrap();
        assert!(
            text.contains("-A FORWARD -m mark --mark 0x0/0xff -m comment"),
            "{text}"
        );
        assert!(!text.contains("eth0"), "its counter stays: {text}");
    }

    #[test]
    fn a_gate_beside_the_queues_of_a_former_run_keeps_them_and_closes_them() {
        let former = installed(&plan(1, Fail::Open), Extent::Everything);
        let mut now = plan(4, Fail::Closed);
        now.mark = MarkLayout::new(0xff00, 4).unwrap();
        let text = change(&former, &now, Extent::GateBeside).unwrap();
        assert!(
            text.contains(
                "-D SLUICE-a -m mark --mark 0x1/0xff -j NFQUEUE --queue-num 101 --queue-bypass\n"
            ),
            "{text}"
        );
        assert!(
            text.contains("-A SLUICE-a -m mark --mark 0x1/0xff -j NFQUEUE --queue-num 101\n"),
            "{text}"
        );
        assert!(
            text.contains("-A FORWARD -m mark --mark 0x0/0xff -m comment"),
            "by the mask that the former programs write: {text}"
        );
        assert!(!text.contains("0xff00"), "{text}");
    }
}
