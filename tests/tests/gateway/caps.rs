//! More connections than a worker may remember. What each table does at its cap: `tests/caps.rs`.

use std::fs;
use std::net::Ipv4Addr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use sluice::config::settings::ByteSize;
use sluice::metrics::board::Cell;
use sluice_tests::frame::{FrameSocket, hardware_address, internet_checksum};
use sluice_tests::over::OverOnDrop;
use sluice_tests::stream::{Echo, exchange};
use sluice_tests::witness::SILENCE;
use sluice_tests::{Lab, require_queues};

use crate::load::Load;
use crate::rig::{Gateway, PATIENCE, alone};

/// Of the flows, and of the connections.
const CAP: u64 = 1 << 20;
/// SYNs a second: a new connection has a tenth of a second for its handshake.
const RATE: u64 = 10_000;
/// How many the worker has to take, many times what the caps hold. A busy machine lets others pass
/// because the queue is full.
const SYNS: u64 = 40_000;
/// For so long.
const FLOOD_WITHIN: Duration = Duration::from_secs(60);
/// Kilobytes that a worker may grow by besides: records and what one packet needs.
const SLACK_KB: u64 = 2048;

/// A SYN to an address where nobody is, each of its own connection.
fn syn(macs: ([u8; 6], [u8; 6]), number: u64) -> Vec<u8> {
    let (to, from) = macs;
    // All are of the client's network: routers drop others.
    let source = Ipv4Addr::new(10, 77, 1, 2 + (number % 250) as u8);
    let destination = Ipv4Addr::new(10, 77, 2, 200);
    let port = 1024 + (number / 250) as u16;
    let mut ip = [0; 20];
    (ip[0], ip[8], ip[9]) = (0x45, 64, 6);
    ip[2..4].copy_from_slice(&40u16.to_be_bytes());
    ip[12..16].copy_from_slice(&source.octets());
    ip[16..20].copy_from_slice(&destination.octets());
    let checksum = internet_checksum(&[&ip]);
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    let mut tcp = [0; 20];
    tcp[..2].copy_from_slice(&port.to_be_bytes());
    tcp[2..4].copy_from_slice(&80u16.to_be_bytes());
    tcp[4..8].copy_from_slice(&(number as u32).to_be_bytes());
    (tcp[12], tcp[13], tcp[14]) = (0x50, 2, 0xff);
    let pseudo = [0, 6, 0, 20];
    let checksum = internet_checksum(&[&ip[12..], &pseudo, &tcp]);
    tcp[16..18].copy_from_slice(&checksum.to_be_bytes());
    [&to[..], &from, &[0x08, 0x00], &ip, &tcp].concat()
}

/// Memory of its own.
fn anonymous_kb(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.expect("its memory").parse().expect("a number")
}

#[test]
fn a_syn_flood_beyond_the_caps_costs_no_memory_beyond_them_and_no_connection() {
    require_queues!();
    let _alone = alone();
    let mut gateway = Gateway::start(|setup| {
        setup.whole_machine = true;
        setup.config.workers.count = 1;
        setup.config.engine.flow.memcap = ByteSize(CAP);
        setup.config.engine.stream.memcap = ByteSize(CAP);
        setup.rules =
            "drop tcp any any -> any any (msg:\"attack\"; content:\"EVIL\"; sid:7;)".to_owned();
    });
    let lab = &gateway.lab;
    let load = Load::start(&gateway, lab.server_v4().into());
    let echo = Echo::start(lab.server(), lab.server_v4().into(), 0).expect("a server");
    let pid = gateway.status().workers[0].pid;
    let before = anonymous_kb(pid);

    let macs = (
        hardware_address(lab.gateway(), Lab::GATEWAY_CLIENT_INTERFACE).expect("an address"),
        hardware_address(lab.client(), Lab::CLIENT_INTERFACE).expect("an address"),
    );
    let socket = FrameSocket::open(lab.client(), Lab::CLIENT_INTERFACE).expect("a socket");
    let flooding = OverOnDrop::default();
    let flooded = flooding.watch();
    let began = Instant::now();
    let flood = std::thread::spawn(move || {
        let mut sent = 0;
        while !flooded.is_over() {
            let due = began.elapsed().as_micros() as u64 * RATE / 1_000_000;
            for number in sent..due {
                socket
                    .send(&syn(macs, number))
                    .expect("the own kernel takes it");
            }
            sent = due;
            sleep(Duration::from_millis(1));
        }
        sent
    });
    let (mut most, mut stream, mut opened) = (before, 0, 0);
    let mut taken = 0;
    while taken < SYNS && began.elapsed() < FLOOD_WITHIN {
        // New connections are served all the time.
        let answer = exchange(lab.client(), echo.address(), b"hello", PATIENCE);
        assert_eq!(answer.expect("an answer"), b"hello");
        opened += 1;
        most = most.max(anonymous_kb(pid));
        let status = gateway.status();
        taken = status.total(Cell::FlowsCreated);
        // What waits for acknowledgements of the stream has its own cap.
        stream = stream.max(status.total(Cell::StreamBytes) / 1024);
        sleep(Duration::from_millis(20));
    }
    drop(flooding);
    let sent = flood.join().expect("the flood ends");
    let attack = exchange(lab.client(), echo.address(), b"EVIL", SILENCE);
    assert!(attack.is_err(), "{attack:?}");
    load.await_progress(1 << 20);
    load.finish();
    let status = gateway.await_settled();
    let total = |cell| status.total(cell);
    println!(
        "{sent} SYNs, {opened} connections meanwhile; {before} kB before, {most} kB at most, \
         {stream} kB of them data; {} flows evicted, {} sessions given up, {} flows and {} sessions refused, {} emergencies",
        total(Cell::FlowsEvicted),
        total(Cell::SessionsRelieved),
        total(Cell::FlowsRefused),
        total(Cell::SessionsRefused),
        total(Cell::FlowEmergencies),
    );
    assert!(total(Cell::FlowsCreated) >= SYNS, "{status}");
    assert!(total(Cell::FlowBytes) <= CAP, "{status}");
    assert!(total(Cell::SessionBytes) <= CAP, "{status}");
    assert!(total(Cell::FlowsEvicted) > SYNS / 4, "{status}");
    assert!(total(Cell::FlowEmergencies) >= 1, "{status}");
    assert_eq!(total(Cell::ExceptionFlowMemory), 0, "{status}");
    assert_eq!(total(Cell::ExceptionStreamMemory), 0, "{status}");
    assert!(total(Cell::RuleDropped) > 0, "{status}");
    let cap_kb = (2 * CAP / 1024 + stream) * 105 / 100;
    assert!(
        most - before <= cap_kb + SLACK_KB,
        "{before} kB, {most} kB, {stream} kB"
    );
    assert!(gateway.stop().success());
}
