//! The remaining unsafe: system calls and shared memory that no safe wrapper covers.

pub mod arena;
mod bpf;
pub mod bpf_batch;
pub mod bpf_link;
pub mod bpf_probe;
pub mod descriptors;
pub mod ethtool;
#[cfg(feature = "fault-injection")]
pub mod fault;
pub mod frozen;
#[cfg(libhs)]
pub mod hyperscan;
pub mod pages;
pub mod pcre2;
pub mod pidfd;
pub mod process;
pub mod readable;
pub mod sandbox;
pub mod sealed;
pub mod shared_words;
pub mod softirq;
pub mod vitals;
