//! `tag`: packets after a match that are recorded, of a flow or of a host.
//!
//! Reference: <https://docs.suricata.io/en/suricata-8.0.3/rules/tag.html>.

use super::marks::take;
use crate::flow::Timestamp;
use crate::rules::ast::{Tag, TagUnit};

/// Most tags of a flow or host.
const MAX_TAGS: usize = 50;
/// How often a rule may begin its tag anew.
const MAX_RENEWED: u16 = 10;

/// A tag that holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tagged {
    /// The rule.
    rule: u64,
    amount: u32,
    unit: TagUnit,
    since_ns: u64,
    packets: u32,
    bytes: u64,
    renewed: u16,
    /// The packet that matched is recorded by its alert.
    skipped_first: bool,
}

/// Adds a tag, or begins that of the same rule anew.
pub(super) fn add(tags: &mut Vec<Tagged>, rule: u64, tag: Tag, now: Timestamp) {
    let new = Tagged {
        rule,
        amount: tag.amount,
        unit: tag.unit,
        since_ns: now.monotonic_ns,
        packets: 0,
        bytes: 0,
        renewed: 0,
        skipped_first: false,
    };
    let full = tags.len() >= MAX_TAGS;
    match tags.iter_mut().find(|tagged| tagged.rule == rule) {
        // Bounded, so that a rule that matches for ever does not record for ever.
        Some(tagged) if tagged.renewed < MAX_RENEWED => {
            tagged.renewed += 1;
            tagged.since_ns = now.monotonic_ns;
            tagged.packets = 0;
            tagged.bytes = 0;
        }
        Some(_) => {}
        None if full => {}
        None => tags.push(new),
    }
}

/// Counts a packet for all of them. Whether it is to be recorded. Those that are over go.
pub(super) fn packet(tags: &mut Vec<Tagged>, length: usize, now: Timestamp) -> bool {
    let mut recorded = false;
    tags.retain_mut(|tagged| {
        tagged.packets = tagged.packets.saturating_add(1);
        tagged.bytes = tagged.bytes.saturating_add(length as u64);
        if !tagged.skipped_first {
            tagged.skipped_first = true;
            return true;
        }
        let amount = u64::from(tagged.amount);
        let holds = match tagged.unit {
            TagUnit::Packets => tagged.packets <= tagged.amount,
            TagUnit::Bytes => tagged.bytes <= amount,
            TagUnit::Seconds => {
                now.monotonic_ns.saturating_sub(tagged.since_ns) <= amount * 1_000_000_000
            }
        };
        recorded |= holds;
        holds
    });
    recorded
}

impl Tagged {
    /// Whether nothing will be recorded for it any more.
    pub(super) fn is_over(&self, now: Timestamp) -> bool {
        // What counts packets or bytes is given up when none come for long.
        let idle = match self.unit {
            TagUnit::Seconds => u64::from(self.amount),
            TagUnit::Packets | TagUnit::Bytes => 3600,
        };
        now.monotonic_ns.saturating_sub(self.since_ns) > idle * 1_000_000_000
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.rule.to_le_bytes());
        out.extend_from_slice(&self.amount.to_le_bytes());
        out.push(match self.unit {
            TagUnit::Packets => 0,
            TagUnit::Seconds => 1,
            TagUnit::Bytes => 2,
        });
        out.extend_from_slice(&self.since_ns.to_le_bytes());
        out.extend_from_slice(&self.packets.to_le_bytes());
        out.extend_from_slice(&self.bytes.to_le_bytes());
        out.extend_from_slice(&self.renewed.to_le_bytes());
        out.push(u8::from(self.skipped_first));
    }

    pub(super) fn decode(bytes: &mut &[u8]) -> Option<Self> {
        Some(Self {
            rule: u64::from_le_bytes(take(bytes)?),
            amount: u32::from_le_bytes(take(bytes)?),
            unit: match take::<1>(bytes)?[0] {
                0 => TagUnit::Packets,
                1 => TagUnit::Seconds,
                2 => TagUnit::Bytes,
                _ => return None,
            },
            since_ns: u64::from_le_bytes(take(bytes)?),
            packets: u32::from_le_bytes(take(bytes)?),
            bytes: u64::from_le_bytes(take(bytes)?),
            renewed: u16::from_le_bytes(take(bytes)?),
            skipped_first: take::<1>(bytes)?[0] != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::ast::TagOf;

    fn at(seconds: u64) -> Timestamp {
        Timestamp {
            monotonic_ns: seconds * 1_000_000_000,
            ..Timestamp::default()
        }
    }

    fn recorded(amount: u32, unit: TagUnit, packets: u64) -> Vec<bool> {
        let mut tags = Vec::new();
        let tag = Tag {
            of: TagOf::Session,
            amount,
            unit,
        };
        add(&mut tags, 1, tag, at(0));
        (0..packets)
            .map(|second| packet(&mut tags, 100, at(second)))
            .collect()
    }

    #[test]
    fn so_many_packets_bytes_or_seconds_are_recorded_after_the_match() {
        // The first one is the one that matched, and counts.
        assert_eq!(
            recorded(3, TagUnit::Packets, 5),
            [false, true, true, false, false]
        );
        assert_eq!(
            recorded(300, TagUnit::Bytes, 5),
            [false, true, true, false, false]
        );
        assert_eq!(
            recorded(2, TagUnit::Seconds, 5),
            [false, true, true, false, false]
        );
    }

    #[test]
    fn tags_are_renewed_and_their_number_is_bounded() {
        let tag = Tag {
            of: TagOf::Session,
            amount: 2,
            unit: TagUnit::Packets,
        };
        let mut tags = Vec::new();
        for rule in 0..1000 {
            add(&mut tags, rule, tag, at(0));
        }
        assert_eq!(tags.len(), MAX_TAGS);
        let mut tags = Vec::new();
        add(&mut tags, 1, tag, at(0));
        let mut count = 0;
        for _ in 0..100 {
            count += u32::from(packet(&mut tags, 1, at(0)));
            add(&mut tags, 1, tag, at(0));
        }
        assert!(tags.len() <= 1 && count > 2, "{count}");
        let mut bytes = Vec::new();
        tags[0].encode(&mut bytes);
        assert_eq!(Tagged::decode(&mut &bytes[..]), Some(tags[0]));
    }
}
