//! Steering by the TC program: table, liveness, backup, placements.

mod common_packets;

use std::net::Ipv4Addr;
use std::os::fd::AsFd;

use common_packets::rig::{MASK, SECOND, TC_ACT_UNSPEC, now};
use common_packets::*;
use ips_common::{
    BACKUP, BYPASS, Counter, EventKind, FlowKey, MOVING, Placement, PlacementReason, Received,
    Steer, WorkerState, flow_hash, slot_of,
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Both directions and the key of the n-th of many flows.
fn nth_flow(n: u16) -> (Vec<u8>, Vec<u8>, FlowKey) {
    if n.is_multiple_of(2) {
        let there = frame(&v4(A4, B4, TCP, &ports(n, 443)));
        let back = frame(&v4(B4, A4, TCP, &ports(443, n)));
        (there, back, key(TCP, (A4.into(), n), (B4.into(), 443)))
    } else {
        let there = frame(&v6(A6, B6, UDP, &ports(n, 53)));
        let back = frame(&v6(B6, A6, UDP, &ports(53, n)));
        (there, back, key(UDP, (A6.into(), n), (B6.into(), 53)))
    }
}

/// A flow that the table has for this worker.
fn flow_of(rig: &Rig, worker: u32) -> (Vec<u8>, Vec<u8>, FlowKey) {
    (1..)
        .map(nth_flow)
        .find(|(_, _, key)| rig.worker_of(key) == worker)
        .unwrap()
}

fn steer(rig: &Rig, frame: &[u8]) -> Steer {
    let result = rig.tc(frame);
    assert_eq!(result.action, TC_ACT_UNSPEC);
    rig.layout().read(result.mark)
}

fn placements(rig: &Rig) -> Vec<(FlowKey, Placement)> {
    rig.maps.placements.list(usize::MAX).unwrap()
}

fn only_placement(rig: &Rig) -> (FlowKey, Placement) {
    let list = placements(rig);
    assert_eq!(list.len(), 1, "{list:?}");
    list[0]
}

fn placement(target: u32, reason: PlacementReason) -> Placement {
    Placement {
        last_ns: now(),
        target,
        from_worker: 0,
        reason: reason as u32,
        reserved: 0,
    }
}

/// Gives the flow's slot the bit, or another worker.
fn change_slot(rig: &mut Rig, key: &FlowKey, entry: u32) {
    let mut slots = rig.maps.table.slots().to_vec();
    slots[slot_of(flow_hash(rig.config.seed, key)) as usize] = entry;
    rig.maps.table.write(&slots).unwrap();
}

/// The packets of each hook are the sum of its outcomes.
fn assert_accounted(rig: &Rig) {
    use Counter::*;
    let counters = rig.counters();
    let outcomes = [
        TcWorker,
        TcBackup,
        TcBypass,
        TcConvicted,
        TcNotIp,
        TcMalformed,
        TcUnconfigured,
    ];
    let sum: u64 = outcomes.into_iter().map(|o| counters.get(o)).sum();
    assert_eq!(sum, counters.get(TcPackets), "{counters:?}");
    assert_eq!(
        counters.get(XdpConvicted) + counters.get(XdpPassed),
        counters.get(XdpPackets),
        "{counters:?}"
    );
}

#[test]
fn both_directions_go_to_the_worker_that_the_table_has() {
    let rig = rig!();
    let mut seen = [0; 4];
    for n in 1..400 {
        let (there, back, key) = nth_flow(n);
        let worker = rig.worker_of(&key);
        assert_eq!(steer(&rig, &there), Steer::Worker(worker), "{key}");
        assert_eq!(steer(&rig, &back), Steer::Worker(worker), "{key}");
        seen[worker as usize] += 1;
    }
    assert!(seen.iter().all(|&flows| flows > 50), "{seen:?}");
    assert_eq!(rig.count(Counter::TcWorker), 2 * 399);
    assert_accounted(&rig);
}

#[test]
fn an_icmp_error_goes_to_the_worker_of_the_flow_it_is_about() {
    let rig = rig!();
    let router = Ipv4Addr::new(203, 0, 113, 1);
    for port in 1..50 {
        let packet = v4(A4, B4, TCP, &ports(port, 80));
        let error = v4(router, A4, ICMP, &icmp(3, 0, &packet[..28]));
        assert_eq!(steer(&rig, &frame(&packet)), steer(&rig, &frame(&error)));
    }
}

#[test]
fn only_the_bits_inside_the_mask_change() {
    let rig = rig!();
    let (packet, _, key) = nth_flow(2);
    let mut random = Random(42);
    for _ in 0..100 {
        let before = random.next() as u32;
        let after = rig.tc_with_mark(&packet, before).mark;
        assert_eq!(after & !MASK, before & !MASK);
        let expected = Steer::Worker(rig.worker_of(&key));
        assert_eq!(rig.layout().read(after), expected);
    }
}

#[test]
fn what_is_not_steered_keeps_its_mark() {
    let mut rig = rig!();
    let arp = ethernet(&[], 0x0806, &[0; 28]);
    let mut malformed = frame(&v4(A4, B4, TCP, &ports(1, 2)));
    malformed[14] = 0x44;
    for packet in [&arp, &malformed] {
        let result = rig.tc_with_mark(packet, 0x1234_5678);
        assert_eq!((result.action, result.mark), (TC_ACT_UNSPEC, 0x1234_5678));
    }
    assert_eq!(rig.count(Counter::TcNotIp), 1);
    assert_eq!(rig.count(Counter::TcMalformed), 1);

    rig.configure(|config| config.workers = 0);
    let (packet, _, _) = nth_flow(2);
    let result = rig.tc_with_mark(&packet, 0x1234_5678);
    assert_eq!((result.action, result.mark), (TC_ACT_UNSPEC, 0x1234_5678));
    assert_eq!(rig.count(Counter::TcUnconfigured), 1);
    assert_accounted(&rig);
}

#[test]
fn a_hung_worker_is_bypassed_and_its_flows_stay_with_the_backup() {
    let mut rig = rig!();
    let (there, back, key) = flow_of(&rig, 2);
    let (other, _, _) = flow_of(&rig, 3);
    assert_eq!(steer(&rig, &there), Steer::Worker(2));

    rig.hang(2);
    assert_eq!(steer(&rig, &there), Steer::Backup);
    assert_eq!(steer(&rig, &back), Steer::Backup);
    assert_eq!(
        steer(&rig, &other),
        Steer::Worker(3),
        "others are not concerned"
    );
    assert!(rig.maps.workers.tripped(2).is_some());
    let (placed, placement) = only_placement(&rig);
    assert_eq!((placed, placement.from_worker), (key, 2));
    assert_eq!(placement.target, BACKUP);
    assert_eq!(placement.reason, PlacementReason::Adopted as u32);

    rig.revive(2);
    assert_eq!(steer(&rig, &there), Steer::Backup, "the flow stays");
    assert_eq!(steer(&rig, &back), Steer::Backup, "the flow stays");
    let (fresh, _, _) = (1..)
        .map(nth_flow)
        .find(|(_, _, other)| rig.worker_of(other) == 2 && *other != key)
        .unwrap();
    assert_eq!(steer(&rig, &fresh), Steer::Worker(2), "others come back");

    assert_eq!(rig.count(Counter::Adoptions), 1);
    assert_eq!(rig.count(Counter::TcBackup), 4);
    let kinds: Vec<_> = std::iter::from_fn(|| rig.maps.events.next())
        .map(|event| (event.kind, event.worker, event.key))
        .collect();
    assert_eq!(
        kinds,
        [
            (EventKind::Stale as u32, 2, FlowKey::default()),
            (EventKind::Adopted as u32, 2, key),
        ]
    );
    assert_accounted(&rig);
}

#[test]
fn a_stale_heartbeat_is_reported_once_until_the_report_is_cleared() {
    let mut rig = rig!();
    rig.hang(1);
    let flows: Vec<_> = (1..)
        .map(nth_flow)
        .filter(|(_, _, key)| rig.worker_of(key) == 1)
        .take(10)
        .collect();
    for (there, _, _) in &flows[..5] {
        assert_eq!(steer(&rig, there), Steer::Backup);
    }
    let tripped = rig.maps.workers.tripped(1).unwrap();
    assert!(tripped <= now() && tripped > now() - 10 * SECOND);
    rig.maps.workers.clear_tripped(1);
    for (there, _, _) in &flows[5..] {
        assert_eq!(steer(&rig, there), Steer::Backup);
    }
    let stale = std::iter::from_fn(|| rig.maps.events.next())
        .filter(|event| event.kind == EventKind::Stale as u32)
        .count();
    assert_eq!(stale, 2);
    assert_eq!(rig.count(Counter::Adoptions), 10);
}

#[test]
fn a_worker_that_is_down_is_bypassed_without_being_reported_stale() {
    for state in [WorkerState::Down, WorkerState::Stale] {
        let mut rig = rig!();
        let (there, _, _) = flow_of(&rig, 0);
        rig.maps.workers.set_state(0, state);
        assert_eq!(steer(&rig, &there), Steer::Backup);
        assert_eq!(rig.maps.workers.tripped(0), None);
        let event = rig.maps.events.next().unwrap();
        assert_eq!(event.kind, EventKind::Adopted as u32);
        assert_eq!(rig.maps.events.next(), None);
    }
}

#[test]
fn when_nobody_is_alive_packets_wait_for_their_worker() {
    let mut rig = rig!();
    let (there, _, _) = flow_of(&rig, 2);
    rig.maps.workers.set_state(2, WorkerState::Down);
    rig.hang(BACKUP);
    assert_eq!(steer(&rig, &there), Steer::Worker(2));
    assert_eq!(rig.count(Counter::NobodyAlive), 1);
    assert_eq!(rig.count(Counter::TcWorker), 1);
    assert!(placements(&rig).is_empty());
    assert_eq!(rig.maps.events.next(), None);
    assert_accounted(&rig);
}

#[test]
fn an_adopted_flow_goes_back_while_the_backup_is_dead() {
    let rig = rig!();
    let (there, _, _) = flow_of(&rig, 1);
    rig.hang(1);
    assert_eq!(steer(&rig, &there), Steer::Backup);
    rig.revive(1);
    rig.maps.workers.set_state(BACKUP, WorkerState::Down);
    assert_eq!(steer(&rig, &there), Steer::Worker(1));
    rig.revive(BACKUP);
    assert_eq!(steer(&rig, &there), Steer::Backup, "it is adopted still");
}

#[test]
fn an_idle_placement_is_forgotten() {
    let mut rig = rig!();
    let (there, _, key) = flow_of(&rig, 1);
    rig.maps.workers.set_state(1, WorkerState::Down);
    assert_eq!(steer(&rig, &there), Steer::Backup);
    rig.revive(1);
    // Together longer than the time, each much shorter.
    rig.configure(|config| config.placement_idle_ns = 2 * SECOND);
    for _ in 0..6 {
        std::thread::sleep(std::time::Duration::from_millis(400));
        assert_eq!(steer(&rig, &there), Steer::Backup, "it is not idle");
    }
    rig.configure(|config| config.placement_idle_ns = SECOND / 5);
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(steer(&rig, &there), Steer::Worker(1));

    // And by the supervisor, which also gives back single flows.
    rig.maps.workers.set_state(1, WorkerState::Down);
    assert_eq!(steer(&rig, &there), Steer::Backup);
    assert_eq!(rig.maps.placements.sweep(now() - SECOND).unwrap(), 0);
    assert_eq!(rig.maps.placements.sweep(now()).unwrap(), 1);
    assert!(!rig.maps.placements.remove(&key).unwrap());
}

#[test]
fn a_placed_flow_goes_to_its_worker_whatever_the_table_says() {
    let mut rig = rig!();
    let (there, back, key) = flow_of(&rig, 1);
    let kept = placement(3, PlacementReason::Kept);
    assert_eq!(rig.maps.placements.insert(&[(key, kept)]).unwrap(), 0);
    assert_eq!(steer(&rig, &there), Steer::Worker(3));
    assert_eq!(steer(&rig, &back), Steer::Worker(3));
    assert!(rig.maps.placements.remove(&key).unwrap());
    assert_eq!(steer(&rig, &there), Steer::Worker(1));
    assert_eq!(rig.count(Counter::Kept), 0, "TC has placed nothing itself");
    assert_eq!(rig.count(Counter::TcWorker), 3);
    assert_accounted(&rig);
}

#[test]
fn a_flow_placed_at_a_worker_that_dies_is_adopted_by_the_backup() {
    for hung in [true, false] {
        let mut rig = rig!();
        let (there, back, key) = flow_of(&rig, 1);
        let kept = placement(3, PlacementReason::Kept);
        rig.maps.placements.insert(&[(key, kept)]).unwrap();
        if hung {
            rig.hang(3);
        } else {
            rig.maps.workers.set_state(3, WorkerState::Down);
        }
        assert_eq!(steer(&rig, &there), Steer::Backup);
        rig.revive(3);
        assert_eq!(steer(&rig, &back), Steer::Backup, "the flow stays");
        let (_, adopted) = only_placement(&rig);
        assert_eq!((adopted.target, adopted.from_worker), (BACKUP, 3));
        assert_eq!(adopted.reason, PlacementReason::Adopted as u32);
        assert_eq!(rig.count(Counter::Adoptions), 1);
        assert_eq!(rig.maps.workers.tripped(3).is_some(), hung);
        let kinds: Vec<_> = std::iter::from_fn(|| rig.maps.events.next())
            .map(|event| (event.kind, event.worker))
            .collect();
        let stale = hung.then_some((EventKind::Stale as u32, 3));
        let expected: Vec<_> = stale
            .into_iter()
            .chain([(EventKind::Adopted as u32, 3)])
            .collect();
        assert_eq!(kinds, expected);
        assert_accounted(&rig);
    }
}

#[test]
fn when_neither_its_worker_nor_the_backup_is_alive_a_placed_flow_follows_the_table() {
    let mut rig = rig!();
    let (there, _, key) = flow_of(&rig, 1);
    let kept = placement(3, PlacementReason::Kept);
    rig.maps.placements.insert(&[(key, kept)]).unwrap();
    rig.maps.workers.set_state(3, WorkerState::Down);
    rig.maps.workers.set_state(BACKUP, WorkerState::Down);
    assert_eq!(steer(&rig, &there), Steer::Worker(1));
    assert_eq!(rig.count(Counter::NobodyAlive), 0);
    rig.maps.workers.set_state(1, WorkerState::Down);
    assert_eq!(steer(&rig, &there), Steer::Worker(1));
    assert_eq!(rig.count(Counter::NobodyAlive), 1);
    rig.revive(3);
    assert_eq!(steer(&rig, &there), Steer::Worker(3), "it is placed still");
    // A target that no worker can have, which the supervisor never writes.
    let nowhere = placement(BACKUP + 1, PlacementReason::Kept);
    rig.maps.placements.insert(&[(key, nowhere)]).unwrap();
    rig.revive(1);
    assert_eq!(steer(&rig, &there), Steer::Worker(1));
    assert_accounted(&rig);
}

#[test]
fn a_quarantined_flow_is_marked_to_bypass_the_queues() {
    let mut rig = rig!();
    let (there, back, key) = flow_of(&rig, 1);
    let bypassed = placement(BYPASS, PlacementReason::Quarantined);
    rig.maps.placements.insert(&[(key, bypassed)]).unwrap();
    for index in [1, BACKUP] {
        rig.maps.workers.set_state(index, WorkerState::Down);
        assert_eq!(steer(&rig, &there), Steer::Bypass);
        assert_eq!(steer(&rig, &back), Steer::Bypass);
    }
    let (other, _, _) = flow_of(&rig, 2);
    assert_eq!(steer(&rig, &other), Steer::Worker(2));
    assert_eq!(rig.count(Counter::TcBypass), 4);
    assert_accounted(&rig);
}

#[test]
fn flows_seen_in_a_moving_slot_stay_with_its_old_worker() {
    let mut rig = rig!();
    let (there, back, key) = flow_of(&rig, 2);
    let (other, _, _) = flow_of(&rig, 3);
    assert_eq!(steer(&rig, &there), Steer::Worker(2));
    assert!(placements(&rig).is_empty(), "an ordinary flow has no entry");

    change_slot(&mut rig, &key, 2 | MOVING);
    assert_eq!(steer(&rig, &there), Steer::Worker(2));
    assert_eq!(steer(&rig, &back), Steer::Worker(2));
    assert_eq!(steer(&rig, &other), Steer::Worker(3), "it does not move");
    let (placed, kept) = only_placement(&rig);
    assert_eq!((placed, kept.target, kept.from_worker), (key, 2, 2));
    assert_eq!(kept.reason, PlacementReason::Kept as u32);

    change_slot(&mut rig, &key, 0);
    assert_eq!(steer(&rig, &there), Steer::Worker(2), "the flow stays");
    assert!(rig.maps.placements.remove(&key).unwrap());
    assert_eq!(steer(&rig, &there), Steer::Worker(0), "a new one would not");
    assert!(placements(&rig).is_empty());
    assert_eq!(rig.count(Counter::Kept), 1);
    assert_eq!(rig.maps.events.next(), None, "that is no event");
    assert_accounted(&rig);
}

#[test]
fn a_dead_worker_keeps_no_flows_of_a_moving_slot() {
    let mut rig = rig!();
    let (there, _, key) = flow_of(&rig, 2);
    change_slot(&mut rig, &key, 2 | MOVING);
    rig.maps.workers.set_state(2, WorkerState::Down);
    assert_eq!(steer(&rig, &there), Steer::Backup);
    assert_eq!(only_placement(&rig).1.target, BACKUP);
    assert_eq!(rig.count(Counter::Kept), 0);
    // While nobody is alive its packets wait, and nothing is said about where the flow belongs.
    rig.maps.placements.remove(&key).unwrap();
    rig.maps.workers.set_state(BACKUP, WorkerState::Down);
    assert_eq!(steer(&rig, &there), Steer::Worker(2));
    assert!(placements(&rig).is_empty());
    assert_eq!(rig.count(Counter::NobodyAlive), 1);
    // What the backup has does not become the worker's while the backup is away.
    let adopted = placement(BACKUP, PlacementReason::Adopted);
    rig.maps.placements.insert(&[(key, adopted)]).unwrap();
    rig.revive(2);
    assert_eq!(steer(&rig, &there), Steer::Worker(2));
    assert_eq!(only_placement(&rig).1.target, BACKUP);
    assert_accounted(&rig);
}

#[test]
fn a_flood_of_ordinary_flows_evicts_no_placement() {
    let mut rig = rig!();
    let (there, _, key) = flow_of(&rig, 1);
    let kept = placement(3, PlacementReason::Kept);
    rig.maps.placements.insert(&[(key, kept)]).unwrap();
    // Twice as many as the map has room for.
    for n in 3_000..5_048 {
        steer(&rig, &nth_flow(n).0);
    }
    assert_eq!(only_placement(&rig).0, key);
    assert_eq!(steer(&rig, &there), Steer::Worker(3));
}

#[test]
fn many_flows_are_placed_counted_listed_and_given_back_at_once() {
    let mut rig = rig!();
    assert_eq!(rig.maps.placements.count().unwrap().total(), 0);
    let flows = |range: std::ops::Range<u16>, target, reason| -> Vec<_> {
        range
            .map(|n| (nth_flow(n).2, placement(target, reason)))
            .collect()
    };
    let kept = flows(0..400, 3, PlacementReason::Kept);
    let adopted = flows(400..450, BACKUP, PlacementReason::Adopted);
    let bypassed = flows(450..453, BYPASS, PlacementReason::Quarantined);
    for flows in [&kept, &adopted, &bypassed] {
        assert_eq!(rig.maps.placements.insert(flows).unwrap(), 0);
    }
    let count = rig.maps.placements.count().unwrap();
    assert_eq!((count.adopted, count.kept, count.bypassed), (50, 400, 3));
    let mut listed = placements(&rig);
    listed.sort_by_key(|(key, _)| *key);
    let mut expected = [kept, adopted, bypassed].concat();
    expected.sort_by_key(|(key, _)| *key);
    assert_eq!(listed, expected);
    assert_eq!(rig.maps.placements.list(100).unwrap().len(), 100);
    for n in 0..400 {
        assert_eq!(steer(&rig, &nth_flow(n).0), Steer::Worker(3));
    }

    let (first, adopted) = (expected[0].0, expected[0].1.target == BACKUP);
    let other = if adopted { 3 } else { BACKUP };
    assert!(!rig.maps.placements.remove_from(&first, other).unwrap());
    let unknown = nth_flow(60_000).2;
    assert!(!rig.maps.placements.remove_from(&unknown, 3).unwrap());
    assert_eq!(rig.maps.placements.remove_at(3).unwrap(), 400);
    let of_backup = nth_flow(400).2;
    assert!(rig.maps.placements.remove_from(&of_backup, BACKUP).unwrap());
    let again = placement(BACKUP, PlacementReason::Adopted);
    rig.maps.placements.insert(&[(of_backup, again)]).unwrap();
    assert_eq!(rig.maps.placements.remove_at(3).unwrap(), 0);
    let count = rig.maps.placements.count().unwrap();
    assert_eq!((count.adopted, count.kept, count.bypassed), (50, 0, 3));
    assert_eq!(rig.maps.placements.sweep(now()).unwrap(), 53);
    assert!(placements(&rig).is_empty());
}

#[test]
fn placements_beyond_the_maps_capacity_push_out_older_ones() {
    let mut rig = rig!();
    let flows: Vec<_> = (0..3_000)
        .map(|n| (nth_flow(n).2, placement(3, PlacementReason::Kept)))
        .collect();
    assert_eq!(rig.maps.placements.insert(&flows).unwrap(), 0);
    let placed = placements(&rig).len();
    assert!((512..=1024).contains(&placed), "{placed} of 1024");
    let youngest = &flows[2_999].0;
    assert!(placements(&rig).iter().any(|(key, _)| key == youngest));
}

#[test]
fn events_make_the_ring_readable_and_what_does_not_fit_is_counted() {
    let mut rig = rig!();
    let readable = |rig: &Rig| {
        let mut fds = [PollFd::new(rig.maps.events.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).unwrap() == 1
    };
    assert!(!readable(&rig));
    rig.maps.workers.set_state(0, WorkerState::Down);
    // More than fit: 256 KiB, 64 bytes each.
    let mut adopted = 0;
    for n in 0..60_000 {
        let (there, _, key) = nth_flow(n);
        if rig.worker_of(&key) == 0 && adopted < 5_000 {
            assert_eq!(steer(&rig, &there), Steer::Backup);
            adopted += 1;
        }
    }
    assert!(readable(&rig));
    let read = std::iter::from_fn(|| rig.maps.events.next()).count() as u64;
    assert!(read > 3_000, "{read}");
    assert_eq!(rig.count(Counter::Adoptions), 5_000);
    assert_eq!(rig.count(Counter::EventsLost), 5_000 - read);
    assert!(!readable(&rig));
}

#[test]
fn heartbeats_are_shared_by_everybody_who_maps_them() {
    let rig = rig!();
    let fd = rig.maps.workers.fd().unwrap();
    let worker = sluice::maps::WorkerPages::map(fd).unwrap();
    worker.stamp(7, 1234);
    assert_eq!(rig.maps.workers.heartbeat(7), 1234);
    assert_eq!(rig.maps.workers.received(7), None);
    for (id, count) in [(0, 0), (1, 1), (u32::MAX, 5), (0, 1 << 31), (9, u64::MAX)] {
        let received = Received::new(id, count);
        worker.set_received(7, received);
        assert_eq!(rig.maps.workers.received(7), Some(received));
        assert_eq!(received.id, id);
    }
    rig.maps.workers.clear_received(7);
    assert_eq!(worker.received(7), None);
    rig.maps.workers.set_pid(7, 99);
    assert_eq!(worker.pid(7), 99);
    assert_eq!(worker.state(7), WorkerState::Down);
    assert_eq!(worker.state(BACKUP), WorkerState::Up);
}

#[test]
fn changing_the_table_moves_only_the_flows_of_the_worker_that_left() {
    let mut rig = rig!();
    let before: Vec<_> = (1..300).map(|n| steer(&rig, &nth_flow(n).0)).collect();
    let changed = rig
        .maps
        .table
        .write(&sluice::maps::worker_table(&[0, 1, 3]))
        .unwrap();
    let share = ips_common::TABLE_SLOTS as usize / 4;
    assert!(
        changed.abs_diff(share) < share / 5,
        "{changed} slots changed"
    );
    for (n, before) in (1..300).zip(before) {
        let after = steer(&rig, &nth_flow(n).0);
        assert!(after == before || before == Steer::Worker(2));
        assert_ne!(after, Steer::Worker(2));
    }
}

#[test]
fn a_million_packets_are_all_accounted_for() {
    let rig = rig!();
    let v4_tcp = nth_flow(2).0;
    let v6_udp = nth_flow(1).0;
    for (what, packet) in [("IPv4 TCP", v4_tcp), ("IPv6 UDP", v6_udp)] {
        rig.tc_cost(&packet, 10_000);
        println!(
            "{what}: TC {} ns, XDP without convictions {} ns",
            rig.tc_cost(&packet, 1_000_000),
            rig.xdp_repeatedly(&packet, 1_000_000).1
        );
    }
    assert_accounted(&rig);
}
