//! The text in segments of every size, in every order.

use std::time::Duration;

use super::EVERYWHERE;
use crate::case::{Case, LEN, Step, opened, orders, pause_ms, send, shown};
use crate::segment::{Segment, data};

const FAMILY: &str = "segments";

pub(crate) fn add(cases: &mut Vec<Case>) {
    for (ipv6, by_flow) in EVERYWHERE {
        let mut add = |case: Case| cases.push(case.ipv6(ipv6).by_flow(by_flow));
        for count in 1..=4 {
            for order in orders(count) {
                let name = format!("{count} in order {}", shown(&order));
                add(Case::connected(FAMILY, name, move |text| {
                    order.iter().map(|part| cut(text, count, *part)).collect()
                }));
            }
        }
        // One byte each.
        let forward: Vec<usize> = (0..LEN).collect();
        let backward = forward.iter().rev().copied().collect();
        let every_other = |first| (first..LEN).step_by(2);
        let odd_first: Vec<usize> = every_other(1).chain(every_other(0)).collect();
        let mut outward = forward.clone();
        outward.sort_by_key(|at| at.abs_diff(LEN / 2));
        for (name, order) in [
            ("bytes forward", forward),
            ("bytes backward", backward),
            ("odd bytes first", odd_first),
            ("bytes from the middle", outward),
        ] {
            add(Case::connected(FAMILY, name, move |text| {
                order.iter().map(|at| cut(text, LEN, *at)).collect()
            }));
        }
        // Without a pause, so that receive offload may put them together.
        for count in [2, 3, 4, 8] {
            add(Case::new(
                FAMILY,
                format!("burst of {count}"),
                move |text| {
                    let mut steps = opened();
                    steps.extend((0..count).map(|part| send(cut(text, count, part))));
                    steps
                },
            ));
        }
        add(Case::new(FAMILY, "slow halves", |text| {
            let mut steps = opened();
            steps.push(send(cut(text, 2, 0)));
            steps.push(Step::AwaitAck(12));
            steps.push(Step::Pause(Duration::from_millis(250)));
            steps.push(send(cut(text, 2, 1)));
            steps
        }));
        // The text in the midst of more, cut wherever it can be.
        for first in [1, 7, 23] {
            add(Case::new(
                FAMILY,
                format!("in a stream, cut at {first}"),
                move |text| {
                    let mut stream = vec![b'.'; 3000];
                    stream.extend(text);
                    stream.extend([b'.'; 500]);
                    let at = 3000 + first;
                    let mut steps = opened();
                    for (from, to) in [(0, 1400), (1400, 2800), (2800, at), (at, stream.len())] {
                        steps.push(send(data(from, &stream[from..to])));
                        steps.push(pause_ms(2));
                    }
                    steps
                },
            ));
        }
        add(Case::connected(FAMILY, "with the FIN", |text| {
            vec![cut(text, 2, 0), cut(text, 2, 1).fin()]
        }));
        add(Case::connected(FAMILY, "the FIN first", |text| {
            vec![cut(text, 2, 1).fin(), cut(text, 2, 0)]
        }));
    }
}

/// Part `part` of `count` equal ones.
fn cut(text: &[u8; LEN], count: usize, part: usize) -> Segment {
    let (from, to) = (LEN * part / count, LEN * (part + 1) / count);
    data(from, &text[from..to])
}
