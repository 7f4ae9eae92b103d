//! What is known about one end of a connection: where its data is, how much of it the other
//! end has taken, what it may send.
//!
//! Sequence numbers wrap; places in the stream do not. Everything past the handshake works with
//! places: zero is the first byte after the SYN.

use super::segment::{Segment, SegmentOptions, flag};

/// Bytes before the first segment seen of a connection that began earlier: data that was sent
/// before it may still come, as much as the largest window holds (RFC 7323, section 2.3).
pub(super) const MIDSTREAM_ROOM: i64 = 1 << 30;

/// RFC 7323, section 5.5: a timestamp says nothing after 24 days.
const TIMESTAMP_IDLE_NS: u64 = 24 * 24 * 3600 * 1_000_000_000;

/// One end, as the sender of its direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Side {
    /// The sequence number before that of place zero.
    pub(super) isn: u32,
    /// Whether that is known.
    pub(super) known: bool,
    /// The place of the first byte that could be seen.
    pub(super) first: i64,
    /// Up to here everything was seen, or given up.
    pub(super) next: i64,
    /// The end of the furthest data seen.
    pub(super) highest: i64,
    /// Up to here the other end has it.
    pub(super) acked: i64,
    /// Up to here the other end has room.
    pub(super) edge: i64,
    /// The largest window that the other end has offered.
    pub(super) span: i64,
    /// The window that this end has offered last.
    pub(super) window: u32,
    /// By how much its window field is shifted.
    pub(super) scale: u8,
    /// What its SYN offered.
    pub(super) offered_scale: Option<u8>,
    pub(super) offered_timestamps: bool,
    pub(super) offered_sack: bool,
    /// Whether its SYN was signed (RFC 2385, RFC 5925).
    pub(super) signed: bool,
    /// Bytes that its SYN carried.
    pub(super) syn_data: u32,
    /// Whether that was fast open.
    pub(super) fast_open: bool,
    /// The latest timestamp of its segments in order, and when that was.
    pub(super) timestamp: Option<u32>,
    pub(super) timestamp_ns: u64,
    /// The stretch of its data that was acknowledged selectively last.
    pub(super) sacked: (i64, i64),
    /// The place of its FIN.
    pub(super) fin: Option<i64>,
    /// It has sent a reset.
    pub(super) reset: bool,
    /// Flags seen from it.
    pub(super) flags: u8,
    /// Its stream has reached the depth.
    pub(super) depth_reached: bool,
    /// How many of its bytes were taken as out of band, and where the last one was.
    pub(super) urgent: u16,
    pub(super) last_urgent: Option<i64>,
    /// It has probed a window of zero with a byte at this place.
    pub(super) probe: Option<i64>,
    /// Up to here its data was inspected (watching only).
    pub(super) raw: u64,
    /// Inspect what there is, however little.
    pub(super) flush: bool,
}

impl Side {
    /// The sender of a SYN or SYN-ACK.
    pub(super) fn of_syn(segment: &Segment<'_>, options: &SegmentOptions, now_ns: u64) -> Self {
        Self {
            isn: segment.seq,
            known: true,
            window: u32::from(segment.window),
            offered_scale: options.window_scale,
            offered_timestamps: options.timestamp.is_some(),
            offered_sack: options.sack_permitted,
            signed: options.signed,
            syn_data: segment.payload.len() as u32,
            fast_open: options.fast_open,
            timestamp: options.timestamp.map(|(value, _)| value),
            timestamp_ns: now_ns,
            flags: segment.flags,
            ..Self::default()
        }
    }

    /// An end whose SYN was not seen, and which is about to send `seq`.
    pub(super) fn midstream(seq: u32, inline: bool) -> Self {
        let first = MIDSTREAM_ROOM;
        Self {
            isn: seq.wrapping_sub(1).wrapping_sub(first as u32),
            known: true,
            first,
            next: first,
            highest: first,
            // Watching, what came before is not looked at.
            acked: if inline { 0 } else { first },
            edge: first,
            raw: first as u64,
            // RFC 7323, section 2.3: the most there can be.
            scale: 14,
            ..Self::default()
        }
    }

    /// The place of a sequence number: the nearest to where the stream is.
    pub(super) fn place(&self, seq: u32) -> i64 {
        let next = self.isn.wrapping_add(1).wrapping_add(self.next as u32);
        self.next + i64::from(seq.wrapping_sub(next) as i32)
    }

    /// Where a segment's data begins.
    pub(super) fn data_place(&self, segment: &Segment<'_>) -> i64 {
        self.place(segment.seq) + i64::from(segment.has(flag::SYN))
    }

    /// The other end acknowledges up to `place` and has room for `window` bytes from there.
    pub(super) fn acknowledged(&mut self, place: i64, window: u32) {
        self.acked = self.acked.max(place);
        self.edge = self.edge.max(place + i64::from(window));
        self.span = self.span.max(i64::from(window));
    }

    /// Data at `start..end` is not kept.
    pub(super) fn pass_over(&mut self, start: i64, end: i64) {
        self.highest = self.highest.max(end);
        if start <= self.next {
            self.next = self.next.max(end);
        }
    }

    /// Whether its FIN, if any, has been acknowledged.
    pub(super) fn fin_acked(&self) -> bool {
        self.fin.is_some_and(|fin| self.acked > fin)
    }

    /// Whether the other end takes a segment with this timestamp (RFC 7323, section 5.3).
    pub(super) fn takes_timestamp(&self, value: u32, now_ns: u64, liberal: bool) -> bool {
        let Some(recent) = self.timestamp else {
            return true;
        };
        let age = value.wrapping_sub(recent) as i32;
        age >= if liberal { -1 } else { 0 }
            || now_ns.saturating_sub(self.timestamp_ns) > TIMESTAMP_IDLE_NS
    }

    /// Remembers the timestamp of a segment that begins no later than what comes next.
    pub(super) fn note_timestamp(&mut self, value: u32, begins: i64, now_ns: u64) {
        if begins > self.next {
            return;
        }
        if self
            .timestamp
            .is_none_or(|recent| value.wrapping_sub(recent) as i32 >= 0)
        {
            self.timestamp = Some(value);
            self.timestamp_ns = now_ns;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_do_not_wrap() {
        let mut side = Side {
            isn: u32::MAX - 4,
            ..Side::default()
        };
        assert_eq!(side.place(u32::MAX - 4), -1);
        assert_eq!(side.place(u32::MAX - 3), 0);
        assert_eq!(side.place(0), 4);
        side.next = 10 << 32;
        assert_eq!(side.place(u32::MAX - 3), 10 << 32);
        assert_eq!(side.place(1), (10 << 32) + 5);
        assert_eq!(side.place(u32::MAX - 4), (10 << 32) - 1);
    }

    #[test]
    fn old_timestamps_are_refused_until_they_say_nothing() {
        let side = Side {
            timestamp: Some(5),
            ..Side::default()
        };
        let check = |value, liberal, days: u64, expect| {
            let now = days * 24 * 3600 * 1_000_000_000;
            assert_eq!(side.takes_timestamp(value, now, liberal), expect, "{value}");
        };
        check(5, false, 0, true);
        check(6, false, 0, true);
        check(4, false, 0, false);
        check(4, true, 0, true);
        check(3, true, 0, false);
        check(3, true, 25, true);
        check(0x8000_0000, true, 0, true);
        check(0x9000_0000, true, 0, false);
    }
}
