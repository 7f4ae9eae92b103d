//! bpf(2) with the arguments of one command.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

/// `BPF_OBJ_GET_INFO_BY_FD` of `enum bpf_cmd` in `linux/bpf.h`.
pub(super) const OBJ_GET_INFO_BY_FD: libc::c_long = 15;

/// The arguments of `BPF_OBJ_GET_INFO_BY_FD`.
#[repr(C)]
pub(super) struct InfoByFd {
    pub(super) bpf_fd: u32,
    pub(super) info_len: u32,
    pub(super) info: u64,
}

/// One call.
///
/// # Safety
/// `arguments` must be those of the command, and what they point to must be valid for what it
/// does with them.
pub(super) unsafe fn call<T>(command: libc::c_long, arguments: &mut T) -> io::Result<RawFd> {
    // SAFETY: the arguments are a live buffer of the given size, which the kernel may write to;
    // the pointers inside are vouched for by the caller.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            &raw mut *arguments,
            size_of::<T>() as libc::c_long,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // Descriptors fit, and the other commands return zero.
    Ok(result as RawFd)
}

/// A descriptor as the arguments hold it.
pub(super) fn raw(fd: BorrowedFd<'_>) -> u32 {
    // A borrowed descriptor is never negative.
    fd.as_raw_fd().cast_unsigned()
}
