//! Netlink, nfnetlink and queue messages as views over received bytes.
//!
//! Layouts: `linux/netlink.h`, `linux/netfilter/nfnetlink.h`,
//! `linux/netfilter/nfnetlink_queue.h`. Netlink's own header is in host byte order, what
//! netfilter puts behind it in network byte order. No accessor can panic, whatever the bytes.

use crate::source::Checksum;

/// `struct nlmsghdr`: length, type, flags, sequence number, port.
pub(super) const HEADER: usize = 16;
/// `struct nfgenmsg`: family, version, resource id (the queue number).
pub(super) const FAMILY_HEADER: usize = 4;
/// `struct nlattr`: length, type.
pub(super) const ATTRIBUTE_HEADER: usize = 4;

/// `NFNL_SUBSYS_QUEUE << 8`.
const QUEUE_SUBSYSTEM: u16 = 3 << 8;
/// `NFQNL_MSG_PACKET`.
const PACKET: u16 = QUEUE_SUBSYSTEM;
/// `NFQNL_MSG_VERDICT`.
pub(super) const VERDICT: u16 = QUEUE_SUBSYSTEM | 1;
/// `NFQNL_MSG_CONFIG`.
pub(super) const CONFIG: u16 = QUEUE_SUBSYSTEM | 2;
/// `NFQNL_MSG_VERDICT_BATCH`.
pub(super) const VERDICT_BATCH: u16 = QUEUE_SUBSYSTEM | 3;
/// `NLMSG_ERROR`: an error, or with errno 0 an acknowledgement.
const ERROR: u16 = 2;

/// `enum nfqnl_attr_type`, what is used of it.
pub(super) mod attribute {
    pub(crate) const PACKET_HEADER: u16 = 1;
    pub(crate) const VERDICT_HEADER: u16 = 2;
    pub(crate) const MARK: u16 = 3;
    pub(crate) const IN_INTERFACE: u16 = 5;
    pub(crate) const OUT_INTERFACE: u16 = 6;
    pub(crate) const PAYLOAD: u16 = 10;
    pub(crate) const ORIGINAL_LEN: u16 = 13;
    pub(crate) const SKB_INFO: u16 = 14;
}

/// `NLA_TYPE_MASK`: without the nested and byte order flags.
const ATTRIBUTE_TYPE: u16 = 0x3fff;
/// `NFQA_SKB_CSUMNOTREADY`.
const CHECKSUM_NOT_READY: u32 = 1;
/// `NFQA_SKB_GSO`.
const GSO: u32 = 2;
/// `NFQA_SKB_CSUM_NOTVERIFIED`.
const CHECKSUM_NOT_VERIFIED: u32 = 4;

/// One message from the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message<'a> {
    /// A packet that waits for its verdict.
    Packet(QueuedPacket<'a>),
    /// The reply to a request: errno, zero for an acknowledgement.
    Reply {
        /// Sequence number of the request.
        sequence: u32,
        /// Positive error number.
        errno: i32,
    },
    /// Neither, or broken.
    Unknown,
}

/// `NFQNL_MSG_PACKET`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct QueuedPacket<'a> {
    pub(super) id: u32,
    pub(super) hook: u8,
    pub(super) ethertype: u16,
    pub(super) mark: u32,
    pub(super) in_interface: u32,
    pub(super) out_interface: u32,
    pub(super) original_len: u32,
    pub(super) skb_info: u32,
    pub(super) payload: &'a [u8],
}

impl QueuedPacket<'_> {
    pub(super) fn checksum(&self) -> Checksum {
        if self.skb_info & CHECKSUM_NOT_READY != 0 {
            Checksum::NotReady
        } else if self.skb_info & CHECKSUM_NOT_VERIFIED != 0 {
            Checksum::Unverified
        } else {
            Checksum::Verified
        }
    }

    pub(super) fn is_gso(&self) -> bool {
        self.skb_info & GSO != 0
    }
}

/// The messages of one datagram, in order. Broken bytes give one [`Message::Unknown`].
#[derive(Clone, Debug)]
pub(super) struct Messages<'a> {
    rest: &'a [u8],
}

impl<'a> Messages<'a> {
    pub(super) fn of(datagram: &'a [u8]) -> Self {
        Self { rest: datagram }
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        let datagram = std::mem::take(&mut self.rest);
        let Some(len) = host_u32(datagram, 0).and_then(|len| usize::try_from(len).ok()) else {
            return Some(Message::Unknown);
        };
        if len < HEADER {
            return Some(Message::Unknown);
        }
        // More than is there: the datagram was cut by a short buffer. What is there may still
        // hold the id, and a packet with an id gets its verdict.
        let message = datagram.get(..len).unwrap_or(datagram);
        self.rest = datagram.get(align(len)..).unwrap_or_default();
        Some(parse(message).unwrap_or(Message::Unknown))
    }
}

fn parse(message: &[u8]) -> Option<Message<'_>> {
    let kind = host_u16(message, 4)?;
    let sequence = host_u32(message, 8)?;
    let body = message.get(HEADER..)?;
    match kind {
        PACKET => parse_packet(body.get(FAMILY_HEADER..)?).map(Message::Packet),
        ERROR => {
            let errno = host_u32(body, 0)?.cast_signed().checked_neg()?;
            Some(Message::Reply { sequence, errno })
        }
        _ => None,
    }
}

fn parse_packet(mut attributes: &[u8]) -> Option<QueuedPacket<'_>> {
    let mut packet = QueuedPacket {
        id: 0,
        hook: 0,
        ethertype: 0,
        mark: 0,
        in_interface: 0,
        out_interface: 0,
        original_len: 0,
        skb_info: 0,
        payload: &[],
    };
    let mut identified = false;
    let mut original_len = None;
    let mut payload_len = 0;
    while let (Some(len), Some(kind)) = (host_u16(attributes, 0), host_u16(attributes, 2)) {
        let len = usize::from(len);
        if len < ATTRIBUTE_HEADER {
            break;
        }
        let end = len.min(attributes.len());
        let value = &attributes[ATTRIBUTE_HEADER..end];
        match kind & ATTRIBUTE_TYPE {
            attribute::PACKET_HEADER => {
                packet.id = network_u32(value, 0)?;
                packet.ethertype = network_u16(value, 4)?;
                packet.hook = *value.get(6)?;
                identified = true;
            }
            attribute::MARK => packet.mark = network_u32(value, 0).unwrap_or(0),
            attribute::IN_INTERFACE => packet.in_interface = network_u32(value, 0).unwrap_or(0),
            attribute::OUT_INTERFACE => packet.out_interface = network_u32(value, 0).unwrap_or(0),
            attribute::ORIGINAL_LEN => original_len = network_u32(value, 0),
            attribute::SKB_INFO => packet.skb_info = network_u32(value, 0).unwrap_or(0),
            attribute::PAYLOAD => {
                packet.payload = value;
                payload_len = len - ATTRIBUTE_HEADER;
            }
            _ => {}
        }
        attributes = attributes.get(align(len)..).unwrap_or_default();
    }
    // The kernel sends the length only with a packet that it has cut.
    let payload_len = u32::try_from(payload_len).ok()?;
    packet.original_len = original_len.unwrap_or(payload_len).max(payload_len);
    identified.then_some(packet)
}

/// `NLMSG_ALIGN`, `NLA_ALIGN`.
pub(super) const fn align(len: usize) -> usize {
    len.next_multiple_of(4)
}

fn host_u16(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u16::from_ne_bytes(*bytes))
}

fn host_u32(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*bytes))
}

fn network_u16(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u16::from_be_bytes(*bytes))
}

fn network_u32(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let len = u32::try_from(HEADER + body.len()).unwrap();
        bytes.extend(len.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(0_u16.to_ne_bytes());
        bytes.extend(7_u32.to_ne_bytes());
        bytes.extend(0_u32.to_ne_bytes());
        bytes.extend(body);
        bytes.resize(align(bytes.len()), 0);
        bytes
    }

    fn attribute_of(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let len = u16::try_from(ATTRIBUTE_HEADER + value.len()).unwrap();
        bytes.extend(len.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(align(bytes.len()), 0);
        bytes
    }

    fn packet_message() -> Vec<u8> {
        let mut body = vec![0; FAMILY_HEADER];
        body.extend(attribute_of(
            attribute::PACKET_HEADER,
            &[0, 0, 1, 2, 0x08, 0x00, 2],
        ));
        body.extend(attribute_of(attribute::MARK, &[0, 0, 0, 9]));
        body.extend(attribute_of(attribute::IN_INTERFACE, &[0, 0, 0, 3]));
        body.extend(attribute_of(attribute::OUT_INTERFACE, &[0, 0, 0, 4]));
        body.extend(attribute_of(attribute::SKB_INFO, &[0, 0, 0, 3]));
        body.extend(attribute_of(attribute::PAYLOAD, b"packet"));
        message(PACKET, &body)
    }

    #[test]
    fn every_attribute_of_a_packet_is_read() {
        let bytes = packet_message();
        let messages: Vec<_> = Messages::of(&bytes).collect();
        let expected = QueuedPacket {
            id: 0x102,
            hook: 2,
            ethertype: 0x0800,
            mark: 9,
            in_interface: 3,
            out_interface: 4,
            original_len: 6,
            skb_info: 3,
            payload: b"packet",
        };
        assert_eq!(messages, [Message::Packet(expected)]);
        assert!(expected.is_gso());
        assert_eq!(expected.checksum(), Checksum::NotReady);
    }

    #[test]
    fn a_cut_packet_tells_its_original_length() {
        let mut body = vec![0; FAMILY_HEADER];
        body.extend(attribute_of(attribute::PACKET_HEADER, &[0; 7]));
        body.extend(attribute_of(attribute::ORIGINAL_LEN, &[0, 0, 5, 0]));
        body.extend(attribute_of(attribute::PAYLOAD, &[1; 64]));
        let bytes = message(PACKET, &body);
        let Some(Message::Packet(packet)) = Messages::of(&bytes).next() else {
            panic!("a packet");
        };
        assert_eq!((packet.payload.len(), packet.original_len), (64, 0x500));
    }

    #[test]
    fn a_datagram_cut_by_the_buffer_still_gives_the_id() {
        let bytes = packet_message();
        let Some(Message::Packet(packet)) = Messages::of(&bytes[..bytes.len() - 4]).next() else {
            panic!("a packet");
        };
        assert_eq!((packet.id, packet.payload), (0x102, b"pack".as_slice()));
        assert_eq!(packet.original_len, 6);
    }

    #[test]
    fn a_packet_without_id_is_unknown() {
        let mut body = vec![0; FAMILY_HEADER];
        body.extend(attribute_of(attribute::PAYLOAD, b"packet"));
        let bytes = message(PACKET, &body);
        assert_eq!(Messages::of(&bytes).collect::<Vec<_>>(), [Message::Unknown]);
    }

    #[test]
    fn an_error_reply_gives_a_positive_errno() {
        let mut body = (-2_i32).to_ne_bytes().to_vec();
        body.extend([0; HEADER]);
        let bytes = message(ERROR, &body);
        let reply = Message::Reply {
            sequence: 7,
            errno: 2,
        };
        assert_eq!(Messages::of(&bytes).collect::<Vec<_>>(), [reply]);
    }

    #[test]
    fn messages_of_one_datagram_come_in_order() {
        let mut bytes = packet_message();
        bytes.extend(message(99, &[]));
        bytes.extend(packet_message());
        let kinds: Vec<_> = Messages::of(&bytes)
            .map(|message| matches!(message, Message::Packet(_)))
            .collect();
        assert_eq!(kinds, [true, false, true]);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic_or_go_on_forever(bytes: Vec<u8>) {
            prop_assert!(Messages::of(&bytes).count() <= bytes.len());
        }

        #[test]
        fn no_change_of_a_real_message_makes_the_parser_panic(
            changes in proptest::collection::vec((0_usize..88, any::<u8>()), 0..6),
            cut in 0_usize..88,
        ) {
            let mut bytes = packet_message();
            for (at, value) in changes {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = value;
                }
            }
            bytes.truncate(cut);
            for message in Messages::of(&bytes) {
                if let Message::Packet(packet) = message {
                    prop_assert!(packet.payload.len() <= bytes.len());
                    prop_assert!(packet.original_len as usize >= packet.payload.len());
                }
            }
        }
    }
}
