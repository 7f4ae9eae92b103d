//! What records say about a flow and nothing else depends on.

use bytemuck::{Pod, Zeroable};

use super::PacketDirection;
use crate::decode::{Decoded, Transport};
use crate::exception::Treatment;

/// Seen of the packets of a flow. Arrays are by direction: to the server, to the client.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Observed {
    /// Exception policies that were applied: four bits for each [`Exception`].
    exceptions: u32,
    /// All TCP flags.
    tcp_flags: [u8; 2],
    /// Lowest TTL, once there was a packet.
    ttl_min: [u8; 2],
    /// Highest TTL.
    ttl_max: [u8; 2],
    /// Type and code of the first ICMP message.
    icmp: [[u8; 2]; 2],
    /// Bits out of [`seen`].
    seen: u16,
    /// VLAN ids of the first packet, the outermost first, and how many.
    vlans: [u16; 3],
    vlan_count: u16,
}

mod seen {
    pub(super) const PACKET: [u16; 2] = [1, 2];
    pub(super) const ICMP: [u16; 2] = [4, 8];
    pub(super) const DROP: [u16; 2] = [16, 32];
    /// Of both directions.
    pub(super) const BYPASS: u16 = 64;
}

/// What an exception policy was applied to, with Suricata's name of it in records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exception {
    /// There was no memory for the connection's state.
    StreamMemory,
    /// There was no memory to put it together.
    ReassemblyMemory,
    /// Its beginning was not seen.
    Midstream,
    /// Its application protocol could not be read.
    AppLayer,
}

impl Exception {
    /// Every one.
    pub const ALL: [Self; 4] = [
        Self::StreamMemory,
        Self::ReassemblyMemory,
        Self::Midstream,
        Self::AppLayer,
    ];

    /// Its name in records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::StreamMemory => "stream_memcap",
            Self::ReassemblyMemory => "stream_reassembly_memcap",
            Self::Midstream => "stream_midstream",
            Self::AppLayer => "app_layer_error",
        }
    }
}

const fn index(direction: PacketDirection) -> usize {
    match direction {
        PacketDirection::ToServer => 0,
        PacketDirection::ToClient => 1,
    }
}

impl Observed {
    pub(super) fn packet(&mut self, packet: &Decoded<'_>, direction: PacketDirection) {
        let way = index(direction);
        let ttl = packet.ttl();
        if self.seen & (seen::PACKET[0] | seen::PACKET[1]) == 0 {
            let ids = packet.link.vlans.as_slice();
            self.vlan_count = ids.len().min(self.vlans.len()) as u16;
            for (slot, id) in self.vlans.iter_mut().zip(ids) {
                *slot = *id;
            }
        }
        if self.seen & seen::PACKET[way] == 0 {
            self.seen |= seen::PACKET[way];
            self.ttl_min[way] = ttl;
        }
        self.ttl_min[way] = self.ttl_min[way].min(ttl);
        self.ttl_max[way] = self.ttl_max[way].max(ttl);
        match packet.transport {
            Transport::Tcp(ref tcp) => {
                self.tcp_flags[way] |= tcp.slice().get(13).copied().unwrap_or_default();
            }
            Transport::Icmp { kind, code } if self.seen & seen::ICMP[way] == 0 => {
                self.seen |= seen::ICMP[way];
                self.icmp[way] = [kind, code];
            }
            _ => {}
        }
    }

    /// Client and server were taken for each other.
    pub(super) fn turn_round(&mut self) {
        self.tcp_flags.swap(0, 1);
        self.ttl_min.swap(0, 1);
        self.ttl_max.swap(0, 1);
        self.icmp.swap(0, 1);
        let upper = self.seen & 0b10_1010;
        let lower = self.seen & 0b01_0101;
        self.seen = self.seen & !0b11_1111 | lower << 1 | upper >> 1;
    }

    /// VLAN ids of the first packet, the outermost first.
    pub fn vlans(&self) -> &[u16] {
        let count = usize::from(self.vlan_count).min(self.vlans.len());
        &self.vlans[..count]
    }

    /// Notes that the rest is not inspected.
    pub const fn bypassed(&mut self) {
        self.seen |= seen::BYPASS;
    }

    /// Whether the rest is not inspected.
    pub const fn is_bypassed(&self) -> bool {
        self.seen & seen::BYPASS != 0
    }

    /// All TCP flags of a direction.
    pub const fn tcp_flags(&self, direction: PacketDirection) -> u8 {
        self.tcp_flags[index(direction)]
    }

    /// Lowest and highest TTL of a direction.
    pub const fn ttl(&self, direction: PacketDirection) -> (u8, u8) {
        (
            self.ttl_min[index(direction)],
            self.ttl_max[index(direction)],
        )
    }

    /// Type and code of the first ICMP message of a direction.
    pub const fn icmp(&self, direction: PacketDirection) -> Option<(u8, u8)> {
        let way = index(direction);
        match self.seen & seen::ICMP[way] {
            0 => None,
            _ => Some((self.icmp[way][0], self.icmp[way][1])),
        }
    }

    /// Notes that a dropped packet of this direction is recorded; whether it is the first one.
    pub const fn first_drop(&mut self, direction: PacketDirection) -> bool {
        let bit = seen::DROP[index(direction)];
        let first = self.seen & bit == 0;
        self.seen |= bit;
        first
    }

    /// Notes that an exception policy was applied.
    pub fn excepted(&mut self, exception: Exception, treatment: Treatment) {
        let shift = 4 * exception as u32;
        let code = TREATMENTS.iter().position(|it| *it == treatment);
        let code = code.map_or(0, |code| code as u32 + 1);
        self.exceptions = self.exceptions & !(0xf << shift) | code << shift;
    }

    /// The exception policies that were applied.
    pub fn exceptions(&self) -> impl Iterator<Item = (Exception, Treatment)> {
        let codes = self.exceptions;
        Exception::ALL.into_iter().filter_map(move |exception| {
            let code = codes >> (4 * exception as u32) & 0xf;
            let treatment = TREATMENTS.get((code as usize).checked_sub(1)?)?;
            Some((exception, *treatment))
        })
    }
}

/// By their code less one.
const TREATMENTS: [Treatment; 7] = [
    Treatment::DropPacket,
    Treatment::DropFlow,
    Treatment::Reject,
    Treatment::Bypass,
    Treatment::PassPacket,
    Treatment::PassFlow,
    Treatment::Ignore,
];

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;

    const WAYS: [PacketDirection; 2] = [PacketDirection::ToServer, PacketDirection::ToClient];

    fn observe(observed: &mut Observed, ttl: u8, syn: bool, direction: PacketDirection) {
        let mut bytes = Vec::new();
        let packet = PacketBuilder::ipv4([1, 1, 1, 1], [2, 2, 2, 2], ttl).tcp(1, 2, 3, 4);
        let packet = if syn { packet.syn() } else { packet.ack(5) };
        packet.write(&mut bytes, b"").unwrap();
        observed.packet(&Decoded::parse(&bytes).unwrap(), direction);
    }

    #[test]
    fn directions_are_kept_apart_and_turn_round() {
        let mut observed = Observed::default();
        let [server, client] = WAYS;
        observe(&mut observed, 60, true, server);
        observe(&mut observed, 64, false, server);
        observe(&mut observed, 33, false, client);
        assert!(observed.first_drop(client) && !observed.first_drop(client));
        observed.bypassed();
        for (first, second) in [(server, client), (client, server)] {
            assert_eq!(observed.tcp_flags(first), 0x12);
            assert_eq!(observed.tcp_flags(second), 0x10);
            assert_eq!(observed.ttl(first), (60, 64));
            assert_eq!(observed.ttl(second), (33, 33));
            assert_eq!(observed.icmp(first), None);
            let mut other = observed;
            assert!(other.first_drop(first) && !other.first_drop(second));
            observed.turn_round();
            assert!(observed.is_bypassed());
        }
    }

    #[test]
    fn the_vlans_are_those_of_the_first_packet() {
        let mut bytes = Vec::new();
        PacketBuilder::ipv4([1, 1, 1, 1], [2, 2, 2, 2], 9)
            .udp(1, 2)
            .write(&mut bytes, b"")
            .unwrap();
        let mut packet = Decoded::parse(&bytes).unwrap();
        let mut observed = Observed::default();
        assert!(packet.link.vlans.push(23) && packet.link.vlans.push(5));
        observed.packet(&packet, PacketDirection::ToServer);
        assert!(packet.link.vlans.push(7));
        observed.packet(&packet, PacketDirection::ToServer);
        assert_eq!(observed.vlans(), [23, 5]);
    }

    #[test]
    fn the_first_icmp_message_of_a_direction_stays() {
        let mut observed = Observed::default();
        let [server, client] = WAYS;
        for (kind, direction) in [(8, server), (0, client), (3, client)] {
            let mut bytes = Vec::new();
            PacketBuilder::ipv4([1, 1, 1, 1], [2, 2, 2, 2], 9)
                .icmpv4_raw(kind, 1, [0; 4])
                .write(&mut bytes, b"")
                .unwrap();
            observed.packet(&Decoded::parse(&bytes).unwrap(), direction);
        }
        assert_eq!(observed.icmp(server), Some((8, 1)));
        assert_eq!(observed.icmp(client), Some((0, 1)));
    }

    #[test]
    fn the_last_policy_for_each_thing_is_remembered() {
        let mut observed = Observed::default();
        observed.excepted(Exception::Midstream, Treatment::DropFlow);
        observed.excepted(Exception::AppLayer, Treatment::Ignore);
        observed.excepted(Exception::Midstream, Treatment::PassFlow);
        assert_eq!(
            observed.exceptions().collect::<Vec<_>>(),
            [
                (Exception::Midstream, Treatment::PassFlow),
                (Exception::AppLayer, Treatment::Ignore),
            ]
        );
    }
}
