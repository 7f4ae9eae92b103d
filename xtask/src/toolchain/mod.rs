//! What a build or a run needs besides Rust: found where it is, installed where that is possible
//! after saying what and why, and otherwise named together with the exact commands.

pub(crate) mod bpf;
pub(crate) mod compiler;
mod debian;
pub(crate) mod libhs;
mod linker;
mod nightly;
pub(crate) mod search;
pub(crate) mod system;
