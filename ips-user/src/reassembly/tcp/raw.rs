//! What there is to inspect of a stream: windows for rules, the whole for parsers.

use std::borrow::Cow;

use super::buffer::Piece;
use super::options::StreamOptions;
use super::session::{CLIENT, Quiet, Session, SessionState, Stream, sender};
use crate::flow::PacketDirection;

/// A stretch of a stream without a hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawView<'a> {
    /// Its bytes.
    pub data: &'a [u8],
    /// Place of the first of them in the stream.
    pub offset: u64,
    /// Bytes before this one were part of an earlier view.
    pub fresh_from: usize,
    /// Inline: so many bytes from there on are the current packet's, as it is delivered where
    /// packets can be changed; 0 where some are left out.
    pub fresh_len: usize,
    /// Bytes before the view that were missed: it begins after a gap.
    pub missing: u64,
    /// Whether these are all bytes of the stream from `offset` on, none left out.
    pub whole: bool,
}

/// What is known about quiet bytes of a stream while a packet is on its way. Whatever happens to
/// the packet, only what is put back ([`Session::found_quiet`]) is known afterwards.
#[derive(Clone, Copy, Debug, Default)]
pub struct QuietBefore(Quiet);

/// What a reader of the whole stream gets next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contiguous<'a> {
    /// Data.
    Data {
        /// Place in the stream.
        offset: u64,
        /// The bytes, without those that are out of band.
        data: Cow<'a, [u8]>,
        /// What follows them.
        behind: Behind,
    },
    /// So many bytes were missed.
    Gap {
        /// Place in the stream.
        offset: u64,
        /// How many.
        len: u64,
    },
}

/// Where a window begins and ends, and where in it the packet's data begins.
#[derive(Clone, Copy, Debug)]
pub struct QuietWindow {
    from: u64,
    fresh: u64,
    to: u64,
}

impl QuietWindow {
    /// Of a view; `None` when bytes are left out of it.
    pub fn of(view: &RawView<'_>) -> Option<Self> {
        view.whole.then_some(Self {
            from: view.offset,
            fresh: view.offset + view.fresh_from as u64,
            to: view.offset + view.data.len() as u64,
        })
    }
}

impl QuietBefore {
    /// How many bytes of a view need not be searched again by the rules of this epoch: those before
    /// the packet's data that were quiet.
    pub fn of(&self, view: &RawView<'_>, epoch: u32) -> usize {
        if self.0.epoch != epoch || self.0.from() > view.offset || !view.whole {
            return 0;
        }
        let known = self.0.to.saturating_sub(view.offset);
        usize::try_from(known).map_or(0, |known| known.min(view.fresh_from))
    }
}

/// What follows data that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behind {
    /// What comes next.
    More,
    /// Bytes that were missed.
    Gap,
    /// Nothing: here is the depth.
    End,
}

impl Session {
    /// What rules have to inspect on a packet of this direction.
    ///
    /// Inline: the window around the current packet's data, as it is delivered. Watching: what
    /// was acknowledged since [`Session::raw_done`], once there is a chunk of it or the stream
    /// is about to end. `None` when there is nothing.
    pub fn raw(
        &mut self,
        direction: PacketDirection,
        options: &StreamOptions,
    ) -> Option<RawView<'_>> {
        self.view(direction, options, false)
    }

    /// The same window with out-of-band bytes in their places, as a receiver that reads them
    /// inline has it; `None` when there are none in it.
    pub fn raw_with_urgent(
        &mut self,
        direction: PacketDirection,
        options: &StreamOptions,
    ) -> Option<RawView<'_>> {
        self.view(direction, options, true)
    }

    fn view(
        &mut self,
        direction: PacketDirection,
        options: &StreamOptions,
        urgent: bool,
    ) -> Option<RawView<'_>> {
        if !options.reassembly.raw {
            return None;
        }
        let number = sender(direction);
        let (from, to, fresh, missing) = if options.inline {
            self.inline_window(number, options)?
        } else {
            self.acknowledged_window(number, options)?
        };
        let current_len = self.current_len(number, options);
        let stream = &mut self.streams[number];
        let within = |place: &u64| (from..to).contains(place);
        let has_urgent = stream.out_of_band().iter().any(within);
        if !has_urgent && urgent {
            return None;
        }
        let piece = stream.buffer.piece_at(from)?;
        let mut view = RawView {
            data: piece.slice(from, to),
            offset: from,
            fresh_from: (fresh - from) as usize,
            fresh_len: if has_urgent { 0 } else { current_len },
            missing,
            whole: !has_urgent || urgent,
        };
        if !urgent
            && has_urgent
            && let Some(out_of_band) = &mut stream.urgent
        {
            out_of_band.view.clear();
            for (place, &byte) in (from..).zip(view.data) {
                if !out_of_band.places.contains(&place) {
                    out_of_band.view.push(byte);
                } else if place < fresh {
                    view.fresh_from -= 1;
                }
            }
            view.data = &out_of_band.view;
        }
        Some(view)
    }

    /// Takes away what is known about quiet bytes of this direction.
    pub fn take_quiet(&mut self, direction: PacketDirection) -> QuietBefore {
        QuietBefore(std::mem::take(&mut self.streams[sender(direction)].quiet))
    }

    /// Puts it back: nothing was added to the stream since.
    pub fn still_quiet(&mut self, direction: PacketDirection, QuietBefore(before): QuietBefore) {
        self.streams[sender(direction)].quiet = before;
    }

    /// In the window that [`Session::raw`] showed on this packet the rules of this epoch found
    /// nothing of what they search for.
    pub fn found_quiet(
        &mut self,
        direction: PacketDirection,
        window: QuietWindow,
        QuietBefore(before): QuietBefore,
        epoch: u32,
    ) {
        let QuietWindow { from, fresh, to } = window;
        // Else something could begin before the window that nobody has seen.
        let goes_on = before.epoch == epoch && before.from() <= from && before.to >= fresh;
        let from = if goes_on { before.from() } else { from };
        self.streams[sender(direction)].quiet = Quiet {
            to,
            // Of what is longer the end is enough.
            len: u32::try_from(to - from).unwrap_or(u32::MAX),
            epoch,
        };
    }

    /// How many bytes of the current packet are in the stream, where they are looked at at once.
    fn current_len(&self, number: usize, options: &StreamOptions) -> usize {
        let extent = self.current.extent;
        let extent = extent.filter(|_| options.inline && number == self.current.from);
        extent.map_or(0, |(from, to)| (to - from) as usize)
    }

    fn inline_window(
        &self,
        number: usize,
        options: &StreamOptions,
    ) -> Option<(u64, u64, u64, u64)> {
        let (start, end) = self.current.extent?;
        if number != self.current.from {
            return None;
        }
        let chunk = u64::from(chunk_size(number, options));
        let piece = self.streams[number].buffer.piece_at(start)?;
        let from = piece.start().max(start.saturating_sub(chunk));
        Some((from, piece.end().min(end + chunk), start, 0))
    }

    fn acknowledged_window(
        &self,
        number: usize,
        options: &StreamOptions,
    ) -> Option<(u64, u64, u64, u64)> {
        let side = &self.control.sides[number];
        let arrived = if self.ended { i64::MAX } else { side.acked };
        let arrived = arrived.max(0) as u64;
        let ready = self.ended
            || side.flush
            || side.depth_reached
            || matches!(
                self.control.state,
                SessionState::LastAck
                    | SessionState::CloseWait
                    | SessionState::Closing
                    | SessionState::Closed
            )
            || arrived.saturating_sub(side.raw) >= u64::from(chunk_size(number, options));
        if !ready {
            return None;
        }
        let piece = self.streams[number].buffer.piece_from(side.raw)?;
        let from = piece.start().max(side.raw);
        let to = piece.end().min(arrived);
        (from < to).then_some((from, to, from, from - side.raw))
    }

    /// The view that [`Session::raw`] gave last was inspected. Watching, there may be another
    /// one then; inline there is none until the next packet.
    pub fn raw_done(&mut self, direction: PacketDirection, options: &StreamOptions) {
        let number = sender(direction);
        if options.inline {
            self.current.extent = None;
            return;
        }
        if let Some((_, to, _, _)) = self.acknowledged_window(number, options) {
            self.control.sides[number].raw = to;
        }
        if self.acknowledged_window(number, options).is_none() {
            self.control.sides[number].flush = false;
        }
    }

    /// What has arrived of this direction shall be inspected with its next packet, however
    /// little it is: a parser has seen the end of a message.
    pub fn flush_raw(&mut self, direction: PacketDirection) {
        self.control.sides[sender(direction)].flush = true;
    }

    /// There will be no more packets: everything that was not inspected is to be now, whether
    /// acknowledged or not.
    pub fn finish(&mut self) {
        self.ended = true;
        self.current.extent = None;
    }

    /// Whether something of this direction is left to inspect after [`Session::finish`].
    pub fn is_left(&self, direction: PacketDirection, options: &StreamOptions) -> bool {
        !options.inline
            && options.reassembly.raw
            && self
                .acknowledged_window(sender(direction), options)
                .is_some()
    }

    /// Somebody reads this direction as a whole, from where it can be read: what has not been
    /// read is kept. Up to `depth` bytes, zero for all, instead of the configured depth.
    pub fn start_reading(&mut self, direction: PacketDirection, depth: Option<u64>) {
        let number = sender(direction);
        let first = self.control.sides[number].first.max(0) as u64;
        let stream = &mut self.streams[number];
        stream.reader = Some(first.max(stream.base));
        stream.depth = depth;
    }

    /// Whether somebody does.
    pub fn is_read(&self, direction: PacketDirection) -> bool {
        self.streams[sender(direction)].reader.is_some()
    }

    /// Whether there is nothing more to read, and there will be nothing.
    pub fn is_read_out(&self, direction: PacketDirection, options: &StreamOptions) -> bool {
        let number = sender(direction);
        let side = &self.control.sides[number];
        let Some(reader) = self.streams[number].in_band_from() else {
            return false;
        };
        if reader >= self.readable_end(number, options) {
            return true;
        }
        let reader = i64::try_from(reader).unwrap_or(i64::MAX);
        side.fin.is_some_and(|fin| reader >= fin)
            || self.control.state == SessionState::Closed && reader >= side.next
    }

    /// Whether nobody has read anything of it.
    pub fn is_unread(&self, direction: PacketDirection) -> bool {
        let number = sender(direction);
        let first = self.control.sides[number].first.max(0) as u64;
        let reader = self.streams[number].reader;
        reader.is_none_or(|reader| reader <= first)
    }

    /// Nobody reads this direction any more.
    pub fn stop_reading(&mut self, direction: PacketDirection) {
        self.streams[sender(direction)].reader = None;
    }

    /// What comes next for the reader: inline what is delivered in order, watching what is
    /// acknowledged.
    pub fn contiguous(
        &self,
        direction: PacketDirection,
        options: &StreamOptions,
    ) -> Option<Contiguous<'_>> {
        let number = sender(direction);
        let side = &self.control.sides[number];
        let stream = &self.streams[number];
        let offset = stream.in_band_from()?;
        if self.control.one_sided && side.flags == 0 {
            // Of what goes another way nothing is missing.
            return None;
        }
        let mut end = match options.inline {
            true => side.next,
            false if self.ended => i64::MAX,
            false => side.acked.min(side.next),
        }
        .max(0) as u64;
        let readable_end = self.readable_end(number, options);
        end = end.min(readable_end);
        let piece = stream.buffer.piece_from(offset);
        let data_from = piece.map_or(end, Piece::start);
        match piece {
            Some(piece) if data_from <= offset && offset < end => {
                let data_to = piece.end().min(end);
                let data = piece.slice(offset, data_to);
                let behind = match data_to {
                    to if to >= readable_end => Behind::End,
                    // Up to `next` a hole has been given up.
                    to if to < end.min(side.next.max(0) as u64) => Behind::Gap,
                    _ => Behind::More,
                };
                Some(Contiguous::Data {
                    offset,
                    data: stream.in_band(offset, data),
                    behind,
                })
            }
            _ => {
                let gap_end = data_from.min(end).min(side.next.max(0) as u64);
                (gap_end > offset).then(|| Contiguous::Gap {
                    offset,
                    len: gap_end - offset,
                })
            }
        }
    }

    /// Nothing from there on is put together.
    fn readable_end(&self, number: usize, options: &StreamOptions) -> u64 {
        let depth = self.streams[number]
            .depth
            .unwrap_or(options.reassembly.depth);
        match depth {
            0 => u64::MAX,
            depth => (self.control.sides[number].first.max(0) as u64).saturating_add(depth),
        }
    }

    /// The reader has taken so many bytes.
    pub fn read(&mut self, direction: PacketDirection, len: u64) {
        let stream = &mut self.streams[sender(direction)];
        if let Some(mut to) = stream.reader {
            let mut left = len;
            while let Some(next) = stream.next_out_of_band(to)
                && left > next - to
            {
                left -= next - to;
                to = next + 1;
            }
            stream.reader = Some(to.saturating_add(left));
        }
    }

    /// A gap of that length, which the reader was shown, is behind it.
    pub fn skip(&mut self, direction: PacketDirection, len: u64) {
        let stream = &mut self.streams[sender(direction)];
        if let Some(from) = stream.in_band_from() {
            stream.reader = Some(from.saturating_add(len));
        }
    }

    /// Whether what may have been read of a direction was not what its receiver has, which begins
    /// anew: nobody reads either direction any more. It is asked once.
    pub fn has_begun_anew(&mut self) -> bool {
        let streams = self.streams.iter_mut();
        let anew = streams.fold(false, |any, it| any | std::mem::take(&mut it.begun_anew));
        if anew {
            for direction in PacketDirection::ALL {
                self.stop_reading(direction);
            }
        }
        anew
    }
}

impl Stream {
    /// Nothing that has come counts.
    pub(super) fn begin_anew(&mut self) {
        self.buffer.clear();
        // Also what was not read may have told somebody something.
        self.reader = None;
        self.begun_anew = true;
    }

    /// The next place out of band from `from` on.
    fn next_out_of_band(&self, from: u64) -> Option<u64> {
        let places = self.out_of_band().iter().copied();
        places.filter(|place| *place >= from).min()
    }

    /// Where the reader goes on.
    fn in_band_from(&self) -> Option<u64> {
        let mut from = self.reader?;
        while self.next_out_of_band(from) == Some(from) {
            from += 1;
        }
        Some(from)
    }

    fn in_band<'a>(&self, from: u64, data: &'a [u8]) -> Cow<'a, [u8]> {
        let to = from + data.len() as u64;
        if self.next_out_of_band(from).is_none_or(|next| next >= to) {
            return Cow::Borrowed(data);
        }
        let mut in_band = Vec::with_capacity(data.len());
        let mut at = from;
        while let Some(next) = self.next_out_of_band(at).filter(|next| *next < to) {
            in_band.extend_from_slice(&data[(at - from) as usize..(next - from) as usize]);
            at = next + 1;
        }
        in_band.extend_from_slice(&data[(at - from) as usize..]);
        Cow::Owned(in_band)
    }
}

fn chunk_size(number: usize, options: &StreamOptions) -> u32 {
    match number {
        CLIENT => options.reassembly.toserver_chunk_size,
        _ => options.reassembly.toclient_chunk_size,
    }
}
