//! What both transports must do alike.

use std::net::SocketAddr;

use sluice_tests::over::OverOnDrop;
use sluice_tests::patience::kept_in_one_of;
use sluice_tests::require_queues;
use sluice_tests::stream::{Extent, Sender, Sink};

use super::*;

/// What a packet with this number shall get.
type Decide = fn(number: u8, packet: &Packet<'_>) -> Verdict;

struct Case {
    name: &'static str,
    decide: Decide,
    /// What of a datagram with this number arrives.
    arrives: fn(number: u8) -> Option<Vec<u8>>,
    /// How many of the datagrams carry mark 5 afterwards.
    marked: u64,
}

const COUNT: u8 = 40;

const CASES: &[Case] = &[
    Case {
        name: "accept",
        decide: |_, _| Verdict::ACCEPT,
        arrives: |number| Some(vec![number; SIZE]),
        marked: 0,
    },
    Case {
        name: "drop",
        decide: |_, _| Verdict::DROP,
        arrives: |_| None,
        marked: 0,
    },
    Case {
        name: "mark",
        decide: |_, _| accept_with_mark(5),
        arrives: |number| Some(vec![number; SIZE]),
        marked: 40,
    },
    Case {
        name: "every other one dropped",
        decide: |number, _| match number % 2 {
            0 => Verdict::ACCEPT,
            _ => Verdict::DROP,
        },
        arrives: |number| (number % 2 == 0).then(|| vec![number; SIZE]),
        marked: 0,
    },
    Case {
        name: "payload replaced, same length",
        decide: |number, packet| accept_with(with_udp_payload(packet.payload, &[!number; SIZE])),
        arrives: |number| Some(vec![!number; SIZE]),
        marked: 0,
    },
    Case {
        name: "payload replaced, shorter",
        decide: |number, packet| accept_with(with_udp_payload(packet.payload, &[!number; 9])),
        arrives: |number| Some(vec![!number; 9]),
        marked: 0,
    },
    Case {
        name: "payload replaced, longer",
        decide: |number, packet| accept_with(with_udp_payload(packet.payload, &[!number; 1200])),
        arrives: |number| Some(vec![!number; 1200]),
        marked: 0,
    },
    Case {
        name: "mixed",
        decide: |number, packet| match number % 5 {
            0 => Verdict::DROP,
            1 => accept_with_mark(5),
            2 => Verdict {
                mark: Some(5),
                ..accept_with(with_udp_payload(packet.payload, &[!number; 50]))
            },
            3 => accept_with_mark(6),
            _ => Verdict::ACCEPT,
        },
        arrives: |number| match number % 5 {
            0 => None,
            2 => Some(vec![!number; 50]),
            _ => Some(vec![number; SIZE]),
        },
        marked: 16,
    },
];

#[test]
fn each_verdict_has_its_effect_and_packets_stay_in_order() {
    require_queues!();
    for transport in Transport::ALL {
        let lab = lab_with_rules();
        for case in CASES {
            for address in lab.server_addresses() {
                check(&lab, transport, case, address);
            }
        }
    }
}

/// The packets are all in the queue before the first is served, so that the batches are large.
fn check(lab: &Lab, transport: Transport, case: &Case, address: IpAddr) {
    let context = format!("{transport:?}, {}, {address}", case.name);
    let server = receiver(lab, address);
    let queue = transport.open_after_another(lab, &options());
    let marked_before = marked(lab);
    send_numbered(lab, address, 0..COUNT, SIZE);
    await_state(lab, "everything queued", |state| {
        state.waiting == u32::from(COUNT)
    });
    let decide = case.decide;
    let serving = Serving::start(queue, move |packet| {
        decide(udp_payload(packet.payload)[0], packet)
    });
    let expected: Vec<_> = (0..COUNT).filter_map(case.arrives).collect();
    let state = await_state(lab, "everything settled", |state| state.waiting == 0);
    assert_eq!(
        (state.queue_dropped, state.user_dropped),
        (0, 0),
        "{context}"
    );
    assert_eq!(take(&server, expected.len()), expected, "{context}");
    assert_eq!(marked(lab) - marked_before, case.marked, "{context}");

    let seen = serving.seen();
    let ids: Vec<_> = seen.iter().map(|seen| seen.id).collect();
    assert_eq!(ids, (1..=u32::from(COUNT)).collect::<Vec<_>>(), "{context}");
    let (ethertype, header) = if address.is_ipv4() {
        (0x0800, 28)
    } else {
        (0x86dd, 48)
    };
    let len = SIZE + header;
    for (number, seen) in (0_u8..).zip(&seen) {
        assert_eq!((seen.hook, seen.ethertype), (2, ethertype), "{context}");
        assert!(seen.in_interface > 0 && seen.out_interface > 0, "{context}");
        assert_ne!(seen.in_interface, seen.out_interface, "{context}");
        assert_eq!(seen.original_len as usize, len, "{context}");
        assert_eq!(udp_payload(&seen.payload)[0], number, "{context}");
    }
    if transport == Transport::Batched {
        assert_eq!(serving.largest_batch(), options().batch, "{context}");
    }

    let arrives_changed = |number: &u8| {
        let arrived = (case.arrives)(*number);
        arrived.is_some_and(|payload| payload != vec![*number; SIZE])
    };
    let replaced = (0..COUNT).filter(arrives_changed).count() as u64;
    let arrived = expected.len() as u64;
    let counters = serving.counters();
    assert_eq!(counters.received, u64::from(COUNT), "{context}");
    assert_eq!(counters.replaced, replaced, "{context}");
    assert_eq!(counters.accepted, arrived - replaced, "{context}");
    assert_eq!(counters.dropped, u64::from(COUNT) - arrived, "{context}");
    assert_eq!(
        (counters.refused, counters.undecodable),
        (0, 0),
        "{context}"
    );
}

#[test]
fn a_tcp_stream_arrives_whole_and_is_seen_in_aggregates() {
    require_queues!();
    for transport in Transport::ALL {
        let lab = lab_with_rules();
        for address in lab.server_addresses() {
            let queue = transport.open_after_another(&lab, &options());
            let serving = Serving::start(queue, |_| Verdict::ACCEPT);
            let sink = Sink::start(lab.server(), address, PORT).unwrap();
            let sender = Sender::start(lab.client(), sink.address(), Extent::Bytes(30_000_000));
            assert_eq!(sender.finish().error, None, "{transport:?} {address}");
            assert_eq!(sink.faults(), Vec::<String>::new());
            assert_eq!(sink.received(), 30_000_000);
            let seen = serving.seen();
            let largest = seen.iter().max_by_key(|seen| seen.original_len).unwrap();
            assert!(largest.gso && largest.original_len > 1500, "{largest:?}");
            await_state(&lab, "everything settled", |state| state.waiting == 0);
            drop(serving.stop());
        }
    }
}

#[test]
fn without_gso_no_packet_exceeds_the_mtu() {
    require_queues!();
    for transport in Transport::ALL {
        let lab = lab_with_rules();
        let without = QueueOptions {
            gso: false,
            ..options()
        };
        let queue = transport.open(&lab, &without).unwrap();
        let serving = Serving::start(queue, |_| Verdict::ACCEPT);
        let sink = Sink::start(lab.server(), lab.server_v4().into(), PORT).unwrap();
        let sender = Sender::start(lab.client(), sink.address(), Extent::Bytes(1_000_000));
        assert_eq!(sender.finish().error, None, "{transport:?}");
        assert_eq!(sink.received(), 1_000_000);
        let seen = serving.seen();
        assert!(
            seen.iter()
                .all(|seen| !seen.gso && seen.original_len <= 1500)
        );
        drop(serving.stop());
    }
}

#[test]
fn an_aggregate_may_be_replaced_by_one_of_the_same_length() {
    require_queues!();
    for transport in Transport::ALL {
        let lab = lab_with_rules();
        for address in lab.server_addresses() {
            let queue = transport.open_after_another(&lab, &options());
            let serving = Serving::start(queue, |packet| {
                accept_with(match packet.gso {
                    true => packet.payload.to_vec(),
                    false => with_tcp_checksum(packet.payload),
                })
            });
            let sink = Sink::start(lab.server(), address, PORT).unwrap();
            let sender = Sender::start(lab.client(), sink.address(), Extent::Bytes(3_000_000));
            assert_eq!(sender.finish().error, None, "{transport:?} {address}");
            assert_eq!((sink.received(), sink.faults()), (3_000_000, vec![]));
            assert!(serving.seen().iter().any(|seen| seen.gso));
            drop(serving.stop());
        }
    }
}

#[test]
fn a_packet_longer_than_the_copy_range_says_so() {
    require_queues!();
    for transport in Transport::ALL {
        let lab = lab_with_rules();
        let short = QueueOptions {
            copy_range: 64,
            ..options()
        };
        let server = receiver(&lab, lab.server_v4().into());
        let queue = transport.open(&lab, &short).unwrap();
        let serving = Serving::start(queue, |_| Verdict::ACCEPT);
        send_numbered(&lab, lab.server_v4().into(), 0..3, 1000);
        assert_eq!(take(&server, 3).len(), 3, "{transport:?}");
        for seen in serving.seen() {
            assert_eq!((seen.payload.len(), seen.original_len), (64, 1028));
        }
        drop(serving.stop());
    }
}

#[test]
fn a_full_queue_drops_or_passes_as_configured_and_every_packet_is_accounted_for() {
    require_queues!();
    for transport in Transport::ALL {
        for fail_open in [false, true] {
            let lab = lab_with_rules();
            let address = lab.server_v4().into();
            let server = receiver(&lab, address);
            let small = QueueOptions {
                max_length: 10,
                fail_open,
                ..options()
            };
            let queue = transport.open(&lab, &small).unwrap();
            send_numbered(&lab, address, 0..50, SIZE);
            let (passes, drops) = if fail_open { (10..50, 0) } else { (0..0, 40) };
            await_state(&lab, "a full queue", |state| {
                (state.waiting, state.queue_dropped) == (10, drops)
            });
            let passed = take_numbers(&server, passes.len());
            assert_eq!(passed, passes.collect::<Vec<_>>(), "{transport:?}");
            let state = state(&lab);
            assert_eq!((state.queue_dropped, state.user_dropped), (drops, 0));
            let serving = Serving::start(queue, |_| Verdict::ACCEPT);
            let waited = take_numbers(&server, 10);
            assert_eq!(waited, (0..10).collect::<Vec<_>>(), "{transport:?}");
            assert_eq!(serving.counters().received, 10);
        }
    }
}

#[test]
fn a_queue_number_in_use_is_refused_with_the_reason() {
    require_queues!();
    for first in Transport::ALL {
        for second in Transport::ALL {
            let lab = lab_with_rules();
            let holder = first.open(&lab, &options()).unwrap();
            let Err(error) = second.open(&lab, &options()) else {
                panic!("{second:?} has bound a queue of {first:?}");
            };
            let error = error.to_string();
            assert!(
                error.starts_with("queue 7: ") && error.contains("another program"),
                "{error}"
            );
            // The other number is free.
            let other = QueueOptions {
                number: QUEUE + 1,
                ..options()
            };
            drop(second.open(&lab, &other).unwrap());
            drop(holder);
            drop(second.open_after_another(&lab, &options()));
        }
    }
}

#[test]
fn queues_of_the_same_number_in_two_namespaces_do_not_meet() {
    require_queues!();
    let labs = [lab_with_rules(), lab_with_rules()];
    let queues = Transport::ALL
        .iter()
        .zip(&labs)
        .map(|(transport, lab)| transport.open(lab, &options()).unwrap());
    let servings: Vec<_> = queues
        .map(|queue| Serving::start(queue, |_| Verdict::ACCEPT))
        .collect();
    for (lab, count) in labs.iter().zip([3, 5]) {
        let server = receiver(lab, lab.server_v4().into());
        send_numbered(lab, lab.server_v4().into(), 0..count, SIZE);
        assert_eq!(take(&server, count.into()).len(), usize::from(count));
    }
    let seen: Vec<_> = servings
        .into_iter()
        .map(|serving| serving.counters().received)
        .collect();
    assert_eq!(seen, [3, 5]);
}

#[test]
fn an_idle_queue_keeps_its_timeout() {
    require_queues!();
    struct Nobody;
    impl Inspector for Nobody {
        fn batch(&mut self, _: PacketId, _: usize) {
            panic!("there is no traffic");
        }
        fn packet(&mut self, _: Packet<'_>) -> Verdict {
            panic!("there is no traffic");
        }
    }
    for transport in Transport::ALL {
        let lab = lab_with_rules();
        let mut queue = transport.open(&lab, &options()).unwrap();
        for timeout in [Duration::ZERO, Duration::from_millis(30)] {
            // Others may have the CPU at the end of one wait, but not of each.
            kept_in_one_of(5, || {
                let waits = [(); 5].map(|()| {
                    let started = Instant::now();
                    assert_eq!(queue.serve(timeout, &mut Nobody).unwrap(), 0);
                    started.elapsed()
                });
                let shown = format!("{transport:?}, {timeout:?}: {waits:?}");
                assert!(waits.iter().all(|wait| *wait >= timeout), "{shown}");
                let late = timeout + Duration::from_millis(200);
                match waits.iter().any(|wait| *wait < late) {
                    true => Ok(()),
                    false => Err(shown),
                }
            });
        }
        assert_eq!(queue.counters(), QueueCounters::default());
    }
}

#[test]
fn a_queue_opened_under_traffic_delivers_whole_packets_only() {
    require_queues!();
    for transport in Transport::ALL {
        let lab = lab_with_rules();
        let to = SocketAddr::new(lab.server_v4().into(), PORT);
        let flooding = OverOnDrop::default();
        let flooded = flooding.watch();
        let flood = lab.client().spawn("flood", move || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            while !flooded.is_over() {
                // The server has nobody there: an ICMP error may come back.
                let _ = socket.send_to(&[1; SIZE], to);
            }
        });
        for _ in 0..20 {
            let queue = transport.open_after_another(&lab, &options());
            let serving = Serving::start(queue, |_| Verdict::ACCEPT);
            let seen = serving.await_seen(1);
            for seen in &seen {
                assert_eq!(seen.payload.len(), SIZE + 28, "{transport:?} {seen:?}");
            }
            if transport == Transport::Batched {
                // None has slipped by between opening and serving. (The crate throws away
                // what comes while it waits for an acknowledgement.)
                assert_eq!(seen[0].id, 1);
            }
            drop(serving.stop());
        }
        drop(flooding);
        flood.join().unwrap();
    }
}
