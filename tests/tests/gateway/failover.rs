//! Workers die under load, and what the ends of the connections notice of it.
//!
//! The machine may be busy: what is measured is printed, bounds on times are loose or those of the
//! best of some attempts, and `cargo xtask run` checks the tighter promises.

use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use sluice::config::Transport;
use sluice::metrics::board::Cell;
use sluice::metrics::snapshot::Snapshot;
use sluice::netfilter::Fail;
use sluice_tests::datagram::{Replier, RequestPlan, RequestReport, Requester};
use sluice_tests::elsewhere::Elsewhere;
use sluice_tests::patience::kept_in_one_of;
use sluice_tests::{queue_state, require_queues};

use crate::load::{ATTEMPTS, GAP, Load, STALL, await_replaced, nothing_lost, requests};
use crate::rig::{Gateway, Setup, all_up, alone, every_id_received, seat, signal};
use crate::succession::upgrade;

/// For so long a worker must beat steadily before it is used again: a look at it comes sooner.
const RECOVER: Duration = Duration::from_secs(3);
/// For so long whoever serves is killed again and again.
const SPREE: Duration = Duration::from_secs(3);
/// So often at least, one every 200 ms and some looks in vain.
const KILLS: usize = 8;
/// A worker hangs when it has not beaten for so long.
const STALE_MS: u64 = 1000;

#[test]
fn a_tcp_stream_survives_the_kill_of_its_worker() {
    require_queues!();
    let _alone = alone();
    let gateway = Gateway::start(|_| {});
    for address in gateway.lab.server_addresses() {
        gateway.await_status("up", all_up);
        println!("{address}");
        let load = Load::start(&gateway, address);
        kept_in_one_of(ATTEMPTS, || {
            load.await_progress(1 << 20);
            load.sink.reset_longest_gap();
            let victim = gateway.busiest();
            signal(&victim, Signal::SIGKILL);
            load.await_progress(8 << 20);
            let status = await_replaced(&gateway, &victim);
            let successor = seat(&status, &victim);
            assert_eq!(successor.restarts, victim.restarts + 1);
            assert_eq!(successor.queue, victim.queue);
            let how = successor.last_exit.as_deref().unwrap_or_default();
            assert!(how.contains("SIGKILL"), "{how:?}");
            load.paused_within(GAP)
        });
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
    let mut killed = Vec::new();
    // It is one stream in all attempts: every byte of it comes, whatever the pace was.
    kept_in_one_of(ATTEMPTS, || {
        let (began, before) = (Instant::now(), killed.len());
        loop {
            let next = Instant::now() + Duration::from_millis(200);
            let victim = gateway.busiest();
            if began.elapsed() >= SPREE {
                break;
            }
            // It may have been killed just now and not be replaced yet.
            if !killed.contains(&victim.pid) {
                signal(&victim, Signal::SIGKILL);
                killed.push(victim.pid);
            }
            sleep(next.saturating_duration_since(Instant::now()));
        }
        let kills = killed.len() - before;
        println!("{kills} kills, longest gap {:?}", load.sink.longest_gap());
        load.await_progress(1 << 20);
        // Whoever waits for somebody to kill waits for a replacement.
        match kills >= KILLS {
            true => Ok(()),
            false => Err(format!("{kills} kills in {SPREE:?}")),
        }
    });
    load.finish();
    let status = gateway.await_status("up", all_up);
    let restarts: u64 = status.seats().map(|seat| seat.restarts).sum();
    assert_eq!(restarts, killed.len() as u64, "{status}");
    every_id_received(&gateway.await_settled());
}

#[test]
fn no_udp_packet_is_lost_by_the_kill_of_a_worker_that_fails_open() {
    require_queues!();
    let _alone = alone();
    let gateway = Gateway::start(|setup| setup.config.fail = Fail::Open);
    let elsewhere = Elsewhere::watch(&gateway.lab).expect("the kernel's counters");
    let (_replier, requester) = requests(&gateway, 4000);
    for _ in 0..3 {
        sleep(Duration::from_millis(400));
        let victim = gateway.busiest();
        signal(&victim, Signal::SIGKILL);
        await_replaced(&gateway, &victim);
    }
    nothing_lost(&requester.finish().expect("requests"), &elsewhere, &gateway);
    gateway.await_settled();
}

#[test]
fn a_kill_of_the_idle_backup_goes_unnoticed() {
    require_queues!();
    let _alone = alone();
    let gateway = Gateway::start(|_| {});
    let load = Load::start(&gateway, gateway.lab.server_v4().into());
    let mut kills = 0;
    kept_in_one_of(ATTEMPTS, || {
        load.await_progress(1 << 20);
        load.sink.reset_longest_gap();
        let backup = gateway.status().backup;
        signal(&backup, Signal::SIGKILL);
        kills += 1;
        await_replaced(&gateway, &backup);
        load.await_progress(1 << 20);
        load.paused_within(GAP)
    });
    load.finish();
    let settled = gateway.await_settled();
    assert_eq!(settled.backup.restarts, kills);
    assert_eq!(settled.counters["adoptions"], 0, "{settled}");
}

#[test]
fn a_kill_of_the_backup_returns_its_flows_to_their_workers_meanwhile() {
    require_queues!();
    let _alone = alone();
    let mut gateway = Gateway::start(|setup| {
        setup.config.steering.stale_ms = STALE_MS;
        setup.config.steering.recover_ms = RECOVER.as_millis() as u64;
    });
    let load = Load::start(&gateway, gateway.lab.server_v4().into());
    let worker = gateway.busiest();
    // With nobody to replace it: a replacement may serve before the next packet comes, and then
    // there is nothing to adopt.
    gateway.process().signal(Signal::SIGSTOP).expect("it runs");
    signal(&worker, Signal::SIGSTOP);
    // What was on its way has arrived when the heartbeat is stale.
    sleep(gateway.config.stale());
    load.await_progress(1 << 20);
    // It beats again before it is judged.
    signal(&worker, Signal::SIGCONT);
    let continued = Instant::now();
    sleep(Duration::from_millis(50));
    gateway.process().signal(Signal::SIGCONT).expect("it runs");
    let tripped = gateway.await_status("adopted", |status| status.adopted > 0);
    assert_eq!(seat(&tripped, &worker).state, "stale", "{tripped}");
    let steady = gateway.await_status("steady", |status| seat(status, &worker).state == "up");
    println!("in use again after {:?}", continued.elapsed());
    assert!(continued.elapsed() >= RECOVER - Duration::from_millis(50));
    assert_eq!(seat(&steady, &worker).pid, worker.pid, "{steady}");
    kept_in_one_of(ATTEMPTS, || {
        load.await_progress(1 << 20);
        let backup = gateway.status().backup;
        assert_eq!(gateway.busiest().queue, backup.queue);
        load.sink.reset_longest_gap();
        signal(&backup, Signal::SIGKILL);
        load.await_progress(8 << 20);
        await_replaced(&gateway, &backup);
        load.paused_within(GAP)
    });
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
    // What was on its way has arrived when the heartbeat is stale.
    sleep(gateway.config.stale());
    load.await_progress(8 << 20);
    println!("moving after {:?}", killed.elapsed());
    // The packet that is adopted is a repetition, and TCP waits longer before each (RFC 6298 §5.5).
    assert!(killed.elapsed() < 2 * gateway.config.stale() + 2 * GAP + STALL);
    let through = gateway.through(|| load.await_progress(1 << 20));
    assert!(through.contains_key(&backup.queue), "{through:?}");
    gateway.process().signal(Signal::SIGCONT).expect("it runs");
    await_replaced(&gateway, &victim);
    load.finish();
    gateway.await_settled();
}

/// With everybody stopped and full queues, requests answered: those that waited are not.
fn answered_with_full_queues(fail: Fail) -> (Gateway, RequestReport, Snapshot) {
    let mut gateway = Gateway::start(|setup| {
        setup.config.fail = fail;
        setup.config.queue.length = 16;
        setup.config.steering.stale_ms = STALE_MS;
        // What passes is counted when the statistics are written.
        setup.config.log.stats_seconds = 1;
    });
    let status = gateway.status();
    // The supervisor first: it would replace the others.
    gateway.process().signal(Signal::SIGSTOP).expect("it runs");
    for worker in status.seats() {
        signal(worker, Signal::SIGSTOP);
    }
    sleep(gateway.config.stale() + Duration::from_millis(50));
    let address = gateway.lab.server_v4().into();
    let replier = Replier::start(gateway.lab.server(), address, 0).expect("a server");
    let plan = RequestPlan {
        flows: 16,
        requests: 400,
        patience: STALL,
        ..RequestPlan::to(replier.address())
    };
    let report = Requester::run(gateway.lab.client(), plan).expect("requests");
    println!("{fail}: {report:?}");
    let full = queue_state::read(gateway.lab.gateway()).expect("the kernel's queues");
    assert!(full.iter().all(|queue| queue.waiting <= 17), "{full:?}");
    for worker in status.seats() {
        signal(worker, Signal::SIGCONT);
    }
    gateway.process().signal(Signal::SIGCONT).expect("it runs");
    // What waited is delivered and answered as well, and the answers are refused by then: it is
    // over when nothing more is counted, which happens once a second.
    let last = std::cell::Cell::new((0, Instant::now()));
    gateway.await_status("everything accounted for", |status| {
        let dropped: u64 = status.seats().map(|seat| seat.kernel.queue_dropped).sum();
        let all = status.queue_passed() + status.total(Cell::Received) + dropped;
        if last.get().0 != all {
            last.set((all, Instant::now()));
        }
        let complete = all >= report.sent + replier.received();
        complete && last.get().1.elapsed() > Duration::from_millis(2500)
    });
    let settled = gateway.await_settled();
    assert!(settled.counters["nobody_alive"] > 0, "{settled}");
    (gateway, report, settled)
}

/// The last record knows what has passed as well, though the rules are gone by then.
fn passed_is_recorded_at_the_end(mut gateway: Gateway, passed: u64) {
    assert!(gateway.stop().success());
    let events = gateway.events();
    let last = events.iter().rfind(|it| it["event_type"] == "stats");
    let recorded = last.expect("statistics")["stats"]["sluice"]["queue_passed"].as_u64();
    assert_eq!(recorded, Some(passed));
}

#[test]
fn when_everybody_hangs_and_the_queues_are_full_traffic_passes_if_it_fails_open() {
    require_queues!();
    let (mut gateway, report, status) = answered_with_full_queues(Fail::Open);
    // Sixteen of each of two queues wait.
    assert!(report.answered >= 400 - 2 * 17, "{report:?}");
    let dropped: u64 = status.seats().map(|seat| seat.kernel.queue_dropped).sum();
    assert_eq!(dropped, 0, "{status}");
    // The queues outlive the supervisor, and so does what is known of them.
    let passed = |status: &Snapshot| -> Vec<u64> {
        let seats = status.seats();
        seats.map(|seat| seat.kernel.passed).collect()
    };
    upgrade(&gateway);
    assert_eq!(passed(&gateway.status()), passed(&status));
    gateway.kill_supervisor();
    gateway.launch();
    assert_eq!(passed(&gateway.status()), passed(&status));
    passed_is_recorded_at_the_end(gateway, status.queue_passed());
}

#[test]
fn when_everybody_hangs_and_the_queues_are_full_traffic_is_dropped_and_counted_if_it_fails_closed()
{
    require_queues!();
    let (gateway, report, status) = answered_with_full_queues(Fail::Closed);
    assert_eq!(report.answered, 0, "{report:?}");
    let dropped: u64 = status.seats().map(|seat| seat.kernel.queue_dropped).sum();
    assert!(dropped >= 400 - 2 * 17, "{status}");
    passed_is_recorded_at_the_end(gateway, status.queue_passed());
}
