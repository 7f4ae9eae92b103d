//! For the fuzz targets: datagrams of the kernel.

use super::message::{Message, Messages};

/// Reads a datagram; returns how many packets are in it.
pub fn messages(datagram: &[u8]) -> usize {
    let mut packets = 0;
    for message in Messages::of(datagram) {
        if let Message::Packet(packet) = message {
            let _ = (packet.checksum(), packet.is_gso());
            assert!(packet.payload.len() <= datagram.len());
            packets += 1;
        }
    }
    packets
}
