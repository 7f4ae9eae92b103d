//! What all cases together show.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use super::case::Case;
use super::trial::Outcome;

/// A case and what became of it.
#[derive(Debug)]
pub(crate) struct Judged {
    pub(crate) case: Case,
    pub(crate) outcome: Outcome,
    pub(crate) took: Duration,
}

impl Judged {
    fn passed(&self) -> bool {
        matches!(self.outcome, Outcome::Passed)
    }
}

/// Cases of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Rate {
    /// Those that fail without detection: the number that says something.
    pub(crate) discriminating: usize,
    /// Of these: passed.
    pub(crate) discriminating_passed: usize,
    /// All.
    pub(crate) all: usize,
    /// Of all: passed.
    pub(crate) all_passed: usize,
}

impl Rate {
    fn add(&mut self, judged: &Judged) {
        let passed = usize::from(judged.passed());
        self.all += 1;
        self.all_passed += passed;
        if judged.case.discriminating {
            self.discriminating += 1;
            self.discriminating_passed += passed;
        }
    }

    /// Percentage of the discriminating cases that passed; 0 when there are none, because then
    /// nothing was shown.
    pub(crate) fn percent(&self) -> f64 {
        percent(self.discriminating_passed, self.discriminating)
    }
}

fn percent(part: usize, whole: usize) -> f64 {
    match whole {
        0 => 0.0,
        whole => 100.0 * part as f64 / whole as f64,
    }
}

/// A suite of many cases that differ little: a tier is shown with and without them, so that they do
/// not hide the rest.
const APART: &str = "http-evader";

/// Pass rates in every respect that cases are told apart by.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Rates {
    pub(crate) total: Rate,
    by_tier: BTreeMap<String, Rate>,
    by_family: BTreeMap<String, Rate>,
    by_tag: BTreeMap<String, Rate>,
}

impl Rates {
    /// Of all these cases.
    pub(crate) fn of(all: &[Judged]) -> Self {
        let mut rates = Self::default();
        let apart = all.iter().filter(|it| it.case.name.starts_with(APART));
        let apart: BTreeSet<String> = apart.map(|it| it.case.tier.clone()).collect();
        for judged in all {
            let case = &judged.case;
            rates.total.add(judged);
            let add = |rates: &mut BTreeMap<String, Rate>, name: &str| {
                rates.entry(name.to_owned()).or_default().add(judged);
            };
            add(&mut rates.by_tier, &case.tier);
            match case.name.starts_with(APART) {
                true => add(&mut rates.by_tier, &format!("{}, {APART}", case.tier)),
                false if apart.contains(&case.tier) => {
                    add(
                        &mut rates.by_tier,
                        &format!("{}, all but {APART}", case.tier),
                    );
                }
                false => {}
            }
            add(
                &mut rates.by_family,
                &format!("{}/{}", case.tier, case.family()),
            );
            for tag in &case.tags {
                add(&mut rates.by_tag, tag);
            }
        }
        rates
    }

    /// The tables.
    pub(crate) fn render(&self) -> String {
        let mut text = String::new();
        let tables = [
            ("tier", &self.by_tier),
            ("family", &self.by_family),
            ("tag", &self.by_tag),
        ];
        for (title, rates) in tables {
            if rates.is_empty() {
                continue;
            }
            let _ = writeln!(text, "{title:<24} {:>18} {:>18}", "discriminating", "all");
            for (name, rate) in rates {
                row(&mut text, name, rate);
            }
            text.push('\n');
        }
        row(&mut text, "total", &self.total);
        text
    }
}

fn row(text: &mut String, name: &str, rate: &Rate) {
    let share = |passed, all| match all {
        0 => "-".to_owned(),
        _ => format!("{passed}/{all} {:5.1} %", percent(passed, all)),
    };
    // Writing into a String cannot fail.
    let _ = writeln!(
        text,
        "{name:<24} {:>18} {:>18}",
        share(rate.discriminating_passed, rate.discriminating),
        share(rate.all_passed, rate.all)
    );
}

/// Every case that did not pass, with what was expected and what was got.
pub(crate) fn failures(all: &[Judged]) -> String {
    let mut text = String::new();
    for judged in all {
        let (name, tier) = (&judged.case.name, &judged.case.tier);
        match &judged.outcome {
            Outcome::Passed => {}
            Outcome::Broken { problem } => {
                let _ = writeln!(text, "BROKEN {name} (tier {tier})");
                for line in problem.lines() {
                    let _ = writeln!(text, "    {line}");
                }
            }
            Outcome::Failed { checks } => {
                let of = judged.case.checks.len();
                let _ = writeln!(
                    text,
                    "FAILED {name} (tier {tier}; {} of {of} checks)",
                    checks.len()
                );
                for miss in checks {
                    let filter = Value::Object(miss.filter.clone());
                    let (expected, got) = (miss.expected, miss.got);
                    let _ = writeln!(text, "    expected {expected}, got {got}: {filter}");
                }
            }
        }
    }
    text
}

/// Everything for a program to read.
pub(crate) fn json(all: &[Judged], rates: &Rates) -> Value {
    let case = |judged: &Judged| {
        let mut value = json!({
            "name": judged.case.name,
            "tier": judged.case.tier,
            "families": judged.case.families,
            "tags": judged.case.tags,
            "discriminating": judged.case.discriminating,
            "milliseconds": u64::try_from(judged.took.as_millis()).unwrap_or(u64::MAX),
        });
        // Plain data: this cannot fail.
        if let (Some(value), Ok(Value::Object(outcome))) =
            (value.as_object_mut(), serde_json::to_value(&judged.outcome))
        {
            value.extend(outcome);
        }
        value
    };
    json!({ "rates": rates, "cases": all.iter().map(case).collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::super::trial::Miss;
    use super::*;

    fn judged(tier: &str, family: &[&str], discriminating: bool, passed: bool) -> Judged {
        let case = json!({
            "name": format!("{tier}-{passed}"), "tier": tier, "families": family,
            "discriminating": discriminating, "pcap": "x",
            "checks": [{"count": 2, "match": {"a": 1}}],
        });
        let miss = Miss {
            expected: 2,
            got: 0,
            filter: [("a".to_owned(), json!(1))].into_iter().collect(),
        };
        Judged {
            case: serde_json::from_value(case).unwrap(),
            outcome: match passed {
                true => Outcome::Passed,
                false => Outcome::Failed { checks: vec![miss] },
            },
            took: Duration::from_millis(7),
        }
    }

    #[test]
    fn a_suite_that_hides_the_rest_is_shown_apart() {
        let mut evader = judged("2", &["http"], true, true);
        evader.case.name = format!("{APART}__1");
        let rates = Rates::of(&[
            evader,
            judged("2", &[], true, false),
            judged("1", &[], true, true),
        ]);
        let percent = |name: &str| rates.by_tier[name].percent();
        assert_eq!(percent("2"), 50.0);
        assert_eq!(percent("2, http-evader"), 100.0);
        assert_eq!(percent("2, all but http-evader"), 0.0);
        assert!(!rates.by_tier.contains_key("1, all but http-evader"));
    }

    #[test]
    fn rates_are_over_the_cases_that_say_something_and_over_all() {
        let all = [
            judged("1", &[], true, true),
            judged("1", &[], true, false),
            judged("1", &[], false, true),
            judged("2", &["http"], true, true),
        ];
        let rates = Rates::of(&all);
        let core = &rates.by_family["1/core"];
        assert_eq!((core.discriminating_passed, core.discriminating), (1, 2));
        assert_eq!((core.all_passed, core.all), (2, 3));
        assert!((core.percent() - 50.0).abs() < 1e-9);
        assert!((rates.total.percent() - 200.0 / 3.0).abs() < 1e-9);
        assert_eq!(Rate::default().percent(), 0.0);
        let text = rates.render();
        assert!(text.contains("2/http"), "{text}");
        assert!(text.contains("1/2  50.0 %"), "{text}");
    }

    #[test]
    fn a_failure_says_what_was_expected_and_what_was_got() {
        let all = [judged("1", &[], true, true), judged("1", &[], true, false)];
        let text = failures(&all);
        assert!(!text.contains("1-true"), "{text}");
        assert!(
            text.contains("FAILED 1-false (tier 1; 1 of 1 checks)"),
            "{text}"
        );
        assert!(text.contains(r#"expected 2, got 0: {"a":1}"#), "{text}");
        let value = json(&all, &Rates::of(&all));
        assert_eq!(value["cases"][0]["outcome"], "passed");
        assert_eq!(value["cases"][1]["checks"][0]["got"], 0);
        assert_eq!(value["rates"]["total"]["all"], 2);
    }
}
