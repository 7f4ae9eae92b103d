//! The packet in hand, as every stage is given it.

use crate::decode::Decoded;
use crate::flow::{Flow, PacketDirection, Timestamp};
use crate::source::{Checksum, Packet};

/// A packet's flow and its direction in it, if it has one.
pub(super) type InFlow<'f> = Option<(&'f mut Flow, PacketDirection)>;

/// One packet.
#[derive(Clone, Copy)]
pub(super) struct Case<'a> {
    pub(super) packet: &'a Decoded<'a>,
    pub(super) now: Timestamp,
    /// Its number where it comes from.
    pub(super) id: u32,
    pub(super) in_interface: u32,
    pub(super) out_interface: u32,
    /// Not all of its bytes are here.
    pub(super) cut: bool,
    /// Its checksum is left to the network card.
    pub(super) partial_checksum: bool,
    /// There is no such packet: it stands for the end of a flow.
    pub(super) pseudo: bool,
}

impl<'a> Case<'a> {
    pub(super) fn new(received: &Packet<'_>, packet: &'a Decoded<'a>, now: Timestamp) -> Self {
        Self {
            packet,
            now,
            id: received.id.0,
            in_interface: received.in_interface,
            out_interface: received.out_interface,
            cut: (received.payload.len() as u64) < u64::from(received.original_len),
            partial_checksum: received.checksum == Checksum::NotReady,
            pseudo: false,
        }
    }
}
