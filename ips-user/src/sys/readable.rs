//! Waiting for a descriptor in tokio.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Tells when something can be read from a descriptor that somebody else reads.
#[derive(Debug)]
pub struct Readable {
    descriptor: AsyncFd<OwnedFd>,
    again: Cell<bool>,
}

impl Readable {
    /// Watches a copy of the descriptor. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When descriptors run out, or this one cannot be polled.
    pub fn of(descriptor: &impl AsFd) -> io::Result<Self> {
        let copy = descriptor.as_fd().try_clone_to_owned()?;
        // SAFETY: an OwnedFd is open, and the same, until it is dropped, which only the AsyncFd
        // does.
        let descriptor = unsafe { AsyncFd::register_with_interest(copy, Interest::READABLE) }?;
        Ok(Self {
            descriptor,
            again: Cell::new(false),
        })
    }

    /// Returns when there may be something to read; the caller must then read until
    /// `WouldBlock`, because what is there already is not announced again.
    pub async fn wait(&self) {
        if self.again.take() {
            return;
        }
        match self.descriptor.readable().await {
            Ok(mut ready) => ready.clear_ready(),
            // Only while the runtime shuts down: nothing is waited for any more.
            Err(_) => std::future::pending().await,
        }
    }

    /// Has [`Self::wait`] return at once the next time: for a caller that has not read until
    /// `WouldBlock`, so that others have their turn.
    pub fn again(&self) {
        self.again.set(true);
    }
}
