//! A segment's data: into the stream, or not; and what the other end has of it.

use super::event::StreamEvent;
use super::opening::except;
use super::options::{OOB_LIMIT, StreamOptions, UrgentPolicy};
use super::overlap::{Extent, later_wins};
use super::rewrite::Replacement;
use super::segment::flag;
use super::session::{
    CLIENT, Pass, Refused, Session, Stream, StreamCause, StreamDisposition, StreamDrop,
};
use crate::bounded::{grown, heap};
use crate::config::settings::OsPolicy;

/// Of a direction whose receiver is not seen, so much is remembered for retransmissions.
const ONE_SIDED_MEMORY: i64 = 256 << 10;

/// Inline, two out-of-band bytes so near to each other could make a difference to one match.
/// Receivers take one at a time: an earlier one is in the stream or not depending on when the
/// application reads.
const URGENT_DISTANCE: i64 = 64 << 10;

/// Watching: a stretch of the stream and the segment that it was taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owned {
    pub(super) part: Extent,
    pub(super) segment: Extent,
}

/// What is made of the urgent pointer of a segment.
enum Urgent {
    /// The data goes on as it is.
    Take,
    /// The data goes on without the flag.
    Clear,
    /// The data is left out.
    LeaveOut,
}

impl Session {
    /// The segment's payload, which begins at `start`.
    pub(super) fn take_data(&mut self, pass: &mut Pass<'_, '_>, start: i64) -> Result<(), Refused> {
        let clear_urgent = match self.urgent(pass, start)? {
            Urgent::Take => false,
            Urgent::Clear => true,
            Urgent::LeaveOut => return Ok(()),
        };
        if clear_urgent {
            pass.memory.totals.urgent_cleared += 1;
            pass.outcome.disposition = StreamDisposition::Replace(Replacement {
                bytes: Vec::new(),
                clear_urgent,
            });
        }
        if !pass.carries_data() {
            return Ok(());
        }
        let end = start + pass.segment.payload.len() as i64;
        let side = &self.control.sides[pass.from];
        let sacked = side.sacked.0 <= start && end <= side.sacked.1;
        if (end <= side.acked && side.acked > 0) || sacked {
            pass.event(StreamEvent::PktSpuriousRetransmission);
        } else if end <= side.next {
            pass.event(StreamEvent::PktRetransmission);
        }
        if pass.options.inline {
            self.take_inline(pass, start, end)
        } else {
            self.take_watching(pass, start, end);
            Ok(())
        }
    }

    fn urgent(&mut self, pass: &mut Pass<'_, '_>, start: i64) -> Result<Urgent, Refused> {
        let pointer = i64::from(pass.segment.urgent);
        if !pass.has(flag::URG) || pointer == 0 {
            return Ok(Urgent::Take);
        }
        let side = &mut self.control.sides[pass.from];
        // Most receivers count from one (RFC 6093, section 3.2).
        let place = start + pointer - 1;
        let mut policy = pass.options.reassembly.urgent;
        let stream = &mut self.streams[pass.from];
        if policy == UrgentPolicy::Oob {
            if place < side.acked || place < 0 || stream.out_of_band().contains(&(place as u64)) {
                return Ok(Urgent::Take);
            }
            if pass.options.inline && place < side.next {
                // A receiver that has the byte already has it in the stream.
                return Ok(Urgent::Clear);
            }
            if usize::from(side.urgent) >= OOB_LIMIT {
                pass.event(StreamEvent::ReassemblyUrgentOobLimitReached);
                policy = pass.options.reassembly.urgent_oob_limit;
            }
        }
        match policy {
            UrgentPolicy::Oob => {
                let near = side
                    .last_urgent
                    .is_some_and(|last| (place - last).abs() < URGENT_DISTANCE);
                if pass.options.inline && near {
                    return Ok(Urgent::Clear);
                }
                side.urgent += 1;
                side.last_urgent = Some(place);
                let urgent = stream.urgent.get_or_insert_default();
                urgent.places.push(place as u64);
                pass.memory.totals.urgent_oob_data += 1;
                Ok(Urgent::Take)
            }
            UrgentPolicy::Inline if pass.options.inline => Ok(Urgent::Clear),
            UrgentPolicy::Inline => Ok(Urgent::Take),
            UrgentPolicy::Drop if pass.options.inline => Err(Refused(StreamDrop::Urgent)),
            UrgentPolicy::Drop | UrgentPolicy::Gap => Ok(Urgent::LeaveOut),
        }
    }

    /// Inline: what was seen first stays, for the receiver as well.
    fn take_inline(
        &mut self,
        pass: &mut Pass<'_, '_>,
        start: i64,
        end: i64,
    ) -> Result<(), Refused> {
        let (from, payload) = (pass.from, pass.segment.payload);
        let side = &mut self.control.sides[from];
        let stream = &mut self.streams[from];
        let kept = stream.base as i64;
        // What was let go has arrived; anything else that is not comparable does not pass.
        let arrived = side.acked.max(if self.control.midstream {
            0
        } else {
            side.first
        });
        if start < kept && kept > arrived || start < 0 && self.control.midstream && side.acked <= 0
        {
            return pass.refuse(StreamEvent::ReassemblyInsertInvalid);
        }
        // Receivers do not look at what they have.
        let low = start.max(kept).max(side.acked.min(end));
        if end <= low {
            if end <= kept {
                pass.event(StreamEvent::ReassemblySegmentBeforeBaseSeq);
            }
            return Ok(());
        }
        if stream.reached_depth(side.first, end, pass.options) && !side.depth_reached {
            side.depth_reached = true;
            pass.memory.totals.stream_depth_reached += 1;
            pass.event(StreamEvent::ReassemblyDepthReached);
        }
        if side.depth_reached && !pass.options.reassembly.window_beyond_depth {
            side.pass_over(start, end);
            return Ok(());
        }
        let (low, high) = (low as u64, end as u64);
        let payload = &payload[(low as i64 - start) as usize..];
        let skipped = pass.segment.payload.len() - payload.len();
        let mut different = Vec::new();
        let mut overlaps = false;
        for (at, kept) in stream.buffer.present(low, high) {
            overlaps = true;
            let at = (at - low) as usize;
            if payload[at..at + kept.len()] != *kept {
                different.push((skipped + at, kept.to_vec()));
            }
        }
        pass.memory.totals.overlap += u64::from(overlaps);
        if !different.is_empty() {
            pass.event(StreamEvent::ReassemblyOverlapDifferentData);
            pass.memory.totals.overlap_diff_data += 1;
            pass.memory.totals.rewritten += 1;
            let clear_urgent = matches!(
                &pass.outcome.disposition,
                StreamDisposition::Replace(replacement) if replacement.clear_urgent
            );
            pass.outcome.disposition = StreamDisposition::Replace(Replacement {
                bytes: different,
                clear_urgent,
            });
        }
        let in_order = low as i64 <= side.next;
        if stream.fill(pass, low, payload, in_order) {
            side.highest = side.highest.max(end);
            side.next = stream.buffer.contiguous_end(side.next as u64) as i64;
            self.current.extent = Some((low, high));
            pass.outcome.in_stream = true;
        }
        Ok(())
    }

    /// Watching: what the receiver keeps, by its policy.
    fn take_watching(&mut self, pass: &mut Pass<'_, '_>, start: i64, end: i64) {
        let from = pass.from;
        let policy = Self::policy(pass);
        let side = &mut self.control.sides[from];
        let stream = &mut self.streams[from];
        let depth = stream.depth_of(pass.options);
        let mut high = end;
        if stream.reached_depth(side.first, end, pass.options) {
            if !side.depth_reached {
                side.depth_reached = true;
                pass.memory.totals.stream_depth_reached += 1;
                pass.event(StreamEvent::ReassemblyDepthReached);
            }
            high = high.min(side.first.saturating_add_unsigned(depth));
        }
        let low = start.max(stream.base as i64).max(side.first);
        if high <= low {
            if end <= low {
                pass.event(StreamEvent::ReassemblySegmentBeforeBaseSeq);
            }
            side.pass_over(start, end);
            return;
        }
        let offset = (low - start) as usize;
        let payload = &pass.segment.payload[offset..(high - start) as usize];
        let (low, high) = (low as u64, high as u64);
        if stream.overlap(pass, low, payload) {
            let segment = (start.max(0) as u64, end as u64);
            let arrived = side.acked.max(0) as u64;
            stream.resolve(policy, segment, (low.max(arrived), high), |at, len| {
                &payload[(at - low) as usize..][..len]
            });
        }
        let in_order = low as i64 <= side.next;
        if !stream.fill(pass, low, payload, in_order) {
            return;
        }
        for &part in &pass.memory.undo.added {
            let segment = (start.max(0) as u64, end as u64);
            stream.own(Owned { part, segment });
        }
        side.highest = side.highest.max(end);
        side.next = stream.buffer.contiguous_end(side.next as u64) as i64;
        if side.depth_reached {
            side.pass_over(start, end);
        }
        self.current.extent = Some((low, high));
        pass.outcome.in_stream = true;
    }

    /// What the segment acknowledges, and the room that it offers.
    pub(super) fn take_ack(&mut self, pass: &mut Pass<'_, '_>) {
        if !pass.has(flag::ACK) {
            return;
        }
        let (from, to) = (pass.from, pass.to());
        let scale = self.control.sides[from].scale;
        let window = u32::from(pass.segment.window) << scale;
        self.control.sides[from].window = window;
        let place = self.control.sides[to].place(pass.segment.ack);
        if place > self.control.sides[to].acked {
            self.give_up_missing(pass, to, place);
        }
        let side = &mut self.control.sides[to];
        if place > side.acked && place <= side.highest {
            self.account.is_right(pass.memory, pass.now.monotonic_ns);
        }
        side.acknowledged(place, window);
        if side.probe.is_some_and(|probe| place > probe) {
            side.probe = None;
            pass.event(StreamEvent::EstAckZwpData);
        }
        for (left, right) in pass.fields.sack.iter().flatten() {
            let (left, right) = (side.place(*left), side.place(*right));
            // What was not sent cannot have arrived.
            if left < right && right <= side.highest {
                side.sacked = (left, right);
            }
        }
    }

    /// Data before `place` has arrived; what of it was not seen never will be.
    fn give_up_missing(&mut self, pass: &mut Pass<'_, '_>, to: usize, place: i64) {
        let side = &mut self.control.sides[to];
        let stream = &mut self.streams[to];
        let end = side.fin.map_or(place, |fin| place.min(fin));
        if end <= side.next {
            return;
        }
        if self.control.one_sided || side.depth_reached {
            side.next = stream.buffer.contiguous_end(end as u64) as i64;
            return;
        }
        if end > side.highest {
            pass.memory.totals.ack_unseen_data += 1;
        }
        while let Some((_, hole_end)) = stream.buffer.hole(side.next.max(0) as u64, end as u64) {
            pass.event(StreamEvent::ReassemblySeqGap);
            pass.memory.totals.reassembly_gap += 1;
            self.control.gap[to] = true;
            side.next = hole_end as i64;
        }
        side.next = stream.buffer.contiguous_end(side.next.max(end) as u64) as i64;
    }

    /// Lets go of what nobody needs any more.
    pub(super) fn let_go(&mut self, options: &StreamOptions) {
        for (number, (side, stream)) in self
            .control
            .sides
            .iter_mut()
            .zip(&mut self.streams)
            .enumerate()
        {
            let chunk = match number {
                CLIENT => options.reassembly.toserver_chunk_size,
                _ => options.reassembly.toclient_chunk_size,
            };
            let mut keep = side.acked.min(side.next);
            if options.inline {
                if self.control.one_sided {
                    keep = keep.max(side.next - ONE_SIDED_MEMORY);
                }
                keep -= i64::from(chunk);
            } else {
                let arrived = side.acked.max(0) as u64;
                let gone = stream
                    .owned
                    .partition_point(|owned| owned.part.1 <= arrived);
                stream.owned.drain(..gone);
                if options.reassembly.raw {
                    keep = keep.min(side.raw as i64);
                }
            }
            let depth = stream.depth_of(options);
            let readable = side.first.saturating_add_unsigned(depth);
            if let Some(reader) = stream.reader
                && (reader as i64) < readable
            {
                keep = keep.min(reader as i64);
            }
            if keep > stream.base as i64 {
                stream.base = keep as u64;
                stream.buffer.trim(stream.base);
                let base = stream.base;
                if let Some(urgent) = &mut stream.urgent {
                    urgent.places.retain(|&place| place >= base);
                }
            }
        }
    }
}

impl Stream {
    fn depth_of(&self, options: &StreamOptions) -> u64 {
        match self.depth.unwrap_or(options.reassembly.depth) {
            0 => u64::MAX,
            depth => depth,
        }
    }

    fn reached_depth(&self, first: i64, end: i64, options: &StreamOptions) -> bool {
        (end - first).max(0) as u64 > self.depth_of(options)
    }

    /// Puts `data` into what is empty from `at` on; notes where. False when there is no room:
    /// `in_order` if nothing before it is missing.
    fn fill(&mut self, pass: &mut Pass<'_, '_>, at: u64, data: &[u8], in_order: bool) -> bool {
        let end = at + data.len() as u64;
        while let Some((from, to)) = self.buffer.hole(at, end) {
            let mut bytes = self.buffer.cost(from, to);
            if !pass.options.inline {
                bytes += more_owned(&self.owned);
            }
            let pieces = self.buffer.pieces().len();
            let fits = match in_order {
                true => pass.memory.has_room_for_data(bytes, pass.options),
                false => pass.memory.has_room_behind_hole(bytes, pass.options),
            };
            let separate = pieces < pass.options.max_pieces() || self.touches(from, to);
            if !fits || !separate {
                // Half a segment is of no use.
                for (from, to) in pass.memory.undo.added.drain(..) {
                    self.buffer.remove(from, to);
                }
                refuse_data(pass, fits);
                return false;
            }
            self.buffer
                .fill(from, &data[(from - at) as usize..(to - at) as usize]);
            pass.memory.undo.added.push((from, to));
        }
        let pieces = self.buffer.pieces().len().min(usize::from(u16::MAX));
        self.max_pieces = self.max_pieces.max(pieces as u16);
        true
    }

    fn touches(&self, from: u64, to: u64) -> bool {
        let next = self.buffer.piece_from(from);
        next.is_some_and(|piece| piece.start() == to)
            || (from > 0 && self.buffer.piece_at(from - 1).is_some())
    }

    /// Whether data at `at` overlaps what is there; says so when it differs.
    fn overlap(&self, pass: &mut Pass<'_, '_>, at: u64, data: &[u8]) -> bool {
        let end = at + data.len() as u64;
        let (mut overlaps, mut differs) = (false, false);
        for (from, kept) in self.buffer.present(at, end) {
            overlaps = true;
            differs |= data[(from - at) as usize..][..kept.len()] != *kept;
        }
        pass.memory.totals.overlap += u64::from(overlaps);
        if differs && pass.options.reassembly.check_overlap_different_data {
            pass.memory.totals.overlap_diff_data += 1;
            pass.event(StreamEvent::ReassemblyOverlapDifferentData);
        }
        overlaps
    }

    /// Gives a later segment those parts of `within` that it wins from earlier ones.
    fn resolve<'d>(
        &mut self,
        policy: OsPolicy,
        later: Extent,
        within: Extent,
        data: impl Fn(u64, usize) -> &'d [u8],
    ) {
        let mut index = 0;
        while let Some(&owned) = self.owned.get(index) {
            let part = (owned.part.0.max(within.0), owned.part.1.min(within.1));
            if owned.part.0 >= within.1 {
                break;
            }
            index += 1;
            if part.0 >= part.1 || !later_wins(policy, owned.segment, later) {
                continue;
            }
            self.buffer
                .replace(part.0, data(part.0, (part.1 - part.0) as usize));
            let mut rest = owned;
            rest.part.1 = part.0;
            let mut after = owned;
            after.part.0 = part.1;
            self.owned[index - 1] = Owned {
                part,
                segment: later,
            };
            if rest.part.0 < rest.part.1 {
                self.owned.insert(index - 1, rest);
                index += 1;
            }
            if after.part.0 < after.part.1 {
                self.owned.insert(index, after);
            }
        }
    }

    /// Remembers whose data a new part is.
    fn own(&mut self, owned: Owned) {
        let at = self
            .owned
            .partition_point(|other| other.part.0 < owned.part.0);
        let len = self.owned.len();
        let room = grown(len, self.owned.capacity(), 1);
        self.owned.reserve_exact(room - len);
        self.owned.insert(at, owned);
    }
}

/// What one more place takes.
fn more_owned(owned: &Vec<Owned>) -> usize {
    let bytes = |places: usize| heap(places * size_of::<Owned>());
    bytes(grown(owned.len(), owned.capacity(), 1)) - bytes(owned.capacity())
}

fn refuse_data(pass: &mut Pass<'_, '_>, fits: bool) {
    pass.memory.totals.insert_data_normal_fail += 1;
    if fits {
        pass.event(StreamEvent::ReassemblyInsertLimit);
    } else {
        pass.memory.totals.segment_memcap_drop += 1;
        pass.event(StreamEvent::ReassemblyInsertMemcap);
        pass.event(StreamEvent::ReassemblyNoSegment);
    }
    pass.memory.totals.reassembly_exceptions += 1;
    let treatment = pass.options.reassembly.memcap_policy;
    except(pass, StreamCause::ReassemblyMemory, treatment);
}
