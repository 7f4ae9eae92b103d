//! HTTP/1: requests and responses of a connection, taken apart by the library that was written for
//! that.

pub(super) mod event;
mod exchange;
mod gathered;
mod htp;
mod multipart;
mod record;
#[cfg(test)]
mod tests;

pub use exchange::Exchange;
pub(crate) use record::shorten;

use super::handover::Onward;
use super::listener::{Listener, Taken};
use super::options::AppOptions;
use super::recognition::Ports;
use super::transaction::Transaction;
use crate::flow::PacketDirection;
use exchange::{Limits, Progress};
use gathered::Gathered;
use htp::{Htp, Went};

/// A connection.
#[derive(Debug)]
pub(super) struct Parser {
    htp: Htp,
    /// Number of the library's first transaction.
    base: u64,
    /// Those of the library before this number are forgotten.
    first: usize,
    /// Of this one nothing has been seen, nor of later ones.
    next: usize,
    /// Whether anything can still come of a direction.
    open: [bool; 2],
    /// How often something was not decompressed any further, since that was asked.
    limits: u64,
}

impl Parser {
    /// Of a connection that has had `base` transactions before.
    pub(super) fn new(ports: Ports, options: &AppOptions, base: u64) -> Self {
        let limits = Limits::of(options);
        let gathered = Gathered::new(limits, base);
        Self {
            htp: Htp::new((ports.client, ports.server), &options.http, gathered),
            base,
            first: 0,
            next: 0,
            open: [true; 2],
            limits: 0,
        }
    }

    /// Has the library do something, and takes over what it has found.
    fn run<T>(
        &mut self,
        direction: PacketDirection,
        out: &mut Vec<Transaction>,
        work: impl FnOnce(&mut Htp) -> T,
    ) -> T {
        self.htp.gathered().exchange(out);
        let done = work(&mut self.htp);
        let count = self.htp.count().max(self.next);
        self.htp.gathered().begin(self.next, count);
        self.next = count;
        while let Some(code) = self.htp.next_remark() {
            self.htp.gathered().remark_last(direction, code);
        }
        self.htp.gathered().exchange(out);
        self.limits += std::mem::take(&mut self.htp.gathered().limits);
        self.update(out);
        done
    }

    /// Takes over how far messages have come.
    fn update(&mut self, out: &mut [Transaction]) {
        for transaction in out.iter_mut() {
            let number = (transaction.id - self.base) as usize;
            let Some(view) = self.htp.transaction(number) else {
                continue;
            };
            let Some(exchange) = transaction.content_mut::<Exchange>() else {
                continue;
            };
            let further = exchange.update(view);
            for (direction, further) in PacketDirection::ALL.into_iter().zip(further) {
                if let Some(progress) = further {
                    transaction.came(direction, progress == Progress::Complete);
                }
            }
        }
        // Those that are complete need the library no more.
        while self.first < self.next {
            let number = self.base + self.first as u64;
            let held = out.iter().find(|it| it.id == number);
            if held.is_some_and(|it| !it.is_complete()) {
                break;
            }
            self.htp.forget(self.first);
            self.first += 1;
        }
    }
}

impl Listener for Parser {
    /// What a stream brings.
    fn stream(
        &mut self,
        direction: PacketDirection,
        bytes: &[u8],
        out: &mut Vec<Transaction>,
    ) -> Taken {
        match self.run(direction, out, |htp| htp.data(direction, bytes)) {
            Went::On => Taken::Bytes(bytes.len()),
            Went::Waits(taken) => Taken::Bytes(taken),
            Went::Stopped => Taken::Failed,
            Went::Tunnel => Taken::Ended,
        }
    }

    /// So many bytes are missing. Whether it can go on.
    fn gap(&mut self, direction: PacketDirection, len: u64, out: &mut Vec<Transaction>) -> bool {
        self.run(direction, out, |htp| htp.gap(direction, len))
    }

    /// Nothing more comes of a direction.
    fn end(&mut self, direction: PacketDirection, out: &mut Vec<Transaction>) {
        if !std::mem::replace(&mut self.open[direction.number()], false) {
            return;
        }
        self.run(direction, out, |htp| htp.end(direction));
        for transaction in out.iter_mut() {
            transaction.finish(direction);
        }
    }

    /// Bytes that the library takes, about: what it copies is not asked of it.
    fn taken(&self) -> usize {
        htp::CONNECTION + (self.next - self.first) * htp::TRANSACTION
    }

    fn limits(&mut self) -> u64 {
        std::mem::take(&mut self.limits)
    }

    fn onward(&self, in_hand: &[Transaction]) -> Onward {
        // Between two transactions it is done with all.
        let idle = self.first == self.next && self.open == [true; 2];
        match in_hand.is_empty() && idle {
            true => Onward::Next,
            false => Onward::Later,
        }
    }
}

/// Methods that are told from other words by their name.
const METHODS: [&[u8]; 28] = [
    b"GET",
    b"POST",
    b"HEAD",
    b"PUT",
    b"DELETE",
    b"OPTIONS",
    b"TRACE",
    b"CONNECT",
    b"PATCH",
    b"PROPFIND",
    b"PROPPATCH",
    b"MKCOL",
    b"COPY",
    b"MOVE",
    b"LOCK",
    b"UNLOCK",
    b"REPORT",
    b"SEARCH",
    b"CHECKOUT",
    b"CHECKIN",
    b"MERGE",
    b"MKACTIVITY",
    b"MKWORKSPACE",
    b"UNCHECKOUT",
    b"UPDATE",
    b"LABEL",
    b"BASELINE-CONTROL",
    b"VERSION-CONTROL",
];

/// Whether bytes can begin a conversation in this direction; `None` when there are too few to tell.
pub(super) fn begins(direction: PacketDirection, bytes: &[u8]) -> Option<bool> {
    match direction {
        PacketDirection::ToClient => {
            const VERSION: &[u8] = b"HTTP/";
            let seen = bytes.len().min(VERSION.len());
            match bytes[..seen].eq_ignore_ascii_case(&VERSION[..seen]) {
                true if seen == VERSION.len() => Some(true),
                true => None,
                false => Some(false),
            }
        }
        PacketDirection::ToServer => begins_request(bytes),
    }
}

/// Most bytes of a first line that are looked at.
const LINE: usize = 8192;

fn begins_request(bytes: &[u8]) -> Option<bool> {
    // Servers skip empty lines and white space in front.
    let skipped = bytes
        .iter()
        .take_while(|it| it.is_ascii_whitespace() || **it == 0x0b)
        .count();
    let text = &bytes[skipped..];
    let word = text.iter().take_while(|it| is_token(**it)).count();
    let method = &text[..word];
    let Some(after) = text.get(word) else {
        return (word > 32).then_some(false);
    };
    if word == 0 || !matches!(after, b' ' | b'\t' | 0x0b | 0x0c) {
        return Some(false);
    }
    if METHODS.iter().any(|it| it.eq_ignore_ascii_case(method)) {
        return Some(true);
    }
    // Of any other word the line tells: servers may take it for a method. Nobody takes one with an
    // escape in it, which nobody undoes there.
    if method.contains(&b'%') {
        return Some(false);
    }
    let line = text.split(|it| *it == b'\n').next().unwrap_or_default();
    let whole = line.len() < text.len();
    let says = line.windows(5).any(|it| it.eq_ignore_ascii_case(b"HTTP/"));
    match (says, whole || text.len() >= LINE) {
        (true, _) => Some(true),
        (false, true) => Some(false),
        (false, false) => None,
    }
}

/// RFC 9110, section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
