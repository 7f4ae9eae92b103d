//! Which rules this engine can evaluate.

use crate::rules::{
    Arrow, Buffer, Match, Position, Rule, RuleProtocol, Section, Unsupported, Value,
};

/// Whether the engine can evaluate a rule.
///
/// # Errors
/// Names the first keyword that it cannot.
pub fn supported(rule: &Rule) -> Result<(), Unsupported> {
    let refuse = |keyword: &str| Err(Unsupported::new(keyword, "not supported yet"));
    match rule.protocol {
        RuleProtocol::App(name) => return refuse(name),
        RuleProtocol::TcpStream => return refuse("tcp-stream"),
        RuleProtocol::Igmp => return refuse("igmp"),
        RuleProtocol::PacketHeader => return refuse("pkthdr"),
        RuleProtocol::Ethernet => return refuse("ether"),
        RuleProtocol::Arp => return refuse("arp"),
        _ => {}
    }
    if rule.direction == Arrow::Transaction {
        return refuse("=>");
    }
    let options = &rule.options;
    if let Some(condition) = options.conditions.first() {
        return refuse(condition.keyword());
    }
    if let Some(effect) = options.effects.first() {
        return refuse(effect.keyword());
    }
    if options.threshold.is_some() {
        return refuse("threshold");
    }
    options.sections.iter().try_for_each(section)
}

fn section(section: &Section) -> Result<(), Unsupported> {
    let refuse = |keyword: &str| Err(Unsupported::new(keyword, "not supported yet"));
    if section.buffer != Buffer::Payload {
        return refuse(section.buffer.name());
    }
    if let Some(transform) = section.transforms.first() {
        return refuse(transform.keyword());
    }
    for found in &section.matches {
        let Match::Content(content) = found else {
            return refuse(found.keyword());
        };
        if content.replacement.is_some() {
            return refuse("replace");
        }
        let literal = match content.position {
            Position::Absolute { offset, depth } => {
                matches!(offset, Value::Literal(_)) && !matches!(depth, Some(Value::Variable(_)))
            }
            Position::Relative { distance, within } => {
                matches!(distance, Value::Literal(_)) && !matches!(within, Some(Value::Variable(_)))
            }
        };
        if !literal {
            return refuse("byte_extract");
        }
    }
    Ok(())
}
