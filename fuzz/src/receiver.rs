//! Receivers: what an application would read of the packets that were let through.

use std::collections::BTreeMap;

/// The receiver of a TCP stream. Of what is within its window it may keep any copy, so all are
/// remembered until they are acknowledged.
#[derive(Clone, Debug, Default)]
pub struct StreamReceiver {
    /// Every value delivered for a place of the stream.
    pub delivered: BTreeMap<u32, Vec<u8>>,
    /// In order up to here, and told so to the sender.
    pub acked: u32,
    /// How far beyond that it takes anything.
    pub window: u32,
}

impl StreamReceiver {
    /// Takes the part of a segment that is within the window.
    pub fn take(&mut self, at: u32, data: &[u8]) {
        for (place, &byte) in (at..).zip(data) {
            if (self.acked..self.acked + self.window).contains(&place) {
                self.delivered.entry(place).or_default().push(byte);
            }
        }
    }

    /// How far there is no hole.
    pub fn in_order(&self) -> u32 {
        (self.acked..)
            .find(|place| !self.delivered.contains_key(place))
            .unwrap_or(self.acked)
    }

    /// Acknowledges everything that is in order; returns up to where.
    pub fn acknowledge(&mut self) -> u32 {
        self.acked = self.in_order();
        self.acked
    }
}

/// Which of two fragments counts for the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overlap {
    /// The one that came first.
    First,
    /// The one that came last.
    Last,
    /// Neither: a datagram with an overlap is given up (RFC 5722; Linux for both families).
    GivesUp,
}

/// A receiver that puts one datagram together.
#[derive(Clone, Debug)]
pub struct FragmentReceiver {
    overlap: Overlap,
    bytes: BTreeMap<u32, u8>,
    end: Option<u32>,
    since_ns: u64,
    given_up: bool,
}

impl FragmentReceiver {
    /// Linux's `ipfrag_time`.
    const PATIENCE_NS: u64 = 30_000_000_000;

    /// Waiting for its first fragment.
    pub fn new(overlap: Overlap) -> Self {
        Self {
            overlap,
            bytes: BTreeMap::new(),
            end: None,
            since_ns: 0,
            given_up: false,
        }
    }

    /// Takes a fragment; the datagram, when that completes it.
    pub fn take(&mut self, offset: u32, more: bool, data: &[u8], now_ns: u64) -> Option<Vec<u8>> {
        let begins = self.bytes.is_empty() && !self.given_up;
        if begins || now_ns - self.since_ns >= Self::PATIENCE_NS {
            *self = Self::new(self.overlap);
            self.since_ns = now_ns;
        }
        if data.is_empty() {
            return None;
        }
        for (place, &byte) in (offset..).zip(data) {
            let held = self.bytes.contains_key(&place);
            self.given_up |= held && self.overlap == Overlap::GivesUp;
            if !held || self.overlap == Overlap::Last {
                self.bytes.insert(place, byte);
            }
        }
        if !more {
            self.end = Some(offset + data.len() as u32);
        }
        let end = self.end?;
        let whole = !self.given_up && (0..end).all(|place| self.bytes.contains_key(&place));
        whole.then(|| {
            let bytes = (0..end).map(|place| self.bytes[&place]).collect();
            *self = Self::new(self.overlap);
            bytes
        })
    }
}
