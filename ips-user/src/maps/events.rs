//! Rare events from the TC program.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use aya::maps::{MapData, RingBuf};
use ips_common::Event;

/// The ring buffer `EVENTS`: readable when there are events. What does not fit is counted by
/// `Counter::EventsLost`.
pub struct EventRing {
    ring: RingBuf<MapData>,
}

impl EventRing {
    pub(super) fn new(ring: RingBuf<MapData>) -> Self {
        Self { ring }
    }

    /// The next event, `None` when there is none now. (Not an `Iterator`: more may come.)
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator that goes on after None would surprise"
    )]
    pub fn next(&mut self) -> Option<Event> {
        loop {
            // Shorter only if written by a program of another layout, which the pin path rules
            // out.
            let item = self.ring.next()?;
            if let Some(bytes) = item.get(..size_of::<Event>()) {
                return Some(bytemuck::pod_read_unaligned(bytes));
            }
        }
    }
}

impl AsFd for EventRing {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

impl AsRawFd for EventRing {
    fn as_raw_fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }
}
