use super::*;

type Packet = (u16, i64, Vec<u8>, u32);

fn read(file: &[u8]) -> (Vec<Packet>, Option<String>) {
    let mut packets = Vec::new();
    let mut capture = match Capture::new(file) {
        Ok(capture) => capture,
        Err(error) => return (packets, Some(error.to_string())),
    };
    loop {
        match capture.next_packet() {
            Ok(Some(packet)) => {
                assert_eq!(packet.number, packets.len() as u64 + 1);
                packets.push((
                    packet.link_type,
                    packet.wall_us,
                    packet.bytes.to_vec(),
                    packet.original_len,
                ));
            }
            Ok(None) => return (packets, None),
            Err(error) => return (packets, Some(error.to_string())),
        }
    }
}

fn words(words: &[u32], big: bool) -> Vec<u8> {
    let bytes = words.iter().map(|word| match big {
        true => word.to_be_bytes(),
        false => word.to_le_bytes(),
    });
    bytes.flatten().collect()
}

fn pcap(magic: u32, big: bool, extra: usize) -> Vec<u8> {
    let mut file = words(&[magic, 0x0004_0002, 0, 0, 65535, 0x1400_0071], big);
    file.extend(words(&[5, 7000, 3, 90], big));
    file.extend(vec![0; extra]);
    file.extend(b"abc");
    file
}

#[test]
fn every_kind_of_pcap_is_read() {
    for big in [false, true] {
        for (magic, extra, micros) in [
            (0xa1b2_c3d4, 0, 7000),
            (0xa1b2_3c4d, 0, 7),
            (0xa1b2_cd34, 8, 7000),
        ] {
            let (packets, error) = read(&pcap(magic, big, extra));
            assert_eq!(error, None);
            assert_eq!(packets, [(113, 5_000_000 + micros, b"abc".to_vec(), 90)]);
        }
    }
}

#[test]
fn what_was_read_before_damage_stays() {
    let mut file = pcap(0xa1b2_c3d4, false, 0);
    let one = file.len();
    file.extend(words(&[6, 0, 3, 3], false));
    file.extend(b"ab");
    for (end, error) in [(file.len(), 2), (one + 7, 2), (one - 1, 1), (30, 1)] {
        let (packets, got) = read(&file[..end]);
        assert_eq!(packets.len(), usize::from(end >= one));
        assert_eq!(got.unwrap(), format!("cut off in packet {error}"));
    }
    file.truncate(one);
    file.extend(words(&[6, 0, u32::MAX, 3], false));
    let (packets, got) = read(&file);
    assert_eq!(packets.len(), 1);
    assert!(got.unwrap().contains("damaged at packet 2"));
    assert!(
        read(b"GET / HTTP/1.0")
            .1
            .unwrap()
            .contains("neither pcap nor pcapng")
    );
    assert!(read(b"").1.is_some());
}

fn block(kind: u32, body: &[u8], big: bool) -> Vec<u8> {
    let padded = body.len().next_multiple_of(4);
    let length = padded as u32 + 12;
    let mut block = words(&[kind, length], big);
    block.extend(body);
    block.resize(8 + padded, 0);
    block.extend(words(&[length], big));
    block
}

fn section(big: bool) -> Vec<u8> {
    let magic = u32::from_be_bytes(BYTE_ORDER_MAGIC);
    let body = words(
        &[magic, if big { 0x0001_0000 } else { 1 }, u32::MAX, u32::MAX],
        big,
    );
    block(block::SECTION, &body, big)
}

fn interface(link_type: u16, options: &[(u16, &[u8])], big: bool) -> Vec<u8> {
    let half = |number: u16| match big {
        true => number.to_be_bytes(),
        false => number.to_le_bytes(),
    };
    let mut body = half(link_type).to_vec();
    body.extend([0, 0]);
    body.extend(words(&[2], big));
    for (code, value) in options {
        body.extend(half(*code));
        body.extend(half(value.len() as u16));
        body.extend(*value);
        body.resize(body.len().next_multiple_of(4), 0);
    }
    block(block::INTERFACE, &body, big)
}

#[test]
fn every_block_with_a_packet_is_read_in_every_byte_order() {
    for big in [false, true] {
        let offset = match big {
            true => 10i64.to_be_bytes(),
            false => 10i64.to_le_bytes(),
        };
        let mut file = section(big);
        file.extend(interface(1, &[(2, b"eth0"), (9, &[9]), (14, &offset)], big));
        file.extend(interface(101, &[], big));
        file.extend(block(5, b"statistics, of no interest here", big));
        let enhanced = |interface, ticks: u32, bytes: &[u8]| {
            let mut body = words(&[interface, 0, ticks, bytes.len() as u32, 99], big);
            body.extend(bytes);
            block(block::ENHANCED_PACKET, &body, big)
        };
        file.extend(enhanced(0, 5000, b"one"));
        file.extend(enhanced(1, 5000, b"three"));
        let mut simple = words(&[9], big);
        simple.extend(b"xyz");
        file.extend(block(block::SIMPLE_PACKET, &simple, big));
        // Another section, in the other order, has interfaces of its own.
        file.extend(section(!big));
        file.extend(interface(9, &[(9, &[0x80 | 1])], !big));
        let mut body = words(&[0, 0, 3, 1, 1], !big);
        body.extend(b"p");
        file.extend(block(block::ENHANCED_PACKET, &body, !big));
        let (packets, error) = read(&file);
        assert_eq!(error, None);
        assert_eq!(
            packets,
            [
                (1, 10_000_005, b"one".to_vec(), 99),
                (101, 5000, b"three".to_vec(), 99),
                (1, 0, b"xy".to_vec(), 9),
                (9, 1_500_000, b"p".to_vec(), 1),
            ]
        );
    }
}

#[test]
fn no_file_makes_it_panic() {
    let mut file = section(false);
    file.extend(interface(1, &[(9, &[255]), (14, &[255; 8])], false));
    let mut body = words(&[0, u32::MAX, u32::MAX, 3, 3], false);
    body.extend(b"abc");
    file.extend(block(block::ENHANCED_PACKET, &body, false));
    file.extend(block(block::SIMPLE_PACKET, &[1, 0, 0, 0], false));
    for original in [file, pcap(0xa1b2_c3d4, true, 0)] {
        for end in 0..original.len() {
            read(&original[..end]);
        }
        for at in 0..original.len() {
            for byte in [0, 1, 0x7f, 0xff] {
                let mut changed = original.clone();
                changed[at] = byte;
                read(&changed);
            }
        }
    }
}
