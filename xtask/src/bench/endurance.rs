//! `cargo xtask bench endurance`: what it costs TCP streams that a worker is killed all the time.
//!
//! Undisturbed and disturbed phases take turns on one running instance, so that whatever else
//! happens on the machine meets both. The ratios carry over to other machines, the absolute
//! figures do not.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::json;
use sluice_tests::Namespace;
use sluice_tests::elsewhere::{snmp, tcp_extended};
use sluice_tests::stream::{Extent, Sender, Sink};

use super::kills::{Victim, kill_for};
use super::pinned::{Cpus, on_cpu};
use super::report::median;
use crate::progress::Progress;
use crate::stage::interrupt::Interrupt;
use crate::stage::report::Report;
use crate::stage::status::Seat;
use crate::stage::{Settings, Stage, command};
use crate::workspace::Workspace;

/// Throughput under kills, as a share of the undisturbed one.
const THROUGHPUT: f64 = 0.9;
/// Retransmissions under kills, as a multiple of the undisturbed ones.
const RETRANSMISSIONS: f64 = 2.0;
/// Where the undisturbed streams repeat less than this, twice as much is no measure: segments
/// sent again of a million.
const RETRANSMISSIONS_FLOOR: f64 = 20.0;
/// Share of the kills planned that has to find a worker to kill.
const KILLS: f64 = 0.9;
/// Throughput is measured from here on: before, windows open.
const WARM_UP: Duration = Duration::from_millis(300);
/// How long queues and accounts may take to settle after a phase.
const SETTLING: Duration = Duration::from_secs(10);
/// Workers besides the backup.
const WORKERS: usize = 3;

/// Options of `cargo xtask bench endurance`.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct EnduranceArgs {
    /// Pairs of phases, one undisturbed and one with kills; medians are shown
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Length of each phase
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// TCP streams at the same time
    #[arg(long, default_value_t = 4)]
    streams: usize,
    /// Time from one kill to the next
    #[arg(long, default_value_t = 100)]
    kill_ms: u64,
    /// Whom to kill
    #[arg(long, value_enum, default_value_t = Victim::Worker)]
    victim: Victim,
    /// Write all results to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// One round of two seconds: whether it works, not what it costs
    #[arg(long)]
    quick: bool,
}

/// What one phase gave.
#[derive(Clone, Debug, serde::Serialize)]
struct Phase {
    disturbed: bool,
    gigabits: f64,
    /// Segments that the sender sent again, of all that it sent.
    retransmitted: u64,
    /// Segments sent again that had arrived, as the receiver says: not lost, but overtaken.
    overtaken: u64,
    segments: u64,
    longest_gap_ms: u128,
    kills: u64,
    bytes: u64,
    /// What was not as it should be: bytes, connections, accounts, queues.
    faults: Vec<String>,
}

impl Phase {
    /// Segments sent again of a million.
    #[expect(clippy::cast_precision_loss, reason = "a rate is for people")]
    fn retransmission_rate(&self) -> f64 {
        self.retransmitted as f64 * 1e6 / self.segments.max(1) as f64
    }
}

/// Runs the command.
pub(crate) fn endurance(workspace: &Workspace, arguments: &EnduranceArgs) -> Result<ExitCode> {
    command::prepare(workspace, "the benchmark", true)?;
    let mut arguments = arguments.clone();
    if arguments.quick {
        (arguments.rounds, arguments.seconds) = (1, 2);
    }
    let json = arguments.json.as_deref();
    let ending = command::perform("The benchmark", json, |interrupt, report, about| {
        let cpus = Cpus::choose()?;
        let phases = measure(workspace, &arguments, interrupt, cpus, report)?;
        conclude(&arguments, &phases, report);
        *about = json!({
            "cpus": cpus, "seconds": arguments.seconds, "streams": arguments.streams,
            "kill_ms": arguments.kill_ms, "victim": arguments.victim, "phases": phases,
        });
        Ok(())
    })?;
    Ok(ending.into())
}

fn measure(
    workspace: &Workspace,
    arguments: &EnduranceArgs,
    interrupt: Interrupt,
    cpus: Cpus,
    report: &mut Report,
) -> Result<Vec<Phase>> {
    let settings = Settings {
        name: "endurance",
        rules: String::new(),
        // Workers that are killed all the time would soon be started a second later only, and
        // there would be none to kill.
        keys: format!(
            "workers.count = {WORKERS}\n\
             workers.cpus = [{0}]\n\
             workers.backup_cpu = {0}\n\
             workers.restart_pause_max_ms = 5\n",
            cpus.inspector
        ),
    };
    report.act(&format!(
        "client on CPU {}, server on {}, workers on {}; {} phases of {} s",
        cpus.client,
        cpus.server,
        cpus.inspector,
        2 * arguments.rounds,
        arguments.seconds
    ));
    let program = workspace.sluice(true);
    command::on_stage(&program, interrupt, settings, report, |stage, report| {
        let phases = take_turns(stage, arguments, cpus, report)?;
        let (_, left) = stage.stop()?;
        let data = json!({ "left": left });
        command::add_leftovers(report, &left, "nothing left".to_owned(), data);
        Ok(phases)
    })
}

fn take_turns(
    stage: &mut Stage,
    arguments: &EnduranceArgs,
    cpus: Cpus,
    report: &Report,
) -> Result<Vec<Phase>> {
    let mut phases = Vec::new();
    for round in 0..arguments.rounds {
        // Another one begins each time.
        for disturbed in [round % 2 == 1, round % 2 == 0] {
            let name = if disturbed {
                "with kills"
            } else {
                "undisturbed"
            };
            let mut line = Progress::new(format!("round {}", round + 1));
            line.tick(name);
            let phase = play(stage, arguments, cpus, disturbed)?;
            line.clear();
            report.note(&format!(
                "round {}, {name:<11}: {:6.2} Gbit/s, {:4} of {} segments sent again ({} had arrived), longest gap {} ms, {} kills{}",
                round + 1,
                phase.gigabits,
                phase.retransmitted,
                phase.segments,
                phase.overtaken,
                phase.longest_gap_ms,
                phase.kills,
                if phase.faults.is_empty() { "" } else { ", FAULTS" }
            ));
            phases.push(phase);
            stage.ensure_running()?;
        }
    }
    Ok(phases)
}

/// One phase: fresh streams, with kills or without.
fn play(stage: &Stage, arguments: &EnduranceArgs, cpus: Cpus, disturbed: bool) -> Result<Phase> {
    stage.await_all_up()?;
    let ends = [stage.lab.client(), stage.lab.server()];
    let before = (Tcp::read(ends[0])?, resets(ends)?);
    let length = Duration::from_secs(arguments.seconds);
    let sinks = on_cpu(cpus.server, || {
        let address = stage.lab.server_v4().into();
        let sinks = (0..arguments.streams).map(|_| Sink::start(stage.lab.server(), address, 0));
        sinks.collect::<std::io::Result<Vec<_>>>()
    })??;
    let senders = on_cpu(cpus.client, || {
        let extent = Extent::Time(length + WARM_UP);
        let sender = |sink: &Sink| Sender::start(stage.lab.client(), sink.address(), extent);
        sinks.iter().map(sender).collect::<Vec<_>>()
    })?;
    stage.interrupt.pause(WARM_UP)?;
    let received = || sinks.iter().map(Sink::received).sum::<u64>();
    let (first, began) = (received(), Instant::now());
    let kills = if disturbed {
        kill_for(
            stage,
            arguments.victim,
            Duration::from_millis(arguments.kill_ms.max(1)),
            length,
        )?
    } else {
        stage.interrupt.pause(length)?;
        0
    };
    let (bytes, elapsed) = (received() - first, began.elapsed());
    let gap = sinks.iter().map(Sink::longest_gap).max();
    let mut faults = Vec::new();
    for (sender, sink) in senders.into_iter().zip(&sinks) {
        let sent = sender.finish();
        faults.extend(sent.error);
        faults.extend(sink.faults());
        if sent.sent != sink.received() {
            let arrived = sink.received();
            faults.push(format!("{arrived} of {} bytes arrived", sent.sent));
        }
    }
    let after = (Tcp::read(ends[0])?, resets(ends)?);
    if after.1 != before.1 {
        faults.push(format!("{} connections reset", after.1 - before.1));
    }
    faults.extend(unsettled(stage)?);
    #[expect(clippy::cast_precision_loss, reason = "a rate is for people")]
    let gigabits = bytes as f64 * 8.0 / 1e9 / elapsed.as_secs_f64();
    Ok(Phase {
        disturbed,
        gigabits,
        retransmitted: after.0.retransmitted - before.0.retransmitted,
        overtaken: after.0.overtaken - before.0.overtaken,
        segments: after.0.sent - before.0.sent,
        longest_gap_ms: gap.unwrap_or_default().as_millis(),
        kills,
        bytes: sinks.iter().map(Sink::received).sum(),
        faults,
    })
}

/// What does not come to rest after a phase.
fn unsettled(stage: &Stage) -> Result<Vec<String>> {
    let settled = stage.await_status(SETTLING, |status| {
        status.all_up() && status.balanced() && status.waiting() == 0
    })?;
    if settled.is_some() {
        return Ok(Vec::new());
    }
    let status = stage.status()?;
    let seat = |seat: &Seat| {
        format!(
            "{} is {}, {} packets unaccounted for, {} waiting",
            seat.name,
            seat.state,
            seat.in_hand(),
            seat.kernel.waiting
        )
    };
    Ok(status.seats().map(seat).collect())
}

/// What the sender's TCP has counted (RFC 4022).
#[derive(Clone, Copy, Debug)]
struct Tcp {
    sent: u64,
    retransmitted: u64,
    overtaken: u64,
}

impl Tcp {
    fn read(namespace: &Namespace) -> Result<Self> {
        Ok(Self {
            sent: snmp(namespace, "Tcp", "OutSegs")?,
            retransmitted: snmp(namespace, "Tcp", "RetransSegs")?,
            overtaken: tcp_extended(namespace, "TCPDSACKRecvSegs")?,
        })
    }
}

fn resets(ends: [&Namespace; 2]) -> Result<u64> {
    let resets = ends.map(|end| snmp(end, "Tcp", "EstabResets"));
    resets.into_iter().sum()
}

fn conclude(arguments: &EnduranceArgs, phases: &[Phase], report: &mut Report) {
    let of = |disturbed: bool, figure: fn(&Phase) -> f64| {
        let phases = phases.iter().filter(|phase| phase.disturbed == disturbed);
        median(&phases.map(figure).collect::<Vec<_>>())
    };
    let rate = |phase: &Phase| phase.gigabits;
    let (undisturbed, disturbed) = (of(false, rate), of(true, rate));
    let ratio = disturbed / undisturbed;
    report.add(
        "Throughput is 0.9 of the undisturbed one, or more",
        ratio >= THROUGHPUT,
        format!("{ratio:.3}: {disturbed:.2} of {undisturbed:.2} Gbit/s (medians)"),
        json!({ "ratio": ratio, "undisturbed": undisturbed, "disturbed": disturbed }),
    );
    let (undisturbed, disturbed) = (
        of(false, Phase::retransmission_rate),
        of(true, Phase::retransmission_rate),
    );
    let allowed = RETRANSMISSIONS * undisturbed.max(RETRANSMISSIONS_FLOOR / RETRANSMISSIONS);
    report.add(
        "Retransmissions are no more than twice the undisturbed ones",
        disturbed <= allowed,
        format!(
            "{disturbed:.1} of a million segments, {undisturbed:.1} undisturbed (medians; up to {allowed:.1} allowed)"
        ),
        json!({ "undisturbed": undisturbed, "disturbed": disturbed, "allowed": allowed }),
    );
    let faults: Vec<String> = phases
        .iter()
        .flat_map(|phase| phase.faults.clone())
        .collect();
    let bytes: u64 = phases.iter().map(|phase| phase.bytes).sum();
    report.add(
        "Every byte right, no connection reset, accounts exact, nothing pending",
        faults.is_empty() && bytes > 0,
        if faults.is_empty() {
            format!("{} GiB compared", bytes >> 30)
        } else {
            faults.join("; ")
        },
        json!({ "bytes": bytes, "faults": faults }),
    );
    let kills: Vec<u64> = phases
        .iter()
        .filter(|phase| phase.disturbed)
        .map(|phase| phase.kills)
        .collect();
    let planned = arguments.seconds * 1000 / arguments.kill_ms.max(1);
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let enough = kills
        .iter()
        .all(|kills| *kills as f64 >= planned as f64 * KILLS);
    report.add(
        &format!("Somebody was killed every {} ms", arguments.kill_ms),
        enough,
        format!("{kills:?} kills of {planned} planned in each phase"),
        json!({ "kills": kills, "planned": planned }),
    );
}
