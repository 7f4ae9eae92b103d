//! The stage: three namespaces, the real `sluice` in the middle one, and its traces.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use sluice_tests::queue_state;
use sluice_tests::{Lab, LabOptions, Process};

use super::events::Events;
use super::interrupt::Interrupt;
use super::rules;
use super::status::Status;
use crate::workspace::clean_library_path;

/// A worker whose heartbeat is older than this is bypassed; the default of Sluice.
pub(super) const STALE: Duration = Duration::from_millis(200);
/// Workers besides the backup.
pub(super) const WORKERS: usize = 2;
/// A connection's last acknowledgement may be delayed by 40 ms (`TCP_DELACK_MIN`).
const QUIET: Duration = Duration::from_millis(60);
/// Begins the names of everything outside the namespaces; the process id follows.
const PREFIX: &str = "sluice-demo-";
/// Sluice's own log, written into the directory when something failed.
const LOG: &str = "sluice.log";
/// Where Sluice's programs and maps are pinned.
const BPF_FILESYSTEM: &str = "/sys/fs/bpf";
/// How long Sluice may take to start, and to stop.
const PATIENCE: Duration = Duration::from_secs(20);

/// Everything that runs. Dropping it removes it all.
pub(super) struct Stage {
    /// The namespaces.
    pub(super) lab: Lab,
    /// What Sluice writes into its event log.
    pub(super) events: Events,
    /// Signals.
    pub(super) interrupt: Interrupt,
    sluice: Process,
    program: PathBuf,
    directory: PathBuf,
    pins: PathBuf,
}

impl Stage {
    /// Builds the namespaces, starts Sluice in the gateway, waits until it works.
    pub(super) fn set(program: &Path, interrupt: Interrupt) -> Result<Self> {
        sweep();
        let name = format!("{PREFIX}{}", std::process::id());
        let directory = std::env::temp_dir().join(&name);
        let pins = Path::new(BPF_FILESYSTEM).join(&name);
        for directory in [&directory, &pins] {
            fs::create_dir_all(directory)
                .with_context(|| format!("cannot create {}", directory.display()))?;
        }
        let lab = Lab::new(&LabOptions::default())?;
        fs::write(directory.join("demo.rules"), rules::text())?;
        fs::write(
            directory.join("demo.toml"),
            configuration(&directory, &pins),
        )?;
        interrupt.check()?;
        let mut command = lab.gateway().command(program);
        clean_library_path(&mut command);
        command
            .arg("run")
            .arg("-c")
            .arg(directory.join("demo.toml"))
            // Ctrl-C goes to the whole foreground group; Sluice is stopped by us, in order.
            .process_group(0);
        let sluice = Process::spawn(&mut command)?;
        let mut stage = Self {
            events: Events::follow(&directory.join("eve.json")),
            lab,
            interrupt,
            sluice,
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
    pub(super) fn status(&self) -> Result<Status> {
        let mut command = Command::new(&self.program);
        clean_library_path(&mut command);
        let output = command
            .args(["status", "--json", "-c"])
            .arg(self.directory.join("demo.toml"))
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

    /// Waits until `wanted` says yes to the status.
    pub(super) fn await_status(
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
    pub(super) fn await_all_up(&self) -> Result<Status> {
        self.await_status(Duration::from_secs(10), Status::all_up)?
            .context("not every worker is up")
    }

    /// The kernel's count of packets put into each queue so far, by queue number.
    pub(super) fn queued(&self) -> Result<Vec<(u16, u32)>> {
        let states = queue_state::read(self.lab.gateway())?;
        Ok(states
            .iter()
            .map(|state| (state.queue, state.last_id))
            .collect())
    }

    /// Waits until nothing has been queued for a while.
    pub(super) fn await_quiet(&self) -> Result<()> {
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
    pub(super) fn ensure_running(&mut self) -> Result<()> {
        if !self.sluice.is_running() {
            bail!("sluice has ended by itself:\n{}", self.sluice.log());
        }
        Ok(())
    }

    /// Stops Sluice in order; what it leaves behind is returned, one line for each thing.
    pub(super) fn stop(&mut self) -> Result<(Duration, Vec<String>)> {
        let began = Instant::now();
        let status = self.sluice.stop(Signal::SIGTERM, PATIENCE)?;
        let took = began.elapsed();
        let mut left = Vec::new();
        if !status.success() {
            left.push(format!("exit status {status}"));
        }
        // From outside: inside it would find itself.
        let pids = Command::new("ip")
            .args(["netns", "pids", self.lab.gateway().name()])
            .output()
            .context("ip netns pids")?;
        let pids = String::from_utf8_lossy(&pids.stdout).into_owned();
        left.extend(pids.split_whitespace().map(|pid| format!("process {pid}")));
        left.extend(entries(&self.pins).map(|pin| format!("pin {pin}")));
        left.extend(
            entries(&self.directory.join("run"))
                .filter(|name| name.ends_with(".sock") || name.ends_with(".socket"))
                .map(|name| format!("socket {name}")),
        );
        for (program, arguments) in [
            ("nft", &["list", "ruleset"][..]),
            ("iptables", &["-w", "-S"][..]),
            ("ip6tables", &["-w", "-S"][..]),
        ] {
            let rules = self
                .lab
                .gateway()
                .run(program, arguments)
                .unwrap_or_default();
            left.extend(
                rules
                    .lines()
                    .filter(|line| {
                        let line = line.to_lowercase();
                        line.contains("sluice") || line.contains("queue") || line.contains("demo")
                    })
                    .map(|line| format!("{program}: {}", line.trim())),
            );
        }
        let queues = queue_state::read(self.lab.gateway())?;
        left.extend(queues.iter().map(|queue| format!("queue {}", queue.queue)));
        for interface in [Lab::GATEWAY_CLIENT_INTERFACE, Lab::GATEWAY_SERVER_INTERFACE] {
            let shown = self
                .lab
                .gateway()
                .run("ip", &["-details", "link", "show", "dev", interface])?;
            if shown.contains("xdp") {
                left.push(format!("XDP program on {interface}"));
            }
        }
        Ok((took, left))
    }

    /// Keeps what helps to find out why something failed.
    pub(super) fn keep_log(&self) -> Result<PathBuf> {
        let path = self.directory.join(LOG);
        fs::write(&path, self.sluice.log() + "\n")
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(self.directory.clone())
    }

    /// Removes the directory as well: nothing needs to be looked at.
    pub(super) fn discard_directory(&self) {
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

/// Removes what earlier demonstrations left that were killed before they could clean up.
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

/// Whether a name is a demonstration's whose process is gone.
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

fn configuration(directory: &Path, pins: &Path) -> String {
    let directory = directory.display();
    format!(
        r#"# Written by the demonstration.
name = "demo"
interfaces = ["{}", "{}"]
fail = "open"

[workers]
count = {WORKERS}

[steering]
stale_ms = {}
xdp = "native"
pin_directory = "{}"

[rules]
files = ["{directory}/demo.rules"]

[log]
directory = "{directory}"
stats_seconds = 5

[control]
directory = "{directory}/run"
"#,
        Lab::GATEWAY_CLIENT_INTERFACE,
        Lab::GATEWAY_SERVER_INTERFACE,
        STALE.as_millis(),
        pins.display(),
    )
}
