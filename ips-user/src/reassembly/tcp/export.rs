//! A session as bytes, for the process that takes its flow over.
//!
//! Both processes run on one machine since one boot, so times stay valid. What a newer writer
//! adds needs another [`FORMAT`]: a reader that does not know it takes the flow without the
//! session.

use super::buffer::Buffer;
use super::data::Owned;
use super::memory::StreamMemory;
use super::options::StreamOptions;
use super::session::{Control, Current, OutOfBand, Session, SessionState, Stream};
use super::side::Side;

/// Number of the format.
const FORMAT: u16 = 2;

/// Most bytes of one session that are handed over; of a longer one, the data is left behind
/// and shows as a gap.
const MAX: usize = 64 << 20;

/// A value that is written and read back.
trait Wire: Sized {
    fn put(&self, out: &mut Vec<u8>);
    fn get(bytes: &mut &[u8]) -> Option<Self>;
}

macro_rules! numbers {
    ($($type:ty)*) => {$(
        impl Wire for $type {
            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }

            fn get(bytes: &mut &[u8]) -> Option<Self> {
                let (value, rest) = bytes.split_first_chunk()?;
                *bytes = rest;
                Some(Self::from_le_bytes(*value))
            }
        }
    )*};
}

numbers! { u8 u16 u32 u64 i64 }

impl Wire for bool {
    fn put(&self, out: &mut Vec<u8>) {
        u8::from(*self).put(out);
    }

    fn get(bytes: &mut &[u8]) -> Option<Self> {
        match u8::get(bytes)? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
}

impl<T: Wire> Wire for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.is_some().put(out);
        if let Some(value) = self {
            value.put(out);
        }
    }

    fn get(bytes: &mut &[u8]) -> Option<Self> {
        match bool::get(bytes)? {
            true => T::get(bytes).map(Some),
            false => Some(None),
        }
    }
}

impl<T: Wire> Wire for Box<T> {
    fn put(&self, out: &mut Vec<u8>) {
        (**self).put(out);
    }

    fn get(bytes: &mut &[u8]) -> Option<Self> {
        T::get(bytes).map(Self::new)
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn put(&self, out: &mut Vec<u8>) {
        (self.len() as u32).put(out);
        for value in self {
            value.put(out);
        }
    }

    fn get(bytes: &mut &[u8]) -> Option<Self> {
        let len = u32::get(bytes)? as usize;
        // Nothing that is written takes less than a byte.
        if len > bytes.len() {
            return None;
        }
        (0..len).map(|_| T::get(bytes)).collect()
    }
}

impl<T: Wire, U: Wire> Wire for (T, U) {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        self.1.put(out);
    }

    fn get(bytes: &mut &[u8]) -> Option<Self> {
        Some((T::get(bytes)?, U::get(bytes)?))
    }
}

impl<T: Wire> Wire for [T; 2] {
    fn put(&self, out: &mut Vec<u8>) {
        self[0].put(out);
        self[1].put(out);
    }

    fn get(bytes: &mut &[u8]) -> Option<Self> {
        Some([T::get(bytes)?, T::get(bytes)?])
    }
}

impl Wire for SessionState {
    fn put(&self, out: &mut Vec<u8>) {
        (*self as u8).put(out);
    }

    fn get(bytes: &mut &[u8]) -> Option<Self> {
        Self::ALL.get(usize::from(u8::get(bytes)?)).copied()
    }
}

impl Wire for Buffer {
    fn put(&self, out: &mut Vec<u8>) {
        (self.pieces().len() as u32).put(out);
        for piece in self.pieces() {
            piece.start().put(out);
            (piece.data().len() as u32).put(out);
            out.extend_from_slice(piece.data());
        }
    }

    fn get(bytes: &mut &[u8]) -> Option<Self> {
        let mut buffer = Self::default();
        let mut end = None;
        for _ in 0..u32::get(bytes)? {
            let start = u64::get(bytes)?;
            let len = u32::get(bytes)? as usize;
            let (data, rest) = bytes.split_at_checked(len)?;
            *bytes = rest;
            if data.is_empty() || start > i64::MAX as u64 || end.is_some_and(|end| start <= end) {
                return None;
            }
            end = Some(start + data.len() as u64);
            buffer.fill(start, data);
        }
        Some(buffer)
    }
}

macro_rules! records {
    ($($type:ty { $($field:ident),* $(,)? } $(else $other:ident)?;)*) => {$(
        impl Wire for $type {
            fn put(&self, out: &mut Vec<u8>) {
                $(self.$field.put(out);)*
            }

            fn get(bytes: &mut &[u8]) -> Option<Self> {
                Some(Self {
                    $($field: Wire::get(bytes)?,)*
                    $(..$other())?
                })
            }
        }
    )*};
}

records! {
    Side {
        isn, known, first, next, highest, acked, edge, span, window, scale, offered_scale,
        offered_timestamps, offered_sack, signed, syn_data, fast_open, timestamp, timestamp_ns,
        sacked, fin, reset, flags, depth_reached, urgent, last_urgent, probe, raw, flush,
    };
    Control {
        state, sides, four_way, midstream, from_synack, one_sided, again, confirmed, client_first, gap,
    };
    Owned { part, segment };
    Stream { buffer, base, owned, urgent, reader, depth, max_pieces } else default;
    OutOfBand { places } else default;
}

/// Places of streams are below this, so that sums of them do not overflow.
const PLACES: u64 = 1 << 61;

fn is_sound_side(side: &Side) -> bool {
    let places = [
        side.first,
        side.next,
        side.highest,
        side.acked,
        side.span,
        side.sacked.0,
        side.sacked.1,
        side.fin.unwrap_or_default(),
        side.probe.unwrap_or_default(),
        side.last_urgent.unwrap_or_default(),
    ];
    let is_place = |place: &i64| place.unsigned_abs() < PLACES;
    let scales = [Some(side.scale), side.offered_scale];
    places.iter().all(is_place)
        && side.edge.unsigned_abs() <= u64::MAX / 4
        && side.raw < PLACES
        && scales.iter().flatten().all(|&scale| scale <= 14)
}

fn is_sound_stream(stream: &Stream) -> bool {
    let mut end = 0;
    let owned = stream.owned.iter().all(|Owned { part, segment }| {
        let in_order = end <= part.0 && part.0 < part.1 && part.1 < PLACES;
        end = part.1;
        in_order && segment.0.max(segment.1) < PLACES
    });
    let pieces = stream.buffer.pieces();
    owned
        && pieces.last().is_none_or(|piece| piece.end() < PLACES)
        && stream.base < PLACES
        && stream.reader.is_none_or(|reader| reader < PLACES)
        && stream.out_of_band().iter().all(|&place| place < PLACES)
}

fn default<T: Default>() -> T {
    T::default()
}

impl Session {
    /// Writes it to the end of `out`.
    pub fn export(&self, out: &mut Vec<u8>) {
        let begin = out.len();
        FORMAT.put(out);
        self.control.put(out);
        self.queued.put(out);
        self.streams.put(out);
        if out.len() - begin > MAX {
            out.truncate(begin);
            let mut emptied = self.clone();
            for stream in &mut emptied.streams {
                stream.buffer.clear();
                stream.owned.clear();
            }
            emptied.export(out);
        }
    }

    /// Reads one that was written. `None` when it is in another format, damaged, or does not
    /// fit into `memory`.
    pub fn import(
        mut bytes: &[u8],
        options: &StreamOptions,
        memory: &mut StreamMemory,
    ) -> Option<Self> {
        let bytes = &mut bytes;
        if u16::get(bytes)? != FORMAT {
            return None;
        }
        let control = Control::get(bytes)?;
        let queued: Vec<Side> = Vec::get(bytes)?;
        let streams: [Stream; 2] = Wire::get(bytes)?;
        let data: usize = streams.iter().map(|stream| stream.buffer.allocated()).sum();
        let sound = bytes.is_empty()
            && control.sides.iter().chain(&queued).all(is_sound_side)
            && streams.iter().all(is_sound_stream)
            && memory.has_room_for_session(Self::BYTES, options)
            && memory.has_room_for_data(data, options);
        if !sound {
            return None;
        }
        let mut session = Self {
            control,
            streams,
            queued,
            current: Current::default(),
            ended: false,
            announced: false,
            missed: false,
            account: memory.open(Self::BYTES),
        };
        session.settle_account();
        Some(session)
    }
}
