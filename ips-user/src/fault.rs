//! Packets that make the worker misbehave while it inspects them, so that tests can show what
//! becomes of everybody else. Only with the feature `fault-injection`, which no release build has.

use std::hint::{black_box, spin_loop};
use std::time::Duration;

use memchr::memmem;

use crate::sys::fault::write_to_page_zero;

/// What a payload must contain, directly before the name of the fault.
const MARKER: &[u8] = b"sluice-fault:";

/// Does what the marker in `payload` says, if there is one; in most cases does not return then.
pub fn inject(payload: &[u8]) {
    let Some(at) = memmem::find(payload, MARKER) else {
        return;
    };
    let name = &payload[at + MARKER.len()..];
    let is = |fault: &[u8]| name.starts_with(fault);
    if is(b"abort") {
        std::process::abort();
    } else if is(b"segv") {
        write_to_page_zero();
    } else if is(b"loop") {
        loop {
            spin_loop();
        }
    } else if is(b"sleep") {
        // Like a deadlock: alive, idle, and never coming back.
        loop {
            std::thread::sleep(Duration::from_secs(3600));
        }
    } else if is(b"overflow") {
        black_box(overflow_the_stack(1));
    } else if is(b"memory") {
        hoard();
    }
}

#[expect(
    unconditional_recursion,
    reason = "it is to run until the stack is used up"
)]
fn overflow_the_stack(depth: u64) -> u64 {
    let frame = black_box([depth; 512]);
    // Not a tail call: the frame is needed afterwards.
    overflow_the_stack(depth + 1) + black_box(frame)[0]
}

/// Takes memory, and uses it, until no more is given: then the allocator aborts the process.
fn hoard() {
    let mut hoarded: Vec<Vec<u8>> = Vec::new();
    loop {
        hoarded.push(black_box(vec![1; 1 << 20]));
    }
}
