//! Sequence numbers that wrap within the text, or change their sign.

use super::in_turn;
use super::overlaps::other;
use crate::case::{Case, orders, shown};
use crate::segment::data;

const FAMILY: &str = "sequence wrap";

pub(crate) fn add(cases: &mut Vec<Case>) {
    let mut number = 0;
    let mut add = |case: Case, isn: u32| {
        let (ipv6, by_flow) = in_turn(number);
        number += 1;
        cases.push(case.isn(isn).ipv6(ipv6).by_flow(by_flow));
    };
    for (what, edge) in [("wraps", 0_u32), ("changes sign", 0x8000_0000)] {
        for at in [0_u32, 1, 8, 12, 15, 23, 24, 25] {
            let isn = edge.wrapping_sub(1 + at);
            for order in orders(3) {
                let name = format!("{what} at {at}, {}", shown(&order));
                add(
                    Case::connected(FAMILY, name, move |t| {
                        let third = |part: usize| data(part * 8, &t[part * 8..part * 8 + 8]);
                        order.iter().map(|part| third(*part)).collect()
                    }),
                    isn,
                );
            }
            add(
                Case::connected(
                    FAMILY,
                    format!("{what} at {at}, other data out of order"),
                    |t| vec![data(12, &t[12..]), other(10, 24), data(0, &t[..12])],
                )
                .hostile(),
                isn,
            );
            add(
                Case::connected(FAMILY, format!("{what} at {at}, a decoy that dies"), |t| {
                    vec![other(6, 18).dying(), data(0, &t[..12]), data(12, &t[12..])]
                })
                .hostile(),
                isn,
            );
        }
    }
}
