//! Finding and running `nft` and the `iptables` family.

use std::fmt;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::NetfilterError;

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

/// Runs `program` with `input` on standard input; its standard output when it succeeded.
///
/// The child is a fork of the calling thread, so it works in that thread's network namespace.
pub(crate) fn run(
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
    };
    let cannot = |error: std::io::Error| failure("not run".to_owned(), error.to_string());
    let mut child = Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C") // messages are matched below
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(cannot)?;
    // These tools read all input before they write: no deadlock. One that ends early closes
    // the pipe, and its exit status says why.
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(cannot)?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(failure(output.status.to_string(), stderr))
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
    fn a_program_that_is_not_there_is_an_error_not_a_panic() {
        assert_eq!(find_program("sluice-no-such-program"), None);
        let failure = run(Path::new("/nonexistent/nft"), &["-f", "-"], "").unwrap_err();
        assert_eq!(failure.status, "not run");
    }
}
