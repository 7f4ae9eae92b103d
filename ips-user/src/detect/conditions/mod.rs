//! What rules ask of packets and flows besides what is in buffers.

use super::hosts::pair;
use super::inspect::Speech;
use super::marks::FlowMarks;
use super::names::NameId;
use super::tables::Tables;
use super::view::View;
use super::{FlowView, PacketDirection};
use crate::app::{AppProtocol, Asked, Known};
use crate::decode::event::DecodeEvent;
use crate::flow::Timestamp;
use crate::reassembly::tcp::{StreamEvent, StreamEvents};
use crate::rules::ast::{
    CaptureScope, Compare, Condition, FlowIntOperator, FlowIntValue, GeoSide, ReputationSide,
    StreamSide, Track,
};

mod compile;
mod packet;
#[cfg(test)]
mod tests;

pub(crate) use compile::{Around, compile, speaks};

/// A condition, compiled.
#[derive(Clone, Debug)]
pub(crate) enum Test {
    /// Answered by the packet alone.
    Packet(Condition),
    /// The decoder has found this.
    Decode(DecodeEvent),
    /// The stream engine has found this.
    Stream(StreamEvent),
    Flow {
        established: Option<bool>,
        to_server: Option<bool>,
        /// There must be a flow.
        stateless: bool,
        /// Put together from fragments, or not.
        reassembled: Option<bool>,
    },
    Bits {
        set: bool,
        any_of: Box<[NameId]>,
    },
    Int {
        name: NameId,
        asked: IntAsked,
    },
    HostBits {
        set: bool,
        name: NameId,
        track: Track,
    },
    StreamSize {
        side: StreamSide,
        compare: Compare<u32>,
    },
    Age(Compare<u32>),
    Packets {
        side: StreamSide,
        compare: Compare<u32>,
    },
    Bytes {
        side: StreamSide,
        compare: Compare<u64>,
    },
    /// The address is in this set of the engine's. Both: of the countries, and where any is known.
    Country {
        side: GeoSide,
        countries: u32,
        known: u32,
        negated: bool,
    },
    Reputation {
        side: ReputationSide,
        category: u8,
        compare: Compare<u8>,
    },
    Variable {
        scope: CaptureScope,
        name: NameId,
        negated: bool,
        finder: Box<memchr::memmem::Finder<'static>>,
    },
    /// The flow speaks one of these.
    Speaks(Box<[AppProtocol]>),
    /// The same, or not, as `app-layer-protocol` asks.
    Protocol {
        asked: ProtocolAsked,
        negated: bool,
    },
    /// Of the transaction.
    App(Asked),
}

/// What `app-layer-protocol` asks for.
#[derive(Clone, Debug)]
pub(crate) enum ProtocolAsked {
    Any(Box<[AppProtocol]>),
    Failed,
    Unknown,
}

impl ProtocolAsked {
    fn holds(&self, known: Known, negated: bool) -> bool {
        match (self, known) {
            (Self::Unknown, known) => known == Known::NotYet,
            // Of what is not known yet nothing is said.
            (_, Known::NotYet) => false,
            (Self::Failed, known) => (known == Known::Failed) != negated,
            (Self::Any(_), Known::Failed) => negated,
            (Self::Any(any), Known::Is(protocol)) => any.contains(&protocol) != negated,
        }
    }
}

/// What `flowint` asks.
#[derive(Clone, Copy, Debug)]
pub(crate) enum IntAsked {
    IsSet,
    IsNotSet,
    Compare(FlowIntOperator, IntValue),
}

/// A number, or another variable of the flow.
#[derive(Clone, Copy, Debug)]
pub(crate) enum IntValue {
    Literal(u32),
    Variable(NameId),
}

impl IntValue {
    pub(crate) fn of(value: &FlowIntValue, mut name: impl FnMut(&str) -> NameId) -> Self {
        match value {
            FlowIntValue::Literal(value) => Self::Literal(*value),
            FlowIntValue::Variable(variable) => Self::Variable(name(variable)),
        }
    }

    /// Zero for a variable that is not set.
    pub(crate) fn get(self, marks: &FlowMarks) -> u32 {
        match self {
            Self::Literal(value) => value,
            Self::Variable(name) => marks.int(name).unwrap_or(0),
        }
    }
}

/// Whether addresses are in sets of the engine's, known for each packet once.
pub(crate) trait AddressSets {
    /// Whether the source is in this set.
    fn source(&mut self, set: u32) -> bool;
    /// Whether the destination is.
    fn destination(&mut self, set: u32) -> bool;
}

/// All that conditions are asked about.
pub(crate) struct Scene<'a, 'f> {
    pub(crate) view: View<'a>,
    pub(crate) flow: Option<&'a mut FlowView<'f>>,
    pub(crate) tables: &'a mut Tables,
    pub(crate) reputation: Option<&'a super::reputation::Reputation>,
    pub(crate) stream_events: StreamEvents,
    pub(crate) now: Timestamp,
}

impl Test {
    /// Whether it is about established connections.
    pub(crate) const fn asks_for_established(&self) -> bool {
        matches!(
            self,
            Self::Flow {
                established: Some(true),
                ..
            }
        )
    }

    /// Whether it holds. `texts` are what expressions have captured for this packet, `speech` is the
    /// transaction that is asked about.
    pub(crate) fn holds(
        &self,
        scene: &Scene<'_, '_>,
        addresses: &mut impl AddressSets,
        texts: &[(NameId, Box<[u8]>)],
        speech: Option<Speech<'_>>,
    ) -> bool {
        let flow = scene.flow.as_deref();
        match self {
            Self::Decode(event) => scene.view.events().contains(*event),
            Self::Stream(event) => scene.stream_events.contains(*event),
            Self::Packet(condition) => packet::holds(condition, &scene.view),
            // What was said stays of its protocol when the flow changes to another.
            Self::Speaks(any) => match (speech, flow.map(|flow| flow.app)) {
                (Some(speech), _) => any.contains(&speech.transaction.protocol()),
                (None, Some(Known::Is(protocol))) => any.contains(&protocol),
                (None, _) => false,
            },
            Self::Protocol { asked, negated } => {
                flow.is_some_and(|flow| asked.holds(flow.app, *negated))
            }
            Self::App(asked) => speech.and_then(|it| it.answers(asked)) == Some(true),
            Self::Flow {
                established,
                to_server,
                stateless,
                reassembled,
            } => {
                let direction = flow.map(|flow| flow.direction == PacketDirection::ToServer);
                let is_established = flow.is_some_and(|flow| flow.established);
                established.is_none_or(|wanted| wanted == is_established)
                    && to_server.is_none_or(|wanted| direction == Some(wanted))
                    && (!stateless || flow.is_some())
                    && reassembled.is_none_or(|wanted| wanted == scene.view.is_reassembled())
            }
            Self::Bits { set, any_of } => {
                let any = flow.is_some_and(|flow| any_of.iter().any(|bit| flow.marks.bit(*bit)));
                match set {
                    true => any,
                    // Without a flow there is nothing that could be set or not.
                    false => flow.is_some() && !any,
                }
            }
            Self::Int { name, asked } => flow.is_some_and(|flow| {
                let value = flow.marks.int(*name);
                match asked {
                    IntAsked::IsSet => value.is_some(),
                    IntAsked::IsNotSet => value.is_none(),
                    IntAsked::Compare(operator, with) => value
                        .is_some_and(|value| compare_int(value, *operator, with.get(flow.marks))),
                }
            }),
            Self::HostBits { set, name, track } => host_bit(scene, *name, *track) == *set,
            Self::StreamSize { side, compare } => flow
                .and_then(|flow| flow.stream_sizes)
                .is_some_and(|(client, server)| sides(*side, client, server, compare)),
            Self::Age(compare) => flow.is_some_and(|flow| compare.holds(flow.age_s)),
            Self::Packets { side, compare } => flow.is_some_and(|flow| {
                let packets =
                    |tally: crate::flow::Tally| u32::try_from(tally.packets).unwrap_or(u32::MAX);
                sides(
                    *side,
                    packets(flow.to_server),
                    packets(flow.to_client),
                    compare,
                )
            }),
            Self::Bytes { side, compare } => flow.is_some_and(|flow| {
                sides(*side, flow.to_server.bytes, flow.to_client.bytes, compare)
            }),
            Self::Country {
                side,
                countries,
                known,
                negated,
            } => {
                let mut source =
                    || addresses.source(*known) && addresses.source(*countries) != *negated;
                match side {
                    GeoSide::Source => source(),
                    GeoSide::Any if source() => true,
                    GeoSide::Both if !source() => false,
                    GeoSide::Destination | GeoSide::Any | GeoSide::Both => {
                        addresses.destination(*known)
                            && addresses.destination(*countries) != *negated
                    }
                }
            }
            Self::Reputation {
                side,
                category,
                compare,
            } => {
                let Some(reputation) = scene.reputation else {
                    return false;
                };
                let holds = |address| {
                    match reputation.score(address, *category) {
                        // Without a score only that there is none can be said.
                        0 => matches!(
                            compare,
                            Compare::Equal(0) | Compare::AtMost(0) | Compare::Less(1)
                        ),
                        score => compare.holds(score),
                    }
                };
                let (source, destination) = (scene.view.source(), scene.view.destination());
                match side {
                    ReputationSide::Source => holds(source),
                    ReputationSide::Destination => holds(destination),
                    ReputationSide::Any => holds(source) || holds(destination),
                    ReputationSide::Both => holds(source) && holds(destination),
                }
            }
            Self::Variable {
                scope,
                name,
                negated,
                finder,
            } => {
                let value = match scope {
                    CaptureScope::Flow => flow.and_then(|flow| {
                        let mut texts = flow.marks.texts();
                        texts.find(|(text, _)| text == name).map(|(_, value)| value)
                    }),
                    CaptureScope::Packet | CaptureScope::Alert => texts
                        .iter()
                        .find(|(text, _)| text == name)
                        .map(|(_, value)| &**value),
                };
                value.is_some_and(|value| finder.find(value).is_some() != *negated)
            }
        }
    }
}

fn compare_int(value: u32, operator: FlowIntOperator, with: u32) -> bool {
    match operator {
        FlowIntOperator::Equal => value == with,
        FlowIntOperator::NotEqual => value != with,
        FlowIntOperator::Less => value < with,
        FlowIntOperator::AtMost => value <= with,
        FlowIntOperator::Greater => value > with,
        FlowIntOperator::AtLeast => value >= with,
    }
}

fn sides<T>(side: StreamSide, client: T, server: T, compare: &Compare<T>) -> bool
where
    T: Copy + PartialOrd + std::ops::BitAnd<Output = T> + Default,
{
    match side {
        StreamSide::Client => compare.holds(client),
        StreamSide::Server => compare.holds(server),
        StreamSide::Both => compare.holds(client) && compare.holds(server),
        StreamSide::Either => compare.holds(client) || compare.holds(server),
    }
}

fn host_bit(scene: &Scene<'_, '_>, name: NameId, track: Track) -> bool {
    let (source, destination) = (scene.view.source(), scene.view.destination());
    let of = |address| scene.tables.hosts.bit(address, name, scene.now);
    match track {
        Track::Source => of(source),
        Track::Destination => of(destination),
        Track::Both => of(source) && of(destination),
        Track::Pair => scene
            .tables
            .pairs
            .bit(pair(source, destination), name, scene.now),
        // Never compiled.
        Track::Rule | Track::Flow | Track::Transaction => false,
    }
}

/// Whether a condition about TCP flags holds for these.
pub(crate) fn flags_hold(condition: &Condition, flags: u8) -> bool {
    matches!(condition, Condition::TcpFlags(wanted) if packet::tcp_flags(wanted, flags))
}
