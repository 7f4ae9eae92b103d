//! UDP requests and replies, each counted.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};

use serde::Serialize;

use crate::Namespace;
use crate::patience::PATIENCE;
use crate::stream::expected;

/// Bytes of a request before its filling: sequence number.
const HEADER: usize = 8;

/// A UDP server that sends every datagram back.
#[derive(Debug)]
pub struct Replier {
    address: SocketAddr,
    received: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Replier {
    /// Binds `address` (port 0 chooses one) inside `namespace`.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn start(namespace: &Namespace, address: IpAddr, port: u16) -> io::Result<Self> {
        let socket = namespace.enter(|| UdpSocket::bind((address, port)))?;
        make_room(&socket)?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let address = socket.local_addr()?;
        let received = Arc::new(AtomicU64::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let (shared_received, shared_stop) = (Arc::clone(&received), Arc::clone(&stop));
        let thread = namespace.spawn("replier", move || {
            let mut buffer = vec![0; 65_536];
            while !shared_stop.load(Ordering::Relaxed) {
                if let Ok((len, peer)) = socket.recv_from(&mut buffer) {
                    shared_received.fetch_add(1, Ordering::Relaxed);
                    // The requester counts what does not come back.
                    let _ = socket.send_to(&buffer[..len], peer);
                }
            }
        });
        Ok(Self {
            address,
            received,
            stop,
            thread: Some(thread),
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Requests received so far.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

impl Drop for Replier {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What a [`Requester`] sends.
#[derive(Clone, Copy, Debug)]
pub struct RequestPlan {
    /// Where to.
    pub to: SocketAddr,
    /// Source ports to take turns with: as many flows.
    pub flows: usize,
    /// Requests in total.
    pub requests: u64,
    /// Bytes of each, at least 8; more than the MTU makes fragments.
    pub size: usize,
    /// Time between two requests.
    pub interval: Duration,
    /// How long to wait for the last replies, if not all come.
    pub patience: Duration,
}

impl RequestPlan {
    /// A hundred requests of 64 bytes over one flow, one each millisecond.
    #[must_use]
    pub fn to(to: SocketAddr) -> Self {
        Self {
            to,
            flows: 1,
            requests: 100,
            size: 64,
            interval: Duration::from_millis(1),
            patience: PATIENCE,
        }
    }
}

/// What came of it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RequestReport {
    /// Requests sent.
    pub sent: u64,
    /// Requests that the own kernel did not take, with an ICMP error or a local one.
    pub errors: u64,
    /// Requests answered.
    pub answered: u64,
    /// Requests not answered.
    pub lost: u64,
    /// Replies beyond the first to one request.
    pub duplicates: u64,
    /// Replies with other bytes than the request.
    pub corrupt: u64,
    /// The longest time between a request and its reply.
    pub slowest: Duration,
    /// When the requests not answered were sent, from the first one on.
    pub lost_at: Vec<Duration>,
    /// The longest time between two replies.
    pub longest_gap: Duration,
}

/// Sends requests on its own thread.
#[derive(Debug)]
pub struct Requester {
    thread: JoinHandle<io::Result<RequestReport>>,
}

impl Requester {
    /// Starts sending from inside `namespace`.
    #[must_use]
    pub fn start(namespace: &Namespace, plan: RequestPlan) -> Self {
        Self {
            thread: namespace.spawn("requester", move || request_all(&plan)),
        }
    }

    /// Sends from inside `namespace` and waits for the end.
    ///
    /// # Errors
    /// When no socket can be made.
    pub fn run(namespace: &Namespace, plan: RequestPlan) -> io::Result<RequestReport> {
        Self::start(namespace, plan).finish()
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// When no socket could be made.
    ///
    /// # Panics
    /// When the requester's thread has panicked.
    pub fn finish(self) -> io::Result<RequestReport> {
        self.thread.join().expect("the requester does not panic")
    }
}

struct Answers {
    sent_at: Vec<Option<Instant>>,
    answered: Vec<bool>,
    last: Option<Instant>,
    size: usize,
    report: RequestReport,
}

impl Answers {
    fn take(&mut self, reply: &[u8]) {
        let sequence = reply
            .first_chunk::<HEADER>()
            .map(|bytes| u64::from_be_bytes(*bytes));
        let index = sequence.and_then(|sequence| usize::try_from(sequence).ok());
        let sent_at = index.and_then(|index| self.sent_at.get(index).copied().flatten());
        let (Some(index), Some(sent_at)) = (index, sent_at) else {
            self.report.corrupt += 1;
            return;
        };
        if reply.len() != self.size
            || reply[HEADER..] != *expected(index as u64, self.size - HEADER)
        {
            self.report.corrupt += 1;
        } else if self.answered[index] {
            self.report.duplicates += 1;
        } else {
            self.answered[index] = true;
            self.report.answered += 1;
            let now = Instant::now();
            self.report.slowest = self.report.slowest.max(now - sent_at);
            let gap = self.last.map_or(Duration::ZERO, |last| now - last);
            self.report.longest_gap = self.report.longest_gap.max(gap);
            self.last = Some(now);
        }
    }
}

fn request_all(plan: &RequestPlan) -> io::Result<RequestReport> {
    let any: SocketAddr = if plan.to.is_ipv4() {
        ([0, 0, 0, 0], 0).into()
    } else {
        ([0_u16; 8], 0).into()
    };
    let sockets = (0..plan.flows.max(1))
        .map(|_| {
            let socket = UdpSocket::bind(any)?;
            make_room(&socket)?;
            socket.connect(plan.to)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        })
        .collect::<io::Result<Vec<_>>>()?;
    let size = plan.size.max(HEADER);
    let count = usize::try_from(plan.requests).map_err(|_| ErrorKind::InvalidInput)?;
    let mut answers = Answers {
        sent_at: vec![None; count],
        answered: vec![false; count],
        last: None,
        size,
        report: RequestReport::default(),
    };
    let mut request = vec![0; size];
    let mut buffer = vec![0; 65_536];
    let started = Instant::now();
    for index in 0..count {
        let due = started + plan.interval * u32::try_from(index).unwrap_or(u32::MAX);
        loop {
            collect(&sockets, &mut buffer, &mut answers);
            let now = Instant::now();
            if now >= due {
                break;
            }
            std::thread::sleep((due - now).min(Duration::from_millis(1)));
        }
        request[..HEADER].copy_from_slice(&(index as u64).to_be_bytes());
        request[HEADER..].copy_from_slice(expected(index as u64, size - HEADER));
        let socket = &sockets[index % sockets.len()];
        answers.sent_at[index] = Some(Instant::now());
        answers.report.sent += 1;
        // An ICMP error for an earlier request surfaces once, at the next call.
        if socket.send(&request).is_err() {
            answers.report.errors += 1;
            let _ = socket.send(&request);
        }
    }
    let deadline = Instant::now() + plan.patience;
    while answers.report.answered < answers.report.sent && Instant::now() < deadline {
        collect(&sockets, &mut buffer, &mut answers);
        std::thread::sleep(Duration::from_millis(1));
    }
    answers.report.lost = answers.report.sent - answers.report.answered;
    answers.report.lost_at = (answers.answered.iter().zip(&answers.sent_at))
        .filter(|(answered, _)| !**answered)
        .filter_map(|(_, sent_at)| Some(sent_at.as_ref()?.duration_since(started)))
        .collect();
    Ok(answers.report)
}

/// Room for what a hung worker lets go at once: no packet that passed shall be lost here.
fn make_room(socket: &UdpSocket) -> io::Result<()> {
    Ok(setsockopt(socket, sockopt::RcvBufForce, &(8 << 20))?)
}

fn collect(sockets: &[UdpSocket], buffer: &mut [u8], answers: &mut Answers) {
    for socket in sockets {
        loop {
            match socket.recv(buffer) {
                Ok(len) => answers.take(&buffer[..len]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => {
                    answers.report.errors += 1;
                    break;
                }
            }
        }
    }
}
