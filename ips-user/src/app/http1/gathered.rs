//! The exchanges of a connection while its parser runs: what it finds is put where it is kept, so
//! that nothing is held besides, however much a body becomes when it is decompressed.

use suricata_htp::log::HtpLogCode;

use super::event;
use super::exchange::{Exchange, Limits};
use super::htp::{Of, Piece, View};
use crate::app::transaction::Transaction;
use crate::flow::PacketDirection;

/// What the parser's callbacks add to.
#[derive(Debug)]
pub(super) struct Gathered {
    /// Those of the connection, for as long as the parser runs.
    transactions: Vec<Transaction>,
    kept: Limits,
    /// How often something was not decompressed any further.
    pub(super) limits: u64,
    /// Number of the parser's first transaction.
    first: u64,
    /// So many messages of each direction are complete.
    complete: [u64; 2],
}

impl Gathered {
    /// With transactions that are numbered from `first` on.
    pub(super) const fn new(kept: Limits, first: u64) -> Self {
        Self {
            transactions: Vec::new(),
            kept,
            limits: 0,
            first,
            complete: [first; 2],
        }
    }

    /// Takes the transactions over, or gives them back.
    pub(super) fn exchange(&mut self, transactions: &mut Vec<Transaction>) {
        std::mem::swap(&mut self.transactions, transactions);
    }

    /// The one with this number; one that is new is made.
    fn transaction(&mut self, number: u64) -> Option<&mut Transaction> {
        let found = self.transactions.iter().rposition(|it| it.id == number);
        let newest = self.transactions.last();
        let at = match found {
            Some(at) => at,
            None if newest.is_none_or(|it| it.id < number) => {
                let content = Exchange::new(self.kept);
                self.transactions.push(Transaction::new(number, content));
                self.transactions.len() - 1
            }
            // It was let go.
            None => return None,
        };
        self.transactions.get_mut(at)
    }

    /// Makes those up to the parser's number `count`, where there are none yet.
    pub(super) fn begin(&mut self, from: usize, count: usize) {
        for number in from..count {
            self.transaction(self.first + number as u64);
        }
    }

    /// Data of a transaction of the parser, in the order in which it comes.
    pub(super) fn piece(&mut self, view: View<'_>, of: Of, piece: Piece<'_>) {
        let number = self.first + view.number() as u64;
        if let Some(transaction) = self.transaction(number)
            && let Some(exchange) = transaction.content_mut::<Exchange>()
            && exchange.add(of, piece, view)
        {
            transaction.came(of.direction(), false);
        }
    }

    /// All of a message has come.
    pub(super) fn completed(&mut self, number: usize, direction: PacketDirection) {
        let complete = &mut self.complete[direction.number()];
        *complete = (self.first + number as u64 + 1).max(*complete);
    }

    /// Something remarkable about a message of the parser's transaction with this number.
    pub(super) fn remark(&mut self, number: usize, direction: PacketDirection, code: HtpLogCode) {
        self.remarked(self.first + number as u64, direction, code);
    }

    /// The same about what has come last of a direction.
    pub(super) fn remark_last(&mut self, direction: PacketDirection, code: HtpLogCode) {
        self.remarked(self.complete[direction.number()], direction, code);
    }

    fn remarked(&mut self, number: u64, direction: PacketDirection, code: HtpLogCode) {
        self.limits += u64::from(event::is_limit(code));
        // Where there is no message yet it is about the one before.
        let mut near = self.transactions.iter_mut().rev();
        if let Some(name) = event::name(code)
            && let Some(transaction) = near.find(|it| it.id <= number)
            && !transaction.events.contains(&name)
        {
            transaction.events.push(name);
            transaction.way_mut(direction).changed = true;
        }
    }
}
