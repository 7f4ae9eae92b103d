//! A flow table as bytes: how a worker hands its flows to its successor.
//!
//! The writer and the reader may be of different versions, so nothing is taken on trust: the
//! whole is checked before the first flow is taken over, and refused as a whole otherwise. They
//! run on the same machine since the same boot, so numbers are in its byte order and times of
//! `CLOCK_MONOTONIC` stay valid.
//!
//! ```text
//! Header    magic, format, length of the fixed part of a record, number of records
//! Record    one flow, fixed part      ┐ the longest idle flow first
//!           extension, if any         ┘ parts: kind, length, content
//! checksum  CRC-32 of everything before
//! ```
//!
//! How it may grow without another format number: fields appended to the fixed part, and
//! extensions, are passed over by a reader that does not know them. What it must not pass over
//! needs a new [`FORMAT`]. The hash seed and the numbering of flows are the table's own and not
//! in it.

use std::io::{self, Write};

use bytemuck::{Pod, Zeroable};
use ips_common::{Direction, FlowKey};
use thiserror::Error;

use super::{Flow, FlowAction, FlowTable, Observed, PacketDirection, Tally, TcpState, Timestamp};
use crate::app::{AppLayer, Known};
use crate::detect::FlowMarks;
use crate::exception::Cause;
use crate::reassembly::tcp::{Begun, Session, StreamMemory, StreamOptions};

/// Number of the format, raised when an older reader would misunderstand it.
pub const FORMAT: u32 = 1;

/// How many flows are written or read between two calls of `progress`.
pub const PROGRESS_EVERY: usize = 4096;

const MAGIC: [u8; 8] = *b"SLUICEFL";

/// Flow ids are below this: see [`Flow::id`].
const IDS: u64 = 1 << 53;

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Header {
    magic: [u8; 8],
    format: u32,
    /// Bytes of the fixed part of each record.
    record: u32,
    count: u64,
}

/// The fixed part.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Record {
    key: FlowKey,
    id: u64,
    start_wall_us: i64,
    start_ns: u64,
    last_wall_us: i64,
    last_ns: u64,
    to_server: [u64; 2],
    to_client: [u64; 2],
    convicted_wall_us: i64,
    convicted_ns: u64,
    clean_bytes: u64,
    /// Of the rule, or code of the cause, that has decided `action`.
    decided_by: u32,
    /// Bytes that follow the fixed part.
    extension: u32,
    /// Bits out of [`flags`]; others are a newer writer's.
    flags: u32,
    client: u8,
    tcp: u8,
    action: u8,
    fin: u8,
    observed: Observed,
}

/// What the first version of this format wrote; zeros stand for the rest.
const FIRST_RECORD: usize = std::mem::offset_of!(Record, observed);
const RECORD: usize = size_of::<Record>();
const CHECKSUM: usize = size_of::<u32>();

mod flags {
    /// `convicted_*` is set.
    pub(super) const CONVICTED: u32 = 1;
    /// A rule has matched; `clean_bytes` is not set.
    pub(super) const MATCHED: u32 = 2;
    /// The connection is tracked, or was by somebody before.
    pub(super) const TRACKED: u32 = 4;
    /// Written by a version that tracks connections.
    pub(super) const TRACKS: u32 = 8;
}

/// Kinds of parts of an extension. A reader passes over those that it does not know.
mod part {
    /// A session: [`Session::export`](crate::reassembly::tcp::Session::export).
    pub(super) const SESSION: u32 = 1;
    /// What rules have noted: [`FlowMarks::encode`](crate::detect::FlowMarks::encode).
    pub(super) const MARKS: u32 = 2;
    /// What is known of its application: [`AppLayer::export`](crate::app::AppLayer).
    pub(super) const APPLICATION: u32 = 3;
}

/// Bytes written at a time, about.
const BLOCK: usize = 1 << 20;

/// Why bytes are no flow table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ImportError {
    /// They do not begin as one.
    #[error("these {len} bytes are no exported flows")]
    NotFlows {
        /// How many bytes there are.
        len: usize,
    },
    /// Written by a version that this one does not understand.
    #[error("flows in format {found}, this version reads format {FORMAT}")]
    Format {
        /// Number of their format.
        found: u32,
    },
    /// The end is missing.
    #[error("exported flows end in record {record} of {count}")]
    CutShort {
        /// The record at which they end, from 0.
        record: u64,
        /// How many there should be.
        count: u64,
    },
    /// The checksum is another one.
    #[error("exported flows are damaged: checksum {found:08x} instead of {expected:08x}")]
    Checksum {
        /// Of these bytes.
        found: u32,
        /// What the writer found.
        expected: u32,
    },
    /// A field has a value that it cannot have.
    #[error("exported flow {record}: {field} {value} is unknown")]
    Value {
        /// The record, from 0.
        record: u64,
        /// The field.
        field: &'static str,
        /// Its value.
        value: u64,
    },
    /// Two records have one key.
    #[error("exported flow {record} is there twice")]
    Twice {
        /// The second of them, from 0.
        record: u64,
    },
    /// The importing table has flows already.
    #[error("the flow table has {flows} flows already")]
    InUse {
        /// How many.
        flows: usize,
    },
}

/// What an import has brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Flows taken over.
    pub flows: u64,
    /// Flows for which the table has no room: those that were idle longest.
    pub beyond_limit: u64,
    /// Connections taken over with their flows.
    pub sessions: u64,
    /// Connections that could not be, and are picked up from their middle.
    pub sessions_lost: u64,
}

impl FlowTable {
    /// Writes all flows, the longest idle one first; returns how many. `progress` is called
    /// after every [`PROGRESS_EVERY`] of them, or more often.
    ///
    /// # Errors
    /// Those of `out`. What it has got until then is refused by [`Self::import`].
    pub fn export(&self, out: &mut impl Write, mut progress: impl FnMut()) -> io::Result<u64> {
        let mut checksum = crc32fast::Hasher::new();
        let count = self.len() as u64;
        let header = Header {
            magic: MAGIC,
            format: FORMAT,
            record: RECORD as u32,
            count,
        };
        let mut block = Vec::with_capacity(PROGRESS_EVERY * RECORD);
        block.extend_from_slice(bytemuck::bytes_of(&header));
        let mut flows = self.oldest_first().peekable();
        loop {
            for flow in flows.by_ref().take(PROGRESS_EVERY) {
                Record::write(flow, &mut block);
                if block.len() >= BLOCK {
                    break;
                }
            }
            checksum.update(&block);
            out.write_all(&block)?;
            block.clear();
            progress();
            if flows.peek().is_none() {
                break;
            }
        }
        out.write_all(&checksum.finalize().to_ne_bytes())?;
        out.flush()?;
        Ok(count)
    }

    /// Takes over the flows that another table has written; this one must be empty still. When
    /// there are more than its limit, it takes those that were active last. Bytes after the end
    /// are ignored. `progress` is called as by [`Self::export`].
    ///
    /// Connections are left behind: see [`Self::import_streams`].
    ///
    /// # Errors
    /// When the bytes are not exactly what an export has written, or the table has flows: then
    /// it is left as it was.
    pub fn import(
        &mut self,
        bytes: &[u8],
        now: Timestamp,
        progress: impl FnMut(),
    ) -> Result<Imported, ImportError> {
        self.import_with(bytes, now, |_| None, progress)
    }

    /// As [`Self::import`], with the connections as far as they fit into `memory`. Others are
    /// [`Begun::Inherited`].
    ///
    /// # Errors
    /// Those of [`Self::import`].
    pub fn import_streams(
        &mut self,
        bytes: &[u8],
        now: Timestamp,
        options: &StreamOptions,
        memory: &mut StreamMemory,
        progress: impl FnMut(),
    ) -> Result<Imported, ImportError> {
        let session = |bytes: &[u8]| Session::import(bytes, options, memory).map(Box::new);
        self.import_with(bytes, now, session, progress)
    }

    fn import_with(
        &mut self,
        bytes: &[u8],
        now: Timestamp,
        mut session: impl FnMut(&[u8]) -> Option<Box<Session>>,
        mut progress: impl FnMut(),
    ) -> Result<Imported, ImportError> {
        if !self.is_empty() {
            return Err(ImportError::InUse { flows: self.len() });
        }
        let records = Records::check(bytes, &mut progress)?;
        let room = u64::from(self.max_flows());
        let beyond_limit = records.count.saturating_sub(room);
        let mut filled = self.emptied();
        let mut imported = Imported {
            beyond_limit,
            ..Imported::default()
        };
        for (index, (record, extension)) in (0..).zip(records) {
            if index % PROGRESS_EVERY as u64 == 0 {
                progress();
            }
            // Those without room are read as well: they tell whether the whole is right.
            let mut flow = record.flow(index, now)?;
            if index < beyond_limit {
                continue;
            }
            if let Some(mut marks) = part_of(extension, part::MARKS) {
                flow.marks = FlowMarks::decode(&mut marks).ok_or(ImportError::Value {
                    record: index,
                    field: "marks",
                    value: marks.len() as u64,
                })?;
            }
            let known = part_of(extension, part::APPLICATION);
            if let Some(known) = known {
                flow.app = AppLayer::import(known);
            }
            if flow.begun == Begun::Inherited {
                flow.session = part_of(extension, part::SESSION).and_then(&mut session);
                match &mut flow.session {
                    Some(session) => {
                        imported.sessions += 1;
                        flow.app = AppLayer::taken_over(session, known);
                    }
                    None => {
                        imported.sessions_lost += 1;
                        if known.is_none() || flow.app.known() != Known::Failed {
                            // It is recognised from there, if it can be.
                            flow.app = AppLayer::default();
                        }
                    }
                }
            }
            if !filled.adopt(flow) {
                return Err(ImportError::Twice { record: index });
            }
        }
        filled.count_evicted(beyond_limit);
        *self = filled;
        imported.flows = self.len() as u64;
        Ok(imported)
    }
}

/// The records of an export whose extent and checksum are right.
struct Records<'a> {
    /// What follows the header.
    rest: &'a [u8],
    /// Bytes of the fixed part of each.
    fixed: usize,
    count: u64,
}

impl<'a> Records<'a> {
    fn check(bytes: &'a [u8], progress: &mut impl FnMut()) -> Result<Self, ImportError> {
        let not_flows = ImportError::NotFlows { len: bytes.len() };
        let (header, rest) = bytes
            .split_at_checked(size_of::<Header>())
            .ok_or(not_flows)?;
        let header: Header = bytemuck::pod_read_unaligned(header);
        if header.magic != MAGIC {
            return Err(not_flows);
        }
        if header.format != FORMAT {
            let found = header.format;
            return Err(ImportError::Format { found });
        }
        let fixed = header.record as usize;
        if fixed < FIRST_RECORD {
            return Err(not_flows);
        }
        let records = Self {
            rest,
            fixed,
            count: header.count,
        };
        let len = records.extent()?;
        let (checked, stored) = bytes.split_at(bytes.len() - rest.len() + len);
        let Some(stored) = stored.first_chunk::<CHECKSUM>() else {
            let count = header.count;
            return Err(ImportError::CutShort {
                record: count,
                count,
            });
        };
        let mut checksum = crc32fast::Hasher::new();
        for block in checked.chunks(PROGRESS_EVERY * RECORD) {
            checksum.update(block);
            progress();
        }
        let (found, expected) = (checksum.finalize(), u32::from_ne_bytes(*stored));
        if found != expected {
            return Err(ImportError::Checksum { found, expected });
        }
        Ok(records)
    }

    /// Bytes of all records.
    fn extent(&self) -> Result<usize, ImportError> {
        let (mut rest, count) = (self.rest, self.count);
        for record in 0..count {
            let cut_short = ImportError::CutShort { record, count };
            (_, _, rest) = split(rest, self.fixed).ok_or(cut_short)?;
        }
        Ok(self.rest.len() - rest.len())
    }
}

impl<'a> Iterator for Records<'a> {
    /// The fixed part and the extension.
    type Item = (Record, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        self.count = self.count.checked_sub(1)?;
        let (record, extension, rest) = split(self.rest, self.fixed)?;
        self.rest = rest;
        Some((record, extension))
    }
}

/// One record off the front, its extension, the rest; `None` when it is not there in full.
fn split(bytes: &[u8], fixed: usize) -> Option<(Record, &[u8], &[u8])> {
    let (record, rest) = bytes.split_at_checked(fixed)?;
    let known = record.get(..fixed.min(RECORD))?;
    let mut record = Record::zeroed();
    bytemuck::bytes_of_mut(&mut record)
        .get_mut(..known.len())?
        .copy_from_slice(known);
    let (extension, rest) = rest.split_at_checked(record.extension as usize)?;
    Some((record, extension, rest))
}

/// The first part of this kind.
fn part_of(mut extension: &[u8], kind: u32) -> Option<&[u8]> {
    loop {
        let (header, rest) = extension.split_first_chunk::<8>()?;
        let [a, b, c, d, len @ ..] = *header;
        let (content, rest) = rest.split_at_checked(u32::from_ne_bytes(len) as usize)?;
        if u32::from_ne_bytes([a, b, c, d]) == kind {
            return Some(content);
        }
        extension = rest;
    }
}

/// Adds a part to the extension at the end of `block`.
fn add_part(block: &mut Vec<u8>, kind: u32, write: impl FnOnce(&mut Vec<u8>)) {
    let content = block.len() + 8;
    block.extend_from_slice(&kind.to_ne_bytes());
    block.extend_from_slice(&0u32.to_ne_bytes());
    write(block);
    let len = (block.len() - content) as u32;
    block[content - 4..content].copy_from_slice(&len.to_ne_bytes());
}

impl Record {
    /// Writes a flow to the end of `block`, extension and all.
    fn write(flow: &Flow, block: &mut Vec<u8>) {
        let mut record = Self::of(flow);
        let begin = block.len();
        block.extend_from_slice(bytemuck::bytes_of(&record));
        if let Some(session) = &flow.session {
            add_part(block, part::SESSION, |block| session.export(block));
        }
        if flow.marks != FlowMarks::default() {
            add_part(block, part::MARKS, |block| flow.marks.encode(block));
        }
        if flow.app.known() != Known::NotYet {
            add_part(block, part::APPLICATION, |block| flow.app.export(block));
        }
        record.extension = (block.len() - begin - RECORD) as u32;
        block[begin..begin + RECORD].copy_from_slice(bytemuck::bytes_of(&record));
    }

    fn of(flow: &Flow) -> Self {
        let (action, decided_by) = match flow.action {
            FlowAction::Inspect => (0, 0),
            FlowAction::Pass => (1, 0),
            FlowAction::Drop { signature_id } => (2, signature_id),
            FlowAction::Refuse { cause } => (3, cause.code()),
        };
        let mut flags = 0;
        flags |= flow.convicted.map_or(0, |_| flags::CONVICTED);
        flags |= flow.clean_bytes.map_or(flags::MATCHED, |_| 0);
        flags |= flags::TRACKS;
        if flow.session.is_some() || flow.begun == Begun::Inherited {
            flags |= flags::TRACKED;
        }
        let convicted = flow.convicted.unwrap_or_default();
        Self {
            key: flow.key,
            id: flow.id,
            start_wall_us: flow.start.wall_us,
            start_ns: flow.start.monotonic_ns,
            last_wall_us: flow.last.wall_us,
            last_ns: flow.last.monotonic_ns,
            to_server: [flow.to_server.packets, flow.to_server.bytes],
            to_client: [flow.to_client.packets, flow.to_client.bytes],
            convicted_wall_us: convicted.wall_us,
            convicted_ns: convicted.monotonic_ns,
            clean_bytes: flow.clean_bytes.unwrap_or_default(),
            decided_by,
            extension: 0,
            flags,
            client: match flow.client {
                Direction::LowToHigh => 0,
                Direction::HighToLow => 1,
            },
            tcp: match flow.tcp {
                TcpState::None => 0,
                TcpState::SynSent => 1,
                TcpState::SynReceived => 2,
                TcpState::Established => 3,
                TcpState::Closing => 4,
                TcpState::Closed => 5,
            },
            action,
            fin: match flow.fin {
                None => 0,
                Some(PacketDirection::ToServer) => 1,
                Some(PacketDirection::ToClient) => 2,
            },
            observed: flow.observed,
        }
    }

    fn flow(&self, record: u64, now: Timestamp) -> Result<Flow, ImportError> {
        let unknown = |field, value| ImportError::Value {
            record,
            field,
            value,
        };
        if self.id >= IDS {
            return Err(unknown("flow id", self.id));
        }
        let time = |wall_us, monotonic_ns: u64| Timestamp {
            wall_us,
            // A flow whose time had not come yet would never be idle.
            monotonic_ns: monotonic_ns.min(now.monotonic_ns),
        };
        let convicted = time(self.convicted_wall_us, self.convicted_ns);
        // Who has not tracked it has let it through all the same.
        let untracked = self.flags & flags::TRACKS == 0 && matches!(self.tcp, 2..5);
        let tracked = self.flags & flags::TRACKED != 0 || untracked;
        Ok(Flow {
            id: self.id,
            key: self.key,
            client: match self.client {
                0 => Direction::LowToHigh,
                1 => Direction::HighToLow,
                other => return Err(unknown("client", other.into())),
            },
            start: time(self.start_wall_us, self.start_ns),
            last: time(self.last_wall_us, self.last_ns),
            to_server: tally(self.to_server),
            to_client: tally(self.to_client),
            tcp: match self.tcp {
                0 => TcpState::None,
                1 => TcpState::SynSent,
                2 => TcpState::SynReceived,
                3 => TcpState::Established,
                4 => TcpState::Closing,
                5 => TcpState::Closed,
                other => return Err(unknown("TCP state", other.into())),
            },
            action: match self.action {
                0 => FlowAction::Inspect,
                1 => FlowAction::Pass,
                2 => FlowAction::Drop {
                    signature_id: self.decided_by,
                },
                3 => FlowAction::Refuse {
                    cause: Cause::of_code(self.decided_by)
                        .ok_or(unknown("cause", self.decided_by.into()))?,
                },
                other => return Err(unknown("action", other.into())),
            },
            clean_bytes: (self.flags & flags::MATCHED == 0).then_some(self.clean_bytes),
            marks: FlowMarks::default(),
            convicted: (self.flags & flags::CONVICTED != 0).then_some(convicted),
            session: None,
            // What was said before is not known here: of a stream nobody can go on in the middle.
            app: match tracked {
                true => AppLayer::Failed,
                false => AppLayer::default(),
            },
            begun: match tracked {
                true => Begun::Inherited,
                false => Begun::Unknown,
            },
            observed: self.observed,
            fin: match self.fin {
                0 => None,
                1 => Some(PacketDirection::ToServer),
                2 => Some(PacketDirection::ToClient),
                other => return Err(unknown("FIN", other.into())),
            },
        })
    }
}

fn tally([packets, bytes]: [u64; 2]) -> Tally {
    Tally { packets, bytes }
}

#[cfg(test)]
mod tests;
