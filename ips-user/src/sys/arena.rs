//! Memory at addresses that are free in every process: what is made there by one process, with
//! its pointers, can be mapped and used by others.
//!
//! [`SwitchedAllocator`] is the allocator of the whole program. It is the system's, except while
//! [`fill`] runs: then everything that is allocated comes from one of a few fixed windows of the
//! address space, one piece after the other, in a file that others can map at the same address.
//!
//! # The windows
//! Four of 16 GiB from 32 GiB on. Nothing else is there on Linux, with 48 bits of addresses and
//! also with 39 (some ARM boards):
//! - programs that are not position-independent, and their heaps, begin at a few MiB and would
//!   have to grow by 31 GiB; the position-independent ones (Rust's default) begin at two thirds
//!   of the address space (`ELF_ET_DYN_BASE`), and their heaps behind them;
//! - mmap(2) goes downwards from below the stack at the upper end, at random by at most 16 TiB of
//!   128 (by 64 of 512 GiB); with an unlimited stack it goes upwards from a third of the address
//!   space (a quarter on ARM, 128 GiB).
//!
//! A process in which something is there all the same (an address sanitizer's shadow) gets an
//! error, because nothing mapped is ever replaced.

use std::alloc::{GlobalAlloc, Layout, System};
use std::num::NonZeroUsize;
use std::os::fd::BorrowedFd;
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::{io, ptr};

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::unistd::ftruncate;

use super::process::thread_count;

/// Number of windows: data that replaces other data while that is still mapped needs another.
pub(super) const WINDOWS: usize = 4;
/// Length of a window: the most that [`fill`] can make.
pub(super) const WINDOW_BYTES: usize = 16 << 30;
/// Address of the first window.
const FIRST: usize = 32 << 30;

/// Address of a window, counted round.
pub(super) const fn window(number: usize) -> usize {
    FIRST + number % WINDOWS * WINDOW_BYTES
}

/// Whether something lies in a window.
fn is_inside(pointer: *const u8) -> bool {
    pointer.addr().wrapping_sub(FIRST) < WINDOWS * WINDOW_BYTES
}

/// Whether allocations come from a window. Relaxed, as all here: only one thread exists while
/// it is set.
static FILLING: AtomicBool = AtomicBool::new(false);
/// The first free address of that window.
static NEXT: AtomicUsize = AtomicUsize::new(0);
/// Its end.
static END: AtomicUsize = AtomicUsize::new(0);

/// The program's allocator: the system's, or a window while [`fill`] runs. What lies in a window
/// is never given back piece by piece, whoever asks for it.
#[derive(Debug)]
pub struct SwitchedAllocator;

#[global_allocator]
static ALLOCATOR: SwitchedAllocator = SwitchedAllocator;

/// The next piece of the window, or null when it is full. Its memory is zero: it is the file's,
/// and never used twice.
fn take(layout: Layout) -> *mut u8 {
    let start = NEXT
        .load(Ordering::Relaxed)
        .next_multiple_of(layout.align());
    match start.checked_add(layout.size()) {
        Some(end) if end <= END.load(Ordering::Relaxed) => {
            NEXT.store(end, Ordering::Relaxed);
            ptr::with_exposed_provenance_mut(start)
        }
        _ => null_mut(),
    }
}

// SAFETY: every request goes either to the system's allocator, or to `take`, whose pieces are
// aligned, do not overlap, and stay mapped while `fill` runs. Pointers of the two are told apart
// by their addresses: the system's allocator has none in the windows (see above), and if it had,
// that memory would only not be given back.
unsafe impl GlobalAlloc for SwitchedAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if FILLING.load(Ordering::Relaxed) {
            return take(layout);
        }
        // SAFETY: the caller keeps to the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if FILLING.load(Ordering::Relaxed) {
            return take(layout);
        }
        // SAFETY: the caller keeps to the contract, which is the same.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if !is_inside(pointer) {
            // SAFETY: not from a window, so from the system's allocator, with this layout.
            unsafe { System.dealloc(pointer, layout) }
        }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if !FILLING.load(Ordering::Relaxed) && !is_inside(pointer) {
            // SAFETY: the caller keeps to the contract, which is the same.
            return unsafe { System.realloc(pointer, layout, size) };
        }
        // SAFETY: the caller sees to it that the size, rounded up to the alignment, is no
        // overflow and not zero.
        let new = unsafe {
            let layout = Layout::from_size_align_unchecked(size, layout.align());
            self.alloc(layout)
        };
        if !new.is_null() {
            // SAFETY: both hold at least the smaller of the two sizes and do not overlap, one
            // being new; the old one is the caller's, made by this allocator.
            unsafe {
                ptr::copy_nonoverlapping(pointer, new, layout.size().min(size));
                self.dealloc(pointer, layout);
            }
        }
        new
    }
}

/// What [`fill`] has made: addresses that mean something only where the file is mapped.
#[derive(Clone, Copy, Debug)]
pub(super) struct Filled {
    /// Address of the window, where the file begins.
    pub(super) start: usize,
    /// Bytes of the file that are in use.
    pub(super) bytes: usize,
    /// Where the value is.
    pub(super) value: usize,
}

/// Restores the system's allocator, after a panic as well.
struct Switch;

impl Switch {
    fn on(next: usize, end: usize) -> Self {
        NEXT.store(next, Ordering::Relaxed);
        END.store(end, Ordering::Relaxed);
        FILLING.store(true, Ordering::Relaxed);
        Self
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        FILLING.store(false, Ordering::Relaxed);
    }
}

/// Puts the value that `make` returns, and everything that it allocates, into `file`, as it lies
/// in the window of this number, behind the first `reserved` bytes. The file must be empty; its
/// length afterwards is that of a whole window. The value's destructor does not run.
///
/// # Errors
/// When the process has more than one thread (their allocations would be in the file as well),
/// when something else is mapped in the window, or the file cannot grow.
///
/// # Aborts
/// As always when memory runs out, also when the window is full.
pub(super) fn fill<T>(
    file: BorrowedFd<'_>,
    number: usize,
    reserved: usize,
    make: impl FnOnce() -> T,
) -> io::Result<Filled> {
    let threads = thread_count()?;
    if threads != 1 {
        return Err(io::Error::other(format!(
            "an arena in a process with {threads} threads"
        )));
    }
    ftruncate(file, WINDOW_BYTES as i64)?;
    let start = window(number);
    let writable = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    let mapped = map_at(start, WINDOW_BYTES, writable, MapFlags::MAP_SHARED, file)?;
    let value = {
        let _switch = Switch::on(start + reserved, start + WINDOW_BYTES);
        Box::into_raw(Box::new(make()))
    };
    let filled = Filled {
        start,
        bytes: NEXT.load(Ordering::Relaxed) - start,
        value: value.expose_provenance(),
    };
    // SAFETY: mapped above; `make` has returned, so nobody has a reference into it.
    unsafe { munmap(mapped.cast(), WINDOW_BYTES) }?;
    Ok(filled)
}

/// Maps a file at an address.
///
/// # Errors
/// When something is mapped there (`AlreadyExists`), or the file cannot be mapped.
pub(super) fn map_at(
    address: usize,
    bytes: usize,
    protection: ProtFlags,
    how: MapFlags,
    file: BorrowedFd<'_>,
) -> io::Result<NonNull<u8>> {
    let at = NonZeroUsize::new(address).ok_or(io::ErrorKind::InvalidInput)?;
    let length = NonZeroUsize::new(bytes).ok_or(io::ErrorKind::InvalidInput)?;
    // SAFETY: a new mapping, and not in place of another: no memory in use changes.
    let mapped = unsafe {
        mmap(
            Some(at),
            length,
            protection,
            how | MapFlags::MAP_FIXED_NOREPLACE | MapFlags::MAP_NORESERVE,
            file,
            0,
        )
    }
    .map_err(|error| match error {
        nix::Error::EEXIST => occupied(address),
        error => error.into(),
    })?;
    if mapped.addr() == at {
        return Ok(mapped.cast());
    }
    // Kernels before 4.17 do not know the flag and take the address for a wish.
    // SAFETY: just mapped, and known to nobody.
    unsafe { munmap(mapped, bytes) }?;
    Err(occupied(address))
}

fn occupied(address: usize) -> io::Error {
    io::Error::new(
        io::ErrorKind::AlreadyExists,
        format!("something else is mapped at {address:#x}"),
    )
}
