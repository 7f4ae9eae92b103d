//! A file of lines.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// A file that is written.
#[derive(Debug)]
pub(super) struct LogFile {
    file: BufWriter<File>,
}

impl LogFile {
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let file = File::create(path).map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {error}", path.display()))
        })?;
        Ok(Self {
            file: BufWriter::new(file),
        })
    }

    pub(super) fn line(&mut self, prefix: &str, line: &[u8]) -> io::Result<()> {
        self.file.write_all(prefix.as_bytes())?;
        self.file.write_all(line)?;
        self.file.write_all(b"\n")
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
