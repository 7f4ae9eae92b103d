//! How often a rule may say that it matched: `threshold`, `detection_filter`, and what
//! threshold.config adds.
//!
//! Reference: <https://docs.suricata.io/en/suricata-8.0.3/rules/thresholding.html> and
//! `configuration/global-thresholds.html`.

use std::net::IpAddr;

use super::marks::{FlowMarks, take};
use super::tables::TableUse;
use crate::bounded::Noted;
use crate::flow::Timestamp;
use crate::rules::ast::{Action, Threshold, ThresholdKind, Track};

/// Matches of a rule, counted for one address, pair, flow, or for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    since_ns: u64,
    /// Zero: nothing counted yet.
    count: u32,
    /// `backoff`: the count of the next alert.
    next: u32,
    /// `rate_filter`: until when the other action holds.
    until_ns: u64,
}

/// What becomes of a match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Permission {
    /// It is reported, and acts.
    Report,
    /// It acts, and is not reported.
    Act,
    /// It is as if it had not matched, but for changes of state.
    Nothing,
}

fn seconds(seconds: u32) -> u64 {
    u64::from(seconds) * 1_000_000_000
}

impl Counted {
    /// Of one match.
    #[cfg(test)]
    pub(super) fn at(now: Timestamp) -> Self {
        Self {
            since_ns: now.monotonic_ns,
            count: 1,
            ..Self::default()
        }
    }

    /// Counts a match, and says what becomes of it; with the action instead of the rule's own.
    fn matched(&mut self, threshold: &Threshold, now: Timestamp) -> (Permission, Option<Action>) {
        let now = now.monotonic_ns;
        // While the other action holds nothing is counted.
        if let ThresholdKind::Rate { new_action, .. } = threshold.kind
            && self.until_ns != 0
        {
            if now <= self.until_ns {
                return (Permission::Report, Some(new_action));
            }
            self.until_ns = 0;
        }
        let limit = threshold.count.max(1);
        let timed = !matches!(threshold.kind, ThresholdKind::Backoff { .. });
        let over = timed && now > self.since_ns.saturating_add(seconds(threshold.seconds));
        if self.count == 0 || over {
            self.since_ns = now;
            self.count = 1;
        } else {
            self.count = self.count.saturating_add(1);
        }
        let report_or = |report: bool, otherwise| match report {
            true => Permission::Report,
            false => otherwise,
        };
        let permission = match threshold.kind {
            ThresholdKind::Limit => report_or(self.count <= limit, Permission::Act),
            ThresholdKind::Threshold => {
                let reached = self.count >= limit;
                if reached {
                    self.count = 0;
                }
                report_or(reached, Permission::Nothing)
            }
            ThresholdKind::Both if self.count < limit => Permission::Nothing,
            ThresholdKind::Both => report_or(self.count == limit, Permission::Act),
            ThresholdKind::Backoff { .. } if self.count < limit => Permission::Nothing,
            ThresholdKind::Backoff { multiplier } => {
                self.next = self.next.max(limit);
                let reached = self.count == self.next;
                if reached {
                    self.next = self.next.saturating_mul(multiplier.max(1));
                }
                // With a multiplier of one there is no next one further away.
                if multiplier <= 1 {
                    self.next = self.count.saturating_add(1);
                }
                report_or(reached, Permission::Act)
            }
            ThresholdKind::DetectionFilter => {
                report_or(self.count > threshold.count, Permission::Nothing)
            }
            ThresholdKind::Rate {
                new_action,
                timeout,
            } => {
                if self.count > threshold.count {
                    self.until_ns = now.saturating_add(seconds(timeout));
                    self.count = 0;
                    return (Permission::Report, Some(new_action));
                }
                Permission::Report
            }
            ThresholdKind::Suppress { .. } => Permission::Act,
        };
        (permission, None)
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.since_ns.to_le_bytes());
        out.extend_from_slice(&self.count.to_le_bytes());
        out.extend_from_slice(&self.next.to_le_bytes());
        out.extend_from_slice(&self.until_ns.to_le_bytes());
    }

    pub(super) fn decode(bytes: &mut &[u8]) -> Option<Self> {
        Some(Self {
            since_ns: u64::from_le_bytes(take(bytes)?),
            count: u32::from_le_bytes(take(bytes)?),
            next: u32::from_le_bytes(take(bytes)?),
            until_ns: u64::from_le_bytes(take(bytes)?),
        })
    }
}

/// Whose matches are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Who {
    Everybody,
    One(IpAddr),
    /// In ascending order: either way is the same pair.
    Two(IpAddr, IpAddr),
}

/// Matches counted by address, pair and rule. Bounded: at the bound, entries whose time is over
/// make room; if there are none, a match is judged as the first one and not counted.
#[derive(Debug)]
pub struct ThresholdTable {
    /// With when it can be forgotten.
    entries: Noted<(u64, Who), (Counted, u64)>,
    /// Matches that could not be counted.
    pub uncounted: u64,
}

/// Entries take nothing besides themselves.
const fn owns(_: &(Counted, u64)) -> usize {
    0
}

impl ThresholdTable {
    /// With so much memory.
    pub fn new(memcap: u64) -> Self {
        Self {
            entries: Noted::new(memcap),
            uncounted: 0,
        }
    }

    /// Entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that it takes.
    pub fn memuse(&self) -> u64 {
        self.entries.memuse() as u64
    }

    /// What it takes.
    pub fn usage(&self) -> TableUse {
        TableUse {
            memuse: self.memuse(),
            memuse_max: self.entries.most() as u64,
            refused: self.uncounted,
        }
    }

    /// Forgets what is over.
    pub fn expire(&mut self, now: Timestamp) {
        let is_over = |(_, until): &mut (Counted, u64)| *until < now.monotonic_ns;
        self.entries.expire(owns, is_over);
    }

    /// Counts a match, and says what becomes of it. `rule` is the rule's number with that of the
    /// threshold, which no two share; `ends` source and destination.
    pub(super) fn matched(
        &mut self,
        rule: u64,
        threshold: &Threshold,
        ends: (IpAddr, IpAddr),
        flow: Option<&mut FlowMarks>,
        now: Timestamp,
    ) -> (Permission, Option<Action>) {
        let (source, destination) = ends;
        if let ThresholdKind::Suppress { addresses } = &threshold.kind {
            let suppressed = addresses.as_ref().is_none_or(|set| match threshold.track {
                Track::Source => set.contains(source),
                Track::Destination => set.contains(destination),
                _ => set.contains(source) || set.contains(destination),
            });
            return match suppressed {
                true => (Permission::Act, None),
                false => (Permission::Report, None),
            };
        }
        let who = match threshold.track {
            Track::Source => Who::One(source),
            Track::Destination => Who::One(destination),
            Track::Both | Track::Pair => Who::Two(source.min(destination), source.max(destination)),
            Track::Rule | Track::Transaction => Who::Everybody,
            Track::Flow => {
                // A packet without a flow is judged as the first one of one.
                let Some(marks) = flow else {
                    return Counted::default().matched(threshold, now);
                };
                let place = marks.counts.iter().position(|(of, _)| *of == rule);
                let place = place.unwrap_or_else(|| {
                    marks.counts.push((rule, Counted::default()));
                    marks.counts.len() - 1
                });
                return marks.counts[place].1.matched(threshold, now);
            }
        };
        let is_over = |(_, until): &mut (Counted, u64)| *until < now.monotonic_ns;
        let judge = |(counted, until): &mut (Counted, u64)| {
            let judged = counted.matched(threshold, now);
            *until = counted
                .until_ns
                .max(counted.since_ns.saturating_add(seconds(threshold.seconds)));
            judged
        };
        let entries = &mut self.entries;
        if let Some(judged) = entries.change((rule, who), owns, owns, is_over, judge) {
            return judged;
        }
        self.uncounted += 1;
        Counted::default().matched(threshold, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::ast::AddressSet;
    use crate::rules::range_set::RangeSet;

    fn threshold(kind: ThresholdKind, track: Track, count: u32, seconds: u32) -> Threshold {
        Threshold {
            kind,
            track,
            count,
            seconds,
        }
    }

    fn at(ms: u64) -> Timestamp {
        Timestamp {
            monotonic_ns: ms * 1_000_000,
            ..Timestamp::default()
        }
    }

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(1, 1, 1, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(2, 2, 2, 2));

    /// `R`eport, `A`ct, `-` for nothing, one match every `every` milliseconds.
    fn sequence(threshold: &Threshold, matches: u64, every: u64) -> String {
        let mut table = ThresholdTable::new(1 << 20);
        let mut marks = FlowMarks::default();
        (0..matches)
            .map(|n| {
                let flow = Some(&mut marks);
                match table.matched(1, threshold, (A, B), flow, at(n * every)).0 {
                    Permission::Report => 'R',
                    Permission::Act => 'A',
                    Permission::Nothing => '-',
                }
            })
            .collect()
    }

    #[test]
    fn each_type_counts_in_its_way() {
        let check = |kind: ThresholdKind, count, expect: &str| {
            for track in [Track::Source, Track::Rule, Track::Both, Track::Flow] {
                let it = threshold(kind.clone(), track, count, 60);
                let found = sequence(&it, expect.len() as u64, 1);
                assert_eq!(found, expect, "{it:?}");
            }
        };
        check(ThresholdKind::Limit, 2, "RRAAA");
        check(ThresholdKind::Threshold, 3, "--R--R-");
        check(ThresholdKind::Threshold, 1, "RRR");
        check(ThresholdKind::Both, 3, "--RAAA");
        check(ThresholdKind::Both, 1, "RAA");
        check(ThresholdKind::DetectionFilter, 2, "--RRR");
        check(ThresholdKind::Backoff { multiplier: 2 }, 1, "RRARAAAR");
        check(ThresholdKind::Backoff { multiplier: 2 }, 3, "--RAARAAAAARA");
        check(ThresholdKind::Backoff { multiplier: 1 }, 2, "-RRR");
        let everywhere = ThresholdKind::Suppress { addresses: None };
        check(everywhere, 0, "AAA");
    }

    #[test]
    fn time_begins_anew() {
        let it = threshold(ThresholdKind::Limit, Track::Source, 1, 1);
        // 0.0, 0.4, 0.8, 1.2, …
        assert_eq!(sequence(&it, 7, 400), "RAARAAR");
        let it = threshold(ThresholdKind::DetectionFilter, Track::Source, 1, 1);
        assert_eq!(sequence(&it, 7, 400), "-RR-RR-");
        // The end of the time belongs to it.
        assert_eq!(sequence(&it, 3, 1000), "-R-");
    }

    #[test]
    fn a_rate_changes_the_action_for_a_while() {
        let kind = ThresholdKind::Rate {
            new_action: Action::Drop,
            timeout: 2,
        };
        let it = threshold(kind, Track::Source, 2, 10);
        let mut table = ThresholdTable::new(1 << 20);
        let mut action = |ms| table.matched(1, &it, (A, B), None, at(ms)).1;
        assert_eq!(action(0), None);
        assert_eq!(action(1), None);
        assert_eq!(action(2), Some(Action::Drop));
        assert_eq!(action(1000), Some(Action::Drop));
        assert_eq!(action(2002), Some(Action::Drop));
        assert_eq!(action(2003), None);
    }

    #[test]
    fn addresses_are_told_apart() {
        let limit = |track| threshold(ThresholdKind::Limit, track, 1, 60);
        let mut table = ThresholdTable::new(1 << 20);
        let mut ask = |rule, track, ends| table.matched(rule, &limit(track), ends, None, at(0)).0;
        assert_eq!(ask(1, Track::Source, (A, B)), Permission::Report);
        assert_eq!(ask(1, Track::Source, (A, A)), Permission::Act);
        assert_eq!(ask(1, Track::Source, (B, A)), Permission::Report);
        assert_eq!(ask(2, Track::Source, (A, B)), Permission::Report);
        assert_eq!(ask(3, Track::Both, (A, B)), Permission::Report);
        assert_eq!(ask(3, Track::Both, (B, A)), Permission::Act);
        // The same bits in the other family are another address.
        let mapped = IpAddr::V6(std::net::Ipv6Addr::from(u128::from(u32::from(
            std::net::Ipv4Addr::new(1, 1, 1, 1),
        ))));
        assert_eq!(ask(1, Track::Source, (mapped, B)), Permission::Report);
        let only = AddressSet {
            v4: RangeSet::of(vec![(0x0101_0101, 0x0101_0101)]),
            v6: RangeSet::empty(),
        };
        let suppress = |track| {
            let addresses = Some(only.clone());
            threshold(ThresholdKind::Suppress { addresses }, track, 0, 0)
        };
        let mut table = ThresholdTable::new(1 << 20);
        let mut ask = |track, ends| table.matched(1, &suppress(track), ends, None, at(0)).0;
        assert_eq!(ask(Track::Source, (A, B)), Permission::Act);
        assert_eq!(ask(Track::Source, (B, A)), Permission::Report);
        assert_eq!(ask(Track::Destination, (B, A)), Permission::Act);
        assert_eq!(ask(Track::Both, (B, A)), Permission::Act);
    }

    #[test]
    fn the_table_keeps_to_its_memory() {
        let it = threshold(ThresholdKind::Limit, Track::Source, 1, 60);
        const ENTRY: u64 = Noted::<(u64, Who), (Counted, u64)>::BYTES as u64;
        let mut table = ThresholdTable::new(10 * ENTRY);
        let address = |n: u32| IpAddr::V4(n.into());
        for n in 0..100 {
            table.matched(1, &it, (address(n), B), None, at(0));
        }
        assert_eq!((table.len(), table.uncounted), (10, 90));
        assert!(table.memuse() <= 10 * ENTRY);
        // Those whose time is over make room.
        let later = at(61_000);
        table.matched(1, &it, (address(1000), B), None, later);
        assert_eq!(table.uncounted, 90);
        assert!(table.len() < 10 && table.memuse() <= 10 * ENTRY);
        table.expire(later);
        assert_eq!(table.len(), 1);
        table.expire(at(200_000));
        assert!(table.is_empty());
    }
}
