//! Convicted flows are dropped until their sentence ends.

use ips_common::{FlowKey, Hint};

use crate::atomic;
use crate::maps::{CONVICTED, hint};

/// Whether any sentence can still be running; when not, nothing needs to be looked up.
#[inline(always)]
pub(crate) fn any(now: u64) -> bool {
    now < hint(Hint::ConvictedUntilNs)
}

/// Whether packets of this flow are to be dropped; counts the packet in its conviction if so,
/// and forgets a conviction whose time is over.
#[inline(always)]
pub(crate) fn is_convicted(key: &FlowKey, bytes: u64, now: u64) -> bool {
    let Some(conviction) = CONVICTED.get_ptr_mut(key) else {
        return false;
    };
    // SAFETY: elements of LRU maps are reused but never freed, so the memory stays valid. If it
    // was given to another flow since the look-up, one packet is counted there or judged by
    // that flow's end of sentence.
    let expires_ns = unsafe { (*conviction).expires_ns };
    if now >= expires_ns {
        let _ = CONVICTED.remove(key);
        return false;
    }
    // SAFETY: as above; both fields are aligned.
    unsafe {
        atomic::add(&raw mut (*conviction).packets, 1);
        atomic::add(&raw mut (*conviction).bytes, bytes);
    }
    true
}
