//! From the workers to the one event writer: a bounded socket. When it is full the event is
//! lost and counted; a worker never waits for the disk.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant, SystemTime};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, recv, send, setsockopt, socketpair, sockopt,
};

use super::output::Outputs;
use crate::sys::process::take_usual_priority;

/// Longest event; longer ones are lost and counted. The record of an aggregate of segments, with
/// packet and payload in it, fits.
const EVENT_BYTES: usize = 256 * 1024;
/// Events that keep coming are written out this often.
const FLUSH_EVERY: Duration = Duration::from_millis(200);
/// How long a writer that is to pause goes on with what is queued: there may be no end to that.
const PAUSE_WITHIN: Duration = Duration::from_millis(200);
/// How long a writer that is dropped may take for what is queued. The disk may not answer at all.
const END_WITHIN: Duration = Duration::from_secs(3);

/// The thread writes until it is told otherwise.
const WRITING: u8 = 0;
/// It is to end soon: what is left waits for a successor.
const PAUSING: u8 = 1;
/// It is to end when nothing is queued.
const ENDING: u8 = 2;
/// It does not write any more.
const ENDED: u8 = 3;

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
    /// Gives the outputs back at its end.
    thread: Option<JoinHandle<Outputs>>,
    reader: OwnedFd,
}

#[derive(Debug, Default)]
struct Shared {
    reopen: AtomicBool,
    /// One of the constants above; only the thread itself says that it has ended.
    phase: AtomicU8,
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
        let thread = start_thread(&reader, outputs, &shared)?;
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

    /// Has the thread end soon, with what is queued written as far as that is done in a moment;
    /// the rest, and what comes later, waits for a successor. See [`Self::has_paused`].
    pub fn pause(&self) {
        self.shared.change(WRITING, PAUSING);
    }

    /// Whether the thread has ended. It may never, when the disk does not answer.
    pub fn has_paused(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Goes on after all, should it have been told to pause: in the same thread if that has not
    /// ended yet, otherwise in another, with the same outputs. `open` is for when a panic has
    /// taken these away.
    ///
    /// # Errors
    /// When they cannot be opened, or threads run out.
    pub fn go_on(&mut self, open: impl FnOnce() -> io::Result<Outputs>) -> io::Result<()> {
        let writes = self.shared.phase.load(Ordering::Acquire) == WRITING;
        if writes || self.shared.change(PAUSING, WRITING) {
            return Ok(());
        }
        // It is at its end. A panic of it has been printed already.
        let kept = self.thread.take().and_then(|thread| thread.join().ok());
        let outputs = kept.map_or_else(open, Ok)?;
        self.shared.phase.store(WRITING, Ordering::Release);
        self.thread = Some(start_thread(&self.reader, outputs, &self.shared)?);
        Ok(())
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
    /// Writes what is queued, then ends; unless the disk does not answer.
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else {
            return;
        };
        let until = Instant::now() + END_WITHIN;
        let _ = self.shared.change(WRITING, ENDING) || self.shared.change(PAUSING, ENDING);
        while !thread.is_finished() {
            if Instant::now() >= until {
                ::log::error!("the event log takes nothing for {END_WITHIN:?}: events are lost");
                return;
            }
            sleep(Duration::from_millis(1));
        }
        // A panic of the writer has been printed already; there is nobody left to tell.
        let _ = thread.join();
    }
}

impl Shared {
    /// Whether the thread was in the first phase, and is in the second one now.
    fn change(&self, from: u8, to: u8) -> bool {
        let order = Ordering::AcqRel;
        let changed = self
            .phase
            .compare_exchange(from, to, order, Ordering::Acquire);
        changed.is_ok()
    }
}

fn start_thread(
    reader: &OwnedFd,
    outputs: Outputs,
    shared: &Arc<Shared>,
) -> io::Result<JoinHandle<Outputs>> {
    let reading = reader.try_clone()?;
    let shared = Arc::clone(shared);
    let thread = std::thread::Builder::new().name("events".into());
    thread.spawn(move || {
        take_usual_priority();
        let outputs = write_events(&reading, outputs, &shared);
        shared.phase.store(ENDED, Ordering::Release);
        outputs
    })
}

/// Until told to end and nothing is queued, or told to pause.
fn write_events(reader: &OwnedFd, mut outputs: Outputs, shared: &Shared) -> Outputs {
    let mut event = vec![0; EVENT_BYTES];
    let mut flushed = Instant::now();
    let mut told = outputs.totals();
    let mut pausing_since: Option<Instant> = None;
    loop {
        if shared.reopen.swap(false, Ordering::AcqRel) {
            outputs.flush(SystemTime::now());
            outputs.reopen(SystemTime::now());
        }
        // Looked at before the queue: what was handed over before the stop is written.
        let phase = shared.phase.load(Ordering::Acquire);
        let late = match phase {
            PAUSING => pausing_since.get_or_insert_with(Instant::now).elapsed() >= PAUSE_WITHIN,
            _ => {
                pausing_since = None;
                false
            }
        };
        let mut empty = false;
        let mut over = false;
        if !late {
            match recv(reader.as_raw_fd(), &mut event, MsgFlags::MSG_DONTWAIT) {
                // An empty message reads like the end. Only the end stays, and no worker shall be
                // able to end the log for all.
                Ok(0) => over = hung_up(reader),
                Ok(length) => outputs.write(&event[..length], SystemTime::now()),
                Err(nix::Error::EINTR) => {}
                Err(nix::Error::EAGAIN) => empty = true,
                Err(error) => {
                    ::log::error!("event writer ends: recv: {error}");
                    over = true;
                }
            }
        }
        if late || empty || over || flushed.elapsed() >= FLUSH_EVERY {
            outputs.flush(SystemTime::now());
            flushed = Instant::now();
            let (written, failed) = outputs.totals();
            shared.written.fetch_add(written - told.0, Ordering::AcqRel);
            shared.failed.fetch_add(failed - told.1, Ordering::AcqRel);
            told = (written, failed);
        }
        let leaves = late || (empty && phase != WRITING);
        // Unless it is to go on after all.
        if over || (leaves && shared.change(phase, ENDED)) {
            return outputs;
        }
        if empty {
            let mut ready = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
            // Wakes up to look at `reopen` and `phase`; an error shows again in recv.
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

    fn used_on() -> io::Result<Outputs> {
        panic!("what is open is used on")
    }

    /// Waits for its end.
    fn pause(writer: &EventWriter) {
        writer.pause();
        let until = Instant::now() + Duration::from_secs(20);
        while !writer.has_paused() {
            assert!(Instant::now() < until, "it goes on");
            sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_writer_pauses_under_a_flood_of_events_and_goes_on_without_losing_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("eve.json");
        let (mut writer, pipe) = EventWriter::start(outputs(directory.path()), 1 << 20).unwrap();
        let event = line(0);
        let flooding = AtomicBool::new(true);
        let queued = AtomicU64::new(0);
        let flood = || {
            while flooding.load(Ordering::Acquire) {
                if pipe.emit(event.as_bytes()) == Emitted::Queued {
                    queued.fetch_add(1, Ordering::AcqRel);
                }
            }
        };
        std::thread::scope(|scope| {
            // Two, so that there is always one queued.
            scope.spawn(flood);
            scope.spawn(flood);
            pause(&writer);
            writer.go_on(used_on).unwrap();
            // That changes nothing.
            writer.go_on(used_on).unwrap();
            let before = writer.totals().0;
            while writer.totals().0 < before + 1000 {
                std::thread::yield_now();
            }
            flooding.store(false, Ordering::Release);
        });
        let queued = queued.into_inner();
        while writer.totals().0 < queued {
            std::thread::yield_now();
        }
        assert_eq!(writer.totals(), (queued, 0));
        drop(writer);
        let written = std::fs::read_to_string(&path).unwrap().lines().count() as u64;
        assert_eq!(written, queued);
    }

    #[test]
    fn a_writer_whose_disk_does_not_answer_neither_pauses_nor_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("eve.json");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        // Both ends of a pipe that nobody reads: it takes no more than its buffer.
        let mut open = std::fs::OpenOptions::new();
        let disk = open.read(true).write(true).open(&path).unwrap();
        let outputs = outputs(directory.path());
        let (mut writer, pipe) = EventWriter::start(outputs, 4 << 20).unwrap();
        let long = "x".repeat(60_000);
        for _ in 0..16 {
            let _ = pipe.emit(format!("{{\"event_type\":\"alert\",\"x\":\"{long}\"}}").as_bytes());
        }
        // The thread is in the midst of writing once the pipe takes no more.
        let writable = || {
            let mut ends = [PollFd::new(disk.as_fd(), PollFlags::POLLOUT)];
            poll(&mut ends, PollTimeout::ZERO).unwrap() > 0
        };
        let until = Instant::now() + Duration::from_secs(20);
        while writable() {
            assert!(Instant::now() < until, "nothing is written");
            sleep(Duration::from_millis(1));
        }
        writer.pause();
        sleep(2 * PAUSE_WITHIN);
        assert!(!writer.has_paused());
        writer.go_on(used_on).unwrap();
        let began = Instant::now();
        drop(writer);
        assert!(began.elapsed() < END_WITHIN + Duration::from_secs(10));
        drop(disk);
    }

    #[test]
    fn events_that_come_while_there_is_no_writer_wait_for_the_next_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("eve.json");
        let (writer, pipe) = EventWriter::start(outputs(directory.path()), 1 << 20).unwrap();
        assert_eq!(pipe.emit(line(1).as_bytes()), Emitted::Queued);
        pause(&writer);
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
