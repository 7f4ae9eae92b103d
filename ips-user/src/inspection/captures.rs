//! Real traffic through the whole inspection: every capture below `SLUICE_PCAPS`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use pcap_file::DataLink;
use pcap_file::pcap::PcapReader;
use pcap_file::pcapng::{Block, PcapNgReader};

use super::tests::{feed, feed_frame, with};
use crate::decode::{Decoded, KeyOutcome, LinkType, Start, frame_key, packet_key};
use crate::source::Checksum;

fn captures(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            captures(&path, found);
        } else {
            let name = path.to_string_lossy();
            let name = name.strip_suffix(".gz").unwrap_or(&name);
            if [".pcap", ".pcapng", ".cap"]
                .iter()
                .any(|end| name.ends_with(end))
            {
                found.push(path);
            }
        }
    }
}

/// Compressed captures are common in collections.
fn contents(path: &Path) -> Vec<u8> {
    if path.extension().is_none_or(|extension| extension != "gz") {
        return fs::read(path).unwrap();
    }
    let output = Command::new("gzip").arg("-dc").arg(path).output().unwrap();
    assert!(!output.stdout.is_empty(), "{}: {output:?}", path.display());
    output.stdout
}

/// Calls `each` with link type and bytes of every packet, as far as the file can be read.
fn packets(path: &Path, mut each: impl FnMut(DataLink, &[u8])) {
    let file = contents(path);
    if let Ok(mut reader) = PcapReader::new(file.as_slice()) {
        let link = reader.header().datalink;
        while let Some(Ok(packet)) = reader.next_packet() {
            each(link, &packet.data);
        }
        return;
    }
    let Ok(mut reader) = PcapNgReader::new(file.as_slice()) else {
        return;
    };
    let mut links = Vec::new();
    while let Some(Ok(block)) = reader.next_block() {
        match block {
            Block::InterfaceDescription(interface) => links.push(interface.linktype),
            Block::EnhancedPacket(packet) => {
                if let Some(&link) = links.get(packet.interface_id as usize) {
                    each(link, &packet.data);
                }
            }
            Block::SimplePacket(packet) => {
                if let Some(&link) = links.first() {
                    each(link, &packet.data);
                }
            }
            _ => {}
        }
    }
}

#[test]
fn every_capture_goes_through_without_a_panic() {
    let Some(directory) = std::env::var_os("SLUICE_PCAPS") else {
        println!("skipped: SLUICE_PCAPS names no directory with captures");
        return;
    };
    let mut files = Vec::new();
    captures(Path::new(&directory), &mut files);
    assert!(!files.is_empty(), "no captures in {directory:?}");
    let mut inspection = with(
        "alert tcp any any -> any any (content:\"GET \"; depth:4; content:\"HTTP/1.\"; distance:1; sid:1;)\n\
         alert udp any any <> any 53 (content:\"|00 01 00|\"; offset:2; depth:10; sid:2;)\n\
         alert icmp any any -> any any (sid:3;)\n\
         drop tcp any any -> any any (content:\"cmd.exe\"; nocase; sid:4;)\n\
         rejectboth ip any any -> any any (content:\"|ff ff ff ff|\"; content:!\"|00|\"; within:8; sid:5;)",
    );
    let (mut seen, mut with_ip, mut fed) = (0u64, 0u64, 0u64);
    for file in &files {
        packets(file, |link, bytes| {
            seen += 1;
            let outcome = frame_key(bytes);
            packet_key(bytes);
            if link == DataLink::ETHERNET {
                match Decoded::parse_frame(bytes) {
                    None => assert_eq!(outcome, KeyOutcome::NotIp),
                    Some(Err(_)) => assert_eq!(outcome, KeyOutcome::Malformed),
                    Some(Ok(decoded)) => {
                        with_ip += 1;
                        let ip = decoded.network.unwrap().packet;
                        // BIG TCP's zero length and cut packets keep their meaning.
                        assert_eq!(packet_key(ip), outcome, "{}", file.display());
                        fed += 1;
                        feed(&mut inspection, ip);
                    }
                }
            }
            let start = match LinkType::from_number(u32::from(link)) {
                Some(link) => Start::Link(link),
                None => Start::Ip(Checksum::Unverified),
            };
            fed += 1;
            feed_frame(&mut inspection, start, bytes);
        });
    }
    let counters = inspection.counters();
    assert_eq!(counters.packets, fed);
    assert_eq!(counters.packets, counters.accepted + counters.dropped);
    assert!(counters.alerts > 0, "no rule matched in {seen} packets");
    println!(
        "{} captures, {seen} packets, {with_ip} with IP over Ethernet; {counters:?}",
        files.len()
    );
}
