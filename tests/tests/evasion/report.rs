//! What came of the cases: a table, a file for machines, and what fails the test.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use crate::case::Case;

/// Attacks that are known to pass, and ordinary twins known to be harmed: mode, title. A case
/// here that does neither any more fails the test.
const KNOWN: [(Mode, &str); 0] = [];

/// Who puts fragments together that come in another order than they were sent in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mode {
    /// Nobody: by default those that come before the first of their datagram are dropped.
    Untracked,
    /// The gateway's kernel, because it tracks connections.
    Tracked,
    /// The only worker, which is told to take them in any order.
    OneWorker,
}

impl Mode {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Untracked => "without connection tracking",
            Self::Tracked => "with connection tracking",
            Self::OneWorker => "one worker, fragments in any order",
        }
    }

    /// Whether the case makes a difference here.
    ///
    /// What of a stream comes in which segments is the same with tracking; what the kernel makes
    /// of fragments and options, and of packets that it thinks invalid, is not.
    pub(crate) fn plays(self, case: &Case) -> bool {
        const SAME: [&str; 12] = [
            "TCP options",
            "beyond depth",
            "composed decoys",
            "decoys with data",
            "decoys without data",
            "overlaps, other data",
            "overlaps, same data",
            "retransmissions",
            "segments",
            "sequence wrap",
            "tiny windows",
            "urgent data",
        ];
        match self {
            Self::Untracked => true,
            Self::Tracked => !SAME.contains(&case.family),
            Self::OneWorker => case.family.contains("fragments"),
        }
    }

    pub(crate) fn is_ordinary(self, case: &Case) -> bool {
        case.ordinary && (self != Self::Untracked || !case.unordered_fragments)
    }
}

/// What came of one case.
pub(crate) struct Outcome {
    pub(crate) family: &'static str,
    pub(crate) title: String,
    pub(crate) ordinary: bool,
    /// Without Sluice the application got it.
    pub(crate) delivered: bool,
    pub(crate) evaded: bool,
    pub(crate) twin_arrived: bool,
    pub(crate) got: String,
    pub(crate) twin_got: String,
}

impl Outcome {
    fn is_harmed(&self) -> bool {
        self.delivered && self.ordinary && !self.twin_arrived
    }
}

#[derive(Clone, Copy, Default)]
struct Row {
    cases: usize,
    left_out: usize,
    evaded: usize,
    ordinary: usize,
    harmed: usize,
    hostile: usize,
    hostile_arrived: usize,
}

impl Row {
    fn count(&mut self, outcome: &Outcome) {
        self.cases += 1;
        self.left_out += usize::from(!outcome.delivered);
        self.evaded += usize::from(outcome.evaded);
        self.harmed += usize::from(outcome.is_harmed());
        if outcome.delivered {
            self.ordinary += usize::from(outcome.ordinary);
            self.hostile += usize::from(!outcome.ordinary);
            self.hostile_arrived += usize::from(!outcome.ordinary && outcome.twin_arrived);
        }
    }

    fn line(&self, name: &str) -> String {
        format!(
            "{name:<22} {:>6} {:>9} {:>7} {:>9} {:>7} {:>8} {:>8}",
            self.cases,
            self.left_out,
            self.evaded,
            self.ordinary,
            self.harmed,
            self.hostile,
            self.hostile_arrived
        )
    }
}

/// Everything that was played.
#[derive(Default)]
pub(crate) struct Report {
    runs: Vec<(Mode, Vec<Outcome>, Duration)>,
}

impl Report {
    pub(crate) fn add(&mut self, mode: Mode, outcomes: Vec<Outcome>, took: Duration) {
        self.runs.push((mode, outcomes, took));
    }

    fn rows(outcomes: &[Outcome]) -> (BTreeMap<&'static str, Row>, Row) {
        let mut rows: BTreeMap<&str, Row> = BTreeMap::new();
        let mut total = Row::default();
        for outcome in outcomes {
            rows.entry(outcome.family).or_default().count(outcome);
            total.count(outcome);
        }
        (rows, total)
    }

    /// Prints the table and what is wrong.
    pub(crate) fn show(&self) {
        for (mode, outcomes, took) in &self.runs {
            println!("{} ({:.1} s)", mode.name(), took.as_secs_f32());
            println!(
                "{:<22} {:>6} {:>9} {:>7} {:>9} {:>7} {:>8} {:>8}",
                "family", "cases", "left out", "evaded", "ordinary", "harmed", "hostile", "arrived"
            );
            let (rows, total) = Self::rows(outcomes);
            for (family, row) in rows {
                println!("{}", row.line(family));
            }
            println!("{}", total.line("all"));
            for outcome in outcomes {
                if outcome.evaded {
                    println!("EVADED {} | got {}", outcome.title, outcome.got);
                }
                if outcome.is_harmed() {
                    println!("HARMED {} | got {}", outcome.title, outcome.twin_got);
                }
            }
            if std::env::var_os("SLUICE_EVASION_VERBOSE").is_some() {
                for outcome in outcomes.iter().filter(|it| !it.delivered) {
                    println!("left out {}", outcome.title);
                }
                for outcome in outcomes {
                    if outcome.delivered && !outcome.ordinary && !outcome.twin_arrived {
                        println!("stopped {} | got {}", outcome.title, outcome.twin_got);
                    }
                }
            }
        }
        for (mode, title) in KNOWN {
            println!("known to fail {}: {title}", mode.name());
        }
    }

    /// Writes the same to the file that SLUICE_EVASION_JSON names.
    pub(crate) fn write(&self) {
        let Some(path) = std::env::var_os("SLUICE_EVASION_JSON") else {
            return;
        };
        let runs = self.runs.iter().map(|(mode, outcomes, took)| {
            let (rows, total) = Self::rows(outcomes);
            let row = |row: &Row| {
                json!({
                    "cases": row.cases, "left_out": row.left_out, "evaded": row.evaded,
                    "ordinary": row.ordinary, "harmed": row.harmed,
                    "hostile": row.hostile, "hostile_arrived": row.hostile_arrived,
                })
            };
            let families: serde_json::Map<String, serde_json::Value> = rows
                .iter()
                .map(|(family, it)| ((*family).to_owned(), row(it)))
                .collect();
            let titles = |wanted: fn(&Outcome) -> bool| -> Vec<&str> {
                let found = outcomes.iter().filter(|it| wanted(it));
                found.map(|it| it.title.as_str()).collect()
            };
            json!({
                "mode": mode.name(), "seconds": took.as_secs_f32(), "total": row(&total),
                "families": families,
                "left_out": titles(|it| !it.delivered),
                "evaded": titles(|it| it.evaded),
                "harmed": titles(Outcome::is_harmed),
            })
        });
        let runs: Vec<serde_json::Value> = runs.collect();
        std::fs::write(path, format!("{:#}\n", json!({ "runs": runs })))
            .expect("write SLUICE_EVASION_JSON");
    }

    /// Fails for whatever is wrong and not known to be.
    pub(crate) fn assert(&self) {
        let mut wrong = Vec::new();
        for (mode, outcomes, _) in &self.runs {
            for outcome in outcomes {
                let fails = outcome.evaded || outcome.is_harmed();
                let known = KNOWN.contains(&(*mode, outcome.title.as_str()));
                match (fails, known) {
                    (true, false) => wrong.push(format!("{}: {}", mode.name(), outcome.title)),
                    (false, true) => wrong.push(format!(
                        "{}: {} is right now: take it off the list",
                        mode.name(),
                        outcome.title
                    )),
                    _ => {}
                }
            }
            let (_, total) = Self::rows(outcomes);
            // A lab that delivers nothing would be a perfect gateway.
            if total.left_out * 2 > total.cases {
                wrong.push(format!(
                    "{}: without Sluice {} of {} did not arrive",
                    mode.name(),
                    total.left_out,
                    total.cases
                ));
            }
        }
        assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
    }
}
