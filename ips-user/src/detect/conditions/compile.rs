//! Conditions of rules as tests.

use super::{IntAsked, IntValue, ProtocolAsked, Test};
use crate::app::{self, AppProtocol, Asked};
use crate::decode::event::DecodeEvent;
use crate::detect::names::NameId;
use crate::reassembly::tcp::StreamEvent;
use crate::rules::Unsupported;
use crate::rules::ast::{Condition, EventKind, FlowIntAsked, Track};

/// What compiling needs from the engine in the making.
pub(crate) trait Around {
    /// The id of a name.
    fn name(&mut self, name: &str) -> NameId;
    /// The sets of the addresses in these countries, and of all whose country is known.
    ///
    /// # Errors
    /// When there is no database.
    fn countries(&mut self, countries: &[String]) -> Result<(u32, u32), Unsupported>;
    /// The hashes of so many bytes that a file lists, ascending.
    ///
    /// # Errors
    /// When it cannot be read, or has something else.
    fn hashes(
        &mut self,
        keyword: &str,
        file: &str,
        bytes: usize,
    ) -> Result<Box<[Box<[u8]>]>, Unsupported>;
    /// The number of a category of reputations.
    ///
    /// # Errors
    /// When there is none of this name.
    fn category(&self, name: &str) -> Result<u8, Unsupported>;
}

/// The test of a rule whose protocol has this name.
pub(crate) fn speaks(name: &str) -> Test {
    Test::Speaks(AppProtocol::named(name).collect())
}

/// Compiles a condition.
///
/// # Errors
/// Names the keyword for which there is nothing yet, or that is wrong.
pub(crate) fn compile(
    condition: &Condition,
    around: &mut impl Around,
) -> Result<Test, Unsupported> {
    let refuse = |reason: &str| Err(Unsupported::new(condition.keyword(), reason));
    Ok(match condition {
        Condition::Flow(flow) => Test::Flow {
            reassembled: flow.fragment,
            established: flow.established,
            to_server: flow.to_server,
            stateless: flow.stateless,
        },
        Condition::FlowBits { set, any_of } => Test::Bits {
            set: *set,
            any_of: any_of.iter().map(|name| around.name(name)).collect(),
        },
        Condition::FlowInt { name, asked } => Test::Int {
            name: around.name(name),
            asked: match asked {
                FlowIntAsked::IsSet => IntAsked::IsSet,
                FlowIntAsked::IsNotSet => IntAsked::IsNotSet,
                FlowIntAsked::Compare { operator, with } => {
                    IntAsked::Compare(*operator, IntValue::of(with, |name| around.name(name)))
                }
            },
        },
        Condition::HostBits { set, name, track } => {
            if matches!(track, Track::Rule | Track::Flow | Track::Transaction) {
                return refuse("needs an application layer");
            }
            Test::HostBits {
                set: *set,
                name: around.name(name),
                track: *track,
            }
        }
        Condition::StreamSize { side, compare } => Test::StreamSize {
            side: *side,
            compare: *compare,
        },
        Condition::FlowAge(compare) => Test::Age(*compare),
        Condition::FlowPackets { side, compare } => Test::Packets {
            side: *side,
            compare: *compare,
        },
        Condition::FlowBytes { side, compare } => Test::Bytes {
            side: *side,
            compare: *compare,
        },
        Condition::GeoIp {
            side,
            countries,
            negated,
        } => {
            let (countries, known) = around.countries(countries)?;
            Test::Country {
                side: *side,
                countries,
                known,
                negated: *negated,
            }
        }
        Condition::Reputation {
            side,
            category,
            compare,
        } => Test::Reputation {
            side: *side,
            category: around.category(category)?,
            compare: *compare,
        },
        Condition::Variable {
            scope,
            name,
            negated,
            value,
        } => Test::Variable {
            scope: *scope,
            name: around.name(name),
            negated: *negated,
            finder: Box::new(memchr::memmem::Finder::new(value).into_owned()),
        },
        Condition::Event { kind, name } => {
            let decode = DecodeEvent::from_name(name).map(Test::Decode);
            // `engine-event` has the names of streams with `stream.` in front.
            let name = name.strip_prefix("stream.").unwrap_or(name);
            let stream = StreamEvent::from_name(name).map(Test::Stream);
            let found = match kind {
                EventKind::Decode => decode,
                EventKind::Stream => stream,
                EventKind::Engine => decode.or(stream),
                EventKind::App => app::event(name).map(|name| Test::App(Asked::Event(name))),
            };
            match found {
                Some(test) => test,
                None => return refuse("there is no such event"),
            }
        }
        // Which direction's finding counts does not matter: both are of one protocol.
        Condition::AppProtocol { negated, name, .. } => Test::Protocol {
            negated: *negated,
            asked: match name.as_str() {
                "failed" => ProtocolAsked::Failed,
                "unknown" => ProtocolAsked::Unknown,
                name => {
                    let any: Box<[_]> = AppProtocol::named(name).collect();
                    if any.is_empty() {
                        return refuse("this protocol is not supported yet");
                    }
                    ProtocolAsked::Any(any)
                }
            },
        },
        Condition::App { keyword, value }
            if let Some((kind, negated, file)) = app::hash_list(keyword, value) =>
        {
            Test::App(Asked::FileHash {
                kind,
                hashes: around.hashes(keyword, &file, kind.bytes())?,
                negated,
            })
        }
        Condition::App { keyword, value } => match app::asked(keyword, value) {
            Some(asked) => Test::App(asked),
            None => return Err(Unsupported::new(keyword, "not supported yet")),
        },
        Condition::TcpFlags(_)
        | Condition::Seq(_)
        | Condition::Ack(_)
        | Condition::Window { .. }
        | Condition::Ttl(_)
        | Condition::Tos(_)
        | Condition::IpId(_)
        | Condition::IpOption(_)
        | Condition::IpVersion(_)
        | Condition::FragBits { .. }
        | Condition::FragOffset(_)
        | Condition::IpProtocol(_)
        | Condition::SameIp
        | Condition::IcmpType(_)
        | Condition::IcmpCode(_)
        | Condition::IcmpId(_)
        | Condition::IcmpSeq(_)
        | Condition::Icmpv6Mtu(_)
        | Condition::IgmpType(_)
        | Condition::TcpMss(_)
        | Condition::TcpWscale(_)
        | Condition::PayloadSize(_)
        | Condition::VlanId { .. }
        | Condition::VlanLayers(_)
        | Condition::Checksum { .. }
        | Condition::Tunnel
        | Condition::Rpc { .. } => Test::Packet(condition.clone()),
    })
}
