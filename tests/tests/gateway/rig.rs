//! `sluice run` in the gateway of a lab, what it says about itself, and its traces.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use sluice::config::Config;
use sluice::control::{self, Request, Response};
use sluice::metrics::board::Cell;
use sluice::metrics::snapshot::{Snapshot, Worker};
use sluice_tests::patience::{wait_for, wait_until};
use sluice_tests::{Lab, LabOptions, Process, await_stopped, queue_state};
use tempfile::TempDir;

pub(crate) use sluice_tests::patience::PATIENCE;

/// Nothing has been queued for this long: a connection's last acknowledgement may be delayed
/// by 40 ms (`TCP_DELACK_MIN`).
const QUIET: Duration = Duration::from_millis(80);
/// A queue that gets so many packets within 60 ms is in use.
const BUSY: u32 = 10;

static NEXT: AtomicU32 = AtomicU32::new(0);
static ALONE: Mutex<()> = Mutex::new(());

/// Held by tests that measure times, so that those of one process do not measure each other.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The program under test, as `cargo xtask test` names it or cargo puts it.
pub(crate) fn program() -> PathBuf {
    let path = std::env::var_os("SLUICE_BIN").map_or_else(
        || {
            let test = std::env::current_exe().expect("the path of this test program");
            let target = test.parent().and_then(Path::parent);
            target.expect("target/debug/deps/test").join("sluice")
        },
        PathBuf::from,
    );
    assert!(
        path.exists(),
        "{} does not exist: `cargo xtask build` builds it",
        path.display()
    );
    path
}

/// Runs `sluice` with these arguments to its end.
pub(crate) fn sluice(arguments: &[&str]) -> Output {
    Command::new(program())
        .args(arguments)
        .output()
        .expect("start sluice")
}

/// A lab with the default options.
pub(crate) fn lab() -> Arc<Lab> {
    static SWEPT: Once = Once::new();
    SWEPT.call_once(sweep);
    Arc::new(Lab::new(&LabOptions::default()).expect("a lab"))
}

/// Removes what test programs left that were killed.
fn sweep() {
    for namespace in sluice_tests::sweep() {
        println!("removed {namespace}, left by tests that were killed");
    }
    let pins = Config::default().steering.pin_directory;
    for entry in fs::read_dir(pins).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix('t'));
        let owner = owner.and_then(|rest| rest.split_once('-'));
        let owner = owner.and_then(|(pid, _)| pid.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// How an instance is to be run.
pub(crate) struct Setup {
    /// Two workers and both interfaces of the gateway, unless changed.
    pub(crate) config: Config,
    /// The rule file's text.
    pub(crate) rules: String,
    /// Where it looks for programs, when not where this test does.
    pub(crate) path: Option<OsString>,
    /// No other gateway runs beside it, in whichever process: it, or what is done to it, takes all
    /// the CPUs.
    pub(crate) whole_machine: bool,
}

/// An instance in the gateway of a lab. Dropping it ends it and removes what it left.
pub(crate) struct Gateway {
    pub(crate) lab: Arc<Lab>,
    pub(crate) config: Config,
    pub(crate) directory: TempDir,
    path: Option<OsString>,
    sluice: Option<Process>,
    /// Until the rest is gone.
    _machine: Flock<File>,
}

/// A part of this machine, or all of it. The lock is one on this program, which all processes have
/// that run its tests.
fn machine(whole: bool) -> Flock<File> {
    let program = std::env::current_exe().expect("the path of this program");
    let file = File::open(program).expect("this program");
    let how = match whole {
        true => FlockArg::LockExclusive,
        false => FlockArg::LockShared,
    };
    Flock::lock(file, how).expect("a lock")
}

impl Gateway {
    /// An instance in a lab of its own, serving.
    pub(crate) fn start(adjust: impl FnOnce(&mut Setup)) -> Self {
        let mut gateway = Self::prepare(&lab(), adjust);
        gateway.launch();
        gateway
    }

    /// An instance in a lab, not yet started.
    pub(crate) fn prepare(lab: &Arc<Lab>, adjust: impl FnOnce(&mut Setup)) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("sluice-test-")
            .tempdir()
            .expect("a directory");
        let mut setup = Setup {
            config: Config::default(),
            rules: String::new(),
            path: None,
            whole_machine: false,
        };
        let config = &mut setup.config;
        config.name = format!(
            "t{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        config.interfaces = [Lab::GATEWAY_CLIENT_INTERFACE, Lab::GATEWAY_SERVER_INTERFACE]
            .map(str::to_owned)
            .to_vec();
        config.workers.count = 2;
        config.log.directory = directory.path().join("log");
        config.control.directory = directory.path().join("run");
        config.rules.data_directory = directory.path().join("data");
        let rules = directory.path().join("test.rules");
        config.rules.files = vec![rules.clone()];
        // Off costs least; those that are about XDP say so.
        config.steering.xdp = sluice::loader::XdpPolicy::Off;
        // A busy machine shall not look like a hanging worker to those that are not about that.
        config.steering.stale_ms = 3000;
        config.overload.latency_ms = 5000;
        adjust(&mut setup);
        fs::write(&rules, &setup.rules).expect("write the rules");
        let gateway = Self {
            lab: Arc::clone(lab),
            config: setup.config,
            directory,
            path: setup.path,
            sluice: None,
            _machine: machine(setup.whole_machine),
        };
        gateway.write_config();
        gateway
    }

    /// Writes the configuration file anew.
    pub(crate) fn write_config(&self) {
        let text = toml::to_string(&self.config).expect("a configuration is TOML");
        fs::write(self.config_file(), text).expect("write the configuration");
    }

    pub(crate) fn config_file(&self) -> PathBuf {
        self.directory.path().join("sluice.toml")
    }

    /// Starts the program and does not wait.
    pub(crate) fn spawn(&mut self) {
        self.spawn_with(&[]);
    }

    /// The same with more arguments.
    pub(crate) fn spawn_with(&mut self, arguments: &[&str]) {
        let mut command = self.lab.gateway().command(program());
        command.args(["run", "-c"]).arg(self.config_file());
        command.args(arguments);
        if let Some(path) = &self.path {
            command.env("PATH", path);
        }
        self.sluice = Some(Process::spawn(&mut command).expect("start sluice"));
    }

    /// Starts the program and waits until every seat is served.
    pub(crate) fn launch(&mut self) {
        self.spawn();
        self.await_ready();
    }

    pub(crate) fn await_ready(&mut self) {
        let ready = || {
            let ready = self.try_status().is_some_and(|status| all_up(&status));
            let running = self.sluice.as_mut().is_some_and(Process::is_running);
            assert!(ready || running, "sluice has ended:\n{}", self.log());
            ready
        };
        wait_until(ready, || "not ready".to_owned());
    }

    /// The supervisor's process.
    pub(crate) fn process(&mut self) -> &mut Process {
        self.sluice.as_mut().expect("sluice has been started")
    }

    /// What the program has printed.
    pub(crate) fn log(&self) -> String {
        self.sluice.as_ref().map_or_else(String::new, Process::log)
    }

    /// What it says about itself, when it answers.
    pub(crate) fn try_status(&self) -> Option<Snapshot> {
        match control::ask(&self.config.control_socket(), &Request::Status {}) {
            Ok(Response::Ok(value)) => Some(serde_json::from_value(value).expect("a snapshot")),
            _ => None,
        }
    }

    pub(crate) fn status(&self) -> Snapshot {
        self.try_status()
            .unwrap_or_else(|| panic!("no status; the log:\n{}", self.log()))
    }

    /// Waits until the status is as `wanted`.
    pub(crate) fn await_status(&self, what: &str, wanted: impl Fn(&Snapshot) -> bool) -> Snapshot {
        let look = || Some(self.status()).filter(&wanted);
        wait_for(look, || {
            format!("never {what}: {}\n{}", self.status(), self.log())
        })
    }

    /// Waits until nothing is waiting and every packet received has had one verdict.
    pub(crate) fn await_settled(&self) -> Snapshot {
        self.await_status("every packet with its verdict", |status| {
            status.seats().all(|seat| {
                let done: u64 = Cell::ENDS.iter().map(|cell| seat.cell(*cell)).sum();
                seat.kernel.waiting == 0 && seat.cell(Cell::Received) == done
            })
        })
    }

    /// The kernel's number of packets put into each queue so far.
    pub(crate) fn queued(&self) -> BTreeMap<u16, u32> {
        queue_state::read(self.lab.gateway())
            .expect("the kernel's queues")
            .iter()
            .map(|state| (state.queue, state.last_id))
            .collect()
    }

    /// How many packets `traffic` put into each queue; those with none are left out.
    pub(crate) fn through(&self, traffic: impl FnOnce()) -> BTreeMap<u16, u32> {
        let before = self.queued();
        traffic();
        self.queued()
            .into_iter()
            .map(|(queue, last)| (queue, last.wrapping_sub(before[&queue])))
            .filter(|(_, packets)| *packets > 0)
            .collect()
    }

    /// Waits until no packet has been queued for a while.
    pub(crate) fn await_quiet(&self) {
        let deadline = Instant::now() + Duration::from_secs(3);
        let mut last = self.queued();
        let mut since = Instant::now();
        while since.elapsed() < QUIET && Instant::now() < deadline {
            sleep(Duration::from_millis(10));
            let now = self.queued();
            if now != last {
                last = now;
                since = Instant::now();
            }
        }
    }

    /// The seat whose queue gets the most packets now, once somebody sits there.
    pub(crate) fn busiest(&self) -> Worker {
        let look = || {
            let through = self.through(|| sleep(Duration::from_millis(60)));
            let most = through.iter().max_by_key(|(_, packets)| **packets);
            let (queue, _) = most.filter(|(_, packets)| **packets >= BUSY)?;
            let status = self.status();
            let mut seats = status.seats();
            let seat = seats.find(|seat| seat.queue == *queue && seat.pid != 0);
            seat.cloned()
        };
        wait_for(look, || format!("no queue is in use:\n{}", self.log()))
    }

    /// The events written so far.
    pub(crate) fn events(&self) -> Vec<Value> {
        let path = self.config.event_log().expect("the event log is a file");
        let text = fs::read_to_string(path).unwrap_or_default();
        // A line without its end is still being written.
        text.split_inclusive('\n')
            .filter(|line| line.ends_with('\n'))
            .map(|line| serde_json::from_str(line).expect("each line is JSON"))
            .collect()
    }

    /// Waits for an event; panics when it does not come.
    pub(crate) fn await_event(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let look = || self.events().into_iter().find(&wanted);
        wait_for(look, || {
            format!("no event: {what}; there are {:#?}", self.events())
        })
    }

    /// Waits until the program has printed this.
    pub(crate) fn await_log(&self, text: &str) {
        wait_until(
            || self.log().contains(text),
            || format!("{text:?} is not in: {}", self.log()),
        );
    }

    /// A clean stop.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        self.process()
            .stop(Signal::SIGTERM, PATIENCE)
            .expect("sluice ends")
    }

    /// Kills the supervisor; the others stay. (Their hold on its standard output is why this
    /// does not wait for the end of the log.)
    pub(crate) fn kill_supervisor(&mut self) {
        let process = self.process();
        process.signal(Signal::SIGKILL).expect("it runs");
        while process.is_running() {
            sleep(Duration::from_millis(1));
        }
    }

    /// The directory of its pins.
    pub(crate) fn pins(&self) -> PathBuf {
        self.config.steering.pin_directory.join(&self.config.name)
    }

    /// What an instance that is not running has left, one line for each thing.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let gateway = self.lab.gateway();
        let mut left = Vec::new();
        left.extend(
            processes(&self.lab)
                .iter()
                .map(|it| format!("process {it}")),
        );
        left.extend(self.pins().exists().then(|| "pins".to_owned()));
        let socket = self.config.control_socket();
        left.extend(socket.exists().then(|| "control socket".to_owned()));
        let queues = queue_state::read(gateway).expect("the kernel's queues");
        left.extend(queues.iter().map(|it| format!("queue {}", it.queue)));
        let ruleset = ruleset(&self.lab);
        let ours =
            |line: &&str| line.contains(&self.config.name) || line.to_lowercase().contains("queue");
        left.extend(ruleset.lines().filter(ours).map(str::to_owned));
        for interface in [Lab::GATEWAY_CLIENT_INTERFACE, Lab::GATEWAY_SERVER_INTERFACE] {
            let shown = gateway.run("ip", &["-d", "link", "show", "dev", interface]);
            if shown.expect("ip").contains("xdp") {
                left.push(format!("XDP program on {interface}"));
            }
        }
        left
    }

    /// Fails unless one that has ended has left nothing; a process that has been killed may need
    /// a moment to be gone.
    pub(crate) fn nothing_left(&self) {
        wait_until(
            || self.leftovers().is_empty(),
            || format!("{:#?} is left\n{}", self.leftovers(), self.log()),
        );
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the log of {}:\n{}", self.config.name, self.log());
        }
        if let Some(sluice) = &mut self.sluice
            && sluice.is_running()
        {
            // If that fails it is killed, and its workers go with the lab's namespaces.
            let _ = sluice.stop(Signal::SIGTERM, Duration::from_secs(8));
        }
        let _ = fs::remove_dir_all(self.pins());
    }
}

/// Everything in the gateway that netfilter has been told.
pub(crate) fn ruleset(lab: &Lab) -> String {
    let list = |program, arguments| lab.gateway().run(program, arguments).expect(program);
    [
        list("nft", &["-s", "list", "ruleset"]),
        list("iptables", &["-w", "-S"]),
        list("ip6tables", &["-w", "-S"]),
    ]
    .concat()
}

/// Processes in the gateway's namespace.
pub(crate) fn processes(lab: &Lab) -> Vec<u32> {
    // Not from inside: it would find itself.
    let mut list = Command::new("ip");
    list.args(["netns", "pids", lab.gateway().name()]);
    let output = list.output().expect("start ip");
    assert!(output.status.success(), "{output:?}");
    let pids = String::from_utf8_lossy(&output.stdout);
    let pids = pids.split_whitespace().map(str::parse);
    pids.collect::<Result<_, _>>().expect("numbers")
}

/// The processes in the gateway's namespace once there are so many; those that look after the
/// firewall's rules come and go.
pub(crate) fn await_processes(gateway: &Gateway, count: usize) -> Vec<u32> {
    let look = || Some(processes(&gateway.lab)).filter(|running| running.len() == count);
    wait_for(look, || {
        let running = processes(&gateway.lab);
        format!("{running:?}, not {count}: {}", gateway.log())
    })
}

/// Fails unless each seat has received every packet that the kernel has given an id, but those
/// that the socket's buffer had no room for. Of queues that were bound once and are at rest.
pub(crate) fn every_id_received(status: &Snapshot) {
    for seat in status.seats() {
        let seen = seat.cell(Cell::Received) + seat.cell(Cell::Overruns);
        assert_eq!(seen as u32, seat.kernel.last_id, "{}: {status}", seat.seat);
    }
}

/// Whether every seat is served.
pub(crate) fn all_up(status: &Snapshot) -> bool {
    status
        .seats()
        .all(|seat| seat.state == "up" && seat.pid != 0)
}

/// The seat at the same place in another snapshot.
pub(crate) fn seat<'a>(status: &'a Snapshot, like: &Worker) -> &'a Worker {
    let mut seats = status.seats();
    let found = seats.find(|seat| seat.seat == like.seat);
    found.expect("seats do not go away")
}

/// Sends a signal to the process of a seat. Once stopped it does nothing any more.
pub(crate) fn signal(seat: &Worker, signal: Signal) {
    assert_ne!(seat.pid, 0, "the seat is vacant");
    let pid = i32::try_from(seat.pid).expect("a process id");
    kill(Pid::from_raw(pid), signal).expect("signal a worker");
    if signal == Signal::SIGSTOP {
        await_stopped(seat.pid);
    }
}
