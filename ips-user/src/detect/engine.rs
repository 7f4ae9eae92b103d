//! All rules against one packet.

use std::collections::HashMap;

use super::contents::{Contents, Haystack, Outcome};
use super::prefilter::{BuildPrefilter, LiteralId, Prefilter, PrefilterError};
use crate::decode::{Decoded, protocol};
use crate::rules::{Action, Arrow, Content, Match, Rule, RuleProtocol};

/// Position of a rule in its engine: the order in which rules are evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleIndex(u32);

/// Most alerts of one packet, as Suricata's `packet-alert-max`; further ones are counted.
pub const PACKET_ALERT_MAX: usize = 15;

/// Rules that a packet is checked against, chosen by its IP protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Group {
    Tcp,
    Udp,
    Icmp,
    Other,
}

impl Group {
    const ALL: [Self; 4] = [Self::Tcp, Self::Udp, Self::Icmp, Self::Other];

    /// Of a packet whose transport cannot be read only what the IP header says is known, so it
    /// gets the rules about IP.
    fn of_packet(packet: &Decoded<'_>) -> Self {
        if packet.invalid().is_some() {
            return Self::Other;
        }
        match packet.protocol() {
            protocol::TCP => Self::Tcp,
            protocol::UDP => Self::Udp,
            protocol::ICMP | protocol::ICMPV6 => Self::Icmp,
            _ => Self::Other,
        }
    }

    fn holds(self, rule: RuleProtocol) -> bool {
        match rule {
            RuleProtocol::Ip | RuleProtocol::Ipv4 | RuleProtocol::Ipv6 => true,
            RuleProtocol::Tcp | RuleProtocol::TcpPacket => self == Self::Tcp,
            RuleProtocol::Udp => self == Self::Udp,
            RuleProtocol::Icmp | RuleProtocol::Icmpv4 | RuleProtocol::Icmpv6 => self == Self::Icmp,
            RuleProtocol::Sctp => self == Self::Other,
            _ => false,
        }
    }
}

/// The rules of one group.
#[derive(Clone, Debug, Default)]
struct GroupRules {
    prefilter: Option<Box<dyn Prefilter>>,
    /// For each literal of the prefilter the rules that need it.
    by_literal: Vec<Box<[RuleIndex]>>,
    /// Rules that no literal selects, in order.
    always: Vec<RuleIndex>,
    /// Whether any rule has contents: else payloads need not be looked at.
    reads_payload: bool,
}

#[derive(Clone, Debug)]
struct Compiled {
    contents: Contents,
    rule: Rule,
    any_source: bool,
    any_destination: bool,
    any_source_port: bool,
    any_destination_port: bool,
}

/// A compiled rule set: immutable, shared by all workers.
///
/// Its clone owns everything that it points to, so that it can be put into an
/// [image](super::image).
#[derive(Clone, Debug)]
pub struct Engine {
    rules: Vec<Compiled>,
    groups: [GroupRules; Group::ALL.len()],
}

/// Working memory of one worker. Nothing is allocated for a packet once it has grown to the
/// largest payload.
#[derive(Debug)]
pub struct Scratch {
    lowered: Vec<u8>,
    /// For each literal the packet in which it was last seen.
    seen: Vec<u64>,
    packet: u64,
    candidates: Vec<RuleIndex>,
    matches: Vec<RuleIndex>,
}

/// What the rules say about a packet.
#[derive(Clone, Copy, Debug)]
pub struct Detection<'a> {
    /// Rules that matched, in order of evaluation: drop, reject, alert; within an action by
    /// priority. Without those that neither act nor report.
    pub matches: &'a [RuleIndex],
    /// The pass rule that ended the evaluation.
    pub passed_by: Option<RuleIndex>,
    /// Matches beyond [`PACKET_ALERT_MAX`].
    pub beyond_limit: u32,
    /// Rules given up because their contents took too many searches.
    pub given_up: u32,
}

/// Evaluation order, Suricata's default `action-order`.
fn rank(action: Action) -> u8 {
    match action {
        Action::Pass => 0,
        Action::Drop => 1,
        Action::Reject(_) => 2,
        Action::Alert => 3,
    }
}

impl Engine {
    /// Compiles rules.
    ///
    /// # Errors
    /// When the prefilter cannot be built.
    pub fn compile(mut rules: Vec<Rule>, build: BuildPrefilter) -> Result<Self, PrefilterError> {
        // Stable: rules of the same action and priority stay in the order of the files.
        rules.sort_by_key(|rule| (rank(rule.action), rule.options.priority));
        let rules: Vec<Compiled> = rules.into_iter().map(Compiled::new).collect();
        let mut groups: [GroupRules; Group::ALL.len()] = Default::default();
        for (slot, group) in groups.iter_mut().zip(Group::ALL) {
            *slot = GroupRules::compile(group, &rules, build)?;
        }
        Ok(Self { rules, groups })
    }

    /// Number of rules.
    pub fn rule_count(&self) -> usize {
        self.rules.len()
    }

    /// Bytes of memory that the prefilters take.
    pub fn prefilter_bytes(&self) -> usize {
        let prefilters = self
            .groups
            .iter()
            .filter_map(|group| group.prefilter.as_ref());
        prefilters.map(|prefilter| prefilter.heap_bytes()).sum()
    }

    /// A rule that matched.
    pub fn rule(&self, index: RuleIndex) -> &Rule {
        &self.rules[index.0 as usize].rule
    }

    /// Working memory for this engine.
    pub fn scratch(&self) -> Scratch {
        let literals = self.groups.iter().map(|group| group.by_literal.len()).max();
        Scratch {
            lowered: Vec::with_capacity(usize::from(u16::MAX)),
            seen: vec![0; literals.unwrap_or(0)],
            packet: 0,
            candidates: Vec::with_capacity(self.rules.len()),
            matches: Vec::with_capacity(PACKET_ALERT_MAX),
        }
    }

    /// Evaluates the rules on one packet. `scratch` must come from this engine.
    pub fn inspect<'s>(&self, packet: &Decoded<'_>, scratch: &'s mut Scratch) -> Detection<'s> {
        let group = &self.groups[Group::of_packet(packet) as usize];
        let Scratch {
            lowered,
            seen,
            packet: number,
            candidates,
            matches,
        } = scratch;
        matches.clear();
        candidates.clear();
        candidates.extend_from_slice(&group.always);
        lowered.clear();
        if group.reads_payload {
            lowered.extend(packet.payload.iter().map(u8::to_ascii_lowercase));
        }
        if let Some(prefilter) = &group.prefilter
            && !lowered.is_empty()
        {
            *number += 1;
            prefilter.scan(lowered, &mut |literal: LiteralId| {
                let last_seen = &mut seen[literal as usize];
                if *last_seen != *number {
                    *last_seen = *number;
                    candidates.extend_from_slice(&group.by_literal[literal as usize]);
                }
            });
            candidates.sort_unstable();
        }
        let haystack = Haystack {
            exact: packet.payload,
            lowered,
        };
        let mut beyond_limit = 0;
        let mut given_up = 0;
        let mut passed_by = None;
        for &index in candidates.iter() {
            let compiled = &self.rules[index.0 as usize];
            if !compiled.header_matches(packet) {
                continue;
            }
            match compiled.contents_match(haystack) {
                Outcome::NoMatch => continue,
                Outcome::GaveUp => {
                    given_up += 1;
                    continue;
                }
                Outcome::Match => {}
            }
            match compiled.rule.action {
                Action::Pass => {
                    passed_by = Some(index);
                    break;
                }
                Action::Alert if compiled.rule.options.no_alert => {}
                _ if matches.len() < PACKET_ALERT_MAX => matches.push(index),
                _ => beyond_limit += 1,
            }
        }
        Detection {
            matches,
            passed_by,
            beyond_limit,
            given_up,
        }
    }
}

impl GroupRules {
    fn compile(
        group: Group,
        rules: &[Compiled],
        build: BuildPrefilter,
    ) -> Result<Self, PrefilterError> {
        let mut literals: Vec<Vec<u8>> = Vec::new();
        let mut numbers: HashMap<Vec<u8>, usize> = HashMap::new();
        let mut by_literal: Vec<Vec<RuleIndex>> = Vec::new();
        let mut this = Self::default();
        for (index, compiled) in (0..).map(RuleIndex).zip(rules) {
            if !group.holds(compiled.rule.protocol) {
                continue;
            }
            this.reads_payload |= !compiled.contents.is_empty();
            let Some(literal) = prefilter_literal(&compiled.rule) else {
                this.always.push(index);
                continue;
            };
            let number = *numbers.entry(literal).or_insert_with_key(|literal| {
                literals.push(literal.clone());
                by_literal.push(Vec::new());
                literals.len() - 1
            });
            by_literal[number].push(index);
        }
        if !literals.is_empty() {
            this.prefilter = Some(build(&literals)?);
        }
        this.by_literal = by_literal.into_iter().map(Into::into).collect();
        Ok(this)
    }
}

/// The literal that must be in the payload for the rule to match: the one marked
/// `fast_pattern`, else the longest. Lower case; the exact check comes later.
fn prefilter_literal(rule: &Rule) -> Option<Vec<u8>> {
    let matches = rule.options.sections.iter().flat_map(|s| &s.matches);
    let contents = matches.filter_map(|found| match found {
        Match::Content(content) if !content.negated => Some(content),
        _ => None,
    });
    contents
        .max_by_key(|content: &&Content| (content.fast_pattern.is_some(), content.pattern.len()))
        .map(|content| content.pattern.to_ascii_lowercase())
}

impl Compiled {
    fn new(rule: Rule) -> Self {
        Self {
            contents: Contents::of(&rule),
            any_source: rule.source.is_all(),
            any_destination: rule.destination.is_all(),
            any_source_port: rule.source_ports.is_all(),
            any_destination_port: rule.destination_ports.is_all(),
            rule,
        }
    }

    fn contents_match(&self, haystack: Haystack<'_>) -> Outcome {
        if self.contents.is_empty() {
            return Outcome::Match;
        }
        // A rule about the payload says nothing about a packet without one, not even when
        // its contents are all negated.
        if haystack.exact.is_empty() {
            return Outcome::NoMatch;
        }
        self.contents.matches(haystack)
    }

    fn header_matches(&self, packet: &Decoded<'_>) -> bool {
        let number = packet.protocol();
        let protocol_matches = match self.rule.protocol {
            RuleProtocol::Ip => packet.network.is_some(),
            RuleProtocol::Ipv4 => packet.is_ipv4(),
            RuleProtocol::Ipv6 => packet.is_ipv6(),
            RuleProtocol::Tcp | RuleProtocol::TcpPacket => number == protocol::TCP,
            RuleProtocol::Udp => number == protocol::UDP,
            RuleProtocol::Sctp => number == protocol::SCTP,
            RuleProtocol::Icmp => number == protocol::ICMP || number == protocol::ICMPV6,
            RuleProtocol::Icmpv4 => number == protocol::ICMP,
            RuleProtocol::Icmpv6 => number == protocol::ICMPV6,
            _ => false,
        };
        protocol_matches
            && (self.ends_match(packet, false)
                || (self.rule.direction == Arrow::Either && self.ends_match(packet, true)))
    }

    fn ends_match(&self, packet: &Decoded<'_>, reversed: bool) -> bool {
        let (source, destination) = if reversed {
            (packet.destination(), packet.source())
        } else {
            (packet.source(), packet.destination())
        };
        let ports_match = match packet.ports {
            None => self.any_source_port && self.any_destination_port,
            Some((first, second)) => {
                let (source, destination) = if reversed {
                    (second, first)
                } else {
                    (first, second)
                };
                (self.any_source_port || self.rule.source_ports.contains(source))
                    && (self.any_destination_port
                        || self.rule.destination_ports.contains(destination))
            }
        };
        ports_match
            && (self.any_source || self.rule.source.contains(source))
            && (self.any_destination || self.rule.destination.contains(destination))
    }
}

#[cfg(test)]
mod tests;
