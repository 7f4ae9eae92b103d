//! Fragments follow their first one, which has the ports.

use ips_common::{Counter, FlowKey, FragmentEntry, FragmentKey};

use crate::count::Counts;
use crate::maps::FRAGMENTS;
use crate::parse::{Fragment, Parsed};

/// Makes `parsed.key` the key of the datagram's flow, and remembers that of a first fragment.
#[inline(always)]
pub(crate) fn resolve(parsed: &mut Parsed, now: u64, fragment_ns: u64, counts: Counts) {
    match &parsed.fragment {
        Fragment::No => {}
        Fragment::First(fragment) => {
            counts.one(Counter::FragmentsFirst);
            remember(fragment, &parsed.key, now);
        }
        Fragment::Later(fragment) => match find(fragment, now, fragment_ns) {
            Some(key) => {
                counts.one(Counter::FragmentsFollowed);
                parsed.key = key;
            }
            None => counts.one(Counter::FragmentsOrphaned),
        },
    }
}

/// Remembers the flow of a first fragment.
#[inline(always)]
pub(crate) fn remember(fragment: &FragmentKey, key: &FlowKey, now: u64) {
    let entry = FragmentEntry {
        key: *key,
        seen_ns: now,
    };
    // An LRU map always has room, short of memory; without the entry the later fragments count
    // as orphans.
    let _ = FRAGMENTS.insert(fragment, &entry, 0);
}

/// The flow of a later fragment.
#[inline(always)]
pub(crate) fn find(fragment: &FragmentKey, now: u64, fragment_ns: u64) -> Option<FlowKey> {
    // SAFETY: an LRU map may give the element to another key while it is being read; then two
    // packets of a datagram part ways, which receivers and workers survive as they survive loss.
    let entry = unsafe { FRAGMENTS.get(fragment) }?;
    (now.saturating_sub(entry.seen_ns) < fragment_ns).then_some(entry.key)
}
