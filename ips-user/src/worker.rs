//! The loop of a worker process: receive a batch, inspect, send verdicts, beat.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use ips_common::Received;
use nix::net::if_::{Interface, if_nameindex};

use crate::app::AppProtocol;
use crate::config::{Config, Transport};
use crate::desk::{Command, Desk};
use crate::detect::MappedEngine;
use crate::exception::Cause;
use crate::health::HEARTBEAT;
use crate::inspection::{Inspection, InspectionOptions, PacketTrace, Timestamp};
use crate::log::pipe::EventPipe;
use crate::maps::WorkerPages;
use crate::metrics::board::{Board, Cell, Row};
use crate::metrics::queue_truth::{QueueTruth, Reader};
use crate::netfilter::Fail;
use crate::rejecter::RejectSocket;
use crate::source::crate_nfq::CrateQueue;
use crate::source::nfqueue::NfQueue;
use crate::source::{
    Disposition, Inspector, Packet, PacketId, PacketQueue, QueueCounters, Verdict,
};
use crate::supervisor::feedback::{FeedbackSocket, Message};
use crate::supervisor::message::Equipment;
use crate::supervisor::seat::Seat;
use crate::supervisor::set_reports::SetReports;
use crate::sys::pages::Pages;
use crate::sys::process::{
    bind_to_cpu, keep_freed_memory, limit_memory, monotonic_ns, raise_oom_score, random_words,
    set_name, set_nice, set_oom_score, wall_us,
};
use crate::sys::sandbox::{Account, Support};

pub(crate) mod confinement;
mod guard;
pub mod handing_over;
pub mod held;
mod mail;
mod outlets;
mod sets;
pub(crate) mod settling;

pub use guard::Dangers;
use guard::FlowGuard;
use mail::Mail;
use outlets::{Convictions, Events, Rejects, StandardError};
use settling::{Gap, settle_leftovers};

/// A worker asked to stop leaves when its queue has been empty for this many heartbeats.
const IDLE_TURNS_BEFORE_LEAVING: u32 = 2;
/// What the kernel's OOM killer is told of workers: other programs go before them, and they
/// before the supervisor, which replaces them.
const OOM_SCORE_ADJUSTMENT: i32 = -500;
/// Without CAP_SYS_RESOURCE nobody's can be lowered, but workers can still be put before the
/// supervisor: by so much. Not by more, because then they go before other programs too: before
/// those that use less than this many thousandths of the memory there is.
const OOM_SCORE_RAISE: i32 = 100;

/// Freed memory that a worker keeps: some large windows of fast streams.
const FREED_MEMORY_KEPT: i32 = 16 << 20;

/// Keys written between two heartbeats while flows are listed.
const LISTED_BETWEEN_BEATS: u64 = 4096;

/// Heartbeats within a batch: a batch of long packets may take longer than a heartbeat may.
const BEAT_EVERY: u32 = 16;

/// What a worker shares with the supervisor and the other workers.
#[derive(Debug)]
pub struct Shared {
    /// Heartbeats.
    pub pages: WorkerPages,
    /// Counters.
    pub board: Board,
    /// Flows that workers died of.
    pub dangers: Dangers,
    /// To the event writer.
    pub events: EventPipe,
    /// To the supervisor.
    pub feedback: FeedbackSocket,
    /// What others have changed in sets: a [`crate::desk::journal`].
    pub sets: OwnedFd,
    /// Where to say what this worker's rules have changed.
    pub set_reports: SetReports,
    /// To the rejecter.
    pub rejects: RejectSocket,
    /// Whom workers become.
    pub account: Account,
    /// What the kernel has of their sandbox.
    pub support: Support,
    /// Whether packets and verdicts are printed.
    pub trace: bool,
    /// Offset of local time from UTC in seconds.
    pub utc_offset_s: i32,
}

/// What a worker begins with, until the supervisor sends it something else.
#[derive(Debug)]
pub struct Orders {
    /// The validated configuration.
    pub config: Config,
    /// The compiled rules.
    pub engine: MappedEngine,
}

/// Serves the queue of `seat` until `stop` is set and the queue is empty.
///
/// One that `succeeds` takes over from a worker that serves the queue still.
///
/// The queue's socket is bound and configured by the supervisor; there is none with the `nfq`
/// transport, which opens its own.
///
/// # Errors
/// When the queue cannot be opened or fails.
pub fn run(
    shared: &Shared,
    orders: Orders,
    seat: Seat,
    equipment: Equipment,
    succeeds: bool,
    stop: &AtomicBool,
) -> anyhow::Result<()> {
    let Orders { config, engine } = orders;
    let generation = engine.generation();
    let Equipment {
        desk,
        channel,
        socket,
    } = held::place(
        equipment,
        &shared.board,
        &shared.dangers.watchlist,
        shared.sets.as_fd(),
    )
    .context("placing the descriptors")?;
    let options = config.queue_options(config.queue_number(seat));
    keep_freed_memory(FREED_MEMORY_KEPT);
    set_name(&match seat {
        Seat::Worker(index) => format!("sluice-{index}"),
        Seat::Backup => "sluice-b".into(),
    });
    if let Err(error) = set_oom_score(OOM_SCORE_ADJUSTMENT) {
        // The supervisor has warned: what it may not, its workers may not either.
        log::debug!("{seat}: oom_score_adj {OOM_SCORE_ADJUSTMENT}: {error}");
        if let Err(error) = raise_oom_score(OOM_SCORE_RAISE) {
            log::warn!("{seat}: raising oom_score_adj by {OOM_SCORE_RAISE}: {error}");
        }
    }
    if succeeds {
        // Nobody waits for it.
        take_place(&config, seat)?;
    }
    if config.workers.memory_max > 0 {
        limit_memory(config.workers.memory_max)
            .with_context(|| format!("bounding the memory of {seat}"))?;
    }
    let mut queue: Box<dyn PacketQueue> = match (config.queue.transport, socket) {
        (Transport::Batched, Some(socket)) => {
            let buffers = Pages::shared_at_once(desk.buffers(), NfQueue::buffer_bytes(&options));
            let buffers = buffers.context("mapping the receive buffers")?;
            Box::new(NfQueue::with_buffers(socket, &options, buffers)?)
        }
        (Transport::Batched, None) => anyhow::bail!("{seat} was given no queue socket"),
        (Transport::Nfq, _) => Box::new(CrateQueue::open(&options)?),
    };
    let mut inspection = inspection(shared, &config, engine, seat)?;
    let mut sets = sets::journal(shared)?;
    inspection.share_sets();
    let mut queue_truth = Reader::open().ok();
    // Packets wait for its start: it went before the other workers, and wherever there was room.
    if !succeeds {
        take_place(&config, seat)?;
    }
    // Everything is open and mapped. What comes now an attacker wrote, or a worker that one may
    // have taken over.
    let sandbox = &config.sandbox;
    confinement::sandbox(shared.account, sandbox.landlock, sandbox.seccomp)
        .enter(shared.support)
        .context("entering the sandbox")?;
    sets::catch_up(&mut sets, &mut inspection, || {})?;
    if succeeds
        && let After::Leave = take_over(shared, &config, seat, &desk, &mut inspection, stop)?
    {
        return Ok(());
    }
    let row = shared.board.row(seat);
    settle_leftovers(shared, &config, seat, row, queue.as_mut())?;

    let mail = Mail::new(channel, generation, sets);
    let mut turn = Turn::new(shared, config, seat, row, &desk, mail, inspection);
    let truth = queue_truth.as_mut().and_then(|it| it.of(options.number));
    turn.expect_gap(truth);
    turn.buffers_at = queue.buffers_at();
    shared.pages.set_pid(seat.slot(), std::process::id());
    shared.pages.stamp(seat.slot(), monotonic_ns());
    announce(shared, seat)?;
    let mut idle_turns = 0;
    while !(stop.load(Ordering::Relaxed) && idle_turns >= IDLE_TURNS_BEFORE_LEAVING) {
        let served = queue.serve(HEARTBEAT, &mut turn);
        // Also after a failure: verdicts have been given until then.
        turn.finish(queue.as_ref(), served.as_ref().copied().unwrap_or(0));
        let served = served?;
        turn.settle_gap(queue.as_mut(), served)?;
        turn.inspection.warm();
        turn.read_mail()?;
        turn.follow_sets()?;
        if turn.carry_out_command() == After::Leave {
            break;
        }
        idle_turns = if served == 0 { idle_turns + 1 } else { 0 };
    }
    Ok(())
}

/// CPU and scheduling priority of those who serve.
fn take_place(config: &Config, seat: Seat) -> anyhow::Result<()> {
    if let Some(cpu) = cpu_of(config, seat) {
        bind_to_cpu(cpu).with_context(|| format!("binding {seat} to CPU {cpu}"))?;
    }
    if let Err(error) = set_nice(config.workers.nice) {
        log::warn!(
            "{seat}: scheduling priority {}: {error}",
            config.workers.nice
        );
    }
    Ok(())
}

/// Waits for the predecessor's end, and takes over its flows; leaves when asked to before that.
fn take_over(
    shared: &Shared,
    config: &Config,
    seat: Seat,
    desk: &Desk,
    inspection: &mut WorkersInspection<'_>,
    stop: &AtomicBool,
) -> anyhow::Result<After> {
    let done_before = desk.commands_done();
    let pid = std::process::id();
    let waiting = shared.feedback.send(Message::Waiting { seat, pid });
    waiting.context("the supervisor does not listen")?;
    let patience = Duration::from_millis(config.workers.start_ms);
    let Some(bytes) = handing_over::await_flows(desk, done_before, patience, stop)? else {
        return Ok(After::Leave);
    };
    if bytes.is_empty() {
        return Ok(After::GoOn);
    }
    let beat = || shared.pages.stamp(seat.slot(), monotonic_ns());
    match inspection.import_flows(&bytes, now(), beat) {
        Ok(imported) => log::debug!("{seat}: {imported:?}"),
        Err(error) => log::warn!("{seat}: its predecessor's flows are learned anew: {error}"),
    }
    Ok(After::GoOn)
}

/// Tells the supervisor that the queue is served. Without a supervisor it is served all the
/// same: nobody would replace a worker that left.
fn announce(shared: &Shared, seat: Seat) -> anyhow::Result<()> {
    let pid = std::process::id();
    match shared.feedback.send(Message::Started { seat, pid }) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(error).context("the supervisor does not listen")
        }
        Err(error) => {
            log::warn!("{seat} serves its queue without a supervisor: {error}");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// CPU of a seat, by configuration.
fn cpu_of(config: &Config, seat: Seat) -> Option<usize> {
    if !config.workers.pin {
        return None;
    }
    match seat {
        Seat::Backup => usize::try_from(config.workers.backup_cpu).ok(),
        Seat::Worker(index) if config.workers.cpus.is_empty() => {
            let usable = crate::sys::process::usable_cpus();
            Some(usable[index as usize % usable.len()])
        }
        Seat::Worker(index) => {
            let cpus = &config.workers.cpus;
            Some(cpus[index as usize % cpus.len()] as usize)
        }
    }
}

/// The inspection as a worker has it.
type WorkersInspection<'a> = Inspection<Events<'a>, Rejects<'a>, Convictions<'a>>;

/// One worker's state across the turns of its loop.
struct Turn<'a> {
    shared: &'a Shared,
    config: Config,
    seat: Seat,
    mail: Mail,
    row: Row<'a>,
    /// The row as the predecessor left it: this process adds to it.
    base: Vec<u64>,
    /// The same of the figures.
    figures: Vec<u64>,
    desk: &'a Desk,
    guard: FlowGuard<'a>,
    /// Address of the queue's buffers, when they are the desk's.
    buffers_at: Option<usize>,
    inspection: WorkersInspection<'a>,
    now: Timestamp,
    /// When the kernel was last asked for what it counts of the queue's socket.
    asked_ns: u64,
    gap: Gap,
    /// Packets of this batch until the next heartbeat.
    until_beat: u32,
    /// How often this worker has come round so late that the backup may have had its flows.
    stalls: u64,
    /// How often there may have been no room for a packet in its socket: when failing open it has
    /// passed.
    overruns: u64,
}

impl<'a> Turn<'a> {
    fn new(
        shared: &'a Shared,
        config: Config,
        seat: Seat,
        row: Row<'a>,
        desk: &'a Desk,
        mail: Mail,
        inspection: WorkersInspection<'a>,
    ) -> Self {
        let base = Cell::ALL.iter().map(|cell| row.get(*cell)).collect();
        let figures = row.figures().collect();
        let stale_ns = config.stale().as_nanos() as u64;
        Self {
            shared,
            config,
            seat,
            mail,
            row,
            base,
            figures,
            desk,
            guard: FlowGuard::new(seat, desk, &shared.dangers, &shared.pages, stale_ns),
            buffers_at: None,
            inspection,
            now: now(),
            asked_ns: 0,
            gap: Gap::Closed,
            until_beat: BEAT_EVERY,
            stalls: 0,
            overruns: 0,
        }
    }

    /// A predecessor may have taken packets from the socket without noting it; `truth` is what
    /// the kernel says of the queue.
    fn expect_gap(&mut self, truth: Option<QueueTruth>) {
        if self.config.queue.transport == Transport::Batched {
            // The socket counts them, and it is the predecessor's.
            self.base[Cell::Overruns as usize] = 0;
            let noted = self.shared.pages.received(self.seat.slot());
            let noted = noted.map_or(0, |it| it.id);
            self.gap = Gap::after(noted, truth);
        }
    }

    /// After a batch, or a heartbeat without one.
    fn finish(&mut self, queue: &dyn PacketQueue, served: usize) {
        self.guard.put_down();
        self.now.monotonic_ns = monotonic_ns();
        self.shared
            .pages
            .stamp(self.seat.slot(), self.now.monotonic_ns);
        self.inspection.expire(self.now);
        let tallied = queue.tallied();
        self.overruns = self.overruns.max(tallied.overruns);
        self.publish(tallied);
        // Under light load a batch is one packet: not a system call for each.
        let since = Duration::from_nanos(self.now.monotonic_ns.saturating_sub(self.asked_ns));
        if served == 0 || since >= HEARTBEAT {
            self.asked_ns = self.now.monotonic_ns;
            let overruns = queue.counters().overruns;
            self.overruns = self.overruns.max(overruns);
            self.row.set(
                Cell::Overruns,
                self.base[Cell::Overruns as usize] + overruns,
            );
            // They are many, and nobody decides anything by them.
            let counts = self.inspection.figures().counts().iter();
            let sums = counts.zip(&self.figures).map(|(count, base)| count + base);
            self.row.set_figures(sums);
        }
    }

    /// Adds this process's totals to what its predecessors left on the board.
    fn publish(&self, counters: QueueCounters) {
        let inspected = self.inspection.counters();
        let exceptions = inspected.exceptions;
        let (applied, excepted) = (|it| exceptions.applied(it), |it| exceptions.dropped(it));
        let (shed_accepted, shed_dropped) = (inspected.shed_accepted, inspected.shed_dropped);
        for (cell, count) in [
            (
                Cell::Accepted,
                counters.accepted.saturating_sub(shed_accepted),
            ),
            (Cell::Dropped, counters.dropped.saturating_sub(shed_dropped)),
            (Cell::Shed, shed_accepted + shed_dropped),
            (Cell::ShedAccepted, shed_accepted),
            (Cell::ShedDropped, shed_dropped),
            (Cell::Replaced, counters.replaced),
            (Cell::Batches, counters.batches),
            (Cell::Undecodable, counters.undecodable),
            (Cell::Refused, counters.refused),
            (Cell::Bytes, inspected.bytes),
            (Cell::Invalid, inspected.invalid.total()),
            (Cell::Passed, inspected.passed),
            (Cell::Alerts, inspected.alerts),
            (Cell::AlertsSuppressed, inspected.alerts_suppressed),
            (Cell::SearchesGivenUp, inspected.searches_given_up),
            (Cell::OutOfTime, inspected.out_of_time),
            (Cell::RuleDropped, inspected.rule_dropped),
            (Cell::FlowDropped, inspected.flow_dropped),
            (Cell::ExceptionUndecodable, applied(Cause::Undecodable)),
            (Cell::InvalidDropped, excepted(Cause::Undecodable)),
            (Cell::Quarantined, applied(Cause::Quarantine)),
            (Cell::QuarantineDropped, excepted(Cause::Quarantine)),
            (Cell::ExceptionFlowMemory, applied(Cause::FlowMemory)),
            (Cell::FlowMemoryDropped, excepted(Cause::FlowMemory)),
            (Cell::ExceptionDefragMemory, applied(Cause::DefragMemory)),
            (Cell::DefragMemoryDropped, excepted(Cause::DefragMemory)),
            (Cell::ExceptionFragmentOrder, applied(Cause::FragmentOrder)),
            (Cell::FragmentOrderDropped, excepted(Cause::FragmentOrder)),
            (
                Cell::ExceptionInspectionLimit,
                applied(Cause::InspectionLimit),
            ),
            (
                Cell::InspectionLimitDropped,
                excepted(Cause::InspectionLimit),
            ),
            (Cell::ExceptionMidstream, applied(Cause::Midstream)),
            (Cell::MidstreamDropped, excepted(Cause::Midstream)),
            (Cell::ExceptionStreamMemory, applied(Cause::StreamMemory)),
            (Cell::StreamMemoryDropped, excepted(Cause::StreamMemory)),
            (
                Cell::ExceptionReassemblyMemory,
                applied(Cause::ReassemblyMemory),
            ),
            (
                Cell::ReassemblyMemoryDropped,
                excepted(Cause::ReassemblyMemory),
            ),
            (Cell::ExceptionAppLayerError, applied(Cause::AppLayerError)),
            (Cell::AppLayerErrorDropped, excepted(Cause::AppLayerError)),
            (Cell::StreamDropped, inspected.stream_dropped),
            (Cell::NotReplaced, inspected.not_replaced),
            (Cell::StreamsRewritten, inspected.stream.rewritten),
            (Cell::StreamGaps, inspected.stream.reassembly_gap),
            (
                Cell::Fragments,
                inspected.defrag.ipv4_fragments + inspected.defrag.ipv6_fragments,
            ),
            (
                Cell::Reassembled,
                inspected.defrag.ipv4_reassembled + inspected.defrag.ipv6_reassembled,
            ),
            (Cell::FragmentsRefused, inspected.fragments_refused),
            (
                Cell::DatagramsGivenUp,
                inspected.defrag.timed_out + inspected.defrag.given_up,
            ),
            (Cell::FlowsRefused, inspected.flows.refused),
            (Cell::FlowEmergencies, inspected.flows.emergencies),
            (Cell::FlowRecoveries, inspected.flows.recoveries),
            (Cell::SessionsRefused, inspected.stream.ssn_memcap_drop),
            (Cell::SessionsRelieved, inspected.stream.ssn_relieved),
            (Cell::SegmentsRefused, inspected.stream.segment_memcap_drop),
            (Cell::DefragMemoryReached, inspected.defrag.memcap_reached),
            (
                Cell::DefragTrackersReached,
                inspected.defrag.max_trackers_reached,
            ),
            (
                Cell::DefragFragmentsReached,
                inspected.defrag.max_fragments_reached,
            ),
            (Cell::HostsRefused, inspected.tables.hosts.refused),
            (Cell::PairsRefused, inspected.tables.pairs.refused),
            (Cell::ThresholdsRefused, inspected.tables.thresholds.refused),
            (Cell::Rejected, inspected.rejected),
            (Cell::RejectsLost, self.inspection.rejects().lost),
            (Cell::FlowsCreated, inspected.flows.created),
            (Cell::FlowsExpired, inspected.flows.expired),
            (Cell::FlowsEvicted, inspected.flows.evicted),
            (Cell::FlowsBothWays, inspected.flows.both_ways),
            (Cell::FlowsMidstream, inspected.flows.midstream),
            (Cell::Events, self.inspection.events().emitted),
            (Cell::EventsLost, self.inspection.events().lost),
            (Cell::Convictions, inspected.convictions),
            (Cell::ConvictionsLost, self.inspection.feedback().lost),
            (Cell::DatasetRefused, self.inspection.sets().refused),
            (Cell::DatasetUnshared, self.inspection.sets().unshared),
        ] {
            self.row.set(cell, self.base[cell as usize] + count);
        }
        for (cell, now) in [
            (Cell::FlowBytes, inspected.flows.memuse),
            (Cell::ApplicationBytes, inspected.applications.memuse),
            (
                Cell::HttpBytes,
                inspected.applications.of[AppProtocol::Http1 as usize],
            ),
            (Cell::DatagramBytes, inspected.defrag.memory),
            (Cell::HostBytes, inspected.tables.hosts.memuse),
            (Cell::PairBytes, inspected.tables.pairs.memuse),
            (Cell::ThresholdBytes, inspected.tables.thresholds.memuse),
        ] {
            self.row.set(cell, now);
        }
        self.row.set(Cell::Datagrams, inspected.defrag.trackers);
        self.row
            .set(Cell::Sessions, inspected.stream.active_sessions);
        self.row.set(Cell::SessionBytes, inspected.stream.memuse);
        self.row
            .set(Cell::StreamBytes, inspected.stream.reassembly_memuse);
        // Flows are not inherited.
        self.row.set(Cell::Flows, inspected.flows.current);
    }

    /// Does what the supervisor wants, between two batches.
    fn carry_out_command(&mut self) -> After {
        let Some((number, command)) = self.desk.command() else {
            return After::GoOn;
        };
        match command {
            Command::HandOver => {
                let written = self.write_flows();
                if let Err(error) = &written {
                    log::warn!("{}: flows not handed over: {error}", self.seat);
                }
                // From now on the queue is the successor's.
                self.desk
                    .carried_out(number, written.unwrap_or(handing_over::NOTHING));
                After::Leave
            }
            Command::ListFlows => {
                let written = self.write_keys();
                if let Err(error) = &written {
                    log::warn!("{}: flows not listed: {error}", self.seat);
                }
                self.desk
                    .carried_out(number, written.unwrap_or(handing_over::NOTHING));
                After::GoOn
            }
        }
    }

    /// One [`FlowKey`] after the other.
    fn write_keys(&mut self) -> io::Result<u64> {
        let file = handing_over::empty_file(self.desk.flows())?;
        let mut file = BufWriter::with_capacity(1 << 18, file);
        let mut count = 0;
        for key in self.inspection.flows().keys() {
            file.write_all(bytemuck::bytes_of(key))?;
            count += 1;
            if count % LISTED_BETWEEN_BEATS == 0 {
                self.shared.pages.stamp(self.seat.slot(), monotonic_ns());
            }
        }
        file.flush()?;
        Ok(count)
    }

    fn write_flows(&mut self) -> io::Result<u64> {
        let mut file = handing_over::empty_file(self.desk.flows())?;
        let beat = || self.shared.pages.stamp(self.seat.slot(), monotonic_ns());
        let written = self.inspection.flows().export(&mut file, beat)?;
        self.inspection.give_up_datagrams();
        Ok(written)
    }

    /// Settles what a predecessor took from the socket without noting it, when nothing is left
    /// in the socket.
    fn settle_gap(&mut self, queue: &mut dyn PacketQueue, served: usize) -> anyhow::Result<()> {
        if served == 0
            && let Some(gap) = self.gap.when_idle()
        {
            let (last, disposition) = self.count_gap(gap);
            queue.settle_through(last, disposition)?;
        }
        Ok(())
    }

    /// Counts packets that were received, and notes that.
    fn note_received(&self, highest: PacketId, packets: u64) {
        self.row.add(Cell::Received, packets);
        let received = Received::new(highest.0, self.row.get(Cell::Received));
        self.shared.pages.set_received(self.seat.slot(), received);
    }

    fn count_gap(&self, (count, last): (u32, PacketId)) -> (PacketId, Disposition) {
        let disposition = self.config.settle();
        log::warn!(
            "{}: {count} packets that a dead worker had just taken: {disposition:?}",
            self.seat
        );
        self.note_received(last, count.into());
        self.row.add(Cell::Settled, count.into());
        (last, disposition)
    }
}

impl Inspector for Turn<'_> {
    fn leftovers_before(&mut self, first: PacketId) -> Option<(PacketId, Disposition)> {
        let gap = self.gap.before(first)?;
        Some(self.count_gap(gap))
    }

    fn batch(&mut self, highest: PacketId, packets: usize) {
        let slot = self.seat.slot();
        let heartbeat_ns = self.shared.pages.heartbeat(slot);
        self.now = now();
        let silence = Duration::from_nanos(self.now.monotonic_ns.saturating_sub(heartbeat_ns));
        self.stalls += u64::from(silence >= self.config.stale());
        // That transport does not say when its socket was full.
        let is_mute = self.config.queue.transport == Transport::Nfq;
        self.overruns += u64::from(is_mute && self.config.fail == Fail::Open);
        let detours = self.shared.pages.detours() + self.stalls + self.overruns;
        self.inspection.set_detours(detours, self.now);
        self.note_received(highest, packets as u64);
        self.shared.pages.stamp(slot, self.now.monotonic_ns);
        self.until_beat = BEAT_EVERY;
        self.guard.batch(self.now.monotonic_ns);
    }

    fn packet(&mut self, packet: Packet<'_>) -> Verdict {
        let place = self
            .buffers_at
            .map(|start| packet.payload.as_ptr().addr() - start);
        self.guard
            .take_in_hand(packet.id, place, packet.payload.len());
        // Looked at for each packet: what is left undone may have to change within a batch.
        self.inspection.set_overload(self.desk.overload());
        let verdict = self.inspection.inspect(packet, self.now, &mut self.guard);
        self.until_beat -= 1;
        if self.until_beat == 0 {
            self.until_beat = BEAT_EVERY;
            self.shared.pages.stamp(self.seat.slot(), monotonic_ns());
        }
        verdict
    }
}

/// Whether the loop goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum After {
    GoOn,
    Leave,
}

/// Both clocks, read once a batch.
fn now() -> Timestamp {
    Timestamp {
        wall_us: wall_us(),
        monotonic_ns: monotonic_ns(),
    }
}

/// A fresh inspection as configured.
fn inspection<'a>(
    shared: &'a Shared,
    config: &Config,
    engine: MappedEngine,
    seat: Seat,
) -> anyhow::Result<WorkersInspection<'a>> {
    let options = InspectionOptions {
        seed: random_words().context("getrandom")?,
        interfaces: interface_names(),
        utc_offset_s: shared.utc_offset_s,
        ..InspectionOptions::of_worker(config).map_err(anyhow::Error::msg)?
    };
    let trace = shared
        .trace
        .then(|| Box::new(StandardError::new(seat)) as Box<dyn PacketTrace>);
    Ok(Inspection::new(
        engine,
        options,
        Events::new(&shared.events),
        Rejects::new(&shared.rejects),
        Convictions::new(&shared.feedback, seat),
        trace,
    ))
}

/// Names by index, for records; one that appears later has none there.
fn interface_names() -> BTreeMap<u32, String> {
    if_nameindex().map_or_else(
        |_| BTreeMap::new(),
        |names| {
            let name = |entry: &Interface| (entry.index(), entry.name().to_string_lossy().into());
            names.iter().map(name).collect()
        },
    )
}
