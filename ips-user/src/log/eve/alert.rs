//! `alert`: the rule that has matched.

use std::collections::BTreeMap;

use serde::Serialize;

use super::PacketContext;
use super::record::Ip;
use crate::config::settings::AlertMetadata;
use crate::rules::ast::Target;
use crate::rules::{Action, Rule};

#[derive(Debug, Serialize)]
pub(super) struct AlertFields<'a> {
    action: &'static str,
    gid: u32,
    signature_id: u32,
    rev: u32,
    signature: &'a str,
    category: &'a str,
    severity: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<EndFields>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<EndFields>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<BTreeMap<&'a str, Vec<&'a str>>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    references: Vec<String>,
}

/// Who attacks and who is attacked, as the rule's `target` says.
#[derive(Debug, Serialize)]
struct EndFields {
    ip: Ip,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
}

pub(super) fn alert_fields<'a>(
    context: &PacketContext<'_>,
    (rule, action): (&'a Rule, Action),
    with: AlertMetadata,
) -> AlertFields<'a> {
    let options = &rule.options;
    let metadata = with.rule_metadata.then(|| {
        let mut metadata: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (key, value) in &options.metadata {
            metadata.entry(key).or_default().push(value);
        }
        metadata
    });
    let references = match with.rule_reference {
        true => options.references.iter(),
        false => [].iter(),
    };
    let (source, target) = match options.target {
        None => (None, None),
        Some(target) => ends(context, target),
    };
    AlertFields {
        action: match action {
            Action::Drop if context.ips => "blocked",
            Action::Reject(_) => "blocked",
            Action::Alert | Action::Pass | Action::Drop => "allowed",
        },
        gid: options.group_id,
        signature_id: options.signature_id,
        rev: options.revision,
        signature: &options.message,
        category: options
            .class
            .as_ref()
            .map_or("", |class| &class.description),
        severity: options.priority,
        source,
        target,
        metadata: metadata.filter(|metadata| !metadata.is_empty()),
        references: references
            .map(|reference| format!("{}:{}", reference.system, reference.id))
            .collect(),
    }
}

fn ends(context: &PacketContext<'_>, target: Target) -> (Option<EndFields>, Option<EndFields>) {
    let packet = context.packet;
    let Some((source, destination)) = packet.addresses() else {
        return (None, None);
    };
    let from = EndFields {
        ip: Ip(source),
        port: packet.ports.map(|(port, _)| port),
    };
    let to = EndFields {
        ip: Ip(destination),
        port: packet.ports.map(|(_, port)| port),
    };
    match target {
        Target::Destination => (Some(from), Some(to)),
        Target::Source => (Some(to), Some(from)),
    }
}
