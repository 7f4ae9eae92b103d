//! Events: what is written about packets, and the way it takes to the file.

pub mod eve;
pub mod output;
pub mod pipe;

/// Where finished event lines go.
pub trait EventSink {
    /// Takes one line, without its newline. Never waits: what does not fit is lost and counted
    /// by the sink.
    fn emit(&mut self, line: &[u8]);
}
