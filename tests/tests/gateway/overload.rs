//! More traffic than the workers can inspect.

use std::fs;
use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use sluice::exception::ExceptionPolicy;
use sluice::metrics::board::Cell;
use sluice::metrics::snapshot::Snapshot;
use sluice::netfilter::Fail;
use sluice_tests::elsewhere::Elsewhere;
use sluice_tests::patience::kept_in_one_of;
use sluice_tests::require_queues;

use crate::load::ATTEMPTS;
use crate::rig::{Gateway, Setup, alone, processes, signal};

/// Bytes of a datagram that is expensive.
const SIZE: usize = 1200;
/// How many rules a payload of `a` has to be searched for in vain.
const RULES: usize = 5;

/// The same where inspection shall cost many times as much as the rest of a packet's way: a rate
/// between the two can then be met by shedding some flows only.
const MANY_RULES: usize = 100;

/// Rules that cost much for a payload of `a`, and match none of them.
fn costly_rules(count: usize) -> String {
    let rule = |sid: usize| {
        // No two the same, and none with anything in it that could be searched for first.
        let reach = 3 + sid;
        format!(
            "alert udp any any -> any any (msg:\"costly\"; content:\"aaaaaaaa\"; \
             pcre:\"/a[a-z]{{{reach}}}[^a-z]/\"; sid:{sid};)\n"
        )
    };
    (1..=count).map(rule).collect()
}

fn one_worker(setup: &mut Setup, latency_ms: u64, policy: ExceptionPolicy) {
    setup.whole_machine = true;
    let config = &mut setup.config;
    config.workers.count = 1;
    config.overload.latency_ms = latency_ms;
    // Much longer than the flood itself may be late.
    config.overload.recover_ms = 2000;
    config.exceptions.overload = policy;
    setup.rules = costly_rules(RULES);
}

/// Sends datagrams of `a` from the client at a steady rate over some flows.
struct Flood {
    sent: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Flood {
    fn start(gateway: &Gateway, to: (IpAddr, u16), rate: u64) -> Self {
        let (sent, stop) = (
            Arc::new(AtomicU64::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let (shared_sent, shared_stop) = (Arc::clone(&sent), Arc::clone(&stop));
        let thread = gateway.lab.client().spawn("flood", move || {
            let local: (IpAddr, u16) = match to.0 {
                IpAddr::V4(_) => ("0.0.0.0".parse().expect("an address"), 0),
                IpAddr::V6(_) => ("::".parse().expect("an address"), 0),
            };
            let sockets: Vec<_> = (0..4)
                .map(|_| UdpSocket::bind(local).expect("a socket"))
                .collect();
            let (payload, start) = ([b'a'; SIZE], Instant::now());
            let mut count = 0;
            while !shared_stop.load(Ordering::Relaxed) {
                let due = start.elapsed().as_micros() as u64 * rate / 1_000_000;
                while count < due {
                    let socket = &sockets[count as usize % sockets.len()];
                    socket
                        .send_to(&payload, to)
                        .expect("the own kernel takes it");
                    count += 1;
                }
                shared_sent.store(count, Ordering::Relaxed);
                sleep(Duration::from_millis(1));
            }
            shared_sent.store(count, Ordering::Relaxed);
        });
        Self {
            sent,
            stop,
            thread: Some(thread),
        }
    }

    fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Ends it; returns how many were sent.
    fn finish(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("it runs");
        thread.join().expect("the flood ends");
        self.sent()
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Takes what arrives, so that the server answers nothing.
fn receiver(gateway: &Gateway) -> (UdpSocket, (IpAddr, u16)) {
    let address = gateway.lab.server_v4().into();
    let socket = gateway.lab.server().enter(|| UdpSocket::bind((address, 0)));
    let socket = socket.expect("a server");
    let port = socket.local_addr().expect("its address").port();
    (socket, (address, port))
}

/// Datagrams of `a` that the one worker takes in a second, most of them uninspected.
fn capacity(gateway: &Gateway, to: (IpAddr, u16)) -> u64 {
    let flood = Flood::start(gateway, to, 100_000);
    sleep(Duration::from_millis(300));
    let before = gateway.status().total(Cell::Received);
    sleep(Duration::from_secs(1));
    let taken = gateway.status().total(Cell::Received) - before;
    flood.finish();
    println!("capacity {taken} packets a second");
    taken
}

/// Stops a worker for most of the time, until dropped.
struct Throttle {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Throttle {
    fn start(gateway: &Gateway) -> Self {
        let worker = gateway.status().workers[0].clone();
        let stop = Arc::new(AtomicBool::new(false));
        let shared = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !shared.load(Ordering::Relaxed) {
                signal(&worker, Signal::SIGSTOP);
                sleep(Duration::from_millis(90));
                signal(&worker, Signal::SIGCONT);
                sleep(Duration::from_millis(2));
            }
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Throttle {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn overload_events(gateway: &Gateway, state: &str) -> usize {
    let is = |event: &serde_json::Value| {
        event["event_type"] == "overload" && event["overload"]["state"] == state
    };
    gateway.events().iter().filter(|event| is(event)).count()
}

/// Kilobytes that a process has in memory, without what it shares.
fn resident_kb(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.expect("its memory").parse().expect("a number")
}

fn memory_kb(gateway: &Gateway) -> u64 {
    processes(&gateway.lab).into_iter().map(resident_kb).sum()
}

/// Every packet of the flood has one end, here or in the kernel.
fn accounted(status: &Snapshot, sent: u64, elsewhere: u64) {
    let ends: u64 = Cell::ENDS.iter().map(|cell| status.total(*cell)).sum();
    let received = status.total(Cell::Received);
    assert_eq!(received, ends, "{status}");
    let shed = status.total(Cell::ShedAccepted) + status.total(Cell::ShedDropped);
    assert_eq!(status.total(Cell::Shed), shed, "{status}");
    let refused: u64 = status
        .seats()
        .map(|seat| seat.kernel.queue_dropped + seat.kernel.user_dropped)
        .sum();
    println!(
        "{sent} sent = {received} received + {refused} refused by full queues; on the way, and \
         of what has passed, {elsewhere} were lost to the test's own ends"
    );
    let seen = received + refused;
    assert!(
        (sent.saturating_sub(elsewhere)..=sent).contains(&seen),
        "{sent} sent, {seen} seen: {status}"
    );
}

/// A worker that is stopped for most of the time, under a policy.
fn overloaded(policy: ExceptionPolicy, fail: Fail) -> Snapshot {
    let mut gateway = Gateway::start(|setup| {
        one_worker(setup, 100, policy);
        setup.config.fail = fail;
        setup.config.overload.shed_first_bytes = 0;
    });
    let (_socket, to) = receiver(&gateway);
    let elsewhere = Elsewhere::watch(&gateway.lab).expect("the kernel's counters");
    let flood = Flood::start(&gateway, to, 2000);
    let throttle = Throttle::start(&gateway);
    let shedding = gateway.await_status("shedding", |status| {
        status.workers[0].overload == "all" && status.total(Cell::Shed) > 100
    });
    assert_eq!(shedding.workers[0].overloads, 1, "{shedding}");
    assert!(shedding.workers[0].delay_max_ms >= 100, "{shedding}");
    gateway.await_event("entered", |event| {
        event["overload"]["state"] == "entered" && event["overload"]["seat"] == "worker 0"
    });
    drop(throttle);
    let sent = flood.finish();
    gateway.await_settled();
    gateway.await_event("left", |event| event["overload"]["state"] == "left");
    let status = gateway.await_status("calm", |status| status.workers[0].overload == "none");
    println!("{status}");
    accounted(
        &status,
        sent,
        elsewhere.lost(&gateway.lab).expect("counters"),
    );
    assert_eq!(status.workers[0].restarts, 0, "{status}");
    let (entered, left) = (
        overload_events(&gateway, "entered"),
        overload_events(&gateway, "left"),
    );
    assert_eq!(entered, left);
    assert!(gateway.stop().success());
    status
}

#[test]
fn a_slow_worker_sheds_by_policy_and_the_overload_begins_and_ends_with_an_event() {
    require_queues!();
    let _alone = alone();
    let passed = overloaded(ExceptionPolicy::Auto, Fail::Open);
    assert_eq!(passed.total(Cell::ShedDropped), 0, "{passed}");
    let dropped = overloaded(ExceptionPolicy::Auto, Fail::Closed);
    assert_eq!(dropped.total(Cell::ShedAccepted), 0, "{dropped}");
    let dropped = overloaded(ExceptionPolicy::DropPacket, Fail::Open);
    assert_eq!(dropped.total(Cell::ShedAccepted), 0, "{dropped}");
}

#[test]
fn the_least_risky_flows_are_shed_first() {
    require_queues!();
    let _alone = alone();
    let gateway = Gateway::start(|setup| {
        one_worker(setup, 100, ExceptionPolicy::PassPacket);
        setup.config.overload.shed_first_bytes = 20_000;
        setup.rules = costly_rules(MANY_RULES);
        setup.rules += "alert udp any any -> any any (content:\"evil\"; sid:9000;)\n";
    });
    let (_socket, to) = receiver(&gateway);
    let evil = gateway.lab.client().enter(|| UdpSocket::bind("0.0.0.0:0"));
    let evil = evil.expect("a client");
    // What passes the capacity of the transport itself leaves no choice: then all is shed. What
    // piles up while somebody else has the CPU shall be shed fast, too.
    let mut rate = capacity(&gateway, to) / 4;
    let mut shares = Vec::new();
    // Whoever takes the worker's CPU away for a moment takes its choice away too: not each time.
    for _ in 0..6 {
        gateway.await_settled();
        let before = gateway.await_status("calm", |status| status.workers[0].overload == "none");
        let flood = Flood::start(&gateway, to, rate);
        let start = Instant::now();
        let mut sent = 0;
        while start.elapsed() < Duration::from_secs(3) {
            evil.send_to(b"evil", to).expect("it is taken");
            sent += 1;
            sleep(Duration::from_millis(10));
        }
        let flooded = flood.finish();
        let after = gateway.await_settled();
        println!("{after}");
        let more = |cell| after.total(cell) - before.total(cell);
        let (alerts, shed) = (more(Cell::Alerts), more(Cell::Shed));
        println!("{alerts} alerts of {sent} packets, {shed} of {flooded} shed");
        if shed <= flooded / 4 {
            // It can inspect nearly all of it.
            rate *= 2;
            shares.push((alerts, sent));
            continue;
        }
        // A flow that has had a match is inspected as long as any is: at the beginning there is
        // a moment in which none is.
        if sent > 100 && alerts * 5 >= sent * 4 {
            return;
        }
        shares.push((alerts, sent));
    }
    panic!("alerts, of so many packets: {shares:?}");
}

#[test]
fn at_three_times_capacity_memory_is_bounded_and_every_packet_is_counted() {
    require_queues!();
    let _alone = alone();
    let gateway = Gateway::start(|setup| {
        one_worker(setup, 100, ExceptionPolicy::Auto);
        setup.config.fail = Fail::Closed;
        setup.config.queue.length = 2048;
    });
    let (_socket, to) = receiver(&gateway);
    let elsewhere = Elsewhere::watch(&gateway.lab).expect("the kernel's counters");
    // All of a batch's buffers have been touched then.
    let mut sent = inspected(&gateway, to).1;
    let memory_before = memory_kb(&gateway);
    let mut most = memory_before;
    kept_in_one_of(ATTEMPTS, || {
        // Measured while others have the CPU it is too low, and three times as much no overload.
        let (capacity, measured_with) = inspected(&gateway, to);
        let before = gateway.status();
        let rate = 3 * capacity;
        let flood = Flood::start(&gateway, to, rate);
        for _ in 0..30 {
            sleep(Duration::from_millis(100));
            most = most.max(memory_kb(&gateway));
        }
        sent += measured_with + flood.finish();
        let shed = gateway.await_settled().total(Cell::Shed) - before.total(Cell::Shed);
        println!("{shed} shed at {rate} a second");
        match shed > 0 {
            true => Ok(()),
            false => Err(format!("nothing was shed at {rate} a second")),
        }
    });
    let status = gateway.await_settled();
    println!("{status}\nmemory {memory_before} kB before, {most} kB at most");
    accounted(
        &status,
        sent,
        elsewhere.lost(&gateway.lab).expect("counters"),
    );
    assert!(status.seats().all(|seat| seat.restarts == 0), "{status}");
    assert_eq!(status.total(Cell::ShedAccepted), 0, "{status}");
    assert!(
        most < memory_before + 32 * 1024,
        "{memory_before} kB, then {most} kB"
    );
    // The bound, what one batch adds to it, and what a busy machine does.
    let longest = status.workers[0].delay_max_ms;
    assert!(longest < 3000, "{longest} ms: {status}");
}

/// What is inspected in a second of a flood that is too much, and how many were sent for that.
fn inspected(gateway: &Gateway, to: (IpAddr, u16)) -> (u64, u64) {
    let inspected = |status: &Snapshot| status.total(Cell::Received) - status.total(Cell::Shed);
    let before = inspected(&gateway.status());
    let flood = Flood::start(gateway, to, 20_000);
    sleep(Duration::from_secs(1));
    let sent = flood.finish();
    let inspected = inspected(&gateway.await_settled()) - before;
    println!("{inspected} of {sent} inspected in a second");
    (inspected.max(500), sent)
}
