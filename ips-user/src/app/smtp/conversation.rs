//! What commands and replies mean: which mail they are about, and what becomes of it.

use std::sync::Arc;

use super::{
    Asked, Change, Command, Expected, Held, MAX_EXPECTED, MAX_READ_TWICE, Mail, Mode, Parser,
    Reply, Stuffing, is_closed,
};
use crate::app::listener::Taken;
use crate::app::transaction::Transaction;
use crate::flow::PacketDirection::{self, ToClient, ToServer};

/// Mails without an answer of the server after which it is not expected any more: some captures
/// have one direction only.
const MAX_UNANSWERED: usize = 16;

/// A mail by its number.
fn find(out: &mut [Transaction], id: Option<u64>) -> Option<&mut Transaction> {
    let id = id?;
    out.iter_mut()
        .rev()
        .find(|it| it.id == id && mail_of(it).is_some())
}

fn mail_of(transaction: &Transaction) -> Option<&Mail> {
    transaction.content()
}

fn mail_mut(transaction: &mut Transaction) -> Option<&mut Mail> {
    transaction.content_mut()
}

impl Parser {
    /// Changes the mail in hand: something of it has come.
    fn change<T>(&self, out: &mut [Transaction], change: impl FnOnce(&mut Mail) -> T) -> Option<T> {
        let transaction = find(out, self.current)?;
        transaction.came(ToServer, false);
        let mail = mail_mut(transaction)?;
        let changed = change(mail);
        let found = mail.events().to_vec();
        for event in found {
            if !transaction.events.contains(&event) {
                transaction.events.push(event);
            }
        }
        Some(changed)
    }

    /// Everything until now was shown to rules, where nothing has come since.
    pub(super) fn seen(&self, out: &mut [Transaction]) {
        let Some(transaction) = find(out, self.current) else {
            return;
        };
        if !transaction.way(ToServer).changed
            && let Some(mail) = mail_mut(transaction)
        {
            mail.seen();
        }
    }

    /// Something is wrong with the mail in hand, or with the last one.
    pub(super) fn event(
        &mut self,
        name: &'static str,
        direction: PacketDirection,
        out: &mut Vec<Transaction>,
    ) {
        let last = out.iter().rev().find(|it| mail_of(it).is_some());
        let id = self.current.or(last.map(|it| it.id));
        let id = match id.filter(|id| find(out, Some(*id)).is_some()) {
            Some(id) => id,
            None => {
                let id = self.open(out);
                if let Some(transaction) = find(out, Some(id)) {
                    for direction in PacketDirection::ALL {
                        transaction.finish(direction);
                    }
                }
                // The next mail is the first all the same.
                (self.current, self.next) = (None, id);
                id
            }
        };
        if let Some(transaction) = find(out, Some(id)) {
            if !transaction.events.contains(&name) {
                transaction.events.push(name);
            }
            transaction.came(direction, false);
        }
    }

    /// Opens another mail.
    fn open(&mut self, out: &mut Vec<Transaction>) -> u64 {
        let unanswered = out.iter().filter(|it| is_closed(it)).count();
        let mut too_many = unanswered.saturating_sub(MAX_UNANSWERED);
        for transaction in out.iter_mut().filter(|it| is_closed(it)) {
            if too_many > 0 {
                transaction.finish(ToClient);
                too_many -= 1;
            }
            // What may be stored is kept until the end.
            if !transaction.way(ToServer).changed
                && self.keeping.kept == self.keeping.limit
                && let Some(mail) = mail_mut(transaction)
            {
                mail.forget();
            }
        }
        let id = self.next;
        self.next += 1;
        let mail = Mail::new(self.helo.clone(), Arc::clone(&self.options), self.keeping);
        out.push(Transaction::new(id, mail));
        self.current = Some(id);
        id
    }

    pub(super) fn expect(&mut self, asked: Asked) {
        if self.expected.len() == MAX_EXPECTED {
            self.expected.pop_front();
            self.lost = true;
        }
        self.expected.push_back(Expected {
            asked,
            transaction: self.current,
        });
    }

    /// A line of a client.
    pub(super) fn line(&mut self, line: &[u8], out: &mut Vec<Transaction>) {
        let after_chunk = std::mem::take(&mut self.after_chunk);
        if std::mem::take(&mut self.wants_secret) {
            self.expect(Asked::Auth);
            return;
        }
        let command = Command::parse(line);
        if self.current.is_none() && !matches!(command, Command::Reset | Command::Quit) {
            self.open(out);
        }
        if !self.greeted && self.on_port {
            self.event("no_server_welcome_message", ToClient, out);
        }
        if let Some(last) = self.expected.back()
            && matches!(last.asked, Asked::Data | Asked::StartTls)
        {
            // Whoever asks for these has to wait for what becomes of it.
            self.event("invalid_pipelined_sequence", ToServer, out);
        }
        self.change(out, |mail| mail.said = true);
        match command {
            Command::Hello(name) => {
                self.hello(name, out);
                self.expect(Asked::Other);
            }
            Command::Mail(from) => {
                let known = self.change(out, |mail| {
                    let known = mail.from.is_some();
                    mail.from.get_or_insert_with(|| from.to_vec());
                    known
                });
                if known == Some(true) {
                    self.event("duplicate_fields", ToServer, out);
                }
                self.expect(Asked::Other);
            }
            Command::Recipient(path) => {
                let room = self.change(out, |mail| mail.recipient(path));
                self.overfull |= room == Some(false);
                self.expect(Asked::Other);
            }
            Command::Data => {
                self.expect(Asked::Data);
                self.change(out, Mail::begin);
                self.mode = Mode::Data(Stuffing::default());
                self.hold();
            }
            Command::Chunk(Some((left, last))) => {
                match self.chunking {
                    true => self.expect(Asked::Other),
                    false => {
                        self.expect(Asked::Chunk);
                        self.hold();
                    }
                }
                self.change(out, Mail::begin);
                match left {
                    0 => self.chunk_ends(last, out),
                    left => self.mode = Mode::Chunk { left, last },
                }
            }
            Command::Chunk(None) => {
                self.event("invalid_bdat", ToServer, out);
                self.expect(Asked::Other);
            }
            Command::Reset | Command::Quit => {
                self.expect(Asked::Other);
                self.mail_ends(false, out);
            }
            Command::StartTls => {
                self.expect(Asked::StartTls);
                self.change = Change::Asked;
            }
            Command::Auth => self.expect(Asked::Auth),
            Command::Other => self.expect(Asked::Other),
            Command::Unknown => {
                if after_chunk {
                    self.event("bdat_chunk_len_exceeded", ToServer, out);
                }
                let is_text = |it: &u8| *it >= b' ' && *it != 0x7f || *it == b'\t';
                if !line.iter().all(is_text) {
                    self.event("unparsable_content", ToServer, out);
                }
                self.expect(Asked::Other);
            }
        }
    }

    /// Holds what comes until the server agrees. Where it is not heard nobody will say that it does
    /// not.
    fn hold(&mut self) {
        if self.held.is_none() && self.greeted && !self.lost {
            self.held = Some(Held {
                unasked: true,
                ..Held::default()
            });
        }
    }

    /// The server has agreed.
    fn agreed(&mut self) {
        if self.held.as_ref().is_some_and(|it| it.unasked) {
            self.held = None;
        }
    }

    fn hello(&mut self, name: &[u8], out: &mut Vec<Transaction>) {
        // RFC 5321, section 4.1.4: what was begun is forgotten.
        let begun = |mail: &mut Mail| mail.from.is_some();
        if self.change(out, begun) == Some(true) {
            self.mail_ends(false, out);
            self.open(out);
            self.change(out, |mail| mail.said = true);
        }
        if self.helo.is_some() {
            self.event("duplicate_fields", ToServer, out);
        } else if !name.is_empty() {
            self.helo = Some(name.to_vec());
            self.change(out, |mail| mail.helo = Some(name.to_vec()));
        }
    }

    /// More of the mail in hand.
    pub(super) fn mail_came(&mut self, bytes: &[u8], out: &mut [Transaction]) {
        if !bytes.is_empty() {
            self.change(out, |mail| mail.push(bytes));
        }
    }

    pub(super) fn mail_is_torn(&mut self, out: &mut [Transaction]) {
        self.change(out, Mail::gap);
    }

    pub(super) fn chunk_ends(&mut self, last: bool, out: &mut [Transaction]) {
        self.mode = Mode::Commands;
        self.after_chunk = true;
        if last {
            self.mail_ends(true, out);
        }
    }

    /// No further command is about the mail in hand; `whole` if all of it has come.
    pub(super) fn mail_ends(&mut self, whole: bool, out: &mut [Transaction]) {
        self.mode = Mode::Commands;
        self.change(out, |mail| {
            mail.end(whole);
        });
        let ended = self.current.take();
        if let Some(transaction) = find(out, ended) {
            transaction.came(ToServer, true);
        }
        self.answered(ended, out);
    }

    /// When a mail has ended and no reply to it is to come, that is all of it.
    fn answered(&self, id: Option<u64>, out: &mut [Transaction]) {
        let waits = |id| self.expected.iter().any(|it| it.transaction == Some(id));
        if let Some(transaction) = find(out, id)
            && is_closed(transaction)
            && !waits(transaction.id)
        {
            // Rules ask nothing of replies but for events.
            transaction.way_mut(ToClient).complete = true;
        }
    }

    /// A whole reply. Whether it can go on.
    pub(super) fn replied(&mut self, reply: Reply, out: &mut Vec<Transaction>) -> bool {
        let first = !std::mem::replace(&mut self.greeted, true);
        let front = self.expected.front().copied();
        if first {
            let greets = matches!(reply.code, 220 | 421 | 554);
            if greets && front.is_none_or(|it| it.asked != Asked::StartTls) {
                return true;
            }
            self.event("no_server_welcome_message", ToClient, out);
        }
        if reply.code == 354
            && let Some(at) = self.expected.iter().position(|it| it.asked == Asked::Data)
        {
            // Nothing else is answered so.
            self.expected.drain(..at);
        }
        // To this no server answers so: something is missing in front.
        let is_to_another = |it: Expected| it.asked == Asked::Data && reply.is_positive();
        let expected = match front.is_some_and(is_to_another) {
            true => None,
            false => self.expected.pop_front(),
        };
        let Some(expected) = expected else {
            return self.replied_unasked(reply, first, out);
        };
        let goes_on = match expected.asked {
            Asked::Data if reply.code == 354 => {
                self.agreed();
                true
            }
            Asked::Data => {
                self.event("data_command_rejected", ToClient, out);
                self.is_rejected(expected, None, out)
            }
            // It does not know the command, so the chunk is none (RFC 5321, section 4.2.4).
            Asked::Chunk if matches!(reply.code, 500 | 502) => {
                self.is_rejected(expected, None, out)
            }
            Asked::Chunk => {
                self.chunking = true;
                self.agreed();
                true
            }
            Asked::StartTls => {
                self.change = match reply.code {
                    220 => Change::Agreed,
                    _ => Change::No,
                };
                if self.change == Change::No {
                    self.event("tls_rejected", ToClient, out);
                }
                true
            }
            Asked::Auth if reply.code == 334 => self.secret_is_wanted(out),
            Asked::Auth => true,
            Asked::Other => true,
        };
        self.answered(expected.transaction, out);
        goes_on
    }

    fn replied_unasked(&mut self, reply: Reply, first: bool, out: &mut Vec<Transaction>) -> bool {
        match (self.mode, reply) {
            // The end of the mail was not seen, but the server has.
            (Mode::Data(_), reply)
                if reply.is_positive() && self.expected.is_empty() && self.may_have_ended() =>
            {
                self.mail_ends(self.held.is_some(), out);
                self.read_again(out)
            }
            (Mode::Commands | Mode::Line, Reply { code: 354, .. }) if self.lost => {
                // The command was not seen.
                self.open(out);
                self.change(out, Mail::begin);
                self.mode = Mode::Data(Stuffing::default());
                true
            }
            // RFC 5321, section 3.8: a server may say this at any time.
            (_, Reply { code: 421, .. }) => true,
            _ if self.lost || first => true,
            _ => {
                self.event("unable_to_match_reply_with_request", ToClient, out);
                true
            }
        }
    }

    /// Whether the server may have seen an end of the mail that was none here.
    fn may_have_ended(&self) -> bool {
        self.lost || self.held.is_some()
    }

    /// The next line of the client is none of its commands.
    fn secret_is_wanted(&mut self, out: &mut Vec<Transaction>) -> bool {
        let Some(sent) = self.expected.pop_front() else {
            self.wants_secret = true;
            return true;
        };
        // It was there before, and was taken for one.
        let secret = Expected {
            asked: Asked::Auth,
            ..sent
        };
        match sent.asked {
            Asked::Data | Asked::Chunk => self.is_rejected(sent, Some(secret), out),
            Asked::StartTls | Asked::Auth | Asked::Other => {
                if sent.asked == Asked::StartTls {
                    self.change = Change::No;
                }
                self.expected.push_front(secret);
                true
            }
        }
    }

    /// What was read as mail are commands; `first` waits for its reply before them.
    fn is_rejected(
        &mut self,
        expected: Expected,
        first: Option<Expected>,
        out: &mut Vec<Transaction>,
    ) -> bool {
        if self.held.is_none() && matches!(self.mode, Mode::Commands | Mode::Line) {
            self.expected.extend(first);
            return true;
        }
        // Nothing of what follows was asked.
        self.expected.clear();
        let in_hand = self.current == expected.transaction;
        if !in_hand || self.change(out, Mail::take_back) == Some(false) {
            let envelope = self.change(out, |mail| mail.envelope());
            self.mail_ends(false, out);
            // What was read to its end, and beyond, is over.
            if let Some(envelope) = envelope.filter(|_| in_hand) {
                self.open(out);
                self.change(out, |mail| mail.take_over(envelope));
            }
        }
        self.mode = Mode::Commands;
        let ids: Vec<_> = out.iter().map(|it| it.id).collect();
        ids.into_iter().for_each(|id| self.answered(Some(id), out));
        self.expected.extend(first);
        self.read_again(out)
    }

    fn read_again(&mut self, out: &mut Vec<Transaction>) -> bool {
        let Some(held) = self.held.take() else {
            return true;
        };
        self.read_twice += held.bytes.len();
        if held.overflow || self.read_twice > MAX_READ_TWICE {
            return false;
        }
        self.again = held.bytes;
        // No byte is added.
        !matches!(self.client(&[], out), Taken::Failed | Taken::Becomes(..))
    }
}
