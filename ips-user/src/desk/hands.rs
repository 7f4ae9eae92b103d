//! Which flow each worker has in hand, where the backup can see it: it shall not hang in what a
//! worker hangs in before the supervisor has found that out.
//!
//! The desk says the same and more, but a worker has no desk but its own.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use ips_common::{FlowKey, WORKER_SLOTS};

use crate::supervisor::seat::Seat;
use crate::sys::shared_words::SharedWords;

/// Words of a hand, a cache line: whether there is a key, and the key.
const WIDTH: usize = 8;
const KEY_WORDS: usize = size_of::<FlowKey>() / size_of::<u64>();
const HANDS: usize = WORKER_SLOTS as usize;
/// Behind the hands: slots up to the highest that was ever in use.
const SLOTS: usize = HANDS * WIDTH;
const WORDS: usize = SLOTS + 1;

/// The hands of all workers.
#[derive(Debug)]
pub struct Hands {
    memory: SharedWords,
}

impl Hands {
    /// All empty.
    ///
    /// # Errors
    /// When memory or descriptors run out.
    pub fn create() -> io::Result<Self> {
        let memory = SharedWords::create(c"sluice-hands", WORDS)?;
        Ok(Self { memory })
    }

    /// Maps those that another process has created.
    ///
    /// # Errors
    /// When the descriptor is something else.
    pub fn map(file: OwnedFd) -> io::Result<Self> {
        let memory = SharedWords::map(file)?;
        if memory.words().len() != WORDS {
            return Err(io::Error::other("hands of another version"));
        }
        Ok(Self { memory })
    }

    /// The hand of a seat, for the worker that sits there.
    pub fn occupy(&self, seat: Seat) -> Hand<'_> {
        if let Seat::Worker(index) = seat {
            let slots = &self.memory.words()[SLOTS];
            slots.fetch_max(u64::from(index) + 1, Ordering::Relaxed);
        }
        self.of(seat)
    }

    /// The hand of a seat.
    pub fn of(&self, seat: Seat) -> Hand<'_> {
        let start = seat.slot() as usize * WIDTH;
        Hand {
            words: &self.memory.words()[start..start + WIDTH],
        }
    }

    /// Every worker's, and whose it is; not the backup's.
    pub fn workers(&self) -> impl Iterator<Item = (Seat, Hand<'_>)> {
        let slots = self.memory.words()[SLOTS].load(Ordering::Relaxed);
        let slots = slots.min(WORKER_SLOTS.into()) as u32;
        (0..slots).map(|index| {
            let seat = Seat::Worker(index);
            (seat, self.of(seat))
        })
    }
}

impl AsFd for Hands {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }
}

/// One worker's.
#[derive(Clone, Copy, Debug)]
pub struct Hand<'a> {
    words: &'a [AtomicU64],
}

impl Hand<'_> {
    /// A packet of this flow is being inspected.
    pub fn note(&self, key: &FlowKey) {
        let values: [u64; KEY_WORDS] = bytemuck::cast(*key);
        for (word, value) in self.words[1..].iter().zip(values) {
            word.store(value, Ordering::Relaxed);
        }
        self.words[0].store(1, Ordering::Release);
    }

    /// Nothing is being inspected, or its flow is not known.
    pub fn put_down(&self) {
        self.words[0].store(0, Ordering::Release);
    }

    /// The flow. Of a worker that goes on meanwhile it may be none that exists.
    pub fn key(&self) -> Option<FlowKey> {
        if self.words[0].load(Ordering::Acquire) == 0 {
            return None;
        }
        let mut values = [0; KEY_WORDS];
        for (value, word) in values.iter_mut().zip(&self.words[1..]) {
            *value = word.load(Ordering::Relaxed);
        }
        Some(bytemuck::cast(values))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_worker_has_in_hand_is_seen_by_others() {
        let hands = Hands::create().unwrap();
        let other = Hands::map(hands.as_fd().try_clone_to_owned().unwrap()).unwrap();
        assert_eq!(other.workers().count(), 0);
        let hand = hands.occupy(Seat::Worker(2));
        hands.occupy(Seat::Backup);
        let key = FlowKey {
            low_port: 7,
            zone: 9,
            ..FlowKey::default()
        };
        hand.note(&key);
        let seen: Vec<_> = other
            .workers()
            .map(|(seat, hand)| (seat, hand.key()))
            .collect();
        assert_eq!(
            seen,
            [
                (Seat::Worker(0), None),
                (Seat::Worker(1), None),
                (Seat::Worker(2), Some(key)),
            ]
        );
        hand.put_down();
        assert_eq!(other.of(Seat::Worker(2)).key(), None);
        let words = SharedWords::create(c"other", 3).unwrap();
        Hands::map(words.as_fd().try_clone_to_owned().unwrap()).unwrap_err();
    }
}
