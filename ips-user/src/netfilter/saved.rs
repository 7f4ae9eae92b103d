//! What `iptables-save -c` says of an instance's rules.

use super::chains::{chain_name, gate_name, is_own_chain};

/// What of a base chain and its table did not exist before Sluice, so that it goes again: kept
/// in the comment of the jump, because it must survive an unclean stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Made {
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

/// What a rule has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) packets: u64,
    pub(super) bytes: u64,
}

/// One rule, as a restore takes it after `-A ` or `-D `.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) text: String,
    pub(super) counted: Counted,
}

impl Rule {
    /// The chain that it stands in.
    pub(super) fn chain(&self) -> &str {
        self.text.split(' ').next().unwrap_or_default()
    }

    /// The queue that it puts packets into.
    pub(super) fn queue(&self) -> Option<u16> {
        queue_of(&self.text)
    }
}

/// The queue that a rule names.
pub(super) fn queue_of(rule: &str) -> Option<u16> {
    after(rule, "--queue-num")?.parse().ok()
}

/// The word behind another one.
fn after<'a>(rule: &'a str, word: &str) -> Option<&'a str> {
    let mut words = rule.split(' ').skip_while(|it| *it != word);
    words.nth(1)
}

/// What of an instance is in a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Present {
    /// From built-in chains into own ones.
    pub(super) jumps: Vec<Rule>,
    /// Own chains.
    pub(super) chains: Vec<String>,
    /// The rules in own chains.
    pub(super) rules: Vec<Rule>,
    pub(super) made: Made,
}

impl Present {
    /// Reads the output of `iptables-save`, with counters or without. Lines of others, and what
    /// is no such output at all, count as nothing.
    pub(super) fn parse(saved: &str, instance: &str) -> Self {
        let chain = chain_name(instance);
        let mut present = Self::default();
        for line in saved.lines() {
            if let Some(rest) = line.strip_prefix(':') {
                let name = rest.split(' ').next().unwrap_or_default();
                if is_own_chain(name, &chain) {
                    present.chains.push(name.to_owned());
                }
                continue;
            }
            let Some(rule) = parse_rule(line) else {
                continue;
            };
            if is_own_chain(rule.chain(), &chain) {
                present.rules.push(rule);
            } else if let Some(made) = own_jump(&rule.text, instance) {
                present.made = present.made.max(made);
                present.jumps.push(rule);
            }
        }
        present
    }

    pub(super) fn is_empty(&self) -> bool {
        self.jumps.is_empty() && self.chains.is_empty()
    }

    /// For people.
    pub(super) fn describe(&self) -> String {
        let jumps = self
            .jumps
            .iter()
            .map(|jump| format!("a jump in {}", jump.chain()));
        let chains = self.chains.iter().map(|chain| format!("chain {chain}"));
        jumps.chain(chains).collect::<Vec<_>>().join(", ")
    }

    /// Everything but the counters, line by line: to see whether it is still as it was.
    pub(super) fn listing(&self) -> Vec<String> {
        let jumps = self.jumps.iter().map(|rule| rule.text.clone());
        let rules = self.rules.iter().map(|rule| rule.text.clone());
        jumps
            .chain(rules)
            .chain(self.chains.iter().map(|name| format!(":{name}")))
            .collect()
    }

    /// Whether it queues packets, and not only drops them.
    pub(super) fn has_queues(&self) -> bool {
        self.rules.iter().any(|rule| rule.queue().is_some())
    }

    /// The mask by which marked packets are told from others.
    pub(super) fn mask(&self) -> Option<u32> {
        self.jumps.iter().find_map(|jump| {
            let text = after(&jump.text, "--mark")?;
            let mask = text.split_once('/').map_or("0xffffffff", |(_, mask)| mask);
            u32::from_str_radix(mask.trim_start_matches("0x"), 16).ok()
        })
    }

    /// The interfaces that a gate watches, each with what it dropped; `None` without a gate.
    pub(super) fn gate(&self, instance: &str) -> Option<Vec<(String, u64)>> {
        let gate = gate_name(instance);
        if !self.chains.contains(&gate) {
            return None;
        }
        let rules = self.rules.iter().filter(|rule| rule.chain() == gate);
        let watched = rules.filter_map(|rule| {
            let interface = after(&rule.text, "-i")?;
            Some((interface.to_owned(), rule.counted.packets))
        });
        Some(watched.collect())
    }
}

/// `-A rule` or `[packets:bytes] -A rule`.
fn parse_rule(line: &str) -> Option<Rule> {
    let (counted, rest) = match line.strip_prefix('[') {
        Some(line) => {
            let (counters, rest) = line.split_once("] ")?;
            let (packets, bytes) = counters.split_once(':')?;
            let counted = Counted {
                packets: packets.parse().ok()?,
                bytes: bytes.parse().ok()?,
            };
            (counted, rest)
        }
        None => (Counted::default(), line),
    };
    let text = rest.strip_prefix("-A ")?.to_owned();
    Some(Rule { text, counted })
}

/// The comment by which a jump is known, quoted as `iptables-save` quotes it.
pub(super) fn comment(instance: &str, made: Made) -> String {
    format!(
        "-m comment --comment \"sluice:{instance}:made-{}\"",
        made.word()
    )
}

/// The `made` of a jump rule of this instance, `None` for anybody else's rule.
pub(super) fn own_jump(rule: &str, instance: &str) -> Option<Made> {
    let tag = format!("sluice:{instance}:made-");
    let targets = [chain_name(instance), gate_name(instance)];
    let ours = targets
        .iter()
        .any(|chain| rule.ends_with(&format!("-j {chain}")));
    if !ours {
        return None;
    }
    let (_, rest) = rule.split_once(&tag)?;
    Some(Made::of(rest.split(['"', ' ']).next().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SAVED: &str = "# Generated by iptables-nft-save\n\
        *security\n\
        :INPUT ACCEPT [0:0]\n\
        :FORWARD ACCEPT [0:0]\n\
        :SLUICE-a - [0:0]\n\
        :SLUICE-a.30 - [0:0]\n\
        :SLUICE-a.gate - [0:0]\n\
        :SLUICE-a-1 - [0:0]\n\
        [1:2] -A FORWARD -s 192.0.2.1/32 -j ACCEPT\n\
        [1:2] -A FORWARD -s 192.0.2.2/32 -j SLUICE-a\n\
        [9:900] -A FORWARD -m mark ! --mark 0x0/0xff -m comment --comment \"sluice:a:made-table\" -j SLUICE-a\n\
        [0:0] -A FORWARD -m mark --mark 0x0/0xff -m comment --comment \"sluice:a:made-table\" -j SLUICE-a.gate\n\
        [0:0] -A FORWARD -m mark ! --mark 0x0/0xff00 -m comment --comment \"sluice:a-1:made-nothing\" -j SLUICE-a-1\n\
        [7:700] -A SLUICE-a -m mark --mark 0x1/0xff -j NFQUEUE --queue-num 100\n\
        [2:200] -A SLUICE-a -m mark --mark 0xfe/0xff -j NFQUEUE --queue-num 99 --queue-bypass\n\
        [3:60] -A SLUICE-a.gate -i eth0 -j DROP\n\
        [0:0] -A SLUICE-a.gate -i eth1 -j DROP\n\
        [1:1] -A SLUICE-a-1 -m mark --mark 0x100/0xff00 -j NFQUEUE --queue-num 7\n\
        COMMIT\n";

    #[test]
    fn only_the_instances_own_rules_are_recognised() {
        let present = Present::parse(SAVED, "a");
        assert_eq!(present.chains, ["SLUICE-a", "SLUICE-a.30", "SLUICE-a.gate"]);
        assert_eq!(present.made, Made::Table);
        let jumps: Vec<_> = present.jumps.iter().map(|it| it.text.as_str()).collect();
        assert_eq!(
            jumps,
            [
                "FORWARD -m mark ! --mark 0x0/0xff -m comment --comment \"sluice:a:made-table\" -j SLUICE-a",
                "FORWARD -m mark --mark 0x0/0xff -m comment --comment \"sluice:a:made-table\" -j SLUICE-a.gate"
            ]
        );
        assert_eq!(present.mask(), Some(0xff));
        assert!(Present::parse(SAVED, "b").is_empty());
    }

    #[test]
    fn counters_of_queue_rules_and_of_the_gate_are_read() {
        let present = Present::parse(SAVED, "a");
        let queues: Vec<_> = present
            .rules
            .iter()
            .filter_map(|rule| Some((rule.queue()?, rule.counted.packets)))
            .collect();
        assert_eq!(queues, [(100, 7), (99, 2)]);
        assert_eq!(
            present.gate("a"),
            Some(vec![("eth0".to_owned(), 3), ("eth1".to_owned(), 0)])
        );
        assert_eq!(Present::parse(SAVED, "a-1").gate("a-1"), None);
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(lines in proptest::collection::vec(
            "(\\[[0-9:]{0,25}\\] )?(-A |:)?(SLUICE-a|FORWARD)?[ -~]{0,40}( --queue-num)?( --mark [0-9a-fx/]{0,12})?", 0..8,
        )) {
            let present = Present::parse(&lines.join("\n"), "a");
            let _ = (present.mask(), present.gate("a"), present.listing(), present.has_queues());
        }
    }
}
