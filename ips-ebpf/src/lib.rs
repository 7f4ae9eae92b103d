//! The stages of the eBPF programs, in the order a packet goes through them.
//!
//! [`parse`] → `fragments` → `convict` → `steer`; the two ways through them are `tc` and `xdp`.
//! Nothing here holds policy that userspace could compute: the programs read a table, a
//! heartbeat and a few exceptions.
#![no_std]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

pub mod parse;

#[cfg(target_arch = "bpf")]
mod atomic;
#[cfg(target_arch = "bpf")]
pub mod convict;
#[cfg(target_arch = "bpf")]
pub mod count;
#[cfg(target_arch = "bpf")]
pub mod event;
#[cfg(target_arch = "bpf")]
pub mod fragments;
#[cfg(target_arch = "bpf")]
pub mod liveness;
#[cfg(target_arch = "bpf")]
mod log;
#[cfg(target_arch = "bpf")]
pub mod maps;
#[cfg(target_arch = "bpf")]
pub mod packet;
#[cfg(target_arch = "bpf")]
pub mod probe;
#[cfg(target_arch = "bpf")]
pub mod steer;
#[cfg(target_arch = "bpf")]
pub mod tc;
#[cfg(target_arch = "bpf")]
pub mod xdp;
