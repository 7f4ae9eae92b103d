//! TCP segments as cases write them: places instead of sequence numbers.

use crate::wire::{
    ACK, Connection, FIN, Network, PSH, RST, SYN, TCP, TOO_SHORT, URG, packet, transport_checksum,
};

/// A segment of our side.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    /// Where its data begins in our stream; the SYN is at -1.
    pub(crate) at: i64,
    pub(crate) data: Vec<u8>,
    pub(crate) flags: u8,
    /// Acknowledges so much more than the server's SYN.
    pub(crate) ack: i64,
    pub(crate) window: u16,
    pub(crate) urgent: u16,
    /// Behind the timestamps, padded by who makes them.
    pub(crate) options: Vec<u8>,
    /// Added to our clock.
    pub(crate) clock: i64,
    /// Without the timestamps that the connection has.
    pub(crate) no_timestamp: bool,
    /// Added to the sequence number of the connection: of another one.
    pub(crate) shifted: u32,
    pub(crate) bad_checksum: bool,
    /// Instead of the header's true length, in words.
    pub(crate) header_words: Option<u8>,
    pub(crate) reserved: u8,
    pub(crate) network: Network,
}

/// Data at a place.
pub(crate) fn data(at: usize, data: &[u8]) -> Segment {
    Segment {
        at: at as i64,
        data: data.to_vec(),
        flags: ACK | PSH,
        ack: 0,
        window: 64_000,
        urgent: 0,
        options: Vec::new(),
        clock: 0,
        no_timestamp: false,
        shifted: 0,
        bad_checksum: false,
        header_words: None,
        reserved: 0,
        network: Network::default(),
    }
}

/// Only flags.
pub(crate) fn bare(flags: u8, at: i64) -> Segment {
    Segment {
        at,
        flags,
        ..data(0, b"")
    }
}

/// The SYN that opens.
pub(crate) fn syn() -> Segment {
    bare(SYN, -1)
}

/// The ACK that completes the handshake.
pub(crate) fn ack() -> Segment {
    bare(ACK, 0)
}

impl Segment {
    pub(crate) fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// It does not get to the server.
    pub(crate) fn dying(self) -> Self {
        self.with(|it| it.network.ttl = TOO_SHORT)
    }

    pub(crate) fn corrupt(self) -> Self {
        self.with(|it| it.bad_checksum = true)
    }

    pub(crate) fn flags(self, flags: u8) -> Self {
        self.with(|it| it.flags = flags)
    }

    pub(crate) fn urgent(self, pointer: u16) -> Self {
        self.with(|it| {
            it.flags |= URG;
            it.urgent = pointer;
        })
    }

    pub(crate) fn options(self, options: &[u8]) -> Self {
        self.with(|it| it.options = options.to_vec())
    }

    pub(crate) fn fin(self) -> Self {
        self.with(|it| it.flags |= FIN)
    }

    pub(crate) fn reset(at: i64) -> Self {
        bare(RST, at)
    }

    /// From the TCP header on.
    pub(crate) fn bytes(&self, connection: &Connection) -> Vec<u8> {
        let mut options = Vec::new();
        if let Some((ours, theirs)) = connection.timestamps
            && !self.no_timestamp
        {
            let value = (i64::from(ours) + self.clock) as u32;
            let echo = match self.flags & ACK {
                0 => 0,
                _ => theirs,
            };
            options.extend([1, 1, 8, 10]);
            options.extend(value.to_be_bytes());
            options.extend(echo.to_be_bytes());
        }
        options.extend(&self.options);
        let seq = connection.isn.wrapping_add(1).wrapping_add(self.at as u32);
        let ack = match self.flags & ACK {
            0 => 0,
            _ => connection
                .peer_isn
                .wrapping_add(1)
                .wrapping_add(self.ack as u32),
        };
        let mut bytes = Vec::new();
        bytes.extend(connection.source_port.to_be_bytes());
        bytes.extend(connection.destination_port.to_be_bytes());
        bytes.extend(seq.wrapping_add(self.shifted).to_be_bytes());
        bytes.extend(ack.to_be_bytes());
        let words = self.header_words.unwrap_or((5 + options.len() / 4) as u8);
        bytes.extend([words << 4 | self.reserved, self.flags]);
        bytes.extend(self.window.to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(self.urgent.to_be_bytes());
        bytes.extend(options);
        bytes.extend(&self.data);
        let sum = transport_checksum(connection, TCP, &bytes);
        let sum = if self.bad_checksum { sum ^ 0x1357 } else { sum };
        bytes[16..18].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    /// As an IP packet.
    pub(crate) fn packet(&self, connection: &Connection) -> Vec<u8> {
        packet(
            connection,
            &self.network,
            TCP,
            &self.bytes(connection),
            None,
        )
    }
}
