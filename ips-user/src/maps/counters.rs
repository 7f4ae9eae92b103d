//! What the eBPF programs have counted.

use aya::maps::{MapData, PerCpuArray};
use ips_common::Counter;

use super::MapsError;

/// The map `COUNTERS`.
pub struct Counters {
    map: PerCpuArray<MapData, [u64; Counter::COUNT]>,
}

impl Counters {
    pub(super) fn new(map: PerCpuArray<MapData, [u64; Counter::COUNT]>) -> Self {
        Self { map }
    }

    /// All counters, summed over the CPUs.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn read(&self) -> Result<CounterTotals, MapsError> {
        let per_cpu = self
            .map
            .get(&0, 0)
            .map_err(MapsError::operation("COUNTERS", "read"))?;
        let mut totals = CounterTotals::default();
        for cpu in per_cpu.iter() {
            for (total, value) in totals.0.iter_mut().zip(cpu) {
                *total = total.wrapping_add(*value);
            }
        }
        Ok(totals)
    }
}

/// The value of every counter at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CounterTotals([u64; Counter::COUNT]);

impl CounterTotals {
    /// One of them.
    pub fn get(&self, counter: Counter) -> u64 {
        self.0[counter as usize]
    }

    /// All of them, in the order of [`Counter::ALL`].
    pub fn iter(&self) -> impl Iterator<Item = (Counter, u64)> + '_ {
        Counter::ALL.into_iter().zip(self.0)
    }

    /// What was counted since `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        let mut difference = *self;
        for (value, before) in difference.0.iter_mut().zip(earlier.0) {
            *value = value.wrapping_sub(before);
        }
        difference
    }
}
