//! A queue's socket outlives the processes that serve it.

use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use sluice::source::nfqueue::{Taken, settle_through, take_waiting};
use sluice_tests::{Process, require_queues};

use super::*;

/// Tells the worker process through which id to settle, and how.
const SETTLE: &str = "SLUICE_TEST_SETTLE";
/// Tells the worker process to keep its first batch without a verdict.
const HOLD: &str = "SLUICE_TEST_HOLD";

fn small_batches() -> QueueOptions {
    QueueOptions {
        batch: 8,
        ..options()
    }
}

/// Not a test: what the tests below start as worker processes, the queue's socket being their
/// standard input.
#[test]
#[ignore = "started by the other tests as a process of its own"]
fn worker_process() {
    struct Worker {
        hold: bool,
    }
    impl Inspector for Worker {
        fn batch(&mut self, highest: PacketId, _: usize) {
            if self.hold {
                println!("holding through {}", highest.0);
                loop {
                    std::thread::park();
                }
            }
        }
        fn packet(&mut self, _: Packet<'_>) -> Verdict {
            Verdict::ACCEPT
        }
    }
    let socket = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    let mut queue = NfQueue::new(socket, &small_batches()).unwrap();
    if let Ok(settle) = std::env::var(SETTLE) {
        let (last, disposition) = settle.split_once(' ').unwrap();
        let disposition = match disposition {
            "accept" => Disposition::Accept,
            _ => Disposition::Drop,
        };
        let last = PacketId(last.parse().unwrap());
        queue.settle_through(last, disposition).unwrap();
    }
    let mut worker = Worker {
        hold: std::env::var_os(HOLD).is_some(),
    };
    println!("serving");
    loop {
        queue
            .serve(Duration::from_millis(100), &mut worker)
            .unwrap();
    }
}

fn start_worker(socket: &OwnedFd, variables: &[(&str, &str)]) -> Process {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([
        "--exact",
        "hand_over::worker_process",
        "--ignored",
        "--nocapture",
    ]);
    command.envs(variables.iter().copied());
    let socket = Stdio::from(socket.try_clone().unwrap());
    Process::spawn_with_input(&mut command, socket).unwrap()
}

fn open_socket(lab: &Lab) -> OwnedFd {
    lab.gateway()
        .enter(|| QueueSocket::open(&small_batches()))
        .unwrap()
        .into_fd()
}

#[test]
fn what_waits_for_a_worker_that_does_not_come_is_taken_out_unseen_and_settled() {
    require_queues!();
    for disposition in [Disposition::Accept, Disposition::Drop] {
        let lab = lab_with_rules();
        let address = lab.server_v4().into();
        let server = receiver(&lab, address);
        let socket = open_socket(&lab);
        send_numbered(&lab, address, 0..30, 100);
        let state = await_state(&lab, "30 packets", |state| state.waiting == 30);
        for (most, first, last) in [(20, 1, 20), (100, 21, 30)] {
            let taken = take_waiting(socket.as_fd(), most).unwrap();
            assert_eq!(taken.packets, u64::from(last - first + 1));
            assert_eq!(taken.ends, Some((PacketId(first), PacketId(last))));
            settle_through(socket.as_fd(), state.queue, PacketId(last), disposition).unwrap();
            let left = 30 - last;
            await_state(&lab, "those settled", |state| state.waiting == left);
        }
        // That nothing is pending is no error, and leaves a message that is no packet.
        settle_through(socket.as_fd(), state.queue, PacketId(30), disposition).unwrap();
        let taken = take_waiting(socket.as_fd(), 100).unwrap();
        assert_eq!(taken, Taken::default());

        let mut worker = start_worker(&socket, &[]);
        worker.wait_for_line("serving", PATIENCE).unwrap();
        send_numbered(&lab, address, 30..40, 100);
        let expected: Vec<u8> = match disposition {
            Disposition::Accept => (0..40).collect(),
            Disposition::Drop => (30..40).collect(),
        };
        let arrived = take_numbers(&server, expected.len());
        assert_eq!(arrived, expected, "{disposition:?}");
        await_state(&lab, "nothing pending", |state| state.waiting == 0);
    }
}

#[test]
fn what_a_killed_worker_had_in_hand_is_settled_and_the_rest_is_served() {
    require_queues!();
    for disposition in ["accept", "drop"] {
        let lab = lab_with_rules();
        let address = lab.server_v4().into();
        let server = receiver(&lab, address);
        let socket = open_socket(&lab);
        send_numbered(&lab, address, 0..30, 100);
        await_state(&lab, "30 packets", |state| state.waiting == 30);

        let mut first = start_worker(&socket, &[(HOLD, "1")]);
        let line = first.wait_for_line("holding through", PATIENCE).unwrap();
        let last = line.rsplit(' ').next().unwrap().to_owned();
        assert_eq!(last, "8");
        first.stop(Signal::SIGKILL, PATIENCE).unwrap();
        // Its death has cost nothing: all are still there, and the queue takes more.
        send_numbered(&lab, address, 30..40, 100);
        let state = await_state(&lab, "40 packets", |state| state.waiting == 40);
        assert_eq!((state.queue_dropped, state.user_dropped), (0, 0));
        assert_eq!(take(&server, 0).len(), 0);

        let settle = format!("{last} {disposition}");
        let mut second = start_worker(&socket, &[(SETTLE, &settle)]);
        second.wait_for_line("serving", PATIENCE).unwrap();
        let expected: Vec<u8> = match disposition {
            "accept" => (0..40).collect(),
            _ => (8..40).collect(),
        };
        let arrived = take_numbers(&server, expected.len());
        assert_eq!(arrived, expected, "{disposition}");
        await_state(&lab, "nothing pending", |state| state.waiting == 0);
    }
}

#[test]
fn the_opener_itself_can_settle_for_a_dead_worker() {
    require_queues!();
    let lab = lab_with_rules();
    let address = lab.server_v6().into();
    let server = receiver(&lab, address);
    let socket = open_socket(&lab);
    send_numbered(&lab, address, 0..8, 100);
    await_state(&lab, "8 packets", |state| state.waiting == 8);
    let mut worker = start_worker(&socket, &[(HOLD, "1")]);
    worker.wait_for_line("holding through 8", PATIENCE).unwrap();
    worker.stop(Signal::SIGKILL, PATIENCE).unwrap();
    let mut queue = NfQueue::new(socket, &small_batches()).unwrap();
    queue
        .settle_through(PacketId(8), Disposition::Accept)
        .unwrap();
    await_state(&lab, "nothing pending", |state| state.waiting == 0);
    assert_eq!(take(&server, 8).len(), 8);
}

#[test]
fn a_stopped_worker_holds_nothing_up_that_another_process_serves() {
    require_queues!();
    let lab = lab_with_rules();
    let address = lab.server_v4().into();
    let server = receiver(&lab, address);
    let socket = open_socket(&lab);
    let mut first = start_worker(&socket, &[]);
    first.wait_for_line("serving", PATIENCE).unwrap();
    first.signal(Signal::SIGSTOP).unwrap();
    let mut second = start_worker(&socket, &[]);
    second.wait_for_line("serving", PATIENCE).unwrap();
    send_numbered(&lab, address, 0..20, 100);
    assert_eq!(take(&server, 20).len(), 20);
    await_state(&lab, "nothing pending", |state| state.waiting == 0);
}

#[test]
fn what_a_dead_worker_took_unnoted_is_settled_before_the_verdicts_of_the_next_batch() {
    /// Accepts, and knows that what came before its first packet is somebody else's.
    struct Successor {
        first: bool,
    }
    impl Inspector for Successor {
        fn leftovers_before(&mut self, first: PacketId) -> Option<(PacketId, Disposition)> {
            let last = PacketId(first.0.wrapping_sub(1));
            std::mem::replace(&mut self.first, false).then_some((last, Disposition::Drop))
        }
        fn batch(&mut self, _: PacketId, _: usize) {}
        fn packet(&mut self, _: Packet<'_>) -> Verdict {
            Verdict::ACCEPT
        }
    }
    require_queues!();
    let lab = lab_with_rules();
    let address = lab.server_v4().into();
    let server = receiver(&lab, address);
    let socket = open_socket(&lab);
    send_numbered(&lab, address, 0..12, 100);
    await_state(&lab, "12 packets", |state| state.waiting == 12);
    let mut worker = start_worker(&socket, &[(HOLD, "1")]);
    worker.wait_for_line("holding through 8", PATIENCE).unwrap();
    worker.stop(Signal::SIGKILL, PATIENCE).unwrap();
    let mut queue = NfQueue::new(socket, &small_batches()).unwrap();
    let mut successor = Successor { first: true };
    let served = queue.serve(PATIENCE, &mut successor);
    assert_eq!(served.unwrap(), 4);
    // An accept of a run covers everything pending up to its end.
    let arrived = take_numbers(&server, 4);
    assert_eq!(arrived, [8, 9, 10, 11]);
}
