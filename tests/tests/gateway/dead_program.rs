//! What passes while nothing of Sluice runs, or not yet: after a clean stop, after the end of
//! everything, during a start that is cut short, and when the operator says so.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sluice::netfilter::Fail;
use sluice_tests::datagram::{Replier, RequestPlan, RequestReport, Requester};
use sluice_tests::patience::wait_until;
use sluice_tests::witness::SILENCE;
use sluice_tests::{Lab, Process, require_queues};

use crate::rig::{Gateway, PATIENCE, lab, processes, program, ruleset};

/// Whatever is inspected is dropped: what is answered was not.
const DROP_ALL: &str = "drop udp any any -> any any (msg:\"all\"; sid:1;)\n";

/// Requests, whose answers may take so long.
fn requests(lab: &Lab, requests: u64, patience: Duration) -> RequestReport {
    let replier = Replier::start(lab.server(), lab.server_v4().into(), 0).expect("a server");
    let plan = RequestPlan {
        requests,
        patience,
        ..RequestPlan::to(replier.address())
    };
    Requester::run(lab.client(), plan).expect("requests")
}

fn all_pass(gateway: &Gateway) {
    let report = requests(&gateway.lab, 50, PATIENCE);
    assert_eq!(report.answered, 50, "{report:?}\n{}", gateway.log());
}

fn none_pass(gateway: &Gateway) {
    let report = requests(&gateway.lab, 50, SILENCE);
    assert_eq!(report.answered, 0, "{report:?}\n{}", gateway.log());
}

fn kill_one(pid: u32) {
    let pid = Pid::from_raw(i32::try_from(pid).expect("a process id"));
    // Some leave by themselves: the launcher does without its supervisor.
    let _ = kill(pid, Signal::SIGKILL);
}

/// Waits until no process of the instance is left, nor a queue of theirs.
fn await_all_gone(gateway: &Gateway) {
    let left = || (processes(&gateway.lab), gateway.queued());
    wait_until(
        || left() == (Vec::new(), BTreeMap::new()),
        || format!("{:?}", left()),
    );
}

/// SIGKILL for everything, the supervisor first: it would replace the others.
fn kill_all(gateway: &mut Gateway) {
    gateway.kill_supervisor();
    // A launcher may fork one more while it dies.
    while let left @ [_, ..] = &processes(&gateway.lab)[..] {
        left.iter().copied().for_each(kill_one);
        sleep(Duration::from_millis(2));
    }
    await_all_gone(gateway);
}

/// `sluice gate …` in the gateway.
fn gate(gateway: &Gateway, action: &str) -> Output {
    let mut command = gateway.lab.gateway().command(program());
    command
        .args(["gate", action, "-c"])
        .arg(gateway.config_file());
    command.output().expect("start sluice")
}

fn gate_says(gateway: &Gateway, action: &str, said: &str) {
    let output = gate(gateway, action);
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(output.status.success(), "{action}: {text}");
    assert!(text.contains(said), "{action}: {said:?} is not in {text}");
}

/// Nothing but a gate.
fn only_the_gate_is_left(gateway: &Gateway) {
    let left = gateway.leftovers();
    assert!(!left.is_empty(), "{}", gateway.log());
    let others: Vec<_> = left.iter().filter(|it| !it.contains("gate")).collect();
    assert!(others.is_empty(), "{others:#?}\n{}", gateway.log());
}

#[test]
fn after_a_clean_stop_traffic_passes_if_it_fails_open() {
    require_queues!();
    let lab = lab();
    let before = ruleset(&lab);
    let mut gateway = Gateway::prepare(&lab, |setup| setup.rules = DROP_ALL.into());
    gateway.launch();
    none_pass(&gateway);
    assert!(gateway.stop().success());
    all_pass(&gateway);
    assert_eq!(ruleset(&lab), before);
}

#[test]
fn after_a_clean_stop_nothing_passes_if_it_fails_closed_until_it_runs_again_or_is_opened() {
    require_queues!();
    let lab = lab();
    let before = ruleset(&lab);
    let mut gateway = Gateway::prepare(&lab, |setup| setup.config.fail = Fail::Closed);
    gateway.launch();
    all_pass(&gateway);
    assert!(gateway.stop().success());
    assert!(
        gateway.log().contains("sluice gate open"),
        "it says so: {}",
        gateway.log()
    );
    none_pass(&gateway);
    only_the_gate_is_left(&gateway);
    // The gateway itself is not touched.
    let ping = ["-c", "1", "-W", "2", &lab.server_v4().to_string()].map(str::to_owned);
    let ping: Vec<_> = ping.iter().map(String::as_str).collect();
    if PathBuf::from("/bin/ping").exists() || PathBuf::from("/usr/bin/ping").exists() {
        lab.gateway()
            .run("ping", &ping)
            .expect("the gateway's own traffic");
    }
    gateway.launch();
    all_pass(&gateway);
    assert!(gateway.stop().success());
    none_pass(&gateway);
    gate_says(&gateway, "open", "open");
    all_pass(&gateway);
    gateway.nothing_left();
    assert_eq!(ruleset(&lab), before);
}

#[test]
fn when_the_whole_program_is_killed_the_fail_policy_stands() {
    require_queues!();
    for fail in [Fail::Open, Fail::Closed] {
        let mut gateway = Gateway::start(|setup| setup.config.fail = fail);
        kill_all(&mut gateway);
        match fail {
            Fail::Open => all_pass(&gateway),
            Fail::Closed => none_pass(&gateway),
        }
        // A reboot's or an operator's loss of the programs changes nothing of it.
        fs::remove_dir_all(gateway.pins()).expect("remove the pins");
        match fail {
            Fail::Open => all_pass(&gateway),
            Fail::Closed => none_pass(&gateway),
        }
        gateway.launch();
        all_pass(&gateway);
    }
}

#[test]
fn a_start_killed_at_any_moment_lets_nothing_pass_if_it_fails_closed() {
    require_queues!();
    let mut gateway = Gateway::prepare(&lab(), |setup| {
        setup.config.fail = Fail::Closed;
        setup.rules = DROP_ALL.into();
    });
    let began = Instant::now();
    gateway.launch();
    let start = began.elapsed();
    assert!(gateway.stop().success());
    gate_says(&gateway, "open", "open");
    println!("a start takes {start:?}");
    // Once the gate is closed for the first time.
    gateway.spawn();
    let closed = gateway
        .process()
        .wait_for_line("the gate is closed", PATIENCE);
    closed.expect("it says so");
    let lab = gateway.lab.clone();
    let replier = Replier::start(lab.server(), lab.server_v4().into(), 0).expect("a server");
    for step in 0..8 {
        let plan = RequestPlan {
            requests: 2000,
            patience: Duration::from_millis(100),
            ..RequestPlan::to(replier.address())
        };
        let requester = Requester::start(lab.client(), plan);
        sleep(start * step / 6);
        kill_all(&mut gateway);
        gateway.spawn();
        let report = requester.finish().expect("requests");
        assert_eq!(
            report.answered,
            0,
            "step {step}: {report:?}\n{}",
            gateway.log()
        );
    }
    gateway.await_ready();
    none_pass(&gateway);
    assert_eq!(
        replier.received(),
        0,
        "nothing at all has come to the server"
    );
    kill_all(&mut gateway);
    gate_says(&gateway, "open", "open");
    all_pass(&gateway);
}

#[test]
fn a_start_killed_at_any_moment_lets_traffic_pass_if_it_fails_open() {
    require_queues!();
    let mut gateway = Gateway::prepare(&lab(), |_| {});
    let began = Instant::now();
    gateway.launch();
    let start = began.elapsed();
    for step in 0..6 {
        kill_all(&mut gateway);
        all_pass(&gateway);
        gateway.spawn();
        sleep(start * step / 5);
    }
    gateway.await_ready();
    all_pass(&gateway);
}

#[test]
fn a_start_that_fails_leaves_the_gate_closed_if_it_fails_closed() {
    require_queues!();
    for absent in [true, false] {
        let mut gateway = Gateway::prepare(&lab(), |setup| {
            setup.config.fail = Fail::Closed;
            if absent {
                setup.config.interfaces.push("absent0".into());
            } else {
                setup.config.rules.files = vec!["/nonexistent/x.rules".into()];
            }
        });
        all_pass(&gateway);
        gateway.spawn();
        let ended = gateway.process().wait(PATIENCE).expect("it ends");
        assert_eq!(ended.code(), Some(1), "{}", gateway.log());
        assert!(
            gateway.log().contains("fail is closed"),
            "{}",
            gateway.log()
        );
        none_pass(&gateway);
        only_the_gate_is_left(&gateway);
        gate_says(&gateway, "open", "open");
        all_pass(&gateway);
    }
}

#[test]
fn the_gate_is_closed_opened_and_shown_by_the_operator() {
    require_queues!();
    let mut gateway = Gateway::prepare(&lab(), |_| {});
    gate_says(&gateway, "close", "nothing done");
    gate_says(&gateway, "status", "open");
    all_pass(&gateway);

    gateway.config.fail = Fail::Closed;
    gateway.write_config();
    // As a boot unit would, and twice.
    gate_says(&gateway, "close", "closed");
    gate_says(&gateway, "close", "closed");
    none_pass(&gateway);
    gate_says(&gateway, "status", "everything is dropped");
    gate_says(&gateway, "status", "50 packets dropped");

    gateway.launch();
    all_pass(&gateway);
    gate_says(&gateway, "status", "what carries no decision is dropped");
    for action in ["open", "close"] {
        let refused = gate(&gateway, action);
        let text = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(1), "{action}: {text}");
        assert!(text.contains("already running"), "{action}: {text}");
    }
    all_pass(&gateway);

    // The workers of a killed supervisor go on behind a gate that is closed once more.
    gateway.kill_supervisor();
    gate_says(&gateway, "close", "closed");
    all_pass(&gateway);
    gate_says(&gateway, "open", "open");
    all_pass(&gateway);
}

/// A memory cgroup of our own; its processes have ended when it is dropped.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new(name: &str) -> std::io::Result<Self> {
        let path = PathBuf::from("/sys/fs/cgroup/memory").join(name);
        fs::create_dir(&path)?;
        Ok(Self(path))
    }

    fn write(&self, file: &str, text: &str) -> std::io::Result<()> {
        fs::write(self.0.join(file), text)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while fs::remove_dir(&self.0).is_err() && Instant::now() < deadline {
            sleep(Duration::from_millis(20));
        }
    }
}

/// `None` when the process has ended, as those that look at the rules do.
fn oom_score_adj(pid: u32) -> Option<i32> {
    let text = fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).ok()?;
    Some(text.trim().parse().expect("a number"))
}

/// Whether a process has ended, though nobody may have asked for its exit status yet.
fn has_ended(pid: u32) -> bool {
    let Ok(status) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return true;
    };
    // After the name, which may hold anything.
    let state = status.rsplit(") ").next().and_then(|it| it.chars().next());
    matches!(state, Some('Z' | 'X'))
}

/// Megabytes that the instance and the hogs have together, hogs, and what each of them wants.
/// Much less, and a few megabytes that one of the instance uses more than another would count as
/// much as what the product asks for; fewer hogs, and one of them would go first.
const LIMIT_MB: u64 = 256;
const HOGS: u64 = 8;
const HOG_MB: u64 = 64;

/// Has the kernel's OOM killer end every process of the instance: beside them in their cgroup
/// are some that want more than there is and are preferred less than they. Returns the processes
/// as they ended, the supervisor late if that was at the same time.
///
/// So that this works without CAP_SYS_RESOURCE, nothing is lowered: they are raised, as far
/// apart as the product has them.
fn out_of_memory(gateway: &Gateway, cgroup: &Cgroup, supervisor: u32) -> Vec<u32> {
    let mut all = processes(&gateway.lab);
    // Looked at first, so that one that ends a moment after it is not taken for earlier.
    all.sort_by_key(|pid| *pid != supervisor);
    let highest = all.iter().copied().filter_map(oom_score_adj).max();
    let raise = 1000 - highest.expect("processes");
    for &pid in &all {
        let Some(score) = oom_score_adj(pid).map(|score| score + raise) else {
            continue;
        };
        let moved = cgroup.write("cgroup.procs", &pid.to_string());
        moved.expect("move a process");
        fs::write(format!("/proc/{pid}/oom_score_adj"), score.to_string()).expect("raise it");
    }
    cgroup
        .write("memory.limit_in_bytes", &(LIMIT_MB << 20).to_string())
        .expect("a limit");
    let script = format!(
        "echo $$ > {}/cgroup.procs; exec dd if=/dev/zero of=/dev/null bs={HOG_MB}M",
        cgroup.0.display()
    );
    // Killed when they are dropped.
    let hog = |_| Process::spawn(Command::new("sh").args(["-c", &script])).expect("start dd");
    let _hogs: Vec<_> = (0..HOGS).map(hog).collect();
    let mut ended = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let gone = all.iter().filter(|it| !ended.contains(*it));
        let mut gone: Vec<_> = gone.copied().filter(|it| has_ended(*it)).collect();
        gone.reverse();
        ended.extend(gone);
        if ended.len() == all.len() && processes(&gateway.lab).is_empty() {
            return ended;
        }
        assert!(Instant::now() < deadline, "{ended:?} of {all:?} have ended");
        sleep(Duration::from_micros(200));
    }
}

#[test]
fn when_memory_runs_out_for_all_a_worker_goes_first_and_the_fail_policy_stands() {
    require_queues!();
    for fail in [Fail::Open, Fail::Closed] {
        let mut gateway = Gateway::start(|setup| setup.config.fail = fail);
        let status = gateway.status();
        let seats: Vec<u32> = status.seats().map(|seat| seat.pid).collect();
        let own = oom_score_adj(std::process::id()).expect("this process");
        // What each of them is told without CAP_SYS_RESOURCE differs by less, and in the same way.
        let (of_seats, of_others) = match gateway.log().contains("oom_score_adj") {
            true => (own + 100, own),
            false => (-500, -900),
        };
        for pid in processes(&gateway.lab) {
            let expected = if seats.contains(&pid) {
                of_seats
            } else {
                of_others
            };
            if let Some(score) = oom_score_adj(pid) {
                assert_eq!(score, expected, "{pid} of {status}");
            }
        }
        assert!(seats.iter().all(|pid| oom_score_adj(*pid).is_some()));
        let cgroup = match Cgroup::new(&gateway.config.name) {
            Ok(cgroup) => cgroup,
            Err(error) => {
                println!("skipped: no memory cgroup of version 1: {error}");
                return;
            }
        };
        let ended = out_of_memory(&gateway, &cgroup, status.pid);
        println!(
            "fail {fail}: supervisor {}, workers {seats:?}, ended in the order {ended:?}",
            status.pid
        );
        let place = |pid: &u32| ended.iter().position(|it| it == pid);
        let first_worker = seats.iter().filter_map(place).min();
        assert!(first_worker < place(&status.pid), "{ended:?}");
        let _ = gateway.process().wait(PATIENCE).expect("it has ended");
        await_all_gone(&gateway);
        match fail {
            Fail::Open => all_pass(&gateway),
            Fail::Closed => none_pass(&gateway),
        }
        drop(cgroup);
        gateway.launch();
        all_pass(&gateway);
    }
}

/// Chains are listed in the order in which they were made.
fn sorted(ruleset: &str) -> Vec<String> {
    let mut lines: Vec<_> = ruleset.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn rules_that_somebody_flushes_under_traffic_are_put_back() {
    require_queues!();
    for fail in [Fail::Open, Fail::Closed] {
        let gateway = Gateway::start(|setup| setup.config.fail = fail);
        let flushes: [(&str, &[&str]); 2] = [
            ("nft", &["flush", "ruleset"]),
            ("iptables-nft", &["-t", "security", "-F"]),
        ];
        for (done, (flush, arguments)) in (1..).zip(flushes) {
            let before = sorted(&ruleset(&gateway.lab));
            assert_eq!(
                gateway.through(|| all_pass(&gateway)).values().sum::<u32>(),
                100
            );
            let lab = gateway.lab.clone();
            let replier =
                Replier::start(lab.server(), lab.server_v4().into(), 0).expect("a server");
            let plan = RequestPlan {
                requests: 1500,
                // Some are dropped.
                patience: SILENCE,
                ..RequestPlan::to(replier.address())
            };
            let requester = Requester::start(lab.client(), plan);
            sleep(Duration::from_millis(200));
            lab.gateway().run(flush, arguments).expect(flush);
            let flushed = Instant::now();
            gateway.await_status("put back", |status| status.rules_restored == done);
            println!("{flush}: put back after {:?}", flushed.elapsed());
            requester.finish().expect("requests");
            assert_eq!(sorted(&ruleset(&lab)), before);
            assert!(gateway.log().contains("putting them back"));
            assert_eq!(
                gateway.through(|| all_pass(&gateway)).values().sum::<u32>(),
                100
            );
        }
        // Other people's changes are none of ours.
        let lab = gateway.lab.clone();
        lab.gateway()
            .run("nft", &["add", "table", "inet", "other"])
            .expect("nft");
        sleep(Duration::from_millis(1200));
        assert_eq!(gateway.status().rules_restored, 2);
    }
}
