//! EVE JSON: one record a line, with Suricata's field names, so that what reads Suricata's
//! `eve.json` reads Sluice's.
//!
//! Reference: <https://docs.suricata.io/en/suricata-8.0.3/output/eve/eve-json-format.html>.

mod alert;
mod base64;
mod community;
mod drop;
mod flow;
mod names;
mod noted;
mod record;

use std::borrow::Cow;
use std::net::IpAddr;

pub use drop::DropReason;
pub use flow::{EndedFlow, flow, netflow};
pub use noted::Noted;

use alert::alert_fields;
use base64::{Base64, Printable};
use community::community_id;
use drop::drop_fields;
use ips_common::FlowKey;
use names::protocol_name;
use record::{
    AnomalyFields, AppFields, EndsFields, EtherFields, ExceptionFields, FlowFields, IncidentLine,
    InspectedFields, Ip, Kind, Line, Mac, OwnLine, PacketInfoFields, Time, TunnelFields,
    VerdictFields,
};
use serde_json::Value;

use crate::app::{File, Transaction};
use crate::config::settings::{AlertMetadata, Deployment, Forwarded, ForwardedMode, Records};
use crate::decode::{Decoded, Transport, Tunnel, protocol};
use crate::exception::{Cause, Treatment};
use crate::flow::{Flow, PacketDirection, Timestamp};
use crate::rules::ast::Action;
use crate::rules::{RejectTarget, Rule};
use crate::verdict::Outcome;

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
    /// What rules have noted about the flow.
    pub noted: Option<&'a Noted>,
    /// What records have.
    pub records: &'a Records,
    /// Whether it can be dropped.
    pub ips: bool,
}

/// What a rule has matched in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matched<'a> {
    /// The packet.
    Packet,
    /// The stream that it belongs to.
    Stream {
        /// Which part of it was looked at.
        data: &'a [u8],
        /// Bytes before that which nobody has seen.
        missing: u64,
    },
}

/// Writes an `alert` record about `rule` into `line` (cleared first).
pub fn alert(
    context: &PacketContext<'_>,
    (rule, action): (&Rule, Action),
    (matched, transaction): (Matched<'_>, Option<&Transaction>),
    line: &mut Vec<u8>,
) {
    let options = context.records.types.alert.clone().unwrap_or_default();
    let shows = options.payload || options.payload_printable || options.payload_length;
    let mut with_gap = Vec::new();
    let whole = match matched {
        Matched::Packet => context.packet.payload,
        Matched::Stream { data, missing: 0 } => data,
        Matched::Stream { data, missing } => {
            with_gap.extend_from_slice(format!("[{missing} bytes missing]").as_bytes());
            with_gap.extend_from_slice(data);
            &with_gap
        }
    };
    let bytes = match matched {
        Matched::Packet => whole,
        Matched::Stream { .. } => &whole[..whole.len().min(options.payload_buffer_size.bytes())],
    };
    let kind = Kind::Alert {
        fields: alert_fields(context, (rule, action), options.metadata),
        inspected: shows.then_some(InspectedFields {
            payload: options.payload.then_some(Base64(bytes)),
            payload_printable: options.payload_printable.then_some(Printable(bytes)),
            payload_length: options.payload_length.then_some(whole.len()),
            stream: u8::from(matched != Matched::Packet),
        }),
    };
    let frame = &context.packet.frame;
    let with = With {
        verdict: options.verdict,
        flow: options.metadata.flow,
        packet: options.packet.then_some(frame),
        transaction: transaction.filter(|_| options.metadata.app_layer),
        tx_id: transaction.map(|it| it.id),
        forwarded: forwarded(context, transaction, &options.xff),
        ..NOTHING
    };
    write(context, "alert", kind, &with, line);
}

/// Writes a record of what an application says into `line` (cleared first): `fields` are of
/// [`Transaction::records`] with this version.
pub fn transaction(
    context: &PacketContext<'_>,
    (transaction, version): (&Transaction, u8),
    fields: Value,
    line: &mut Vec<u8>,
) {
    let with = With {
        transaction: Some(transaction),
        direction: transaction.record_direction(version),
        ..NOTHING
    };
    let name = transaction.protocol().record();
    write(context, name, Kind::Transaction(fields), &with, line);
}

/// Writes a record of a file that a transaction has carried into `line` (cleared first).
pub fn file(
    context: &PacketContext<'_>,
    transaction: &Transaction,
    (file, stored, direction): (&File, bool, PacketDirection),
    line: &mut Vec<u8>,
) {
    let with = With {
        transaction: Some(transaction),
        direction: Some(direction),
        ..NOTHING
    };
    let mut fields = file.fields(transaction.id);
    fields["stored"] = stored.into();
    let kind = Kind::File(fields);
    write(context, "fileinfo", kind, &with, line);
}

/// Writes a record of a packet that a rule has tagged into `line` (cleared first).
pub fn tagged(context: &PacketContext<'_>, line: &mut Vec<u8>) {
    let with = With {
        packet: Some(context.packet.frame),
        ..NOTHING
    };
    write(context, "packet", Kind::Tagged, &with, line);
}

/// Writes a `drop` record into `line` (cleared first); `rule` is the one that decided, with what
/// it did.
pub fn drop(
    context: &PacketContext<'_>,
    reason: DropReason,
    rule: Option<(&Rule, Action)>,
    line: &mut Vec<u8>,
) {
    let options = context.records.types.drop.clone().unwrap_or_default();
    let metadata = AlertMetadata::default();
    let kind = Kind::Drop {
        fields: drop_fields(context.packet, reason),
        alert: rule
            .filter(|_| options.alerts)
            .map(|rule| alert_fields(context, rule, metadata)),
    };
    let with = With {
        verdict: options.verdict,
        flow: true,
        ..NOTHING
    };
    write(context, "drop", kind, &with, line);
}

/// An `anomaly`: something strange about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anomaly<'a> {
    /// A decoder event, by its name in rules.
    Decode(&'a str),
    /// A stream event, by its name in rules.
    Stream(&'a str),
}

/// Bytes of a packet that an anomaly shows.
const ANOMALY_BYTES: usize = 32;

/// Writes an `anomaly` record into `line` (cleared first).
pub fn anomaly(context: &PacketContext<'_>, anomaly: Anomaly<'_>, line: &mut Vec<u8>) {
    let options = context.records.types.anomaly.clone().unwrap_or_default();
    let fields = match anomaly {
        Anomaly::Decode(event) => AnomalyFields {
            r#type: "decode",
            event: Cow::Owned(format!("decoder.{event}")),
        },
        Anomaly::Stream(event) => AnomalyFields {
            r#type: "stream",
            event: Cow::Owned(format!("stream.{event}")),
        },
    };
    let frame = context.packet.frame;
    let with = With {
        packet: options
            .packethdr
            .then_some(&frame[..frame.len().min(ANOMALY_BYTES)]),
        ..NOTHING
    };
    write(context, "anomaly", Kind::Anomaly(fields), &with, line);
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
    let with = With {
        verdict: true,
        flow: true,
        ..NOTHING
    };
    write(context, "exception", Kind::Exception(fields), &with, line);
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
    details: &Value,
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

/// Which optional parts a record has.
struct With<'a> {
    /// Number of the transaction, also where nothing else of it is shown.
    tx_id: Option<u64>,
    verdict: bool,
    flow: bool,
    packet: Option<&'a [u8]>,
    transaction: Option<&'a Transaction>,
    /// The ends are those of the flow in this direction, whichever way the packet goes.
    direction: Option<PacketDirection>,
    /// The client that a proxy names.
    forwarded: Option<(IpAddr, ForwardedMode)>,
}

/// None of them.
const NOTHING: With<'_> = With {
    tx_id: None,
    verdict: false,
    flow: false,
    packet: None,
    transaction: None,
    direction: None,
    forwarded: None,
};

fn write(
    context: &PacketContext<'_>,
    event_type: &'static str,
    kind: Kind<'_>,
    with: &With<'_>,
    line: &mut Vec<u8>,
) {
    line.clear();
    let packet = context.packet;
    let icmp = match packet.transport {
        Transport::Icmp { kind, code } => Some((kind, code)),
        _ => None,
    };
    let (addresses, ports) = ends(context, with.direction);
    let direction = (with.direction).or(context.flow.map(|(_, direction)| direction));
    let mut record = Line {
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
        vlan: packet.link.vlans.as_slice(),
        src_ip: addresses.map(|(source, _)| Ip(source)),
        src_port: ports.map(|ports| ports.0),
        dest_ip: addresses.map(|(_, destination)| Ip(destination)),
        dest_port: ports.map(|ports| ports.1),
        proto: packet
            .network
            .map(|network| protocol_name(network.protocol)),
        icmp_type: icmp.map(|(kind, _)| kind),
        icmp_code: icmp.map(|(_, code)| code),
        ip_v: packet.network.map(|network| network.family),
        pkt_src: packet.source.name(),
        ether: ether_fields(context),
        tunnel: packet.tunnel.as_ref().map(tunnel_fields),
        community_id: (context.records.community_id)
            .and_then(|seed| Some(community_id(seed, context.flow?.0))),
        tx_id: with.tx_id.or(with.transaction.map(|it| it.id)),
        app_proto: (with.transaction.map(|it| it.protocol().name()))
            .or(context.flow.and_then(|(flow, _)| flow.app.name())),
        app: with.transaction.map(|it| AppFields {
            name: it.protocol().record(),
            fields: match kind {
                Kind::Transaction(_) => Value::Null,
                _ => it.fields(),
            },
            further: it.further_fields(),
        }),
        xff: None,
        fileinfo: None,
        files: Vec::new(),
        noted: context.noted,
        alert: None,
        drop: None,
        exception: None,
        anomaly: None,
        verdict: with.verdict.then(|| verdict_fields(context)),
        direction: direction.map(|direction| match direction {
            PacketDirection::ToServer => "to_server",
            PacketDirection::ToClient => "to_client",
        }),
        flow: context
            .flow
            .filter(|_| with.flow)
            .map(|(flow, _)| flow_fields(flow, context)),
        inspected: None,
        packet: with.packet.map(Base64),
        packet_info: with.packet.map(|_| PacketInfoFields {
            linktype: packet.link_type.number(),
            linktype_name: packet.link_type.name(),
        }),
    };
    let to_client = direction == Some(PacketDirection::ToClient);
    match with.forwarded {
        Some((client, ForwardedMode::ExtraData)) => record.xff = Some(Ip(client)),
        Some((client, ForwardedMode::Overwrite)) if to_client => record.dest_ip = Some(Ip(client)),
        Some((client, ForwardedMode::Overwrite)) => record.src_ip = Some(Ip(client)),
        None => {}
    }
    match kind {
        Kind::Alert { fields, inspected } => {
            if let Some((transaction, (_, direction))) = with.transaction.zip(context.flow) {
                let files = transaction.files(direction);
                record.files = files.iter().map(|it| it.fields(transaction.id)).collect();
            }
            record.alert = Some(fields);
            record.inspected = inspected;
        }
        Kind::Drop { fields, alert } => {
            record.drop = Some(fields);
            record.alert = alert;
        }
        Kind::Tagged => {}
        Kind::Transaction(fields) => {
            if let Some(app) = &mut record.app {
                app.fields = fields;
            }
        }
        Kind::File(fields) => record.fileinfo = Some(fields),
        Kind::Exception(fields) => record.exception = Some(fields),
        Kind::Anomaly(fields) => record.anomaly = Some(fields),
    }
    if serde_json::to_writer(&mut *line, &record).is_err() {
        line.clear();
    }
}

/// The client that a proxy names in the request that an alert is about, or in any of its flow.
fn forwarded(
    context: &PacketContext<'_>,
    transaction: Option<&Transaction>,
    options: &Forwarded,
) -> Option<(IpAddr, ForwardedMode)> {
    if !options.enabled {
        return None;
    }
    let last = options.deployment == Deployment::Reverse;
    let of = |transaction: &Transaction| transaction.forwarded(&options.header, last);
    let client = match transaction {
        Some(transaction) => of(transaction)?,
        None => context.flow?.0.app.in_hand().iter().find_map(of)?,
    };
    Some((client, options.mode))
}

type Pair<T> = Option<(T, T)>;

/// Addresses and ports of the packet, or of its flow in a direction.
fn ends(
    context: &PacketContext<'_>,
    direction: Option<PacketDirection>,
) -> (Pair<IpAddr>, Pair<u16>) {
    let packet = context.packet;
    let Some((direction, (flow, _))) = direction.zip(context.flow) else {
        return (packet.addresses(), packet.ports);
    };
    let (client, server) = flow.key.ends(flow.client);
    let (from, to) = match direction {
        PacketDirection::ToServer => (client, server),
        PacketDirection::ToClient => (server, client),
    };
    let family = flow.key.family;
    let ports = has_ports(flow.key.protocol).then_some((from.port, to.port));
    (Some((from.ip(family), to.ip(family))), ports)
}

fn ether_fields(context: &PacketContext<'_>) -> Option<EtherFields> {
    let link = &context.packet.link;
    let (source, destination) = link.macs.filter(|_| context.records.ethernet)?;
    Some(EtherFields {
        ether_type: link.ethertype,
        src_mac: Mac(source),
        dest_mac: Mac(destination),
    })
}

fn tunnel_fields(tunnel: &Tunnel) -> TunnelFields {
    TunnelFields {
        src_ip: Ip(tunnel.source),
        src_port: tunnel.ports.map(|(port, _)| port),
        dest_ip: Ip(tunnel.destination),
        dest_port: tunnel.ports.map(|(_, port)| port),
        proto: protocol_name(tunnel.protocol),
        depth: tunnel.depth,
    }
}

/// What happens to the packet, and what a rule asks to be sent for it: whether it was sent is in
/// the counters.
fn verdict_fields(context: &PacketContext<'_>) -> VerdictFields {
    let target = match context.outcome {
        Outcome::Reject(target) => Some(target),
        _ => None,
    };
    let to_client = matches!(context.flow, Some((_, PacketDirection::ToClient)));
    VerdictFields {
        action: match context.outcome {
            Outcome::Pass => "pass",
            Outcome::Drop | Outcome::Reject(_) if context.ips => "drop",
            Outcome::Accept | Outcome::Drop | Outcome::Reject(_) => "alert",
        },
        reject_target: target.map(|target| match (target, to_client) {
            (RejectTarget::Both, _) => "both",
            (RejectTarget::Source, false) | (RejectTarget::Destination, true) => "to_client",
            (RejectTarget::Destination, false) | (RejectTarget::Source, true) => "to_server",
        }),
        reject: target.map(|_| match context.packet.protocol() {
            protocol::TCP => ["tcp-reset"],
            _ => ["icmp-prohib"],
        }),
    }
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

#[cfg(test)]
mod tests;
