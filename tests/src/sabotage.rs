//! Makes a running process misbehave: it goes on with instructions that are not its own.
//!
//! A worker must survive nothing of this; those around it must. The instructions are written
//! over those that follow the system call in which the process waits, in its own copy of the
//! code (proc_pid_mem(5)); x86-64 only.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// What becomes of the process when its system call returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// It computes for ever.
    Loop,
    /// It sleeps for ever, as in a deadlock.
    Sleep,
    /// Its stack overflows.
    StackOverflow,
}

impl Sabotage {
    const fn instructions(self) -> &'static [u8] {
        match self {
            // jmp to itself.
            Self::Loop => &[0xeb, 0xfe],
            // ppoll(NULL, 0, NULL, NULL), which the worker's filter allows: mov eax, 271; xor edi,
            // edi; xor esi, esi; xor edx, edx; xor r10d, r10d; syscall; jmp to the first one.
            Self::Sleep => &[
                0xb8, 0x0f, 0x01, 0, 0, 0x31, 0xff, 0x31, 0xf6, 0x31, 0xd2, 0x45, 0x31, 0xd2, 0x0f,
                0x05, 0xeb, 0xee,
            ],
            // push rax; jmp to it.
            Self::StackOverflow => &[0x50, 0xeb, 0xfd],
        }
    }

    /// Does it to a process that waits in a system call now and then.
    ///
    /// # Errors
    /// When it never waits, cannot be written to, or this is no x86-64.
    pub fn commit(self, pid: u32) -> Result<()> {
        if !cfg!(target_arch = "x86_64") {
            bail!("instructions for x86-64 only");
        }
        let file = File::options()
            .write(true)
            .open(format!("/proc/{pid}/mem"))?;
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            if let Some(next) = next_instruction(pid)? {
                return Ok(file.write_all_at(self.instructions(), next)?);
            }
            if Instant::now() > deadline {
                bail!("process {pid} is never in a system call");
            }
            sleep(Duration::from_micros(100));
        }
    }
}

/// Where a process goes on that waits in a system call: the last word of
/// proc_pid_syscall(5).
fn next_instruction(pid: u32) -> Result<Option<u64>> {
    let text = fs::read_to_string(format!("/proc/{pid}/syscall"))?;
    let words: Vec<_> = text.split_whitespace().collect();
    // "running" is one word; -1 is a process that waits elsewhere.
    let [number, .., next] = words[..] else {
        return Ok(None);
    };
    if number == "-1" {
        return Ok(None);
    }
    let next = next.strip_prefix("0x").context("no address")?;
    Ok(Some(u64::from_str_radix(next, 16)?))
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use std::io::Write;
    use std::process::{Child, Command, Stdio};

    use super::*;
    use crate::patience::wait_until;

    /// Ends it, whatever came of the test.
    struct Ended(Child);

    impl Drop for Ended {
        fn drop(&mut self) {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }

    /// Its state, and the ticks (10 ms each) that it has computed.
    fn state(pid: u32) -> (String, u64) {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let (_, rest) = stat.rsplit_once(") ").unwrap();
        let fields: Vec<&str> = rest.split(' ').collect();
        (fields[0].to_owned(), fields[11].parse().unwrap())
    }

    #[test]
    fn a_process_is_made_to_loop() {
        let mut cat = Command::new("cat");
        cat.stdin(Stdio::piped()).stdout(Stdio::null());
        let Ended(child) = &mut Ended(cat.spawn().unwrap());
        // Not while it is still being loaded.
        let reads = || {
            let call = fs::read_to_string(format!("/proc/{}/syscall", child.id()));
            call.unwrap()
                .starts_with(&format!("{} 0x0 ", libc::SYS_read))
        };
        wait_until(reads, || "it does not read".to_owned());
        Sabotage::Loop.commit(child.id()).unwrap();
        child.stdin.as_ref().unwrap().write_all(b"go on").unwrap();
        // Much more than it takes to copy five bytes.
        let loops = || {
            let (state, ticks) = state(child.id());
            state == "R" && ticks >= 20
        };
        wait_until(loops, || format!("{:?}", state(child.id())));
    }
}
