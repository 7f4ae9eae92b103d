//! `threshold.config`: what happens to the alerts of rules, written apart from them.
//!
//! Reference: <https://docs.suricata.io/en/suricata-8.0.3/configuration/global-thresholds.html>.

use std::path::PathBuf;

use super::ast::{Action, AddressSet, RejectTarget, Rule, Threshold, ThresholdKind, Track};
use super::diagnostic::{Diagnostic, Severity};
use super::finding::Finding;
use super::list;
use super::options::number::{number, ranged};
use super::options::threshold::{Parts, TRACKS, limit};
use super::source::{LogicalLine, RuleSource};
use super::text::Text;
use super::variables::Variables;

/// One line of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThresholdEntry {
    /// `gen_id`: rules of this group; of every group, if absent (0).
    pub group_id: Option<u32>,
    /// `sig_id`: the rule with this number; every rule, if absent (0).
    pub signature_id: Option<u32>,
    /// What happens. The addresses of a `suppress` are those of [`Track::Source`],
    /// [`Track::Destination`], or [`Track::Both`], which here means either end.
    pub threshold: Threshold,
    /// File it stands in.
    pub file: PathBuf,
    /// Line it begins in, from 1.
    pub line: usize,
}

impl ThresholdEntry {
    /// Whether it is about this rule.
    pub fn is_about(&self, rule: &Rule) -> bool {
        let options = &rule.options;
        self.group_id.is_none_or(|id| id == options.group_id)
            && self
                .signature_id
                .is_none_or(|id| id == options.signature_id)
    }

    /// Whether it takes the place of the rule's own `threshold`: that of one rule does, one of
    /// many leaves rules alone that have their own.
    pub fn replaces_own(&self) -> bool {
        self.signature_id.is_some()
    }
}

/// What stands in such a file.
#[derive(Clone, Debug, Default)]
pub struct Thresholds {
    /// The entries, in their order.
    pub entries: Vec<ThresholdEntry>,
    /// Everything found wrong; such lines are skipped.
    pub diagnostics: Vec<Diagnostic>,
}

impl Thresholds {
    /// Reads a file; `ip` may name a variable of addresses.
    pub fn parse(source: &RuleSource, variables: &Variables) -> Self {
        let mut this = Self::default();
        for line in source.logical_lines() {
            match entry(source, &line, variables) {
                Ok(entry) => this.entries.push(entry),
                Err(finding) => this.diagnostics.push(source.diagnostic(
                    Severity::Error,
                    line.file_span(finding.span),
                    finding.message,
                    finding.help,
                )),
            }
        }
        this
    }
}

const WORDS: [&str; 4] = ["threshold", "event_filter", "rate_filter", "suppress"];

fn entry(
    source: &RuleSource,
    line: &LogicalLine,
    variables: &Variables,
) -> Result<ThresholdEntry, Finding> {
    let text = std::str::from_utf8(&line.text).map_err(|_| {
        Finding::with_help(
            super::source::Span {
                start: 0,
                end: line.text.len(),
            },
            "not UTF-8",
            "these files have ASCII letters, digits and signs only",
        )
    })?;
    let (word, rest) = Text::new(text, 0).trim().first_word();
    let (ids, threshold) = match word.as_str() {
        "threshold" | "event_filter" => limited(rest)?,
        "rate_filter" => rated(rest)?,
        "suppress" => suppressed(rest, variables)?,
        _ => return Err(word.not_one_of("a kind of threshold", &WORDS)),
    };
    let start = line.file_span(word.span()).start;
    Ok(ThresholdEntry {
        group_id: ids.0,
        signature_id: ids.1,
        threshold,
        file: source.name().to_owned(),
        line: source.line_of(start),
    })
}

type Ids = (Option<u32>, Option<u32>);

/// `gen_id` and `sig_id`; 0 stands for all.
fn ids(parts: &Parts<'_>, text: Text<'_>, shape: &str) -> Result<Ids, Finding> {
    let group_text = parts.need("gen_id", text, shape)?;
    let group: u32 = number(group_text)?;
    let signature: u32 = number(parts.need("sig_id", text, shape)?)?;
    if group == 0 && signature != 0 {
        return Err(group_text.fail(
            "gen_id 0, every group, goes with sig_id 0 only",
            "gen_id 1, or the gid of the rule",
        ));
    }
    let some = |id: u32| (id != 0).then_some(id);
    Ok((some(group), some(signature)))
}

fn limited(text: Text<'_>) -> Result<(Ids, Threshold), Finding> {
    const SHAPE: &str =
        "threshold gen_id 1, sig_id 1000, type limit, track by_src, count 1, seconds 60";
    let known = [
        "gen_id",
        "sig_id",
        "type",
        "track",
        "count",
        "seconds",
        "multiplier",
    ];
    let parts = Parts::read(text, &known)?;
    Ok((ids(&parts, text, SHAPE)?, limit(&parts, text, SHAPE)?))
}

fn rated(text: Text<'_>) -> Result<(Ids, Threshold), Finding> {
    const SHAPE: &str = "rate_filter gen_id 1, sig_id 1000, track by_src, count 10, seconds 60, \
                         new_action drop, timeout 300";
    let known = [
        "gen_id",
        "sig_id",
        "track",
        "count",
        "seconds",
        "new_action",
        "timeout",
    ];
    let actions = [
        ("alert", Action::Alert),
        ("drop", Action::Drop),
        ("pass", Action::Pass),
        ("reject", Action::Reject(RejectTarget::Source)),
        ("rejectsrc", Action::Reject(RejectTarget::Source)),
        ("rejectdst", Action::Reject(RejectTarget::Destination)),
        ("rejectboth", Action::Reject(RejectTarget::Both)),
    ];
    let parts = Parts::read(text, &known)?;
    let ids = ids(&parts, text, SHAPE)?;
    let need = |name: &str| parts.need(name, text, SHAPE);
    let threshold = Threshold {
        track: need("track")?.choose("what is tracked", &TRACKS)?,
        count: ranged(need("count")?, 1, u32::MAX)?,
        seconds: ranged(need("seconds")?, 1, u32::MAX)?,
        kind: ThresholdKind::Rate {
            new_action: need("new_action")?.choose("an action", &actions)?,
            timeout: number(need("timeout")?)?,
        },
    };
    Ok((ids, threshold))
}

fn suppressed(text: Text<'_>, variables: &Variables) -> Result<(Ids, Threshold), Finding> {
    const SHAPE: &str = "suppress gen_id 1, sig_id 1000, track by_src, ip 192.0.2.0/24";
    let parts = Parts::read(text, &["gen_id", "sig_id", "track", "ip"])?;
    let ids = ids(&parts, text, SHAPE)?;
    let tracks = [
        ("by_src", Track::Source),
        ("by_dst", Track::Destination),
        ("by_either", Track::Both),
    ];
    let track = parts
        .find("track")
        .map(|track| track.choose("which end is meant", &tracks))
        .transpose()?;
    let addresses = parts
        .find("ip")
        .map(|ip| addresses(ip, variables))
        .transpose()?;
    if track.is_some() != addresses.is_some() {
        let missing = if track.is_some() { "ip" } else { "track" };
        return Err(text.fail(format!("`{missing}` is missing"), SHAPE));
    }
    Ok((
        ids,
        Threshold {
            kind: ThresholdKind::Suppress { addresses },
            track: track.unwrap_or(Track::Rule),
            count: 0,
            seconds: 0,
        },
    ))
}

fn addresses(text: Text<'_>, variables: &Variables) -> Result<AddressSet, Finding> {
    list::addresses(text.as_str(), variables).map_err(|mut finding| {
        finding.span.start += text.span().start;
        finding.span.end += text.span().start;
        finding.or_help("an address, a network, a list in brackets or a variable")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Thresholds {
        let source = RuleSource::new("threshold.config", text.as_bytes().to_vec());
        Thresholds::parse(&source, &Variables::default())
    }

    fn one(text: &str) -> ThresholdEntry {
        let mut parsed = parse(text);
        assert!(parsed.diagnostics.is_empty(), "{:?}", parsed.diagnostics);
        assert_eq!(parsed.entries.len(), 1, "{text}");
        parsed.entries.remove(0)
    }

    #[test]
    fn every_kind_of_entry_is_read() {
        let entry = one(
            "# comment\n\nthreshold gen_id 1, sig_id 1000, type both, \\\n  track by_src, count 3, seconds 5\n",
        );
        assert_eq!((entry.group_id, entry.signature_id), (Some(1), Some(1000)));
        let expect = Threshold {
            kind: ThresholdKind::Both,
            track: Track::Source,
            count: 3,
            seconds: 5,
        };
        assert_eq!((entry.threshold, entry.line), (expect, 3));
        let entry =
            one("event_filter gen_id 0, sig_id 0, type limit, track by_rule, count 1, seconds 9");
        assert_eq!((entry.group_id, entry.signature_id), (None, None));
        let entry = one(
            "rate_filter gen_id 1,sig_id 888,track by_dst,count 10,seconds 60,new_action drop,timeout 300",
        );
        let expect = ThresholdKind::Rate {
            new_action: Action::Drop,
            timeout: 300,
        };
        assert_eq!(entry.threshold.kind, expect);
        let entry = one("suppress gen_id 1, sig_id 0");
        assert_eq!((entry.group_id, entry.signature_id), (Some(1), None));
        let expect = ThresholdKind::Suppress { addresses: None };
        assert_eq!(entry.threshold.kind, expect);
    }

    #[test]
    fn addresses_to_suppress_are_lists_networks_and_variables() {
        for (ip, inside, outside) in [
            ("209.132.180.67", "209.132.180.67", "209.132.180.68"),
            ("217.110.97.128/25", "217.110.97.200", "217.110.97.1"),
            ("[192.168.0.0/16,10.0.0.0/8]", "10.1.1.1", "11.1.1.1"),
            ("$HOME_NET", "172.16.0.1", "8.8.8.8"),
        ] {
            let entry = one(&format!(
                "suppress gen_id 1, sig_id 5, track by_either, ip {ip}"
            ));
            let ThresholdKind::Suppress {
                addresses: Some(set),
            } = entry.threshold.kind
            else {
                panic!("{ip}");
            };
            assert_eq!(entry.threshold.track, Track::Both);
            assert!(set.contains(inside.parse().unwrap()), "{ip}");
            assert!(!set.contains(outside.parse().unwrap()), "{ip}");
        }
    }

    #[test]
    fn mistakes_are_placed_and_the_rest_is_read() {
        let text = "supress gen_id 1, sig_id 1\n\
                    suppress gen_id 1\n\
                    suppress gen_id 1, sig_id 2, track by_src\n\
                    suppress gen_id 0, sig_id 2\n\
                    suppress gen_id 1, sig_id 2, track by_src, ip $HOME_NETT\n\
                    threshold gen_id 1, sig_id 2, type limt, track by_src, count 1, seconds 1\n\
                    threshold gen_id 1, sig_id 2, type limit, track by_src, count 0, seconds 1\n\
                    rate_filter gen_id 1, sig_id 2, track by_src, count 1, seconds 1, new_action log, timeout 1\n\
                    suppress gen_id 1, sig_id 3\n";
        let parsed = parse(text);
        assert_eq!(parsed.entries.len(), 1);
        let places: Vec<(usize, usize)> = parsed
            .diagnostics
            .iter()
            .map(|found| (found.line, found.column))
            .collect();
        assert_eq!(
            places,
            [
                (1, 1),
                (2, 10),
                (3, 10),
                (4, 17),
                (5, 47),
                (6, 36),
                (7, 63),
                (8, 78)
            ]
        );
        assert!(parsed.diagnostics.iter().all(|found| found.help.is_some()));
    }
}
