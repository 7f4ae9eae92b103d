//! Rules against packets.
//!
//! [`Engine::compile`] sorts the rules by action and priority, groups them by protocol, and
//! gives one content of each rule to a [`Prefilter`]. [`Engine::inspect`] looks for all those
//! literals at once and checks header and contents only of the rules whose literal is there,
//! and of those without one.
//! An engine is compiled once, in a process of its own, and mapped by all workers: [`image`].
//!
//! What is searched is the payload of one packet (of one aggregate, under GSO): a pattern that
//! a sender spreads over two segments is not found, because streams are not reassembled here.

mod contents;
pub mod engine;
pub mod image;
pub mod prefilter;
mod supported;

pub use engine::{Detection, Engine, PACKET_ALERT_MAX, RuleIndex, Scratch};
pub use image::{Building, Image, ImageError, MappedEngine, Rules, Summary};
pub use prefilter::{BuildPrefilter, Daachorse, Prefilter, PrefilterError};
pub use supported::supported;
