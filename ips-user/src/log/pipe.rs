//! From the workers to the one event writer: a bounded socket. When it is full the event is
//! lost and counted; a worker never waits for the disk.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, recv, send, setsockopt, socketpair, sockopt,
};

use super::output::Outputs;

/// Longest event; longer ones are lost and counted. The record of an aggregate of segments, with
/// packet and payload in it, fits.
const EVENT_BYTES: usize = 256 * 1024;
/// Events that keep coming are written out this often.
const FLUSH_EVERY: Duration = Duration::from_millis(200);

/// Where workers put events. Every copy of the descriptor leads to the same writer.
#[derive(Debug)]
pub struct EventPipe {
    socket: OwnedFd,
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Emitted {
    /// On its way to the writer.
    Queued,
    /// The queue was full, the event too long, or the writer gone.
    Lost,
}

impl EventPipe {
    /// Takes over a descriptor made by [`EventWriter::start`].
    pub fn from_fd(socket: OwnedFd) -> Self {
        Self { socket }
    }

    /// Hands over an event: a line without its newline. Never waits.
    pub fn emit(&self, line: &[u8]) -> Emitted {
        if line.is_empty() || line.len() > EVENT_BYTES {
            return Emitted::Lost;
        }
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        match send(self.socket.as_raw_fd(), line, flags) {
            Ok(_) => Emitted::Queued,
            Err(_) => Emitted::Lost,
        }
    }
}

impl AsFd for EventPipe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The one writer: a thread of the supervisor, so that a slow disk delays nothing else.
#[derive(Debug)]
pub struct EventWriter {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    reader: OwnedFd,
}

#[derive(Debug, Default)]
struct Shared {
    reopen: AtomicBool,
    stop: AtomicBool,
    written: AtomicU64,
    failed: AtomicU64,
}

impl EventWriter {
    /// Starts the thread, which writes into `outputs`. `buffer` bytes may wait for it.
    ///
    /// # Errors
    /// When descriptors run out.
    pub fn start(outputs: Outputs, buffer: usize) -> io::Result<(Self, EventPipe)> {
        let (writer, reader) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )?;
        // SNDBUFFORCE passes net.core.wmem_max; without the capability the sysctl's bound stays.
        if setsockopt(&writer, sockopt::SndBufForce, &buffer).is_err() {
            setsockopt(&writer, sockopt::SndBuf, &buffer)?;
        }
        Self::resume([writer, reader], outputs)
    }

    /// The same with both ends as the former program of this process has kept them (see
    /// [`Self::reader`]): what is queued between them is written now.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn resume(ends: [OwnedFd; 2], outputs: Outputs) -> io::Result<(Self, EventPipe)> {
        let [writer, reader] = ends;
        let shared = Arc::new(Shared::default());
        let reading = reader.try_clone()?;
        let thread = std::thread::Builder::new().name("events".into()).spawn({
            let shared = Arc::clone(&shared);
            move || write_events(&reading, outputs, &shared)
        })?;
        Ok((
            Self {
                shared,
                thread: Some(thread),
                reader,
            },
            EventPipe { socket: writer },
        ))
    }

    /// The end that events are read from.
    pub fn reader(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }

    /// Writes what is queued and ends the thread; what comes later waits for a successor.
    pub fn pause(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // A panic of the writer has been printed already; there is nobody left to tell.
            let _ = thread.join();
        }
    }

    /// Opens files anew (they were moved away).
    pub fn reopen(&self) {
        self.shared.reopen.store(true, Ordering::Release);
    }

    /// Lines written, and lines that a destination did not take.
    pub fn totals(&self) -> (u64, u64) {
        (
            self.shared.written.load(Ordering::Acquire),
            self.shared.failed.load(Ordering::Acquire),
        )
    }
}

impl Drop for EventWriter {
    /// Writes what is queued, then ends.
    fn drop(&mut self) {
        self.pause();
    }
}

/// Until told to stop and nothing is queued.
fn write_events(reader: &OwnedFd, mut outputs: Outputs, shared: &Shared) {
    let mut event = vec![0; EVENT_BYTES];
    let mut flushed = Instant::now();
    loop {
        if shared.reopen.swap(false, Ordering::AcqRel) {
            outputs.flush(SystemTime::now());
            outputs.reopen(SystemTime::now());
        }
        // Looked at before the queue: what was handed over before the stop is written.
        let stopping = shared.stop.load(Ordering::Acquire);
        let mut pause = false;
        let mut ended = false;
        match recv(reader.as_raw_fd(), &mut event, MsgFlags::MSG_DONTWAIT) {
            // An empty message reads like the end. Only the end stays, and no worker shall be
            // able to end the log for all.
            Ok(0) => ended = hung_up(reader),
            Ok(length) => outputs.write(&event[..length], SystemTime::now()),
            Err(nix::Error::EINTR) => {}
            Err(nix::Error::EAGAIN) if stopping => ended = true,
            Err(nix::Error::EAGAIN) => pause = true,
            Err(error) => {
                ::log::error!("event writer ends: recv: {error}");
                ended = true;
            }
        }
        if pause || ended || flushed.elapsed() >= FLUSH_EVERY {
            outputs.flush(SystemTime::now());
            flushed = Instant::now();
            let (written, failed) = outputs.totals();
            shared.written.store(written, Ordering::Release);
            shared.failed.store(failed, Ordering::Release);
        }
        if ended {
            return;
        }
        if pause {
            let mut ready = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
            // Wakes up to look at `reopen` and `stop`; an error shows again in recv.
            let _ = poll(&mut ready, PollTimeout::from(50u8));
        }
    }
}

fn hung_up(reader: &OwnedFd) -> bool {
    let mut state = [PollFd::new(reader.as_fd(), PollFlags::empty())];
    // POLLHUP needs no asking for (poll(2)).
    let polled = poll(&mut state, PollTimeout::ZERO);
    polled.is_err() || state[0].any().unwrap_or(true)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::settings::EveOutputs;

    fn outputs(directory: &Path) -> Outputs {
        Outputs::append(&EveOutputs::default(), directory, 0).unwrap()
    }

    fn line(number: usize) -> String {
        format!("{{\"event_type\":\"alert\",\"n\":{number}}}")
    }

    fn lines(numbers: &[usize]) -> String {
        numbers.iter().map(|&number| line(number) + "\n").collect()
    }

    #[test]
    fn events_arrive_as_lines_and_a_rotated_file_is_reopened() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("eve.json");
        let (writer, pipe) = EventWriter::start(outputs(directory.path()), 1 << 20).unwrap();
        assert_eq!(pipe.emit(line(1).as_bytes()), Emitted::Queued);
        while writer.totals().0 < 1 {
            std::thread::yield_now();
        }
        let rotated = directory.path().join("eve.json.1");
        std::fs::rename(&path, &rotated).unwrap();
        writer.reopen();
        while !path.exists() {
            std::thread::yield_now();
        }
        assert_eq!(pipe.emit(line(2).as_bytes()), Emitted::Queued);
        assert_eq!(pipe.emit(&vec![b'x'; EVENT_BYTES + 1]), Emitted::Lost);
        send(pipe.socket.as_raw_fd(), &[], MsgFlags::empty()).unwrap();
        assert_eq!(pipe.emit(line(3).as_bytes()), Emitted::Queued);
        drop(writer);
        assert_eq!(std::fs::read_to_string(rotated).unwrap(), lines(&[1]));
        assert_eq!(std::fs::read_to_string(path).unwrap(), lines(&[2, 3]));
        assert_eq!(pipe.emit(line(4).as_bytes()), Emitted::Lost);
    }

    #[test]
    fn events_that_come_while_there_is_no_writer_wait_for_the_next_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("eve.json");
        let (mut writer, pipe) = EventWriter::start(outputs(directory.path()), 1 << 20).unwrap();
        assert_eq!(pipe.emit(line(1).as_bytes()), Emitted::Queued);
        writer.pause();
        assert_eq!(pipe.emit(line(2).as_bytes()), Emitted::Queued);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), lines(&[1]));
        let ends = [pipe.as_fd(), writer.reader()].map(|end| end.try_clone_to_owned().unwrap());
        drop((pipe, writer));
        let (writer, _pipe) = EventWriter::resume(ends, outputs(directory.path())).unwrap();
        drop(writer);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), lines(&[1, 2]));
    }

    #[test]
    fn a_full_queue_loses_the_event_and_says_so() {
        let (writer, _reader) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )
        .unwrap();
        let pipe = EventPipe::from_fd(writer);
        let line = [b'x'; 1000];
        let queued = (0..100_000)
            .take_while(|_| pipe.emit(&line) == Emitted::Queued)
            .count();
        assert!(queued > 0 && queued < 100_000, "{queued}");
    }
}
