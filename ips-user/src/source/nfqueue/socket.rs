//! The netlink socket of a queue: the only unsafe code of the transport.

use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, getsockopt, recv,
    send, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeSpec;

use crate::sys::pages::Pages;

/// Opens a socket for netfilter's netlink in the calling thread's network namespace, not yet
/// bound: no packet can arrive.
pub(super) fn open() -> io::Result<OwnedFd> {
    Ok(socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkNetFilter,
    )?)
}

/// Asks for a receive buffer of `bytes` and returns what was granted. Beyond
/// `net.core.rmem_max` only with `CAP_NET_ADMIN` (`SO_RCVBUFFORCE`).
pub(super) fn set_receive_buffer(socket: &OwnedFd, bytes: usize) -> io::Result<usize> {
    if setsockopt(socket, sockopt::RcvBufForce, &bytes).is_err() {
        setsockopt(socket, sockopt::RcvBuf, &bytes)?;
    }
    // The kernel doubles what is asked for, to make room for its own structures (socket(7)).
    Ok(getsockopt(socket, sockopt::RcvBuf)? / 2)
}

/// Asks for a send buffer of `bytes`; longer packed verdicts are refused (`EMSGSIZE`).
pub(super) fn set_send_buffer(socket: &OwnedFd, bytes: usize) -> io::Result<()> {
    if setsockopt(socket, sockopt::SndBufForce, &bytes).is_err() {
        setsockopt(socket, sockopt::SndBuf, &bytes)?;
    }
    Ok(())
}

/// Binds to a port of the kernel's choice.
pub(super) fn bind_any_port(socket: &OwnedFd) -> io::Result<()> {
    Ok(bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?)
}

/// Sets a flag of the netlink layer (`NETLINK_CAP_ACK`, `NETLINK_NO_ENOBUFS`).
pub(super) fn set_netlink_flag(socket: &OwnedFd, name: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the value pointer and length describe `on`, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_NETLINK,
            name,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Messages that the kernel could not put into the full receive buffer, since the socket was
/// opened (`SO_MEMINFO`, Linux 4.12); wraps at 2^32.
pub(super) fn drops(socket: BorrowedFd<'_>) -> io::Result<u32> {
    Ok(memory(socket)?[DROPS])
}

/// Bytes of memory that waiting messages take, and how many may (`SO_MEMINFO`).
pub(super) fn buffered(socket: BorrowedFd<'_>) -> io::Result<(u32, u32)> {
    let info = memory(socket)?;
    Ok((info[RMEM_ALLOC], info[RCVBUF]))
}

/// `SK_MEMINFO_RMEM_ALLOC`.
const RMEM_ALLOC: usize = 0;
/// `SK_MEMINFO_RCVBUF`.
const RCVBUF: usize = 1;
/// `SK_MEMINFO_DROPS`.
const DROPS: usize = 8;

fn memory(socket: BorrowedFd<'_>) -> io::Result<[u32; DROPS + 1]> {
    let mut info = [0_u32; DROPS + 1];
    let mut len = size_of_val(&info) as libc::socklen_t;
    // SAFETY: the value pointer and length describe `info`; the kernel writes at most `len`
    // bytes there and both outlive the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            info.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(info)
}

/// Sends one datagram to the kernel, which has worked through it when this returns.
pub(super) fn send_to_kernel(socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<()> {
    send(socket.as_raw_fd(), bytes, MsgFlags::empty())?;
    Ok(())
}

/// Looks at the first datagram without taking it out; returns its length, or that of the
/// buffer when it is longer.
pub(super) fn peek(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    Ok(recv(socket.as_raw_fd(), buffer, flags)?)
}

/// Takes the first datagram out.
pub(super) fn discard_first(socket: BorrowedFd<'_>) -> io::Result<()> {
    recv(socket.as_raw_fd(), &mut [], MsgFlags::MSG_DONTWAIT)?;
    Ok(())
}

/// Takes the first datagram out and returns how much of it is in the buffer; the rest is gone.
pub(super) fn receive_head(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    Ok(recv(socket.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT)?)
}

/// Waits until something can be received; false after `timeout`.
pub(super) fn wait(socket: BorrowedFd<'_>, timeout: Duration) -> io::Result<bool> {
    let mut descriptors = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    let ready = ppoll(
        &mut descriptors,
        Some(TimeSpec::from_duration(timeout)),
        None,
    )?;
    Ok(ready > 0)
}

/// Distance of the buffers for datagrams of `size` bytes.
fn stride(size: usize) -> usize {
    /// Shifts the beginning of each buffer against the pages, so that the headers of a batch do
    /// not all compete for the same sets of the first-level cache.
    const COLOUR: usize = 320;
    size.next_multiple_of(64) + COLOUR
}

/// Buffers for receiving many datagrams by one call.
#[derive(Default)]
pub(super) struct Receiver {
    storage: Pages,
    stride: usize,
    vectors: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
    received: usize,
}

// SAFETY: the raw pointers in `vectors` and `headers` are used during `receive` only, which
// writes them anew each time from fields that the receiver owns.
unsafe impl Send for Receiver {}

impl Receiver {
    /// Bytes that [`Self::new`] needs for `batch` datagrams of `size` bytes each.
    pub(super) fn bytes(batch: usize, size: usize) -> usize {
        batch * stride(size)
    }

    /// Receives into `storage`, which has [`Self::bytes`].
    pub(super) fn new(batch: usize, size: usize, storage: Pages) -> Self {
        // SAFETY: both are plain C structures for which all zeroes is a valid value.
        let (vector, header) = unsafe { (zeroed::<libc::iovec>(), zeroed::<libc::mmsghdr>()) };
        Self {
            storage,
            stride: stride(size),
            vectors: vec![vector; batch],
            headers: vec![header; batch],
            received: 0,
        }
    }

    /// Receives what is there, at most `limit` datagrams and at most a batch, without waiting.
    /// The error is `WouldBlock` when nothing is.
    pub(super) fn receive(&mut self, socket: BorrowedFd<'_>, limit: usize) -> io::Result<usize> {
        self.received = 0;
        let limit = limit.min(self.headers.len());
        let storage = self.storage.as_mut_slice();
        let buffers = storage.chunks_exact_mut(self.stride).take(limit);
        for ((buffer, vector), header) in buffers.zip(&mut self.vectors).zip(&mut self.headers) {
            vector.iov_base = buffer.as_mut_ptr().cast();
            vector.iov_len = buffer.len();
            header.msg_hdr.msg_iov = ptr::from_mut(vector);
            header.msg_hdr.msg_iovlen = 1;
        }
        let count = libc::c_uint::try_from(limit).unwrap_or(libc::c_uint::MAX);
        // SAFETY: `headers` holds at least `count` headers, initialised above; each points to one vector, and
        // that to a buffer of its own within `storage`; nothing else refers to them, and
        // `&mut self` keeps them in place for the time of the call.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                count,
                libc::MSG_DONTWAIT as _,
                ptr::null_mut(),
            )
        };
        self.received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        Ok(self.received)
    }

    /// Where the buffers are.
    pub(super) fn address(&self) -> usize {
        self.storage.as_slice().as_ptr().addr()
    }

    /// The datagrams of the last receive.
    pub(super) fn datagrams(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.storage
            .as_slice()
            .chunks_exact(self.stride.max(1))
            .zip(&self.headers)
            .take(self.received)
            .map(|(buffer, header)| {
                let len = usize::try_from(header.msg_len).unwrap_or(usize::MAX);
                &buffer[..len.min(buffer.len())]
            })
    }
}
