//! Counters: every packet ends in exactly one outcome.

use ips_common::Counter;

use crate::maps::COUNTERS;

/// This CPU's counters.
#[derive(Clone, Copy)]
pub struct Counts(*mut [u64; Counter::COUNT]);

impl Counts {
    /// Looks them up, once a packet. `None` cannot happen: the entry exists.
    #[inline(always)]
    pub fn of_this_cpu() -> Option<Self> {
        COUNTERS.get_ptr_mut(0).map(Self)
    }

    /// Adds `amount`.
    #[inline(always)]
    pub fn add(self, counter: Counter, amount: u64) {
        // SAFETY: the element of a per-CPU array is never freed and only this CPU writes it;
        // the index is in range by the definition of COUNT.
        unsafe { (*self.0)[counter as usize] += amount };
    }

    /// Adds one.
    #[inline(always)]
    pub fn one(self, counter: Counter) {
        self.add(counter, 1);
    }
}
