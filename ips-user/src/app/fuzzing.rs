//! A conversation without its connection, for the fuzz targets.

use super::Part;
use super::ear::Ear;
use super::layer::AppLayer;
use super::protocol::AppProtocol;
use super::recognition::Ports;
use crate::flow::PacketDirection;
use crate::rules::ast::AppBuffer;

const PORTS: Ports = Ports {
    client: 40_000,
    server: 53,
};

/// A piece of what was said: whether the client says it, and what.
pub type Said<'a> = (bool, &'a [u8]);

/// Listens to a stream of pieces, each cut into parts of at most so many bytes; returns what records
/// show of its transactions, and the protocol.
pub fn stream(pieces: &[Said<'_>], most: usize) -> (Option<&'static str>, Vec<String>) {
    let mut ear = Ear::default();
    let mut layer = AppLayer::default();
    let mut held = [Vec::new(), Vec::new()];
    let mut shown = Vec::new();
    for (to_server, bytes) in pieces {
        let direction = direction(*to_server);
        for part in bytes.chunks(most.max(1)) {
            held[direction.number()].extend_from_slice(part);
            // What has waited in one direction may be taken because of the other.
            for direction in [direction, direction.other(), direction] {
                let waiting = &mut held[direction.number()];
                while !waiting.is_empty() && !layer.is_deaf() {
                    let hearing = &mut ear.streams();
                    let (taken, _) = layer.bytes(direction, waiting, PORTS, hearing);
                    let taken = taken as usize;
                    assert!(taken <= waiting.len());
                    if taken == 0 {
                        break;
                    }
                    waiting.drain(..taken);
                }
            }
            look(&mut layer, &mut shown);
        }
    }
    layer.finish();
    look(&mut layer, &mut shown);
    assert!(
        layer.transactions().is_empty(),
        "each is over, and was let go"
    );
    (layer.name(), shown)
}

/// Listens to datagrams.
pub fn datagrams(pieces: &[Said<'_>]) {
    let mut ear = Ear::default();
    let mut layer = AppLayer::default();
    let mut shown = Vec::new();
    for (to_server, bytes) in pieces {
        let _ = layer.datagram(direction(*to_server), bytes, PORTS, &mut ear.datagrams());
        look(&mut layer, &mut shown);
    }
}

/// Whether how a stream is cut makes no difference for what is understood of this protocol.
pub fn is_indifferent_to_cuts(protocol: Option<&str>) -> bool {
    let exact = [
        AppProtocol::Dns,
        AppProtocol::Tls,
        AppProtocol::Ssh,
        AppProtocol::Smtp,
    ];
    exact.iter().any(|it| protocol == Some(it.name()))
}

const fn direction(to_server: bool) -> PacketDirection {
    match to_server {
        true => PacketDirection::ToServer,
        false => PacketDirection::ToClient,
    }
}

/// As rules and records do.
fn look(layer: &mut AppLayer, shown: &mut Vec<String>) {
    for transaction in layer.transactions() {
        for direction in PacketDirection::ALL {
            for which in AppBuffer::ALL {
                for number in 0.. {
                    let part = transaction.part(direction, *which, number);
                    if !matches!(part, Part::Bytes { .. }) || !which.is_multiple() {
                        break;
                    }
                }
            }
            let files = transaction.files(direction);
            files
                .into_iter()
                .for_each(|it| drop(it.fields(transaction.id)));
            transaction.way_mut(direction).changed = false;
        }
        if transaction.is_over() {
            let records = transaction.records(2).len();
            let further = transaction.further_fields();
            shown.push(format!("{} {further:?} {records}", transaction.fields()));
        }
    }
    layer.let_go();
}
