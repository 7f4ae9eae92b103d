//! `cargo xtask bench prefilter`: how fast payload is searched and packets are inspected.
//!
//! `sluice measure` does it, on packets in memory and one core. Here its figures become rates: of
//! payload for searches, of whole frames for the inspection.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::pinned::Cpus;
use super::report::{Target, median};
use crate::build;
use crate::toolchain::bpf;
use crate::workspace::Workspace;

/// Options of `cargo xtask bench prefilter`.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct PrefilterArgs {
    /// Rule files [default: some of the kinds that there are, made up]
    #[arg(long, value_name = "FILE", num_args = 1..)]
    rules: Vec<PathBuf>,
    /// Captures with the traffic [default: HTTP, records like those of TLS, DNS, noise, made up]
    #[arg(long, value_name = "FILE", num_args = 1..)]
    mix: Vec<PathBuf>,
    /// Measurements of everything; medians are shown
    #[arg(long, default_value_t = 7)]
    rounds: u32,
    /// Write all results to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Use this program instead of building one
    #[arg(long, value_name = "FILE")]
    sluice: Option<PathBuf>,
}

/// What is promised of libhs.
const WANTED_GBIT: f64 = 5.0;
/// Rules made up when none are named.
const MADE_UP_RULES: u32 = 5_000;

#[derive(Deserialize)]
struct Report {
    rules: Rules,
    frames: u64,
    frame_bytes: u64,
    packets: u64,
    payload_bytes: u64,
    prefilters: BTreeMap<String, Contender>,
    places: Vec<Place>,
    inspection: BTreeMap<String, Stage>,
}

#[derive(Deserialize)]
struct Rules {
    seen: u64,
    loaded: u64,
    literals: u64,
}

#[derive(Deserialize)]
struct Contender {
    memory: u64,
    candidates: u64,
    seconds: Vec<f64>,
    memory_all: u64,
    hits_all: u64,
    seconds_all: Vec<f64>,
}

#[derive(Deserialize)]
struct Place {
    class: String,
    direction: String,
    buffer: String,
    of_port: bool,
    matchers: u64,
    literals: u64,
    searches: u64,
    bytes: u64,
    seconds: BTreeMap<String, Vec<f64>>,
}

#[derive(Deserialize)]
struct Stage {
    seconds: Vec<f64>,
    alerts: u64,
    flows: u64,
}

/// Runs the command.
pub(crate) fn prefilter(workspace: &Workspace, arguments: &PrefilterArgs) -> Result<ExitCode> {
    let sluice = match &arguments.sluice {
        Some(sluice) => sluice.clone(),
        None => {
            build::object(workspace, bpf::ensure(workspace)?)?;
            build::program(workspace, true)?;
            workspace.sluice(true)
        }
    };
    let directory = tempfile::tempdir().context("no temporary directory")?;
    let mut rules = arguments.rules.clone();
    if rules.is_empty() {
        let path = directory.path().join("made-up.rules");
        std::fs::write(&path, made_up(MADE_UP_RULES))?;
        rules.push(path);
    }
    let mut command = Command::new(&sluice);
    command.args(["measure", "--rounds", &arguments.rounds.to_string()]);
    command.args(["--cpu", &Cpus::choose()?.inspector.to_string()]);
    for file in &rules {
        command.arg("--rules").arg(file);
    }
    for file in &arguments.mix {
        command.arg("--mix").arg(file);
    }
    let output = command.stderr(Stdio::inherit()).output();
    let output = output.with_context(|| sluice.display().to_string())?;
    if !output.status.success() {
        bail!("sluice measure: {}", output.status);
    }
    let report: Report = serde_json::from_slice(&output.stdout).context("sluice measure")?;
    if let Some(file) = &arguments.json {
        std::fs::write(file, &output.stdout).with_context(|| file.display().to_string())?;
    }
    print(&report);
    let rate = report
        .prefilters
        .get("libhs")
        .map_or(0.0, |libhs| gbit(report.payload_bytes, &libhs.seconds));
    let target = Target::at_least("libhs, Gbit/s of payload a core", WANTED_GBIT, rate);
    let word = if target.met { "met   " } else { "MISSED" };
    println!(
        "\n{word} {}: {rate:.2}, wanted {WANTED_GBIT:.2}",
        target.what
    );
    Ok(if target.met {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

#[expect(clippy::cast_precision_loss, reason = "rates are for people")]
fn gbit(bytes: u64, seconds: &[f64]) -> f64 {
    bytes as f64 * 8.0 / 1e9 / median(seconds)
}

#[expect(clippy::cast_precision_loss, reason = "means are for people")]
fn each(total: u64, of: u64) -> f64 {
    total as f64 / of.max(1) as f64
}

#[expect(clippy::cast_precision_loss, reason = "means are for people")]
fn ns_each(seconds: &[f64], of: u64) -> f64 {
    median(seconds) * 1e9 / of.max(1) as f64
}

fn print(report: &Report) {
    println!(
        "{} packets with {:.1} MB of payload; {} of {} rules loaded; one core, medians\n",
        report.packets,
        each(report.payload_bytes, 1_000_000),
        report.rules.loaded,
        report.rules.seen,
    );
    println!(
        "{:<34} {:>8} {:>10} {:>13} {:>8}",
        "prefilter", "Gbit/s", "ns/packet", "found/packet", "MB"
    );
    let row = |what: &str, bytes, seconds: &[f64], found, memory| {
        println!(
            "{what:<34} {:>8.2} {:>10.0} {:>13.2} {:>8.1}",
            gbit(bytes, seconds),
            ns_each(seconds, report.packets),
            each(found, report.packets),
            each(memory, 1_000_000),
        );
    };
    for (name, it) in &report.prefilters {
        let what = format!("{name}, as loaded (candidates)");
        row(
            &what,
            report.payload_bytes,
            &it.seconds,
            it.candidates,
            it.memory,
        );
    }
    for (name, it) in &report.prefilters {
        let what = format!("{name}, {} in one (hits)", report.rules.literals);
        row(
            &what,
            report.payload_bytes,
            &it.seconds_all,
            it.hits_all,
            it.memory_all,
        );
    }
    println!(
        "\n{:<34} {:>9} {:>9} {:>8}  Gbit/s",
        "searched", "matchers", "literals", "MB"
    );
    for place in report.places.iter().filter(|place| place.searches > 0) {
        let rates = place.seconds.iter();
        let rates =
            rates.map(|(name, seconds)| format!("{name} {:.2}", gbit(place.bytes, seconds)));
        println!(
            "{:<34} {:>9} {:>9} {:>8.1}  {}",
            format!(
                "{} {} {}{}",
                place.class,
                place.direction,
                place.buffer,
                if place.of_port { ", by port" } else { "" }
            ),
            place.matchers,
            place.literals,
            each(place.bytes, 1_000_000),
            rates.collect::<Vec<_>>().join(", "),
        );
    }
    println!(
        "\n{:<34} {:>8} {:>10} {:>8} {:>8}",
        "inspection", "Gbit/s", "ns/packet", "flows", "alerts"
    );
    for (name, stage) in &report.inspection {
        println!(
            "{name:<34} {:>8.2} {:>10.0} {:>8} {:>8}",
            gbit(report.frame_bytes, &stage.seconds),
            ns_each(&stage.seconds, report.frames),
            stage.flows,
            stage.alerts,
        );
    }
}

/// Rules with contents of their own, some for a port and most for all, as rule sets have them.
fn made_up(rules: u32) -> String {
    (1..=rules).fold(String::new(), |mut text, number| {
        // Distinct, and like nothing that the made-up traffic has.
        let word = u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let (way, ports) = match number % 4 {
            0 => ("any any -> any any", "flow:established,to_server; "),
            1 => ("any any -> any any", "flow:established,to_client; "),
            2 => ("any any -> any 80", "flow:established,to_server; "),
            _ => ("any any -> any 53", ""),
        };
        let protocol = if number % 4 == 3 { "udp" } else { "tcp" };
        text.push_str(&format!(
            "alert {protocol} {way} (msg:\"made up {number}\"; {ports}content:\"/{word:x}\"; \
             sid:{number};)\n"
        ));
        text
    })
}
