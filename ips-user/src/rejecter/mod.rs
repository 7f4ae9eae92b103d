//! The rejecter: a process that sends resets and unreachables for the workers, so that none of
//! them holds a raw socket. It sees no traffic, only what they ask it to send, and sends only
//! what is a rejection.

#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod keeper;
mod raw_socket;
mod request;
mod tally;

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use caps::Capability;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, recv, send, setsockopt, socketpair, sockopt,
};

pub use keeper::{Keeper, Place};
pub use tally::{RejecterCounters, Tally};

use crate::sys::sandbox::{Account, Calls, Sandbox};
use raw_socket::RawSocket;

/// What its process is called.
pub const NAME: &str = "sluice-rejecter";

/// Bytes that may wait for the rejecter.
const BUFFER_BYTES: usize = 1 << 20;

/// Where workers put rejections: packets complete from the IP header on. Every copy of the
/// descriptor leads to the same rejecter.
#[derive(Debug)]
pub struct RejectSocket {
    socket: OwnedFd,
}

/// The rejecter's end. It ends when every [`RejectSocket`] is closed.
#[derive(Debug)]
struct Requests {
    socket: OwnedFd,
}

fn pair() -> io::Result<(RejectSocket, Requests)> {
    let (workers, rejecter) = socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )?;
    setsockopt(&workers, sockopt::SndBuf, &BUFFER_BYTES)?;
    Ok((
        RejectSocket { socket: workers },
        Requests { socket: rejecter },
    ))
}

impl RejectSocket {
    /// Hands over a packet without waiting.
    ///
    /// # Errors
    /// When the rejecter does not keep up, or there is none.
    pub fn send(&self, packet: &[u8]) -> io::Result<()> {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        send(self.socket.as_raw_fd(), packet, flags)?;
        Ok(())
    }
}

/// What was received.
#[derive(Debug, PartialEq, Eq)]
enum Received {
    /// A request of so many bytes, of which as many as fit are in the buffer.
    Request(usize),
    /// Nobody can ask any more.
    End,
}

impl Requests {
    fn receive(&self, buffer: &mut [u8]) -> nix::Result<Received> {
        loop {
            match recv(self.socket.as_raw_fd(), buffer, MsgFlags::MSG_TRUNC) {
                // An empty message reads like the end, and no worker shall be able to end this.
                Ok(0) if self.hung_up() => return Ok(Received::End),
                Ok(length) => return Ok(Received::Request(length)),
                Err(nix::Error::EINTR) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Throws away what waits, counted as not sent.
    fn give_up(&self, tally: &Tally) {
        while recv(self.socket.as_raw_fd(), &mut [0; 1], MsgFlags::MSG_DONTWAIT)
            .is_ok_and(|length| length > 0)
        {
            tally.failed();
        }
    }

    fn hung_up(&self) -> bool {
        let mut state = [PollFd::new(self.socket.as_fd(), PollFlags::empty())];
        // POLLHUP needs no asking for (poll(2)).
        let polled = poll(&mut state, PollTimeout::ZERO);
        polled.is_err() || state[0].any().unwrap_or(true)
    }
}

/// Sends what is asked for and is a rejection, until nobody can ask any more.
fn serve(requests: &Requests, raw: &RawSocket, tally: &Tally) -> nix::Result<()> {
    let mut buffer = [0; request::MAX_BYTES];
    while let Received::Request(length) = requests.receive(&mut buffer)? {
        let checked = buffer
            .get(..length)
            .ok_or(request::Refusal::TooLong)
            .and_then(|packet| request::check(packet).map(|to| (packet, to)));
        match checked {
            Ok((packet, to)) => match raw.send(packet, to) {
                Ok(_) => tally.sent(),
                Err(_) => tally.failed(),
            },
            Err(refusal) => {
                // The first says that something is wrong with a worker, the number how much.
                if tally.refused() == 1 {
                    log::warn!("refused to send what a worker asked for: {refusal}");
                }
            }
        }
    }
    Ok(())
}

/// The sandbox of the calling process, the rejecter. Its sockets are open and marked before it
/// enters.
fn sandbox(account: Account, landlock: bool, seccomp: bool) -> Sandbox {
    let calls = || Calls::of_this_process().allow(&[libc::SYS_recvfrom, libc::SYS_sendto]);
    Sandbox {
        account,
        keeps: Capability::CAP_NET_RAW,
        landlock,
        calls: seccomp.then(calls),
    }
}

#[cfg(test)]
mod tests;
