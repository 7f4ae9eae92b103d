//! Descriptors under fixed numbers, and such that come with a message over a unix socket
//! (`SCM_RIGHTS`, unix(7)).

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::cmsg_space;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

/// Most descriptors of one message; the kernel closes what is more.
const DESCRIPTORS: usize = 16;

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
    drop(descriptor);
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

/// Keeps a descriptor open for the program that this process will become (execve(2)).
///
/// # Errors
/// As fcntl(2).
pub fn keep_over_exec(descriptor: &impl AsFd) -> io::Result<RawFd> {
    fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::empty()))?;
    Ok(descriptor.as_fd().as_raw_fd())
}

/// Takes [`keep_over_exec`] back.
///
/// # Errors
/// As fcntl(2).
pub fn close_on_exec(descriptor: &impl AsFd) -> io::Result<()> {
    fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    Ok(())
}

/// Takes over a descriptor that the former program of this process has kept open. From now on
/// exec closes it.
///
/// # Errors
/// When it is not open, or not meant to be kept: then it is somebody's in this program.
pub fn take_kept(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl(2) with F_GETFD takes a number only and changes nothing.
    match unsafe { libc::fcntl(number, libc::F_GETFD) } {
        -1 => return Err(io::Error::last_os_error()),
        flags if flags & libc::FD_CLOEXEC != 0 => {
            return Err(io::Error::other(format!(
                "descriptor {number} was not kept"
            )));
        }
        _ => {}
    }
    // SAFETY: it is open, and everything that this program has opened itself is closed by exec,
    // which this is not (checked above): so nothing else owns it.
    let kept = unsafe { OwnedFd::from_raw_fd(number) };
    fcntl(&kept, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_is_moved_once_and_kept_only_when_told_so() {
        let null = std::fs::File::open("/dev/null").unwrap();
        let moved = move_to(null.into(), 321).unwrap();
        assert_eq!(moved.as_raw_fd(), 321);
        let null = std::fs::File::open("/dev/null").unwrap();
        move_to(null.into(), 321).unwrap_err();
        take_kept(321).unwrap_err();
        assert_eq!(keep_over_exec(&moved).unwrap(), 321);
        // As after exec: the number is all that is left of it.
        std::mem::forget(moved);
        drop(take_kept(321).unwrap());
        take_kept(321).unwrap_err();
    }
}
