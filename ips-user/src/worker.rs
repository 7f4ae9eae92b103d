//! The loop of a worker process: receive a batch, inspect, send verdicts, beat.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;

use crate::config::{Config, Transport};
use crate::detect::Engine;
use crate::inspection::{EventSink, Feedback, Inspection, RejectSender, Timestamp};
use crate::log::pipe::{Emitted, EventPipe};
use crate::maps::WorkerPages;
use crate::metrics::board::{Board, Cell, Row};
use crate::metrics::queue_truth;
use crate::source::crate_nfq::CrateQueue;
use crate::source::nfqueue::NfQueue;
use crate::source::{Inspector, Packet, PacketId, PacketQueue, Verdict};
use crate::supervisor::feedback::{FeedbackSocket, Message};
use crate::supervisor::seat::Seat;
use crate::sys::process::{bind_to_cpu, monotonic_ns, set_name, wall_us};

/// Longest time between two heartbeats of an idle worker.
pub const HEARTBEAT: Duration = Duration::from_millis(10);

/// A worker asked to stop leaves when its queue has been empty for this many heartbeats.
const IDLE_TURNS_BEFORE_LEAVING: u32 = 2;

/// What a worker shares with the supervisor and the other workers.
#[derive(Debug)]
pub struct Shared {
    /// The validated configuration.
    pub config: Config,
    /// The compiled rules.
    pub engine: Arc<Engine>,
    /// Heartbeats.
    pub pages: WorkerPages,
    /// Counters.
    pub board: Board,
    /// To the event writer.
    pub events: EventPipe,
    /// To the supervisor.
    pub feedback: FeedbackSocket,
    /// Whether packets and verdicts are printed.
    pub trace: bool,
}

/// Serves the queue of `seat` until `stop` is set and the queue is empty.
///
/// `socket` is the queue's, bound and configured by the supervisor; `None` with the `nfq`
/// transport, which opens its own.
///
/// # Errors
/// When the queue cannot be opened or fails.
pub fn run(
    shared: &Shared,
    seat: Seat,
    socket: Option<OwnedFd>,
    stop: &AtomicBool,
) -> anyhow::Result<()> {
    let config = &shared.config;
    let position = seat.position(config.worker_count());
    let options = config.queue_options(config.queue_number(position));
    set_name(&format!(
        "sluice-{}",
        if seat == Seat::Backup {
            "b".into()
        } else {
            position.to_string()
        }
    ));
    if let Some(cpu) = cpu_of(config, seat) {
        bind_to_cpu(cpu).with_context(|| format!("binding {seat} to CPU {cpu}"))?;
    }
    let mut queue: Box<dyn PacketQueue> = match (config.queue.transport, socket) {
        (Transport::Batched, Some(socket)) => Box::new(NfQueue::new(socket, &options)?),
        (Transport::Batched, None) => anyhow::bail!("{seat} was given no queue socket"),
        (Transport::Nfq, _) => Box::new(CrateQueue::open(&options)?),
    };
    let row = shared.board.row(position as usize);
    settle_leftovers(shared, seat, row, queue.as_mut())?;

    let mut turn = Turn::new(shared, seat, options.number, row)?;
    shared.pages.set_pid(seat.slot(), std::process::id());
    shared.pages.stamp(seat.slot(), monotonic_ns());
    shared.feedback.send(Message::Started {
        seat,
        pid: std::process::id(),
    })?;
    let mut idle_turns = 0;
    while !(stop.load(Ordering::Relaxed) && idle_turns >= IDLE_TURNS_BEFORE_LEAVING) {
        let served = queue.serve(HEARTBEAT, &mut turn)?;
        turn.finish(queue.as_ref());
        turn.settle_gap(queue.as_mut(), served)?;
        idle_turns = if served == 0 { idle_turns + 1 } else { 0 };
    }
    Ok(())
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

/// Gives what a dead predecessor had in hand the configured verdict, before anything new is
/// received.
fn settle_leftovers(
    shared: &Shared,
    seat: Seat,
    row: Row<'_>,
    queue: &mut dyn PacketQueue,
) -> anyhow::Result<()> {
    let slot = seat.slot();
    let Some(last) = shared.pages.received(slot) else {
        return Ok(());
    };
    let unsettled = row.unsettled();
    match shared.config.queue.transport {
        Transport::Batched => {
            let disposition = shared.config.settle();
            queue.settle_through(PacketId(last), disposition)?;
            if unsettled > 0 {
                log::warn!(
                    "{seat}: {unsettled} packets that a dead worker had in hand: {disposition:?}"
                );
            }
        }
        Transport::Nfq => {
            // The kernel dropped them with the dead worker's socket, and this queue counts
            // from one again.
            shared.pages.clear_received(slot);
            if unsettled > 0 {
                log::warn!("{seat}: {unsettled} packets were lost with a dead worker's socket");
            }
        }
    }
    row.add(Cell::Settled, unsettled);
    Ok(())
}

/// One worker's state across the turns of its loop.
struct Turn<'a> {
    shared: &'a Shared,
    seat: Seat,
    row: Row<'a>,
    /// The row as the predecessor left it: this process adds to it.
    base: Vec<u64>,
    inspection: Inspection<Events<'a>, RawRejects, Convictions<'a>>,
    now: Timestamp,
    gap: Gap,
}

/// Packets that a predecessor took from the socket but died before it could note them: ids
/// after the last noted one and before the first that this process receives.
#[derive(Clone, Copy, Debug)]
enum Gap {
    /// Nothing received yet. `noted` is the predecessor's last id, `queued` the kernel's last
    /// id when this process started.
    Unknown { noted: u32, queued: u32 },
    /// The first packet received has this id.
    Before { noted: u32, first: u32 },
    /// Settled, or there was none.
    Closed,
}

impl Gap {
    /// Ids to settle: count and last. `idle` tells that nothing was waiting in the socket.
    fn settle(&mut self, idle: bool) -> Option<(u32, PacketId)> {
        let (noted, last) = match *self {
            Self::Before { noted, first } => (noted, first.wrapping_sub(1)),
            Self::Unknown { noted, queued } if idle => (noted, queued),
            Self::Unknown { .. } | Self::Closed => return None,
        };
        *self = Self::Closed;
        let count = last.wrapping_sub(noted);
        // Ids are compared on the circle: half of it is "before".
        (count > 0 && count < 1 << 31).then_some((count, PacketId(last)))
    }
}

impl<'a> Turn<'a> {
    fn new(
        shared: &'a Shared,
        seat: Seat,
        queue_number: u16,
        row: Row<'a>,
    ) -> anyhow::Result<Self> {
        let noted = shared.pages.received(seat.slot()).unwrap_or(0);
        let queued = queue_truth::of(queue_number).map_or(noted, |truth| truth.last_id);
        Ok(Self {
            shared,
            seat,
            row,
            base: Cell::ALL.iter().map(|cell| row.get(*cell)).collect(),
            inspection: Inspection {
                s: Events { x: &() },
                r: RawRejects,
                f: Convictions { x: &() },
            },
            now: now(),
            gap: Gap::Unknown { noted, queued },
        })
    }

    /// After a batch, or a heartbeat without one.
    fn finish(&mut self, queue: &dyn PacketQueue) {
        self.shared.pages.stamp(self.seat.slot(), monotonic_ns());
        let counters = queue.counters();
        for (cell, count) in [
            (Cell::Accepted, counters.accepted),
            (Cell::Dropped, counters.dropped),
            (Cell::Replaced, counters.replaced),
            (Cell::Batches, counters.batches),
            (Cell::Undecodable, counters.undecodable),
            (Cell::Overruns, counters.overruns),
            (Cell::Refused, counters.refused),
        ] {
            self.row.set(cell, self.base[cell as usize] + count);
        }
    }

    /// Settles what a predecessor took from the socket without noting it, once it is known
    /// what that was.
    fn settle_gap(&mut self, queue: &mut dyn PacketQueue, served: usize) -> anyhow::Result<()> {
        let Some((count, last)) = self.gap.settle(served == 0) else {
            return Ok(());
        };
        let disposition = self.shared.config.settle();
        log::warn!(
            "{}: {count} packets that a dead worker had just taken: {disposition:?}",
            self.seat
        );
        queue.settle_through(last, disposition)?;
        self.row.add(Cell::Received, count.into());
        self.row.add(Cell::Settled, count.into());
        Ok(())
    }
}

impl Inspector for Turn<'_> {
    fn batch(&mut self, highest: PacketId, packets: usize) {
        self.now = now();
        let slot = self.seat.slot();
        self.row.add(Cell::Received, packets as u64);
        self.shared.pages.set_received(slot, highest.0);
        self.shared.pages.stamp(slot, self.now.monotonic_ns);
    }

    fn packet(&mut self, packet: Packet<'_>) -> Verdict {
        if let Gap::Unknown { noted, .. } = self.gap {
            self.gap = Gap::Before {
                noted,
                first: packet.id.0,
            };
        }
        self.inspection.inspect(packet, self.now)
    }
}

/// Both clocks, read once a batch.
fn now() -> Timestamp {
    Timestamp {
        wall_us: wall_us(),
        monotonic_ns: monotonic_ns(),
    }
}

struct Events<'a> {
    x: &'a (),
}
impl EventSink for Events<'_> {
    fn emit(&mut self, _: &[u8]) {}
}
struct RawRejects;
impl RejectSender for RawRejects {
    fn send(&mut self, packet: &[u8], to: std::net::IpAddr) {}
}
struct Convictions<'a> {
    x: &'a (),
}
impl Feedback for Convictions<'_> {
    fn convict(&mut self, key: &ips_common::FlowKey, signature_id: u32) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(gap: Gap, idle: bool, expected: Option<(u32, u32)>) {
        let mut gap = gap;
        let settled = gap.settle(idle).map(|(count, last)| (count, last.0));
        assert_eq!(settled, expected, "{gap:?}");
    }

    #[test]
    fn the_ids_between_the_last_noted_and_the_first_received_are_settled_once() {
        check(
            Gap::Before {
                noted: 10,
                first: 15,
            },
            false,
            Some((4, 14)),
        );
        check(
            Gap::Before {
                noted: 10,
                first: 11,
            },
            false,
            None,
        );
        check(
            Gap::Before {
                noted: u32::MAX,
                first: 3,
            },
            false,
            Some((3, 2)),
        );
        check(
            Gap::Unknown {
                noted: 10,
                queued: 12,
            },
            false,
            None,
        );
        check(
            Gap::Unknown {
                noted: 10,
                queued: 12,
            },
            true,
            Some((2, 12)),
        );
        check(
            Gap::Unknown {
                noted: 10,
                queued: 10,
            },
            true,
            None,
        );
        // A queue bound anew counts from 1 again: nothing of the former one is left.
        check(
            Gap::Before {
                noted: 10,
                first: 1,
            },
            false,
            None,
        );
        check(Gap::Closed, true, None);
        let mut gap = Gap::Before {
            noted: 10,
            first: 15,
        };
        assert!(gap.settle(false).is_some());
        assert!(gap.settle(true).is_none());
    }
}
