//! What the programs log (aya-log), for debugging.

use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use aya::Ebpf;
use aya_log::EbpfLogger;
use log::{Log, Metadata, Record};

use super::LoadError;

/// The programs' log: readable when there is something. Each record becomes a line on standard
/// error when [`Self::flush`] is called.
pub struct KernelLog {
    logger: EbpfLogger<StandardError>,
}

impl KernelLog {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, LoadError> {
        let logger = EbpfLogger::init_with_logger(ebpf, StandardError)
            .map_err(|error| LoadError::KernelLog(error.to_string()))?;
        Ok(Self { logger })
    }

    /// Writes what has come in.
    pub fn flush(&mut self) {
        self.logger.flush();
    }
}

impl AsFd for KernelLog {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.logger.as_fd()
    }
}

impl AsRawFd for KernelLog {
    fn as_raw_fd(&self) -> RawFd {
        self.logger.as_fd().as_raw_fd()
    }
}

struct StandardError;

impl Log for StandardError {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        // Nobody reads standard error: then nobody misses the line either.
        let _ = writeln!(std::io::stderr(), "kernel: {}", record.args());
    }

    fn flush(&self) {}
}
