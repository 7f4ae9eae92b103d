//! Starts, stops, crashes and restarts: what is left, what goes on, what comes back.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use aya::programs::{SchedClassifier, TcAttachType};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sluice::metrics::board::Cell;
use sluice::supervisor::seat::Seat;
use sluice_tests::datagram::{Replier, RequestPlan, Requester};
use sluice_tests::patience::wait_until;
use sluice_tests::witness::{End, Transport, Witness, attempt};
use sluice_tests::{Lab, Process, require_queues};

use crate::rig::{
    Gateway, PATIENCE, all_up, await_processes, lab, processes, program, ruleset, signal,
};

const RULES: &str = "alert tcp any any -> any any (msg:\"seen\"; content:\"look\"; sid:1;)\n\
                     drop ip any any -> any any (msg:\"stopped\"; content:\"evil\"; sid:2;)\n";

/// Requests over both families; how many were answered of how many.
fn traffic(lab: &Lab) -> (u64, u64) {
    let mut total = (0, 0);
    for address in lab.server_addresses() {
        let replier = Replier::start(lab.server(), address, 0).expect("a server");
        let plan = RequestPlan {
            flows: 10,
            ..RequestPlan::to(replier.address())
        };
        let report = Requester::run(lab.client(), plan).expect("requests");
        total.0 += report.answered;
        total.1 += report.sent;
    }
    total
}

/// Fails unless a connection that says this ends like that for the client.
#[track_caller]
fn say(lab: &Lab, payload: &[u8], expected: End) {
    say_over(lab, Transport::Tcp, payload, expected);
}

/// The same over UDP, where nobody repeats what was not answered.
#[track_caller]
fn say_once(lab: &Lab, payload: &[u8], expected: End) {
    say_over(lab, Transport::Udp, payload, expected);
}

#[track_caller]
fn say_over(lab: &Lab, transport: Transport, payload: &[u8], expected: End) {
    let address = lab.server_v4().into();
    let server = Witness::start(lab.server(), address, 0).expect("a server");
    let tried = attempt(
        lab.client(),
        transport,
        server.address(),
        b"hello",
        payload,
        expected.patience(),
    );
    assert_eq!(tried.expect("a connection").end, expected);
}

/// Gives the gateway rules of somebody else's, of every kind that ours live beside.
fn rules_of_others(lab: &Lab) {
    let gateway = lab.gateway();
    gateway
        .run(
            "nft",
            &["add table inet other; add chain inet other c { type filter hook forward priority 149; }; \
               add rule inet other c meta mark 0x1 accept"],
        )
        .expect("nft");
    for program in ["iptables", "ip6tables"] {
        for table in ["filter", "mangle", "security"] {
            let rule = ["-w", "-t", table, "-A", "FORWARD", "-p", "tcp"];
            let rule = [&rule[..], &["--dport", "7", "-j", "ACCEPT"]].concat();
            gateway.run(program, &rule).expect("iptables");
        }
    }
}

#[test]
fn a_clean_stop_leaves_the_gateway_as_it_was() {
    require_queues!();
    for others in [false, true] {
        let lab = lab();
        if others {
            rules_of_others(&lab);
        }
        let before = ruleset(&lab);
        let mut gateway = Gateway::prepare(&lab, |setup| setup.rules = RULES.into());
        gateway.launch();
        assert_ne!(ruleset(&lab), before, "it does add rules");
        assert!(gateway.pins().exists());
        let (answered, sent) = traffic(&lab);
        assert_eq!(answered, sent);
        let status = gateway.stop();
        assert!(status.success(), "{status}: {}", gateway.log());
        gateway.nothing_left();
        assert_eq!(ruleset(&lab), before);
        let (answered, sent) = traffic(&lab);
        assert_eq!(answered, sent, "traffic flows without Sluice");
        let last = gateway.events().pop().expect("events");
        assert_eq!(last["event_type"], "stats", "the final figures are written");
        let invalid = &last["stats"]["decoder"]["invalid"];
        assert_eq!(invalid, 0, "{last:#}");
        assert!(last["stats"]["capture"]["kernel_packets"].as_u64() >= Some(400));
    }
}

#[test]
fn a_stop_under_load_loses_no_packet_that_fails_open() {
    require_queues!();
    let mut gateway = Gateway::start(|_| {});
    let lab = gateway.lab.clone();
    let address = lab.server_v6().into();
    let replier = Replier::start(lab.server(), address, 0).expect("a server");
    let plan = RequestPlan {
        flows: 8,
        requests: 2000,
        ..RequestPlan::to(replier.address())
    };
    let requester = Requester::start(lab.client(), plan);
    sleep(Duration::from_millis(400));
    assert!(gateway.stop().success());
    let report = requester.finish().expect("requests");
    assert_eq!((report.lost, report.corrupt), (0, 0), "{report:?}");
}

/// Runs an instance that cannot start; it must say why and leave nothing.
fn cannot_start(gateway: &mut Gateway, said: &[&str]) {
    let lab = gateway.lab.clone();
    let before = (ruleset(&lab), gateway.leftovers());
    gateway.spawn();
    let status = gateway.process().wait(PATIENCE).expect("it ends");
    let log = gateway.log();
    assert_eq!(status.code(), Some(1), "{log}");
    for said in said {
        assert!(log.contains(said), "{said:?} is not in: {log}");
    }
    assert!(!log.contains("panicked"), "{log}");
    let now = || (ruleset(&lab), gateway.leftovers());
    wait_until(
        || now() == before,
        || format!("{:?}, not {before:?}: {log}", now()),
    );
    let (answered, sent) = traffic(&lab);
    assert_eq!(answered, sent);
}

#[test]
fn a_start_with_an_interface_that_does_not_exist_fails_and_leaves_nothing() {
    require_queues!();
    let mut gateway = Gateway::prepare(&lab(), |setup| {
        setup.config.interfaces.push("absent0".into());
    });
    cannot_start(&mut gateway, &["absent0"]);
}

#[test]
fn a_start_with_a_queue_that_another_program_has_fails_and_leaves_nothing() {
    require_queues!();
    let lab = lab();
    let mut gateway = Gateway::prepare(&lab, |_| {});
    let queue = gateway.config.queue_number(Seat::Worker(1)).to_string();
    let mut other = lab.gateway().command(program());
    other.args(["accept-all", "--queue", &queue]);
    let mut other = Process::spawn(&mut other).expect("start the other program");
    other.wait_for_line("ready", PATIENCE).expect("it serves");
    cannot_start(&mut gateway, &["worker 1", &queue]);
    // With the queue free again it starts.
    other.stop(Signal::SIGTERM, PATIENCE).expect("it ends");
    gateway.launch();
}

#[test]
fn a_start_without_the_rule_file_fails_and_leaves_nothing() {
    require_queues!();
    let mut gateway = Gateway::prepare(&lab(), |setup| {
        setup.config.rules.files = vec!["/nonexistent/x.rules".into()];
    });
    cannot_start(&mut gateway, &["/nonexistent/x.rules"]);
}

#[test]
fn a_wrong_rule_is_named_and_skipped_and_the_others_are_in_force() {
    require_queues!();
    let gateway = Gateway::start(|setup| {
        setup.rules = format!("drop tcp any any -> any nowhere (sid:9;)\n{RULES}");
    });
    let status = gateway.status();
    assert_eq!((status.rules, status.rules_skipped), (2, 1), "{status}");
    let log = gateway.log();
    assert!(log.contains("test.rules:1:25"), "{log}");
    say(&gateway.lab, b"evil", End::Silence);
}

#[test]
fn workers_go_on_inspecting_without_their_supervisor_and_a_restart_takes_over() {
    require_queues!();
    let mut gateway = Gateway::start(|setup| setup.rules = RULES.into());
    let lab = gateway.lab.clone();
    let before = gateway.status();
    gateway.kill_supervisor();
    let (answered, sent) = traffic(&lab);
    assert_eq!(answered, sent, "traffic passes");
    // Rules are in force.
    say(&lab, b"evil", End::Silence);
    say(&lab, b"harmless", End::Answered);

    gateway.launch();
    let log = gateway.log();
    assert!(log.contains("adopted from a former run"), "{log}");
    assert!(log.contains("2 links"), "both TC links are adopted: {log}");
    let after = gateway.status();
    assert_ne!(after.pid, before.pid);
    let old: Vec<u32> = before.seats().map(|seat| seat.pid).collect();
    // The supervisor, the launcher, the rejecter, two workers and the backup.
    let running = await_processes(&gateway, 6);
    assert!(
        old.iter().all(|pid| !running.contains(pid)),
        "{old:?} of the former run in {running:?}"
    );
    let (answered, sent) = traffic(&lab);
    assert_eq!(answered, sent);
    say(&lab, b"evil", End::Silence);
    gateway.await_event("the drop", |event| event["event_type"] == "drop");
    assert!(gateway.stop().success());
    gateway.nothing_left();
    // Nobody inspects any more.
    say(&lab, b"evil", End::Answered);
}

#[test]
fn a_restart_with_fewer_interfaces_detaches_from_the_others() {
    require_queues!();
    let mut gateway = Gateway::start(|_| {});
    gateway.kill_supervisor();
    gateway.config.interfaces.truncate(1);
    gateway.write_config();
    gateway.launch();
    let status = gateway.status();
    assert_eq!(status.interfaces.len(), 1, "{status}");
    let through = gateway.through(|| assert_eq!(traffic(&gateway.lab), (200, 200)));
    // The replies arrive where nothing is attached any more.
    assert_eq!(through.values().sum::<u32>(), 200, "{through:?}");
    assert!(gateway.stop().success());
    gateway.nothing_left();
}

#[test]
fn a_second_instance_of_the_same_name_is_refused_and_harms_nothing() {
    require_queues!();
    let gateway = Gateway::start(|_| {});
    let lab = gateway.lab.clone();
    let before = (gateway.status(), ruleset(&lab));
    let mut second = lab.gateway().command(program());
    second.args(["run", "-c"]).arg(gateway.config_file());
    let output = second.output().expect("start sluice");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("already running"), "{said}");
    let after = gateway.status();
    assert!(all_up(&after) && gateway.pins().exists());
    let pids = |status: &sluice::metrics::snapshot::Snapshot| {
        status.seats().map(|seat| seat.pid).collect::<Vec<_>>()
    };
    assert_eq!(pids(&after), pids(&before.0));
    assert_eq!(ruleset(&lab), before.1);
    let (answered, sent) = traffic(&lab);
    assert_eq!(answered, sent);
}

#[test]
fn two_instances_share_a_gateway() {
    require_queues!();
    let lab = lab();
    let before = ruleset(&lab);
    // One looks at what clients send, the other at what servers send.
    let mut clients = Gateway::prepare(&lab, |setup| {
        setup.config.interfaces = vec![Lab::GATEWAY_CLIENT_INTERFACE.into()];
        setup.rules = RULES.into();
    });
    clients.launch();
    let with_one = ruleset(&lab);
    let mut servers = Gateway::prepare(&lab, |setup| {
        setup.config.interfaces = vec![Lab::GATEWAY_SERVER_INTERFACE.into()];
        setup.config.queue.first = 200;
        setup.config.steering.mark_mask = 0x0000_ff00;
    });
    servers.launch();
    let through = clients.through(|| assert_eq!(traffic(&lab), (200, 200)));
    let sum = |queues: std::ops::Range<u16>| -> u32 {
        through
            .iter()
            .filter(|(q, _)| queues.contains(*q))
            .map(|(_, n)| *n)
            .sum()
    };
    assert_eq!((sum(100..103), sum(200..203)), (200, 200), "{through:?}");
    say(&lab, b"evil", End::Silence);
    assert!(servers.stop().success());
    assert_eq!(ruleset(&lab), with_one);
    // The first still inspects.
    say(&lab, b"evil", End::Silence);
    assert!(clients.stop().success());
    clients.nothing_left();
    servers.nothing_left();
    assert_eq!(ruleset(&lab), before);
}

#[test]
fn sighup_reopens_the_rotated_event_log() {
    require_queues!();
    let mut gateway = Gateway::start(|setup| setup.rules = RULES.into());
    let lab = gateway.lab.clone();
    let is_alert = |event: &serde_json::Value| event["event_type"] == "alert";
    say(&lab, b"look, the first", End::Answered);
    gateway.await_event("the first alert", is_alert);
    let path = gateway.config.event_log().expect("the event log is a file");
    let rotated = path.with_extension("json.1");
    fs::rename(&path, &rotated).expect("rename");
    gateway.process().signal(Signal::SIGHUP).expect("it runs");
    wait_until(
        || path.exists(),
        || format!("not reopened: {}", gateway.log()),
    );
    let old = fs::read_to_string(&rotated).expect("the rotated log");
    assert!(old.contains("\"signature_id\":1"), "{old}");
    say(&lab, b"look, the second", End::Answered);
    gateway.await_event("the second alert", is_alert);
    assert_eq!(fs::read_to_string(&rotated).expect("the rotated log"), old);
    let status = gateway.status();
    assert_eq!(status.total(Cell::EventsLost) + status.events_failed, 0);
    assert!(gateway.stop().success());
}

#[test]
fn a_signal_at_any_moment_of_the_start_stops_it_and_leaves_nothing() {
    require_queues!();
    let lab = lab();
    let before = ruleset(&lab);
    let mut gateway = Gateway::prepare(&lab, |setup| setup.rules = RULES.into());
    let began = Instant::now();
    gateway.launch();
    let start = began.elapsed();
    assert!(gateway.stop().success());
    println!("a start takes {start:?}");
    for step in 0..12 {
        let interrupt = if step % 2 == 0 {
            Signal::SIGINT
        } else {
            Signal::SIGTERM
        };
        gateway.spawn();
        sleep(start * step / 10);
        let interrupted = Instant::now();
        gateway
            .process()
            .stop(interrupt, PATIENCE)
            .expect("it ends");
        println!(
            "{interrupt} after {:?}: ended in {:?}",
            start * step / 10,
            interrupted.elapsed()
        );
        let log = gateway.log();
        assert!(!log.contains("panicked"), "{log}");
        gateway.nothing_left();
        assert_eq!(ruleset(&lab), before, "{log}");
    }
}

#[test]
fn a_stop_ends_also_what_the_launcher_has_forked_and_not_told_of() {
    require_queues!();
    let mut gateway = Gateway::start(|_| {});
    let launcher = gateway.status().launcher.cast_signed();
    // To the supervisor a worker like any other, but for the message that never came.
    let untold = gateway.directory.path().join("sluice-7");
    fs::copy("/bin/sleep", &untold).expect("a copy");
    let mut untold = Command::new(untold);
    let untold = untold.arg("1000").process_group(launcher).spawn();
    let mut untold = untold.expect("start sleep");
    let stopped = gateway.stop();
    let ended = untold.try_wait().expect("a child");
    // It is this test's to end if it has not been.
    let _ = untold.kill();
    untold.wait().expect("a child");
    assert!(stopped.success(), "{}", gateway.log());
    assert!(ended.is_some(), "it was left running: {}", gateway.log());
}

#[test]
fn a_stop_while_a_worker_hangs_ends_all_the_same_and_leaves_nothing() {
    require_queues!();
    let mut gateway = Gateway::start(|_| {});
    let status = gateway.status();
    signal(&status.workers[0], Signal::SIGSTOP);
    signal(&status.backup, Signal::SIGSTOP);
    let began = Instant::now();
    assert!(gateway.stop().success(), "{}", gateway.log());
    println!("stopped after {:?}", began.elapsed());
    gateway.nothing_left();
}

#[test]
fn verbose_shows_packets_and_verdicts_as_they_pass() {
    require_queues!();
    let mut gateway = Gateway::prepare(&lab(), |setup| setup.rules = RULES.into());
    gateway.spawn_with(&["-v"]);
    gateway.await_ready();
    say(&gateway.lab, b"evil", End::Silence);
    let client = gateway.lab.client_v4().to_string();
    let shown = |words: &[&str]| {
        let has_all = |line: &str| words.iter().all(|word| line.contains(word));
        wait_until(
            || gateway.log().lines().any(has_all),
            || format!("no line with {words:?}: {}", gateway.log()),
        );
    };
    shown(&[&client, "tcp", ": accept"]);
    shown(&[&client, ": drop, sid 2"]);
}

#[test]
fn a_restart_that_fails_leaves_the_former_workers_inspecting_and_the_next_one_takes_over() {
    require_queues!();
    let mut gateway = Gateway::start(|setup| setup.rules = RULES.into());
    let lab = gateway.lab.clone();
    let before: Vec<u32> = gateway.status().seats().map(|seat| seat.pid).collect();
    gateway.kill_supervisor();
    let rules = gateway.config.rules.files.clone();
    gateway.config.rules.files = vec!["/nonexistent/x.rules".into()];
    // Were the new mask in force now, the old rules would not know the marks.
    gateway.config.steering.mark_mask = 0x0000_ff00;
    gateway.config.workers.count = 3;
    gateway.write_config();
    gateway.spawn();
    let ended = gateway.process().wait(PATIENCE).expect("it ends");
    assert_eq!(ended.code(), Some(1), "{}", gateway.log());
    let running = processes(&lab);
    assert!(
        before.iter().all(|pid| running.contains(pid)),
        "{before:?} in {running:?}: {}",
        gateway.log()
    );
    // Rules are in force.
    say_once(&lab, b"evil", End::Silence);
    assert_eq!(traffic(&lab), (200, 200));

    gateway.config.rules.files = rules;
    gateway.write_config();
    gateway.launch();
    let through = gateway.through(|| assert_eq!(traffic(&lab), (200, 200)));
    assert_eq!(through.len(), 3, "all workers, and no backup: {through:?}");
    assert_eq!(through.values().sum::<u32>(), 400, "{through:?}");
    say_once(&lab, b"evil", End::Silence);
    assert!(gateway.stop().success());
    gateway.nothing_left();
}

#[test]
fn a_signal_to_all_processes_at_once_does_what_it_does_to_the_supervisor() {
    require_queues!();
    let mut gateway = Gateway::start(|_| {});
    let lab = gateway.lab.clone();
    let signal_all = |signal| {
        for pid in processes(&lab) {
            let pid = Pid::from_raw(i32::try_from(pid).expect("a process id"));
            // With SIGTERM they begin to end while this goes on.
            let sent = kill(pid, signal);
            assert!(matches!(sent, Ok(()) | Err(Errno::ESRCH)), "{sent:?}");
        }
    };
    let before = await_processes(&gateway, 6);
    signal_all(Signal::SIGHUP);
    sleep(Duration::from_millis(100));
    assert_eq!(await_processes(&gateway, 6), before, "{}", gateway.log());
    signal_all(Signal::SIGTERM);
    let ended = gateway.process().wait(PATIENCE).expect("it ends");
    assert!(ended.success(), "{}", gateway.log());
    gateway.nothing_left();
}

#[test]
fn what_hung_workers_have_queued_passes_at_a_stop_if_it_fails_open() {
    require_queues!();
    let mut gateway = Gateway::start(|setup| {
        // Nobody is replaced before the stop.
        setup.config.steering.stale_ms = 60_000;
        setup.config.workers.hang_max_ms = 60_000;
    });
    let lab = gateway.lab.clone();
    let status = gateway.status();
    for seat in status.seats() {
        signal(seat, Signal::SIGSTOP);
    }
    let address = lab.server_v4().into();
    let replier = Replier::start(lab.server(), address, 0).expect("a server");
    let plan = RequestPlan {
        flows: 8,
        requests: 1,
        patience: PATIENCE,
        ..RequestPlan::to(replier.address())
    };
    let requester = Requester::start(lab.client(), plan);
    gateway.await_status("something queued", |status| {
        status.seats().any(|seat| seat.kernel.waiting > 0)
    });
    assert!(gateway.stop().success(), "{}", gateway.log());
    let report = requester.finish().expect("requests");
    assert_eq!((report.lost, report.corrupt), (0, 0), "{report:?}");
    assert!(
        gateway.log().contains("still queued: Accept"),
        "{}",
        gateway.log()
    );
    gateway.nothing_left();
}

#[test]
fn an_interface_that_goes_away_and_comes_back_is_steered_again() {
    require_queues!();
    let lab = lab();
    let pair = [
        "link", "add", "name", "x0", "type", "veth", "peer", "name", "x1",
    ];
    let ip = |arguments: &[&str]| lab.gateway().run("ip", arguments).expect("ip");
    ip(&pair);
    let mut gateway = Gateway::prepare(&lab, |setup| setup.config.interfaces.push("x0".into()));
    gateway.launch();
    ip(&["link", "delete", "x0"]);
    gateway.await_log("x0 is gone");
    ip(&pair);
    gateway.await_log("x0 is another interface now");
    let attached = || {
        let query = || SchedClassifier::query_tcx("x0", TcAttachType::Ingress);
        let (_, programs) = lab.gateway().enter(query).expect("tcx");
        programs.len()
    };
    wait_until(|| attached() == 1, || gateway.log());
    assert!(gateway.stop().success());
    gateway.nothing_left();
    assert_eq!(attached(), 0);
}
