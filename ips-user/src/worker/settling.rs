//! Packets that a dead predecessor left without a verdict.

use super::Shared;
use crate::config::Transport;
use crate::metrics::board::{Cell, Row};
use crate::source::{PacketId, PacketQueue};
use crate::supervisor::seat::Seat;

/// Gives what a dead predecessor had in hand the configured verdict, before anything new is
/// received.
pub(super) fn settle_leftovers(
    shared: &Shared,
    seat: Seat,
    row: Row<'_>,
    queue: &mut dyn PacketQueue,
) -> anyhow::Result<()> {
    let slot = seat.slot();
    let Some(last) = shared.pages.received(slot) else {
        return Ok(());
    };
    let unsettled = row.unsettled();
    match shared.config.queue.transport {
        Transport::Batched => {
            let disposition = shared.config.settle();
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
pub(super) enum Gap {
    /// Nothing received yet. `noted` is the predecessor's last id, `queued` the kernel's last
    /// id when this process started.
    Unknown { noted: u32, queued: u32 },
    /// The first packet received has this id.
    Before { noted: u32, first: u32 },
    /// Settled, or there was none.
    Closed,
}

impl Gap {
    /// Ids to settle: count and last. `idle` tells that nothing was waiting in the socket.
    pub(super) fn settle(&mut self, idle: bool) -> Option<(u32, PacketId)> {
        let (noted, last) = match *self {
            Self::Before { noted, first } => (noted, first.wrapping_sub(1)),
            Self::Unknown { noted, queued } if idle => (noted, queued),
            Self::Unknown { .. } | Self::Closed => return None,
        };
        *self = Self::Closed;
        let count = last.wrapping_sub(noted);
        // Ids are compared on the circle: half of it is "before".
        (count > 0 && count < 1 << 31).then_some((count, PacketId(last)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(gap: Gap, idle: bool, expected: Option<(u32, u32)>) {
        let mut gap = gap;
        let settled = gap.settle(idle).map(|(count, last)| (count, last.0));
        assert_eq!(settled, expected, "{gap:?}");
    }

    #[test]
    fn the_ids_between_the_last_noted_and_the_first_received_are_settled_once() {
        check(
            Gap::Before {
                noted: 10,
                first: 15,
            },
            false,
            Some((4, 14)),
        );
        check(
            Gap::Before {
                noted: 10,
                first: 11,
            },
            false,
            None,
        );
        check(
            Gap::Before {
                noted: u32::MAX,
                first: 3,
            },
            false,
            Some((3, 2)),
        );
        check(
            Gap::Unknown {
                noted: 10,
                queued: 12,
            },
            false,
            None,
        );
        check(
            Gap::Unknown {
                noted: 10,
                queued: 12,
            },
            true,
            Some((2, 12)),
        );
        check(
            Gap::Unknown {
                noted: 10,
                queued: 10,
            },
            true,
            None,
        );
        // A queue bound anew counts from 1 again: nothing of the former one is left.
        check(
            Gap::Before {
                noted: 10,
                first: 1,
            },
            false,
            None,
        );
        check(Gap::Closed, true, None);
        let mut gap = Gap::Before {
            noted: 10,
            first: 15,
        };
        assert!(gap.settle(false).is_some());
        assert!(gap.settle(true).is_none());
    }
}
