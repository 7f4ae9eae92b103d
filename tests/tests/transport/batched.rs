//! What the batched transport alone can do.

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, sendto, socket,
};
use sluice_tests::require_queues;
use std::os::fd::AsRawFd;

use super::*;

/// Remembers what it sees, for a queue that the test serves itself.
fn recorder<F>(decide: F) -> Recorder<F> {
    Recorder {
        decide,
        seen: Arc::default(),
        announced: (0, 0),
        largest_batch: Arc::default(),
    }
}

/// A real packet message of queue 7 with id 999, which is not pending.
fn forged_packet() -> Vec<u8> {
    let mut bytes = vec![0; 20];
    bytes[4..6].copy_from_slice(&0x300_u16.to_ne_bytes());
    for (kind, value) in [(1_u16, [0, 0, 3, 231, 8, 0, 2, 0]), (10, [0x45; 8])] {
        // The packet header has seven bytes, and one of padding.
        let len = if kind == 1 { 11_u16 } else { 12 };
        bytes.extend(len.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
    }
    let len = u32::try_from(bytes.len()).unwrap();
    bytes[..4].copy_from_slice(&len.to_ne_bytes());
    bytes
}

#[test]
fn malformed_netlink_is_counted_and_disturbs_nothing() {
    require_queues!();
    let lab = lab_with_rules();
    let queue = Transport::Batched.open(&lab, &options()).unwrap();
    let serving = Serving::start(queue, |_| Verdict::ACCEPT);
    let forger = lab
        .gateway()
        .enter(|| {
            socket(
                AddressFamily::Netlink,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC,
                SockProtocol::NetlinkNetFilter,
            )
        })
        .unwrap();
    let queue_port = NetlinkAddr::new(state(&lab).port, 0);
    let forge = |bytes: &[u8]| {
        sendto(forger.as_raw_fd(), bytes, &queue_port, MsgFlags::empty()).unwrap();
    };
    let whole = forged_packet();
    // A netlink header that promises less than itself, one that promises too much, noise, a
    // packet without its header attribute, an attribute of no length.
    forge(&[0; 16]);
    forge(&[0xff; 16]);
    forge(&[0x5a; 1000]);
    forge(&whole[..20]);
    let mut broken = whole.clone();
    broken[20..22].fill(0);
    forge(&broken);
    let server = receiver(&lab, lab.server_v4().into());
    send_numbered(&lab, lab.server_v4().into(), 0..20, 100);
    assert_eq!(take(&server, 20).len(), 20);
    let counters = serving.counters();
    assert_eq!((counters.undecodable, counters.received), (5, 20));
    assert_eq!(counters.refused, 0);
}

#[test]
fn a_verdict_that_the_kernel_refuses_is_counted() {
    require_queues!();
    let lab = lab_with_rules();
    let mut queue = Transport::Batched.open(&lab, &options()).unwrap();
    let forger = lab
        .gateway()
        .enter(|| {
            socket(
                AddressFamily::Netlink,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC,
                SockProtocol::NetlinkNetFilter,
            )
        })
        .unwrap();
    let queue_port = NetlinkAddr::new(state(&lab).port, 0);
    let bytes = forged_packet();
    sendto(forger.as_raw_fd(), &bytes, &queue_port, MsgFlags::empty()).unwrap();
    let mut recorder = recorder(|_: &Packet<'_>| Verdict::ACCEPT);
    assert_eq!(queue.serve(PATIENCE, &mut recorder).unwrap(), 1);
    assert_eq!(recorder.seen.lock().unwrap()[0].id, 999);
    // The refusal is read with what comes next.
    assert_eq!(queue.serve(SILENCE, &mut recorder).unwrap(), 0);
    assert_eq!(queue.counters().refused, 1);
}

#[test]
fn what_the_receive_buffer_refuses_is_counted_exactly() {
    require_queues!();
    let lab = lab_with_rules();
    let address = lab.server_v4().into();
    let server = receiver(&lab, address);
    let tight = QueueOptions {
        receive_buffer: 16 * 1024,
        ..options()
    };
    let queue = Transport::Batched.open(&lab, &tight).unwrap();
    send_numbered(&lab, address, 0..200, SIZE);
    await_state(&lab, "200 packets", |state| state.last_id == 200);
    // Again: the last one has its id before it is refused.
    let state = state(&lab);
    let serving = Serving::start(queue, |_| Verdict::ACCEPT);
    let arrived = take(&server, state.waiting as usize).len() as u64;
    let counters = serving.counters();
    assert!(counters.overruns > 0, "{counters:?}");
    assert_eq!(counters.overruns, state.user_dropped);
    assert_eq!(counters.received, arrived);
    assert_eq!(arrived + counters.overruns, 200);
}

#[test]
fn a_full_receive_buffer_passes_packets_with_fail_open() {
    require_queues!();
    let lab = lab_with_rules();
    let address = lab.server_v4().into();
    let server = receiver(&lab, address);
    let tight = QueueOptions {
        receive_buffer: 16 * 1024,
        fail_open: true,
        ..options()
    };
    let queue = Transport::Batched.open(&lab, &tight).unwrap();
    send_numbered(&lab, address, 0..200, SIZE);
    // Those that passed have an id as well, and are counted by the socket only.
    await_state(&lab, "200 packets", |state| state.last_id == 200);
    let waiting = || state(&lab).waiting as usize;
    let passed = take(&server, 200 - waiting()).len() as u64;
    let state = state(&lab);
    assert_eq!((state.last_id, state.user_dropped), (200, 0), "{state:?}");
    let serving = Serving::start(queue, |_| Verdict::ACCEPT);
    let waited = take(&server, state.waiting as usize).len() as u64;
    let counters = serving.counters();
    assert_eq!((counters.overruns, counters.received), (passed, waited));
    assert_eq!(passed + waited, 200);
}

#[test]
fn a_full_queue_gives_no_id_to_what_it_has_no_room_for() {
    require_queues!();
    for fail_open in [false, true] {
        let lab = lab_with_rules();
        let address = lab.server_v4().into();
        let server = receiver(&lab, address);
        let short = QueueOptions {
            max_length: 50,
            fail_open,
            ..options()
        };
        let queue = Transport::Batched.open(&lab, &short).unwrap();
        send_numbered(&lab, address, 0..200, SIZE);
        let expected = if fail_open { (150, 0) } else { (0, 150) };
        await_state(&lab, "a full queue", |state| {
            (state.waiting, state.queue_dropped) == (50, expected.1)
        });
        let passed = take(&server, expected.0);
        let state = state(&lab);
        assert_eq!((state.last_id, state.user_dropped), (50, 0), "{state:?}");
        assert_eq!((passed.len(), state.queue_dropped), expected);
        let serving = Serving::start(queue, |_| Verdict::ACCEPT);
        assert_eq!(take(&server, 50).len(), 50);
        assert_eq!(serving.counters().received, 50);
    }
}

#[test]
fn after_an_overflow_the_queue_goes_on_at_once() {
    require_queues!();
    let lab = lab_with_rules();
    let address = lab.server_v4().into();
    let server = receiver(&lab, address);
    let tight = QueueOptions {
        receive_buffer: 64 * 1024,
        batch: 1,
        ..options()
    };
    let mut queue = Transport::Batched.open(&lab, &tight).unwrap();
    send_numbered(&lab, address, 0..200, SIZE);
    await_state(&lab, "200 packets", |state| state.last_id == 200);
    // Again: the last one has its id before it is refused.
    let overflown = state(&lab);
    assert!(overflown.user_dropped > 0);
    // One packet taken out makes room for one, long before the buffer is empty.
    let mut recorder = recorder(|_: &Packet<'_>| Verdict::ACCEPT);
    for _ in 0..4 {
        assert_eq!(queue.serve(Duration::ZERO, &mut recorder).unwrap(), 1);
    }
    send_numbered(&lab, address, 200..201, SIZE);
    let state = await_state(&lab, "one more packet", |state| state.last_id == 201);
    assert_eq!(state.user_dropped, overflown.user_dropped);
    let serving = Serving::start(queue, |_| Verdict::ACCEPT);
    let numbers = take_numbers(&server, 4 + state.waiting as usize);
    assert_eq!(numbers.last(), Some(&200));
    drop(serving.stop());
}

#[test]
fn a_replacement_longer_than_any_packet_drops_and_is_counted() {
    require_queues!();
    for transport in Transport::ALL {
        let lab = lab_with_rules();
        let server = receiver(&lab, lab.server_v4().into());
        let queue = transport.open(&lab, &options()).unwrap();
        let serving = Serving::start(queue, |_| accept_with(vec![0x45; 70_000]));
        send_numbered(&lab, lab.server_v4().into(), 0..2, SIZE);
        serving.await_seen(2);
        assert_eq!(take(&server, 0).len(), 0, "{transport:?}");
        let counters = serving.counters();
        assert_eq!(
            (counters.refused, counters.dropped),
            (2, 2),
            "{transport:?}"
        );
        assert_eq!(counters.accepted, 0, "{transport:?}");
    }
}

#[test]
fn settling_nothing_is_no_error() {
    require_queues!();
    let lab = lab_with_rules();
    let mut queue = Transport::Batched.open(&lab, &options()).unwrap();
    queue
        .settle_through(PacketId(1000), Disposition::Accept)
        .unwrap();
    let serving = Serving::start(queue, |_| Verdict::ACCEPT);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(serving.counters(), QueueCounters::default());
}
