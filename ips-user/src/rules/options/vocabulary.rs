//! Every keyword, and what reads it.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::super::ast::{AppBuffer, Buffer};
use super::Handler;
use super::app::AppValue;
use super::{app, buffer, bytes, content, flow, meta, packet, pcre, sets, threshold, transforms};

/// What a keyword is.
#[derive(Clone, Copy)]
pub(super) enum Word {
    /// One with a handler of its own.
    Handler(Handler),
    /// A sticky buffer.
    Sticky(Buffer),
    /// A modifier that moves the content before it to a buffer.
    Modifier(Buffer),
    /// A keyword of an application protocol, its protocol, and what its value is.
    App(&'static str, &'static str, AppValue),
    /// One that is known but cannot be used, and why.
    Unsupported(&'static str),
}

const NOT_YET: &str = "not supported yet";
const SNORT: &str = "only Snort has this keyword";

/// Keywords that Suricata has and that say nothing to this engine.
const WITHOUT_MEANING_HERE: [(&str, &str); 4] = [
    ("frame", NOT_YET),
    ("lua", "there is no Lua in this engine"),
    ("luaxform", "there is no Lua in this engine"),
    ("template2", "an example in Suricata's sources"),
];

/// Keywords of Snort 2 and 3 that Suricata does not have.
const OF_SNORT: [&str; 55] = [
    "activated_by",
    "activates",
    "appid",
    "appids",
    "ber_data",
    "ber_skip",
    "bufferlen",
    "cip_attribute",
    "cip_class",
    "cip_conn_path_class",
    "cip_instance",
    "cip_req",
    "cip_rsp",
    "cip_status",
    "cvs",
    "detection",
    "enip_req",
    "enip_rsp",
    "file_id",
    "file_meta",
    "file_type",
    "gtp_info",
    "gtp_type",
    "gtp_version",
    "hash",
    "http_encode",
    "http_num_cookies",
    "http_num_headers",
    "http_param",
    "http_raw_body",
    "http_raw_request",
    "http_raw_status",
    "http_raw_trailer",
    "http_trailer",
    "http_true_ip",
    "http_version",
    "js_data",
    "length",
    "logto",
    "modbus_data",
    "modbus_func",
    "modbus_unit",
    "protected_content",
    "raw_data",
    "react",
    "regex",
    "rem",
    "resp",
    "sd_pattern",
    "service",
    "session",
    "soid",
    "stream_reassemble",
    "vba_data",
    "wscale",
];

/// More of them: the application protocols of Snort 2.
const OF_SNORT_APP: [&str; 8] = [
    "sip_body",
    "sip_header",
    "sip_method",
    "sip_stat_code",
    "s7commplus_content",
    "s7commplus_func",
    "s7commplus_opcode",
    "flowbits_size",
];

static WORDS: LazyLock<HashMap<&'static str, Word>> = LazyLock::new(|| {
    let handlers = [
        content::KEYWORDS,
        pcre::KEYWORDS,
        bytes::KEYWORDS,
        buffer::KEYWORDS,
        transforms::KEYWORDS,
        packet::KEYWORDS,
        flow::KEYWORDS,
        threshold::KEYWORDS,
        sets::KEYWORDS,
        app::KEYWORDS,
        meta::KEYWORDS,
    ];
    let mut words = HashMap::new();
    words.extend(OF_SNORT.map(|name| (name, Word::Unsupported(SNORT))));
    words.extend(OF_SNORT_APP.map(|name| (name, Word::Unsupported(SNORT))));
    words.extend(WITHOUT_MEANING_HERE.map(|(name, reason)| (name, Word::Unsupported(reason))));
    let values = app::APP_KEYWORDS.iter().chain(&app::ENIP_KEYWORDS);
    words.extend(values.map(|&(name, protocol, value)| (name, Word::App(name, protocol, value))));
    for &app in AppBuffer::ALL {
        words.insert(app.name(), Word::Sticky(Buffer::App(app)));
    }
    for buffer in buffer::PACKET_BUFFERS {
        words.insert(buffer.name(), Word::Sticky(buffer));
    }
    words.extend(buffer::ALIASES.map(|(name, app)| (name, Word::Sticky(Buffer::App(app)))));
    words.extend(buffer::MODIFIERS.map(|(name, app)| (name, Word::Modifier(Buffer::App(app)))));
    let handlers = handlers.into_iter().flatten();
    words.extend(handlers.map(|&(name, handler)| (name, Word::Handler(handler))));
    words
});

/// What reads a keyword; in any case.
pub(super) fn find(name: &str) -> Option<Word> {
    if let Some(word) = WORDS.get(name) {
        return Some(*word);
    }
    let lower = name.to_ascii_lowercase();
    WORDS.get(lower.as_str()).copied()
}

/// Whether a keyword can be used.
pub(super) fn is_known(name: &str) -> bool {
    find(name).is_some_and(|word| !matches!(word, Word::Unsupported(_)))
}

/// Every keyword.
pub(in super::super) fn names() -> impl Iterator<Item = &'static str> {
    WORDS.keys().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keyword_is_found_in_any_case_and_its_meaning_is_its_own() {
        for (name, sticky) in [
            ("http.uri", true),
            ("HTTP.URI", true),
            ("dns_query", true),
            ("http_uri", false),
        ] {
            let word = find(name);
            assert_eq!(matches!(word, Some(Word::Sticky(_))), sticky, "{name}");
            assert!(word.is_some(), "{name}");
        }
        assert!(find("contnet").is_none());
        assert!(is_known("content") && !is_known("lua"));
    }

    #[test]
    fn no_keyword_of_the_engine_is_called_one_of_snort() {
        for name in OF_SNORT.iter().chain(&OF_SNORT_APP) {
            assert!(matches!(find(name), Some(Word::Unsupported(_))), "{name}");
        }
    }
}
