//! The lab itself: what the other tests stand on.

use std::time::Duration;

use sluice_tests::datagram::{Replier, RequestPlan, Requester};
use sluice_tests::frame::FrameSocket;
use sluice_tests::patience::{PATIENCE, wait_until};
use sluice_tests::stream::{Echo, Extent, Sender, Sink, exchange};
use sluice_tests::{Lab, LabOptions, Namespace, Process, http, icmp, require_lab};

#[test]
fn every_kind_of_traffic_passes_the_gateway_over_both_protocols() {
    require_lab!();
    let lab = Lab::new(&LabOptions::default()).unwrap();
    for address in lab.server_addresses() {
        let sink = Sink::start(lab.server(), address, 0).unwrap();
        let sender = Sender::start(lab.client(), sink.address(), Extent::Bytes(20_000_000));
        let report = sender.finish();
        assert_eq!(report.error, None);
        assert_eq!((sink.received(), sink.finished()), (20_000_000, 1));
        assert_eq!(sink.faults(), Vec::<String>::new());
        assert_eq!(sink.timeline().bytes.iter().sum::<u64>(), 20_000_000);

        let echo = Echo::start(lab.server(), address, 0).unwrap();
        let answer = exchange(lab.client(), echo.address(), b"hello", PATIENCE);
        assert_eq!(answer.unwrap(), b"hello");

        let replier = Replier::start(lab.server(), address, 0).unwrap();
        for size in [8, 64, 4000] {
            let plan = RequestPlan {
                flows: 4,
                size,
                ..RequestPlan::to(replier.address())
            };
            let report = Requester::run(lab.client(), plan).unwrap();
            assert_eq!(
                (report.answered, report.lost, report.corrupt),
                (100, 0, 0),
                "{size}"
            );
        }

        let server = http::Server::start(lab.server(), address, 0, b"page").unwrap();
        let page = http::get(lab.client(), server.address(), "/", &[], PATIENCE).unwrap();
        assert_eq!(
            (page.status, page.body.as_slice()),
            (200, b"page".as_slice())
        );
        let duration = Duration::from_millis(200);
        // It may be over before the first request is sent.
        wait_until(
            || {
                let load = http::load(lab.client(), server.address(), "/", 4, duration);
                assert_eq!(load.errors, 0, "{load:?}");
                load.requests > 0
            },
            || "no request was answered".to_owned(),
        );

        let answered = icmp::ping(lab.client(), address, 3, 56, PATIENCE);
        assert_eq!(answered.unwrap(), 3);
    }
}

#[test]
fn a_lab_is_gone_after_its_drop_even_by_a_panic() {
    require_lab!();
    let name = std::thread::spawn(|| {
        let lab = Lab::new(&LabOptions::default()).unwrap();
        std::panic::panic_any(lab.name().to_owned());
    })
    .join()
    .unwrap_err();
    let name = name.downcast::<String>().unwrap();
    let left: Vec<_> = std::fs::read_dir("/run/netns")
        .unwrap()
        .flatten()
        .filter(|entry| {
            entry
                .file_name()
                .to_string_lossy()
                .starts_with(&format!("{name}-"))
        })
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn frames_are_seen_on_the_wire() {
    require_lab!();
    let lab = Lab::new(&LabOptions::default()).unwrap();
    let wire = FrameSocket::open(lab.server(), Lab::SERVER_INTERFACE).unwrap();
    let replier = Replier::start(lab.server(), lab.server_v4().into(), 4242).unwrap();
    let plan = RequestPlan {
        requests: 5,
        ..RequestPlan::to(replier.address())
    };
    Requester::run(lab.client(), plan).unwrap();
    let to_port = |frame: &[u8]| frame.get(36..38) == Some(4242_u16.to_be_bytes().as_slice());
    let frames = wire.collect(5, PATIENCE, to_port).unwrap();
    assert_eq!(frames.len(), 5);
    assert_eq!(frames[0].len(), 14 + 20 + 8 + 64);
}

#[test]
fn the_leftovers_of_a_dead_process_are_swept_and_the_living_ones_are_not() {
    require_lab!();
    let lab = Lab::new(&LabOptions::default()).unwrap();
    let mut dead = std::process::Command::new("true").spawn().unwrap();
    let pid = dead.id();
    dead.wait().unwrap();
    let leftover = format!("sluice-lab-{pid}-0-client");
    let namespace = Namespace::create(&leftover).unwrap();
    let mut inside = Process::spawn(namespace.command("sleep").arg("60")).unwrap();
    let removed = sluice_tests::sweep();
    assert!(removed.contains(&leftover), "{removed:?}");
    assert!(!removed.iter().any(|name| name.starts_with(lab.name())));
    assert!(!inside.wait(PATIENCE).unwrap().success());
}
