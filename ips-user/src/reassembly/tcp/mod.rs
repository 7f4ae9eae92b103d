//! TCP: connections tracked, their data put together, each segment judged.
//!
//! [`track`] takes a flow's segments one by one. [`Session`] is one connection; its outcome for
//! a segment says whether the receiver would take it, and what rules have to inspect is in
//! [`Session::raw`].
//!
//! Inline, three things make what is inspected what is delivered. What the receiver would not
//! take is dropped. Of what it may take, the first bytes for a place in the stream are
//! remembered until they have arrived, whether the segment was in order or not, and whoever
//! sends other bytes for that place has them rewritten: so it does not matter which of several
//! segments the receiver gets, or prefers. And a segment is inspected together with everything
//! around it that has been let through before: the one that completes an attack is the one that
//! matches, and without it ([`Session::dropped`]) the receiver does not have the whole.
//!
//! Watching, a receiver's policy decides about overlaps, and what it has acknowledged is
//! inspected in chunks, as in Suricata.
//!
//! In the order of a segment: `segment` (view) → `session` (state) → `opening`, `handshake`, `connected`,
//! `reset` (what the receiver takes) → `data` (into the stream; `overlap`) → `raw` (what is
//! inspected). `side` is what is known of one end, `buffer` its bytes, `rewrite` changes a
//! packet, `memory` bounds and counts it all, `export` hands a session to another process.

mod buffer;
mod configured;
mod connected;
mod data;
pub mod event;
mod export;
mod handshake;
mod memory;
mod opening;
pub mod options;
mod overlap;
mod raw;
mod reset;
mod rewrite;
mod segment;
mod session;
mod side;

pub use event::{StreamEvent, StreamEvents};
pub use memory::{StreamCounters, StreamMemory};
pub use opening::{Begun, track};
pub use options::{ReassemblyOptions, StreamOptions, UrgentPolicy};
pub use raw::{Behind, Contiguous, QuietBefore, QuietWindow, RawView};
pub use rewrite::{Replacement, write_checksum};
pub use segment::Segment;
pub use session::{
    Session, SessionState, StreamCause, StreamDisposition, StreamDrop, StreamException,
    StreamOutcome,
};

#[cfg(test)]
mod tests;
