//! The flows of one worker.
//!
//! [`table`] finds a packet's flow and keeps their number bounded, [`entry`] is what is known
//! about one flow ([`observed`] what is only told of it), `idle` orders flows by the time since their last packet, [`export`] hands
//! them to another process.

pub mod entry;
pub mod export;
mod idle;
pub mod observed;
pub mod table;
mod timestamp;

pub use entry::{Flow, FlowAction, FlowEnd, PacketDirection, Tally, TcpState};
pub use export::{ImportError, Imported};
pub use observed::{Exception, Observed};
pub use table::{BYTES_OF_FLOW, FlowCounters, FlowLimits, FlowTable, Settled, TableFull, Timeouts};
pub use timestamp::Timestamp;
