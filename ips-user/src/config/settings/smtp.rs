//! `app-layer.protocols.smtp`

use super::app_layer::Enabled;
use super::node::settings;
use super::value::{ByteSize, choice};

settings! {
    /// `app-layer.protocols.smtp`
    pub Smtp {
        /// Whether it is looked for.
        enabled("enabled"): Enabled = Enabled::Yes,
        /// Bytes that its conversations may take; zero for no limit of their own.
        memcap("memcap"): ByteSize = ByteSize(0),
        /// Whether a mail as a whole is a file; only where it is not taken apart.
        raw_extraction("raw-extraction"): bool = false,
        /// Mails of a connection at a time.
        max_tx("max-tx"): u32 = 256,
        /// How mails are taken apart.
        mime("mime"): SmtpMime = SmtpMime::default(),
        /// How much of files is inspected.
        inspected_tracker("inspected-tracker"): SmtpTracker = SmtpTracker::default(),
    }
}

settings! {
    /// `app-layer.protocols.smtp.mime`
    pub SmtpMime {
        /// Whether mails are taken apart at all.
        decode_mime("decode-mime"): bool = true,
        /// Whether base64 is undone.
        decode_base64("decode-base64"): bool = true,
        /// Whether quoted-printable is undone.
        decode_quoted_printable("decode-quoted-printable"): bool = true,
        /// Bytes of a header field's value that are kept.
        header_value_depth("header-value-depth"): ByteSize = ByteSize(2000),
        /// Whether addresses of pages are looked for in text.
        extract_urls("extract-urls"): bool = true,
        /// Which of them.
        extract_urls_schemes("extract-urls-schemes"): Vec<String> = vec!["http".into()],
        /// Whether the scheme is part of what is found.
        log_url_scheme("log-url-scheme"): bool = false,
        /// Whether a hash is made of bodies.
        body_md5("body-md5"): BodyMd5 = BodyMd5::Auto,
    }
}

settings! {
    /// `app-layer.protocols.smtp.inspected-tracker`
    pub SmtpTracker {
        /// Bytes of a file that are inspected; all if zero.
        content_limit("content-limit"): ByteSize = ByteSize(100_000),
        /// Watching: bytes of a file that are waited for.
        content_inspect_min_size("content-inspect-min-size"): ByteSize = ByteSize(32_768),
        /// Means nothing here: what is kept of a file is inspected as a whole.
        content_inspect_window("content-inspect-window"): ByteSize = ByteSize(4096),
    }
}

choice! {
    /// `body-md5`
    pub BodyMd5 {
        /// As it costs next to nothing beside the rest: the same as always.
        Auto = "auto",
        /// Always.
        Yes = "yes" | "true" | "on",
        /// Never: rules about it do not match.
        No = "no" | "false" | "off",
    }
}
