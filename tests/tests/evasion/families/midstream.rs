//! Connections that began before the gateway inspected.

use super::EVERYWHERE;
use super::overlaps::other;
use crate::case::{Case, LEN, Step, opened, orders, pause_ms, send, shown};
use crate::segment::{Segment, ack, bare, data, syn};
use crate::wire::{ACK, FIN};

const FAMILY: &str = "midstream";

/// Bytes that were sent before.
const BEFORE: usize = 700;

fn joined(sent: usize, segments: impl IntoIterator<Item = Segment>) -> Vec<Step> {
    let mut steps = opened();
    if sent > 0 {
        steps.push(send(data(0, &vec![b'.'; sent])));
    }
    steps.push(Step::Begin);
    for segment in segments {
        // Places count from what was sent before.
        let segment = segment.with(|it| it.at += sent as i64);
        steps.extend([send(segment), pause_ms(3)]);
    }
    steps
}

type Make = fn(&[u8; LEN]) -> Vec<Segment>;

const MORE: [(&str, bool, Make); 18] = [
    ("an ACK first", true, |t| {
        vec![ack(), data(0, &t[..12]), data(12, &t[12..])]
    }),
    ("every part twice", true, |t| {
        vec![
            data(0, &t[..12]),
            data(0, &t[..12]),
            data(12, &t[12..]),
            data(12, &t[12..]),
        ]
    }),
    ("with the FIN", true, |t| {
        vec![data(0, &t[..12]), data(12, &t[12..]).fin()]
    }),
    ("the FIN first", true, |t| {
        vec![data(12, &t[12..]).fin(), data(0, &t[..12])]
    }),
    ("other data that dies first", false, |t| {
        vec![other(0, 24).dying(), data(0, &t[..12]), data(12, &t[12..])]
    }),
    ("corrupt other data first", false, |t| {
        vec![
            other(0, 24).corrupt(),
            data(0, &t[..12]),
            data(12, &t[12..]),
        ]
    }),
    ("other numbers that die first", false, |t| {
        let decoy = other(0, 24).with(|it| it.shifted = 0x5000_0000).dying();
        vec![decoy, data(0, &t[..12]), data(12, &t[12..])]
    }),
    ("other numbers first", false, |t| {
        let decoy = other(0, 24).with(|it| it.shifted = 0x5000_0000);
        vec![decoy, data(0, &t[..12]), data(12, &t[12..])]
    }),
    ("other numbers, half of all away, first", false, |t| {
        let decoy = other(0, 24).with(|it| it.shifted = 0x8000_0000);
        vec![decoy, data(0, &t[..12]), data(12, &t[12..])]
    }),
    ("an impossible ACK first", false, |t| {
        let decoy = other(0, 24).with(|it| it.ack = 0x4000_0000);
        vec![decoy, data(0, &t[..12]), data(12, &t[12..])]
    }),
    ("a RST that dies first", false, |t| {
        vec![
            Segment::reset(0).dying(),
            data(0, &t[..12]),
            data(12, &t[12..]),
        ]
    }),
    ("a FIN that dies first", false, |t| {
        vec![
            bare(FIN | ACK, 0).dying(),
            data(0, &t[..12]),
            data(12, &t[12..]),
        ]
    }),
    ("a SYN that dies first", false, |t| {
        let decoy = syn().with(|it| it.shifted = 0x5000_0000).dying();
        vec![decoy, data(0, &t[..12]), data(12, &t[12..])]
    }),
    ("a SYN first", false, |t| {
        let decoy = syn().with(|it| it.shifted = 0x5000_0000);
        vec![decoy, data(0, &t[..12]), data(12, &t[12..])]
    }),
    ("a RST of elsewhere first", false, |t| {
        let decoy = Segment::reset(0).with(|it| it.shifted = 0x5000_0000);
        vec![decoy, data(0, &t[..12]), data(12, &t[12..])]
    }),
    ("data without ACK first", false, |t| {
        vec![other(0, 24).flags(0), data(0, &t[..12]), data(12, &t[12..])]
    }),
    ("other data out of order", false, |t| {
        vec![other(10, 24), data(12, &t[12..]), data(0, &t[..12])]
    }),
    ("other data that came already", false, |t| {
        let mut old = other(0, 40);
        old.at = -40;
        old.data.extend(&t[..12]);
        vec![old, data(12, &t[12..])]
    }),
];

pub(crate) fn add(cases: &mut Vec<Case>) {
    for (ipv6, by_flow) in EVERYWHERE {
        for sent in [0, BEFORE] {
            let mut add = |name: String, ordinary: bool, case: Case| {
                debug_assert!(!name.is_empty());
                cases.push(case.ordinary(ordinary).ipv6(ipv6).by_flow(by_flow));
            };
            for count in 1..=3 {
                for order in orders(count) {
                    let name = format!("after {sent} bytes, {count} in order {}", shown(&order));
                    let case = Case::new(FAMILY, name.clone(), move |t| {
                        let size = LEN / count;
                        let part = |n: usize| data(n * size, &t[n * size..(n + 1) * size]);
                        joined(sent, order.iter().map(|n| part(*n)))
                    });
                    add(name, true, case);
                }
            }
            for (name, ordinary, make) in MORE {
                let name = format!("after {sent} bytes, {name}");
                let case = Case::new(FAMILY, name.clone(), move |t| joined(sent, make(t)));
                add(name, ordinary, case);
            }
        }
    }
}
