//! IPv4 options and IPv6 extension headers: before the text, and on what a host discards.

use crate::case::{BETWEEN, Case, LEN, Listener, Step, opened, pause_ms, send};
use crate::segment::{data, syn};
use crate::wire::{IPV6_FRAGMENT, Network, UDP, chain, datagram, packet};

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const DESTINATION: u8 = 60;

type Headers = Vec<(u8, Vec<u8>)>;

/// Options of a hop-by-hop or destination header: padding of `len` bytes.
fn padding(len: usize) -> Vec<u8> {
    let mut options = vec![1, (len - 2) as u8];
    options.resize(len, 0);
    options
}

/// What hosts may send, or at least take.
fn extensions() -> Vec<(String, bool, Headers)> {
    let hop = (HOP_BY_HOP, padding(6));
    let destination = (DESTINATION, padding(6));
    let atomic = (IPV6_FRAGMENT, vec![0, 0, 0, 0, 0x12, 0x34]);
    let mut all = vec![
        ("hop-by-hop".to_owned(), true, vec![hop.clone()]),
        (
            "destination options".to_owned(),
            true,
            vec![destination.clone()],
        ),
        (
            "hop-by-hop and destination".to_owned(),
            true,
            vec![hop.clone(), destination.clone()],
        ),
        (
            "long padding".to_owned(),
            true,
            vec![(DESTINATION, padding(62))],
        ),
        ("an atomic fragment".to_owned(), true, vec![atomic.clone()]),
        (
            "an atomic fragment and options".to_owned(),
            false,
            vec![atomic.clone(), destination.clone()],
        ),
        (
            "options and an atomic fragment".to_owned(),
            true,
            vec![destination.clone(), atomic.clone()],
        ),
        (
            "two atomic fragments".to_owned(),
            false,
            vec![atomic.clone(), atomic],
        ),
        (
            "router alert".to_owned(),
            true,
            vec![(HOP_BY_HOP, vec![5, 2, 0, 0, 1, 0])],
        ),
        (
            "hop-by-hop later".to_owned(),
            false,
            vec![destination.clone(), hop.clone()],
        ),
        ("hop-by-hop twice".to_owned(), false, vec![hop.clone(), hop]),
        (
            "an unknown option to be skipped".to_owned(),
            false,
            vec![(DESTINATION, vec![0x1e, 4, 0, 0, 0, 0])],
        ),
        (
            "an unknown option to be refused".to_owned(),
            false,
            vec![(DESTINATION, vec![0x5e, 4, 0, 0, 0, 0])],
        ),
        (
            "a header that does not exist".to_owned(),
            false,
            vec![(253, padding(6))],
        ),
    ];
    for kind in [0, 2, 3, 4, 200] {
        let header = (ROUTING, vec![kind, 0, 0, 0, 0, 0]);
        all.push((
            format!("routing type {kind}, nothing left"),
            false,
            vec![header],
        ));
        let header = (ROUTING, vec![kind, 1, 0, 0, 0, 0]);
        all.push((
            format!("routing type {kind}, something left"),
            false,
            vec![header],
        ));
    }
    for count in [2, 3, 5, 8, 12, 20] {
        let headers = vec![destination.clone(); count];
        all.push((format!("{count} destination headers"), false, headers));
    }
    all
}

fn options() -> Vec<(&'static str, bool, Vec<u8>)> {
    vec![
        ("no operation", true, vec![1, 1, 1, 1]),
        ("end of list", true, vec![0, 0, 0, 0]),
        ("end of list, then more", false, vec![0, 7, 7, 4]),
        ("router alert", true, vec![148, 4, 0, 0]),
        (
            "record route",
            true,
            [vec![7, 39, 4], vec![0; 36], vec![0]].concat(),
        ),
        (
            "timestamps",
            true,
            [vec![68, 36, 5, 0], vec![0; 32]].concat(),
        ),
        (
            "loose source route, at its end",
            false,
            vec![131, 7, 8, 10, 77, 2, 1, 0],
        ),
        (
            "strict source route, at its end",
            false,
            vec![137, 7, 8, 10, 77, 2, 1, 0],
        ),
        ("an unknown option", false, vec![0x9e, 4, 0, 0]),
        ("a length of zero", false, vec![0x9e, 0, 0, 0]),
        ("a length beyond the header", false, vec![7, 40, 4, 0]),
        (
            "security",
            false,
            [vec![130, 11], vec![0; 9], vec![0]].concat(),
        ),
        ("stream id", false, vec![136, 4, 0, 1]),
        ("forty bytes of nothing", true, vec![1; 40]),
    ]
}

fn with_network(network: &Network, text: &[u8; LEN], all: bool) -> Vec<Step> {
    let network = network.clone();
    let mut steps = match all {
        true => vec![
            send(syn().with(|it| it.network = network.clone())),
            Step::AwaitAnswer,
        ],
        false => opened(),
    };
    for (from, to) in [(0, 12), (12, LEN)] {
        let segment = data(from, &text[from..to]);
        steps.push(send(segment.with(|it| it.network = network.clone())));
        steps.push(Step::Pause(BETWEEN));
    }
    steps
}

/// A whole segment with the text, after a decoy with other data that looks like this.
fn decoy(network: &Network, text: &[u8; LEN]) -> Vec<Step> {
    let network = network.clone();
    let mut steps = opened();
    steps.push(send(data(0, &[b'~'; LEN]).with(|it| it.network = network)));
    steps.push(pause_ms(4));
    steps.push(send(data(0, text)));
    steps
}

pub(crate) fn add(cases: &mut Vec<Case>) {
    let ipv4 = options().into_iter().map(|(name, ordinary, options)| {
        let network = Network {
            options,
            ..Network::default()
        };
        (name.to_owned(), ordinary, network, false)
    });
    let ipv6 = extensions()
        .into_iter()
        .map(|(name, ordinary, extensions)| {
            let network = Network {
                extensions,
                ..Network::default()
            };
            (name, ordinary, network, true)
        });
    let ecn = Network {
        tos: 0x03,
        ..Network::default()
    };
    let trailer = Network {
        trailer: b"and more of it than its length says".to_vec(),
        ..Network::default()
    };
    let both = [false, true].into_iter().flat_map(|ipv6| {
        [
            ("congestion".to_owned(), true, ecn.clone(), ipv6),
            (
                "bytes behind the packet".to_owned(),
                true,
                trailer.clone(),
                ipv6,
            ),
        ]
    });
    for (name, ordinary, network, ipv6) in ipv4.chain(ipv6).chain(both) {
        let family = match ipv6 {
            true => "extension headers",
            false => "IPv4 options",
        };
        for by_flow in [false, true] {
            let mut add =
                |name: String, make: fn(&Network, &[u8; LEN]) -> Vec<Step>, ordinary: bool| {
                    let network = network.clone();
                    let case = Case::new(family, name, move |text| make(&network, text));
                    cases.push(case.ordinary(ordinary).ipv6(ipv6).by_flow(by_flow));
                };
            add(
                format!("{name}, TCP"),
                |network, t| with_network(network, t, false),
                ordinary,
            );
            add(
                format!("{name}, the whole connection"),
                |network, t| with_network(network, t, true),
                ordinary,
            );
            add(format!("{name}, a decoy"), decoy, false);
            let network = network.clone();
            let case = Case::new(family, format!("{name}, UDP"), move |text| {
                let (network, text) = (network.clone(), *text);
                vec![Step::Send(Box::new(move |connection| {
                    let datagram = datagram(connection, &text);
                    vec![packet(connection, &network, UDP, &datagram, None)]
                }))]
            });
            let case = case.to(Listener::Datagrams).ordinary(ordinary);
            cases.push(case.ipv6(ipv6).by_flow(by_flow));
        }
    }
    // Headers behind the fragment header are part of what is put together.
    for by_flow in [false, true] {
        for count in [1, 2, 4] {
            let name = format!("{count} destination headers in fragments, UDP");
            let case = Case::new("extension headers", name, move |text| {
                let text = *text;
                let fragment = move |second: bool| {
                    Step::Send(Box::new(move |connection: &crate::wire::Connection| {
                        let mut inner = chain(&vec![(DESTINATION, padding(6)); count], UDP);
                        inner.extend(datagram(connection, &text));
                        let at = count * 8 + 16;
                        let place = crate::wire::Place {
                            identification: connection.identification,
                            offset: if second { at } else { 0 },
                            more: !second,
                        };
                        let bytes = if second { &inner[at..] } else { &inner[..at] };
                        let network = Network::default();
                        vec![packet(
                            connection,
                            &network,
                            DESTINATION,
                            bytes,
                            Some(place),
                        )]
                    }))
                };
                vec![fragment(false), Step::Pause(BETWEEN), fragment(true)]
            });
            let case = case.to(Listener::Datagrams).hostile();
            cases.push(case.ipv6(true).by_flow(by_flow));
        }
    }
}
