//! What arrives in pieces, put together: [`defrag`] fragments into datagrams, as the receiver's
//! stack ([`host_policy`]) would.

pub mod defrag;
pub mod host_policy;
