//! SSH: versions and the first key exchange of a connection, which is one transaction (RFC 4253).

mod hello;
#[cfg(test)]
mod tests;

pub use hello::Hellos;

use super::listener::{Listener, Taken};
use super::transaction::Transaction;
use crate::flow::PacketDirection;

/// What is found wrong, by the names that rules have for it.
pub(super) const EVENTS: [&str; 4] = [
    "invalid_banner",
    "long_banner",
    "invalid_record",
    "long_kex_record",
];

/// RFC 4253, section 4.2, allows 255; some send more.
const MAX_BANNER: usize = 512;
/// Most bytes of a packet of the key exchange.
const MAX_PACKET: usize = 1 << 16;
/// RFC 4253, section 12.
const KEX_INIT: u8 = 20;

/// How far an end has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Its version comes.
    #[default]
    Banner,
    /// What it can do comes.
    Packets,
    /// Nothing that can be told.
    Done,
}

/// A connection.
#[derive(Debug, Default)]
pub(super) struct Parser {
    states: [State; 2],
    /// There is a transaction, or was: one that is over is not begun again.
    begun: bool,
    /// Whether anybody wants to know what the ends can do.
    hassh: bool,
}

impl Parser {
    pub(super) fn new(hassh: bool) -> Self {
        Self {
            hassh,
            ..Self::default()
        }
    }
}

impl Listener for Parser {
    /// What a stream brings, as far as it is whole lines and packets.
    fn stream(
        &mut self,
        direction: PacketDirection,
        bytes: &[u8],
        out: &mut Vec<Transaction>,
    ) -> Taken {
        if !std::mem::replace(&mut self.begun, true) {
            out.push(Transaction::new(0, Hellos::default()));
        }
        let mut taken = 0;
        loop {
            let rest = bytes.get(taken..).unwrap_or_default();
            let state = self.states[direction.number()];
            let step = match state {
                State::Banner => banner(direction, rest, self.hassh, out),
                State::Packets => packet(direction, rest, out),
                State::Done => Step::Took(rest.len(), State::Done),
            };
            match step {
                Step::More => break,
                Step::Took(0, _) => break,
                Step::Took(length, next) => {
                    taken += length;
                    self.states[direction.number()] = next;
                }
                Step::Wrong(event) => {
                    self.states[direction.number()] = State::Done;
                    for transaction in out.iter_mut() {
                        if !transaction.events.contains(&event) {
                            transaction.events.push(event);
                        }
                        transaction.came(direction, true);
                    }
                }
            }
        }
        match self.states == [State::Done; 2] {
            true => Taken::Ended,
            false => Taken::Bytes(taken),
        }
    }

    /// Something is missing: nothing more can be told of this direction. The other one goes on.
    fn gap(&mut self, direction: PacketDirection, _len: u64, out: &mut Vec<Transaction>) -> bool {
        self.states[direction.number()] = State::Done;
        for transaction in out {
            transaction.came(direction, true);
        }
        true
    }
}

enum Step {
    More,
    Took(usize, State),
    Wrong(&'static str),
}

fn hellos(
    out: &mut [Transaction],
    direction: PacketDirection,
    complete: bool,
) -> Option<&mut Hellos> {
    let transaction = out.first_mut()?;
    transaction.came(direction, complete);
    transaction.content_mut()
}

fn banner(direction: PacketDirection, bytes: &[u8], hassh: bool, out: &mut [Transaction]) -> Step {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
        return match bytes.len() > MAX_BANNER {
            true => Step::Wrong("long_banner"),
            false => Step::More,
        };
    };
    let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
    if !line.starts_with(b"SSH-") {
        // Servers may send other lines first.
        return Step::Took(end + 1, State::Banner);
    }
    let read = hellos(out, direction, !hassh).is_some_and(|it| it.banner(direction, line));
    match read {
        true if hassh => Step::Took(end + 1, State::Packets),
        true => Step::Took(end + 1, State::Done),
        false => Step::Wrong("invalid_banner"),
    }
}

fn packet(direction: PacketDirection, bytes: &[u8], out: &mut [Transaction]) -> Step {
    let Some((length, rest)) = bytes.split_first_chunk::<4>() else {
        return Step::More;
    };
    let length = u32::from_be_bytes(*length) as usize;
    if length < 2 {
        return Step::Wrong("invalid_record");
    }
    if length > MAX_PACKET {
        return Step::Wrong("long_kex_record");
    }
    let Some(packet) = rest.get(..length) else {
        return Step::More;
    };
    // Padding, then what it is.
    let [padding, kind, payload @ ..] = packet else {
        return Step::Wrong("invalid_record");
    };
    let payload = payload
        .len()
        .checked_sub(usize::from(*padding))
        .map(|end| &payload[..end]);
    let Some(payload) = payload else {
        return Step::Wrong("invalid_record");
    };
    if *kind != KEX_INIT {
        return Step::Took(4 + length, State::Packets);
    }
    let read = hellos(out, direction, true).is_some_and(|it| it.exchange(direction, payload));
    match read {
        true => Step::Took(4 + length, State::Done),
        false => Step::Wrong("invalid_record"),
    }
}

/// Whether bytes can begin a connection; `None` when there are too few to tell.
pub(super) fn begins(bytes: &[u8]) -> Option<bool> {
    const BANNER: &[u8] = b"SSH-";
    let seen = bytes.len().min(BANNER.len());
    match bytes[..seen] == BANNER[..seen] {
        true if seen == BANNER.len() => Some(true),
        true => None,
        false => Some(false),
    }
}
