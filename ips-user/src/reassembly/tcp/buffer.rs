//! The bytes of one direction that are kept: pieces of the stream, each where it belongs.

use crate::bounded::{grown, heap};

/// A run of bytes without a hole.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    /// Place of the first byte in the stream.
    start: u64,
    /// Unused bytes in front: taken off already, or room to grow backwards.
    head: usize,
    bytes: Vec<u8>,
}

impl PartialEq for Piece {
    fn eq(&self, other: &Self) -> bool {
        self.start == other.start && self.data() == other.data()
    }
}

impl Eq for Piece {}

impl Piece {
    pub(super) fn start(&self) -> u64 {
        self.start
    }

    pub(super) fn end(&self) -> u64 {
        self.start + self.data().len() as u64
    }

    pub(super) fn data(&self) -> &[u8] {
        &self.bytes[self.head..]
    }

    /// The bytes of this piece in `from..to`, both inside it.
    pub(super) fn slice(&self, from: u64, to: u64) -> &[u8] {
        &self.data()[(from - self.start) as usize..(to - self.start) as usize]
    }

    fn slice_mut(&mut self, from: u64, to: u64) -> &mut [u8] {
        let (from, to) = (from - self.start, to - self.start);
        &mut self.bytes[self.head..][from as usize..to as usize]
    }

    /// Puts bytes in front. Room for as much again is made, so that data that arrives
    /// backwards is not copied with every segment.
    fn prepend(&mut self, data: &[u8]) {
        if self.head < data.len() {
            let room = data.len() + self.data().len().min(BACKWARDS);
            let mut moved = Vec::with_capacity(room + self.data().len());
            moved.resize(room, 0);
            moved.extend_from_slice(self.data());
            self.bytes = moved;
            self.head = room;
        }
        self.head -= data.len();
        self.bytes[self.head..][..data.len()].copy_from_slice(data);
        self.start -= data.len() as u64;
    }

    /// Puts bytes behind.
    fn append(&mut self, data: &[u8]) {
        let len = self.bytes.len();
        let room = grown(len, self.bytes.capacity(), data.len());
        self.bytes.reserve_exact(room - len);
        self.bytes.extend_from_slice(data);
    }

    /// What it takes besides its place among the others.
    fn taken(&self) -> usize {
        heap(self.bytes.capacity())
    }

    /// Takes bytes off the front; moves the rest only when that is the smaller part.
    fn trim(&mut self, before: u64) {
        let off = (before - self.start) as usize;
        self.head += off;
        self.start = before;
        if self.head > self.bytes.len() - self.head {
            self.bytes.drain(..self.head);
            self.head = 0;
            if self.bytes.capacity() > 4 * self.bytes.len().max(4096) {
                self.bytes.shrink_to(2 * self.bytes.len());
            }
        }
    }
}

/// Pieces in the order of the stream, none touching the next.
#[derive(Clone, Debug, Default)]
pub(super) struct Buffer {
    pieces: Vec<Piece>,
    /// Bytes taken by the pieces.
    allocated: usize,
    /// The last piece's memory while there is none, so that a stream whose data is always
    /// taken at once does not allocate for each segment.
    spare: Vec<u8>,
}

/// Capacity is no property of the stream.
impl PartialEq for Buffer {
    fn eq(&self, other: &Self) -> bool {
        self.pieces == other.pieces
    }
}

impl Eq for Buffer {}

/// Most bytes kept as [`Buffer::spare`].
const SPARE: usize = 16 << 10;

/// Beyond its bytes, what a piece takes.
const PIECE: usize = size_of::<Piece>();

/// Most room that is made in front of a piece which has grown backwards.
const BACKWARDS: usize = 1 << 16;

impl Buffer {
    /// Bytes of memory in use.
    pub(super) fn allocated(&self) -> usize {
        self.allocated + heap(self.pieces.capacity() * PIECE) + heap(self.spare.capacity())
    }

    /// What [`Buffer::fill`] takes at most for `from..to`.
    pub(super) fn cost(&self, from: u64, to: u64) -> usize {
        let more = (to - from) as usize;
        let next = self.first_after(from);
        let right = self.pieces.get(next).filter(|piece| piece.start == to);
        let left = (next.checked_sub(1))
            .map(|last| &self.pieces[last])
            .filter(|piece| piece.end() == from);
        let backwards = |len: usize| more + len + (more + len).min(BACKWARDS);
        let (before, after) = match (left, right) {
            (None, None) => {
                let places = self.pieces.capacity();
                let places_then = grown(self.pieces.len(), places, 1);
                (
                    heap(places * PIECE) + heap(self.spare.capacity()),
                    heap(places_then * PIECE) + heap(grown(0, self.spare.capacity(), more)),
                )
            }
            (Some(left), None) => {
                let bytes = &left.bytes;
                let then = grown(bytes.len(), bytes.capacity(), more);
                (left.taken(), heap(then))
            }
            (None, Some(right)) if right.head >= more => (0, 0),
            (None, Some(right)) => (right.taken(), heap(backwards(right.data().len()))),
            (Some(left), Some(right)) => {
                let bytes = &left.bytes;
                let behind = more + right.data().len();
                let forwards = grown(bytes.len(), bytes.capacity(), behind);
                let backwards = backwards(left.data().len() + right.data().len());
                (left.taken() + right.taken(), heap(forwards.max(backwards)))
            }
        };
        after.saturating_sub(before)
    }

    /// Gives back what it does not need.
    pub(super) fn compact(&mut self) {
        self.spare = Vec::new();
        for index in 0..self.pieces.len() {
            self.change(index, |piece| {
                if piece.bytes.capacity() > piece.data().len() {
                    piece.bytes = piece.data().to_vec();
                    piece.head = 0;
                }
            });
        }
        self.pieces.shrink_to_fit();
    }

    pub(super) fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// The first piece that ends after `offset`.
    fn first_after(&self, offset: u64) -> usize {
        // Nearly always the last one or none.
        match self.pieces.last() {
            Some(last) if last.end() <= offset => self.pieces.len(),
            _ => self.pieces.partition_point(|piece| piece.end() <= offset),
        }
    }

    /// The piece with the byte at `offset`.
    pub(super) fn piece_at(&self, offset: u64) -> Option<&Piece> {
        let piece = self.pieces.get(self.first_after(offset))?;
        (piece.start <= offset).then_some(piece)
    }

    /// The piece with the byte at `offset`, or the next one after it.
    pub(super) fn piece_from(&self, offset: u64) -> Option<&Piece> {
        self.pieces.get(self.first_after(offset))
    }

    /// Where the run that reaches to or over `offset` ends; `offset` when there is none.
    pub(super) fn contiguous_end(&self, offset: u64) -> u64 {
        self.piece_at(offset).map_or(offset, Piece::end)
    }

    /// What there is in `from..to`: parts of pieces, in order.
    pub(super) fn present(&self, from: u64, to: u64) -> impl Iterator<Item = (u64, &[u8])> {
        self.pieces[self.first_after(from)..]
            .iter()
            .take_while(move |piece| piece.start < to)
            .map(move |piece| {
                let (from, to) = (piece.start.max(from), piece.end().min(to));
                (from, piece.slice(from, to))
            })
    }

    /// The first stretch of `from..to` of which there is nothing.
    pub(super) fn hole(&self, from: u64, to: u64) -> Option<(u64, u64)> {
        let mut from = from;
        for piece in &self.pieces[self.first_after(from)..] {
            if piece.start > from {
                break;
            }
            from = piece.end();
        }
        if from >= to {
            return None;
        }
        let next = self.pieces.get(self.first_after(from));
        Some((from, next.map_or(to, |piece| piece.start.min(to))))
    }

    /// Puts bytes where there are none yet.
    pub(super) fn fill(&mut self, at: u64, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        let end = at + data.len() as u64;
        let next = self.first_after(at);
        let touches_next = self
            .pieces
            .get(next)
            .is_some_and(|piece| piece.start == end);
        let touches_last = next > 0 && self.pieces[next - 1].end() == at;
        match (touches_last, touches_next) {
            (true, false) => {
                self.change(next - 1, |piece| piece.append(data));
            }
            (false, true) => self.change(next, |piece| piece.prepend(data)),
            (true, true) => {
                let right = self.pieces.remove(next);
                self.allocated -= right.taken();
                if right.data().len() > self.pieces[next - 1].data().len() {
                    // The smaller part is the one to copy.
                    let left = std::mem::replace(&mut self.pieces[next - 1], right);
                    self.allocated += self.pieces[next - 1].taken();
                    self.allocated -= left.taken();
                    self.change(next - 1, |piece| {
                        piece.prepend(data);
                        piece.prepend(left.data());
                    });
                } else {
                    self.change(next - 1, |piece| {
                        let behind = data.len() + right.data().len();
                        let room = grown(piece.bytes.len(), piece.bytes.capacity(), behind);
                        piece.bytes.reserve_exact(room - piece.bytes.len());
                        piece.bytes.extend_from_slice(data);
                        piece.bytes.extend_from_slice(right.data());
                    });
                }
            }
            (false, false) => {
                let mut piece = Piece {
                    start: at,
                    head: 0,
                    bytes: std::mem::take(&mut self.spare),
                };
                piece.append(data);
                self.allocated += piece.taken();
                self.insert(next, piece);
            }
        }
    }

    /// Puts bytes in the place of those that are there.
    pub(super) fn replace(&mut self, at: u64, data: &[u8]) {
        let end = at + data.len() as u64;
        let first = self.first_after(at);
        for piece in &mut self.pieces[first..] {
            if piece.start >= end {
                break;
            }
            let (from, to) = (piece.start.max(at), piece.end().min(end));
            let new = &data[(from - at) as usize..(to - at) as usize];
            piece.slice_mut(from, to).copy_from_slice(new);
        }
    }

    /// Takes `from..to` out.
    pub(super) fn remove(&mut self, from: u64, to: u64) {
        let mut index = self.first_after(from);
        if from >= to {
            return;
        }
        while let Some(piece) = self.pieces.get_mut(index) {
            if piece.start >= to {
                break;
            }
            let (start, end) = (piece.start, piece.end());
            if start < from {
                let after = (end > to).then(|| Piece {
                    start: to,
                    head: 0,
                    bytes: piece.slice(to, end).to_vec(),
                });
                piece.bytes.truncate(piece.head + (from - start) as usize);
                index += 1;
                if let Some(after) = after {
                    self.allocated += after.taken();
                    self.insert(index, after);
                }
            } else if end > to {
                self.change(index, |piece| piece.trim(to));
                index += 1;
            } else {
                self.discard(index);
            }
        }
    }

    /// Lets go of everything before `before`.
    pub(super) fn trim(&mut self, before: u64) {
        while let Some(piece) = self.pieces.first() {
            if piece.end() <= before {
                self.discard(0);
            } else {
                if piece.start < before {
                    self.change(0, |piece| piece.trim(before));
                }
                break;
            }
        }
    }

    /// Lets go of everything.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    fn insert(&mut self, index: usize, piece: Piece) {
        let len = self.pieces.len();
        let room = grown(len, self.pieces.capacity(), 1);
        self.pieces.reserve_exact(room - len);
        self.pieces.insert(index, piece);
    }

    fn discard(&mut self, index: usize) {
        let piece = self.pieces.remove(index);
        self.allocated -= piece.taken();
        let mut bytes = piece.bytes;
        if self.pieces.is_empty() && bytes.capacity() <= SPARE {
            bytes.clear();
            self.spare = bytes;
        }
    }

    fn change(&mut self, index: usize, change: impl FnOnce(&mut Piece)) {
        let piece = &mut self.pieces[index];
        let before = piece.taken();
        change(piece);
        self.allocated = self.allocated + piece.taken() - before;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Fills the holes of `at..`, as a stream does where the first data wins.
    fn put(buffer: &mut Buffer, at: u64, data: &[u8]) {
        let end = at + data.len() as u64;
        while let Some((from, to)) = buffer.hole(at, end) {
            let most = buffer.allocated() + buffer.cost(from, to);
            buffer.fill(from, &data[(from - at) as usize..(to - at) as usize]);
            assert!(buffer.allocated() <= most);
        }
    }

    fn check(buffer: &Buffer, model: &[Option<u8>]) {
        let mut found = vec![None; model.len()];
        let mut last_end = None;
        for piece in buffer.pieces() {
            assert!(!piece.data().is_empty());
            assert!(
                last_end.is_none_or(|end| piece.start() > end),
                "touching or out of order"
            );
            last_end = Some(piece.end());
            for (at, byte) in (piece.start() as usize..).zip(piece.data()) {
                found[at] = Some(*byte);
            }
        }
        assert_eq!(found, model);
        let taken: usize = buffer.pieces.iter().map(Piece::taken).sum();
        assert_eq!(buffer.allocated, taken);
    }

    proptest! {
        #[test]
        fn it_is_a_map_of_bytes(
            steps in proptest::collection::vec((0u8..4, 0usize..200, 0usize..60, any::<u8>()), 1..80),
        ) {
            const LEN: usize = 300;
            let mut buffer = Buffer::default();
            let mut model = vec![None; LEN];
            let mut trimmed = 0;
            for (what, at, len, seed) in steps {
                let at = at.max(trimmed);
                let data: Vec<u8> = (0..len).map(|i| seed.wrapping_add(i as u8)).collect();
                let (from, to) = (at as u64, (at + len) as u64);
                match what {
                    0 | 1 => {
                        put(&mut buffer, from, &data);
                        for (slot, &byte) in model[at..].iter_mut().zip(&data) {
                            slot.get_or_insert(byte);
                        }
                    }
                    2 => {
                        buffer.replace(from, &data);
                        for (slot, &byte) in model[at..].iter_mut().zip(&data) {
                            *slot = slot.map(|_| byte);
                        }
                    }
                    _ if seed % 8 == 1 => {
                        buffer.compact();
                        prop_assert!(buffer.spare.is_empty());
                    }
                    _ if seed % 4 == 0 => {
                        trimmed = at;
                        buffer.trim(from);
                        model[..at].fill(None);
                    }
                    _ => {
                        buffer.remove(from, to);
                        model[at..at + len].fill(None);
                    }
                }
                check(&buffer, &model);
                let hole = (at..at + len).find(|&at| model[at].is_none());
                prop_assert_eq!(buffer.hole(from, to).map(|(from, _)| from as usize), hole);
                let present: usize = buffer.present(from, to).map(|(_, data)| data.len()).sum();
                prop_assert_eq!(present, model[at..at + len].iter().flatten().count());
            }
        }
    }

    #[test]
    fn data_that_arrives_backwards_is_not_copied_each_time() {
        let mut buffer = Buffer::default();
        let mut copies = 0;
        let mut capacity = 0;
        for at in (0..100_000).rev() {
            buffer.fill(at, &[at as u8]);
            copies += usize::from(buffer.pieces[0].bytes.capacity() != capacity);
            capacity = buffer.pieces[0].bytes.capacity();
        }
        assert_eq!(buffer.pieces.len(), 1);
        assert!(copies < 30, "{copies} copies");
    }

    #[test]
    fn taking_data_at_once_does_not_allocate() {
        let mut buffer = Buffer::default();
        buffer.fill(0, &[1; 1460]);
        buffer.trim(1460);
        let spare = buffer.spare.as_ptr();
        buffer.fill(1460, &[2; 1460]);
        assert_eq!(buffer.pieces[0].bytes.as_ptr(), spare);
    }
}
