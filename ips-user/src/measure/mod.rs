//! How fast packets are inspected on one core, with nothing around: no kernel, no disk.
//!
//! Everything is measured several times in turns, so that whatever else the machine does meets
//! all of it, in CPU time of this thread; each figure is kept, and the reader takes the median.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use nix::time::{ClockId, clock_gettime};
use serde::Serialize;

use crate::config::settings::EngineSettings;
use crate::decode::Decoded;
use crate::detect::prefilter::Working;
use crate::detect::searches::{self, Place, Search};
use crate::detect::{BuildPrefilter, CompileOptions, Engine, Prefilter, Scratch};
use crate::flow::{FlowTable, PacketDirection};
use crate::inspection::InspectionOptions;
use crate::rules::{Rule, RuleSet, Sources};

mod mix;
mod whole;

pub use mix::Mix;

/// A packet, and which way it goes in its flow.
type Directed<'m> = (Decoded<'m>, PacketDirection);

/// One implementation of the prefilter with everything that is searched with it.
struct Contender {
    name: &'static str,
    engine: Arc<Engine>,
    /// One matcher for the fast patterns of all rules, also those that cannot be used.
    all: Box<dyn Prefilter>,
}

/// What is measured.
pub struct Measurement<'m> {
    mix: &'m Mix,
    packets: Vec<Directed<'m>>,
    contenders: Vec<Contender>,
    settings: EngineSettings,
    rules: Figures,
}

/// What was loaded.
#[derive(Clone, Copy, Debug, Serialize)]
struct Figures {
    seen: usize,
    loaded: usize,
    /// Distinct fast patterns of all rules.
    literals: usize,
}

/// Seconds of each round.
type Rounds = Vec<f64>;

/// A place, and how fast it is searched.
#[derive(Debug, Default, Serialize)]
struct PlaceReport {
    class: &'static str,
    direction: &'static str,
    buffer: &'static str,
    of_port: bool,
    matchers: usize,
    literals: usize,
    searches: u64,
    bytes: u64,
    /// By implementation.
    seconds: BTreeMap<&'static str, Rounds>,
}

/// One implementation.
#[derive(Debug, Default, Serialize)]
struct ContenderReport {
    /// Bytes of memory of its matchers.
    memory: usize,
    /// Rules that it leaves, of all packets.
    candidates: u64,
    /// Its searches and the choice of rules.
    seconds: Rounds,
    /// The one matcher of all rules' fast patterns.
    memory_all: usize,
    hits_all: u64,
    seconds_all: Rounds,
}

/// What was found.
#[derive(Debug, Serialize)]
pub struct Report {
    rules: Figures,
    frames: usize,
    frame_bytes: u64,
    /// Packets that can be decoded, and their payload.
    packets: usize,
    payload_bytes: u64,
    prefilters: BTreeMap<&'static str, ContenderReport>,
    places: Vec<PlaceReport>,
    inspection: BTreeMap<&'static str, whole::Stage>,
}

impl<'m> Measurement<'m> {
    /// Loads and compiles.
    ///
    /// # Errors
    /// When a rule file cannot be read or rules cannot be compiled.
    pub fn prepare(mix: &'m Mix, files: &[PathBuf]) -> anyhow::Result<Self> {
        let settings = EngineSettings::stock();
        let sources = Sources::disk();
        let set = RuleSet::with_settings(&settings, &sources)?;
        let loaded = set.load(files, &sources);
        if loaded.has_errors() {
            log::warn!("not all rules can be used: `sluice check` says why");
        }
        let mut everything = set.clone();
        everything.supported = |_| Ok(());
        let literals = searches::fast_patterns(&everything.load(files, &sources).rules);
        if literals.is_empty() {
            bail!("no rule has anything to search for");
        }
        let contender = |(name, build): (&'static str, BuildPrefilter)| {
            let rules: Vec<Rule> = loaded.rules.clone();
            let compiled = Engine::compile(rules, &CompileOptions::with(build));
            anyhow::Ok(Contender {
                name,
                engine: Arc::new(compiled.context("compiling the rules")?.engine),
                all: build(&literals, None)?,
            })
        };
        let contenders: Vec<Contender> = searches::prefilters()
            .into_iter()
            .map(contender)
            .collect::<Result<_, _>>()?;
        Ok(Self {
            packets: directed(mix),
            mix,
            rules: Figures {
                seen: loaded.seen,
                loaded: contenders.first().map_or(0, |it| it.engine.rule_count()),
                literals: literals.len(),
            },
            contenders,
            settings,
        })
    }

    /// Measures so many times.
    ///
    /// # Errors
    /// When the engine's settings cannot be used.
    pub fn run(&self, rounds: usize) -> anyhow::Result<Report> {
        let mut report = Report {
            rules: self.rules,
            frames: self.mix.frames().count(),
            frame_bytes: self
                .mix
                .frames()
                .map(|frame| frame.bytes.len() as u64)
                .sum(),
            packets: self.packets.len(),
            payload_bytes: (self.packets.iter())
                .map(|(packet, _)| packet.payload.len() as u64)
                .sum(),
            prefilters: BTreeMap::new(),
            places: Vec::new(),
            inspection: BTreeMap::new(),
        };
        let mut places = BTreeMap::new();
        let options = InspectionOptions::of_replay(&self.settings, true);
        let options = options.map_err(anyhow::Error::msg)?;
        // One round that does not count: memory is touched and grown.
        for round in 0..=rounds {
            for contender in &self.contenders {
                let mut scratch = contender.engine.scratch();
                let of = report.prefilters.entry(contender.name).or_default();
                self.candidates(contender, &mut scratch, of, round > 0);
                self.all(contender, of, round > 0)?;
                self.places(contender, &mut places, round > 0)?;
            }
            if let Some(fastest) = self.contenders.first() {
                let stages = &mut report.inspection;
                whole::measure(self.mix, &fastest.engine, &options, stages, round > 0);
            }
        }
        report.places = places.into_values().collect();
        report
            .places
            .sort_by_key(|place| std::cmp::Reverse(place.bytes));
        Ok(report)
    }

    fn candidates(
        &self,
        contender: &Contender,
        scratch: &mut Scratch,
        report: &mut ContenderReport,
        counts: bool,
    ) {
        let begun = cpu_time();
        let mut candidates = 0;
        for (packet, direction) in &self.packets {
            let found = contender.engine.candidates(packet, *direction, scratch);
            candidates += found as u64;
        }
        let seconds = since(begun);
        report.memory = contender.engine.prefilter_bytes();
        report.candidates = candidates;
        report.seconds.extend(counts.then_some(seconds));
    }

    fn all(
        &self,
        contender: &Contender,
        report: &mut ContenderReport,
        counts: bool,
    ) -> anyhow::Result<()> {
        let mut working = Working::default();
        contender.all.prepare(&mut working)?;
        let mut hits = 0;
        let begun = cpu_time();
        for (packet, _) in &self.packets {
            let mut hit = |_| hits += 1;
            contender.all.scan(packet.payload, &mut working, &mut hit);
        }
        let seconds = since(begun);
        report.memory_all = contender.all.heap_bytes();
        report.hits_all = hits;
        report.seconds_all.extend(counts.then_some(seconds));
        Ok(())
    }

    /// The same searches, place by place.
    fn places(
        &self,
        contender: &Contender,
        reports: &mut BTreeMap<Place, PlaceReport>,
        counts: bool,
    ) -> anyhow::Result<()> {
        let mut by_place: BTreeMap<Place, Vec<Search<'_, '_>>> = BTreeMap::new();
        for (packet, direction) in &self.packets {
            (contender.engine).searches(packet, *direction, |search| {
                by_place.entry(search.place).or_default().push(search);
            });
        }
        let mut working = Working::default();
        for (place, matchers, literals) in contender.engine.places() {
            let searches = by_place.remove(&place).unwrap_or_default();
            for search in &searches {
                search.prefilter.prepare(&mut working)?;
            }
            let begun = cpu_time();
            let mut hits = 0u64;
            for search in &searches {
                let mut hit = |_| hits += 1;
                search.prefilter.scan(search.bytes, &mut working, &mut hit);
            }
            let seconds = since(begun);
            black_box(hits);
            let report = reports.entry(place).or_insert_with(|| PlaceReport {
                class: place.class,
                direction: place.direction,
                buffer: place.buffer,
                of_port: place.of_port,
                ..PlaceReport::default()
            });
            (report.matchers, report.literals) = (matchers, literals);
            report.searches = searches.len() as u64;
            report.bytes = searches
                .iter()
                .map(|search| search.bytes.len() as u64)
                .sum();
            let seconds = counts.then_some(seconds);
            report
                .seconds
                .entry(contender.name)
                .or_default()
                .extend(seconds);
        }
        Ok(())
    }
}

/// What this thread has had of its CPU.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID);
    // Every kernel has this clock.
    time.map_or(Duration::ZERO, Duration::from)
}

/// Seconds of CPU time.
fn since(begun: Duration) -> f64 {
    cpu_time().saturating_sub(begun).as_secs_f64()
}

/// Every packet of a mix, on its own, with its direction as a worker would see it.
fn directed(mix: &Mix) -> Vec<Directed<'_>> {
    let mut flows = FlowTable::new(InspectionOptions::default().flows, [1, 2]);
    let mut packets = Vec::new();
    for frame in mix.frames() {
        let Some(Ok(packet)) = Decoded::parse_frame(frame.bytes) else {
            continue;
        };
        let direction = match flows.packet(&packet, frame.time) {
            Ok(Some((_, direction))) => direction,
            _ => PacketDirection::ToServer,
        };
        packets.push((packet, direction));
    }
    packets
}
