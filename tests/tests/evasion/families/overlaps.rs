//! A further segment that overlaps one of the text's, in every relation and order, with the same
//! data and with other data.

use super::in_turn;
use crate::case::{Case, orders, shown};
use crate::segment::{Segment, data};

/// How a further segment lies to the text's second third (8..16).
const RELATIONS: [(&str, usize, usize); 13] = [
    ("ends in it", 4, 12),
    ("ends with it", 4, 16),
    ("around it", 4, 20),
    ("begins it", 8, 12),
    ("is it", 8, 16),
    ("begins with it", 8, 20),
    ("ends it", 12, 16),
    ("begins in it", 12, 20),
    ("inside it", 10, 14),
    ("one byte of it", 11, 12),
    ("everything", 0, 24),
    ("everything from it on", 8, 24),
    ("everything up to it", 0, 16),
];

pub(crate) fn add(cases: &mut Vec<Case>) {
    let mut number = 0;
    for (relation, from, to) in RELATIONS {
        // a, b and c are the thirds, d is the further one.
        for order in orders(4) {
            for same in [true, false] {
                let (ipv6, by_flow) = in_turn(number);
                number += 1;
                let family = match same {
                    true => "overlaps, same data",
                    false => "overlaps, other data",
                };
                let name = format!("{relation}, {}", shown(&order));
                let order = order.clone();
                let case = Case::connected(family, name, move |text| {
                    let further = match same {
                        true => data(from, &text[from..to]),
                        false => other(from, to),
                    };
                    let third = |part: usize| data(part * 8, &text[part * 8..part * 8 + 8]);
                    let all = [third(0), third(1), third(2), further];
                    order.iter().map(|part| all[*part].clone()).collect()
                });
                cases.push(case.ordinary(same).ipv6(ipv6).by_flow(by_flow));
            }
        }
    }
}

/// A segment that is no part of the text.
pub(crate) fn other(from: usize, to: usize) -> Segment {
    data(from, &vec![b'~'; to - from])
}
