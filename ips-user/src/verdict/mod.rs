//! From what the rules say to what happens.
//!
//! [`decide`] turns matches into one [`Decision`]; [`reject`] builds the packets that tell the
//! ends of a rejected flow.

mod decision;
pub mod reject;

pub use decision::{Decision, DropScope, Outcome, decide};
pub use reject::{RejectSender, Toward};
