//! The bytes of one datagram that have arrived so far.

use super::policy::{Extent, OverlapPolicy};
use crate::bounded::{grown, heap};
use crate::decode::Part;
use crate::decode::checksum;

/// A run of bytes of the datagram that stands in one run of the arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    start: u32,
    end: u32,
    /// Where its bytes begin in the arena.
    at: u32,
    /// The fragment that it is of, as that was received.
    owner: Extent,
}

impl Piece {
    fn part(&self, start: u32, end: u32) -> Self {
        Self {
            start,
            end,
            at: self.at + (start - self.start),
            owner: self.owner,
        }
    }
}

/// What a fragment has in common with what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overlap {
    /// Nothing.
    None,
    /// Bytes, and they are equal. `whole`: all of its bytes were there.
    Same { whole: bool },
    /// Bytes, and they differ.
    Different,
}

/// The headers of the fragment whose first byte is the datagram's.
#[derive(Clone, Copy, Debug, Default)]
struct Head {
    at: u32,
    before_len: u32,
    header_len: u32,
    announced_at: u32,
    next_header: u8,
}

/// Pieces in order, without overlaps, and the arena that their bytes stand in.
///
/// The arena holds what was received, not the datagram: a fragment with a high offset costs no
/// more than another.
#[derive(Debug, Default)]
pub(super) struct Assembly {
    pieces: Vec<Piece>,
    arena: Vec<u8>,
    covered: u32,
    ends_at: Option<u32>,
    head: Option<Head>,
}

/// Room that an insertion may need.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    arena: usize,
    pieces: usize,
}

impl Room {
    pub(super) const fn bytes(self) -> usize {
        heap(self.arena) + heap(self.pieces * size_of::<Piece>())
    }
}

impl Assembly {
    /// Memory in use.
    pub(super) fn footprint(&self) -> usize {
        Room {
            arena: self.arena.capacity(),
            pieces: self.pieces.capacity(),
        }
        .bytes()
    }

    /// What the footprint may become with this part, whose packet has `before` in front of it.
    pub(super) fn room_for(&self, part: &Part<'_>, before: usize) -> Room {
        let touched = self.touched(extent(part)).len();
        let head = if part.offset == 0 {
            before + part.header_len
        } else {
            0
        };
        Room {
            arena: grown(
                self.arena.len(),
                self.arena.capacity(),
                part.data.len() + head,
            ),
            pieces: grown(self.pieces.len(), self.pieces.capacity(), touched + 2),
        }
    }

    /// Bytes received and kept, replaced ones included.
    pub(super) fn received(&self) -> usize {
        self.arena.len()
    }

    /// Compares a part with what is there.
    pub(super) fn overlap(&self, part: &Part<'_>) -> Overlap {
        let new = extent(part);
        let (mut common, mut differs) = (0, false);
        for piece in &self.pieces[self.touched(new)] {
            let (from, to) = (piece.start.max(new.start), piece.end.min(new.end));
            let there = self.bytes(&piece.part(from, to));
            let here = &part.data[(from - new.start) as usize..(to - new.start) as usize];
            differs |= there != here;
            common += to - from;
        }
        match (common, differs) {
            (0, _) => Overlap::None,
            (_, true) => Overlap::Different,
            (_, false) => Overlap::Same {
                whole: common == new.end - new.start,
            },
        }
    }

    /// Whether a part says something else about the datagram's end than what is there.
    pub(super) fn contradicts_end(&self, part: &Part<'_>) -> bool {
        let end = extent(part).end;
        let reached = self.pieces.last().map_or(0, |last| last.end);
        match (part.more, self.ends_at) {
            (true, Some(ends_at)) => end > ends_at,
            (true, None) => false,
            (false, Some(ends_at)) => end != ends_at,
            (false, None) => end < reached,
        }
    }

    /// Adds a part where it is new or wins. `room` is from [`Self::room_for`], `scratch` is only
    /// kept to save allocations.
    pub(super) fn add(
        &mut self,
        part: &Part<'_>,
        before: &[u8],
        header: &[u8],
        policy: OverlapPolicy,
        room: Room,
        scratch: &mut Vec<Piece>,
    ) {
        let new = extent(part);
        if !part.more {
            self.ends_at = Some(new.end);
        }
        let at = self.arena.len() as u32;
        let touched = self.touched(new);
        scratch.clear();
        let mut push = |piece: Piece| match scratch.last_mut() {
            Some(last)
                if last.owner == piece.owner
                    && last.end == piece.start
                    && last.at + (last.end - last.start) == piece.at =>
            {
                last.end = piece.end;
            }
            _ => scratch.push(piece),
        };
        let whole = Piece {
            start: new.start,
            end: new.end,
            at,
            owner: new,
        };
        let (mut decided, mut used, mut first_is_new) = (new.start, false, false);
        let mut old_len = 0;
        for piece in &self.pieces[touched.clone()] {
            old_len += piece.end - piece.start;
            let (from, to) = (piece.start.max(new.start), piece.end.min(new.end));
            if decided < from {
                push(whole.part(decided, from));
                first_is_new |= decided == new.start;
                used = true;
            }
            if piece.start < from {
                push(piece.part(piece.start, from));
            }
            if policy.later_wins(piece.owner, new) {
                push(whole.part(from, to));
                first_is_new |= from == new.start;
                used = true;
            } else {
                push(piece.part(from, to));
            }
            if piece.end > to {
                push(piece.part(to, piece.end));
            }
            decided = to;
        }
        if decided < new.end {
            push(whole.part(decided, new.end));
            first_is_new |= decided == new.start;
            used = true;
        }
        if !used {
            return;
        }
        let new_len: u32 = scratch.iter().map(|piece| piece.end - piece.start).sum();
        self.covered += new_len - old_len;
        self.arena.reserve_exact(room.arena - self.arena.len());
        self.pieces.reserve_exact(room.pieces - self.pieces.len());
        self.pieces.splice(touched, scratch.drain(..));
        self.arena.extend_from_slice(part.data);
        if new.start == 0 && first_is_new {
            self.head = Some(Head {
                at: self.arena.len() as u32,
                before_len: before.len() as u32,
                header_len: header.len() as u32,
                announced_at: part.announced_at as u32,
                next_header: part.next_header,
            });
            self.arena.extend_from_slice(before);
            self.arena.extend_from_slice(header);
        }
    }

    /// Whether every byte is there.
    pub(super) fn is_complete(&self) -> bool {
        // Nothing is kept beyond the end, and pieces do not overlap.
        self.ends_at == Some(self.covered) && self.head.is_some()
    }

    /// Writes the datagram: what stood before the IP header, that header as if nothing had been
    /// fragmented, the data. False when it is longer than an IP packet can be.
    pub(super) fn write(&self, out: &mut Vec<u8>) -> bool {
        out.clear();
        let Some(head) = self.head else {
            return false;
        };
        let (ip_at, header_len) = (head.before_len as usize, head.header_len as usize);
        let headers = self.arena.get(head.at as usize..).unwrap_or_default();
        out.extend_from_slice(headers.get(..ip_at + header_len).unwrap_or_default());
        for piece in &self.pieces {
            out.extend_from_slice(self.bytes(piece));
        }
        let ip = &mut out[ip_at..];
        let len = ip.len();
        match ip.first().map(|first| first >> 4) {
            Some(4) => {
                let Ok(total) = u16::try_from(len) else {
                    return false;
                };
                ip[2..4].copy_from_slice(&total.to_be_bytes());
                // No flags, no offset; and no checksum while it is made.
                ip[6..8].fill(0);
                ip[10..12].fill(0);
                let sum = !checksum::sum(0, &ip[..header_len]);
                ip[10..12].copy_from_slice(&sum.to_be_bytes());
            }
            _ => {
                let Ok(payload) = u16::try_from(len - 40) else {
                    return false;
                };
                ip[4..6].copy_from_slice(&payload.to_be_bytes());
                ip[head.announced_at as usize] = head.next_header;
            }
        }
        true
    }

    /// The pieces that a fragment overlaps.
    fn touched(&self, new: Extent) -> std::ops::Range<usize> {
        // In order, as nearly all fragments come.
        if self.pieces.last().is_none_or(|last| last.end <= new.start) {
            return self.pieces.len()..self.pieces.len();
        }
        let first = self.pieces.partition_point(|piece| piece.end <= new.start);
        let behind = self.pieces.partition_point(|piece| piece.start < new.end);
        first..behind.max(first)
    }

    fn bytes(&self, piece: &Piece) -> &[u8] {
        let len = (piece.end - piece.start) as usize;
        &self.arena[piece.at as usize..piece.at as usize + len]
    }
}

fn extent(part: &Part<'_>) -> Extent {
    Extent {
        start: part.offset,
        end: part.offset + part.data.len() as u32,
    }
}
