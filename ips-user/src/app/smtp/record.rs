//! What records say about a mail. Reference: "Event type: SMTP" in the EVE chapter of Suricata's
//! user guide.

use md5::{Digest as _, Md5};
use serde_json::{Map, Value};

use super::mail::Mail;
use super::mime::url::{self, Trait};
use super::mime::{Kind, Status};

/// The object `smtp` of a record.
pub(crate) fn fields(mail: &Mail) -> Value {
    let mut out = Map::new();
    if let Some(helo) = &mail.helo {
        out.insert("helo".into(), text(helo));
    }
    if let Some(from) = &mail.from {
        out.insert("mail_from".into(), text(from));
    }
    if !mail.recipients.is_empty() {
        let recipients = mail.recipients.iter().map(|it| text(it));
        out.insert("rcpt_to".into(), recipients.collect());
    }
    out.into()
}

/// The object `email` of a record; none while there is no mail.
pub(crate) fn email(mail: &Mail) -> Option<Value> {
    let message = mail.message()?;
    let header = message.header();
    let mut out = Map::new();
    let status = match message.status() {
        Status::Header => "HEADER_STARTED",
        Status::Body => "BODY_STARTED",
        Status::Done => "PARSE_DONE",
    };
    out.insert("status".into(), status.into());
    if let Some(from) = header.value(Kind::From) {
        out.insert("from".into(), text(from));
    }
    for kind in [Kind::To, Kind::Cc] {
        let addresses = header.value(kind).map(addresses).unwrap_or_default();
        if !addresses.is_empty() {
            out.insert(kind.key().into(), addresses.into());
        }
    }
    for kind in &mail.options.record.fields {
        let value = match kind {
            Kind::Received => {
                let all: Vec<_> = header.values(*kind).map(text).collect();
                (!all.is_empty()).then(|| all.into())
            }
            Kind::Bcc => header.value(*kind).map(|it| addresses(it).into()),
            kind => header.value(*kind).map(text),
        };
        if let Some(value) = value {
            out.insert(kind.key().into(), value);
        }
    }
    let named = message.files().iter().filter(|it| !it.name.is_empty());
    let names: Vec<_> = named.map(|it| text(&it.name)).collect();
    if !names.is_empty() {
        out.insert("attachment".into(), names.into());
    }
    let urls = message.urls().all();
    if !urls.is_empty() {
        out.insert("url".into(), urls.iter().map(|it| text(it)).collect());
    }
    for (what, key) in [
        (Trait::Ipv6, "has_ipv6_url"),
        (Trait::Ipv4, "has_ipv4_url"),
        (Trait::Executable, "has_exe_url"),
    ] {
        if urls.iter().any(|it| url::is(it, what)) {
            out.insert(key.into(), true.into());
        }
    }
    if mail.options.record.body_md5
        && let Some(hash) = mail.body_md5()
    {
        out.insert("body_md5".into(), hash.into());
    }
    if mail.options.record.subject_md5
        && let Some(subject) = header.value(Kind::Subject)
    {
        let hash = Md5::digest(subject);
        let digits: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        out.insert("subject_md5".into(), digits.into());
    }
    Some(out.into())
}

fn text(bytes: &[u8]) -> Value {
    String::from_utf8_lossy(bytes).into_owned().into()
}

/// A list of addresses: those between commas that are not quoted.
fn addresses(list: &[u8]) -> Vec<Value> {
    let mut quoted = false;
    let parts = list.split(|byte| {
        quoted ^= *byte == b'"';
        *byte == b',' && !quoted
    });
    let parts = parts.map(<[u8]>::trim_ascii).filter(|it| !it.is_empty());
    parts.map(text).collect()
}
