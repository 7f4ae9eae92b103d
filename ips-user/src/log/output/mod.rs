//! Where lines go: each configured log takes the types of records that it names.

use std::io;
use std::path::Path;

use crate::config::settings::{EveLog, EveOutputs, EveTypes, To};
use crate::log::EventSink;

mod file;

use file::LogFile;

/// All logs.
#[derive(Debug)]
pub struct Outputs {
    logs: Vec<Log>,
    written: u64,
    failed: u64,
}

#[derive(Debug)]
struct Log {
    types: EveTypes,
    prefix: String,
    file: LogFile,
}

impl Outputs {
    /// Opens every log; files that are not absolute are in `directory`.
    ///
    /// # Errors
    /// When one cannot be opened.
    pub fn open(outputs: &EveOutputs, directory: &Path) -> io::Result<Self> {
        let logs = outputs.logs.iter().map(|log| Log::open(log, directory));
        Ok(Self {
            logs: logs.collect::<io::Result<_>>()?,
            written: 0,
            failed: 0,
        })
    }

    /// Writes everything out; returns how many lines there were.
    ///
    /// # Errors
    /// When lines were lost.
    pub fn close(&mut self) -> io::Result<u64> {
        for log in &mut self.logs {
            log.file.flush()?;
        }
        match self.failed {
            0 => Ok(self.written),
            lost => Err(io::Error::other(format!(
                "{lost} records could not be written"
            ))),
        }
    }
}

impl Log {
    fn open(log: &EveLog, directory: &Path) -> io::Result<Self> {
        let To::File { name, .. } = &log.to else {
            return Err(io::Error::other("only files"));
        };
        Ok(Self {
            types: log.types.clone(),
            prefix: log.prefix.clone(),
            file: LogFile::create(&directory.join(name))?,
        })
    }
}

impl EventSink for Outputs {
    fn emit(&mut self, line: &[u8]) {
        let kind = event_type(line);
        for log in self.logs.iter_mut().filter(|log| log.types.wants(kind)) {
            match log.file.line(&log.prefix, line) {
                Ok(()) => self.written += 1,
                Err(_) => self.failed += 1,
            }
        }
    }
}

/// The type of a record: every record has it near its beginning, before anything that comes
/// from a packet.
fn event_type(line: &[u8]) -> &str {
    const KEY: &[u8] = b"\"event_type\":\"";
    let start = memchr::memmem::find(line, KEY).map(|at| at + KEY.len());
    let rest = start
        .and_then(|start| line.get(start..))
        .unwrap_or_default();
    let end = memchr::memchr(b'"', rest).unwrap_or(0);
    std::str::from_utf8(&rest[..end]).unwrap_or_default()
}
