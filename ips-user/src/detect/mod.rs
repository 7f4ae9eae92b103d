//! Rules against packets.
//!
//! [`Engine::compile`] puts the rules in their order, [lowers](mod@lower) each to what can be
//! evaluated, groups them by protocol, direction and port, and gives one content of each rule to
//! a [`Prefilter`]. [`Engine::inspect`] looks for all those literals at once and evaluates only the
//! rules whose literal is there, and those without one: header, [conditions], then what they say
//! about the bytes ([`matching`]). What matched has its effects at once; what is reported, and
//! what becomes of the packet, is decided at the end ([`report`]).
//! An engine is compiled once, in a process of its own, and mapped by all workers: [`image`].

mod addresses;
mod conditions;
mod configured;
mod countries;
pub mod dataset;
pub mod engine;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod group;
pub mod hosts;
pub mod image;
mod inspect;
mod lower;
mod marks;
mod matching;
mod names;
mod order;
pub mod prefilter;
mod prefix_tree;
mod report;
pub mod reputation;
pub mod searches;
mod tables;
mod tag;
mod threshold;
mod transactions;
mod view;

pub use engine::{CompileOptions, Compiled, Engine, PACKET_ALERT_MAX, Refused, RuleIndex, Scratch};
pub use image::{Building, Image, ImageError, MappedEngine, Rules, Summary};
pub use inspect::{FlowView, Inspected, StreamData};
pub use lower::{Kind, supported};
pub use marks::FlowMarks;
pub use names::NameId;
pub use order::{ActionKind, ActionOrder};
pub use prefilter::{BuildPrefilter, Daachorse, Prefilter, PrefilterError};
pub use report::{Alert, Detection};
pub use reputation::Reputation;
pub use tables::{TableCounters, TableLimits, TableUse, Tables};
pub use transactions::{AppView, RuleMarks};

use crate::flow::PacketDirection;

#[cfg(test)]
mod tests;
