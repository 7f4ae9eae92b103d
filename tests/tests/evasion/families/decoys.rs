//! Segments that the receiver discards, each beside the part of the text whose place they claim.

use super::EVERYWHERE;
use crate::case::{Case, LEN};
use crate::segment::{Segment, bare, data};
use crate::wire::{ACK, FIN, PSH, RST, SYN, URG};

/// Makes a decoy of a segment with other data.
type Spoil = fn(Segment) -> Segment;

/// Decoys with data for a place of the text.
const WITH_DATA: [(&str, Spoil); 24] = [
    ("wrong checksum", Segment::corrupt),
    ("TTL too short", Segment::dying),
    ("old timestamp", |it| it.with(|it| it.clock = -100_000)),
    ("timestamp a little older", |it| it.with(|it| it.clock = -5)),
    ("ACK far in the past", |it| {
        it.with(|it| it.ack = -1_000_000)
    }),
    ("ACK just too old", |it| it.with(|it| it.ack = -70_000)),
    ("ACK of what was not sent", |it| {
        it.with(|it| it.ack = 100_000)
    }),
    ("ACK one too far", |it| it.with(|it| it.ack = 1)),
    ("no ACK", |it| it.flags(PSH)),
    ("no flags", |it| it.flags(0)),
    ("SYN", |it| it.flags(SYN)),
    ("SYN and ACK", |it| it.flags(SYN | ACK)),
    ("SYN and FIN", |it| it.flags(SYN | FIN)),
    ("RST elsewhere", |it| {
        it.with(|it| {
            it.flags = RST;
            it.at += 1;
        })
    }),
    ("unexpected signature", |it| {
        let mut option = vec![19, 18];
        option.extend([0x55; 16]);
        option.extend([1, 1]);
        it.options(&option)
    }),
    ("header too short", |it| {
        it.with(|it| it.header_words = Some(4))
    }),
    ("header too long", |it| {
        it.with(|it| it.header_words = Some(15))
    }),
    ("everything set", |it| {
        it.flags(FIN | SYN | RST | PSH | ACK | URG)
    }),
    ("far beyond the window", |it| {
        it.with(|it| it.at += 10_000_000)
    }),
    ("half the numbers away", |it| {
        it.with(|it| it.at += 0x8000_0000)
    }),
    ("just beyond the window", |it| it.with(|it| it.at += 70_000)),
    ("long past", |it| it.with(|it| it.at -= 100_000)),
    ("wrong IP checksum", |it| {
        it.with(|it| it.network.bad_checksum = true)
    }),
    ("wrong checksum and a short TTL", |it| it.corrupt().dying()),
];

/// Makes a decoy for this place.
type Make = fn(usize) -> Segment;

/// Segments without data that would end or confuse a connection if they were believed.
const WITHOUT_DATA: [(&str, Make); 22] = [
    ("RST with a short TTL", |at| {
        Segment::reset(at as i64).dying()
    }),
    ("RST and ACK with a short TTL", |at| {
        bare(RST | ACK, at as i64).dying()
    }),
    ("FIN with a short TTL", |at| {
        bare(FIN | ACK, at as i64).dying()
    }),
    ("SYN with a short TTL", |at| bare(SYN, at as i64).dying()),
    ("another SYN with a short TTL", |_| {
        bare(SYN, -1).with(|it| it.shifted = 0x4000_0000).dying()
    }),
    ("RST with a wrong checksum", |at| {
        Segment::reset(at as i64).corrupt()
    }),
    ("FIN with a wrong checksum", |at| {
        bare(FIN | ACK, at as i64).corrupt()
    }),
    ("SYN with a wrong checksum", |_| {
        bare(SYN, -1).with(|it| it.shifted = 0x4000_0000).corrupt()
    }),
    ("RST one too far", |at| Segment::reset(at as i64 + 1)),
    ("RST further in the window", |at| {
        Segment::reset(at as i64 + 1000)
    }),
    ("RST far beyond the window", |at| {
        Segment::reset(at as i64 + 10_000_000)
    }),
    ("RST before the window", |at| Segment::reset(at as i64 - 1)),
    ("RST of another connection", |at| {
        Segment::reset(at as i64).with(|it| it.shifted = 0x7777_7777)
    }),
    ("FIN far beyond the window", |at| {
        bare(FIN | ACK, at as i64 + 10_000_000)
    }),
    ("FIN of the past", |at| bare(FIN | ACK, at as i64 - 10)),
    ("FIN without ACK", |at| bare(FIN, at as i64)),
    ("FIN with an impossible ACK", |at| {
        bare(FIN | ACK, at as i64).with(|it| it.ack = 100_000)
    }),
    ("SYN in the window", |at| bare(SYN, at as i64)),
    ("the SYN again", |_| bare(SYN, -1)),
    ("SYN-ACK", |at| bare(SYN | ACK, at as i64)),
    ("ACK of what was not sent", |at| {
        bare(ACK, at as i64).with(|it| it.ack = 100_000)
    }),
    ("RST with a signature", |at| {
        let mut option = vec![19, 18];
        option.extend([0x55; 16]);
        option.extend([1, 1]);
        Segment::reset(at as i64).options(&option)
    }),
];

pub(crate) fn add(cases: &mut Vec<Case>) {
    for (ipv6, by_flow) in EVERYWHERE {
        for (decoy, spoil) in WITH_DATA {
            // Before each half, for all of it and for one byte of it; and between two thirds.
            for (place, from, to) in [
                ("first half", 0, 12),
                ("second half", 12, 24),
                ("one byte", 14, 15),
                ("all", 0, 24),
            ] {
                let case =
                    Case::connected("decoys with data", format!("{decoy}, {place}"), move |t| {
                        let halves = [data(0, &t[..12]), data(12, &t[12..])];
                        let mut segments = halves.to_vec();
                        let before = usize::from(from >= 12);
                        segments.insert(before, spoil(data(from, &[b'~'; LEN][from..to])));
                        segments
                    });
                let case = case.hostile().ipv6(ipv6).by_flow(by_flow);
                cases.push(match decoy.contains("timestamp") {
                    true => case.with_timestamps(),
                    false => case,
                });
            }
            // The text in a segment of its own that a decoy would make harmless, out of order.
            let case = Case::connected(
                "decoys with data",
                format!("{decoy}, out of order"),
                move |t| {
                    vec![
                        spoil(data(12, &[b'~'; 12])),
                        data(12, &t[12..]),
                        spoil(data(0, &[b'~'; 12])),
                        data(0, &t[..12]),
                    ]
                },
            );
            let case = case.hostile().ipv6(ipv6).by_flow(by_flow);
            cases.push(match decoy.contains("timestamp") {
                true => case.with_timestamps(),
                false => case,
            });
        }
        for (decoy, make) in WITHOUT_DATA {
            for (place, before) in [("first", 0), ("in between", 1), ("twice", 2)] {
                let name = format!("{decoy}, {place}");
                let case = Case::connected("decoys without data", name, move |t| {
                    let mut segments = vec![data(0, &t[..12]), data(12, &t[12..])];
                    match before {
                        0 => segments.insert(0, make(0)),
                        1 => segments.insert(1, make(12)),
                        _ => {
                            segments.insert(1, make(12));
                            segments.insert(0, make(0));
                        }
                    }
                    segments
                });
                cases.push(case.hostile().ipv6(ipv6).by_flow(by_flow));
            }
        }
    }
}
