//! The stages of the eBPF programs.
#![no_std]
