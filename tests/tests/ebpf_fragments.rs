//! All fragments of a datagram go where its first one went.

mod common_packets;

use std::time::Duration;

use common_packets::rig::{SECOND, XDP_DROP, XDP_PASS, now};
use common_packets::*;
use ips_common::{Conviction, Counter, FlowKey, Steer};

fn fragment4(id: u16, flags_and_offset: u16, payload: &[u8]) -> Vec<u8> {
    let header = V4 {
        flags_and_offset,
        identification: id,
        ..V4::between(A4, B4)
    };
    frame(&header.packet(UDP, payload))
}

fn fragment6(id: u32, offset: u16, more: bool, payload: &[u8]) -> Vec<u8> {
    frame(&v6(
        A6,
        B6,
        44,
        &v6_fragment(UDP, offset, more, id, payload),
    ))
}

/// A first and two later fragments, whose payload would give other ports.
fn datagram4(id: u16, port: u16) -> [Vec<u8>; 3] {
    [
        fragment4(id, 0x2000, &ports(port, 53)),
        fragment4(id, 0x2003, &ports(9, 9)),
        fragment4(id, 0x0005, &ports(8, 8)),
    ]
}

fn datagram6(id: u32, port: u16) -> [Vec<u8>; 3] {
    [
        fragment6(id, 0, true, &ports(port, 53)),
        fragment6(id, 24, true, &ports(9, 9)),
        fragment6(id, 48, false, &ports(8, 8)),
    ]
}

fn key4(port: u16) -> FlowKey {
    key(UDP, (A4.into(), port), (B4.into(), 53))
}

fn key6(port: u16) -> FlowKey {
    key(UDP, (A6.into(), port), (B6.into(), 53))
}

fn steer(rig: &Rig, frame: &[u8]) -> Steer {
    rig.layout().read(rig.tc(frame).mark)
}

#[test]
fn later_fragments_follow_the_first_one() {
    let rig = rig!();
    for port in 1..60 {
        let worker4 = Steer::Worker(rig.worker_of(&key4(port)));
        for fragment in datagram4(port, port) {
            assert_eq!(steer(&rig, &fragment), worker4);
        }
        let worker6 = Steer::Worker(rig.worker_of(&key6(port)));
        for fragment in datagram6(port.into(), port) {
            assert_eq!(steer(&rig, &fragment), worker6);
        }
    }
    assert_eq!(rig.count(Counter::FragmentsFirst), 2 * 59);
    assert_eq!(rig.count(Counter::FragmentsFollowed), 4 * 59);
    assert_eq!(rig.count(Counter::FragmentsOrphaned), 0);
    assert_eq!(rig.count(Counter::TcWorker), 6 * 59);
}

#[test]
fn an_orphan_is_steered_by_addresses_and_protocol() {
    let rig = rig!();
    let without_ports = key(UDP, (A4.into(), 0), (B4.into(), 0));
    let worker = Steer::Worker(rig.worker_of(&without_ports));
    let [first, later, last] = datagram4(1, 4711);
    assert_eq!(steer(&rig, &later), worker, "came before the first");
    steer(&rig, &first);
    let [_, foreign, _] = datagram4(2, 4711);
    assert_eq!(steer(&rig, &foreign), worker, "of another datagram");
    assert_eq!(rig.count(Counter::FragmentsOrphaned), 2);
    steer(&rig, &last);
    assert_eq!(rig.count(Counter::FragmentsFollowed), 1);
}

#[test]
fn a_first_fragment_is_forgotten_after_its_time() {
    let mut rig = rig!();
    let [first, later, last] = datagram6(1, 4711);
    steer(&rig, &first);
    steer(&rig, &later);
    assert_eq!(rig.count(Counter::FragmentsFollowed), 1);
    // The age is looked at when the next one comes.
    rig.configure(|config| config.fragment_ns = SECOND / 10);
    std::thread::sleep(Duration::from_millis(150));
    steer(&rig, &last);
    assert_eq!(rig.count(Counter::FragmentsOrphaned), 1);
}

#[test]
fn all_fragments_of_an_adopted_flow_go_to_the_backup() {
    let rig = rig!();
    let worker = rig.worker_of(&key4(7));
    rig.hang(worker);
    for fragment in datagram4(7, 7) {
        assert_eq!(steer(&rig, &fragment), Steer::Backup);
    }
    assert_eq!(rig.count(Counter::Adoptions), 1);
}

#[test]
fn all_fragments_of_a_convicted_flow_die_in_xdp() {
    let mut rig = rig!();
    let conviction = Conviction {
        expires_ns: now() + 60 * SECOND,
        ..Conviction::default()
    };
    rig.maps.convictions.convict(&key4(7), &conviction).unwrap();
    rig.maps.convictions.convict(&key6(7), &conviction).unwrap();
    for fragment in datagram4(70, 7).iter().chain(&datagram6(70, 7)) {
        assert_eq!(rig.xdp(fragment), XDP_DROP);
    }
    for fragment in datagram4(80, 8).iter().chain(&datagram6(80, 8)) {
        assert_eq!(rig.xdp(fragment), XDP_PASS);
    }
}

#[test]
fn later_fragments_die_too_when_the_first_one_came_before_the_conviction() {
    let mut rig = rig!();
    let [first, later, last] = datagram4(90, 9);
    assert_eq!(rig.xdp(&first), XDP_PASS);
    steer(&rig, &first);
    let conviction = Conviction {
        expires_ns: now() + 60 * SECOND,
        ..Conviction::default()
    };
    rig.maps.convictions.convict(&key4(9), &conviction).unwrap();
    assert_eq!(rig.xdp(&later), XDP_DROP);
    assert_eq!(rig.xdp(&last), XDP_DROP);
}
