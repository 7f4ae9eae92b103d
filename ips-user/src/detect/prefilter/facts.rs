//! Rules chosen by a number in the packet's headers: those without a literal, and those that say
//! `prefilter`.

use crate::detect::RuleIndex;
use crate::detect::view::View;
use crate::rules::ast::{Compare, Condition};

/// A number that packets have. All fit 16 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Fact {
    TcpFlags,
    TcpWindow,
    TcpMss,
    IcmpType,
    IcmpCode,
    IcmpId,
    IcmpSeq,
    PayloadSize,
    IpId,
    IpProtocol,
    Ttl,
}

/// Whether a condition holds for a value.
type Holds<'a> = Box<dyn Fn(u16) -> bool + 'a>;

impl Fact {
    /// The fact that a condition is about, and whether it holds for a value.
    fn of(condition: &Condition) -> Option<(Self, Holds<'_>)> {
        fn byte(compare: &Compare<u8>) -> Holds<'_> {
            Box::new(|value| u8::try_from(value).is_ok_and(|value| compare.holds(value)))
        }
        Some(match condition {
            Condition::TcpFlags(_) => (
                Self::TcpFlags,
                Box::new(|value| {
                    u8::try_from(value)
                        .is_ok_and(|flags| crate::detect::conditions::flags_hold(condition, flags))
                }),
            ),
            Condition::Window { negated, value } => (
                Self::TcpWindow,
                Box::new(|window| (window == *value) != *negated),
            ),
            Condition::TcpMss(compare) => (Self::TcpMss, Box::new(|mss| compare.holds(mss))),
            Condition::IcmpType(compare) => (Self::IcmpType, byte(compare)),
            Condition::IcmpCode(compare) => (Self::IcmpCode, byte(compare)),
            Condition::IcmpId(id) => (Self::IcmpId, Box::new(|value| value == *id)),
            Condition::IcmpSeq(number) => (Self::IcmpSeq, Box::new(|value| value == *number)),
            Condition::PayloadSize(compare) => {
                (Self::PayloadSize, Box::new(|size| compare.holds(size)))
            }
            Condition::IpId(id) => (Self::IpId, Box::new(|value| value == *id)),
            Condition::IpProtocol(compare) => (Self::IpProtocol, byte(compare)),
            Condition::Ttl(compare) => (Self::Ttl, byte(compare)),
            _ => return None,
        })
    }

    /// Its value in a packet.
    fn value(self, view: &View<'_>) -> Option<u16> {
        match self {
            Self::TcpFlags => view.tcp_flags().map(u16::from),
            Self::TcpWindow => view.tcp_window(),
            Self::TcpMss => view.tcp_mss(),
            Self::IcmpType => view.icmp_type().map(|(kind, _)| u16::from(kind)),
            Self::IcmpCode => view.icmp_type().map(|(_, code)| u16::from(code)),
            Self::IcmpId => view.icmp_query().map(|(id, _)| id),
            Self::IcmpSeq => view.icmp_query().map(|(_, number)| number),
            Self::PayloadSize => Some(u16::try_from(view.payload().len()).unwrap_or(u16::MAX)),
            Self::IpId => view.ip_id(),
            Self::IpProtocol => view.is_ip().then(|| u16::from(view.protocol())),
            Self::Ttl => view.ttl().map(u16::from),
        }
    }
}

/// Values of a fact with which a rule can match, as ranges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chosen {
    fact: Fact,
    ranges: Vec<(u16, u16)>,
}

impl Chosen {
    /// How many values there are.
    fn weight(&self) -> u32 {
        let sizes = self
            .ranges
            .iter()
            .map(|&(low, high)| u32::from(high - low) + 1);
        let total: u32 = sizes.sum();
        // Of the narrow ones a share of 256 is as much as that of 65536 of the others.
        match self.fact {
            Fact::TcpFlags | Fact::IcmpType | Fact::IcmpCode | Fact::IpProtocol | Fact::Ttl => {
                total * 256
            }
            _ => total,
        }
    }
}

/// By what a condition can choose its rule.
pub(crate) fn chosen(condition: &Condition) -> Option<Chosen> {
    let (fact, holds) = Fact::of(condition)?;
    let mut ranges: Vec<(u16, u16)> = Vec::new();
    for value in 0..=u16::MAX {
        if !holds(value) {
            continue;
        }
        match ranges.last_mut() {
            Some((_, high)) if *high + 1 == value => *high = value,
            _ => ranges.push((value, value)),
        }
    }
    Some(Chosen { fact, ranges })
}

/// The condition of these that leaves the fewest values.
pub(crate) fn best(conditions: &[Condition]) -> Option<Chosen> {
    conditions
        .iter()
        .filter_map(chosen)
        .min_by_key(Chosen::weight)
        // What hardly excludes anything is not worth looking up.
        .filter(|chosen| chosen.weight() <= 60_000)
}

/// Rules by the values of one fact.
#[derive(Clone, Debug)]
pub(crate) struct FactIndex {
    fact: Fact,
    /// First value of each interval, ascending; up to the next one the rules are the same.
    starts: Vec<u16>,
    rules: Vec<Box<[RuleIndex]>>,
}

impl FactIndex {
    /// Calls `each` for every rule that the packet's value chooses.
    pub(crate) fn find(&self, view: &View<'_>, out: &mut Vec<RuleIndex>) {
        let Some(value) = self.fact.value(view) else {
            return;
        };
        let after = self.starts.partition_point(|start| *start <= value);
        if let Some(rules) = after.checked_sub(1).and_then(|at| self.rules.get(at)) {
            out.extend_from_slice(rules);
        }
    }
}

/// Makes indexes.
#[derive(Debug, Default)]
pub(crate) struct Builder(Vec<(Chosen, RuleIndex)>);

impl Builder {
    /// A rule that is to be looked at where its condition can hold.
    pub(crate) fn add(&mut self, chosen: Chosen, rule: RuleIndex) {
        self.0.push((chosen, rule));
    }

    /// One index for each fact.
    pub(crate) fn finish(self) -> Vec<FactIndex> {
        let mut facts: Vec<Fact> = self.0.iter().map(|(chosen, _)| chosen.fact).collect();
        facts.sort_unstable();
        facts.dedup();
        facts
            .into_iter()
            .map(|fact| {
                let of = || self.0.iter().filter(|(chosen, _)| chosen.fact == fact);
                let mut starts = vec![0];
                for &(low, high) in of().flat_map(|(chosen, _)| &chosen.ranges) {
                    starts.push(low);
                    starts.extend(high.checked_add(1));
                }
                starts.sort_unstable();
                starts.dedup();
                let rules = starts.iter().map(|start| {
                    let within = |&(low, high): &(u16, u16)| low <= *start && *start <= high;
                    let rules = of().filter(|(chosen, _)| chosen.ranges.iter().any(within));
                    rules.map(|(_, rule)| *rule).collect()
                });
                FactIndex {
                    fact,
                    rules: rules.collect(),
                    starts,
                }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_with_which_a_condition_holds_are_found() {
        let check = |condition: Condition, expect: &[(u16, u16)]| {
            assert_eq!(chosen(&condition).unwrap().ranges, expect, "{condition:?}");
        };
        check(Condition::IcmpType(Compare::Equal(8)), &[(8, 8)]);
        check(
            Condition::IcmpType(Compare::NotEqual(8)),
            &[(0, 7), (9, 255)],
        );
        check(
            Condition::PayloadSize(Compare::Greater(65000)),
            &[(65001, 65535)],
        );
        check(Condition::PayloadSize(Compare::AtLeast(0)), &[(0, 65535)]);
        check(
            Condition::Window {
                negated: true,
                value: 0,
            },
            &[(1, 65535)],
        );
        assert_eq!(chosen(&Condition::SameIp), None);
    }

    #[test]
    fn the_condition_that_excludes_most_is_taken() {
        let best = best(&[
            Condition::Ttl(Compare::Less(200)),
            Condition::PayloadSize(Compare::Equal(10)),
            Condition::SameIp,
        ]);
        assert_eq!(best.unwrap().fact, Fact::PayloadSize);
        assert_eq!(
            super::best(&[Condition::PayloadSize(Compare::AtLeast(0))]),
            None
        );
    }
}
