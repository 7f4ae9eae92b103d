//! An array of 64-bit words in shared memory: the whole of a file, or the head of one that grows.

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

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
        Self::map_bytes(file, bytes, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE)
    }

    fn map_bytes(file: OwnedFd, bytes: usize, protection: ProtFlags) -> io::Result<Self> {
        let length =
            NonZeroUsize::new(bytes).ok_or_else(|| io::Error::other("the shared file is empty"))?;
        // SAFETY: a new shared mapping at an address of the kernel's choice; nothing else is
        // known to point there.
        let start = unsafe { mmap(None, length, protection, MapFlags::MAP_SHARED, &file, 0) }?;
        Ok(Self {
            start: start.cast(),
            words: bytes / size_of::<AtomicU64>(),
            file,
        })
    }

    /// The words.
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is page-aligned, holds `words` initialized words and lives as
        // long as `self`, and so does the memory behind it, which cannot become less (checked
        // where it is mapped); all access is atomic.
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
        // SAFETY: the range was mapped by `map_bytes` and no reference outlives `self`.
        let _ = unsafe { munmap(self.start.cast(), self.words * size_of::<AtomicU64>()) };
    }
}

/// Words at the head of a file that may become longer, but never shorter: what follows them is
/// read and written through the descriptor.
#[derive(Debug)]
pub struct Head(SharedWords);

impl Head {
    /// A new file in memory with so many zeroed words.
    ///
    /// # Errors
    /// When memory or descriptors run out.
    pub fn create(name: &std::ffi::CStr, words: usize) -> io::Result<Self> {
        let file = memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
        let bytes = words * size_of::<AtomicU64>();
        ftruncate(&file, bytes as i64)?;
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
        let writable = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        SharedWords::map_bytes(file, bytes, writable).map(Self)
    }

    /// A descriptor through which the file can only be read.
    ///
    /// # Errors
    /// When descriptors run out.
    pub fn read_only(&self) -> io::Result<OwnedFd> {
        let path = format!("/proc/self/fd/{}", self.0.file.as_raw_fd());
        Ok(std::fs::File::open(path)?.into())
    }

    /// The words.
    pub fn words(&self) -> &[AtomicU64] {
        self.0.words()
    }
}

impl AsFd for Head {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The same in a process that only reads it.
#[derive(Debug)]
pub struct HeadReader(SharedWords);

impl HeadReader {
    /// Maps the head of a file that another process has made.
    ///
    /// # Errors
    /// When the file is shorter than that, or could become shorter: that would take memory away
    /// from under whoever has mapped it.
    pub fn map(file: OwnedFd, words: usize) -> io::Result<Self> {
        let seals = SealFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GET_SEALS)?);
        let bytes = words * size_of::<AtomicU64>();
        let present = nix::sys::stat::fstat(&file)?.st_size;
        if !seals.contains(SealFlag::F_SEAL_SHRINK) || (present as usize) < bytes {
            return Err(io::Error::other("the shared file is too short"));
        }
        SharedWords::map_bytes(file, bytes, ProtFlags::PROT_READ).map(Self)
    }

    /// Reads a word; there is none to be written.
    ///
    /// # Panics
    /// Beyond the number of words that was mapped.
    pub fn get(&self, word: usize, ordering: Ordering) -> u64 {
        self.0.words()[word].load(ordering)
    }
}

impl AsFd for HeadReader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
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

    #[test]
    fn the_head_of_a_growing_file_is_seen_by_who_cannot_write_it() {
        let head = Head::create(c"test", 4).unwrap();
        let reader = HeadReader::map(head.read_only().unwrap(), 4).unwrap();
        head.words()[3].store(7, Ordering::Release);
        assert_eq!(reader.get(3, Ordering::Acquire), 7);
        nix::sys::uio::pwrite(&head, b"more", 32).unwrap();
        let mut bytes = [0; 4];
        nix::sys::uio::pread(&reader, &mut bytes, 32).unwrap();
        assert_eq!(&bytes, b"more");
        nix::sys::uio::pwrite(&reader, b"less", 32).unwrap_err();
        ftruncate(&head, 8).unwrap_err();
        HeadReader::map(head.read_only().unwrap(), 4096).unwrap_err();
        let unsealed = memfd_create(c"test", MFdFlags::MFD_ALLOW_SEALING).unwrap();
        ftruncate(&unsealed, 64).unwrap();
        HeadReader::map(unsealed, 4).unwrap_err();
    }
}
