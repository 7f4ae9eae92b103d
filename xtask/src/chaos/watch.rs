//! What becomes of each fault, and counters that outlive the process that counts.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::stage::status::Status;

/// How long a seat may stay without a process that works. Pauses between restarts grow to a
/// second, and the machine is busy.
pub(super) const REPLACED_WITHIN: Duration = Duration::from_secs(10);

/// Stands for the queue where a counter belongs to no seat.
const NO_SEAT: u16 = u16::MAX;

/// A process that was struck and has to be replaced.
#[derive(Clone, Debug, serde::Serialize)]
pub(super) struct Struck {
    /// The fault, for people.
    pub(super) fault: String,
    /// From the load's start.
    pub(super) at: Duration,
    /// Queue of its seat.
    queue: u16,
    /// The process.
    pub(super) pid: u32,
    /// What has to become of it.
    pub(super) fate: Fate,
    /// What became of it.
    pub(super) became: Option<Became>,
    #[serde(skip)]
    since: Instant,
}

/// What has to become of a process that was struck.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub(super) enum Fate {
    /// Another one takes its seat.
    Replaced,
    /// It may live on.
    Open,
}

/// What became of a process that was struck.
#[derive(Clone, Debug, serde::Serialize)]
pub(super) enum Became {
    /// Another one sits there, after so long; how the seat's last process ended, as it says.
    Replaced(Duration, Option<String>),
    /// The seat itself is gone.
    Dissolved,
}

/// Follows the instance.
#[derive(Debug, Default)]
pub(super) struct Watch {
    struck: Vec<Struck>,
    totals: BTreeMap<(u16, &'static str), Total>,
    /// Seats that were not up at the last look, since when.
    vacant: BTreeMap<u16, Instant>,
    longest_vacancy: Duration,
    /// The last id of each queue, `None` once it was bound anew.
    ids: BTreeMap<u16, Option<u32>>,
    last: Option<Status>,
}

/// A counter that begins at zero again with another supervisor.
#[derive(Clone, Copy, Debug, Default)]
struct Total {
    former: u64,
    current: u64,
}

impl Total {
    fn see(&mut self, value: u64) {
        if value < self.current {
            self.former += self.current;
        }
        self.current = value;
    }

    fn sum(self) -> u64 {
        self.former + self.current
    }
}

impl Watch {
    /// A process was struck: the one in the seat of a queue.
    pub(super) fn struck(
        &mut self,
        fault: String,
        at: Duration,
        (queue, pid): (u16, u32),
        fate: Fate,
    ) {
        self.struck.push(Struck {
            fault,
            at,
            queue,
            pid,
            fate,
            became: None,
            since: Instant::now(),
        });
    }

    /// Looks at the instance.
    pub(super) fn see(&mut self, status: Status) {
        for (name, value) in [
            ("upgrades", status.upgrades),
            ("launcher_restarts", status.launcher_restarts),
        ] {
            let total = self.totals.entry((NO_SEAT, name)).or_default();
            total.see(value);
        }
        for seat in status.seats() {
            for (name, value) in [
                ("restarts", seat.restarts),
                ("trips", seat.trips),
                ("received", seat.received),
                ("accepted", seat.accepted),
                ("dropped", seat.dropped),
                ("settled", seat.settled),
                ("shed", seat.shed),
                ("shed_dropped", seat.shed_dropped),
                ("quarantine_dropped", seat.quarantine_dropped),
                ("invalid_dropped", seat.invalid_dropped),
                ("flows_midstream", seat.flows_midstream),
                ("queue_dropped", seat.kernel.queue_dropped),
                ("user_dropped", seat.kernel.user_dropped),
            ] {
                let total = self.totals.entry((seat.queue, name)).or_default();
                total.see(value);
            }
            let (id, ids) = (seat.kernel.last_id, &mut self.ids);
            let last = ids.entry(seat.queue).or_insert(Some(id));
            // Ids are compared on the circle: half of it is "before".
            *last = last.filter(|it| id.wrapping_sub(*it) < 1 << 31).map(|_| id);
            let works = seat.serves();
            if works {
                self.vacant.remove(&seat.queue);
            } else {
                let since = self.vacant.entry(seat.queue).or_insert_with(Instant::now);
                self.longest_vacancy = self.longest_vacancy.max(since.elapsed());
            }
            for struck in &mut self.struck {
                if struck.became.is_none()
                    && struck.queue == seat.queue
                    && works
                    && seat.pid != struck.pid
                {
                    let after = struck.since.elapsed();
                    struck.became = Some(Became::Replaced(after, seat.last_exit.clone()));
                }
            }
        }
        for struck in &mut self.struck {
            if struck.became.is_none() && status.seat_of(struck.queue).is_none() {
                struck.became = Some(Became::Dissolved);
            }
        }
        for (queue, last) in &mut self.ids {
            last.take_if(|_| status.seat_of(*queue).is_none());
        }
        self.last = Some(status);
    }

    /// Whether a queue has gone on since it was first seen: then its ids are those of every
    /// packet that its seat has received.
    pub(super) fn bound_once(&self, queue: u16) -> bool {
        matches!(self.ids.get(&queue), Some(Some(_)))
    }

    /// The last look.
    pub(super) fn last(&self) -> Option<&Status> {
        self.last.as_ref()
    }

    /// Everything struck so far.
    pub(super) fn all(&self) -> &[Struck] {
        &self.struck
    }

    /// What has not been replaced and should have been.
    pub(super) fn unanswered(&self) -> impl Iterator<Item = &Struck> {
        self.struck
            .iter()
            .filter(|struck| struck.became.is_none() && struck.fate == Fate::Replaced)
    }

    /// Whether something struck may still be replaced in time.
    pub(super) fn is_waiting(&self) -> bool {
        self.unanswered()
            .any(|struck| struck.since.elapsed() < REPLACED_WITHIN)
    }

    /// A counter over all seats and all supervisors.
    pub(super) fn total(&self, name: &str) -> u64 {
        self.totals
            .iter()
            .filter(|((_, counter), _)| *counter == name)
            .map(|(_, total)| total.sum())
            .sum()
    }

    /// The longest time that a seat was seen without a process that works.
    pub(super) fn longest_vacancy(&self) -> Duration {
        self.longest_vacancy
    }
}

impl Struck {
    /// How the seat says that it ended.
    pub(super) fn reason(&self) -> Option<&str> {
        match &self.became {
            Some(Became::Replaced(_, how)) => how.as_deref(),
            _ => None,
        }
    }

    /// When it was replaced, from the fault on.
    pub(super) fn replaced_after(&self) -> Option<Duration> {
        match self.became {
            Some(Became::Replaced(after, _)) => Some(after),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_total_goes_on_when_a_new_supervisor_counts_from_zero() {
        let mut total = Total::default();
        for value in [0, 5, 7, 2, 2, 3] {
            total.see(value);
        }
        assert_eq!(total.sum(), 10);
    }

    fn status(queue: u16, pid: u32, state: &str) -> Status {
        let seat = |queue: u16, pid: u32, state: &str| {
            serde_json::json!({
                "seat": "worker 0", "pid": pid, "state": state, "queue": queue, "restarts": 0, "trips": 0,
                "received": 0, "accepted": 0, "dropped": 0, "last_exit": "signal SIGKILL",
                "kernel": {"waiting": 0, "queue_dropped": 0, "user_dropped": 0},
            })
        };
        serde_json::from_value(serde_json::json!({
            "pid": 1, "netfilter": "nft", "interfaces": {}, "rules": 0, "counters": {},
            "workers": [seat(queue, pid, state)], "backup": seat(100, 9, "up"),
        }))
        .expect("a status")
    }

    #[test]
    fn a_struck_process_is_answered_when_another_one_works_in_its_seat() {
        let mut watch = Watch::default();
        watch.struck("kill".into(), Duration::ZERO, (101, 7), Fate::Replaced);
        watch.see(status(101, 7, "up"));
        watch.see(status(101, 0, "down"));
        watch.see(status(101, 8, "starting"));
        assert_eq!(watch.unanswered().count(), 1);
        watch.see(status(101, 8, "up"));
        assert_eq!(watch.unanswered().count(), 0);
        assert_eq!(watch.all()[0].reason(), Some("signal SIGKILL"));
    }

    #[test]
    fn a_queue_that_was_gone_or_begins_anew_was_not_bound_once() {
        let mut watch = Watch::default();
        let mut see = |queue: u16, id: u32| {
            let mut status = status(queue, 7, "up");
            status.workers[0].kernel.last_id = id;
            watch.see(status);
            [101, 102].map(|queue| watch.bound_once(queue))
        };
        assert_eq!(see(101, 5), [true, false]);
        assert_eq!(see(101, 9), [true, false]);
        // Another worker sits there now, and the first one comes back.
        assert_eq!(see(102, 9), [false, true]);
        assert_eq!(see(101, 99), [false, false]);
        let mut watch = Watch::default();
        for (id, expected) in [(u32::MAX, true), (3, true), (2, false), (4, false)] {
            let mut status = status(101, 7, "up");
            status.workers[0].kernel.last_id = id;
            watch.see(status);
            assert_eq!(watch.bound_once(101), expected, "{id}");
        }
    }

    #[test]
    fn a_seat_that_is_gone_needs_no_process() {
        let mut watch = Watch::default();
        watch.struck("kill".into(), Duration::ZERO, (105, 7), Fate::Replaced);
        watch.see(status(101, 8, "up"));
        assert_eq!(watch.unanswered().count(), 0);
        assert_eq!(watch.all()[0].reason(), None);
    }
}
