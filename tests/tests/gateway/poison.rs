//! Packets that kill, hang or starve the worker that inspects them. Their flow is given up after
//! two deaths, the backup never dies of it, and nobody else loses anything.
//!
//! The tests' program is built with the feature `fault-injection`: a payload says what it does.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::RcvBufForce;
use sluice::metrics::board::Cell;
use sluice::metrics::snapshot::Snapshot;
use sluice::netfilter::Fail;
use sluice_tests::elsewhere::{Elsewhere, attribute};
use sluice_tests::require_queues;
use sluice_tests::witness::{SILENCE, Witness};

use crate::load::{Load, await_replaced, nothing_lost, requests};
use crate::rig::{Gateway, PATIENCE, Setup, all_up, alone, signal};
use crate::succession::{ask_for_upgrade, await_upgraded, upgrade};

/// For some thousand datagrams, which take much more room than their bytes.
const RECEIVE_BUFFER: usize = 16 << 20;
/// Memory that a worker may take.
const MEMORY: u64 = 192 << 20;
/// Bytes of a pcap file before those of its only packet, and where its link type stands.
const PCAP_HEADERS: usize = 24 + 16;
const PCAP_LINK_TYPE: std::ops::Range<usize> = 20..24;
/// `LINKTYPE_RAW`: IP without a link layer.
const RAW_IP: [u8; 4] = 101_u32.to_ne_bytes();

fn poison(fault: &str) -> String {
    format!("please sluice-fault:{fault}")
}

fn gateway(fail: Fail, adjust: impl FnOnce(&mut Setup)) -> Gateway {
    Gateway::start(|setup| {
        setup.config.fail = fail;
        setup.config.failover.save_packets = true;
        setup.config.workers.memory_max = MEMORY;
        adjust(setup);
    })
}

/// One UDP flow, in one direction.
struct Datagrams {
    client: UdpSocket,
    server: UdpSocket,
}

impl Datagrams {
    fn open(gateway: &Gateway) -> Self {
        let lab = &gateway.lab;
        let bind = |address| UdpSocket::bind((address, 0)).expect("a socket");
        let server = lab.server().enter(|| bind(lab.server_v4()));
        let client = lab.client().enter(|| bind(lab.client_v4()));
        let to = server.local_addr().expect("an address");
        client.connect(to).expect("a route");
        // Nobody reads before all has been sent: that shall have room.
        setsockopt(&server, RcvBufForce, &RECEIVE_BUFFER).expect("a large buffer");
        Self { client, server }
    }

    fn send(&self, text: &str) {
        self.client.send(text.as_bytes()).expect("it is sent");
    }

    /// What arrives: so many are waited for, and those beyond them until nothing does.
    fn arriving(&self, expected: usize) -> Vec<String> {
        let mut texts = Vec::new();
        let mut buffer = [0; 256];
        loop {
            let patience = match texts.len() < expected {
                true => PATIENCE,
                false => SILENCE,
            };
            let bounded = self.server.set_read_timeout(Some(patience));
            bounded.expect("a bound on the time");
            let Ok(length) = self.server.recv(&mut buffer) else {
                return texts;
            };
            texts.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
        }
    }
}

fn restarts(status: &Snapshot) -> u64 {
    status.seats().map(|seat| seat.restarts).sum()
}

/// So many have died of a flow, and others sit in their places.
fn await_deaths(gateway: &Gateway, deaths: u64) -> Snapshot {
    gateway.await_status("replaced", |status| {
        status.deaths.in_flow >= deaths && restarts(status) >= deaths && all_up(status)
    })
}

/// Nobody has died but two workers, of one flow, which is given up; and how that is told.
fn exactly_two_deaths(gateway: &Gateway, before: &Snapshot, fault: &str, how: &str) {
    let status = gateway.await_settled();
    assert_eq!(
        (restarts(&status), status.deaths.in_flow),
        (2, 2),
        "{status}"
    );
    assert_eq!(status.backup.pid, before.backup.pid, "{status}");
    assert_eq!((status.suspects, status.quarantined), (0, 1), "{status}");
    let [flow] = &status.watched[..] else {
        panic!("{status}");
    };
    assert_eq!((flow.standing.as_str(), flow.deaths), ("quarantined", 2));
    assert!(status.to_string().contains(&flow.flow), "{status}");

    for (standing, deaths) in [("suspect", 1), ("quarantined", 2)] {
        let event = gateway.await_event(standing, |event| {
            event["event_type"] == "sluice" && event["sluice"]["standing"] == standing
        });
        let details = &event["sluice"];
        assert_eq!(details["event"], "worker_ended");
        assert_eq!(details["deaths"], deaths);
        let told = details["how"].as_str().expect("a text");
        assert!(told.starts_with(how), "{event}");
        assert!(
            event["src_ip"].is_string() && event["dest_port"].is_u64(),
            "{event}"
        );
        let path = details["packet_file"].as_str().expect("a path");
        let saved = fs::read(path).expect("the packet is saved");
        assert_eq!(saved[PCAP_LINK_TYPE], RAW_IP);
        let packet = &saved[PCAP_HEADERS..];
        assert_eq!(details["packet_bytes"], packet.len());
        assert_eq!(packet[0] >> 4, 4, "it begins with the IP header");
        let text = poison(fault);
        let found = packet.windows(text.len()).any(|it| it == text.as_bytes());
        assert!(found, "{path} holds another packet");
    }
    assert_eq!(status.deaths.packets_saved, 2);
}

/// A datagram that kills, twice; then a burst of them. Other flows go on meanwhile.
fn two_datagrams_kill(fail: Fail, fault: &str, how: &str, adjust: impl FnOnce(&mut Setup)) {
    let gateway = gateway(fail, adjust);
    let before = gateway.status();
    let load = Load::start(&gateway, gateway.lab.server_v6().into());
    let elsewhere = Elsewhere::watch(&gateway.lab).expect("the kernel's counters");
    let (_replier, requester) = requests(&gateway, 3000);
    let flow = Datagrams::open(&gateway);
    let poison = poison(fault);

    flow.send("good");
    assert_eq!(flow.arriving(1), ["good"]);
    flow.send(&poison);
    let status = await_deaths(&gateway, 1);
    assert_eq!((status.suspects, status.quarantined), (1, 0), "{status}");
    flow.send("still good");
    // What was in hand goes by policy.
    let settled = usize::from(fail == Fail::Open);
    let mut arrived = flow.arriving(settled + 1);
    assert_eq!(arrived.pop().as_deref(), Some("still good"));

    for _ in 0..20 {
        flow.send(&poison);
    }
    await_deaths(&gateway, 2);
    flow.send("good again");
    for _ in 0..20 {
        flow.send(&poison);
    }
    let expected = match fail {
        // Those that were in hand, those of the suspect and those of the quarantined flow.
        Fail::Open => 1 + 20 + 1 + 20,
        Fail::Closed => 0,
    };
    arrived.extend(flow.arriving(expected - settled));
    assert_eq!(arrived.len(), expected, "{arrived:?}");

    load.await_progress(1 << 20);
    load.finish();
    let report = requester.finish().expect("requests");
    let status = gateway.await_settled();
    match fail {
        Fail::Open => nothing_lost(&report, &elsewhere, &gateway),
        Fail::Closed => {
            // What shared a batch with the poison was dropped by policy: that, and no more.
            let settled = status.total(Cell::Settled);
            let lost = elsewhere.lost(&gateway.lab).expect("the kernel's counters");
            let (by_sluice, _) = attribute(report.lost, lost);
            println!("{report:?}, {settled} settled");
            assert!(by_sluice <= settled, "{report:?} {status}");
        }
    }
    match fail {
        Fail::Open => assert!(status.total(Cell::Quarantined) >= 20, "{status}"),
        // The kernel does it.
        Fail::Closed => assert_eq!(status.convicted, 1, "{status}"),
    }
    exactly_two_deaths(&gateway, &before, fault, how);
}

#[test]
fn a_flow_that_aborts_two_workers_is_let_through_uninspected_if_it_fails_open() {
    require_queues!();
    let _alone = alone();
    two_datagrams_kill(Fail::Open, "abort", "signal SIGABRT", |_| {});
}

#[test]
fn a_flow_that_crashes_two_workers_is_dropped_if_it_fails_closed() {
    require_queues!();
    let _alone = alone();
    two_datagrams_kill(Fail::Closed, "segv", "signal SIGSEGV", |_| {});
}

#[test]
fn a_flow_that_uses_up_the_stack_of_two_workers_is_given_up() {
    require_queues!();
    let _alone = alone();
    // Rust's handler says so and aborts.
    two_datagrams_kill(Fail::Closed, "overflow", "signal SIGABRT", |_| {});
}

#[test]
fn a_flow_that_makes_two_workers_ask_for_ever_more_memory_is_given_up() {
    require_queues!();
    let _alone = alone();
    two_datagrams_kill(Fail::Open, "memory", "signal SIGABRT", |_| {});
}

/// Sends datagrams that hang who inspects them, one each while, until their flow is given up.
fn datagrams_hang(fault: &str, how: &str) {
    let gateway = gateway(Fail::Open, |setup| setup.config.steering.stale_ms = 1000);
    let before = gateway.status();
    let load = Load::start(&gateway, gateway.lab.server_v6().into());
    let elsewhere = Elsewhere::watch(&gateway.lab).expect("the kernel's counters");
    let (_replier, requester) = requests(&gateway, 5000);
    let flow = Datagrams::open(&gateway);
    let began = Instant::now();
    let mut sent = 0;
    while gateway.status().quarantined == 0 {
        assert!(began.elapsed() < PATIENCE, "{}", gateway.status());
        flow.send(&poison(fault));
        sent += 1;
        sleep(Duration::from_millis(10));
    }
    println!("{sent} datagrams in {:?}", began.elapsed());
    await_deaths(&gateway, 2);
    flow.send("good");
    assert_eq!(flow.arriving(sent + 1).len(), sent + 1, "none is held back");
    load.await_progress(1 << 20);
    load.finish();
    nothing_lost(&requester.finish().expect("requests"), &elsewhere, &gateway);
    exactly_two_deaths(&gateway, &before, fault, how);
}

#[test]
fn a_flow_that_two_workers_loop_in_is_given_up() {
    require_queues!();
    let _alone = alone();
    datagrams_hang("loop", "hung: endless loop");
}

#[test]
fn a_flow_that_two_workers_sleep_in_is_given_up() {
    require_queues!();
    let _alone = alone();
    datagrams_hang("sleep", "hung: sleeps");
}

/// A connection to a server that answers with what it gets.
fn connect(gateway: &Gateway) -> (Witness, TcpStream) {
    let lab = &gateway.lab;
    let address = lab.server_v4().into();
    let witness = Witness::start(lab.server(), address, 0).expect("a server");
    let connect = || TcpStream::connect_timeout(&witness.address(), PATIENCE);
    let stream = lab.client().enter(connect).expect("a connection");
    stream.set_nodelay(true).expect("a socket");
    (witness, stream)
}

/// Whether `text` is answered in time.
fn answered(mut stream: &TcpStream, text: &str, patience: Duration) -> bool {
    stream
        .set_read_timeout(Some(patience))
        .expect("a bound on the time");
    stream.write_all(text.as_bytes()).expect("it is sent");
    let mut answer = vec![0; text.len()];
    match stream.read_exact(&mut answer) {
        Ok(()) => answer == text.as_bytes(),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => false,
        Err(error) => panic!("the connection is broken: {error}"),
    }
}

#[test]
fn a_connection_that_kills_two_workers_goes_on_uninspected_if_it_fails_open() {
    require_queues!();
    let _alone = alone();
    let gateway = gateway(Fail::Open, |_| {});
    let before = gateway.status();
    let load = Load::start(&gateway, gateway.lab.server_v6().into());
    let (_witness, stream) = connect(&gateway);
    assert!(answered(&stream, "good morning", PATIENCE));
    while gateway.status().quarantined == 0 {
        // The answer kills as well as the question, unless it meets the backup.
        assert!(answered(&stream, &poison("segv"), PATIENCE));
        gateway.await_status("up", all_up);
    }
    for _ in 0..20 {
        assert!(answered(&stream, &poison("segv"), PATIENCE));
    }
    load.await_progress(1 << 20);
    load.finish();
    exactly_two_deaths(&gateway, &before, "segv", "signal SIGSEGV");
}

#[test]
fn a_connection_that_kills_two_workers_is_dropped_if_it_fails_closed() {
    require_queues!();
    let _alone = alone();
    let gateway = gateway(Fail::Closed, |_| {});
    let before = gateway.status();
    let load = Load::start(&gateway, gateway.lab.server_v6().into());
    let (witness, stream) = connect(&gateway);
    assert!(answered(&stream, "good morning", PATIENCE));
    // TCP itself repeats it until it has killed the second.
    assert!(!answered(&stream, &poison("abort"), Duration::from_secs(1)));
    gateway.await_status("quarantined", |status| status.quarantined == 1);
    assert!(!answered(&stream, "good evening", Duration::from_secs(1)));
    let client = stream.local_addr().expect("an address");
    let delivered = witness.delivery(client).expect("the connection").bytes;
    assert_eq!(delivered, b"good morning");
    load.await_progress(1 << 20);
    load.finish();
    exactly_two_deaths(&gateway, &before, "abort", "signal SIGABRT");
    // Its sentence is no matter of another connection's.
    let (_witness, stream) = connect(&gateway);
    assert!(answered(&stream, "good night", PATIENCE));
}

#[test]
fn what_is_held_against_a_flow_outlives_upgrades_and_the_supervisor() {
    require_queues!();
    let _alone = alone();
    let mut gateway = gateway(Fail::Open, |_| {});
    let load = Load::start(&gateway, gateway.lab.server_v6().into());
    let flow = Datagrams::open(&gateway);
    flow.send(&poison("segv"));
    await_deaths(&gateway, 1);
    let known = |gateway: &Gateway, suspects, quarantined, deaths: u32| {
        let status = gateway.status();
        assert_eq!(
            (status.suspects, status.quarantined),
            (suspects, quarantined),
            "{status}"
        );
        assert_eq!(status.watched[0].deaths, deaths, "{status}");
        assert_eq!(
            (status.deaths.in_flow, restarts(&status)),
            (u64::from(deaths), u64::from(deaths)),
            "{status}"
        );
    };
    upgrade(&gateway);
    known(&gateway, 1, 0, 1);
    gateway.kill_supervisor();
    gateway.launch();
    known(&gateway, 1, 0, 1);
    assert_eq!(flow.arriving(1).len(), 1);
    // One death more is enough.
    flow.send(&poison("segv"));
    await_deaths(&gateway, 2);
    known(&gateway, 0, 1, 2);
    for takeover in [false, true] {
        if takeover {
            gateway.kill_supervisor();
            // While there is no supervisor the workers know it as well.
            flow.send(&poison("segv"));
            gateway.launch();
        } else {
            upgrade(&gateway);
        }
        for _ in 0..20 {
            flow.send(&poison("segv"));
        }
        flow.send("good");
        // With the one that killed, or that came when there was no supervisor.
        assert_eq!(flow.arriving(22).pop().as_deref(), Some("good"));
        known(&gateway, 0, 1, 2);
    }
    load.await_progress(1 << 20);
    load.finish();
    gateway.await_settled();
}

#[test]
fn a_flow_that_kills_who_is_about_to_be_relieved_is_a_suspect_and_no_backup_dies_of_it() {
    require_queues!();
    let _alone = alone();
    let mut gateway = gateway(Fail::Open, |_| {});
    let flow = Datagrams::open(&gateway);
    ask_for_upgrade(&gateway);
    let begun = gateway
        .process()
        .wait_for_line("goes on from here", PATIENCE);
    begun.expect("it says so");
    // The former launcher leaves; the new program loads and compiles for longer.
    sleep(Duration::from_millis(30));
    flow.send(&poison("segv"));
    await_upgraded(&gateway, 1);
    let status = await_deaths(&gateway, 1);
    assert_eq!(
        (status.deaths.in_flow, restarts(&status)),
        (1, 1),
        "{status}"
    );
    assert_eq!((status.suspects, status.quarantined), (1, 0), "{status}");
    for _ in 0..5 {
        flow.send(&poison("segv"));
    }
    let status = await_deaths(&gateway, 2);
    assert_eq!((status.suspects, status.quarantined), (0, 1), "{status}");
    assert_eq!(status.backup.restarts, 0, "{status}");
    assert_eq!(flow.arriving(6).len(), 6);
    gateway.await_settled();
}

#[test]
fn a_quarantined_flow_stays_shut_out_after_an_upgrade_and_a_takeover() {
    require_queues!();
    let _alone = alone();
    let mut gateway = gateway(Fail::Closed, |_| {});
    let flow = Datagrams::open(&gateway);
    for deaths in 1..=2 {
        flow.send(&poison("abort"));
        await_deaths(&gateway, deaths);
    }
    upgrade(&gateway);
    gateway.kill_supervisor();
    gateway.launch();
    let status = gateway.status();
    assert_eq!((status.quarantined, status.convicted), (1, 1), "{status}");
    flow.send("good");
    assert_eq!(flow.arriving(0), Vec::<String>::new());
}

#[test]
fn a_flow_is_not_suspected_because_somebody_kills_its_worker() {
    require_queues!();
    let _alone = alone();
    let gateway = gateway(Fail::Closed, |_| {});
    let load = Load::start(&gateway, gateway.lab.server_v4().into());
    for round in 1..=3 {
        let victim = gateway.busiest();
        signal(&victim, Signal::SIGKILL);
        let status = await_replaced(&gateway, &victim);
        assert_eq!((status.deaths.killed, status.deaths.in_flow), (round, 0));
        load.await_progress(1 << 20);
    }
    load.finish();
    let status = gateway.await_settled();
    assert_eq!((status.suspects, status.quarantined), (0, 0), "{status}");
}

#[test]
fn an_end_with_nothing_in_hand_is_held_against_nobody() {
    require_queues!();
    let gateway = gateway(Fail::Open, |_| {});
    let victim = gateway.status().workers[0].clone();
    gateway.await_quiet();
    signal(&victim, Signal::SIGABRT);
    let status = await_replaced(&gateway, &victim);
    assert_eq!((status.deaths.idle, status.deaths.in_flow), (1, 0));
    assert_eq!((status.suspects, status.deaths.packets_saved), (0, 0));
    let event = gateway.await_event("an end", |event| event["sluice"]["event"] == "worker_ended");
    assert_eq!(event["sluice"]["how"], "signal SIGABRT");
    assert!(event.get("src_ip").is_none(), "{event}");
}
