//! The supervisor's view of itself: the snapshot, and the `stats` event made of it.

use std::cmp::Reverse;
use std::time::{Duration, Instant};

use ips_common::{Counter, MAX_WORKERS};
use serde_json::{Value, json};

use super::Supervisor;
use super::deaths::standing_name;
use super::duty::Duty;
use super::history::{Exit as Ended, Past};
use super::occupancy::{Occupancy, Phase};
use super::seat::Seat;
use crate::app::AppProtocol;
use crate::config::settings::EngineSettings;
use crate::desk::Overload;
use crate::desk::watchlist::Standing;
use crate::flow::Timestamp;
use crate::log::eve;
use crate::metrics::board::Cell;
use crate::metrics::figures;
use crate::metrics::queue_truth::{self, QueueTruth};
use crate::metrics::snapshot::{
    Exit, Kernel, Retired, Sandbox, Snapshot, WATCHED_SHOWN, WatchedFlow, Worker, cells,
};
use crate::sys::process::{monotonic_ns, wall_us};
use crate::sys::sandbox::Support;

impl Supervisor {
    /// This moment.
    pub(super) fn snapshot(&self) -> Snapshot {
        // Read once: each reading lists every queue of the network namespace.
        let queues = queue_truth::read().unwrap_or_default();
        let worker = |seat| self.worker(seat, &queues);
        let mut workers: Vec<_> = self.seats.iter().map(worker).collect();
        let backup = workers.pop().expect("the last seat is the backup's");
        let (events_written, events_failed) = self.writer.totals();
        let placed = self.steering.placed();
        Snapshot {
            instance: self.config.name.clone(),
            pid: std::process::id(),
            uptime_seconds: self.after_start(monotonic_ns()).as_secs(),
            upgrades: self.upgrades,
            launcher_restarts: self.launcher_restarts,
            fail: self.config.fail.to_string(),
            transport: self.config.queue.transport.to_string(),
            netfilter: self.steering.netfilter(),
            rules_restored: self.upkeep.restored,
            rules_given_up: self.upkeep.given_up,
            interfaces: self.steering.attachments().clone(),
            generation: self.generation,
            rules: self.compiled.rules,
            rules_skipped: self.compiled.skipped,
            rules_wrong: self.compiled.wrong,
            image_bytes: self.compiled.image_bytes,
            source_bytes: self.compiled.source_bytes,
            compile_peak_bytes: self.compiled.peak_bytes,
            workers,
            backup,
            launcher: self.launching.pid().unwrap_or(0),
            rejecter: self.rejecter.snapshot(),
            sandbox: self.sandbox(),
            retired: self.retired(),
            scaling: self.scaling.is_changing(),
            counters: self.steering.counters(),
            convicted: self.steering.convicted(),
            adopted: placed.adopted,
            kept: placed.kept,
            deaths: self.deaths.counters(),
            datasets: self.sets.figures(),
            watched: self.watched(),
            suspects: self.standing(Standing::Suspect),
            quarantined: self.standing(Standing::Quarantined),
            events_written,
            events_failed,
        }
    }

    fn standing(&self, standing: Standing) -> usize {
        let flows = self.deaths.flows().iter();
        flows.filter(|flow| flow.standing == standing).count()
    }

    fn watched(&self) -> Vec<WatchedFlow> {
        let mut flows = self.deaths.flows().to_vec();
        flows.sort_unstable_by_key(|flow| Reverse(flow.since_ns));
        let now_ns = monotonic_ns();
        let shown = flows.iter().take(WATCHED_SHOWN).map(|flow| WatchedFlow {
            flow: flow.key.to_string(),
            standing: standing_name(flow.standing).into(),
            deaths: flow.deaths,
            age_seconds: Duration::from_nanos(now_ns.saturating_sub(flow.since_ns)).as_secs(),
        });
        shown.collect()
    }

    /// What workers and rejecter give up.
    fn sandbox(&self) -> Sandbox {
        let (sandbox, support) = (&self.config.sandbox, Support::of_kernel());
        Sandbox {
            user: sandbox.user.clone(),
            seccomp: sandbox.seccomp && support.seccomp,
            landlock: support.landlock.filter(|_| sandbox.landlock),
        }
    }

    fn worker(&self, occupancy: &Occupancy, queues: &[QueueTruth]) -> Worker {
        let slot = occupancy.seat.slot();
        let age_ns = monotonic_ns().saturating_sub(self.steering.pages().heartbeat(slot));
        let state = match occupancy.phase {
            Phase::Up if occupancy.pulse.is_tripped() => "stale",
            Phase::Up => match occupancy.duty {
                Duty::Serving => "up",
                Duty::Joining => "joining",
                Duty::Drained if self.holds_nothing(occupancy) => "drained",
                Duty::Drained => "draining",
                Duty::Retiring { .. } => "retiring",
                Duty::Leaving => "leaving",
            },
            Phase::Starting => "starting",
            Phase::Vacant { .. } => "down",
        };
        let past: &Past = &occupancy.past;
        Worker {
            seat: occupancy.seat,
            pid: occupancy.pid().unwrap_or(0),
            generation: occupancy.generation,
            state: state.into(),
            queue: occupancy.queue,
            restarts: past.restarts,
            trips: past.trips,
            hangs: past.hangs,
            unserved_ms: occupancy.unserved(Instant::now()).as_millis() as u64,
            vacancies: past.vacancies,
            last_exit: past.last_exit().map(str::to_owned),
            exits: past.exits().map(|exit| self.exit(exit)).collect(),
            heartbeat_age_ms: Duration::from_nanos(age_ns).as_millis() as u64,
            delay_ms: occupancy.strain.now.as_millis() as u64,
            delay_max_ms: past.longest_delay.as_millis() as u64,
            overload: match occupancy.strain.level() {
                Overload::None => "none",
                Overload::Some => "some",
                Overload::All => "all",
            }
            .into(),
            overloads: past.overloads,
            cells: cells(self.board.row(occupancy.seat)),
            kernel: queues
                .iter()
                .find(|truth| truth.queue == occupancy.queue)
                .map(|truth| Kernel {
                    passed: self.upkeep.passed.of(occupancy.queue),
                    ..(*truth).into()
                })
                .unwrap_or_default(),
        }
    }

    /// How long the instance had been running then.
    fn after_start(&self, then_ns: u64) -> Duration {
        Duration::from_nanos(then_ns.saturating_sub(self.started_ns))
    }

    fn exit(&self, exit: &Ended) -> Exit {
        Exit {
            uptime_seconds: self.after_start(exit.at_ns).as_secs_f64(),
            unix_us: exit.wall_us,
            reason: exit.how.clone(),
        }
    }

    /// What is left of seats that are gone: rows of the board that no seat has.
    fn retired(&self) -> Retired {
        let mut retired = self.scaling.retired().clone();
        let workers = (0..MAX_WORKERS).map(Seat::Worker);
        let gone = workers.filter(|seat| self.seats.get(*seat).is_none());
        let mut sums = vec![0; Cell::ALL.len()];
        for seat in gone {
            let row = self.board.row(seat);
            if row.get(Cell::Batches) > 0 || row.get(Cell::Received) > 0 {
                for (sum, cell) in sums.iter_mut().zip(Cell::ALL) {
                    *sum += row.get(*cell);
                }
            }
        }
        let named = Cell::ALL.iter().zip(sums);
        retired.cells = named
            .map(|(cell, sum)| (cell.name().to_owned(), sum))
            .collect();
        retired
    }

    /// Writes a `stats` event of what is known.
    pub(super) fn emit_stats(&mut self) {
        if !self.config.engine.stats.enabled {
            return;
        }
        let now = Timestamp {
            wall_us: wall_us(),
            monotonic_ns: monotonic_ns(),
        };
        let snapshot = self.snapshot();
        let mut tree = stats(&snapshot);
        if let Some(tree) = tree.as_object_mut() {
            let pressure = pressure(&snapshot, &self.config.engine_settings());
            figures::put(tree, "memcap.pressure", pressure);
            let settings = &self.config.engine.stats;
            let counts = self.board.figures();
            figures::tree(&counts, settings, tree);
            let refused = figures::memory_refused(&counts, AppProtocol::Http1);
            figures::put(tree, "http.memcap", refused);
        }
        let line = eve::own(now, self.utc_offset_s, "stats", &tree);
        if self.events.emit(&line) == crate::log::pipe::Emitted::Lost {
            log::warn!("a stats event was lost: the event writer does not keep up");
        }
    }
}

/// Of the fullest table of any worker, how many percent of its cap are taken.
fn pressure(snapshot: &Snapshot, settings: &EngineSettings) -> u64 {
    let caps = [
        (Cell::FlowBytes, settings.flow.memcap),
        (Cell::ApplicationBytes, settings.app_layer.memcap),
        (Cell::SessionBytes, settings.stream.memcap),
        (Cell::StreamBytes, settings.stream.reassembly.memcap),
        (Cell::DatagramBytes, settings.defrag.memcap),
        (Cell::HostBytes, settings.host.memcap),
        (Cell::PairBytes, settings.ippair.memcap),
        (Cell::ThresholdBytes, settings.detect.thresholds.memcap),
    ];
    let of_seat = |seat: &Worker| {
        let shares = caps.map(|(cell, cap)| match cap.0 {
            0 => 0,
            cap => seat.cell(cell).saturating_mul(100) / cap,
        });
        shares.into_iter().max().unwrap_or(0)
    };
    snapshot.seats().map(of_seat).max().unwrap_or(0)
}

/// The tree under `stats`: Suricata's names where the figure exists there (user guide,
/// "Statistics"), the rest under `sluice`.
fn stats(snapshot: &Snapshot) -> Value {
    let total = |cell| snapshot.total(cell);
    let (queue_dropped, user_dropped) = snapshot.kernel_dropped();
    let workers: Vec<_> = snapshot
        .seats()
        .map(|seat| {
            json!({
                "seat": seat.seat,
                "state": seat.state,
                "restarts": seat.restarts,
                "trips": seat.trips,
                "hangs": seat.hangs,
                "vacancies": seat.vacancies,
                "delay_ms": seat.delay_ms,
                "delay_max_ms": seat.delay_max_ms,
                "overloads": seat.overloads,
                "received": seat.cell(Cell::Received),
                "accepted": seat.cell(Cell::Accepted),
                "dropped": seat.cell(Cell::Dropped),
                "replaced": seat.cell(Cell::Replaced),
                "settled": seat.cell(Cell::Settled),
                "shed": seat.cell(Cell::Shed),
                "kernel": seat.kernel,
            })
        })
        .collect();
    json!({
        "uptime": snapshot.uptime_seconds,
        "capture": {
            "kernel_packets": total(Cell::Received),
            "kernel_drops": queue_dropped + user_dropped,
        },
        "decoder": {
            "pkts": total(Cell::Received),
            "bytes": total(Cell::Bytes),
            "invalid": total(Cell::Invalid),
        },
        "ips": {
            "accepted": total(Cell::Accepted),
            "blocked": total(Cell::Dropped),
            "rejected": total(Cell::Rejected),
            "replaced": total(Cell::Replaced),
            "drop_reason": {
                "rules": total(Cell::RuleDropped),
                "flow_drop": total(Cell::FlowDropped),
                "decode_error": total(Cell::InvalidDropped),
                "quarantine": total(Cell::QuarantineDropped),
                "flow_memcap": total(Cell::FlowMemoryDropped),
                "defrag_error": total(Cell::FragmentsRefused)
                    + total(Cell::FragmentOrderDropped),
                "defrag_memcap": total(Cell::DefragMemoryDropped),
                "stream_error": total(Cell::StreamDropped),
                "stream_midstream": total(Cell::MidstreamDropped),
                "stream_memcap": total(Cell::StreamMemoryDropped),
                "stream_reassembly": total(Cell::ReassemblyMemoryDropped),
                "inspection_limit": total(Cell::InspectionLimitDropped),
                "applayer_error": total(Cell::AppLayerErrorDropped),
            },
        },
        "flow": {
            "total": total(Cell::FlowsCreated),
            "active": total(Cell::Flows),
            "midstream": total(Cell::FlowsMidstream),
            "memuse": total(Cell::FlowBytes),
            "memcap": total(Cell::FlowsRefused),
            "get_used": total(Cell::FlowsEvicted),
            "emerg_mode_entered": total(Cell::FlowEmergencies),
            "emerg_mode_over": total(Cell::FlowRecoveries),
        },
        "app_layer": {
            "memuse": total(Cell::ApplicationBytes),
        },
        "http": {
            "memuse": total(Cell::HttpBytes),
        },
        "host": {
            "memuse": total(Cell::HostBytes),
            "memcap": total(Cell::HostsRefused),
        },
        "ippair": {
            "memuse": total(Cell::PairBytes),
            "memcap": total(Cell::PairsRefused),
        },
        "exception_policy": {
            "worker_death": total(Cell::Settled),
            "undecodable": total(Cell::ExceptionUndecodable),
            "quarantine": total(Cell::Quarantined),
            "overload": total(Cell::Shed),
            "flow_memory": total(Cell::ExceptionFlowMemory),
            "defrag_memory": total(Cell::ExceptionDefragMemory),
            "fragment_order": total(Cell::ExceptionFragmentOrder),
            "stream_midstream": total(Cell::ExceptionMidstream),
            "stream_memory": total(Cell::ExceptionStreamMemory),
            "reassembly_memory": total(Cell::ExceptionReassemblyMemory),
            "inspection_limit": total(Cell::ExceptionInspectionLimit),
            "app_layer_error": total(Cell::ExceptionAppLayerError),
        },
        "tcp": {
            "active_sessions": total(Cell::Sessions),
            "memuse": total(Cell::SessionBytes),
            "reassembly_memuse": total(Cell::StreamBytes),
            "ssn_memcap_drop": total(Cell::SessionsRefused),
            "ssn_relieved": total(Cell::SessionsRelieved),
            "segment_memcap_drop": total(Cell::SegmentsRefused),
            "reassembly_gap": total(Cell::StreamGaps),
            "rewritten": total(Cell::StreamsRewritten),
        },
        "defrag": {
            "fragments": total(Cell::Fragments),
            "reassembled": total(Cell::Reassembled),
            "refused": total(Cell::FragmentsRefused),
            "given_up": total(Cell::DatagramsGivenUp),
            "trackers": total(Cell::Datagrams),
            "memuse": total(Cell::DatagramBytes),
            "memcap_reached": total(Cell::DefragMemoryReached),
            "max_trackers_reached": total(Cell::DefragTrackersReached),
            "max_frags_reached": total(Cell::DefragFragmentsReached),
        },
        "detect": {
            "engines": [{
                "id": 0,
                "generation": snapshot.generation,
                "memory": snapshot.image_bytes,
                "sources": snapshot.source_bytes,
                "rules_loaded": snapshot.rules,
                "rules_failed": snapshot.rules_wrong,
                "rules_skipped": snapshot.rules_skipped.saturating_sub(snapshot.rules_wrong),
            }],
            "alert": total(Cell::Alerts),
            "alerts_suppressed": total(Cell::AlertsSuppressed),
            "thresholds": {
                "memuse": total(Cell::ThresholdBytes),
                "memcap": total(Cell::ThresholdsRefused),
            },
        },
        "sluice": {
            "queue_dropped": queue_dropped,
            "queue_passed": snapshot.queue_passed(),
            "user_dropped": user_dropped,
            "settled": total(Cell::Settled),
            "shed": total(Cell::Shed),
            "shed_accepted": total(Cell::ShedAccepted),
            "shed_dropped": total(Cell::ShedDropped),
            "overruns": total(Cell::Overruns),
            "refused": total(Cell::Refused),
            "rejects_lost": total(Cell::RejectsLost),
            "events_lost": total(Cell::EventsLost) + snapshot.events_failed,
            "flows_evicted": total(Cell::FlowsEvicted),
            "quarantined": total(Cell::Quarantined),
            "deaths": snapshot.deaths,
            "suspected_flows": snapshot.suspects,
            "quarantined_flows": snapshot.quarantined,
            "rejecter": snapshot.rejecter.counters,
            "adopted": snapshot.adopted,
            "kept": snapshot.kept,
            "convicted": snapshot.convicted,
            "rules_restored": snapshot.rules_restored,
            "rules_given_up": snapshot.rules_given_up,
            "steering": counters(snapshot),
            "workers": workers,
        },
    })
}

/// The eBPF programs' counters, zeros included, so that a record always has the same fields.
fn counters(snapshot: &Snapshot) -> Value {
    let value = |name: &str| snapshot.counters.get(name).copied().unwrap_or(0);
    Counter::ALL
        .iter()
        .map(|counter| (counter.name(), value(counter.name())))
        .collect()
}
