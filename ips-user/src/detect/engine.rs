//! All rules against one packet: how they are compiled, and what an engine is made of.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;

use super::addresses::{self, Memo, Sets as AddressTable};
use super::conditions::Test;
use super::dataset::record::Change;
use super::dataset::{self, Catalogue, Definitions, SetId};
use super::group::{self, Builder, Group, Selector};
use super::lower::{self, Kind, Shared, Signature};
use super::matching::pcre::{Pattern, Patterns};
use super::matching::{Budget, MAX_STEPS, Noted, Variables};
use super::names::{NameId, Names};
use super::order::{self, ActionOrder};
use super::prefilter::{self, BuildPrefilter, Cache, PrefilterError, Working, facts, pattern};
use super::prefix_tree::{self, PrefixTree};
use super::report::{Alert, Queued};
use super::reputation::Reputation;
use super::tables::Tables;
use super::transactions::{AppGroup, AppGroups, Place};
use super::view::Class;
use crate::app::{AppProtocol, Asked, HashKind, Known, WantedHashes};
use crate::rules::ast::{AppBuffer, Arrow, Buffer, PrefilterBy, Section};
use crate::rules::{Rule, Sources, ThresholdEntry, Unsupported};

/// Position of a rule in its engine: the order in which rules are evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleIndex(pub(super) u32);

/// Most alerts of one packet, as Suricata's `packet-alert-max`; further ones are counted.
pub const PACKET_ALERT_MAX: usize = 15;

/// How rules are compiled.
#[derive(Clone, Debug)]
pub struct CompileOptions {
    /// What searches for literals.
    pub prefilter: BuildPrefilter,
    /// Where compiled databases are kept from start to start.
    pub cache: Option<PathBuf>,
    /// Which actions go first.
    pub action_order: ActionOrder,
    /// Most alerts of one packet; zero for [`PACKET_ALERT_MAX`].
    pub packet_alert_max: usize,
    /// Most steps for one rule in one buffer.
    pub recursion_limit: u32,
    /// Of threshold.config.
    pub thresholds: Vec<ThresholdEntry>,
    /// For `iprep`.
    pub reputation: Option<Reputation>,
    /// Database for `geoip`.
    pub geoip_database: Option<PathBuf>,
    /// Where sets are saved to, and read from when they were.
    pub data_directory: Option<PathBuf>,
    /// Where that is read from, and what rules name themselves.
    pub sources: Rc<Sources>,
}

impl Default for CompileOptions {
    fn default() -> Self {
        Self::with(prefilter::fastest())
    }
}

impl CompileOptions {
    /// With this prefilter, otherwise the default.
    pub fn with(prefilter: BuildPrefilter) -> Self {
        Self {
            prefilter,
            cache: None,
            action_order: ActionOrder::default(),
            packet_alert_max: 0,
            recursion_limit: MAX_STEPS,
            thresholds: Vec::new(),
            reputation: None,
            geoip_database: None,
            data_directory: None,
            sources: Rc::new(Sources::disk()),
        }
    }
}

/// A rule that is right but cannot be evaluated.
#[derive(Clone, Debug)]
pub struct Refused {
    /// The rule's `gid`.
    pub group_id: u32,
    /// Its `sid`.
    pub signature_id: u32,
    /// The file that it stands in.
    pub file: PathBuf,
    /// Its line there.
    pub line: usize,
    /// Why not.
    pub reason: Unsupported,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}: rule {}:{} is not used: {}",
            self.file.display(),
            self.line,
            self.group_id,
            self.signature_id,
            self.reason
        )
    }
}

/// What came of compiling rules.
#[derive(Debug)]
pub struct Compiled {
    /// Those that can be evaluated.
    pub engine: Engine,
    /// The others.
    pub refused: Vec<Refused>,
}

/// Rules about nothing but addresses.
#[derive(Clone, Debug, Default)]
pub(super) struct AddressRules {
    by_source: PrefixTree,
    by_destination: PrefixTree,
    /// Rules that name no addresses.
    all: Vec<RuleIndex>,
}

impl AddressRules {
    fn build(signatures: &[Signature], addresses: &AddressTable) -> Self {
        let mut by_source = prefix_tree::Builder::default();
        let mut by_destination = prefix_tree::Builder::default();
        let mut all = Vec::new();
        for (index, signature) in (0..).zip(signatures) {
            if signature.kind != Kind::Addresses {
                continue;
            }
            if signature.is_about_all() {
                all.push(RuleIndex(index));
                continue;
            }
            // By one end: the other is looked at afterwards.
            let (set, by_its_source) = match signature.source {
                addresses::ALL => (signature.destination, false),
                source => (source, true),
            };
            let Some(set) = addresses.get(set) else {
                continue;
            };
            let either = signature.rule.direction == Arrow::Either;
            if by_its_source || either {
                by_source.add(set, index);
            }
            if !by_its_source || either {
                by_destination.add(set, index);
            }
        }
        Self {
            by_source: by_source.finish(),
            by_destination: by_destination.finish(),
            all,
        }
    }

    /// Adds the rules that these addresses select, in no order and perhaps twice.
    pub(super) fn select(
        &self,
        source: std::net::IpAddr,
        destination: std::net::IpAddr,
        out: &mut Vec<RuleIndex>,
    ) {
        out.extend_from_slice(&self.all);
        self.by_source
            .find(source, |rule| out.push(RuleIndex(rule)));
        self.by_destination
            .find(destination, |rule| out.push(RuleIndex(rule)));
    }
}

/// Application protocols, a bit for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spoken(u64);

const _: () = assert!(AppProtocol::ALL.len() < 64);

impl Spoken {
    /// Whatever is spoken, if anything.
    const ALL: Self = Self(u64::MAX);

    fn of(signature: &Signature) -> Self {
        let asked = signature.tests.iter().filter_map(|test| match test {
            Test::Speaks(any) => Some(any.iter().fold(0, |bits, it| bits | 1 << *it as u64)),
            _ => None,
        });
        Self(asked.fold(Self::ALL.0, |all, bits| all & bits))
    }

    /// What a flow speaks.
    pub(super) const fn known(known: Known) -> Self {
        match known {
            Known::Is(protocol) => Self(1 << protocol as u64),
            Known::NotYet | Known::Failed => Self(0),
        }
    }

    /// Whether a rule that is about these can match where that is spoken.
    pub(super) const fn allows(self, known: Self) -> bool {
        self.0 == Self::ALL.0 || self.0 & known.0 != 0
    }
}

/// A compiled rule set: immutable, shared by all workers.
///
/// Its clone owns everything that it points to, so that it can be put into an
/// [image](super::image).
#[derive(Clone, Debug)]
pub struct Engine {
    pub(super) signatures: Vec<Signature>,
    /// Which application protocols each of them can be about; all if it does not ask for any.
    pub(super) spoken: Vec<Spoken>,
    /// By class and direction.
    groups: Vec<[Group; 2]>,
    /// Of rules about transactions.
    pub(super) app: AppGroups,
    pub(super) by_address: AddressRules,
    pub(super) addresses: AddressTable,
    pub(super) patterns: Vec<Pattern>,
    names: Names,
    pub(super) datasets: Definitions,
    pub(super) reputation: Option<Reputation>,
    pub(super) packet_alert_max: usize,
    variables: usize,
    /// Most steps for one rule in one buffer.
    pub(super) steps: u32,
}

/// Working memory of one worker. Nothing is allocated for a packet once it has grown to what
/// the largest needs.
#[derive(Debug)]
pub struct Scratch {
    pub(super) working: Working,
    pub(super) seen: group::Seen,
    pub(super) memo: Memo,
    pub(super) patterns: Patterns,
    pub(super) variables: Variables,
    pub(super) noted: Noted,
    pub(super) decoded: Vec<u8>,
    pub(super) transformed: Vec<u8>,
    pub(super) spare: Vec<u8>,
    pub(super) candidates: Vec<RuleIndex>,
    pub(super) queue: Vec<Queued>,
    pub(super) alerts: Vec<Alert>,
    pub(super) acts: Vec<Alert>,
    /// What expressions have captured for the packet.
    pub(super) texts: Vec<(NameId, Box<[u8]>)>,
    pub(super) budget: Budget,
}

impl Engine {
    /// Compiles rules. Those that cannot be evaluated are left out and named.
    ///
    /// # Errors
    /// When the prefilter cannot be built.
    pub fn compile(
        mut rules: Vec<Rule>,
        options: &CompileOptions,
    ) -> Result<Compiled, PrefilterError> {
        // Stable: what is equal stays in the order of the files.
        rules.sort_by_key(|rule| order::key(rule, options.action_order));
        let mut shared = Shared::new(options);
        let mut signatures = Vec::with_capacity(rules.len());
        let mut selectors = Vec::with_capacity(rules.len());
        let mut refused = Vec::new();
        for rule in rules {
            let global: Vec<_> = options
                .thresholds
                .iter()
                .filter(|entry| entry.is_about(&rule))
                .collect();
            let selector = selector(&rule);
            let (file, line) = (rule.file.clone(), rule.line);
            let (group_id, signature_id) = (rule.options.group_id, rule.options.signature_id);
            match shared.lower(rule, &global) {
                Ok(signature) => {
                    signatures.push(signature);
                    selectors.push(selector);
                }
                Err(reason) => refused.push(Refused {
                    group_id,
                    signature_id,
                    file,
                    line,
                    reason,
                }),
            }
        }
        let addresses = shared.addresses.finish();
        let cache = options.cache.as_ref().map(Cache::new);
        let builder = Builder {
            signatures: &signatures,
            selectors: &selectors,
            build: options.prefilter,
            cache: cache.as_ref(),
        };
        let groups = builder.groups()?;
        let app = builder.app_groups()?;
        let engine = Self {
            by_address: AddressRules::build(&signatures, &addresses),
            spoken: signatures.iter().map(Spoken::of).collect(),
            signatures,
            groups,
            app,
            addresses,
            patterns: shared.patterns,
            names: shared.names,
            datasets: shared.datasets,
            reputation: shared.reputation,
            packet_alert_max: match options.packet_alert_max {
                0 => PACKET_ALERT_MAX,
                most => most,
            },
            variables: shared.variables,
            steps: options.recursion_limit.max(1),
        };
        Ok(Compiled { engine, refused })
    }

    /// Hashes that rules ask for of files.
    pub fn file_hashes(&self) -> WantedHashes {
        let mut wanted = WantedHashes::default();
        for test in self.signatures.iter().flat_map(|it| &it.tests) {
            if let Test::App(Asked::FileHash { kind, .. }) = test {
                wanted.want(*kind);
            }
        }
        // What is stored is called by this one.
        if self.stores_files() {
            wanted.want(HashKind::Sha256);
        }
        wanted
    }

    /// Whether rules have files stored.
    pub fn stores_files(&self) -> bool {
        self.signatures.iter().any(|it| it.stores.is_some())
    }

    /// Whether rules ask for fingerprints of SSH.
    pub fn asks_for_hassh(&self) -> bool {
        let mut sections = self.signatures.iter().flat_map(|it| &it.sections);
        sections.any(|it| {
            matches!(
                it.buffer,
                Buffer::App(
                    AppBuffer::SshHassh
                        | AppBuffer::SshHasshString
                        | AppBuffer::SshHasshServer
                        | AppBuffer::SshHasshServerString
                )
            )
        })
    }

    /// Number of rules.
    pub fn rule_count(&self) -> usize {
        self.signatures.len()
    }

    /// Bytes of memory that the prefilters take.
    pub fn prefilter_bytes(&self) -> usize {
        self.scans().map(group::Scan::heap_bytes).sum()
    }

    /// All that is searched for.
    fn scans(&self) -> impl Iterator<Item = &group::Scan> {
        let groups = self.groups.iter().flatten().flat_map(Group::rule_groups);
        let app = self.app.iter().flatten().flatten();
        let app = app.flat_map(AppGroup::scans);
        groups.flat_map(group::RuleGroup::scans).chain(app)
    }

    /// A rule that matched, as records show it: without its conditions and sections.
    pub fn rule(&self, index: RuleIndex) -> &Rule {
        &self.signatures[index.0 as usize].rule
    }

    /// What kind of rule it is.
    pub fn kind(&self, index: RuleIndex) -> Kind {
        self.signatures[index.0 as usize].kind
    }

    /// The name of a flow bit, variable or the like that its rules use.
    pub fn name(&self, id: NameId) -> Option<&str> {
        self.names.get(id)
    }

    /// Files of sets that are to be written at the end, with their content.
    pub fn sets_to_save(&self, tables: &Tables) -> Vec<(PathBuf, String)> {
        dataset::to_save(&self.datasets, &tables.datasets)
    }

    /// Writes what the supervisor has to know of the sets into a file that is empty, and finishes
    /// it.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn write_sets(&self, file: &File) -> io::Result<()> {
        Catalogue::write(&self.datasets, file)
    }

    /// Does in a worker's tables what others have done to a set.
    pub fn change_set(&self, tables: &mut Tables, set: SetId, change: Change<'_>) {
        tables.datasets.apply(&self.datasets, set, change);
    }

    /// The groups of a class, by direction.
    pub(super) fn group(&self, class: Class, to_server: bool) -> &Group {
        &self.groups[class as usize][usize::from(!to_server)]
    }

    /// Working memory for this engine.
    ///
    /// # Panics
    /// When memory runs out.
    pub fn scratch(&self) -> Scratch {
        let mut working = Working::default();
        let mut seen = group::Seen::default();
        for scan in self.scans() {
            let prepared = scan.prepare(&mut working, &mut seen);
            prepared.unwrap_or_else(|error| panic!("working memory for rules: {error}"));
        }
        let mut variables = Variables::default();
        variables.reserve(self.variables);
        Scratch {
            working,
            seen,
            memo: Memo::new(&self.addresses),
            patterns: Patterns::new(self.patterns.len()),
            variables,
            noted: Noted::default(),
            decoded: Vec::new(),
            transformed: Vec::new(),
            spare: Vec::new(),
            candidates: Vec::with_capacity(self.signatures.len()),
            queue: Vec::with_capacity(64),
            alerts: Vec::with_capacity(self.packet_alert_max),
            acts: Vec::with_capacity(64),
            texts: Vec::new(),
            budget: Budget::of_packet(self.steps),
        }
    }
}

/// What selects a rule: what it says itself, else a literal, else a number in the headers.
fn selector(rule: &Rule) -> Selector {
    let options = &rule.options;
    let literal = || {
        let chosen = pattern::choose(&options.sections, |section| {
            group::is_searched(section.buffer) && section.transforms.is_empty()
        })?;
        Some(Selector::Literal {
            buffer: options.sections[chosen.section].buffer,
            chosen,
        })
    };
    // A content that `prefilter` stands behind is marked as its rule's fast pattern.
    let own = match options.prefilter {
        Some(PrefilterBy::Condition(index)) => options
            .conditions
            .get(index)
            .and_then(facts::chosen)
            .map(Selector::Fact),
        Some(PrefilterBy::Match { .. }) | None => None,
    };
    let in_app = || {
        let is_app = |section: &Section| matches!(section.buffer, Buffer::App(_));
        let chosen = pattern::choose(&options.sections, is_app)?;
        let section = &options.sections[chosen.section];
        let Buffer::App(buffer) = section.buffer else {
            return None;
        };
        let transforms = section.transforms.clone();
        let place = Place { buffer, transforms };
        Some(Selector::App { place, chosen })
    };
    if lower::is_about_transactions(rule) {
        return in_app().unwrap_or(Selector::Always);
    }
    own.or_else(literal)
        .or_else(|| facts::best(&options.conditions).map(Selector::Fact))
        .unwrap_or(Selector::Always)
}
