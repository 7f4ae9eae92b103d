//! Headers that lie in page fragments of the skb, as some drivers leave them: the TC program
//! copies them out.
//!
//! A tap device with `IFF_NAPI_FRAGS` (Linux 4.15) makes such skbs: the first buffer of a write is
//! the linear part, every other one a page fragment.

mod common_packets;

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Write};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process;

use common_packets::rig::{SECOND, now};
use common_packets::*;
use ips_common::{BACKUP, Counter, FlowKey, SteerConfig, WorkerState};
use sluice::loader::{LoadOptions, Programs};
use sluice_tests::patience::wait_until;
use sluice_tests::{Namespace, require_lab, skip_if};

/// Makes a tap device in the calling thread's network namespace.
fn tap(name: &str) -> io::Result<File> {
    // linux/if_tun.h
    const TUNSETIFF: libc::Ioctl = 0x4004_54ca;
    const FLAGS: i16 = 0x0002 | 0x0010 | 0x0020 | 0x1000; // TAP, NAPI, NAPI_FRAGS, NO_PI
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun")?;
    // SAFETY: ifreq is plain data; all zero is an empty name.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = FLAGS;
    // SAFETY: TUNSETIFF takes an ifreq, which outlives the call.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, &raw mut request) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(file)
}

struct Place {
    namespace: Namespace,
    options: LoadOptions,
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = self
            .namespace
            .enter(|| sluice::loader::remove_leftovers(&self.options.pin_base));
        let _ = self.namespace.remove();
    }
}

#[test]
fn ports_in_a_page_fragment_are_found() {
    require_lab!();
    let name = format!("sluice-paged-{}", process::id());
    let place = Place {
        namespace: Namespace::create(&name).unwrap(),
        options: LoadOptions {
            pin_base: Path::new("/sys/fs/bpf").join(name),
            max_placed: 1024,
            max_convicted: 1024,
            max_fragments: 1024,
        },
    };
    let mut device = match place.namespace.enter(|| tap("paged")) {
        Ok(device) => device,
        Err(error) => {
            skip_if!(Some(format!("no tap device with page fragments: {error}")));
            return;
        }
    };
    let up = ["link", "set", "dev", "paged", "up"];
    place.namespace.run("ip", &up).unwrap();

    let (mut programs, mut maps) = Programs::load(&place.options).unwrap();
    maps.write_config(&SteerConfig {
        stale_ns: 3_600 * SECOND,
        fragment_ns: SECOND,
        placement_idle_ns: SECOND,
        mark_mask: 0xff,
        workers: 1,
        ..SteerConfig::default()
    })
    .unwrap();
    // Nobody but the backup is there, so that each flow's key is recorded.
    maps.workers.stamp(BACKUP, now());
    maps.workers.set_state(BACKUP, WorkerState::Up);
    place
        .namespace
        .enter(|| programs.attach_tc("paged"))
        .unwrap();

    let v6_chain = extension(60, 3, 60, &extension(60, 3, SCTP, &ports(3, 4)));
    // SCTP, because GRO would pull the headers of TCP and UDP into the linear part.
    let frames: [(Vec<u8>, usize, FlowKey); 4] = [
        (
            frame(&v4(A4, B4, SCTP, &ports(1, 2))),
            34,
            key(SCTP, (A4.into(), 1), (B4.into(), 2)),
        ),
        (
            frame(&v4(A4, B4, SCTP, &ports(5, 6))),
            36,
            key(SCTP, (A4.into(), 5), (B4.into(), 6)),
        ),
        (
            frame(&v6(A6, B6, SCTP, &ports(1, 2))),
            54,
            key(SCTP, (A6.into(), 1), (B6.into(), 2)),
        ),
        (
            frame(&v6(A6, B6, 60, &v6_chain)),
            54,
            key(SCTP, (A6.into(), 3), (B6.into(), 4)),
        ),
    ];
    for (frame, linear, _) in &frames {
        let (head, tail) = frame.split_at(*linear);
        let written = device.write_vectored(&[IoSlice::new(head), IoSlice::new(tail)]);
        assert_eq!(written.unwrap(), frame.len());
    }
    // What the device itself sends (router solicitations) is not seen at its ingress.
    let counted = || maps.counters.read().unwrap();
    wait_until(
        || counted().get(Counter::TcPackets) >= 4,
        || format!("{:?}", counted()),
    );
    let counters = maps.counters.read().unwrap();
    let adopted = maps.placements.list(usize::MAX).unwrap();
    for (_, linear, key) in &frames {
        let found = adopted.iter().any(|(adopted, _)| adopted == key);
        assert!(
            found,
            "{key} ({linear} bytes linear): {adopted:?} {counters:?}"
        );
    }
    assert_eq!(counters.get(Counter::Truncated), 0);
    assert_eq!(counters.get(Counter::TcBackup), 4);
    place.namespace.enter(|| programs.remove()).unwrap();
}
