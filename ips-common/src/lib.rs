//! Everything that both sides of the kernel boundary read.
//!
//! The eBPF programs and userspace must agree on these types byte by byte: a flow key
//! computed by the TC program is looked up by a worker, a mark written by it is matched by
//! netfilter. Sizes, alignments and the absence of padding are asserted at compile time; any
//! change of a layout must change [`LAYOUT_VERSION`], which is part of the path under which
//! maps and programs are pinned.
#![no_std]

mod counter;
mod flow_key;
mod hash;
mod mark;
mod state;

pub use counter::Counter;
pub use flow_key::{
    Direction, Endpoint, FAMILY_IPV4, FAMILY_IPV6, FlowKey, FragmentKey, ipv4_address, ipv6_address,
};
pub use hash::{HashSeed, flow_hash};
pub use mark::{MarkError, MarkLayout, Steer};
pub use state::{
    BACKUP, BYPASS, Conviction, Event, EventKind, FragmentEntry, HINT_COUNT, Hint, MAX_WORKERS,
    MOVING, Placement, PlacementReason, Probe, Received, SteerConfig, SteerFlags, TABLE_SLOTS,
    WORKER_SLOTS, WorkerSlot, WorkerState, hint_slack, slot_of, table_worker,
};

/// Version of every layout in this crate; part of the pin path.
pub const LAYOUT_VERSION: u32 = 3;
