//! Rare events for the supervisor.

use ips_common::{Counter, Event, EventKind, FlowKey};

use crate::count::Counts;
use crate::maps::EVENTS;

/// Puts an event into the ring, or counts that it did not fit.
#[inline(always)]
pub(crate) fn emit(kind: EventKind, key: &FlowKey, worker: u32, now: u64, counts: Counts) {
    let Some(mut entry) = EVENTS.reserve::<Event>(0) else {
        counts.one(Counter::EventsLost);
        return;
    };
    entry.write(Event {
        time_ns: now,
        key: *key,
        kind: kind as u32,
        worker,
    });
    entry.submit(0);
}
