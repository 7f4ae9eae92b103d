//! A supervisor takes over workers that it cannot relieve: they are configured otherwise, or they
//! hang.

use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use sluice::config::{Config, Transport};
use sluice::metrics::board::Cell;
use sluice::netfilter::Fail;
use sluice_tests::datagram::{Replier, RequestPlan, Requester};
use sluice_tests::elsewhere::Elsewhere;
use sluice_tests::patience::wait_until;
use sluice_tests::queue_state::{self, QueueState};
use sluice_tests::require_queues;

use crate::load::{nothing_lost, requests};
use crate::rig::{Gateway, alone, await_processes, seat, signal};

/// A worker hangs when it has not beaten for so long.
const STALE_MS: u64 = 1000;

/// Packets without a verdict in a queue.
fn waiting(gateway: &Gateway, queue: u16) -> u32 {
    let state = queue_state::of(gateway.lab.gateway(), queue).expect("the kernel's queues");
    state.map_or(0, |it| it.waiting)
}

/// The supervisor is killed while requests go on, and another one with a changed configuration
/// takes over.
fn taken_over(change: impl FnOnce(&mut Config)) -> Gateway {
    let mut gateway = Gateway::start(|_| {});
    let elsewhere = Elsewhere::watch(&gateway.lab).expect("the kernel's counters");
    let (_replier, requester) = requests(&gateway, 3000);
    sleep(Duration::from_millis(300));
    gateway.kill_supervisor();
    change(&mut gateway.config);
    gateway.write_config();
    let began = Instant::now();
    gateway.launch();
    println!("taken over after {:?}", began.elapsed());
    nothing_lost(&requester.finish().expect("requests"), &elsewhere, &gateway);
    let log = gateway.log();
    assert!(log.contains("does not fit the configuration"), "{log}");
    assert!(!log.contains("did not leave within"), "{log}");
    let after = gateway.await_settled();
    assert_eq!(after.total(Cell::Settled), 0, "{after}");
    // Those who left went on counting until then, and those who came go on from there.
    assert!(after.total(Cell::Received) > 4000, "{after}");
    gateway
}

#[test]
fn workers_with_other_queues_leave_and_lose_nothing() {
    require_queues!();
    let _alone = alone();
    let gateway = taken_over(|config| config.queue.first = 300);
    let queues: Vec<_> = gateway.queued().into_keys().collect();
    assert_eq!(queues, [300, 301, 302]);
    await_processes(&gateway, 6);
}

#[test]
fn workers_with_other_buffers_leave_and_lose_nothing() {
    require_queues!();
    let _alone = alone();
    taken_over(|config| config.queue.batch = 128);
}

#[test]
fn workers_with_another_transport_leave_and_lose_nothing() {
    require_queues!();
    let _alone = alone();
    taken_over(|config| config.queue.transport = Transport::Nfq);
}

#[test]
fn workers_beyond_the_configured_number_leave_and_lose_nothing() {
    require_queues!();
    let _alone = alone();
    let gateway = taken_over(|config| config.workers.count = 1);
    assert_eq!(gateway.queued().len(), 2);
    let log = gateway.log();
    assert!(
        log.contains("2 workers of a former run are taken over"),
        "{log}"
    );
}

#[test]
fn what_a_stopped_worker_with_another_queue_had_waiting_passes_if_it_fails_open() {
    require_queues!();
    let _alone = alone();
    let mut gateway = Gateway::start(|setup| setup.config.steering.stale_ms = STALE_MS);
    let elsewhere = Elsewhere::watch(&gateway.lab).expect("the kernel's counters");
    let (_replier, requester) = requests(&gateway, 4000);
    sleep(Duration::from_millis(300));
    let victim = gateway.busiest();
    gateway.kill_supervisor();
    signal(&victim, Signal::SIGSTOP);
    wait_until(
        || waiting(&gateway, victim.queue) > 0,
        || "nothing waits".to_owned(),
    );
    gateway.config.queue.first = 300;
    gateway.write_config();
    gateway.launch();
    nothing_lost(&requester.finish().expect("requests"), &elsewhere, &gateway);
    let after = gateway.await_settled();
    assert!(seat(&after, &victim).cell(Cell::Settled) > 0, "{after}");
}

#[test]
fn what_full_queues_have_dropped_is_still_counted_when_they_are_given_up() {
    require_queues!();
    let _alone = alone();
    let mut gateway = Gateway::start(|setup| {
        setup.config.fail = Fail::Closed;
        setup.config.queue.length = 16;
        setup.config.steering.stale_ms = STALE_MS;
    });
    let before = gateway.status();
    // The supervisor first: it would replace the others.
    gateway.process().signal(Signal::SIGSTOP).expect("it runs");
    for worker in before.seats() {
        signal(worker, Signal::SIGSTOP);
    }
    let address = gateway.lab.server_v4().into();
    let replier = Replier::start(gateway.lab.server(), address, 0).expect("a server");
    let plan = RequestPlan {
        flows: 16,
        requests: 400,
        patience: Duration::from_millis(100),
        ..RequestPlan::to(replier.address())
    };
    Requester::run(gateway.lab.client(), plan).expect("requests");
    let queues = || queue_state::read(gateway.lab.gateway()).expect("the kernel's queues");
    let sum = |of: fn(&QueueState) -> u64| queues().iter().map(of).sum::<u64>();
    // None is under way any more.
    wait_until(
        || sum(|queue| queue.queue_dropped + u64::from(queue.waiting)) == 400,
        || format!("{:?}", queues()),
    );
    let dropped = sum(|queue| queue.queue_dropped);
    assert!(dropped > 0, "{:?}", queues());
    for worker in before.seats() {
        signal(worker, Signal::SIGCONT);
    }
    gateway.kill_supervisor();
    gateway.config.queue.first = 300;
    gateway.write_config();
    gateway.launch();
    let after = gateway.await_settled();
    assert_eq!(after.kernel_dropped(), (dropped, 0), "{after}");
}

#[test]
fn a_predecessor_that_hangs_is_killed_as_soon_as_any_worker_would_be() {
    require_queues!();
    let _alone = alone();
    let mut gateway = Gateway::start(|setup| setup.config.steering.stale_ms = STALE_MS);
    let elsewhere = Elsewhere::watch(&gateway.lab).expect("the kernel's counters");
    let (_replier, requester) = requests(&gateway, 4000);
    sleep(Duration::from_millis(300));
    let victim = gateway.busiest();
    gateway.kill_supervisor();
    signal(&victim, Signal::SIGSTOP);
    gateway.launch();
    nothing_lost(&requester.finish().expect("requests"), &elsewhere, &gateway);
    let after = gateway.await_settled();
    assert_eq!(seat(&after, &victim).hangs, 1, "{after}");
    let log = gateway.log();
    let killed = format!("{} (pid {}) hung: stopped: killed", victim.seat, victim.pid);
    assert!(log.contains(&killed), "{log}");
}
