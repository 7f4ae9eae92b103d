//! The cases, one file a family.

mod composed;
mod decoys;
mod depth;
mod extensions;
mod fragments;
mod handshake;
mod midstream;
mod options;
mod overlaps;
mod retransmissions;
mod segments;
mod simultaneous;
mod urgent;
mod windows;
mod wrap;

use crate::case::Case;

/// All of them. Names are unique.
pub(crate) fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    segments::add(&mut cases);
    overlaps::add(&mut cases);
    retransmissions::add(&mut cases);
    decoys::add(&mut cases);
    composed::add(&mut cases);
    handshake::add(&mut cases);
    simultaneous::add(&mut cases);
    urgent::add(&mut cases);
    wrap::add(&mut cases);
    windows::add(&mut cases);
    midstream::add(&mut cases);
    fragments::add(&mut cases);
    extensions::add(&mut cases);
    options::add(&mut cases);
    depth::add(&mut cases);
    let titles: std::collections::HashSet<String> = cases.iter().map(Case::title).collect();
    assert_eq!(titles.len(), cases.len(), "two cases have the same title");
    cases
}

/// Both protocols, and rules with and without `flow`.
pub(crate) const EVERYWHERE: [(bool, bool); 4] =
    [(false, false), (true, false), (false, true), (true, true)];

/// Another of these for each number, where the product of everything would be too much.
pub(crate) fn in_turn(number: usize) -> (bool, bool) {
    EVERYWHERE[number % EVERYWHERE.len()]
}
