//! Atomic read-modify-write of map values.
//!
//! rustc offers only loads and stores for BPF (the target's first versions had nothing else), so
//! these are the instructions themselves.

use core::arch::asm;

/// Adds without returning anything (BPF v1).
///
/// # Safety
/// `value` must point to an aligned `u64` inside a map value.
#[inline(always)]
pub(crate) unsafe fn add(value: *mut u64, amount: u64) {
    // SAFETY: one atomic add to the memory that the caller vouches for.
    unsafe { asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) value, in(reg) amount) };
}

/// Replaces `current` by `new`; returns what was there before (BPF v3, Linux 5.12).
///
/// # Safety
/// `value` must point to an aligned `u64` inside a map value.
#[inline(always)]
pub(crate) unsafe fn compare_exchange(value: *mut u64, current: u64, new: u64) -> u64 {
    let before;
    // SAFETY: one atomic exchange in the memory that the caller vouches for.
    unsafe {
        asm!(
            "r0 = cmpxchg_64({0} + 0, r0, {1})",
            in(reg) value,
            in(reg) new,
            inout("r0") current => before,
        );
    };
    before
}
