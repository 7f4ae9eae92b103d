//! The eBPF parser, built for the host, against the userspace one: a frame has one flow key.
#![no_main]

use ips_ebpf::parse::{Fragment, Keyless, parse};
use libfuzzer_sys::fuzz_target;
use sluice::decode::key::{KeyOutcome, frame_key};

fuzz_target!(|frame: &[u8]| {
    let kernel = match parse(&frame) {
        Err(Keyless::NotIp) => KeyOutcome::NotIp,
        Err(Keyless::Malformed) => KeyOutcome::Malformed,
        Ok(parsed) => match parsed.fragment {
            Fragment::No => KeyOutcome::Flow {
                key: parsed.key,
                truncated: parsed.truncated,
            },
            Fragment::First(fragment) => KeyOutcome::FirstFragment {
                key: parsed.key,
                fragment,
                truncated: parsed.truncated,
            },
            Fragment::Later(fragment) => KeyOutcome::LaterFragment {
                fragment,
                orphan_key: parsed.key,
            },
        },
    };
    assert_eq!(kernel, frame_key(frame));
});
