//! The flows of one worker.
//!
//! [`table`] finds a packet's flow and keeps their number bounded, [`entry`] is what is known
//! about one flow, `idle` orders flows by the time since their last packet, [`export`] hands
//! them to another process.

pub mod entry;
pub mod export;
mod idle;
pub mod table;
mod timestamp;

pub use entry::{Flow, FlowAction, PacketDirection, Tally, TcpState};
pub use export::{ImportError, Imported};
pub use table::{FlowCounters, FlowEnd, FlowLimits, FlowTable, TableFull, Timeouts};
pub use timestamp::Timestamp;
