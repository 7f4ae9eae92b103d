//! EVE JSON: one record a line, with Suricata's field names, so that what reads Suricata's
//! `eve.json` reads Sluice's.
//!
//! Reference: <https://docs.suricata.io/en/suricata-8.0.3/output/eve/eve-json-format.html>.

mod record;

use std::borrow::Cow;
use std::collections::BTreeMap;

use ips_common::FlowKey;
use record::{
    AlertFields, DropFields, EndedFlowFields, EndsFields, ExceptionFields, FlowFields, FlowLine,
    IncidentLine, Ip, Kind, Line, Metadata, OwnLine, Time, VerdictFields,
};

use crate::config::settings::Records;
use crate::decode::{Decoded, Transport, protocol};
use crate::exception::{Cause, Treatment};
use crate::flow::{Flow, FlowAction, PacketDirection, TcpState, Timestamp};
use crate::rules::{Action, RejectTarget, Rule};
use crate::verdict::Outcome;
use crate::verdict::reject::{Notice, notice};

/// What all records about one packet have in common.
#[derive(Clone, Copy, Debug)]
pub struct PacketContext<'a> {
    /// When it was received.
    pub time: Timestamp,
    /// Offset of local time from UTC in seconds; Suricata writes local time.
    pub utc_offset_s: i32,
    /// The packet.
    pub packet: &'a Decoded<'a>,
    /// Its flow and its direction in it.
    pub flow: Option<(&'a Flow, PacketDirection)>,
    /// Interface it came in by.
    pub in_interface: Option<&'a str>,
    /// Interface it will leave by.
    pub out_interface: Option<&'a str>,
    /// What happens to it.
    pub outcome: Outcome,
    /// The capture that it comes from, and its number there.
    pub capture: Option<(&'a str, u32)>,
    /// What records have.
    pub records: &'a Records,
}

/// Why a packet was dropped, in Suricata's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// A rule.
    Rules,
    /// The rest of a dropped flow.
    Flow,
    /// A fragment that cannot be used.
    Defrag,
    /// An exception policy.
    Exception(Cause),
}

impl DropReason {
    const fn name(self) -> &'static str {
        match self {
            Self::Rules => "rules",
            Self::Flow => "flow drop",
            Self::Defrag => "defrag error",
            Self::Exception(cause) => cause.drop_reason(),
        }
    }
}

/// Writes an `alert` record about `rule` into `line` (cleared first).
pub fn alert(context: &PacketContext<'_>, rule: &Rule, line: &mut Vec<u8>) {
    let kind = Kind::Alert(alert_fields(rule));
    write(context, "alert", kind, line);
}

/// Writes a `drop` record into `line` (cleared first); `rule` is the one that decided.
pub fn drop(
    context: &PacketContext<'_>,
    reason: DropReason,
    rule: Option<&Rule>,
    line: &mut Vec<u8>,
) {
    let kind = Kind::Drop {
        fields: drop_fields(context.packet, reason),
        alert: rule.map(alert_fields),
    };
    write(context, "drop", kind, line);
}

/// Writes an `exception` record into `line` (cleared first): a policy was applied to the packet,
/// the last of `packets` since the record before.
pub fn exception(
    context: &PacketContext<'_>,
    cause: Cause,
    treatment: Treatment,
    packets: u64,
    line: &mut Vec<u8>,
) {
    let fields = ExceptionFields::new(cause, treatment, packets);
    write(context, "exception", Kind::Exception(fields), line);
}

/// The same about a packet that shows no addresses.
pub fn exception_without_addresses(
    time: Timestamp,
    utc_offset_s: i32,
    cause: Cause,
    treatment: Treatment,
    packets: u64,
) -> Vec<u8> {
    let fields = ExceptionFields::new(cause, treatment, packets);
    own(time, utc_offset_s, "exception", &fields)
}

/// Why a flow has ended, in Suricata's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowEnd {
    /// Nothing had come for its time.
    Timeout,
    /// There was no room for it any more.
    Forced,
    /// A new connection has its addresses and ports.
    TcpReuse,
    /// There will be no more packets.
    Shutdown,
}

impl FlowEnd {
    const fn name(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Forced => "forced",
            Self::TcpReuse => "tcp_reuse",
            Self::Shutdown => "shutdown",
        }
    }
}

/// Writes a `flow` record into `line` (cleared first).
pub fn flow(flow: &Flow, end: FlowEnd, now: Timestamp, utc_offset_s: i32, line: &mut Vec<u8>) {
    line.clear();
    let (client, server) = flow.key.ends(flow.client);
    let family = flow.key.family;
    let ports = has_ports(flow.key.protocol);
    let one_sided = flow.to_client.packets == 0 || flow.to_server.packets == 0;
    let seconds = |time: Timestamp| time.wall_us.div_euclid(1_000_000);
    let record = FlowLine {
        timestamp: Time::new(now, utc_offset_s),
        flow_id: flow.id,
        event_type: "flow",
        src_ip: Ip(client.ip(family)),
        src_port: ports.then_some(client.port),
        dest_ip: Ip(server.ip(family)),
        dest_port: ports.then_some(server.port),
        proto: protocol_name(flow.key.protocol),
        ip_v: family,
        flow: EndedFlowFields {
            pkts_toserver: flow.to_server.packets,
            pkts_toclient: flow.to_client.packets,
            bytes_toserver: flow.to_server.bytes,
            bytes_toclient: flow.to_client.bytes,
            start: Time::new(flow.start, utc_offset_s),
            end: Time::new(flow.last, utc_offset_s),
            age: seconds(flow.last) - seconds(flow.start),
            state: match (flow.key.protocol, flow.tcp) {
                (protocol::TCP, TcpState::Established | TcpState::Closing) => "established",
                (protocol::TCP, TcpState::Closed) => "closed",
                (protocol::TCP, _) => "new",
                _ if one_sided => "new",
                _ => "established",
            },
            reason: end.name(),
            alerted: flow.clean_bytes.is_none(),
            action: match flow.action {
                FlowAction::Inspect => None,
                FlowAction::Pass => Some("pass"),
                FlowAction::Drop { .. } | FlowAction::Refuse { .. } => Some("drop"),
            },
        },
    };
    if serde_json::to_writer(&mut *line, &record).is_err() {
        line.clear();
    }
}

/// A record about Sluice itself; `fields` is the tree under the name of its type.
pub fn own(
    time: Timestamp,
    utc_offset_s: i32,
    event_type: &'static str,
    fields: &impl serde::Serialize,
) -> Vec<u8> {
    let line = OwnLine {
        timestamp: Time::new(time, utc_offset_s),
        event_type,
        fields,
    };
    // Serialising plain data into memory cannot fail.
    serde_json::to_vec(&line).unwrap_or_default()
}

/// A record about Sluice itself, of type `sluice`; `details` is the tree under that name. With
/// the flow that it is about, whose ends stand in the order of its key: which of them had sent
/// the packet nobody has looked at.
pub fn incident(
    time: Timestamp,
    utc_offset_s: i32,
    flow: Option<&FlowKey>,
    details: &serde_json::Value,
) -> Vec<u8> {
    let line = IncidentLine {
        timestamp: Time::new(time, utc_offset_s),
        event_type: "sluice",
        ends: flow.map(ends_fields),
        sluice: details,
    };
    // Serialising plain data into memory cannot fail.
    serde_json::to_vec(&line).unwrap_or_default()
}

fn write(
    context: &PacketContext<'_>,
    event_type: &'static str,
    kind: Kind<'_>,
    line: &mut Vec<u8>,
) {
    line.clear();
    let packet = context.packet;
    let icmp = match packet.transport {
        Transport::Icmp { kind, code } => Some((kind, code)),
        _ => None,
    };
    let (alert, drop, exception) = match kind {
        Kind::Alert(alert) => (Some(alert), None, None),
        Kind::Drop { fields, alert } => (alert, Some(fields), None),
        Kind::Exception(fields) => (None, None, Some(fields)),
    };
    let record = Line {
        timestamp: Time::new(context.time, context.utc_offset_s),
        flow_id: context.flow.map(|(flow, _)| flow.id),
        in_iface: context.in_interface,
        out_iface: context.out_interface,
        pcap_cnt: context.capture.map(|(_, number)| number),
        pcap_filename: context
            .capture
            .filter(|_| context.records.capture)
            .map(|(name, _)| name),
        event_type,
        src_ip: packet.addresses().map(|(source, _)| Ip(source)),
        src_port: packet.ports.map(|ports| ports.0),
        dest_ip: packet.addresses().map(|(_, destination)| Ip(destination)),
        dest_port: packet.ports.map(|ports| ports.1),
        proto: packet
            .network
            .map(|network| protocol_name(network.protocol)),
        icmp_type: icmp.map(|(kind, _)| kind),
        icmp_code: icmp.map(|(_, code)| code),
        ip_v: packet.network.map(|network| network.family),
        pkt_src: packet.source.name(),
        alert,
        drop,
        exception,
        verdict: Some(verdict_fields(context)),
        direction: context.flow.map(|(_, direction)| match direction {
            PacketDirection::ToServer => "to_server",
            PacketDirection::ToClient => "to_client",
        }),
        flow: context.flow.map(|(flow, _)| flow_fields(flow, context)),
    };
    if serde_json::to_writer(&mut *line, &record).is_err() {
        line.clear();
    }
}

fn alert_fields(rule: &Rule) -> AlertFields<'_> {
    let options = &rule.options;
    let mut metadata: Metadata<'_> = BTreeMap::new();
    for (key, value) in &options.metadata {
        metadata.entry(key).or_default().push(value);
    }
    AlertFields {
        action: match rule.action {
            Action::Alert | Action::Pass => "allowed",
            Action::Drop | Action::Reject(_) => "blocked",
        },
        gid: options.group_id,
        signature_id: options.signature_id,
        rev: options.revision,
        signature: &options.message,
        category: options
            .class
            .as_ref()
            .map_or("", |class| &class.description),
        severity: options.priority,
        metadata: (!metadata.is_empty()).then_some(metadata),
    }
}

fn verdict_fields(context: &PacketContext<'_>) -> VerdictFields {
    let told = match context.outcome {
        Outcome::Reject(target) => notice(context.packet).map(|notice| (target, notice)),
        _ => None,
    };
    VerdictFields {
        action: match context.outcome {
            Outcome::Accept => "alert",
            Outcome::Pass => "pass",
            Outcome::Drop | Outcome::Reject(_) => "drop",
        },
        reject_target: told.map(|(target, _)| {
            let to_client = matches!(context.flow, Some((_, PacketDirection::ToClient)));
            match (target, to_client) {
                (RejectTarget::Both, _) => "both",
                (RejectTarget::Source, false) | (RejectTarget::Destination, true) => "to_client",
                (RejectTarget::Destination, false) | (RejectTarget::Source, true) => "to_server",
            }
        }),
        reject: told.map(|(_, notice)| match notice {
            Notice::TcpReset => ["tcp-reset"],
            Notice::Icmp => ["icmp-prohib"],
        }),
    }
}

fn drop_fields(packet: &Decoded<'_>, reason: DropReason) -> DropFields {
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

fn flow_fields(flow: &Flow, context: &PacketContext<'_>) -> FlowFields {
    let (client, server) = flow.key.ends(flow.client);
    let family = flow.key.family;
    let ports = has_ports(flow.key.protocol);
    FlowFields {
        pkts_toserver: flow.to_server.packets,
        pkts_toclient: flow.to_client.packets,
        bytes_toserver: flow.to_server.bytes,
        bytes_toclient: flow.to_client.bytes,
        start: Time::new(flow.start, context.utc_offset_s),
        src_ip: Ip(client.ip(family)),
        dest_ip: Ip(server.ip(family)),
        src_port: ports.then_some(client.port),
        dest_port: ports.then_some(server.port),
    }
}

fn ends_fields(key: &FlowKey) -> EndsFields {
    let (low, high) = (key.low(), key.high());
    let ports = has_ports(key.protocol);
    EndsFields {
        src_ip: Ip(low.ip(key.family)),
        src_port: ports.then_some(low.port),
        dest_ip: Ip(high.ip(key.family)),
        dest_port: ports.then_some(high.port),
        proto: protocol_name(key.protocol),
        ip_v: key.family,
    }
}

const fn has_ports(number: u8) -> bool {
    matches!(
        number,
        protocol::TCP | protocol::UDP | protocol::SCTP | protocol::DCCP | protocol::UDP_LITE
    )
}

/// Protocol names as Suricata writes them; others are written as three digits.
fn protocol_name(number: u8) -> Cow<'static, str> {
    Cow::Borrowed(match number {
        1 => "ICMP",
        2 => "IGMP",
        4 => "IPv4",
        6 => "TCP",
        17 => "UDP",
        33 => "DCCP",
        41 => "IPv6",
        47 => "GRE",
        50 => "ESP",
        51 => "AH",
        58 => "IPv6-ICMP",
        89 => "OSPFIGP",
        103 => "PIM",
        112 => "VRRP",
        132 => "SCTP",
        136 => "UDPLite",
        other => return Cow::Owned(format!("{other:03}")),
    })
}

#[cfg(test)]
mod tests;
