//! The way of a packet at TC ingress.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::programs::TcContext;
use ips_common::{Counter, Steer, SteerFlags};

use crate::count::Counts;
use crate::packet::Skb;
use crate::parse::{Keyless, parse};
use crate::{convict, fragments, log, maps, steer};

/// Marks the packet for a worker. Other programs of the interface follow: `TC_ACT_UNSPEC` is
/// `TCX_NEXT` to tcx and "ask the next filter" to clsact in direct-action mode.
#[inline(always)]
pub fn run(context: &TcContext) -> i32 {
    let (Some(counts), Some(config)) = (Counts::of_this_cpu(), maps::config()) else {
        return TC_ACT_UNSPEC;
    };
    let bytes = u64::from(context.len());
    counts.one(Counter::TcPackets);
    counts.add(Counter::TcBytes, bytes);
    if config.workers == 0 {
        counts.one(Counter::TcUnconfigured);
        return TC_ACT_UNSPEC;
    }

    let mut parsed = match parse(&Skb::new(context)) {
        Ok(parsed) => parsed,
        Err(Keyless::NotIp) => {
            counts.one(Counter::TcNotIp);
            return TC_ACT_UNSPEC;
        }
        Err(Keyless::Malformed) => {
            counts.one(Counter::TcMalformed);
            return TC_ACT_UNSPEC;
        }
    };
    if parsed.truncated {
        counts.one(Counter::Truncated);
    }

    // SAFETY: no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    fragments::resolve(&mut parsed, now, config.fragment_ns, counts);

    if config.flags().has(SteerFlags::CONVICT_IN_TC)
        && convict::any(now)
        && convict::is_convicted(&parsed.key, bytes, now)
    {
        counts.one(Counter::TcConvicted);
        return TC_ACT_SHOT;
    }

    let Some(steer) = steer::choose(config, &parsed.key, now, counts) else {
        counts.one(Counter::TcUnconfigured);
        return TC_ACT_UNSPEC;
    };
    counts.one(match steer {
        Steer::Backup => Counter::TcBackup,
        Steer::Bypass => Counter::TcBypass,
        _ => Counter::TcWorker,
    });
    // SAFETY: the context is valid for the whole run.
    let mark = unsafe { (*context.skb.skb).mark };
    context.set_mark(config.mark().write(mark, steer));
    if config.flags().has(SteerFlags::LOG) {
        log::steered(context.as_ptr(), steer);
    }
    TC_ACT_UNSPEC
}
