//! TCP options on segments with data, and odd UDP datagrams.

use super::EVERYWHERE;
use crate::case::{Case, LEN, Listener, Step};
use crate::segment::data;
use crate::wire::{Connection, Network, UDP, datagram, packet, transport_checksum};

const OPTIONS: [(&str, bool, &[u8]); 14] = [
    ("no operation", true, &[1; 4]),
    ("forty bytes of nothing", true, &[1; 40]),
    ("end of list", true, &[0; 4]),
    ("end of list, then more", false, &[0, 8, 10, 1]),
    ("an unknown option", true, &[200, 4, 1, 2]),
    ("a length of zero", false, &[200, 0, 1, 1]),
    ("a length of one", false, &[200, 1, 1, 1]),
    ("a length beyond the header", false, &[200, 40, 1, 1]),
    ("a segment size", false, &[2, 4, 0, 100]),
    ("a window scale", false, &[3, 3, 14, 1]),
    ("selective acknowledgement permitted", false, &[4, 2, 1, 1]),
    (
        "selective acknowledgement of nothing",
        false,
        &[5, 10, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1],
    ),
    (
        "timestamps that were not agreed on",
        false,
        &[1, 1, 8, 10, 0, 0, 0, 5, 0, 0, 0, 0],
    ),
    ("fast open", false, &[34, 2, 1, 1]),
];

/// Changes the datagram from its header on.
type Change = fn(&Connection, &mut Vec<u8>);

const DATAGRAMS: [(&str, bool, Change); 7] = [
    ("as it should be", true, |_, _| {}),
    ("without a checksum", true, |_, it| it[6..8].fill(0)),
    ("a wrong checksum", false, |_, it| it[6] ^= 0x55),
    ("more behind it", false, |_, it| it.extend(b"more")),
    ("a length that is too short", false, |connection, it| {
        it[4..6].copy_from_slice(&20_u16.to_be_bytes());
        it[6..8].fill(0);
        let sum = transport_checksum(connection, UDP, &it[..20]);
        it[6..8].copy_from_slice(&sum.to_be_bytes());
    }),
    ("a length that is too long", false, |_, it| {
        it[4..6].copy_from_slice(&200_u16.to_be_bytes());
    }),
    ("a length of zero", false, |_, it| it[4..6].fill(0)),
];

pub(crate) fn add(cases: &mut Vec<Case>) {
    for (ipv6, by_flow) in EVERYWHERE {
        for (name, ordinary, options) in OPTIONS {
            let case = Case::connected("TCP options", name, move |t| {
                vec![
                    data(0, &t[..12]).options(options),
                    data(12, &t[12..]).options(options),
                ]
            });
            cases.push(case.ordinary(ordinary).ipv6(ipv6).by_flow(by_flow));
            let case = Case::connected("TCP options", format!("{name}, a decoy"), move |t| {
                vec![data(0, &[b'~'; 12]).options(options), data(0, t)]
            });
            cases.push(case.hostile().ipv6(ipv6).by_flow(by_flow));
        }
        let case = Case::connected("TCP options", "reserved bits", |t| {
            vec![data(0, t).with(|it| it.reserved = 0x0e)]
        });
        cases.push(case.hostile().ipv6(ipv6).by_flow(by_flow));
        for (name, ordinary, change) in DATAGRAMS {
            let case = Case::new("UDP datagrams", name, move |text: &[u8; LEN]| {
                let text = *text;
                vec![Step::Send(Box::new(move |connection| {
                    let mut bytes = datagram(connection, &text);
                    change(connection, &mut bytes);
                    vec![packet(connection, &Network::default(), UDP, &bytes, None)]
                }))]
            });
            // IPv6 has no datagrams without (RFC 8200, section 8.1).
            let case = case.to(Listener::Datagrams).ordinary(ordinary);
            cases.push(case.ipv6(ipv6).by_flow(by_flow));
        }
    }
}
