//! Which rules a packet is checked against: by protocol, direction and port, and in each of
//! these groups by literals and facts.
//!
//! A packet has the rules of two groups: those for its port, and those for ports in general. So
//! no literal is compiled for every port of its class, and what is compiled for a port is small.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::RuleIndex;
use super::lower::{Kind, Signature};
use super::prefilter::facts::{self, FactIndex};
use super::prefilter::pattern::Chosen;
use super::prefilter::{BuildPrefilter, Cache, Literal, Prefilter, PrefilterError, Working};
use super::transactions::{self, AppGroups, Place, Selected};
use super::view::{Class, View};
use crate::app::AppProtocol;
use crate::decode::protocol;
use crate::rules::ast::{Arrow, Buffer, PortSet, Rule, RuleProtocol};

/// Ports of which more are as good as all of them.
const WIDE: u32 = 2048;
/// Most groups of ports of a class and direction; the rules of further ones are for all ports.
const MOST_GROUPS: usize = 256;
/// Most threads that groups are made by.
const MOST_THREADS: usize = 8;
/// With fewer rules than this a group of a port needs no search beforehand.
const FEW: usize = 6;

/// What is searched for literals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Target {
    /// The packet's payload; of TCP it is searched with the stream.
    Packet,
    /// What is to be inspected of its stream.
    Stream,
    /// A header.
    Header(u8),
    /// A buffer of an application protocol.
    App,
}

/// Headers, numbered for [`Target::Header`].
const HEADERS: [Buffer; 7] = [
    Buffer::Ipv4Header,
    Buffer::Ipv6Header,
    Buffer::TcpHeader,
    Buffer::UdpHeader,
    Buffer::Icmpv4Header,
    Buffer::Icmpv6Header,
    Buffer::IgmpHeader,
];

/// Whether literals can be searched for in a buffer.
pub(super) fn is_searched(buffer: Buffer) -> bool {
    buffer == Buffer::Payload || HEADERS.contains(&buffer)
}

/// What selects a rule.
#[derive(Clone, Debug)]
pub(super) enum Selector {
    Literal {
        buffer: Buffer,
        chosen: Chosen,
    },
    Fact(facts::Chosen),
    /// A literal in a buffer of an application protocol.
    App {
        place: Place,
        chosen: Chosen,
    },
    /// It is looked at for every packet.
    Always,
}

/// Literals of one target.
#[derive(Clone, Debug)]
pub(super) struct Scan {
    target: Target,
    prefilter: Box<dyn Prefilter>,
    /// Bytes of the longest literal.
    longest: usize,
    /// Where in `rules` those of each literal begin; and the end.
    starts: Vec<u32>,
    rules: Vec<RuleIndex>,
}

/// Rules that belong together.
#[derive(Clone, Debug, Default)]
pub(super) struct RuleGroup {
    scans: Vec<Scan>,
    facts: Vec<FactIndex>,
    pub(super) always: Vec<RuleIndex>,
}

/// The groups of a class and direction.
#[derive(Clone, Debug, Default)]
pub(super) struct Group {
    pub(super) common: RuleGroup,
    /// For each port the number of its group, counted from one; empty if there are none.
    ports: Vec<u16>,
    by_port: Vec<RuleGroup>,
}

/// What a packet has to search in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Haystacks<'a> {
    pub(super) view: View<'a>,
    pub(super) packet: &'a [u8],
    /// What is to be inspected of the stream, and what is looked at as if it were. Of a packet of a
    /// stream nothing else is searched: rules about packets are searched there as well.
    pub(super) streams: [&'a [u8]; 2],
    /// The first bytes of the stream that were searched before without finding any literal.
    pub(super) quiet: usize,
}

impl<'a> Haystacks<'a> {
    /// What a scan searches.
    fn of(&self, scan: &Scan) -> [&'a [u8]; 2] {
        match scan.target {
            Target::Packet => [self.packet, &[]],
            Target::Stream => {
                // A literal that begins there can end in what is new.
                let from = (self.quiet + 1).saturating_sub(scan.longest.max(1));
                let stream = self.streams[0].get(from..);
                [stream.unwrap_or(self.streams[0]), self.streams[1]]
            }
            Target::Header(number) => {
                let header = header(&self.view, HEADERS[usize::from(number)]);
                [header.unwrap_or(&[]), &[]]
            }
            // Those are searched where they are.
            Target::App => [&[], &[]],
        }
    }
}

/// Which literals a packet has shown already.
#[derive(Debug, Default)]
pub(super) struct Seen {
    literals: Vec<u64>,
    scan: u64,
    /// Whether something was found in the stream.
    pub(super) in_stream: bool,
}

impl Group {
    /// Finds the rules that the packet selects, ascending. Returns those that are looked at besides:
    /// for all ports, and for this one.
    pub(super) fn select(
        &self,
        port: Option<u16>,
        haystacks: &Haystacks<'_>,
        (working, seen): (&mut Working, &mut Seen),
        out: &mut Vec<RuleIndex>,
    ) -> [&[RuleIndex]; 2] {
        let of_port = self.of_port(port);
        out.clear();
        seen.in_stream = false;
        for rules in [Some(&self.common), of_port].into_iter().flatten() {
            rules.select(haystacks, working, seen, out);
        }
        out.sort_unstable();
        out.dedup();
        [
            &self.common.always,
            of_port.map_or(&[][..], |rules| &rules.always),
        ]
    }

    /// The rules for this port, besides those for all.
    pub(super) fn of_port(&self, port: Option<u16>) -> Option<&RuleGroup> {
        let number = *self.ports.get(usize::from(port?))?;
        self.by_port.get(usize::from(number.checked_sub(1)?))
    }

    /// Its rule groups.
    pub(super) fn rule_groups(&self) -> impl Iterator<Item = &RuleGroup> {
        std::iter::once(&self.common).chain(&self.by_port)
    }
}

impl Scan {
    /// Adds the rules that bytes select, in no order and perhaps twice.
    pub(super) fn search(
        &self,
        bytes: &[u8],
        working: &mut Working,
        seen: &mut Seen,
        out: &mut Vec<RuleIndex>,
    ) {
        seen.scan += 1;
        self.find(bytes, working, seen, out);
    }

    /// The same, each literal once since the number of the scan has changed. Whether any was found.
    fn find(
        &self,
        bytes: &[u8],
        working: &mut Working,
        seen: &mut Seen,
        out: &mut Vec<RuleIndex>,
    ) -> bool {
        let mut found = false;
        if bytes.is_empty() {
            return found;
        }
        let Seen { literals, scan, .. } = seen;
        self.prefilter.scan(bytes, working, &mut |literal| {
            found = true;
            let at = literal as usize;
            if std::mem::replace(&mut literals[at], *scan) != *scan {
                let (from, to) = (self.starts[at] as usize, self.starts[at + 1] as usize);
                out.extend_from_slice(&self.rules[from..to]);
            }
        });
        found
    }

    /// Sees to it that working memory suffices.
    pub(super) fn prepare(
        &self,
        working: &mut Working,
        seen: &mut Seen,
    ) -> Result<(), PrefilterError> {
        self.prefilter.prepare(working)?;
        if seen.literals.len() < self.starts.len() {
            seen.literals.resize(self.starts.len(), 0);
        }
        Ok(())
    }

    /// Bytes that it takes.
    pub(super) fn heap_bytes(&self) -> usize {
        self.prefilter.heap_bytes()
    }
}

impl RuleGroup {
    /// Adds the rules that the packet selects, in no order and perhaps twice.
    fn select(
        &self,
        haystacks: &Haystacks<'_>,
        working: &mut Working,
        seen: &mut Seen,
        out: &mut Vec<RuleIndex>,
    ) {
        for index in &self.facts {
            index.find(&haystacks.view, out);
        }
        for scan in &self.scans {
            let searched = haystacks.of(scan);
            seen.scan += 1;
            for (number, bytes) in searched.into_iter().enumerate() {
                let found = scan.find(bytes, working, seen, out);
                seen.in_stream |= found && scan.target == Target::Stream && number == 0;
            }
        }
    }

    /// What is searched for a packet, and by what.
    pub(super) fn searches<'h>(
        &self,
        haystacks: &Haystacks<'h>,
    ) -> impl Iterator<Item = (Target, &dyn Prefilter, &'h [u8])> {
        self.scans.iter().flat_map(move |scan| {
            let searched = haystacks.of(scan).into_iter();
            searched
                .filter(|bytes| !bytes.is_empty())
                .map(move |bytes| (scan.target, &*scan.prefilter, bytes))
        })
    }

    /// How many literals there are for each target.
    pub(super) fn literals(&self) -> impl Iterator<Item = (Target, usize)> {
        let scans = self.scans.iter();
        scans.map(|scan| (scan.target, scan.starts.len() - 1))
    }

    /// Its scans.
    pub(super) fn scans(&self) -> impl Iterator<Item = &Scan> {
        self.scans.iter()
    }
}

/// A header as bytes.
pub(super) fn header<'a>(view: &View<'a>, buffer: Buffer) -> Option<&'a [u8]> {
    match buffer {
        Buffer::Ipv4Header => view.ipv4_header(),
        Buffer::Ipv6Header => view.ipv6_header(),
        Buffer::TcpHeader => view.tcp(),
        Buffer::UdpHeader => view.udp(),
        Buffer::Icmpv4Header => view.icmpv4(),
        Buffer::Icmpv6Header => view.icmpv6(),
        Buffer::IgmpHeader => view.igmp(),
        Buffer::Payload
        | Buffer::Base64Data
        | Buffer::IpSource
        | Buffer::IpDestination
        | Buffer::App(_) => None,
    }
}

/// Whether rules of this protocol are about packets of this class.
pub(super) fn is_about(protocol: RuleProtocol, class: Class) -> bool {
    match protocol {
        RuleProtocol::PacketHeader | RuleProtocol::Ethernet => true,
        RuleProtocol::Ip | RuleProtocol::Ipv4 | RuleProtocol::Ipv6 => class != Class::NoIp,
        RuleProtocol::Tcp | RuleProtocol::TcpPacket | RuleProtocol::TcpStream => {
            class == Class::Tcp
        }
        RuleProtocol::Udp => class == Class::Udp,
        RuleProtocol::Sctp => class == Class::Sctp,
        RuleProtocol::Icmp => matches!(class, Class::Icmp | Class::Icmpv6),
        RuleProtocol::Icmpv4 => class == Class::Icmp,
        RuleProtocol::Icmpv6 => class == Class::Icmpv6,
        RuleProtocol::Igmp => class == Class::Other,
        RuleProtocol::Arp => class == Class::NoIp,
        RuleProtocol::App(name) => {
            let number = match class {
                Class::Tcp => protocol::TCP,
                Class::Udp => protocol::UDP,
                _ => return false,
            };
            AppProtocol::named(name).any(|it| it.transports().contains(&number))
        }
    }
}

/// What becomes of a job.
type Made = OnceLock<Result<RuleGroup, PrefilterError>>;

/// The groups of a class and direction before they are made.
struct Plan {
    class: Class,
    ports: Vec<u16>,
    /// Those for all ports, then those of each group of ports.
    rules: Vec<Vec<RuleIndex>>,
    /// For each of these lists.
    made: Vec<Made>,
    /// For each of these lists the same one of the other direction's plan: it is made once.
    same: Vec<Option<usize>>,
}

/// A rule group to be made.
struct Job<'p> {
    class: Class,
    rules: &'p [RuleIndex],
    all_always: bool,
    place: &'p Made,
}

impl Plan {
    fn share(&mut self, other: &Self) {
        // The first one is for all ports, and made in another way than the others.
        let find = |(number, rules): (usize, &Vec<RuleIndex>)| match number {
            0 => (other.rules.first() == Some(rules)).then_some(0),
            _ => (1..other.rules.len()).find(|&at| other.rules[at] == *rules),
        };
        self.same = self.rules.iter().enumerate().map(find).collect();
    }

    fn jobs(&self) -> impl Iterator<Item = Job<'_>> {
        let lists = self.rules.iter().zip(&self.made).enumerate();
        lists
            .filter(|(number, _)| self.same[*number].is_none())
            .map(|(number, (rules, place))| Job {
                class: self.class,
                rules,
                all_always: number > 0 && rules.len() < FEW,
                place,
            })
    }

    /// Takes over what the other one has made. What it could not make it says itself.
    fn take_over(&self, other: &Self) {
        for (place, same) in self.made.iter().zip(&self.same) {
            let made = same.and_then(|at| other.made[at].get());
            if let Some(Ok(group)) = made {
                let _ = place.set(Ok(group.clone()));
            }
        }
    }

    /// Every job is done.
    fn group(self) -> Result<Group, PrefilterError> {
        let mut groups = self.made.into_iter().filter_map(OnceLock::into_inner);
        Ok(Group {
            common: groups.next().unwrap_or_else(|| Ok(RuleGroup::default()))?,
            ports: self.ports,
            by_port: groups.collect::<Result<_, _>>()?,
        })
    }
}

/// Where groups come from.
pub(super) struct Builder<'a> {
    pub(super) signatures: &'a [Signature],
    /// For each signature.
    pub(super) selectors: &'a [Selector],
    pub(super) build: BuildPrefilter,
    pub(super) cache: Option<&'a Cache>,
}

/// The ports that the server's end of a packet must have for a rule; `None`: all or many.
fn ports(rule: &Rule, to_server: bool) -> Option<PortSet> {
    let (own, other) = match to_server {
        true => (&rule.destination_ports, &rule.source_ports),
        false => (&rule.source_ports, &rule.destination_ports),
    };
    let count = |set: &PortSet| -> u32 {
        let sizes = set.ranges().iter();
        sizes.map(|&(low, high)| u32::from(high - low) + 1).sum()
    };
    let set = match rule.direction {
        Arrow::Either => {
            let both = own.ranges().iter().chain(other.ranges());
            PortSet::of(both.copied().collect())
        }
        Arrow::Toward | Arrow::Transaction => own.clone(),
    };
    (count(&set) <= WIDE).then_some(set)
}

impl Builder<'_> {
    /// All groups, by class and direction. Several threads work on them, because most of a start's
    /// time goes here; all have ended when it returns.
    pub(super) fn groups(&self) -> Result<Vec<[Group; 2]>, PrefilterError> {
        let plans: Vec<[Plan; 2]> = Class::ALL
            .iter()
            .map(|&class| {
                let [to_server, mut to_client] = [true, false].map(|way| self.plan(class, way));
                to_client.share(&to_server);
                [to_server, to_client]
            })
            .collect();
        let mut jobs: Vec<Job<'_>> = plans.iter().flatten().flat_map(Plan::jobs).collect();
        // The largest first, so that none of them is what everybody waits for at the end.
        jobs.sort_by_key(|job| std::cmp::Reverse(job.rules.len()));
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                // Each place belongs to one job.
                let _ = job
                    .place
                    .set(self.rule_group(job.class, job.rules, job.all_always));
            }
        };
        let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        std::thread::scope(|scope| {
            for _ in 1..threads.min(MOST_THREADS) {
                // Where there cannot be another thread this one does it all.
                if std::thread::Builder::new()
                    .spawn_scoped(scope, work)
                    .is_err()
                {
                    break;
                }
            }
            work();
        });
        drop(jobs);
        plans
            .into_iter()
            .map(|[to_server, to_client]| {
                to_client.take_over(&to_server);
                Ok([to_server.group()?, to_client.group()?])
            })
            .collect()
    }

    /// The groups of rules about transactions.
    pub(super) fn app_groups(&self) -> Result<AppGroups, PrefilterError> {
        let rules = (0..).map(RuleIndex).zip(self.signatures);
        let rules = rules.filter(|(_, signature)| signature.kind == Kind::Transaction);
        let selected = rules.map(|(index, signature)| Selected {
            index,
            signature,
            by: match &self.selectors[index.0 as usize] {
                Selector::App { place, chosen } => {
                    let steps = signature.steps_of(chosen.section);
                    Some((place, steps, &chosen.literal))
                }
                _ => None,
            },
        });
        transactions::groups(&selected.collect::<Vec<_>>(), |literals| {
            self.scan(Target::App, literals)
        })
    }

    /// Which rules go into which groups of a class and direction.
    fn plan(&self, class: Class, to_server: bool) -> Plan {
        let mut common = Vec::new();
        let mut of_ports: Vec<(RuleIndex, PortSet)> = Vec::new();
        for (index, signature) in (0..).map(RuleIndex).zip(self.signatures) {
            let wrong_way = signature
                .to_server
                .is_some_and(|wanted| wanted != to_server);
            if matches!(signature.kind, Kind::Addresses | Kind::Transaction)
                || wrong_way
                || !is_about(signature.rule.protocol, class)
            {
                continue;
            }
            match ports(&signature.rule, to_server).filter(|_| class.has_ports()) {
                Some(set) => of_ports.push((index, set)),
                None => common.push(index),
            }
        }
        let (ports, lists) = by_port(&mut common, of_ports);
        let mut rules = vec![common];
        rules.extend(lists);
        Plan {
            class,
            ports,
            made: rules.iter().map(|_| OnceLock::new()).collect(),
            same: vec![None; rules.len()],
            rules,
        }
    }

    fn rule_group(
        &self,
        class: Class,
        rules: &[RuleIndex],
        all_always: bool,
    ) -> Result<RuleGroup, PrefilterError> {
        let mut group = RuleGroup::default();
        let mut literals: HashMap<Target, Vec<(&Literal, RuleIndex)>> = HashMap::new();
        let mut by_facts = facts::Builder::default();
        for &rule in rules {
            match &self.selectors[rule.0 as usize] {
                Selector::Literal { buffer, chosen } if !all_always => {
                    let mut add = |target| {
                        let list = literals.entry(target).or_default();
                        list.push((&chosen.literal, rule));
                    };
                    match HEADERS.iter().position(|header| header == buffer) {
                        Some(number) => add(Target::Header(number as u8)),
                        None if class != Class::Tcp => add(Target::Packet),
                        // One search for all: a stream's packet is in its stream.
                        None => add(Target::Stream),
                    }
                }
                Selector::Fact(chosen) if !all_always => by_facts.add(chosen.clone(), rule),
                _ => group.always.push(rule),
            }
        }
        group.facts = by_facts.finish();
        let mut targets: Vec<Target> = literals.keys().copied().collect();
        targets.sort_unstable();
        for target in targets {
            group.scans.push(self.scan(target, &literals[&target])?);
        }
        Ok(group)
    }

    fn scan(
        &self,
        target: Target,
        wanted: &[(&Literal, RuleIndex)],
    ) -> Result<Scan, PrefilterError> {
        let mut sorted = wanted.to_vec();
        sorted.sort_unstable();
        let mut literals: Vec<Literal> = Vec::new();
        let mut starts = Vec::new();
        let mut rules = Vec::with_capacity(sorted.len());
        for (literal, rule) in sorted {
            if literals.last() != Some(literal) {
                literals.push(literal.clone());
                starts.push(rules.len() as u32);
            }
            rules.push(rule);
        }
        starts.push(rules.len() as u32);
        let lengths = literals.iter().map(|literal| literal.bytes.len());
        Ok(Scan {
            target,
            longest: lengths.max().unwrap_or(0),
            prefilter: (self.build)(&literals, self.cache)?,
            starts,
            rules,
        })
    }
}

/// For each port the number of its list of rules, and the lists. Rules that would need too many
/// lists become common ones.
fn by_port(
    common: &mut Vec<RuleIndex>,
    mut of_ports: Vec<(RuleIndex, PortSet)>,
) -> (Vec<u16>, Vec<Vec<RuleIndex>>) {
    loop {
        let mut starts: Vec<u32> = vec![0];
        for &(low, high) in of_ports.iter().flat_map(|(_, set)| set.ranges()) {
            starts.extend([u32::from(low), u32::from(high) + 1]);
        }
        starts.sort_unstable();
        starts.dedup();
        starts.retain(|start| *start <= u32::from(u16::MAX));
        // The rules of each interval between two starts.
        let mut intervals: Vec<Vec<RuleIndex>> = vec![Vec::new(); starts.len()];
        for (rule, set) in &of_ports {
            for &(low, high) in set.ranges() {
                let from = starts.partition_point(|start| *start < u32::from(low));
                let to = starts.partition_point(|start| *start <= u32::from(high));
                for interval in &mut intervals[from..to] {
                    interval.push(*rule);
                }
            }
        }
        let mut numbers: HashMap<&[RuleIndex], u16> = HashMap::new();
        let mut lists: Vec<Vec<RuleIndex>> = Vec::new();
        let mut table = vec![0u16; usize::from(u16::MAX) + 1];
        for (at, rules) in intervals.iter().enumerate() {
            if rules.is_empty() {
                continue;
            }
            let number = *numbers.entry(rules).or_insert_with(|| {
                lists.push(rules.clone());
                lists.len() as u16
            });
            let end = starts.get(at + 1).map_or(table.len(), |end| *end as usize);
            table[starts[at] as usize..end].fill(number);
        }
        if lists.is_empty() {
            return (Vec::new(), lists);
        }
        if lists.len() <= MOST_GROUPS {
            return (table, lists);
        }
        // Those of the most ports make the most lists: they go first.
        of_ports.sort_by_key(|(rule, set)| {
            let sizes = set.ranges().iter();
            let size: u32 = sizes.map(|&(low, high)| u32::from(high - low) + 1).sum();
            (size, *rule)
        });
        let left = of_ports.len() / 2;
        common.extend(of_ports.drain(left..).map(|(rule, _)| rule));
        common.sort_unstable();
        of_ports.sort_by_key(|(rule, _)| *rule);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ranges: &[(u16, u16)]) -> PortSet {
        PortSet::of(ranges.to_vec())
    }

    #[test]
    fn ports_with_the_same_rules_share_a_list() {
        let rule = RuleIndex;
        let mut common = vec![rule(9)];
        let of_ports = vec![
            (rule(0), set(&[(80, 80), (8080, 8090)])),
            (rule(1), set(&[(80, 80), (8080, 8090)])),
            (rule(2), set(&[(8085, 9000)])),
            (rule(3), set(&[(0, 0), (65535, 65535)])),
        ];
        let (table, lists) = by_port(&mut common, of_ports);
        let of = |port: usize| match table[port] {
            0 => Vec::new(),
            number => lists[usize::from(number) - 1]
                .iter()
                .map(|it| it.0)
                .collect(),
        };
        assert_eq!(of(80), [0, 1]);
        assert_eq!(of(8080), [0, 1]);
        assert_eq!(of(8085), [0, 1, 2]);
        assert_eq!(of(8091), [2]);
        assert_eq!(of(9000), [2]);
        assert_eq!((of(81), of(9001)), (vec![], vec![]));
        assert_eq!((of(0), of(65535)), (vec![3], vec![3]));
        assert_eq!(lists.len(), 4);
        assert_eq!(common, [rule(9)]);
    }

    #[test]
    fn too_many_lists_are_not_made() {
        let mut common = Vec::new();
        let of_ports: Vec<_> = (0..2000u16)
            .map(|n| (RuleIndex(u32::from(n)), set(&[(n * 3, n * 3 + n % 5)])))
            .collect();
        let (_, lists) = by_port(&mut common, of_ports);
        let mut all: Vec<RuleIndex> = lists.concat();
        all.extend(&common);
        all.sort_unstable();
        all.dedup();
        assert!(lists.len() <= MOST_GROUPS);
        assert_eq!(all.len(), 2000);
    }
}
