//! The eBPF parser and the userspace decoder agree on the key of every packet.
//!
//! On random and damaged frames always; on captures when `SLUICE_PCAPS` names a directory.

mod common_packets;

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use common_packets::capture::{as_ethernet, read};
use common_packets::rig::{MAX_FRAME, SEED, TC_ACT_UNSPEC, XDP_PASS, now};
use common_packets::*;
use ips_common::{Conviction, Counter, FragmentKey, Probe, flow_hash};
use ips_ebpf::parse::{Fragment, Keyless, parse};
use sluice::decode::key::{KeyOutcome, frame_key};

/// What the userspace decoder makes of a frame, as the eBPF program tells it.
fn expected(frame: &[u8]) -> Probe {
    let mut probe = Probe::default();
    let key = match frame_key(frame) {
        KeyOutcome::NotIp => return probe,
        KeyOutcome::Malformed => {
            probe.kind = 1;
            return probe;
        }
        KeyOutcome::Flow { key, truncated } => {
            probe.kind = 2;
            probe.truncated = truncated.into();
            key
        }
        KeyOutcome::FirstFragment {
            key,
            fragment,
            truncated,
        } => {
            probe.kind = 3;
            probe.truncated = truncated.into();
            probe.fragment = fragment;
            key
        }
        KeyOutcome::LaterFragment {
            fragment,
            orphan_key,
        } => {
            probe.kind = 4;
            probe.fragment = fragment;
            orphan_key
        }
    };
    probe.hash = flow_hash(SEED, &key);
    probe.key = key;
    probe
}

/// What the eBPF parser makes of a frame when it is built for the host, which takes frames of
/// any length.
fn parsed_on_host(frame: &[u8]) -> Probe {
    let mut probe = Probe::default();
    match parse(&frame) {
        Err(Keyless::NotIp) => {}
        Err(Keyless::Malformed) => probe.kind = 1,
        Ok(parsed) => {
            (probe.kind, probe.fragment) = match parsed.fragment {
                Fragment::No => (2, FragmentKey::default()),
                Fragment::First(fragment) => (3, fragment),
                Fragment::Later(fragment) => (4, fragment),
            };
            probe.key = parsed.key;
            probe.hash = flow_hash(SEED, &parsed.key);
            probe.truncated = parsed.truncated.into();
        }
    }
    probe
}

/// A frame of some form, most of which go deep into the parser.
fn some_frame(random: &mut Random) -> Vec<u8> {
    let transport = |random: &mut Random| -> (u8, Vec<u8>) {
        match random.below(4) {
            0 => (TCP, ports(random.next() as u16, 80)),
            1 => (UDP, ports(53, random.next() as u16)),
            2 => (SCTP, ports(1, 2)),
            _ => (99, vec![7; 12]),
        }
    };
    let v4_packet = |random: &mut Random, protocol: u8, payload: &[u8]| {
        let header = V4 {
            options: random.below(11) as u8,
            flags_and_offset: [0, 0x4000, 0x2000, 0x2010, 0x0010][random.below(5)],
            ..V4::between(A4, B4)
        };
        header.packet(protocol, payload)
    };
    let v6_packet = |random: &mut Random, protocol: u8, payload: &[u8]| {
        let (mut next, mut payload) = (protocol, payload.to_vec());
        for _ in 0..random.below(11) {
            let kind = [0, 43, 60, 135, 139, 140, 51, 44][random.below(8)];
            payload = if kind == 44 {
                let offset = [0, 0, 8, 1480][random.below(4)];
                v6_fragment(next, offset, random.below(2) == 0, 99, &payload)
            } else {
                extension(kind, random.below(4) as u8, next, &payload)
            };
            next = kind;
        }
        v6(A6, B6, next, &payload)
    };
    let (protocol, payload) = transport(random);
    let error = random.below(3) == 0;
    let ip = if random.below(2) == 0 {
        let packet = v4_packet(random, protocol, &payload);
        if error {
            v4_packet(random, ICMP, &icmp(3, 1, &packet))
        } else {
            packet
        }
    } else {
        let packet = v6_packet(random, protocol, &payload);
        if error {
            v6_packet(random, ICMPV6, &icmp(1, 1, &packet))
        } else {
            packet
        }
    };
    let tags = [&[][..], &[0x8100], &[0x88a8, 0x8100]][random.below(3)];
    tagged(tags, &ip)
}

/// Changes some bytes, and cuts now and then.
fn damage(frame: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..random.below(4) {
        let at = random.below(frame.len());
        // Half of the time one of the numbers that mean something.
        frame[at] = match random.below(2) {
            0 => [0, 1, 3, 6, 8, 44, 51, 58, 60, 0x45, 0x60, 0x81][random.below(12)],
            _ => random.next() as u8,
        };
    }
    if random.below(3) == 0 {
        let len = random.below(frame.len() + 1).max(14);
        frame.truncate(len);
    }
}

#[test]
fn both_agree_on_well_formed_and_on_damaged_frames() {
    let rig = rig!();
    let mut random = Random(0x51_00_1c_e5);
    let mut kinds = BTreeMap::<u32, u32>::new();
    for round in 0..60_000 {
        let mut frame = some_frame(&mut random);
        if round % 4 != 0 {
            damage(&mut frame, &mut random);
        }
        assert_eq!(parsed_on_host(&frame), expected(&frame), "{frame:02x?}");
        let Some(probe) = rig.probe_if_run(&frame) else {
            continue;
        };
        assert_eq!(probe, expected(&frame), "round {round}: {frame:02x?}");
        *kinds.entry(probe.kind * 2 + probe.truncated).or_default() += 1;
    }
    // Each kind with and without truncation, where that exists.
    for kind in [0, 2, 4, 5, 6, 7, 8] {
        assert!(kinds.get(&kind).is_some_and(|&n| n > 50), "{kinds:?}");
    }
}

#[test]
fn random_and_damaged_frames_never_fail_and_always_have_one_outcome() {
    let mut rig = rig!();
    // XDP parses only when something is convicted.
    let conviction = Conviction {
        expires_ns: now() + 3_600_000_000_000,
        ..Conviction::default()
    };
    let key = key(UDP, (A4.into(), 1), (B4.into(), 2));
    rig.maps.convictions.convict(&key, &conviction).unwrap();
    let mut random = Random(0xbad_5eed);
    let mut ran = 0;
    for round in 0..20_000 {
        let mut frame = some_frame(&mut random);
        if round % 3 == 0 {
            for byte in &mut frame[14..] {
                *byte = random.next() as u8;
            }
        } else {
            damage(&mut frame, &mut random);
        }
        assert_eq!(rig.xdp(&frame), XDP_PASS, "{frame:02x?}");
        if rig.probe_if_run(&frame).is_some() {
            assert_eq!(rig.tc(&frame).action, TC_ACT_UNSPEC, "{frame:02x?}");
            ran += 1;
        }
    }
    let counters = rig.counters();
    assert_eq!(counters.get(Counter::TcPackets), ran);
    assert!(ran > 15_000, "{ran}");
    assert_eq!(counters.get(Counter::XdpPassed), 20_000);
    let outcomes = [Counter::TcWorker, Counter::TcNotIp, Counter::TcMalformed];
    let sum: u64 = outcomes.into_iter().map(|o| counters.get(o)).sum();
    assert_eq!(sum, ran, "{counters:?}");
}

#[derive(Debug, Default)]
struct Tally {
    files: u64,
    unreadable: BTreeMap<PathBuf, String>,
    damaged: u64,
    compared: u64,
    /// Not an Ethernet capture: an Ethernet header was put before the packet.
    wrapped: u64,
    /// Longer than a test run takes: both saw the first [`MAX_FRAME`] bytes.
    cut: u64,
    /// The kernel does not run programs on it (no Ethernet header, or half an IP header).
    not_run: u64,
    kinds: BTreeMap<u32, u64>,
    mismatches: Vec<String>,
}

#[test]
fn both_agree_on_every_packet_of_the_captures() {
    let Some(directory) = env::var_os("SLUICE_PCAPS") else {
        eprintln!("SKIPPED: SLUICE_PCAPS names no directory with captures");
        return;
    };
    let rig = rig!();
    let mut tally = Tally::default();
    walk(Path::new(&directory), &mut |path| {
        if is_capture(path) {
            compare_file(&rig, path, &mut tally);
        }
    });
    println!(
        "{} captures ({} unreadable, {} damaged): {} packets compared ({} of other link types, \
         {} cut), {} not run; by kind: {:?}; {} mismatches",
        tally.files,
        tally.unreadable.len(),
        tally.damaged,
        tally.compared,
        tally.wrapped,
        tally.cut,
        tally.not_run,
        tally.kinds,
        tally.mismatches.len()
    );
    for (path, reason) in &tally.unreadable {
        println!("unreadable: {}: {reason}", path.display());
    }
    assert!(tally.compared > 0, "no packets in {directory:?}");
    assert!(
        tally.mismatches.is_empty(),
        "{}",
        tally.mismatches[..tally.mismatches.len().min(10)].join("\n")
    );
}

fn compare_file(rig: &Rig, path: &Path, tally: &mut Tally) {
    tally.files += 1;
    let file = match contents(path) {
        Ok(file) => file,
        Err(error) => {
            tally.unreadable.insert(path.to_owned(), error.to_string());
            return;
        }
    };
    let (packets, damage) = read(&file);
    match damage {
        Some(reason) if packets.is_empty() => {
            tally.unreadable.insert(path.to_owned(), reason);
        }
        Some(_) => tally.damaged += 1,
        None => {}
    }
    for (number, packet) in (1..).zip(&packets) {
        let mut frame = as_ethernet(packet);
        tally.wrapped += u64::from(packet.link_type != 1);
        let (on_host, userspace) = (parsed_on_host(&frame), expected(&frame));
        if on_host != userspace {
            tally.mismatches.push(format!(
                "{}: packet {number}: eBPF parser on the host {on_host:?}, userspace \
                 {userspace:?}",
                path.display()
            ));
        }
        if frame.len() > MAX_FRAME {
            frame.truncate(MAX_FRAME);
            tally.cut += 1;
        }
        let Some(probe) = rig.probe_if_run(&frame) else {
            tally.not_run += 1;
            continue;
        };
        tally.compared += 1;
        *tally.kinds.entry(probe.kind).or_default() += 1;
        let expected = expected(&frame);
        if probe != expected {
            tally.mismatches.push(format!(
                "{}: packet {number}: eBPF {probe:?}, userspace {expected:?}",
                path.display()
            ));
        }
    }
}

/// Compressed captures are common in collections.
fn contents(path: &Path) -> io::Result<Vec<u8>> {
    if path.extension().is_none_or(|extension| extension != "gz") {
        return fs::read(path);
    }
    let output = Command::new("gzip").arg("-dc").arg(path).output()?;
    if output.status.success() || !output.stdout.is_empty() {
        Ok(output.stdout)
    } else {
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(io::Error::other(message))
    }
}

fn is_capture(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = name.to_lowercase();
    [".pcap", ".pcapng", ".cap", ".trace", ".dmp"]
        .iter()
        .any(|extension| name.contains(extension))
}

fn walk(directory: &Path, visit: &mut impl FnMut(&Path)) {
    let mut entries: Vec<_> = fs::read_dir(directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        .map(|entry| entry.expect("a directory entry").path())
        .collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            walk(&path, visit);
        } else {
            visit(&path);
        }
    }
}
