//! Rule files: every finding has its place, and what can be used can be compiled and asked, with
//! either prefilter to the same effect.
#![no_main]

use std::rc::Rc;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use sluice::decode::Decoded;
use sluice::detect::prefilter::{BuildPrefilter, fastest};
use sluice::detect::{CompileOptions, Daachorse, Engine, Inspected, TableLimits, Tables};
use sluice::reassembly::tcp::StreamEvents;
use sluice::rules::{Rule, RuleSet, RuleSource, Severity, Sources};
use sluice_fuzz::engine::at;
use sluice_fuzz::seeds;

static PACKETS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(seeds::packets);
thread_local! {
    /// Without a single file.
    static SOURCES: Rc<Sources> = {
        let file = Sources::file().expect("a file in memory");
        let kept = file.try_clone().expect("a descriptor");
        let empty = Sources::keeping(kept).and_then(|sources| sources.finish());
        empty.expect("memory");
        Rc::new(Sources::kept(file).expect("what was kept"))
    };
}

static SET: LazyLock<RuleSet> = LazyLock::new(RuleSet::default);

/// What matches in the packets, with this prefilter.
fn matches(rules: Vec<Rule>, prefilter: BuildPrefilter) -> Option<Vec<(usize, Vec<u32>)>> {
    let options = CompileOptions {
        // Rules shall not read what lies around here.
        sources: SOURCES.with(Rc::clone),
        ..CompileOptions::with(prefilter)
    };
    let compiled = Engine::compile(rules, &options).ok()?;
    for refused in &compiled.refused {
        assert!(!refused.to_string().is_empty());
    }
    let engine = compiled.engine;
    let mut scratch = engine.scratch();
    let mut tables = Tables::new(TableLimits::default());
    let mut found = Vec::new();
    for (number, bytes) in PACKETS.iter().enumerate() {
        let Ok(packet) = Decoded::parse(bytes) else {
            continue;
        };
        let inspected = Inspected {
            packet: &packet,
            flow: None,
            stream: None,
            stream_events: StreamEvents::default(),
            only_stream: false,
            only_established: false,
            app: None,
            now: at(number as u64 * 1_000_000),
            tables: &mut tables,
        };
        let detection = engine.inspect(inspected, &mut scratch);
        if detection.out_of_time || detection.given_up > 0 {
            return None;
        }
        let ids = detection.alerts.iter();
        let ids = ids.map(|alert| engine.rule(alert.rule).options.signature_id);
        found.push((number, ids.collect()));
    }
    Some(found)
}

fuzz_target!(|data: &[u8]| {
    let source = RuleSource::new("fuzz.rules", data.to_vec());
    let loaded = SET.load_sources(&[source]);
    let lines = data.split(|byte| *byte == b'\n').count();
    for diagnostic in &loaded.diagnostics {
        assert!((1..=lines).contains(&diagnostic.line), "{diagnostic:?}");
        let characters = diagnostic.source_line.chars().count();
        assert!(
            (1..=characters + 1).contains(&diagnostic.column),
            "{diagnostic:?}"
        );
        assert!(diagnostic.length >= 1);
        let shown = diagnostic.render();
        assert!(shown.starts_with("fuzz.rules:"), "{shown}");
        assert!(
            !shown.chars().any(|it| it.is_control() && it != '\n'),
            "{shown:?}"
        );
    }
    let errors = loaded.diagnostics.iter();
    let errors = errors.filter(|it| it.severity == Severity::Error).count();
    assert!(
        loaded.wrong == 0 || errors > 0,
        "a rule is wrong and nobody says why"
    );
    let accounted = loaded.rules.len()
        + loaded.wrong
        + loaded.unsupported
        + loaded.not_for_us
        + loaded.superseded;
    assert_eq!(accounted, loaded.seen, "{loaded:?}");
    if loaded.rules.is_empty() || loaded.rules.len() > 20 {
        return;
    }
    let with_daachorse = matches(loaded.rules.clone(), Daachorse::build);
    let with_hyperscan = matches(loaded.rules, fastest());
    if let (Some(one), Some(other)) = (with_daachorse, with_hyperscan) {
        assert_eq!(one, other);
    }
});
