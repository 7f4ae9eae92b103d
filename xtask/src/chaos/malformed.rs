//! Packets that are no packets: cut off, contradictory, random. They must harm nobody, whatever
//! becomes of them.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;
use sluice_tests::frame::{FrameSocket, hardware_address, internet_checksum};
use sluice_tests::{Lab, Side};

use super::dice::Dice;

/// Time between two frames of each side.
const INTERVAL: Duration = Duration::from_millis(4);
/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;
/// Ports below those of ordinary connections, so that no answer meets one of the load's.
const PORTS: std::ops::RangeInclusive<u64> = 600..=1000;

/// A side that sends them.
pub(super) struct Malformed {
    thread: JoinHandle<u64>,
}

impl Malformed {
    /// Sends from a side toward the other until told to stop.
    pub(super) fn start(lab: &Lab, from: Side, seed: u64, stop: Arc<AtomicBool>) -> Result<Self> {
        let (namespace, interface, gateway) = match from {
            Side::Client => (
                lab.client(),
                Lab::CLIENT_INTERFACE,
                Lab::GATEWAY_CLIENT_INTERFACE,
            ),
            Side::Server => (
                lab.server(),
                Lab::SERVER_INTERFACE,
                Lab::GATEWAY_SERVER_INTERFACE,
            ),
        };
        let socket = FrameSocket::open(namespace, interface)?;
        let ends = |side| match side {
            Side::Client => (lab.client_v4(), lab.client_v6()),
            Side::Server => (lab.server_v4(), lab.server_v6()),
        };
        let other = match from {
            Side::Client => Side::Server,
            Side::Server => Side::Client,
        };
        let forge = Forge {
            to: hardware_address(lab.gateway(), gateway)?,
            from: hardware_address(namespace, interface)?,
            source: ends(from),
            destination: ends(other),
        };
        let mut dice = Dice::new(seed ^ (u64::from(from == Side::Server) + 1) << 32);
        let thread = namespace.spawn("malformed", move || {
            let mut sent = 0;
            while !stop.load(Ordering::Relaxed) {
                // What the interface itself does not take, nobody has to survive.
                sent += u64::from(socket.send(&forge.frame(&mut dice)).is_ok());
                std::thread::sleep(INTERVAL);
            }
            sent
        });
        Ok(Self { thread })
    }

    /// Waits for the end, after the stop; frames sent.
    pub(super) fn finish(self) -> u64 {
        self.thread.join().expect("the sender does not panic")
    }
}

/// Makes the frames.
struct Forge {
    to: [u8; 6],
    from: [u8; 6],
    source: (Ipv4Addr, Ipv6Addr),
    destination: (Ipv4Addr, Ipv6Addr),
}

impl Forge {
    /// The next one.
    fn frame(&self, dice: &mut Dice) -> Vec<u8> {
        let v6 = dice.within(0..=1) == 1;
        let mut frame = match dice.within(0..=4) {
            0 => self.noise(dice, v6),
            1 => self.cut_off(dice, v6),
            2 => self.contradictory(dice, v6),
            3 => self.stray_fragment(dice, v6),
            _ => self.bits_flipped(dice, v6),
        };
        frame.truncate(1514);
        frame
    }

    /// Random bytes under an IP EtherType.
    fn noise(&self, dice: &mut Dice, v6: bool) -> Vec<u8> {
        let mut frame = self.ethernet(v6);
        let mut bytes = vec![0; usize::try_from(dice.within(1..=200)).unwrap_or(1)];
        dice.fill(&mut bytes);
        // With the right version, so that more than the first check is reached.
        bytes[0] = (bytes[0] & 0x0f) | if v6 { 0x60 } else { 0x40 };
        frame.extend(bytes);
        frame
    }

    /// A good packet that ends too early.
    fn cut_off(&self, dice: &mut Dice, v6: bool) -> Vec<u8> {
        let mut frame = self.good(dice, v6);
        let end = dice.within(ETHERNET as u64 + 1..=frame.len() as u64 - 1);
        frame.truncate(usize::try_from(end).unwrap_or(ETHERNET + 1));
        frame
    }

    /// A packet whose own lengths cannot be, with a right checksum where there is one.
    fn contradictory(&self, dice: &mut Dice, v6: bool) -> Vec<u8> {
        let mut frame = self.good(dice, v6);
        let ip = &mut frame[ETHERNET..];
        match (v6, dice.within(0..=4)) {
            // Header length: shorter than a header, longer than the packet.
            (false, 0) => ip[0] = 0x40 | u8::try_from(dice.within(0..=4)).unwrap_or(0),
            (false, 1) => ip[0] = 0x4f,
            // Total length.
            (false, _) => ip[2..4].copy_from_slice(&short(dice.next())),
            // Payload length.
            (true, 0 | 1) => ip[4..6].copy_from_slice(&short(dice.next())),
            // Extension headers that say each other's names, with random lengths.
            (true, _) => {
                const EXTENSIONS: [u8; 6] = [0, 43, 44, 51, 60, 135];
                ip[6] = EXTENSIONS[usize::try_from(dice.within(0..=5)).unwrap_or(0)];
                for header in ip[40..].chunks_mut(8) {
                    header[0] = EXTENSIONS[usize::try_from(dice.within(0..=5)).unwrap_or(0)];
                    if let Some(length) = header.get_mut(1) {
                        *length = u8::try_from(dice.within(0..=3)).unwrap_or(0);
                    }
                }
            }
        }
        // TCP's data offset or UDP's length.
        let transport = if v6 { 40 } else { 20 };
        match dice.within(0..=2) {
            0 => ip[transport + 12] = u8::try_from(dice.within(0..=255)).unwrap_or(0),
            1 => ip[transport + 4..transport + 6].copy_from_slice(&short(dice.next())),
            _ => {}
        }
        checksum(ip, v6);
        frame
    }

    /// A fragment of a datagram that never comes whole, of any offset and length.
    fn stray_fragment(&self, dice: &mut Dice, v6: bool) -> Vec<u8> {
        let mut frame = self.good(dice, v6);
        let offset_and_flags = short(dice.next());
        let ip = &mut frame[ETHERNET..];
        if v6 {
            let next = std::mem::replace(&mut ip[6], 44);
            let identification = dice.next().to_be_bytes();
            ip[40..44].copy_from_slice(&[next, 0, offset_and_flags[0], offset_and_flags[1]]);
            ip[44..48].copy_from_slice(&identification[..4]);
        } else {
            ip[4..6].copy_from_slice(&short(dice.next()));
            // Without the bit that is reserved.
            ip[6..8].copy_from_slice(&[offset_and_flags[0] & 0x3f, offset_and_flags[1]]);
        }
        checksum(ip, v6);
        frame
    }

    /// A good packet with some bits changed on its way, addresses excepted.
    fn bits_flipped(&self, dice: &mut Dice, v6: bool) -> Vec<u8> {
        let mut frame = self.good(dice, v6);
        let addresses = if v6 { 8..40 } else { 12..20 };
        for _ in 0..dice.within(1..=6) {
            let at = dice.within(0..=frame.len() as u64 - ETHERNET as u64 - 1);
            let at = usize::try_from(at).unwrap_or(0);
            let ports = addresses.end..addresses.end + 4;
            if !addresses.contains(&at) && !ports.contains(&at) {
                frame[ETHERNET + at] ^= 1 << dice.within(0..=7);
            }
        }
        if dice.within(0..=1) == 1 {
            checksum(&mut frame[ETHERNET..], v6);
        }
        frame
    }

    /// TCP or UDP with a payload and right lengths; without a transport checksum.
    fn good(&self, dice: &mut Dice, v6: bool) -> Vec<u8> {
        let mut payload = vec![0; usize::try_from(dice.within(8..=120)).unwrap_or(8)];
        dice.fill(&mut payload);
        let tcp = dice.within(0..=1) == 1;
        let mut transport = Vec::new();
        transport.extend(short(dice.within(PORTS)));
        transport.extend(short(dice.within(PORTS)));
        if tcp {
            let sequence = dice.next().to_be_bytes();
            transport.extend(sequence);
            // Data offset 5; any flags.
            transport.extend([0x50, sequence[0] & 0x3f, 0xff, 0xff, 0, 0, 0, 0]);
        } else {
            transport.extend(short(8 + payload.len() as u64));
            transport.extend([0, 0]);
        }
        transport.extend(payload);
        let protocol = if tcp { 6 } else { 17 };
        let mut frame = self.ethernet(v6);
        if v6 {
            frame.extend([0x60, 0, 0, 0]);
            frame.extend(short(transport.len() as u64));
            frame.extend([protocol, 64]);
            frame.extend(self.source.1.octets());
            frame.extend(self.destination.1.octets());
        } else {
            frame.extend([0x45, 0]);
            frame.extend(short(20 + transport.len() as u64));
            frame.extend([0, 0, 0, 0, 64, protocol, 0, 0]);
            frame.extend(self.source.0.octets());
            frame.extend(self.destination.0.octets());
        }
        frame.extend(transport);
        checksum(&mut frame[ETHERNET..], v6);
        frame
    }

    fn ethernet(&self, v6: bool) -> Vec<u8> {
        let mut frame = [self.to, self.from].concat();
        frame.extend(if v6 { [0x86, 0xdd] } else { [0x08, 0x00] });
        frame
    }
}

/// The low 16 bits in network order.
fn short(number: u64) -> [u8; 2] {
    let bytes = number.to_be_bytes();
    [bytes[6], bytes[7]]
}

/// Writes an IPv4 header's checksum (RFC 791), as far as its own length says; IPv6 has none.
fn checksum(ip: &mut [u8], v6: bool) {
    let length = usize::from(ip[0] & 0x0f) * 4;
    if v6 || length < 12 || ip.len() < length {
        return;
    }
    ip[10..12].fill(0);
    let sum = internet_checksum(&[&ip[..length]]);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forge() -> Forge {
        Forge {
            to: [2; 6],
            from: [4; 6],
            source: (Ipv4Addr::new(10, 0, 0, 1), Ipv6Addr::LOCALHOST),
            destination: (Ipv4Addr::new(10, 0, 0, 2), Ipv6Addr::UNSPECIFIED),
        }
    }

    #[test]
    fn every_frame_can_be_sent_and_goes_through_the_gateway() {
        let (forge, mut dice) = (forge(), Dice::new(1));
        for _ in 0..20_000 {
            let frame = forge.frame(&mut dice);
            assert!((ETHERNET + 1..=1514).contains(&frame.len()));
            assert_eq!(frame[..6], [2; 6]);
        }
    }

    #[test]
    fn a_good_packet_has_the_checksum_and_the_ports_it_should() {
        let (forge, mut dice) = (forge(), Dice::new(2));
        for _ in 0..100 {
            let frame = forge.good(&mut dice, false);
            assert_eq!(internet_checksum(&[&frame[ETHERNET..ETHERNET + 20]]), 0);
            let port = u64::from(u16::from_be_bytes([frame[34], frame[35]]));
            assert!(PORTS.contains(&port));
        }
    }
}
