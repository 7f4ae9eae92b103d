//! An instance's nftables table: what is there, what shall be there, and the transaction
//! between them.
//!
//! ```text
//! table inet sluice {
//!     map queues { type mark : verdict; elements = { 0x00010000 : jump queue-101, … } }
//!     set steered { type ifname; elements = { "eth0", "eth1" } }
//!     chain steer {
//!         type filter hook forward priority 150; policy accept;
//!         meta mark & 0x00ff0000 vmap @queues
//!         iifname @steered meta mark & 0x00ff0000 == 0 jump gate
//!     }
//!     chain queue-101 { counter queue flags bypass to 101 }
//!     chain gate { counter drop }
//! }
//! ```
//!
//! A mark that is not in the map goes on to the next rule, and the chain's policy accepts:
//! released packets cost one failed hash lookup. A chain for each queue is there for its
//! counter (a `queue to … map` has only one for all), and for changes that touch one queue.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::plan::{Extent, Fail, Hook, Plan};

/// Name of an instance's table. The prefix keeps an instance called `filter` away from
/// somebody's `inet filter`.
pub fn table_name(instance: &str) -> String {
    if instance == "sluice" {
        instance.to_owned()
    } else {
        format!("sluice-{instance}")
    }
}

const STEER: &str = "steer";
const GATE: &str = "gate";
const QUEUES: &str = "queues";
const STEERED: &str = "steered";
const QUEUE_PREFIX: &str = "queue-";

/// A rule as `nft -j` lists it and as `nft -f` takes it.
#[derive(Clone, Debug, PartialEq)]
struct Rule {
    listed: Value,
    text: String,
}

/// The table as it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Present {
    /// Hook and priority of the base chain.
    base: Option<(String, i64)>,
    /// Rules of each chain, counters at zero.
    chains: BTreeMap<String, Vec<Value>>,
    /// Packets and bytes of the first counter in each chain.
    counted: BTreeMap<String, (u64, u64)>,
    /// Mark → chain.
    marks: BTreeMap<u32, String>,
    has_map: bool,
    interfaces: BTreeSet<String>,
    has_set: bool,
}

/// The table as it shall be.
struct Wanted {
    hook: Hook,
    priority: i32,
    chains: BTreeMap<String, Vec<Rule>>,
    marks: BTreeMap<u32, String>,
    interfaces: BTreeSet<String>,
}

fn masked_mark(mask: u32) -> Value {
    json!({"&": [{"meta": {"key": "mark"}}, mask]})
}

fn vmap_rule(mask: u32) -> Rule {
    Rule {
        listed: json!([{"vmap": {"key": masked_mark(mask), "data": format!("@{QUEUES}")}}]),
        text: format!("meta mark & {mask:#010x} vmap @{QUEUES}"),
    }
}

/// With a mask for packets without a mark, else for all.
fn gate_rule(mask: Option<u32>) -> Rule {
    let interface = json!({"match": {"op": "==", "left": {"meta": {"key": "iifname"}},
        "right": format!("@{STEERED}")}});
    let jump = json!({"jump": {"target": GATE}});
    match mask {
        Some(mask) => {
            let unmarked = json!({"match": {"op": "==", "left": masked_mark(mask), "right": 0}});
            Rule {
                listed: json!([interface, unmarked, jump]),
                text: format!("iifname @{STEERED} meta mark & {mask:#010x} == 0 jump {GATE}"),
            }
        }
        None => Rule {
            listed: json!([interface, jump]),
            text: format!("iifname @{STEERED} jump {GATE}"),
        },
    }
}

fn counter() -> Value {
    json!({"counter": {"packets": 0, "bytes": 0}})
}

fn drop_rule() -> Rule {
    Rule {
        listed: json!([counter(), {"drop": null}]),
        text: "counter packets 0 bytes 0 drop".to_owned(),
    }
}

fn queue_rule(queue: u16, fail: Fail) -> Rule {
    let (listed, flags) = match fail {
        Fail::Open => (json!({"num": queue, "flags": "bypass"}), "flags bypass "),
        Fail::Closed => (json!({"num": queue}), ""),
    };
    Rule {
        listed: json!([counter(), {"queue": listed}]),
        text: format!("counter packets 0 bytes 0 queue {flags}to {queue}"),
    }
}

fn queue_of(chain: &str) -> Option<u16> {
    chain.strip_prefix(QUEUE_PREFIX)?.parse().ok()
}

impl Present {
    /// Reads what `nft -j list table` said; anything that is not understood counts as nothing.
    pub(super) fn parse(listing: &Value) -> Self {
        let mut present = Self::default();
        let text = |object: &Value, key: &str| object[key].as_str().unwrap_or_default().to_owned();
        for entry in listing["nftables"].as_array().into_iter().flatten() {
            if let Some(chain) = entry.get("chain") {
                let name = text(chain, "name");
                if name == STEER && chain["policy"] == "accept" {
                    present.base = chain["prio"]
                        .as_i64()
                        .map(|prio| (text(chain, "hook"), prio));
                }
                present.chains.entry(name).or_default();
            } else if let Some(rule) = entry.get("rule") {
                present.add_rule(text(rule, "chain"), rule["expr"].clone());
            } else if let Some(map) = entry.get("map").filter(|it| it["name"] == QUEUES) {
                present.has_map = true;
                for pair in map["elem"].as_array().into_iter().flatten() {
                    let mark = pair[0].as_u64().and_then(|mark| u32::try_from(mark).ok());
                    if let (Some(mark), Some(chain)) = (mark, pair[1]["jump"]["target"].as_str()) {
                        present.marks.insert(mark, chain.to_owned());
                    }
                }
            } else if let Some(set) = entry.get("set").filter(|it| it["name"] == STEERED) {
                present.has_set = true;
                let names = set["elem"].as_array().into_iter().flatten();
                let names = names.filter_map(Value::as_str).map(str::to_owned);
                present.interfaces.extend(names);
            }
        }
        present
    }

    fn add_rule(&mut self, chain: String, mut listed: Value) {
        for part in listed.as_array_mut().into_iter().flatten() {
            let Some(found) = part.get("counter") else {
                continue;
            };
            let figure = |key: &str| found[key].as_u64().unwrap_or(0);
            let figures = (figure("packets"), figure("bytes"));
            self.counted.entry(chain.clone()).or_insert(figures);
            *part = counter();
        }
        self.chains.entry(chain).or_default().push(listed);
    }

    /// Packets that each queue's rule has counted.
    pub(super) fn queue_packets(&self) -> BTreeMap<u16, u64> {
        self.counted
            .iter()
            .filter_map(|(chain, (packets, _))| Some((queue_of(chain)?, *packets)))
            .collect()
    }

    /// The interfaces of the gate and what it dropped; `None` without a gate.
    pub(super) fn gate(&self) -> Option<(BTreeSet<String>, u64)> {
        self.chains.get(GATE)?;
        let dropped = self.counted.get(GATE).map_or(0, |(packets, _)| *packets);
        Some((self.interfaces.clone(), dropped))
    }

    pub(super) fn has_queues(&self) -> bool {
        !self.marks.is_empty()
    }

    /// Everything but the counters: to see whether it is still as it was.
    pub(super) fn listing(&self) -> Vec<String> {
        let without = Self {
            counted: BTreeMap::new(),
            ..self.clone()
        };
        vec![format!("{without:?}")]
    }

    /// The mask by which packets are looked up.
    fn mask(&self) -> Option<u32> {
        let rules = self.chains.get(STEER)?;
        let mask = rules
            .iter()
            .find_map(|rule| rule.pointer("/0/vmap/key/&/1")?.as_u64());
        mask.and_then(|mask| u32::try_from(mask).ok())
    }
}

impl Wanted {
    fn of(plan: &Plan, extent: Extent, present: &Present) -> Self {
        let mut wanted = Self {
            hook: plan.hook,
            priority: plan.priority,
            chains: BTreeMap::new(),
            marks: BTreeMap::new(),
            interfaces: BTreeSet::new(),
        };
        let mut mask = plan.mark.mask();
        match extent {
            Extent::Everything => {
                for (mark, queue) in plan.marks() {
                    wanted.queue(mark, queue, plan.fail);
                }
            }
            Extent::GateBeside => {
                // The programs of a former run may go on marking by its mask.
                mask = present.mask().unwrap_or(mask);
                for (mark, chain) in &present.marks {
                    if let Some(queue) = queue_of(chain) {
                        wanted.queue(*mark, queue, Fail::Closed);
                    }
                }
            }
            Extent::GateAlone => {}
        }
        let mut steer = Vec::new();
        let queues = !wanted.marks.is_empty();
        if queues {
            steer.push(vmap_rule(mask));
        }
        if plan.has_gate() {
            wanted.interfaces = plan.interfaces.iter().cloned().collect();
            // Where nothing queues marked packets, they must not pass either.
            steer.push(gate_rule(queues.then_some(mask)));
            wanted.chains.insert(GATE.to_owned(), vec![drop_rule()]);
        }
        wanted.chains.insert(STEER.to_owned(), steer);
        wanted
    }

    fn queue(&mut self, mark: u32, queue: u16, fail: Fail) {
        let chain = format!("{QUEUE_PREFIX}{queue}");
        let rule = queue_rule(queue, fail);
        self.chains.insert(chain.clone(), vec![rule]);
        self.marks.insert(mark, chain);
    }
}

/// The transaction that makes the table of `instance` what `extent` of the plan says; `None`
/// when it is that already. The base chain stays if its hook and priority do.
pub(super) fn change(plan: &Plan, extent: Extent, present: Option<&Present>) -> Option<String> {
    let nothing = Present::default();
    let table = table_name(&plan.instance);
    let wanted = Wanted::of(plan, extent, present.unwrap_or(&nothing));
    let base = (
        wanted.hook.nft_name().to_owned(),
        i64::from(wanted.priority),
    );
    let usable = present.filter(|it| it.base.as_ref() == Some(&base));
    let mut text = String::new();
    if present.is_some() && usable.is_none() {
        let _ = writeln!(text, "delete table inet {table}");
    }
    let present = usable.unwrap_or(&nothing);
    if usable.is_none() {
        let _ = writeln!(text, "add table inet {table}");
        let _ = writeln!(
            text,
            "add chain inet {table} {STEER} {{ type filter hook {} priority {}; policy accept; }}",
            wanted.hook, wanted.priority
        );
    }
    if !present.has_map {
        let _ = writeln!(
            text,
            "add map inet {table} {QUEUES} {{ type mark : verdict; }}"
        );
    }
    if !present.has_set {
        let _ = writeln!(text, "add set inet {table} {STEERED} {{ type ifname; }}");
    }
    change_chains(&mut text, &table, present, &wanted);
    (!text.is_empty()).then_some(text)
}

fn change_chains(text: &mut String, table: &str, present: &Present, wanted: &Wanted) {
    let mut line = |line: String| {
        text.push_str(&line);
        text.push('\n');
    };
    // A chain cannot be flushed of what it holds while rules are added to it out of order:
    // first what others refer to, then who refers to it, then what nobody refers to any more.
    let differs = |name: &str, rules: &[Rule]| {
        let listed: Option<Vec<_>> = present.chains.get(name).cloned();
        listed != Some(rules.iter().map(|rule| rule.listed.clone()).collect())
    };
    let below = wanted.chains.iter().filter(|(name, _)| *name != STEER);
    let base = wanted.chains.get_key_value(STEER);
    for (name, _) in below.clone() {
        if !present.chains.contains_key(name) {
            line(format!("add chain inet {table} {name}"));
        }
    }
    for (name, rules) in below.chain(base) {
        if !differs(name, rules) {
            continue;
        }
        if present.chains.get(name).is_some_and(|it| !it.is_empty()) {
            line(format!("flush chain inet {table} {name}"));
        }
        let (packets, bytes) = present.counted.get(name).copied().unwrap_or_default();
        for rule in rules {
            // What the chain has counted goes on.
            let counted = format!("counter packets {packets} bytes {bytes}");
            let text = rule.text.replace("counter packets 0 bytes 0", &counted);
            line(format!("add rule inet {table} {name} {text}"));
        }
    }
    for (mark, chain) in &present.marks {
        if wanted.marks.get(mark) != Some(chain) {
            line(format!(
                "delete element inet {table} {QUEUES} {{ {mark:#010x} }}"
            ));
        }
    }
    for (mark, chain) in &wanted.marks {
        if present.marks.get(mark) != Some(chain) {
            line(format!(
                "add element inet {table} {QUEUES} {{ {mark:#010x} : jump {chain} }}"
            ));
        }
    }
    for interface in present.interfaces.difference(&wanted.interfaces) {
        line(format!(
            "delete element inet {table} {STEERED} {{ \"{interface}\" }}"
        ));
    }
    for interface in wanted.interfaces.difference(&present.interfaces) {
        line(format!(
            "add element inet {table} {STEERED} {{ \"{interface}\" }}"
        ));
    }
    for (name, rules) in &present.chains {
        if !wanted.chains.contains_key(name) {
            if !rules.is_empty() {
                line(format!("flush chain inet {table} {name}"));
            }
            line(format!("delete chain inet {table} {name}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use ips_common::{MarkLayout, Steer};
    use nix::sched::{CloneFlags, unshare};

    use super::*;
    use crate::netfilter::command::{find_program, run};

    fn plan(workers: u32, fail: Fail) -> Plan {
        let queues = (0..workers).map(|index| (Steer::Worker(index), 101 + index as u16));
        Plan {
            instance: "sluice".to_owned(),
            hook: Hook::Forward,
            priority: 150,
            mark: MarkLayout::new(0x00ff_0000, workers).unwrap(),
            queues: queues.chain([(Steer::Backup, 100)]).collect(),
            interfaces: vec!["eth0".to_owned(), "eth1".to_owned()],
            fail,
            backend: None,
        }
    }

    #[test]
    fn a_first_installation_is_one_transaction() {
        assert_eq!(
            change(&plan(1, Fail::Closed), Extent::Everything, None).unwrap(),
            "add table inet sluice\n\
             add chain inet sluice steer { type filter hook forward priority 150; policy accept; }\n\
             add map inet sluice queues { type mark : verdict; }\n\
             add set inet sluice steered { type ifname; }\n\
             add chain inet sluice gate\n\
             add chain inet sluice queue-100\n\
             add chain inet sluice queue-101\n\
             add rule inet sluice gate counter packets 0 bytes 0 drop\n\
             add rule inet sluice queue-100 counter packets 0 bytes 0 queue to 100\n\
             add rule inet sluice queue-101 counter packets 0 bytes 0 queue to 101\n\
             add rule inet sluice steer meta mark & 0x00ff0000 vmap @queues\n\
             add rule inet sluice steer iifname @steered meta mark & 0x00ff0000 == 0 jump gate\n\
             add element inet sluice queues { 0x00010000 : jump queue-101 }\n\
             add element inet sluice queues { 0x00fe0000 : jump queue-100 }\n\
             add element inet sluice steered { \"eth0\" }\n\
             add element inet sluice steered { \"eth1\" }\n"
        );
        let open = change(&plan(1, Fail::Open), Extent::Everything, None).unwrap();
        assert!(open.contains("queue flags bypass to 101"), "{open}");
        assert!(!open.contains("gate"), "{open}");
    }

    /// The kernels of test machines have no queue expression: in what is committed a log level
    /// that nobody uses stands in for it, and is read back as what it stands for.
    struct Table {
        nft: std::path::PathBuf,
    }

    impl Table {
        fn list(&self) -> Option<Present> {
            let listed = run(&self.nft, &["-j", "list", "table", "inet", "sluice"], "").ok()?;
            let mut listing: Value = serde_json::from_str(&listed).unwrap();
            for entry in listing["nftables"].as_array_mut().unwrap() {
                let Some(rule) = entry.get_mut("rule") else {
                    continue;
                };
                for part in rule["expr"].as_array_mut().unwrap() {
                    let Some(log) = part.get("log") else { continue };
                    let prefix = log["prefix"].as_str().unwrap();
                    let mut queue = json!({"num": prefix[1..].parse::<u16>().unwrap()});
                    if prefix.starts_with('b') {
                        queue["flags"] = "bypass".into();
                    }
                    *part = json!({"queue": queue});
                }
            }
            Some(Present::parse(&listing))
        }

        fn install(&self, plan: &Plan, extent: Extent) -> Option<String> {
            let text = change(plan, extent, self.list().as_ref())?;
            let mut stood_in = String::new();
            for line in text.lines() {
                let line = match line.split_once("queue flags bypass to ") {
                    Some((before, queue)) => format!("{before}log prefix \"b{queue}\""),
                    None => match line.split_once("queue to ") {
                        Some((before, queue)) => format!("{before}log prefix \"c{queue}\""),
                        None => line.to_owned(),
                    },
                };
                stood_in.push_str(&line);
                stood_in.push('\n');
            }
            run(&self.nft, &["-f", "-"], &stood_in)
                .unwrap_or_else(|error| panic!("{error}\n{text}"));
            Some(text)
        }
    }

    #[test]
    fn the_kernel_takes_every_change_in_place_and_a_second_one_is_none() {
        let Some(nft) = find_program("nft") else {
            println!("skipped: nft is not installed");
            return;
        };
        let thread = std::thread::spawn(move || {
            if unshare(CloneFlags::CLONE_NEWNET).is_err() {
                println!("skipped: a network namespace needs root");
                return;
            }
            let table = Table { nft };
            let mut other_mask = plan(3, Fail::Open);
            other_mask.mark = MarkLayout::new(0xfff0, 3).unwrap();
            let mut fewer_interfaces = plan(3, Fail::Closed);
            fewer_interfaces.interfaces.truncate(1);
            let steps = [
                (plan(2, Fail::Closed), Extent::GateAlone),
                (plan(2, Fail::Closed), Extent::Everything),
                (plan(40, Fail::Closed), Extent::Everything),
                (plan(3, Fail::Open), Extent::Everything),
                (plan(3, Fail::Closed), Extent::GateBeside),
                (fewer_interfaces, Extent::Everything),
                (other_mask, Extent::Everything),
                (plan(1, Fail::Closed), Extent::GateAlone),
                (plan(1, Fail::Open), Extent::Everything),
            ];
            for (number, (plan, extent)) in steps.into_iter().enumerate() {
                let text = table.install(&plan, extent).expect("a change");
                assert!(number == 0 || !text.contains("add table"), "{text}");
                assert!(!text.contains("delete table"), "{text}");
                let present = table.list().expect("the table");
                assert_eq!(
                    present.gate().map(|(interfaces, _)| interfaces.len()),
                    plan.has_gate().then_some(plan.interfaces.len()),
                );
                assert_eq!(present.has_queues(), extent != Extent::GateAlone);
                assert_eq!(change(&plan, extent, Some(&present)), None, "after {text}");
            }
            // Another hook is another base chain.
            let mut input = plan(1, Fail::Open);
            input.hook = Hook::Input;
            let text = table.install(&input, Extent::Everything).expect("a change");
            assert!(text.starts_with("delete table inet sluice\n"), "{text}");
        });
        thread.join().unwrap();
    }

    #[test]
    fn nft_itself_takes_the_queue_rules() {
        let Some(nft) = find_program("nft") else {
            println!("skipped: nft is not installed");
            return;
        };
        for fail in [Fail::Open, Fail::Closed] {
            let text = change(&plan(2, fail), Extent::Everything, None).unwrap();
            match run(&nft, &["-c", "-f", "-"], &text) {
                Ok(_) => {}
                Err(failure) if failure.lacks_privilege() => {
                    println!("skipped: {}", failure.summary());
                }
                // The kernel's answer, not nft's: it knows no queue expression.
                Err(failure) => {
                    let said = &failure.stderr;
                    assert!(said.contains("No such file or directory"), "{failure}");
                    assert!(!said.contains("syntax error"), "{failure}");
                    println!("skipped: {}", failure.summary());
                }
            }
        }
    }

    #[test]
    fn counters_survive_a_change_of_their_rule_and_no_listing_makes_the_parser_panic() {
        let listing = json!({"nftables": [
            {"metainfo": {}}, {"chain": {}}, {"rule": {"chain": "queue-x", "expr": 3}}, 7,
            {"chain": {"name": "steer", "hook": "forward", "prio": 150, "policy": "accept"}},
            {"map": {"name": "queues", "elem": [[65536, {"jump": {"target": "queue-101"}}], 4, []]}},
            {"set": {"name": "steered", "elem": ["eth0", 5]}},
            {"chain": {"name": "queue-101"}},
            {"rule": {"chain": "queue-101", "expr": [
                {"counter": {"packets": 12, "bytes": 720}}, {"queue": {"num": 101, "flags": "bypass"}}]}},
        ]});
        let present = Present::parse(&listing);
        assert_eq!(present.queue_packets(), BTreeMap::from([(101, 12)]));
        let text = change(&plan(1, Fail::Closed), Extent::Everything, Some(&present)).unwrap();
        assert!(
            text.contains("flush chain inet sluice queue-101\n"),
            "{text}"
        );
        assert!(
            text.contains(
                "add rule inet sluice queue-101 counter packets 12 bytes 720 queue to 101\n"
            ),
            "{text}"
        );
        assert_eq!(Present::parse(&json!(null)), Present::default());
    }

    #[test]
    fn an_instance_named_like_somebodys_table_gets_a_table_of_its_own() {
        assert_eq!(table_name("filter"), "sluice-filter");
        assert_eq!(table_name("sluice"), "sluice");
        assert_ne!(table_name("dmz"), table_name("sluice-dmz"));
    }
}
