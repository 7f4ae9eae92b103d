//! A value with everything it owns, pointers included, in a file that the forks of one process
//! map and use as it is.
//!
//! Because the pointers stand in the file it is mapped at one address only (see
//! [`arena`](super::arena)), and because some of them are of code and of constants of the program
//! only a fork of the process that had it made can use it: the header says of which.

use std::any::type_name;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::marker::PhantomData;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU64, Ordering};

use bytemuck::{Pod, Zeroable};
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, munmap};
use nix::unistd::ftruncate;

use super::arena::{WINDOW_BYTES, WINDOWS, fill, map_at, window};
use super::process::random_words;
use super::sealed;

const MAGIC: u64 = u64::from_le_bytes(*b"sluicef1");
/// Where the value begins: a page for the header and the note.
const RESERVED: usize = 4096;
/// Where the note begins.
const NOTE_AT: usize = 256;

/// A type that can be frozen.
///
/// # Safety
/// A clone owns all that it points to, except for code and constants of the program, and has
/// allocated it while it was made. So nothing in it is shared (`Rc`, `Arc`, a reference to
/// leaked memory) or a handle of something else (a descriptor, a thread). Nothing in it is written
/// through a shared reference (cells, atomics, caches): it is mapped for reading only.
pub unsafe trait Freeze: Clone {}

// SAFETY: vectors, boxes and strings all the way down: rules, the memmem searchers of their
// contents (which own their needles; the rest are numbers and functions), expressions as text,
// and the prefilters, of which `Prefilter::boxed_clone` asks the same (libhs deserialises its
// databases into vectors of ours). `tests/rule_image.rs` visits everything in one in another
// process.
unsafe impl Freeze for crate::detect::Engine {}

/// The beginning of the file.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct Header {
    magic: u64,
    /// The process whose forks can use it.
    ancestor: u64,
    /// The types of value and note.
    kind: u64,
    start: u64,
    bytes: u64,
    value: u64,
}

/// What a process and its forks have in common, and no other process: they run the same program,
/// loaded at the same addresses. Gone with exec(2). Zero until it is needed.
static ANCESTOR: AtomicU64 = AtomicU64::new(0);

fn kind<T, N>() -> u64 {
    let mut hasher = DefaultHasher::new();
    (type_name::<T>(), type_name::<N>()).hash(&mut hasher);
    hasher.finish()
}

fn wrong(message: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message.into())
}

/// An empty file for [`freeze`], and for [`Frozen::map`] in forks of this process.
///
/// # Errors
/// When descriptors run out, or /dev/urandom cannot be read.
pub fn file(name: &std::ffi::CStr) -> io::Result<File> {
    if ANCESTOR.load(Ordering::Relaxed) == 0 {
        // Not zero, which would mean none.
        ANCESTOR.store(random_words()?[0] | 1, Ordering::Relaxed);
    }
    sealed::file(name)
}

/// Writes a copy of a value into an empty file made by [`file()`] in this process or one that it
/// is a fork of, and seals it. `number` chooses where it will be mapped: values that are mapped
/// at the same time need numbers that differ by less than four.
///
/// `note` is asked for last, and can be read without mapping the value.
///
/// # Errors
/// As `arena::fill`; or when memory runs out.
pub fn freeze<T: Freeze, N: Pod>(
    value: &T,
    file: &File,
    number: u64,
    note: impl FnOnce() -> N,
) -> io::Result<()> {
    const {
        assert!(size_of::<Header>() <= NOTE_AT && NOTE_AT + size_of::<N>() <= RESERVED);
    }
    let filled = fill(
        file.as_fd(),
        (number % WINDOWS as u64) as usize,
        RESERVED,
        || value.clone(),
    )?;
    let header = Header {
        magic: MAGIC,
        ancestor: ANCESTOR.load(Ordering::Relaxed),
        kind: kind::<T, N>(),
        start: filled.start as u64,
        bytes: filled.bytes.next_multiple_of(RESERVED) as u64,
        value: filled.value as u64,
    };
    ftruncate(file, header.bytes as i64)?;
    file.write_all_at(bytemuck::bytes_of(&header), 0)?;
    file.write_all_at(bytemuck::bytes_of(&note()), NOTE_AT as u64)?;
    sealed::seal(file)
}

/// A sealed file with a value of type `T` and a note of type `N` in it.
#[derive(Debug)]
pub struct FrozenFile<T, N> {
    file: OwnedFd,
    header: Header,
    note: N,
    value: PhantomData<fn() -> T>,
}

impl<T, N: Pod> FrozenFile<T, N> {
    /// Takes what [`freeze`] has written.
    ///
    /// # Errors
    /// When it is something else, was not finished, or was made by a process that has no ancestor
    /// in common with this one.
    pub fn open(file: OwnedFd) -> io::Result<Self> {
        if !sealed::is_sealed(&file) {
            return Err(wrong("the image is not sealed"));
        }
        let file = File::from(file);
        let mut header = Header::zeroed();
        file.read_exact_at(bytemuck::bytes_of_mut(&mut header), 0)?;
        let length = file.metadata()?.len();
        let Header { start, bytes, .. } = header;
        let placed = (0..WINDOWS).any(|number| start == window(number) as u64);
        let value = header.value.checked_sub(start);
        let fits = value.is_some_and(|at| {
            at >= RESERVED as u64
                && at.is_multiple_of(align_of::<T>() as u64)
                && at + size_of::<T>() as u64 <= bytes
        });
        if header.magic != MAGIC || header.kind != kind::<T, N>() {
            return Err(wrong("not an image of this kind"));
        }
        if header.ancestor != ANCESTOR.load(Ordering::Relaxed) {
            return Err(wrong(
                "the image was made for another run of the program: its addresses are not those of this one",
            ));
        }
        if bytes != length || bytes > WINDOW_BYTES as u64 || !placed || !fits {
            return Err(wrong("the image is damaged"));
        }
        let mut note = N::zeroed();
        file.read_exact_at(bytemuck::bytes_of_mut(&mut note), NOTE_AT as u64)?;
        Ok(Self {
            file: file.into(),
            header,
            note,
            value: PhantomData,
        })
    }

    /// The note.
    pub fn note(&self) -> N {
        self.note
    }

    /// Its length in bytes.
    pub fn bytes(&self) -> u64 {
        self.header.bytes
    }

    /// Maps the value into this process.
    ///
    /// # Errors
    /// When something is mapped at its address, or memory runs out.
    pub fn map(&self) -> io::Result<Frozen<T>> {
        // As `open` has checked, these fit.
        let (start, bytes) = (self.header.start as usize, self.header.bytes as usize);
        // Writable it would count as memory of this process's own, against `RLIMIT_DATA` and
        // where memory is not overcommitted, though nobody writes.
        let mapped = map_at(
            start,
            bytes,
            ProtFlags::PROT_READ,
            MapFlags::MAP_PRIVATE,
            self.file.as_fd(),
        )?;
        let value = ptr::with_exposed_provenance_mut(self.header.value as usize);
        Ok(Frozen {
            mapped,
            bytes,
            warm: 0,
            value: NonNull::new(value).ok_or(io::ErrorKind::InvalidData)?,
        })
    }
}

impl<T, N> AsFd for FrozenFile<T, N> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// A mapped value, for reading only. Its memory is shared with all that have mapped it. Dropping
/// it unmaps it; no destructor runs.
#[derive(Debug)]
pub struct Frozen<T> {
    mapped: NonNull<u8>,
    bytes: usize,
    /// How many of them are known to be in this process's page tables.
    warm: usize,
    value: NonNull<T>,
}

// SAFETY: dropping it only unmaps memory, which any thread may; otherwise it is a reference.
unsafe impl<T: Sync> Send for Frozen<T> {}
// SAFETY: as a reference to the value.
unsafe impl<T: Sync> Sync for Frozen<T> {}

impl<T> Frozen<T> {
    /// Enters the next `bytes` into the page tables, and says whether there are more: otherwise
    /// each page is entered when it is first used. Without effect before Linux 5.14.
    pub fn warm(&mut self, bytes: usize) -> bool {
        let step = bytes.next_multiple_of(RESERVED).min(self.bytes - self.warm);
        if step == 0 {
            return false;
        }
        // SAFETY: `warm` is less than the mapping's length.
        let from = unsafe { self.mapped.add(self.warm) };
        // Not MAP_POPULATE, which would make private copies of the pages.
        // SAFETY: a part of the mapping; its contents do not change.
        let warmed = unsafe { madvise(from.cast(), step, MmapAdvise::MADV_POPULATE_READ) };
        self.warm = match warmed {
            Ok(()) => self.warm + step,
            Err(_) => self.bytes,
        };
        self.warm < self.bytes
    }
}

impl<T> Deref for Frozen<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: `open` has checked that the file is what `freeze::<T, _>` wrote in a fork of a
        // process that this one is a fork of, and that nobody can change it; mapped where it was
        // made, it holds a `T` whose pointers lead into the mapping or to the program's code and
        // constants. The mapping lives as long as `self`.
        unsafe { self.value.as_ref() }
    }
}

impl<T> Drop for Frozen<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping of `map`; references into it have borrowed `self`.
        let _ = unsafe { munmap(self.mapped.cast(), self.bytes) };
    }
}
