//! SMTP: mails with their envelopes, a transaction each (RFC 5321), in DATA or in chunks (RFC 3030).
//!
//! What a client says in advance is read at once as what it will most likely be: lines behind
//! `DATA` and chunks as mail, before the server has agreed. They are [held](Held) until it has, and
//! read again as commands when it does not.

mod attachment;
mod command;
mod conversation;
mod mail;
mod mime;
mod options;
mod recognition;
mod record;
mod reply;
mod stuffing;
#[cfg(test)]
mod tests;

pub use mail::Mail;
pub(super) use options::SmtpOptions;
pub(super) use recognition::begins;

use std::collections::VecDeque;
use std::sync::Arc;

use super::file::WantedHashes;
use super::listener::{Listener, Taken};
use super::protocol::AppProtocol;
use super::recognition::Ports;
use super::tls;
use super::transaction::Transaction;
use crate::bounded::{heap, held};
use crate::flow::PacketDirection;
use PacketDirection::{ToClient, ToServer};
use attachment::Keeping;
use command::Command;
use reply::Reply;
use stuffing::{Found, Stuffing};

/// What is found wrong, by the names that rules have for it.
pub(super) const EVENTS: [&str; 23] = [
    "invalid_reply",
    "unable_to_match_reply_with_request",
    "max_command_line_len_exceeded",
    "max_reply_line_len_exceeded",
    "invalid_pipelined_sequence",
    "bdat_chunk_len_exceeded",
    "invalid_bdat",
    "no_server_welcome_message",
    "tls_rejected",
    "data_command_rejected",
    "failed_protocol_change",
    "duplicate_fields",
    "unparsable_content",
    "mime_parse_failed",
    "mime_malformed_msg",
    "mime_invalid_base64",
    "mime_invalid_qp",
    "mime_long_line",
    "mime_long_enc_line",
    "mime_long_header_name",
    "mime_long_header_value",
    "mime_long_boundary",
    "mime_long_filename",
];

/// Bytes of a line that count: RFC 4954, section 4, has longer ones than RFC 5321 allows otherwise.
const MAX_LINE: usize = 4096;
/// Bytes that are held.
const MAX_HELD: usize = 64 << 10;
/// Bytes of a connection that are read a second time.
const MAX_READ_TWICE: usize = 1 << 20;
/// Commands that wait for their replies.
const MAX_EXPECTED: usize = 1024;
/// Bytes of a handshake that wait until TLS is agreed upon.
const MAX_HANDSHAKE: usize = 16 << 10;

/// What a client's bytes are.
#[derive(Clone, Copy, Debug)]
enum Mode {
    Commands,
    /// The rest of a line that nobody looks at.
    Line,
    Data(Stuffing),
    /// So many bytes of a mail, which may be its last.
    Chunk {
        left: u64,
        last: bool,
    },
}

/// What a reply is to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Data,
    /// The first chunk of a connection.
    Chunk,
    StartTls,
    Auth,
    Other,
}

/// A command that waits for its reply, or a mail.
#[derive(Clone, Copy, Debug)]
struct Expected {
    asked: Asked,
    transaction: Option<u64>,
}

/// What has been read as mail and may be commands.
#[derive(Debug, Default)]
struct Held {
    bytes: Vec<u8>,
    /// There was more than is held.
    overflow: bool,
    /// The server has not agreed; else it may take for an end what is none.
    unasked: bool,
}

impl Held {
    fn push(&mut self, bytes: &[u8]) {
        match self.bytes.len() + bytes.len() <= MAX_HELD && !self.overflow {
            true => self.bytes.extend_from_slice(bytes),
            false => {
                self.overflow = true;
                self.bytes = Vec::new();
            }
        }
    }
}

/// How far a change to TLS has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    No,
    Asked,
    Agreed,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Parser {
    options: Arc<SmtpOptions>,
    keeping: Keeping,
    on_port: bool,
    mode: Mode,
    /// Lines that were held, as far as they wait for more.
    again: Vec<u8>,
    held: Option<Held>,
    read_twice: usize,
    /// What the client calls itself.
    helo: Option<Vec<u8>>,
    expected: VecDeque<Expected>,
    /// The mail in hand.
    current: Option<u64>,
    next: u64,
    /// The last line belongs to no command: what the server wants for AUTH.
    wants_secret: bool,
    /// A chunk has just ended.
    after_chunk: bool,
    change: Change,
    /// The server knows chunks.
    chunking: bool,
    /// The server has said something.
    greeted: bool,
    /// The rest of a server's line is nothing to look at.
    skips_reply: bool,
    /// There is more of something than is kept.
    overfull: bool,
    /// Something is missing, so replies cannot be told by their number.
    lost: bool,
    scratch: Vec<u8>,
}

enum Step {
    Took(usize),
    More,
    Becomes,
    Failed,
}

impl Parser {
    /// `stored` bytes of a file are kept though they are not inspected.
    pub(super) fn new(
        ports: Ports,
        options: &Arc<SmtpOptions>,
        hashes: WantedHashes,
        stored: usize,
    ) -> Self {
        Self {
            options: Arc::clone(options),
            keeping: Keeping {
                limit: options.content_limit,
                kept: options.content_limit.max(stored),
                least: options.content_least,
                hashes,
            },
            on_port: recognition::is_of_mail(ports),
            mode: Mode::Commands,
            again: Vec::new(),
            held: None,
            read_twice: 0,
            helo: None,
            expected: VecDeque::new(),
            current: None,
            next: 0,
            wants_secret: false,
            after_chunk: false,
            change: Change::No,
            chunking: false,
            greeted: false,
            skips_reply: false,
            overfull: false,
            lost: false,
            scratch: Vec::new(),
        }
    }

    fn client(&mut self, bytes: &[u8], out: &mut Vec<Transaction>) -> Taken {
        self.seen(out);
        if self.again.is_empty() {
            return self.read(bytes, out);
        }
        let mut all = std::mem::take(&mut self.again);
        let before = all.len();
        all.extend_from_slice(bytes);
        match self.read(&all, out) {
            Taken::Bytes(taken) => {
                all.drain(..taken);
                self.again = all;
                Taken::Bytes(bytes.len())
            }
            Taken::Becomes(taken, protocol) => match taken.checked_sub(before) {
                Some(taken) => Taken::Becomes(taken, protocol),
                // Its beginning cannot be given to anybody else.
                None => Taken::Failed,
            },
            other => other,
        }
    }

    fn read(&mut self, bytes: &[u8], out: &mut Vec<Transaction>) -> Taken {
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|it| !it.is_empty()) {
            if out.len() > self.options.max_transactions {
                return Taken::Failed;
            }
            let holds = self.held.is_some();
            match self.step(rest, out) {
                Step::Took(taken) => {
                    at += taken;
                    if let Some(held) = self.held.as_mut().filter(|_| holds) {
                        held.push(&rest[..taken]);
                    }
                }
                Step::More => break,
                Step::Becomes => return Taken::Becomes(at, AppProtocol::Tls),
                Step::Failed => return Taken::Failed,
            }
        }
        Taken::Bytes(at)
    }

    fn step(&mut self, bytes: &[u8], out: &mut Vec<Transaction>) -> Step {
        match &mut self.mode {
            Mode::Line => {
                let end = memchr::memchr(b'\n', bytes);
                if end.is_some() {
                    self.mode = Mode::Commands;
                }
                Step::Took(end.map_or(bytes.len(), |end| end + 1))
            }
            Mode::Data(stuffing) => {
                let mut mail = std::mem::take(&mut self.scratch);
                mail.clear();
                let (taken, found) = stuffing.take(bytes, &mut mail);
                self.mail_came(&mail, out);
                self.scratch = mail;
                match found {
                    Found::Mail => {}
                    Found::LooseEnd => {
                        self.event("invalid_pipelined_sequence", ToServer, out);
                        if self.held.is_none() {
                            self.held = Some(Held::default());
                        }
                    }
                    Found::End => {
                        if self.held.as_ref().is_some_and(|it| !it.unasked) {
                            self.held = None;
                        }
                        self.expect(Asked::Other);
                        self.mail_ends(true, out);
                    }
                }
                Step::Took(taken)
            }
            Mode::Chunk { left, last } => {
                let size = usize::try_from(*left).unwrap_or(usize::MAX);
                let size = size.min(bytes.len());
                *left -= size as u64;
                let ended = (*left == 0).then_some(*last);
                self.mail_came(&bytes[..size], out);
                if let Some(last) = ended {
                    self.chunk_ends(last, out);
                }
                Step::Took(size)
            }
            Mode::Commands => self.command_comes(bytes, out),
        }
    }

    fn command_comes(&mut self, bytes: &[u8], out: &mut Vec<Transaction>) -> Step {
        if self.change != Change::No {
            match (self.change, tls::begins(ToServer, bytes)) {
                (Change::Agreed, Some(true)) => return Step::Becomes,
                (Change::Agreed, None) => return Step::More,
                (Change::Agreed, Some(false)) => {
                    // They go on as if they had not agreed.
                    self.change = Change::No;
                    self.event("failed_protocol_change", ToClient, out);
                }
                (_, Some(true)) if self.lost || bytes.len() > MAX_HANDSHAKE => {
                    return Step::Becomes;
                }
                (_, Some(true) | None) => return Step::More,
                (_, Some(false)) => {}
            }
        }
        let (line, taken) = match line(bytes) {
            Line::Whole(line, taken) => (line, taken),
            Line::TooLong(line) => {
                self.mode = Mode::Line;
                (line, line.len())
            }
            Line::More => return Step::More,
        };
        let too_long = matches!(self.mode, Mode::Line);
        self.line(line, out);
        if too_long {
            self.event("max_command_line_len_exceeded", ToServer, out);
            match self.mode {
                // Where the chunk begins servers do not agree about.
                Mode::Chunk { .. } => return Step::Failed,
                Mode::Commands => self.mode = Mode::Line,
                Mode::Line | Mode::Data(_) => {}
            }
        }
        Step::Took(taken)
    }

    fn server(&mut self, bytes: &[u8], out: &mut Vec<Transaction>) -> Taken {
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|it| !it.is_empty()) {
            if self.skips_reply {
                let end = memchr::memchr(b'\n', rest);
                self.skips_reply = end.is_none();
                at += end.map_or(rest.len(), |end| end + 1);
                continue;
            }
            let line = match line(rest) {
                Line::Whole(line, taken) => {
                    at += taken;
                    line
                }
                Line::TooLong(line) => {
                    at += line.len();
                    self.skips_reply = true;
                    self.event("max_reply_line_len_exceeded", ToClient, out);
                    line
                }
                Line::More => break,
            };
            match Reply::parse(line) {
                None => self.event("invalid_reply", ToClient, out),
                Some(reply) if reply.last => {
                    if !self.replied(reply, out) {
                        return Taken::Failed;
                    }
                }
                Some(_) => {}
            }
        }
        Taken::Bytes(at)
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
        let taken = match direction {
            ToServer => self.client(bytes, out),
            ToClient => self.server(bytes, out),
        };
        match out.len() > self.options.max_transactions || self.overfull {
            true => Taken::Failed,
            false => taken,
        }
    }

    /// So many bytes are missing. Whether it can go on.
    fn gap(&mut self, direction: PacketDirection, len: u64, out: &mut Vec<Transaction>) -> bool {
        self.lost = true;
        self.held = None;
        if direction == ToClient {
            self.skips_reply = true;
            self.expected.clear();
            for transaction in out.iter_mut() {
                if is_closed(transaction) {
                    transaction.finish(ToClient);
                }
            }
            return true;
        }
        self.again = Vec::new();
        match &mut self.mode {
            Mode::Commands | Mode::Line => self.mode = Mode::Line,
            Mode::Data(stuffing) => {
                stuffing.gap();
                self.mail_is_torn(out);
            }
            Mode::Chunk { left, .. } if *left > len => {
                *left -= len;
                self.mail_is_torn(out);
            }
            Mode::Chunk { .. } => {
                self.mode = Mode::Line;
                self.mail_is_torn(out);
            }
        }
        true
    }

    /// Nothing more comes of a direction.
    fn end(&mut self, direction: PacketDirection, out: &mut Vec<Transaction>) {
        for transaction in out.iter_mut() {
            transaction.finish(direction);
        }
        if direction == ToServer {
            self.current = None;
        }
    }

    /// Bytes that it takes.
    fn taken(&self) -> usize {
        let texts = [&self.again, &self.scratch].into_iter();
        let texts = texts
            .chain(&self.helo)
            .chain(self.held.as_ref().map(|it| &it.bytes));
        heap(size_of::<Self>())
            + texts.map(held).sum::<usize>()
            + heap(self.expected.capacity() * size_of::<Expected>())
    }
}

fn is_closed(transaction: &Transaction) -> bool {
    transaction.way(ToServer).complete
}

/// The first line of some bytes.
enum Line<'a> {
    /// Without its end; with it, it has so many bytes.
    Whole(&'a [u8], usize),
    /// As much of it as counts.
    TooLong(&'a [u8]),
    /// It may go on.
    More,
}

fn line(bytes: &[u8]) -> Line<'_> {
    let counts = &bytes[..bytes.len().min(MAX_LINE)];
    match memchr::memchr(b'\n', counts) {
        Some(end) => {
            let line = &counts[..end];
            Line::Whole(line.strip_suffix(b"\r").unwrap_or(line), end + 1)
        }
        None if counts.len() == MAX_LINE => Line::TooLong(counts),
        None => Line::More,
    }
}
