//! What `sluice status` shows and EVE `stats` records hold: one instance at one moment.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::board::{Cell, Row};
use super::queue_truth::QueueTruth;
use crate::rejecter::RejecterCounters;
use crate::supervisor::seat::Seat;

/// One instance.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Snapshot {
    /// Its name.
    pub instance: String,
    /// Process of the supervisor.
    pub pid: u32,
    /// Seconds since it started; goes on over upgrades and takeovers.
    pub uptime_seconds: u64,
    /// How many times another program has taken its place.
    pub upgrades: u64,
    /// How many times the launcher was replaced.
    pub launcher_restarts: u64,
    /// Fail policy.
    pub fail: String,
    /// Transport.
    pub transport: String,
    /// How marks become queues: `nft` or `iptables-nft`, and why.
    pub netfilter: String,
    /// How often the netfilter rules were put back after somebody had changed them.
    pub rules_restored: u64,
    /// How often looking at the netfilter rules, putting them back or reading their counters was
    /// given up, because a tool had waited too long.
    #[serde(default)]
    pub rules_given_up: u64,
    /// What is attached to each interface, and why.
    pub interfaces: BTreeMap<String, Attachment>,
    /// Which rules and configuration are in force: one more with each reload, upgrade and
    /// takeover.
    pub generation: u32,
    /// Rules in use.
    pub rules: u64,
    /// Rules skipped.
    pub rules_skipped: u64,
    /// Of these: rules that are wrong, not just unsupported.
    pub rules_wrong: u64,
    /// Memory of the compiled rules, which all workers share, in bytes.
    pub image_bytes: u64,
    /// Memory in which their files are kept, as they were compiled, for a new launcher, in bytes.
    #[serde(default)]
    pub source_bytes: u64,
    /// The most memory that compiling them took, in bytes.
    pub compile_peak_bytes: u64,
    /// The workers in order.
    pub workers: Vec<Worker>,
    /// The backup.
    pub backup: Worker,
    /// Process of the launcher.
    pub launcher: u32,
    /// The rejecter.
    pub rejecter: Rejecter,
    /// What workers and rejecter give up.
    pub sandbox: Sandbox,
    /// What is left of workers that are gone.
    pub retired: Retired,
    /// Whether workers are being added, removed, drained or resumed now.
    pub scaling: bool,
    /// Counters of the eBPF programs.
    pub counters: BTreeMap<String, u64>,
    /// Flows convicted now.
    pub convicted: usize,
    /// Flows adopted by the backup now.
    pub adopted: usize,
    /// Flows that stay with their worker though the table has given their slot to another.
    pub kept: usize,
    /// What ended workers, and what was done about it.
    #[serde(default)]
    pub deaths: Deaths,
    /// What has changed in sets of rules.
    #[serde(default)]
    pub datasets: SetFigures,
    /// Flows that workers died of, the last one first; at most [`WATCHED_SHOWN`].
    #[serde(default)]
    pub watched: Vec<WatchedFlow>,
    /// Flows that only their own workers inspect, because one died of them.
    #[serde(default)]
    pub suspects: usize,
    /// Flows that nobody inspects, because several died of them.
    #[serde(default)]
    pub quarantined: usize,
    /// Events written, and events the disk refused.
    pub events_written: u64,
    /// Events that the disk refused.
    pub events_failed: u64,
}

/// Most flows that a snapshot lists.
pub const WATCHED_SHOWN: usize = 64;

/// How workers ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deaths {
    /// With a packet of a known flow in hand, which is held against the flow.
    pub in_flow: u64,
    /// With a packet in hand that was not decoded yet.
    pub undecoded: u64,
    /// With no packet in hand.
    pub idle: u64,
    /// By a signal that somebody sent, or as they were told to.
    pub killed: u64,
    /// Flows that became suspects.
    pub suspected: u64,
    /// Flows quarantined.
    pub quarantined: u64,
    /// Flows forgotten early because the list was full.
    pub evicted: u64,
    /// Packets in hand saved.
    pub packets_saved: u64,
    /// Packets in hand that could not be saved.
    pub packets_unsaved: u64,
}

/// What has changed in the sets of rules since they were loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetFigures {
    /// Sets of the rules in force.
    pub sets: u64,
    /// Values that were added or removed.
    pub changes: u64,
    /// Memory that they take.
    pub bytes: u64,
    /// Changes that workers have reported.
    pub reported: u64,
    /// Changes refused because the set's memory was used up.
    pub refused: u64,
    /// Changes reported of sets or with values that the rules in force do not have.
    pub unknown: u64,
    /// Reports that were none.
    pub nonsense: u64,
    /// Files written.
    pub saved: u64,
    /// Files that could not be written.
    pub save_failures: u64,
}

/// A flow that workers died of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchedFlow {
    /// Its key.
    pub flow: String,
    /// `suspect` or `quarantined`.
    pub standing: String,
    /// Workers that died or hung with it in hand.
    pub deaths: u32,
    /// Seconds since the last one.
    pub age_seconds: u64,
}

/// Programs on an interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// `tcx` or `clsact`.
    pub tc: String,
    /// `native`, `generic` or `off`.
    pub xdp: String,
    /// Why that XDP mode.
    pub xdp_reason: String,
}

/// The process that sends resets and unreachables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejecter {
    /// Process, zero when none serves.
    pub pid: u32,
    /// How many times it was started again.
    pub restarts: u64,
    /// What it has sent, and not.
    #[serde(flatten)]
    pub counters: RejecterCounters,
}

/// The sandbox of workers and rejecter, as far as the kernel does not show it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox {
    /// Whom they become.
    pub user: String,
    /// Whether their system calls are filtered.
    pub seccomp: bool,
    /// Version of Landlock that confines them; `None`: not confined by it.
    pub landlock: Option<u32>,
}

/// One seat.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Worker {
    /// Which.
    pub seat: Seat,
    /// Process, zero when none.
    pub pid: u32,
    /// Which rules and configuration it has.
    pub generation: u32,
    /// `up`, `starting`, `stale`, `down`; of a worker that is up and gets no new flows `joining`,
    /// `draining`, `drained` (it holds none any more), `retiring` or `leaving`.
    pub state: String,
    /// Queue number.
    pub queue: u16,
    /// How many times its process was replaced.
    pub restarts: u64,
    /// How many times its heartbeat was found stale.
    pub trips: u64,
    /// How many of its processes were killed because they hung.
    pub hangs: u64,
    /// Milliseconds since its queue was last served; zero while it is.
    #[serde(default)]
    pub unserved_ms: u64,
    /// How many times its queue was not served for so long that what waited in it, and what came
    /// until it was served again, went by `exceptions.worker_death`.
    #[serde(default)]
    pub vacancies: u64,
    /// How the last process ended.
    pub last_exit: Option<String>,
    /// How the last few ended, the latest at the end.
    pub exits: Vec<Exit>,
    /// Milliseconds since its last heartbeat.
    pub heartbeat_age_ms: u64,
    /// Milliseconds that the longest waiting packet has been waiting for its verdict.
    pub delay_ms: u64,
    /// The longest that was since the instance started.
    pub delay_max_ms: u64,
    /// What it leaves undone: `none`, `some` or `all`.
    pub overload: String,
    /// How many times it was overloaded.
    pub overloads: u64,
    /// Its own counters, see [`Cell`].
    #[serde(flatten)]
    pub cells: BTreeMap<String, u64>,
    /// The kernel's counters of its queue.
    pub kernel: Kernel,
}

/// What is left of seats that are gone: see `sluice scale`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retired {
    /// The sums of their own counters. A seat that comes back goes on with its own.
    #[serde(flatten)]
    pub cells: BTreeMap<String, u64>,
    /// How many times their processes were replaced.
    pub restarts: u64,
    /// How many times their heartbeats were found stale.
    pub trips: u64,
    /// How many of their processes were killed because they hung.
    pub hangs: u64,
    /// Packets that the kernel dropped because their queues were full.
    pub queue_dropped: u64,
    /// Packets that it accepted for the same reason, see [`Kernel::passed`].
    #[serde(default)]
    pub queue_passed: u64,
    /// Packets that the kernel dropped because their sockets' buffers were full.
    pub user_dropped: u64,
    /// Flows that they still held when their time was over: others learnt them from the middle.
    pub flows_let_go: u64,
}

/// The end of a process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Exit {
    /// Seconds since the instance started.
    pub uptime_seconds: f64,
    /// Microseconds since 1970-01-01 00:00 UTC.
    pub unix_us: i64,
    /// A signal, an exit status, or why it was killed.
    pub reason: String,
}

/// The kernel's view of a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kernel {
    /// Packets without a verdict.
    pub waiting: u32,
    /// Dropped because the queue was full.
    pub queue_dropped: u64,
    /// Dropped because the socket's buffer was full.
    pub user_dropped: u64,
    /// Accepted because the queue was full, when failing open; as of the last look at the rules'
    /// counters, which is before each `stats` record, and once a second while there is overload
    /// and some seconds longer. Counted with `queue.gso` only: otherwise one packet has many ids.
    #[serde(default)]
    pub passed: u64,
    /// Id of the last packet queued.
    pub last_id: u32,
}

impl From<QueueTruth> for Kernel {
    fn from(truth: QueueTruth) -> Self {
        Self {
            waiting: truth.waiting,
            queue_dropped: truth.queue_dropped,
            user_dropped: truth.user_dropped,
            passed: 0,
            last_id: truth.last_id,
        }
    }
}

/// A row of the board by name.
pub fn cells(row: Row<'_>) -> BTreeMap<String, u64> {
    Cell::ALL
        .iter()
        .map(|cell| (cell.name().to_owned(), row.get(*cell)))
        .collect()
}

impl Worker {
    /// Whether its process does its work, also when it gets no new flows.
    pub fn serves(&self) -> bool {
        self.pid != 0 && !["starting", "stale", "down"].contains(&self.state.as_str())
    }

    /// One of its own counters; zero when this version does not know it.
    pub fn cell(&self, cell: Cell) -> u64 {
        self.cells.get(cell.name()).copied().unwrap_or(0)
    }
}

impl Snapshot {
    /// The workers and the backup.
    pub fn seats(&self) -> impl Iterator<Item = &Worker> {
        self.workers.iter().chain([&self.backup])
    }

    /// Sum of a counter over all seats, and those that are gone.
    pub fn total(&self, cell: Cell) -> u64 {
        let gone = self.retired.cells.get(cell.name()).copied().unwrap_or(0);
        self.seats().map(|worker| worker.cell(cell)).sum::<u64>() + gone
    }

    /// Packets that the kernel accepted because a queue was full, see [`Kernel::passed`].
    pub fn queue_passed(&self) -> u64 {
        let passed = self.seats().map(|seat| seat.kernel.passed);
        passed.sum::<u64>() + self.retired.queue_passed
    }

    /// Packets that the kernel dropped because a queue was full, and because a socket's buffer
    /// was.
    pub fn kernel_dropped(&self) -> (u64, u64) {
        let queue = self.seats().map(|seat| seat.kernel.queue_dropped);
        let user = self.seats().map(|seat| seat.kernel.user_dropped);
        (
            queue.sum::<u64>() + self.retired.queue_dropped,
            user.sum::<u64>() + self.retired.user_dropped,
        )
    }
}

impl fmt::Display for Snapshot {
    /// A table for people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} up {} s, pid {}, {} rules ({} skipped) in {} KiB, generation {}, fail {}, transport {}",
            self.instance,
            self.uptime_seconds,
            self.pid,
            self.rules,
            self.rules_skipped,
            self.image_bytes >> 10,
            self.generation,
            self.fail,
            self.transport
        )?;
        write!(f, "netfilter: {}", self.netfilter)?;
        if self.rules_restored > 0 {
            write!(f, ", put back {} times", self.rules_restored)?;
        }
        if self.rules_given_up > 0 {
            write!(f, ", {} attempts at them given up", self.rules_given_up)?;
        }
        writeln!(f)?;
        for (name, attachment) in &self.interfaces {
            writeln!(
                f,
                "{name}: tc {}, xdp {} ({})",
                attachment.tc, attachment.xdp, attachment.xdp_reason
            )?;
        }
        writeln!(
            f,
            "\n{:<8} {:>6} {:<8} {:>7} {:>5} {:>11} {:>11} {:>9} {:>8} {:>8} {:>9} {:>9} {:>8}",
            "seat",
            "queue",
            "state",
            "pid",
            "beat",
            "received",
            "accepted",
            "dropped",
            "settled",
            "waiting",
            "q-dropped",
            "u-dropped",
            "restarts"
        )?;
        for worker in self.seats() {
            let name = worker.seat.to_string();
            writeln!(
                f,
                "{name:<8} {:>6} {:<8} {:>7} {:>3}ms {:>11} {:>11} {:>9} {:>8} {:>8} {:>9} {:>9} {:>8}",
                worker.queue,
                worker.state,
                worker.pid,
                worker.heartbeat_age_ms,
                worker.cell(Cell::Received),
                worker.cell(Cell::Accepted),
                worker.cell(Cell::Dropped),
                worker.cell(Cell::Settled),
                worker.kernel.waiting,
                worker.kernel.queue_dropped,
                worker.kernel.user_dropped,
                worker.restarts
            )?;
            if worker.kernel.passed > 0 {
                writeln!(
                    f,
                    "         {} passed because the queue was full",
                    worker.kernel.passed
                )?;
            }
            if worker.trips > 0 {
                let (trips, hangs) = (worker.trips, worker.hangs);
                writeln!(f, "         {trips} stale trips, {hangs} hangs")?;
            }
            if worker.vacancies > 0 {
                let (vacancies, now) = (worker.vacancies, worker.unserved_ms);
                writeln!(
                    f,
                    "         {vacancies} times not served for too long, now for {now} ms"
                )?;
            }
            if worker.overloads > 0 {
                writeln!(
                    f,
                    "         {} overloads, sheds {} now; shed {} accepted, {} dropped; packets \
                     wait {} ms, at most {} ms",
                    worker.overloads,
                    worker.overload,
                    worker.cell(Cell::ShedAccepted),
                    worker.cell(Cell::ShedDropped),
                    worker.delay_ms,
                    worker.delay_max_ms
                )?;
            }
            for exit in &worker.exits {
                let (after, reason) = (exit.uptime_seconds, &exit.reason);
                writeln!(f, "         process ended after {after:.1} s: {reason}")?;
            }
        }
        writeln!(
            f,
            "\nalerts {}, dropped by rule {}, by flow {}, rejected {}; flows {} \
             ({} learnt from the middle); convicted {}, adopted {}, kept {}; events {} written, \
             {} lost",
            self.total(Cell::Alerts),
            self.total(Cell::RuleDropped),
            self.total(Cell::FlowDropped),
            self.total(Cell::Rejected),
            self.total(Cell::Flows),
            self.total(Cell::FlowsMidstream),
            self.convicted,
            self.adopted,
            self.kept,
            self.events_written,
            self.total(Cell::EventsLost) + self.events_failed
        )?;
        if self.suspects + self.quarantined > 0 {
            writeln!(
                f,
                "flows that workers died of: {} suspects, {} quarantined",
                self.suspects, self.quarantined
            )?;
        }
        let sets = &self.datasets;
        if sets.changes + sets.reported + sets.refused > 0 {
            writeln!(
                f,
                "sets: {} values added or removed, {} changes by rules, {} not told to others, \
                 {} refused; {} files not saved",
                sets.changes,
                sets.reported,
                self.total(Cell::DatasetUnshared),
                sets.refused + self.total(Cell::DatasetRefused),
                sets.save_failures
            )?;
        }
        for watched in &self.watched {
            writeln!(
                f,
                "  {} {}: {} deaths, the last {} s ago",
                watched.standing, watched.flow, watched.deaths, watched.age_seconds
            )?;
        }
        let RejecterCounters {
            sent,
            refused,
            failed,
        } = self.rejecter.counters;
        writeln!(
            f,
            "rejecter: pid {}, {} restarts; {sent} sent, {refused} refused, {failed} failed, {} not taken",
            self.rejecter.pid,
            self.rejecter.restarts,
            self.total(Cell::RejectsLost)
        )?;
        writeln!(f, "kernel programs:")?;
        for (name, value) in self.counters.iter().filter(|(_, value)| **value > 0) {
            writeln!(f, "  {name:<22} {value}")?;
        }
        Ok(())
    }
}
