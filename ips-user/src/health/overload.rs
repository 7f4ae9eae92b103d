//! Judges whether a worker has more to do than it can, with hysteresis.
//!
//! There are two speeds. What is left undone, the level, follows the queue from look to look: it
//! rises when packets wait too long or the queue fills, and ends as soon as that is well below
//! the bounds again, so that no more is left undone than has to be. Being *overloaded*, which is
//! what is reported, begins with the first such rise and ends only when nothing had to be left
//! undone for a while.

use std::time::Duration;

use crate::desk::Overload as Level;

/// What is enough at the first level must show within this time, else everything is left undone.
const FIRST_LEVEL: Duration = Duration::from_millis(50);

/// When a worker is overloaded, and when not any more.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Longest time from queueing to verdict.
    pub latency: Duration,
    /// How full a queue may be, in percent.
    pub fill: u32,
    /// The percentage of both that ends the level.
    pub relief: u32,
    /// How long it must stay below that.
    pub recover: Duration,
    /// Whether the first level exists.
    pub first_level: bool,
}

/// What changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shift {
    /// It is overloaded.
    Entered,
    /// It is not any more.
    Left {
        /// How long it was.
        lasted: Duration,
        /// The longest delay meanwhile.
        longest: Duration,
    },
}

/// Judgement of one worker over time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Load {
    level: Level,
    level_since_ns: u64,
    entered_ns: Option<u64>,
    calm_since_ns: Option<u64>,
    longest: Duration,
}

impl Load {
    /// What is to be left undone.
    pub fn level(&self) -> Level {
        self.level
    }

    /// Whether it is overloaded.
    pub fn is_overloaded(&self) -> bool {
        self.entered_ns.is_some()
    }

    /// Looks at a queue: how long its packets wait, and how full it is in percent.
    pub fn judge(
        &mut self,
        now_ns: u64,
        delay: Duration,
        fill: u32,
        bounds: Bounds,
    ) -> Option<Shift> {
        let over = delay >= bounds.latency || fill >= bounds.fill;
        let relieved = delay * 100 < bounds.latency * bounds.relief
            && fill * 100 < bounds.fill * bounds.relief;
        let at_level = since(self.level_since_ns, now_ns);
        let level = match self.level {
            Level::None if over && bounds.first_level => Level::Some,
            Level::None if over => Level::All,
            Level::Some if over && at_level >= FIRST_LEVEL => Level::All,
            _ if relieved => Level::None,
            level => level,
        };
        if level != self.level {
            self.level = level;
            self.level_since_ns = now_ns;
        }
        let Some(entered_ns) = self.entered_ns else {
            return over.then(|| {
                self.entered_ns = Some(now_ns);
                self.longest = delay;
                Shift::Entered
            });
        };
        self.longest = self.longest.max(delay);
        if !relieved {
            self.calm_since_ns = None;
            return None;
        }
        let calm_since = *self.calm_since_ns.get_or_insert(now_ns);
        if since(calm_since, now_ns) < bounds.recover {
            return None;
        }
        let left = Shift::Left {
            lasted: since(entered_ns, calm_since),
            longest: self.longest,
        };
        *self = Self::default();
        Some(left)
    }
}

fn since(then_ns: u64, now_ns: u64) -> Duration {
    Duration::from_nanos(now_ns.saturating_sub(then_ns))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        latency: Duration::from_millis(100),
        fill: 80,
        relief: 50,
        recover: Duration::from_millis(1000),
        first_level: true,
    };

    /// Each look: time and delay in milliseconds, fill, then the level and whether overloaded.
    fn check(bounds: Bounds, looks: &[(u64, u64, u32, Level, bool)]) -> Vec<Shift> {
        let mut load = Load::default();
        let mut shifts = Vec::new();
        for &(at_ms, delay_ms, fill, level, overloaded) in looks {
            let delay = Duration::from_millis(delay_ms);
            shifts.extend(load.judge(at_ms * 1_000_000, delay, fill, bounds));
            let found = (load.level(), load.is_overloaded());
            assert_eq!(found, (level, overloaded), "at {at_ms} ms");
        }
        shifts
    }

    #[test]
    fn the_level_follows_the_queue_and_the_overload_ends_when_it_has_been_calm() {
        let shifts = check(
            BOUNDS,
            &[
                (0, 99, 79, Level::None, false),
                (10, 100, 10, Level::Some, true),
                (30, 90, 10, Level::Some, true),
                (40, 50, 10, Level::Some, true),
                (50, 49, 10, Level::None, true),
                // Again, before it was calm for long enough.
                (900, 120, 10, Level::Some, true),
                (950, 40, 10, Level::None, true),
                (1900, 40, 10, Level::None, true),
                (1950, 0, 0, Level::None, false),
                (1960, 0, 0, Level::None, false),
            ],
        );
        let left = Shift::Left {
            lasted: Duration::from_millis(940),
            longest: Duration::from_millis(120),
        };
        assert_eq!(shifts, [Shift::Entered, left]);
    }

    #[test]
    fn what_the_first_level_cannot_relieve_everything_must() {
        let looks = [
            (0, 110, 0, Level::Some, true),
            (49, 150, 0, Level::Some, true),
            (50, 150, 0, Level::All, true),
            (60, 90, 0, Level::All, true),
            (70, 20, 0, Level::None, true),
        ];
        assert_eq!(check(BOUNDS, &looks), [Shift::Entered]);
        let without = Bounds {
            first_level: false,
            ..BOUNDS
        };
        check(without, &[(0, 100, 0, Level::All, true)]);
    }

    #[test]
    fn a_queue_that_fills_is_overload_however_short_the_wait() {
        let looks = [
            (0, 5, 79, Level::None, false),
            (10, 5, 80, Level::Some, true),
            (20, 5, 40, Level::Some, true),
            (30, 5, 39, Level::None, true),
        ];
        assert_eq!(check(BOUNDS, &looks), [Shift::Entered]);
    }
}
