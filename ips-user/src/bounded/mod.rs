//! What tables are made of whose memory is bounded.
//!
//! A cap is one on what the process really takes, so a table never holds an old and a new copy of
//! itself: it grows by chunks and finds by chains whose heads are there from the beginning
//! (untouched pages cost nothing). And what is asked of the allocator counts as it is given.

mod index;
mod noted;
mod slab;

pub(crate) use index::Index;
pub(crate) use noted::Noted;
pub(crate) use slab::Slab;

/// Bytes that an allocation of so many takes from the heap: glibc's malloc adds a word, gives
/// multiples of 16, and 32 at least. Others take about as much.
pub(crate) const fn heap(bytes: usize) -> usize {
    match (bytes.saturating_add(8 + 15)) & !15 {
        _ if bytes == 0 => 0,
        rounded if rounded < 32 => 32,
        rounded => rounded,
    }
}

/// Bytes that a vector takes from the heap, without what its elements have there.
pub(crate) fn held<T>(vector: &Vec<T>) -> usize {
    heap(vector.capacity() * size_of::<T>())
}

/// The capacity of a vector of `len` of `capacity` elements after `more` have come, growing by
/// half: the same rule for who asks whether there is room and for who takes it.
pub(crate) const fn grown(len: usize, capacity: usize, more: usize) -> usize {
    let needed = len + more;
    let ample = capacity + capacity / 2;
    if needed <= capacity {
        capacity
    } else if needed > ample {
        needed
    } else {
        ample
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_allocations_cost_more_than_they_hold() {
        let costs = [0, 1, 24, 25, 40, 41, 1000].map(heap);
        assert_eq!(costs, [0, 32, 32, 48, 48, 64, 1008]);
    }

    #[test]
    fn vectors_grow_by_half_or_to_what_is_needed() {
        let check = |len, capacity, more, expect| assert_eq!(grown(len, capacity, more), expect);
        check(0, 0, 3, 3);
        check(3, 10, 7, 10);
        check(10, 10, 1, 15);
        check(10, 10, 90, 100);
    }
}
