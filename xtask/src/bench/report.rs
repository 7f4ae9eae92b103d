//! Medians, ratios, and the table.

use std::collections::BTreeMap;

use super::path::Mode;

/// All results of one workload by mode, in the order they were measured.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) results: BTreeMap<Mode, Vec<f64>>,
}

impl Workload {
    pub(crate) fn new(name: &'static str, unit: &'static str) -> Self {
        Self {
            name,
            unit,
            results: BTreeMap::new(),
        }
    }

    pub(crate) fn add(&mut self, mode: Mode, result: f64) {
        self.results.entry(mode).or_default().push(result);
    }

    /// The median of a mode; not a number without results.
    pub(crate) fn median(&self, mode: Mode) -> f64 {
        self.results
            .get(&mode)
            .map_or(f64::NAN, |results| median(results))
    }

    /// The ratio of two medians.
    pub(crate) fn ratio(&self, of: Mode, to: Mode) -> f64 {
        self.median(of) / self.median(to)
    }
}

/// The middle value, or the mean of the two middle ones.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// Something the product promises about these numbers.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct Target {
    pub(crate) what: &'static str,
    pub(crate) wanted: f64,
    pub(crate) measured: f64,
    pub(crate) met: bool,
}

impl Target {
    pub(crate) fn at_least(what: &'static str, wanted: f64, measured: f64) -> Self {
        Self {
            what,
            wanted,
            measured,
            met: measured >= wanted,
        }
    }
}

/// Prints medians and ratios.
pub(crate) fn print(workloads: &[Workload], targets: &[Target]) {
    println!(
        "{:<22} {:>10} {:>10} {:>10}  {:>13} {:>11}",
        "median", "plain", "batched", "nfq", "batched/plain", "batched/nfq"
    );
    for workload in workloads {
        println!(
            "{:<22} {:>10.2} {:>10.2} {:>10.2}  {:>13.2} {:>11.2}",
            format!("{} ({})", workload.name, workload.unit),
            workload.median(Mode::Plain),
            workload.median(Mode::Batched),
            workload.median(Mode::Nfq),
            workload.ratio(Mode::Batched, Mode::Plain),
            workload.ratio(Mode::Batched, Mode::Nfq),
        );
    }
    for target in targets {
        println!(
            "{} {}: {:.2}, wanted {:.2}",
            if target.met { "met   " } else { "MISSED" },
            target.what,
            target.measured,
            target.wanted
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle_of_the_sorted_values() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < f64::EPSILON);
        assert!(median(&[]).is_nan());
    }
}
