//! Changes the table while flows go on: those that a worker holds stay with it until they end.
//!
//! The table knows slots, not flows. So before a slot goes to another worker, each of its flows
//! is placed at the worker that has it:
//!
//! 1. The slots are marked as moving. They name their old worker still, and the TC program
//!    places every flow that it sees in them.
//! 2. Flows that send nothing now are known to their worker only. Once it has worked off what
//!    was queued before the first step, it is asked for a list.
//! 3. What it lists of the moving slots is placed.
//! 4. The slots get their new workers.
//!
//! A worker that dies or hangs meanwhile has lost its flows anyway: nobody waits for it. Nothing
//! here waits in place; [`Moving::advance`] is called until it says that it is done.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use ips_common::{FlowKey, MOVING, Placement, PlacementReason, table_worker};
use serde::{Deserialize, Serialize};
use tokio::task::{JoinHandle, spawn_blocking};

use super::occupancy::{Occupancy, Phase};
use super::seat::Seat;
use super::seats::Seats;
use super::steering::Steering;
use crate::config::Config;
use crate::desk::{Command, CommandNumber, Desk};
use crate::maps::worker_table;
use crate::metrics::queue_truth::{self, QueueTruth};
use crate::sys::process::monotonic_ns;
use crate::sys::softirq::wait_for_packets_underway;
use crate::worker::handing_over::NOTHING;

/// How long a worker may take to work off its queue, and then to list its flows.
const STEP_WITHIN: Duration = Duration::from_secs(2);

/// What became of the flows in the slots that moved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// Slots that have another worker now.
    pub slots: usize,
    /// Flows that stay with their worker, as far as it has listed them; those seen meanwhile are
    /// counted by the TC program.
    pub flows_kept: usize,
    /// Flows that go to another worker, because there is no room to place them.
    pub flows_moved: usize,
    /// Workers whose flows that sent nothing meanwhile go to others, and why.
    pub unlisted: BTreeMap<String, String>,
}

/// A change under way.
#[derive(Debug)]
pub(super) struct Moving {
    /// The table before it.
    before: Vec<u32>,
    /// The table after it.
    next: Vec<u32>,
    /// Old worker of each slot that moves.
    slots: HashMap<usize, u32>,
    step: Step,
    /// The old workers.
    holders: Vec<Holder>,
}

#[derive(Debug)]
enum Step {
    /// The mark is not seen by every packet yet.
    Marking(JoinHandle<()>),
    /// Workers work off what was queued before, and list their flows.
    Listing,
}

/// A worker that may hold flows in moving slots.
#[derive(Debug)]
struct Holder {
    index: u32,
    /// Its process when the change began; another one has other flows.
    pid: Option<u32>,
    /// It hands its flows over to another process, which is asked instead.
    relieved: bool,
    /// Packets up to this one were queued before the slots were marked.
    last: Option<u32>,
    state: Listing,
    since: Instant,
}

#[derive(Debug)]
enum Listing {
    /// Not asked yet.
    WorkingOff,
    Asked(CommandNumber),
    Done(Vec<FlowKey>),
    Failed(&'static str),
}

impl Moving {
    /// Has the table name these workers; marks the slots that change.
    pub(super) fn begin(
        workers: &[u32],
        seats: &Seats,
        steering: &mut Steering,
    ) -> anyhow::Result<Self> {
        let before: Vec<u32> = steering
            .table()
            .iter()
            .map(|it| table_worker(*it))
            .collect();
        let next = worker_table(workers);
        let mut entries = before.clone();
        let mut slots = HashMap::new();
        let mut holders = BTreeMap::new();
        for (slot, (entry, new)) in entries.iter_mut().zip(&next).enumerate() {
            let old = *entry;
            if old != *new {
                *entry = old | MOVING;
                slots.insert(slot, old);
                holders
                    .entry(old)
                    .or_insert_with(|| Holder::new(old, seats));
            }
        }
        let mut moving = Self {
            before,
            next,
            slots,
            step: Step::Listing,
            holders: holders.into_values().collect(),
        };
        if let Err(error) = steering.write_table(&entries) {
            moving.give_up(steering);
            return Err(error);
        }
        moving.step = Step::Marking(spawn_blocking(wait_for_packets_underway));
        Ok(moving)
    }

    /// Goes on as far as that is possible now; what came of it when that was all.
    pub(super) async fn advance(
        &mut self,
        seats: &Seats,
        steering: &mut Steering,
        config: &Config,
    ) -> anyhow::Result<Option<Moved>> {
        if let Step::Marking(marking) = &mut self.step {
            if !marking.is_finished() {
                return Ok(None);
            }
            marking.await?;
            let queues = queue_truth::read().unwrap_or_default();
            for holder in &mut self.holders {
                holder.note_queued(seats, &queues);
            }
            self.step = Step::Listing;
        }
        let queues = queue_truth::read().unwrap_or_default();
        for holder in &mut self.holders {
            holder.advance(seats, steering, &queues, config.flow.max as usize);
        }
        if !self.holders.iter().all(Holder::is_finished) {
            return Ok(None);
        }
        let moved = self.place(steering, config)?;
        steering.write_table(&self.next)?;
        Ok(Some(moved))
    }

    /// Leaves every slot to the worker that had it.
    pub(super) fn give_up(&self, steering: &mut Steering) {
        if let Err(error) = steering.write_table(&self.before) {
            log::error!("the table stays half changed: {error:#}");
        }
    }

    /// Places the listed flows.
    fn place(&mut self, steering: &mut Steering, config: &Config) -> anyhow::Result<Moved> {
        let mut moved = Moved {
            slots: self.slots.len(),
            ..Moved::default()
        };
        let now_ns = monotonic_ns();
        let idle_ns = steering.placement_idle_ns();
        // Flows that are placed already have left the worker that lists them, or were seen since
        // the slots were marked.
        let placed = steering.placements().list(usize::MAX)?;
        let fresh = |it: &Placement| now_ns.saturating_sub(it.last_ns) <= idle_ns;
        let placed: HashSet<FlowKey> = placed
            .into_iter()
            .filter(|(_, placement)| fresh(placement))
            .map(|(key, _)| key)
            .collect();
        // Some room is left, for the backup and because the kernel makes room too early.
        let most = config.steering.max_placed as usize / 16 * 15;
        let room = most.saturating_sub(placed.len());
        let mut flows = Vec::new();
        for holder in &mut self.holders {
            let seat = Seat::Worker(holder.index);
            match std::mem::replace(&mut holder.state, Listing::Failed("")) {
                Listing::Done(keys) => {
                    let of_slot = |key: &FlowKey| self.slots.get(&steering.slot_of(key));
                    let mine = |key: &FlowKey| of_slot(key) == Some(&holder.index);
                    let mine = keys.into_iter().filter(mine);
                    for key in mine.filter(|key| !placed.contains(key)) {
                        if flows.len() >= room {
                            moved.flows_moved += 1;
                            continue;
                        }
                        let placement = Placement {
                            last_ns: now_ns,
                            target: holder.index,
                            from_worker: holder.index,
                            reason: PlacementReason::Kept as u32,
                            reserved: 0,
                        };
                        flows.push((key, placement));
                    }
                }
                Listing::Failed(why) => {
                    log::warn!("{seat} has not listed its flows ({why}): idle ones move");
                    moved.unlisted.insert(seat.to_string(), why.to_owned());
                }
                Listing::WorkingOff | Listing::Asked(_) => {}
            }
        }
        let refused = steering.placements().insert(&flows)?;
        moved.flows_kept = flows.len() - refused;
        moved.flows_moved += refused;
        Ok(moved)
    }
}

impl Holder {
    fn new(index: u32, seats: &Seats) -> Self {
        let seat = seats.get(Seat::Worker(index));
        Self {
            index,
            pid: seat.and_then(Occupancy::pid),
            relieved: false,
            last: None,
            state: match seat {
                Some(_) => Listing::WorkingOff,
                None => Listing::Failed("it is gone"),
            },
            since: Instant::now(),
        }
    }

    fn is_finished(&self) -> bool {
        matches!(self.state, Listing::Done(_) | Listing::Failed(_))
    }

    /// Notes the last packet that was queued when every packet has seen the mark.
    fn note_queued(&mut self, seats: &Seats, queues: &[QueueTruth]) {
        let queue = seats.get(Seat::Worker(self.index)).map(|it| it.queue);
        let truth = queues.iter().find(|truth| Some(truth.queue) == queue);
        self.last = truth.map(|truth| truth.last_id);
        self.since = Instant::now();
    }

    fn advance(&mut self, seats: &Seats, steering: &Steering, queues: &[QueueTruth], most: usize) {
        if self.is_finished() {
            return;
        }
        let seat = Seat::Worker(self.index);
        let Some(occupancy) = seats.get(seat) else {
            self.state = Listing::Failed("it is gone");
            return;
        };
        if occupancy.predecessor.is_some() {
            self.relieved = true;
            self.state = Listing::WorkingOff;
            self.since = Instant::now();
            return;
        }
        if self.relieved && occupancy.phase == Phase::Up {
            self.relieved = false;
            self.pid = occupancy.pid();
        }
        if self.relieved && occupancy.phase == Phase::Starting {
            return;
        }
        if occupancy.pid() != self.pid || occupancy.phase != Phase::Up {
            self.state = Listing::Failed("it has died");
            return;
        }
        let late = self.since.elapsed() > STEP_WITHIN;
        match self.state {
            Listing::WorkingOff => {
                let received = steering.pages().received(seat.slot()).map(|it| it.id);
                let queue = queues.iter().find(|truth| truth.queue == occupancy.queue);
                let empty = queue.is_none_or(|truth| truth.waiting == 0);
                if empty || has_reached(received, self.last) {
                    self.state = Listing::Asked(occupancy.desk.give(Command::ListFlows));
                    self.since = Instant::now();
                } else if late {
                    self.state = Listing::Failed("its queue is not worked off");
                }
            }
            Listing::Asked(number) => match occupancy.desk.answer(number) {
                Some(NOTHING) => self.state = Listing::Failed("it could not"),
                Some(count) => {
                    let count = usize::try_from(count).unwrap_or(most).min(most);
                    self.state = read_keys(&occupancy.desk, count).map_or_else(
                        |error| {
                            log::warn!("{seat}: reading the list of its flows: {error}");
                            Listing::Failed("its list cannot be read")
                        },
                        Listing::Done,
                    );
                }
                None if late => {
                    occupancy.desk.clear_command();
                    self.state = Listing::Failed("it did not answer");
                }
                None => {}
            },
            Listing::Done(_) | Listing::Failed(_) => {}
        }
    }
}

/// Whether the packet `last` has been received; ids wrap.
fn has_reached(received: Option<u32>, last: Option<u32>) -> bool {
    match (received, last) {
        (Some(received), Some(last)) => received.wrapping_sub(last).cast_signed() >= 0,
        (_, None) => true,
        (None, Some(_)) => false,
    }
}

/// What a worker has written: one key after the other, whatever a compromised one calls a key.
fn read_keys(desk: &Desk, count: usize) -> io::Result<Vec<FlowKey>> {
    let file = File::from(desk.flows().try_clone_to_owned()?);
    let mut keys = vec![FlowKey::default(); count];
    file.read_exact_at(bytemuck::cast_slice_mut(&mut keys), 0)?;
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn packet_ids_are_compared_across_their_wrap() {
        let reached = |received, last| has_reached(Some(received), Some(last));
        assert!(reached(7, 7) && reached(8, 7) && !reached(6, 7));
        assert!(reached(1, u32::MAX) && !reached(u32::MAX, 1));
        assert!(!has_reached(None, Some(7)), "nothing was received");
        assert!(has_reached(None, None), "nothing was queued");
    }

    #[test]
    fn as_many_keys_are_read_as_the_worker_says_and_no_fewer() {
        let desk = Desk::create(4096).unwrap();
        let key = |port| FlowKey {
            low_port: port,
            ..FlowKey::default()
        };
        let mut file = File::from(desk.flows().try_clone_to_owned().unwrap());
        for port in 0..3 {
            file.write_all(bytemuck::bytes_of(&key(port))).unwrap();
        }
        assert_eq!(read_keys(&desk, 2).unwrap(), [key(0), key(1)]);
        assert_eq!(read_keys(&desk, 3).unwrap().len(), 3);
        read_keys(&desk, 4).unwrap_err();
    }
}
