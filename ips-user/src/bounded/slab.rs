//! Elements by number, in chunks that never move.

use std::ops::{Index, IndexMut};

/// Elements of a chunk.
const CHUNK: usize = 256;

/// A vector that grows without copying what it holds.
#[derive(Clone, Debug)]
pub(crate) struct Slab<T> {
    chunks: Vec<Vec<T>>,
}

impl<T> Slab<T> {
    /// What an element costs: itself, and its share of what chunks cost.
    pub(crate) const BYTES: usize = size_of::<T>() + 1;

    pub(crate) const fn new() -> Self {
        Self { chunks: Vec::new() }
    }

    pub(crate) fn len(&self) -> usize {
        let last = self.chunks.last().map_or(CHUNK, Vec::len);
        (self.chunks.len() * CHUNK) + last - CHUNK
    }

    /// Puts an element behind the others.
    pub(crate) fn push(&mut self, element: T) {
        match self.chunks.last_mut() {
            Some(last) if last.len() < CHUNK => last.push(element),
            _ => {
                let mut chunk = Vec::with_capacity(CHUNK);
                chunk.push(element);
                self.chunks.push(chunk);
            }
        }
    }

    pub(crate) fn get(&self, place: u32) -> Option<&T> {
        let place = place as usize;
        self.chunks.get(place / CHUNK)?.get(place % CHUNK)
    }

    pub(crate) fn get_mut(&mut self, place: u32) -> Option<&mut T> {
        let place = place as usize;
        self.chunks.get_mut(place / CHUNK)?.get_mut(place % CHUNK)
    }

    /// Puts an element at a place, or behind the others.
    pub(crate) fn set(&mut self, place: u32, element: T) {
        match self.get_mut(place) {
            Some(old) => *old = element,
            None => self.push(element),
        }
    }
}

impl<T> Index<u32> for Slab<T> {
    type Output = T;

    fn index(&self, place: u32) -> &T {
        let place = place as usize;
        &self.chunks[place / CHUNK][place % CHUNK]
    }
}

impl<T> IndexMut<u32> for Slab<T> {
    fn index_mut(&mut self, place: u32) -> &mut T {
        let place = place as usize;
        &mut self.chunks[place / CHUNK][place % CHUNK]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_stay_where_they_are() {
        let mut slab = Slab::new();
        assert_eq!((slab.len(), slab.get(0)), (0, None));
        slab.push(0);
        let first: *const u32 = &raw const slab[0];
        for number in 1..1000 {
            slab.set(number, number);
        }
        assert_eq!(slab.len(), 1000);
        assert!((0..1000).all(|number| slab[number] == number));
        assert_eq!((slab.get(1000), slab.get(u32::MAX)), (None, None));
        slab.set(700, 7);
        slab[701] += 1;
        assert_eq!((slab[700], slab[701], slab.len()), (7, 702, 1000));
        assert_eq!(first, &raw const slab[0]);
    }
}
