//! What arrives in pieces, put together as the receiver's stack ([`host_policy`]) would:
//! [`defrag`] fragments into datagrams, [`tcp`] segments into streams.

pub mod defrag;
pub mod host_policy;
pub mod tcp;
