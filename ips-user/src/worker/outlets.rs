//! Where a worker's events, rejections and convictions go, and what did not get through.

use std::io::Write;
use std::net::IpAddr;

use ips_common::FlowKey;

use crate::inspection::{EventSink, Feedback, PacketTrace, RejectSender, Traced};
use crate::log::output::files;
use crate::log::pipe::{Emitted, EventPipe};
use crate::rejecter::RejectSocket;
use crate::supervisor::feedback::{FeedbackSocket, Message};
use crate::supervisor::seat::Seat;

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

    fn store(&mut self, hash: &[u8; 32], content: &[u8]) -> bool {
        let pipe = self.pipe;
        let sent = files::messages(hash, content, |it| pipe.emit(it) == Emitted::Queued);
        self.lost += u64::from(!sent);
        sent
    }

    fn describe(&mut self, hash: &[u8; 32], line: &[u8]) {
        self.emit(&files::record(hash, line));
    }
}

/// To the ends of rejected flows, by way of the rejecter. What it cannot take is lost: the
/// packets are dropped all the same.
pub(super) struct Rejects<'a> {
    socket: &'a RejectSocket,
    pub(super) lost: u64,
}

impl<'a> Rejects<'a> {
    pub(super) fn new(socket: &'a RejectSocket) -> Self {
        Self { socket, lost: 0 }
    }
}

impl RejectSender for Rejects<'_> {
    /// The rejecter reads the receiver from the packet itself.
    fn send(&mut self, packet: &[u8], _: IpAddr) {
        if self.socket.send(packet).is_err() {
            self.lost += 1;
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
