//! What aya does not tell about BPF links: the interface, and detaching at once.

use std::ffi::CString;
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::bpf::{InfoByFd, OBJ_GET_INFO_BY_FD, call, raw};

/// Commands of bpf(2), `enum bpf_cmd` in `linux/bpf.h`.
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_LINK_DETACH: libc::c_long = 34;

/// The arguments of `BPF_OBJ_GET`.
#[repr(C)]
struct ObjectGet {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// The beginning of `struct bpf_link_info`, as XDP and tcx links fill it. Everything is valid as
/// zero.
#[repr(C, align(8))]
#[derive(Default)]
struct LinkInfo {
    kind: u32,
    id: u32,
    program_id: u32,
    _padding: u32,
    interface_index: u32,
    attach_type: u32,
}

/// The arguments of `BPF_LINK_DETACH`.
#[repr(C)]
struct LinkDetach {
    link_fd: u32,
}

/// Opens a pinned link.
///
/// # Errors
/// When there is none, or the kernel refuses.
pub fn open(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut arguments = ObjectGet {
        pathname: path.as_ptr() as u64,
        bpf_fd: 0,
        file_flags: 0,
    };
    // SAFETY: the arguments hold a path that ends in zero and outlives the call.
    let fd = unsafe { call(BPF_OBJ_GET, &mut arguments) }?;
    // SAFETY: the call has just returned this new descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Index of the interface that an XDP or tcx link is attached to; zero when the interface is
/// gone.
///
/// # Errors
/// When the kernel refuses.
pub fn interface_index(link: BorrowedFd<'_>) -> io::Result<u32> {
    let mut info = LinkInfo::default();
    let mut arguments = InfoByFd {
        bpf_fd: raw(link),
        info_len: size_of::<LinkInfo>() as u32,
        info: &raw mut info as u64,
    };
    // SAFETY: the kernel writes at most the announced bytes into `info`, which outlives the call.
    unsafe { call(OBJ_GET_INFO_BY_FD, &mut arguments) }?;
    Ok(info.interface_index)
}

/// Detaches a link now. Closing it would do so when the kernel comes to it (Linux 5.9).
///
/// # Errors
/// When the kernel refuses.
pub fn detach(link: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: these arguments hold no pointer.
    unsafe { call(BPF_LINK_DETACH, &mut LinkDetach { link_fd: raw(link) }) }.map(drop)
}
