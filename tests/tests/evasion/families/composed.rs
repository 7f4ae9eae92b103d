//! Two decoys one after the other between the halves of the text: one pretends that the
//! connection is over, the other that the next one begins.

use super::overlaps::other;
use super::{EVERYWHERE, in_turn};
use crate::case::{BETWEEN, Case, LEN, Step, send};
use crate::segment::{Segment, ack, bare, data, syn};
use crate::wire::{ACK, FIN, RST, SYN};

type Make = fn() -> Segment;

/// What makes it look so. None of them is believed by the server.
const DECOYS: [(&str, Make); 11] = [
    ("RST that dies", || Segment::reset(12).dying()),
    ("RST and ACK that dies", || bare(RST | ACK, 12).dying()),
    ("corrupt RST", || Segment::reset(12).corrupt()),
    ("FIN that dies", || bare(FIN | ACK, 12).dying()),
    ("SYN right before that dies", || bare(SYN, 11).dying()),
    ("corrupt SYN right before", || bare(SYN, 11).corrupt()),
    ("SYN elsewhere that dies", || {
        bare(SYN, 11).with(|it| it.shifted = 0x0100_0000).dying()
    }),
    ("the first SYN that dies", || syn().dying()),
    ("SYN-ACK that dies", || bare(SYN | ACK, 11).dying()),
    ("ACK that dies", || bare(ACK, 12).dying()),
    ("other data that dies", || other(12, 24).dying()),
];

pub(crate) fn add(cases: &mut Vec<Case>) {
    let mut number = 0;
    for (first, make_first) in DECOYS {
        for (second, make_second) in DECOYS {
            let (ipv6, by_flow) = in_turn(number);
            number += 1;
            let name = format!("{first}, {second}");
            let case = Case::connected("composed decoys", name, move |t| {
                vec![
                    data(0, &t[..12]),
                    make_first(),
                    make_second(),
                    data(12, &t[12..]),
                ]
            });
            cases.push(case.hostile().ipv6(ipv6).by_flow(by_flow));
        }
    }
    for (ipv6, by_flow) in EVERYWHERE {
        let mut add = |name: &str, make: fn(&[u8; LEN]) -> Vec<Segment>| {
            let case = Case::connected("composed decoys", name, make);
            cases.push(case.hostile().ipv6(ipv6).by_flow(by_flow));
        };
        add("over, begun and answered", |t| {
            vec![
                data(0, &t[..12]),
                Segment::reset(12).dying(),
                bare(SYN, 11).dying(),
                bare(SYN | ACK, 11).dying(),
                ack().with(|it| it.at = 12).dying(),
                data(12, &t[12..]),
            ]
        });
        add("over and begun twice", |t| {
            vec![
                data(0, &t[..8]),
                Segment::reset(8).dying(),
                bare(SYN, 7).dying(),
                data(8, &t[8..16]),
                Segment::reset(16).dying(),
                bare(SYN, 15).dying(),
                data(16, &t[16..]),
            ]
        });
        add("over and begun before the text", |t| {
            vec![
                Segment::reset(0).dying(),
                bare(SYN, -5).dying(),
                data(0, &t[..12]),
                data(12, &t[12..]),
            ]
        });
        // The same before the handshake is complete.
        let case = Case::new("composed decoys", "over and begun before the ACK", |t| {
            let mut steps = vec![send(syn()), Step::AwaitAnswer];
            for segment in [
                data(0, &t[..12]),
                Segment::reset(12).dying(),
                bare(SYN, 11).dying(),
                data(12, &t[12..]),
            ] {
                steps.extend([send(segment), Step::Pause(BETWEEN)]);
            }
            steps
        });
        cases.push(case.hostile().ipv6(ipv6).by_flow(by_flow));
    }
}
