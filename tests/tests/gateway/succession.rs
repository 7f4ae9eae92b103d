//! Other processes take over: a new program, a new supervisor, a new launcher. Nothing is lost,
//! and no flow is learned anew.

use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use sluice::control::{self, Request, Response};
use sluice::metrics::board::Cell;
use sluice::metrics::snapshot::Snapshot;
use sluice_tests::datagram::{Replier, RequestPlan, Requester};
use sluice_tests::elsewhere::{Elsewhere, attribute};
use sluice_tests::require_queues;
use sluice_tests::stream::{Extent, Sender, Sink};

use crate::load::{await_replaced, nothing_lost, requests};
use crate::reload::reload;
use crate::rig::{Gateway, PATIENCE, all_up, alone, every_id_received, processes, program, signal};

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
                    Extent::Time(Duration::from_secs(40)),
                );
                (sink, sender)
            })
        });
        let streams: Vec<_> = streams.collect();
        let replier = Replier::start(lab.server(), lab.server_v4().into(), 0).expect("a server");
        let plan = RequestPlan {
            flows: 16,
            requests,
            patience: Duration::from_secs(5),
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
            let (before, deadline) = (sink.received(), Instant::now() + PATIENCE);
            while sink.received() < before + (1 << 20) {
                assert!(Instant::now() < deadline, "a stream stands still");
                sleep(Duration::from_millis(1));
            }
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
    let request = Request::Upgrade { program: program() };
    let deadline = Instant::now() + PATIENCE;
    let ask = || control::ask(&gateway.config.control_socket(), &request).expect("an answer");
    let mut answer = ask();
    // Whoever was relieved just now may not have been seen to end.
    while matches!(&answer, Response::Error(why) if why.contains("try again in a moment")) {
        assert!(Instant::now() < deadline, "{answer:?}");
        sleep(Duration::from_millis(5));
        answer = ask();
    }
    assert!(matches!(answer, Response::Ok(_)), "{answer:?}");
}

pub(crate) fn upgrade(gateway: &Gateway) {
    let before = gateway.status();
    ask_for_upgrade(gateway);
    await_upgraded(gateway, before.upgrades + 1);
}

/// Waits until so many programs have taken over and the last one serves.
pub(crate) fn await_upgraded(gateway: &Gateway, upgrades: u64) -> Snapshot {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let after = gateway.try_status();
        if let Some(after) = after.filter(|it| it.upgrades >= upgrades && all_up(it)) {
            return after;
        }
        assert!(
            Instant::now() < deadline,
            "not upgraded:\n{}",
            gateway.log()
        );
        sleep(Duration::from_millis(10));
    }
}

/// Kills the launcher and waits until another one has relieved all workers.
pub(crate) fn replace_launcher(gateway: &Gateway) -> Snapshot {
    let before = gateway.status();
    let known = pids(&before);
    let launcher = nix::unistd::Pid::from_raw(before.launcher.cast_signed());
    nix::sys::signal::kill(launcher, Signal::SIGKILL).expect("kill the launcher");
    gateway.await_status("replaced", |status| {
        status.launcher_restarts == before.launcher_restarts + 1
            && all_up(status)
            && pids(status).iter().all(|pid| !known.contains(pid))
    })
}

/// The supervisor, the launcher, the rejecter, two workers and the backup, and after a moment
/// nobody else: a former rejecter ends with the last of its workers.
fn nobody_has_stayed_behind(gateway: &Gateway) {
    let deadline = Instant::now() + Duration::from_secs(2);
    while processes(&gateway.lab).len() > 6 && Instant::now() < deadline {
        sleep(Duration::from_millis(5));
    }
    assert_eq!(processes(&gateway.lab).len(), 6, "{}", gateway.log());
}

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
    nobody_has_stayed_behind(&gateway);
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
    std::fs::write(gateway.config_file(), "nmae = 1").expect("write");
    let request = Request::Upgrade { program: program() };
    let answer = control::ask(&gateway.config.control_socket(), &request).expect("an answer");
    assert!(
        matches!(&answer, Response::Error(why) if why.contains("nmae")),
        "{answer:?}"
    );
    assert_eq!(pids(&gateway.status()), pids(&before));
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
    nobody_has_stayed_behind(&gateway);
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
    nobody_has_stayed_behind(&gateway);
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
    let deadline = Instant::now() + Duration::from_secs(2);
    while !gateway.leftovers().is_empty() && Instant::now() < deadline {
        sleep(Duration::from_millis(5));
    }
    assert_eq!(gateway.leftovers(), Vec::<String>::new(), "{log}");
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
        let launcher = nix::unistd::Pid::from_raw(launcher);
        nix::sys::signal::kill(launcher, Signal::SIGKILL).expect("kill the launcher");
        let compiled = "a new launcher has compiled";
        gateway
            .process()
            .wait_for_line(compiled, PATIENCE)
            .expect("it says so");
        sleep(Duration::from_millis(15) * step);
        stops_quickly(&mut gateway);
    }
}
