//! Notes what this worker has in hand, and keeps it from the flows that others died of.

use ips_common::FlowKey;

use crate::desk::Desk;
use crate::desk::hands::{Hand, Hands};
use crate::desk::watchlist::{Standing, Watch, Watchlist};
use crate::inspection::Guard;
use crate::maps::WorkerPages;
use crate::source::PacketId;
use crate::supervisor::seat::Seat;

/// What the workers and the supervisor tell each other about dangerous flows.
#[derive(Debug)]
pub struct Dangers {
    /// The flows that workers died of.
    pub watchlist: Watchlist,
    /// What each worker has in hand.
    pub hands: Hands,
}

/// Stands before the inspection of one worker.
#[derive(Debug)]
pub(super) struct FlowGuard<'a> {
    desk: &'a Desk,
    hand: Hand<'a>,
    watch: Watch<'a>,
    /// The backup's further precautions.
    backup: Option<Precautions<'a>>,
}

/// The backup takes the flows of workers that hang, but not into the same trap.
#[derive(Debug)]
struct Precautions<'a> {
    hands: &'a Hands,
    pages: &'a WorkerPages,
    stale_ns: u64,
    /// What workers that do not beat have in hand.
    elsewhere: Vec<FlowKey>,
}

impl<'a> FlowGuard<'a> {
    pub(super) fn new(
        seat: Seat,
        desk: &'a Desk,
        dangers: &'a Dangers,
        pages: &'a WorkerPages,
        stale_ns: u64,
    ) -> Self {
        let hands = &dangers.hands;
        Self {
            desk,
            hand: hands.occupy(seat),
            watch: Watch::new(&dangers.watchlist),
            backup: (seat == Seat::Backup).then_some(Precautions {
                hands,
                pages,
                stale_ns,
                elsewhere: Vec::new(),
            }),
        }
    }

    /// Heartbeats older than this are stale from now on.
    pub(super) fn set_stale(&mut self, stale_ns: u64) {
        if let Some(precautions) = &mut self.backup {
            precautions.stale_ns = stale_ns;
        }
    }

    /// A batch has arrived.
    pub(super) fn batch(&mut self, now_ns: u64) {
        if let Some(precautions) = &mut self.backup {
            precautions.look(now_ns);
        }
    }

    /// Notes the packet that comes next; `place` is where it is in the desk's buffers.
    pub(super) fn take_in_hand(&self, id: PacketId, place: Option<usize>, length: usize) {
        self.hand.put_down();
        // Bytes that are not in the desk's buffers cannot be found again: none, then.
        let length = place.map_or(0, |_| length);
        self.desk.take_in_hand(id, place.unwrap_or(0), length);
    }

    /// The batch is done.
    pub(super) fn put_down(&self) {
        self.hand.put_down();
        self.desk.put_down();
    }
}

impl Guard for FlowGuard<'_> {
    fn admit(&mut self, key: &FlowKey) -> bool {
        let admitted = match (self.watch.standing(key), &self.backup) {
            (Some(Standing::Quarantined), _) | (Some(Standing::Suspect), Some(_)) => false,
            (_, Some(precautions)) => !precautions.elsewhere.contains(key),
            (_, None) => true,
        };
        if admitted {
            self.desk.note_flow(key);
            self.hand.note(key);
        }
        admitted
    }
}

impl Precautions<'_> {
    /// The TC program sends flows here from the moment when a heartbeat is stale. A worker that
    /// is dead is no matter any more: before its seat is down the supervisor has seen to it.
    fn look(&mut self, now_ns: u64) {
        self.elsewhere.clear();
        for (seat, hand) in self.hands.workers() {
            let age_ns = now_ns.saturating_sub(self.pages.heartbeat(seat.slot()));
            if age_ns >= self.stale_ns {
                self.elsewhere.extend(hand.key());
            }
        }
    }
}
