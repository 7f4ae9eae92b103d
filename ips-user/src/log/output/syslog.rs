//! The system's log: datagrams to `/dev/log`, as syslog(3) sends them (RFC 3164 §4.1).

use std::io;
use std::path::PathBuf;
use std::time::SystemTime;

use time::{OffsetDateTime, UtcOffset};

use super::socket::SocketLog;
use super::{Destination, Tally};
use crate::config::settings::{Syslog, SyslogFacility, SyslogLevel};

const SOCKET: &str = "/dev/log";
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// Lines to the system's log.
#[derive(Debug)]
pub(super) struct SyslogLog {
    socket: SocketLog,
    priority: u8,
    identity: String,
    offset: UtcOffset,
}

impl SyslogLog {
    pub(super) fn new(options: &Syslog, utc_offset_s: i32) -> Self {
        Self::at(SOCKET.into(), options, utc_offset_s)
    }

    fn at(path: PathBuf, options: &Syslog, utc_offset_s: i32) -> Self {
        Self {
            socket: SocketLog::datagrams(path),
            priority: facility(options.facility) << 3 | level(options.level),
            identity: format!("{}[{}]", options.identity, std::process::id()),
            offset: UtcOffset::from_whole_seconds(utc_offset_s).unwrap_or(UtcOffset::UTC),
        }
    }
}

impl Destination for SyslogLog {
    fn line(&mut self, prefix: &str, line: &[u8], now: SystemTime, tally: &mut Tally) {
        let time = OffsetDateTime::from(now).to_offset(self.offset);
        let month = MONTHS[usize::from(u8::from(time.month())) - 1];
        let mut message = format!(
            "<{}>{month} {:2} {:02}:{:02}:{:02} {}: {prefix}",
            self.priority,
            time.day(),
            time.hour(),
            time.minute(),
            time.second(),
            self.identity,
        )
        .into_bytes();
        message.extend_from_slice(line);
        self.socket.message(message, now, tally);
    }

    fn flush(&mut self, now: SystemTime, tally: &mut Tally) -> io::Result<()> {
        self.socket.flush_messages(now, tally)
    }

    fn reopen(&mut self, _now: SystemTime) -> io::Result<()> {
        Ok(())
    }

    fn name(&self) -> String {
        self.socket.path().display().to_string()
    }
}

const fn facility(facility: SyslogFacility) -> u8 {
    match facility {
        SyslogFacility::User => 1,
        SyslogFacility::Daemon => 3,
        SyslogFacility::Auth => 4,
        SyslogFacility::Authpriv => 10,
        SyslogFacility::Local0 => 16,
        SyslogFacility::Local1 => 17,
        SyslogFacility::Local2 => 18,
        SyslogFacility::Local3 => 19,
        SyslogFacility::Local4 => 20,
        SyslogFacility::Local5 => 21,
        SyslogFacility::Local6 => 22,
        SyslogFacility::Local7 => 23,
    }
}

const fn level(level: SyslogLevel) -> u8 {
    match level {
        SyslogLevel::Emergency => 0,
        SyslogLevel::Alert => 1,
        SyslogLevel::Critical => 2,
        SyslogLevel::Error => 3,
        SyslogLevel::Warning => 4,
        SyslogLevel::Notice => 5,
        SyslogLevel::Info => 6,
        SyslogLevel::Debug => 7,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_line_comes_with_priority_time_and_identity() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let receiver = UnixDatagram::bind(&path).unwrap();
        let options = Syslog {
            identity: "sluice".into(),
            facility: SyslogFacility::Local5,
            level: SyslogLevel::Info,
        };
        let mut log = SyslogLog::at(path, &options, 3600);
        let mut tally = Tally::default();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(86_400 * 33 + 7);
        log.line("@cee: ", b"{}", now, &mut tally);
        let mut bytes = [0; 100];
        let received = receiver.recv(&mut bytes).unwrap();
        let text = std::str::from_utf8(&bytes[..received]).unwrap();
        let identity = format!("sluice[{}]", std::process::id());
        assert_eq!(text, format!("<174>Feb  3 01:00:07 {identity}: @cee: {{}}"));
        assert_eq!(
            tally,
            Tally {
                written: 1,
                lost: 0
            }
        );
    }
}
