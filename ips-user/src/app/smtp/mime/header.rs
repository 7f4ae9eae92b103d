//! Header fields of a message or a part.

use super::{Findings, field};
use crate::bounded::held;

/// RFC 5322, section 2.1.1.
const MAX_LINE: usize = 998;
/// Bytes of a line that are looked at.
const KEPT_LINE: usize = 16 << 10;
/// Bytes of the value of a field that says how a body is to be read.
const KEPT_VALUE: usize = 16 << 10;
const MAX_NAME: usize = 75;
/// Fields of one message that are kept, and bytes of them.
const MAX_FIELDS: usize = 512;
const MAX_BYTES: usize = 64 << 10;

macro_rules! kinds {
    ($($kind:ident $name:literal $key:literal,)*) => {
        /// The fields that rules or records look at.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(in crate::app::smtp) enum Kind { $($kind,)* }

        impl Kind {
            pub(in crate::app::smtp) const ALL: &'static [Self] = &[$(Self::$kind),*];

            /// As it is written in mails and settings.
            pub(in crate::app::smtp) const fn name(self) -> &'static str {
                match self { $(Self::$kind => $name,)* }
            }

            /// In records.
            pub(in crate::app::smtp) const fn key(self) -> &'static str {
                match self { $(Self::$kind => $key,)* }
            }
        }
    };
}

kinds! {
    From "from" "from",
    To "to" "to",
    Cc "cc" "cc",
    Bcc "bcc" "bcc",
    ReplyTo "reply-to" "reply_to",
    Subject "subject" "subject",
    Date "date" "date",
    MessageId "message-id" "message_id",
    XMailer "x-mailer" "x_mailer",
    UserAgent "user-agent" "user_agent",
    Received "received" "received",
    XOriginatingIp "x-originating-ip" "x_originating_ip",
    InReplyTo "in-reply-to" "in_reply_to",
    References "references" "references",
    Importance "importance" "importance",
    Priority "priority" "priority",
    Sensitivity "sensitivity" "sensitivity",
    Organization "organization" "organization",
    ContentMd5 "content-md5" "content_md5",
    ContentType "content-type" "content_type",
    ContentDisposition "content-disposition" "content_disposition",
    ContentTransferEncoding "content-transfer-encoding" "content_transfer_encoding",
}

impl Kind {
    /// Whether records have it when they are to.
    pub(in crate::app::smtp) fn is_optional(self) -> bool {
        !self.says_how_to_read() && !matches!(self, Self::From | Self::To | Self::Cc)
    }

    fn says_how_to_read(self) -> bool {
        matches!(
            self,
            Self::ContentType | Self::ContentDisposition | Self::ContentTransferEncoding
        )
    }
}

/// The fields of a header, as far as they are looked at.
#[derive(Debug, Default)]
pub(in crate::app::smtp) struct Header {
    fields: Vec<(Kind, Vec<u8>)>,
    bytes: usize,
    /// The last one, which may go on.
    open: Option<(Option<Kind>, Vec<u8>)>,
    /// Bytes of that that are kept.
    limit: usize,
    /// Which field announces parts, and what separates them. It is looked for once: every line may
    /// be the boundary.
    boundary: Option<(usize, Vec<u8>)>,
}

impl Header {
    /// Bytes that it takes besides its place.
    pub(super) fn taken(&self) -> usize {
        let fields = self.fields.iter().map(|(_, value)| held(value));
        let open = self.open.as_ref().map_or(0, |(_, value)| held(value));
        let boundary = self.boundary.as_ref().map_or(0, |it| held(&it.1));
        held(&self.fields) + fields.sum::<usize>() + open + boundary
    }

    /// The value that announces parts, and what separates them.
    pub(super) fn boundary(&self) -> Option<(&[u8], &[u8])> {
        let (at, boundary) = self.boundary.as_ref()?;
        Some((&self.fields.get(*at)?.1, boundary))
    }

    /// The values of a field, in the order in which they came, as far as they are complete.
    pub(in crate::app::smtp) fn values(&self, kind: Kind) -> impl Iterator<Item = &[u8]> {
        let of_kind = self.fields.iter().filter(move |it| it.0 == kind);
        of_kind.map(|it| &it.1[..])
    }

    /// The first of them.
    pub(in crate::app::smtp) fn value(&self, kind: Kind) -> Option<&[u8]> {
        self.values(kind).next()
    }

    /// A line that is not empty.
    pub(super) fn line(&mut self, line: &[u8], depth: usize, findings: &mut Findings) {
        if matches!(line, [b' ' | b'\t', ..]) {
            // RFC 5322, section 2.2.3: the field goes on.
            if let Some((_, value)) = &mut self.open {
                let more = line.trim_ascii();
                let room = self.limit.saturating_sub(value.len());
                value.extend_from_slice(&more[..more.len().min(room)]);
                if more.len() > room {
                    findings.event("mime_long_header_value");
                }
            }
            return;
        }
        self.close(findings);
        let Some(colon) = memchr::memchr(b':', line) else {
            // Some readers skip it, to others the body begins here.
            findings.event("mime_malformed_msg");
            return;
        };
        let name = line[..colon].trim_ascii();
        if name.len() > MAX_NAME {
            findings.event("mime_long_header_name");
        }
        let mut kinds = Kind::ALL.iter().copied();
        let kind = kinds.find(|it| it.name().as_bytes().eq_ignore_ascii_case(name));
        self.limit = match kind {
            Some(kind) if kind.says_how_to_read() => KEPT_VALUE.max(depth),
            _ => depth,
        };
        let value = line[colon + 1..].trim_ascii();
        if value.len() > self.limit {
            findings.event("mime_long_header_value");
        }
        let value = &value[..value.len().min(self.limit)];
        self.open = Some((kind, value.to_vec()));
    }

    fn close(&mut self, findings: &mut Findings) {
        let Some((Some(kind), value)) = self.open.take() else {
            return;
        };
        let known = self.value(kind).is_some();
        if known && kind.says_how_to_read() {
            // Which of them counts readers do not agree about.
            findings.event("mime_malformed_msg");
        }
        let full = self.fields.len() >= MAX_FIELDS || self.bytes + value.len() > MAX_BYTES;
        // Many others must not hide how a body is to be read.
        if full && (known || !kind.says_how_to_read()) {
            findings.event("mime_parse_failed");
            return;
        }
        self.bytes += value.len();
        if kind == Kind::ContentType
            && self.boundary.is_none()
            && field::word(&value).starts_with(b"multipart/")
        {
            let boundary = field::parameter(&value, "boundary").filter(|it| !it.is_empty());
            self.boundary = boundary.map(|it| (self.fields.len(), it));
        }
        self.fields.push((kind, value));
    }

    /// No more of them come.
    pub(super) fn end(&mut self, findings: &mut Findings) {
        self.close(findings);
    }
}

/// A line that may not have ended.
#[derive(Debug, Default)]
pub(super) struct Line {
    bytes: Vec<u8>,
    /// More than is kept has come.
    overlong: bool,
    /// What its beginning was is not known.
    headless: bool,
}

impl Line {
    /// Bytes that it takes besides its place.
    pub(super) fn taken(&self) -> usize {
        held(&self.bytes)
    }

    /// One whose beginning is missing.
    pub(super) fn after_gap() -> Self {
        Self {
            headless: true,
            ..Self::default()
        }
    }

    /// More of it: the line, without its end, when that has come.
    pub(super) fn push(&mut self, bytes: &[u8], findings: &mut Findings) -> Option<Vec<u8>> {
        let room = KEPT_LINE.saturating_sub(self.bytes.len());
        self.overlong |= bytes.len() > room;
        self.bytes
            .extend_from_slice(&bytes[..bytes.len().min(room)]);
        if !bytes.ends_with(b"\n") {
            return None;
        }
        let headless = std::mem::take(&mut self.headless);
        let overlong = std::mem::take(&mut self.overlong);
        let line = self.take().unwrap_or_default();
        if overlong || line.len() > MAX_LINE {
            findings.event("mime_long_line");
        }
        (!headless).then_some(line)
    }

    /// What there is of it.
    pub(super) fn take(&mut self) -> Option<Vec<u8>> {
        let mut line = std::mem::take(&mut self.bytes);
        if line.is_empty() {
            return None;
        }
        while matches!(line.last(), Some(b'\n' | b'\r')) {
            line.pop();
        }
        Some(line)
    }
}
