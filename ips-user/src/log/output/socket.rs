//! A Unix socket that somebody else listens at. While nobody does, lines are lost and counted.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::{Destination, Tally};

/// What may wait for a listener that is slow, in bytes.
const BACKLOG_BYTES: usize = 4 << 20;
/// How long a listener that was not there is left alone.
const RETRY: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug)]
enum Kind {
    Stream,
    Datagrams,
}

#[derive(Debug)]
enum Connection {
    Stream(UnixStream),
    Datagrams(UnixDatagram),
}

impl Connection {
    fn open(kind: Kind, path: &Path) -> io::Result<Self> {
        Ok(match kind {
            Kind::Stream => {
                let stream = UnixStream::connect(path)?;
                stream.set_nonblocking(true)?;
                Self::Stream(stream)
            }
            Kind::Datagrams => {
                let socket = UnixDatagram::unbound()?;
                socket.connect(path)?;
                socket.set_nonblocking(true)?;
                Self::Datagrams(socket)
            }
        })
    }

    /// How much of `message` was taken.
    fn send(&mut self, message: &[u8]) -> io::Result<usize> {
        match self {
            // A listener that has gone is an error: Rust ignores SIGPIPE.
            Self::Stream(stream) => stream.write(message),
            Self::Datagrams(socket) => socket.send(message),
        }
    }
}

/// Lines to a socket.
#[derive(Debug)]
pub(super) struct SocketLog {
    path: PathBuf,
    kind: Kind,
    connection: Option<Connection>,
    retry_at: Option<SystemTime>,
    waiting: VecDeque<Vec<u8>>,
    waiting_bytes: usize,
    /// Of the first line: sent already.
    sent: usize,
    problem: Option<io::Error>,
}

impl SocketLog {
    pub(super) fn stream(path: PathBuf) -> Self {
        Self::new(path, Kind::Stream)
    }

    pub(super) fn datagrams(path: PathBuf) -> Self {
        Self::new(path, Kind::Datagrams)
    }

    fn new(path: PathBuf, kind: Kind) -> Self {
        Self {
            path,
            kind,
            connection: None,
            retry_at: None,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            sent: 0,
            problem: None,
        }
    }

    /// Takes a message as it is to be sent.
    pub(super) fn message(&mut self, message: Vec<u8>, now: SystemTime, tally: &mut Tally) {
        if !self.is_connected(now) || self.waiting_bytes + message.len() > BACKLOG_BYTES {
            tally.lost += 1;
            return;
        }
        self.waiting_bytes += message.len();
        self.waiting.push_back(message);
        self.send_waiting(now, tally);
    }

    fn is_connected(&mut self, now: SystemTime) -> bool {
        if self.connection.is_none() && self.retry_at.is_none_or(|at| now >= at) {
            match Connection::open(self.kind, &self.path) {
                Ok(connection) => self.connection = Some(connection),
                Err(error) => self.give_up(error, now),
            }
        }
        self.connection.is_some()
    }

    fn give_up(&mut self, error: io::Error, now: SystemTime) {
        self.connection = None;
        self.retry_at = Some(now + RETRY);
        self.problem = Some(error);
    }

    fn send_waiting(&mut self, now: SystemTime, tally: &mut Tally) {
        while let (Some(connection), Some(message)) = (&mut self.connection, self.waiting.front()) {
            match connection.send(&message[self.sent..]) {
                Ok(sent) => {
                    self.sent += sent;
                    if self.sent < message.len() {
                        continue;
                    }
                    tally.written += 1;
                    self.first_is_done();
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // Too long for a datagram; the next one may not be.
                Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => {
                    self.problem = Some(error);
                    tally.lost += 1;
                    self.first_is_done();
                }
                Err(error) => {
                    // Whoever listens next shall not get the end of a line.
                    tally.lost += self.waiting.len() as u64;
                    self.waiting.clear();
                    self.waiting_bytes = 0;
                    self.sent = 0;
                    self.give_up(error, now);
                }
            }
        }
    }

    fn first_is_done(&mut self) {
        let message = self.waiting.pop_front();
        self.waiting_bytes -= message.map_or(0, |message| message.len());
        self.sent = 0;
    }

    /// Sends what waits, and says why something was lost.
    pub(super) fn flush_messages(&mut self, now: SystemTime, tally: &mut Tally) -> io::Result<()> {
        self.send_waiting(now, tally);
        self.problem.take().map_or(Ok(()), Err)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Destination for SocketLog {
    fn line(&mut self, prefix: &str, line: &[u8], now: SystemTime, tally: &mut Tally) {
        let mut message = [prefix.as_bytes(), line].concat();
        if matches!(self.kind, Kind::Stream) {
            message.push(b'\n');
        }
        self.message(message, now, tally);
    }

    fn flush(&mut self, now: SystemTime, tally: &mut Tally) -> io::Result<()> {
        self.flush_messages(now, tally)
    }

    fn reopen(&mut self, _now: SystemTime) -> io::Result<()> {
        // There is nothing that could have been moved away.
        Ok(())
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixListener;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn lines_arrive_while_somebody_listens_and_are_counted_otherwise() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let mut log = SocketLog::stream(path.clone());
        let mut tally = Tally::default();
        log.line("", b"nobody", at(0), &mut tally);
        assert!(log.flush(at(0), &mut tally).is_err());
        let listener = UnixListener::bind(&path).unwrap();
        log.line("", b"too soon", at(0), &mut tally);
        log.line("> ", b"one", at(1), &mut tally);
        log.line("", b"two", at(1), &mut tally);
        let (mut stream, _) = listener.accept().unwrap();
        let mut got = [0; 10];
        stream.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"> one\ntwo\n");
        assert_eq!(
            tally,
            Tally {
                written: 2,
                lost: 2
            }
        );
        drop((stream, listener));
        log.line("", b"gone", at(2), &mut tally);
        assert_eq!(
            tally,
            Tally {
                written: 2,
                lost: 3
            }
        );
    }

    #[test]
    fn a_slow_listener_gets_whole_lines_or_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let mut log = SocketLog::stream(path);
        let mut tally = Tally::default();
        let line = vec![b'x'; 100_000];
        for _ in 0..100 {
            log.line("", &line, at(0), &mut tally);
        }
        assert!(tally.lost > 0 && tally.written < 100, "{tally:?}");
        let (stream, _) = listener.accept().unwrap();
        let reader = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            { stream }.read_to_end(&mut bytes).unwrap();
            bytes
        });
        while !log.waiting.is_empty() {
            log.flush(at(0), &mut tally).unwrap();
        }
        drop(log);
        let bytes = reader.join().unwrap();
        assert_eq!(tally.written + tally.lost, 100);
        assert_eq!(bytes.len() as u64, tally.written * 100_001);
        assert!(bytes.chunks(100_001).all(|got| got.ends_with(b"x\n")));
    }

    #[test]
    fn each_line_is_a_datagram_and_one_too_long_harms_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let receiver = UnixDatagram::bind(&path).unwrap();
        let mut log = SocketLog::datagrams(path);
        let mut tally = Tally::default();
        log.line("", b"one", at(0), &mut tally);
        log.line("", &vec![b'x'; 3 << 20], at(0), &mut tally);
        log.line("p ", b"two", at(0), &mut tally);
        assert_eq!(
            tally,
            Tally {
                written: 2,
                lost: 1
            }
        );
        let mut bytes = [0; 16];
        for expect in [&b"one"[..], b"p two"] {
            let received = receiver.recv(&mut bytes).unwrap();
            assert_eq!(&bytes[..received], expect);
        }
    }
}
