//! A typed rule as the engine evaluates it, or the keyword that keeps it from that.
//!
//! What kind of rule it is decides against what it is matched and how far its action reaches:
//! <https://docs.suricata.io/en/suricata-8.0.3/rules/rule-types.html>.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::addresses::{self, Interned};
use super::conditions::{self, IntValue, Test};
use super::countries;
use super::dataset::{Definitions, Places};
use super::engine::CompileOptions;
use super::matching::pcre::Pattern;
use super::matching::{Program, Surroundings, transform};
use super::names::{NameId, Names};
use super::reputation::Reputation;
use crate::rules::ast::{
    AppBuffer, Arrow, BitChange, Buffer, Condition, Dataset, Effect, FlowIntChange, Match,
    Position, Rule, RuleProtocol, Section, Tag, Threshold, Track, Value,
};
use crate::rules::{Action, Sources, ThresholdEntry, Unsupported};

/// What a rule is matched against, and how far its action reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Addresses alone, once for each direction of a flow; acts on the flow.
    Addresses,
    /// The same with addresses excluded, or with ports: for every packet; acts on the flow.
    LikeAddresses,
    /// Packets; acts on the packet.
    Packet,
    /// The stream, and packets besides; acts on the flow when it matched in the stream.
    PacketAndStream,
    /// The stream, and the payload of packets that are in none; acts on the flow when it matched
    /// in the stream.
    Stream,
}

impl Kind {
    /// Whether it is looked for in streams.
    pub(super) const fn in_stream(self) -> bool {
        matches!(self, Self::PacketAndStream | Self::Stream)
    }
}

/// A section, compiled.
#[derive(Clone, Debug)]
pub(super) struct SectionProgram {
    pub(super) buffer: Buffer,
    pub(super) transforms: Box<[transform::Step]>,
    /// `absent`: with `or_else`.
    pub(super) absent: Option<bool>,
    pub(super) program: Program,
}

/// What happens when a rule has matched.
#[derive(Clone, Debug)]
pub(super) enum Deed {
    Bits {
        change: BitChange,
        names: Box<[NameId]>,
    },
    Int {
        name: NameId,
        change: FlowIntChange,
        value: IntValue,
    },
    HostBits {
        change: BitChange,
        name: NameId,
        track: Track,
        expire: u32,
    },
    Bypass,
}

/// Seconds after which a bit of a host is unset, if the rule does not say.
const HOST_BIT_SECONDS: u32 = 300;

/// A rule, compiled.
#[derive(Clone, Debug)]
pub(super) struct Signature {
    /// What records say about it; without its conditions and sections.
    pub(super) rule: Rule,
    pub(super) kind: Kind,
    pub(super) source: u32,
    pub(super) destination: u32,
    pub(super) any_ports: (bool, bool),
    /// The direction that `flow` asks for.
    pub(super) to_server: Option<bool>,
    pub(super) tests: Box<[Test]>,
    pub(super) sections: Box<[SectionProgram]>,
    pub(super) deeds: Box<[Deed]>,
    pub(super) tags: Box<[Tag]>,
    /// With a number that no other threshold has.
    pub(super) thresholds: Box<[(u64, Threshold)]>,
}

impl Signature {
    /// Its number for what it counts: gid and sid, which stay when rules are reloaded.
    pub(super) fn key(&self) -> u64 {
        key(&self.rule)
    }
}

fn key(rule: &Rule) -> u64 {
    u64::from(rule.options.group_id) << 32 | u64::from(rule.options.signature_id)
}

/// Sets of the addresses in some countries, and of all whose country is known; or why not.
type Countries = Result<(u32, u32), String>;

/// What all rules of an engine share while it is made.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) names: Names,
    pub(super) patterns: Vec<Pattern>,
    pub(super) addresses: Interned,
    pub(super) datasets: Definitions,
    pub(super) reputation: Option<Reputation>,
    geoip: Option<PathBuf>,
    sources: Rc<Sources>,
    /// Sets of countries that were read before.
    countries: Vec<(Vec<String>, Countries)>,
    /// Variables of the rule that has most.
    pub(super) variables: usize,
    /// The directory of the rule's file.
    directory: PathBuf,
    /// Where sets are saved to.
    data: Option<PathBuf>,
    /// Buffers of application protocols that whoever inspects will have.
    app_buffers: Vec<AppBuffer>,
    /// Whether only the rule counts, not what settings and files add to it.
    checking: bool,
}

impl Shared {
    /// Nothing compiled yet.
    pub(super) fn new(options: &CompileOptions) -> Self {
        Self {
            app_buffers: options.app_buffers.clone(),
            reputation: options.reputation.clone(),
            geoip: options.geoip_database.clone(),
            sources: Rc::clone(&options.sources),
            data: options.data_directory.clone(),
            ..Self::default()
        }
    }
}

impl Surroundings for Shared {
    fn set(&mut self, dataset: &Dataset) -> Result<u32, Unsupported> {
        if self.checking {
            return Definitions::check(dataset).map(|()| 0);
        }
        let places = Places {
            rules: &self.directory,
            data: self.data.as_deref(),
            sources: &self.sources,
        };
        self.datasets.add(dataset, places)
    }

    fn name(&mut self, name: &str) -> NameId {
        self.names.add(name)
    }

    fn pattern(&mut self, pattern: Pattern) -> u32 {
        self.patterns.push(pattern);
        self.patterns.len() as u32 - 1
    }
}

impl conditions::Around for Shared {
    fn name(&mut self, name: &str) -> NameId {
        self.names.add(name)
    }

    fn countries(&mut self, wanted: &[String]) -> Result<(u32, u32), Unsupported> {
        if self.checking {
            return Ok((addresses::ALL, addresses::ALL));
        }
        let Some(database) = &self.geoip else {
            return Err(Unsupported::new(
                "geoip",
                "no `geoip-database` is configured",
            ));
        };
        let known = self.countries.iter().find(|(list, _)| list == wanted);
        let found = match known {
            Some((_, found)) => found.clone(),
            None => {
                let found = countries::read(database, &self.sources, wanted).map(|found| {
                    let of = self.addresses.number(&found.of);
                    (of, self.addresses.number(&found.known))
                });
                self.countries.push((wanted.to_vec(), found.clone()));
                found
            }
        };
        found.map_err(|reason| Unsupported::new("geoip", reason))
    }

    fn category(&self, name: &str) -> Result<u8, Unsupported> {
        if self.checking {
            return Ok(0);
        }
        let reputation = self
            .reputation
            .as_ref()
            .ok_or_else(|| Unsupported::new("iprep", "no `reputation-files` are configured"))?;
        reputation
            .category(name)
            .ok_or_else(|| Unsupported::new("iprep", format!("there is no category `{name}`")))
    }
}

impl Shared {
    /// Compiles a rule. `global` are its thresholds of threshold.config.
    ///
    /// # Errors
    /// Names the first keyword that is wrong, or for which there is nothing yet.
    pub(super) fn lower(
        &mut self,
        mut rule: Rule,
        global: &[&ThresholdEntry],
    ) -> Result<Signature, Unsupported> {
        protocol(&rule)?;
        self.directory = rule.file.parent().unwrap_or(Path::new("")).to_owned();
        let options = &rule.options;
        let kind = kind(&rule);
        let tests = options
            .conditions
            .iter()
            .filter(|condition| !is_always(condition))
            .map(|condition| conditions::compile(condition, self))
            .collect::<Result<_, _>>()?;
        let sections = self.sections(&options.sections)?;
        let mut tags = Vec::new();
        let mut deeds = Vec::new();
        for effect in &options.effects {
            match effect {
                Effect::Tag(tag) => tags.push(*tag),
                other => deeds.push(self.deed(other)?),
            }
        }
        let number = |index: usize| key(&rule) ^ (index as u64) << 60;
        // What threshold.config says for a rule stands in place of its own; what suppresses
        // comes first.
        let replaced = global
            .iter()
            .any(|entry| entry.replaces_own() && !is_filter(&entry.threshold));
        let own = options
            .threshold
            .iter()
            .filter(|own| is_filter(own) || !replaced);
        // Entries for many rules leave those alone that have a threshold of their own.
        let has_own = own.clone().any(|own| !is_filter(own));
        let global = global
            .iter()
            .map(|entry| &entry.threshold)
            .filter(|threshold| !has_own || is_filter(threshold));
        let suppresses =
            |it: &&Threshold| !matches!(it.kind, crate::rules::ast::ThresholdKind::Suppress { .. });
        let mut thresholds: Vec<&Threshold> = own.chain(global).collect();
        thresholds.sort_by_key(|it| suppresses(it));
        let thresholds = thresholds
            .into_iter()
            .enumerate()
            .map(|(index, threshold)| (number(index), threshold.clone()))
            .collect();
        let to_server = options
            .conditions
            .iter()
            .find_map(|condition| match condition {
                Condition::Flow(flow) => flow.to_server,
                _ => None,
            });
        let signature = Signature {
            kind,
            source: self.addresses.number(&rule.source),
            destination: self.addresses.number(&rule.destination),
            any_ports: (rule.source_ports.is_all(), rule.destination_ports.is_all()),
            to_server,
            tests,
            sections,
            deeds: deeds.into(),
            tags: tags.into(),
            thresholds,
            rule: {
                // Compiled they are above, and records do not show them.
                rule.options.conditions = Vec::new();
                rule.options.sections = Vec::new();
                rule
            },
        };
        Ok(signature)
    }

    fn sections(&mut self, sections: &[Section]) -> Result<Box<[SectionProgram]>, Unsupported> {
        let base64: Vec<&Section> = sections
            .iter()
            .filter(|section| section.buffer == Buffer::Base64Data)
            .collect();
        if let Some(section) = base64.iter().find(|section| !section.transforms.is_empty()) {
            let keyword = section.transforms[0].keyword();
            return Err(Unsupported::new(keyword, "not for base64_data"));
        }
        let mut compiled = Vec::new();
        for section in sections {
            match section.buffer {
                Buffer::App(buffer) if !self.app_buffers.contains(&buffer) => {
                    return Err(Unsupported::new(
                        buffer.name(),
                        "needs an application layer",
                    ));
                }
                Buffer::Base64Data => continue,
                _ => {}
            }
            self.variables = self.variables.max(variables(section));
            let absent = section.matches.iter().find_map(|found| match found {
                Match::Absent { or_else } => Some(*or_else),
                _ => None,
            });
            compiled.push(SectionProgram {
                buffer: section.buffer,
                transforms: transform::compile(&section.transforms, &mut self.patterns)?,
                absent,
                program: Program::compile(section, &base64, self)?,
            });
        }
        for section in base64 {
            self.variables = self.variables.max(variables(section));
        }
        Ok(compiled.into())
    }

    fn deed(&mut self, effect: &Effect) -> Result<Deed, Unsupported> {
        Ok(match effect {
            Effect::FlowBits { change, names } => Deed::Bits {
                change: *change,
                names: names.iter().map(|name| self.names.add(name)).collect(),
            },
            Effect::FlowInt {
                name,
                change,
                value,
            } => Deed::Int {
                name: self.names.add(name),
                change: *change,
                value: IntValue::of(value, |name| self.names.add(name)),
            },
            Effect::HostBits {
                change,
                name,
                track,
                expire,
            } => {
                if matches!(track, Track::Rule | Track::Flow | Track::Transaction) {
                    return Err(Unsupported::new(
                        effect.keyword(),
                        "needs an application layer",
                    ));
                }
                Deed::HostBits {
                    change: *change,
                    name: self.names.add(name),
                    track: *track,
                    expire: expire.unwrap_or(HOST_BIT_SECONDS),
                }
            }
            Effect::Bypass => Deed::Bypass,
            other => {
                return Err(Unsupported::new(other.keyword(), "not supported yet"));
            }
        })
    }
}

/// Whether the engine can evaluate a rule, as far as the rule itself says: what it needs of files
/// and settings is seen when it is compiled.
///
/// # Errors
/// Names the first keyword that is wrong, or for which there is nothing yet.
pub fn supported(rule: &Rule) -> Result<(), Unsupported> {
    let mut shared = Shared {
        checking: true,
        ..Shared::default()
    };
    shared.lower(rule.clone(), &[]).map(|_| ())
}

/// `flow:only_stream` and the like alone ask nothing of a packet.
fn is_always(condition: &Condition) -> bool {
    matches!(condition, Condition::Flow(flow)
        if flow.to_server.is_none()
            && flow.established.is_none()
            && !flow.stateless
            && flow.fragment.is_none())
}

fn is_filter(threshold: &Threshold) -> bool {
    use crate::rules::ast::ThresholdKind as Kind;
    matches!(
        threshold.kind,
        Kind::DetectionFilter | Kind::Rate { .. } | Kind::Suppress { .. }
    )
}

/// How many variables a section uses.
fn variables(section: &Section) -> usize {
    let results = section.matches.iter().filter_map(|found| match found {
        Match::ByteExtract(extract) => Some(extract.result),
        Match::ByteMath(math) => Some(math.result),
        _ => None,
    });
    results
        .map(|variable| usize::from(variable.0) + 1)
        .max()
        .unwrap_or(0)
}

/// Refuses what cannot be matched yet.
fn protocol(rule: &Rule) -> Result<(), Unsupported> {
    let refuse = |keyword: &str, reason: &str| Err(Unsupported::new(keyword, reason));
    match rule.protocol {
        RuleProtocol::App(name) => refuse(name, "needs an application layer"),
        _ if rule.direction == Arrow::Transaction => refuse("=>", "needs an application layer"),
        _ => Ok(()),
    }
}

/// Whether a condition is about a packet, so that streams cannot answer it.
fn needs_packet(condition: &Condition) -> bool {
    match condition {
        Condition::Flow(flow) => flow.stream == Some(false),
        Condition::StreamSize { .. }
        | Condition::FlowBits { .. }
        | Condition::FlowInt { .. }
        | Condition::HostBits { .. }
        | Condition::GeoIp { .. }
        | Condition::Reputation { .. }
        | Condition::FlowAge(_)
        | Condition::FlowPackets { .. }
        | Condition::FlowBytes { .. }
        | Condition::AppProtocol { .. }
        | Condition::App { .. }
        | Condition::Variable { .. } => false,
        _ => true,
    }
}

fn kind(rule: &Rule) -> Kind {
    let options = &rule.options;
    let is_ip = !matches!(
        rule.protocol,
        RuleProtocol::PacketHeader | RuleProtocol::Ethernet | RuleProtocol::Arp
    );
    let counts = |effect: &Effect| {
        let changes = match effect {
            Effect::FlowInt { .. } => return true,
            Effect::FlowBits { change, .. } => change,
            _ => return false,
        };
        *changes != BitChange::Set
    };
    // What changes with every packet is asked of every packet.
    let once = !options.effects.iter().any(counts);
    if is_ip && once && options.conditions.is_empty() && options.sections.is_empty() {
        let any_ports = rule.source_ports.is_all() && rule.destination_ports.is_all();
        return match any_ports && !rule.excludes_addresses {
            true => Kind::Addresses,
            false => Kind::LikeAddresses,
        };
    }
    let about_tcp = matches!(
        rule.protocol,
        RuleProtocol::Tcp
            | RuleProtocol::TcpStream
            | RuleProtocol::Ip
            | RuleProtocol::Ipv4
            | RuleProtocol::Ipv6
    );
    let payload = || {
        let sections = options.sections.iter();
        sections.filter(|section| section.buffer == Buffer::Payload)
    };
    if !about_tcp || payload().next().is_none() {
        return Kind::Packet;
    }
    let other_buffers = options
        .sections
        .iter()
        .any(|section| !matches!(section.buffer, Buffer::Payload | Buffer::Base64Data));
    let replaces = payload()
        .flat_map(|section| &section.matches)
        .any(|found| matches!(found, Match::Content(content) if content.replacement.is_some()));
    let packet = other_buffers || replaces || options.conditions.iter().any(needs_packet);
    let stream = rule.protocol == RuleProtocol::TcpStream
        || options.conditions.iter().any(
            |condition| matches!(condition, Condition::Flow(flow) if flow.stream == Some(true)),
        );
    match (packet, stream) {
        (true, true) => Kind::PacketAndStream,
        (true, false) => Kind::Packet,
        (false, true) => Kind::Stream,
        (false, false) => {
            let sized = options
                .conditions
                .iter()
                .any(|condition| matches!(condition, Condition::StreamSize { .. }));
            match sized || payload().any(is_placed) {
                true => Kind::PacketAndStream,
                false => Kind::Stream,
            }
        }
    }
}

/// Whether a content has a place in the payload: that is one in packets, too.
fn is_placed(section: &Section) -> bool {
    let mut first = true;
    section.matches.iter().any(|found| {
        let Match::Content(content) = found else {
            return false;
        };
        let before = std::mem::replace(&mut first, false);
        match content.position {
            Position::Absolute { offset, depth } => {
                offset != Value::Literal(0) || depth.is_some() || content.at_start
            }
            // Behind nothing: from the start.
            Position::Relative { within, .. } => before && within.is_some(),
        }
    })
}

impl Signature {
    /// Whether it names no addresses.
    pub(super) fn is_about_all(&self) -> bool {
        self.source == addresses::ALL && self.destination == addresses::ALL
    }

    /// Whether it is to be asked again once a connection counts as established: it asks for that,
    /// or spares others what it matches.
    pub(super) fn holds_established(&self) -> bool {
        self.rule.action == Action::Pass || self.tests.iter().any(Test::asks_for_established)
    }
}
