//! Keywords about application protocols and events that are not buffers.

use super::super::ast::{AppProtocolMode, Condition, EventKind};
use super::super::diagnostic::{nearest, shortened};
use super::super::finding::Finding;
use super::super::item::Item;
use super::super::vocabulary::APP_PROTOCOLS;
use super::number::compare;
use super::{Builder, Handler};
use crate::decode::event::DecodeEvent;
use crate::reassembly::tcp::StreamEvent;

pub(super) const KEYWORDS: &[(&str, Handler)] = &[
    ("app-layer-protocol", app_layer_protocol),
    ("app-layer-event", event),
    ("decode-event", event),
    ("stream-event", event),
    ("engine-event", event),
    ("prefilter", prefilter),
];

/// What the value of a keyword has to be.
#[derive(Clone, Copy, Debug)]
pub(super) enum AppValue {
    /// None.
    Nothing,
    /// Anything.
    Text,
    /// A comparison with a number of so many bits, or the names of its values; in several of
    /// them an index behind a comma.
    Number(u8),
}

/// Keywords of application protocols that take a value, by protocol.
pub(super) const APP_KEYWORDS: [(&str, &str, AppValue); 89] = {
    use AppValue::{Nothing, Number, Text};
    [
        ("filename", "any", Text),
        ("fileext", "any", Text),
        ("filemagic", "any", Text),
        ("filemd5", "any", Text),
        ("filesha1", "any", Text),
        ("filesha256", "any", Text),
        ("filesize", "any", Text),
        ("app-layer-state", "any", Text),
        ("http2.frametype", "http2", Number(8)),
        ("http2.errorcode", "http2", Number(32)),
        ("http2.priority", "http2", Number(8)),
        ("http2.window", "http2", Number(32)),
        ("http2.size_update", "http2", Number(64)),
        ("http2.settings", "http2", Text),
        ("dns.opcode", "dns", Number(8)),
        ("dns.rcode", "dns", Number(16)),
        ("dns.rrtype", "dns", Number(16)),
        ("tls.version", "tls", Text),
        ("tls.subject", "tls", Text),
        ("tls.issuerdn", "tls", Text),
        ("tls.fingerprint", "tls", Text),
        ("tls.cert_chain_len", "tls", Number(32)),
        ("tls_cert_notbefore", "tls", Text),
        ("tls_cert_notafter", "tls", Text),
        ("tls_cert_expired", "tls", Nothing),
        ("tls_cert_valid", "tls", Nothing),
        ("ssl_version", "tls", Text),
        ("ssl_state", "tls", Text),
        ("ssh.protoversion", "ssh", Text),
        ("ssh.softwareversion", "ssh", Text),
        ("ftpbounce", "ftp", Nothing),
        ("ftpdata_command", "ftp-data", Text),
        ("ftp.dynamic_port", "ftp", Number(16)),
        ("ftp.mode", "ftp", Text),
        ("ftp.reply_received", "ftp", Text),
        ("smb.version", "smb", Text),
        ("dce_iface", "dcerpc", Text),
        ("dcerpc.iface", "dcerpc", Text),
        ("dce_opnum", "dcerpc", Text),
        ("dcerpc.opnum", "dcerpc", Text),
        ("nfs_procedure", "nfs", Number(32)),
        ("nfs.procedure", "nfs", Number(32)),
        ("nfs.version", "nfs", Number(32)),
        ("nfs_version", "nfs", Number(32)),
        ("krb5_err_code", "krb5", Text),
        ("krb5_msg_type", "krb5", Number(8)),
        ("krb5.ticket_encryption", "krb5", Text),
        ("snmp.version", "snmp", Number(32)),
        ("snmp.pdu_type", "snmp", Number(32)),
        ("dhcp.leasetime", "dhcp", Number(64)),
        ("dhcp.rebinding_time", "dhcp", Number(64)),
        ("dhcp.renewal_time", "dhcp", Number(64)),
        ("dnp3_func", "dnp3", Text),
        ("dnp3_ind", "dnp3", Text),
        ("dnp3_obj", "dnp3", Text),
        ("modbus", "modbus", Text),
        ("rfb.sectype", "rfb", Number(32)),
        ("rfb.secresult", "rfb", Text),
        ("mqtt.type", "mqtt", Text),
        ("mqtt.flags", "mqtt", Text),
        ("mqtt.qos", "mqtt", Number(8)),
        ("mqtt.reason_code", "mqtt", Number(8)),
        ("mqtt.protocol_version", "mqtt", Number(8)),
        ("mqtt.connack.session_present", "mqtt", Text),
        ("mqtt.connect.flags", "mqtt", Text),
        ("ike.exchtype", "ike", Number(8)),
        ("ike.chosen_sa_attribute", "ike", Text),
        ("ike.key_exchange_payload_length", "ike", Number(32)),
        ("ike.nonce_payload_length", "ike", Number(32)),
        ("websocket.opcode", "websocket", Number(8)),
        ("websocket.mask", "websocket", Number(32)),
        ("websocket.flags", "websocket", Text),
        ("ldap.request.operation", "ldap", Number(8)),
        ("ldap.responses.operation", "ldap", Number(8)),
        ("ldap.responses.count", "ldap", Number(32)),
        ("ldap.responses.result_code", "ldap", Number(32)),
        ("ntp.mode", "ntp", Number(8)),
        ("ntp.stratum", "ntp", Number(8)),
        ("ntp.version", "ntp", Number(8)),
        ("cip_service", "enip", Text),
        ("enip_command", "enip", Text),
        ("enip.command", "enip", Text),
        ("enip.capabilities", "enip", Number(16)),
        ("enip.status", "enip", Number(32)),
        ("enip.state", "enip", Number(8)),
        ("enip.serial", "enip", Number(32)),
        ("enip.revision", "enip", Text),
        ("enip.vendor_id", "enip", Number(16)),
        ("enip.protocol_version", "enip", Number(16)),
    ]
};

/// More of the same: EtherNet/IP has many.
pub(super) const ENIP_KEYWORDS: [(&str, &str, AppValue); 8] = [
    ("enip.product_code", "enip", AppValue::Number(16)),
    ("enip.device_type", "enip", AppValue::Number(16)),
    ("enip.identity_status", "enip", AppValue::Number(16)),
    ("enip.cip_attribute", "enip", AppValue::Number(32)),
    ("enip.cip_class", "enip", AppValue::Number(32)),
    ("enip.cip_instance", "enip", AppValue::Number(32)),
    ("enip.cip_status", "enip", AppValue::Number(8)),
    ("enip.cip_extendedstatus", "enip", AppValue::Number(16)),
];

type Done = Result<(), Finding>;

/// A keyword of an application protocol: kept as it is written, where its value can be right.
pub(super) fn condition(
    builder: &mut Builder<'_>,
    item: &Item<'_>,
    keyword: &'static str,
    protocol: &'static str,
    value: AppValue,
) -> Done {
    builder.speaks(protocol, item)?;
    let written = match value {
        AppValue::Nothing => {
            item.no_value()?;
            String::new()
        }
        AppValue::Text => item.text()?.as_str().to_owned(),
        AppValue::Number(bits) => {
            let text = item.text()?;
            let first = text.split(',').next().unwrap_or(text);
            let (_, body) = first.negation();
            // A direction in front, or the name of a value, or how many there are.
            let named = body.as_str().starts_with(|c: char| c.is_ascii_alphabetic());
            if !named {
                match bits {
                    8 => compare::<u8>(first).map(|_| ())?,
                    16 => compare::<u16>(first).map(|_| ())?,
                    32 => compare::<u32>(first).map(|_| ())?,
                    _ => compare::<u64>(first).map(|_| ())?,
                }
            }
            text.as_str().to_owned()
        }
    };
    builder.condition(
        item,
        Condition::App {
            keyword: keyword.to_owned(),
            value: written,
        },
    );
    Ok(())
}

fn app_layer_protocol(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    let text = item.text()?;
    let (name, mode) = match text.split_once(",") {
        Some((name, mode)) => (name, Some(mode)),
        None => (text, None),
    };
    let modes = [
        ("direction", AppProtocolMode::Direction),
        ("final", AppProtocolMode::Final),
        ("original", AppProtocolMode::Original),
        ("either", AppProtocolMode::Either),
        ("to_server", AppProtocolMode::ToServer),
        ("toserver", AppProtocolMode::ToServer),
        ("to_client", AppProtocolMode::ToClient),
        ("toclient", AppProtocolMode::ToClient),
    ];
    let mode = mode
        .map(|mode| mode.choose("which protocol counts", &modes))
        .transpose()?
        .unwrap_or_default();
    let (negated, name) = name.negation();
    let known: Vec<(&str, &str)> = APP_PROTOCOLS
        .iter()
        .copied()
        .chain([("failed", "failed"), ("unknown", "unknown")])
        .collect();
    let name = name.choose("an application protocol", &known)?;
    let condition = Condition::AppProtocol {
        negated,
        name: name.to_owned(),
        mode,
    };
    builder.condition(item, condition);
    Ok(())
}

fn event(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    let text = item.text()?;
    let kind = match item.name.to_ascii_lowercase().as_str() {
        "decode-event" => EventKind::Decode,
        "stream-event" => EventKind::Stream,
        "engine-event" => EventKind::Engine,
        _ => EventKind::App,
    };
    let name = text.as_str().to_ascii_lowercase();
    let letters = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    if !name.bytes().all(letters) {
        return Err(text.fail(
            format!("`{}` is not the name of an event", text.as_str()),
            "one name, as in decode-event:ipv4.pkt_too_small;",
        ));
    }
    let (what, known): (_, Vec<&str>) = match kind {
        EventKind::Decode => {
            let events = DecodeEvent::ALL.iter();
            ("decoder", events.map(|event| event.name()).collect())
        }
        EventKind::Stream => {
            let events = StreamEvent::ALL.iter();
            ("stream", events.map(|event| event.name()).collect())
        }
        EventKind::Engine | EventKind::App => ("", Vec::new()),
    };
    if !known.is_empty() && !known.contains(&name.as_str()) {
        let help = match nearest(&name, known) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("the names are in Suricata's {what}-events.rules"),
        };
        let message = format!("no {what} event is called `{}`", shortened(&name));
        return Err(text.fail(message, help));
    }
    builder.condition(item, Condition::Event { kind, name });
    Ok(())
}

fn prefilter(builder: &mut Builder<'_>, item: &Item<'_>) -> Done {
    item.no_value()?;
    builder.prefilter(item)
}
