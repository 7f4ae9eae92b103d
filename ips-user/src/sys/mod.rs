//! The remaining unsafe: thin, typed wrappers of system calls.

pub mod bpf_probe;
pub mod ethtool;
