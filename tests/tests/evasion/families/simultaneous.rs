//! Connections that the server opens, and those that both open at once.

use super::overlaps::other;
use crate::case::{Case, LEN, Listener, Step, pause_ms, send};
use crate::segment::{Segment, ack, bare, data, syn};
use crate::wire::{ACK, SYN};

type Make = fn(&[u8; LEN]) -> Vec<Step>;

/// Our SYN-ACK.
fn answer() -> Segment {
    bare(SYN | ACK, -1)
}

fn opening(first: impl IntoIterator<Item = Segment>) -> Vec<Step> {
    let mut steps = vec![Step::Connect, Step::AwaitAnswer];
    for (index, step) in paced(first).enumerate() {
        steps.push(step);
        if index == 0 {
            // Nobody sends data before his SYN is acknowledged.
            steps.push(Step::AwaitAck(0));
        }
    }
    steps
}

fn paced(segments: impl IntoIterator<Item = Segment>) -> impl Iterator<Item = Step> {
    let sent = |segment| [send(segment), pause_ms(4)];
    segments.into_iter().flat_map(sent)
}

const CASES: [(&str, bool, Make); 14] = [
    ("the server opens", true, |t| {
        opening([answer(), data(0, t)])
    }),
    ("the server opens, in halves", true, |t| {
        opening([answer(), data(0, &t[..12]), data(12, &t[12..])])
    }),
    ("the server opens, backward", true, |t| {
        opening([answer(), data(12, &t[12..]), data(0, &t[..12])])
    }),
    ("the server opens, data with the answer", false, |t| {
        opening([answer().with(|it| it.data = t.to_vec()), data(0, t)])
    }),
    ("the server opens, other data with the answer", false, |t| {
        opening([answer().with(|it| it.data = vec![b'~'; LEN]), data(0, t)])
    }),
    ("at once, an answer", true, |t| {
        opening([syn(), answer(), data(0, t)])
    }),
    ("at once, an ACK", true, |t| {
        opening([syn(), ack(), data(0, t)])
    }),
    ("at once, in halves", true, |t| {
        opening([syn(), answer(), data(0, &t[..12]), data(12, &t[12..])])
    }),
    ("at once, backward", true, |t| {
        opening([syn(), answer(), data(12, &t[12..]), data(0, &t[..12])])
    }),
    ("at once, data with the ACK", true, |t| {
        opening([syn(), data(0, t)])
    }),
    ("at once, data with the SYN", false, |t| {
        opening([syn().with(|it| it.data = t.to_vec()), answer(), data(0, t)])
    }),
    ("at once, other data with the SYN", false, |t| {
        opening([
            syn().with(|it| it.data = vec![b'~'; LEN]),
            answer(),
            data(0, t),
        ])
    }),
    ("at once, a decoy before the answer", false, |t| {
        opening([syn(), other(0, 24).dying(), answer(), data(0, t)])
    }),
    ("a SYN that dies, then at once", false, |t| {
        let mut steps: Vec<Step> = paced([syn().dying()]).collect();
        steps.extend(opening([syn(), answer(), data(0, t)]));
        steps
    }),
];

pub(crate) fn add(cases: &mut Vec<Case>) {
    for ipv6 in [false, true] {
        for (name, ordinary, make) in CASES {
            for timestamps in [false, true] {
                let name = match timestamps {
                    true => format!("{name}, with timestamps"),
                    false => name.to_owned(),
                };
                let case = Case::new("simultaneous open", name, make)
                    .to(Listener::Connecting)
                    .ordinary(ordinary)
                    .ipv6(ipv6);
                cases.push(match timestamps {
                    true => case.with_timestamps(),
                    false => case,
                });
            }
        }
    }
}
