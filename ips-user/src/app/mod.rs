//! Application layers: which protocol a flow speaks, and what it says, message by message.
//!
//! A flow's [`AppLayer`] is fed with what its transport delivers in order: datagrams, or as much of a
//! stream as nothing is missing of. As soon as the [protocol](AppProtocol) is
//! [recognised](recognition) its [listener] makes [transactions](Transaction) of that. Rules and
//! records look at those; one that is complete and was shown to both is let go.

mod content;
mod conversation;
pub mod dns;
#[cfg(any(test, feature = "fuzzing"))]
mod ear;
pub(crate) mod figures;
mod file;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod handover;
pub mod http1;
mod keywords;
mod layer;
mod listener;
mod memory;
mod options;
mod protocol;
mod recognition;
pub mod smtp;
pub mod ssh;
pub mod tls;
mod transaction;

pub use content::{Asked, Content, Part};
pub(crate) use conversation::{Heard, Hearing};
#[cfg(test)]
pub(crate) use ear::Ear;
pub use file::{File, HashKind, WantedHashes};
pub(crate) use keywords::{asked, event, has, hash_list};
pub(crate) use layer::Undecided;
pub use layer::{AppLayer, Known};
pub use memory::{AppCounters, AppMemory};
pub use options::{AppOptions, StoreOptions};
pub use protocol::AppProtocol;
pub use recognition::Ports;
pub use transaction::{StoreScope, Transaction, Way};
