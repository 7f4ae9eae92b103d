//! The table from hash slots to workers.
//!
//! Rendezvous hashing (Thaler and Ravishankar, 1998): each slot goes to the worker that bids
//! highest for it. A worker that leaves gives up its own slots only, and one that comes takes
//! only what it will keep, so no flow moves between workers that stay.

use aya::maps::{Array, MapData};
use ips_common::TABLE_SLOTS;

use super::MapsError;

/// The worker of each slot. Which slot a worker gets depends on its id and those of the others
/// alone, not on their order. Without workers all slots are zero; `SteerConfig::workers` then
/// has to be zero too.
pub fn worker_table(workers: &[u32]) -> Vec<u32> {
    (0..TABLE_SLOTS)
        .map(|slot| {
            workers
                .iter()
                .copied()
                .max_by_key(|&worker| (bid(slot, worker), worker))
                .unwrap_or(0)
        })
        .collect()
}

/// The finalizer of splitmix64 (Steele, Lea and Flood, 2014): every input bit changes every
/// output bit with a probability of one half.
fn bid(slot: u32, worker: u32) -> u64 {
    let mut x = (u64::from(slot) << 32 | u64::from(worker)).wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The map `TABLE`.
pub struct Table {
    map: Array<MapData, u32>,
    /// What the map holds; only this process writes it.
    written: Vec<u32>,
}

impl Table {
    pub(super) fn new(map: Array<MapData, u32>) -> Result<Self, MapsError> {
        let written = map
            .iter()
            .collect::<Result<_, _>>()
            .map_err(MapsError::operation("TABLE", "read"))?;
        Ok(Self { map, written })
    }

    /// What is in force.
    pub fn slots(&self) -> &[u32] {
        &self.written
    }

    /// Writes the slots that differ; returns how many. A packet that comes meanwhile finds the
    /// old or the new worker of its slot.
    ///
    /// # Errors
    /// When the kernel refuses; the slots before were written.
    pub fn write(&mut self, slots: &[u32]) -> Result<usize, MapsError> {
        let mut changed = 0;
        for (index, (written, &worker)) in (0..).zip(self.written.iter_mut().zip(slots)) {
            if *written != worker {
                self.map
                    .set(index, worker, 0)
                    .map_err(MapsError::operation("TABLE", "write"))?;
                *written = worker;
                changed += 1;
            }
        }
        Ok(changed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::btree_set;
    use proptest::prelude::*;

    use super::*;

    fn share(table: &[u32], worker: u32) -> usize {
        table.iter().filter(|&&slot| slot == worker).count()
    }

    #[test]
    fn slots_are_shared_evenly() {
        for workers in [1_usize, 2, 3, 8, 16, 64] {
            let ids: Vec<u32> = (0..workers as u32).collect();
            let table = worker_table(&ids);
            assert_eq!(table.len(), TABLE_SLOTS as usize);
            let fair = TABLE_SLOTS as f64 / workers as f64;
            // Five standard deviations of a binomial distribution.
            let tolerance = 5.0 * (fair * (1.0 - 1.0 / workers as f64)).sqrt();
            for id in ids {
                let difference = (share(&table, id) as f64 - fair).abs();
                assert!(
                    difference <= tolerance,
                    "{workers} workers: worker {id} is {difference} slots off"
                );
            }
        }
    }

    #[test]
    fn without_workers_all_slots_are_zero() {
        assert!(worker_table(&[]).iter().all(|&slot| slot == 0));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn a_worker_that_leaves_or_comes_moves_its_own_slots_only(
            ids in btree_set(0_u32..1024, 2..20), pick: prop::sample::Index,
        ) {
            let all: Vec<u32> = ids.into_iter().collect();
            let gone = all[pick.index(all.len())];
            let rest: Vec<u32> = all.iter().copied().filter(|&id| id != gone).collect();
            for (with, without) in worker_table(&all).into_iter().zip(worker_table(&rest)) {
                prop_assert!(with == without || with == gone);
                prop_assert!(without != gone);
            }
        }

        #[test]
        fn the_order_of_the_workers_does_not_matter(
            ids in btree_set(0_u32..1024, 1..20),
        ) {
            let forward: Vec<u32> = ids.iter().copied().collect();
            let backward: Vec<u32> = ids.iter().rev().copied().collect();
            prop_assert_eq!(worker_table(&forward), worker_table(&backward));
        }
    }
}
