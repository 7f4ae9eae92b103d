//! The way of a frame at XDP.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::programs::XdpContext;
use ips_common::{Counter, SteerConfig, SteerFlags};

use crate::count::Counts;
use crate::packet::Frame;
use crate::parse::{Fragment, Packet, parse};
use crate::{convict, fragments, log, maps};

/// Drops the frame if its flow is convicted.
#[inline(always)]
pub fn run(context: &XdpContext) -> u32 {
    let (Some(counts), Some(config)) = (Counts::of_this_cpu(), maps::config()) else {
        return XDP_PASS;
    };
    let frame = Frame::new(context);
    let bytes = frame.frame_len() as u64;
    counts.one(Counter::XdpPackets);
    counts.add(Counter::XdpBytes, bytes);

    if !is_convicted(&frame, bytes, config) {
        counts.one(Counter::XdpPassed);
        return XDP_PASS;
    }
    counts.one(Counter::XdpConvicted);
    counts.add(Counter::XdpConvictedBytes, bytes);
    if config.flags().has(SteerFlags::LOG) {
        log::dropped(context.as_ptr(), bytes as u32);
    }
    XDP_DROP
}

#[inline(always)]
fn is_convicted(frame: &Frame, bytes: u64, config: &SteerConfig) -> bool {
    // SAFETY: no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    if !convict::any(now) {
        return false;
    }
    let Ok(mut parsed) = parse(frame) else {
        return false;
    };
    if let Fragment::Later(fragment) = &parsed.fragment
        && let Some(key) = fragments::find(fragment, now, config.fragment_ns)
    {
        parsed.key = key;
    }
    let convicted = convict::is_convicted(&parsed.key, bytes, now);
    if convicted && let Fragment::First(fragment) = &parsed.fragment {
        // TC will not see this one, and the later fragments must die too.
        fragments::remember(fragment, &parsed.key, now);
    }
    convicted
}
