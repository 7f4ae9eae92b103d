//! The engine's prefilters by themselves, for whoever measures them.

use super::engine::{Engine, Scratch};
use super::group::{Haystacks, RuleGroup, Target};
use super::inspect::service;
use super::prefilter::{BuildPrefilter, Literal, Prefilter, pattern};
use super::view::{Class, View};
use crate::decode::Decoded;
use crate::flow::PacketDirection;
use crate::rules::Rule;

/// What is searched: packets of a class, one of their buffers, one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// The packets' protocol.
    pub class: &'static str,
    /// Which way they go.
    pub direction: &'static str,
    /// Which of their bytes.
    pub buffer: &'static str,
    /// Whether the rules are those of the packet's port, not those for all.
    pub of_port: bool,
}

impl Place {
    fn new(class: Class, to_server: bool, target: Target, of_port: bool) -> Self {
        Self {
            class: match class {
                Class::Tcp => "tcp",
                Class::Udp => "udp",
                Class::Sctp => "sctp",
                Class::Icmp => "icmp",
                Class::Icmpv6 => "icmpv6",
                Class::Other => "other",
                Class::NoIp => "no ip",
            },
            direction: if to_server { "to server" } else { "to client" },
            buffer: match target {
                Target::Packet => "packet",
                Target::Stream => "stream",
                Target::Header(_) => "header",
                Target::App => "app",
            },
            of_port,
        }
    }
}

/// One buffer of one packet, and what searches it.
#[derive(Clone, Copy, Debug)]
pub struct Search<'e, 'p> {
    /// Where.
    pub place: Place,
    /// What searches.
    pub prefilter: &'e dyn Prefilter,
    /// What is searched.
    pub bytes: &'p [u8],
}

/// A packet whose payload is all that comes with it of its stream.
fn alone<'a>(packet: &'a Decoded<'a>) -> Haystacks<'a> {
    let view = View::new(packet);
    Haystacks {
        view,
        packet: view.payload(),
        streams: [view.payload(), &[]],
        quiet: 0,
    }
}

impl Engine {
    /// How many rules the prefilters leave of a packet, as [`Engine::inspect`] asks them, when its
    /// payload is all that comes with it of its stream.
    pub fn candidates(
        &self,
        packet: &Decoded<'_>,
        direction: PacketDirection,
        scratch: &mut Scratch,
    ) -> usize {
        let haystacks = alone(packet);
        let to_server = direction == PacketDirection::ToServer;
        let always = self.group(haystacks.view.class(), to_server).select(
            service(&haystacks.view, to_server),
            &haystacks,
            (&mut scratch.working, &mut scratch.seen),
            &mut scratch.candidates,
        );
        scratch.candidates.len() + always[0].len() + always[1].len()
    }

    /// The searches of which [`Engine::candidates`] consists.
    pub fn searches<'e, 'p>(
        &'e self,
        packet: &'p Decoded<'p>,
        direction: PacketDirection,
        mut each: impl FnMut(Search<'e, 'p>),
    ) {
        let haystacks = alone(packet);
        let to_server = direction == PacketDirection::ToServer;
        let class = haystacks.view.class();
        let group = self.group(class, to_server);
        let of_port = group.of_port(service(&haystacks.view, to_server));
        for (rules, of_port) in [(Some(&group.common), false), (of_port, true)] {
            let searches = rules
                .into_iter()
                .flat_map(|rules| rules.searches(&haystacks));
            for (target, prefilter, bytes) in searches {
                each(Search {
                    place: Place::new(class, to_server, target, of_port),
                    prefilter,
                    bytes,
                });
            }
        }
    }

    /// Every place that is searched, how many matchers there are for it, and how many literals they
    /// have.
    pub fn places(&self) -> Vec<(Place, usize, usize)> {
        let mut places = std::collections::BTreeMap::new();
        for class in Class::ALL {
            for to_server in [true, false] {
                let group = self.group(class, to_server);
                let mut add = |rules: &RuleGroup, of_port| {
                    for (target, literals) in rules.literals() {
                        let place = Place::new(class, to_server, target, of_port);
                        let (matchers, total) = places.entry(place).or_insert((0, 0));
                        *matchers += 1;
                        *total += literals;
                    }
                };
                add(&group.common, false);
                group
                    .rule_groups()
                    .skip(1)
                    .for_each(|rules| add(rules, true));
            }
        }
        let places = places.into_iter();
        places
            .map(|(place, (matchers, literals))| (place, matchers, literals))
            .collect()
    }
}

/// The literal that each rule would be looked for by, whichever buffer it is of: distinct, in
/// order.
pub fn fast_patterns(rules: &[Rule]) -> Vec<Literal> {
    let chosen = rules
        .iter()
        .filter_map(|rule| pattern::choose(&rule.options.sections, |_| true));
    let mut literals: Vec<Literal> = chosen.map(|chosen| chosen.literal).collect();
    literals.sort_unstable();
    literals.dedup();
    literals
}

/// The prefilters that this program has, by name.
pub fn prefilters() -> Vec<(&'static str, BuildPrefilter)> {
    vec![
        #[cfg(libhs)]
        (
            "libhs",
            super::prefilter::Hyperscan::build as BuildPrefilter,
        ),
        ("daachorse", super::prefilter::Daachorse::build),
    ]
}
