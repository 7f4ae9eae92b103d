//! Urgent data, for an application that gets it out of band and for one that reads it in line.

use super::EVERYWHERE;
use crate::case::{Case, LEN, Listener};
use crate::segment::{Segment, data};
use crate::wire::URG;

type Make = Box<dyn Fn(&[u8; LEN]) -> Vec<Segment> + Send + Sync>;

/// The text with a byte of other data before `at`.
fn stuffed(text: &[u8; LEN], at: usize) -> Vec<u8> {
    let mut stream = text.to_vec();
    stream.insert(at, b'~');
    stream
}

/// `stream` cut at these places.
fn cut(stream: &[u8], places: &[usize]) -> Vec<Segment> {
    let mut ends = places.to_vec();
    ends.push(stream.len());
    let mut from = 0;
    let mut segments = Vec::new();
    for end in ends {
        segments.push(data(from, &stream[from..end]));
        from = end;
    }
    segments
}

pub(crate) fn add(cases: &mut Vec<Case>) {
    for (ipv6, by_flow) in EVERYWHERE {
        for (listener, reads) in [
            (Listener::Plain, "out of band"),
            (Listener::UrgentInline, "in line"),
        ] {
            let mut add = |name: String, ordinary: bool, make: Make| {
                let case = Case::connected("urgent data", format!("{name}, read {reads}"), make);
                let case = case.to(listener).ordinary(ordinary);
                cases.push(case.ipv6(ipv6).by_flow(by_flow));
            };
            // One urgent byte that is none of the text.
            for at in [0, 1, 12, 23, 24] {
                add(
                    format!("a byte at {at} in one segment"),
                    true,
                    Box::new(move |t| vec![data(0, &stuffed(t, at)).urgent(at as u16 + 1)]),
                );
                add(
                    format!("a byte at {at}, halves"),
                    true,
                    Box::new(move |t| {
                        let mut segments = cut(&stuffed(t, at), &[12]);
                        let number = usize::from(at >= 12);
                        let pointer = at + 1 - 12 * number;
                        segments[number] = segments[number].clone().urgent(pointer as u16);
                        segments
                    }),
                );
                add(
                    format!("a byte at {at}, halves backward"),
                    true,
                    Box::new(move |t| {
                        let mut segments = cut(&stuffed(t, at), &[12]);
                        let number = usize::from(at >= 12);
                        let pointer = at + 1 - 12 * number;
                        segments[number] = segments[number].clone().urgent(pointer as u16);
                        segments.reverse();
                        segments
                    }),
                );
            }
            for at in [4, 12] {
                add(
                    format!("a byte at {at} by itself"),
                    true,
                    Box::new(move |t| {
                        let mut segments = cut(&stuffed(t, at), &[at, at + 1]);
                        segments[1] = segments[1].clone().urgent(1);
                        segments
                    }),
                );
                add(
                    format!("a byte at {at} by itself, last"),
                    true,
                    Box::new(move |t| {
                        let mut segments = cut(&stuffed(t, at), &[at, at + 1]);
                        let byte = segments.remove(1).urgent(1);
                        segments.push(byte);
                        segments
                    }),
                );
                add(
                    format!("a byte at {at}, announced before it"),
                    true,
                    Box::new(move |t| {
                        let mut segments = cut(&stuffed(t, at), &[2, at]);
                        segments[0] = segments[0].clone().urgent(at as u16 + 1);
                        segments
                    }),
                );
                add(
                    format!("a byte at {at}, again without the flag"),
                    false,
                    Box::new(move |t| {
                        let all = data(0, &stuffed(t, at));
                        vec![all.clone().urgent(at as u16 + 1), all]
                    }),
                );
                add(
                    format!("a byte at {at}, first without the flag that dies"),
                    false,
                    Box::new(move |t| {
                        let all = data(0, &stuffed(t, at));
                        vec![all.clone().dying(), all.urgent(at as u16 + 1)]
                    }),
                );
                add(
                    format!("a byte at {at}, first with the flag that dies"),
                    false,
                    Box::new(move |t| {
                        // The byte is part of the text for who believes it is not.
                        let all = data(0, t);
                        vec![all.clone().urgent(at as u16 + 1).dying(), all]
                    }),
                );
                add(
                    format!("a byte of the text at {at}"),
                    true,
                    Box::new(move |t| vec![data(0, t).urgent(at as u16 + 1)]),
                );
                add(
                    format!("two bytes, {at} and 20"),
                    false,
                    Box::new(move |t| {
                        let mut stream = stuffed(t, at);
                        stream.insert(20, b'~');
                        let mut segments = cut(&stream, &[at + 1]);
                        segments[0] = segments[0].clone().urgent(at as u16 + 1);
                        segments[1] = segments[1].clone().urgent((20 - at) as u16);
                        segments
                    }),
                );
            }
            add(
                "a pointer of zero".to_owned(),
                true,
                Box::new(|t| vec![data(0, t).with(|it| it.flags |= URG)]),
            );
            add(
                "a pointer without the flag".to_owned(),
                true,
                Box::new(|t| vec![data(0, t).with(|it| it.urgent = 5)]),
            );
            add(
                "a pointer behind everything".to_owned(),
                true,
                Box::new(|t| vec![data(0, t).urgent(1000)]),
            );
            add(
                "a pointer as far as can be".to_owned(),
                false,
                Box::new(|t| vec![data(0, t).urgent(u16::MAX)]),
            );
            add(
                "every other byte".to_owned(),
                false,
                Box::new(|t| {
                    let mut at = 0;
                    let mut segments = Vec::new();
                    for byte in t {
                        segments.push(data(at, &[*byte, b'~']).urgent(2));
                        at += 2;
                    }
                    segments
                }),
            );
            add(
                "a pointer into what was sent".to_owned(),
                false,
                Box::new(|t| vec![data(0, &t[..12]), data(6, &t[6..]).urgent(3)]),
            );
        }
    }
}
