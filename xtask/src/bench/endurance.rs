//! `cargo xtask bench endurance`: what it costs TCP streams that a worker is killed all the time.
//!
//! Undisturbed and disturbed phases take turns on one running instance, so that whatever else
//! happens on the machine meets both. The ratios carry over to other machines, the absolute
//! figures do not.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use nix::sys::signal::Signal;
use serde_json::json;
use sluice_tests::Namespace;
use sluice_tests::elsewhere::{snmp, tcp_extended};
use sluice_tests::stream::{Extent, Sender, Sink};

use super::pinned::{Cpus, on_cpu};
use super::report::median;
use crate::stage::interrupt::{INTERRUPTED, Interrupt, Interrupted};
use crate::stage::report::Report;
use crate::stage::status::{Seat, Status};
use crate::stage::{Settings, Stage, processes};
use crate::toolchain::{bpf, system};
use crate::workspace::Workspace;
use crate::{build, progress};

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

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
enum Victim {
    /// The workers in turn
    Worker,
    /// Whoever got the most packets since the last kill, the backup too
    Busiest,
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
    if let Some(missing) = sluice_tests::requirement::missing_for_queues() {
        bail!("the benchmark cannot run: {missing}");
    }
    system::ensure(system::ALL)?;
    build::object(workspace, bpf::ensure(workspace)?)?;
    build::program(workspace, true)?;
    let interrupt = Interrupt::take_over()?;
    let cpus = Cpus::choose()?;
    let mut arguments = arguments.clone();
    if arguments.quick {
        (arguments.rounds, arguments.seconds) = (1, 2);
    }
    let mut report = Report::new();
    let measured = measure(workspace, &arguments, interrupt, cpus, &mut report);
    let phases = match measured {
        Ok(phases) => phases,
        Err(error) if error.is::<Interrupted>() => {
            println!("Interrupted; everything has been removed.");
            return Ok(ExitCode::from(INTERRUPTED));
        }
        Err(error) => return Err(error),
    };
    conclude(&arguments, &phases, &mut report);
    report.print();
    if let Some(path) = &arguments.json {
        let about = json!({
            "cpus": cpus, "seconds": arguments.seconds, "streams": arguments.streams,
            "kill_ms": arguments.kill_ms, "victim": arguments.victim, "phases": phases,
        });
        report.write(path, &about)?;
    }
    Ok(if report.holds() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
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
             workers.restart_pause_max_ms = 10\n",
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
    let mut stage = Stage::set(&workspace.sluice(true), interrupt, settings)?;
    let mut phases = Vec::new();
    for round in 0..arguments.rounds {
        // Another one begins each time.
        for disturbed in [round % 2 == 1, round % 2 == 0] {
            let mut line = progress::Progress::new(format!("round {}", round + 1));
            line.tick(if disturbed {
                "with kills"
            } else {
                "undisturbed"
            });
            let phase = play(&stage, arguments, cpus, disturbed)?;
            line.clear();
            report.note(&format!(
                "round {}, {:<11}: {:6.2} Gbit/s, {:4} of {} segments sent again ({} had arrived), longest gap {} ms, {} kills{}",
                round + 1,
                if disturbed { "with kills" } else { "undisturbed" },
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
    let (_, left) = stage.stop()?;
    report.add(
        "A clean stop leaves nothing behind",
        left.is_empty(),
        if left.is_empty() {
            "nothing left".to_owned()
        } else {
            left.join("; ")
        },
        json!({ "left": left }),
    );
    stage.discard_directory();
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
        kill_for(stage, arguments, length)?
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

/// Kills every `kill_ms` for so long; how many had somebody to kill.
fn kill_for(stage: &Stage, arguments: &EnduranceArgs, length: Duration) -> Result<u64> {
    let interval = Duration::from_millis(arguments.kill_ms.max(1));
    let began = Instant::now();
    let mut killed = BTreeSet::new();
    let mut queued = stage.queued()?;
    let mut turn = 0;
    while began.elapsed() < length {
        let now = stage.queued()?;
        let through: Vec<(u16, u32)> = now
            .iter()
            .filter_map(|(queue, last)| {
                let (_, before) = queued.iter().find(|(other, _)| other == queue)?;
                Some((*queue, last.wrapping_sub(*before)))
            })
            .collect();
        queued = now;
        // A supervisor that is busy with a death may answer late.
        if let Ok(status) = stage.glance() {
            let alive = |seat: &&Seat| seat.state == "up" && !killed.contains(&seat.pid);
            let victim = match arguments.victim {
                Victim::Worker => next(&status, turn, alive),
                Victim::Busiest => busiest(&status, &through).filter(alive),
            };
            if let Some(pid) = victim.map(|seat| seat.pid) {
                processes::signal(pid, Signal::SIGKILL)?;
                killed.insert(pid);
            }
        }
        turn += 1;
        let due = began + interval * u32::try_from(turn)?;
        stage
            .interrupt
            .pause(due.saturating_duration_since(Instant::now()))?;
    }
    Ok(killed.len() as u64)
}

/// The worker whose turn it is, or the next one that works.
fn next(status: &Status, turn: usize, alive: impl Fn(&&Seat) -> bool) -> Option<&Seat> {
    let workers = &status.workers;
    (0..workers.len())
        .map(|step| &workers[(turn + step) % workers.len()])
        .find(alive)
}

fn busiest<'a>(status: &'a Status, through: &[(u16, u32)]) -> Option<&'a Seat> {
    let (queue, _) = through.iter().max_by_key(|(_, packets)| *packets)?;
    status.seat_of(*queue)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn status(states: [&str; 3]) -> Status {
        let seat = |number: u16, state: &str| {
            json!({
                "seat": format!("worker {number}"), "pid": 10 + number, "state": state,
                "queue": 101 + number, "restarts": 0, "trips": 0,
                "received": 0, "accepted": 0, "dropped": 0,
                "kernel": {"waiting": 0, "queue_dropped": 0, "user_dropped": 0},
            })
        };
        let workers: Vec<_> = (0..)
            .zip(states)
            .map(|(number, state)| seat(number, state))
            .collect();
        serde_json::from_value(json!({
            "netfilter": "nft", "interfaces": {}, "rules": 0, "counters": {},
            "workers": workers, "backup": seat(9, "up"),
        }))
        .expect("a status")
    }

    #[test]
    fn workers_are_killed_in_turn_and_those_that_are_down_are_passed_over() {
        let up = |seat: &&Seat| seat.state == "up";
        let pid = |states, turn| next(&status(states), turn, up).map(|seat| seat.pid);
        assert_eq!(pid(["up", "up", "up"], 4), Some(11));
        assert_eq!(pid(["up", "down", "up"], 4), Some(12));
        assert_eq!(pid(["up", "down", "down"], 4), Some(10));
        assert_eq!(pid(["down"; 3], 4), None);
    }

    #[test]
    fn the_busiest_seat_is_the_one_whose_queue_got_the_most() {
        let status = status(["up"; 3]);
        let busiest = busiest(&status, &[(101, 5), (110, 9), (102, 7)]);
        assert_eq!(busiest.map(|seat| seat.queue), Some(110));
    }
}
