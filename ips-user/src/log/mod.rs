//! Events: what is written about packets, and the way it takes to the file.

pub mod eve;
pub mod output;
pub mod pipe;

/// Where finished event lines go.
pub trait EventSink {
    /// Takes one line, without its newline. Never waits: what does not fit is lost and counted
    /// by the sink.
    fn emit(&mut self, line: &[u8]);

    /// Takes a file that is to be kept, by the SHA-256 of its content. Whether it is on its way: what
    /// is not is counted by the sink.
    fn store(&mut self, hash: &[u8; 32], content: &[u8]) -> bool;

    /// Takes the record of a file that was stored, to be put beside it.
    fn describe(&mut self, hash: &[u8; 32], line: &[u8]);
}
