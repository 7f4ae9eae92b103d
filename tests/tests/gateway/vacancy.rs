//! Nobody comes to serve a queue: what waits there gets the verdict of the policy in time, and
//! traffic goes on, or stops, as the configuration says.

use std::fs;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sluice::metrics::board::Cell;
use sluice::metrics::snapshot::{Snapshot, Worker};
use sluice::netfilter::Fail;
use sluice_tests::datagram::RequestReport;
use sluice_tests::elsewhere::{Elsewhere, attribute};
use sluice_tests::patience::kept_in_one_of;
use sluice_tests::require_queues;

use crate::load::{ATTEMPTS, nothing_lost, requests};
use crate::rig::{Gateway, all_up, alone, signal};

/// Longest wait of a packet.
const LONGEST: Duration = Duration::from_millis(600);
/// For so long workers stand still before they are killed.
const STANDSTILL: Duration = Duration::from_millis(100);
/// What a start that fails may take.
const TOLERANCE: Duration = Duration::from_millis(400);

/// Lets the launcher, and what it forks, have so much memory and no more (setrlimit(2),
/// `RLIMIT_AS`).
fn limit_memory(launcher: u32, bytes: &str) {
    let mut prlimit = Command::new("prlimit");
    prlimit.args(["--pid", &launcher.to_string(), &format!("--as={bytes}:")]);
    let output = prlimit.output().expect("start prlimit");
    assert!(output.status.success(), "{output:?}");
}

/// What the launcher has, and a little: too little for what a worker receives packets in.
fn too_little(launcher: u32) -> String {
    let text = fs::read_to_string(format!("/proc/{launcher}/statm")).expect("it runs");
    let pages: u64 = text.split(' ').next().unwrap().parse().expect("a number");
    (pages * 4096 + (1 << 20)).to_string()
}

fn settled(status: &Snapshot) -> u64 {
    status.total(Cell::Settled)
}

/// Packets that workers have taken and not counted a verdict of.
fn in_hand(status: &Snapshot) -> u64 {
    let ends = Cell::ENDS.iter().map(|cell| status.total(*cell));
    status.total(Cell::Received) - ends.sum::<u64>()
}

/// What became of the requests while nobody served.
struct Vacant {
    gateway: Gateway,
    elsewhere: Elsewhere,
    report: RequestReport,
    /// Packets that workers had in hand when they were killed.
    in_hand: u64,
    /// From the kill until the last queue's packets had been given their verdicts.
    waited: Duration,
}

impl Vacant {
    /// Whether what waited got its verdict in time.
    fn in_time(&self) -> Result<(), String> {
        match self.waited < LONGEST + TOLERANCE {
            true => Ok(()),
            false => Err(format!("waited for {:?}", self.waited)),
        }
    }
}

/// All workers are killed with packets in their queues while requests go on, and their
/// replacements die at their start, until the end of the requests.
fn all_vacant(fail: Fail) -> Vacant {
    let gateway = Gateway::start(|setup| {
        setup.config.fail = fail;
        setup.config.workers.hang_max_ms = LONGEST.as_millis() as u64;
        setup.config.steering.stale_ms = LONGEST.as_millis() as u64;
        setup.config.workers.restart_pause_max_ms = 100;
    });
    let elsewhere = Elsewhere::watch(&gateway.lab).expect("the kernel's counters");
    let (_replier, requester) = requests(&gateway, 4500);
    sleep(Duration::from_millis(300));
    let before = gateway.status();
    limit_memory(before.launcher, &too_little(before.launcher));
    for seat in before.seats() {
        signal(seat, Signal::SIGSTOP);
    }
    sleep(STANDSTILL);
    let waits = |status: &Snapshot| status.seats().any(|it| it.kernel.waiting > 0);
    let stopped = gateway.await_status("packets waiting", waits);
    let waiting: u32 = stopped.seats().map(|it| it.kernel.waiting).sum();
    for seat in before.seats() {
        signal(seat, Signal::SIGKILL);
    }
    let killed = Instant::now();
    let vacant = gateway.await_status("vacant for too long", |status| {
        status.seats().all(|seat| seat.vacancies == 1)
    });
    let waited = killed.elapsed();
    println!("{waiting} packets waited, for {waited:?}");
    assert!(settled(&vacant) >= u64::from(waiting), "{vacant}");
    let report = requester.finish().expect("requests");
    let after = gateway.status();
    assert!(after.seats().all(|seat| seat.restarts >= 3), "{after}");
    assert!(after.seats().all(|seat| seat.vacancies == 1), "{after}");
    assert_eq!(after.launcher, before.launcher, "{}", gateway.log());
    limit_memory(after.launcher, "unlimited");
    gateway.await_status("served again", all_up);
    let settled = gateway.await_settled();
    for seat in settled.seats() {
        let queued = u64::from(seat.kernel.last_id);
        assert_eq!(seat.cell(Cell::Received), queued, "{settled}");
        assert_eq!((seat.unserved_ms, seat.cell(Cell::Refused)), (0, 0));
    }
    let log = gateway.log();
    let told = log.matches("has not been served for").count();
    assert_eq!(told, 3, "once for each seat: {log}");
    Vacant {
        gateway,
        elsewhere,
        report,
        in_hand: in_hand(&stopped),
        waited,
    }
}

/// Who is back inspects what comes now.
fn inspects_again(gateway: &Gateway) {
    let before = gateway.status();
    let elsewhere = Elsewhere::watch(&gateway.lab).expect("the kernel's counters");
    let (_replier, requester) = requests(gateway, 200);
    nothing_lost(&requester.finish().expect("requests"), &elsewhere, gateway);
    let after = gateway.await_settled();
    assert_eq!(settled(&after), settled(&before), "{after}");
    let accepted = |status: &Snapshot| status.total(Cell::Accepted);
    assert!(accepted(&after) >= accepted(&before) + 400, "{after}");
}

#[test]
fn what_waits_for_workers_that_do_not_come_passes_in_time_if_it_fails_open() {
    require_queues!();
    let _alone = alone();
    kept_in_one_of(ATTEMPTS, || {
        let vacant = all_vacant(Fail::Open);
        let report = &vacant.report;
        nothing_lost(report, &vacant.elsewhere, &vacant.gateway);
        inspects_again(&vacant.gateway);
        vacant.in_time()?;
        match report.slowest < STANDSTILL + LONGEST + TOLERANCE {
            true => Ok(()),
            false => Err(format!("answered after {:?}", report.slowest)),
        }
    });
}

#[test]
fn what_waits_for_workers_that_do_not_come_is_dropped_and_counted_if_it_fails_closed() {
    require_queues!();
    let _alone = alone();
    kept_in_one_of(ATTEMPTS, || {
        let vacant = all_vacant(Fail::Closed);
        let Vacant {
            gateway,
            elsewhere,
            report,
            in_hand,
            ..
        } = &vacant;
        let elsewhere = elsewhere.lost(&gateway.lab).expect("the kernel's counters");
        let (by_sluice, _) = attribute(report.lost, elsewhere);
        assert!(by_sluice > 1000, "{report:?}");
        // Each request that was not answered was dropped once, or its reply was. A worker counts
        // what it had in hand after it has given the verdicts: what passed just before its end is
        // counted as settled too.
        let status = gateway.status();
        let allowed = by_sluice..=by_sluice + in_hand;
        assert!(
            allowed.contains(&settled(&status)),
            "{in_hand} in hand: {report:?} {status}"
        );
        inspects_again(gateway);
        vacant.in_time()
    });
}

#[test]
fn a_launcher_that_hangs_when_it_is_asked_for_workers_is_replaced() {
    require_queues!();
    let gateway = Gateway::start(|setup| {
        setup.config.workers.start_ms = 1000;
        setup.config.workers.restart_pause_max_ms = 3000;
    });
    let before = gateway.status();
    limit_memory(before.launcher, &too_little(before.launcher));
    for seat in before.seats() {
        signal(seat, Signal::SIGKILL);
    }
    // In a long pause: every death has been told, and nobody has been asked for.
    gateway.await_status("down for long", |status| {
        let down = |seat: &Worker| seat.state == "down" && seat.restarts >= 8;
        status.seats().all(down)
    });
    let launcher = Pid::from_raw(before.launcher.cast_signed());
    kill(launcher, Signal::SIGSTOP).expect("it runs");
    let after = gateway.await_status("served again", all_up);
    assert_eq!(after.launcher_restarts, 1, "{after}");
    assert_ne!(after.launcher, before.launcher);
}
