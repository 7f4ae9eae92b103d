//! What a socket brought: packets, and everything that is none.

use super::message::Message;
use super::verdict;
use crate::source::PacketId;

/// Counts received messages.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Survey {
    pub(super) packets: usize,
    /// Ids of the first packet and the last.
    pub(super) ends: Option<(PacketId, PacketId)>,
    /// Requests that the kernel has refused.
    pub(super) refused: u64,
    /// Messages that name no packet.
    pub(super) undecodable: u64,
}

impl Survey {
    /// Takes note of the next message.
    pub(super) fn note(&mut self, message: &Message<'_>) {
        match message {
            Message::Packet(packet) => {
                self.packets += 1;
                let id = PacketId(packet.id);
                let (first, _) = self.ends.unwrap_or((id, id));
                self.ends = Some((first, id));
            }
            Message::Reply { errno: 0, .. } => {}
            // Nothing was pending.
            Message::Reply {
                sequence: verdict::SEQUENCE_SETTLE,
                errno: libc::ENOENT,
            } => {}
            Message::Reply { .. } => self.refused += 1,
            Message::Unknown => self.undecodable += 1,
        }
    }
}
