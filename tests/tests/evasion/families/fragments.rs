//! IPv4 and IPv6 fragments of a datagram, and of a TCP segment, that holds the text.

use super::EVERYWHERE;
use crate::case::{BETWEEN, Case, LEN, Listener, Step, opened, orders, send, shown};
use crate::segment::data;
use crate::wire::{Connection, FAR, Network, Place, TCP, TOO_SHORT, UDP, datagram, packet};

/// The IPv6 header of destination options.
const DESTINATION: u8 = 60;

/// What is fragmented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Datagram,
    Segment,
}

impl Kind {
    const ALL: [Self; 2] = [Self::Datagram, Self::Segment];

    const fn name(self) -> &'static str {
        match self {
            Self::Datagram => "UDP",
            Self::Segment => "TCP",
        }
    }

    /// Units of eight bytes before the text, which is three of them.
    const fn head(self) -> usize {
        match self {
            Self::Datagram => 2,
            Self::Segment => 3,
        }
    }

    /// From the transport header on, with `text` where the text goes.
    fn content(self, connection: &Connection, text: &[u8]) -> (u8, Vec<u8>) {
        match self {
            Self::Datagram => {
                let payload = [&b"--------"[..], text].concat();
                (UDP, datagram(connection, &payload))
            }
            Self::Segment => {
                let payload = [&b"----"[..], text].concat();
                (TCP, data(0, &payload).bytes(connection))
            }
        }
    }
}

/// A fragment; places in units of eight bytes, from the text's first one on.
#[derive(Clone, Debug)]
struct Piece {
    /// The first one; the transport header is before unit zero.
    from: Option<usize>,
    /// Behind the last.
    to: usize,
    more: bool,
    /// Other data than the text's.
    other: bool,
    /// Added to the identification.
    id: u16,
    network: Network,
    /// Its datagram has no text at all.
    blank: bool,
}

/// From the transport header on.
fn head(to: usize) -> Piece {
    Piece {
        from: None,
        to,
        more: to < 3,
        other: false,
        id: 0,
        network: Network::default(),
        blank: false,
    }
}

fn part(from: usize, to: usize) -> Piece {
    Piece {
        from: Some(from),
        ..head(to)
    }
}

impl Piece {
    fn other(mut self) -> Self {
        self.other = true;
        self
    }

    fn dying(mut self) -> Self {
        self.network.ttl = TOO_SHORT;
        self
    }

    fn ttl(mut self, ttl: u8) -> Self {
        self.network.ttl = ttl;
        self
    }

    fn id(mut self, id: u16) -> Self {
        self.id = id;
        self
    }

    fn more(mut self, more: bool) -> Self {
        self.more = more;
        self
    }

    fn blank(mut self) -> Self {
        self.blank = true;
        self
    }

    fn corrupt(mut self) -> Self {
        self.network.bad_checksum = true;
        self
    }

    fn bytes(&self, kind: Kind, connection: &Connection, text: &[u8; LEN]) -> Vec<u8> {
        let text = if self.blank { &[b'-'; LEN] } else { text };
        let (protocol, content) = kind.content(connection, text);
        let from = self.from.map_or(0, |from| (kind.head() + from) * 8);
        let to = (kind.head() + self.to) * 8;
        let mut bytes: Vec<u8> = (from..to)
            .map(|at| content.get(at).copied().unwrap_or(b'+'))
            .collect();
        if self.other {
            // The header stays right.
            let first = (kind.head() * 8).saturating_sub(from).min(bytes.len());
            bytes[first..].fill(b'~');
        }
        let place = Place {
            identification: connection.identification + self.id,
            offset: from,
            more: self.more,
        };
        packet(connection, &self.network, protocol, &bytes, Some(place))
    }
}

/// A case of these fragments in this order.
fn case(kind: Kind, ipv6: bool, by_flow: bool, name: &str, pieces: Vec<Piece>) -> Case {
    let family = if ipv6 {
        "IPv6 fragments"
    } else {
        "IPv4 fragments"
    };
    let begins = |piece: &Piece| piece.from.is_none();
    let unordered = pieces.iter().enumerate().any(|(index, piece)| {
        let before = &pieces[..index];
        !begins(piece) && !before.iter().any(|it| begins(it) && it.id == piece.id)
    });
    let mut case = Case::new(family, format!("{}, {name}", kind.name()), move |text| {
        let mut steps = match kind {
            Kind::Datagram => Vec::new(),
            Kind::Segment => opened(),
        };
        let text = *text;
        for piece in &pieces {
            let piece = piece.clone();
            steps.push(Step::Send(Box::new(move |connection| {
                vec![piece.bytes(kind, connection, &text)]
            })));
            steps.push(Step::Pause(BETWEEN));
        }
        steps
    });
    if kind == Kind::Datagram {
        case = case.to(Listener::Datagrams);
    }
    case.unordered_fragments = unordered;
    case.ipv6(ipv6).by_flow(by_flow)
}

pub(crate) fn add(cases: &mut Vec<Case>) {
    for (ipv6, by_flow) in EVERYWHERE {
        for kind in Kind::ALL {
            let mut add = |name: &str, ordinary: bool, pieces: Vec<Piece>| {
                cases.push(case(kind, ipv6, by_flow, name, pieces).ordinary(ordinary));
            };
            let divided: [&[Piece]; 5] = [
                &[head(1), part(1, 3)],
                &[head(2), part(2, 3)],
                &[head(1), part(1, 2), part(2, 3)],
                &[head(0), part(0, 1), part(1, 3)],
                &[head(0), part(0, 1), part(1, 2), part(2, 3)],
            ];
            for (number, pieces) in divided.into_iter().enumerate() {
                for order in orders(pieces.len()) {
                    let name = format!("division {number}, {}", shown(&order));
                    add(
                        &name,
                        true,
                        order.iter().map(|it| pieces[*it].clone()).collect(),
                    );
                }
            }
            add("in one fragment", true, vec![head(3)]);
            // Duplicates.
            add(
                "each twice",
                true,
                vec![head(1), head(1), part(1, 3), part(1, 3)],
            );
            add(
                "the last twice, first",
                true,
                vec![part(1, 3), part(1, 3), head(1)],
            );
            add(
                "the completing one again",
                true,
                vec![head(1), part(1, 3), part(1, 3)],
            );
            add(
                "the first one again afterwards",
                true,
                vec![head(1), part(1, 3), head(1)],
            );
            add(
                "all again afterwards",
                true,
                vec![head(1), part(1, 3), head(1), part(1, 3)],
            );
            // The same identification again.
            add(
                "after another with the same id",
                true,
                vec![head(1).blank(), part(1, 3).blank(), head(1), part(1, 3)],
            );
            add(
                "before another with the same id",
                true,
                vec![head(1), part(1, 3), head(1).blank(), part(1, 3).blank()],
            );
            add(
                "two at once",
                true,
                vec![
                    head(1),
                    head(1).blank().id(1),
                    part(1, 3),
                    part(1, 3).blank().id(1),
                ],
            );
            add(
                "two at once, crossed",
                true,
                vec![
                    head(1).blank().id(1),
                    head(1),
                    part(1, 3),
                    part(1, 3).blank().id(1),
                ],
            );
            // What differs between them without making a difference.
            add("another TTL", true, vec![head(1), part(1, 3).ttl(FAR - 7)]);
            // Overlaps.
            for (name, other) in [
                ("the same place", part(1, 2)),
                ("across", part(0, 2)),
                ("up to the end", part(1, 3)),
                ("the last one", part(2, 3)),
                ("beyond the end", part(1, 4).more(true)),
                ("a longer end", part(2, 4).more(false)),
            ] {
                let all = [head(1), part(1, 2), part(2, 3)];
                for at in 0..=all.len() {
                    let mut pieces = all.to_vec();
                    pieces.insert(at, other.clone().other());
                    add(&format!("other data, {name}, at {at}"), false, pieces);
                    let mut pieces = all.to_vec();
                    pieces.insert(at, other.clone().other().dying());
                    add(
                        &format!("other data that dies, {name}, at {at}"),
                        false,
                        pieces,
                    );
                }
                let mut pieces = all.to_vec();
                pieces.insert(1, other.clone());
                add(&format!("the same data, {name}"), false, pieces);
                if ipv6 {
                    // The receiver refuses the header before the fragment's, the gateway does not
                    // look at it.
                    for at in 1..=all.len() {
                        let mut pieces = all.to_vec();
                        let mut decoy = other.clone().other();
                        let unknown = vec![0x5e, 4, 0, 0, 0, 0];
                        decoy.network.extensions = vec![(DESTINATION, unknown)];
                        pieces.insert(at, decoy);
                        add(
                            &format!("other data to be refused, {name}, at {at}"),
                            false,
                            pieces,
                        );
                    }
                } else {
                    let mut pieces = all.to_vec();
                    pieces.insert(1, other.other().corrupt());
                    add(&format!("corrupt other data, {name}"), false, pieces);
                }
            }
            add(
                "the first one otherwise before",
                false,
                vec![head(1).other(), head(1), part(1, 3)],
            );
            add(
                "the first one otherwise that dies",
                false,
                vec![head(1).other().dying(), head(1), part(1, 3)],
            );
            add(
                "the first one otherwise behind",
                false,
                vec![head(1), head(1).other(), part(1, 3)],
            );
            add(
                "all otherwise that dies",
                false,
                vec![
                    head(1).other().dying(),
                    part(1, 3).other().dying(),
                    head(1),
                    part(1, 3),
                ],
            );
            add(
                "the end otherwise that dies, then the end",
                false,
                vec![head(1), part(1, 3).other().dying(), part(1, 3)],
            );
            add(
                "the end otherwise that dies, then all",
                false,
                vec![head(1), part(1, 3).other().dying(), head(1), part(1, 3)],
            );
            add(
                "all that dies, then all",
                false,
                vec![head(1).dying(), part(1, 3).dying(), head(1), part(1, 3)],
            );
            add(
                "half of one that was never complete",
                false,
                vec![head(1).blank(), head(1), part(1, 3)],
            );
            add(
                "the end of one that was never complete",
                false,
                vec![part(1, 3).blank(), head(1), part(1, 3)],
            );
            add(
                "an empty end",
                false,
                vec![head(1), part(1, 3).more(true), part(3, 3).more(false)],
            );
            add(
                "an end in the midst",
                false,
                vec![head(1), part(1, 2).more(false), part(1, 3)],
            );
            if kind == Kind::Segment {
                // A header in pieces.
                let tiny = |from: usize, to: usize| (from, to);
                for (name, cuts) in [
                    ("the header cut at 8", vec![tiny(0, 1), tiny(1, 6)]),
                    ("the header cut at 16", vec![tiny(0, 2), tiny(2, 6)]),
                    ("units", (0..6).map(|n| tiny(n, n + 1)).collect()),
                ] {
                    cases.push(cut_header(name, ipv6, by_flow, cuts));
                }
            }
        }
    }
    whole_connections(cases);
}

/// A TCP segment cut in units from its header on.
fn cut_header(name: &str, ipv6: bool, by_flow: bool, cuts: Vec<(usize, usize)>) -> Case {
    let family = if ipv6 {
        "IPv6 fragments"
    } else {
        "IPv4 fragments"
    };
    Case::new(family, format!("TCP, {name}"), move |text| {
        let mut steps = opened();
        for &(from, to) in &cuts {
            let text = *text;
            steps.push(Step::Send(Box::new(move |connection| {
                let (protocol, content) = Kind::Segment.content(connection, &text);
                let place = Place {
                    identification: connection.identification,
                    offset: from * 8,
                    more: to * 8 < content.len(),
                };
                let network = Network::default();
                let bytes = &content[from * 8..to * 8];
                vec![packet(connection, &network, protocol, bytes, Some(place))]
            })));
            steps.push(Step::Pause(BETWEEN));
        }
        steps
    })
    // No host sends such.
    .hostile()
    .ipv6(ipv6)
    .by_flow(by_flow)
}

/// Segments and fragments at once: the text in two segments, each in two fragments.
fn whole_connections(cases: &mut Vec<Case>) {
    for (ipv6, by_flow) in EVERYWHERE {
        let family = if ipv6 {
            "IPv6 fragments"
        } else {
            "IPv4 fragments"
        };
        for order in orders(4) {
            // a and b are the first segment's, c and d the second's.
            let begun = |first: usize, then: usize| {
                let at = |wanted| order.iter().position(|it| *it == wanted);
                at(first) < at(then)
            };
            let unordered = !begun(0, 1) || !begun(2, 3);
            let name = format!("TCP, two segments, {}", shown(&order));
            let order = order.clone();
            let mut case = Case::new(family, name, move |text| {
                let mut steps = opened();
                for fragment in &order {
                    let (number, second) = (fragment / 2, fragment % 2 == 1);
                    let half = data(number * 12, &text[number * 12..number * 12 + 12]);
                    steps.push(Step::Send(Box::new(move |connection| {
                        let content = half.bytes(connection);
                        let place = Place {
                            identification: connection.identification + number as u16,
                            offset: if second { 24 } else { 0 },
                            more: !second,
                        };
                        let bytes = if second {
                            &content[24..]
                        } else {
                            &content[..24]
                        };
                        let network = Network::default();
                        vec![packet(connection, &network, TCP, bytes, Some(place))]
                    })));
                    steps.push(Step::Pause(BETWEEN));
                }
                steps
            });
            case.unordered_fragments = unordered;
            cases.push(case.ipv6(ipv6).by_flow(by_flow));
        }
        // Decoys as fragments: TCP decides, after they were put together.
        let case = Case::new(
            family,
            "TCP, a decoy that dies before whole segments",
            |text| {
                let mut steps = opened();
                let decoy = data(0, &[b'~'; LEN]);
                for second in [false, true] {
                    let decoy = decoy.clone();
                    steps.push(Step::Send(Box::new(move |connection| {
                        let content = decoy.bytes(connection);
                        let place = Place {
                            identification: connection.identification,
                            offset: if second { 24 } else { 0 },
                            more: !second,
                        };
                        let bytes = if second {
                            &content[24..]
                        } else {
                            &content[..24]
                        };
                        let network = Network {
                            ttl: TOO_SHORT,
                            ..Network::default()
                        };
                        vec![packet(connection, &network, TCP, bytes, Some(place))]
                    })));
                }
                steps.push(send(data(0, &text[..12])));
                steps.push(send(data(12, &text[12..])));
                steps
            },
        );
        cases.push(case.hostile().ipv6(ipv6).by_flow(by_flow));
    }
}
