//! Doors for the fuzz targets in `fuzz/`: what is read from elsewhere but is nobody's interface.
//! In no ordinary build.

pub use crate::app::fuzzing as app;
pub use crate::detect::fuzzing as detect;
pub use crate::netfilter::fuzzing as netfilter;
pub use crate::rejecter::fuzzing as rejecter;
pub use crate::source::nfqueue::fuzzing as nfqueue;
pub use crate::supervisor::fuzzing as supervisor;

/// What the kernel says of its queues, `/proc/net/netfilter/nfnetlink_queue`.
pub fn queue_truth(text: &str) -> usize {
    crate::metrics::queue_truth::parse(text).len()
}
