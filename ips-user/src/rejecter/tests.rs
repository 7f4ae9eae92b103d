use etherparse::PacketBuilder;

use super::*;

#[test]
fn an_empty_or_too_long_request_ends_nothing_and_the_last_sender_does() {
    let (workers, requests) = pair().unwrap();
    let mut buffer = [0; request::MAX_BYTES];
    for length in [3, 0, request::MAX_BYTES + 7] {
        workers.send(&vec![1; length]).unwrap();
        assert_eq!(
            requests.receive(&mut buffer),
            Ok(Received::Request(length)),
            "the true length"
        );
    }
    let second = RejectSocket {
        socket: workers.socket.try_clone().unwrap(),
    };
    drop(workers);
    second.send(&[5]).unwrap();
    assert_eq!(requests.receive(&mut buffer), Ok(Received::Request(1)));
    drop(second);
    assert_eq!(requests.receive(&mut buffer), Ok(Received::End));
}

#[test]
fn a_worker_does_not_wait_for_a_rejecter_that_does_not_listen() {
    let (workers, requests) = pair().unwrap();
    let mut handed = 0;
    while workers.send(&[0; 100]).is_ok() {
        handed += 1;
    }
    assert!(handed > 100, "{handed}");
    drop(requests);
    workers.send(&[0; 100]).unwrap_err();
}

#[test]
fn what_was_sent_refused_and_failed_is_counted() {
    let thread = std::thread::spawn(|| {
        use nix::sched::{CloneFlags, unshare};
        if unshare(CloneFlags::CLONE_NEWNET).is_err() {
            return false;
        }
        let up = std::process::Command::new("ip")
            .args(["link", "set", "lo", "up"])
            .status();
        assert!(up.is_ok_and(|status| status.success()), "ip link set lo up");
        let mut reset = Vec::new();
        PacketBuilder::ipv4([127, 0, 0, 1], [127, 0, 0, 2], 64)
            .tcp(1, 2, 3, 0)
            .rst()
            .write(&mut reset, &[])
            .unwrap();
        let mut nowhere = Vec::new();
        PacketBuilder::ipv4([127, 0, 0, 1], [10, 9, 8, 7], 64)
            .tcp(1, 2, 3, 0)
            .rst()
            .write(&mut nowhere, &[])
            .unwrap();
        let (workers, requests) = pair().unwrap();
        for request in [&reset[..], b"forged", &reset[..], &nowhere[..], &[0; 2000]] {
            workers.send(request).unwrap();
        }
        drop(workers);
        let tally = Tally::create().unwrap();
        serve(&requests, &RawSocket::open(0x10).unwrap(), &tally).unwrap();
        let expected = RejecterCounters {
            sent: 2,
            refused: 2,
            failed: 1,
        };
        assert_eq!(tally.counters(), expected);
        true
    });
    if !thread.join().expect("the test in the namespace failed") {
        println!("skipped: a network namespace needs CAP_SYS_ADMIN");
    }
}
