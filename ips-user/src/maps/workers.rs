//! Heartbeats and states of the workers, in memory shared by the supervisor, the workers and
//! the TC program.

use std::mem::offset_of;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use aya::maps::MapData;
use ips_common::{BACKUP, Received, WORKER_SLOTS, WorkerSlot, WorkerState};

use super::MapsError;
use super::memory::SharedArray;

const NAME: &str = "WORKERS";
const LEN: NonZeroUsize =
    NonZeroUsize::new(WORKER_SLOTS as usize * size_of::<WorkerSlot>()).unwrap();

/// The map `WORKERS`. Every `index` is that of a worker, or [`BACKUP`]; any other panics.
///
/// Who writes what is said at [`WorkerSlot`].
#[derive(Debug)]
pub struct WorkerPages {
    array: SharedArray,
    /// Kept by who has loaded the map, to hand it to others.
    data: Option<MapData>,
}

impl WorkerPages {
    pub(super) fn new(data: MapData) -> Result<Self, MapsError> {
        Ok(Self {
            array: map(data.fd().as_fd())?,
            data: Some(data),
        })
    }

    /// Maps the array behind a descriptor, as a worker process does that inherited it. The
    /// descriptor is not needed any more then.
    ///
    /// # Errors
    /// When the descriptor is not that of the map.
    pub fn map(fd: BorrowedFd<'_>) -> Result<Self, MapsError> {
        Ok(Self {
            array: map(fd)?,
            data: None,
        })
    }

    /// Descriptor of the map (close-on-exec), `None` when this was made by [`Self::map`].
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.data.as_ref().map(|data| data.fd().as_fd())
    }

    /// Id of the map in the kernel; zero when this was made by [`Self::map`].
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn id(&self) -> Result<u32, MapsError> {
        self.data.as_ref().map_or(Ok(0), |data| {
            let info = data.info().map_err(MapsError::operation(NAME, "info"))?;
            Ok(info.id())
        })
    }

    fn offset(index: u32, field: usize) -> usize {
        assert!(
            index <= BACKUP,
            "there is no worker {index}, the last is {BACKUP}"
        );
        index as usize * size_of::<WorkerSlot>() + field
    }

    /// When the worker last stamped.
    pub fn heartbeat(&self, index: u32) -> u64 {
        self.array
            .u64(Self::offset(index, offset_of!(WorkerSlot, heartbeat_ns)))
            .load(Ordering::Relaxed)
    }

    /// Stamps the heartbeat: the worker's loop has come round at `now_ns`.
    pub fn stamp(&self, index: u32, now_ns: u64) {
        self.array
            .u64(Self::offset(index, offset_of!(WorkerSlot, heartbeat_ns)))
            .store(now_ns, Ordering::Relaxed);
    }

    /// The state; a number that is none counts as down, as the TC program has it.
    pub fn state(&self, index: u32) -> WorkerState {
        let state = self
            .array
            .u32(Self::offset(index, offset_of!(WorkerSlot, state)))
            .load(Ordering::Relaxed);
        match state {
            value if value == WorkerState::Up as u32 => WorkerState::Up,
            value if value == WorkerState::Stale as u32 => WorkerState::Stale,
            _ => WorkerState::Down,
        }
    }

    /// Sets the state: in force from the next packet on. Flows change their way by that.
    pub fn set_state(&self, index: u32, state: WorkerState) {
        self.note_detour();
        self.array
            .u32(Self::offset(index, offset_of!(WorkerSlot, state)))
            .store(state as u32, Ordering::Release);
    }

    /// How often flows may have begun to go another way, or past everybody.
    pub fn detours(&self) -> u64 {
        self.array
            .u64(Self::offset(BACKUP, offset_of!(WorkerSlot, detours)))
            .load(Ordering::Acquire)
    }

    /// From now on flows may go another way, or may just have gone past everybody.
    pub fn note_detour(&self) {
        self.array
            .u64(Self::offset(BACKUP, offset_of!(WorkerSlot, detours)))
            .fetch_add(1, Ordering::Release);
    }

    /// When the TC program found the heartbeat stale, `None` when it has not.
    pub fn tripped(&self, index: u32) -> Option<u64> {
        let tripped = self
            .array
            .u64(Self::offset(index, offset_of!(WorkerSlot, tripped_ns)))
            .load(Ordering::Relaxed);
        (tripped != 0).then_some(tripped)
    }

    /// Lets the TC program report a stale heartbeat again.
    pub fn clear_tripped(&self, index: u32) {
        self.array
            .u64(Self::offset(index, offset_of!(WorkerSlot, tripped_ns)))
            .store(0, Ordering::Relaxed);
    }

    /// What the worker has received, `None` when it has received none.
    pub fn received(&self, index: u32) -> Option<Received> {
        Received::of_word(self.received_word(index).load(Ordering::Acquire))
    }

    /// Notes what the worker has received, the packets that it has in its hands included.
    pub fn set_received(&self, index: u32, received: Received) {
        self.received_word(index)
            .store(received.word(), Ordering::Release);
    }

    /// Forgets it: the queue begins anew.
    pub fn clear_received(&self, index: u32) {
        self.received_word(index).store(0, Ordering::Release);
    }

    fn received_word(&self, index: u32) -> &AtomicU64 {
        self.array
            .u64(Self::offset(index, offset_of!(WorkerSlot, received)))
    }

    /// Process id of the worker, zero when none.
    pub fn pid(&self, index: u32) -> u32 {
        self.array
            .u32(Self::offset(index, offset_of!(WorkerSlot, pid)))
            .load(Ordering::Relaxed)
    }

    /// Notes the process id of the worker.
    pub fn set_pid(&self, index: u32, pid: u32) {
        self.array
            .u32(Self::offset(index, offset_of!(WorkerSlot, pid)))
            .store(pid, Ordering::Relaxed);
    }
}

fn map(fd: BorrowedFd<'_>) -> Result<SharedArray, MapsError> {
    SharedArray::map(fd, LEN).map_err(|source| MapsError::Memory { name: NAME, source })
}
