//! Workers come, go, and are drained under load: nothing is lost, and no flow that lives is seen
//! by another worker than before.

use std::collections::BTreeSet;
use std::thread::sleep;
use std::time::Duration;

use ips_common::TABLE_SLOTS;
use nix::sys::signal::Signal;
use sluice::control::{self, Request, Response};
use sluice::metrics::board::Cell;
use sluice::metrics::snapshot::{Snapshot, Worker};
use sluice::source::nfqueue::QueueSocket;
use sluice::supervisor::Scaled;
use sluice::supervisor::seat::Seat;
use sluice_tests::datagram::{Replier, RequestPlan, RequestReport, Requester};
use sluice_tests::elsewhere::{Elsewhere, attribute};
use sluice_tests::patience::wait_until;
use sluice_tests::require_queues;
use sluice_tests::stream::{Extent, Sender, Sink};

use crate::rig::{Gateway, Setup, alone, ruleset, signal};

/// Streams of a load.
const STREAMS: u64 = 20;
/// Source ports of its requests.
const REQUESTERS: usize = 40;

/// Streams and requests through the gateway, with what would show that one was lost or moved.
struct Load<'a> {
    gateway: &'a Gateway,
    sink: Sink,
    senders: Vec<Sender>,
    _replier: Replier,
    requester: Requester,
    elsewhere: Elsewhere,
}

impl<'a> Load<'a> {
    /// Runs for so long at least.
    fn start(gateway: &'a Gateway, time: Duration) -> Self {
        let lab = &gateway.lab;
        let elsewhere = Elsewhere::watch(lab).expect("the kernel's counters");
        let sink = Sink::start(lab.server(), lab.server_v4().into(), 0).expect("a server");
        let forever = Extent::Time(Duration::from_secs(600));
        let senders = (0..STREAMS).map(|_| Sender::start(lab.client(), sink.address(), forever));
        let senders = senders.collect();
        let replier = Replier::start(lab.server(), lab.server_v6().into(), 0).expect("a server");
        let interval = Duration::from_micros(1500);
        let plan = RequestPlan {
            flows: REQUESTERS,
            requests: u64::try_from(time.as_micros() / interval.as_micros())
                .expect("not for years"),
            interval,
            ..RequestPlan::to(replier.address())
        };
        let requester = Requester::start(lab.client(), plan);
        let load = Self {
            gateway,
            sink,
            senders,
            _replier: replier,
            requester,
            elsewhere,
        };
        gateway.await_status("every flow known", |status| {
            load.sink.accepted() == STREAMS && status.total(Cell::FlowsCreated) >= flows()
        });
        load.await_progress(1 << 20);
        load
    }

    fn await_progress(&self, bytes: u64) {
        let goal = self.sink.received() + bytes;
        wait_until(
            || self.sink.received() >= goal,
            || format!("{:?}", self.sink.faults()),
        );
    }

    /// Ends it; every byte has come, and every reply.
    fn finish(self) {
        let mut sent = 0;
        for sender in self.senders {
            let report = sender.stop();
            assert_eq!(report.error, None);
            sent += report.sent;
        }
        assert_eq!(self.sink.faults(), Vec::<String>::new());
        assert_eq!(self.sink.received(), sent);
        assert_eq!(self.sink.finished(), STREAMS);
        let report = self.requester.finish().expect("requests");
        nothing_lost(&report, &self.elsewhere, self.gateway);
    }
}

/// Flows of a load.
const fn flows() -> u64 {
    STREAMS + REQUESTERS as u64
}

fn nothing_lost(report: &RequestReport, elsewhere: &Elsewhere, gateway: &Gateway) {
    let lost = elsewhere.lost(&gateway.lab).expect("the kernel's counters");
    let status = gateway.status();
    let (lost, text) = attribute(report.lost, lost);
    assert_eq!(lost, 0, "{report:?} {text} {status}");
    assert_eq!((report.corrupt, report.duplicates), (0, 0), "{report:?}");
}

/// No flow was seen by a worker that had not seen its beginning, or by two.
fn assert_nothing_moved(status: &Snapshot) {
    assert_eq!(status.total(Cell::FlowsMidstream), 0, "{status}");
    assert_eq!(status.total(Cell::FlowsCreated), flows(), "{status}");
    assert_eq!(status.counters["adoptions"], 0, "{status}");
    assert_eq!(status.counters["placements_lost"], 0, "{status}");
}

fn try_ask(gateway: &Gateway, request: &Request) -> Result<Scaled, String> {
    match control::ask(&gateway.config.control_socket(), request).expect("an answer") {
        Response::Ok(value) => Ok(serde_json::from_value(value).expect("what came of it")),
        Response::Error(message) => Err(message),
    }
}

fn ask(gateway: &Gateway, request: &Request) -> Scaled {
    let done = try_ask(gateway, request).unwrap_or_else(|why| panic!("{request:?}: {why}"));
    println!("{request:?}: {done}");
    assert_eq!(done.moved.flows_moved, 0, "{done}");
    done
}

fn scale(gateway: &Gateway, workers: u32) -> Scaled {
    ask(gateway, &Request::Scale { workers })
}

fn worker(status: &Snapshot, index: u32) -> &Worker {
    let mut workers = status.workers.iter();
    let found = workers.find(|worker| worker.seat == Seat::Worker(index));
    found.unwrap_or_else(|| panic!("no worker {index}: {status}"))
}

fn received(status: &Snapshot, index: u32) -> u64 {
    worker(status, index).cell(Cell::Received)
}

fn states(status: &Snapshot) -> Vec<&str> {
    let states = status.workers.iter().map(|worker| worker.state.as_str());
    states.collect()
}

/// Workers that some new flows have reached.
fn reached_by_new_flows(gateway: &Gateway) -> BTreeSet<Seat> {
    let created = |status: &Snapshot| -> Vec<_> {
        let workers = status.workers.iter();
        let created = workers.map(|it| (it.seat, it.cell(Cell::FlowsCreated)));
        created.collect()
    };
    let before = created(&gateway.status());
    let lab = &gateway.lab;
    let replier = Replier::start(lab.server(), lab.server_v4().into(), 0).expect("a server");
    let plan = RequestPlan {
        flows: 100,
        requests: 100,
        ..RequestPlan::to(replier.address())
    };
    let report = Requester::run(lab.client(), plan).expect("requests");
    assert_eq!(report.answered, 100, "{report:?}");
    let total = |list: &[(Seat, u64)]| list.iter().map(|(_, count)| count).sum::<u64>();
    let after = gateway.await_status("new flows known", |status| {
        total(&created(status)) >= total(&before) + 100
    });
    let more = |(seat, count): &(Seat, u64)| {
        let before = before.iter().find(|(other, _)| other == seat);
        before.is_none_or(|(_, before)| count > before)
    };
    let after = created(&after).into_iter().filter(more);
    after.map(|(seat, _)| seat).collect()
}

fn workers(indices: impl IntoIterator<Item = u32>) -> BTreeSet<Seat> {
    indices.into_iter().map(Seat::Worker).collect()
}

/// Flows that have ended are forgotten soon.
fn short_memory(setup: &mut Setup) {
    setup.config.flow.tcp_closed_seconds = 1;
    setup.config.flow.established_seconds = 3;
    setup.config.flow.new_seconds = 3;
}

#[test]
fn flows_stay_where_they_are_while_workers_are_added_and_taken_away() {
    require_queues!();
    let _alone = alone();
    let mut gateway = Gateway::start(short_memory);
    let load = Load::start(&gateway, Duration::from_secs(8));

    let four = scale(&gateway, 4);
    assert_eq!(four.added, [Seat::Worker(2), Seat::Worker(3)]);
    let half = TABLE_SLOTS as usize / 2;
    assert!(four.moved.slots.abs_diff(half) < half / 20, "{four}");
    assert!(four.moved.unlisted.is_empty(), "{four}");
    load.await_progress(4 << 20);
    let status = gateway.await_status("four", |status| states(status) == ["up"; 4]);
    assert_nothing_moved(&status);
    assert_eq!(received(&status, 2) + received(&status, 3), 0, "{status}");
    assert!(status.kept > 0, "{status}");

    let three = scale(&gateway, 3);
    assert_eq!(three.retiring, [Seat::Worker(3)]);
    let quarter = TABLE_SLOTS as usize / 4;
    assert!(
        three.moved.slots.abs_diff(quarter) < quarter / 10,
        "{three}"
    );
    let two = scale(&gateway, 2);
    let third = TABLE_SLOTS as usize / 3;
    assert!(two.moved.slots.abs_diff(third) < third / 10, "{two}");
    load.await_progress(4 << 20);
    // Nobody ever had a flow there, so nothing keeps these two.
    let status = gateway.await_status("two again", |status| states(status) == ["up"; 2]);
    assert_nothing_moved(&status);
    assert!(!ruleset(&gateway.lab).contains("--queue-num 103"));
    assert!(!gateway.queued().contains_key(&103), "its queue is gone");
    load.finish();
    let settled = gateway.await_settled();
    assert_nothing_moved(&settled);
    assert!(gateway.stop().success());
    gateway.nothing_left();
}

#[test]
fn a_worker_that_retires_goes_when_its_last_flow_has_ended() {
    require_queues!();
    let _alone = alone();
    let gateway = Gateway::start(short_memory);
    assert_eq!(scale(&gateway, 3).serving.len(), 3);
    let load = Load::start(&gateway, Duration::from_secs(4));
    let before = gateway.status();
    assert!(received(&before, 2) > 0, "it has its share: {before}");

    scale(&gateway, 2);
    load.await_progress(4 << 20);
    let status = gateway.await_status("its flows going on", |status| {
        received(status, 2) > received(&before, 2)
    });
    assert_eq!(worker(&status, 2).state, "retiring", "{status}");
    assert_eq!(reached_by_new_flows(&gateway), workers(0..2));
    let status = gateway.status();
    assert_eq!(status.total(Cell::FlowsMidstream), 0, "{status}");
    load.finish();
    let settled = gateway.await_settled();
    let total = settled.total(Cell::Received);
    let gone = gateway.await_status("gone", |status| status.workers.len() == 2);
    assert!(
        gone.total(Cell::Received) >= total,
        "{total} before: {gone}"
    );
    assert!(gone.retired.cells["received"] > 0, "{gone}");
    assert_eq!(gone.retired.flows_let_go, 0, "{gone}");

    // The same seat again, with what it had counted.
    scale(&gateway, 3);
    assert_eq!(reached_by_new_flows(&gateway), workers(0..3));
    let again = gateway.await_settled();
    assert!(received(&again, 2) > gone.retired.cells["received"]);
    assert_eq!(again.retired.cells["received"], 0, "{again}");
}

#[test]
fn a_drained_worker_keeps_its_flows_and_gets_no_new_ones_until_it_is_resumed() {
    require_queues!();
    let _alone = alone();
    let gateway = Gateway::start(short_memory);
    let load = Load::start(&gateway, Duration::from_secs(5));
    let drain = Request::Drain {
        worker: Seat::Worker(1),
    };
    let drained = ask(&gateway, &drain);
    assert_eq!(drained.serving, [Seat::Worker(0)]);
    let before = gateway.status();
    assert_eq!(states(&before), ["up", "draining"]);
    load.await_progress(4 << 20);
    gateway.await_status("its flows going on", |status| {
        received(status, 1) > received(&before, 1)
    });
    assert_nothing_moved(&gateway.status());
    assert_eq!(reached_by_new_flows(&gateway), workers([0]));

    let resume = Request::Resume {
        worker: Seat::Worker(1),
    };
    assert_eq!(ask(&gateway, &resume).moved.slots, drained.moved.slots);
    load.await_progress(4 << 20);
    let status = gateway.status();
    assert_eq!(status.total(Cell::FlowsMidstream), 0, "{status}");
    assert_eq!(reached_by_new_flows(&gateway), workers(0..2));
    ask(&gateway, &drain);
    load.finish();
    gateway.await_settled();
    gateway.await_status("drained", |status| states(status) == ["up", "drained"]);
    assert_eq!(
        ask(&gateway, &drain).moved.slots,
        0,
        "it is drained already"
    );
}

#[test]
fn a_worker_that_is_to_go_at_once_lets_its_flows_go_and_nothing_is_lost() {
    require_queues!();
    let _alone = alone();
    let gateway = Gateway::start(|setup| setup.config.scaling.drain_seconds = 0);
    let load = Load::start(&gateway, Duration::from_secs(4));
    scale(&gateway, 1);
    let status = gateway.await_status("gone", |status| status.workers.len() == 1);
    assert!(status.retired.flows_let_go > 0, "{status}");
    load.await_progress(4 << 20);
    load.finish();
    let settled = gateway.await_settled();
    assert!(settled.total(Cell::FlowsMidstream) > 0, "{settled}");
    assert_eq!(settled.retired.queue_dropped, 0, "{settled}");
}

#[test]
fn a_worker_that_dies_while_workers_are_added_costs_its_own_flows_only() {
    require_queues!();
    let _alone = alone();
    let gateway = Gateway::start(|_| {});
    let load = Load::start(&gateway, Duration::from_secs(6));
    let victim = worker(&gateway.status(), 0).clone();
    std::thread::scope(|scope| {
        let scaling = scope.spawn(|| scale(&gateway, 4));
        sleep(Duration::from_millis(60));
        signal(&victim, Signal::SIGKILL);
        scaling.join().expect("it scales all the same");
    });
    load.await_progress(4 << 20);
    gateway.await_status("four", |status| states(status) == ["up"; 4]);
    scale(&gateway, 2);
    load.await_progress(4 << 20);
    load.finish();
    let settled = gateway.await_settled();
    assert_eq!(worker(&settled, 0).restarts, 1, "{settled}");
    assert_eq!(
        worker(&settled, 1).cell(Cell::FlowsMidstream),
        0,
        "{settled}"
    );
}

#[test]
fn what_cannot_be_done_is_refused_and_changes_nothing() {
    require_queues!();
    let gateway = Gateway::start(|setup| {
        // Room for five workers.
        setup.config.steering.mark_mask = 0x0007_0000;
    });
    let refused = |request: Request, why: &str| {
        let message = try_ask(&gateway, &request).expect_err("refused");
        assert!(message.contains(why), "{request:?}: {message}");
    };
    let (drain, resume) = (
        |worker| Request::Drain { worker },
        |worker| Request::Resume { worker },
    );
    refused(Request::Scale { workers: 0 }, "1 to 1024 workers");
    refused(Request::Scale { workers: 1025 }, "1 to 1024 workers");
    refused(
        Request::Scale { workers: 6 },
        "room for 5 workers, not for 6",
    );
    refused(drain(Seat::Backup), "the backup gets only");
    refused(
        drain(Seat::Worker(7)),
        "there is no worker 7, but 2 workers",
    );
    ask(&gateway, &drain(Seat::Worker(0)));
    refused(drain(Seat::Worker(1)), "no worker would be left");
    refused(Request::Scale { workers: 1 }, "no worker would be left");
    ask(&gateway, &resume(Seat::Worker(0)));

    // Somebody has the queue of the worker that would be the fourth.
    let number = gateway.config.queue_number(Seat::Worker(3));
    let options = gateway.config.queue_options(number);
    let socket = gateway.lab.gateway().enter(|| QueueSocket::open(&options));
    let socket = socket.expect("the queue is free");
    refused(
        Request::Scale { workers: 4 },
        "opening the queue of worker 3",
    );
    let status = gateway.await_status("as before", |status| {
        states(status) == ["up"; 2] && !status.scaling
    });
    assert_eq!(status.counters["adoptions"], 0);
    drop(socket);
    assert_eq!(scale(&gateway, 4).serving.len(), 4);
    assert_eq!(reached_by_new_flows(&gateway), workers(0..4));
    assert_eq!(scale(&gateway, 4).moved.slots, 0, "there are four already");
}

#[test]
fn a_supervisor_that_was_killed_has_a_successor_with_as_many_workers() {
    require_queues!();
    let mut gateway = Gateway::start(|_| {});
    scale(&gateway, 3);
    gateway.kill_supervisor();
    gateway.launch();
    assert_eq!(gateway.status().workers.len(), 3);
    assert_eq!(reached_by_new_flows(&gateway), workers(0..3));
    assert!(gateway.stop().success());
    gateway.launch();
    assert_eq!(gateway.status().workers.len(), 2, "as configured");
}
