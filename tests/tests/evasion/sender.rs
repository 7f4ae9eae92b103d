//! The crafted sender: many cases at a time, each on a port of its own. Its address is one that
//! the client's kernel does not have, so nobody but us answers the server.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::Result;
use sluice_tests::Lab;
use sluice_tests::frame::{FrameSocket, hardware_address};

use crate::case::{Case, LEN, Listener, Step};
use crate::receiver::Receiver;
use crate::segment::Segment;
use crate::wire::{ACK, Connection, FIN, SYN, reply};

/// Cases that send at a time.
const AT_A_TIME: usize = 96;
/// Cases under way at a time, those included of which everything was sent.
const UNDER_WAY: usize = 512;
/// How long the server's SYN-ACK may take.
const ANSWER: Duration = Duration::from_secs(6);
/// How long a step waits for an acknowledgement; that it does not come can be the point.
const ACKNOWLEDGEMENT: Duration = Duration::from_millis(400);
/// How long it sends again what is not acknowledged, and after which time first; then each time
/// after twice of it.
const PERSISTENCE: Duration = Duration::from_millis(2000);
const AGAIN: Duration = Duration::from_millis(60);

/// One case with one text.
pub(crate) struct Play<'c> {
    pub(crate) case: &'c Case,
    pub(crate) text: &'static [u8; LEN],
    /// How long after the last step the application may get the rest.
    pub(crate) patience: Duration,
    pub(crate) port: u16,
    /// The application got the text whole.
    pub(crate) arrived: bool,
    /// What it got, if not that.
    pub(crate) got: String,
    connection: Connection,
    steps: std::vec::IntoIter<Step>,
    wait: Wait,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Waiting,
    Playing,
    /// Before [`Step::Begin`].
    Held,
    Settling,
    Over,
}

/// What the next step waits for.
enum Wait {
    Until(Instant),
    Answer(Instant),
    Ack(i64, Instant),
    End(Instant),
    Persist {
        segments: Vec<Segment>,
        place: i64,
        next: Instant,
        after: Duration,
        end: Instant,
    },
}

impl Play<'_> {
    /// Whether it has a part that comes before the inspection begins.
    pub(crate) fn begins_before(case: &Case) -> bool {
        (case.steps)(crate::case::BENIGN)
            .iter()
            .any(|step| matches!(step, Step::Begin))
    }
}

/// The client's end of the wire.
pub(crate) struct Sender {
    socket: FrameSocket,
    ethernet: [u8; 12],
    server: [IpAddr; 2],
    next_port: u16,
}

impl Sender {
    const ADDRESSES: [IpAddr; 2] = [
        IpAddr::V4(Ipv4Addr::new(10, 77, 1, 200)),
        IpAddr::V6(Ipv6Addr::new(0xfd77, 1, 0, 0, 0, 0, 0, 0xc8)),
    ];

    /// Tells the gateway where our addresses are.
    pub(crate) fn new(lab: &Lab) -> Result<Self> {
        let near = hardware_address(lab.client(), Lab::CLIENT_INTERFACE)?;
        let far = hardware_address(lab.gateway(), Lab::GATEWAY_CLIENT_INTERFACE)?;
        let shown = near.map(|byte| format!("{byte:02x}")).join(":");
        for address in Self::ADDRESSES {
            let address = address.to_string();
            let interface = Lab::GATEWAY_CLIENT_INTERFACE;
            lab.gateway().run(
                "ip",
                &[
                    "neigh", "replace", &address, "lladdr", &shown, "dev", interface,
                ],
            )?;
        }
        let mut ethernet = [0; 12];
        ethernet[..6].copy_from_slice(&far);
        ethernet[6..].copy_from_slice(&near);
        Ok(Self {
            socket: FrameSocket::open(lab.client(), Lab::CLIENT_INTERFACE)?,
            ethernet,
            server: lab.server_addresses(),
            next_port: 10_000,
        })
    }

    /// Gets a case ready.
    pub(crate) fn prepare<'c>(
        &mut self,
        case: &'c Case,
        text: &'static [u8; LEN],
        patience: Duration,
    ) -> Play<'c> {
        let port = self.next_port;
        // Its identifications are this and the next one.
        self.next_port += 2;
        let family = usize::from(case.ipv6);
        Play {
            case,
            text,
            patience,
            port,
            arrived: false,
            got: String::new(),
            connection: Connection {
                source: Self::ADDRESSES[family],
                destination: self.server[family],
                source_port: port,
                destination_port: case.listener.port(case.by_flow),
                isn: case.isn,
                peer_isn: 0,
                answered: false,
                ended: false,
                timestamps: case.timestamps.then_some((1_000_000, 0)),
                acknowledged: -1,
                identification: port,
            },
            steps: (case.steps)(text).into_iter(),
            wait: Wait::Until(Instant::now()),
            stage: Stage::Waiting,
        }
    }

    /// Plays all to their end, or, with `hold`, until the inspection shall begin.
    pub(crate) fn play(
        &self,
        plays: &mut [Play<'_>],
        receiver: &Receiver,
        hold: bool,
    ) -> Result<()> {
        let by_port: HashMap<u16, usize> = plays
            .iter()
            .enumerate()
            .map(|(index, play)| (play.port, index))
            .collect();
        let mut next = 0;
        for play in plays.iter_mut().filter(|play| play.stage == Stage::Held) {
            play.stage = Stage::Playing;
        }
        let mut active: Vec<usize> = (0..plays.len())
            .filter(|index| plays[*index].stage == Stage::Playing)
            .collect();
        loop {
            let sends = |index: &&usize| plays[**index].stage == Stage::Playing;
            let mut sending = active.iter().filter(sends).count();
            while sending < AT_A_TIME && active.len() < UNDER_WAY && next < plays.len() {
                if plays[next].stage == Stage::Waiting {
                    plays[next].stage = Stage::Playing;
                    active.push(next);
                    sending += 1;
                }
                next += 1;
            }
            if active.is_empty() {
                return Ok(());
            }
            // Before the look: what has come while somebody else had the CPU has come in time.
            let now = Instant::now();
            let mut patience = Duration::from_micros(500);
            while let Some(frame) = self.socket.receive(patience)? {
                patience = Duration::ZERO;
                let Some(reply) = reply(&frame) else { continue };
                let Some(index) = by_port.get(&reply.port) else {
                    continue;
                };
                let connection = &mut plays[*index].connection;
                if reply.flags & SYN != 0 {
                    connection.peer_isn = reply.seq;
                    connection.answered = true;
                }
                connection.ended |= reply.flags & FIN != 0;
                if let (Some((_, theirs)), Some(value)) =
                    (&mut connection.timestamps, reply.timestamp)
                {
                    *theirs = value;
                }
                if reply.flags & ACK != 0 {
                    let place = reply.ack.wrapping_sub(connection.isn.wrapping_add(1)) as i32;
                    connection.acknowledged = connection.acknowledged.max(i64::from(place));
                }
            }
            for index in &active {
                self.advance(&mut plays[*index], receiver, now, hold)?;
            }
            active.retain(|index| !matches!(plays[*index].stage, Stage::Over | Stage::Held));
        }
    }

    /// Takes the steps whose time has come.
    fn advance(
        &self,
        play: &mut Play<'_>,
        receiver: &Receiver,
        now: Instant,
        hold: bool,
    ) -> Result<()> {
        loop {
            let acknowledged = play.connection.acknowledged;
            let go = match &mut play.wait {
                Wait::Until(time) => now >= *time,
                Wait::Answer(end) => play.connection.answered || now >= *end,
                Wait::End(end) => play.connection.ended || now >= *end,
                Wait::Ack(place, end) => acknowledged >= *place || now >= *end,
                Wait::Persist {
                    segments,
                    place,
                    next,
                    after,
                    end,
                } => {
                    let over = acknowledged >= *place || now >= *end;
                    if !over && now >= *next {
                        *next = now + *after;
                        *after *= 2;
                        let missing = |it: &&Segment| it.at + it.data.len() as i64 > acknowledged;
                        for segment in segments.iter().filter(missing) {
                            self.send(&segment.packet(&play.connection))?;
                        }
                    }
                    over
                }
            };
            if play.stage == Stage::Settling {
                play.arrived = receiver.has(play.port, play.text);
                if go || play.arrived {
                    play.got = receiver.shown(play.port);
                    receiver.close(play.port);
                    play.stage = Stage::Over;
                }
                return Ok(());
            }
            if !go {
                return Ok(());
            }
            if matches!(play.wait, Wait::Answer(_)) {
                // The next one is another.
                play.connection.answered = false;
            }
            play.wait = Wait::Until(now);
            match play.steps.next() {
                None => {
                    play.stage = Stage::Settling;
                    play.wait = Wait::Until(now + play.patience);
                }
                Some(Step::Send(packets)) => {
                    for packet in packets(&play.connection) {
                        self.send(&packet)?;
                    }
                }
                Some(Step::Pause(time)) => play.wait = Wait::Until(now + time),
                Some(Step::AwaitAnswer) => play.wait = Wait::Answer(now + ANSWER),
                Some(Step::AwaitEnd) => play.wait = Wait::End(now + ANSWER),
                Some(Step::AwaitAck(place)) => {
                    play.wait = Wait::Ack(place, now + ACKNOWLEDGEMENT);
                }
                Some(Step::Persist(segments, place)) => {
                    play.wait = Wait::Persist {
                        segments,
                        place,
                        next: now,
                        after: AGAIN,
                        end: now + PERSISTENCE,
                    };
                }
                Some(Step::Connect) => {
                    debug_assert_eq!(play.case.listener, Listener::Connecting);
                    let connection = &play.connection;
                    receiver.connect(SocketAddr::new(connection.source, connection.source_port));
                }
                Some(Step::Read) => receiver.read(play.port),
                Some(Step::Begin) if hold => {
                    play.stage = Stage::Held;
                    play.wait = Wait::Until(now);
                    return Ok(());
                }
                Some(Step::Begin) => {}
            }
        }
    }

    fn send(&self, packet: &[u8]) -> Result<()> {
        let kind: [u8; 2] = match packet[0] >> 4 {
            4 => [0x08, 0x00],
            _ => [0x86, 0xdd],
        };
        let mut frame = self.ethernet.to_vec();
        frame.extend(kind);
        frame.extend(packet);
        self.socket.send(&frame)?;
        Ok(())
    }
}
