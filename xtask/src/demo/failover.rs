//! A worker is killed, another one hangs, both under load.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use sluice_tests::datagram::{Replier, RequestPlan, RequestReport, Requester};
use sluice_tests::stream::{Extent, Sender, SenderReport, Sink};
use sluice_tests::{Side, queue_state};

use super::benign::{families, gigabits, retransmissions};
use super::dip::Dip;
use super::report::Report;
use super::stage::{STALE, Stage, WORKERS};
use super::status::{Seat, Status};

/// Load before the failure: what is usual is measured here.
const BEFORE: Duration = Duration::from_millis(1_500);
/// Load after it.
const AFTER: Duration = Duration::from_millis(2_500);
/// Throughput has to be back after this.
const RECOVERY: Duration = Duration::from_millis(100);
/// The kernel notices a stale heartbeat with the next packet; the machine may be busy.
const SLACK: Duration = Duration::from_millis(100);
/// Time between two UDP requests.
const REQUEST_INTERVAL: Duration = Duration::from_millis(2);

/// Plays the act.
pub(super) fn play(stage: &Stage, report: &mut Report) -> Result<()> {
    for (family, address) in families(&stage.lab, Side::Server) {
        report.act(&format!(
            "a worker is killed (SIGKILL) under TCP and UDP load, {family}"
        ));
        killed(stage, report, family, address)?;
    }
    report.act("a worker hangs (SIGSTOP) under TCP and UDP load");
    hung(stage, report)
}

/// TCP and UDP load, and the seat that the TCP connection is at.
struct Load {
    sink: Sink,
    sender: Option<Sender>,
    requester: Option<Requester>,
    _replier: Replier,
    retransmitted: u64,
}

/// What came of a load.
struct Outcome {
    sent: SenderReport,
    received: u64,
    faults: Vec<String>,
    requests: RequestReport,
    retransmitted: u64,
}

impl Load {
    fn start(stage: &Stage, address: std::net::IpAddr) -> Result<Self> {
        let lab = &stage.lab;
        let sink = Sink::start(lab.server(), address, 0)?;
        let replier = Replier::start(lab.server(), address, 0)?;
        let retransmitted = retransmissions(lab.client())?;
        let time = BEFORE + AFTER;
        let requests = time.as_millis() / REQUEST_INTERVAL.as_millis();
        let plan = RequestPlan {
            flows: 16,
            requests: u64::try_from(requests)?,
            interval: REQUEST_INTERVAL,
            patience: Duration::from_secs(3),
            ..RequestPlan::to(replier.address())
        };
        Ok(Self {
            sender: Some(Sender::start(
                lab.client(),
                sink.address(),
                Extent::Time(time),
            )),
            requester: Some(Requester::start(lab.client(), plan)),
            sink,
            _replier: replier,
            retransmitted,
        })
    }

    fn finish(mut self, stage: &Stage) -> Result<Outcome> {
        let sent = self.sender.take().context("a load ends once")?.finish();
        let requests = self
            .requester
            .take()
            .context("a load ends once")?
            .finish()?;
        Ok(Outcome {
            sent,
            received: self.sink.received(),
            faults: self.sink.faults(),
            requests,
            retransmitted: retransmissions(stage.lab.client())? - self.retransmitted,
        })
    }
}

impl Outcome {
    fn intact(&self) -> bool {
        self.sent.error.is_none() && self.faults.is_empty() && self.received == self.sent.sent
    }

    fn stream(&self) -> String {
        let wrong = self.faults.len() + usize::from(self.sent.error.is_some());
        format!(
            "{} MiB at {:.1} Gbit/s, lost = {}, wrong = {wrong}",
            self.received >> 20,
            gigabits(self.received, self.sent.elapsed),
            self.sent.sent.saturating_sub(self.received)
        )
    }

    fn data(&self) -> serde_json::Value {
        json!({
            "tcp": {
                "sent": self.sent.sent, "received_and_compared": self.received,
                "error": self.sent.error, "faults": self.faults,
                "segments_sent_again": self.retransmitted,
            },
            "udp": self.requests,
        })
    }
}

fn killed(
    stage: &Stage,
    report: &mut Report,
    family: &str,
    address: std::net::IpAddr,
) -> Result<()> {
    await_all_up(stage)?;
    let load = Load::start(stage, address)?;
    stage.interrupt.pause(BEFORE)?;
    let victim = busiest(stage)?;
    let name = victim.name(WORKERS);
    let at = Instant::now();
    signal(&victim, Signal::SIGKILL)?;
    report.note(&format!("SIGKILL to {name}, pid {}", victim.pid));
    stage.interrupt.pause(AFTER)?;
    let since = at - load.sink.started();
    let dip = Dip::find(&load.sink.timeline(), since, Duration::from_secs(1));
    let outcome = load.finish(stage)?;
    let replaced = stage.await_status(Duration::from_secs(5), |status| {
        seat(status, &victim).is_some_and(|seat| seat.state == "up" && seat.pid != victim.pid)
    })?;
    let successor = replaced.as_ref().and_then(|status| seat(status, &victim));
    report.add(
        &format!("{family}: TCP survives the kill of its worker"),
        outcome.intact() && successor.is_some(),
        format!(
            "{}; {name} pid {} → {}; {} segments sent again",
            outcome.stream(),
            victim.pid,
            successor.map_or_else(|| "not replaced".to_owned(), |seat| seat.pid.to_string()),
            outcome.retransmitted
        ),
        json!({
            "worker": victim.index, "pid": victim.pid,
            "successor_pid": successor.map(|seat| seat.pid),
            "restarts": successor.map(|seat| seat.restarts),
            "traffic": outcome.data(),
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
    let udp = &outcome.requests;
    report.add(
        &format!("{family}: no UDP packet is lost by the kill"),
        udp.lost == 0 && udp.corrupt == 0 && udp.answered == udp.sent,
        format!(
            "{} of {} answered over 16 flows, lost = {}, slowest {} ms",
            udp.answered,
            udp.sent,
            udp.lost,
            udp.slowest.as_millis()
        ),
        json!(udp),
    );
    Ok(())
}

fn hung(stage: &Stage, report: &mut Report) -> Result<()> {
    let before = await_all_up(stage)?;
    let load = Load::start(stage, stage.lab.server_v4().into())?;
    stage.interrupt.pause(BEFORE)?;
    let victim = busiest(stage)?;
    let name = victim.name(WORKERS);
    let backup = before.backup.queue;
    let backup_before = queued_at(stage, backup)?;
    let received_before = load.sink.received();
    let at = Instant::now();
    signal(&victim, Signal::SIGSTOP)?;
    report.note(&format!("SIGSTOP to {name}, pid {}", victim.pid));
    let first = await_moment(stage, at, || Ok(queued_at(stage, backup)? != backup_before))?;
    // What was on its way to the server when the worker stopped still arrives.
    let after_stop = load.sink.received().max(received_before);
    let moving = await_moment(stage, at, || Ok(load.sink.received() > after_stop))?;
    stage.interrupt.pause(AFTER.saturating_sub(at.elapsed()))?;
    let during = stage.status()?;
    // It may have been replaced meanwhile; only the process that was stopped is continued.
    if during.seats().any(|seat| seat.pid == victim.pid) {
        signal(&victim, Signal::SIGCONT)?;
        report.note(&format!("SIGCONT to {name}"));
    } else {
        report.note(&format!("{name} has been replaced meanwhile"));
    }
    let outcome = load.finish(stage)?;
    let adoptions = during.counter("adoptions") - before.counter("adoptions");
    let by_backup = during.backup.received - before.backup.received;
    let in_time = first.is_some_and(|first| first <= STALE + SLACK);
    let milliseconds = |moment: Option<Duration>| {
        moment.map_or_else(
            || "never".to_owned(),
            |moment| format!("after {} ms", moment.as_millis()),
        )
    };
    report.add(
        &format!("A hung worker is bypassed after {} ms", STALE.as_millis()),
        in_time && adoptions > 0 && by_backup > 0,
        format!(
            "first packet at the backup {}, {adoptions} flows adopted, {by_backup} packets served by it",
            milliseconds(first)
        ),
        json!({
            "worker": victim.index, "pid": victim.pid, "stale_ms": STALE.as_millis(),
            "first_at_backup_ms": first.map(|first| first.as_millis()),
            "adoptions": adoptions, "served_by_backup": by_backup,
        }),
    );
    report.add(
        "TCP survives the hang of its worker",
        outcome.intact() && moving.is_some(),
        format!(
            "moving again {}; {}",
            milliseconds(moving),
            outcome.stream()
        ),
        json!({
            "moving_again_ms": moving.map(|moving| moving.as_millis()),
            "traffic": outcome.data(),
        }),
    );
    let udp = &outcome.requests;
    report.add(
        "No UDP packet is lost by the hang",
        udp.lost == 0 && udp.corrupt == 0 && udp.answered == udp.sent,
        format!(
            "{} of {} answered over 16 flows, lost = {}, slowest {} ms (those that waited at the hung worker)",
            udp.answered,
            udp.sent,
            udp.lost,
            udp.slowest.as_millis()
        ),
        json!(udp),
    );
    await_all_up(stage).map(drop)
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

/// The seat whose queue gets the most packets now: where the loaded connection is.
fn busiest(stage: &Stage) -> Result<Seat> {
    let before = stage.queued()?;
    stage.interrupt.pause(Duration::from_millis(100))?;
    let after = stage.queued()?;
    let (queue, _) = after
        .iter()
        .zip(&before)
        .map(|((queue, after), (_, before))| (*queue, after.wrapping_sub(*before)))
        .max_by_key(|(_, packets)| *packets)
        .context("there are no queues")?;
    let status = stage.status()?;
    status
        .seat_of(queue)
        .cloned()
        .with_context(|| format!("nobody sits at queue {queue}"))
}

fn seat<'a>(status: &'a Status, like: &Seat) -> Option<&'a Seat> {
    status.seats().find(|seat| seat.index == like.index)
}

fn signal(seat: &Seat, signal: Signal) -> Result<()> {
    let pid = Pid::from_raw(i32::try_from(seat.pid)?);
    kill(pid, signal).with_context(|| format!("{signal} to worker process {pid}"))
}

fn queued_at(stage: &Stage, queue: u16) -> Result<u32> {
    Ok(queue_state::of(stage.lab.gateway(), queue)?
        .with_context(|| format!("nobody has bound queue {queue}"))?
        .last_id)
}
