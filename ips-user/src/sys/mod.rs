//! The remaining unsafe: system calls and shared memory that no safe wrapper covers.

pub mod bpf_link;
pub mod driver;
pub mod process;
pub mod shared_words;
