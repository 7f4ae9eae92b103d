//! The debugging log, behind [`ips_common::SteerFlags::LOG`]. Out of line: it is never hot.

use core::ffi::c_void;

use aya_ebpf::EbpfContext;
use aya_log_ebpf::debug;
use ips_common::{BACKUP, BYPASS, Steer};

struct Context(*mut c_void);

impl EbpfContext for Context {
    fn as_ptr(&self) -> *mut c_void {
        self.0
    }
}

#[inline(always)]
pub(crate) fn steered(context: *mut c_void, steer: Steer) {
    let worker = match steer {
        Steer::Worker(index) => index,
        Steer::Bypass => BYPASS,
        _ => BACKUP,
    };
    log_steered(context, worker);
}

#[inline(never)]
fn log_steered(context: *mut c_void, worker: u32) {
    debug!(Context(context), "steered to worker {}", worker);
}

#[inline(never)]
pub(crate) fn dropped(context: *mut c_void, bytes: u32) {
    debug!(
        Context(context),
        "dropped {} bytes of a convicted flow", bytes
    );
}
