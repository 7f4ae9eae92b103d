//! The transport of the `nfq` crate: one packet per system call, kept as oracle and baseline.
//!
//! What the crate (0.2.5) cannot do, and what follows from it here:
//!
//! * It exposes no descriptor. Nobody can wait for it with a timeout: [`CrateQueue::serve`]
//!   asks without blocking and sleeps in between, longer the longer nothing comes. And nobody
//!   can inherit it: when its process dies, the kernel drops what was queued.
//! * Its socket is not close-on-exec: every program that the process starts inherits it, and
//!   the queue stays bound, with nobody to serve it, until that program has ended.
//! * It cannot raise its receive buffer, nor tell how often that was full:
//!   [`QueueCounters::overruns`] stays zero, `/proc/net/netfilter/nfnetlink_queue` knows.
//! * It configures a queue by several requests and throws away packets that arrive while it
//!   waits for their acknowledgements: open it before traffic is sent to the queue.
//! * It panics on messages that it does not understand.

use std::io;
use std::time::{Duration, Instant};

use super::{
    Checksum, Disposition, Inspector, Packet, PacketId, PacketQueue, QueueCounters, QueueError,
    QueueOptions, Verdict,
};

/// Longest payload of a netlink attribute.
const MAX_REPLACEMENT: usize = u16::MAX as usize - 4;
/// Fruitless attempts to receive before the first sleep.
const EAGER_ATTEMPTS: u32 = 64;
/// The first sleep; each further one is twice as long.
const SHORTEST_SLEEP: Duration = Duration::from_micros(20);
/// The longest sleep: how late a packet may be noticed on an idle queue.
const LONGEST_SLEEP: Duration = Duration::from_millis(1);

/// A queue served by the `nfq` crate.
pub struct CrateQueue {
    number: u16,
    queue: nfq::Queue,
    counters: QueueCounters,
}

impl CrateQueue {
    /// Binds and configures a queue in the calling thread's network namespace.
    /// `options.receive_buffer` and `options.batch` have no effect.
    ///
    /// # Errors
    /// When the kernel has no NFQUEUE, the caller lacks `CAP_NET_ADMIN`, or another socket has
    /// bound this queue number.
    pub fn open(options: &QueueOptions) -> Result<Self, QueueError> {
        let number = options.number;
        let mut queue = nfq::Queue::open().map_err(|source| QueueError::Io {
            queue: number,
            call: "nfq::Queue::open",
            source,
        })?;
        let refused = |request: &'static str| {
            move |source: io::Error| QueueError::Refused {
                queue: number,
                request,
                source,
            }
        };
        queue.bind(number).map_err(refused(
            "to bind (has another program bound this queue number? is CAP_NET_ADMIN there?)",
        ))?;
        queue
            .set_queue_max_len(number, options.max_length)
            .map_err(refused("the queue length"))?;
        queue
            .set_fail_open(number, options.fail_open)
            .map_err(refused("the fail-open flag"))?;
        queue
            .set_recv_gso(number, options.gso)
            .map_err(refused("the GSO flag"))?;
        queue
            .set_copy_range(number, options.copy_range)
            .map_err(refused("the copy range"))?;
        queue.set_nonblocking(true);
        Ok(Self {
            number,
            queue,
            counters: QueueCounters::default(),
        })
    }

    /// The next packet; `None` after the timeout or a signal.
    fn receive(&mut self, timeout: Duration) -> Result<Option<nfq::Message>, QueueError> {
        let mut attempts = 0;
        let mut sleep = SHORTEST_SLEEP;
        let mut deadline = None;
        loop {
            let error = match self.queue.recv() {
                Ok(message) => return Ok(Some(message)),
                Err(error) => error,
            };
            match error.raw_os_error() {
                Some(libc::EAGAIN) => {}
                Some(libc::EINTR) => return Ok(None),
                Some(libc::ENOBUFS) => {
                    self.counters.overruns += 1;
                    continue;
                }
                // The crate reports the kernel's reply to a verdict in the place of a packet.
                Some(libc::ENOENT | libc::EINVAL | libc::EPERM | libc::ENODEV) => {
                    self.counters.refused += 1;
                    continue;
                }
                _ => return Err(self.failed("nfq::Queue::recv", error)),
            }
            attempts += 1;
            if attempts < EAGER_ATTEMPTS {
                std::thread::yield_now();
                continue;
            }
            let now = Instant::now();
            let deadline = *deadline.get_or_insert(now + timeout);
            if now >= deadline {
                return Ok(None);
            }
            std::thread::sleep(sleep.min(deadline - now));
            sleep = (sleep * 2).min(LONGEST_SLEEP);
        }
    }

    fn send(&mut self, message: nfq::Message) -> Result<(), QueueError> {
        // The crate consumes the message, so that nothing can be tried again; it blocks, so
        // that only a signal or a lack of memory can come between.
        self.queue
            .verdict(message)
            .map_err(|error| self.failed("nfq::Queue::verdict", error))
    }

    fn failed(&self, call: &'static str, source: io::Error) -> QueueError {
        QueueError::Io {
            queue: self.number,
            call,
            source,
        }
    }
}

impl PacketQueue for CrateQueue {
    /// Batches are always of one packet.
    fn serve(
        &mut self,
        timeout: Duration,
        inspector: &mut dyn Inspector,
    ) -> Result<usize, QueueError> {
        let Some(mut message) = self.receive(timeout)? else {
            return Ok(0);
        };
        self.counters.received += 1;
        self.counters.batches += 1;
        inspector.batch(PacketId(message.get_packet_id()), 1);
        let mut verdict = inspector.packet(packet(&message));
        if verdict
            .replacement
            .as_ref()
            .is_some_and(|new| new.len() > MAX_REPLACEMENT)
        {
            // As in the batched transport; the crate would write a wrong length.
            self.counters.refused += 1;
            verdict = Verdict::DROP;
        }
        match verdict.disposition {
            Disposition::Accept => {
                message.set_verdict(nfq::Verdict::Accept);
                if let Some(mark) = verdict.mark {
                    message.set_nfmark(mark);
                }
                match verdict.replacement {
                    Some(replacement) => {
                        self.counters.replaced += 1;
                        message.set_payload(replacement);
                    }
                    None => self.counters.accepted += 1,
                }
            }
            Disposition::Drop => {
                self.counters.dropped += 1;
                message.set_verdict(nfq::Verdict::Drop);
            }
        }
        self.send(message)?;
        Ok(1)
    }

    /// Nothing to do: a predecessor's socket is closed with its process, and the kernel has
    /// dropped everything that was pending there, whatever `disposition` says. The packets of
    /// this socket are settled one by one as they are shown.
    fn settle_through(&mut self, _: PacketId, _: Disposition) -> Result<(), QueueError> {
        Ok(())
    }

    fn counters(&self) -> QueueCounters {
        self.counters
    }
}

fn packet(message: &nfq::Message) -> Packet<'_> {
    Packet {
        id: PacketId(message.get_packet_id()),
        hook: message.get_hook(),
        ethertype: message.get_hw_protocol(),
        mark: message.get_nfmark(),
        in_interface: message.get_indev(),
        out_interface: message.get_outdev(),
        payload: message.get_payload(),
        original_len: u32::try_from(message.get_original_len()).unwrap_or(u32::MAX),
        checksum: if message.is_checksum_ready() {
            // The crate tells no more than this.
            Checksum::Unverified
        } else {
            Checksum::NotReady
        },
        gso: message.is_seg_offloaded(),
    }
}
