//! `threshold`, `detection_filter` and `tag`: how often a rule reports, and what is recorded
//! afterwards.

use super::super::ast::{Effect, Tag, TagOf, TagUnit, Threshold, ThresholdKind, Track};
use super::super::finding::Finding;
use super::super::item::Item;
use super::super::text::Text;
use super::number::ranged;
use super::{Builder, Handler};

pub(super) const KEYWORDS: &[(&str, Handler)] = &[
    ("threshold", threshold),
    ("detection_filter", detection_filter),
    ("tag", tag),
];

type Done = Result<(), Finding>;

pub(in super::super) const TRACKS: [(&str, Track); 5] = [
    ("by_src", Track::Source),
    ("by_dst", Track::Destination),
    ("by_both", Track::Both),
    ("by_rule", Track::Rule),
    ("by_flow", Track::Flow),
];

const SHAPE: &str = "threshold:type limit, track by_src, count 1, seconds 60;";

/// Words with a value each, as all thresholds are written.
#[derive(Default)]
pub(in super::super) struct Parts<'a>(Vec<(Text<'a>, Text<'a>)>);

impl<'a> Parts<'a> {
    /// Reads them; a word may stand there once.
    pub(in super::super) fn read(text: Text<'a>, known: &[&str]) -> Result<Self, Finding> {
        let mut parts: Vec<(Text<'a>, Text<'a>)> = Vec::new();
        for part in list(text) {
            let (word, value) = part.first_word();
            if !known.contains(&word.as_str()) {
                return Err(word.not_one_of("an option here", known));
            }
            if value.is_empty() {
                return Err(word.fail(
                    format!("`{}` needs a value", word.as_str()),
                    format!("{} …", word.as_str()),
                ));
            }
            if parts
                .iter()
                .any(|(other, _)| other.as_str() == word.as_str())
            {
                return Err(word.fail(
                    format!("`{}` twice", word.as_str()),
                    "take one of them away",
                ));
            }
            parts.push((word, value));
        }
        Ok(Self(parts))
    }

    pub(in super::super) fn find(&self, name: &str) -> Option<Text<'a>> {
        self.0
            .iter()
            .find(|(word, _)| word.as_str() == name)
            .map(|(_, value)| *value)
    }

    pub(in super::super) fn need(
        &self,
        name: &str,
        whole: Text<'_>,
        shape: &str,
    ) -> Result<Text<'a>, Finding> {
        self.find(name)
            .ok_or_else(|| whole.fail(format!("`{name}` is missing"), shape))
    }
}

/// The parts between commas; commas in brackets are of a list of addresses.
fn list(text: Text<'_>) -> Vec<Text<'_>> {
    let mut parts = Vec::new();
    let (mut from, mut open) = (0, 0usize);
    let whole = text.as_str();
    let mut cut = |from: usize, to: usize| {
        parts.push(Text::new(&whole[from..to], text.span().start + from).trim());
    };
    for (at, byte) in whole.bytes().enumerate() {
        match byte {
            b'[' => open += 1,
            b']' => open = open.saturating_sub(1),
            b',' if open == 0 => {
                cut(from, at);
                from = at + 1;
            }
            _ => {}
        }
    }
    cut(from, whole.len());
    parts
}

/// `type …, track …, count …` and `seconds …` or `multiplier …`, in any order.
pub(in super::super) fn limit(
    parts: &Parts<'_>,
    text: Text<'_>,
    shape: &str,
) -> Result<Threshold, Finding> {
    enum Kind {
        Plain(ThresholdKind),
        Backoff,
    }
    let word = parts.need("type", text, shape)?;
    let kind = match word.as_str() {
        "limit" => Kind::Plain(ThresholdKind::Limit),
        "threshold" => Kind::Plain(ThresholdKind::Threshold),
        "both" => Kind::Plain(ThresholdKind::Both),
        "backoff" => Kind::Backoff,
        _ => {
            let kinds = ["limit", "threshold", "both", "backoff"];
            return Err(word.not_one_of("a type of threshold", &kinds));
        }
    };
    let track_text = parts.need("track", text, shape)?;
    let track = track_text.choose("what is tracked", &TRACKS)?;
    let count = ranged(parts.need("count", text, shape)?, 1, u32::MAX)?;
    match kind {
        Kind::Plain(kind) => {
            if let Some(multiplier) = parts.find("multiplier") {
                return Err(
                    multiplier.fail("only type backoff has a multiplier", "seconds … instead")
                );
            }
            let seconds = ranged(parts.need("seconds", text, shape)?, 1, u32::MAX)?;
            Ok(Threshold {
                kind,
                track,
                count,
                seconds,
            })
        }
        Kind::Backoff => {
            if track != Track::Flow {
                return Err(track_text.fail("type backoff tracks by_flow only", "track by_flow"));
            }
            if let Some(seconds) = parts.find("seconds") {
                return Err(seconds.fail("type backoff has no seconds", "multiplier … instead"));
            }
            let text = parts.need("multiplier", text, shape)?;
            let multiplier = ranged(text, 2, u32::MAX)?;
            Ok(Threshold {
                kind: ThresholdKind::Backoff { multiplier },
                track,
                count,
                seconds: 0,
            })
        }
    }
}

/// A rule has one of the two, once.
fn only_one(builder: &Builder<'_>, item: &Item<'_>) -> Done {
    match &builder.threshold {
        Some(before) if before.keyword() == item.name => Err(Finding::with_help(
            item.name_span,
            format!("`{}` twice", item.name),
            "take one of them away",
        )),
        Some(before) => Err(Finding::with_help(
            item.name_span,
            format!("`{}` and `{}` in one rule", before.keyword(), item.name),
            "a rule has one of the two",
        )),
        None => Ok(()),
    }
}

fn threshold(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    only_one(builder, item)?;
    let text = item.text()?;
    let parts = Parts::read(text, &["type", "track", "count", "seconds", "multiplier"])?;
    builder.threshold = Some(limit(&parts, text, SHAPE)?);
    Ok(())
}

fn detection_filter(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    const SHAPE: &str = "detection_filter:track by_src, count 15, seconds 2;";
    only_one(builder, item)?;
    let text = item.text()?;
    let parts = Parts::read(text, &["track", "count", "seconds"])?;
    builder.threshold = Some(Threshold {
        kind: ThresholdKind::DetectionFilter,
        track: parts
            .need("track", text, SHAPE)?
            .choose("what is tracked", &TRACKS)?,
        count: ranged(parts.need("count", text, SHAPE)?, 1, u32::MAX)?,
        seconds: ranged(parts.need("seconds", text, SHAPE)?, 1, u32::MAX)?,
    });
    Ok(())
}

/// Packets that are recorded when no number is given.
const DEFAULT_TAGGED: u32 = 256;

fn tag(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    const SHAPE: &str = "tag:session,10,packets; or tag:host,100,packets,src;";
    let text = item.text()?;
    let parts: Vec<Text<'_>> = text.split(',').collect();
    let host = parts[0].choose("a scope", &[("session", false), ("host", true)])?;
    let units = [
        ("packets", TagUnit::Packets),
        ("seconds", TagUnit::Seconds),
        ("bytes", TagUnit::Bytes),
    ];
    let ends = [("src", TagOf::SourceHost), ("dst", TagOf::DestinationHost)];
    let (amount, unit, end) = match parts.as_slice() {
        [_] => (DEFAULT_TAGGED, TagUnit::Packets, None),
        [_, amount, unit] | [_, amount, unit, _] => (
            ranged(*amount, 1, u32::MAX)?,
            unit.choose("a unit", &units)?,
            parts.get(3),
        ),
        _ => return Err(text.fail("a tag is scope, number and unit", SHAPE)),
    };
    let of = match (host, end) {
        (true, Some(end)) => end.choose("an end", &ends)?,
        (true, None) => TagOf::DestinationHost,
        (false, None) => TagOf::Session,
        (false, Some(end)) => {
            return Err(end.fail("a session has both ends", "tag:session,10,packets;"));
        }
    };
    builder.effect(Effect::Tag(Tag { of, amount, unit }));
    Ok(())
}
