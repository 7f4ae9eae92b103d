//! Where records go: each configured log takes the types that it names and has a
//! [destination](Destination) of its own. What one cannot take is lost and counted; no
//! destination holds up another, and none is waited for.

use std::io;
use std::path::Path;
use std::time::SystemTime;

use super::EventSink;
use crate::config::settings::{EveLog, EveOutputs, EveTypes, To};

mod file;
pub(crate) mod files;
mod socket;
mod syslog;

use file::{LogFile, Opening};
use files::Files;
use socket::SocketLog;
use syslog::SyslogLog;

/// All logs.
#[derive(Debug)]
pub struct Outputs {
    logs: Vec<Log>,
    files: Files,
}

#[derive(Debug)]
struct Log {
    types: EveTypes,
    prefix: String,
    to: Box<dyn Destination>,
    tally: Tally,
    told: bool,
}

/// Lines of one destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    written: u64,
    lost: u64,
}

/// What takes lines. Nothing here waits.
trait Destination: std::fmt::Debug + Send {
    /// Takes a line, without its newline. It may be written later.
    fn line(&mut self, prefix: &str, line: &[u8], now: SystemTime, tally: &mut Tally);

    /// Writes what can be written now.
    ///
    /// # Errors
    /// Why something was lost; it is counted.
    fn flush(&mut self, now: SystemTime, tally: &mut Tally) -> io::Result<()>;

    /// Begins anew: somebody has moved the file away.
    ///
    /// # Errors
    /// When that cannot be done; the old one is used on.
    fn reopen(&mut self, now: SystemTime) -> io::Result<()>;

    /// Its name, for messages.
    fn name(&self) -> String;
}

impl Outputs {
    /// Opens every log and goes on with what is there; names that are not absolute are in
    /// `directory`.
    ///
    /// # Errors
    /// When a file cannot be opened. A socket that nobody listens at may be there later.
    pub fn append(outputs: &EveOutputs, directory: &Path, utc_offset_s: i32) -> io::Result<Self> {
        Self::open(outputs, directory, utc_offset_s, Opening::Append)
    }

    /// The same with empty files.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub fn create(outputs: &EveOutputs, directory: &Path, utc_offset_s: i32) -> io::Result<Self> {
        Self::open(outputs, directory, utc_offset_s, Opening::Empty)
    }

    fn open(
        outputs: &EveOutputs,
        directory: &Path,
        utc_offset_s: i32,
        opening: Opening,
    ) -> io::Result<Self> {
        let open = |log: &EveLog| -> io::Result<Log> {
            let to: Box<dyn Destination> = match &log.to {
                To::File { name, rotation } => {
                    let pattern = directory.join(name);
                    let now = SystemTime::now();
                    Box::new(LogFile::open(
                        pattern,
                        *rotation,
                        utc_offset_s,
                        opening,
                        now,
                    )?)
                }
                To::UnixStream(name) => Box::new(SocketLog::stream(directory.join(name))),
                To::UnixDatagram(name) => Box::new(SocketLog::datagrams(directory.join(name))),
                To::Syslog(syslog) => Box::new(SyslogLog::new(syslog, utc_offset_s)),
            };
            Ok(Log {
                types: log.types.clone(),
                prefix: log.prefix.clone(),
                to,
                tally: Tally::default(),
                told: false,
            })
        };
        let logs = outputs.logs.iter().map(open).collect::<io::Result<_>>()?;
        let files = Files::new(directory.join(&outputs.file_store.directory));
        Ok(Self { logs, files })
    }

    /// Takes a record, a line without its newline, or a message about a file.
    pub fn write(&mut self, line: &[u8], now: SystemTime) {
        if line.first() == Some(&files::MARK) {
            self.files.message(line, now);
            return;
        }
        let kind = event_type(line);
        for log in self.logs.iter_mut().filter(|log| log.types.wants(kind)) {
            log.to.line(&log.prefix, line, now, &mut log.tally);
        }
    }

    /// Writes what has been taken, as far as that is possible now.
    pub fn flush(&mut self, now: SystemTime) {
        for log in &mut self.logs {
            match log.to.flush(now, &mut log.tally) {
                Ok(()) => {}
                // Once is enough: what is lost afterwards is counted.
                Err(_) if log.told => {}
                Err(error) => {
                    log.told = true;
                    log::error!("{}: {error}; events are being lost", log.to.name());
                }
            }
        }
    }

    /// Opens files anew (they were moved away).
    pub fn reopen(&mut self, now: SystemTime) {
        for log in &mut self.logs {
            log.told = false;
            if let Err(error) = log.to.reopen(now) {
                log::error!("{} not reopened, the old one stays: {error}", log.to.name());
            }
        }
    }

    /// Lines written and lines lost, of all destinations together; a file that could not be kept
    /// counts as one that is lost.
    pub fn totals(&self) -> (u64, u64) {
        let of = |which: fn(&Tally) -> u64| self.logs.iter().map(|log| which(&log.tally)).sum();
        let lost: u64 = of(|tally| tally.lost);
        (of(|tally| tally.written), lost + self.files.tally.lost)
    }
}

impl EventSink for Outputs {
    fn emit(&mut self, line: &[u8]) {
        self.write(line, SystemTime::now());
    }

    fn store(&mut self, hash: &[u8; 32], content: &[u8]) -> bool {
        let now = SystemTime::now();
        files::messages(hash, content, |message| self.files.message(message, now))
    }

    fn describe(&mut self, hash: &[u8; 32], line: &[u8]) {
        let message = files::record(hash, line);
        self.files.message(&message, SystemTime::now());
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::settings::EngineSettings;

    #[test]
    fn each_log_takes_the_types_that_it_names() {
        let directory = tempfile::tempdir().unwrap();
        let mut settings = EngineSettings::default();
        let outputs = json!([
            {"eve-log": {"filename": "a.json", "types": ["alert", "stats"]}},
            {"eve-log": {"filename": "b.json", "prefix": "@cee: ", "types": ["drop", "alert"]}},
        ]);
        settings.set("outputs", &outputs.to_string()).unwrap();
        let mut outputs = Outputs::create(&settings.outputs, directory.path(), 0).unwrap();
        let line = |kind: &str| format!("{{\"timestamp\":\"x\",\"event_type\":\"{kind}\"}}");
        for kind in ["alert", "drop", "stats", "flow", "sluice"] {
            outputs.emit(line(kind).as_bytes());
        }
        outputs.emit(b"no record");
        outputs.flush(SystemTime::now());
        assert_eq!(outputs.totals(), (6, 0));
        let read = |name| std::fs::read_to_string(directory.path().join(name)).unwrap();
        let [alert, drop, stats, sluice] = ["alert", "drop", "stats", "sluice"].map(line);
        assert_eq!(read("a.json"), format!("{alert}\n{stats}\n{sluice}\n"));
        let prefixed = format!("@cee: {alert}\n@cee: {drop}\n@cee: {sluice}\n");
        assert_eq!(read("b.json"), prefixed);
    }
}
