//! How long packets wait for their verdicts, at no cost per packet.
//!
//! The kernel says how many packets were put into a queue (the last id) and how many of them
//! have no verdict yet. Verdicts are given in order, so what has one are the ids up to the
//! difference. What was queued when the supervisor last looked, and has no verdict now, has
//! waited at least since then: the result is a lower bound, short by the time between two looks.
//! (Ids of packets that did not fit into the socket's buffer count as settled early, which also
//! makes it shorter.)

use std::collections::VecDeque;
use std::time::Duration;

/// Looks that are remembered. When they are more, every other one is forgotten, the oldest never:
/// the bound gets coarser, and stays one.
const LOOKS: usize = 512;

/// Looks that follow each other by less than this part of the delay are one: it is precise to
/// that part.
const PART: u64 = 64;

/// One look at a queue.
#[derive(Clone, Copy, Debug)]
struct Look {
    at_ns: u64,
    last_id: u32,
}

/// The delay of one queue over time.
#[derive(Clone, Debug, Default)]
pub struct Delay {
    /// Those after which packets still wait, the oldest first.
    looks: VecDeque<Look>,
}

impl Delay {
    /// Looks at the queue; returns how long the longest waiting packet has been waiting, at
    /// least.
    pub fn look(&mut self, now_ns: u64, last_id: u32, waiting: u32) -> Duration {
        if self
            .looks
            .back()
            .is_some_and(|it| after(it.last_id, last_id))
        {
            // Bound anew, its ids begin again.
            self.looks.clear();
        }
        let settled = last_id.wrapping_sub(waiting);
        while self
            .looks
            .front()
            .is_some_and(|look| !after(look.last_id, settled))
        {
            self.looks.pop_front();
        }
        let oldest_ns = self.looks.front().map_or(now_ns, |look| look.at_ns);
        let apart_ns = now_ns.saturating_sub(oldest_ns) / PART;
        let news = self
            .looks
            .back()
            .is_none_or(|it| it.last_id != last_id && now_ns.saturating_sub(it.at_ns) >= apart_ns);
        if waiting > 0 && news {
            self.looks.push_back(Look {
                at_ns: now_ns,
                last_id,
            });
        }
        if self.looks.len() > LOOKS {
            let mut index = 0;
            self.looks.retain(|_| {
                index += 1;
                index % 2 == 1
            });
        }
        let oldest = self.looks.front();
        oldest.map_or(Duration::ZERO, |look| {
            Duration::from_nanos(now_ns.saturating_sub(look.at_ns))
        })
    }
}

/// Whether id `a` was given later than `b`: ids wrap, half of the circle is "later".
fn after(a: u32, b: u32) -> bool {
    a != b && a.wrapping_sub(b) < 1 << 31
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(looks: &[(u64, u32, u32, u64)]) {
        let mut delay = Delay::default();
        for (index, &(at_ms, last_id, waiting, expected)) in looks.iter().enumerate() {
            let found = delay.look(at_ms * 1_000_000, last_id, waiting);
            assert_eq!(found.as_millis() as u64, expected, "look {index}");
        }
    }

    #[test]
    fn a_packet_has_waited_since_the_first_look_that_saw_it() {
        check(&[
            (0, 10, 0, 0),
            (10, 20, 5, 0),
            // 18 have their verdict: what came before the look at 10 still waits.
            (20, 25, 7, 10),
            (30, 30, 11, 20),
            // 21 to 24 wait: the look at 20 saw them first.
            (40, 30, 10, 20),
            (50, 30, 6, 30),
            (60, 30, 1, 30),
            (70, 30, 0, 0),
            (80, 31, 1, 0),
        ]);
    }

    #[test]
    fn nothing_that_waits_is_forgotten_however_long_it_takes() {
        let mut delay = Delay::default();
        for tick in 0..10_000 {
            let found = delay.look(tick * 10_000_000, 100 + tick as u32, 50 + tick as u32);
            assert_eq!(found.as_millis() as u64, tick * 10);
            assert!(delay.looks.len() <= LOOKS);
        }
        // Half of them settled: the bound is coarser by what was forgotten, and never too long.
        let found = delay.look(100_000_000_000, 10_100, 5_000).as_millis();
        assert!((48_500..=50_000).contains(&found), "{found}");
    }

    #[test]
    fn ids_wrap_and_begin_anew() {
        check(&[
            (0, u32::MAX - 1, 2, 0),
            (10, 3, 6, 10),
            (20, 4, 3, 10),
            // Another socket: nothing of what was known holds.
            (30, 1, 1, 0),
        ]);
    }
}
