//! TLS: the handshake of a connection, which is one transaction (RFC 8446, RFC 5246).

mod certificate;
mod fingerprint;
mod handshake;
mod record;
#[cfg(test)]
mod tests;
mod version2;

pub use handshake::Handshake;

use super::listener::{Listener, Taken};
use super::transaction::Transaction;
use crate::bounded::heap;
use crate::flow::PacketDirection;

/// Types of records (RFC 8446, section 5.1).
mod kind {
    pub(super) const CHANGE_CIPHER_SPEC: u8 = 20;
    pub(super) const ALERT: u8 = 21;
    pub(super) const HANDSHAKE: u8 = 22;
    pub(super) const APPLICATION_DATA: u8 = 23;
    pub(super) const HEARTBEAT: u8 = 24;
}

/// Type, version, length.
const HEADER: usize = 5;
/// RFC 5246, section 6.2.3: with what encryption may add.
const MAX_RECORD: usize = (1 << 14) + 2048;
/// Most bytes of handshake messages that are kept until they are complete.
const MAX_HANDSHAKE: usize = 1 << 18;

/// What is found wrong, by the names that rules have for it.
pub(super) const EVENTS: [&str; 4] = [
    "invalid_record_type",
    "handshake_invalid_length",
    "invalid_handshake_message",
    "invalid_certificate",
];

/// One end.
#[derive(Debug, Default)]
struct Side {
    /// Something has been read.
    begun: bool,
    /// Handshake messages as far as they are not complete.
    messages: Vec<u8>,
    /// A message of the handshake has come, or one was due.
    spoken: bool,
    /// What follows is encrypted.
    encrypted: bool,
}

/// A connection.
#[derive(Debug, Default)]
pub(super) struct Parser {
    sides: [Side; 2],
    /// There is a transaction, or was: one that is over is not begun again.
    begun: bool,
}

impl Parser {
    fn is_over(&self) -> bool {
        self.sides.iter().all(|side| side.encrypted)
    }

    fn old_hello(
        &mut self,
        direction: PacketDirection,
        hello: &version2::Hello<'_>,
        out: &mut Vec<Transaction>,
    ) {
        // Nothing newer follows one of a server.
        let ends = matches!(hello, version2::Hello::Server { .. });
        if let Some(transaction) = self.transaction(out) {
            if let Some(handshake) = transaction.content_mut::<Handshake>()
                && let Some(wrong) = handshake.old_hello(direction, hello)
            {
                transaction.events.push(wrong);
            }
            transaction.came(direction, ends);
            if ends {
                transaction.came(direction.other(), true);
            }
        }
        if ends {
            for side in &mut self.sides {
                side.encrypted = true;
            }
        }
    }

    /// Whether it can go on.
    fn record(
        &mut self,
        direction: PacketDirection,
        (kind, _version): (u8, u16),
        content: &[u8],
        out: &mut Vec<Transaction>,
    ) -> bool {
        let side = &mut self.sides[direction.number()];
        if side.encrypted {
            return true;
        }
        match kind {
            kind::HANDSHAKE => {
                side.spoken = true;
                side.messages.extend_from_slice(content);
                if side.messages.len() > MAX_HANDSHAKE {
                    self.event(direction, out, "handshake_invalid_length");
                    return false;
                }
                self.messages(direction, out)
            }
            // What follows is another hello.
            kind::CHANGE_CIPHER_SPEC if is_retried(out) => true,
            // Some servers pass over one in front of the first.
            kind::CHANGE_CIPHER_SPEC if !std::mem::replace(&mut side.spoken, true) => true,
            kind::CHANGE_CIPHER_SPEC | kind::APPLICATION_DATA => {
                side.encrypted = true;
                side.messages = Vec::new();
                if let Some(transaction) = self.transaction(out) {
                    transaction.came(direction, true);
                }
                true
            }
            kind::ALERT => {
                if let Some(transaction) = self.transaction(out) {
                    transaction.came(direction, false);
                }
                true
            }
            _ => true,
        }
    }

    fn messages(&mut self, direction: PacketDirection, out: &mut Vec<Transaction>) -> bool {
        let messages = std::mem::take(&mut self.sides[direction.number()].messages);
        let mut taken = 0;
        while let Some(rest) = messages.get(taken..)
            && let [kind, a, b, c, ..] = *rest
        {
            let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
            let Some(message) = rest.get(..4 + length) else {
                break;
            };
            taken += message.len();
            let Some(transaction) = self.transaction(out) else {
                continue;
            };
            let Some(handshake) = transaction.content_mut::<Handshake>() else {
                return false;
            };
            let (complete, wrong) = handshake.message(direction, kind, message);
            for name in wrong {
                if !transaction.events.contains(&name) {
                    transaction.events.push(name);
                }
            }
            transaction.came(direction, complete);
        }
        let side = &mut self.sides[direction.number()];
        side.messages = messages;
        side.messages.drain(..taken);
        if taken > 0 && direction == PacketDirection::ToClient && is_retried(out) {
            // What it has sent encrypted was too early, and is sent again.
            self.sides[PacketDirection::ToServer.number()].encrypted = false;
        }
        true
    }

    fn event(
        &mut self,
        direction: PacketDirection,
        out: &mut Vec<Transaction>,
        name: &'static str,
    ) {
        if let Some(transaction) = self.transaction(out)
            && !transaction.events.contains(&name)
        {
            transaction.events.push(name);
            transaction.came(direction, false);
        }
    }

    /// The connection's transaction; `None` when it is over.
    fn transaction<'o>(&mut self, out: &'o mut Vec<Transaction>) -> Option<&'o mut Transaction> {
        if !std::mem::replace(&mut self.begun, true) {
            out.push(Transaction::new(0, Handshake::default()));
        }
        // Others may be of what the connection was before.
        let mut own = out.iter_mut().rev();
        own.find(|it| it.content::<Handshake>().is_some())
    }

    fn give_up(&mut self) -> Taken {
        for side in &mut self.sides {
            side.encrypted = true;
            side.messages = Vec::new();
        }
        Taken::Failed
    }
}

impl Listener for Parser {
    /// What a stream brings, as far as it is whole records.
    fn stream(
        &mut self,
        direction: PacketDirection,
        bytes: &[u8],
        out: &mut Vec<Transaction>,
    ) -> Taken {
        let mut taken = 0;
        let begun = &mut self.sides[direction.number()].begun;
        if !*begun {
            match version2::begins(direction, bytes) {
                None => return Taken::Bytes(0),
                Some(true) => {
                    let Some((hello, length)) = version2::hello(bytes) else {
                        return Taken::Bytes(0);
                    };
                    self.old_hello(direction, &hello, out);
                    if self.is_over() {
                        return Taken::Ended;
                    }
                    taken = length;
                }
                Some(false) => {}
            }
            self.sides[direction.number()].begun = true;
        }
        while let Some(rest) = bytes.get(taken..)
            && let [kind, major, minor, high, low, ..] = *rest
        {
            let length = usize::from(u16::from_be_bytes([high, low]));
            if !(kind::CHANGE_CIPHER_SPEC..=kind::HEARTBEAT).contains(&kind)
                || major != 3
                || length > MAX_RECORD
            {
                // Nothing that can be told of it follows.
                self.event(direction, out, "invalid_record_type");
                return self.give_up();
            }
            let Some(content) = rest.get(HEADER..HEADER + length) else {
                break;
            };
            taken += HEADER + length;
            let version = u16::from_be_bytes([major, minor]);
            if !self.record(direction, (kind, version), content, out) {
                return self.give_up();
            }
        }
        // Nothing of what follows is looked at.
        match self.is_over() {
            true => Taken::Ended,
            false => Taken::Bytes(taken),
        }
    }

    /// Bytes that it takes.
    fn taken(&self) -> usize {
        let sides = self.sides.iter().map(|it| heap(it.messages.capacity()));
        sides.sum()
    }
}

/// Whether the server has asked for another hello.
fn is_retried(out: &[Transaction]) -> bool {
    let last = out.last().and_then(|it| it.content::<Handshake>());
    last.is_some_and(Handshake::is_retried)
}

/// Whether bytes can begin a connection in this direction; `None` when there are too few to tell.
pub(super) fn begins(direction: PacketDirection, bytes: &[u8]) -> Option<bool> {
    if bytes.first().is_some_and(|byte| byte & 0x80 != 0) {
        return version2::begins(direction, bytes);
    }
    let expected = |at: usize, fits: fn(u8) -> bool| bytes.get(at).map(|byte| fits(*byte));
    for (at, fits) in [
        (
            0,
            (|it| it == kind::HANDSHAKE || it == kind::ALERT) as fn(u8) -> bool,
        ),
        (1, |it| it == 3),
        (2, |it| it <= 4),
    ] {
        match expected(at, fits) {
            Some(true) => {}
            other => return other,
        }
    }
    let length = bytes.get(3..5)?;
    let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
    if length == 0 || length > MAX_RECORD {
        return Some(false);
    }
    // Client hello, server hello, or an alert.
    match bytes[0] {
        kind::ALERT => Some(length == 2),
        _ => match direction {
            PacketDirection::ToServer => expected(5, |it| it == 1),
            PacketDirection::ToClient => expected(5, |it| it == 2),
        },
    }
}
