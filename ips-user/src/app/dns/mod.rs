//! DNS: messages as datagrams, and as a stream of them (RFC 1035, RFC 7766). Each message is a
//! transaction of its own.

mod message;
pub(super) mod names;
mod record;
#[cfg(test)]
mod tests;

pub(super) use message::EVENTS;
pub use message::{Message, Name, Question, Rdata, Record, Soa};

use super::conversation::MAX_TRANSACTIONS;
use super::handover::Onward;
use super::listener::{Listener, Taken};
use super::transaction::Transaction;
use crate::flow::PacketDirection;

/// Of the length in front of a message in a stream.
const PREFIX: usize = 2;
/// RFC 1035, section 4.1.1.
pub(super) const HEADER: usize = 12;

/// The messages of a flow.
#[derive(Debug, Default)]
pub(super) struct Parser {
    next_id: u64,
    /// Messages that were not read to their end because they become too long, since that was asked.
    limits: u64,
}

impl Parser {
    /// With messages numbered from here on.
    pub(super) const fn new(next_id: u64) -> Self {
        Self { next_id, limits: 0 }
    }

    /// A message of this direction.
    fn message(&mut self, direction: PacketDirection, bytes: &[u8], out: &mut Vec<Transaction>) {
        let Some((message, events)) = Message::parse(direction, bytes) else {
            return;
        };
        self.limits += u64::from(message.limited);
        let mut transaction = Transaction::new(self.next_id, message);
        self.next_id += 1;
        transaction.events = events;
        transaction.came(direction, true);
        // Nothing of it goes the other way.
        transaction.way_mut(direction.other()).complete = true;
        out.push(transaction);
    }
}

impl Listener for Parser {
    /// As far as it is whole messages.
    fn stream(
        &mut self,
        direction: PacketDirection,
        bytes: &[u8],
        out: &mut Vec<Transaction>,
    ) -> Taken {
        let mut taken = 0;
        while let Some((message, all)) = framed(&bytes[taken..])
            && out.len() <= MAX_TRANSACTIONS
        {
            self.message(direction, message, out);
            taken += all;
        }
        Taken::Bytes(taken)
    }

    fn datagram(&mut self, direction: PacketDirection, bytes: &[u8], out: &mut Vec<Transaction>) {
        self.message(direction, bytes, out);
    }

    fn limits(&mut self) -> u64 {
        std::mem::take(&mut self.limits)
    }

    fn onward(&self, _in_hand: &[Transaction]) -> Onward {
        // What is not a whole message yet has not been taken.
        Onward::Next
    }
}

/// The first message of a stream, and the bytes that it takes with its length.
fn framed(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let (length, rest) = bytes.split_first_chunk::<PREFIX>()?;
    let length = usize::from(u16::from_be_bytes(*length));
    Some((rest.get(..length)?, PREFIX + length))
}

/// Whether bytes can begin a message of this direction; `None` when there are too few to tell.
/// `strictly`: a packet of a port that says nothing.
pub(super) fn begins(direction: PacketDirection, bytes: &[u8], strictly: bool) -> Option<bool> {
    if bytes.len() < HEADER {
        return None;
    }
    let word = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let (flags, counts) = (word(2), [word(4), word(6), word(8), word(10)]);
    let is_response = flags & 0x8000 != 0;
    let opcode = (flags >> 11) & 0xf;
    let [questions, answers, authorities, additionals] = counts.map(usize::from);
    let fits = is_response == (direction == PacketDirection::ToClient);
    // A question takes five bytes at least, a record eleven.
    let least = HEADER + questions * 5 + (answers + authorities + additionals) * 11;
    let enough = bytes.len() >= least;
    if !strictly {
        // On its port little is asked: what is wrong with a message is for its events.
        return Some(opcode <= 9 && questions + answers + authorities + additionals > 0);
    }
    let usual =
        flags & 0x0040 == 0 && opcode <= 5 && questions == 1 && (is_response || answers == 0);
    if !(fits && enough && usual) {
        return Some(false);
    }
    Some(message::question_ends(bytes).is_some())
}

/// The same for a stream.
pub(super) fn begins_stream(
    direction: PacketDirection,
    bytes: &[u8],
    strictly: bool,
) -> Option<bool> {
    let (length, rest) = bytes.split_first_chunk::<PREFIX>()?;
    let length = usize::from(u16::from_be_bytes(*length));
    if length < HEADER {
        return Some(false);
    }
    let message = &rest[..rest.len().min(length)];
    match begins(direction, message, strictly) {
        // The question may come with the next segment.
        Some(false) if strictly && message.len() < length && message.len() < 512 => None,
        answer => answer,
    }
}
