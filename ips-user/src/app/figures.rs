//! What is counted about applications, under Suricata's names (user guide, "Statistics").

use super::protocol::AppProtocol;
use crate::decode::protocol;

/// What is counted of each protocol and transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counted {
    /// A flow speaks it.
    Flow,
    /// A transaction has begun.
    Transaction,
    /// Data is missing without which it cannot be read.
    Gap,
    /// There was no memory for it.
    Memory,
    /// It cannot be read.
    Parser,
    /// It was more than is followed.
    Internal,
    /// It was given up where another process has taken over its flow.
    Lost,
    /// Something of it was not undone or not read to its end: a limit of decompression, or of what
    /// the names of a message become.
    Limit,
}

const NAMES: [&str; 8] = [
    "flow",
    "tx",
    "error",
    "error",
    "error",
    "error",
    "not_taken_over",
    "limit",
];

/// Behind the name of the protocol.
const KINDS: [&str; 8] = ["", "", ".gap", ".alloc", ".parser", ".internal", "", ""];

/// Protocols by the transports that carry them.
const PLACES: usize = {
    let (mut places, mut at) = (0, 0);
    while at < AppProtocol::ALL.len() {
        places += AppProtocol::ALL[at].transports().len();
        at += 1;
    }
    places
};

/// Those that nobody knows: over TCP and UDP.
const FAILED: usize = 2;

/// How many counters there are.
pub(crate) const FIGURES: usize = PLACES * NAMES.len() + FAILED;

/// Every protocol with a transport that carries it.
fn places() -> impl Iterator<Item = (AppProtocol, u8)> {
    let all = AppProtocol::ALL.iter();
    all.flat_map(|it| it.transports().iter().map(|transport| (*it, *transport)))
}

const fn suffix(transport: u8) -> &'static str {
    match transport {
        protocol::TCP => "_tcp",
        protocol::UDP => "_udp",
        _ => "",
    }
}

/// The number of a counter; none for what is carried by nothing that it can be carried by.
pub(crate) fn number(of: AppProtocol, transport: u8, what: Counted) -> Option<usize> {
    let place = places().position(|it| it == (of, transport))?;
    Some(what as usize * PLACES + place)
}

/// That of flows whose protocol nobody knows.
pub(crate) const fn failed(transport: u8) -> usize {
    PLACES * NAMES.len() + (transport == protocol::UDP) as usize
}

/// The names of the counters, in their order.
pub(crate) fn names() -> impl Iterator<Item = String> {
    let named = NAMES.iter().zip(KINDS).flat_map(|(group, kind)| {
        places().map(move |(protocol, transport)| {
            let name = protocol.name();
            let suffix = match protocol.transports() {
                [_] => "",
                _ => suffix(transport),
            };
            format!("app_layer.{group}.{name}{suffix}{kind}")
        })
    });
    let failed = [protocol::TCP, protocol::UDP];
    named.chain(failed.map(|it| format!("app_layer.flow.failed{}", suffix(it))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_counter_has_suricatas_name() {
        let names: Vec<_> = names().collect();
        assert_eq!(names.len(), FIGURES);
        for (protocol, transport, what, name) in [
            (
                AppProtocol::Http1,
                protocol::TCP,
                Counted::Flow,
                "flow.http",
            ),
            (
                AppProtocol::Dns,
                protocol::UDP,
                Counted::Transaction,
                "tx.dns_udp",
            ),
            (
                AppProtocol::Dns,
                protocol::TCP,
                Counted::Gap,
                "error.dns_tcp.gap",
            ),
            (
                AppProtocol::Tls,
                protocol::TCP,
                Counted::Parser,
                "error.tls.parser",
            ),
            (
                AppProtocol::Tls,
                protocol::TCP,
                Counted::Memory,
                "error.tls.alloc",
            ),
        ] {
            let number = number(protocol, transport, what).unwrap();
            assert_eq!(names[number], format!("app_layer.{name}"));
        }
        assert_eq!(names[failed(protocol::UDP)], "app_layer.flow.failed_udp");
        assert_eq!(names[failed(protocol::TCP)], "app_layer.flow.failed_tcp");
        assert_eq!(number(AppProtocol::Tls, protocol::UDP, Counted::Flow), None);
    }
}
