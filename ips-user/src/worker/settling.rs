//! Packets that a dead predecessor left without a verdict.

use super::Shared;
use crate::config::{Config, Transport};
use crate::metrics::board::{Cell, Row};
use crate::metrics::queue_truth::QueueTruth;
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
    let Some(noted) = shared.pages.received(slot) else {
        return Ok(());
    };
    row.take_back_unnoted(noted);
    let unsettled = row.unsettled();
    match config.queue.transport {
        Transport::Batched => {
            let disposition = config.settle();
            queue.settle_through(PacketId(noted.id), disposition)?;
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
///
/// Not every id is a packet's that somebody took: the kernel gives one before it finds that the
/// socket's buffer is full (net/netfilter/nfnetlink_queue.c, `__nfqnl_enqueue_packet`; it gives
/// none when the queue is full). But what has neither been delivered nor had its verdict does not
/// wait, so there are no more than the packets that wait. The bound is exact unless the buffer
/// was full and packets are in it still.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Gap {
    /// Nothing received yet. `noted` is the predecessor's last id, `queued` the kernel's last
    /// id when this process started, and so many packets were `waiting` without a verdict then.
    Open {
        noted: u32,
        queued: u32,
        waiting: u32,
    },
    /// Settled, or there was none.
    Closed,
}

impl Gap {
    /// After the packets up to `noted` have had their verdicts; `truth` is what the kernel says
    /// then, if it does.
    pub(crate) fn after(noted: u32, truth: Option<QueueTruth>) -> Self {
        Self::Open {
            noted,
            queued: truth.map_or(noted, |it| it.last_id),
            waiting: truth.map_or(u32::MAX, |it| it.waiting),
        }
    }

    /// Ids to settle, count and last, when the first packet received is `first`.
    pub(crate) fn before(&mut self, first: PacketId) -> Option<(u32, PacketId)> {
        self.close(|_| first.0.wrapping_sub(1))
    }

    /// Ids to settle, count and last, when nothing was waiting in the socket.
    pub(crate) fn when_idle(&mut self) -> Option<(u32, PacketId)> {
        self.close(|queued| queued)
    }

    fn close(&mut self, last: impl Fn(u32) -> u32) -> Option<(u32, PacketId)> {
        let Self::Open {
            noted,
            queued,
            waiting,
        } = std::mem::replace(self, Self::Closed)
        else {
            return None;
        };
        let last = last(queued);
        let ids = last.wrapping_sub(noted);
        // Ids are compared on the circle: half of it is "before".
        let count = if ids < 1 << 31 { ids.min(waiting) } else { 0 };
        (count > 0).then_some((count, PacketId(last)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANY: u32 = 1000;

    fn open(noted: u32, queued: u32, waiting: u32) -> Gap {
        let truth = QueueTruth {
            last_id: queued,
            waiting,
            ..QueueTruth::default()
        };
        Gap::after(noted, Some(truth))
    }

    #[test]
    fn the_ids_between_the_last_noted_and_the_first_received_are_settled_once() {
        for (noted, first, waiting, expected) in [
            (10, 15, MANY, Some((4, 14))),
            (10, 11, MANY, None),
            (u32::MAX, 3, MANY, Some((3, 2))),
            // A queue bound anew counts from 1 again: nothing of the former one is left.
            (10, 1, MANY, None),
            // The kernel had refused packets that it had given ids to.
            (10, 15, 3, Some((3, 14))),
            (10, 15, 0, None),
        ] {
            let mut gap = open(noted, 99, waiting);
            let settled = gap.before(PacketId(first));
            let settled = settled.map(|(count, last)| (count, last.0));
            assert_eq!(settled, expected, "{noted} {first} {waiting}");
            assert!(gap.before(PacketId(first)).is_none());
            assert!(gap.when_idle().is_none());
        }
        // What the kernel says could not be read.
        let settled = Gap::after(10, None).before(PacketId(15));
        assert_eq!(settled, Some((4, PacketId(14))));
    }

    #[test]
    fn with_an_empty_socket_everything_that_waits_is_settled_once() {
        for (noted, queued, waiting, expected) in [
            (10, 12, 2, Some((2, 12))),
            (10, 10, 0, None),
            (10, 500, 7, Some((7, 500))),
            (10, 500, 0, None),
        ] {
            let mut gap = open(noted, queued, waiting);
            let settled = gap.when_idle().map(|(count, last)| (count, last.0));
            assert_eq!(settled, expected, "{noted} {queued} {waiting}");
            assert!(gap.when_idle().is_none());
        }
    }
}
