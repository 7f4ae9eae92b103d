//! An array of 64-bit words in shared memory.

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::unistd::ftruncate;

/// Nobody who has the file can change its length.
fn length_seals() -> SealFlag {
    SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL
}

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
        let file = memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
        ftruncate(&file, (words * size_of::<AtomicU64>()) as i64)?;
        fcntl(&file, FcntlArg::F_ADD_SEALS(length_seals()))?;
        Self::map(file)
    }

    /// Maps an array created elsewhere.
    ///
    /// # Errors
    /// When the descriptor is no such file, or its length could still change: that would take
    /// memory away from under whoever has mapped it.
    pub fn map(file: OwnedFd) -> io::Result<Self> {
        let seals = SealFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GET_SEALS)?);
        if !seals.contains(length_seals()) {
            return Err(io::Error::other(
                "the length of the shared file is not sealed",
            ));
        }
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
        // long as `self`, and so does the memory behind it, whose length is sealed (checked by
        // `map`); all access is atomic.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_can_take_the_memory_away() {
        let words = SharedWords::create(c"test", 4).unwrap();
        assert!(ftruncate(&words.file, 0).is_err());
        assert_eq!(words.words().len(), 4);
        let unsealed = memfd_create(c"test", MFdFlags::MFD_ALLOW_SEALING).unwrap();
        ftruncate(&unsealed, 64).unwrap();
        assert!(SharedWords::map(unsealed).is_err());
    }
}
