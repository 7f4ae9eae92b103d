//! Records about flows that have ended: `flow`, and `netflow` for each direction.

use std::borrow::Cow;

use ips_common::FlowKey;
use serde::Serialize;

use super::Noted;
use super::community::community_id;
use super::has_ports;
use super::names::protocol_name;
use super::record::{Ip, Time};
use crate::app::AppProtocol;
use crate::config::settings::{FlowRecords, Records};
use crate::decode::protocol;
use crate::flow::{Flow, FlowAction, FlowEnd, PacketDirection, Tally, TcpState, Timestamp};

/// A flow that has ended, and when that was noticed.
#[derive(Clone, Copy, Debug)]
pub struct EndedFlow<'a> {
    /// The flow.
    pub flow: &'a Flow,
    /// Why it has ended.
    pub end: FlowEnd,
    /// Now.
    pub time: Timestamp,
    /// Offset of local time from UTC in seconds.
    pub utc_offset_s: i32,
    /// What rules have noted about it.
    pub noted: Option<&'a Noted>,
    /// What records have.
    pub records: &'a Records,
}

#[derive(Serialize)]
struct FlowLine<'a> {
    #[serde(flatten)]
    ends: Ends<'a>,
    #[serde(flatten)]
    noted: Option<&'a Noted>,
    flow: FlowFields,
    #[serde(skip_serializing_if = "Option::is_none")]
    tcp: Option<TcpFields>,
}

#[derive(Serialize)]
struct NetflowLine<'a> {
    #[serde(flatten)]
    ends: Ends<'a>,
    netflow: NetflowFields,
    #[serde(skip_serializing_if = "Option::is_none")]
    tcp: Option<FlagFields>,
}

/// What both have in common.
#[derive(Serialize)]
struct Ends<'a> {
    timestamp: Time,
    flow_id: u64,
    event_type: &'a str,
    #[serde(skip_serializing_if = "<[u16]>::is_empty")]
    vlan: &'a [u16],
    src_ip: Ip,
    #[serde(skip_serializing_if = "Option::is_none")]
    src_port: Option<u16>,
    dest_ip: Ip,
    #[serde(skip_serializing_if = "Option::is_none")]
    dest_port: Option<u16>,
    proto: Cow<'static, str>,
    ip_v: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    app_proto: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    app_proto_orig: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    icmp_type: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    icmp_code: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_icmp_type: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_icmp_code: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    community_id: Option<String>,
}

#[derive(Serialize)]
struct FlowFields {
    pkts_toserver: u64,
    pkts_toclient: u64,
    bytes_toserver: u64,
    bytes_toclient: u64,
    start: Time,
    end: Time,
    age: i64,
    state: &'static str,
    reason: &'static str,
    alerted: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exception_policy: Option<Vec<PolicyFields>>,
}

#[derive(Serialize)]
struct PolicyFields {
    target: &'static str,
    policy: String,
}

#[derive(Serialize)]
struct NetflowFields {
    pkts: u64,
    bytes: u64,
    start: Time,
    end: Time,
    age: i64,
    min_ttl: u8,
    max_ttl: u8,
}

#[derive(Serialize)]
struct TcpFields {
    tcp_flags: String,
    tcp_flags_ts: String,
    tcp_flags_tc: String,
    #[serde(flatten)]
    flags: Flags,
    state: &'static str,
    #[serde(skip_serializing_if = "is_false")]
    ts_gap: bool,
    #[serde(skip_serializing_if = "is_false")]
    tc_gap: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    ts_max_regions: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tc_max_regions: Option<u16>,
}

#[derive(Serialize)]
struct FlagFields {
    tcp_flags: String,
    #[serde(flatten)]
    flags: Flags,
}

/// Those that were seen; the others are not written.
#[derive(Default, Serialize)]
struct Flags {
    #[serde(skip_serializing_if = "is_false")]
    syn: bool,
    #[serde(skip_serializing_if = "is_false")]
    fin: bool,
    #[serde(skip_serializing_if = "is_false")]
    rst: bool,
    #[serde(skip_serializing_if = "is_false")]
    psh: bool,
    #[serde(skip_serializing_if = "is_false")]
    ack: bool,
    #[serde(skip_serializing_if = "is_false")]
    urg: bool,
    #[serde(skip_serializing_if = "is_false")]
    ecn: bool,
    #[serde(skip_serializing_if = "is_false")]
    cwr: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_false(flag: &bool) -> bool {
    !flag
}

impl Flags {
    fn of(flags: u8) -> Self {
        let bit = |number: u8| flags & 1 << number != 0;
        Self {
            fin: bit(0),
            syn: bit(1),
            rst: bit(2),
            psh: bit(3),
            ack: bit(4),
            urg: bit(5),
            ecn: bit(6),
            cwr: bit(7),
        }
    }
}

/// Writes a `flow` record into `line` (cleared first).
pub fn flow(ended: &EndedFlow<'_>, line: &mut Vec<u8>) {
    let flow = ended.flow;
    let offset = ended.utc_offset_s;
    let options = ended.records.types.flow.clone().unwrap_or_default();
    let record = FlowLine {
        ends: ends(ended, "flow", PacketDirection::ToServer),
        noted: ended.noted,
        flow: FlowFields {
            pkts_toserver: flow.to_server.packets,
            pkts_toclient: flow.to_client.packets,
            bytes_toserver: flow.to_server.bytes,
            bytes_toclient: flow.to_client.bytes,
            start: Time::new(flow.start, offset),
            end: Time::new(flow.last, offset),
            age: age(flow),
            state: state(flow),
            reason: ended.end.name(),
            alerted: flow.clean_bytes.is_none(),
            action: match flow.action {
                FlowAction::Inspect => None,
                FlowAction::Pass => Some("pass"),
                FlowAction::Drop { .. } | FlowAction::Refuse { .. } => Some("drop"),
            },
            exception_policy: policies(flow, &options),
        },
        tcp: (flow.key.protocol == protocol::TCP).then(|| tcp_fields(flow)),
    };
    write(&record, line);
}

/// Writes the `netflow` record of one direction into `line` (cleared first). The server's is of
/// no use when it has sent nothing.
pub fn netflow(ended: &EndedFlow<'_>, direction: PacketDirection, line: &mut Vec<u8>) {
    let flow = ended.flow;
    let Tally { packets, bytes } = match direction {
        PacketDirection::ToServer => flow.to_server,
        PacketDirection::ToClient => flow.to_client,
    };
    let (min_ttl, max_ttl) = flow.observed.ttl(direction);
    let tcp_flags = flow.observed.tcp_flags(direction);
    let record = NetflowLine {
        ends: ends(ended, "netflow", direction),
        netflow: NetflowFields {
            pkts: packets,
            bytes,
            start: Time::new(flow.start, ended.utc_offset_s),
            end: Time::new(flow.last, ended.utc_offset_s),
            age: age(flow),
            min_ttl,
            max_ttl,
        },
        tcp: (flow.key.protocol == protocol::TCP).then(|| FlagFields {
            tcp_flags: hexadecimal(tcp_flags),
            flags: Flags::of(tcp_flags),
        }),
    };
    write(&record, line);
}

fn write(record: &impl Serialize, line: &mut Vec<u8>) {
    line.clear();
    if serde_json::to_writer(&mut *line, record).is_err() {
        line.clear();
    }
}

fn ends<'a>(ended: &EndedFlow<'a>, event_type: &'a str, direction: PacketDirection) -> Ends<'a> {
    let flow = ended.flow;
    let FlowKey {
        family, protocol, ..
    } = flow.key;
    let (client, server) = flow.key.ends(flow.client);
    let (from, to) = match direction {
        PacketDirection::ToServer => (client, server),
        PacketDirection::ToClient => (server, client),
    };
    let ports = has_ports(protocol);
    let icmp = flow.observed.icmp(PacketDirection::ToServer);
    let response = flow.observed.icmp(PacketDirection::ToClient);
    Ends {
        timestamp: Time::new(ended.time, ended.utc_offset_s),
        flow_id: flow.id,
        event_type,
        vlan: flow.observed.vlans(),
        src_ip: Ip(from.ip(family)),
        src_port: ports.then_some(from.port),
        dest_ip: Ip(to.ip(family)),
        dest_port: ports.then_some(to.port),
        proto: protocol_name(protocol),
        ip_v: family,
        app_proto: flow.app.name(),
        app_proto_orig: flow.app.original().map(AppProtocol::name),
        icmp_type: icmp.map(|(kind, _)| kind),
        icmp_code: icmp.map(|(_, code)| code),
        response_icmp_type: response.map(|(kind, _)| kind),
        response_icmp_code: response.map(|(_, code)| code),
        community_id: ended
            .records
            .community_id
            .map(|seed| community_id(seed, flow)),
    }
}

fn age(flow: &Flow) -> i64 {
    let seconds = |time: Timestamp| time.wall_us.div_euclid(1_000_000);
    seconds(flow.last) - seconds(flow.start)
}

fn state(flow: &Flow) -> &'static str {
    let one_sided = flow.to_client.packets == 0 || flow.to_server.packets == 0;
    match (flow.key.protocol, flow.tcp) {
        _ if flow.observed.is_bypassed() => "bypassed",
        (protocol::TCP, TcpState::Established | TcpState::Closing) => "established",
        (protocol::TCP, TcpState::Closed) => "closed",
        (protocol::TCP, _) => "new",
        _ if one_sided => "new",
        _ => "established",
    }
}

fn policies(flow: &Flow, options: &FlowRecords) -> Option<Vec<PolicyFields>> {
    let applied = flow
        .observed
        .exceptions()
        .map(|(exception, treatment)| PolicyFields {
            target: exception.name(),
            policy: treatment.name().replace('-', "_"),
        });
    options
        .exception_policy
        .then(|| applied.collect::<Vec<_>>())
        .filter(|applied| !applied.is_empty())
}

fn tcp_fields(flow: &Flow) -> TcpFields {
    let ways = [PacketDirection::ToServer, PacketDirection::ToClient];
    let [server, client] = ways.map(|way| flow.observed.tcp_flags(way));
    let session = flow.session.as_deref();
    let [ts_gap, tc_gap] = ways.map(|way| session.is_some_and(|session| session.has_gap(way)));
    let [ts_max_regions, tc_max_regions] =
        ways.map(|way| session.map(|session| session.max_regions(way)));
    TcpFields {
        tcp_flags: hexadecimal(server | client),
        tcp_flags_ts: hexadecimal(server),
        tcp_flags_tc: hexadecimal(client),
        flags: Flags::of(server | client),
        state: match (session, flow.tcp) {
            (Some(session), _) => session.state().name(),
            (None, TcpState::None) => "none",
            (None, TcpState::SynSent) => "syn_sent",
            (None, TcpState::SynReceived) => "syn_recv",
            (None, TcpState::Established) => "established",
            (None, TcpState::Closing) => "fin_wait1",
            (None, TcpState::Closed) => "closed",
        },
        ts_gap,
        tc_gap,
        ts_max_regions,
        tc_max_regions,
    }
}

fn hexadecimal(flags: u8) -> String {
    format!("{flags:02x}")
}

#[cfg(test)]
mod tests;
