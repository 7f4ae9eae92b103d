//! Memory from whole pages: private to the process, or a file's that other processes can read.

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap, mmap_anonymous, munmap};
use nix::unistd::ftruncate;

/// Bytes of which this process is the only writer. Pages that nothing was written to cost no
/// memory.
#[derive(Debug)]
pub struct Pages {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the mapping belongs to the value alone, like the memory of a `Vec`.
unsafe impl Send for Pages {}

impl Default for Pages {
    /// None.
    fn default() -> Self {
        Self {
            start: NonNull::dangling(),
            bytes: 0,
        }
    }
}

impl Pages {
    /// Zeroes that no other process sees.
    ///
    /// # Errors
    /// When memory runs out, or for no bytes at all.
    pub fn private(bytes: usize) -> io::Result<Self> {
        let length = NonZeroUsize::new(bytes).ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start = unsafe { mmap_anonymous(None, length, PROTECTION, MapFlags::MAP_PRIVATE) }?;
        Ok(Self {
            start: start.cast(),
            bytes,
        })
    }

    /// The contents of a file made by [`file`].
    ///
    /// # Errors
    /// When the file is shorter than that, or could become shorter: that would take memory
    /// away from under its user.
    pub fn shared(file: BorrowedFd<'_>, bytes: usize) -> io::Result<Self> {
        let length = NonZeroUsize::new(bytes).ok_or(io::ErrorKind::InvalidInput)?;
        let seals = SealFlag::from_bits_retain(fcntl(file, FcntlArg::F_GET_SEALS)?);
        let size = nix::sys::stat::fstat(file)?.st_size;
        if !seals.contains(SealFlag::F_SEAL_SHRINK) || (size as usize) < bytes {
            return Err(io::Error::other("the shared file is too short"));
        }
        // SAFETY: a new mapping at an address of the kernel's choice, of a file that is long
        // enough and stays so (checked above).
        let start = unsafe { mmap(None, length, PROTECTION, MapFlags::MAP_SHARED, file, 0) }?;
        Ok(Self {
            start: start.cast(),
            bytes,
        })
    }

    /// The same, with all of it at hand if others have used it: not with a fault for each page
    /// while packets wait. Since Linux 5.14; before, pages come one by one.
    ///
    /// # Errors
    /// As above.
    pub fn shared_at_once(file: BorrowedFd<'_>, bytes: usize) -> io::Result<Self> {
        let pages = Self::shared(file, bytes)?;
        let used = nix::sys::stat::fstat(file)?.st_blocks as usize * BLOCK_BYTES;
        if used >= bytes / 2 {
            let advice = MmapAdvise::MADV_POPULATE_WRITE;
            // SAFETY: the mapping is this one's, and its content stays as it is.
            let _ = unsafe { madvise(pages.start.cast(), bytes, advice) };
        }
        Ok(pages)
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: the mapping (or, of length zero, the dangling pointer) is valid for `bytes`
        // bytes as long as `self`, and no other process writes to it.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.bytes) }
    }

    /// The bytes.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`, and `&mut self` makes this the only reference.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.bytes) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        if self.bytes > 0 {
            // SAFETY: the range was mapped by a constructor and no reference outlives `self`.
            let _ = unsafe { munmap(self.start.cast(), self.bytes) };
        }
    }
}

/// `st_blocks` counts these, whatever the file system's blocks are (inode(7)).
const BLOCK_BYTES: usize = 512;

const PROTECTION: ProtFlags = ProtFlags::PROT_READ.union(ProtFlags::PROT_WRITE);

/// An anonymous file of that many zeroes that can never become shorter.
///
/// # Errors
/// When descriptors run out.
pub fn file(name: &std::ffi::CStr, bytes: usize) -> io::Result<OwnedFd> {
    let file = memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    ftruncate(&file, bytes as i64)?;
    let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn what_is_written_to_shared_pages_is_in_their_file() {
        let file = file(c"test", 5000).unwrap();
        let mut pages = Pages::shared(file.as_fd(), 5000).unwrap();
        pages.as_mut_slice()[4999] = 7;
        let mut read = [0];
        nix::sys::uio::pread(&file, &mut read, 4999).unwrap();
        assert_eq!(read, [7]);
        Pages::shared(file.as_fd(), 5001).unwrap_err();
        let unsealed = memfd_create(c"test", MFdFlags::MFD_CLOEXEC).unwrap();
        ftruncate(&unsealed, 64).unwrap();
        Pages::shared(unsealed.as_fd(), 64).unwrap_err();
        assert!(Pages::default().as_slice().is_empty());
        assert_eq!(Pages::private(3).unwrap().as_slice(), [0; 3]);
    }
}
