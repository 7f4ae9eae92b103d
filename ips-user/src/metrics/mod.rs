//! What Sluice knows about itself: the workers' counters, the kernel's queue counters, and the
//! snapshot that `sluice status` and EVE `stats` show.

pub mod board;
pub mod figures;
pub mod passed;
pub mod queue_truth;
pub mod snapshot;
