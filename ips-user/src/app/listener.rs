//! What makes transactions of what is said in a flow, for each protocol.

use std::fmt::Debug;

use super::handover::Onward;
use super::options::AppOptions;
use super::protocol::AppProtocol;
use super::recognition::Ports;
use super::transaction::Transaction;
use super::{dns, http1, smtp, ssh, tls};
use crate::flow::PacketDirection;

/// Takes apart what is said in one flow.
pub(super) trait Listener: Debug {
    /// What there is of a direction of a stream; what is not taken comes again, with more.
    fn stream(
        &mut self,
        direction: PacketDirection,
        bytes: &[u8],
        out: &mut Vec<Transaction>,
    ) -> Taken;

    /// A datagram.
    fn datagram(
        &mut self,
        _direction: PacketDirection,
        _bytes: &[u8],
        _out: &mut Vec<Transaction>,
    ) {
    }

    /// So many bytes of a direction are missing. Whether it can go on: most cannot, as nobody knows
    /// where the next message begins.
    fn gap(&mut self, _direction: PacketDirection, _len: u64, _out: &mut Vec<Transaction>) -> bool {
        false
    }

    /// Nothing more comes of a direction.
    fn end(&mut self, _direction: PacketDirection, _out: &mut Vec<Transaction>) {}

    /// Bytes that it takes.
    fn taken(&self) -> usize {
        0
    }

    /// How often a limit has kept something from being read, since that was asked last.
    fn limits(&mut self) -> u64 {
        0
    }

    /// How another process could go on.
    fn onward(&self, _in_hand: &[Transaction]) -> Onward {
        Onward::Lost
    }
}

/// What a parser does with bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// So many of them are done with.
    Bytes(usize),
    /// So many of them are done with, and what follows is of another protocol.
    Becomes(usize, AppProtocol),
    /// Nothing that follows is to be looked at.
    Ended,
    /// It cannot go on, and nobody knows what follows.
    Failed,
}

/// Who takes apart what this protocol says, in a conversation that has had `base` transactions
/// before.
pub(super) fn listener(
    protocol: AppProtocol,
    ports: Ports,
    options: &AppOptions,
    base: u64,
) -> Box<dyn Listener> {
    match protocol {
        AppProtocol::Dns => Box::new(dns::Parser::new(base)),
        AppProtocol::Http1 => Box::new(http1::Parser::new(ports, options, base)),
        AppProtocol::Tls => Box::new(tls::Parser::default()),
        AppProtocol::Ssh => Box::new(ssh::Parser::new(options.hassh == Some(true))),
        AppProtocol::Smtp => Box::new(smtp::Parser::new(
            ports,
            &options.smtp,
            options.hashes,
            options.stored_bytes(),
        )),
    }
}
