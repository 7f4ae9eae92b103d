//! Whether a worker takes packets, judged for each one.

use ips_common::{WorkerSlot, WorkerState};

use crate::atomic;

/// What a worker's entry says.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Liveness {
    /// It takes packets.
    Alive,
    /// The supervisor says it does not.
    Down,
    /// The supervisor does not know yet: its heartbeat is too old.
    Stale,
}

/// Judges a worker at time `now` (CLOCK_MONOTONIC, as the heartbeats are).
#[inline(always)]
pub(crate) fn of(worker: *mut WorkerSlot, now: u64, stale_ns: u64) -> Liveness {
    // SAFETY: an array map's element is never freed; each field is read by one aligned load,
    // which is atomic, and no reference to memory that userspace writes is made.
    let (state, heartbeat) = unsafe {
        (
            (&raw const (*worker).state).read_volatile(),
            (&raw const (*worker).heartbeat_ns).read_volatile(),
        )
    };
    if state != WorkerState::Up as u32 {
        Liveness::Down
    } else if now.saturating_sub(heartbeat) < stale_ns {
        // A heartbeat ahead of `now` was stamped on another CPU in between.
        Liveness::Alive
    } else {
        Liveness::Stale
    }
}

/// Notes when the heartbeat was first found stale; true for the one that noted it.
#[inline(always)]
pub(crate) fn trip(worker: *mut WorkerSlot, now: u64) -> bool {
    // SAFETY: an array map's element is never freed, and the field is aligned; everybody,
    // userspace included, uses it atomically.
    unsafe {
        let tripped = &raw mut (*worker).tripped_ns;
        tripped.read_volatile() == 0 && atomic::compare_exchange(tripped, 0, now) == 0
    }
}
