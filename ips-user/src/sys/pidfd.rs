//! Descriptors of another process (pidfd_getfd(2), Linux 5.6).

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// A hold on a process: it stays the same process though its number may be reused.
#[derive(Debug)]
pub struct PidFd {
    process: OwnedFd,
}

impl PidFd {
    /// The process that has this number now.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(pid: u32) -> io::Result<Self> {
        // SAFETY: pidfd_open(2) takes numbers only.
        let process = unsafe { libc::syscall(libc::SYS_pidfd_open, pid as libc::pid_t, 0) };
        Ok(Self {
            process: owned(process)?,
        })
    }

    /// A copy of its descriptor `number`; exec closes it.
    ///
    /// # Errors
    /// When it has no such descriptor, or this process may not trace it (ptrace(2)).
    pub fn fetch(&self, number: RawFd) -> io::Result<OwnedFd> {
        // SAFETY: pidfd_getfd(2) takes numbers only.
        owned(unsafe { libc::syscall(libc::SYS_pidfd_getfd, self.process.as_raw_fd(), number, 0) })
    }
}

fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    let number = RawFd::try_from(result).map_err(io::Error::other)?;
    if number < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made the descriptor for this process; nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_descriptor_of_another_process_can_be_copied() {
        let mut child = std::process::Command::new("sleep")
            .arg("1000")
            .stdin(std::fs::File::open("/proc/version").unwrap())
            .spawn()
            .unwrap();
        let process = PidFd::open(child.id()).unwrap();
        let mut copy = std::fs::File::from(process.fetch(0).unwrap());
        let mut text = String::new();
        copy.read_to_string(&mut text).unwrap();
        assert!(text.contains("Linux"), "{text:?}");
        process.fetch(77).unwrap_err();
        child.kill().unwrap();
        child.wait().unwrap();
        process.fetch(0).unwrap_err();
        assert!(copy.as_fd().as_raw_fd() > 2);
    }
}
