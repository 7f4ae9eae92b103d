//! Where a worker's events, rejections and convictions go, and what did not get through.

use std::io::Write;
use std::net::IpAddr;

use ips_common::FlowKey;

use crate::inspection::{EventSink, Feedback, PacketTrace, RejectSender, Traced};
use crate::log::pipe::{Emitted, EventPipe};
use crate::supervisor::feedback::{FeedbackSocket, Message};
use crate::supervisor::seat::Seat;
use crate::sys::raw_socket::RawSocket;

/// To the event writer.
pub(super) struct Events<'a> {
    pipe: &'a EventPipe,
    pub(super) emitted: u64,
    pub(super) lost: u64,
}

impl<'a> Events<'a> {
    pub(super) fn new(pipe: &'a EventPipe) -> Self {
        Self {
            pipe,
            emitted: 0,
            lost: 0,
        }
    }
}

impl EventSink for Events<'_> {
    fn emit(&mut self, line: &[u8]) {
        match self.pipe.emit(line) {
            Emitted::Queued => self.emitted += 1,
            Emitted::Lost => self.lost += 1,
        }
    }
}

/// To the ends of rejected flows. Without CAP_NET_RAW there is no socket: then rejected packets
/// are dropped all the same, and the rejection counts as lost.
pub(super) struct Rejects {
    socket: Option<RawSocket>,
    unsendable: u64,
}

impl Rejects {
    pub(super) fn new(socket: Option<RawSocket>) -> Self {
        Self {
            socket,
            unsendable: 0,
        }
    }

    pub(super) fn lost(&self) -> u64 {
        self.unsendable
            + self
                .socket
                .as_ref()
                .map_or(0, |socket| socket.counters().failed)
    }
}

impl RejectSender for Rejects {
    fn send(&mut self, packet: &[u8], to: IpAddr) {
        match &mut self.socket {
            Some(socket) => socket.send(packet, to),
            None => self.unsendable += 1,
        }
    }
}

/// To the supervisor.
pub(super) struct Convictions<'a> {
    socket: &'a FeedbackSocket,
    seat: Seat,
    pub(super) lost: u64,
}

impl<'a> Convictions<'a> {
    pub(super) fn new(socket: &'a FeedbackSocket, seat: Seat) -> Self {
        Self {
            socket,
            seat,
            lost: 0,
        }
    }
}

impl Feedback for Convictions<'_> {
    fn convict(&mut self, key: &FlowKey, signature_id: u32) {
        let message = Message::Convict {
            seat: self.seat,
            key: *key,
            signature_id,
        };
        if self.socket.send(message).is_err() {
            self.lost += 1;
        }
    }
}

/// To standard error, a line a packet.
pub(super) struct StandardError {
    seat: Seat,
}

impl StandardError {
    pub(super) fn new(seat: Seat) -> Self {
        Self { seat }
    }
}

impl PacketTrace for StandardError {
    fn packet(&mut self, traced: &Traced<'_>) {
        // Nobody reads standard error: then nobody misses the line either.
        let _ = writeln!(std::io::stderr(), "{} {traced}", self.seat);
    }
}
