//! The stage: three namespaces, the real `sluice` in the middle one, and its traces. The
//! demonstration plays on it, the fault campaign, and the benchmarks of the whole program.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use sluice_tests::queue_state;
use sluice_tests::{Lab, LabOptions, Process};

pub(crate) mod command;
pub(crate) mod interrupt;
mod leftovers;
pub(crate) mod processes;
pub(crate) mod report;
pub(crate) mod status;

use self::interrupt::Interrupt;
use self::status::Status;
use crate::workspace::clean_library_path;

/// A connection's last acknowledgement may be delayed by 40 ms (`TCP_DELACK_MIN`).
const QUIET: Duration = Duration::from_millis(60);
/// Begins the names of everything outside the namespaces; the process id follows.
const PREFIX: &str = "sluice-stage-";
/// Sluice's own log, written into the directory when something failed.
const LOG: &str = "sluice.log";
/// Where Sluice's programs and maps are pinned.
const BPF_FILESYSTEM: &str = "/sys/fs/bpf";
/// How long its control socket may take to answer.
const ANSWER: Duration = Duration::from_secs(2);
/// How long Sluice may take to start, and to stop, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// How Sluice is to run.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Name of the instance.
    pub(crate) name: &'static str,
    /// The rule file.
    pub(crate) rules: String,
    /// Lines of the configuration beside the paths, each a dotted key: `workers.count = 2`.
    pub(crate) keys: String,
}

/// Everything that runs. Dropping it removes it all.
pub(crate) struct Stage {
    /// The namespaces.
    pub(crate) lab: Lab,
    /// Signals.
    pub(crate) interrupt: Interrupt,
    sluice: Process,
    /// Supervisors that were killed: kept for what they printed.
    former: Vec<Process>,
    settings: Settings,
    program: PathBuf,
    directory: PathBuf,
    pins: PathBuf,
}

impl Stage {
    /// Builds the namespaces, starts Sluice in the gateway, waits until it works.
    pub(crate) fn set(program: &Path, interrupt: Interrupt, settings: Settings) -> Result<Self> {
        sweep();
        let name = format!("{PREFIX}{}", std::process::id());
        let directory = std::env::temp_dir().join(&name);
        let pins = Path::new(BPF_FILESYSTEM).join(&name);
        for directory in [&directory, &pins] {
            fs::create_dir_all(directory)
                .with_context(|| format!("cannot create {}", directory.display()))?;
        }
        let lab = Lab::new(&LabOptions::default())?;
        fs::write(rules_file(&directory), &settings.rules)?;
        fs::write(
            configuration_file(&directory),
            configuration(&settings, &directory, &pins),
        )?;
        interrupt.check()?;
        let sluice = start(&lab, program, &directory)?;
        let mut stage = Self {
            lab,
            interrupt,
            sluice,
            former: Vec::new(),
            settings,
            program: program.to_path_buf(),
            directory,
            pins,
        };
        stage.await_start()?;
        Ok(stage)
    }

    fn await_start(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.interrupt.pause(Duration::from_millis(50))?;
            match self.status() {
                Ok(status) if status.all_up() => return Ok(()),
                _ if !self.sluice.is_running() => {
                    bail!("sluice has ended:\n{}", self.sluice.log());
                }
                result if Instant::now() >= deadline => {
                    let state = match result {
                        Ok(status) => format!("{:?}", status.workers),
                        Err(error) => format!("{error:#}"),
                    };
                    bail!(
                        "sluice does not become ready: {state}\n{}",
                        self.sluice.log()
                    );
                }
                _ => {}
            }
        }
    }

    /// What Sluice says about itself.
    pub(crate) fn status(&self) -> Result<Status> {
        let output = self
            .command("status")
            .arg("--json")
            .output()
            .context("cannot start sluice status")?;
        if !output.status.success() {
            bail!(
                "sluice status: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        serde_json::from_slice(&output.stdout).context("sluice status --json")
    }

    /// The same without starting a program for it, which costs the machine less.
    pub(crate) fn glance(&self) -> Result<Status> {
        #[derive(serde::Deserialize)]
        struct Answer {
            ok: Status,
        }
        let path = self.control_socket();
        let ask = || -> std::io::Result<String> {
            let mut stream = UnixStream::connect(&path)?;
            stream.set_read_timeout(Some(ANSWER))?;
            stream.set_write_timeout(Some(ANSWER))?;
            stream.write_all(b"{\"command\":\"status\"}\n")?;
            let mut answer = String::new();
            BufReader::new(stream).read_line(&mut answer)?;
            Ok(answer)
        };
        let answer = ask().with_context(|| path.display().to_string())?;
        let Answer { ok } = serde_json::from_str(&answer)
            .with_context(|| format!("the control socket said {answer:?}"))?;
        Ok(ok)
    }

    /// Waits until `wanted` says yes to the status.
    pub(crate) fn await_status(
        &self,
        timeout: Duration,
        wanted: impl Fn(&Status) -> bool,
    ) -> Result<Option<Status>> {
        let deadline = Instant::now() + timeout;
        loop {
            let status = self.status()?;
            if wanted(&status) {
                return Ok(Some(status));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            self.interrupt.pause(Duration::from_millis(20))?;
        }
    }

    /// Waits until every worker and the backup is up.
    pub(crate) fn await_all_up(&self) -> Result<Status> {
        self.await_status(Duration::from_secs(10), Status::all_up)?
            .context("not every worker is up")
    }

    /// The kernel's count of packets put into each queue so far, by queue number.
    pub(crate) fn queued(&self) -> Result<Vec<(u16, u32)>> {
        let states = queue_state::read(self.lab.gateway())?;
        Ok(states
            .iter()
            .map(|state| (state.queue, state.last_id))
            .collect())
    }

    /// Waits until nothing has been queued for a while.
    pub(crate) fn await_quiet(&self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(2);
        let mut last = self.queued()?;
        let mut since = Instant::now();
        while since.elapsed() < QUIET && Instant::now() < deadline {
            self.interrupt.pause(Duration::from_millis(5))?;
            let now = self.queued()?;
            if now != last {
                last = now;
                since = Instant::now();
            }
        }
        Ok(())
    }

    /// An error when Sluice has ended by itself.
    pub(crate) fn ensure_running(&mut self) -> Result<()> {
        if !self.sluice.is_running() {
            bail!("sluice has ended by itself:\n{}", self.sluice.log());
        }
        Ok(())
    }

    /// The program, without arguments.
    pub(crate) fn program(&self) -> Command {
        let mut command = Command::new(&self.program);
        clean_library_path(&mut command);
        command
    }

    /// A command of `sluice` about this instance: `sluice SUBCOMMAND -c FILE`.
    pub(crate) fn command(&self, subcommand: &str) -> Command {
        let mut command = self.program();
        command
            .args([subcommand, "-c"])
            .arg(configuration_file(&self.directory));
        command
    }

    /// A command of `sluice` that itself looks at the gateway: `sluice SUBCOMMAND… -c FILE`.
    pub(crate) fn command_inside(&self, subcommand: &[&str]) -> Command {
        let mut command = self.lab.gateway().command(&self.program);
        clean_library_path(&mut command);
        command
            .args(subcommand)
            .arg("-c")
            .arg(configuration_file(&self.directory));
        command
    }

    /// Process of the supervisor.
    pub(crate) fn supervisor(&self) -> u32 {
        self.sluice.id()
    }

    /// Whether the supervisor runs.
    pub(crate) fn is_running(&mut self) -> bool {
        self.sluice.is_running()
    }

    /// Kills the supervisor with SIGKILL; the others stay.
    pub(crate) fn kill_supervisor(&mut self) -> Result<()> {
        self.sluice.signal(Signal::SIGKILL)?;
        // Not `wait`: the others hold its standard output, and with it the end of the log.
        while self.sluice.is_running() {
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Starts another supervisor after the former one has ended, and does not wait for it.
    pub(crate) fn start_again(&mut self) -> Result<()> {
        let next = start(&self.lab, &self.program, &self.directory)?;
        self.former.push(std::mem::replace(&mut self.sluice, next));
        Ok(())
    }

    /// Everything that Sluice printed so far, under all its supervisors.
    pub(crate) fn log(&self) -> String {
        let logs: Vec<String> = self
            .former
            .iter()
            .chain([&self.sluice])
            .map(Process::log)
            .collect();
        logs.join("\n")
    }

    /// Its event log.
    pub(crate) fn event_log(&self) -> PathBuf {
        self.directory.join("eve.json")
    }

    /// Its rule file.
    pub(crate) fn rules(&self) -> PathBuf {
        rules_file(&self.directory)
    }

    /// Its control socket.
    pub(crate) fn control_socket(&self) -> PathBuf {
        let socket = format!("{}.sock", self.settings.name);
        self.directory.join("run").join(socket)
    }

    /// Stops Sluice in order; what it leaves behind is returned, one line for each thing.
    pub(crate) fn stop(&mut self) -> Result<(Duration, Vec<String>)> {
        let began = Instant::now();
        let status = self.sluice.stop(Signal::SIGTERM, PATIENCE)?;
        let took = began.elapsed();
        let mut left = self.left_behind()?;
        if !status.success() {
            left.insert(0, format!("exit status {status}"));
        }
        Ok((took, left))
    }

    /// What an instance that does not run has left, one line for each thing.
    pub(crate) fn left_behind(&self) -> Result<Vec<String>> {
        leftovers::find(&self.lab, self.settings.name, &self.directory, &self.pins)
    }

    /// Keeps what helps to find out why something failed.
    pub(crate) fn keep_log(&self) -> Result<PathBuf> {
        let path = self.directory.join(LOG);
        fs::write(&path, self.log() + "\n")
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(self.directory.clone())
    }

    /// Removes the directory as well: nothing needs to be looked at.
    pub(crate) fn discard_directory(&self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // In order if it still can; the lab then kills what is left in its namespaces.
        if self.sluice.is_running() {
            let _ = self.sluice.stop(Signal::SIGTERM, Duration::from_secs(5));
        }
        let _ = fs::remove_dir_all(&self.pins);
    }
}

/// Removes what earlier runs left that were killed before they could clean up.
fn sweep() {
    for namespace in sluice_tests::sweep() {
        println!("         removed {namespace}, left by an earlier run that was killed");
    }
    for name in entries(Path::new(BPF_FILESYSTEM)).filter(|name| is_orphan(name)) {
        let _ = fs::remove_dir_all(Path::new(BPF_FILESYSTEM).join(name));
    }
    let temporary = std::env::temp_dir();
    for name in entries(&temporary).filter(|name| is_orphan(name)) {
        // With a log it was kept for somebody to look at.
        let directory = temporary.join(name);
        if !directory.join(LOG).exists() {
            let _ = fs::remove_dir_all(directory);
        }
    }
}

/// Whether a name is a stage's whose process is gone.
fn is_orphan(name: &str) -> bool {
    name.strip_prefix(PREFIX)
        .and_then(|pid| pid.parse::<u32>().ok())
        .is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
}

/// Names in a directory; none when it does not exist.
fn entries(directory: &Path) -> impl Iterator<Item = String> + use<> {
    fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
}

fn start(lab: &Lab, program: &Path, directory: &Path) -> Result<Process> {
    let mut command = lab.gateway().command(program);
    clean_library_path(&mut command);
    command
        .args(["run", "-c"])
        .arg(configuration_file(directory))
        // Ctrl-C goes to the whole foreground group; Sluice is stopped by us, in order.
        .process_group(0);
    Process::spawn(&mut command)
}

fn rules_file(directory: &Path) -> PathBuf {
    directory.join("stage.rules")
}

fn configuration_file(directory: &Path) -> PathBuf {
    directory.join("sluice.toml")
}

fn configuration(settings: &Settings, directory: &Path, pins: &Path) -> String {
    let Settings { name, keys, .. } = settings;
    let rules = rules_file(directory);
    let (rules, directory, pins) = (rules.display(), directory.display(), pins.display());
    format!(
        "name = \"{name}\"\n\
         interfaces = [\"{}\", \"{}\"]\n\
         steering.pin_directory = \"{pins}\"\n\
         rules.files = [\"{rules}\"]\n\
         log.directory = \"{directory}\"\n\
         control.directory = \"{directory}/run\"\n\
         {keys}",
        Lab::GATEWAY_CLIENT_INTERFACE,
        Lab::GATEWAY_SERVER_INTERFACE,
    )
}
