//! `cargo xtask bench overload`: three times the packets that the workers can inspect, and where
//! each of them has ended.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use sluice_tests::queue_state;

use super::generator::Generator;
use super::memory::Peak;
use super::path::dropped_by;
use super::pinned::Cpus;
use super::udp::{self, Account, Inspected};
use crate::stage::interrupt::{Interrupt, Interrupted};
use crate::stage::report::Report;
use crate::stage::status::Status;
use crate::stage::{Settings, Stage, command};
use crate::workspace::Workspace;

/// Offered load, as a multiple of what can be inspected.
const OVERLOAD: f64 = 3.0;
/// Of that, what the generator has to reach for the measurement to be one.
const REACHED: f64 = 0.95;
/// How long each rate is tried while the capacity is sought, and how many are.
const TRIAL: Duration = Duration::from_millis(1_500);
const TRIALS: u32 = 7;
/// Most kilobytes that a process may grow by: its flows are there since the measurement of the
/// capacity.
const GROWTH_KB: u64 = 64 << 10;
/// Most kilobytes that the kernel's objects may grow by: full queues and full receive buffers.
const SLAB_GROWTH_KB: u64 = 512 << 10;

/// Options of `cargo xtask bench overload`.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct OverloadArgs {
    /// Length of the overload
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Workers besides the backup
    #[arg(long, default_value_t = 2)]
    workers: u32,
    /// Rules that each packet has to be compared with in vain: so many that the generator can
    /// make three times what the workers can inspect
    #[arg(long, default_value_t = 600)]
    rules: u32,
    /// Only this fail policy
    #[arg(long, value_parser = ["open", "closed"])]
    fail: Option<String>,
    /// Write all results to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Two seconds of overload: whether it works
    #[arg(long)]
    quick: bool,
}

/// What one run gave.
#[derive(Debug, serde::Serialize)]
struct Overload {
    fail: String,
    capacity_pps: f64,
    offered_pps: f64,
    delivered_pps: f64,
    account: Account,
    /// Delivered, but seen by no worker: full queues let pass when failing open.
    uninspected: i64,
    /// Shed by a worker, and passed or dropped as the policy says.
    shed: u64,
    before: Peak,
    peak: Peak,
}

/// Runs the command.
pub(crate) fn overload(workspace: &Workspace, arguments: &OverloadArgs) -> Result<ExitCode> {
    command::prepare(workspace, "the benchmark", true)?;
    let json = arguments.json.as_deref();
    let ending = command::perform("The benchmark", json, |interrupt, report, about| {
        let mut runs = Vec::new();
        for fail in ["open", "closed"] {
            if arguments.fail.as_ref().is_some_and(|only| only != fail) {
                continue;
            }
            report.act(&format!("fail {fail}"));
            match run(workspace, arguments, fail, interrupt.clone(), report) {
                Ok(overload) => runs.push(overload),
                Err(error) if error.is::<Interrupted>() => return Err(error),
                Err(error) => report.failed(&format!("Overload with fail {fail} ends"), &error),
            }
        }
        *about = json!({ "runs": runs });
        Ok(())
    })?;
    Ok(ending.into())
}

fn run(
    workspace: &Workspace,
    arguments: &OverloadArgs,
    fail: &str,
    interrupt: Interrupt,
    report: &mut Report,
) -> Result<Overload> {
    let cpus = Cpus::choose()?;
    let settings = Settings {
        name: "overload",
        rules: rules(arguments.rules),
        keys: format!(
            "fail = \"{fail}\"\n\
             workers.count = {}\n\
             workers.cpus = [{1}]\n\
             workers.backup_cpu = {1}\n",
            arguments.workers, cpus.inspector
        ),
    };
    let program = workspace.sluice(true);
    command::on_stage(&program, interrupt, settings, report, |stage, report| {
        udp::prepare(&stage.lab)?;
        let generator = workspace.bpf_object().with_file_name("generator");
        let overload = overwhelm(stage, &generator, arguments, (fail, cpus), report);
        stage.ensure_running()?;
        let overload = overload?;
        judge(&stage.status()?, &overload, report);
        stage.stop()?;
        Ok(overload)
    })
}

/// Measures the capacity, then offers three times as much.
fn overwhelm(
    stage: &Stage,
    generator: &Path,
    arguments: &OverloadArgs,
    (fail, cpus): (&str, Cpus),
    report: &mut Report,
) -> Result<Overload> {
    let lab = &stage.lab;
    let mut generator = Generator::load(generator, lab)?;
    let inspected = Instance {
        stage,
        fails_closed: fail == "closed",
    };
    let capacity_pps = capacity(stage, &mut generator, &inspected, cpus, report)?;
    let seconds = if arguments.quick {
        2
    } else {
        arguments.seconds
    };
    let pace = Some(capacity_pps * OVERLOAD);
    let length = Duration::from_secs(seconds);
    let (before, seen) = (Peak::now(lab.gateway())?, stage.status()?.received());
    let (measured, peak) = Peak::during(lab.gateway(), || {
        udp::measure(lab, &mut generator, &inspected, cpus, (length, pace))
    })?;
    let status = stage.status()?;
    let seen = status.received() - seen;
    let account = measured.account;
    report.note(&show(&account));
    Ok(Overload {
        fail: fail.to_owned(),
        capacity_pps,
        offered_pps: measured.generated_pps,
        delivered_pps: measured.delivered_pps,
        uninspected: i64::try_from(account.delivered)? - i64::try_from(seen)?,
        shed: status.shed(),
        account,
        before,
        peak,
    })
}

/// The highest rate at which every packet was inspected and none dropped: sought by halving.
fn capacity(
    stage: &Stage,
    generator: &mut Generator,
    inspected: &Instance<'_>,
    cpus: Cpus,
    report: &Report,
) -> Result<f64> {
    let lab = &stage.lab;
    let most = udp::measure(lab, generator, inspected, cpus, (TRIAL, None))?.generated_pps;
    let (mut sustained, mut too_much) = (0.0, most);
    for _ in 0..TRIALS {
        stage.interrupt.check()?;
        let rate = f64::midpoint(sustained, too_much);
        let before = stage.status()?;
        let trial = udp::measure(lab, generator, inspected, cpus, (TRIAL, Some(rate)))?;
        let after = stage.status()?;
        let seen = after.received() - before.received();
        let all = seen >= trial.account.generated && after.shed() == before.shed();
        if all && trial.account.dropped.is_empty() {
            sustained = trial.delivered_pps.max(sustained);
            // What the generator does not reach cannot be too much.
            if trial.delivered_pps < rate * REACHED {
                break;
            }
        } else {
            too_much = rate;
        }
    }
    report.note(&format!(
        "{:.1} kpps can be inspected of {:.1} that the generator can make",
        sustained / 1e3,
        most / 1e3
    ));
    ensure!(sustained > 0.0, "at no rate was every packet inspected");
    Ok(sustained)
}

fn judge(status: &Status, overload: &Overload, report: &mut Report) {
    let Overload {
        fail,
        capacity_pps,
        offered_pps,
        delivered_pps,
        account,
        uninspected,
        shed,
        before,
        peak,
    } = overload;
    let times = offered_pps / capacity_pps;
    report.add(
        &format!("fail {fail}: {OVERLOAD} times as much is offered as can be inspected"),
        times >= OVERLOAD * REACHED,
        format!(
            "{times:.2} times: {:.1} of {:.1} kpps, {:.1} delivered",
            offered_pps / 1e3,
            capacity_pps / 1e3,
            delivered_pps / 1e3
        ),
        json!({ "offered_pps": offered_pps, "capacity_pps": capacity_pps }),
    );
    report.add(
        &format!("fail {fail}: every packet not delivered is counted by cause"),
        account.unaccounted == 0,
        format!(
            "{} sent, {} delivered, {} counted, unexplained {}; {shed} shed in all{}",
            account.generated,
            account.delivered,
            account.dropped.values().sum::<u64>(),
            account.unaccounted,
            if *uninspected > 0 {
                format!("; {uninspected} delivered without inspection")
            } else {
                String::new()
            }
        ),
        json!({ "account": account, "uninspected": uninspected, "shed": shed }),
    );
    let mut grown: Vec<(String, u64)> = peak
        .resident_kb
        .iter()
        .map(|(name, resident)| {
            let earlier = before.resident_kb.get(name).copied().unwrap_or(0);
            (name.clone(), resident.saturating_sub(earlier))
        })
        .collect();
    grown.sort_by_key(|(_, growth)| std::cmp::Reverse(*growth));
    let slab = peak.slab_kb.saturating_sub(before.slab_kb);
    let most = grown.first().cloned().unwrap_or_default();
    report.add(
        &format!("fail {fail}: memory is bounded"),
        most.1 <= GROWTH_KB && slab <= SLAB_GROWTH_KB,
        format!(
            "{} grew most, by {} KiB; kernel objects by {slab} KiB",
            most.0, most.1
        ),
        json!({ "before": before, "peak": peak }),
    );
    let restarts: u64 = status.seats().map(|seat| seat.restarts).sum();
    report.add(
        &format!("fail {fail}: nobody dies, the accounts balance, nothing is left in a queue"),
        restarts == 0 && status.balanced() && status.waiting() == 0,
        format!(
            "{restarts} restarts, {} trips, {} received, {} waiting",
            status.trips(),
            status.received(),
            status.waiting()
        ),
        json!({ "restarts": restarts, "trips": status.trips() }),
    );
}

/// The running instance as something that drops packets.
struct Instance<'a> {
    stage: &'a Stage,
    fails_closed: bool,
}

impl Inspected for Instance<'_> {
    fn waiting(&self) -> Result<u64> {
        let queues = queue_state::read(self.stage.lab.gateway())?;
        Ok(queues.iter().map(|queue| u64::from(queue.waiting)).sum())
    }

    fn dropped(&self) -> Result<BTreeMap<String, u64>> {
        let mut dropped = dropped_by(queue_state::read(self.stage.lab.gateway())?);
        let status = self.stage.status().context("what the workers dropped")?;
        let total = |of: fn(&crate::stage::status::Seat) -> u64| status.seats().map(of).sum();
        dropped.insert("by a worker".to_owned(), total(|seat| seat.dropped));
        dropped.insert("shed".to_owned(), total(|seat| seat.shed_dropped));
        if self.fails_closed {
            dropped.insert("settled".to_owned(), total(|seat| seat.settled));
        }
        for name in ["tc.convicted", "tc.malformed", "xdp.convicted"] {
            dropped.insert(name.to_owned(), status.counter(name));
        }
        Ok(dropped)
    }
}

/// Rules that the generator's packets meet half: what they are searched for first is there, the
/// rest is not, and has nothing in it that could be searched for at once.
fn rules(count: u32) -> String {
    (0..count).fold(String::new(), |mut text, index| {
        let zeros = "00 ".repeat(12);
        let _ = writeln!(
            text,
            "alert udp any any -> any any (msg:\"load {index}\"; content:\"|{}|\"; \
             pcre:\"/[\\x00-\\x0f]{{{}}}[g-z][a-t][0-9]{{{}}}/\"; sid:{}; rev:1;)",
            zeros.trim_end(),
            4 + index % 8,
            4 + index / 8,
            1_000_000 + index
        );
        text
    })
}

fn show(account: &Account) -> String {
    let mut text = format!(
        "{} sent = {} delivered",
        account.generated, account.delivered
    );
    for (cause, packets) in &account.dropped {
        let _ = write!(text, " + {packets} {cause}");
    }
    let _ = write!(text, " + {} unexplained", account.unaccounted);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_searches_for_what_the_packets_have_and_for_what_they_have_not() {
        let rules = rules(3);
        assert_eq!(rules.lines().count(), 3);
        for line in rules.lines() {
            assert!(line.contains("content:\"|00 00"), "{line}");
            assert!(line.contains("}[g-z][a-t][0-9]{"), "{line}");
        }
    }
}
