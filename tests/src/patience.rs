//! Waiting for what takes its own time, and judging what was measured, on a machine that may have
//! others to serve for seconds.

use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long anything may take that is not measured.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Looks until there is something to be seen, and returns it.
///
/// # Panics
/// With `complaint` when there is nothing after [`PATIENCE`].
#[track_caller]
pub fn wait_for<T>(mut look: impl FnMut() -> Option<T>, complaint: impl FnOnce() -> String) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        // Before the look: the last one comes after the whole time, whoever had the CPU.
        let late = Instant::now() >= deadline;
        if let Some(seen) = look() {
            return seen;
        }
        if late {
            panic!("not within {PATIENCE:?}: {}", complaint());
        }
        sleep(LOOK_EVERY);
    }
}

/// Waits until something holds.
///
/// # Panics
/// With `complaint` when it does not after [`PATIENCE`].
#[track_caller]
pub fn wait_until(mut holds: impl FnMut() -> bool, complaint: impl FnOnce() -> String) {
    wait_for(|| holds().then_some(()), complaint);
}

/// A promise about a time is kept in one attempt of so many, at which nobody else had the CPU.
/// What must hold in each of them is the attempt's to panic of.
///
/// # Panics
/// When each attempt says why it was not kept.
#[track_caller]
pub fn kept_in_one_of(attempts: usize, mut attempt: impl FnMut() -> Result<(), String>) {
    let mut broken = Vec::new();
    while broken.len() < attempts {
        match attempt() {
            Ok(()) => return,
            Err(why) => {
                println!("attempt {}: {why}", broken.len() + 1);
                broken.push(why);
            }
        }
    }
    panic!("in none of {attempts} attempts: {broken:#?}");
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::*;

    #[test]
    fn what_comes_at_the_third_look_is_returned() {
        let mut looks = 0;
        let third = || {
            looks += 1;
            (looks == 3).then_some("here")
        };
        assert_eq!(wait_for(third, String::new), "here");
    }

    #[test]
    fn a_promise_that_is_never_kept_is_broken() {
        let mut left = 2;
        kept_in_one_of(3, || {
            left -= 1;
            (left == 0).then_some(()).ok_or("late".to_owned())
        });
        catch_unwind(|| kept_in_one_of(3, || Err("late".to_owned()))).unwrap_err();
    }
}
