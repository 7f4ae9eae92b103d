//! The product's transport: NFQUEUE over an own netlink socket.
//!
//! What it does that a packet-by-packet library cannot: [`QueueSocket`] is opened by one
//! process and served by another (the kernel takes verdicts from whoever holds the socket, and
//! drops nothing while one holder lives); many packets are received by one call and their
//! verdicts sent by one; the receive buffer is as large as GSO traffic needs.
//!
//! The full buffer: the socket has `NETLINK_NO_ENOBUFS` set, because without it the kernel,
//! after one refused packet, refuses all others until the buffer has run *empty*
//! (`netlink_overrun`). How many were refused is asked from the socket itself (`SO_MEMINFO`).

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use super::{
    Disposition, Inspector, Packet, PacketId, PacketQueue, QueueCounters, QueueError, QueueOptions,
    Verdict,
};
use crate::sys::pages::Pages;
use message::{Message, Messages, QueuedPacket};
use socket::Receiver;
use survey::Survey;
use verdict::VerdictBuffer;

#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod message;
mod socket;
mod survey;
mod unserved;
mod verdict;

pub use unserved::{Taken, settle_through, take_waiting};

/// Room for everything in a message but the payload.
const METADATA: usize = 4096;

/// About the bytes of one batch: what was received shall still be in the second-level cache
/// when it is inspected, and the buffers when they are filled again. Batches of 64 aggregates
/// (4 MB) cost eight TCP streams up to a third of their throughput in the lab.
const BATCH_BYTES: usize = 512 * 1024;
/// Fewest packets of a full batch, however long they are.
const LEAST_BATCH: usize = 8;

/// How long a verdict that the kernel has no memory for is tried again.
const SEND_PATIENCE: Duration = Duration::from_secs(10);

/// A bound and configured queue that nobody serves yet.
#[derive(Debug)]
pub struct QueueSocket {
    socket: OwnedFd,
    receive_buffer: usize,
}

impl QueueSocket {
    /// Binds the queue `options.number` in the calling thread's network namespace and
    /// configures all of it before the first packet can arrive.
    ///
    /// # Errors
    /// When the kernel has no NFQUEUE, the caller lacks `CAP_NET_ADMIN`, or another socket has
    /// bound this queue number.
    pub fn open(options: &QueueOptions) -> Result<Self, QueueError> {
        let call = |call: &'static str| {
            move |source: io::Error| QueueError::Io {
                queue: options.number,
                call,
                source,
            }
        };
        let socket = socket::open().map_err(call("socket(NETLINK_NETFILTER)"))?;
        let receive_buffer = socket::set_receive_buffer(&socket, options.receive_buffer)
            .map_err(call("setsockopt(SO_RCVBUF)"))?;
        socket::set_send_buffer(&socket, 256 * 1024).map_err(call("setsockopt(SO_SNDBUF)"))?;
        socket::set_netlink_flag(&socket, libc::NETLINK_NO_ENOBUFS)
            .map_err(call("setsockopt(NETLINK_NO_ENOBUFS)"))?;
        // Error replies need not repeat a refused verdict's payload.
        socket::set_netlink_flag(&socket, libc::NETLINK_CAP_ACK)
            .map_err(call("setsockopt(NETLINK_CAP_ACK)"))?;
        socket::bind_any_port(&socket).map_err(call("bind"))?;
        configure(&socket, options)?;
        Ok(Self {
            socket,
            receive_buffer,
        })
    }

    /// Bytes of receive buffer granted: less than asked for without `CAP_NET_ADMIN` in the
    /// initial user namespace, where `net.core.rmem_max` is the limit.
    #[must_use]
    pub fn receive_buffer(&self) -> usize {
        self.receive_buffer
    }

    /// The descriptor, for handing to another process and for [`NfQueue::new`]. The queue
    /// lives, and keeps its packets, while any copy of it is open.
    #[must_use]
    pub fn into_fd(self) -> OwnedFd {
        self.socket
    }
}

impl AsFd for QueueSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Changes how many packets may wait in a queue, through the socket that has bound it; more than
/// that may be waiting already. The queue may be served meanwhile.
///
/// # Errors
/// When the message cannot be sent.
pub fn set_length(socket: BorrowedFd<'_>, number: u16, max_length: u32) -> io::Result<()> {
    socket::send_to_kernel(socket, &verdict::new_length(number, max_length))
}

fn configure(socket: &OwnedFd, options: &QueueOptions) -> Result<(), QueueError> {
    let failed = |call| {
        move |source| QueueError::Io {
            queue: options.number,
            call,
            source,
        }
    };
    socket::send_to_kernel(socket.as_fd(), &verdict::configuration(options))
        .map_err(failed("sendmsg"))?;
    // The kernel has answered when sendmsg returns. A packet can be in the buffer before the
    // answer; it is left there for whoever serves the queue, and proves as well as the answer
    // that the queue is configured: the kernel checks the whole request before it binds.
    let mut first = [0; METADATA];
    let len = socket::peek(socket.as_fd(), &mut first).map_err(failed("recvmsg(configuration)"))?;
    match Messages::of(&first[..len]).next() {
        Some(Message::Packet(_)) => Ok(()),
        Some(Message::Reply { errno, .. }) => {
            socket::discard_first(socket.as_fd()).map_err(failed("recvmsg(configuration)"))?;
            match errno {
                0 => Ok(()),
                errno => Err(refusal(options.number, errno)),
            }
        }
        Some(Message::Unknown) | None => Err(failed("recvmsg(configuration)")(
            ErrorKind::InvalidData.into(),
        )),
    }
}

/// Says why the kernel has refused a configuration.
fn refusal(queue: u16, errno: i32) -> QueueError {
    let in_use = bound_queues().is_some_and(|mut queues| queues.any(|bound| bound == queue));
    let request = match errno {
        // For a queue of another socket the errno is EPERM too.
        libc::EPERM | libc::EBUSY if in_use => {
            "to bind (another program has bound this queue number)"
        }
        libc::EPERM => "to bind (CAP_NET_ADMIN is missing)",
        libc::EINVAL | libc::EOPNOTSUPP => {
            "to bind (is CONFIG_NETFILTER_NETLINK_QUEUE, module nfnetlink_queue, there?)"
        }
        _ => "to bind and configure the queue",
    };
    QueueError::Refused {
        queue,
        request,
        source: io::Error::from_raw_os_error(errno),
    }
}

/// The queue numbers that are bound in the calling thread's network namespace.
fn bound_queues() -> Option<impl Iterator<Item = u16>> {
    let queues = std::fs::read_to_string("/proc/thread-self/net/netfilter/nfnetlink_queue").ok()?;
    let numbers: Vec<u16> = queues
        .lines()
        .filter_map(|line| line.split_whitespace().next()?.parse().ok())
        .collect();
    Some(numbers.into_iter())
}

/// Most packets of one receive call.
fn batch(options: &QueueOptions) -> usize {
    options.batch.clamp(1, 1024)
}

/// Longest message of the kernel's.
fn datagram_bytes(options: &QueueOptions) -> usize {
    usize::from(options.copy_range) + METADATA
}

/// How full the receive buffer of a queue's socket is, in percent. Whoever holds the socket may
/// ask.
///
/// # Errors
/// When it is no socket.
pub fn buffer_fill(socket: BorrowedFd<'_>) -> io::Result<u32> {
    let (used, limit) = socket::buffered(socket)?;
    let percent = u64::from(used) * 100 / u64::from(limit.max(1));
    Ok(u32::try_from(percent).unwrap_or(u32::MAX))
}

/// A queue that is served through its socket, in whatever process holds it.
pub struct NfQueue {
    number: u16,
    socket: OwnedFd,
    receiver: Receiver,
    /// Most packets of the next batch, by the length of those in the last one.
    limit: usize,
    verdicts: VerdictBuffer,
    counters: QueueCounters,
}

impl NfQueue {
    /// Bytes of memory that packets are received in.
    #[must_use]
    pub fn buffer_bytes(options: &QueueOptions) -> usize {
        Receiver::bytes(batch(options), datagram_bytes(options))
    }

    /// Serves the queue behind `socket`, a descriptor from [`QueueSocket::into_fd`]; `options`
    /// are those that it was opened with.
    ///
    /// # Errors
    /// When the descriptor is none of a socket, or memory runs out.
    pub fn new(socket: OwnedFd, options: &QueueOptions) -> Result<Self, QueueError> {
        let buffers = Pages::private(Self::buffer_bytes(options));
        let buffers = buffers.map_err(|source| QueueError::Io {
            queue: options.number,
            call: "mmap",
            source,
        })?;
        Self::with_buffers(socket, options, buffers)
    }

    /// The same, receiving into `buffers`, which have [`Self::buffer_bytes`].
    ///
    /// # Errors
    /// When the descriptor is none of a socket.
    pub fn with_buffers(
        socket: OwnedFd,
        options: &QueueOptions,
        buffers: Pages,
    ) -> Result<Self, QueueError> {
        socket::drops(socket.as_fd()).map_err(|source| QueueError::Io {
            queue: options.number,
            call: "getsockopt(SO_MEMINFO)",
            source,
        })?;
        let batch = batch(options);
        Ok(Self {
            number: options.number,
            socket,
            limit: batch,
            receiver: Receiver::new(batch, datagram_bytes(options), buffers),
            verdicts: VerdictBuffer::new(options.number),
            counters: QueueCounters::default(),
        })
    }

    /// The socket, for waiting on it together with others.
    #[must_use]
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Receives a batch, waiting for it if need be; zero datagrams after a timeout or a signal.
    fn receive(&mut self, timeout: Duration) -> Result<usize, QueueError> {
        // Under load something is there already, and one system call is enough.
        let mut waited = false;
        loop {
            match self.receiver.receive(self.socket.as_fd(), self.limit) {
                Ok(received) => return Ok(received),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(0),
                Err(error) => return Err(self.failed("recvmmsg", error)),
            }
            if waited {
                return Ok(0);
            }
            waited = true;
            match socket::wait(self.socket.as_fd(), timeout) {
                Ok(true) => {}
                Ok(false) => return Ok(0),
                Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(0),
                Err(error) => return Err(self.failed("ppoll", error)),
            }
        }
    }

    fn send_verdicts(&mut self) -> Result<(), QueueError> {
        let packed = self.verdicts.packed();
        if packed.is_empty() {
            return Ok(());
        }
        let sent = send_patiently(self.socket.as_fd(), packed);
        self.verdicts.clear();
        sent.map_err(|error| self.failed("sendmsg(verdicts)", error))
    }

    fn failed(&self, call: &'static str, source: io::Error) -> QueueError {
        QueueError::Io {
            queue: self.number,
            call,
            source,
        }
    }

    fn count(&mut self, verdict: &Verdict) {
        match verdict.disposition {
            Disposition::Accept if verdict.replacement.is_some() => self.counters.replaced += 1,
            Disposition::Accept => self.counters.accepted += 1,
            Disposition::Drop => self.counters.dropped += 1,
        }
    }
}

impl PacketQueue for NfQueue {
    fn serve(
        &mut self,
        timeout: Duration,
        inspector: &mut dyn Inspector,
    ) -> Result<usize, QueueError> {
        // Replies to what was sent are no packets, and packets may stand behind them.
        let (packets, (first, highest)) = loop {
            if self.receive(timeout)? == 0 {
                return Ok(0);
            }
            let mut survey = Survey::default();
            let messages = self.receiver.datagrams().flat_map(Messages::of);
            messages.for_each(|it| survey.note(&it));
            self.counters.refused += survey.refused;
            self.counters.undecodable += survey.undecodable;
            self.limit = limit_after(&self.receiver);
            if let Some(ends) = survey.ends {
                break (survey.packets, ends);
            }
        };
        if let Some((last, disposition)) = inspector.leftovers_before(first) {
            self.settle_through(last, disposition)?;
        }
        self.counters.received += packets as u64;
        self.counters.batches += 1;
        inspector.batch(highest, packets);
        // Taken out, so that the datagrams stay borrowed while verdicts are packed and sent.
        let receiver = std::mem::take(&mut self.receiver);
        let mut result = Ok(());
        for message in receiver.datagrams().flat_map(Messages::of) {
            let Message::Packet(queued) = message else {
                continue;
            };
            let mut verdict = inspector.packet(packet(&queued));
            if verdict
                .replacement
                .as_ref()
                .is_some_and(|new| new.len() > verdict::MAX_VALUE)
            {
                // No netlink attribute holds it, and half a packet is not what was inspected.
                self.counters.refused += 1;
                verdict = Verdict::DROP;
            }
            self.count(&verdict);
            self.verdicts.push(PacketId(queued.id), &verdict);
            if self.verdicts.is_full()
                && let Err(error) = self.send_verdicts()
            {
                // The others are still shown: each packet is shown once, and its verdict tried.
                result = Err(error);
            }
        }
        self.receiver = receiver;
        self.send_verdicts()?;
        result.map(|()| packets)
    }

    fn settle_through(
        &mut self,
        last: PacketId,
        disposition: Disposition,
    ) -> Result<(), QueueError> {
        settle_through(self.socket.as_fd(), self.number, last, disposition)
    }

    fn buffers_at(&self) -> Option<usize> {
        Some(self.receiver.address())
    }

    fn tallied(&self) -> QueueCounters {
        self.counters
    }

    fn counters(&self) -> QueueCounters {
        let mut counters = self.counters;
        if let Ok(drops) = socket::drops(self.socket.as_fd()) {
            counters.overruns = drops.into();
        }
        counters
    }
}

/// How many packets as long as the last ones make a batch.
fn limit_after(receiver: &Receiver) -> usize {
    let (mut datagrams, mut bytes) = (0, 0);
    for datagram in receiver.datagrams() {
        datagrams += 1;
        bytes += datagram.len();
    }
    (BATCH_BYTES * datagrams / bytes.max(1)).max(LEAST_BATCH)
}

fn packet<'a>(queued: &QueuedPacket<'a>) -> Packet<'a> {
    Packet {
        id: PacketId(queued.id),
        hook: queued.hook,
        ethertype: queued.ethertype,
        mark: queued.mark,
        in_interface: queued.in_interface,
        out_interface: queued.out_interface,
        payload: queued.payload,
        original_len: queued.original_len,
        checksum: queued.checksum(),
        gso: queued.is_gso(),
    }
}

/// Sends; when the kernel lacks memory or a signal comes between, again: a verdict that is
/// not sent is a packet that is stuck.
fn send_patiently(socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<()> {
    let mut given_up_at = None;
    loop {
        let error = match socket::send_to_kernel(socket, bytes) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        match error.raw_os_error() {
            Some(libc::EINTR) => {}
            Some(libc::ENOBUFS | libc::ENOMEM | libc::EAGAIN) => {
                let now = Instant::now();
                if now >= *given_up_at.get_or_insert(now + SEND_PATIENCE) {
                    return Err(error);
                }
                std::thread::sleep(Duration::from_micros(200));
            }
            _ => return Err(error),
        }
    }
}
