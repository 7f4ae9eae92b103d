//! The text at and beyond the depth to which streams are said to be looked at.

use super::EVERYWHERE;
use super::overlaps::other;
use crate::DEPTH;
use crate::case::{Case, LEN, Step, opened, pause_ms, send};
use crate::segment::{Segment, data};

const FAMILY: &str = "beyond depth";
const PIECE: usize = 1400;

/// So many bytes, then these segments, whose places count from there.
fn behind(len: usize, segments: impl IntoIterator<Item = Segment>) -> Vec<Step> {
    let mut steps = opened();
    let before = (0..len).step_by(PIECE);
    let piece = |at| data(at, &vec![b'.'; PIECE.min(len - at)]);
    steps.push(Step::Persist(before.map(piece).collect(), len as i64));
    for segment in segments {
        steps.push(send(segment.with(|it| it.at += len as i64)));
        steps.push(pause_ms(2));
    }
    steps
}

type Make = fn(&[u8; LEN]) -> Vec<Segment>;

const CASES: [(&str, bool, Make); 7] = [
    ("whole", true, |t| vec![data(0, t)]),
    ("halves", true, |t| {
        vec![data(0, &t[..12]), data(12, &t[12..])]
    }),
    ("backward", true, |t| {
        vec![data(12, &t[12..]), data(0, &t[..12])]
    }),
    ("thirds", true, |t| {
        vec![data(8, &t[8..16]), data(0, &t[..8]), data(16, &t[16..])]
    }),
    ("every part twice", true, |t| {
        vec![
            data(12, &t[12..]),
            data(12, &t[12..]),
            data(0, &t[..12]),
            data(0, &t[..12]),
        ]
    }),
    ("other data out of order", false, |t| {
        vec![other(10, 24), data(12, &t[12..]), data(0, &t[..12])]
    }),
    ("other data that dies", false, |t| {
        vec![other(0, 24).dying(), data(0, &t[..12]), data(12, &t[12..])]
    }),
];

pub(crate) fn add(cases: &mut Vec<Case>) {
    let depth = DEPTH as usize;
    for (ipv6, by_flow) in EVERYWHERE {
        for (place, len) in [
            ("just before it", depth - LEN),
            ("across it", depth - 11),
            ("at it", depth),
            ("beyond it", depth + 5000),
        ] {
            for (name, ordinary, make) in CASES {
                let case = Case::new(FAMILY, format!("{place}, {name}"), move |t| {
                    behind(len, make(t))
                });
                cases.push(case.ordinary(ordinary).ipv6(ipv6).by_flow(by_flow));
            }
        }
    }
}
