//! The time of a batch of packets, read once by whoever receives them.

/// A moment on both clocks. Stages take it as an argument and never read a clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timestamp {
    /// Microseconds since 1970-01-01 00:00 UTC, for records.
    pub wall_us: i64,
    /// Nanoseconds of `CLOCK_MONOTONIC` (or of the capture), for intervals.
    pub monotonic_ns: u64,
}

impl Timestamp {
    /// Nanoseconds since `earlier`, zero when that is later.
    pub fn since_ns(self, earlier: Self) -> u64 {
        self.monotonic_ns.saturating_sub(earlier.monotonic_ns)
    }
}
