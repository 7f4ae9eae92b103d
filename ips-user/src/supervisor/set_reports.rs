//! What workers' rules have changed in sets, on its way to the supervisor: records over a socket
//! pair that all workers share. It is not the one for [`super::feedback`], because rules can change
//! more than the supervisor keeps up with, and then what matters more must still get through.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, recv, send, setsockopt, socketpair, sockopt,
};

use crate::detect::dataset::record::{HEAD, LONGEST_VALUE};

/// Longest report.
pub const REPORT_BYTES: usize = HEAD + LONGEST_VALUE;
/// Bytes that may wait for the supervisor.
const BUFFER_BYTES: usize = 1 << 20;

/// One end of the pair.
#[derive(Debug)]
pub struct SetReports {
    socket: OwnedFd,
}

impl SetReports {
    /// The supervisor's end and the workers' end, neither of which waits.
    ///
    /// # Errors
    /// When descriptors run out.
    pub fn pair() -> io::Result<(Self, Self)> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (supervisor, workers) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        setsockopt(&workers, sockopt::SndBuf, &BUFFER_BYTES)?;
        Ok((Self { socket: supervisor }, Self { socket: workers }))
    }

    /// Takes over a descriptor that is such an end.
    pub fn from_fd(socket: OwnedFd) -> Self {
        Self { socket }
    }

    /// Sends records, at most [`REPORT_BYTES`].
    ///
    /// # Errors
    /// When the supervisor is gone or does not keep up.
    pub fn send(&self, records: &[u8]) -> io::Result<()> {
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        send(self.socket.as_raw_fd(), records, flags)?;
        Ok(())
    }

    /// The next records, which workers may have made up; `WouldBlock` when none wait.
    ///
    /// # Errors
    /// As recv(2).
    pub fn receive<'a>(&self, buffer: &'a mut [u8; REPORT_BYTES]) -> io::Result<&'a [u8]> {
        let length = recv(self.socket.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT)?;
        Ok(&buffer[..length])
    }
}

impl AsFd for SetReports {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
