//! The end of a test, for threads that do something as long as it lasts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Held by what threads wait for the end of: when it is dropped it is over, by a panic as well,
/// and nobody goes on beside the tests that follow.
#[derive(Debug, Default)]
pub struct OverOnDrop(Arc<AtomicBool>);

/// Knows whether it is over.
#[derive(Clone, Debug)]
pub struct Over(Arc<AtomicBool>);

impl OverOnDrop {
    /// For a thread to look at.
    #[must_use]
    pub fn watch(&self) -> Over {
        Over(Arc::clone(&self.0))
    }
}

impl Drop for OverOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Over {
    /// Whether it is over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn what_is_held_by_a_panic_is_over() {
        let (send, receive) = channel();
        catch_unwind(|| {
            let running = OverOnDrop::default();
            send.send(running.watch()).unwrap();
            assert!(!running.watch().is_over());
            panic!("as a failed assertion does");
        })
        .unwrap_err();
        assert!(receive.recv().unwrap().is_over());
    }
}
