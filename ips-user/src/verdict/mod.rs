//! From what the rules say to what happens.
//!
//! [`decide`] turns matches into one [`Decision`], [`except`] does what an exception policy says;
//! [`reject`] builds the packets that tell the ends of a rejected flow.

mod decision;
mod exception;
pub mod reject;

pub use decision::{Decision, DropScope, Outcome, decide};
pub use exception::except;
pub use reject::{RejectSender, Toward};
