//! What follows from the rules that matched a packet: which are reported, and which act.
//!
//! Rules are gone through in the order of evaluation. Thresholds decide whether one is reported
//! or only acts; a pass rule ends it, and cannot take back what a rule before it has dropped.
//! References: "Action" in the rules chapter of Suricata's user guide, and `thresholding`.

use super::conditions::Scene;
use super::engine::{Engine, RuleIndex, Scratch};
use super::lower::Kind;
use super::matching::Noted;
use super::names::NameId;
use super::tag;
use super::threshold::Permission;
use crate::rules::ast::{Action, TagOf};

/// A rule that has matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Queued {
    pub(super) rule: RuleIndex,
    pub(super) in_stream: bool,
    pub(super) transaction: Option<usize>,
}

/// What is known once all rules were asked.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) given_up: u32,
    pub(super) out_of_time: bool,
    pub(super) bypass: bool,
}

/// A rule that matched, and what it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alert {
    /// The rule.
    pub rule: RuleIndex,
    /// What it does: its own action, or that of a `rate_filter`.
    pub action: Action,
    /// Whether that is the action of a `rate_filter`.
    pub rate_filtered: bool,
    /// Whether it acts on the whole flow.
    pub whole_flow: bool,
    /// Whether it matched in the stream, not in the packet.
    pub in_stream: bool,
    /// In which of the transactions in hand it matched.
    pub transaction: Option<usize>,
}

/// What the rules say about a packet.
#[derive(Clone, Copy, Debug)]
pub struct Detection<'a> {
    /// Rules that are reported, in the order of evaluation.
    pub alerts: &'a [Alert],
    /// Rules that drop, reject or pass, reported or not, in the order of evaluation.
    pub acts: &'a [Alert],
    /// Rules that matched, but those that thresholds have taken for not matching.
    pub matched: u32,
    /// Matches beyond the most alerts of one packet.
    pub beyond_limit: u32,
    /// Matches that are not reported because of a threshold, or because their rule never is.
    pub suppressed: u32,
    /// Rules given up because they took too many steps.
    pub given_up: u32,
    /// Whether rules were left out because the packet took too long.
    pub out_of_time: bool,
    /// Whether the rest of the flow shall not be inspected.
    pub bypass: bool,
    /// Whether the packet is to be recorded because of an earlier match.
    pub tagged: bool,
    /// Whether nothing was found of what is searched for in the stream. What comes next need not be
    /// searched together with these bytes.
    pub quiet: bool,
    noted: &'a Noted,
    texts: &'a [(NameId, Box<[u8]>)],
}

impl<'a> Detection<'a> {
    /// The pass rule that ended the evaluation.
    pub fn passed_by(&self) -> Option<RuleIndex> {
        let last = self.acts.last()?;
        (last.action == Action::Pass).then_some(last.rule)
    }

    /// Places in the payload, with the bytes that shall stand there.
    pub fn replacements(&self) -> impl Iterator<Item = (usize, &'a [u8])> {
        self.noted.replacements()
    }

    /// Whether something in the payload shall be replaced.
    pub fn replaces(&self) -> bool {
        self.noted.replaces()
    }

    /// What expressions have captured for this packet.
    pub fn captured(&self) -> impl Iterator<Item = (NameId, &'a [u8])> {
        self.texts.iter().map(|(name, value)| (*name, &**value))
    }
}

impl Engine {
    /// Whether a match of this kind acts on the flow.
    fn reaches_flow(kind: Kind, in_stream: bool, payload_is_stream: bool) -> bool {
        match kind {
            Kind::Addresses
            | Kind::LikeAddresses
            | Kind::Transaction
            | Kind::Application
            | Kind::Protocol => true,
            Kind::Packet => false,
            Kind::Stream | Kind::PacketAndStream => in_stream || payload_is_stream,
        }
    }

    /// Goes through the rules that matched.
    pub(super) fn report<'s>(
        &'s self,
        mut scene: Scene<'_, '_>,
        payload_is_stream: bool,
        counts: Counts,
        scratch: &'s mut Scratch,
    ) -> Detection<'s> {
        let Scratch {
            queue,
            alerts,
            acts,
            ..
        } = scratch;
        queue.sort_unstable();
        alerts.clear();
        acts.clear();
        let (mut matched, mut beyond_limit, mut suppressed) = (0, 0, 0);
        for queued in queue.iter() {
            let signature = &self.signatures[queued.rule.0 as usize];
            let (permission, other_action) = self.permission(queued.rule, &mut scene);
            if permission == Permission::Nothing {
                suppressed += 1;
                continue;
            }
            matched += 1;
            for tag in &signature.tags {
                let rule = signature.key();
                let view = scene.view;
                match tag.of {
                    TagOf::Session => {
                        if let Some(flow) = &mut scene.flow {
                            tag::add(&mut flow.marks.tags, rule, *tag, scene.now);
                        }
                    }
                    TagOf::SourceHost => {
                        scene.tables.hosts.tag(view.source(), rule, *tag, scene.now);
                    }
                    TagOf::DestinationHost => {
                        let hosts = &mut scene.tables.hosts;
                        hosts.tag(view.destination(), rule, *tag, scene.now);
                    }
                }
            }
            let action = other_action.unwrap_or(signature.rule.action);
            let alert = Alert {
                rule: queued.rule,
                action,
                rate_filtered: other_action.is_some(),
                whole_flow: Self::reaches_flow(signature.kind, queued.in_stream, payload_is_stream),
                in_stream: queued.in_stream,
                transaction: queued.transaction,
            };
            if action != Action::Alert {
                acts.push(alert);
            }
            let options = &signature.rule.options;
            let passes = action == Action::Pass;
            if options.no_alert || permission == Permission::Act || (passes && !options.alert) {
                suppressed += u32::from(!passes);
            } else if alerts.len() < self.packet_alert_max {
                alerts.push(alert);
            } else {
                beyond_limit += 1;
            }
            if passes {
                break;
            }
        }
        let length = scene.view.len();
        let mut tagged = false;
        if let Some(flow) = &mut scene.flow
            && !flow.marks.tags.is_empty()
        {
            tagged = tag::packet(&mut flow.marks.tags, length, scene.now);
        }
        for address in [scene.view.source(), scene.view.destination()] {
            tagged |= scene.tables.hosts.packet(address, length, scene.now);
        }
        Detection {
            alerts: &scratch.alerts,
            acts: &scratch.acts,
            matched,
            beyond_limit,
            suppressed,
            given_up: counts.given_up,
            out_of_time: counts.out_of_time,
            bypass: counts.bypass,
            tagged,
            quiet: !scratch.seen.in_stream,
            noted: &scratch.noted,
            texts: &scratch.texts,
        }
    }

    /// What the rule's thresholds say; with the action instead of its own.
    fn permission(
        &self,
        rule: RuleIndex,
        scene: &mut Scene<'_, '_>,
    ) -> (Permission, Option<Action>) {
        let ends = (scene.view.source(), scene.view.destination());
        let mut action = None;
        for (number, threshold) in &self.signatures[rule.0 as usize].thresholds {
            let flow = scene.flow.as_mut().map(|flow| &mut *flow.marks);
            let table = &mut scene.tables.thresholds;
            let (permission, other) = table.matched(*number, threshold, ends, flow, scene.now);
            action = action.or(other);
            if permission != Permission::Report {
                return (permission, action);
            }
        }
        (Permission::Report, action)
    }
}
