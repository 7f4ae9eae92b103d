//! One decision out of all matches of a packet.

use crate::decode::{Decoded, Transport};
use crate::detect::{Alert, Detection, RuleIndex};
use crate::rules::{Action, RejectTarget};

/// How far a `drop`, `reject` or `pass` reaches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DropScope {
    /// Only the packet that matches, for every rule.
    Packet,
    /// As the rule's kind says: the flow, when it matched in the stream or is about addresses
    /// alone, because what follows the hole can never be delivered; else the packet
    /// ("Action Scope" in Suricata's `rules/rule-types`).
    #[default]
    TcpFlow,
    /// The flow, for every rule.
    Flow,
}

impl DropScope {
    fn covers_flow(self, alert: &Alert, packet: &Decoded<'_>) -> bool {
        if says_nothing_about_its_flow(packet) {
            return false;
        }
        match self {
            Self::Packet => false,
            Self::TcpFlow => alert.whole_flow,
            Self::Flow => true,
        }
    }
}

/// Whether a decision about the packet must not be one about its flow: an ICMP error comes with
/// the flow that it quotes, but anybody can send one, and what cannot be read belongs to no flow.
pub(super) fn says_nothing_about_its_flow(packet: &Decoded<'_>) -> bool {
    let of_no_flow = matches!(
        packet.transport,
        Transport::Fragment | Transport::None | Transport::Invalid(_)
    );
    of_no_flow || packet.is_icmp_error()
}

/// What happens to the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It goes on.
    Accept,
    /// It goes on, by a pass rule.
    Pass,
    /// It is dropped.
    Drop,
    /// It is dropped and the ends are told.
    Reject(RejectTarget),
}

impl Outcome {
    /// Whether the packet goes on.
    pub const fn accepts(self) -> bool {
        matches!(self, Self::Accept | Self::Pass)
    }
}

/// The decision about one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What happens to it.
    pub outcome: Outcome,
    /// The rule that decided; none for [`Outcome::Accept`].
    pub rule: Option<RuleIndex>,
    /// Whether it holds for the rest of the flow.
    pub whole_flow: bool,
}

impl Decision {
    /// Nothing matched that acts.
    pub const ACCEPT: Self = Self {
        outcome: Outcome::Accept,
        rule: None,
        whole_flow: false,
    };
}

/// Decides about a packet: the first rule in the order of evaluation that passes, drops or
/// rejects does. When one drops and another rejects, the packet is dropped and the ends are told
/// all the same; what was dropped no rule after it passes.
pub fn decide(detection: &Detection<'_>, packet: &Decoded<'_>, scope: DropScope) -> Decision {
    let mut decision = Decision::ACCEPT;
    for alert in detection.acts {
        let outcome = match alert.action {
            Action::Pass if decision.outcome == Outcome::Accept => Outcome::Pass,
            Action::Drop => Outcome::Drop,
            Action::Reject(target) => Outcome::Reject(target),
            Action::Alert | Action::Pass => continue,
        };
        decision.whole_flow |= scope.covers_flow(alert, packet);
        decision.rule = decision.rule.or(Some(alert.rule));
        decision.outcome = match (decision.outcome, outcome) {
            (Outcome::Reject(first), Outcome::Reject(second)) if first != second => {
                Outcome::Reject(RejectTarget::Both)
            }
            (Outcome::Reject(first), _) => Outcome::Reject(first),
            (_, outcome) => outcome,
        };
    }
    decision
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;
    use crate::decode::protocol;
    use crate::detect::{
        CompileOptions, Detection, Engine, FlowMarks, FlowView, Inspected, Scratch, Tables,
    };
    use crate::flow::{PacketDirection, Tally, Timestamp};
    use crate::rules::{RuleSet, RuleSource};

    fn inspect<'s>(
        engine: &'s Engine,
        packet: &Decoded<'_>,
        marks: &mut FlowMarks,
        tables: &mut Tables,
        scratch: &'s mut Scratch,
    ) -> Detection<'s> {
        let flow = FlowView {
            direction: PacketDirection::ToServer,
            established: false,
            age_s: 0,
            to_server: Tally::default(),
            to_client: Tally::default(),
            stream_sizes: None,
            app: crate::app::Known::NotYet,
            marks,
        };
        let input = Inspected {
            packet,
            flow: Some(flow),
            stream: None,
            stream_events: crate::reassembly::tcp::StreamEvents::NONE,
            only_stream: false,
            only_established: false,
            app: None,
            now: Timestamp::default(),
            tables,
        };
        engine.inspect(input, scratch)
    }

    const TCP: bool = true;
    const UDP: bool = false;

    fn check(scope: DropScope, rules: &str, tcp: bool, expect: (Outcome, Option<u32>, bool)) {
        let loaded = RuleSet::default().load_sources(&[RuleSource::new("t", rules.into())]);
        assert!(loaded.diagnostics.is_empty(), "{rules}");
        let engine = Engine::compile(loaded.rules, &CompileOptions::default())
            .unwrap()
            .engine;
        let mut bytes = Vec::new();
        let ip = PacketBuilder::ipv4([1, 1, 1, 1], [2, 2, 2, 2], 64);
        match tcp {
            true => ip.tcp(1, 2, 3, 4).write(&mut bytes, b"x").unwrap(),
            false => ip.udp(1, 2).write(&mut bytes, b"x").unwrap(),
        }
        let packet = Decoded::parse(&bytes).unwrap();
        let mut scratch = engine.scratch();
        let (mut marks, mut tables) = (FlowMarks::default(), Tables::default());
        let detection = inspect(&engine, &packet, &mut marks, &mut tables, &mut scratch);
        let decision = decide(&detection, &packet, scope);
        let sid = decision
            .rule
            .map(|rule| engine.rule(rule).options.signature_id);
        assert_eq!(
            (decision.outcome, sid, decision.whole_flow),
            expect,
            "{rules}"
        );
    }

    #[test]
    fn the_first_acting_rule_decides() {
        let alert = "alert ip any any -> any any (sid:1;)\n";
        let drop = "drop ip any any -> any any (content:\"x\"; sid:2;)\n";
        let source = "reject ip any any -> any any (content:\"x\"; sid:3;)\n";
        let destination = "rejectdst ip any any -> any any (content:\"x\"; sid:4;)\n";
        let pass = "pass ip any any -> any any (content:\"x\"; sid:5;)\n";
        let scope = DropScope::TcpFlow;
        check(scope, "", TCP, (Outcome::Accept, None, false));
        check(scope, alert, TCP, (Outcome::Accept, None, false));
        check(
            scope,
            &format!("{alert}{drop}"),
            TCP,
            (Outcome::Drop, Some(2), true),
        );
        let reject = |target| Outcome::Reject(target);
        check(
            scope,
            source,
            TCP,
            (reject(RejectTarget::Source), Some(3), true),
        );
        let both = format!("{source}{destination}");
        check(
            scope,
            &both,
            TCP,
            (reject(RejectTarget::Both), Some(3), true),
        );
        let all = format!("{drop}{destination}");
        check(
            scope,
            &all,
            TCP,
            (reject(RejectTarget::Destination), Some(2), true),
        );
        check(
            scope,
            &format!("{alert}{drop}{source}{pass}"),
            TCP,
            (Outcome::Pass, Some(5), true),
        );
    }

    #[test]
    fn the_scope_says_what_a_drop_covers() {
        let content = "drop ip any any -> any any (content:\"x\"; sid:1;)";
        let addresses = "drop ip any any -> 2.2.2.2 any (sid:1;)";
        let ports = "drop udp any any -> any 2 (sid:1;)";
        let dropped = |whole| (Outcome::Drop, Some(1), whole);
        check(DropScope::TcpFlow, content, TCP, dropped(true));
        check(DropScope::TcpFlow, content, UDP, dropped(false));
        check(DropScope::TcpFlow, ports, UDP, dropped(true));
        check(DropScope::TcpFlow, addresses, UDP, dropped(true));
        check(DropScope::Packet, addresses, TCP, dropped(false));
        check(DropScope::Flow, content, UDP, dropped(true));
    }

    #[test]
    fn an_icmp_error_decides_nothing_about_the_flow_that_it_quotes() {
        let mut quoted = Vec::new();
        PacketBuilder::ipv4([1, 1, 1, 1], [2, 2, 2, 2], 64)
            .tcp(1, 2, 3, 4)
            .write(&mut quoted, b"x")
            .unwrap();
        let mut bytes = Vec::new();
        PacketBuilder::ipv4([2, 2, 2, 2], [1, 1, 1, 1], 64)
            .icmpv4_raw(3, 1, [0; 4])
            .write(&mut bytes, &quoted)
            .unwrap();
        let packet = Decoded::parse(&bytes).unwrap();
        assert_eq!(packet.key.protocol, protocol::TCP);
        for action in ["pass", "drop", "reject"] {
            let rule = format!("{action} icmp any any -> any any (sid:1;)");
            let loaded = RuleSet::default().load_sources(&[RuleSource::new("t", rule.into())]);
            let engine = Engine::compile(loaded.rules, &CompileOptions::default())
                .unwrap()
                .engine;
            let mut scratch = engine.scratch();
            let (mut marks, mut tables) = (FlowMarks::default(), Tables::default());
            let detection = inspect(&engine, &packet, &mut marks, &mut tables, &mut scratch);
            for scope in [DropScope::Packet, DropScope::TcpFlow, DropScope::Flow] {
                let decision = decide(&detection, &packet, scope);
                assert!(decision.rule.is_some(), "{action}");
                assert!(!decision.whole_flow, "{action} {scope:?}");
            }
        }
    }
}
