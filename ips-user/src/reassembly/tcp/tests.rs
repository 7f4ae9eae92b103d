//! Tables of segments: what becomes of each, and what there is of the stream.

use super::segment::flag;
use super::session::{StreamDrop, sender};
use super::*;
use crate::config::settings::{Network, OsPolicy};
use crate::flow::{PacketDirection, Timestamp};

mod connected;
mod detours;
mod hand_over;
mod handshake;
mod inline;
mod limits;
mod model;
mod urgent;
mod watching;

const CLIENT_ISN: u32 = 1_000;
const SERVER_ISN: u32 = 900_000;

/// A connection and the engine around it.
struct Bench {
    options: StreamOptions,
    memory: StreamMemory,
    session: Option<Box<Session>>,
    isn: [u32; 2],
    now_ns: u64,
    begun: Begun,
}

/// A segment written as `c PA 1 1 data`: from the client, its flags, sequence and
/// acknowledgement number counted from the SYN, its data. Words before the data set more:
/// `ts=2,1`, `win=9`, `urg=1`, `bad` (checksum), `tfo`, `md5`, `ws=2`, `sack=5-9`.
struct Written {
    direction: PacketDirection,
    flags: u8,
    seq: i64,
    ack: i64,
    window: u16,
    urgent: u16,
    bad: bool,
    options: Vec<u8>,
    sack: Option<(i64, i64)>,
    data: Vec<u8>,
}

fn written(text: &str) -> Written {
    let mut words = text.split(' ').peekable();
    let direction = match words.next() {
        Some("c") => PacketDirection::ToServer,
        Some("s") => PacketDirection::ToClient,
        other => panic!("{text}: from {other:?}?"),
    };
    let letters = words.next().unwrap();
    let flags = letters.chars().fold(0, |flags, letter| {
        flags
            | match letter {
                'S' => flag::SYN,
                'A' => flag::ACK,
                'F' => flag::FIN,
                'R' => flag::RST,
                'U' => flag::URG,
                'P' => 8,
                '-' => 0,
                other => panic!("{text}: flag {other}?"),
            }
    });
    let mut number = || words.next().unwrap().parse::<i64>().unwrap();
    let mut made = Written {
        direction,
        flags,
        seq: number(),
        ack: number(),
        window: 60_000,
        urgent: 0,
        bad: false,
        options: Vec::new(),
        sack: None,
        data: Vec::new(),
    };
    for word in words {
        match word.split_once('=') {
            Some(("win", value)) => made.window = value.parse().unwrap(),
            Some(("urg", value)) => made.urgent = value.parse().unwrap(),
            Some(("ws", value)) => made.options.extend([3, 3, value.parse().unwrap()]),
            Some(("ts", value)) => {
                let (value, echo) = value.split_once(',').unwrap();
                made.options.extend([8, 10]);
                for number in [value, echo] {
                    made.options
                        .extend(number.parse::<u32>().unwrap().to_be_bytes());
                }
            }
            Some(("sack", value)) => {
                let (left, right) = value.split_once('-').unwrap();
                made.sack = Some((left.parse().unwrap(), right.parse().unwrap()));
            }
            _ if word == "bad" => made.bad = true,
            _ if word == "tfo" => made.options.extend([34, 2]),
            _ if word == "md5" => made
                .options
                .extend([[19, 18].as_slice(), &[7; 16]].concat()),
            _ => made.data.extend(word.as_bytes()),
        }
    }
    made
}

impl Bench {
    fn new(options: StreamOptions) -> Self {
        Self {
            options,
            memory: StreamMemory::new(),
            session: None,
            isn: [CLIENT_ISN, SERVER_ISN],
            now_ns: 1,
            begun: Begun::Unknown,
        }
    }

    fn inline() -> Self {
        Self::new(StreamOptions {
            inline: true,
            ..StreamOptions::default()
        })
    }

    fn watching() -> Self {
        Self::new(StreamOptions::default())
    }

    /// After a handshake.
    fn connected(mut self) -> Self {
        for step in ["c S 0 0", "s SA 0 1", "c A 1 1"] {
            assert_eq!(self.send(step), "", "{step}");
        }
        self
    }

    fn outcome(&mut self, text: &str) -> StreamOutcome {
        let made = written(text);
        let from = sender(made.direction);
        let (isn, other) = (self.isn[from], self.isn[1 - from]);
        let mut options = made.options;
        if let Some((left, right)) = made.sack {
            options.extend([5, 10]);
            for place in [left, right] {
                options.extend(other.wrapping_add(place as u32).to_be_bytes());
            }
        }
        let seq = isn.wrapping_add(made.seq as u32);
        let ack = match made.flags & flag::ACK {
            0 => made.ack as u32,
            _ => other.wrapping_add(made.ack as u32),
        };
        let mut segment = Segment::new(seq, ack, made.flags, &made.data, &options);
        segment.window = made.window;
        segment.urgent = made.urgent;
        segment.bad_checksum = made.bad;
        let now = Timestamp {
            wall_us: 0,
            monotonic_ns: self.now_ns,
        };
        let outcome = track(
            &mut self.session,
            self.begun,
            &segment,
            made.direction,
            now,
            &self.options,
            &mut self.memory,
        );
        self.check_memory();
        outcome
    }

    /// Findings, then `drop` or what the data is replaced with.
    fn send(&mut self, text: &str) -> String {
        let outcome = self.outcome(text);
        let mut words: Vec<_> = outcome
            .events
            .iter()
            .map(|event| event.name().to_owned())
            .collect();
        match outcome.disposition {
            StreamDisposition::Accept => {}
            StreamDisposition::Drop(StreamDrop::Urgent) => words.push("drop-urgent".into()),
            StreamDisposition::Drop(_) => words.push("drop".into()),
            StreamDisposition::Replace(replacement) => {
                let mut data = written(text).data;
                for (at, bytes) in &replacement.bytes {
                    data[*at..at + bytes.len()].copy_from_slice(bytes);
                }
                words.push(format!("={}", String::from_utf8(data).unwrap()));
                if replacement.clear_urgent {
                    words.push("-urg".into());
                }
            }
        }
        words.join(" ")
    }

    #[track_caller]
    fn check(&mut self, steps: &[(&str, &str)]) {
        for (step, expect) in steps {
            assert_eq!(self.send(step), *expect, "{step}");
        }
    }

    fn session(&mut self) -> &mut Session {
        self.session.as_deref_mut().expect("a session")
    }

    /// The receiver's stack is this one.
    fn receiver_is(&mut self, policy: OsPolicy) {
        let network = Network {
            address: [192, 0, 2, 1].into(),
            prefix: 32,
        };
        self.options.hosts = [(network, policy)].into_iter().collect();
    }

    fn dropped(&mut self) {
        let session = self.session.as_deref_mut().expect("a session");
        session.dropped(&mut self.memory);
    }

    fn state(&self) -> &'static str {
        self.session
            .as_ref()
            .map_or("none", |session| session.state().name())
    }

    /// What there is to inspect on a packet in this direction, all views; `|` between them.
    fn raw(&mut self, direction: PacketDirection) -> String {
        let options = self.options.clone();
        let mut views = Vec::new();
        while let Some(view) = self.session().raw(direction, &options) {
            views.push(String::from_utf8_lossy(view.data).into_owned());
            self.session().raw_done(direction, &options);
        }
        views.join("|")
    }

    fn raw_to_server(&mut self) -> String {
        self.raw(PacketDirection::ToServer)
    }

    /// What is left at the end, to the server.
    fn rest(&mut self) -> String {
        self.session().finish();
        self.raw_to_server()
    }

    fn check_memory(&mut self) {
        if let Some(session) = &mut self.session {
            session.settle_account();
        }
        let counters = self.memory.counters();
        let expect = u64::from(self.session.is_some());
        assert_eq!(counters.active_sessions, expect);
        if expect == 0 {
            assert_eq!((counters.memuse, counters.reassembly_memuse), (0, 0));
        }
    }
}
