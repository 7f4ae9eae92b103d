//! Many entries of a BPF hash map with one system call (Linux 5.6).
//!
//! An entry at a time, a map of 262,144 flows would take half a million calls to read, while
//! which the caller can do nothing else.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bytemuck::Pod;

use super::bpf::{InfoByFd, OBJ_GET_INFO_BY_FD, call, raw};

/// Commands of bpf(2), `enum bpf_cmd` in `linux/bpf.h`.
const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;
const BPF_MAP_UPDATE_BATCH: libc::c_long = 26;
const BPF_MAP_DELETE_BATCH: libc::c_long = 27;

/// The arguments of the batch commands.
#[repr(C)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// The arguments of `BPF_MAP_LOOKUP_ELEM`.
#[repr(C)]
struct Element {
    map_fd: u32,
    _padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// The beginning of `struct bpf_map_info`. Everything is valid as zero.
#[repr(C, align(8))]
#[derive(Default)]
struct MapInfo {
    kind: u32,
    id: u32,
    key_size: u32,
    value_size: u32,
}

/// A hash map with keys and values of known size.
#[derive(Debug)]
pub struct BatchMap<K, V> {
    map: OwnedFd,
    entry: PhantomData<(K, V)>,
}

/// Where a walk through a map goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position(Option<u32>);

impl<K: Pod, V: Pod> BatchMap<K, V> {
    /// Takes a descriptor of a map.
    ///
    /// # Errors
    /// When it is none, or its keys or values are of another size.
    pub fn new(map: OwnedFd) -> io::Result<Self> {
        let mut info = MapInfo::default();
        let mut arguments = InfoByFd {
            bpf_fd: raw(map.as_fd()),
            info_len: size_of::<MapInfo>() as u32,
            info: &raw mut info as u64,
        };
        // SAFETY: the kernel writes at most the announced bytes into `info`, which outlives the
        // call.
        unsafe { call(OBJ_GET_INFO_BY_FD, &mut arguments) }?;
        if (info.key_size as usize, info.value_size as usize) != (size_of::<K>(), size_of::<V>()) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "keys of {} and values of {} bytes instead of {} and {}",
                    info.key_size,
                    info.value_size,
                    size_of::<K>(),
                    size_of::<V>()
                ),
            ));
        }
        Ok(Self {
            map,
            entry: PhantomData,
        })
    }

    fn batch(&self, keys: u64, values: u64, count: usize) -> Batch {
        Batch {
            in_batch: 0,
            out_batch: 0,
            keys,
            values,
            count: count.try_into().unwrap_or(u32::MAX),
            map_fd: raw(self.as_fd()),
            elem_flags: 0,
            flags: 0,
        }
    }

    /// One entry, if it is there.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn get(&self, key: &K) -> io::Result<Option<V>> {
        let mut value = V::zeroed();
        let mut arguments = Element {
            map_fd: raw(self.as_fd()),
            _padding: 0,
            key: &raw const *key as u64,
            value: &raw mut value as u64,
            flags: 0,
        };
        // SAFETY: the kernel reads a key and writes a value of the sizes checked by `new`; both
        // outlive the call, and the value's type takes every bit pattern.
        match unsafe { call(BPF_MAP_LOOKUP_ELEM, &mut arguments) } {
            Ok(_) => Ok(Some(value)),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes the entries; returns how many the kernel refused.
    ///
    /// # Errors
    /// When the kernel refuses the command.
    ///
    /// # Panics
    /// When there are not as many values as keys.
    pub fn update(&self, keys: &[K], values: &[V]) -> io::Result<usize> {
        assert_eq!(keys.len(), values.len(), "a value for each key");
        let mut refused = 0;
        let mut done = 0;
        while done < keys.len() {
            let (keys, values) = (&keys[done..], &values[done..]);
            let batch = self.batch(keys.as_ptr() as u64, values.as_ptr() as u64, keys.len());
            let (count, result) = work_off(BPF_MAP_UPDATE_BATCH, batch);
            done += count;
            match result {
                Ok(()) => {}
                // No room for this entry, or its bucket is in use by an interrupted program:
                // that says nothing about the next one.
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOMEM | libc::EBUSY)) => {
                    refused += 1;
                    done += 1;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(refused)
    }

    /// Removes the entries; those that are absent already are not counted in what is returned.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn remove(&self, keys: &[K]) -> io::Result<usize> {
        let mut removed = 0;
        let mut done = 0;
        while done < keys.len() {
            let keys = &keys[done..];
            let batch = self.batch(keys.as_ptr() as u64, 0, keys.len());
            let (count, result) = work_off(BPF_MAP_DELETE_BATCH, batch);
            removed += count;
            done += count;
            match result {
                Ok(()) => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => done += 1,
                Err(error) => return Err(error),
            }
        }
        Ok(removed)
    }

    /// Reads entries from `position` on, as many as the shorter buffer takes at most; moves on
    /// and returns how many, and whether there may be more. Entries that come or go during a
    /// walk may be missed, the others are not.
    ///
    /// # Errors
    /// When the kernel refuses: `ENOSPC` when one of its buckets has more entries than fit.
    pub fn read(
        &self,
        position: &mut Position,
        keys: &mut [K],
        values: &mut [V],
    ) -> io::Result<(usize, bool)> {
        let room = keys.len().min(values.len());
        let mut next = 0_u32;
        let mut batch = self.batch(keys.as_mut_ptr() as u64, values.as_mut_ptr() as u64, room);
        let from = position.0;
        if let Some(from) = &from {
            batch.in_batch = &raw const *from as u64;
        }
        batch.out_batch = &raw mut next as u64;
        // SAFETY: the kernel writes at most `count` keys and values of the sizes checked by
        // `new` into buffers with room for them, whose types take every bit pattern; it reads
        // the position, of four bytes for hash maps, and writes the next one.
        let result = unsafe { call(BPF_MAP_LOOKUP_BATCH, &mut batch) };
        let read = (batch.count as usize).min(room);
        match result {
            Ok(_) => {
                position.0 = Some(next);
                Ok((read, true))
            }
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                position.0 = None;
                Ok((read, false))
            }
            Err(error) => Err(error),
        }
    }
}

impl<K, V> AsFd for BatchMap<K, V> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.map.as_fd()
    }
}

/// Runs a command that stops at the first entry it cannot deal with; returns how many it dealt
/// with before.
fn work_off(command: libc::c_long, mut batch: Batch) -> (usize, io::Result<()>) {
    let asked = batch.count;
    // SAFETY: the two callers' slices hold `count` keys, and values if the command wants them,
    // of the sizes checked by `BatchMap::new`, and outlive the call; the kernel only reads them.
    let result = unsafe { call(command, &mut batch) }.map(drop);
    let done = match &result {
        // Refused before the first entry.
        Err(_) if batch.count == asked => 0,
        _ => batch.count.min(asked),
    };
    (done as usize, result)
}
