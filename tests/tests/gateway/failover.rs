//! Workers die and hang under load, and what the ends of the connections notice of it.
//!
//! The bounds on times are loose, because the machine may be busy: what is measured is printed,
//! and `cargo xtask run` checks the tighter promises.

use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use sluice::config::Transport;
use sluice::metrics::board::Cell;
use sluice::metrics::snapshot::{Snapshot, Worker};
use sluice::netfilter::Fail;
use sluice_tests::datagram::{Replier, RequestPlan, RequestReport, Requester};
use sluice_tests::elsewhere::{Elsewhere, attribute};
use sluice_tests::require_queues;
use sluice_tests::stream::{Extent, Sender, SenderReport, Sink};

use crate::rig::{Gateway, Setup, all_up, alone, processes, seat, signal};

/// What a kill may cost on a busy machine.
const GAP: Duration = Duration::from_millis(500);
/// A worker hangs when it has not beaten for so long.
const STALE_MS: u64 = 400;
/// The stream runs for so long before anything happens to it.
const BEFORE: Duration = Duration::from_millis(500);

/// A stream through the gateway.
struct Load {
    sink: Sink,
    sender: Sender,
}

impl Load {
    fn start(gateway: &Gateway, address: std::net::IpAddr) -> Self {
        let sink = Sink::start(gateway.lab.server(), address, 0).expect("a server");
        let forever = Extent::Time(Duration::from_secs(60));
        let sender = Sender::start(gateway.lab.client(), sink.address(), forever);
        let load = Self { sink, sender };
        sleep(BEFORE);
        load.await_progress(1 << 20);
        load.sink.reset_longest_gap();
        load
    }

    /// Waits until so many more bytes have come.
    fn await_progress(&self, bytes: u64) {
        let goal = self.sink.received() + bytes;
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.sink.received() < goal {
            let faults = self.sink.faults();
            assert!(
                faults.is_empty() && Instant::now() < deadline,
                "the stream stands at {}: {faults:?}",
                self.sink.received()
            );
            sleep(Duration::from_millis(1));
        }
    }

    /// Ends the stream; fails unless every byte has come, and right.
    fn finish(self) -> SenderReport {
        let sent = self.sender.stop();
        assert_eq!(self.sink.faults(), Vec::<String>::new());
        assert_eq!(sent.error, None);
        assert_eq!(self.sink.received(), sent.sent);
        assert_eq!((self.sink.accepted(), self.sink.finished()), (1, 1));
        println!("{} MiB in {:?}", sent.sent >> 20, sent.elapsed);
        sent
    }
}

fn await_replaced(gateway: &Gateway, dead: &Worker) -> Snapshot {
    gateway.await_status("replaced", |status| {
        let successor = seat(status, dead);
        successor.state == "up" && successor.pid != dead.pid
    })
}

/// Requests at a moderate rate over some flows, with a reply to each.
fn requests(gateway: &Gateway, requests: u64) -> (Replier, Requester) {
    let address = gateway.lab.server_v4().into();
    let replier = Replier::start(gateway.lab.server(), address, 0).expect("a server");
    let plan = RequestPlan {
        flows: 16,
        requests,
        patience: Duration::from_secs(5),
        ..RequestPlan::to(replier.address())
    };
    let requester = Requester::start(gateway.lab.client(), plan);
    (replier, requester)
}

/// What full rings and buffers of the test's own ends lost is not counted.
fn nothing_lost(report: &RequestReport, elsewhere: &Elsewhere, gateway: &Gateway) {
    let elsewhere = elsewhere.lost(&gateway.lab).expect("the kernel's counters");
    println!("{report:?}, lost elsewhere: {elsewhere}");
    let (by_sluice, _) = attribute(report.lost, elsewhere);
    assert_eq!(
        (by_sluice, report.corrupt, report.duplicates),
        (0, 0, 0),
        "{report:?}"
    );
}

#[test]
fn a_tcp_stream_survives_the_kill_of_its_worker() {
    require_queues!();
    let _alone = alone();
    let gateway = Gateway::start(|_| {});
    for address in gateway.lab.server_addresses() {
        gateway.await_status("up", all_up);
        let load = Load::start(&gateway, address);
        let victim = gateway.busiest();
        signal(&victim, Signal::SIGKILL);
        load.await_progress(8 << 20);
        println!("{address}: longest gap {:?}", load.sink.longest_gap());
        assert!(load.sink.longest_gap() < GAP);
        let status = await_replaced(&gateway, &victim);
        let successor = seat(&status, &victim);
        assert_eq!(successor.restarts, victim.restarts + 1);
        assert_eq!(successor.queue, victim.queue);
        let how = successor.last_exit.as_deref().unwrap_or_default();
        assert!(how.contains("SIGKILL"), "{how:?}");
        load.finish();
        gateway.await_settled();
    }
}

#[test]
fn a_tcp_stream_survives_a_kill_of_whoever_serves_it_every_200_ms() {
    require_queues!();
    let _alone = alone();
    let gateway = Gateway::start(|setup| setup.config.workers.restart_pause_max_ms = 100);
    let load = Load::start(&gateway, gateway.lab.server_v4().into());
    let began = Instant::now();
    let mut kills = 0;
    let mut killed = Vec::new();
    while began.elapsed() < Duration::from_secs(3) {
        let next = began + Duration::from_millis(200) * (kills + 1);
        let victim = gateway.busiest();
        // It may have been killed just now and not be replaced yet.
        if victim.pid != 0 && !killed.contains(&victim.pid) {
            signal(&victim, Signal::SIGKILL);
            killed.push(victim.pid);
        }
        kills += 1;
        sleep(next.saturating_duration_since(Instant::now()));
    }
    println!(
        "{} kills, longest gap {:?}",
        killed.len(),
        load.sink.longest_gap()
    );
    assert!(killed.len() >= 8, "{killed:?}");
    load.await_progress(1 << 20);
    load.finish();
    let status = gateway.await_status("up", all_up);
    let restarts: u64 = status.seats().map(|seat| seat.restarts).sum();
    assert_eq!(restarts, killed.len() as u64, "{status}");
    gateway.await_settled();
}

#[test]
fn no_udp_packet_is_lost_by_the_kill_of_a_worker_that_fails_open() {
    require_queues!();
    let _alone = alone();
    let gateway = Gateway::start(|setup| setup.config.fail = Fail::Open);
    let elsewhere = Elsewhere::watch(&gateway.lab).expect("the kernel's counters");
    let (_replier, requester) = requests(&gateway, 2000);
    let mut victims = Vec::new();
    for _ in 0..3 {
        sleep(Duration::from_millis(400));
        let victim = gateway.busiest();
        signal(&victim, Signal::SIGKILL);
        victims.push(victim);
    }
    nothing_lost(&requester.finish().expect("requests"), &elsewhere, &gateway);
    for victim in &victims {
        await_replaced(&gateway, victim);
    }
    gateway.await_settled();
}

#[test]
fn the_flows_of_a_hung_worker_go_to_the_backup_and_stay_there() {
    require_queues!();
    let _alone = alone();
    let gateway = Gateway::start(|setup| {
        setup.config.steering.stale_ms = STALE_MS;
        setup.config.steering.recover_ms = 400;
    });
    let load = Load::start(&gateway, gateway.lab.server_v6().into());
    let before = gateway.status();
    let victim = gateway.busiest();
    assert_ne!(victim.queue, before.backup.queue);
    let stopped = Instant::now();
    signal(&victim, Signal::SIGSTOP);
    let adopted = gateway.await_status("adopted", |status| {
        status.counters["adoptions"] > before.counters["adoptions"]
    });
    let after = stopped.elapsed();
    load.await_progress(1 << 20);
    println!(
        "adopted after {after:?}, moving after {:?}, longest gap {:?}",
        stopped.elapsed(),
        load.sink.longest_gap()
    );
    // The last heartbeat was up to 10 ms before the stop.
    let stale = gateway.config.stale();
    assert!(after >= stale - Duration::from_millis(50), "{after:?}");
    // The packet that is adopted is a repetition, and TCP waits longer before each (RFC 6298 §5.5).
    assert!(after < 2 * stale + 2 * GAP, "{after:?}");
    assert!(adopted.adopted >= 1, "{adopted}");
    let stale = gateway.await_status("stale", |status| seat(status, &victim).state == "stale");
    assert!(seat(&stale, &victim).trips >= 1, "{stale}");
    assert_eq!(seat(&stale, &victim).pid, victim.pid, "hung, not replaced");

    let continued = Instant::now();
    signal(&victim, Signal::SIGCONT);
    gateway.await_status("steady", |status| seat(status, &victim).state == "up");
    let steady = continued.elapsed();
    println!("in use again after {steady:?}");
    assert!(steady >= Duration::from_millis(350), "after {steady:?}");

    // The stream stays where it is, though its worker is back.
    load.await_progress(1 << 20);
    assert_eq!(gateway.busiest().queue, stale.backup.queue);
    // New flows go to the worker again.
    let through = gateway.through(|| {
        let elsewhere = Elsewhere::watch(&gateway.lab).expect("the kernel's counters");
        let (_replier, requester) = requests(&gateway, 64);
        nothing_lost(&requester.finish().expect("requests"), &elsewhere, &gateway);
    });
    assert!(through.contains_key(&victim.queue), "{through:?}");
    load.finish();
    let settled = gateway.await_settled();
    assert_eq!(seat(&settled, &victim).restarts, 0);
}

#[test]
fn no_udp_packet_is_lost_while_a_worker_hangs() {
    require_queues!();
    let _alone = alone();
    let gateway = Gateway::start(|setup| setup.config.steering.stale_ms = STALE_MS);
    let elsewhere = Elsewhere::watch(&gateway.lab).expect("the kernel's counters");
    let (_replier, requester) = requests(&gateway, 1600);
    sleep(Duration::from_millis(300));
    let victim = gateway.busiest();
    signal(&victim, Signal::SIGSTOP);
    sleep(Duration::from_millis(900));
    // What had been queued to it until it was found stale is still there.
    signal(&victim, Signal::SIGCONT);
    nothing_lost(&requester.finish().expect("requests"), &elsewhere, &gateway);
    let settled = gateway.await_settled();
    let backup = settled.backup.cell(Cell::Received);
    assert!(backup > 0, "the backup served nothing: {settled}");
}

#[test]
fn a_kill_of_the_idle_backup_goes_unnoticed() {
    require_queues!();
    let _alone = alone();
    let gateway = Gateway::start(|_| {});
    let load = Load::start(&gateway, gateway.lab.server_v4().into());
    let backup = gateway.status().backup;
    signal(&backup, Signal::SIGKILL);
    await_replaced(&gateway, &backup);
    load.await_progress(1 << 20);
    println!("longest gap {:?}", load.sink.longest_gap());
    assert!(load.sink.longest_gap() < GAP);
    load.finish();
    let settled = gateway.await_settled();
    assert_eq!(settled.backup.restarts, 1);
    assert_eq!(settled.counters["adoptions"], 0, "{settled}");
}

#[test]
fn a_kill_of_the_backup_returns_its_flows_to_their_workers_meanwhile() {
    require_queues!();
    let _alone = alone();
    let gateway = Gateway::start(|setup| {
        setup.config.steering.stale_ms = STALE_MS;
        setup.config.steering.recover_ms = 400;
    });
    let load = Load::start(&gateway, gateway.lab.server_v4().into());
    let worker = gateway.busiest();
    // Hung rather than killed: a replacement may serve before the next packet comes, and then
    // there is nothing to adopt.
    signal(&worker, Signal::SIGSTOP);
    gateway.await_status("adopted", |status| status.adopted > 0);
    signal(&worker, Signal::SIGCONT);
    gateway.await_status("steady", |status| seat(status, &worker).state == "up");
    load.await_progress(1 << 20);
    let backup = gateway.status().backup;
    assert_eq!(gateway.busiest().queue, backup.queue);
    load.sink.reset_longest_gap();
    signal(&backup, Signal::SIGKILL);
    load.await_progress(8 << 20);
    println!("longest gap {:?}", load.sink.longest_gap());
    assert!(load.sink.longest_gap() < GAP);
    await_replaced(&gateway, &backup);
    load.finish();
    gateway.await_settled();
}

/// The stream goes on though what its dead worker had in hand is dropped: TCP repeats it.
fn survives_with_repetitions(adjust: impl FnOnce(&mut Setup)) {
    let gateway = Gateway::start(adjust);
    let load = Load::start(&gateway, gateway.lab.server_v6().into());
    for _ in 0..2 {
        let victim = gateway.busiest();
        signal(&victim, Signal::SIGKILL);
        load.await_progress(8 << 20);
        await_replaced(&gateway, &victim);
    }
    println!("longest gap {:?}", load.sink.longest_gap());
    load.finish();
    gateway.await_settled();
}

#[test]
fn a_tcp_stream_survives_kills_when_what_was_in_hand_is_dropped() {
    require_queues!();
    let _alone = alone();
    survives_with_repetitions(|setup| setup.config.fail = Fail::Closed);
}

#[test]
fn a_tcp_stream_survives_kills_with_the_nfq_transport() {
    require_queues!();
    let _alone = alone();
    survives_with_repetitions(|setup| setup.config.queue.transport = Transport::Nfq);
}

#[test]
fn while_the_supervisor_hangs_the_kernel_itself_finds_a_dead_worker() {
    require_queues!();
    let _alone = alone();
    let mut gateway = Gateway::start(|setup| setup.config.steering.stale_ms = STALE_MS);
    let load = Load::start(&gateway, gateway.lab.server_v4().into());
    let victim = gateway.busiest();
    let backup = gateway.status().backup;
    gateway.process().signal(Signal::SIGSTOP).expect("it runs");
    let killed = Instant::now();
    signal(&victim, Signal::SIGKILL);
    load.await_progress(8 << 20);
    println!("moving after {:?}", killed.elapsed());
    assert!(killed.elapsed() < gateway.config.stale() + Duration::from_secs(1));
    let through = gateway.through(|| load.await_progress(1 << 20));
    assert!(through.contains_key(&backup.queue), "{through:?}");
    gateway.process().signal(Signal::SIGCONT).expect("it runs");
    await_replaced(&gateway, &victim);
    load.finish();
    gateway.await_settled();
}

/// With everybody stopped and full queues, requests answered: those that waited are not.
fn answered_with_full_queues(fail: Fail) -> (RequestReport, Snapshot) {
    let gateway = Gateway::start(|setup| {
        setup.config.fail = fail;
        setup.config.queue.length = 16;
        setup.config.steering.stale_ms = STALE_MS;
    });
    let status = gateway.status();
    for worker in status.seats() {
        signal(worker, Signal::SIGSTOP);
    }
    sleep(gateway.config.stale() + Duration::from_millis(50));
    let address = gateway.lab.server_v4().into();
    let replier = Replier::start(gateway.lab.server(), address, 0).expect("a server");
    let plan = RequestPlan {
        flows: 16,
        requests: 400,
        patience: Duration::from_millis(300),
        ..RequestPlan::to(replier.address())
    };
    let report = Requester::run(gateway.lab.client(), plan).expect("requests");
    println!("{fail}: {report:?}");
    let full = gateway.status();
    for worker in full.seats() {
        assert!(worker.kernel.waiting <= 17, "{full}");
        signal(worker, Signal::SIGCONT);
    }
    assert!(full.counters["nobody_alive"] > 0, "{full}");
    gateway.await_settled();
    (report, full)
}

#[test]
fn when_everybody_hangs_and_the_queues_are_full_traffic_passes_if_it_fails_open() {
    require_queues!();
    let (report, status) = answered_with_full_queues(Fail::Open);
    // Sixteen of each of two queues wait.
    assert!(report.answered >= 400 - 2 * 17, "{report:?}");
    let dropped: u64 = status.seats().map(|seat| seat.kernel.queue_dropped).sum();
    assert_eq!(dropped, 0, "{status}");
}

#[test]
fn when_everybody_hangs_and_the_queues_are_full_traffic_is_dropped_and_counted_if_it_fails_closed()
{
    require_queues!();
    let (report, status) = answered_with_full_queues(Fail::Closed);
    assert_eq!(report.answered, 0, "{report:?}");
    let dropped: u64 = status.seats().map(|seat| seat.kernel.queue_dropped).sum();
    assert!(dropped >= 400 - 2 * 17, "{status}");
}

#[test]
fn when_the_whole_program_is_killed_the_fail_policy_stands() {
    require_queues!();
    for (fail, answered) in [(Fail::Open, 100), (Fail::Closed, 0)] {
        let mut gateway = Gateway::start(|setup| setup.config.fail = fail);
        // The supervisor first: it would replace the others.
        gateway.kill_supervisor();
        for pid in processes(&gateway.lab) {
            let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).expect("a process id"));
            // The launcher leaves by itself.
            let _ = nix::sys::signal::kill(pid, Signal::SIGKILL);
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        while !gateway.queued().is_empty() && Instant::now() < deadline {
            sleep(Duration::from_millis(10));
        }
        let address = gateway.lab.server_v4().into();
        let replier = Replier::start(gateway.lab.server(), address, 0).expect("a server");
        let plan = RequestPlan {
            patience: Duration::from_millis(500),
            ..RequestPlan::to(replier.address())
        };
        let report = Requester::run(gateway.lab.client(), plan).expect("requests");
        assert_eq!(report.answered, answered, "fail {fail}: {report:?}");
    }
}
