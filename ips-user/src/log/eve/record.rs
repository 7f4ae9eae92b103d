//! The shape of the records.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use time::{OffsetDateTime, UtcOffset};

use super::alert::AlertFields;
use super::base64::{Base64, Printable};
use super::drop::DropFields;
use super::noted::Noted;
use crate::decode::MacAddress;
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

/// `00:1b:44:11:3a:b7`
#[derive(Clone, Copy, Debug)]
pub(super) struct Mac(pub(super) MacAddress);

impl Serialize for Mac {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let [a, b, c, d, e, f] = self.0;
        serializer.collect_str(&format_args!(
            "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}"
        ))
    }
}

/// What a record about a packet is about.
pub(super) enum Kind<'a> {
    Alert {
        fields: AlertFields<'a>,
        inspected: Option<InspectedFields<'a>>,
    },
    Drop {
        fields: DropFields,
        alert: Option<AlertFields<'a>>,
    },
    Tagged,
    Exception(ExceptionFields),
    Anomaly(AnomalyFields<'a>),
    /// What an application says.
    Transaction(serde_json::Value),
    File(serde_json::Value),
}

/// What an application says: an object under the name of its protocol, and perhaps another.
pub(super) struct AppFields {
    pub(super) name: &'static str,
    pub(super) fields: serde_json::Value,
    pub(super) further: Option<(&'static str, serde_json::Value)>,
}

impl Serialize for AppFields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1 + usize::from(self.further.is_some())))?;
        map.serialize_entry(self.name, &self.fields)?;
        if let Some((name, fields)) = &self.further {
            map.serialize_entry(name, fields)?;
        }
        map.end()
    }
}

impl fmt::Debug for AppFields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
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
    #[serde(skip_serializing_if = "<[u16]>::is_empty")]
    pub(super) vlan: &'a [u16],
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
    pub(super) ether: Option<EtherFields>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tunnel: Option<TunnelFields>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) community_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tx_id: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) app_proto: Option<&'static str>,
    #[serde(flatten)]
    pub(super) app: Option<AppFields>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) xff: Option<Ip>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) fileinfo: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) files: Vec<serde_json::Value>,
    #[serde(flatten)]
    pub(super) noted: Option<&'a Noted>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) alert: Option<AlertFields<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) drop: Option<DropFields>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) exception: Option<ExceptionFields>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) anomaly: Option<AnomalyFields<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) verdict: Option<VerdictFields>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) direction: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) flow: Option<FlowFields>,
    #[serde(flatten)]
    pub(super) inspected: Option<InspectedFields<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) packet: Option<Base64<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) packet_info: Option<PacketInfoFields>,
}

/// The Ethernet header.
#[derive(Debug, Serialize)]
pub(super) struct EtherFields {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ether_type: Option<u16>,
    pub(super) src_mac: Mac,
    pub(super) dest_mac: Mac,
}

/// The outermost packet around the packet.
#[derive(Debug, Serialize)]
pub(super) struct TunnelFields {
    pub(super) src_ip: Ip,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) src_port: Option<u16>,
    pub(super) dest_ip: Ip,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) dest_port: Option<u16>,
    pub(super) proto: Cow<'static, str>,
    pub(super) depth: u8,
}

/// What a rule has matched in.
#[derive(Debug, Serialize)]
pub(super) struct InspectedFields<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) payload: Option<Base64<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) payload_printable: Option<Printable<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) payload_length: Option<usize>,
    pub(super) stream: u8,
}

/// What `packet` begins with.
#[derive(Debug, Serialize)]
pub(super) struct PacketInfoFields {
    pub(super) linktype: u32,
    pub(super) linktype_name: &'static str,
}

#[derive(Debug, Serialize)]
pub(super) struct AnomalyFields<'a> {
    pub(super) r#type: &'static str,
    pub(super) event: Cow<'a, str>,
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
