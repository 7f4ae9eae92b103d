//! Finding and running `nft` and the `iptables` family.

use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::NetfilterError;

/// How long a program may take before it is killed: longer than iptables is told to wait for the
/// lock that others may hold.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long one that was killed may take to be gone; one that the kernel holds on to is left.
const GONE_WITHIN: Duration = Duration::from_secs(1);
/// Between two looks at a program that has closed its output and not ended.
const ENDS_SOON: Duration = Duration::from_millis(1);
/// What iptables says after it has waited for its lock in vain.
const LOCKED: &str = "holding the xtables lock";

/// A failed command, with everything an administrator needs to repeat it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandFailure {
    /// The command line.
    pub command: String,
    /// How it ended.
    pub status: String,
    /// What it wrote to standard error, or what could not be done at all.
    pub stderr: String,
    /// What was given to it on standard input.
    pub input: String,
    /// Whether it was killed because it had not ended in time.
    pub late: bool,
}

impl CommandFailure {
    /// The first line of standard error: what is worth a place in a log line.
    pub fn summary(&self) -> &str {
        self.stderr.lines().next().unwrap_or(&self.status)
    }

    /// Whether the kernel or the tool refused for want of privilege.
    pub fn lacks_privilege(&self) -> bool {
        let text = self.stderr.to_ascii_lowercase();
        text.contains("operation not permitted")
            || text.contains("permission denied")
            || text.contains("you must be root")
    }

    /// Whether it has waited in vain: this says nothing of what the machine can do, and the same
    /// may work later.
    pub fn was_given_up(&self) -> bool {
        self.late || self.stderr.contains(LOCKED)
    }
}

impl fmt::Display for CommandFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}: {}", self.command, self.status, self.stderr)
    }
}

/// The path of a program: PATH, then the directories that a user's PATH often lacks.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
}

/// Runs `program` with `input` on standard input; its standard output when it succeeded. One that
/// does not end is killed after a while.
///
/// The child is a fork of the calling thread, so it works in that thread's network namespace.
pub(crate) fn run(
    program: &Path,
    arguments: &[&str],
    input: &str,
) -> Result<String, CommandFailure> {
    run_within(PATIENCE, program, arguments, input)
}

fn run_within(
    patience: Duration,
    program: &Path,
    arguments: &[&str],
    input: &str,
) -> Result<String, CommandFailure> {
    let failure = |status: String, stderr: String| CommandFailure {
        command: std::iter::once(program.display().to_string())
            .chain(arguments.iter().map(|&argument| argument.to_owned()))
            .collect::<Vec<_>>()
            .join(" "),
        status,
        stderr,
        input: input.to_owned(),
        late: false,
    };
    let cannot = |error: io::Error| failure("not run".to_owned(), error.to_string());
    let mut child = Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C") // messages are matched below
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(cannot)?;
    let mut said = [Vec::new(), Vec::new()];
    let ended = converse(&mut child, input, &mut said, Instant::now() + patience);
    let text = |said: &[u8]| String::from_utf8_lossy(said).trim().to_owned();
    match ended {
        Ok(Some(status)) if status.success() => Ok(String::from_utf8_lossy(&said[0]).into_owned()),
        Ok(Some(status)) => Err(failure(status.to_string(), text(&said[1]))),
        Ok(None) => {
            end(&mut child);
            Err(CommandFailure {
                late: true,
                ..failure(format!("given up after {patience:?}"), text(&said[1]))
            })
        }
        Err(error) => {
            end(&mut child);
            Err(cannot(error))
        }
    }
}

/// Gives a program its input and takes what it says on standard output and standard error, until
/// it has ended; `None` when it has not by the deadline. Whoever it has started may hold its
/// pipes: it is not waited for them any longer either.
fn converse(
    child: &mut Child,
    input: &str,
    said: &mut [Vec<u8>; 2],
    deadline: Instant,
) -> io::Result<Option<ExitStatus>> {
    let mut input = input.as_bytes();
    let mut stdin = pipe(child.stdin.take())?;
    let mut outputs = [pipe(child.stdout.take())?, pipe(child.stderr.take())?];
    loop {
        if input.is_empty() {
            stdin = None;
        }
        let writing = stdin.iter().map(|end| (end, PollFlags::POLLOUT));
        let reading = outputs.iter().flatten().map(|end| (end, PollFlags::POLLIN));
        let mut ends: Vec<_> = writing
            .chain(reading)
            .map(|(end, event)| PollFd::new(end.as_fd(), event))
            .collect();
        if outputs.iter().all(Option::is_none) {
            break;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        // Rounded up, so that the last millisecond is not spent busily.
        let left = PollTimeout::try_from(left + ENDS_SOON).unwrap_or(PollTimeout::MAX);
        match poll(&mut ends, left) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        if let Some(end) = &mut stdin {
            match end.write(input) {
                Ok(written) => input = &input[written..],
                Err(error) if is_for_later(&error) => {}
                // It has ended early, and its exit status says why.
                Err(_) => input = &[],
            }
        }
        for (output, said) in outputs.iter_mut().zip(said.iter_mut()) {
            if let Some(end) = output
                && has_ended(end.read_to_end(said))?
            {
                *output = None;
            }
        }
    }
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        sleep(ENDS_SOON);
    }
}

/// Whether the end of the output has been read. What was read before there was no more for now
/// stays read.
fn has_ended(read: io::Result<usize>) -> io::Result<bool> {
    match read {
        Ok(_) => Ok(true),
        Err(error) if is_for_later(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

fn is_for_later(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// This process's end of a child's pipe, on which nothing waits.
fn pipe(end: Option<impl Into<OwnedFd>>) -> io::Result<Option<File>> {
    let Some(end) = end.map(Into::into) else {
        return Ok(None);
    };
    fcntl(&end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(Some(File::from(end)))
}

/// Kills a program and forgets it.
fn end(child: &mut Child) {
    // It may have ended just now.
    let _ = child.kill();
    let deadline = Instant::now() + GONE_WITHIN;
    while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
        sleep(ENDS_SOON);
    }
}

impl From<CommandFailure> for NetfilterError {
    fn from(failure: CommandFailure) -> Self {
        Self::Command(failure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_command_reports_its_line_status_and_standard_error() {
        let shell = find_program("sh").unwrap();
        let failure = run(&shell, &["-c", "cat >&2; exit 3"], "no such\nthing").unwrap_err();
        assert_eq!(failure.summary(), "no such");
        let text = failure.to_string();
        assert!(text.contains("-c cat >&2; exit 3"), "{text}");
        assert!(text.contains("exit status: 3"), "{text}");
        assert!(text.contains("thing"), "{text}");
    }

    #[test]
    fn a_program_that_does_not_end_is_given_up_and_so_is_one_whose_child_holds_its_output() {
        let shell = find_program("sh").unwrap();
        for script in [
            "echo waiting >&2; exec sleep 60",
            "sleep 30 & echo waiting >&2",
        ] {
            let began = Instant::now();
            // In which it is able to say so, on a busy machine too.
            let patience = Duration::from_secs(3);
            let failure = run_within(patience, &shell, &["-c", script], "").unwrap_err();
            assert!(failure.was_given_up(), "{failure}");
            assert_eq!(failure.status, "given up after 3s");
            assert_eq!(failure.stderr, "waiting");
            assert!((patience..patience * 5).contains(&began.elapsed()));
        }
    }

    #[test]
    fn input_and_output_that_fill_the_pipes_get_through() {
        let cat = find_program("cat").unwrap();
        let text = "rule after rule\n".repeat(100_000);
        assert!(run(&cat, &[], &text).unwrap() == text);
        // One that does not want its input.
        let shell = find_program("sh").unwrap();
        assert_eq!(run(&shell, &["-c", "echo done"], &text).unwrap(), "done\n");
    }

    #[test]
    fn who_waits_for_the_lock_in_vain_may_try_again() {
        let shell = find_program("sh").unwrap();
        let script = "echo 'Another app is currently holding the xtables lock' >&2; exit 4";
        let failure = run(&shell, &["-c", script], "").unwrap_err();
        assert!(failure.was_given_up() && !failure.late, "{failure}");
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error_not_a_panic() {
        assert_eq!(find_program("sluice-no-such-program"), None);
        let failure = run(Path::new("/nonexistent/nft"), &["-f", "-"], "").unwrap_err();
        assert_eq!(failure.status, "not run");
    }
}
