//! Packets that a dead predecessor left without a verdict.

use super::Shared;
use crate::config::{Config, Transport};
use crate::metrics::board::{Cell, Row};
use crate::source::{PacketId, PacketQueue};
use crate::supervisor::seat::Seat;

/// Gives what a dead predecessor had in hand the configured verdict, before anything new is
/// received.
pub(super) fn settle_leftovers(
    shared: &Shared,
    config: &Config,
    seat: Seat,
    row: Row<'_>,
    queue: &mut dyn PacketQueue,
) -> anyhow::Result<()> {
    let slot = seat.slot();
    let Some(last) = shared.pages.received(slot) else {
        return Ok(());
    };
    let unsettled = row.unsettled();
    match config.queue.transport {
        Transport::Batched => {
            let disposition = config.settle();
            queue.settle_through(PacketId(last), disposition)?;
            if unsettled > 0 {
                log::warn!(
                    "{seat}: {unsettled} packets that a dead worker had in hand: {disposition:?}"
                );
            }
        }
        Transport::Nfq => {
            // The kernel dropped them with the dead worker's socket, and this queue counts
            // from one again.
            shared.pages.clear_received(slot);
            if unsettled > 0 {
                log::warn!("{seat}: {unsettled} packets were lost with a dead worker's socket");
            }
        }
    }
    row.add(Cell::Settled, unsettled);
    Ok(())
}

/// Packets that a predecessor took from the socket but died before it could note them: ids
/// after the last noted one and before the first that this process receives.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Gap {
    /// Nothing received yet. `noted` is the predecessor's last id, `queued` the kernel's last
    /// id when this process started.
    Open { noted: u32, queued: u32 },
    /// Settled, or there was none.
    Closed,
}

impl Gap {
    /// Ids to settle, count and last, when the first packet received is `first`.
    pub(crate) fn before(&mut self, first: PacketId) -> Option<(u32, PacketId)> {
        self.close(|_| first.0.wrapping_sub(1))
    }

    /// Ids to settle, count and last, when nothing was waiting in the socket.
    pub(crate) fn when_idle(&mut self) -> Option<(u32, PacketId)> {
        self.close(|queued| queued)
    }

    fn close(&mut self, last: impl Fn(u32) -> u32) -> Option<(u32, PacketId)> {
        let Self::Open { noted, queued } = std::mem::replace(self, Self::Closed) else {
            return None;
        };
        let last = last(queued);
        let count = last.wrapping_sub(noted);
        // Ids are compared on the circle: half of it is "before".
        (count > 0 && count < 1 << 31).then_some((count, PacketId(last)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ids_between_the_last_noted_and_the_first_received_are_settled_once() {
        for (noted, first, expected) in [
            (10, 15, Some((4, 14))),
            (10, 11, None),
            (u32::MAX, 3, Some((3, 2))),
            // A queue bound anew counts from 1 again: nothing of the former one is left.
            (10, 1, None),
        ] {
            let mut gap = Gap::Open { noted, queued: 99 };
            let settled = gap.before(PacketId(first));
            let settled = settled.map(|(count, last)| (count, last.0));
            assert_eq!(settled, expected, "{noted} {first}");
            assert!(gap.before(PacketId(first)).is_none());
            assert!(gap.when_idle().is_none());
        }
    }

    #[test]
    fn with_an_empty_socket_everything_that_was_queued_is_settled_once() {
        for (noted, queued, expected) in [(10, 12, Some((2, 12))), (10, 10, None)] {
            let mut gap = Gap::Open { noted, queued };
            let settled = gap.when_idle().map(|(count, last)| (count, last.0));
            assert_eq!(settled, expected, "{noted} {queued}");
            assert!(gap.when_idle().is_none());
        }
    }
}
