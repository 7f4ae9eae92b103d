//! What records say about a connection. Reference: "Event type: TLS" in the EVE chapter of
//! Suricata's user guide.

use serde_json::{Map, Value, json};
use time::OffsetDateTime;

use super::handshake::Handshake;

/// The object `tls` of a record.
pub(crate) fn fields(handshake: &Handshake) -> Value {
    let mut out = Map::new();
    let mut put = |key: &str, value: Value| {
        out.insert(key.into(), value);
    };
    if let Some(certificate) = handshake.certificate() {
        put("subject", certificate.subject.clone().into());
        put("issuerdn", certificate.issuer.clone().into());
        if !certificate.names.is_empty() {
            put("subjectaltname", certificate.names.clone().into());
        }
        put("serial", certificate.serial.clone().into());
        put("fingerprint", certificate.fingerprint.clone().into());
    } else if handshake.is_resumed() {
        put("session_resumed", true.into());
    }
    let client = handshake.client.as_ref();
    if let Some(name) = client.and_then(|it| it.name.as_deref()) {
        put("sni", String::from_utf8_lossy(name).into());
    }
    if let Some(version) = handshake.version() {
        put("version", version_name(version).into());
    }
    if let Some(certificate) = handshake.certificate() {
        put("notbefore", date(certificate.not_before).into());
        put("notafter", date(certificate.not_after).into());
    }
    for (key, pair) in [("ja3", &handshake.ja3), ("ja3s", &handshake.ja3s)] {
        if let Some((string, hash)) = pair {
            put(key, json!({ "hash": hash, "string": string }));
        }
    }
    if let Some(ja4) = &handshake.ja4 {
        put("ja4", ja4.clone().into());
    }
    out.into()
}

fn version_name(version: u16) -> String {
    match version {
        0x0002 => "SSLv2".to_owned(),
        0x0300 => "SSLv3".to_owned(),
        0x0301 => "TLSv1".to_owned(),
        0x0302 => "TLS 1.1".to_owned(),
        0x0303 => "TLS 1.2".to_owned(),
        0x0304 => "TLS 1.3".to_owned(),
        other => format!("0x{other:04x}"),
    }
}

/// `2023-09-18T06:13:41`
fn date(seconds: i64) -> String {
    let time = OffsetDateTime::from_unix_timestamp(seconds);
    let time = time.unwrap_or(OffsetDateTime::UNIX_EPOCH);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}",
        time.year(),
        u8::from(time.month()),
        time.day(),
        time.hour(),
        time.minute(),
        time.second()
    )
}
