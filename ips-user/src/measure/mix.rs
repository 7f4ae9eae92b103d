//! Traffic in memory: from captures, or made up.

use std::path::PathBuf;

use anyhow::{Context, bail};
use etherparse::PacketBuilder;

use crate::flow::Timestamp;
use crate::replay::capture::Capture;

/// Link type of Ethernet in captures.
const ETHERNET: u16 = 1;

/// Ethernet frames in the order of their arrival.
#[derive(Debug, Default)]
pub struct Mix {
    bytes: Vec<u8>,
    /// Where each ends, and when it came.
    ends: Vec<(usize, Timestamp)>,
}

/// One of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame<'m> {
    pub(super) bytes: &'m [u8],
    pub(super) time: Timestamp,
}

impl Mix {
    /// The Ethernet frames of captures.
    ///
    /// # Errors
    /// When one cannot be read, or there is no frame.
    pub fn read(captures: &[PathBuf]) -> anyhow::Result<Self> {
        let mut mix = Self::default();
        for path in captures {
            let mut capture = Capture::open(path).with_context(|| path.display().to_string())?;
            while let Some(packet) =
                (capture.next_packet()).with_context(|| path.display().to_string())?
            {
                if packet.link_type == ETHERNET {
                    mix.add(packet.bytes, packet.wall_us);
                }
            }
        }
        if mix.ends.is_empty() {
            bail!("no Ethernet frame in the captures");
        }
        Ok(mix)
    }

    /// Connections with web pages, records like those of TLS and random bytes, and DNS queries:
    /// the same ones each time, of at least so many bytes.
    pub fn made_up(bytes: usize) -> Self {
        let mut mix = Self::default();
        let mut maker = Maker {
            mix: &mut mix,
            dice: 0x736c_7569_6365,
            time_us: 1_700_000_000_000_000,
            flow: 0,
        };
        while maker.mix.bytes.len() < bytes {
            match maker.flow % 8 {
                0..=2 => maker.web(),
                3..=5 => maker.tls(),
                6 => maker.noise(),
                _ => maker.dns(),
            }
            maker.flow += 1;
        }
        mix
    }

    fn add(&mut self, frame: &[u8], wall_us: i64) {
        self.bytes.extend_from_slice(frame);
        let ns = u64::try_from(wall_us).unwrap_or(0).saturating_mul(1000);
        let before = self.ends.last().map_or(0, |(_, time)| time.monotonic_ns);
        let time = Timestamp {
            wall_us,
            monotonic_ns: ns.max(before),
        };
        self.ends.push((self.bytes.len(), time));
    }

    pub(super) fn frames(&self) -> impl Iterator<Item = Frame<'_>> {
        let mut start = 0;
        self.ends.iter().map(move |&(end, time)| {
            let bytes = &self.bytes[std::mem::replace(&mut start, end)..end];
            Frame { bytes, time }
        })
    }
}

/// Data of one segment.
const SEGMENT: usize = 1448;

/// Makes traffic up.
struct Maker<'m> {
    mix: &'m mut Mix,
    dice: u64,
    time_us: i64,
    flow: u32,
}

/// One TCP connection: client and server, each with the number of its next byte.
struct Connection {
    ports: [u16; 2],
    next: [u32; 2],
}

const CLIENT: usize = 0;
const SERVER: usize = 1;

impl Maker<'_> {
    /// xorshift64.
    fn random(&mut self) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        self.dice
    }

    fn noise_bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            bytes.extend_from_slice(&self.random().to_le_bytes());
        }
        bytes.truncate(len);
        bytes
    }

    fn text(&mut self, len: usize) -> Vec<u8> {
        const WORDS: [&str; 16] = [
            "<div class=\"item\">",
            "</div>\n",
            "the ",
            "report ",
            "of ",
            "server ",
            "and ",
            "<a href=\"/index.php?id=",
            "\">",
            "</a>",
            "function (",
            ") {\n",
            "return ",
            "value",
            "; }\n",
            "<script type=\"text/javascript\">",
        ];
        let mut text = Vec::with_capacity(len + 40);
        while text.len() < len {
            let random = self.random();
            text.extend_from_slice(WORDS[(random % 16) as usize].as_bytes());
            if random & 0xf0 == 0 {
                text.extend_from_slice((random >> 40).to_string().as_bytes());
            }
        }
        text.truncate(len);
        text
    }

    fn addresses(&self, from: usize) -> ([u8; 4], [u8; 4]) {
        let [_, a, b, c] = self.flow.to_be_bytes();
        let (client, server) = ([10, a, b, c], [203, 0, 113, c]);
        match from {
            CLIENT => (client, server),
            _ => (server, client),
        }
    }

    fn push(&mut self, from: usize, build: impl FnOnce(IpStep) -> Vec<u8>) {
        let (source, destination) = self.addresses(from);
        let (mine, other) = if from == CLIENT { (2, 4) } else { (4, 2) };
        let step = PacketBuilder::ethernet2([2, 0, 0, 0, 0, mine], [2, 0, 0, 0, 0, other]).ipv4(
            source,
            destination,
            63,
        );
        let frame = build(step);
        self.time_us += 5;
        let time_us = self.time_us;
        self.mix.add(&frame, time_us);
    }

    fn segment(&mut self, connection: &mut Connection, from: usize, flags: u8, data: &[u8]) {
        let (number, acknowledged) = (connection.next[from], connection.next[1 - from]);
        let (source, destination) = (connection.ports[from], connection.ports[1 - from]);
        self.push(from, |ip| {
            let mut tcp = ip.tcp(source, destination, number, 0xffff);
            if flags & SYN != 0 {
                tcp = tcp.syn();
            }
            if flags & FIN != 0 {
                tcp = tcp.fin();
            }
            if flags & SYN == 0 || from == SERVER {
                tcp = tcp.ack(acknowledged);
            }
            written(tcp.size(data.len()), |out| tcp.write(out, data).is_ok())
        });
        let control = u32::from(flags & (SYN | FIN) != 0);
        connection.next[from] = number.wrapping_add(data.len() as u32 + control);
    }

    fn open(&mut self, port: u16) -> Connection {
        let client = 20_000 + (self.random() % 40_000) as u16;
        let mut connection = Connection {
            ports: [client, port],
            next: [self.random() as u32, self.random() as u32],
        };
        self.segment(&mut connection, CLIENT, SYN, &[]);
        self.segment(&mut connection, SERVER, SYN, &[]);
        self.segment(&mut connection, CLIENT, 0, &[]);
        connection
    }

    fn send(&mut self, connection: &mut Connection, from: usize, data: &[u8]) {
        for (number, part) in data.chunks(SEGMENT).enumerate() {
            self.segment(connection, from, 0, part);
            if number % 2 == 1 {
                self.segment(connection, 1 - from, 0, &[]);
            }
        }
        self.segment(connection, 1 - from, 0, &[]);
    }

    fn close(&mut self, mut connection: Connection) {
        self.segment(&mut connection, CLIENT, FIN, &[]);
        self.segment(&mut connection, SERVER, FIN, &[]);
        self.segment(&mut connection, CLIENT, 0, &[]);
    }

    fn web(&mut self) {
        let mut connection = self.open(80);
        for _ in 0..3 {
            let request = format!(
                "GET /catalogue/{:x}?page={} HTTP/1.1\r\nHost: www{}.example.net\r\nUser-Agent: \
                 Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101 Firefox/120.0\r\nAccept: \
                 text/html,*/*\r\nAccept-Encoding: gzip\r\nCookie: session={:x}\r\n\r\n",
                self.random(),
                self.random() % 100,
                self.random() % 50,
                self.random()
            );
            self.send(&mut connection, CLIENT, request.as_bytes());
            let len = 2_000 + (self.random() % 30_000) as usize;
            let mut page = format!(
                "HTTP/1.1 200 OK\r\nServer: nginx\r\nContent-Type: text/html\r\n\
                 Content-Length: {len}\r\n\r\n"
            )
            .into_bytes();
            page.extend(self.text(len));
            self.send(&mut connection, SERVER, &page);
        }
        self.close(connection);
    }

    fn tls(&mut self) {
        let mut connection = self.open(443);
        let mut hello = vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
        hello.extend(self.noise_bytes(506));
        self.send(&mut connection, CLIENT, &hello);
        for _ in 0..4 {
            let len = 1_000 + (self.random() % 15_000) as usize;
            let mut record = vec![0x17, 3, 3, (len >> 8) as u8, len as u8];
            record.extend(self.noise_bytes(len));
            self.send(&mut connection, SERVER, &record);
            let mut record = vec![0x17, 3, 3, 0, 200];
            record.extend(self.noise_bytes(200));
            self.send(&mut connection, CLIENT, &record);
        }
        self.close(connection);
    }

    fn noise(&mut self) {
        let port = 1024 + (self.random() % 60_000) as u16;
        let mut connection = self.open(port);
        let data = self.noise_bytes(20_000);
        self.send(&mut connection, SERVER, &data);
        self.close(connection);
    }

    fn dns(&mut self) {
        let client = 20_000 + (self.random() % 40_000) as u16;
        for _ in 0..8 {
            let mut question = self.noise_bytes(2);
            question.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 3]);
            question.extend(format!("h{:02x}", self.random() as u8).as_bytes());
            question.extend(b"\x07example\x03net\0\0\x01\0\x01");
            let mut answer = question.clone();
            answer[2] = 0x81;
            answer[7] = 1;
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 0, 0, 4, 203, 0, 113, 7]);
            let mut send = |from, ports: [u16; 2], data: &[u8]| {
                self.push(from, |ip| {
                    let udp = ip.udp(ports[0], ports[1]);
                    written(udp.size(data.len()), |out| udp.write(out, data).is_ok())
                });
            };
            send(CLIENT, [client, 53], &question);
            send(SERVER, [53, client], &answer);
        }
    }
}

type IpStep = etherparse::PacketBuilderStep<etherparse::IpHeaders>;

const FIN: u8 = 1;
const SYN: u8 = 2;

fn written(size: usize, write: impl FnOnce(&mut Vec<u8>) -> bool) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size);
    // Into memory nothing fails.
    let _ = write(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::Decoded;

    #[test]
    fn what_is_made_up_can_be_decoded_and_is_the_same_each_time() {
        let (one, other) = (Mix::made_up(300_000), Mix::made_up(300_000));
        assert!(one.bytes.len() >= 300_000 && one.bytes == other.bytes);
        let mut payload = 0;
        for frame in one.frames() {
            let packet = Decoded::parse_frame(frame.bytes).unwrap().unwrap();
            assert_eq!(packet.invalid(), None);
            assert!(packet.transport_checksum().is_acceptable());
            payload += packet.payload.len();
        }
        assert!(payload > 200_000);
    }
}
