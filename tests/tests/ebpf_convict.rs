//! Convicted flows die in XDP, or in TC where there is no XDP, until their time is over.

mod common_packets;

use common_packets::rig::{SECOND, TC_ACT_SHOT, TC_ACT_UNSPEC, XDP_DROP, XDP_PASS, now};
use common_packets::*;
use ips_common::{Conviction, Counter, FlowKey, SteerFlags};
use sluice::maps::Convictions;
use sluice_tests::patience::kept_in_one_of;

fn flow() -> (Vec<u8>, Vec<u8>, FlowKey) {
    (
        frame(&v4(A4, B4, TCP, &ports(1000, 80))),
        frame(&v4(B4, A4, TCP, &ports(80, 1000))),
        key(TCP, (A4.into(), 1000), (B4.into(), 80)),
    )
}

fn until(expires_ns: u64) -> Conviction {
    Conviction {
        expires_ns,
        signature_id: 2_000_001,
        ..Conviction::default()
    }
}

#[test]
fn xdp_drops_both_directions_and_counts_them() {
    let mut rig = rig!();
    let (there, back, key) = flow();
    let other = frame(&v4(A4, B4, TCP, &ports(1001, 80)));
    assert_eq!(rig.xdp(&there), XDP_PASS);
    rig.maps
        .convictions
        .convict(&key, &until(now() + 60 * SECOND))
        .unwrap();
    assert_eq!(rig.xdp(&there), XDP_DROP);
    assert_eq!(rig.xdp(&back), XDP_DROP);
    assert_eq!(rig.xdp(&other), XDP_PASS);

    let bytes = (there.len() + back.len()) as u64;
    let list = rig.maps.convictions.list(now()).unwrap();
    assert_eq!(list.len(), 1);
    assert_eq!(list[0].0, key);
    assert_eq!((list[0].1.packets, list[0].1.bytes), (2, bytes));
    assert_eq!(list[0].1.signature_id, 2_000_001);
    let counters = rig.counters();
    assert_eq!(counters.get(Counter::XdpPackets), 4);
    assert_eq!(counters.get(Counter::XdpConvicted), 2);
    assert_eq!(counters.get(Counter::XdpConvictedBytes), bytes);
    assert_eq!(counters.get(Counter::XdpPassed), 2);
    assert_eq!(
        counters.get(Counter::XdpBytes),
        bytes + 2 * there.len() as u64
    );

    assert!(rig.maps.convictions.pardon(&key).unwrap());
    assert!(!rig.maps.convictions.pardon(&key).unwrap());
    assert_eq!(rig.xdp(&there), XDP_PASS);
}

#[test]
fn every_form_of_header_is_recognised_in_xdp() {
    let mut rig = rig!();
    let end = now() + 60 * SECOND;
    let v6_key = key(UDP, (A6.into(), 5), (B6.into(), 6));
    let (_, _, v4_key) = flow();
    rig.maps.convictions.convict(&v6_key, &until(end)).unwrap();
    rig.maps.convictions.convict(&v4_key, &until(end)).unwrap();
    let v4_packet = v4(A4, B4, TCP, &ports(1000, 80));
    let options = V4 {
        options: 3,
        ..V4::between(A4, B4)
    };
    let chain = extension(0, 2, 60, &extension(60, 1, UDP, &ports(5, 6)));
    let error = icmp(3, 0, &v4_packet[..28]);
    for (what, packet) in [
        ("one tag", tagged(&[0x8100], &v4_packet)),
        ("two tags", tagged(&[0x88a8, 0x8100], &v4_packet)),
        ("options", frame(&options.packet(TCP, &ports(1000, 80)))),
        ("extension headers", frame(&v6(A6, B6, 0, &chain))),
        ("ICMP error about it", frame(&v4(B4, A4, ICMP, &error))),
    ] {
        assert_eq!(rig.xdp(&packet), XDP_DROP, "{what}");
    }
    for (what, packet) in [
        ("ARP", ethernet(&[], 0x0806, &[0; 28])),
        ("malformed", ethernet(&[], 0x0800, &[0x44; 40])),
        ("cut", v4_packet[..18].to_vec()),
    ] {
        assert_eq!(rig.xdp(&packet), XDP_PASS, "{what}");
    }
}

#[test]
fn an_expired_conviction_is_removed_and_its_flow_passes() {
    let mut rig = rig!();
    let (there, _, key) = flow();
    let other = key_of_another_flow();
    // Another sentence is still running, so that the programs do look.
    rig.maps
        .convictions
        .convict(&other, &until(now() + 60 * SECOND))
        .unwrap();
    rig.maps
        .convictions
        .convict(&key, &until(now() - 1))
        .unwrap();
    assert_eq!(rig.maps.convictions.list(now()).unwrap().len(), 1);
    assert_eq!(rig.maps.convictions.list(0).unwrap().len(), 2);
    assert_eq!(rig.xdp(&there), XDP_PASS);
    assert_eq!(rig.maps.convictions.list(0).unwrap().len(), 1, "removed");

    // A look that comes after the end, because somebody else had the CPU, says nothing.
    kept_in_one_of(10, || {
        let end = now() + SECOND / 5;
        rig.maps.convictions.convict(&key, &until(end)).unwrap();
        let verdict = rig.xdp(&there);
        if now() >= end {
            return Err("too late".to_owned());
        }
        assert_eq!(verdict, XDP_DROP);
        Ok(())
    });
    std::thread::sleep(std::time::Duration::from_millis(250));
    assert_eq!(rig.xdp(&there), XDP_PASS);
}

fn key_of_another_flow() -> FlowKey {
    key(UDP, (A6.into(), 1), (B6.into(), 2))
}

#[test]
fn a_worker_process_convicts_through_descriptors() {
    let rig = rig!();
    let (there, _, key) = flow();
    let (convicted, hints) = rig.maps.convictions.fds();
    let mut worker = Convictions::from_fds(
        convicted.try_clone_to_owned().unwrap(),
        hints.try_clone_to_owned().unwrap(),
    )
    .unwrap();
    worker.convict(&key, &until(now() + 60 * SECOND)).unwrap();
    assert_eq!(rig.xdp(&there), XDP_DROP);
}

#[test]
fn tc_drops_convicted_flows_only_when_told_to() {
    let mut rig = rig!();
    let (there, back, key) = flow();
    rig.maps
        .convictions
        .convict(&key, &until(now() + 60 * SECOND))
        .unwrap();
    assert_eq!(rig.tc(&there).action, TC_ACT_UNSPEC);
    rig.configure(|config| config.flags |= SteerFlags::CONVICT_IN_TC);
    assert_eq!(rig.tc(&there).action, TC_ACT_SHOT);
    assert_eq!(rig.tc(&back).action, TC_ACT_SHOT);
    let list = rig.maps.convictions.list(now()).unwrap();
    assert_eq!(list[0].1.packets, 2);
    assert_eq!(rig.count(Counter::TcConvicted), 2);
    assert_eq!(rig.count(Counter::TcWorker), 1);
    assert_eq!(rig.count(Counter::TcPackets), 3);
    rig.maps.convictions.pardon(&key).unwrap();
    assert_eq!(rig.tc(&there).action, TC_ACT_UNSPEC);
}

#[test]
fn the_map_forgets_the_oldest_convictions_when_it_is_full() {
    let mut rig = rig!();
    let end = now() + 60 * SECOND;
    for port in 0..3_000 {
        let key = key(TCP, (A4.into(), port), (B4.into(), 80));
        rig.maps.convictions.convict(&key, &until(end)).unwrap();
    }
    let kept = rig.maps.convictions.list(now()).unwrap().len();
    assert!((1..=1024).contains(&kept), "{kept}");
    let last = frame(&v4(A4, B4, TCP, &ports(2_999, 80)));
    assert_eq!(rig.xdp(&last), XDP_DROP);
}
