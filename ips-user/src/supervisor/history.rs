//! What a successor goes on counting from, so that an upgrade or a takeover does not make
//! `sluice status` forget what has happened.
//!
//! It goes on where the workers' counters do: when nothing of a former run is left but its
//! record, all of it begins anew.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::instance::Record;
use super::occupancy::Occupancy;
use super::seat::Seat;
use super::{FIRST_GENERATION, Supervisor};
use crate::metrics::passed::Passed;
use crate::metrics::snapshot::{self, Retired};
use crate::sys::process::wall_us;

/// How many ends of processes are remembered of each seat.
const EXITS: usize = 8;

/// An instance's, over all of its supervisors.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct History {
    /// When the first of them started, CLOCK_MONOTONIC.
    pub(super) started_ns: u64,
    /// The last rules and configuration that were tried.
    pub(super) generation: u32,
    /// How many times the launcher was replaced.
    pub(super) launcher_restarts: u64,
    /// How many times the rejecter was started again.
    pub(super) rejecter_restarts: u64,
    /// How workers ended.
    pub(super) deaths: snapshot::Deaths,
    /// What passed because a queue was full.
    pub(super) passed: Passed,
    /// The seats'.
    pub(super) seats: Vec<(Seat, Past)>,
}

/// What became of those who sat in a seat.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Past {
    /// How many times the process was replaced.
    pub(super) restarts: u64,
    /// How many times its heartbeat was found stale.
    pub(super) trips: u64,
    /// How many processes were killed because they hung.
    pub(super) hangs: u64,
    /// How many times nobody served it for so long that what waited went by policy.
    pub(super) vacancies: u64,
    /// How many times it was overloaded.
    pub(super) overloads: u64,
    /// The longest that a packet was found waiting.
    pub(super) longest_delay: Duration,
    /// The last ends, the latest at the end.
    exits: VecDeque<Exit>,
}

/// The end of a process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Exit {
    /// When, CLOCK_MONOTONIC.
    pub(super) at_ns: u64,
    /// Microseconds since 1970-01-01 00:00 UTC.
    pub(super) wall_us: i64,
    /// Why.
    pub(super) how: String,
}

impl History {
    /// What a supervisor begins with that starts now: the history of its predecessor when it
    /// takes over the workers' counters.
    pub(super) fn after(left: &Record, goes_on: bool, now_ns: u64) -> Self {
        let mut history = match goes_on {
            true => left.history.clone(),
            false => Self::default(),
        };
        // A predecessor may have recorded none.
        if history.started_ns == 0 || history.started_ns > now_ns {
            history.started_ns = now_ns;
        }
        history
    }

    /// The number of the rules that are compiled next.
    pub(super) fn next_generation(&self) -> u32 {
        self.generation.saturating_add(1).max(FIRST_GENERATION)
    }

    /// Takes a seat's part out of it.
    pub(super) fn take(&mut self, seat: Seat) -> Past {
        let at = self.seats.iter().position(|(of, _)| *of == seat);
        at.map(|at| self.seats.swap_remove(at).1)
            .unwrap_or_default()
    }

    /// What is left of seats that nobody has taken.
    pub(super) fn retire(&mut self, retired: &mut Retired) {
        for (_, past) in self.seats.drain(..) {
            past.retire(retired);
        }
    }
}

/// What a predecessor has counted beside its history: of seats that are gone, and of programs.
pub(super) fn totals(left: &Record, goes_on: bool) -> (Retired, u64) {
    match goes_on {
        true => (left.retired.clone(), left.upgrades),
        false => Default::default(),
    }
}

impl Past {
    /// A process has ended.
    pub(super) fn ended(&mut self, now_ns: u64, how: String) {
        if self.exits.len() >= EXITS {
            self.exits.pop_front();
        }
        self.exits.push_back(Exit {
            at_ns: now_ns,
            wall_us: wall_us(),
            how,
        });
    }

    /// The last ends, the latest at the end.
    pub(super) fn exits(&self) -> impl Iterator<Item = &Exit> {
        self.exits.iter()
    }

    /// How the last process ended.
    pub(super) fn last_exit(&self) -> Option<&str> {
        self.exits.back().map(|exit| exit.how.as_str())
    }

    /// The seat is gone.
    pub(super) fn retire(&self, retired: &mut Retired) {
        retired.restarts += self.restarts;
        retired.trips += self.trips;
        retired.hangs += self.hangs;
    }
}

impl Supervisor {
    /// For a successor.
    pub(super) fn history(&self) -> History {
        let past = |it: &Occupancy| (it.seat, it.past.clone());
        History {
            started_ns: self.started_ns,
            generation: self.last_generation,
            launcher_restarts: self.launcher_restarts,
            rejecter_restarts: self.rejecter.restarts(),
            deaths: self.deaths.counters(),
            passed: self.upkeep.passed.clone(),
            seats: self.seats.iter().map(past).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_few_ends_of_processes_are_remembered() {
        let mut past = Past::default();
        for number in 0..20 {
            past.ended(number, format!("exit status {number}"));
        }
        assert_eq!(past.exits().count(), EXITS);
        assert_eq!(past.exits().next().unwrap().at_ns, 12);
        assert_eq!(past.last_exit(), Some("exit status 19"));
    }

    fn record() -> Record {
        let past = |restarts| Past {
            restarts,
            trips: 1,
            ..Past::default()
        };
        Record {
            history: History {
                started_ns: 7,
                generation: 4,
                seats: vec![(Seat::Worker(0), past(2)), (Seat::Worker(1), past(3))],
                ..History::default()
            },
            ..Record::default()
        }
    }

    #[test]
    fn history_goes_on_where_the_counters_do() {
        let mut history = History::after(&record(), true, 100);
        assert_eq!((history.started_ns, history.next_generation()), (7, 5));
        assert_eq!(history.take(Seat::Worker(1)).restarts, 3);
        assert_eq!(history.take(Seat::Backup), Past::default());
        // There are fewer workers than there were.
        let mut retired = Retired::default();
        history.retire(&mut retired);
        assert_eq!((retired.restarts, retired.trips), (2, 1));
        let anew = History::after(&record(), false, 100);
        assert_eq!((anew.started_ns, anew.next_generation()), (100, 1));
        assert!(anew.seats.is_empty());
        let left = Record {
            retired,
            upgrades: 3,
            ..record()
        };
        assert_eq!(totals(&left, true), (left.retired.clone(), 3));
        assert_eq!(totals(&left, false), (Retired::default(), 0));
        // Of a program that had none.
        let anew = History::after(&Record::default(), true, 100);
        assert_eq!((anew.started_ns, anew.next_generation()), (100, 1));
    }
}
