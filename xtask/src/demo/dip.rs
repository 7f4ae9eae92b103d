//! How long throughput was down after a moment, read from a timeline in steps of 10 ms.

use std::time::Duration;

use serde_json::json;
use sluice_tests::stream::{STEP, Timeline};

/// Steps before the moment that say what is usual.
const USUAL_STEPS: usize = 100;
/// What begins later after the moment has another cause: other work on the machine.
const ONSET_STEPS: usize = 10;

/// A disturbance.
pub(super) struct Dip {
    /// Median bytes of a step before the moment.
    pub(super) usual: u64,
    /// The longest time below half of that which began within 100 ms of the moment.
    pub(super) longest: Duration,
    /// The same before the moment: how uneven the undisturbed stream is.
    pub(super) usual_longest: Duration,
    /// Steps around the moment, from 10 before it on.
    around: Vec<u64>,
}

impl Dip {
    /// Looks at `window` after `since`, which counts from the timeline's start.
    pub(super) fn find(timeline: &Timeline, since: Duration, window: Duration) -> Self {
        let steps = &timeline.bytes;
        let step = |time: Duration| {
            usize::try_from(time.as_nanos() / STEP.as_nanos()).unwrap_or(usize::MAX)
        };
        let moment = step(since).min(steps.len());
        let before = &steps[moment.saturating_sub(USUAL_STEPS)..moment];
        // The step of the moment itself is half before it.
        let end = moment.saturating_add(step(window)).min(steps.len());
        let after = &steps[moment..end];
        let mut sorted = before.to_vec();
        sorted.sort_unstable();
        let usual = sorted.get(sorted.len() / 2).copied().unwrap_or(0);
        Self {
            usual,
            longest: longest_below(after, usual / 2, ONSET_STEPS),
            usual_longest: longest_below(before, usual / 2, before.len()),
            around: steps[moment.saturating_sub(10)..end.min(moment + 50)].to_vec(),
        }
    }

    /// With every figure.
    pub(super) fn data(&self) -> serde_json::Value {
        json!({
            "usual_bytes_per_10_ms": self.usual,
            "below_half_ms": self.longest.as_millis(),
            "below_half_before_ms": self.usual_longest.as_millis(),
            "bytes_per_10_ms_from_100_ms_before": self.around,
        })
    }
}

/// The longest run of steps below `bytes` that begins within the first `onset` steps. No step at
/// all is not an undisturbed stream.
fn longest_below(steps: &[u64], bytes: u64, onset: usize) -> Duration {
    if steps.is_empty() || bytes == 0 {
        return Duration::MAX;
    }
    let (mut longest, mut current) = (0, 0);
    for (index, step) in steps.iter().enumerate() {
        if *step >= bytes {
            current = 0;
        } else if current > 0 || index < onset {
            current += 1;
            longest = longest.max(current);
        }
    }
    STEP * longest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(bytes: Vec<u64>, since_steps: u32) -> Dip {
        Dip::find(
            &Timeline { bytes },
            STEP * since_steps,
            Duration::from_secs(1),
        )
    }

    #[test]
    fn a_dip_lasts_as_long_as_steps_stay_below_half_of_the_usual() {
        let mut bytes = vec![100; 50];
        bytes.extend([40, 0, 10, 49]);
        bytes.extend(vec![100; 50]);
        let dip = find(bytes, 50);
        assert_eq!((dip.usual, dip.longest), (100, STEP * 4));
        assert_eq!(dip.usual_longest, Duration::ZERO);
    }

    #[test]
    fn what_begins_later_is_not_part_of_the_dip() {
        let mut bytes = vec![100; 50];
        bytes.extend([
            0, 100, 100, 100, 100, 100, 100, 100, 100, 0, 0, 0, 100, 100, 0, 0, 0, 0, 0,
        ]);
        assert_eq!(find(bytes, 50).longest, STEP * 3);
    }

    #[test]
    fn a_stream_that_never_comes_back_is_down_to_the_end() {
        let mut bytes = vec![100; 50];
        bytes.extend(vec![0; 80]);
        assert_eq!(find(bytes, 50).longest, STEP * 80);
    }

    #[test]
    fn nothing_measured_is_not_taken_for_undisturbed() {
        assert_eq!(find(vec![], 0).longest, Duration::MAX);
        assert_eq!(find(vec![0; 100], 50).longest, Duration::MAX);
    }
}
