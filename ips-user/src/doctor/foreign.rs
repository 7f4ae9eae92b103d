//! Other people's use of packet marks and of queues: netfilter rules of every kind, and
//! routing rules.

use serde_json::Value;

use crate::netfilter::{find_program, run};

/// A use of bits of `skb->mark`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MarkUse {
    /// The bits.
    pub(super) bits: u32,
    /// Whether it changes them; else it compares them.
    pub(super) writes: bool,
    /// Where.
    pub(super) place: String,
}

/// A use of queue numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct QueueUse {
    pub(super) first: u16,
    pub(super) last: u16,
    pub(super) place: String,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub(super) struct Foreign {
    pub(super) marks: Vec<MarkUse>,
    pub(super) queues: Vec<QueueUse>,
    /// Whether rules of Sluice itself are there: it runs, or was killed.
    pub(super) ours: bool,
    /// What could not be looked at.
    pub(super) unseen: Vec<String>,
}

/// Reads all rules of the calling thread's network namespace.
pub(super) fn collect() -> Foreign {
    let mut found = Foreign::default();
    let mut saved_tables = Vec::new();
    for (version, family) in [("iptables", "ip"), ("ip6tables", "ip6")] {
        // Asking the legacy tools creates their tables: only when they have some.
        let names = format!("/proc/thread-self/net/{family}_tables_names");
        let has_legacy = std::fs::read_to_string(names).is_ok_and(|text| !text.trim().is_empty());
        for (variant, wanted) in [("nft", true), ("legacy", has_legacy)] {
            let name = format!("{version}-{variant}-save");
            let Some(program) = find_program(&name).filter(|_| wanted) else {
                continue;
            };
            match run(&program, &[], "") {
                Ok(text) => {
                    let tables = scan_saved(&text, &format!("{version}-{variant}"), &mut found);
                    if variant == "nft" {
                        saved_tables.extend(tables.into_iter().map(|table| (family, table)));
                    }
                }
                Err(failure) => found.unseen.push(failure.summary().to_owned()),
            }
        }
    }
    if let Some(nft) = find_program("nft") {
        match run(&nft, &["-j", "list", "ruleset"], "").map(|text| serde_json::from_str(&text)) {
            Ok(Ok(ruleset)) => scan_nft(&ruleset, &saved_tables, &mut found),
            Ok(Err(error)) => found.unseen.push(format!("nft -j list ruleset: {error}")),
            Err(failure) => found.unseen.push(failure.summary().to_owned()),
        }
    }
    if let Some(ip) = find_program("ip") {
        for family in ["-4", "-6"] {
            match run(&ip, &["-j", family, "rule", "show"], "")
                .map(|text| serde_json::from_str(&text))
            {
                Ok(Ok(rules)) => scan_ip_rules(&rules, &mut found),
                Ok(Err(_)) => {} // no rules at all print nothing
                Err(failure) => found.unseen.push(failure.summary().to_owned()),
            }
        }
    } else {
        found
            .unseen
            .push("ip is not installed: routing rules".to_owned());
    }
    found
}

fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

/// `V` or `V/M`, the mask being all bits when it is not given.
fn value_and_mask(text: &str) -> Option<(u32, u32)> {
    match text.split_once('/') {
        Some((value, mask)) => Some((number(value)?, number(mask)?)),
        None => Some((number(text)?, u32::MAX)),
    }
}

/// Words of an `iptables-save` line; a quoted comment is one word.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let (mut quoted, mut escaped) = (false, false);
    for c in line.chars() {
        match c {
            _ if escaped => {
                word.push(c);
                escaped = false;
            }
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ' ' if !quoted => words.push(std::mem::take(&mut word)),
            _ => word.push(c),
        }
    }
    words.push(word);
    words
}

/// Looks through what `iptables-save` printed; returns the tables in it.
fn scan_saved(text: &str, tool: &str, found: &mut Foreign) -> Vec<String> {
    let mut tables = Vec::new();
    for line in text.lines() {
        if let Some(table) = line.strip_prefix('*') {
            tables.push(table.to_owned());
        } else if line.starts_with("-A ") {
            if line.contains("SLUICE-") {
                found.ours = true;
                continue;
            }
            let table = tables.last().map_or("", String::as_str);
            scan_saved_rule(line, &format!("{tool} -t {table} {line}"), found);
        }
    }
    tables
}

fn scan_saved_rule(line: &str, place: &str, found: &mut Foreign) {
    let words = words(line);
    let (mut module, mut target) = ("", "");
    // CONNMARK's mask follows its action.
    let mut restores = None;
    for pair in words.windows(2) {
        let [option, value] = pair else { continue };
        let mut mark = |bits, writes| {
            found.marks.push(MarkUse {
                bits,
                writes,
                place: place.to_owned(),
            });
        };
        match (option.as_str(), module, target) {
            ("-m", ..) => module = value,
            ("-j" | "-g", ..) => {
                target = value;
                if target == "HMARK" {
                    mark(u32::MAX, true);
                }
            }
            ("--mark", "mark", "") => {
                if let Some((_, mask)) = value_and_mask(value) {
                    mark(mask, false);
                }
            }
            ("--set-xmark" | "--set-mark", _, "MARK") | ("--tproxy-mark", _, "TPROXY") => {
                if let Some((value, mask)) = value_and_mask(value) {
                    mark(value | mask, true);
                }
            }
            ("--restore-mark", _, "CONNMARK") => restores = Some(u32::MAX),
            ("--nfmask", _, "CONNMARK") if restores.is_some() => restores = number(value),
            ("--queue-num", _, "NFQUEUE") => queue(value, value, place, found),
            ("--queue-balance", _, "NFQUEUE") => {
                if let Some((first, last)) = value.split_once(':') {
                    queue(first, last, place, found);
                }
            }
            _ => {}
        }
    }
    // An action without an argument may be the last word.
    if target == "CONNMARK" && words.last().is_some_and(|word| word == "--restore-mark") {
        restores = Some(u32::MAX);
    }
    if let Some(bits) = restores {
        found.marks.push(MarkUse {
            bits,
            writes: true,
            place: place.to_owned(),
        });
    }
}

fn queue(first: &str, last: &str, place: &str, found: &mut Foreign) {
    if let (Ok(first), Ok(last)) = (first.parse(), last.parse()) {
        found.queues.push(QueueUse {
            first,
            last,
            place: place.to_owned(),
        });
    }
}

/// Looks through `nft -j list ruleset`, but for the tables that iptables-save has shown: JSON
/// keeps the arguments of their targets to itself.
fn scan_nft(ruleset: &Value, saved: &[(&str, String)], found: &mut Foreign) {
    for entry in ruleset["nftables"].as_array().into_iter().flatten() {
        let Some(rule) = entry.get("rule") else {
            continue;
        };
        let text = |key: &str| rule[key].as_str().unwrap_or_default();
        let (family, table) = (text("family"), text("table"));
        if family == "inet" && (table == "sluice" || table.starts_with("sluice-")) {
            found.ours = true;
            continue;
        }
        if saved.iter().any(|(f, t)| *f == family && t == table) {
            continue;
        }
        let place = format!("nft table {family} {table} chain {}", text("chain"));
        for expression in rule["expr"].as_array().into_iter().flatten() {
            scan_nft_expression(expression, &place, found);
        }
    }
}

fn is_mark(value: &Value) -> bool {
    value["meta"]["key"] == "mark"
}

fn bits(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|bits| u32::try_from(bits).ok())
}

/// Bits that `meta mark set VALUE` changes.
fn changed(value: &Value) -> u32 {
    if is_mark(value) {
        return 0;
    }
    for (operator, inverted) in [("&", true), ("|", false), ("^", false)] {
        if let Some([left, right]) = value[operator].as_array().map(Vec::as_slice)
            && let Some(bits) = bits(right)
        {
            return changed(left) | if inverted { !bits } else { bits };
        }
    }
    u32::MAX
}

/// Bits of the mark that an expression looks at.
fn read(value: &Value) -> u32 {
    if is_mark(value) {
        return u32::MAX;
    }
    if let Some([left, right]) = value["&"].as_array().map(Vec::as_slice)
        && is_mark(left)
        && let Some(mask) = bits(right)
    {
        return mask;
    }
    match value {
        Value::Array(items) => items.iter().fold(0, |all, item| all | read(item)),
        Value::Object(members) => members.values().fold(0, |all, item| all | read(item)),
        _ => 0,
    }
}

fn scan_nft_expression(expression: &Value, place: &str, found: &mut Foreign) {
    let mangle = &expression["mangle"];
    let (bits, writes) = if is_mark(&mangle["key"]) {
        (changed(&mangle["value"]), true)
    } else {
        (read(expression), false)
    };
    if bits != 0 {
        found.marks.push(MarkUse {
            bits,
            writes,
            place: place.to_owned(),
        });
    }
    let number = &expression["queue"]["num"];
    let (first, last) = match number["range"].as_array().map(Vec::as_slice) {
        Some([first, last]) => (first.as_u64(), last.as_u64()),
        _ => (number.as_u64(), number.as_u64()),
    };
    if let (Some(first), Some(last)) = (first, last) {
        queue(&first.to_string(), &last.to_string(), place, found);
    }
}

/// Looks through `ip -j rule show`.
fn scan_ip_rules(rules: &Value, found: &mut Foreign) {
    for rule in rules.as_array().into_iter().flatten() {
        let Some(mark) = rule["fwmark"].as_str() else {
            continue;
        };
        let mask = rule["fwmask"].as_str().map_or(Some(u32::MAX), number);
        if let Some(bits) = mask {
            found.marks.push(MarkUse {
                bits,
                writes: false,
                place: format!("ip rule {} fwmark {mark}", rule["priority"]),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn marks(found: &Foreign) -> Vec<(u32, bool)> {
        found
            .marks
            .iter()
            .map(|each| (each.bits, each.writes))
            .collect()
    }

    #[test]
    fn marks_and_queues_of_iptables_rules_are_found() {
        for (rule, expected) in [
            ("-A F -m mark --mark 0x7 -j ACCEPT", vec![(u32::MAX, false)]),
            (
                "-A F -m mark ! --mark 0x7/0xf0 -j ACCEPT",
                vec![(0xf0, false)],
            ),
            ("-A P -j MARK --set-xmark 0x10/0xf0", vec![(0xf0, true)]),
            ("-A P -j MARK --set-xmark 0x100/0x0", vec![(0x100, true)]),
            (
                "-A P -j CONNMARK --restore-mark --nfmask 0xff --ctmask 0xff",
                vec![(0xff, true)],
            ),
            ("-A P -j CONNMARK --restore-mark", vec![(u32::MAX, true)]),
            (
                "-A P -j CONNMARK --save-mark --nfmask 0xff --ctmask 0xff",
                vec![],
            ),
            ("-A P -m connmark --mark 0x7 -j ACCEPT", vec![]),
            (
                "-A P -m comment --comment \"-m mark --mark 0x1\" -j ACCEPT",
                vec![],
            ),
            (
                "-A P -p tcp -j TPROXY --on-port 1 --on-ip 0.0.0.0 --tproxy-mark 0x1/0x1",
                vec![(1, true)],
            ),
        ] {
            let mut found = Foreign::default();
            scan_saved(
                &format!("*mangle\n{rule}\nCOMMIT\n"),
                "iptables",
                &mut found,
            );
            assert_eq!(marks(&found), expected, "{rule}");
        }
        let mut found = Foreign::default();
        scan_saved(
            "*mangle\n-A F -j NFQUEUE --queue-balance 3:6\n-A F -j NFQUEUE --queue-num 8 --queue-bypass\n-A F -j SLUICE-sluice\n",
            "iptables",
            &mut found,
        );
        let queues: Vec<_> = found
            .queues
            .iter()
            .map(|each| (each.first, each.last))
            .collect();
        assert_eq!(queues, [(3, 6), (8, 8)]);
        assert!(found.ours);
    }

    #[test]
    fn marks_and_queues_of_nft_rules_are_found() {
        let mark = json!({"meta": {"key": "mark"}});
        for (expression, expected) in [
            (
                json!({"match": {"op": "==", "left": mark, "right": 5}}),
                vec![(u32::MAX, false)],
            ),
            (
                json!({"match": {"op": "==", "left": {"&": [mark, 240]}, "right": 16}}),
                vec![(240, false)],
            ),
            (
                json!({"mangle": {"key": mark, "value": 9}}),
                vec![(u32::MAX, true)],
            ),
            (
                json!({"mangle": {"key": mark, "value": {"|": [{"&": [mark, 0xffff_00ff_u32]}, 256]}}}),
                vec![(0xff00, true)],
            ),
            (
                json!({"mangle": {"key": mark, "value": {"|": [mark, 64]}}}),
                vec![(64, true)],
            ),
            (
                json!({"mangle": {"key": {"ct": {"key": "mark"}}, "value": {"&": [mark, 255]}}}),
                vec![(255, false)],
            ),
            (
                json!({"vmap": {"key": {"&": [mark, 255]}, "data": {"set": []}}}),
                vec![(255, false)],
            ),
            (json!({"accept": null}), vec![]),
        ] {
            let mut found = Foreign::default();
            scan_nft_expression(&expression, "", &mut found);
            assert_eq!(marks(&found), expected, "{expression}");
        }
        let mut found = Foreign::default();
        for number in [json!(7), json!({"range": [2, 3]}), json!({"numgen": {}})] {
            scan_nft_expression(&json!({"queue": {"num": number}}), "", &mut found);
        }
        let queues: Vec<_> = found
            .queues
            .iter()
            .map(|each| (each.first, each.last))
            .collect();
        assert_eq!(queues, [(7, 7), (2, 3)]);
    }

    #[test]
    fn marks_of_routing_rules_are_found() {
        let mut found = Foreign::default();
        scan_ip_rules(
            &json!([
                {"priority": 1, "fwmark": "0x10", "fwmask": "0xf0"},
                {"priority": 2, "fwmark": "0x5"},
                {"priority": 3, "table": "main"},
            ]),
            &mut found,
        );
        assert_eq!(marks(&found), [(0xf0, false), (u32::MAX, false)]);
    }
}
