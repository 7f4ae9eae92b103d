//! Other rules and settings under running workers: what changes, what stays, and what it costs.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Output;
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use sluice::control::{self, Request, Response};
use sluice::metrics::board::Cell;
use sluice::metrics::snapshot::{Snapshot, Worker};
use sluice::supervisor::reload::Reloaded;
use sluice_tests::datagram::{Replier, RequestPlan, Requester};
use sluice_tests::elsewhere::Elsewhere;
use sluice_tests::patience::wait_until;
use sluice_tests::witness::{SILENCE, Witness};
use sluice_tests::{queue_state, require_queues, rule_set};

use crate::load::{Load, nothing_lost, requests};
use crate::rig::{self, Gateway, all_up, alone, lab, seat, signal, sluice};
use crate::succession::{replace_launcher, stop_compiler, upgrade};

/// Compiling many rules takes long in a debug build.
const PATIENCE: Duration = Duration::from_secs(120);

fn try_reload(gateway: &Gateway) -> Result<Reloaded, String> {
    try_reload_as(gateway, false)
}

fn try_reload_as(gateway: &Gateway, lenient: bool) -> Result<Reloaded, String> {
    let path = gateway.config.control_socket();
    let deadline = Instant::now() + PATIENCE;
    loop {
        match control::ask(&path, &Request::Reload { lenient }).expect("an answer") {
            Response::Ok(value) => {
                return Ok(serde_json::from_value(value).expect("what came of it"));
            }
            // Whoever was relieved just now may not have been seen to end.
            Response::Error(message)
                if message.contains("being relieved") && Instant::now() < deadline =>
            {
                sleep(Duration::from_millis(5));
            }
            Response::Error(message) => return Err(message),
        }
    }
}

pub(crate) fn reload(gateway: &Gateway) -> Reloaded {
    try_reload(gateway).unwrap_or_else(|error| panic!("{error}\n{}", gateway.log()))
}

fn reload_by_command(gateway: &Gateway, more: &[&str]) -> Output {
    let file = gateway.config_file();
    let file = file.to_str().expect("a path in UTF-8");
    sluice(&[&["reload", "-c", file], more].concat())
}

fn write_rules(gateway: &Gateway, text: &str) {
    fs::write(&gateway.config.rules.files[0], text).expect("write the rules");
}

/// A rule about TCP for each of these contents.
fn rules(rules: &[(&str, &str)]) -> String {
    let rule = |(sid, (action, content)): (usize, &(&str, &str))| {
        format!("{action} tcp any any -> any any (content:\"{content}\"; sid:{sid};)\n")
    };
    (1..).zip(rules).map(rule).collect()
}

/// A connection through the gateway, to somebody who says everything back.
struct Connection(TcpStream);

impl Connection {
    fn open(gateway: &Gateway, server: &Witness) -> Self {
        let stream = gateway
            .lab
            .client()
            .enter(|| TcpStream::connect(server.address()).expect("a connection"));
        let mut connection = Self(stream);
        connection.says("good morning");
        connection
    }

    /// Fails unless this gets there and back.
    #[track_caller]
    fn says(&mut self, text: &str) {
        let answered = self.is_answered(text, rig::PATIENCE);
        assert!(answered, "{text:?} is not answered");
    }

    /// Fails unless this does not.
    #[track_caller]
    fn says_in_vain(&mut self, text: &str) {
        let answered = self.is_answered(text, SILENCE);
        assert!(!answered, "{text:?} is answered");
    }

    fn is_answered(&mut self, text: &str, patience: Duration) -> bool {
        self.0.set_read_timeout(Some(patience)).expect("a time");
        self.0.write_all(text.as_bytes()).expect("sent");
        let mut answer = vec![0; text.len()];
        self.0.read_exact(&mut answer).is_ok() && answer == text.as_bytes()
    }
}

#[test]
fn rules_change_under_traffic_and_flows_keep_what_was_decided_about_them() {
    require_queues!();
    let _alone = alone();
    let gateway = Gateway::start(|setup| {
        setup.rules = rules(&[("drop", "old attack"), ("pass", "old friend")]);
        // So that it is the workers that know about dropped flows.
        setup.config.conviction.enabled = false;
    });
    let before = gateway.status();
    assert_eq!((before.generation, before.rules), (1, 2));
    let address = gateway.lab.server_v4().into();
    let server = Witness::start(gateway.lab.server(), address, 0).expect("a server");
    let mut attacker = Connection::open(&gateway, &server);
    let mut friend = Connection::open(&gateway, &server);
    let mut ordinary = Connection::open(&gateway, &server);
    attacker.says_in_vain("old attack");
    friend.says("old friend");
    let elsewhere = Elsewhere::watch(&gateway.lab).expect("the kernel's counters");
    let (_replier, requester) = requests(&gateway, 3000);
    sleep(Duration::from_millis(500));
    // Three connections, and those of the requests.
    let known = gateway.await_status("every flow known", |status| {
        status.total(Cell::FlowsCreated) == 3 + 16
    });
    let created = known.total(Cell::FlowsCreated);

    write_rules(
        &gateway,
        &rules(&[
            ("drop", "new attack"),
            ("alert", "curious"),
            ("drop", "again"),
        ]),
    );
    let reloaded = reload_by_command(&gateway, &["--json"]);
    assert!(reloaded.status.success(), "{reloaded:?}");
    let reloaded: Reloaded = serde_json::from_slice(&reloaded.stdout).expect("JSON");
    println!("{reloaded:?}");
    assert_eq!((reloaded.generation, reloaded.seats), (2, 3));
    assert_eq!((reloaded.compiled.rules, reloaded.compiled.skipped), (3, 0));
    assert!(reloaded.compiled.image_bytes > 0);
    assert!(reloaded.compiled.peak_bytes > reloaded.compiled.image_bytes);

    // A dropped flow stays dropped, a passed one passed.
    attacker.says_in_vain("more");
    friend.says("new attack");
    // The old rules are gone, the new ones in force.
    ordinary.says("old attack");
    ordinary.says("curious");
    ordinary.says_in_vain("new attack");
    gateway.await_event("the new rule's alert", |event| {
        event["alert"]["signature_id"] == 2 && event["event_type"] == "alert"
    });
    let event = gateway.await_event("the reload", |event| event["sluice"]["event"] == "reloaded");
    assert_eq!(event["event_type"], "sluice");
    assert_eq!(event["sluice"]["generation"], 2, "{event}");
    assert_eq!(event["sluice"]["rules"], 3, "{event}");

    let status = gateway.status();
    assert_eq!(status.total(Cell::FlowsCreated), created, "{status}");
    assert_eq!(status.total(Cell::FlowsMidstream), 0, "{status}");
    assert_eq!((status.generation, status.rules), (2, 3));
    assert_eq!(status.image_bytes, reloaded.compiled.image_bytes);
    for worker in status.seats() {
        assert_eq!(worker.generation, 2, "{status}");
        assert_eq!(worker.pid, seat(&before, worker).pid, "{status}");
    }
    nothing_lost(&requester.finish().expect("requests"), &elsewhere, &gateway);
    gateway.await_settled();
}

#[test]
fn a_compilation_without_end_is_given_up_and_the_next_one_succeeds() {
    require_queues!();
    let gateway = Gateway::start(|setup| setup.config.rules.compile_seconds = 3);
    write_rules(&gateway, &rule_set::rules(rule_set::LARGE));
    let why = thread::scope(|scope| {
        let reloading = scope.spawn(|| try_reload(&gateway).unwrap_err());
        let _stopped = stop_compiler(&gateway);
        reloading.join().expect("an answer")
    });
    assert!(why.contains("within 3 s (rules.compile_seconds)"), "{why}");
    assert_eq!(gateway.status().generation, 1);
    // What is no regular file is not even begun with.
    fs::remove_file(&gateway.config.rules.files[0]).expect("remove the rules");
    nix::unistd::mkfifo(
        &gateway.config.rules.files[0],
        nix::sys::stat::Mode::S_IRWXU,
    )
    .expect("a pipe");
    let why = try_reload(&gateway).unwrap_err();
    assert!(why.contains("test.rules: not a regular file"), "{why}");
    fs::remove_file(&gateway.config.rules.files[0]).expect("remove the pipe");
    write_rules(&gateway, "");
    assert_eq!(reload(&gateway).generation, 4);
}

#[test]
fn settings_change_under_traffic() {
    require_queues!();
    let mut gateway = Gateway::start(|setup| setup.config.log.stats_seconds = 0);
    let load = Load::start(&gateway, gateway.lab.server_v4().into());
    gateway.config.steering.stale_ms = 1500;
    gateway.config.queue.length = 16;
    // So short a queue is full now and then, and nothing is to be shed for that here.
    gateway.config.overload.queue_percent = 100;
    gateway.config.log.stats_seconds = 1;
    gateway.config.flow.max = 100;
    gateway.config.flow.established_seconds = 1;
    gateway.config.flow.new_seconds = 1;
    gateway.write_config();
    assert_eq!(reload(&gateway).generation, 2);
    gateway.await_event("stats", |event| event["event_type"] == "stats");
    // Not all become flows: where the short queue is full they pass or are shed.
    let forgotten = || {
        let before = gateway.status();
        let (_replier, requester) = requests(&gateway, 50);
        let report = requester.finish().expect("requests");
        assert_eq!(report.answered, 50, "{report:?}");
        sleep(Duration::from_millis(1500));
        let after = gateway.status();
        let more = |cell| after.total(cell) - before.total(cell);
        let (created, expired) = (more(Cell::FlowsCreated), more(Cell::FlowsExpired));
        println!("{expired} of {created} flows forgotten");
        // Not more either: those would be of requests before, and too late.
        created > 0 && expired == created
    };
    wait_until(forgotten, || {
        format!("idle for a second and not forgotten: {}", gateway.status())
    });
    // The limit of the queue, seen from outside: with everybody stopped it fills up to there.
    let worker = gateway.busiest();
    gateway.process().signal(Signal::SIGSTOP).expect("it runs");
    signal(&worker, Signal::SIGSTOP);
    let waiting = || {
        let queue = queue_state::of(gateway.lab.gateway(), worker.queue);
        queue.expect("the queues").expect("its queue").waiting
    };
    wait_until(|| waiting() > 0, || "nothing waits".to_owned());
    sleep(Duration::from_millis(500));
    let waiting = waiting();
    signal(&worker, Signal::SIGCONT);
    gateway.process().signal(Signal::SIGCONT).expect("it runs");
    assert!((1..=17).contains(&waiting), "{waiting}");
    load.finish();
}

#[test]
fn a_reload_that_cannot_be_done_changes_nothing_and_says_why() {
    require_queues!();
    let gateway = Gateway::start(|setup| setup.rules = rules(&[("drop", "attack")]));
    let before = gateway.status();
    let good = fs::read_to_string(gateway.config_file()).expect("the configuration");
    let check = |change: &dyn Fn(&str) -> String, said: &[&str]| {
        fs::write(gateway.config_file(), change(&good)).expect("write");
        // By a file that is not broken, as the file also says where the instance is found.
        let answer = try_reload(&gateway).expect_err("a refusal");
        for said in said {
            assert!(answer.contains(said), "{said:?} is not in: {answer}");
        }
    };
    check(
        &|good| format!("{good}\nno such line\n"),
        &["sluice.toml:", ": "],
    );
    check(&|_| "fail = \"perhaps\"\n".into(), &["sluice.toml:1:8"]);
    check(
        &|good| good.replace("stale_ms = 3000", "stale_ms = 1"),
        &["steering.stale_ms"],
    );
    check(
        &|good| good.replace("test.rules", "missing.rules"),
        &["missing.rules", "No such file"],
    );
    check(
        &|good| {
            good.replace(
                "[rules.variables]",
                "[rules.variables]\nHOME_NET = \"10.0.0.0/33\"",
            )
        },
        &["rules.variables.HOME_NET", "/33"],
    );
    check(
        &|good| good.replace("classification = \"\"", "classification = \"/none\""),
        &["/none"],
    );
    check(
        &|good| {
            good.replace("count = 2", "count = 3")
                .replace("hook = \"forward\"", "hook = \"input\"")
                .replace("mark_mask = 16711680", "mark_mask = 65280")
        },
        &[
            "workers.count cannot be changed by a reload: use `sluice scale`",
            "netfilter.hook cannot be changed",
            "steering.mark_mask cannot be changed",
        ],
    );
    // What the command says, and its exit status.
    fs::write(
        gateway.config_file(),
        good.replace("test.rules", "missing.rules"),
    )
    .expect("write");
    let refused = reload_by_command(&gateway, &[]);
    assert_eq!(refused.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&refused.stderr);
    assert!(errors.contains("missing.rules"), "{errors}");
    let event = gateway.await_event("the failure", |event| {
        event["sluice"]["why"]
            .as_str()
            .is_some_and(|it| it.contains("missing.rules"))
    });
    assert_eq!(event["sluice"]["event"], "reload_failed");

    let after = gateway.status();
    assert_eq!((after.generation, after.rules), (1, 1), "{after}");
    for worker in after.seats() {
        assert_eq!(
            (worker.generation, worker.pid),
            (1, seat(&before, worker).pid)
        );
    }
    let address = gateway.lab.server_v4().into();
    let server = Witness::start(gateway.lab.server(), address, 0).expect("a server");
    Connection::open(&gateway, &server).says_in_vain("attack");
    // Rules that are wrong keep all as it is, unless they shall be skipped, as at a start.
    fs::write(gateway.config_file(), &good).expect("write");
    write_rules(
        &gateway,
        "alert tcp nonsense\nalert tcp any any -> any any (sid:7;)\n",
    );
    let why = try_reload(&gateway).expect_err("a wrong rule");
    assert!(
        why.contains("errors in the rules") && why.contains(".rules:1:"),
        "{why}"
    );
    assert_eq!(gateway.status().generation, 1);
    let reloaded = try_reload_as(&gateway, true).expect("reloaded");
    assert_eq!((reloaded.compiled.rules, reloaded.compiled.wrong), (1, 1));
    Connection::open(&gateway, &server).says("attack");
}

/// Memory of a process that is in its page tables, and how often it has mapped rules.
fn memory(pid: u32) -> (u64, usize) {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("its memory");
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("its mappings");
    (
        figure(&rollup, "Rss:"),
        maps.matches("sluice-rules").count(),
    )
}

/// A line of smaps_rollup, in KiB.
fn figure(rollup: &str, name: &str) -> u64 {
    let line = rollup.lines().find_map(|line| line.strip_prefix(name));
    let figure = line.and_then(|line| line.split_whitespace().next());
    figure.and_then(|it| it.parse().ok()).expect("a figure")
}

fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("its descriptors")
        .count()
}

/// Which files with rules a process has open; to be mapped an image need not be.
fn rule_files_held(pid: u32) -> Vec<String> {
    let held = fs::read_dir(format!("/proc/{pid}/fd")).expect("its descriptors");
    let held = held.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    let held = held.map(|file| file.to_string_lossy().into_owned());
    held.filter(|file| file.contains("sluice-rule")).collect()
}

#[test]
fn another_launcher_has_the_rules_in_force_whatever_their_files_say_by_then() {
    require_queues!();
    let _alone = alone();
    let text = rules(&[("drop", "old attack")]);
    let gateway = Gateway::start(|setup| setup.rules.clone_from(&text));
    let before = gateway.status();
    assert!(before.source_bytes > text.len() as u64, "{before}");
    let address = gateway.lab.server_v4().into();
    let server = Witness::start(gateway.lab.server(), address, 0).expect("a server");
    let drops = |dropped: &str, others: &[&str]| {
        Connection::open(&gateway, &server).says_in_vain(dropped);
        let mut ordinary = Connection::open(&gateway, &server);
        for other in others {
            ordinary.says(other);
        }
    };
    let in_force = |generation: u32, after: &Snapshot| {
        assert_eq!(after.generation, generation, "{after}");
        assert!(after.seats().all(|seat| seat.generation == generation));
        assert_eq!((after.rules, after.rules_skipped), (1, 0), "{after}");
    };
    drops("old attack", &["new attack"]);
    let new = rules(&[("drop", "new attack")]);
    for other in [&new[..], "nonsense\n"] {
        write_rules(&gateway, other);
        let after = replace_launcher(&gateway);
        in_force(1, &after);
        assert_eq!(after.source_bytes, before.source_bytes);
        drops("old attack", &["new attack"]);
    }
    // Nor does a reload that fails leave anything behind that could be used.
    try_reload(&gateway).expect_err("nonsense");
    fs::remove_file(&gateway.config.rules.files[0]).expect("no file at all");
    in_force(1, &replace_launcher(&gateway));
    drops("old attack", &["new attack"]);

    write_rules(&gateway, &new);
    let reloaded = reload(&gateway);
    println!("{reloaded:?}");
    // The second try: a number is used once.
    assert_eq!(reloaded.generation, 3);
    drops("new attack", &["old attack"]);
    write_rules(&gateway, &text);
    in_force(3, &replace_launcher(&gateway));
    drops("new attack", &["old attack"]);
    // Another program may understand other rules: it reads the files itself.
    upgrade(&gateway);
    in_force(4, &gateway.status());
    drops("old attack", &["new attack"]);
}

#[test]
fn fifty_reloads_in_a_row_lose_nothing_and_leave_nothing_behind() {
    require_queues!();
    let _alone = alone();
    let gateway = Gateway::start(|setup| setup.rules = rule_set::rules(200));
    let load = Load::start(&gateway, gateway.lab.server_v4().into());
    let elsewhere = Elsewhere::watch(&gateway.lab).expect("the kernel's counters");
    let address = gateway.lab.server_v4().into();
    let replier = Replier::start(gateway.lab.server(), address, 0).expect("a server");
    let plan = RequestPlan {
        flows: 16,
        requests: 4000,
        interval: Duration::from_millis(5),
        ..RequestPlan::to(replier.address())
    };
    let requester = Requester::start(gateway.lab.client(), plan);
    let before = gateway.status();
    let pids: Vec<u32> = before.seats().map(|seat| seat.pid).collect();
    let measure = || {
        let open: Vec<usize> = pids
            .iter()
            .chain([&before.pid])
            .map(|pid| descriptors(*pid))
            .collect();
        let memory: Vec<_> = pids.iter().map(|pid| memory(*pid)).collect();
        (open, memory)
    };
    let mut early = None;
    let since = Instant::now();
    for round in 1..=50 {
        write_rules(&gateway, &rule_set::rules(200 + round % 7));
        let reloaded = reload(&gateway);
        assert_eq!(reloaded.generation, 1 + round);
        assert_eq!(reloaded.compiled.rules, u64::from(200 + round % 7));
        if round == 7 {
            // A client of the control socket, or a program that looks at the rules, may be going
            // just now: what is open for good is open each time.
            let looks = (0..10).map(|_| {
                sleep(Duration::from_millis(30));
                measure()
            });
            early = looks.min_by_key(|(open, _)| open.iter().sum::<usize>());
        }
    }
    println!("50 reloads in {:?}", since.elapsed());
    let (open_early, memory_early) = early.expect("measured");
    // A client of the control socket may be going just now.
    let deadline = Instant::now() + PATIENCE;
    while measure().0 != open_early && Instant::now() < deadline {
        sleep(Duration::from_millis(50));
    }
    let (open, memory) = measure();
    println!("descriptors {open_early:?}, then {open:?}; memory {memory_early:?}, then {memory:?}");
    assert_eq!(open, open_early);
    let bytes = |worker: &Worker| worker.cell(Cell::Bytes);
    let status = gateway.status();
    let busiest = status.seats().map(bytes).max();
    let memory = memory.iter().zip(&memory_early);
    for (worker, ((rss, mapped), (rss_early, _))) in status.seats().zip(memory) {
        assert_eq!(*mapped, 1, "old rules are still mapped");
        // A window of the stream is put together in one of them; how much of it there is at a
        // time depends on when its receiver gets a CPU.
        let stream = match Some(bytes(worker)) == busiest {
            true => 16 << 10,
            false => 0,
        };
        assert!(
            *rss < rss_early + 2048 + stream,
            "{rss_early} KiB have grown to {rss}"
        );
    }
    nothing_lost(&requester.finish().expect("requests"), &elsewhere, &gateway);
    load.finish();
    let after = gateway.await_settled();
    for worker in after.seats() {
        assert_eq!(worker.pid, seat(&before, worker).pid, "{after}");
    }
    assert_eq!(after.total(Cell::FlowsMidstream), 0, "{after}");
}

#[test]
fn a_reload_reaches_everybody_while_workers_are_killed() {
    require_queues!();
    let _alone = alone();
    let gateway = Gateway::start(|setup| {
        setup.rules = rule_set::rules(200);
        setup.config.workers.restart_pause_max_ms = 20;
    });
    let load = Load::start(&gateway, gateway.lab.server_v4().into());
    for round in 1..=10 {
        let status = gateway.await_status("up", all_up);
        let reloaded = thread::scope(|scope| {
            let reloaded = scope.spawn(|| reload(&gateway));
            // At another moment of the reload each time.
            sleep(Duration::from_millis(u64::from(round) * 12));
            let victims: Vec<_> = status.seats().collect();
            signal(victims[round as usize % victims.len()], Signal::SIGKILL);
            reloaded.join().expect("reloaded")
        });
        assert_eq!(reloaded.generation, 1 + round);
        gateway.await_status("everybody with the new rules", |status| {
            all_up(status) && status.seats().all(|seat| seat.generation == 1 + round)
        });
    }
    load.await_progress(1 << 20);
    load.finish();
    gateway.await_settled();
}

#[test]
fn a_worker_that_does_not_take_over_is_replaced_by_one_that_has() {
    require_queues!();
    let gateway = Gateway::start(|setup| setup.rules = rule_set::rules(10));
    let status = gateway.status();
    let stuck = &status.workers[0];
    signal(stuck, Signal::SIGSTOP);
    assert_eq!(reload(&gateway).generation, 2);
    let after = gateway.await_status("up", all_up);
    assert_ne!(seat(&after, stuck).pid, stuck.pid, "{after}");
    assert!(after.seats().all(|seat| seat.generation == 2), "{after}");
    let other = &status.workers[1];
    assert_eq!(seat(&after, other).pid, other.pid, "{after}");
}

#[test]
fn a_second_reload_at_the_same_time_is_refused_and_workers_are_replaced_meanwhile() {
    require_queues!();
    let gateway = Gateway::start(|_| {});
    write_rules(&gateway, &rule_set::rules(rule_set::LARGE / 8));
    thread::scope(|scope| {
        let first = scope.spawn(|| reload(&gateway));
        // Until all has been looked at.
        let compiler = stop_compiler(&gateway);
        let refused = try_reload(&gateway).expect_err("a refusal");
        assert!(refused.contains("a reload is going on"), "{refused}");
        // The launcher is not busy compiling.
        let status = gateway.status();
        assert_eq!(status.generation, 1, "{status}");
        signal(&status.workers[1], Signal::SIGKILL);
        let replaced = gateway.await_status("replaced", |now| {
            let successor = seat(now, &status.workers[1]);
            successor.state == "up" && successor.pid != status.workers[1].pid
        });
        assert_eq!(replaced.generation, 1, "{replaced}");
        // Otherwise the files that were being filled would stay in memory as long as it lives.
        let pid = seat(&replaced, &status.workers[1]).pid;
        assert_eq!(rule_files_held(pid), Vec::<String>::new());
        drop(compiler);
        assert_eq!(first.join().expect("reloaded").generation, 2);
    });
    let status = gateway.status();
    assert!(status.seats().all(|seat| seat.generation == 2), "{status}");
    assert_eq!(reload(&gateway).generation, 3);
}

/// Proportional set size of all workers and the backup, and of each, in KiB: what shared pages
/// count is divided by how many processes share them.
fn proportional_set_size(gateway: &Gateway) -> (u64, Vec<u64>) {
    let status = gateway.status();
    // All of the rules are in the page tables of idle workers after a while.
    let image_kib = status.image_bytes >> 10;
    let deadline = Instant::now() + PATIENCE;
    while status.seats().any(|seat| memory(seat.pid).0 < image_kib) {
        assert!(Instant::now() < deadline, "never warm");
        sleep(Duration::from_millis(50));
    }
    let of_each: Vec<u64> = status
        .seats()
        .map(|seat| {
            let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", seat.pid));
            figure(&rollup.expect("its memory"), "Pss:")
        })
        .collect();
    (of_each.iter().sum(), of_each)
}

#[test]
fn sixteen_idle_workers_with_many_rules_take_at_most_twice_the_memory_of_one() {
    require_queues!();
    let _alone = alone();
    let lab = lab();
    let [one, sixteen] = [1, 16].map(|workers| {
        let mut gateway = Gateway::prepare(&lab, |setup| {
            setup.config.workers.count = workers;
            setup.rules = rule_set::rules(rule_set::LARGE);
        });
        gateway.spawn();
        let deadline = Instant::now() + PATIENCE;
        while gateway.try_status().is_none() && Instant::now() < deadline {
            sleep(Duration::from_millis(50));
        }
        gateway.await_ready();
        let status = gateway.status();
        assert_eq!(status.rules, u64::from(rule_set::LARGE));
        let (all, of_each) = proportional_set_size(&gateway);
        println!(
            "{workers} workers and the backup: {all} KiB ({of_each:?}); rules {} KiB, compiled \
             with {} KiB",
            status.image_bytes >> 10,
            status.compile_peak_bytes >> 10
        );
        gateway.stop();
        all
    });
    assert!(sixteen <= 2 * one, "{sixteen} KiB, and {one} KiB");
}
