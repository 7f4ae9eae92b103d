//! The system calls that a confined process may make, as a filter for seccomp(2).

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

/// A condition on an argument of a call, its lower 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Argument {
    /// Is a number.
    Is(u8, u32),
    /// Has all of these bits set.
    Has(u8, u32),
    /// Has none of these bits set.
    Lacks(u8, u32),
}

/// An allow list. What is neither in it nor refused kills the process by SIGSYS, so that a
/// missing entry shows, and an intruder's attempt too.
#[derive(Clone, Debug)]
pub struct Calls {
    allowed: BTreeMap<libc::c_long, Vec<Vec<Argument>>>,
    /// Fail with EACCES instead.
    refused: Vec<libc::c_long>,
}

/// Calls that look for files. The Rust runtime and the C library make them on the way to an
/// abort (the backtrace of a panic), and go on when they fail; being killed there would hide
/// the reason.
const LOOKS_FOR_FILES: &[libc::c_long] = &[
    libc::SYS_openat,
    libc::SYS_readlinkat,
    libc::SYS_getcwd,
    libc::SYS_faccessat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_stat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_access,
];

/// What every process needs: memory, time, signals of its own, an end, and its log.
const EVERYONE: &[libc::c_long] = &[
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    // A call that SIGSTOP interrupted is resumed by this one.
    libc::SYS_restart_syscall,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_close,
    libc::SYS_ppoll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

impl Calls {
    /// What every process needs, for the calling one. Memory never becomes executable.
    pub fn of_this_process() -> Self {
        let exec = libc::PROT_EXEC as u32;
        let calls = Self {
            allowed: BTreeMap::new(),
            refused: LOOKS_FOR_FILES.to_vec(),
        };
        calls
            .allow(EVERYONE)
            .allow_if(libc::SYS_mmap, &[Argument::Lacks(2, exec)])
            .allow_if(libc::SYS_mprotect, &[Argument::Lacks(2, exec)])
            // abort(3) sends its signal by this one, to nobody else.
            .allow_if(libc::SYS_tgkill, &[Argument::Is(0, std::process::id())])
    }

    /// Whether a filter can be written for this architecture.
    pub(super) fn filterable() -> bool {
        TargetArch::try_from(std::env::consts::ARCH).is_ok()
    }

    /// Allows calls with any arguments.
    #[must_use]
    pub fn allow(mut self, calls: &[libc::c_long]) -> Self {
        self.allowed
            .extend(calls.iter().map(|call| (*call, Vec::new())));
        self
    }

    /// Allows a call when all conditions hold, in addition to other conditions allowed before.
    #[must_use]
    pub fn allow_if(mut self, call: libc::c_long, conditions: &[Argument]) -> Self {
        let chain = self.allowed.entry(call).or_default();
        chain.push(conditions.to_vec());
        self
    }

    /// Installs the filter in the calling thread.
    pub(super) fn enforce(&self) -> Result<(), seccompiler::Error> {
        // Of two filters the stricter answer counts, so each call is looked at twice; where the
        // answer does not depend on arguments the kernel keeps it (Linux 5.11).
        let refuse = self.refused.iter().map(|call| (*call, Vec::new()));
        let refuse = program(
            refuse.collect(),
            SeccompAction::Allow,
            SeccompAction::Errno(libc::EACCES as u32),
        )?;
        let mut allowed = BTreeMap::new();
        for (call, chain) in &self.allowed {
            let rules: Result<Vec<_>, _> = chain.iter().map(|it| rule(it)).collect();
            allowed.insert(*call, rules?);
        }
        allowed.extend(self.refused.iter().map(|call| (*call, Vec::new())));
        let kill = program(allowed, SeccompAction::KillProcess, SeccompAction::Allow)?;
        seccompiler::apply_filter(&refuse)?;
        seccompiler::apply_filter(&kill)
    }
}

fn program(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    otherwise: SeccompAction,
    then: SeccompAction,
) -> Result<BpfProgram, BackendError> {
    let architecture = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules, otherwise, then, architecture)?.try_into()
}

fn rule(conditions: &[Argument]) -> Result<SeccompRule, BackendError> {
    let conditions: Result<Vec<_>, _> = conditions
        .iter()
        .map(|condition| {
            let (index, operator, value) = match *condition {
                Argument::Is(index, value) => (index, SeccompCmpOp::Eq, value),
                Argument::Has(index, bits) => {
                    (index, SeccompCmpOp::MaskedEq(u64::from(bits)), bits)
                }
                Argument::Lacks(index, bits) => (index, SeccompCmpOp::MaskedEq(u64::from(bits)), 0),
            };
            let length = SeccompCmpArgLen::Dword;
            SeccompCondition::new(index, length, operator, u64::from(value))
        })
        .collect();
    SeccompRule::new(conditions?)
}
