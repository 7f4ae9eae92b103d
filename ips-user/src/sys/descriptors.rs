//! Descriptors under fixed numbers, and such that come with a message over a unix socket
//! (`SCM_RIGHTS`, unix(7)).

use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::cmsg_space;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

/// Most descriptors of one message; the kernel closes what is more.
const DESCRIPTORS: usize = 8;

/// Moves a descriptor to another number, which must not be in use; exec closes it.
///
/// # Errors
/// When the number is in use, or as dup3(2).
pub fn move_to(descriptor: OwnedFd, number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl(2) with F_GETFD takes a number only and changes nothing.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } >= 0 {
        return Err(io::Error::other(format!("descriptor {number} is in use")));
    }
    // SAFETY: dup3(2) takes numbers only; nothing in this process owns `number` (checked above),
    // so that nobody's descriptor is replaced.
    if unsafe { libc::dup3(descriptor.as_raw_fd(), number, libc::O_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made it for this process, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Receives one message into `bytes`: its length, and its descriptors, which exec closes.
///
/// # Errors
/// As recvmsg(2).
pub fn receive(socket: &impl AsRawFd, bytes: &mut [u8]) -> nix::Result<(usize, Vec<OwnedFd>)> {
    let mut control = cmsg_space!([RawFd; DESCRIPTORS]);
    let mut slices = [IoSliceMut::new(bytes)];
    let received = recvmsg::<()>(
        socket.as_raw_fd(),
        &mut slices,
        Some(&mut control),
        MsgFlags::MSG_CMSG_CLOEXEC,
    )?;
    let mut descriptors = Vec::new();
    for message in received.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = message {
            // SAFETY: the kernel has just made these descriptors for this process; nothing else
            // owns them.
            let owned = raw
                .into_iter()
                .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
            descriptors.extend(owned);
        }
    }
    Ok((received.bytes, descriptors))
}
