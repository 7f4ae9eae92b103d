//! What the supervisor does about workers that have more to do than they can: it measures how
//! long their packets wait, tells them how much to leave undone, and reports it.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use serde_json::{Value, json};

use super::Supervisor;
use super::occupancy::Occupancy;
use super::seat::Seat;
use crate::config::Config;
use crate::desk::Overload as Level;
use crate::exception::Cause;
use crate::flow::Timestamp;
use crate::health::delay::Delay;
use crate::health::overload::{Bounds, Load, Shift};
use crate::log::eve;
use crate::metrics::board::{Board, Cell};
use crate::metrics::queue_truth::{self, QueueTruth};
use crate::source::nfqueue;
use crate::sys::process::{monotonic_ns, wall_us};

/// One seat's load.
#[derive(Debug, Default)]
pub(super) struct Strain {
    delay: Delay,
    load: Load,
    /// How long the longest waiting packet has been waiting.
    pub(super) now: Duration,
    /// Shed until the present overload began.
    shed_before: u64,
}

impl Strain {
    /// What its worker leaves undone.
    pub(super) fn level(&self) -> Level {
        self.load.level()
    }
}

impl Supervisor {
    /// Looks at all queues.
    pub(super) fn judge_overload(&mut self) {
        // Absent: the kernel has no queue, and nothing to wait in.
        let queues = queue_truth::read().unwrap_or_default();
        let bounds = self.config.overload_bounds();
        let mut records = Vec::new();
        for occupancy in self.seats.iter_mut() {
            let queue = occupancy.queue;
            let truth = queues.iter().find(|truth| truth.queue == queue);
            let truth = truth.copied().unwrap_or_default();
            records.extend(judge(occupancy, truth, bounds, &self.config, &self.board));
            if truth.waiting > self.config.queue.length / 2 {
                // A full queue lets packets pass, and only now and then somebody counts them.
                self.steering.pages().note_detour();
            }
        }
        let now = Timestamp {
            wall_us: wall_us(),
            monotonic_ns: monotonic_ns(),
        };
        for record in records {
            let line = eve::own(now, self.utc_offset_s, "overload", &record);
            if self.events.emit(&line) == crate::log::pipe::Emitted::Lost {
                log::warn!("an overload event was lost: the event writer does not keep up");
            }
        }
    }
}

/// Looks at one queue; returns the fields of a record when its worker has become overloaded, or
/// is not any more. `overload.recover_ms` bounds how often that is.
fn judge(
    occupancy: &mut Occupancy,
    truth: QueueTruth,
    bounds: Bounds,
    config: &Config,
    board: &Board,
) -> Option<Value> {
    let serves = occupancy.serves_steadily();
    let fill = fill(truth, occupancy.socket().map(AsFd::as_fd), config);
    let seat = occupancy.seat;
    let (strain, past) = (&mut occupancy.strain, &mut occupancy.past);
    let now_ns = monotonic_ns();
    strain.now = strain.delay.look(now_ns, truth.last_id, truth.waiting);
    past.longest_delay = past.longest_delay.max(strain.now);
    // What waits for a worker that is dead or hangs is none of its load: that is judged by its
    // heartbeat, and what has piled up meanwhile shall be inspected.
    let (delay, fill) = match serves {
        true => (strain.now, fill),
        false => (Duration::ZERO, 0),
    };
    let shift = strain.load.judge(now_ns, delay, fill, bounds);
    let level = strain.load.level();
    // Another supervisor may have left something there.
    if level != occupancy.desk.overload() {
        occupancy.desk.set_overload(level);
        log::debug!("{seat}: overload level {level:?}, delay {delay:?}, {fill} % full");
    }
    let shed = board.row(seat).get(Cell::Shed);
    match shift? {
        Shift::Entered => {
            past.overloads += 1;
            strain.shed_before = shed;
            Some(entered(seat, delay, fill, config))
        }
        Shift::Left { lasted, longest } => {
            let shed = shed.saturating_sub(strain.shed_before);
            Some(left(seat, lasted, longest, shed))
        }
    }
}

fn entered(seat: Seat, delay: Duration, fill: u32, config: &Config) -> Value {
    let policy = config.treatments().of(Cause::Overload);
    log::warn!(
        "{seat} is overloaded: packets wait {} ms, its queue is {fill} % full; \
         exceptions.overload: {policy}",
        delay.as_millis()
    );
    json!({
        "seat": seat.to_string(),
        "state": "entered",
        "delay_ms": delay.as_millis() as u64,
        "fill_percent": fill,
        "policy": policy.name(),
    })
}

fn left(seat: Seat, lasted: Duration, longest: Duration, shed: u64) -> Value {
    log::info!(
        "{seat} was overloaded for {lasted:.1?}: {shed} packets shed, longest delay {} ms",
        longest.as_millis()
    );
    json!({
        "seat": seat.to_string(),
        "state": "left",
        "lasted_ms": lasted.as_millis() as u64,
        "longest_delay_ms": longest.as_millis() as u64,
        "shed": shed,
    })
}

/// How full a queue is, in percent: by packets, or by the bytes in its socket's buffer.
fn fill(truth: QueueTruth, socket: Option<BorrowedFd<'_>>, config: &Config) -> u32 {
    if truth.waiting == 0 {
        return 0;
    }
    let packets = u64::from(truth.waiting) * 100 / u64::from(config.queue.length.max(1));
    let bytes = socket.and_then(|socket| nfqueue::buffer_fill(socket).ok());
    u32::try_from(packets)
        .unwrap_or(100)
        .max(bytes.unwrap_or(0))
}
