//! What sessions and streams take of the memory, bounded; and what the engine counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::options::StreamOptions;
use super::overlap::Extent;
use super::session::Control;

macro_rules! counters {
    ($($field:ident $name:literal $text:literal;)*) => {
        /// Totals of one worker's stream engine, under Suricata's names.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct StreamCounters {
            $(#[doc = $text] pub $field: u64,)*
        }

        impl StreamCounters {
            /// Name in `stats` records, and value, of each.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$(($name, self.$field),)*].into_iter()
            }
        }
    };
}

counters! {
    syn "tcp.syn" "SYN packets.";
    synack "tcp.synack" "SYN-ACK packets.";
    rst "tcp.rst" "RST packets.";
    urg "tcp.urg" "Packets with the urgent flag.";
    urgent_oob_data "tcp.urgent_oob_data" "Bytes taken as out of band.";
    urgent_cleared "tcp.urgent_cleared" "Packets from which the urgent flag was taken.";
    sessions "tcp.sessions" "Connections tracked, ever.";
    active_sessions "tcp.active_sessions" "Connections tracked now.";
    ssn_memcap_drop "tcp.ssn_memcap_drop" "Connections not tracked: memory cap.";
    ssn_from_cache "tcp.ssn_from_cache" "Always zero: there is no pool of sessions.";
    ssn_from_pool "tcp.ssn_from_pool" "Always zero: there is no pool of sessions.";
    pseudo "tcp.pseudo" "Inspections of what was left at the end of a stream.";
    invalid_checksum "tcp.invalid_checksum" "Packets with a wrong checksum.";
    midstream_pickups "tcp.midstream_pickups" "Connections tracked from their middle.";
    picked_up_again "tcp.picked_up_again" "Of those: tracked before, until packets went another way.";
    pkt_on_wrong_thread "tcp.pkt_on_wrong_thread" "Packets of another worker's flows.";
    ack_unseen_data "tcp.ack_unseen_data" "Acknowledgements of data that was not seen.";
    segment_memcap_drop "tcp.segment_memcap_drop" "Segments not kept: memory cap.";
    segment_from_cache "tcp.segment_from_cache" "Always zero: there is no pool of segments.";
    segment_from_pool "tcp.segment_from_pool" "Always zero: there is no pool of segments.";
    stream_depth_reached "tcp.stream_depth_reached" "Streams that reached their depth.";
    reassembly_gap "tcp.reassembly_gap" "Gaps in streams.";
    overlap "tcp.overlap" "Segments that overlap data seen before.";
    overlap_diff_data "tcp.overlap_diff_data" "Of those: with other data.";
    insert_data_normal_fail "tcp.insert_data_normal_fail" "Data that could not be kept.";
    insert_data_overlap_fail "tcp.insert_data_overlap_fail" "Overlapping data that could not be kept.";
    rewritten "tcp.rewritten" "Packets rewritten to what was inspected before.";
    invalid_dropped "tcp.invalid_dropped" "Packets dropped because the receiver would not take them.";
    ssn_relieved "tcp.ssn_relieved" "Connections given up to make room.";
    ssn_compacted "tcp.ssn_compacted" "Connections that gave back spare memory.";
    memuse "tcp.memuse" "Bytes that sessions take.";
    memuse_max "tcp.memuse_max" "Most bytes that sessions have taken.";
    reassembly_memuse "tcp.reassembly_memuse" "Bytes that streams take.";
    reassembly_memuse_max "tcp.reassembly_memuse_max" "Most bytes that streams have taken.";
    midstream_exceptions "exception_policy.tcp.midstream" "Midstream policy applied.";
    ssn_memcap_exceptions "exception_policy.tcp.ssn_memcap" "Session memory policy applied.";
    reassembly_exceptions "exception_policy.tcp.reassembly" "Reassembly memory policy applied.";
}

#[derive(Debug, Default)]
struct Usage {
    sessions: AtomicU64,
    session_bytes: AtomicU64,
    stream_bytes: AtomicU64,
    /// The most that each of these was.
    most_session_bytes: AtomicU64,
    most_stream_bytes: AtomicU64,
}

/// Adds, and keeps the highest sum.
fn add(to: &AtomicU64, most: &AtomicU64, more: u64) {
    let sum = to.fetch_add(more, Ordering::Relaxed) + more;
    if sum > most.load(Ordering::Relaxed) {
        most.store(sum, Ordering::Relaxed);
    }
}

/// Which part of the memory for data is for what comes in its order.
const IN_ORDER: u64 = 8;

/// What passes by while others have a queue's packets, or while the queue is full, has arrived
/// after this time.
pub(super) const DETOUR_NS: u64 = 1_000_000_000;

/// The memory of one worker's sessions, and its counters.
#[derive(Debug, Default)]
pub struct StreamMemory {
    usage: Arc<Usage>,
    /// Totals so far; those of use are filled in by [`StreamMemory::counters`].
    pub(super) totals: StreamCounters,
    /// How to take back the last packet.
    pub(super) undo: Undo,
    /// Number of the last session.
    serial: u64,
    /// See [`StreamMemory::set_detours`].
    detours: u32,
    /// When that changed last.
    detoured_ns: u64,
}

/// What the last packet has changed. Kept once, not in each session.
#[derive(Debug, Default)]
pub(super) struct Undo {
    /// The session whose packet it was.
    pub(super) session: u64,
    pub(super) from: usize,
    pub(super) control: Control,
    /// What was put into its stream.
    pub(super) added: Vec<Extent>,
    /// How many out-of-band bytes its stream had.
    pub(super) out_of_band: usize,
}

impl StreamMemory {
    /// With nothing in use.
    pub fn new() -> Self {
        Self::default()
    }

    /// Totals so far.
    pub fn counters(&self) -> StreamCounters {
        let load = |value: &AtomicU64| value.load(Ordering::Relaxed);
        StreamCounters {
            active_sessions: load(&self.usage.sessions),
            memuse: load(&self.usage.session_bytes),
            memuse_max: load(&self.usage.most_session_bytes),
            reassembly_memuse: load(&self.usage.stream_bytes),
            reassembly_memuse_max: load(&self.usage.most_stream_bytes),
            ..self.totals
        }
    }

    /// How often packets may have gone another way until now, or past everybody: what sessions
    /// know from before an increase may be out of date.
    pub fn set_detours(&mut self, detours: u64, now_ns: u64) {
        // Not all of them: that is for sessions that are known to have missed something.
        let detours = detours as u32 & (u32::MAX >> 1);
        if detours != self.detours {
            self.detours = detours;
            self.detoured_ns = now_ns;
        }
    }

    /// Counts an inspection of what was left at the end of a stream.
    pub fn count_pseudo(&mut self) {
        self.totals.pseudo += 1;
    }

    /// Counts what was given up and given back to make room.
    pub(crate) fn count_relief(&mut self, relieved: usize, compacted: usize) {
        self.totals.ssn_relieved += relieved as u64;
        self.totals.ssn_compacted += compacted as u64;
    }

    /// Whether one more session of this size fits.
    pub(super) fn has_room_for_session(&self, bytes: usize, options: &StreamOptions) -> bool {
        let used = self.usage.session_bytes.load(Ordering::Relaxed);
        options.memcap == 0 || used + bytes as u64 <= options.memcap
    }

    /// Whether so many more bytes of stream data fit.
    pub(super) fn has_room_for_data(&self, bytes: usize, options: &StreamOptions) -> bool {
        let used = self.usage.stream_bytes.load(Ordering::Relaxed);
        let cap = options.reassembly.memcap;
        cap == 0 || used + bytes as u64 <= cap
    }

    /// The same of data behind a hole: an eighth of the memory is for what comes in its order, so
    /// that those who leave holes do not keep the others from going on.
    pub(super) fn has_room_behind_hole(&self, bytes: usize, options: &StreamOptions) -> bool {
        let kept_free = options.reassembly.memcap / IN_ORDER;
        self.has_room_for_data(bytes.saturating_add(kept_free as usize), options)
    }

    /// Whether it is time to let go of sessions that are over.
    pub fn is_short(&self, options: &StreamOptions) -> bool {
        self.is_short_of_sessions(options) || self.is_short_of_data(options)
    }

    /// Whether another session would not fit any more.
    pub(crate) fn is_short_of_sessions(&self, options: &StreamOptions) -> bool {
        !self.has_room_for_session(super::Session::BYTES, options)
    }

    /// Whether the data of one more packet would not fit any more, wherever it belongs.
    pub(crate) fn is_short_of_data(&self, options: &StreamOptions) -> bool {
        !self.has_room_behind_hole(64 << 10, options)
    }

    pub(super) fn open(&mut self, bytes: usize) -> Account {
        self.serial += 1;
        let account = Account {
            usage: Arc::clone(&self.usage),
            serial: self.serial,
            session: bytes as u32,
            stream: 0,
            detours: self.detours,
        };
        account.take();
        account
    }
}

/// What one session has of the memory; given back when the session ends.
#[derive(Debug)]
pub(super) struct Account {
    usage: Arc<Usage>,
    /// Number of the session.
    pub(super) serial: u64,
    session: u32,
    /// Detours until the session was known to be right.
    detours: u32,
    stream: u64,
}

impl Account {
    /// Whether packets may have gone past this session since it was known to be right.
    pub(super) fn may_have_missed(&self, memory: &StreamMemory) -> bool {
        self.detours != memory.detours
    }

    /// A packet is going past this session.
    pub(super) fn misses(&mut self) {
        self.detours = u32::MAX;
    }

    /// Both ends agree with what is known. That says nothing while what went another way may be
    /// on its way still.
    pub(super) fn is_right(&mut self, memory: &StreamMemory, now_ns: u64) {
        if now_ns.saturating_sub(memory.detoured_ns) >= DETOUR_NS {
            self.detours = memory.detours;
        }
    }

    /// The session's buffers take so many bytes now.
    pub(super) fn set_stream_bytes(&mut self, bytes: usize) {
        let bytes = bytes as u64;
        if bytes > self.stream {
            let more = bytes - self.stream;
            let usage = &self.usage;
            add(&usage.stream_bytes, &usage.most_stream_bytes, more);
        } else if bytes < self.stream {
            let less = self.stream - bytes;
            self.usage.stream_bytes.fetch_sub(less, Ordering::Relaxed);
        }
        self.stream = bytes;
    }

    pub(super) fn stream_bytes(&self) -> u64 {
        self.stream
    }

    fn take(&self) {
        self.usage.sessions.fetch_add(1, Ordering::Relaxed);
        let usage = &self.usage;
        add(
            &usage.session_bytes,
            &usage.most_session_bytes,
            self.session.into(),
        );
        add(&usage.stream_bytes, &usage.most_stream_bytes, self.stream);
    }
}

impl Clone for Account {
    fn clone(&self) -> Self {
        let copy = Self {
            usage: Arc::clone(&self.usage),
            ..*self
        };
        copy.take();
        copy
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.usage.sessions.fetch_sub(1, Ordering::Relaxed);
        self.usage
            .session_bytes
            .fetch_sub(self.session.into(), Ordering::Relaxed);
        self.usage
            .stream_bytes
            .fetch_sub(self.stream, Ordering::Relaxed);
    }
}

/// Two sessions are the same whoever pays for them.
impl PartialEq for Account {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

impl Eq for Account {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_session_takes_comes_back_when_it_ends() {
        let mut memory = StreamMemory::new();
        let used = |memory: &StreamMemory| {
            let counters = memory.counters();
            (
                counters.active_sessions,
                counters.memuse,
                counters.reassembly_memuse,
            )
        };
        let mut first = memory.open(100);
        first.set_stream_bytes(50);
        let copy = first.clone();
        assert_eq!(used(&memory), (2, 200, 100));
        first.set_stream_bytes(10);
        assert_eq!(used(&memory), (2, 200, 60));
        drop(first);
        drop(copy);
        assert_eq!(used(&memory), (0, 0, 0));
    }

    #[test]
    fn caps_are_caps_and_zero_is_none() {
        let mut memory = StreamMemory::new();
        let mut options = StreamOptions {
            memcap: 150,
            ..StreamOptions::default()
        };
        options.reassembly.memcap = 10;
        let mut account = memory.open(100);
        assert!(memory.has_room_for_session(50, &options));
        assert!(!memory.has_room_for_session(51, &options));
        account.set_stream_bytes(4);
        assert!(memory.has_room_for_data(6, &options) && !memory.has_room_for_data(7, &options));
        options.reassembly.memcap = 80;
        assert!(memory.has_room_behind_hole(66, &options));
        assert!(!memory.has_room_behind_hole(67, &options));
        assert!(memory.has_room_for_data(76, &options));
        // Others are let go before data behind a hole is refused.
        options.reassembly.memcap = 1 << 20;
        account.set_stream_bytes(832 << 10);
        assert!(!memory.is_short_of_data(&options));
        account.set_stream_bytes(833 << 10);
        assert!(memory.is_short_of_data(&options));
        assert!(memory.has_room_for_data(64 << 10, &options));
        (options.memcap, options.reassembly.memcap) = (0, 0);
        assert!(memory.has_room_behind_hole(usize::MAX / 2, &options));
        assert!(memory.has_room_for_session(usize::MAX / 2, &options));
        assert!(memory.has_room_for_data(usize::MAX / 2, &options));
    }
}
