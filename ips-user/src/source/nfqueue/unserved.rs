//! For whoever holds the socket of a queue that nobody serves: what waits there is taken out
//! unseen and gets one verdict.

use std::io::{self, ErrorKind};
use std::os::fd::BorrowedFd;

use super::message::{ATTRIBUTE_HEADER, FAMILY_HEADER, HEADER, Messages};
use super::survey::Survey;
use super::{send_patiently, socket, verdict};
use crate::source::{Disposition, PacketId, QueueError};

/// `struct nfqnl_msg_packet_hdr`: id, protocol, hook.
const PACKET_HEADER: usize = 7;
/// Bytes of a message up to the end of the attribute with the id, which the kernel puts first
/// (`nfqnl_build_packet_message`). No more is received, so nothing of the packet itself.
const UP_TO_THE_ID: usize = HEADER + FAMILY_HEADER + ATTRIBUTE_HEADER + PACKET_HEADER;

/// What was taken out of a queue's socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Packets, which still need their verdict.
    pub packets: u64,
    /// Ids of the first one and the last.
    pub ends: Option<(PacketId, PacketId)>,
    /// Verdicts of a former worker's that the kernel had refused.
    pub refused: u64,
    /// Messages that name no packet.
    pub undecodable: u64,
}

/// Takes out what waits in the socket of a queue, at most so many messages, and looks at
/// nothing but the packets' ids. Who calls this owes the packets a verdict, by
/// [`settle_through`].
///
/// # Errors
/// When the socket fails.
pub fn take_waiting(socket: BorrowedFd<'_>, most: usize) -> io::Result<Taken> {
    let mut head = [0; UP_TO_THE_ID];
    let mut survey = Survey::default();
    for _ in 0..most {
        match socket::receive_head(socket, &mut head) {
            Ok(length) => Messages::of(&head[..length]).for_each(|it| survey.note(&it)),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(Taken {
        packets: survey.packets as u64,
        ends: survey.ends,
        refused: survey.refused,
        undecodable: survey.undecodable,
    })
}

/// Gives every packet of a queue still pending with an id up to `last` the same verdict,
/// without serving the queue: for who holds the socket of a worker that has ended.
///
/// # Errors
/// When the socket fails. That nothing was pending is not an error.
pub fn settle_through(
    socket: BorrowedFd<'_>,
    queue: u16,
    last: PacketId,
    disposition: Disposition,
) -> Result<(), QueueError> {
    let settlement = verdict::settlement(queue, last, disposition);
    send_patiently(socket, &settlement).map_err(|source| QueueError::Io {
        queue,
        call: "sendmsg(settlement)",
        source,
    })
}
