//! Data that was sent before, again: as it was, and otherwise.

use super::EVERYWHERE;
use super::overlaps::other;
use crate::case::{BETWEEN, Case, Step, opened, send};
use crate::segment::{Segment, data};

const FAMILY: &str = "retransmissions";

type Make = fn(&[u8; 24]) -> Vec<Segment>;

pub(crate) fn add(cases: &mut Vec<Case>) {
    let ordinary: [(&str, Make); 9] = [
        ("each part twice", |t| {
            vec![
                data(0, &t[..8]),
                data(0, &t[..8]),
                data(8, &t[8..]),
                data(8, &t[8..]),
            ]
        }),
        ("all twice", |t| vec![data(0, t), data(0, t)]),
        ("the first part after the second", |t| {
            vec![data(0, &t[..8]), data(8, &t[8..]), data(0, &t[..8])]
        }),
        ("the second part first, then both", |t| {
            vec![data(8, &t[8..]), data(0, t)]
        }),
        ("more at each try", |t| {
            vec![data(0, &t[..8]), data(0, &t[..16]), data(0, t)]
        }),
        ("less at each try", |t| {
            vec![data(12, &t[12..]), data(4, &t[4..16]), data(0, &t[..8])]
        }),
        ("in other pieces", |t| {
            vec![
                data(8, &t[8..20]),
                data(0, &t[..5]),
                data(5, &t[5..15]),
                data(15, &t[15..]),
            ]
        }),
        ("a keep-alive in between", |t| {
            vec![data(0, &t[..8]), data(7, &t[7..8]), data(8, &t[8..])]
        }),
        ("three times backward", |t| {
            let parts = [data(16, &t[16..]), data(8, &t[8..16]), data(0, &t[..8])];
            [parts.clone(), parts.clone(), parts].concat()
        }),
    ];
    let hostile: [(&str, Make); 9] = [
        ("other data after what was taken", |t| {
            vec![data(0, &t[..8]), other(0, 8), data(8, &t[8..])]
        }),
        ("other data and the rest in one", |t| {
            let mut all = other(0, 24);
            all.data[8..].copy_from_slice(&t[8..]);
            vec![data(0, &t[..8]), all]
        }),
        ("other data twice, then the rest", |t| {
            vec![data(0, &t[..8]), other(0, 8), other(4, 8), data(8, &t[8..])]
        }),
        ("a keep-alive with another byte", |t| {
            vec![data(0, &t[..8]), other(7, 8), data(8, &t[8..])]
        }),
        ("a keep-alive before everything", |t| {
            let mut byte = other(0, 1);
            byte.at = -1;
            vec![byte, data(0, &t[..8]), data(8, &t[8..])]
        }),
        ("from before the stream on", |t| {
            let mut all = data(0, &[b"~~~~", &t[..]].concat());
            all.at = -4;
            vec![all]
        }),
        ("the last part otherwise, out of order", |t| {
            vec![other(16, 24), data(16, &t[16..]), data(0, &t[..16])]
        }),
        ("the last part, then otherwise, out of order", |t| {
            vec![data(16, &t[16..]), other(16, 24), data(0, &t[..16])]
        }),
        ("other data around a part", |t| {
            vec![
                data(8, &t[8..16]),
                other(4, 20),
                data(0, &t[..8]),
                data(16, &t[16..]),
            ]
        }),
    ];
    for (ipv6, by_flow) in EVERYWHERE {
        for (kinds, is_ordinary) in [(ordinary, true), (hostile, false)] {
            for (name, make) in kinds {
                let at_once = Case::connected(FAMILY, name, make);
                let acknowledged =
                    Case::new(FAMILY, format!("{name}, acknowledged"), move |text| {
                        let mut steps = opened();
                        let mut sent = 0;
                        for segment in make(text) {
                            // When what is in order so far has arrived.
                            if segment.at <= sent {
                                sent = sent.max(segment.at + segment.data.len() as i64);
                            }
                            steps.push(send(segment));
                            steps.push(Step::AwaitAck(sent));
                            steps.push(Step::Pause(BETWEEN));
                        }
                        steps
                    });
                for case in [at_once, acknowledged] {
                    cases.push(case.ordinary(is_ordinary).ipv6(ipv6).by_flow(by_flow));
                }
            }
        }
    }
}
