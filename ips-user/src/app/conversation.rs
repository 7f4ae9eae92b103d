//! The conversation of a flow: who listens to it, and what has been said.

use super::AppOptions;
use super::figures::{self, Counted};
use super::handover::Onward;
use super::layer::AppLayer;
use super::listener::{Listener, Taken, listener};
use super::memory::{Account, AppMemory};
use super::protocol::AppProtocol;
use super::recognition::Ports;
use super::transaction::Transaction;
use crate::bounded::heap;
use crate::flow::PacketDirection;
use crate::metrics::figures::Figures;

/// The conversation of a flow.
#[derive(Debug)]
pub struct AppState {
    pub(super) protocol: AppProtocol,
    /// What it was at first, if that is something else.
    pub(super) original: Option<AppProtocol>,
    pub(super) listening: Listening,
    pub(super) transactions: Vec<Transaction>,
    /// How many there have been.
    pub(super) counted: u64,
    account: Account,
    /// All files of client and server are stored.
    pub(super) stores: [bool; 2],
}

/// Who takes apart what is said.
#[derive(Debug)]
pub(super) enum Listening {
    /// One who knows the protocol.
    Listens(Box<dyn Listener>),
    /// None yet: another process has listened until now.
    Inherited(Onward),
    /// Nobody listens any more.
    Closed,
}

impl Listening {
    /// Of a conversation that has had `base` transactions before.
    pub(super) fn new(
        protocol: AppProtocol,
        ports: Ports,
        options: &AppOptions,
        base: u64,
    ) -> Self {
        match options.takes_apart(protocol) {
            true => Self::Listens(listener(protocol, ports, options, base)),
            false => Self::Closed,
        }
    }

    pub(super) fn listener(&mut self) -> Option<&mut dyn Listener> {
        match self {
            Self::Listens(listener) => Some(&mut **listener),
            Self::Inherited(_) | Self::Closed => None,
        }
    }

    /// Bytes that it takes.
    fn taken(&self) -> usize {
        match self {
            Self::Listens(listener) => listener.taken(),
            Self::Inherited(_) | Self::Closed => 0,
        }
    }
}

/// What listening needs besides what is said.
#[derive(Debug)]
pub(crate) struct Hearing<'a> {
    /// How it is done.
    pub(crate) options: &'a AppOptions,
    /// What all flows take together.
    pub(crate) memory: &'a AppMemory,
    /// What is counted.
    pub(crate) figures: &'a mut Figures,
    /// Number of the protocol that carries it.
    pub(crate) transport: u8,
}

impl Hearing<'_> {
    pub(super) fn count(&mut self, protocol: AppProtocol, what: Counted, more: u64) {
        if let Some(number) = figures::number(protocol, self.transport, what) {
            self.figures.application(number, more);
        }
    }

    pub(super) fn count_failed(&mut self) {
        self.figures.application(figures::failed(self.transport), 1);
    }
}

/// Whether what has come could be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Heard {
    /// As far as it matters.
    Well,
    /// No: nothing that follows is read either.
    Badly,
}

/// Most transactions of a flow that wait for their ends; with more it is not followed any further.
pub(super) const MAX_TRANSACTIONS: usize = 1024;

impl AppState {
    pub(super) fn of(protocol: AppProtocol, ports: Ports, hearing: &mut Hearing<'_>) -> Self {
        hearing.count(protocol, Counted::Flow, 1);
        Self::with(
            protocol,
            Listening::new(protocol, ports, hearing.options, 0),
        )
    }

    pub(super) fn with(protocol: AppProtocol, listening: Listening) -> Self {
        Self {
            protocol,
            original: None,
            listening,
            transactions: Vec::new(),
            counted: 0,
            account: Account::default(),
            stores: [false; 2],
        }
    }

    /// What is left of it when nobody listens any more.
    pub(super) const fn over(&self) -> AppLayer {
        AppLayer::Over {
            protocol: self.protocol,
            original: self.original,
            counted: self.counted,
            stores: self.stores,
        }
    }

    pub(super) fn datagram(
        &mut self,
        direction: PacketDirection,
        payload: &[u8],
        ports: Ports,
        hearing: &mut Hearing<'_>,
    ) -> Heard {
        if self.resume(direction, payload, ports, hearing) != Some(true) {
            return Heard::Well;
        }
        let fits = self.has_room(payload.len(), hearing);
        let Some(listener) = self.listening.listener() else {
            return Heard::Well;
        };
        let refused = match self.transactions.len() >= MAX_TRANSACTIONS {
            true => Some(Counted::Internal),
            false => (!fits).then_some(Counted::Memory),
        };
        // One that is not read says nothing about the next.
        if let Some(what) = refused {
            hearing.count(self.protocol, what, 1);
            return Heard::Badly;
        }
        listener.datagram(direction, payload, &mut self.transactions);
        self.take_stock(hearing);
        Heard::Well
    }

    /// Returns how many bytes were taken; the rest comes again, with more.
    pub(super) fn stream(
        &mut self,
        direction: PacketDirection,
        data: &[u8],
        ports: Ports,
        hearing: &mut Hearing<'_>,
    ) -> (usize, Heard) {
        match self.resume(direction, data, ports, hearing) {
            Some(true) => {}
            Some(false) => return (data.len(), Heard::Well),
            None => return (0, Heard::Well),
        }
        if !self.has_room(data.len(), hearing) {
            return (data.len(), self.fail(Counted::Memory, hearing));
        }
        let out = &mut self.transactions;
        let taken = match self.listening.listener() {
            Some(listener) => listener.stream(direction, data, out),
            None => Taken::Ended,
        };
        let (taken, failed) = match taken {
            Taken::Bytes(taken) => (taken, None),
            Taken::Becomes(taken, protocol) => {
                self.becomes(protocol, ports, hearing);
                return match data.get(taken..) {
                    Some(rest) if !rest.is_empty() => {
                        let (further, heard) = self.stream(direction, rest, ports, hearing);
                        (taken + further, heard)
                    }
                    _ => (taken, Heard::Well),
                };
            }
            Taken::Ended => {
                self.close();
                (data.len(), None)
            }
            Taken::Failed => (data.len(), Some(Counted::Parser)),
        };
        (taken, self.heard(failed, hearing))
    }

    /// What follows is of another protocol.
    fn becomes(&mut self, protocol: AppProtocol, ports: Ports, hearing: &mut Hearing<'_>) {
        self.close();
        self.take_stock(hearing);
        self.original.get_or_insert(self.protocol);
        self.protocol = protocol;
        // It is counted, and has its own part of the memory.
        self.counted = 0;
        self.account = Account::default();
        if hearing.options.looks_for(protocol) {
            hearing.count(protocol, Counted::Flow, 1);
            self.listening = Listening::new(protocol, ports, hearing.options, 0);
        }
        self.take_stock(hearing);
    }

    /// Whether it may take so many bytes more.
    fn has_room(&self, bytes: usize, hearing: &Hearing<'_>) -> bool {
        let (memory, own) = (hearing.memory, self.account.bytes());
        memory.has_room(self.protocol, own, bytes, hearing.options)
    }

    /// Counts what has come, and keeps to the limits.
    fn heard(&mut self, failed: Option<Counted>, hearing: &mut Hearing<'_>) -> Heard {
        self.take_stock(hearing);
        let failed = failed.or_else(|| {
            let fits = self.has_room(0, hearing);
            match &self.listening {
                Listening::Closed => None,
                _ if self.transactions.len() > MAX_TRANSACTIONS => Some(Counted::Internal),
                _ => (!fits).then_some(Counted::Memory),
            }
        });
        match failed {
            Some(what) => self.fail(what, hearing),
            None => Heard::Well,
        }
    }

    /// Counts what has come, and what it takes of the memory.
    fn take_stock(&mut self, hearing: &mut Hearing<'_>) {
        // Others may be of what it was before.
        let last = self.transactions.last();
        let last = last.filter(|it| it.protocol() == self.protocol);
        let next = last.map_or(0, |it| it.id + 1);
        if next > self.counted {
            hearing.count(self.protocol, Counted::Transaction, next - self.counted);
            self.counted = next;
        }
        let limits = self.listening.listener().map_or(0, Listener::limits);
        if limits > 0 {
            hearing.count(self.protocol, Counted::Limit, limits);
        }
        if !self.account.is_open() {
            self.account = hearing.memory.open(self.protocol);
        }
        self.settle();
    }

    pub(super) fn settle(&mut self) {
        let transactions = self.transactions.iter_mut().map(Transaction::weigh);
        let transactions = transactions.sum::<usize>();
        let places = heap(self.transactions.capacity() * size_of::<Transaction>());
        let own = heap(size_of::<Self>()) + self.listening.taken();
        self.account.set(own + places + transactions);
    }

    fn fail(&mut self, what: Counted, hearing: &mut Hearing<'_>) -> Heard {
        hearing.count(self.protocol, what, 1);
        self.close();
        Heard::Badly
    }

    /// So many bytes of a direction are missing.
    pub(super) fn gap(
        &mut self,
        direction: PacketDirection,
        len: u64,
        hearing: &mut Hearing<'_>,
    ) -> Heard {
        let goes_on = match &mut self.listening {
            Listening::Listens(listener) => listener.gap(direction, len, &mut self.transactions),
            Listening::Inherited(_) | Listening::Closed => true,
        };
        self.heard((!goes_on).then_some(Counted::Gap), hearing)
    }

    /// Whether nobody listens any more.
    pub(super) const fn is_closed(&self) -> bool {
        matches!(self.listening, Listening::Closed)
    }

    /// What follows is not taken apart.
    pub(super) fn close(&mut self) {
        self.listening = Listening::Closed;
        for transaction in &mut self.transactions {
            for direction in PacketDirection::ALL {
                transaction.finish(direction);
            }
        }
        self.settle();
    }

    /// Nothing more comes of a direction.
    pub(super) fn end(&mut self, direction: PacketDirection) {
        if let Some(listener) = self.listening.listener() {
            listener.end(direction, &mut self.transactions);
        }
    }
}
