//! What the targets have in common.

pub mod engine;
pub mod input;
pub mod receiver;
pub mod seeds;

pub use input::Input;
