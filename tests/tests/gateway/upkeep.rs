//! The programs that look after the netfilter rules take their time, or wait for a lock that
//! somebody else holds: nobody waits for them.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::Signal;
use sluice::control::{self, Request, Response};
use sluice::netfilter::Fail;
use sluice_tests::datagram::{Replier, RequestPlan, Requester};
use sluice_tests::patience::wait_until;
use sluice_tests::require_queues;
use tempfile::TempDir;

use crate::load::{Load, await_replaced};
use crate::rig::{Gateway, alone, processes, signal};

/// Much longer than a replacement takes, and much shorter than the tools are waited for.
const REPLACED_WITHIN: Duration = Duration::from_secs(4);
/// Whatever Sluice may run.
const TOOLS: [&str; 11] = [
    "nft",
    "iptables-save",
    "iptables-restore",
    "iptables-nft-save",
    "iptables-nft-restore",
    "iptables-legacy-save",
    "ip6tables-save",
    "ip6tables-restore",
    "ip6tables-nft-save",
    "ip6tables-nft-restore",
    "ip6tables-legacy-save",
];

fn path_before() -> OsString {
    let mut path = env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/sbin:/sbin");
    path
}

/// PATH with this directory first.
fn path_with(directory: &Path) -> OsString {
    let mut path = directory.as_os_str().to_owned();
    path.push(":");
    path.push(path_before());
    path
}

/// Scripts with the names of the tools, which run them behind a command.
fn wrap_tools(directory: &Path, command: &str) {
    let folders: Vec<_> = env::split_paths(&path_before()).collect();
    for tool in TOOLS {
        let found = folders
            .iter()
            .map(|it| it.join(tool))
            .find(|it| it.exists());
        let Some(real) = found else { continue };
        let script = format!("#!/bin/sh\n{command} {} \"$@\"\n", real.display());
        let path = directory.join(tool);
        fs::write(&path, script).expect("write a tool");
        fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("make it one");
    }
}

/// PATH with tools that fail as long as the file exists whose path is returned as well.
pub(crate) fn breakable_tools(directory: &Path) -> (OsString, PathBuf) {
    let broken = directory.join("broken");
    let command = format!("[ -e {} ] && exit 1\nexec", broken.display());
    wrap_tools(directory, &command);
    (path_with(directory), broken)
}

/// The tools behind a lock, which only the instance under test finds: that of iptables is one for
/// the whole machine.
struct LockedTools(TempDir);

impl LockedTools {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let lock = directory.path().join("lock");
        File::create(&lock).expect("a lock");
        wrap_tools(directory.path(), &format!("exec flock {}", lock.display()));
        Self(directory)
    }

    /// PATH with these first.
    fn path(&self) -> OsString {
        path_with(self.0.path())
    }

    /// Has them wait until it is dropped.
    fn lock(&self) -> Flock<File> {
        let file = File::open(self.0.path().join("lock")).expect("the lock");
        let locked = Flock::lock(file, FlockArg::LockExclusive);
        locked.map_err(|(_, errno)| errno).expect("nobody else's")
    }
}

fn gateway(tools: &LockedTools) -> Gateway {
    Gateway::start(|setup| {
        setup.config.fail = Fail::Open;
        setup.config.steering.stale_ms = 1000;
        // Then the rules' counters are not read: whatever waits is about the rules themselves.
        setup.config.queue.gso = false;
        setup.path = Some(tools.path());
    })
}

fn nft(gateway: &Gateway, arguments: &[&str]) {
    gateway.lab.gateway().run("nft", arguments).expect("nft");
}

/// Whether the instance has a tool running that waits for the lock.
fn one_waits(gateway: &Gateway) -> bool {
    processes(&gateway.lab).iter().any(|pid| {
        let name = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("comm"));
        name.is_ok_and(|name| name.trim() == "flock")
    })
}

fn await_one_waits(gateway: &Gateway) {
    wait_until(|| one_waits(gateway), || "no tool runs".to_owned());
}

#[test]
fn workers_are_replaced_while_the_netfilter_tools_wait_for_a_lock() {
    require_queues!();
    let _alone = alone();
    let tools = LockedTools::new();
    let gateway = gateway(&tools);
    let load = Load::start(&gateway, gateway.lab.server_v4().into());
    let lock = tools.lock();
    // Somebody else's change: it is looked whether that was ours.
    nft(&gateway, &["add", "table", "inet", "other"]);
    await_one_waits(&gateway);
    for signalled in [Signal::SIGKILL, Signal::SIGSTOP] {
        let victim = gateway.busiest();
        let began = Instant::now();
        signal(&victim, signalled);
        await_replaced(&gateway, &victim);
        println!("{signalled}: replaced after {:?}", began.elapsed());
        assert!(began.elapsed() < REPLACED_WITHIN);
        assert!(one_waits(&gateway), "the tool has waited all the time");
    }
    load.await_progress(1 << 20);
    load.finish();

    let status = gateway.await_status("given up", |status| status.rules_given_up == 1);
    assert!(status.to_string().contains("given up"), "{status}");
    // What it prints arrives in its own time.
    gateway.await_log("given up after");
    assert_eq!(status.rules_restored, 0, "{status}");
    // It is tried again though nothing more is heard, and then the rules are put back.
    nft(&gateway, &["flush", "ruleset"]);
    await_one_waits(&gateway);
    drop(lock);
    gateway.await_status("put back", |status| status.rules_restored == 1);
    let replier = Replier::start(gateway.lab.server(), gateway.lab.server_v4().into(), 0);
    let replier = replier.expect("a server");
    let through = gateway.through(|| {
        let report = Requester::run(gateway.lab.client(), RequestPlan::to(replier.address()));
        report.expect("requests");
    });
    assert!(!through.is_empty(), "packets are queued again");
}

#[test]
fn workers_are_added_only_after_a_look_at_the_rules_has_ended_and_both_are_right() {
    require_queues!();
    let tools = LockedTools::new();
    let gateway = gateway(&tools);
    let lock = tools.lock();
    nft(&gateway, &["flush", "ruleset"]);
    await_one_waits(&gateway);
    let socket = gateway.config.control_socket();
    let answer = scope(|scope| {
        let asked = scope.spawn(|| control::ask(&socket, &Request::Scale { workers: 3 }));
        gateway.await_status("the new worker", |status| {
            let joining = status.workers.get(2);
            joining.is_some_and(|seat| seat.state == "joining")
        });
        sleep(Duration::from_millis(500));
        assert!(
            !asked.is_finished(),
            "the rules of the new worker are not there yet"
        );
        drop(lock);
        asked.join().expect("it is answered")
    });
    assert!(matches!(answer, Ok(Response::Ok(_))), "{answer:?}");
    let status = gateway.status();
    assert_eq!(status.rules_restored, 1, "{status}");
    let rules = crate::rig::ruleset(&gateway.lab);
    for seat in status.seats() {
        assert!(rules.contains(&seat.queue.to_string()), "{seat:?}: {rules}");
    }
    // What has been heard of the own changes is that they are as they should be.
    sleep(Duration::from_millis(1200));
    assert_eq!(gateway.status().rules_restored, 1);
}

#[test]
fn a_stop_waits_for_rules_that_are_being_put_back_and_leaves_none() {
    require_queues!();
    let tools = LockedTools::new();
    let mut gateway = gateway(&tools);
    let lock = tools.lock();
    nft(&gateway, &["flush", "ruleset"]);
    await_one_waits(&gateway);
    let stopped = scope(|scope| {
        scope.spawn(move || {
            sleep(Duration::from_millis(1500));
            drop(lock);
        });
        gateway.stop()
    });
    assert!(stopped.success(), "{}", gateway.log());
    gateway.nothing_left();
}
