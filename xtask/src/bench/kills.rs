//! Kills workers at a steady rate.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::Result;
use nix::sys::signal::Signal;

use crate::stage::status::{Seat, Status};
use crate::stage::{Stage, processes};

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Victim {
    /// The workers in turn
    Worker,
    /// Whoever got the most packets since the last kill, the backup too
    Busiest,
}

/// Kills one each `interval` for so long; how many had somebody to kill.
pub(super) fn kill_for(
    stage: &Stage,
    victim: Victim,
    interval: Duration,
    length: Duration,
) -> Result<u64> {
    let began = Instant::now();
    let mut killed = BTreeSet::new();
    let mut queued = stage.queued()?;
    let mut turn = 0;
    while began.elapsed() < length {
        let now = stage.queued()?;
        let through: Vec<(u16, u32)> = now
            .iter()
            .filter_map(|(queue, last)| {
                let (_, before) = queued.iter().find(|(other, _)| other == queue)?;
                Some((*queue, last.wrapping_sub(*before)))
            })
            .collect();
        queued = now;
        // A supervisor that is busy with a death may answer late.
        if let Ok(status) = stage.glance() {
            let alive = |seat: &&Seat| seat.state == "up" && !killed.contains(&seat.pid);
            let victim = match victim {
                Victim::Worker => next(&status, turn, alive),
                Victim::Busiest => busiest(&status, &through).filter(alive),
            };
            if let Some(pid) = victim.map(|seat| seat.pid) {
                processes::signal(pid, Signal::SIGKILL)?;
                killed.insert(pid);
            }
        }
        turn += 1;
        let due = began + interval * u32::try_from(turn)?;
        stage
            .interrupt
            .pause(due.saturating_duration_since(Instant::now()))?;
    }
    Ok(killed.len() as u64)
}

/// The worker whose turn it is, or the next one that works.
fn next(status: &Status, turn: usize, alive: impl Fn(&&Seat) -> bool) -> Option<&Seat> {
    let workers = &status.workers;
    (0..workers.len())
        .map(|step| &workers[(turn + step) % workers.len()])
        .find(alive)
}

fn busiest<'a>(status: &'a Status, through: &[(u16, u32)]) -> Option<&'a Seat> {
    let (queue, _) = through.iter().max_by_key(|(_, packets)| *packets)?;
    status.seat_of(*queue)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status(states: [&str; 3]) -> Status {
        let seat = |number: u16, state: &str| {
            json!({
                "seat": format!("worker {number}"), "pid": 10 + number, "state": state,
                "queue": 101 + number, "restarts": 0, "trips": 0,
                "received": 0, "accepted": 0, "dropped": 0,
                "kernel": {"waiting": 0, "queue_dropped": 0, "user_dropped": 0},
            })
        };
        let workers: Vec<_> = (0..)
            .zip(states)
            .map(|(number, state)| seat(number, state))
            .collect();
        serde_json::from_value(json!({
            "netfilter": "nft", "interfaces": {}, "rules": 0, "counters": {},
            "workers": workers, "backup": seat(9, "up"),
        }))
        .expect("a status")
    }

    #[test]
    fn workers_are_killed_in_turn_and_those_that_are_down_are_passed_over() {
        let up = |seat: &&Seat| seat.state == "up";
        let pid = |states, turn| next(&status(states), turn, up).map(|seat| seat.pid);
        assert_eq!(pid(["up", "up", "up"], 4), Some(11));
        assert_eq!(pid(["up", "down", "up"], 4), Some(12));
        assert_eq!(pid(["up", "down", "down"], 4), Some(10));
        assert_eq!(pid(["down"; 3], 4), None);
    }

    #[test]
    fn the_busiest_seat_is_the_one_whose_queue_got_the_most() {
        let status = status(["up"; 3]);
        let busiest = busiest(&status, &[(101, 5), (110, 9), (102, 7)]);
        assert_eq!(busiest.map(|seat| seat.queue), Some(110));
    }
}
