//! Other processes take over: a new program, a new supervisor, a new launcher. Nothing is lost,
//! and no flow is learned anew.

use std::cell::RefCell;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use ips_common::FlowKey;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sluice::control::{self, Request, Response};
use sluice::metrics::board::Cell;
use sluice::metrics::snapshot::Snapshot;
use sluice::supervisor::feedback::{FeedbackSocket, Message};
use sluice::supervisor::seat::Seat;
use sluice::sys::pidfd::PidFd;
use sluice_tests::datagram::{Replier, RequestPlan, Requester};
use sluice_tests::elsewhere::{Elsewhere, attribute};
use sluice_tests::over::OverOnDrop;
use sluice_tests::patience::{kept_in_one_of, wait_for, wait_until};
use sluice_tests::stream::{Extent, Sender, Sink};
use sluice_tests::{await_stopped, require_queues, rule_set};

use crate::load::{ATTEMPTS, await_replaced, nothing_lost, requests};
use crate::reload::reload;
use crate::rig::{
    Gateway, PATIENCE, all_up, alone, await_processes, every_id_received, lab, processes, program,
    signal,
};

/// Byte-exact streams and requests with replies while others take over.
struct Load {
    streams: Vec<(Sink, Sender)>,
    requester: Requester,
    _replier: Replier,
    elsewhere: Elsewhere,
    before: Snapshot,
}

impl Load {
    fn start(gateway: &Gateway, requests: u64) -> Self {
        let lab = &gateway.lab;
        let elsewhere = Elsewhere::watch(lab).expect("the kernel's counters");
        let streams = lab.server_addresses().into_iter().flat_map(|address| {
            [(); 2].map(|()| {
                let sink = Sink::start(lab.server(), address, 0).expect("a sink");
                let sender = Sender::start(
                    lab.client(),
                    sink.address(),
                    Extent::Time(Duration::from_secs(600)),
                );
                (sink, sender)
            })
        });
        let streams: Vec<_> = streams.collect();
        let replier = Replier::start(lab.server(), lab.server_v4().into(), 0).expect("a server");
        let plan = RequestPlan {
            flows: 16,
            requests,
            ..RequestPlan::to(replier.address())
        };
        let requester = Requester::start(lab.client(), plan);
        let load = Self {
            streams,
            requester,
            _replier: replier,
            elsewhere,
            before: gateway.status(),
        };
        load.moves();
        load
    }

    /// Waits until every stream has gone on.
    fn moves(&self) {
        for (sink, _) in &self.streams {
            let before = sink.received();
            wait_until(
                || sink.received() >= before + (1 << 20),
                || format!("a stream stands still at {before}"),
            );
        }
    }

    /// Fails unless nothing was lost and no flow was learned anew.
    fn finish(self, gateway: &Gateway) -> Snapshot {
        self.moves();
        for (sink, sender) in self.streams {
            let sent = sender.stop();
            assert_eq!(sink.faults(), Vec::<String>::new());
            assert_eq!((sent.error, sink.received()), (None, sent.sent));
            println!("longest gap {:?}", sink.longest_gap());
        }
        let report = self.requester.finish().expect("requests");
        let elsewhere = self.elsewhere.lost(&gateway.lab).expect("counters");
        let (by_sluice, _) = attribute(report.lost, elsewhere);
        let after = gateway.await_settled();
        every_id_received(&after);
        assert_eq!((by_sluice, report.corrupt), (0, 0), "{report:?} {after}");
        let anew = |status: &Snapshot| status.total(Cell::FlowsMidstream);
        assert_eq!(anew(&after), anew(&self.before), "{after}");
        assert_eq!(after.total(Cell::Settled), self.before.total(Cell::Settled));
        let adoptions = |status: &Snapshot| status.counters["adoptions"];
        assert_eq!(adoptions(&after), adoptions(&self.before));
        after
    }
}

fn pids(status: &Snapshot) -> Vec<u32> {
    status.seats().map(|seat| seat.pid).collect()
}

pub(crate) fn ask_for_upgrade(gateway: &Gateway) {
    ask_for_upgrade_to(gateway, program());
}

fn ask_for_upgrade_to(gateway: &Gateway, program: PathBuf) {
    let request = Request::Upgrade { program };
    let last = RefCell::new(None);
    let ask = || {
        let answer = control::ask(&gateway.config.control_socket(), &request).expect("an answer");
        last.replace(Some(format!("{answer:?}")));
        answer
    };
    // Whoever was relieved just now may not have been seen to end.
    let too_early =
        |it: &Response| matches!(it, Response::Error(why) if why.contains("try again in a moment"));
    let answer = wait_for(
        || Some(ask()).filter(|answer| !too_early(answer)),
        // Another request might be granted.
        || format!("{:?}", last.borrow()),
    );
    assert!(matches!(answer, Response::Ok(_)), "{answer:?}");
}

pub(crate) fn upgrade(gateway: &Gateway) {
    upgrade_to(gateway, program());
}

fn upgrade_to(gateway: &Gateway, program: PathBuf) {
    let before = gateway.status();
    ask_for_upgrade_to(gateway, program);
    await_upgraded(gateway, before.upgrades + 1);
}

/// Waits until so many programs have taken over and the last one serves.
pub(crate) fn await_upgraded(gateway: &Gateway, upgrades: u64) -> Snapshot {
    let upgraded = |it: &Snapshot| it.upgrades >= upgrades && all_up(it);
    wait_for(
        || gateway.try_status().filter(upgraded),
        || format!("not upgraded:\n{}", gateway.log()),
    )
}

/// Kills the launcher and waits until another one has relieved all workers.
pub(crate) fn replace_launcher(gateway: &Gateway) -> Snapshot {
    let before = gateway.status();
    let known = pids(&before);
    let launcher = Pid::from_raw(before.launcher.cast_signed());
    kill(launcher, Signal::SIGKILL).expect("kill the launcher");
    gateway.await_status("replaced", |status| {
        status.launcher_restarts == before.launcher_restarts + 1
            && all_up(status)
            && pids(status).iter().all(|pid| !known.contains(pid))
    })
}

/// The supervisor, the launcher, the rejecter, two workers and the backup, and after a moment
/// nobody else: a former rejecter ends with the last of its workers.
const PROCESSES: usize = 6;

#[test]
fn five_upgrades_under_load_lose_nothing_and_learn_no_flow_anew() {
    require_queues!();
    let _alone = alone();
    let gateway = Gateway::start(|_| {});
    let load = Load::start(&gateway, 3000);
    let before = gateway.status();
    for _ in 0..5 {
        upgrade(&gateway);
        load.moves();
    }
    let after = load.finish(&gateway);
    assert_eq!((after.upgrades, after.pid), (5, before.pid), "{after}");
    let old = pids(&before);
    assert!(pids(&after).iter().all(|pid| !old.contains(pid)), "{after}");
    await_processes(&gateway, PROCESSES);
    let log = gateway.log();
    assert!(
        !log.contains("learned anew") && !log.contains("panicked"),
        "{log}"
    );
}

#[test]
fn an_upgrade_to_what_cannot_go_on_here_is_refused_and_changes_nothing() {
    require_queues!();
    let gateway = Gateway::start(|_| {});
    let before = gateway.status();
    for (program, said) in [
        ("/bin/true", "cannot go on here"),
        ("/nonexistent/sluice", "No such file"),
        ("/etc/passwd", "ermission denied"),
    ] {
        let request = Request::Upgrade {
            program: program.into(),
        };
        let answer = control::ask(&gateway.config.control_socket(), &request).expect("an answer");
        let Response::Error(why) = answer else {
            panic!("{program}: {answer:?}");
        };
        assert!(why.contains(said), "{why}");
    }
    // The configuration that the new program would find is broken.
    fs::write(gateway.config_file(), "nmae = 1").expect("write");
    let request = Request::Upgrade { program: program() };
    let answer = control::ask(&gateway.config.control_socket(), &request).expect("an answer");
    assert!(
        matches!(&answer, Response::Error(why) if why.contains("nmae")),
        "{answer:?}"
    );
    assert_eq!(pids(&gateway.status()), pids(&before));
}

#[test]
fn an_upgrade_without_its_rule_file_is_refused() {
    require_queues!();
    let gateway = Gateway::start(|_| {});
    let before = gateway.status();
    fs::remove_file(&gateway.config.rules.files[0]).expect("remove the rules");
    let request = Request::Upgrade { program: program() };
    let answer = control::ask(&gateway.config.control_socket(), &request).expect("an answer");
    assert!(
        matches!(&answer, Response::Error(why) if why.contains("test.rules")),
        "{answer:?}"
    );
    assert_eq!(pids(&gateway.status()), pids(&before));
}

/// A program that says it can go on, and before it does so has something happen.
fn program_after(gateway: &Gateway, happens: &str) -> PathBuf {
    let path = gateway.directory.path().join("program");
    let real = program();
    let real = real.display();
    let script = format!("#!/bin/sh\n[ \"$1\" = run ] && {{ {happens}\n}}\nexec {real} \"$@\"\n");
    fs::write(&path, script).expect("write a program");
    fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("make it one");
    path
}

#[test]
fn rules_that_become_unusable_during_an_upgrade_stay_in_force_as_they_were() {
    require_queues!();
    let gateway = Gateway::start(|setup| {
        setup.rules = "drop tcp any any -> any any (msg:\"x\"; content:\"evil\"; sid:9;)\n".into();
    });
    let before = gateway.status();
    let rules = gateway.config.rules.files[0].display();
    let program = program_after(&gateway, &format!("rm -f {rules}"));
    upgrade_to(&gateway, program);
    let after = gateway.status();
    assert_eq!((after.generation, after.pid), (1, before.pid), "{after}");
    let log = gateway.log();
    assert!(log.contains("stays so"), "{log}");
    assert!(log.contains(" 1 rules (0 skipped)"), "{log}");
    // With them a launcher can be replaced as with any, and a reload has the next number.
    assert_eq!(replace_launcher(&gateway).generation, 1);
    fs::write(&gateway.config.rules.files[0], "").expect("write the rules");
    reload(&gateway);
    assert_eq!(gateway.status().generation, 3);
}

#[test]
fn an_interface_that_is_absent_during_an_upgrade_is_waited_for() {
    require_queues!();
    let gateway = Gateway::start(|_| {});
    let name = gateway.config.interfaces[1].clone();
    let link = |arguments: &[&str]| {
        gateway.lab.gateway().run("ip", arguments).expect("ip");
    };
    link(&["link", "set", &name, "down"]);
    link(&["link", "set", &name, "name", "elsewhere0"]);
    upgrade(&gateway);
    assert!(
        gateway.log().contains("goes on without it"),
        "{}",
        gateway.log()
    );
    link(&["link", "set", "elsewhere0", "name", &name]);
    link(&["link", "set", &name, "up"]);
    gateway.await_log(&format!("{name} is another interface now"));
    assert!(
        !gateway.log().contains("NOT inspected:"),
        "{}",
        gateway.log()
    );
}

#[test]
fn rules_that_cannot_be_put_in_at_an_upgrade_leave_those_that_are() {
    require_queues!();
    let _alone = alone();
    let tools = tempfile::tempdir().expect("a directory");
    let (path, broken) = crate::upkeep::breakable_tools(tools.path());
    let gateway = Gateway::start(|setup| setup.path = Some(path));
    let load = Load::start(&gateway, 3000);
    fs::write(&broken, "").expect("break the tools");
    upgrade(&gateway);
    load.moves();
    assert!(
        gateway.log().contains("a former run's rules go on"),
        "{}",
        gateway.log()
    );
    fs::remove_file(&broken).expect("mend the tools");
    wait_until(
        || gateway.log().matches("netfilter: ").count() >= 3,
        || gateway.log(),
    );
    load.finish(&gateway);
}

/// The workers' end of their way to the supervisor: the socket that the launcher has as well and
/// that nobody waits at.
fn feedback(status: &Snapshot) -> FeedbackSocket {
    const O_NONBLOCK: u64 = 0o4000;
    let sockets = |pid: u32| -> Vec<(PathBuf, i32)> {
        let entries = fs::read_dir(format!("/proc/{pid}/fd")).expect("its descriptors");
        let entries = entries.flatten().filter_map(|entry| {
            let number = entry.file_name().to_str()?.parse().ok()?;
            Some((fs::read_link(entry.path()).ok()?, number))
        });
        entries
            .filter(|(target, _)| target.to_string_lossy().starts_with("socket:"))
            .collect()
    };
    let shared = sockets(status.launcher);
    let never_waits = |number: i32| {
        let info = fs::read_to_string(format!("/proc/{}/fdinfo/{number}", status.pid));
        let info = info.expect("about a descriptor");
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags = u64::from_str_radix(flags.expect("flags").trim(), 8).expect("octal");
        flags & O_NONBLOCK != 0
    };
    let mut ours = sockets(status.pid).into_iter();
    let (_, number) = ours
        .find(|(target, number)| shared.iter().any(|it| it.0 == *target) && never_waits(*number))
        .expect("the workers' end");
    let supervisor = PidFd::open(status.pid).expect("it runs");
    FeedbackSocket::from_fd(supervisor.fetch(number).expect("a descriptor of it"))
}

#[test]
fn convictions_without_end_do_not_keep_an_upgrade_from_coming_to_its_end() {
    require_queues!();
    let _alone = alone();
    let gateway = Gateway::start(|_| {});
    let feedback = feedback(&gateway.status());
    std::thread::scope(|scope| {
        // Of the scope, which waits for its thread whatever becomes of the upgrade.
        let convicting = OverOnDrop::default();
        let over = convicting.watch();
        scope.spawn(move || {
            while !over.is_over() {
                // When it is full there is enough to be heard.
                let _ = feedback.send(Message::Convict {
                    seat: Seat::Worker(0),
                    key: FlowKey::default(),
                    signature_id: 1,
                });
                sleep(Duration::from_micros(300));
            }
        });
        upgrade(&gateway);
    });
}

#[test]
fn an_upgrade_is_refused_while_the_event_log_takes_nothing_and_nobody_waits_for_it() {
    require_queues!();
    let _alone = alone();
    let mut gateway = Gateway::prepare(&lab(), |setup| {
        // Of the payload: a rule without any of it matches once a flow.
        setup.rules = "alert udp any any -> any any (msg:\"x\"; dsize:>0; sid:9;)\n".into();
        setup.config.log.stats_seconds = 0;
        setup.config.log.buffer = 8 << 20;
    });
    // A pipe that nobody reads, in the place of the log.
    fs::create_dir_all(&gateway.config.log.directory).expect("a directory");
    let log = gateway.config.event_log().expect("the event log is a file");
    nix::unistd::mkfifo(&log, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let mut both = fs::OpenOptions::new();
    let pipe = both.read(true).write(true).open(&log).expect("its ends");
    gateway.launch();
    let (_replier, requester) = requests(&gateway, 1500);
    requester.finish().expect("requests");
    let mut refusals = 0;
    kept_in_one_of(ATTEMPTS, || {
        ask_for_upgrade(&gateway);
        refusals += 1;
        let mut longest = Duration::ZERO;
        let refused = || {
            let asked = Instant::now();
            assert_eq!(gateway.status().upgrades, 0);
            longest = longest.max(asked.elapsed());
            let said = "not upgraded: the event log has taken nothing";
            gateway.log().matches(said).count() == refusals
        };
        wait_until(refused, || gateway.log());
        let deaf = longest >= Duration::from_secs(1);
        (!deaf).then_some(()).ok_or(format!("deaf for {longest:?}"))
    });
    let reader = std::thread::spawn(move || {
        let mut pipe = pipe;
        let _ = std::io::copy(&mut pipe, &mut std::io::sink());
    });
    upgrade(&gateway);
    // It ends with this program: it has the other end of the pipe as well.
    drop(reader);
}

/// The process that compiles rules, stopped in the middle of it. It goes on when this is dropped,
/// by a test that fails as well: whoever waits for the rules need not wait for the end of their
/// patience.
#[must_use]
pub(crate) struct StoppedCompiler(Pid);

impl Drop for StoppedCompiler {
    fn drop(&mut self) {
        // It fails when that has been given up and killed.
        let _ = kill(self.0, Signal::SIGCONT);
    }
}

/// Stops the process that compiles rules.
pub(crate) fn stop_compiler(gateway: &Gateway) -> StoppedCompiler {
    let look = || {
        let compiler = processes(&gateway.lab).into_iter().find(|pid| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm"));
            name.is_ok_and(|name| name.trim() == "sluice-compile")
        });
        compiler.map(|pid| Pid::from_raw(pid.cast_signed()))
    };
    let compiler = wait_for(look, || "nobody compiles".to_owned());
    kill(compiler, Signal::SIGSTOP).expect("it runs");
    let stopped = StoppedCompiler(compiler);
    await_stopped(compiler.as_raw().cast_unsigned());
    stopped
}

#[test]
fn a_worker_that_hangs_while_rules_are_compiled_for_an_upgrade_is_killed_in_time() {
    require_queues!();
    let _alone = alone();
    let gateway = Gateway::start(|setup| {
        setup.rules = rule_set::rules(rule_set::LARGE / 8);
        setup.config.steering.stale_ms = 1000;
    });
    let elsewhere = Elsewhere::watch(&gateway.lab).expect("the kernel's counters");
    let (_replier, requester) = requests(&gateway, 3000);
    sleep(Duration::from_millis(300));
    let victim = gateway.busiest();
    ask_for_upgrade(&gateway);
    let compiler = stop_compiler(&gateway);
    signal(&victim, Signal::SIGSTOP);
    let killed = format!("{} (pid {}) hung: stopped: killed", victim.seat, victim.pid);
    gateway.await_log(&killed);
    // What waited for it goes by policy, still without anybody who could take its place.
    gateway.await_log(&format!("{} has not been served for", victim.seat));
    drop(compiler);
    nothing_lost(&requester.finish().expect("requests"), &elsewhere, &gateway);
    wait_until(
        || gateway.try_status().is_some_and(|it| all_up(&it)),
        || gateway.log(),
    );
}

#[test]
fn a_new_supervisor_takes_over_from_a_dead_one_under_load_and_loses_nothing() {
    require_queues!();
    let _alone = alone();
    let mut gateway = Gateway::start(|_| {});
    let load = Load::start(&gateway, 2500);
    for _ in 0..2 {
        let before = gateway.status();
        gateway.kill_supervisor();
        load.moves();
        gateway.launch();
        load.moves();
        let after = gateway.status();
        assert_ne!(after.pid, before.pid);
        let old = pids(&before);
        assert!(pids(&after).iter().all(|pid| !old.contains(pid)), "{after}");
    }
    let log = gateway.log();
    assert!(
        log.contains("3 workers of a former run are taken over"),
        "{log}"
    );
    load.finish(&gateway);
    await_processes(&gateway, PROCESSES);
}

#[test]
fn a_launcher_that_dies_is_replaced_under_load_and_nothing_is_lost() {
    require_queues!();
    let _alone = alone();
    let gateway = Gateway::start(|_| {});
    let load = Load::start(&gateway, 2000);
    let before = gateway.status();
    let after = replace_launcher(&gateway);
    assert_eq!((after.pid, after.generation), (before.pid, 1), "{after}");
    load.finish(&gateway);
    await_processes(&gateway, PROCESSES);
}

/// What the status has about former processes of each seat.
fn history(status: &Snapshot) -> Vec<([u64; 3], Vec<String>)> {
    status
        .seats()
        .map(|seat| {
            let exits = seat.exits.iter();
            let exits = exits.map(|exit| format!("{}: {}", exit.unix_us, exit.reason));
            ([seat.restarts, seat.trips, seat.hangs], exits.collect())
        })
        .collect()
}

#[test]
fn what_has_happened_is_still_known_after_an_upgrade_and_a_takeover() {
    require_queues!();
    let mut gateway = Gateway::start(|_| {});
    let victim = gateway.status().workers[0].clone();
    signal(&victim, Signal::SIGABRT);
    await_replaced(&gateway, &victim);
    replace_launcher(&gateway);
    assert_eq!(reload(&gateway).generation, 2);
    let before = gateway.await_status("up", all_up);
    assert_eq!(before.workers[0].restarts, 1, "{before}");
    assert_eq!(before.deaths.idle, 1, "{before}");

    for (generation, upgraded) in [(3, true), (4, false), (5, true)] {
        if upgraded {
            upgrade(&gateway);
        } else {
            gateway.kill_supervisor();
            gateway.launch();
        }
        let after = gateway.status();
        assert_eq!(after.generation, generation, "{after}");
        assert!(after.seats().all(|seat| seat.generation == generation));
        assert_eq!(history(&after), history(&before), "{after}");
        assert_eq!(after.deaths, before.deaths, "{after}");
        assert_eq!(after.launcher_restarts, 1, "{after}");
        assert!(after.uptime_seconds >= before.uptime_seconds, "{after}");
        let exit = |status: &Snapshot| status.workers[0].exits[0].uptime_seconds;
        assert!((exit(&after) - exit(&before)).abs() < 0.001, "{after}");
    }
    // It goes on from there.
    assert_eq!(reload(&gateway).generation, 6);
    let victim = gateway.status().workers[0].clone();
    signal(&victim, Signal::SIGABRT);
    let after = await_replaced(&gateway, &victim);
    assert_eq!(after.workers[0].restarts, 2, "{after}");
    assert_eq!(after.workers[0].exits.len(), 2, "{after}");
    // A new start is one.
    assert!(gateway.stop().success());
    gateway.launch();
    let anew = gateway.status();
    assert_eq!((anew.generation, anew.launcher_restarts), (1, 0), "{anew}");
    assert_eq!(anew.workers[0].restarts, 0, "{anew}");
}

/// Stops an instance whose workers are being relieved.
fn stops_quickly(gateway: &mut Gateway) {
    let stopped = Instant::now();
    gateway.stop();
    // Loading the eBPF programs, which a stop waits for, may take seconds on a busy machine.
    println!("stopped after {:?}", stopped.elapsed());
    let log = gateway.log();
    assert!(!log.contains("did not end within"), "{log}");
    assert!(!log.contains("panicked"), "{log}");
    gateway.nothing_left();
}

#[test]
fn a_stop_at_any_moment_of_an_upgrade_is_quick_and_loses_nothing() {
    require_queues!();
    let _alone = alone();
    let mut relieved = 0;
    for step in 0..8 {
        let mut gateway = Gateway::start(|_| {});
        let elsewhere = Elsewhere::watch(&gateway.lab).expect("the kernel's counters");
        let (_replier, requester) = requests(&gateway, 1000);
        ask_for_upgrade(&gateway);
        let begun = gateway
            .process()
            .wait_for_line("goes on from here", PATIENCE);
        begun.expect("it says so");
        sleep(Duration::from_millis(60) * step);
        stops_quickly(&mut gateway);
        relieved += u32::from(gateway.log().contains("of a former run are taken over"));
        nothing_lost(&requester.finish().expect("requests"), &elsewhere, &gateway);
    }
    assert!(relieved > 0, "no stop came while workers were relieved");
}

#[test]
fn a_stop_while_workers_of_a_dead_launcher_are_relieved_is_quick() {
    require_queues!();
    let _alone = alone();
    for step in 0..6 {
        let mut gateway = Gateway::start(|_| {});
        let launcher = gateway.status().launcher.cast_signed();
        let launcher = Pid::from_raw(launcher);
        kill(launcher, Signal::SIGKILL).expect("kill the launcher");
        let compiled = "a new launcher has compiled";
        gateway
            .process()
            .wait_for_line(compiled, PATIENCE)
            .expect("it says so");
        sleep(Duration::from_millis(15) * step);
        stops_quickly(&mut gateway);
    }
}
