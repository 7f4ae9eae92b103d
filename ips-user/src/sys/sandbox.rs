//! What a process gives up before it looks at bytes that an attacker wrote: its user, its
//! capabilities, the file system, the network and most system calls.
//!
//! All of it holds for the calling thread, so it is for processes with one thread. Nothing of it
//! can be taken back: `no_new_privs` and the locked securebits outlive even an exec, which the
//! system call filter does not let happen.

mod account;
mod calls;

use std::io;

use caps::{CapSet, Capability, CapsHashSet};
use landlock::{ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetStatus, Scope};
use nix::sys::prctl;
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use account::{Account, AccountError};
pub use calls::{Argument, Calls};

/// The Landlock rights that are asked for; a kernel that knows fewer enforces those it knows.
/// Version 6 (Linux 6.12): all of the file system, TCP, abstract unix sockets, signals.
const LANDLOCK_ABI: ABI = ABI::V6;

/// capabilities(7), "The securebits flags": with these root is a user as any other, a change of
/// user changes no capabilities, none can become ambient, and all that stays so.
const SECUREBITS: libc::c_ulong = NOROOT
    | NOROOT << LOCKED
    | NO_SETUID_FIXUP
    | NO_SETUID_FIXUP << LOCKED
    | KEEP_CAPS << LOCKED
    | NO_CAP_AMBIENT_RAISE
    | NO_CAP_AMBIENT_RAISE << LOCKED;
const NOROOT: libc::c_ulong = 1;
const NO_SETUID_FIXUP: libc::c_ulong = 1 << 2;
const KEEP_CAPS: libc::c_ulong = 1 << 4;
const NO_CAP_AMBIENT_RAISE: libc::c_ulong = 1 << 6;
/// Each flag's lock is the bit above it.
const LOCKED: u32 = 1;

/// What a process keeps.
#[derive(Clone, Debug)]
pub struct Sandbox {
    /// Whom it becomes. A process without CAP_SETUID stays who it is.
    pub account: Account,
    /// The one capability that stays.
    pub keeps: Capability,
    /// Whether Landlock takes away the file system and TCP.
    pub landlock: bool,
    /// The system calls that stay; `None` filters none.
    pub calls: Option<Calls>,
}

/// What the running kernel has of what a [`Sandbox`] uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Support {
    /// Version of Landlock's interface; `None` when it is not built in, or not enabled.
    pub landlock: Option<u32>,
    /// Whether system calls can be filtered and a forbidden one kills the process (Linux 4.14,
    /// on architectures that the filter can be written for).
    pub seccomp: bool,
}

/// What could not be given up.
#[derive(Debug, Error)]
#[error("{what}: {source}")]
pub struct SandboxError {
    what: &'static str,
    source: io::Error,
}

/// Names what failed.
trait During<T> {
    fn during(self, what: &'static str) -> Result<T, SandboxError>;
}

impl<T, E: Into<Box<dyn std::error::Error + Send + Sync>>> During<T> for Result<T, E> {
    fn during(self, what: &'static str) -> Result<T, SandboxError> {
        self.map_err(|error| SandboxError {
            what,
            source: io::Error::other(error),
        })
    }
}

impl Support {
    /// Asks the kernel.
    pub fn of_kernel() -> Self {
        /// `LANDLOCK_CREATE_RULESET_VERSION`.
        const VERSION: libc::c_ulong = 1;
        // SAFETY: with this flag and no attributes the call returns a number and makes nothing.
        let version = unsafe {
            let none = std::ptr::null::<libc::c_void>();
            libc::syscall(libc::SYS_landlock_create_ruleset, none, 0_usize, VERSION)
        };
        let action = libc::SECCOMP_RET_KILL_PROCESS;
        // SAFETY: the call reads the action, which outlives it.
        let available = unsafe {
            let operation = libc::SECCOMP_GET_ACTION_AVAIL;
            libc::syscall(libc::SYS_seccomp, operation, 0, &raw const action)
        };
        Self {
            landlock: u32::try_from(version).ok().filter(|version| *version > 0),
            seccomp: available == 0 && Calls::filterable(),
        }
    }
}

impl Sandbox {
    /// Gives up everything else, in the calling thread. What the kernel does not have, by
    /// `support`, is left out.
    ///
    /// # Errors
    /// When something that the kernel has fails, for example because the capability that shall
    /// stay is not there. The process has then lost what came before, and had better end.
    pub fn enter(self, support: Support) -> Result<(), SandboxError> {
        self.drop_user()?;
        drop_capabilities(self.keeps)?;
        // No core dump of other people's packets, and no other process of the same user may
        // look in (ptrace(2), "Ptrace access mode checking"); root with CAP_SYS_PTRACE still may.
        prctl::set_dumpable(false).during("PR_SET_DUMPABLE")?;
        prctl::set_no_new_privs().during("PR_SET_NO_NEW_PRIVS")?;
        if self.landlock && support.landlock.is_some() {
            let enforced = restrict().during("Landlock")?;
            if enforced == RulesetStatus::NotEnforced {
                return Err("not enforced, though the kernel has it").during("Landlock");
            }
        }
        // Last: the filter forbids all of the above.
        match self.calls {
            Some(calls) if support.seccomp => calls.enforce().during("seccomp"),
            _ => Ok(()),
        }
    }

    /// Leaves the user, keeping the capabilities.
    fn drop_user(&self) -> Result<(), SandboxError> {
        // Both are needed for the rest, and lost with it.
        if holds(Capability::CAP_SETPCAP) {
            caps::clear(None, CapSet::Bounding).during("emptying the bounding set")?;
        }
        if !(holds(Capability::CAP_SETUID) && holds(Capability::CAP_SETGID)) {
            return lock_securebits();
        }
        let Account { uid, gid } = self.account;
        prctl::set_keepcaps(true).during("PR_SET_KEEPCAPS")?;
        nix::unistd::setgroups(&[]).during("setgroups")?;
        nix::unistd::setresgid(gid, gid, gid).during("setresgid")?;
        // The effective capabilities go with root's user id, the permitted ones stay.
        let permitted = caps::read(None, CapSet::Permitted).during("reading capabilities")?;
        nix::unistd::setresuid(uid, uid, uid).during("setresuid")?;
        caps::set(None, CapSet::Effective, &permitted).during("keeping capabilities")?;
        lock_securebits()
    }
}

fn holds(capability: Capability) -> bool {
    caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false)
}

/// Needs CAP_SETPCAP; without it `no_new_privs` alone has to do.
fn lock_securebits() -> Result<(), SandboxError> {
    if !holds(Capability::CAP_SETPCAP) {
        return Ok(());
    }
    // SAFETY: PR_SET_SECUREBITS takes a number.
    match unsafe { libc::prctl(libc::PR_SET_SECUREBITS, SECUREBITS, 0, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()).during("PR_SET_SECUREBITS"),
    }
}

fn drop_capabilities(keeps: Capability) -> Result<(), SandboxError> {
    let kept = CapsHashSet::from([keeps]);
    caps::clear(None, CapSet::Ambient).during("clearing ambient capabilities")?;
    for set in [CapSet::Effective, CapSet::Permitted] {
        caps::set(None, set, &kept).during("dropping capabilities")?;
    }
    caps::clear(None, CapSet::Inheritable).during("clearing inheritable capabilities")
}

/// No path may be opened, created, removed or executed; TCP neither bound nor connected;
/// nothing outside reached by abstract sockets or signals.
fn restrict() -> Result<RulesetStatus, landlock::RulesetError> {
    let status = Ruleset::default()
        .handle_access(AccessFs::from_all(LANDLOCK_ABI))?
        .handle_access(AccessNet::from_all(LANDLOCK_ABI))?
        .scope(Scope::from_all(LANDLOCK_ABI))?
        .create()?
        .restrict_self()?;
    Ok(status.ruleset)
}

#[cfg(test)]
mod tests;
