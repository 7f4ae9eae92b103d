//! `drop`: why a packet was dropped, and its headers.

use serde::Serialize;

use crate::decode::{Decoded, Transport};
use crate::exception::Cause;
use crate::reassembly::tcp::StreamDrop;

/// Why a packet was dropped, in Suricata's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// A rule.
    Rules,
    /// A rule, by the action of a `rate_filter`.
    RateFilter,
    /// The rest of a dropped flow.
    Flow,
    /// A fragment that cannot be used.
    Defrag,
    /// The stream engine.
    Stream(StreamDrop),
    /// An exception policy.
    Exception(Cause),
}

impl DropReason {
    const fn name(self) -> &'static str {
        match self {
            Self::Rules => "rules",
            Self::RateFilter => "threshold detection_filter",
            Self::Flow => "flow drop",
            Self::Defrag => "defrag error",
            Self::Stream(drop) => drop.name(),
            Self::Exception(cause) => cause.drop_reason(),
        }
    }
}

#[derive(Debug, Default, Serialize)]
pub(super) struct DropFields {
    pub(super) len: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tos: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ttl: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ipid: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tc: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) hoplimit: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) flowlbl: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tcpseq: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tcpack: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tcpwin: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) syn: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ack: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) psh: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rst: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) urg: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) fin: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tcpres: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tcpurgp: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) udplen: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) icmp_id: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) icmp_seq: Option<u16>,
    pub(super) reason: &'static str,
}

pub(super) fn drop_fields(packet: &Decoded<'_>, reason: DropReason) -> DropFields {
    let mut fields = DropFields {
        len: packet.len(),
        reason: reason.name(),
        ..DropFields::default()
    };
    if packet.is_ipv4() {
        fields.tos = Some(packet.tos());
        fields.ttl = Some(packet.ttl());
        fields.ipid = Some(packet.ip_id());
    } else {
        fields.tc = Some(packet.tos());
        fields.hoplimit = Some(packet.ttl());
        fields.flowlbl = Some(packet.flow_label());
    }
    match &packet.transport {
        Transport::Tcp(tcp) => {
            fields.tcpseq = Some(tcp.sequence_number());
            fields.tcpack = Some(tcp.acknowledgment_number());
            fields.tcpwin = Some(tcp.window_size());
            fields.syn = Some(tcp.syn());
            fields.ack = Some(tcp.ack());
            fields.psh = Some(tcp.psh());
            fields.rst = Some(tcp.rst());
            fields.urg = Some(tcp.urg());
            fields.fin = Some(tcp.fin());
            fields.tcpres = tcp.slice().get(12).map(|byte| byte & 0x0f);
            fields.tcpurgp = Some(tcp.urgent_pointer());
        }
        Transport::Udp { len } => fields.udplen = Some(*len),
        Transport::Icmp { kind: 0 | 8, .. } if packet.is_ipv4() => {
            let message = packet.network.map_or(&[][..], |network| network.payload);
            if let Some(&[_, _, _, _, a, b, c, d]) = message.first_chunk::<8>() {
                fields.icmp_id = Some(u16::from_be_bytes([a, b]));
                fields.icmp_seq = Some(u16::from_be_bytes([c, d]));
            }
        }
        _ => {}
    }
    fields
}
