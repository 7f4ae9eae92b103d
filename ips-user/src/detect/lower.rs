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
use crate::app::{self, AppProtocol, Asked, File, StoreScope};
use crate::flow::PacketDirection;
use crate::rules::ast::{
    Arrow, BitChange, Buffer, Condition, Dataset, Effect, EventKind, FlowIntChange, Match,
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
    /// Transactions of application protocols; acts on the flow.
    Transaction,
    /// Packets of an application protocol; acts on the flow.
    Application,
    /// The application protocol alone: once in each direction when it is known; acts on the flow.
    Protocol,
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
    /// Its number in the rule.
    written: usize,
    /// The direction that it is about, in rules about both.
    pub(super) direction: Option<PacketDirection>,
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

/// `filestore`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Store {
    /// Of client and server; of the direction that has matched if `None`.
    pub(super) directions: Option<[bool; 2]>,
    pub(super) scope: StoreScope,
}

impl Store {
    /// <https://docs.suricata.io/en/suricata-8.0.3/rules/file-keywords.html>
    fn read(options: &str) -> Result<Self, Unsupported> {
        let mut store = Self {
            directions: None,
            scope: StoreScope::File,
        };
        for option in options
            .split(',')
            .map(str::trim)
            .filter(|it| !it.is_empty())
        {
            match option {
                "request" | "to_server" => store.directions = Some([true, false]),
                "response" | "to_client" => store.directions = Some([false, true]),
                "both" => store.directions = Some([true; 2]),
                "file" => store.scope = StoreScope::File,
                "tx" => store.scope = StoreScope::Transaction,
                "ssn" | "flow" => store.scope = StoreScope::Flow,
                other => {
                    let what = format!("`{other}` is neither a direction nor a scope");
                    return Err(Unsupported::new("filestore", what));
                }
            }
        }
        Ok(store)
    }
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
    /// Which files are stored when it has matched.
    pub(super) stores: Option<Store>,
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
    /// Whether only the rule counts, not what settings and files add to it.
    checking: bool,
}

impl Shared {
    /// Nothing compiled yet.
    pub(super) fn new(options: &CompileOptions) -> Self {
        Self {
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

    fn hashes(
        &mut self,
        keyword: &str,
        file: &str,
        bytes: usize,
    ) -> Result<Box<[Box<[u8]>]>, Unsupported> {
        if self.checking {
            return Ok(Box::default());
        }
        let path = self.directory.join(file);
        let text = self
            .sources
            .read(&path)
            .map_err(|error| Unsupported::new(keyword, format!("{}: {error}", path.display())))?;
        let text = String::from_utf8_lossy(&text);
        let mut hashes = Vec::new();
        for line in text.lines() {
            // Behind it may stand what md5sum writes there.
            let Some(digits) = line
                .split_whitespace()
                .next()
                .filter(|it| !it.starts_with('#'))
            else {
                continue;
            };
            let hash = from_digits(digits).filter(|hash| hash.len() == bytes);
            hashes.push(hash.ok_or_else(|| {
                let what = format!("{}: {digits:?} is no such hash", path.display());
                Unsupported::new(keyword, what)
            })?);
        }
        hashes.sort_unstable();
        hashes.dedup();
        Ok(hashes.into())
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
        let protocol = match rule.protocol {
            RuleProtocol::App(name) => Some(conditions::speaks(name)),
            _ => None,
        };
        let tests = options
            .conditions
            .iter()
            .filter(|condition| !is_always(condition))
            .map(|condition| conditions::compile(condition, self));
        let stores = options.effects.iter().find_map(|effect| match effect {
            Effect::FileStore { options } => Some(Store::read(options)),
            _ => None,
        });
        let stores = stores.transpose()?;
        let any_file = stores.map(|_| Ok(Test::App(Asked::AnyFile)));
        let tests = protocol.into_iter().map(Ok).chain(tests).chain(any_file);
        let tests = tests.collect::<Result<_, _>>()?;
        let sections = self.sections(&options.sections)?;
        let mut tags = Vec::new();
        let mut deeds = Vec::new();
        for effect in &options.effects {
            match effect {
                Effect::Tag(tag) => tags.push(*tag),
                Effect::FileStore { .. } => {}
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
            stores,
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
        for (written, section) in sections.iter().enumerate() {
            match section.buffer {
                Buffer::App(buffer) if !app::has(buffer) => {
                    return Err(Unsupported::new(buffer.name(), "not supported yet"));
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
                written,
                direction: direction(section),
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

fn from_digits(digits: &str) -> Option<Box<[u8]>> {
    let pairs = digits.as_bytes().chunks(2);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    pairs.map(byte).collect()
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

/// The direction that the section of a rule about both directions is about.
fn direction(section: &Section) -> Option<PacketDirection> {
    let own = match section.buffer {
        Buffer::App(buffer) => buffer.to_server(),
        _ => None,
    };
    Some(match section.to_server.or(own)? {
        true => PacketDirection::ToServer,
        false => PacketDirection::ToClient,
    })
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
        RuleProtocol::App(name) if AppProtocol::named(name).next().is_none() => {
            refuse(name, "not supported yet")
        }
        _ if rule.direction == Arrow::Transaction && !is_about_transactions(rule) => {
            refuse("=>", "the rule asks nothing of transactions")
        }
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

/// Whether a rule asks something of transactions.
pub(super) fn is_about_transactions(rule: &Rule) -> bool {
    let options = &rule.options;
    let in_app = |section: &Section| matches!(section.buffer, Buffer::App(_));
    let of_app = |condition: &Condition| {
        matches!(
            condition,
            Condition::App { .. }
                | Condition::Event {
                    kind: EventKind::App,
                    ..
                }
        )
    };
    let stores = |effect: &Effect| matches!(effect, Effect::FileStore { .. });
    options.sections.iter().any(in_app)
        || options.conditions.iter().any(of_app)
        || options.effects.iter().any(stores)
}

/// Whether a rule asks for the protocol, and for nothing that comes with packets.
fn is_about_protocol(rule: &Rule) -> bool {
    let options = &rule.options;
    // Before it is known every packet is asked.
    let asks = |condition: &Condition| matches!(condition, Condition::AppProtocol { name, .. } if name != "unknown");
    let fits = |condition: &Condition| asks(condition) || matches!(condition, Condition::Flow(_));
    options.sections.is_empty()
        && options.conditions.iter().any(asks)
        && options.conditions.iter().all(fits)
}

fn kind(rule: &Rule) -> Kind {
    let options = &rule.options;
    if is_about_transactions(rule) {
        return Kind::Transaction;
    }
    if is_about_protocol(rule) {
        return Kind::Protocol;
    }
    if matches!(rule.protocol, RuleProtocol::App(_)) && options.sections.is_empty() {
        return Kind::Application;
    }
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
        RuleProtocol::App(_)
            | RuleProtocol::Tcp
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
    /// The transforms of a section, numbered as the rule has it.
    pub(super) fn steps_of(&self, section: usize) -> &[transform::Step] {
        let sections = self.sections.iter();
        let mut own = sections.filter(|it| it.written == section);
        own.next().map_or(&[], |it| &it.transforms)
    }

    /// Whether it asks for something in the payload.
    pub(super) fn is_also_about_payload(&self) -> bool {
        let mut sections = self.sections.iter();
        sections.any(|section| section.buffer == Buffer::Payload)
    }

    /// Whether a file can be one that it means.
    pub(super) fn means(&self, file: &File) -> bool {
        self.tests.iter().all(|test| match test {
            Test::App(Asked::Toward(_, asked)) => file.answers(asked) != Some(false),
            Test::App(asked) if asked.is_of_file() => file.answers(asked) != Some(false),
            _ => true,
        })
    }

    /// Whether it asks something of both directions of a transaction.
    pub(super) fn is_about_both(&self) -> bool {
        self.rule.direction == Arrow::Transaction
    }

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
