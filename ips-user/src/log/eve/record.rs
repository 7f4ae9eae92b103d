//! The shape of the records.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use time::{OffsetDateTime, UtcOffset};

use crate::exception::{Cause, Treatment};
use crate::flow::Timestamp;

/// `2023-09-18T06:13:41.532140+0000`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Time(OffsetDateTime);

impl Time {
    pub(super) fn new(time: Timestamp, utc_offset_s: i32) -> Self {
        let nanoseconds = i128::from(time.wall_us) * 1000;
        let utc = OffsetDateTime::from_unix_timestamp_nanos(nanoseconds)
            .unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let offset = UtcOffset::from_whole_seconds(utc_offset_s).unwrap_or(UtcOffset::UTC);
        Self(utc.checked_to_offset(offset).unwrap_or(utc))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (date, time, offset) = (self.0.date(), self.0.time(), self.0.offset());
        let sign = if offset.is_negative() { '-' } else { '+' };
        let minutes = offset.whole_minutes().unsigned_abs();
        write!(
            f,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}{sign}{:02}{:02}",
            date.year(),
            u8::from(date.month()),
            date.day(),
            time.hour(),
            time.minute(),
            time.second(),
            time.microsecond(),
            minutes / 60,
            minutes % 60,
        )
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// An address as Suricata writes it: IPv6 with all its digits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ip(pub(super) IpAddr);

impl Serialize for Ip {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            IpAddr::V4(v4) => serializer.collect_str(&v4),
            IpAddr::V6(v6) => {
                let [a, b, c, d, e, f, g, h] = v6.segments();
                serializer.collect_str(&format_args!(
                    "{a:04x}:{b:04x}:{c:04x}:{d:04x}:{e:04x}:{f:04x}:{g:04x}:{h:04x}"
                ))
            }
        }
    }
}

pub(super) type Metadata<'a> = BTreeMap<&'a str, Vec<&'a str>>;

pub(super) enum Kind<'a> {
    Alert(AlertFields<'a>),
    Drop {
        fields: DropFields,
        alert: Option<AlertFields<'a>>,
    },
    Exception(ExceptionFields),
}

/// A record without a packet: its fields stand under the name of its type.
#[derive(Debug)]
pub(super) struct OwnLine<'a, F> {
    pub(super) timestamp: Time,
    pub(super) event_type: &'static str,
    pub(super) fields: &'a F,
}

impl<F: Serialize> Serialize for OwnLine<'_, F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(3))?;
        map.serialize_entry("timestamp", &self.timestamp)?;
        map.serialize_entry("event_type", self.event_type)?;
        map.serialize_entry(self.event_type, self.fields)?;
        map.end()
    }
}

#[derive(Debug, Serialize)]
pub(super) struct ExceptionFields {
    pub(super) cause: &'static str,
    pub(super) policy: &'static str,
    pub(super) packets: u64,
}

impl ExceptionFields {
    pub(super) fn new(cause: Cause, treatment: Treatment, packets: u64) -> Self {
        Self {
            cause: cause.name(),
            policy: treatment.name(),
            packets,
        }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct IncidentLine<'a> {
    pub(super) timestamp: Time,
    pub(super) event_type: &'static str,
    #[serde(flatten)]
    pub(super) ends: Option<EndsFields>,
    pub(super) sluice: &'a serde_json::Value,
}

#[derive(Debug, Serialize)]
pub(super) struct EndsFields {
    pub(super) src_ip: Ip,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) src_port: Option<u16>,
    pub(super) dest_ip: Ip,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) dest_port: Option<u16>,
    pub(super) proto: Cow<'static, str>,
    pub(super) ip_v: u8,
}

#[derive(Debug, Serialize)]
pub(super) struct Line<'a> {
    pub(super) timestamp: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) flow_id: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) in_iface: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) out_iface: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pcap_cnt: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pcap_filename: Option<&'a str>,
    pub(super) event_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) src_ip: Option<Ip>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) src_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) dest_ip: Option<Ip>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) dest_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) proto: Option<Cow<'static, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) icmp_type: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) icmp_code: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ip_v: Option<u8>,
    pub(super) pkt_src: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) alert: Option<AlertFields<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) drop: Option<DropFields>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) exception: Option<ExceptionFields>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) verdict: Option<VerdictFields>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) direction: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) flow: Option<FlowFields>,
}

#[derive(Debug, Serialize)]
pub(super) struct AlertFields<'a> {
    pub(super) action: &'static str,
    pub(super) gid: u32,
    pub(super) signature_id: u32,
    pub(super) rev: u32,
    pub(super) signature: &'a str,
    pub(super) category: &'a str,
    pub(super) severity: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) metadata: Option<Metadata<'a>>,
}

#[derive(Debug, Serialize)]
pub(super) struct VerdictFields {
    pub(super) action: &'static str,
    #[serde(rename = "reject-target")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reject_target: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reject: Option<[&'static str; 1]>,
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

#[derive(Debug, Serialize)]
pub(super) struct FlowFields {
    pub(super) pkts_toserver: u64,
    pub(super) pkts_toclient: u64,
    pub(super) bytes_toserver: u64,
    pub(super) bytes_toclient: u64,
    pub(super) start: Time,
    pub(super) src_ip: Ip,
    pub(super) dest_ip: Ip,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) src_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) dest_port: Option<u16>,
}

/// A `flow` record.
#[derive(Debug, Serialize)]
pub(super) struct FlowLine {
    pub(super) timestamp: Time,
    pub(super) flow_id: u64,
    pub(super) event_type: &'static str,
    pub(super) src_ip: Ip,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) src_port: Option<u16>,
    pub(super) dest_ip: Ip,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) dest_port: Option<u16>,
    pub(super) proto: Cow<'static, str>,
    pub(super) ip_v: u8,
    pub(super) flow: EndedFlowFields,
}

#[derive(Debug, Serialize)]
pub(super) struct EndedFlowFields {
    pub(super) pkts_toserver: u64,
    pub(super) pkts_toclient: u64,
    pub(super) bytes_toserver: u64,
    pub(super) bytes_toclient: u64,
    pub(super) start: Time,
    pub(super) end: Time,
    pub(super) age: i64,
    pub(super) state: &'static str,
    pub(super) reason: &'static str,
    pub(super) alerted: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) action: Option<&'static str>,
}
