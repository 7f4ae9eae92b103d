//! One supervisor an instance: a lock, and a record of what it started, so that a successor can
//! take it over or end it.

use std::cell::RefCell;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::fcntl::Flock;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::duty::LastingDuty;
use super::history::History;
use super::scaling::check_count;
use super::seat::Seat;
use crate::config::Config;
use crate::config::settings::EngineSettings;
use crate::lock::lock;
use crate::metrics::snapshot::Retired;
use crate::netfilter::Backend;
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

    /// After its end: forgets it, if it was a child of this process, or became one because the
    /// launcher has ended. Returns how it ended; `None` for somebody else's child.
    pub(super) fn reap(&self) -> Option<String> {
        match waitpid(Pid::from_raw(self.pid as i32), Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(_, status)) => Some(format!("exit status {status}")),
            Ok(WaitStatus::Signaled(_, signal, _)) => Some(format!("signal {signal}")),
            _ => None,
        }
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

/// The form of [`Record`]. To be raised when a program would misunderstand a record that knows only
/// the former; what can be left out needs no other form, but a default.
pub(super) const RECORD_FORM: u32 = 3;

/// What a successor has to know.
///
/// That may be another program. Of an earlier one's record what came later is absent; what a
/// later one's has more is passed over, because to make nothing of the whole would be to lose
/// the workers. (Programs of form 1 do just that: see [`super::upgrade`].)
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Record {
    /// The process that workers are forks of.
    pub(super) launcher: Option<Started>,
    /// The process that sends resets.
    pub(super) rejecter: Option<Started>,
    /// Id of the map in which the workers stamp their heartbeats.
    pub(super) workers_map: u32,
    /// Workers by configuration.
    pub(super) configured: u32,
    /// Who serves which queue.
    pub(super) seats: Vec<Sitting>,
    /// What is left of seats that are gone.
    pub(super) retired: Retired,
    /// How many times the program has been replaced by another one.
    pub(super) upgrades: u64,
    /// By what its netfilter rules were put into the kernel.
    #[serde(default)]
    pub(super) backend: Option<Backend>,
    /// What is counted on.
    #[serde(default)]
    pub(super) history: History,
    /// Descriptors that stay open while it is.
    pub(super) kept: Option<Kept>,
}

/// A seat that is taken.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Sitting {
    /// Which.
    pub(super) seat: Seat,
    /// Number of its queue.
    pub(super) queue: u16,
    /// By whom, if anybody.
    pub(super) process: Option<Started>,
    /// Who is to relieve him, and may have done so by now.
    #[serde(default)]
    pub(super) successor: Option<Started>,
    /// What it is there for; `None` when it was about to come or go.
    pub(super) duty: Option<LastingDuty>,
}

impl Sitting {
    /// Who serves the queue now.
    pub(super) fn serving(&self) -> Option<Started> {
        let mut processes = self.process.into_iter().chain(self.successor);
        processes.find(Started::is_alive)
    }
}

/// Numbers of descriptors in the process `by`, which has become another program since.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Kept {
    /// The process.
    pub(super) by: Started,
    /// For each of [`Record::seats`] the queue's socket and the files of the desk.
    pub(super) seats: Vec<(RawFd, [RawFd; 3])>,
    /// The board.
    pub(super) board: RawFd,
    /// Both ends of the way to the event writer.
    pub(super) events: [RawFd; 2],
    /// Both ends of the way to the supervisor.
    pub(super) feedback: [RawFd; 2],
    /// The rejecter's counters.
    pub(super) tally: RawFd,
    /// The flows that workers died of.
    #[serde(default)]
    pub(super) watchlist: Option<RawFd>,
    /// The rules in force, for when those on disk cannot be used.
    #[serde(default)]
    pub(super) rules: Option<KeptRules>,
    /// What has changed in sets.
    #[serde(default)]
    pub(super) sets: Option<KeptSets>,
}

/// What is known of changes in sets.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct KeptSets {
    /// The journal, see [`crate::desk::journal`].
    pub(super) journal: RawFd,
    /// Both ends of the way that workers report them.
    pub(super) reports: [RawFd; 2],
}

/// What the rules in force were compiled from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct KeptRules<File = RawFd> {
    /// Which rules these are.
    pub(super) generation: u32,
    /// What else they were compiled by.
    #[serde(default)]
    pub(super) settings: KeptSettings,
    /// The files as they were: see [`crate::rules::Sources`].
    pub(super) sources: File,
}

/// The parts of a configuration that rules are compiled by, as JSON: what a program makes of
/// another one's settings does not decide whether it understands the record.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct KeptSettings {
    rules: Value,
    engine: Value,
}

impl KeptSettings {
    /// Those of a configuration.
    ///
    /// # Errors
    /// Never: a configuration goes to the launcher in the same way.
    pub(super) fn of(config: &Config) -> io::Result<Self> {
        Ok(Self {
            rules: serde_json::to_value(&config.rules)?,
            engine: serde_json::to_value(&config.engine)?,
        })
    }

    /// The configuration with these settings.
    ///
    /// # Errors
    /// When they are not understood; then nothing is changed.
    pub(super) fn put_into(self, config: &mut Config) -> io::Result<()> {
        let rules = serde_json::from_value(self.rules)?;
        let mut engine: EngineSettings = serde_json::from_value(self.engine)?;
        // What is open stays open.
        std::mem::swap(&mut engine.outputs, &mut config.engine.outputs);
        (config.rules, config.engine) = (rules, engine);
        Ok(())
    }
}

/// The instance's hold on its run directory.
#[derive(Debug)]
pub(super) struct Instance {
    state: PathBuf,
    /// The record as this process has written it last.
    written: RefCell<Vec<u8>>,
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
        let lock = match lock(file) {
            Ok(lock) => lock,
            Err(nix::Error::EAGAIN) => bail!(
                "instance {name:?} is already running ({} is locked); `sluice status` shows it, \
                 and another instance needs another `name`",
                path.display()
            ),
            Err(error) => {
                return Err(error).with_context(|| format!("locking {}", path.display()));
            }
        };
        Ok(Self {
            state: directory.join(format!("{name}.json")),
            written: RefCell::default(),
            _lock: lock,
        })
    }

    /// Writes the record, if it says anything new.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(super) fn write(&self, record: &Record) -> io::Result<()> {
        let text = serde_json::to_vec(record)?;
        if *self.written.borrow() == text {
            return Ok(());
        }
        // Written beside and renamed: a successor never reads half a record.
        let new = self.state.with_extension("json.new");
        fs::write(&new, &text)?;
        fs::rename(&new, &self.state)?;
        self.written.replace(text);
        Ok(())
    }

    /// The record of a predecessor that has not been stopped cleanly; empty when there is none.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(super) fn read(&self) -> anyhow::Result<Record> {
        let text = match fs::read(&self.state) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Record::default()),
            Err(error) => {
                return Err(error).with_context(|| format!("reading {}", self.state.display()));
            }
        };
        Ok(serde_json::from_slice(&text).unwrap_or_else(|error| {
            log::warn!(
                "{} is not understood, nothing is taken over or ended by it: {error}",
                self.state.display()
            );
            Record::default()
        }))
    }

    /// After a clean stop nothing is left to end.
    pub(super) fn forget(&self) {
        // Already absent is what is wanted.
        let _ = fs::remove_file(&self.state);
    }
}

impl Record {
    /// The workers that there are to be, and what for: as configured, unless a predecessor that
    /// ended uncleanly, or for an upgrade, had others and the configured number is the same.
    pub(super) fn workers(&self, config: &Config) -> Vec<(Seat, LastingDuty)> {
        let count = config.worker_count();
        let serving = |index| (Seat::Worker(index), LastingDuty::Serving);
        let configured: Vec<_> = (0..count).map(serving).collect();
        let lasting = |it: &Sitting| Some((it.seat, it.duty?));
        let workers = self.seats.iter().filter(|it| it.seat != Seat::Backup);
        let mut former: Vec<_> = workers.filter_map(lasting).collect();
        former.sort_by_key(|(seat, _)| *seat);
        let serves = former.iter().any(|(_, duty)| *duty == LastingDuty::Serving);
        if self.configured != count || !serves || former == configured {
            return configured;
        }
        let needed = former.iter().map(|(seat, _)| seat.slot() + 1).max();
        if let Err(error) = check_count(config, needed.unwrap_or(0)) {
            log::warn!("{count} workers as configured, not as before: {error:#}");
            return configured;
        }
        log::info!("{} workers as the former run had", former.len());
        former
    }

    /// Whether any worker of a predecessor serves its queue.
    pub(super) fn is_served(&self) -> bool {
        self.seats.iter().any(|it| it.serving().is_some())
    }

    /// The processes that a predecessor left running: its workers, which go on inspecting.
    pub(super) fn alive(&self) -> Vec<Started> {
        let seats = self.seats.iter();
        let seats = seats.flat_map(|sitting| sitting.process.into_iter().chain(sitting.successor));
        let recorded: Vec<_> = seats.chain(self.launcher).chain(self.rejecter).collect();
        // A supervisor may have died before it could record a process that the launcher had
        // just forked for it. Workers stay in the launcher's process group.
        let unrecorded = self.launcher.iter().filter(|it| !it.is_reused());
        let unrecorded = unrecorded.flat_map(|it| {
            let members = group_members(it.pid, COMMAND_PREFIX);
            members.into_iter().filter_map(Started::of)
        });
        let mut alive: Vec<_> = unrecorded.collect();
        for process in recorded.into_iter().filter(Started::is_alive) {
            if !alive.contains(&process) {
                alive.push(process);
            }
        }
        alive
    }
}

/// Kills processes and waits for their end.
///
/// # Errors
/// When one does not end within 5 s.
pub(super) fn end(processes: &[Started]) -> anyhow::Result<()> {
    for process in processes {
        // It may end by itself in between: then there is nothing left to do.
        let _ = process.signal(Signal::SIGKILL);
    }
    let deadline = Instant::now() + Duration::from_secs(5);
    while processes.iter().any(Started::is_alive) {
        if Instant::now() > deadline {
            bail!("processes of a former run of this instance do not end: {processes:?}");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    for process in processes {
        process.reap();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sitting(processes: &[Started]) -> Record {
        let seat = |process: &Started| Sitting {
            seat: Seat::Worker(0),
            queue: 101,
            process: Some(*process),
            successor: None,
            duty: Some(LastingDuty::Serving),
        };
        Record {
            seats: processes.iter().map(seat).collect(),
            ..Record::default()
        }
    }

    #[test]
    fn an_instance_runs_once_and_a_successor_finds_what_was_left() {
        let directory = tempfile::tempdir().unwrap();
        let first = Instance::claim(directory.path(), "t").unwrap();
        assert!(first.read().unwrap().alive().is_empty());
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
        first.write(&sitting(&[started, other])).unwrap();
        drop(first);
        let second = Instance::claim(directory.path(), "t").unwrap();
        let left = second.read().unwrap();
        assert_eq!(left.seats[0].queue, 101);
        assert_eq!(left.alive(), [started]);
        assert!(left.is_served());
        end(&left.alive()).unwrap();
        assert!(!started.is_alive() && !left.is_served());
        // It has been reaped already.
        child.wait().unwrap_err();
        second.forget();
        assert!(second.read().unwrap().seats.is_empty());
    }

    #[test]
    fn whoever_has_been_relieved_by_now_does_not_serve() {
        let alive = Started::of(std::process::id());
        let serving = |process, successor| {
            let sitting = Sitting {
                process,
                successor,
                ..sitting(&[Started::ended(1)]).seats[0]
            };
            sitting.serving()
        };
        let ended = Some(Started::ended(std::process::id()));
        assert_eq!(serving(alive, ended), alive);
        assert_eq!(serving(ended, alive), alive);
        assert_eq!(serving(ended, ended), None);
        assert_eq!(serving(None, None), None);
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
        let record = Record {
            launcher: Started::of(launcher.id()),
            ..Record::default()
        };
        // The launcher ends with its supervisor, its workers stay.
        launcher.kill().unwrap();
        launcher.wait().unwrap();
        let alive = record.alive();
        assert_eq!(alive, [Started::of(worker.id()).unwrap()]);
        assert!(other.try_wait().unwrap().is_none(), "it is none of ours");
        for child in [&mut worker, &mut other] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    #[test]
    fn a_successor_has_the_workers_of_its_predecessor_unless_it_is_configured_anew() {
        let mut config = Config::default();
        config.workers.count = 2;
        let serving = |indices: std::ops::Range<u32>| -> Vec<_> {
            let seats = indices.map(Seat::Worker);
            seats.map(|seat| (seat, LastingDuty::Serving)).collect()
        };
        let record = |workers: &[(Seat, Option<LastingDuty>)]| {
            let sitting = |(seat, duty): &(Seat, Option<LastingDuty>)| Sitting {
                seat: *seat,
                queue: 0,
                process: None,
                successor: None,
                duty: *duty,
            };
            Record {
                configured: 2,
                seats: workers.iter().map(sitting).collect(),
                ..Record::default()
            }
        };
        assert_eq!(Record::default().workers(&config), serving(0..2));
        let duties = [
            (Seat::Worker(0), Some(LastingDuty::Drained)),
            (Seat::Worker(3), Some(LastingDuty::Serving)),
            (Seat::Worker(4), None),
            (Seat::Backup, Some(LastingDuty::Serving)),
        ];
        let former = record(&duties);
        let expected = [
            (Seat::Worker(0), LastingDuty::Drained),
            (Seat::Worker(3), LastingDuty::Serving),
        ];
        assert_eq!(former.workers(&config), expected);
        config.workers.count = 3;
        assert_eq!(former.workers(&config), serving(0..3));
        config.workers.count = 2;
        // Too many for the mark, or nobody to serve.
        let far = record(&[(Seat::Worker(999), Some(LastingDuty::Serving))]);
        assert_eq!(far.workers(&config), serving(0..2));
        assert_eq!(record(&duties[..1]).workers(&config), serving(0..2));
    }

    /// As it was written before there was a history, and a list of flows to keep.
    const FORM_1: &str = r#"{"launcher":{"pid":12,"start_time":34},"rejecter":null,
        "workers_map":5,"configured":1,"seats":[{"seat":"worker 0","queue":101,
        "process":{"pid":13,"start_time":35},"duty":"serving"}],"retired":{"restarts":1,
        "trips":0,"hangs":0,"queue_dropped":0,"user_dropped":0,"flows_let_go":0,"received":9},
        "upgrades":3,"kept":{"by":{"pid":1,"start_time":2},"seats":[[7,[8,9,10]]],"board":11,
        "events":[12,13],"feedback":[14,15],"tally":16}}"#;

    #[test]
    fn records_of_earlier_and_of_later_programs_are_understood() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("t.json");
        let instance = Instance::claim(directory.path(), "t").unwrap();
        fs::write(&path, FORM_1).unwrap();
        let record = instance.read().unwrap();
        assert_eq!((record.upgrades, record.seats[0].queue), (3, 101));
        assert_eq!(record.history, History::default());
        let kept = record.kept.clone().unwrap();
        assert_eq!((kept.tally, kept.watchlist), (16, None));
        assert!(kept.rules.is_none());
        let later = FORM_1.replacen('{', r#"{"new":1,"history":{"generation":4,"newer":[]},"#, 1);
        fs::write(&path, later).unwrap();
        let later = instance.read().unwrap();
        assert_eq!((later.upgrades, later.history.generation), (3, 4));
    }

    /// As a program of form 2 has kept them.
    const RULES_OF_FORM_2: &str = r#"{"generation":4,"variables":{"HOME_NET":"any"},"sources":9}"#;

    #[test]
    fn settings_that_rules_were_compiled_by_are_put_back_without_what_is_open() {
        let mut former = Config::default();
        former.rules.files.push("former.rules".into());
        former.rules.variables.insert("HERE".into(), "any".into());
        former
            .engine
            .set("action-order", r#"["drop", "pass", "reject", "alert"]"#)
            .unwrap();
        former.engine.set("vars.address-groups.X", "any").unwrap();
        former.engine.set("outputs", "[]").unwrap();
        let kept = serde_json::to_string(&KeptSettings::of(&former).unwrap()).unwrap();
        let kept: KeptSettings = serde_json::from_str(&kept).unwrap();
        let mut config = Config::default();
        config.rules.files.push("later.rules".into());
        config.queue.length = 99;
        let expect = Config {
            rules: former.rules,
            engine: EngineSettings {
                outputs: config.engine.outputs.clone(),
                ..former.engine
            },
            ..config.clone()
        };
        kept.put_into(&mut config).unwrap();
        assert_eq!(config, expect);
        let kept: KeptRules = serde_json::from_str(RULES_OF_FORM_2).unwrap();
        kept.settings.put_into(&mut config).unwrap_err();
        assert_eq!(config, expect);
    }

    #[test]
    fn what_is_recorded_is_read_again_and_written_when_it_says_something_new() {
        let directory = tempfile::tempdir().unwrap();
        let instance = Instance::claim(directory.path(), "t").unwrap();
        let mut past = super::super::history::Past::default();
        past.ended(5, "signal SIGSEGV".into());
        let mut record = Record {
            history: History {
                seats: vec![(Seat::Worker(0), past)],
                ..History::default()
            },
            ..Record::default()
        };
        instance.write(&record).unwrap();
        assert_eq!(instance.read().unwrap().history, record.history);
        let path = directory.path().join("t.json");
        fs::write(&path, "{}").unwrap();
        instance.write(&record).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "{}");
        record.history.generation = 2;
        instance.write(&record).unwrap();
        assert_eq!(instance.read().unwrap().history, record.history);
    }

    #[test]
    fn by_a_damaged_record_nothing_is_taken_over() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("t.json"), "{").unwrap();
        let instance = Instance::claim(directory.path(), "t").unwrap();
        let record = instance.read().unwrap();
        assert!(record.seats.is_empty() && record.launcher.is_none());
    }
}
