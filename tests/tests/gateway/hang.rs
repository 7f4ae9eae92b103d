//! Workers that hang are replaced, those that get no CPU are not.
//!
//! The machine may be busy: what is measured is printed, and bounds on times are those of the best
//! of some attempts.

use std::process::{Child, Command};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use sluice::config::Config;
use sluice::metrics::board::Cell;
use sluice::metrics::snapshot::{Snapshot, Worker};
use sluice::netfilter::Fail;
use sluice_tests::datagram::{Replier, RequestPlan, RequestReport, Requester};
use sluice_tests::elsewhere::Elsewhere;
use sluice_tests::patience::kept_in_one_of;
use sluice_tests::require_queues;
use sluice_tests::sabotage::Sabotage;

use crate::load::{ATTEMPTS, GAP, Load, STALL, await_replaced, nothing_lost, requests};
use crate::rig::{Gateway, alone, seat, signal};

/// A worker hangs when it has not beaten for so long.
const STALE_MS: u64 = 1000;
/// What others on the machine may add in the best attempt to the time in which flows continue.
const TOLERANCE: Duration = Duration::from_millis(100);

fn gateway() -> Gateway {
    Gateway::start(|setup| {
        setup.config.fail = Fail::Open;
        setup.config.steering.stale_ms = STALE_MS;
    })
}

/// One flow, one request each millisecond.
fn one_flow(gateway: &Gateway, requests: u64) -> (Replier, Requester) {
    let address = gateway.lab.server_v4().into();
    let replier = Replier::start(gateway.lab.server(), address, 0).expect("a server");
    let plan = RequestPlan {
        requests,
        ..RequestPlan::to(replier.address())
    };
    let requester = Requester::start(gateway.lab.client(), plan);
    sleep(Duration::from_millis(300));
    (replier, requester)
}

/// The worker's process was killed for this reason, once, and another one serves.
fn replaced_because(gateway: &Gateway, hung: &Worker, reason: &str) -> Snapshot {
    let status = await_replaced(gateway, hung);
    let successor = seat(&status, hung);
    assert_eq!((successor.restarts, successor.hangs), (1, 1), "{status}");
    let [exit] = &successor.exits[..] else {
        panic!("{status}");
    };
    assert!(exit.reason.starts_with(reason), "{}", exit.reason);
    assert_eq!(successor.last_exit.as_ref(), Some(&exit.reason));
    assert!(status.to_string().contains(&exit.reason), "{status}");
    status
}

/// Flows continued in time: `stale_ms` + 10 ms, and what the machine may add. What had been
/// queued to the worker waits until it is known that it hangs: its replacement inspects that.
fn continued_in_time(
    gateway: &Gateway,
    report: &RequestReport,
    known_after: Duration,
) -> Result<(), String> {
    let stale = gateway.config.stale();
    println!(
        "longest gap {:?}, slowest reply {:?}; stale after {stale:?}, known after {known_after:?}",
        report.longest_gap, report.slowest
    );
    let slack = Duration::from_millis(10) + TOLERANCE;
    let in_time = report.longest_gap < stale + slack && report.slowest < known_after + 2 * slack;
    in_time.then_some(()).ok_or_else(|| format!("{report:?}"))
}

/// A way to hang, and how long it takes to be known.
struct Hang {
    how: fn(&Worker),
    reason: &'static str,
    known_after: fn(&Config) -> Duration,
}

const HANGS: [Hang; 3] = [
    Hang {
        how: |worker| signal(worker, Signal::SIGSTOP),
        reason: "hung: stopped",
        known_after: Config::stale,
    },
    Hang {
        how: |worker| Sabotage::Sleep.commit(worker.pid).expect("a deadlock"),
        reason: "hung: sleeps",
        known_after: Config::stale,
    },
    Hang {
        how: |worker| Sabotage::Loop.commit(worker.pid).expect("a loop"),
        reason: "hung: endless loop, ",
        // It has to be given the time on a CPU that it wastes: with others that want it, later.
        known_after: |config| config.stale() + 4 * Duration::from_millis(config.workers.hang_ms),
    },
];

#[test]
fn the_flows_of_a_hung_worker_continue_within_the_stale_time_and_it_is_replaced() {
    require_queues!();
    let _alone = alone();
    for hang in HANGS {
        println!("{}", hang.reason);
        kept_in_one_of(ATTEMPTS, || {
            let gateway = gateway();
            let elsewhere = Elsewhere::watch(&gateway.lab).expect("the kernel's counters");
            let (_replier, requester) = one_flow(&gateway, 3000);
            let victim = gateway.busiest();
            (hang.how)(&victim);
            let report = requester.finish().expect("requests");
            replaced_because(&gateway, &victim, hang.reason);
            nothing_lost(&report, &elsewhere, &gateway);
            gateway.await_settled();
            continued_in_time(&gateway, &report, (hang.known_after)(&gateway.config))
        });
    }
}

#[test]
fn no_udp_packet_of_many_flows_is_lost_when_workers_are_stopped_one_after_the_other() {
    require_queues!();
    let _alone = alone();
    let gateway = gateway();
    let elsewhere = Elsewhere::watch(&gateway.lab).expect("the kernel's counters");
    let (_replier, requester) = requests(&gateway, 5000);
    sleep(Duration::from_millis(300));
    let before = gateway.status();
    for victim in before.seats() {
        signal(victim, Signal::SIGSTOP);
        replaced_because(&gateway, victim, "hung: stopped");
    }
    nothing_lost(&requester.finish().expect("requests"), &elsewhere, &gateway);
    let settled = gateway.await_settled();
    assert!(settled.workers.iter().all(|it| it.cell(Cell::Received) > 0));
}

#[test]
fn a_tcp_stream_survives_the_hang_of_its_worker() {
    require_queues!();
    let _alone = alone();
    let gateway = gateway();
    for address in gateway.lab.server_addresses() {
        println!("{address}");
        let load = Load::start(&gateway, address);
        kept_in_one_of(ATTEMPTS, || {
            load.await_progress(1 << 20);
            load.sink.reset_longest_gap();
            let victim = gateway.busiest();
            let before = gateway.status();
            signal(&victim, Signal::SIGSTOP);
            let status = await_replaced(&gateway, &victim);
            let hangs = |status: &Snapshot| status.seats().map(|seat| seat.hangs).sum::<u64>();
            assert_eq!(hangs(&status), hangs(&before) + 1, "{status}");
            load.await_progress(8 << 20);
            load.paused_within(gateway.config.stale() + GAP)
        });
        load.finish();
        gateway.await_settled();
    }
}

#[test]
fn flows_that_the_kernel_gave_to_the_backup_stay_there_when_their_worker_is_replaced() {
    require_queues!();
    let _alone = alone();
    let mut gateway = gateway();
    let load = Load::start(&gateway, gateway.lab.server_v6().into());
    let victim = gateway.busiest();
    let backup = gateway.status().backup;
    assert_ne!(victim.queue, backup.queue);
    let stopped = Instant::now();
    // Nobody replaces the worker before a packet comes that the kernel gives to the backup.
    gateway.process().signal(Signal::SIGSTOP).expect("it runs");
    signal(&victim, Signal::SIGSTOP);
    // What was on its way has arrived when the heartbeat is stale.
    sleep(gateway.config.stale());
    load.await_progress(1 << 20);
    println!("moving after {:?}", stopped.elapsed());
    // The packet that is adopted is a repetition, and TCP waits longer before each (RFC 6298 §5.5).
    assert!(stopped.elapsed() < 2 * gateway.config.stale() + 2 * GAP + STALL);
    gateway.process().signal(Signal::SIGCONT).expect("it runs");
    let status = replaced_because(&gateway, &victim, "hung: stopped");
    assert!(status.adopted >= 1, "{status}");
    // The stream stays where it is, though its worker is back.
    load.await_progress(1 << 20);
    assert_eq!(gateway.busiest().queue, backup.queue);
    // New flows go to the worker again.
    let through = gateway.through(|| {
        let elsewhere = Elsewhere::watch(&gateway.lab).expect("the kernel's counters");
        let (_replier, requester) = requests(&gateway, 64);
        nothing_lost(&requester.finish().expect("requests"), &elsewhere, &gateway);
    });
    assert!(through.contains_key(&victim.queue), "{through:?}");
    load.finish();
    gateway.await_settled();
}

#[test]
fn a_worker_whose_stack_overflows_is_replaced() {
    require_queues!();
    let _alone = alone();
    let gateway = gateway();
    let (_replier, requester) = one_flow(&gateway, 2000);
    let victim = gateway.busiest();
    Sabotage::StackOverflow
        .commit(victim.pid)
        .expect("an overflow");
    let report = requester.finish().expect("requests");
    assert_eq!(report.lost, 0, "{report:?}");
    let status = await_replaced(&gateway, &victim);
    let successor = seat(&status, &victim);
    assert_eq!((successor.restarts, successor.hangs), (1, 0), "{status}");
    let how = successor.last_exit.as_deref().unwrap_or_default();
    assert!(how.contains("SIGSEGV") || how.contains("SIGABRT"), "{how}");
    gateway.await_settled();
}

#[test]
fn a_worker_that_beats_but_takes_no_packets_is_replaced() {
    require_queues!();
    let _alone = alone();
    let gateway = Gateway::start(|setup| {
        setup.config.fail = Fail::Open;
        // Whoever beats for it may be late.
        setup.config.steering.stale_ms = 3000;
        setup.config.workers.hang_max_ms = 3000;
    });
    let (_replier, requester) = one_flow(&gateway, 6000);
    let victim = gateway.busiest();
    let pages = pages(&gateway);
    let stopped = Instant::now();
    signal(&victim, Signal::SIGSTOP);
    // Its heart goes on for it.
    let status = gateway.await_status("replaced", |status| {
        if seat(status, &victim).pid == victim.pid {
            pages.stamp(victim.seat.slot(), sluice::sys::process::monotonic_ns());
        }
        let successor = seat(status, &victim);
        successor.state == "up" && successor.pid != victim.pid
    });
    println!("replaced after {:?}", stopped.elapsed());
    assert!(stopped.elapsed() >= Duration::from_millis(3000));
    assert_eq!(seat(&status, &victim).trips, 0, "{status}");
    replaced_because(&gateway, &victim, "hung: took no packet for ");
    assert_eq!(requester.finish().expect("requests").lost, 0);
    gateway.await_settled();
}

/// The heartbeats of an instance.
fn pages(gateway: &Gateway) -> sluice::maps::WorkerPages {
    let version = format!("v{}", ips_common::LAYOUT_VERSION);
    let path = gateway.pins().join(version).join("maps/WORKERS");
    let map = aya::maps::MapData::from_pin(&path).expect("the pinned map");
    sluice::maps::WorkerPages::map(std::os::fd::AsFd::as_fd(map.fd())).expect("its memory")
}

#[test]
fn a_worker_that_a_debugger_holds_is_not_killed() {
    require_queues!();
    let _alone = alone();
    let gateway = Gateway::start(|setup| {
        setup.config.steering.stale_ms = 100;
        setup.config.workers.hang_max_ms = 300;
    });
    let victim = gateway.status().workers[0].clone();
    let pid = Pid::from_raw(i32::try_from(victim.pid).expect("a process id"));
    nix::sys::ptrace::attach(pid).expect("attach");
    assert!(matches!(waitpid(pid, None), Ok(WaitStatus::Stopped(..))));
    gateway.await_status("stale", |status| seat(status, &victim).state == "stale");
    sleep(Duration::from_millis(1000));
    let held = gateway.status();
    nix::sys::ptrace::detach(pid, None).expect("detach");
    let status = gateway.await_status("up", |status| seat(status, &victim).state == "up");
    for status in [held, status] {
        let same = seat(&status, &victim);
        assert_eq!((same.pid, same.hangs), (victim.pid, 0), "{status}");
    }
}

/// Keeps a CPU busy; ends with its test.
struct Hog(Child);

impl Hog {
    fn start(command: &[&str], cpu: usize, duration: &str) -> Self {
        let cpu = cpu.to_string();
        // Outside, and not on that CPU: the loop would not let it have the CPU either.
        let child = Command::new("timeout")
            .args([duration, "taskset", "-c", &cpu])
            .args(command)
            .args(["sh", "-c", "while :; do :; done"])
            .spawn();
        Self(child.expect("timeout"))
    }

    fn wait(&mut self) {
        self.0.wait().expect("it ends");
    }
}

impl Drop for Hog {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Takes the CPU of worker 1 away; nobody is killed for it.
fn not_killed_while(command: &[&str], duration: &str) {
    let gateway = Gateway::start(|setup| {
        setup.whole_machine = true;
        setup.config.steering.stale_ms = 100;
        setup.config.steering.recover_ms = 100;
    });
    let cpus = sluice::sys::process::usable_cpus();
    let (_replier, requester) = requests(&gateway, 1500);
    let mut hog = Hog::start(command, cpus[1 % cpus.len()], duration);
    hog.wait();
    let report = requester.finish().expect("requests");
    println!("{report:?}");
    let status = gateway.await_status("up", crate::rig::all_up);
    let trips: u64 = status.seats().map(|seat| seat.trips).sum();
    println!("{trips} trips");
    for seat in status.seats() {
        assert_eq!((seat.hangs, seat.restarts), (0, 0), "{status}");
    }
    gateway.await_settled();
}

#[test]
fn a_worker_whose_cpu_another_program_takes_is_not_killed() {
    require_queues!();
    let _alone = alone();
    not_killed_while(&["nice", "-n", "-20"], "2");
}

#[test]
fn a_worker_whose_cpu_a_real_time_program_takes_is_not_killed() {
    require_queues!();
    let _alone = alone();
    not_killed_while(&["chrt", "-f", "50"], "0.5");
}
