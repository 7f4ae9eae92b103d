//! sys

pub mod raw_socket;
