//! One supervisor an instance: a lock, and a record of the processes it started so that a
//! successor can end them after an unclean stop.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::sys::process::start_time;

/// A process that this instance started. The start time tells it from a later process that
/// was given the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// Process id.
    pub pid: u32,
    /// Clock ticks since boot.
    pub start_time: u64,
}

impl Started {
    /// The process as it runs now; `None` when it has ended.
    pub fn of(pid: u32) -> Option<Self> {
        Some(Self {
            pid,
            start_time: start_time(pid)?,
        })
    }

    fn is_alive(&self) -> bool {
        start_time(self.pid) == Some(self.start_time)
    }

    /// Sends a signal, unless the process has ended (its number may be another's by now).
    ///
    /// # Errors
    /// When kill(2) fails.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        if self.is_alive() {
            kill(Pid::from_raw(self.pid as i32), signal)?;
        }
        Ok(())
    }
}

/// The instance's hold on its run directory.
#[derive(Debug)]
pub struct Instance {
    state: PathBuf,
    _lock: Flock<File>,
}

impl Instance {
    /// Takes the instance's lock and ends what a dead predecessor left running. Returns how
    /// many processes that were.
    ///
    /// # Errors
    /// When another supervisor runs this instance, or the directory cannot be used.
    pub fn claim(directory: &Path, name: &str) -> anyhow::Result<(Self, usize)> {
        fs::create_dir_all(directory)
            .with_context(|| format!("creating {}", directory.display()))?;
        let path = directory.join(format!("{name}.lock"));
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .with_context(|| format!("opening {}", path.display()))?;
        let lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((_, nix::Error::EAGAIN)) => bail!(
                "instance {name:?} is already running ({} is locked); `sluice status` shows it, \
                 and another instance needs another `name`",
                path.display()
            ),
            Err((_, error)) => {
                return Err(error).with_context(|| format!("locking {}", path.display()));
            }
        };
        let instance = Self {
            state: directory.join(format!("{name}.json")),
            _lock: lock,
        };
        let ended = instance.end_leftovers()?;
        Ok((instance, ended))
    }

    /// Records the processes of this instance.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn record(&self, started: &[Started]) -> io::Result<()> {
        // Written beside and renamed: a successor never reads half a record.
        let new = self.state.with_extension("json.new");
        fs::write(&new, serde_json::to_vec(started)?)?;
        fs::rename(&new, &self.state)
    }

    /// After a clean stop nothing is left to end.
    pub fn forget(&self) {
        // Already absent is what is wanted.
        let _ = fs::remove_file(&self.state);
    }

    fn end_leftovers(&self) -> anyhow::Result<usize> {
        let text = match fs::read(&self.state) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) => {
                return Err(error).with_context(|| format!("reading {}", self.state.display()));
            }
        };
        let Ok(recorded) = serde_json::from_slice::<Vec<Started>>(&text) else {
            log::warn!("{} is damaged: nothing ended by it", self.state.display());
            return Ok(0);
        };
        let alive: Vec<_> = recorded.into_iter().filter(Started::is_alive).collect();
        for process in &alive {
            // It may end by itself in between: then there is nothing left to do.
            let _ = process.signal(Signal::SIGKILL);
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        while alive.iter().any(Started::is_alive) {
            if Instant::now() > deadline {
                bail!("processes of a former run of this instance do not end: {alive:?}");
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        self.forget();
        Ok(alive.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_runs_once_and_a_successor_ends_what_was_left() {
        let directory = tempfile::tempdir().unwrap();
        let (first, ended) = Instance::claim(directory.path(), "t").unwrap();
        assert_eq!(ended, 0);
        let refused = Instance::claim(directory.path(), "t")
            .unwrap_err()
            .to_string();
        assert!(refused.contains("already running"), "{refused}");
        let mut child = std::process::Command::new("sleep")
            .arg("1000")
            .spawn()
            .unwrap();
        let started = Started::of(child.id()).unwrap();
        // The same number with another start time is another process.
        let other = Started {
            pid: std::process::id(),
            start_time: 1,
        };
        first.record(&[started, other]).unwrap();
        drop(first);
        let (_second, ended) = Instance::claim(directory.path(), "t").unwrap();
        assert_eq!(ended, 1);
        assert!(!child.wait().unwrap().success());
    }

    #[test]
    fn a_damaged_record_ends_nothing() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("t.json"), "{").unwrap();
        assert_eq!(Instance::claim(directory.path(), "t").unwrap().1, 0);
    }
}
