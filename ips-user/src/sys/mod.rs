//! The remaining unsafe: system calls and shared memory that no safe wrapper covers.

pub mod arena;
pub mod bpf_link;
pub mod bpf_probe;
pub mod descriptors;
pub mod ethtool;
pub mod frozen;
pub mod pages;
pub mod pidfd;
pub mod process;
pub mod raw_socket;
pub mod readable;
pub mod shared_words;
pub mod vitals;
