//! What a worker keeps once it is set up: its queue, what it shares with the others, memory, and
//! the right to give verdicts.

use caps::Capability;

use crate::sys::sandbox::{Account, Argument, Calls, Sandbox};

/// `AT_EMPTY_PATH`: the call is about a descriptor, not about a path.
const DESCRIPTOR: u32 = libc::AT_EMPTY_PATH as u32;

/// The sandbox of the calling process, a worker. Every verdict is checked for CAP_NET_ADMIN in
/// whoever sends it (net/netfilter/nfnetlink.c, `nfnetlink_rcv`).
pub(crate) fn sandbox(account: Account, landlock: bool, seccomp: bool) -> Sandbox {
    Sandbox {
        account,
        keeps: Capability::CAP_NET_ADMIN,
        landlock,
        calls: seccomp.then(calls),
    }
}

fn calls() -> Calls {
    Calls::of_this_process()
        .allow(&[
            // The queue, events, convictions, rejections, and the supervisor's commands, which
            // bring descriptors.
            libc::SYS_recvfrom,
            libc::SYS_recvmsg,
            libc::SYS_recvmmsg,
            libc::SYS_sendto,
            libc::SYS_sendmsg,
            libc::SYS_sendmmsg,
            libc::SYS_getsockopt,
            libc::SYS_setsockopt,
            // Files in memory: rules, flows, counters.
            libc::SYS_read,
            libc::SYS_pread64,
            libc::SYS_pwrite64,
            libc::SYS_lseek,
            libc::SYS_ftruncate,
            libc::SYS_fstat,
            libc::SYS_fcntl,
            libc::SYS_dup,
            libc::SYS_dup3,
            #[cfg(target_arch = "x86_64")]
            libc::SYS_dup2,
            // What it costs, for whoever measures that from inside.
            libc::SYS_getrusage,
            libc::SYS_sched_getaffinity,
        ])
        .allow_if(libc::SYS_newfstatat, &[Argument::Has(3, DESCRIPTOR)])
        .allow_if(libc::SYS_statx, &[Argument::Has(2, DESCRIPTOR)])
        .allow_if(
            libc::SYS_prctl,
            &[Argument::Is(0, libc::PR_SET_NAME as u32)],
        )
}
