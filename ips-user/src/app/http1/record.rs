//! What records say about an exchange. Reference: "Event type: HTTP" in the EVE chapter of
//! Suricata's user guide.

use serde_json::{Map, Value};

use super::exchange::Exchange;

/// The object `http` of a record.
pub(crate) fn fields(exchange: &Exchange) -> Value {
    let mut out = Map::new();
    let text = |bytes: &[u8]| Value::from(String::from_utf8_lossy(bytes).into_owned());
    let (request, response) = (&exchange.request, &exchange.response);
    let mut put = |key: &str, bytes: Option<&[u8]>| {
        if let Some(bytes) = bytes {
            out.insert(key.into(), text(bytes));
        }
    };
    put("hostname", exchange.host.as_deref());
    put("url", exchange.uri_raw.as_deref());
    put("http_user_agent", request.header("user-agent"));
    let kind = response.header("content-type").map(|kind| {
        let end = kind.iter().position(|it| *it == b';');
        &kind[..end.unwrap_or(kind.len())]
    });
    put("http_content_type", kind);
    put("http_refer", request.header("referer"));
    put("http_method", exchange.method.as_deref());
    put("protocol", request.protocol.as_deref());
    let status = exchange.status.as_deref();
    let number = status.and_then(|it| std::str::from_utf8(it).ok()?.parse::<u16>().ok());
    put("status_string", status.filter(|_| number.is_none()));
    put(
        "redirect",
        response
            .header("location")
            .filter(|_| number.is_some_and(|it| it / 100 == 3)),
    );
    if let Some(number) = number {
        out.insert("status".into(), number.into());
    }
    out.insert("length".into(), exchange.response_len.into());
    out.into()
}

/// Leaves what records have that are not `extended`.
pub(crate) fn shorten(fields: &mut Value) {
    const KEPT: [&str; 5] = [
        "hostname",
        "http_port",
        "url",
        "http_user_agent",
        "http_content_type",
    ];
    if let Some(fields) = fields.as_object_mut() {
        fields.retain(|key, _| KEPT.contains(&key.as_str()));
    }
}
