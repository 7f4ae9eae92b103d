//! A network namespace by name, and ways to run things inside it.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{SigHandler, Signal, signal};

/// A named network namespace; removed by its [`crate::Lab`], or by [`Namespace::remove`].
///
/// Clones refer to the same namespace.
#[derive(Clone, Debug)]
pub struct Namespace {
    name: String,
    handle: Arc<File>,
}

impl Namespace {
    /// Makes a namespace with its loopback interface up.
    ///
    /// # Errors
    /// When `ip netns add` fails (not root, name taken).
    pub fn create(name: &str) -> Result<Self> {
        run(Command::new("ip").args(["netns", "add", name]))?;
        let namespace = Self::open(name)?;
        namespace.run("ip", &["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// Opens an existing one.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn open(name: &str) -> Result<Self> {
        let path = path_of(name);
        let handle = File::open(&path).with_context(|| format!("open {}", path.display()))?;
        Ok(Self {
            name: name.to_owned(),
            handle: Arc::new(handle),
        })
    }

    /// Its name, as `ip netns` shows it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for it (`/run/netns/NAME`), for programs that take one.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        path_of(&self.name)
    }

    /// A command that will run inside. Unlike `ip netns exec`, `/sys` stays as it is, so
    /// that `/sys/fs/bpf` remains visible.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        let handle = Arc::clone(&self.handle);
        let join = move || {
            // A shell has what it starts in the background ignore it, and that is inherited.
            // SAFETY: the default action runs no code of this program.
            unsafe { signal(Signal::SIGINT, SigHandler::SigDfl) }.map_err(io::Error::from)?;
            setns(&*handle, CloneFlags::CLONE_NEWNET).map_err(io::Error::from)
        };
        // SAFETY: between fork and exec only signal(2) and setns(2) are called, which are
        // async-signal-safe and allocate nothing; the error conversion does not allocate either.
        unsafe { command.pre_exec(join) };
        command
    }

    /// Runs a program inside to its end and returns its standard output.
    ///
    /// # Errors
    /// When it cannot be started or fails; the error holds its standard error.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        run(self.command(program).args(arguments))
            .with_context(|| format!("in namespace {}", self.name))
    }

    /// Runs a closure on a fresh thread inside and returns its value; sockets it makes belong
    /// to the namespace wherever they go later.
    ///
    /// # Panics
    /// When the closure panics, or the namespace cannot be entered.
    pub fn enter<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.join();
                body()
            });
            match thread.join() {
                Ok(value) => value,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Starts a thread inside that goes on by itself.
    ///
    /// # Panics
    /// When no thread can be started; the thread panics when it cannot enter the namespace.
    pub fn spawn<T: Send + 'static>(
        &self,
        name: &str,
        body: impl FnOnce() -> T + Send + 'static,
    ) -> thread::JoinHandle<T> {
        let namespace = self.clone();
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                namespace.join();
                body()
            })
            .expect("start a thread")
    }

    /// Sets a sysctl of the namespace, for example `net/ipv4/ip_forward`.
    ///
    /// # Errors
    /// When it does not exist or does not take the value.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        self.enter(|| std::fs::write(format!("/proc/sys/{key}"), value))
            .with_context(|| format!("sysctl {key} = {value} in {}", self.name))
    }

    /// Reads a file below the namespace's `/proc/net`, for example `snmp`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn proc_net(&self, file: &str) -> io::Result<String> {
        // /proc/net follows the thread group leader, not the thread.
        self.enter(|| std::fs::read_to_string(format!("/proc/thread-self/net/{file}")))
    }

    /// A counter of an interface, for example `rx_packets`.
    ///
    /// # Errors
    /// When the interface or the counter does not exist.
    pub fn interface_counter(&self, interface: &str, counter: &str) -> Result<u64> {
        let shown = self.run(
            "ip",
            &["-json", "-s", "-s", "link", "show", "dev", interface],
        )?;
        let shown: serde_json::Value = serde_json::from_str(&shown)?;
        let (direction, field) = counter
            .split_once('_')
            .context("a counter is rx_… or tx_…")?;
        shown
            .pointer(&format!("/0/stats64/{direction}/{field}"))
            .and_then(serde_json::Value::as_u64)
            .with_context(|| format!("{interface} has no counter {counter}"))
    }

    /// Takes the name away and ends every process that still runs inside; the kernel frees
    /// the namespace when the last socket in it is closed.
    ///
    /// # Errors
    /// When `ip netns del` fails.
    pub fn remove(&self) -> Result<()> {
        remove_by_name(&self.name)
    }

    fn join(&self) {
        setns(&*self.handle, CloneFlags::CLONE_NEWNET)
            .unwrap_or_else(|error| panic!("setns to {}: {error}", self.name));
    }
}

/// Ends what runs in a namespace and removes it.
pub(crate) fn remove_by_name(name: &str) -> Result<()> {
    if let Ok(pids) = run(Command::new("ip").args(["netns", "pids", name])) {
        let own = std::process::id().to_string();
        for pid in pids.split_whitespace().filter(|pid| *pid != own) {
            if let Ok(pid) = pid.parse() {
                let pid = nix::unistd::Pid::from_raw(pid);
                // It may have ended by itself meanwhile.
                let _ = nix::sys::signal::kill(pid, Signal::SIGKILL);
            }
        }
    }
    run(Command::new("ip").args(["netns", "del", name])).map(drop)
}

fn path_of(name: &str) -> PathBuf {
    PathBuf::from("/run/netns").join(name)
}

/// Runs a command to its end; its standard error is part of the error.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let shown = format!("{command:?}");
    let output = command.output().with_context(|| format!("start {shown}"))?;
    if !output.status.success() {
        bail!(
            "{shown}: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
