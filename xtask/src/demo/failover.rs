//! A worker is killed, another one hangs, both under load.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use sluice_tests::Side;

use super::STALE;
use super::dip::Dip;
use super::load::{AFTER, BEFORE, Datagrams, Stream};
use crate::stage::Stage;
use crate::stage::report::Report;
use crate::stage::status::{Seat, Status};

/// Throughput has to be back after this.
const RECOVERY: Duration = Duration::from_millis(100);
/// What the machine may add to that when it is busy.
const SLACK: Duration = Duration::from_millis(100);
/// Kills during one stream, and the time from one to the next.
const KILLS: u32 = 3;
const KILL_INTERVAL: Duration = Duration::from_millis(1_200);
/// How long queues are watched to see where a stream is.
const SAMPLE: Duration = Duration::from_millis(100);
/// How long a TCP sender may take to try again after the hung worker is known.
const TCP_PATIENCE: Duration = Duration::from_millis(700);
/// Streams tried until one is at a worker.
const STREAMS: usize = 4;
/// How long a stream goes on after its worker was stopped.
const HANG: Duration = Duration::from_millis(1_500);

/// Plays the act.
pub(super) fn play(stage: &Stage, report: &mut Report) -> Result<()> {
    for (family, address) in stage.lab.families(Side::Server) {
        report.act(&format!(
            "a worker is killed (SIGKILL) under TCP load, {family}"
        ));
        stream_killed(stage, report, family, address)?;
    }
    // Apart from the TCP load, which fills the receive rings of the virtual interfaces: what is
    // lost there never reaches Sluice, and would be mistaken for its loss.
    report.act("a worker is killed under UDP load");
    datagrams_killed(stage, report)?;
    report.act("a worker hangs (SIGSTOP) under TCP load");
    stream_hung(stage, report)?;
    report.act("a worker hangs under UDP load");
    datagrams_hung(stage, report)
}

fn stream_killed(stage: &Stage, report: &mut Report, family: &str, address: IpAddr) -> Result<()> {
    stage.await_all_up()?;
    let (load, mut victim) = stream_at_worker(stage, address, KILL_INTERVAL * KILLS)?;
    let mut kills = Vec::new();
    for kill in 0..KILLS {
        if kill > 0 {
            // Whoever serves it now: usually the backup, which keeps what it has adopted.
            victim = busiest(stage, |_| true)?;
        }
        let at = Instant::now();
        signal(report, &victim, Signal::SIGKILL)?;
        let since = at - load.sink.started();
        stage.interrupt.pause(KILL_INTERVAL - SAMPLE)?;
        let dip = Dip::find(&load.sink.timeline(), since, Duration::from_secs(1));
        kills.push((victim.clone(), successor(stage, &victim)?, dip));
    }
    let outcome = load.finish(stage)?;
    let replaced = kills.iter().all(|(_, successor, _)| successor.is_some());
    let replacements: Vec<String> = kills
        .iter()
        .map(|(victim, successor, _)| replacement(victim, successor.as_ref()))
        .collect();
    report.add(
        &format!("{family}: TCP survives {KILLS} kills of its worker"),
        outcome.intact() && replaced,
        format!(
            "{}, {} segments sent again; {}",
            outcome.shown(),
            outcome.retransmitted,
            replacements.join(", "),
        ),
        json!({
            "kills": kills.iter().map(|(victim, successor, _)| json!({
                "seat": victim.name, "pid": victim.pid,
                "successor_pid": successor.as_ref().map(|seat| seat.pid),
                "restarts": successor.as_ref().map(|seat| seat.restarts),
            })).collect::<Vec<_>>(),
            "tcp": outcome.data(),
        }),
    );
    let mut dips: Vec<Duration> = kills.iter().map(|(_, _, dip)| dip.longest).collect();
    let shown: Vec<String> = dips.iter().map(|dip| dip.as_millis().to_string()).collect();
    dips.sort_unstable();
    let median = dips[dips.len() / 2];
    let usual = kills.iter().map(|(_, _, dip)| dip.usual_longest).max();
    report.add(
        &format!(
            "{family}: throughput is back within {} ms of a kill",
            RECOVERY.as_millis()
        ),
        median <= RECOVERY,
        format!(
            "below half of the usual for {} ms, median {} ms (without a kill: up to {} ms), in steps of 10 ms",
            shown.join(", "),
            median.as_millis(),
            usual.unwrap_or_default().as_millis()
        ),
        json!({
            "median_below_half_ms": median.as_millis(),
            "kills": kills.iter().map(|(_, _, dip)| dip.data()).collect::<Vec<_>>(),
        }),
    );
    Ok(())
}

fn datagrams_killed(stage: &Stage, report: &mut Report) -> Result<()> {
    stage.await_all_up()?;
    let load = Datagrams::start(stage)?;
    stage.interrupt.pause(BEFORE)?;
    let victim = busiest(stage, |seat| !seat.is_backup())?;
    signal(report, &victim, Signal::SIGKILL)?;
    stage.interrupt.pause(AFTER)?;
    let got = load.finish(stage)?;
    let successor = successor(stage, &victim)?;
    report.add(
        "No UDP packet is lost by the kill of a worker",
        got.intact() && successor.is_some(),
        format!(
            "{}; {}",
            got.shown(),
            replacement(&victim, successor.as_ref())
        ),
        json!({
            "worker": victim.name, "pid": victim.pid,
            "successor_pid": successor.as_ref().map(|seat| seat.pid),
            "udp": got.data(),
        }),
    );
    Ok(())
}

fn stream_hung(stage: &Stage, report: &mut Report) -> Result<()> {
    stage.await_all_up()?;
    let (load, victim) = stream_at_worker(stage, stage.lab.server_v4().into(), HANG)?;
    let at = Instant::now();
    signal(report, &victim, Signal::SIGSTOP)?;
    // What was on its way to the server when the worker stopped has arrived after this.
    stage.interrupt.pause(STALE / 2)?;
    let before = load.sink.received();
    let moving = await_moment(stage, at, || Ok(load.sink.received() > before))?;
    let successor = successor(stage, &victim)?;
    stage.interrupt.pause(HANG.saturating_sub(at.elapsed()))?;
    let outcome = load.finish(stage)?;
    // A window of segments waits at the hung worker and is inspected by its replacement. What it
    // had in hand may be dropped by policy: the sender tries again after 200 ms (`TCP_RTO_MIN`).
    let in_time = moving.is_some_and(|moving| moving <= STALE + TCP_PATIENCE);
    report.add(
        "TCP survives the hang of its worker",
        outcome.intact() && in_time && successor.is_some(),
        format!(
            "moving again {}, {}; {}",
            milliseconds(moving),
            replacement(&victim, successor.as_ref()),
            outcome.shown()
        ),
        json!({
            "worker": victim.name, "pid": victim.pid,
            "successor_pid": successor.as_ref().map(|seat| seat.pid),
            "moving_again_ms": moving.map(|moving| moving.as_millis()),
            "tcp": outcome.data(),
        }),
    );
    Ok(())
}

fn datagrams_hung(stage: &Stage, report: &mut Report) -> Result<()> {
    let before = stage.await_all_up()?;
    let load = Datagrams::start(stage)?;
    stage.interrupt.pause(BEFORE)?;
    let victim = busiest(stage, |seat| !seat.is_backup())?;
    signal(report, &victim, Signal::SIGSTOP)?;
    stage.interrupt.pause(AFTER)?;
    let got = load.finish(stage)?;
    let successor = successor(stage, &victim)?;
    let after = stage.await_all_up()?;
    let reason = successor.as_ref().and_then(|seat| seat.last_exit.clone());
    report.add(
        &format!(
            "A hung worker is replaced after {} ms, and nothing waits longer",
            STALE.as_millis()
        ),
        got.slowest() <= STALE + SLACK && after.hangs() > before.hangs(),
        format!(
            "{} ({}); slowest reply {} ms, {} flows adopted by the backup meanwhile",
            replacement(&victim, successor.as_ref()),
            reason.as_deref().unwrap_or("it did not end"),
            got.slowest().as_millis(),
            after.counter("adoptions") - before.counter("adoptions"),
        ),
        json!({
            "worker": victim.name, "pid": victim.pid, "stale_ms": STALE.as_millis(),
            "successor_pid": successor.as_ref().map(|seat| seat.pid),
            "reason": reason,
            "slowest_reply_ms": got.slowest().as_millis(),
            "adoptions": after.counter("adoptions") - before.counter("adoptions"),
        }),
    );
    report.add(
        "No UDP packet is lost by the hang of a worker",
        got.intact(),
        got.shown(),
        got.data(),
    );
    Ok(())
}

fn milliseconds(moment: Option<Duration>) -> String {
    moment.map_or_else(
        || "never".to_owned(),
        |moment| format!("after {} ms", moment.as_millis()),
    )
}

fn successor(stage: &Stage, victim: &Seat) -> Result<Option<Seat>> {
    let replaced = stage.await_status(Duration::from_secs(5), |status| {
        seat(status, victim).is_some_and(|seat| seat.state == "up" && seat.pid != victim.pid)
    })?;
    Ok(replaced
        .as_ref()
        .and_then(|status| seat(status, victim))
        .cloned())
}

fn replacement(victim: &Seat, successor: Option<&Seat>) -> String {
    format!(
        "{} pid {} → {}",
        victim.name,
        victim.pid,
        successor.map_or_else(|| "not replaced".to_owned(), |seat| seat.pid.to_string())
    )
}

/// Time from `since` until `reached` says yes, if it does so within two seconds.
fn await_moment(
    stage: &Stage,
    since: Instant,
    reached: impl Fn() -> Result<bool>,
) -> Result<Option<Duration>> {
    while since.elapsed() < Duration::from_secs(2) {
        if reached()? {
            return Ok(Some(since.elapsed()));
        }
        stage.interrupt.pause(Duration::from_millis(1))?;
    }
    Ok(None)
}

/// A loaded TCP stream and the worker it is at. On a busy machine a worker's heartbeat may come
/// late, and the stream is then at the backup: another one is taken.
fn stream_at_worker(stage: &Stage, address: IpAddr, then: Duration) -> Result<(Stream, Seat)> {
    for _ in 0..STREAMS {
        let load = Stream::start(stage, address, then)?;
        stage.interrupt.pause(BEFORE)?;
        let seat = busiest(stage, |_| true)?;
        if !seat.is_backup() {
            return Ok((load, seat));
        }
        load.finish(stage)?;
        stage.interrupt.pause(Duration::from_secs(1))?;
        stage.await_all_up()?;
    }
    bail!("{STREAMS} streams were taken over by the backup before any failure was made");
}

/// The one of the wanted seats whose queue gets the most packets now.
fn busiest(stage: &Stage, wanted: impl Fn(&Seat) -> bool) -> Result<Seat> {
    let status = stage.status()?;
    let before = stage.queued()?;
    stage.interrupt.pause(SAMPLE)?;
    let after = stage.queued()?;
    after
        .iter()
        .zip(&before)
        .filter_map(|((queue, after), (_, before))| {
            let seat = status.seat_of(*queue)?;
            Some((after.wrapping_sub(*before), seat))
        })
        .filter(|(_, seat)| wanted(seat))
        .max_by_key(|(packets, _)| *packets)
        .map(|(_, seat)| seat.clone())
        .context("no seat has a queue")
}

fn seat<'a>(status: &'a Status, like: &Seat) -> Option<&'a Seat> {
    status.seats().find(|seat| seat.name == like.name)
}

fn signal(report: &Report, seat: &Seat, signal: Signal) -> Result<()> {
    report.note(&format!("{signal} to {}, pid {}", seat.name, seat.pid));
    let pid = Pid::from_raw(i32::try_from(seat.pid)?);
    kill(pid, signal).with_context(|| format!("{signal} to worker process {pid}"))
}
