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
use super::stage::{STALE, Stage};
use super::status::{Seat, Status};

/// Throughput has to be back after this.
const RECOVERY: Duration = Duration::from_millis(100);
/// The kernel notices a stale heartbeat with the next packet; the machine may be busy.
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
    let before = stage.await_all_up()?;
    let (load, victim) = stream_at_worker(stage, stage.lab.server_v4().into(), HANG)?;
    let hang = Hang::begin(stage, report, &before, victim)?;
    // What was on its way to the server when the worker stopped has arrived by now.
    let before_backup = load.sink.received();
    let moving = await_moment(stage, hang.at, || Ok(load.sink.received() > before_backup))?;
    let hung = hang.end(stage, report)?;
    let outcome = load.finish(stage)?;
    let (adoptions, served) = hung.by_backup(&before);
    // A window of segments waits at the hung worker. The sender tries again after 200 ms
    // (`TCP_RTO_MIN`), when the heartbeat may just not be stale yet, then after twice that.
    let in_time = moving.is_some_and(|moving| moving <= STALE + TCP_PATIENCE);
    report.add(
        "TCP survives the hang of its worker",
        outcome.intact() && in_time && adoptions > 0 && served > 0,
        format!(
            "moving again {}, {served} packets served by the backup; {}",
            milliseconds(moving),
            outcome.shown()
        ),
        json!({
            "worker": hung.hang.victim.name, "pid": hung.hang.victim.pid,
            "first_at_backup_ms": hung.hang.first.map(|first| first.as_millis()),
            "moving_again_ms": moving.map(|moving| moving.as_millis()),
            "adoptions": adoptions, "served_by_backup": served,
            "tcp": outcome.data(),
        }),
    );
    stage.await_all_up().map(drop)
}

fn datagrams_hung(stage: &Stage, report: &mut Report) -> Result<()> {
    let before = stage.await_all_up()?;
    let load = Datagrams::start(stage)?;
    stage.interrupt.pause(BEFORE)?;
    let victim = busiest(stage, |seat| !seat.is_backup())?;
    let hang = Hang::begin(stage, report, &before, victim)?.end(stage, report)?;
    let got = load.finish(stage)?;
    hang.add(&before, report);
    report.add(
        "No UDP packet is lost by the hang of a worker",
        got.intact(),
        format!("{} (it waited at the hung worker)", got.shown()),
        got.data(),
    );
    stage.await_all_up().map(drop)
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
            report.note(&format!("{} has been replaced meanwhile", self.victim.name));
        }
        Ok(Hung { hang: self, during })
    }
}

impl Hung {
    /// Flows adopted and packets served by the backup since `before`.
    fn by_backup(&self, before: &Status) -> (u64, u64) {
        (
            self.during.counter("adoptions") - before.counter("adoptions"),
            self.during.backup.received - before.backup.received,
        )
    }

    fn add(&self, before: &Status, report: &mut Report) {
        let Hang { victim, first, .. } = &self.hang;
        let (adoptions, served) = self.by_backup(before);
        report.add(
            &format!("A hung worker is bypassed after {} ms", STALE.as_millis()),
            first.is_some_and(|first| first <= STALE + SLACK) && adoptions > 0 && served > 0,
            format!(
                "first packet at the backup {}, {adoptions} flows adopted, {served} packets served by it",
                milliseconds(*first)
            ),
            json!({
                "worker": victim.name, "pid": victim.pid, "stale_ms": STALE.as_millis(),
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

fn queued_at(stage: &Stage, queue: u16) -> Result<u32> {
    Ok(queue_state::of(stage.lab.gateway(), queue)?
        .with_context(|| format!("nobody has bound queue {queue}"))?
        .last_id)
}
