//! How SMTP is read, and what records have of it.

use serde_json::Value;

use super::mime::Kind;
use crate::config::settings::{BodyMd5, EngineSettings, SmtpMime};

/// How SMTP is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::app) struct SmtpOptions {
    pub(super) max_transactions: usize,
    pub(super) decode_mime: bool,
    /// A mail as a whole is a file.
    pub(super) raw: bool,
    pub(super) decode_base64: bool,
    pub(super) decode_quoted_printable: bool,
    /// Bytes of a field's value that are kept.
    pub(super) header_value_depth: usize,
    pub(super) extract_urls: bool,
    schemes: Vec<Vec<u8>>,
    log_url_scheme: bool,
    pub(super) body_md5: bool,
    /// Bytes of a file that are inspected.
    pub(super) content_limit: usize,
    /// Bytes that are waited for.
    pub(super) content_least: usize,
    pub(super) record: RecordOptions,
}

/// What records have besides what they always have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RecordOptions {
    pub(super) fields: Vec<Kind>,
    pub(super) subject_md5: bool,
    pub(super) body_md5: bool,
}

impl SmtpOptions {
    /// As configured; `at_once` where nothing is waited for.
    pub(in crate::app) fn configured(settings: &EngineSettings, at_once: bool) -> Self {
        let smtp = &settings.app_layer.protocols.smtp;
        let SmtpMime {
            decode_mime,
            decode_base64,
            decode_quoted_printable,
            header_value_depth,
            extract_urls,
            extract_urls_schemes,
            log_url_scheme,
            body_md5,
        } = &smtp.mime;
        let schemes = extract_urls_schemes.iter().map(|scheme| {
            let scheme = scheme.to_ascii_lowercase();
            let end = if scheme == "mailto" { ":" } else { "://" };
            [scheme.as_bytes(), end.as_bytes()].concat()
        });
        let tracker = &smtp.inspected_tracker;
        Self {
            max_transactions: smtp.max_tx as usize,
            decode_mime: *decode_mime,
            // Both at a time are not to be had.
            raw: smtp.raw_extraction && !decode_mime,
            decode_base64: *decode_base64,
            decode_quoted_printable: *decode_quoted_printable,
            header_value_depth: header_value_depth.bytes(),
            extract_urls: *extract_urls,
            schemes: schemes.collect(),
            log_url_scheme: *log_url_scheme,
            body_md5: *body_md5 != BodyMd5::No,
            content_limit: match tracker.content_limit.bytes() {
                0 => usize::MAX,
                bytes => bytes,
            },
            content_least: match at_once {
                true => 0,
                false => tracker.content_inspect_min_size.bytes(),
            },
            record: RecordOptions::configured(settings),
        }
    }

    /// What addresses of pages begin with, and whether that is part of them.
    pub(super) fn urls(&self) -> (&[Vec<u8>], bool) {
        (&self.schemes, self.log_url_scheme)
    }
}

impl Default for SmtpOptions {
    fn default() -> Self {
        Self::configured(&EngineSettings::default(), true)
    }
}

/// Reference: "SMTP" in the EVE chapter of Suricata's user guide.
impl RecordOptions {
    fn configured(settings: &EngineSettings) -> Self {
        let mut found = Self::default();
        let logs = settings.outputs.logs.iter();
        let options = logs.flat_map(|log| &log.types.application);
        for (_, options) in options.filter(|(name, _)| name == "smtp") {
            let names = |key: &str| {
                let list = options.get(key).and_then(Value::as_array);
                let list = list.into_iter().flatten().filter_map(Value::as_str);
                list.map(str::to_ascii_lowercase).collect::<Vec<_>>()
            };
            let custom = names("custom");
            let extended = match options.get("extended") {
                Some(Value::Bool(on)) => *on,
                Some(Value::String(text)) => matches!(&text[..], "yes" | "true" | "on"),
                _ => false,
            };
            const EXTENDED: [Kind; 5] = [
                Kind::Bcc,
                Kind::MessageId,
                Kind::Subject,
                Kind::XMailer,
                Kind::UserAgent,
            ];
            for kind in Kind::ALL {
                let wanted = custom.iter().any(|it| it == kind.name());
                let wanted = wanted || extended && EXTENDED.contains(kind);
                if wanted && kind.is_optional() && !found.fields.contains(kind) {
                    found.fields.push(*kind);
                }
            }
            let md5 = names("md5");
            found.subject_md5 |= md5.iter().any(|it| it == "subject");
            found.body_md5 |= md5.iter().any(|it| it == "body");
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn with(settings: &[(&str, Value)]) -> SmtpOptions {
        let mut engine = EngineSettings::default();
        for (name, value) in settings {
            engine.set_value(name, value).unwrap();
        }
        SmtpOptions::configured(&engine, false)
    }

    #[test]
    fn records_have_what_outputs_ask_for() {
        let smtp =
            json!({ "extended": true, "custom": ["received", "Subject", "x"], "md5": ["body"] });
        let outputs = json!([{ "eve-log": { "types": [{ "smtp": smtp }] } }]);
        let record = with(&[("outputs", outputs)]).record;
        let mut names: Vec<_> = record.fields.iter().map(|it| it.key()).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "bcc",
                "message_id",
                "received",
                "subject",
                "user_agent",
                "x_mailer"
            ]
        );
        assert_eq!((record.body_md5, record.subject_md5), (true, false));
    }

    #[test]
    fn settings_mean_what_they_say() {
        let smtp = |name: &str| format!("app-layer.protocols.smtp.{name}");
        let set = |name: &str, value: Value| (smtp(name), value);
        let settings = [
            set("raw-extraction", json!(true)),
            set("mime.extract-urls-schemes", json!(["HTTP", "mailto"])),
            set("mime.body-md5", json!(false)),
            set("inspected-tracker.content-limit", json!(0)),
        ];
        let settings = settings.each_ref().map(|it| (it.0.as_str(), it.1.clone()));
        let options = with(&settings);
        assert!(!options.raw, "they are taken apart");
        assert_eq!(options.urls().0, [&b"http://"[..], b"mailto:"]);
        assert!(!options.body_md5);
        assert_eq!(options.content_limit, usize::MAX);
        assert_eq!(options.content_least, 32_768);
        let raw = [
            &settings[..],
            &[("app-layer.protocols.smtp.mime.decode-mime", json!(false))],
        ];
        assert!(with(&raw.concat()).raw);
    }
}
