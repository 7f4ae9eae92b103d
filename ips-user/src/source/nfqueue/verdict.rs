//! Verdicts, and the other requests to the kernel, packed into one buffer.
//!
//! Neighbours in a batch mostly get the same verdict. Such a run becomes one
//! `NFQNL_MSG_VERDICT_BATCH`, which settles every pending packet up to its id; everything
//! before the run has been settled by then, because the kernel takes the messages of one send
//! in order (`netlink_rcv_skb`). So packets leave in the order they came, whatever the mixture
//! of verdicts.

use super::message::{
    ATTRIBUTE_HEADER, CONFIG, FAMILY_HEADER, HEADER, VERDICT, VERDICT_BATCH, align, attribute,
};
use crate::source::{Disposition, PacketId, QueueOptions, Verdict};

/// `NLM_F_REQUEST`.
const REQUEST: u16 = 1;
/// `NLM_F_ACK`.
const ACKNOWLEDGE: u16 = 4;

/// Sequence number of verdicts, in replies.
const SEQUENCE_VERDICT: u32 = 0;
/// Sequence number of a configuration.
pub(super) const SEQUENCE_CONFIG: u32 = 1;
/// Sequence number of a settlement; a constant, so that whoever shares the socket knows that
/// "nothing was pending" in reply to it is no error.
pub(super) const SEQUENCE_SETTLE: u32 = 2;

/// A buffer this full is sent before more is packed. With the largest single verdict (64 KiB
/// payload) on top it stays below the default send buffer of 208 KiB.
const FULL: usize = 64 * 1024;

/// Longest value of an attribute: its 16-bit length counts its header too.
pub(super) const MAX_VALUE: usize = u16::MAX as usize - ATTRIBUTE_HEADER;

/// Neighbouring packets with the same verdict.
#[derive(Clone, Copy, Debug)]
struct Run {
    last: PacketId,
    disposition: Disposition,
    mark: Option<u32>,
}

/// Packs verdicts in the order of their packets.
#[derive(Debug)]
pub(super) struct VerdictBuffer {
    queue: u16,
    bytes: Vec<u8>,
    run: Option<Run>,
}

impl VerdictBuffer {
    pub(super) fn new(queue: u16) -> Self {
        Self {
            queue,
            bytes: Vec::with_capacity(FULL + 68 * 1024),
            run: None,
        }
    }

    /// Adds the verdict of the next packet.
    pub(super) fn push(&mut self, id: PacketId, verdict: &Verdict) {
        let replacement = match verdict.disposition {
            Disposition::Accept => verdict.replacement.as_deref(),
            Disposition::Drop => None,
        };
        if let Some(payload) = replacement {
            self.close_run();
            let mut message =
                Request::begin(&mut self.bytes, VERDICT, 0, SEQUENCE_VERDICT, self.queue);
            message.verdict(verdict.disposition, id);
            if let Some(mark) = verdict.mark {
                message.attribute(attribute::MARK, &mark.to_be_bytes());
            }
            message.attribute(attribute::PAYLOAD, payload);
            message.end();
            return;
        }
        let run = Run {
            last: id,
            disposition: verdict.disposition,
            // Of no meaning to a packet that is dropped.
            mark: match verdict.disposition {
                Disposition::Accept => verdict.mark,
                Disposition::Drop => None,
            },
        };
        let same = self
            .run
            .is_some_and(|open| (open.disposition, open.mark) == (run.disposition, run.mark));
        if !same {
            self.close_run();
        }
        self.run = Some(run);
    }

    /// Whether to send before the next push.
    pub(super) fn is_full(&self) -> bool {
        self.bytes.len() >= FULL
    }

    /// Everything packed so far, ready to send; the open run is closed.
    pub(super) fn packed(&mut self) -> &[u8] {
        self.close_run();
        &self.bytes
    }

    /// Forgets what was packed, after it was sent.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
    }

    fn close_run(&mut self) {
        if let Some(run) = self.run.take() {
            let queue = self.queue;
            let mut message =
                Request::begin(&mut self.bytes, VERDICT_BATCH, 0, SEQUENCE_VERDICT, queue);
            message.verdict(run.disposition, run.last);
            if let Some(mark) = run.mark {
                message.attribute(attribute::MARK, &mark.to_be_bytes());
            }
            message.end();
        }
    }
}

/// One verdict for every pending packet up to `last`.
pub(super) fn settlement(queue: u16, last: PacketId, disposition: Disposition) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut message = Request::begin(&mut bytes, VERDICT_BATCH, 0, SEQUENCE_SETTLE, queue);
    message.verdict(disposition, last);
    message.end();
    bytes
}

/// `NFQA_CFG_QUEUE_MAXLEN`.
const MAX_LENGTH: u16 = 3;

/// Binds a queue and configures all of it, acknowledged.
///
/// In one message: the kernel (`nfqnl_recv_config`) applies the parts one after the other
/// before it takes the next request, and delivers nothing before the copy mode is set.
pub(super) fn configuration(options: &QueueOptions) -> Vec<u8> {
    /// `NFQNL_CFG_CMD_BIND`.
    const BIND: u8 = 1;
    /// `NFQNL_COPY_PACKET`.
    const COPY_PACKET: u8 = 2;
    /// `NFQA_CFG_CMD` and what follows it.
    const COMMAND: u16 = 1;
    const PARAMETERS: u16 = 2;
    const FLAGS_MASK: u16 = 4;
    const FLAGS: u16 = 5;
    /// `NFQA_CFG_F_FAIL_OPEN` (Linux 3.6).
    const FAIL_OPEN: u32 = 1;
    /// `NFQA_CFG_F_GSO` (Linux 3.10).
    const GSO: u32 = 4;

    let mut flags = 0;
    if options.fail_open {
        flags |= FAIL_OPEN;
    }
    if options.gso {
        flags |= GSO;
    }
    let [range_high, range_low] = options.copy_range.to_be_bytes();
    let mut bytes = Vec::new();
    let mut message = Request::begin(
        &mut bytes,
        CONFIG,
        ACKNOWLEDGE,
        SEQUENCE_CONFIG,
        options.number,
    );
    message.attribute(COMMAND, &[BIND, 0, 0, 0]);
    message.attribute(PARAMETERS, &[0, 0, range_high, range_low, COPY_PACKET]);
    message.attribute(MAX_LENGTH, &options.max_length.to_be_bytes());
    message.attribute(FLAGS_MASK, &(FAIL_OPEN | GSO).to_be_bytes());
    message.attribute(FLAGS, &flags.to_be_bytes());
    message.end();
    bytes
}

/// A request that changes the length of a queue that is bound already. Not acknowledged: whoever
/// serves the queue would receive that.
pub(super) fn new_length(number: u16, max_length: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut message = Request::begin(&mut bytes, CONFIG, 0, SEQUENCE_CONFIG, number);
    message.attribute(MAX_LENGTH, &max_length.to_be_bytes());
    message.end();
    bytes
}

/// A request being written at the end of a buffer.
struct Request<'a> {
    bytes: &'a mut Vec<u8>,
    start: usize,
}

impl<'a> Request<'a> {
    fn begin(bytes: &'a mut Vec<u8>, kind: u16, flags: u16, sequence: u32, queue: u16) -> Self {
        let start = bytes.len();
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&(REQUEST | flags).to_ne_bytes());
        bytes.extend_from_slice(&sequence.to_ne_bytes());
        bytes.extend_from_slice(&[0; 4]);
        debug_assert_eq!(bytes.len(), start + HEADER);
        // Family unspecified, version 0.
        bytes.extend_from_slice(&[0, 0]);
        bytes.extend_from_slice(&queue.to_be_bytes());
        debug_assert_eq!(bytes.len(), start + HEADER + FAMILY_HEADER);
        Self { bytes, start }
    }

    fn verdict(&mut self, disposition: Disposition, id: PacketId) {
        // NF_DROP, NF_ACCEPT (linux/netfilter.h).
        let verdict: u32 = match disposition {
            Disposition::Drop => 0,
            Disposition::Accept => 1,
        };
        let mut value = [0; 8];
        value[..4].copy_from_slice(&verdict.to_be_bytes());
        value[4..].copy_from_slice(&id.0.to_be_bytes());
        self.attribute(attribute::VERDICT_HEADER, &value);
    }

    /// Adds an attribute. A value that does not fit into one (65,531 bytes) is cut: callers
    /// pass IP packets, and [`super::NfQueue`] refuses longer ones before.
    fn attribute(&mut self, kind: u16, value: &[u8]) {
        let value = &value[..value.len().min(MAX_VALUE)];
        let len = u16::try_from(ATTRIBUTE_HEADER + value.len()).unwrap_or(u16::MAX);
        self.bytes.extend_from_slice(&len.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.bytes.resize(align(self.bytes.len()), 0);
    }

    fn end(self) {
        let len = u32::try_from(self.bytes.len() - self.start).unwrap_or(u32::MAX);
        self.bytes[self.start..self.start + 4].copy_from_slice(&len.to_ne_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Type and value.
    type Attribute = (u16, Vec<u8>);

    /// Type, and the attributes, of each message.
    fn unpack(mut bytes: &[u8]) -> Vec<(u16, Vec<Attribute>)> {
        let mut messages = Vec::new();
        while !bytes.is_empty() {
            let len = u32::from_ne_bytes(*bytes.first_chunk().unwrap()) as usize;
            let (message, rest) = bytes.split_at(len);
            bytes = rest;
            let kind = u16::from_ne_bytes([message[4], message[5]]);
            assert_eq!(message[18..20], 7_u16.to_be_bytes(), "queue number");
            let mut attributes = Vec::new();
            let mut left = &message[HEADER + FAMILY_HEADER..];
            while !left.is_empty() {
                let len = usize::from(u16::from_ne_bytes([left[0], left[1]]));
                let kind = u16::from_ne_bytes([left[2], left[3]]);
                attributes.push((kind, left[ATTRIBUTE_HEADER..len].to_vec()));
                left = &left[align(len)..];
            }
            messages.push((kind, attributes));
        }
        messages
    }

    fn verdict_header(verdict: u8, id: u8) -> (u16, Vec<u8>) {
        (
            attribute::VERDICT_HEADER,
            vec![0, 0, 0, verdict, 0, 0, 0, id],
        )
    }

    fn check(verdicts: &[Verdict], expected: &[(u16, Vec<Attribute>)]) {
        let mut buffer = VerdictBuffer::new(7);
        for (id, verdict) in (1..).zip(verdicts) {
            buffer.push(PacketId(id), verdict);
        }
        assert_eq!(unpack(buffer.packed()), expected);
        buffer.clear();
        assert!(buffer.packed().is_empty());
    }

    #[test]
    fn a_batch_of_plain_accepts_is_one_message() {
        let accepts = [Verdict::ACCEPT, Verdict::ACCEPT, Verdict::ACCEPT];
        check(&accepts, &[(VERDICT_BATCH, vec![verdict_header(1, 3)])]);
    }

    #[test]
    fn a_mixed_batch_is_settled_in_the_order_of_its_packets() {
        let marked = Verdict {
            mark: Some(5),
            ..Verdict::ACCEPT
        };
        let replaced = Verdict {
            replacement: Some(b"new".to_vec()),
            ..marked.clone()
        };
        let verdicts = [
            Verdict::ACCEPT,
            Verdict::DROP,
            Verdict::DROP,
            marked.clone(),
            replaced.clone(),
            replaced,
            marked,
            Verdict::ACCEPT,
        ];
        let mark = || (attribute::MARK, vec![0, 0, 0, 5]);
        let payload = || (attribute::PAYLOAD, b"new".to_vec());
        check(
            &verdicts,
            &[
                (VERDICT_BATCH, vec![verdict_header(1, 1)]),
                (VERDICT_BATCH, vec![verdict_header(0, 3)]),
                (VERDICT_BATCH, vec![verdict_header(1, 4), mark()]),
                (VERDICT, vec![verdict_header(1, 5), mark(), payload()]),
                (VERDICT, vec![verdict_header(1, 6), mark(), payload()]),
                (VERDICT_BATCH, vec![verdict_header(1, 7), mark()]),
                (VERDICT_BATCH, vec![verdict_header(1, 8)]),
            ],
        );
    }

    #[test]
    fn a_drop_carries_neither_mark_nor_payload() {
        let drop = Verdict {
            mark: Some(5),
            replacement: Some(b"new".to_vec()),
            ..Verdict::DROP
        };
        check(&[drop], &[(VERDICT_BATCH, vec![verdict_header(0, 1)])]);
    }

    #[test]
    fn the_buffer_is_full_before_it_exceeds_the_send_buffer() {
        let mut buffer = VerdictBuffer::new(7);
        let replaced = Verdict {
            replacement: Some(vec![1; MAX_VALUE]),
            ..Verdict::ACCEPT
        };
        let mut id = 0;
        while !buffer.is_full() {
            id += 1;
            buffer.push(PacketId(id), &replaced);
        }
        assert!(buffer.packed().len() < 200 * 1024);
    }
}
