//! Shows that something is happening: elapsed seconds and the last line of output of a command
//! that takes longer than a moment.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, IsTerminal, Read, Write, stderr};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// A step shorter than this leaves no trace.
const SILENT: Duration = Duration::from_secs(2);
/// Where there is no terminal, a line this often.
const PLAIN_INTERVAL: Duration = Duration::from_secs(15);
/// Lines of output shown when a command fails.
const TAIL_LINES: usize = 60;

/// One line of progress: rewritten in place on a terminal, printed now and then elsewhere.
pub(crate) struct Progress {
    label: String,
    started: Instant,
    terminal: bool,
    shown: Option<Instant>,
}

impl Progress {
    /// Starts the clock.
    pub(crate) fn new(label: impl Into<String>) -> Self {
        Self {
            label: label.into(),
            started: Instant::now(),
            terminal: stderr().is_terminal(),
            shown: None,
        }
    }

    /// Shows `detail` if it is time to.
    pub(crate) fn tick(&mut self, detail: &str) {
        let elapsed = self.started.elapsed();
        let interval = if self.terminal {
            Duration::from_millis(100)
        } else {
            PLAIN_INTERVAL
        };
        let due = match self.shown {
            None if self.terminal => elapsed > Duration::from_millis(300),
            None => elapsed > SILENT,
            Some(last) => last.elapsed() >= interval,
        };
        if !due {
            return;
        }
        self.shown = Some(Instant::now());
        let line = format!("{:>4} s  {}: {detail}", elapsed.as_secs(), self.label);
        if self.terminal {
            let fitting: String = line.chars().take(79).collect();
            eprint!("\r\x1b[2K{fitting}");
            let _ = stderr().flush();
        } else {
            eprintln!("{}", line.trim_end_matches(": "));
        }
    }

    /// Removes the line from the terminal, so that something else can be printed.
    pub(crate) fn clear(&self) {
        if self.terminal && self.shown.is_some() {
            eprint!("\r\x1b[2K");
            let _ = stderr().flush();
        }
    }

    /// Ends the step with a line saying how long it took, if it took long enough to be noticed.
    pub(crate) fn done(self) {
        self.clear();
        let elapsed = self.started.elapsed();
        if elapsed > SILENT {
            eprintln!("{:>4} s  {}: done", elapsed.as_secs(), self.label);
        }
    }
}

/// What a command that ran under [`observe`] left behind.
pub(crate) struct Outcome {
    /// How it ended.
    pub(crate) status: ExitStatus,
    /// The last lines of its output, both streams in the order they came.
    pub(crate) tail: VecDeque<String>,
}

impl Outcome {
    /// The lines as one text.
    pub(crate) fn text(&self) -> String {
        self.tail
            .iter()
            .fold(String::new(), |text, line| text + line + "\n")
    }
}

/// Runs a command under a progress line.
pub(crate) fn observe(label: &str, command: &mut Command) -> Result<Outcome> {
    let program = command.get_program().to_string_lossy().into_owned();
    let mut progress = Progress::new(label);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {program}"))?;
    let (sender, lines) = mpsc::channel();
    let untagged = |line| line;
    forward(child.stdout.take(), sender.clone(), untagged);
    forward(child.stderr.take(), sender, untagged);
    let mut tail = VecDeque::new();
    loop {
        match lines.recv_timeout(Duration::from_millis(200)) {
            Ok(line) => {
                if tail.len() == 4096 {
                    tail.pop_front();
                }
                tail.extend(line);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        progress.tick(tail.back().map_or("", |line| line.trim()));
    }
    let status = child
        .wait()
        .with_context(|| format!("waiting for {program}"))?;
    if status.success() {
        progress.done();
    } else {
        progress.clear();
    }
    Ok(Outcome { status, tail })
}

/// Runs a command under a progress line; a failure shows the end of its output.
pub(crate) fn run(label: &str, command: &mut Command) -> Result<()> {
    let outcome = observe(label, command)?;
    if outcome.status.success() {
        return Ok(());
    }
    let skip = outcome.tail.len().saturating_sub(TAIL_LINES);
    for line in outcome.tail.iter().skip(skip) {
        eprintln!("    {line}");
    }
    bail!(
        "{label}: {:?} failed with {}",
        command.get_program(),
        outcome.status
    );
}

/// Runs cargo: with its own progress bar on a terminal, otherwise under ours. Warnings and
/// errors are always shown.
pub(crate) fn cargo(label: &str, command: &mut Command) -> Result<()> {
    if stderr().is_terminal() {
        let status = command.status().context("cannot start cargo")?;
        if !status.success() {
            bail!("{label}: cargo failed with {status}");
        }
        return Ok(());
    }
    let outcome = observe(label, command)?;
    let noteworthy = |line: &&String| !is_cargo_status(line);
    for line in outcome.tail.iter().filter(noteworthy) {
        eprintln!("{line}");
    }
    if !outcome.status.success() {
        bail!("{label}: cargo failed with {}", outcome.status);
    }
    Ok(())
}

/// Whether a line only says what cargo is busy with.
fn is_cargo_status(line: &str) -> bool {
    let Some(word) = line.strip_prefix("  ").map(str::trim_start) else {
        return false;
    };
    [
        "Adding",
        "Blocking",
        "Checking",
        "Compiling",
        "Downloaded",
        "Downloading",
        "Finished",
        "Fresh",
        "Locking",
        "Updating",
        "Executable",
    ]
    .iter()
    .any(|verb| word.starts_with(verb))
}

/// Sends what `tagged` makes of the lines of a stream, and of `None` at its end; carriage returns
/// (apt, wget) end a line as well.
pub(crate) fn forward<T: Send + 'static>(
    stream: Option<impl Read + Send + 'static>,
    sender: Sender<T>,
    tagged: impl Fn(Option<String>) -> T + Send + 'static,
) {
    let Some(stream) = stream else { return };
    thread::spawn(move || {
        let mut reader = BufReader::new(stream);
        let mut bytes = Vec::new();
        while matches!(reader.read_until(b'\n', &mut bytes), Ok(read) if read > 0) {
            let text = String::from_utf8_lossy(&bytes);
            let line = text.trim_end().rsplit('\r').next().unwrap_or_default();
            if sender.send(tagged(Some(line.to_owned()))).is_err() {
                return;
            }
            bytes.clear();
        }
        // Nobody may listen any more.
        let _ = sender.send(tagged(None));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_status_lines_are_told_from_diagnostics() {
        assert!(is_cargo_status("   Compiling aya v0.14.0"));
        assert!(is_cargo_status("    Finished `dev` profile in 1s"));
        assert!(!is_cargo_status("warning: unused variable"));
        assert!(!is_cargo_status("    let finished = 1;"));
    }

    #[test]
    fn the_output_of_a_failed_command_is_kept_from_both_streams() {
        let outcome = observe(
            "test",
            Command::new("sh").args(["-c", "echo one; echo two >&2; exit 3"]),
        )
        .expect("sh starts");
        assert_eq!(outcome.status.code(), Some(3));
        let text = outcome.text();
        assert!(text.contains("one\n") && text.contains("two\n"), "{text}");
    }
}
