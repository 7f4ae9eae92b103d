//! What the parser makes of a packet, for the comparison with the userspace decoder.

use aya_ebpf::bindings::TC_ACT_UNSPEC;
use aya_ebpf::programs::TcContext;
use ips_common::{Probe, flow_hash};

use crate::maps;
use crate::packet::Skb;
use crate::parse::{Fragment, Keyless, parse};

/// Writes the result into the map `PROBE`.
#[inline(always)]
pub fn run(context: &TcContext) -> i32 {
    let mut probe = Probe::default();
    match parse(&Skb::new(context)) {
        Err(Keyless::NotIp) => {}
        Err(Keyless::Malformed) => probe.kind = 1,
        Ok(parsed) => {
            probe.key = parsed.key;
            probe.truncated = u32::from(parsed.truncated);
            if let Some(config) = maps::config() {
                probe.hash = flow_hash(config.seed, &parsed.key);
            }
            match parsed.fragment {
                Fragment::No => probe.kind = 2,
                Fragment::First(fragment) => {
                    probe.kind = 3;
                    probe.fragment = fragment;
                }
                Fragment::Later(fragment) => {
                    probe.kind = 4;
                    probe.fragment = fragment;
                }
            }
        }
    }
    let _ = maps::PROBE.set(0, &probe, 0);
    TC_ACT_UNSPEC
}
