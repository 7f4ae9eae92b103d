//! TCP streams whose every byte is checked, with a timeline of what arrived when.
//!
//! The stream is a repeated block of [`PERIOD`] pseudo-random bytes (a prime number, so that
//! no packet size divides it): whatever is lost, doubled, reordered or changed by the way
//! through an inspector shows as a mismatch at a known offset.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::Namespace;

/// Bytes after which the stream repeats.
pub const PERIOD: usize = 1_048_573;
/// Most bytes of one write or read.
const CHUNK: usize = 128 * 1024;
/// The same where the rate is limited: less comes in bursts.
const PACED_CHUNK: usize = 16 * 1024;
/// How long the last bytes may take to arrive: TCP that was in bad luck waits for half of that
/// before it tries again (RFC 6298 §5.5).
const FAREWELL: Duration = Duration::from_secs(30);
/// Width of one step of a [`Timeline`].
pub const STEP: Duration = Duration::from_millis(10);

/// The pattern, longer than a period by one chunk so that every chunk is contiguous.
fn pattern() -> &'static [u8] {
    static PATTERN: OnceLock<Vec<u8>> = OnceLock::new();
    PATTERN.get_or_init(|| {
        // xorshift64 (Marsaglia 2003): any fixed, aperiodic-looking sequence will do.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut bytes: Vec<u8> = (0..PERIOD)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state.to_le_bytes()[3]
            })
            .collect();
        bytes.extend_from_within(..CHUNK);
        bytes
    })
}

/// The `len` bytes of the stream at `offset`.
///
/// # Panics
/// When `len` is more than 128 KiB.
#[must_use]
pub fn expected(offset: u64, len: usize) -> &'static [u8] {
    let start = usize::try_from(offset % PERIOD as u64).expect("less than a period");
    &pattern()[start..start + len]
}

/// What arrived when, in steps of [`STEP`] from the start of the receiver.
#[derive(Clone, Debug, Serialize)]
pub struct Timeline {
    /// Bytes of each step.
    pub bytes: Vec<u64>,
}

impl Timeline {
    /// The longest time without a byte between the first and the last byte that came, in
    /// whole steps.
    #[must_use]
    pub fn longest_silence(&self) -> Duration {
        self.longest_below(1)
    }

    /// The longest time during which each step stayed below `bytes`, between the first and
    /// the last byte that came: with half the usual bytes, how long a disturbance lasted.
    #[must_use]
    pub fn longest_below(&self, bytes: u64) -> Duration {
        let first = self.bytes.iter().position(|bytes| *bytes > 0);
        let last = self.bytes.iter().rposition(|bytes| *bytes > 0);
        let (Some(first), Some(last)) = (first, last) else {
            return Duration::ZERO;
        };
        let mut longest = 0_u32;
        let mut current = 0_u32;
        for step in &self.bytes[first..=last] {
            current = if *step < bytes { current + 1 } else { 0 };
            longest = longest.max(current);
        }
        STEP * longest
    }

    /// The median step between the first and the last byte that came.
    #[must_use]
    pub fn median_step(&self) -> u64 {
        let first = self.bytes.iter().position(|bytes| *bytes > 0);
        let last = self.bytes.iter().rposition(|bytes| *bytes > 0);
        let (Some(first), Some(last)) = (first, last) else {
            return 0;
        };
        let mut steps = self.bytes[first..=last].to_vec();
        steps.sort_unstable();
        steps[steps.len() / 2]
    }

    /// Steps from `since` (measured from the receiver's start) until a step reaches `bytes`
    /// again, as time; `None` when none does.
    #[must_use]
    pub fn recovery(&self, since: Duration, bytes: u64) -> Option<Duration> {
        let from = step_of(since);
        let after = self
            .bytes
            .get(from..)?
            .iter()
            .position(|step| *step >= bytes)?;
        Some(STEP * u32::try_from(after).ok()?)
    }
}

fn step_of(since: Duration) -> usize {
    usize::try_from(since.as_nanos() / STEP.as_nanos()).unwrap_or(usize::MAX)
}

/// Longest measured time: more arrives in the last step.
const STEPS: usize = 30_000;

#[derive(Debug)]
struct SinkState {
    started: Instant,
    steps: Vec<AtomicU64>,
    received: AtomicU64,
    accepted: AtomicU64,
    finished: AtomicU64,
    stop: AtomicBool,
    longest_gap_ns: AtomicU64,
    faults: Mutex<Vec<String>>,
}

/// A TCP server that checks every byte it gets.
#[derive(Debug)]
pub struct Sink {
    state: Arc<SinkState>,
    address: SocketAddr,
    thread: Option<JoinHandle<()>>,
}

impl Sink {
    /// Listens on `address` (port 0 chooses one) inside `namespace`.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn start(namespace: &Namespace, address: IpAddr, port: u16) -> io::Result<Self> {
        let listener = namespace.enter(|| TcpListener::bind((address, port)))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let state = Arc::new(SinkState {
            started: Instant::now(),
            steps: (0..STEPS).map(|_| AtomicU64::new(0)).collect(),
            received: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            finished: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            longest_gap_ns: AtomicU64::new(0),
            faults: Mutex::new(Vec::new()),
        });
        let shared = Arc::clone(&state);
        let thread = namespace.spawn("sink", move || accept_streams(&listener, &shared));
        Ok(Self {
            state,
            address,
            thread: Some(thread),
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// When it started: the zero of its [`Timeline`].
    #[must_use]
    pub fn started(&self) -> Instant {
        self.state.started
    }

    /// Bytes received and found right so far.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.state.received.load(Ordering::Relaxed)
    }

    /// Connections accepted so far.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.state.accepted.load(Ordering::Relaxed)
    }

    /// Connections that ended in order so far.
    #[must_use]
    pub fn finished(&self) -> u64 {
        self.state.finished.load(Ordering::Relaxed)
    }

    /// The longest time between two reads of one connection so far, exactly.
    #[must_use]
    pub fn longest_gap(&self) -> Duration {
        Duration::from_nanos(self.state.longest_gap_ns.load(Ordering::Relaxed))
    }

    /// Forgets the longest gap, to measure from now on.
    pub fn reset_longest_gap(&self) {
        self.state.longest_gap_ns.store(0, Ordering::Relaxed);
    }

    /// What was wrong so far: bytes that differ, connections that broke.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        self.state
            .faults
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// What arrived when, up to now.
    #[must_use]
    pub fn timeline(&self) -> Timeline {
        let steps = (step_of(self.state.started.elapsed()) + 1).min(STEPS);
        Timeline {
            bytes: self.state.steps[..steps]
                .iter()
                .map(|step| step.load(Ordering::Relaxed))
                .collect(),
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn accept_streams(listener: &TcpListener, state: &Arc<SinkState>) {
    std::thread::scope(|scope| {
        while !state.stop.load(Ordering::Relaxed) {
            match listener.accept() {
                Ok((stream, peer)) => {
                    state.accepted.fetch_add(1, Ordering::Relaxed);
                    scope.spawn(move || {
                        if let Err(fault) = check_stream(stream, state) {
                            state
                                .faults
                                .lock()
                                .unwrap_or_else(PoisonError::into_inner)
                                .push(format!("{peer}: {fault}"));
                        }
                    });
                }
                Err(_) => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    });
}

fn check_stream(mut stream: TcpStream, state: &SinkState) -> Result<(), String> {
    let failed = |error: io::Error| error.to_string();
    stream.set_nonblocking(false).map_err(failed)?;
    stream
        .set_read_timeout(Some(Duration::from_millis(100)))
        .map_err(failed)?;
    let mut buffer = vec![0; CHUNK];
    let mut offset = 0_u64;
    let mut last = None;
    // Asked each time: a sender that does not end must not keep its receiver.
    while !state.stop.load(Ordering::Relaxed) {
        let read = match stream.read(&mut buffer) {
            Ok(0) => {
                state.finished.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            }
            Ok(read) => read,
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ) =>
            {
                continue;
            }
            Err(error) => return Err(format!("after {offset} bytes: {error}")),
        };
        let now = Instant::now();
        if let Some(last) = last.replace(now) {
            let gap = u64::try_from((now - last).as_nanos()).unwrap_or(u64::MAX);
            state.longest_gap_ns.fetch_max(gap, Ordering::Relaxed);
        }
        let right = expected(offset, read);
        if buffer[..read] != *right {
            let at = buffer
                .iter()
                .zip(right)
                .take_while(|(is, should)| is == should)
                .count();
            return Err(format!("byte {} differs", offset + at as u64));
        }
        offset += read as u64;
        let step = step_of(now - state.started).min(STEPS - 1);
        state.steps[step].fetch_add(read as u64, Ordering::Relaxed);
        state.received.fetch_add(read as u64, Ordering::Relaxed);
    }
    Ok(())
}

/// How long a [`Sender`] sends.
#[derive(Clone, Copy, Debug)]
pub enum Extent {
    /// So many bytes.
    Bytes(u64),
    /// So long, or until stopped.
    Time(Duration),
    /// The same, but no more than so many bytes a second.
    Paced(Duration, u64),
}

/// What a sender has done.
#[derive(Clone, Debug, Serialize)]
pub struct SenderReport {
    /// Bytes the kernel took.
    pub sent: u64,
    /// Time from the connection's start to the end of sending.
    pub elapsed: Duration,
    /// Why it ended early, if so.
    pub error: Option<String>,
}

/// A TCP client that sends the stream to a [`Sink`].
#[derive(Debug)]
pub struct Sender {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<SenderReport>>,
}

impl Sender {
    /// Connects from inside `namespace` and begins to send.
    #[must_use]
    pub fn start(namespace: &Namespace, to: SocketAddr, extent: Extent) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(AtomicU64::new(0));
        let (shared_stop, shared_sent) = (Arc::clone(&stop), Arc::clone(&sent));
        let thread = namespace.spawn("sender", move || {
            let started = Instant::now();
            let error = send_stream(to, extent, &shared_stop, &shared_sent)
                .err()
                .map(|error| error.to_string());
            SenderReport {
                sent: shared_sent.load(Ordering::Relaxed),
                elapsed: started.elapsed(),
                error,
            }
        });
        Self {
            stop,
            sent,
            thread: Some(thread),
        }
    }

    /// Bytes the kernel took so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Ends the sending early, in order, and reports.
    ///
    /// # Panics
    /// When the sender's thread has panicked.
    #[must_use]
    pub fn stop(self) -> SenderReport {
        self.stop.store(true, Ordering::Relaxed);
        self.finish()
    }

    /// Waits for the end of the extent and reports.
    ///
    /// # Panics
    /// When the sender's thread has panicked.
    #[must_use]
    pub fn finish(mut self) -> SenderReport {
        let thread = self.thread.take().expect("joined once only");
        thread.join().expect("the sender does not panic")
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn send_stream(
    to: SocketAddr,
    extent: Extent,
    stop: &AtomicBool,
    sent: &AtomicU64,
) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(10))?;
    stream.set_write_timeout(Some(Duration::from_millis(200)))?;
    let started = Instant::now();
    let mut offset = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        let len = match extent {
            Extent::Bytes(total) => {
                usize::try_from(total - offset).map_or(CHUNK, |left| left.min(CHUNK))
            }
            Extent::Time(limit) | Extent::Paced(limit, _) if started.elapsed() >= limit => 0,
            Extent::Time(_) => CHUNK,
            Extent::Paced(_, rate) => {
                let due = u128::from(rate) * started.elapsed().as_millis() / 1000;
                if u128::from(offset) > due {
                    std::thread::sleep(Duration::from_millis(1));
                    continue;
                }
                PACED_CHUNK
            }
        };
        if len == 0 {
            break;
        }
        match stream.write(expected(offset, len)) {
            Ok(written) => {
                offset += written as u64;
                sent.store(offset, Ordering::Relaxed);
            }
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ) => {}
            Err(error) => return Err(error),
        }
    }
    stream.shutdown(Shutdown::Write)?;
    // The receiver's FIN says that it has read everything.
    stream.set_read_timeout(Some(FAREWELL))?;
    loop {
        match stream.read(&mut [0; 16]) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// A TCP server that sends back what it gets.
#[derive(Debug)]
pub struct Echo {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    /// Listens on `address` (port 0 chooses one) inside `namespace`.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn start(namespace: &Namespace, address: IpAddr, port: u16) -> io::Result<Self> {
        let listener = namespace.enter(|| TcpListener::bind((address, port)))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let shared = Arc::clone(&stop);
        let thread = namespace.spawn("echo", move || {
            std::thread::scope(|scope| {
                while !shared.load(Ordering::Relaxed) {
                    match listener.accept() {
                        Ok((stream, _)) => {
                            let stop = &shared;
                            scope.spawn(move || echo_stream(stream, stop));
                        }
                        Err(_) => std::thread::sleep(Duration::from_millis(2)),
                    }
                }
            });
        });
        Ok(Self {
            address,
            stop,
            thread: Some(thread),
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Ends with the connection; the peer sees its end.
fn echo_stream(mut stream: TcpStream, stop: &AtomicBool) {
    let prepared = stream.set_nonblocking(false).and_then(|()| {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_millis(100)))
    });
    if prepared.is_err() {
        return;
    }
    let mut buffer = vec![0; 64 * 1024];
    while !stop.load(Ordering::Relaxed) {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(read) => {
                if stream.write_all(&buffer[..read]).is_err() {
                    return;
                }
            }
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ) => {}
            Err(_) => return,
        }
    }
}

/// Connects from inside `namespace`, sends `request`, and returns what comes back until as
/// many bytes have come, or `timeout` has passed since the last ones.
///
/// # Errors
/// When the connection is refused, reset or answers too slowly.
pub fn exchange(
    namespace: &Namespace,
    to: SocketAddr,
    request: &[u8],
    timeout: Duration,
) -> io::Result<Vec<u8>> {
    namespace.enter(|| {
        let mut stream = TcpStream::connect_timeout(&to, timeout)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        stream.write_all(request)?;
        let mut answer = vec![0; request.len()];
        stream.read_exact(&mut answer)?;
        Ok(answer)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_continuous_over_its_period() {
        let across = expected(PERIOD as u64 - 10, 20);
        assert_eq!(across[..10], *expected(PERIOD as u64 - 10, 10));
        assert_eq!(across[10..], *expected(0, 10));
    }

    #[test]
    fn a_silence_is_found_in_a_timeline() {
        let timeline = Timeline {
            bytes: vec![0, 0, 9, 9, 0, 0, 0, 2, 9, 9, 0],
        };
        assert_eq!(timeline.longest_silence(), STEP * 3);
        assert_eq!(timeline.longest_below(5), STEP * 4);
        assert_eq!(timeline.recovery(STEP * 4, 5), Some(STEP * 4));
        assert_eq!(timeline.recovery(STEP * 10, 5), None);
    }
}
