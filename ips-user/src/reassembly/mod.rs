//! What arrives in pieces, put together: [`tcp`] segments into streams.

pub mod tcp;
