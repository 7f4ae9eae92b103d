//! Waiting for packets that are on their way through the kernel.

use std::io;
use std::thread::sleep;
use std::time::Duration;

/// `MEMBARRIER_CMD_GLOBAL` of `linux/membarrier.h`.
const GLOBAL: libc::c_long = 1;

/// How long a packet is on its way at most where the kernel cannot tell.
const ON_ITS_WAY: Duration = Duration::from_millis(100);

/// Returns when every packet whose processing the kernel had begun before the call has come to
/// its end: dropped, sent, or put into a queue. What an eBPF program read from a map before it
/// was changed has no effect any more then.
///
/// A packet is processed with bottom halves disabled, which is a read-side critical section of
/// RCU (since Linux 5.0), and membarrier(2) waits for a grace period
/// (`kernel/sched/membarrier.c`, `synchronize_rcu`). It takes some tens of milliseconds.
pub fn wait_for_packets_underway() {
    // SAFETY: membarrier(2) takes numbers only and changes nothing.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0, 0) };
    if result < 0 {
        // Refused with nohz_full (EINVAL) or by a filter.
        log::debug!("membarrier: {}", io::Error::last_os_error());
        sleep(ON_ITS_WAY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_comes_to_an_end() {
        let began = std::time::Instant::now();
        wait_for_packets_underway();
        assert!(began.elapsed() < Duration::from_secs(10));
    }
}
