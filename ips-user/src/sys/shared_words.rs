//! An array of 64-bit words in shared memory.

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::unistd::ftruncate;

/// Words that several processes map; every access is atomic.
#[derive(Debug)]
pub struct SharedWords {
    start: NonNull<AtomicU64>,
    words: usize,
    file: OwnedFd,
}

// SAFETY: the mapping belongs to the value and is only reached through atomics.
unsafe impl Send for SharedWords {}
// SAFETY: as above.
unsafe impl Sync for SharedWords {}

impl SharedWords {
    /// Creates a zeroed array in an anonymous file.
    ///
    /// # Errors
    /// When memory or descriptors run out.
    pub fn create(name: &std::ffi::CStr, words: usize) -> io::Result<Self> {
        let file = memfd_create(name, MFdFlags::MFD_CLOEXEC)?;
        ftruncate(&file, (words * size_of::<AtomicU64>()) as i64)?;
        Self::map(file)
    }

    /// Maps an array created elsewhere.
    ///
    /// # Errors
    /// When the descriptor is no such file.
    pub fn map(file: OwnedFd) -> io::Result<Self> {
        let bytes = nix::sys::stat::fstat(&file)?.st_size as usize;
        let length =
            NonZeroUsize::new(bytes).ok_or_else(|| io::Error::other("the shared file is empty"))?;
        // SAFETY: a new shared mapping at an address of the kernel's choice; nothing else is
        // known to point there.
        let start = unsafe {
            mmap(
                None,
                length,
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                MapFlags::MAP_SHARED,
                &file,
                0,
            )
        }?;
        Ok(Self {
            start: start.cast(),
            words: bytes / size_of::<AtomicU64>(),
            file,
        })
    }

    /// The words.
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is page-aligned, holds `words` initialized words and lives as
        // long as `self`; all access is atomic.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.words) }
    }
}

impl AsFd for SharedWords {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for SharedWords {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `map` and no reference outlives `self`.
        let _ = unsafe { munmap(self.start.cast(), self.words * size_of::<AtomicU64>()) };
    }
}
