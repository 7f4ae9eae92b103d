//! A `BPF_F_MMAPABLE` array in memory, shared with the kernel and with other processes.

use std::num::NonZeroUsize;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64};

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// The mapping; its words are used atomically only.
#[derive(Debug)]
pub(super) struct SharedArray {
    base: NonNull<u8>,
    len: NonZeroUsize,
}

// SAFETY: the mapping belongs to no thread, and all access goes through atomics.
unsafe impl Send for SharedArray {}
// SAFETY: as for Send.
unsafe impl Sync for SharedArray {}

impl SharedArray {
    /// Maps the first `len` bytes of the array behind `fd`. The kernel refuses a map that is
    /// not mmapable or smaller than that (rounded up to pages).
    pub(super) fn map(fd: BorrowedFd<'_>, len: NonZeroUsize) -> nix::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
        let base = unsafe {
            mmap(
                None,
                len,
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                MapFlags::MAP_SHARED,
                fd,
                0,
            )?
        };
        Ok(Self {
            base: base.cast(),
            len,
        })
    }

    /// # Panics
    /// When the word is not aligned or not inside the array.
    fn word<T>(&self, offset: usize) -> *mut T {
        assert!(
            offset.is_multiple_of(size_of::<T>()) && offset + size_of::<T>() <= self.len.get(),
            "offset {offset} is not that of a word in {} bytes",
            self.len
        );
        // SAFETY: just checked to be inside the mapping.
        unsafe { self.base.as_ptr().add(offset).cast() }
    }

    /// # Panics
    /// When the word is not aligned or not inside the array.
    pub(super) fn u64(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: aligned and inside the mapping, which lives as long as `self`; nobody uses
        // these words other than atomically.
        unsafe { AtomicU64::from_ptr(self.word(offset)) }
    }

    /// # Panics
    /// When the word is not aligned or not inside the array.
    pub(super) fn u32(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: as in `u64`.
        unsafe { AtomicU32::from_ptr(self.word(offset)) }
    }
}

impl Drop for SharedArray {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping made by `map`; every reference into it borrows `self`.
        // Failing would mean that it is not a mapping, and there is nobody to tell.
        let _ = unsafe { munmap(self.base.cast(), self.len.get()) };
    }
}
