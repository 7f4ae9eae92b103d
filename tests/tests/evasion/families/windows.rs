//! Small and closed windows: an application that does not read yet.

use super::in_turn;
use crate::case::{Case, LEN, Listener, Step, opened, pause_ms, send};
use crate::segment::{Segment, data};

const FAMILY: &str = "tiny windows";
/// Bytes of a segment.
const PIECE: usize = 250;

/// `len` bytes in small segments.
fn filler(len: usize) -> Vec<Segment> {
    let pieces = (0..len).step_by(PIECE);
    let piece = |at| data(at, &vec![b'.'; PIECE.min(len - at)]);
    pieces.map(piece).collect()
}

/// Fills the window, sends `before` behind it, lets the application read, and goes on.
fn steps(len: usize, before: Vec<Segment>, after: Vec<Segment>) -> Vec<Step> {
    let mut steps = opened();
    for segment in filler(len).into_iter().chain(before) {
        steps.extend([send(segment), pause_ms(1)]);
    }
    steps.extend([pause_ms(20), Step::Read, pause_ms(30)]);
    // What did not fit, again.
    steps.push(Step::Persist(filler(len), len as i64));
    let end = after.iter().map(|it| it.at + it.data.len() as i64).max();
    steps.push(Step::Persist(after, end.unwrap_or_default()));
    steps
}

pub(crate) fn add(cases: &mut Vec<Case>) {
    let mut number = 0;
    let mut add = |case: Case| {
        let (ipv6, by_flow) = in_turn(number);
        number += 1;
        cases.push(case.to(Listener::Slow).ipv6(ipv6).by_flow(by_flow));
    };
    for len in (500..=5000).step_by(500) {
        add(Case::new(FAMILY, format!("after {len} bytes"), move |t| {
            steps(len, vec![], vec![data(len, t)])
        }));
        add(Case::new(
            FAMILY,
            format!("after {len} bytes, tried before"),
            move |t| steps(len, vec![data(len, t)], vec![data(len, t)]),
        ));
        add(Case::new(
            FAMILY,
            format!("after {len} bytes, a byte tried before"),
            move |t| {
                steps(
                    len,
                    vec![data(len, &t[..1]), data(len, &t[..1])],
                    vec![data(len, t)],
                )
            },
        ));
        add(Case::new(
            FAMILY,
            format!("after {len} bytes, backward"),
            move |t| {
                let halves = vec![data(len + 12, &t[12..]), data(len, &t[..12])];
                steps(len, vec![], halves)
            },
        ));
        let hostile: [(&str, usize, usize); 4] = [
            ("all", 0, LEN),
            ("the first byte", 0, 1),
            ("the end", 12, LEN),
            ("a byte within", 5, 6),
        ];
        for (what, from, to) in hostile {
            let name = format!("after {len} bytes, {what} otherwise before");
            add(Case::new(FAMILY, name, move |t| {
                let before = data(len + from, &vec![b'~'; to - from]);
                steps(len, vec![before], vec![data(len, t)])
            })
            .hostile());
        }
    }
    // Our own window says nothing about what we send.
    for window in [0, 1, 100] {
        add(
            Case::connected(FAMILY, format!("our window is {window}"), move |t| {
                let halves = [data(0, &t[..12]), data(12, &t[12..])];
                let small = |segment: Segment| segment.with(|it| it.window = window);
                halves.map(small).to_vec()
            })
            .to(Listener::Plain),
        );
    }
}
