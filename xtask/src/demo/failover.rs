//! A worker is killed, another one hangs, both under load.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use sluice_tests::{Side, queue_state};

use super::benign::families;
use super::dip::Dip;
use super::load::{AFTER, BEFORE, Datagrams, Stream};
use super::report::Report;
use super::stage::{STALE, Stage, WORKERS};
use super::status::{Seat, Status};

/// Throughput has to be back after this.
const RECOVERY: Duration = Duration::from_millis(100);
/// The kernel notices a stale heartbeat with the next packet; the machine may be busy.
const SLACK: Duration = Duration::from_millis(100);
/// Streams tried until one is at a worker.
const STREAMS: usize = 4;
/// How long a worker hangs.
const HANG: Duration = Duration::from_millis(1_500);

/// Plays the act.
pub(super) fn play(stage: &Stage, report: &mut Report) -> Result<()> {
    for (family, address) in families(&stage.lab, Side::Server) {
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
    await_all_up(stage)?;
    let (load, victim) = stream_at_worker(stage, address)?;
    let at = Instant::now();
    signal(report, &victim, Signal::SIGKILL)?;
    stage.interrupt.pause(AFTER)?;
    let since = at - load.sink.started();
    let dip = Dip::find(&load.sink.timeline(), since, Duration::from_secs(1));
    let outcome = load.finish(stage)?;
    let successor = successor(stage, &victim)?;
    report.add(
        &format!("{family}: TCP survives the kill of its worker"),
        outcome.intact() && successor.is_some(),
        format!(
            "{}, {} segments sent again; {}",
            outcome.shown(),
            outcome.retransmitted,
            replacement(&victim, successor.as_ref()),
        ),
        json!({
            "worker": victim.index, "pid": victim.pid,
            "successor_pid": successor.as_ref().map(|seat| seat.pid),
            "restarts": successor.as_ref().map(|seat| seat.restarts),
            "tcp": outcome.data(),
        }),
    );
    report.add(
        &format!(
            "{family}: throughput is back within {} ms of the kill",
            RECOVERY.as_millis()
        ),
        dip.longest <= RECOVERY,
        format!(
            "below half of the usual for {} ms (before the kill: {} ms), in steps of 10 ms",
            dip.longest.as_millis(),
            dip.usual_longest.as_millis()
        ),
        dip.data(),
    );
    Ok(())
}

fn datagrams_killed(stage: &Stage, report: &mut Report) -> Result<()> {
    await_all_up(stage)?;
    let load = Datagrams::start(stage)?;
    stage.interrupt.pause(BEFORE)?;
    let victim = busiest(stage, WORKERS)?;
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
            "worker": victim.index, "pid": victim.pid,
            "successor_pid": successor.as_ref().map(|seat| seat.pid),
            "udp": got.data(),
        }),
    );
    Ok(())
}

fn stream_hung(stage: &Stage, report: &mut Report) -> Result<()> {
    let before = await_all_up(stage)?;
    let (load, victim) = stream_at_worker(stage, stage.lab.server_v4().into())?;
    let hang = Hang::begin(stage, report, &before, victim)?;
    // What was on its way to the server when the worker stopped has arrived by now.
    let before_backup = load.sink.received();
    let moving = await_moment(stage, hang.at, || Ok(load.sink.received() > before_backup))?;
    let hang = hang.end(stage, report)?;
    let outcome = load.finish(stage)?;
    hang.add("TCP", &before, report);
    report.add(
        "TCP survives the hang of its worker",
        outcome.intact() && moving.is_some(),
        format!("moving again {}; {}", milliseconds(moving), outcome.shown()),
        json!({
            "moving_again_ms": moving.map(|moving| moving.as_millis()),
            "tcp": outcome.data(),
        }),
    );
    await_all_up(stage).map(drop)
}

fn datagrams_hung(stage: &Stage, report: &mut Report) -> Result<()> {
    let before = await_all_up(stage)?;
    let load = Datagrams::start(stage)?;
    stage.interrupt.pause(BEFORE)?;
    let victim = busiest(stage, WORKERS)?;
    let hang = Hang::begin(stage, report, &before, victim)?.end(stage, report)?;
    let got = load.finish(stage)?;
    hang.add("UDP", &before, report);
    report.add(
        "No UDP packet is lost by the hang of a worker",
        got.intact(),
        format!("{} (it waited at the hung worker)", got.shown()),
        got.data(),
    );
    await_all_up(stage).map(drop)
}

/// A worker that has been stopped.
struct Hang {
    victim: Seat,
    at: Instant,
    /// When the first packet was given to the backup instead.
    first: Option<Duration>,
}

/// The same after it was continued.
struct Hung {
    hang: Hang,
    during: Status,
}

impl Hang {
    fn begin(stage: &Stage, report: &Report, before: &Status, victim: Seat) -> Result<Self> {
        let backup = before.backup.queue;
        let queued = queued_at(stage, backup)?;
        let at = Instant::now();
        signal(report, &victim, Signal::SIGSTOP)?;
        let first = await_moment(stage, at, || Ok(queued_at(stage, backup)? != queued))?;
        Ok(Self { victim, at, first })
    }

    fn end(self, stage: &Stage, report: &Report) -> Result<Hung> {
        stage
            .interrupt
            .pause(HANG.saturating_sub(self.at.elapsed()))?;
        let during = stage.status()?;
        // It may have been replaced meanwhile; only the process that was stopped is continued.
        if during.seats().any(|seat| seat.pid == self.victim.pid) {
            signal(report, &self.victim, Signal::SIGCONT)?;
        } else {
            report.note(&format!(
                "{} has been replaced meanwhile",
                self.victim.name(WORKERS)
            ));
        }
        Ok(Hung { hang: self, during })
    }
}

impl Hung {
    fn add(&self, transport: &str, before: &Status, report: &mut Report) {
        let Hang { victim, first, .. } = &self.hang;
        let adoptions = self.during.counter("adoptions") - before.counter("adoptions");
        let served = self.during.backup.received - before.backup.received;
        report.add(
            &format!(
                "{transport}: a hung worker is bypassed after {} ms",
                STALE.as_millis()
            ),
            first.is_some_and(|first| first <= STALE + SLACK) && adoptions > 0 && served > 0,
            format!(
                "first packet at the backup {}, {adoptions} flows adopted, {served} packets served by it",
                milliseconds(*first)
            ),
            json!({
                "worker": victim.index, "pid": victim.pid, "stale_ms": STALE.as_millis(),
                "first_at_backup_ms": first.map(|first| first.as_millis()),
                "adoptions": adoptions, "served_by_backup": served,
            }),
        );
    }
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
        victim.name(WORKERS),
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

fn await_all_up(stage: &Stage) -> Result<Status> {
    stage
        .await_status(Duration::from_secs(10), Status::all_up)?
        .context("not every worker is up")
}

/// A loaded TCP stream and the worker it is at. On a busy machine a worker's heartbeat may come
/// late, and the stream is then at the backup: another one is taken.
fn stream_at_worker(stage: &Stage, address: IpAddr) -> Result<(Stream, Seat)> {
    for _ in 0..STREAMS {
        let load = Stream::start(stage, address)?;
        stage.interrupt.pause(BEFORE)?;
        let seat = busiest(stage, WORKERS + 1)?;
        if (seat.index as usize) < WORKERS {
            return Ok((load, seat));
        }
        load.finish(stage)?;
        stage.interrupt.pause(Duration::from_secs(1))?;
        await_all_up(stage)?;
    }
    bail!("{STREAMS} streams were taken over by the backup before any failure was made");
}

/// The one of the first `seats` seats whose queue gets the most packets now.
fn busiest(stage: &Stage, seats: usize) -> Result<Seat> {
    let status = stage.status()?;
    let before = stage.queued()?;
    stage.interrupt.pause(Duration::from_millis(100))?;
    let after = stage.queued()?;
    after
        .iter()
        .zip(&before)
        .filter_map(|((queue, after), (_, before))| {
            let seat = status.seat_of(*queue)?;
            Some((after.wrapping_sub(*before), seat))
        })
        .filter(|(_, seat)| (seat.index as usize) < seats)
        .max_by_key(|(packets, _)| *packets)
        .map(|(_, seat)| seat.clone())
        .context("no seat has a queue")
}

fn seat<'a>(status: &'a Status, like: &Seat) -> Option<&'a Seat> {
    status.seats().find(|seat| seat.index == like.index)
}

fn signal(report: &Report, seat: &Seat, signal: Signal) -> Result<()> {
    report.note(&format!(
        "{signal} to {}, pid {}",
        seat.name(WORKERS),
        seat.pid
    ));
    let pid = Pid::from_raw(i32::try_from(seat.pid)?);
    kill(pid, signal).with_context(|| format!("{signal} to worker process {pid}"))
}

fn queued_at(stage: &Stage, queue: u16) -> Result<u32> {
    Ok(queue_state::of(stage.lab.gateway(), queue)?
        .with_context(|| format!("nobody has bound queue {queue}"))?
        .last_id)
}
