//! A child process that cannot outlive its guard, with everything it printed.

use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::patience::wait_until;

/// How long what a child printed before its end may take to be read.
const READ_OUT: Duration = Duration::from_secs(5);

/// A running child. Dropping it kills (SIGKILL) and reaps it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    shown: String,
    log: Arc<Mutex<Vec<String>>>,
    readers: Vec<JoinHandle<()>>,
}

impl Process {
    /// Starts a command, usually from [`crate::Namespace::command`]; its standard output and
    /// error are captured line by line.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(command: &mut Command) -> Result<Self> {
        Self::spawn_with_input(command, Stdio::null())
    }

    /// The same with a standard input, which may be any descriptor: a socket to inherit, too.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn_with_input(command: &mut Command, input: Stdio) -> Result<Self> {
        let shown = format!("{command:?}");
        let mut child = command
            .stdin(input)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {shown}"))?;
        let log = Arc::new(Mutex::new(Vec::new()));
        let mut readers = Vec::new();
        if let Some(output) = child.stdout.take() {
            readers.push(capture(output, &log));
        }
        if let Some(output) = child.stderr.take() {
            readers.push(capture(output, &log));
        }
        Ok(Self {
            child,
            shown,
            log,
            readers,
        })
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal. Once stopped it does nothing any more.
    ///
    /// # Errors
    /// When it has ended already.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        // A reaped child's id may belong to somebody else by now.
        if let Some(status) = self.child.try_wait()? {
            bail!("{} has ended already: {status}", self.shown);
        }
        let pid = Pid::from_raw(i32::try_from(self.child.id())?);
        kill(pid, signal).with_context(|| format!("{signal} to {}", self.shown))?;
        if signal == Signal::SIGSTOP {
            await_stopped(self.child.id());
        }
        Ok(())
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it has not ended after `timeout`; it then still runs.
    pub fn wait(&mut self, timeout: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(status) = self.child.try_wait()? {
                self.read_out();
                return Ok(status);
            }
            if Instant::now() >= deadline {
                bail!(
                    "{} has not ended after {timeout:?}; its log:\n{}",
                    self.shown,
                    self.log()
                );
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends a signal and waits for the end.
    ///
    /// # Errors
    /// When it has ended already, or has not ended after `timeout`.
    pub fn stop(&mut self, signal: Signal, timeout: Duration) -> Result<ExitStatus> {
        self.signal(signal)?;
        self.wait(timeout)
    }

    /// Everything it printed so far, standard output and error mixed.
    #[must_use]
    pub fn log(&self) -> String {
        self.log
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .join("\n")
    }

    /// Waits for a line that contains `text` and returns it.
    ///
    /// # Errors
    /// When none comes within `timeout`, or the process ends without it; the error holds the
    /// log.
    pub fn wait_for_line(&mut self, text: &str, timeout: Duration) -> Result<String> {
        let deadline = Instant::now() + timeout;
        loop {
            // Asked before the log is read: what it printed before its end is not missed.
            let ended = self.child.try_wait()?;
            if ended.is_some() {
                self.read_out();
            }
            let found = self
                .log
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .iter()
                .find(|line| line.contains(text))
                .cloned();
            if let Some(line) = found {
                return Ok(line);
            }
            if let Some(status) = ended {
                bail!(
                    "{} ended ({status}) before {text:?}:\n{}",
                    self.shown,
                    self.log()
                );
            }
            if Instant::now() >= deadline {
                bail!(
                    "{} has not printed {text:?} after {timeout:?}:\n{}",
                    self.shown,
                    self.log()
                );
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Process {
    /// After its end: waits for the rest of what it printed. Not for ever: its own children may
    /// have survived it, and they hold its standard output.
    fn read_out(&mut self) {
        let deadline = Instant::now() + READ_OUT;
        while self.readers.iter().any(|reader| !reader.is_finished()) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
        self.readers.clear();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when it has been reaped already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until no thread of a process that was sent SIGSTOP goes on: one that gets no CPU stops
/// late, and may take packets before that.
///
/// # Panics
/// When one goes on all the same.
pub fn await_stopped(pid: u32) {
    let running = || {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter();
        let states = threads.flatten().flatten().filter_map(|thread| {
            let stat = fs::read_to_string(thread.path().join("stat")).ok()?;
            // After the name, which may hold anything.
            stat.rsplit_once(") ")?.1.chars().next()
        });
        states.filter(|state| !"TtZX".contains(*state)).count()
    };
    wait_until(|| running() == 0, || format!("process {pid} goes on"));
}

fn capture(output: impl Read + Send + 'static, log: &Arc<Mutex<Vec<String>>>) -> JoinHandle<()> {
    let log = Arc::clone(log);
    thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        loop {
            line.clear();
            match output.read_until(b'\n', &mut line) {
                Ok(0) => return,
                Ok(_) => {
                    let text = String::from_utf8_lossy(&line);
                    log.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(text.trim_end().to_owned());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_child_is_seen_though_its_own_child_holds_its_output() {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 30 & echo $!"]);
        let mut process = Process::spawn(&mut command).unwrap();
        let began = Instant::now();
        assert!(process.wait(Duration::from_secs(20)).unwrap().success());
        assert!(began.elapsed() < Duration::from_secs(15));
        let survivor = process.log().trim().parse().unwrap();
        kill(Pid::from_raw(survivor), Signal::SIGKILL).unwrap();
    }
}
