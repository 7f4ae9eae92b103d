//! A real memory fault, for tests of what a crash costs.

use std::ptr;

/// Writes to where nothing is mapped: SIGSEGV.
pub fn write_to_page_zero() {
    // Not null itself, which debug builds would catch.
    let nowhere = ptr::without_provenance_mut::<u8>(1);
    // SAFETY: not sound, and not meant to be: page zero is never mapped (vm.mmap_min_addr), so
    // the processor refuses the write and the process ends. Built for tests only.
    unsafe { nowhere.write_volatile(0) };
}
