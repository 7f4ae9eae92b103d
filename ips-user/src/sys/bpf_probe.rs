//! `bpf(2)` requests that try what a kernel can do, each with its smallest example.
//!
//! Not a loader: the loader is aya's. A probe must not depend on the object it is to explain
//! the failure of. Numbers and offsets: `linux/bpf.h`.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

/// `bpf(2)` commands.
#[derive(Clone, Copy)]
#[repr(i32)]
enum Command {
    MapCreate = 0,
    ProgramLoad = 5,
    ProgramTestRun = 10,
    ProgramGetFdById = 13,
    ObjectGetInfoByFd = 15,
    ProgramQuery = 16,
    BtfLoad = 18,
    LinkCreate = 28,
}

/// A `union bpf_attr` of as many zero bytes as any kernel so far looks at.
#[repr(align(8))]
struct Attributes([u8; 144]);

impl Attributes {
    const fn new() -> Self {
        Self([0; 144])
    }

    fn u32(mut self, offset: usize, value: u32) -> Self {
        self.0[offset..offset + 4].copy_from_slice(&value.to_ne_bytes());
        self
    }

    fn pointer<T>(mut self, offset: usize, value: *const T) -> Self {
        let value = value as usize as u64;
        self.0[offset..offset + 8].copy_from_slice(&value.to_ne_bytes());
        self
    }

    fn fd(self, offset: usize, fd: &OwnedFd) -> Self {
        self.u32(offset, u32::try_from(fd.as_raw_fd()).unwrap_or(u32::MAX))
    }

    fn read_u32(&self, offset: usize) -> u32 {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&self.0[offset..offset + 4]);
        u32::from_ne_bytes(bytes)
    }

    /// # Safety
    /// Every pointer in the attributes must be valid for what the command does with it.
    unsafe fn call(&mut self, command: Command) -> io::Result<libc::c_long> {
        // SAFETY: the attributes are a live buffer of the given size, which the kernel may
        // write to; the pointers inside are vouched for by the caller.
        let result = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                command as libc::c_int,
                self.0.as_mut_ptr(),
                self.0.len(),
            )
        };
        if result < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(result)
        }
    }

    /// # Safety
    /// As [`Self::call`], and the command must return a new descriptor.
    unsafe fn call_for_fd(&mut self, command: Command) -> io::Result<OwnedFd> {
        // SAFETY: the caller's promise.
        let fd = unsafe { self.call(command)? };
        let fd = libc::c_int::try_from(fd).map_err(|_| io::ErrorKind::InvalidData)?;
        // SAFETY: the kernel has just made this descriptor for us and nobody else knows it.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }
}

/// Map types that the steering programs use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapKind {
    /// `BPF_MAP_TYPE_PERCPU_ARRAY`, Linux 4.6.
    PerCpuArray,
    /// `BPF_MAP_TYPE_LRU_HASH`, Linux 4.10.
    LruHash,
    /// An array with `BPF_F_MMAPABLE`, Linux 5.5.
    MappedArray,
    /// `BPF_MAP_TYPE_RINGBUF`, Linux 5.8.
    RingBuffer,
}

/// Creates a map of the kind and closes it again.
///
/// # Errors
/// The kernel's: `EINVAL` when it does not know the kind, `EPERM` without privilege.
pub fn create_map(kind: MapKind) -> io::Result<()> {
    const BPF_F_MMAPABLE: u32 = 1 << 10;
    let page =
        u32::try_from(nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)?.unwrap_or(4096))
            .unwrap_or(4096);
    let (map_type, key, value, entries, flags) = match kind {
        MapKind::PerCpuArray => (6, 4, 8, 4, 0),
        MapKind::LruHash => (9, 8, 8, 64, 0),
        MapKind::MappedArray => (2, 4, 8, 64, BPF_F_MMAPABLE),
        MapKind::RingBuffer => (27, 0, 0, page, 0),
    };
    let mut attributes = Attributes::new()
        .u32(0, map_type)
        .u32(4, key)
        .u32(8, value)
        .u32(12, entries)
        .u32(16, flags);
    // SAFETY: this command's attributes hold no pointer, and it returns a descriptor.
    unsafe { attributes.call_for_fd(Command::MapCreate) }.map(drop)
}

/// Program types that Sluice loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgramKind {
    /// `BPF_PROG_TYPE_SCHED_CLS`.
    SchedClassifier,
    /// `BPF_PROG_TYPE_XDP`.
    Xdp,
}

/// Loads a program that only returns: 0 (`TC_ACT_OK`), or for XDP 1 (`XDP_DROP`).
///
/// # Errors
/// The kernel's.
pub fn load_program(kind: ProgramKind) -> io::Result<OwnedFd> {
    let (program_type, result) = match kind {
        ProgramKind::SchedClassifier => (3, 0u8),
        ProgramKind::Xdp => (6, 1),
    };
    // r0 = result (BPF_ALU64 | BPF_MOV | BPF_K); exit
    let code: [[u8; 8]; 2] = [
        [0xb7, 0, 0, 0, result, 0, 0, 0],
        [0x95, 0, 0, 0, 0, 0, 0, 0],
    ];
    let mut attributes = Attributes::new()
        .u32(0, program_type)
        .u32(4, 2)
        .pointer(8, code.as_ptr())
        .pointer(16, c"Dual MIT/GPL".as_ptr());
    // SAFETY: `code` holds the two instructions announced and the licence ends in zero; both
    // outlive the call, and the command returns a descriptor.
    unsafe { attributes.call_for_fd(Command::ProgramLoad) }
}

/// Where a program can be attached by a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachPoint {
    /// `BPF_TCX_INGRESS`, Linux 6.6.
    TcxIngress,
    /// `BPF_XDP` in generic mode, Linux 5.9 (links).
    XdpGeneric,
}

/// Attaches `program` to the interface; it is detached when the link is dropped.
///
/// # Errors
/// The kernel's.
pub fn attach(program: &OwnedFd, interface: u32, point: AttachPoint) -> io::Result<OwnedFd> {
    const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
    let (attach_type, flags) = match point {
        AttachPoint::TcxIngress => (46, 0),
        AttachPoint::XdpGeneric => (37, XDP_FLAGS_SKB_MODE),
    };
    let mut attributes = Attributes::new()
        .fd(0, program)
        .u32(4, interface)
        .u32(8, attach_type)
        .u32(12, flags);
    // SAFETY: these attributes hold no pointer, and the command returns a descriptor.
    unsafe { attributes.call_for_fd(Command::LinkCreate) }
}

/// Sends one frame through an XDP program that drops it, as live frames (Linux 5.18).
///
/// # Errors
/// `EINVAL` from a kernel without `BPF_F_TEST_XDP_LIVE_FRAMES`.
pub fn run_live_frame(program: &OwnedFd) -> io::Result<()> {
    const BPF_F_TEST_XDP_LIVE_FRAMES: u32 = 1 << 1;
    let frame = [0u8; 64];
    let mut attributes = Attributes::new()
        .fd(0, program)
        .u32(8, 64)
        .pointer(16, frame.as_ptr())
        .u32(32, 1)
        .u32(64, BPF_F_TEST_XDP_LIVE_FRAMES);
    // SAFETY: the kernel reads the announced 64 bytes of `frame`, which outlives the call.
    unsafe { attributes.call(Command::ProgramTestRun) }.map(drop)
}

/// Loads type information for one `int`.
///
/// # Errors
/// The kernel's.
pub fn load_btf() -> io::Result<()> {
    let mut btf = Vec::new();
    btf.extend(0xeb9fu16.to_ne_bytes());
    btf.extend([1u8, 0]); // version, flags
    // Header length; types at 0, 16 bytes; strings at 16, 5 bytes. Then the type: name at 1,
    // kind INT, 4 bytes, 32 bits.
    for word in [24u32, 0, 16, 16, 5, 1, 1 << 24, 4, 32] {
        btf.extend(word.to_ne_bytes());
    }
    btf.extend(b"\0int\0");
    let length = u32::try_from(btf.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    let mut attributes = Attributes::new().pointer(0, btf.as_ptr()).u32(16, length);
    // SAFETY: the kernel reads `length` bytes of `btf`, which outlives the call; no log buffer
    // is given; the command returns a descriptor.
    unsafe { attributes.call_for_fd(Command::BtfLoad) }.map(drop)
}

/// Ids of the tcx programs at an interface's ingress, in their order (Linux 6.6).
///
/// # Errors
/// The kernel's.
pub fn tcx_ingress_programs(interface: u32) -> io::Result<Vec<u32>> {
    let mut ids = [0u32; 64];
    let mut attributes = Attributes::new()
        .u32(0, interface)
        .u32(4, 46)
        .pointer(16, ids.as_mut_ptr().cast_const())
        .u32(24, 64);
    // SAFETY: the kernel writes at most the announced 64 ids into `ids`, which outlives the
    // call and is not read until it has returned.
    unsafe { attributes.call(Command::ProgramQuery) }?;
    let count = attributes.read_u32(24) as usize;
    Ok(ids.iter().take(count).copied().collect())
}

/// Name of a loaded program.
///
/// # Errors
/// The kernel's: `ENOENT` when there is no such id.
pub fn program_name(id: u32) -> io::Result<String> {
    let mut attributes = Attributes::new().u32(0, id);
    // SAFETY: these attributes hold no pointer, and the command returns a descriptor.
    let program = unsafe { attributes.call_for_fd(Command::ProgramGetFdById) }?;
    // The beginning of struct bpf_prog_info; zeros mean that no further buffers are offered.
    let mut info = [0u64; 10];
    let mut attributes = Attributes::new()
        .fd(0, &program)
        .u32(4, 80)
        .pointer(8, info.as_mut_ptr().cast_const());
    // SAFETY: the kernel writes at most the announced 80 bytes into `info`, which outlives
    // the call and is not read until it has returned.
    unsafe { attributes.call(Command::ObjectGetInfoByFd) }?;
    let name = info[8..]
        .iter()
        .flat_map(|word| word.to_ne_bytes())
        .take_while(|&byte| byte != 0)
        .collect();
    String::from_utf8(name).map_err(|_| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_program_ids_and_interfaces_are_errors() {
        assert!(program_name(u32::MAX).is_err());
        assert!(tcx_ingress_programs(u32::MAX).is_err());
    }
}
