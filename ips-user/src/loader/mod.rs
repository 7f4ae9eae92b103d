//! loader

/// The compiled eBPF programs (ELF).
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("IPS_EBPF_OBJECT"));
