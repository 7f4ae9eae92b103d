//! The workers' counters, in memory that outlives each worker.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use ips_common::{Received, WORKER_SLOTS};

use super::figures::FIGURES;
use crate::supervisor::seat::Seat;
use crate::sys::shared_words::SharedWords;

/// More than any batch has.
const MOST_UNNOTED: u64 = 1 << 20;

/// One for each slot of the `WORKERS` map.
const ROWS: usize = WORKER_SLOTS as usize;
/// Words of a row.
const WIDTH: usize = Cell::ALL.len() + FIGURES;

macro_rules! cells {
    ($($(#[$doc:meta])* $cell:ident = $name:literal,)*) => {
        /// One number of a worker.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub enum Cell { $($(#[$doc])* $cell,)* }

        impl Cell {
            /// Every cell, in the order of a row.
            pub const ALL: &[Self] = &[$(Self::$cell,)*];

            /// Its name in `sluice status --json`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$cell => $name,)* }
            }
        }
    };
}

cells! {
    /// Packets taken from the queue. Written before the packets are inspected.
    Received = "received",
    /// Verdict accept, without replacements and what was shed.
    Accepted = "accepted",
    /// Verdict drop, without what was shed.
    Dropped = "dropped",
    /// Accepted with a new payload.
    Replaced = "replaced",
    /// Settled by policy after a worker died with them in hand.
    Settled = "settled",
    /// Went by `exceptions.overload`, without inspection.
    Shed = "shed",
    /// Of these: accepted. Not in [`Cell::Accepted`].
    ShedAccepted = "shed_accepted",
    /// Of these: dropped. Not in [`Cell::Dropped`].
    ShedDropped = "shed_dropped",
    /// Receive calls that brought packets.
    Batches = "batches",
    /// Bytes inspected.
    Bytes = "bytes",
    /// Messages from the kernel without a packet id.
    Undecodable = "undecodable",
    /// Full receive buffers.
    Overruns = "overruns",
    /// Verdicts that the kernel refused.
    Refused = "refused",
    /// Packets that are no valid IP.
    Invalid = "invalid",
    /// Packets that went by `exceptions.undecodable`.
    ExceptionUndecodable = "exception_undecodable",
    /// Of these: dropped.
    InvalidDropped = "invalid_dropped",
    /// Packets that went by `exceptions.flow_memory`.
    ExceptionFlowMemory = "exception_flow_memory",
    /// Of these: dropped.
    FlowMemoryDropped = "flow_memory_dropped",
    /// Packets accepted by a pass rule, the rest of passed flows included.
    Passed = "passed",
    /// Alerts raised.
    Alerts = "alerts",
    /// Alerts not raised because one packet had too many.
    AlertsSuppressed = "alerts_suppressed",
    /// Rules given up on one packet because their contents took too many searches.
    SearchesGivenUp = "searches_given_up",
    /// Packets for which rules were left out because those before had taken too long.
    OutOfTime = "out_of_time",
    /// Packets dropped by a rule.
    RuleDropped = "rule_dropped",
    /// Packets of dropped flows.
    FlowDropped = "flow_dropped",
    /// Packets answered with a reset or an unreachable.
    Rejected = "rejected",
    /// Resets and unreachables that the rejecter could not take.
    RejectsLost = "rejects_lost",
    /// Flows remembered now.
    Flows = "flows",
    /// Flows seen.
    FlowsCreated = "flows_created",
    /// Flows forgotten because they were idle.
    FlowsExpired = "flows_expired",
    /// Flows forgotten early because the table was full.
    FlowsEvicted = "flows_evicted",
    /// Flows that have had packets in both directions.
    FlowsBothWays = "flows_both_ways",
    /// TCP flows learnt from the middle of a connection.
    FlowsMidstream = "flows_midstream",
    /// Events handed to the writer.
    Events = "events",
    /// Events lost because the writer's queue was full.
    EventsLost = "events_lost",
    /// Packets not inspected because workers died of their flows: they went by
    /// `exceptions.quarantine`. Also accepted or dropped.
    Quarantined = "quarantined",
    /// Of these: dropped.
    QuarantineDropped = "quarantine_dropped",
    /// Convictions asked for.
    Convictions = "convictions",
    /// Convictions that could not be asked for.
    ConvictionsLost = "convictions_lost",
    /// Fragments seen.
    Fragments = "fragments",
    /// Datagrams put together from them.
    Reassembled = "reassembled",
    /// Fragments that contradict others or cannot be right, and are dropped.
    FragmentsRefused = "fragments_refused",
    /// Datagrams that were not put together: incomplete for too long, or no room.
    DatagramsGivenUp = "datagrams_given_up",
    /// Datagrams incomplete or remembered now. Not handed over to a successor.
    Datagrams = "datagrams",
    /// Fragments that went by `exceptions.defrag_memory`.
    ExceptionDefragMemory = "exception_defrag_memory",
    /// Of these: dropped.
    DefragMemoryDropped = "defrag_memory_dropped",
    /// Fragments that went by `exceptions.fragment_order`.
    ExceptionFragmentOrder = "exception_fragment_order",
    /// Of these: dropped.
    FragmentOrderDropped = "fragment_order_dropped",
    /// Packets that went by `exceptions.inspection_limit`.
    ExceptionInspectionLimit = "exception_inspection_limit",
    /// Of these: dropped.
    InspectionLimitDropped = "inspection_limit_dropped",
    /// Packets that went by `engine.stream.midstream-policy`.
    ExceptionMidstream = "exception_midstream",
    /// Of these: dropped.
    MidstreamDropped = "midstream_dropped",
    /// Packets that went by `engine.stream.memcap-policy`.
    ExceptionStreamMemory = "exception_stream_memory",
    /// Of these: dropped.
    StreamMemoryDropped = "stream_memory_dropped",
    /// Packets that went by `engine.stream.reassembly.memcap-policy`.
    ExceptionReassemblyMemory = "exception_reassembly_memory",
    /// Of these: dropped.
    ReassemblyMemoryDropped = "reassembly_memory_dropped",
    /// Packets that went by `engine.app-layer.error-policy`.
    ExceptionAppLayerError = "exception_app_layer_error",
    /// Of these: dropped.
    AppLayerErrorDropped = "app_layer_error_dropped",
    /// Segments dropped because their receiver would not take them.
    StreamDropped = "stream_dropped",
    /// Packets in which a rule wanted to replace something that cannot be.
    NotReplaced = "not_replaced",
    /// Segments rewritten to what was inspected before.
    StreamsRewritten = "streams_rewritten",
    /// Holes in streams that nobody will fill.
    StreamGaps = "stream_gaps",
    /// TCP connections tracked now.
    Sessions = "sessions",
    /// Bytes that they take.
    SessionBytes = "session_bytes",
    /// Bytes that their data takes.
    StreamBytes = "stream_bytes",
    /// Bytes that flows' applications take.
    ApplicationBytes = "application_bytes",
    /// Of those: HTTP.
    HttpBytes = "http_bytes",
    /// Bytes that flows take.
    FlowBytes = "flow_bytes",
    /// New flows without room in the table.
    FlowsRefused = "flows_refused",
    /// How often flows had to make room for others, after a time in which none had to.
    FlowEmergencies = "flow_emergencies",
    /// How often that was over.
    FlowRecoveries = "flow_recoveries",
    /// TCP connections not tracked: no memory.
    SessionsRefused = "sessions_refused",
    /// TCP connections given up to make room for others: over, or never complete.
    SessionsRelieved = "sessions_relieved",
    /// Segments not kept: no memory.
    SegmentsRefused = "segments_refused",
    /// Bytes that datagrams take which are being put together.
    DatagramBytes = "datagram_bytes",
    /// Fragments without room: memory, datagrams, fragments.
    DefragMemoryReached = "defrag_memory_reached",
    /// See [`Cell::DefragMemoryReached`].
    DefragTrackersReached = "defrag_trackers_reached",
    /// See [`Cell::DefragMemoryReached`].
    DefragFragmentsReached = "defrag_fragments_reached",
    /// Bytes of what rules have noted about hosts, and what was not noted: no memory.
    HostBytes = "host_bytes",
    /// See [`Cell::HostBytes`].
    HostsRefused = "hosts_refused",
    /// The same about pairs of hosts.
    PairBytes = "pair_bytes",
    /// See [`Cell::PairBytes`].
    PairsRefused = "pairs_refused",
    /// The same of matches counted for thresholds.
    ThresholdBytes = "threshold_bytes",
    /// See [`Cell::ThresholdBytes`].
    ThresholdsRefused = "thresholds_refused",
    /// Values that rules could not add to a set, because its memory was used up.
    DatasetRefused = "dataset_refused",
    /// Changes of sets that others were not told of.
    DatasetUnshared = "dataset_unshared",
}

impl Cell {
    /// What becomes of a packet, each exactly one of these: their sum is [`Cell::Received`] when
    /// nothing is in hand.
    pub const ENDS: [Self; 5] = [
        Self::Accepted,
        Self::Dropped,
        Self::Replaced,
        Self::Settled,
        Self::Shed,
    ];
}

/// One row of cells for each slot of the `WORKERS` map: rows that nobody has written cost no
/// memory, and seats can come and go.
#[derive(Debug)]
pub struct Board {
    memory: SharedWords,
}

impl Board {
    /// Creates a zeroed board.
    ///
    /// # Errors
    /// When memory or descriptors run out.
    pub fn create() -> io::Result<Self> {
        let memory = SharedWords::create(c"sluice-board", ROWS * WIDTH)?;
        Ok(Self { memory })
    }

    /// Maps a board created by another process.
    ///
    /// # Errors
    /// When the descriptor is no board, or one of another version.
    pub fn map(file: OwnedFd) -> io::Result<Self> {
        let memory = SharedWords::map(file)?;
        if memory.words().len() != ROWS * WIDTH {
            return Err(io::Error::other("a board of another version"));
        }
        Ok(Self { memory })
    }

    fn row_of_slot(&self, slot: usize) -> Row<'_> {
        let words = &self.memory.words()[slot * WIDTH..(slot + 1) * WIDTH];
        let (cells, figures) = words.split_at(Cell::ALL.len());
        Row { cells, figures }
    }

    /// The sums of all rows' figures, also of those that nobody has any more.
    pub fn figures(&self) -> Vec<u64> {
        let mut sums = vec![0; FIGURES];
        for slot in 0..ROWS {
            for (sum, count) in sums.iter_mut().zip(self.row_of_slot(slot).figures()) {
                *sum += count;
            }
        }
        sums
    }

    /// The row of a seat.
    pub fn row(&self, seat: Seat) -> Row<'_> {
        self.row_of_slot(seat.slot() as usize)
    }
}

impl AsFd for Board {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }
}

/// The numbers of one worker. One process writes a row at a time.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    cells: &'a [AtomicU64],
    figures: &'a [AtomicU64],
}

impl Row<'_> {
    /// Reads a cell.
    pub fn get(&self, cell: Cell) -> u64 {
        self.cells[cell as usize].load(Ordering::Acquire)
    }

    /// Writes a cell.
    pub fn set(&self, cell: Cell, value: u64) {
        self.cells[cell as usize].store(value, Ordering::Release);
    }

    /// Adds to a cell; only its writing process may.
    pub fn add(&self, cell: Cell, count: u64) {
        self.set(cell, self.get(cell).wrapping_add(count));
    }

    /// Reads the figures, in the order of [`figures`](super::figures).
    pub fn figures(&self) -> impl Iterator<Item = u64> {
        let figures = self.figures.iter();
        figures.map(|figure| figure.load(Ordering::Relaxed))
    }

    /// Writes the figures.
    pub fn set_figures(&self, counts: impl Iterator<Item = u64>) {
        for (figure, count) in self.figures.iter().zip(counts) {
            figure.store(count, Ordering::Relaxed);
        }
    }

    /// Takes back what a worker counted as received and died before it could note it: whoever comes
    /// next counts that. `noted` is what it noted.
    pub fn take_back_unnoted(&self, noted: Received) {
        let count = self.get(Cell::Received);
        let unnoted = u64::from(noted.behind(count));
        // A board that is newer than the note counts from zero.
        if (1..=MOST_UNNOTED).contains(&unnoted)
            && let Some(count) = count.checked_sub(unnoted)
        {
            self.set(Cell::Received, count);
        }
    }

    /// Received, and neither given a verdict nor settled: what is, or died, in hand.
    pub fn unsettled(&self) -> u64 {
        let done = Cell::ENDS.iter().map(|&cell| self.get(cell)).sum();
        self.get(Cell::Received).saturating_sub(done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_and_not_noted_is_taken_back() {
        let board = Board::create().unwrap();
        let row = board.row(Seat::Worker(3));
        for (counted, noted, expected) in [
            (1_000, 1_000, 1_000),
            (1_007, 1_000, 1_000),
            ((1 << 40) + 64, 1 << 40, 1 << 40),
            // The note counts up to 31 bits.
            ((1 << 31) + 2, (1 << 31) - 5, (1 << 31) - 5),
            // Another board than that of the note.
            (10, 1_000, 10),
            (0, u64::from(Received::COUNTED) - 1, 0),
        ] {
            row.set(Cell::Received, counted);
            let word = Received::new(77, noted).word();
            row.take_back_unnoted(Received::of_word(word).unwrap());
            assert_eq!(row.get(Cell::Received), expected, "{counted} {noted}");
        }
    }

    #[test]
    fn rows_are_shared_between_mappings_and_do_not_overlap() {
        let board = Board::create().unwrap();
        let other = Board::map(board.as_fd().try_clone_to_owned().unwrap()).unwrap();
        let (first, second, last) = (Seat::Worker(0), Seat::Worker(1), Seat::Backup);
        board.row(second).add(Cell::Received, 5);
        board.row(second).add(Cell::Accepted, 1);
        board.row(second).add(Cell::Replaced, 1);
        other.row(last).set(Cell::Received, 7);
        assert_eq!(other.row(second).unsettled(), 3);
        assert_eq!(board.row(last).get(Cell::Received), 7);
        assert_eq!(board.row(first).get(Cell::Received), 0);
        assert_eq!(board.row(second).get(Cell::ConvictionsLost), 0);
        let figures = || (1..=FIGURES as u64).map(|number| number * 2);
        board.row(first).set_figures(figures());
        board.row(last).set_figures(figures());
        assert!(other.row(first).figures().eq(figures()));
        assert!(other.figures().into_iter().eq(figures().map(|sum| sum * 2)));
        assert_eq!(other.row(last).get(Cell::Received), 7);
        let other = SharedWords::create(c"other", 3).unwrap();
        Board::map(other.as_fd().try_clone_to_owned().unwrap()).unwrap_err();
    }
}
