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

use super::scaling::check_count;
use super::seat::Seat;
use crate::config::Config;
use crate::sys::process::{group_members, start_time};

/// What the names of launcher and workers begin with.
const COMMAND_PREFIX: &str = "sluice";

/// A process that this instance started. The start time tells it from a later process that
/// was given the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Started {
    /// Process id.
    pub(super) pid: u32,
    /// Clock ticks since boot.
    pub(super) start_time: u64,
}

impl Started {
    /// The process as it runs now; `None` when it has ended.
    pub(super) fn of(pid: u32) -> Option<Self> {
        Some(Self {
            pid,
            start_time: start_time(pid)?,
        })
    }

    /// A process that ended before anything could be learnt about it.
    pub(super) const fn ended(pid: u32) -> Self {
        // No process starts with the boot itself.
        Self { pid, start_time: 0 }
    }

    pub(super) fn is_alive(&self) -> bool {
        start_time(self.pid) == Some(self.start_time)
    }

    /// Whether another process has its number.
    fn is_reused(&self) -> bool {
        start_time(self.pid).is_some_and(|time| time != self.start_time)
    }

    /// Sends a signal, unless the process has ended (its number may be another's by now).
    ///
    /// # Errors
    /// When kill(2) fails.
    pub(super) fn signal(&self, signal: Signal) -> io::Result<()> {
        if self.is_alive() {
            kill(Pid::from_raw(self.pid as i32), signal)?;
        }
        Ok(())
    }
}

/// What a successor finds after an unclean stop.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Launcher and workers.
    pub(super) processes: Vec<Started>,
    /// Workers by configuration.
    pub(super) configured: u32,
    /// Those that there were, and what for.
    pub(super) workers: Vec<(Seat, LastingDuty)>,
}

/// A duty that outlasts the supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum LastingDuty {
    Serving,
    Drained,
    Retiring,
}

/// The instance's hold on its run directory.
#[derive(Debug)]
pub(super) struct Instance {
    state: PathBuf,
    _lock: Flock<File>,
}

impl Instance {
    /// Takes the instance's lock.
    ///
    /// # Errors
    /// When another supervisor runs this instance, or the directory cannot be used.
    pub(super) fn claim(directory: &Path, name: &str) -> anyhow::Result<Self> {
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
        Ok(Self {
            state: directory.join(format!("{name}.json")),
            _lock: lock,
        })
    }

    /// Records what a successor has to know.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(super) fn record(&self, record: &Record) -> io::Result<()> {
        // Written beside and renamed: a successor never reads half a record.
        let new = self.state.with_extension("json.new");
        fs::write(&new, serde_json::to_vec(record)?)?;
        fs::rename(&new, &self.state)
    }

    /// After a clean stop nothing is left to end.
    pub(super) fn forget(&self) {
        // Already absent is what is wanted.
        let _ = fs::remove_file(&self.state);
    }

    /// What a predecessor has recorded; nothing after a clean stop.
    fn former(&self) -> anyhow::Result<Record> {
        let text = match fs::read(&self.state) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Record::default()),
            Err(error) => {
                return Err(error).with_context(|| format!("reading {}", self.state.display()));
            }
        };
        Ok(serde_json::from_slice(&text).unwrap_or_else(|_| {
            log::warn!("{} is damaged: nothing ended by it", self.state.display());
            Record::default()
        }))
    }

    /// The workers that there are to be, and what for: as configured, unless a predecessor that
    /// ended uncleanly had others and the configured number is the same.
    ///
    /// # Errors
    /// When the record cannot be read.
    pub(super) fn workers(&self, config: &Config) -> anyhow::Result<Vec<(Seat, LastingDuty)>> {
        let (former, count) = (self.former()?, config.worker_count());
        let serving = |index| (Seat::Worker(index), LastingDuty::Serving);
        let configured: Vec<_> = (0..count).map(serving).collect();
        let others = former.workers != configured;
        if former.configured != count || former.workers.is_empty() || !others {
            return Ok(configured);
        }
        let needed = former.workers.iter().map(|(seat, _)| seat.slot() + 1);
        if let Err(error) = check_count(config, needed.max().unwrap_or(0)) {
            log::warn!("{count} workers as configured, not as before: {error:#}");
            return Ok(configured);
        }
        log::info!("{} workers as the former run had", former.workers.len());
        Ok(former.workers)
    }

    /// What a dead predecessor left running: its workers, which go on inspecting.
    ///
    /// # Errors
    /// When the record cannot be read.
    pub(super) fn leftovers(&self) -> anyhow::Result<Vec<Started>> {
        let recorded = self.former()?.processes;
        // A supervisor may have died before it could record a process that the launcher had
        // just forked for it. Workers stay in the launcher's process group.
        let unrecorded = recorded.iter().filter(|it| !it.is_reused()).flat_map(|it| {
            let members = group_members(it.pid, COMMAND_PREFIX);
            members.into_iter().filter_map(Started::of)
        });
        let mut alive: Vec<_> = unrecorded.collect();
        for process in recorded.into_iter().filter(Started::is_alive) {
            if !alive.contains(&process) {
                alive.push(process);
            }
        }
        Ok(alive)
    }

    /// Ends [`Self::leftovers`]; returns how many processes that were.
    ///
    /// # Errors
    /// When the record cannot be read, or a process does not end within 5 s.
    pub(super) fn end_leftovers(&self) -> anyhow::Result<usize> {
        let alive = self.leftovers()?;
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

    fn of(processes: Vec<Started>) -> Record {
        Record {
            processes,
            ..Record::default()
        }
    }

    #[test]
    fn an_instance_runs_once_and_a_successor_ends_what_was_left() {
        let directory = tempfile::tempdir().unwrap();
        let first = Instance::claim(directory.path(), "t").unwrap();
        assert_eq!(first.end_leftovers().unwrap(), 0);
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
        first.record(&of(vec![started, other])).unwrap();
        drop(first);
        let second = Instance::claim(directory.path(), "t").unwrap();
        assert_eq!(second.end_leftovers().unwrap(), 1);
        assert!(!child.wait().unwrap().success());
    }

    #[test]
    fn a_worker_that_nobody_recorded_is_found_by_its_launchers_group() {
        use std::os::unix::process::CommandExt as _;

        let directory = tempfile::tempdir().unwrap();
        // A copy, because the name of the program tells ours from others.
        let program = directory.path().join("sluice-sleep");
        fs::copy("/bin/sleep", &program).unwrap();
        let start = |program: &Path, group: i32| {
            let mut command = std::process::Command::new(program);
            command.arg("1000").process_group(group).spawn().unwrap()
        };
        let mut launcher = start(&program, 0);
        let group = launcher.id() as i32;
        let mut worker = start(&program, group);
        let mut other = start(Path::new("/bin/sleep"), group);
        let instance = Instance::claim(directory.path(), "t").unwrap();
        instance
            .record(&of(vec![Started::of(launcher.id()).unwrap()]))
            .unwrap();
        // The launcher ends with its supervisor, its workers stay.
        launcher.kill().unwrap();
        launcher.wait().unwrap();
        assert_eq!(instance.end_leftovers().unwrap(), 1);
        assert!(!worker.wait().unwrap().success());
        assert!(other.try_wait().unwrap().is_none(), "it is none of ours");
        other.kill().unwrap();
        other.wait().unwrap();
    }

    #[test]
    fn a_successor_has_as_many_workers_as_its_predecessor_unless_it_is_configured_anew() {
        let directory = tempfile::tempdir().unwrap();
        let instance = Instance::claim(directory.path(), "t").unwrap();
        let mut config = Config::default();
        config.workers.count = 2;
        let serving = |indices: std::ops::Range<u32>| -> Vec<_> {
            let seats = indices.map(Seat::Worker);
            seats.map(|seat| (seat, LastingDuty::Serving)).collect()
        };
        assert_eq!(instance.workers(&config).unwrap(), serving(0..2));
        let mut record = Record {
            processes: Vec::new(),
            configured: 2,
            workers: serving(0..4),
        };
        record.workers[1].1 = LastingDuty::Drained;
        instance.record(&record).unwrap();
        assert_eq!(instance.workers(&config).unwrap(), record.workers);
        config.workers.count = 3;
        assert_eq!(instance.workers(&config).unwrap(), serving(0..3));
        record.configured = 3;
        // Too many for the mark.
        record.workers = serving(0..1000);
        instance.record(&record).unwrap();
        assert_eq!(instance.workers(&config).unwrap(), serving(0..3));
        instance.forget();
        assert_eq!(instance.workers(&config).unwrap(), serving(0..3));
    }

    #[test]
    fn a_damaged_record_ends_nothing() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("t.json"), "{").unwrap();
        let instance = Instance::claim(directory.path(), "t").unwrap();
        assert_eq!(instance.end_leftovers().unwrap(), 0);
    }
}
