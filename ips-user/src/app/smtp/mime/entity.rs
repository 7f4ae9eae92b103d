//! The body of a message or of a part: decoded, and given to whom it concerns.

use super::encoding::{Decoder, Encoding};
use super::header::{Header, Kind};
use super::url::Line;
use super::{Boundary, Findings, KEPT_BOUNDARY, MAX_BOUNDARY, MAX_DEPTH, Reader, field};
use crate::app::smtp::options::SmtpOptions;
use crate::bounded::{heap, held};

/// Most bytes of a file's name.
const MAX_NAME: usize = 255;

/// A body.
#[derive(Debug)]
pub(super) struct Entity {
    /// Of its parts, if it has some.
    pub(super) boundary: Option<Boundary>,
    decoder: Decoder,
    encoding: Encoding,
    /// The end of the last line: it belongs to the boundary when that follows.
    newline: Vec<u8>,
    /// Its place among the files.
    file: Option<usize>,
    text: Option<Line>,
    message: Option<Box<Reader>>,
}

impl Entity {
    /// Bytes that it takes besides its place.
    pub(super) fn taken(&self) -> usize {
        let boundary = self.boundary.as_ref().map_or(0, |it| held(&it.text));
        let text = self.text.as_ref().map_or(0, Line::taken);
        let message = self.message.as_ref();
        let message = message.map_or(0, |it| heap(size_of::<Reader>()) + it.taken());
        boundary + held(&self.newline) + text + message
    }

    /// What nobody looks at.
    pub(super) fn nothing() -> Self {
        Self {
            boundary: None,
            decoder: Decoder::Identity,
            encoding: Encoding::Identity,
            newline: Vec::new(),
            file: None,
            text: None,
            message: None,
        }
    }

    /// What a header announces.
    pub(super) fn new(
        header: &Header,
        digest: bool,
        depth: u8,
        options: &SmtpOptions,
        findings: &mut Findings,
    ) -> Self {
        // Of several of a kind readers take the first or the last: the one that hides least counts.
        let kind = header.boundary().map(|it| it.0);
        let kind = kind.or(header.value(Kind::ContentType));
        let word = kind.map(field::word).unwrap_or_default();
        let named = |it: &&[u8]| field::parameter(it, "filename").is_some();
        let disposition = header.values(Kind::ContentDisposition).find(named);
        let disposition = disposition.or(header.value(Kind::ContentDisposition));
        let encodings = header.values(Kind::ContentTransferEncoding);
        let mut encodings = encodings.map(Encoding::named);
        let encoding = encodings.find(|it| *it != Encoding::Identity);
        let encoding = match encoding.unwrap_or_default() {
            Encoding::Base64 if !options.decode_base64 => Encoding::Identity,
            Encoding::QuotedPrintable if !options.decode_quoted_printable => Encoding::Identity,
            encoding => encoding,
        };
        let mut entity = Self {
            decoder: Decoder::of(encoding),
            encoding,
            ..Self::nothing()
        };
        if word.starts_with(b"multipart/") {
            match header.boundary() {
                Some((_, mut text)) => {
                    if text.len() > MAX_BOUNDARY {
                        findings.event("mime_long_boundary");
                        text = &text[..text.len().min(KEPT_BOUNDARY)];
                    }
                    entity.boundary = Some(Boundary {
                        text: text.trim_ascii_end().to_vec(),
                        digest: word == b"multipart/digest",
                    });
                    // What stands between the header and the first part is no content.
                    entity.decoder = Decoder::Identity;
                    return entity;
                }
                None => findings.event("mime_malformed_msg"),
            }
        }
        let named = disposition.and_then(|it| field::parameter(it, "filename"));
        let named = named.filter(|it| !it.is_empty());
        let mut name = named
            .or_else(|| kind.and_then(|it| field::parameter(it, "name")))
            .unwrap_or_default();
        if name.len() > MAX_NAME {
            findings.event("mime_long_filename");
            name.truncate(MAX_NAME);
        }
        let attached = disposition.is_some_and(|it| field::word(it) == b"attachment");
        let is_message =
            matches!(&word[..], b"message/rfc822" | b"message/global") || digest && word.is_empty();
        let is_text = word.is_empty() || word.starts_with(b"text/") || !word.contains(&b'/');
        let is_mail = [&b"multipart/"[..], b"message/"];
        let is_mail = is_mail.iter().any(|it| word.starts_with(it));
        // Readers offer what is neither text nor mail as a file, whether it has a name or not.
        if !name.is_empty() || attached || !(is_text || is_mail) {
            entity.file = findings.file(name);
        }
        if is_message {
            match depth < MAX_DEPTH {
                true => entity.message = Some(Box::new(Reader::new(depth + 1))),
                false => findings.event("mime_parse_failed"),
            }
        }
        if is_text && !attached && options.extract_urls {
            entity.text = Some(Line::default());
        }
        entity
    }

    /// Whether it was encoded for transport.
    pub(super) fn is_encoded(&self) -> bool {
        self.encoding != Encoding::Identity && self.boundary.is_none()
    }

    /// More of it: of one line.
    pub(super) fn push(&mut self, bytes: &[u8], options: &SmtpOptions, findings: &mut Findings) {
        if self.is_ignored() {
            return;
        }
        let mut bytes = bytes;
        if self.newline == b"\r" && bytes.starts_with(b"\n") {
            self.newline.push(b'\n');
            bytes = &bytes[1..];
        }
        if bytes.is_empty() {
            return;
        }
        let newline = std::mem::take(&mut self.newline);
        self.decode(&newline, options, findings);
        let end = match bytes {
            [before @ .., b'\r', b'\n'] => before.len(),
            [before @ .., b'\r' | b'\n'] => before.len(),
            _ => bytes.len(),
        };
        let (content, newline) = bytes.split_at(end);
        self.newline.extend_from_slice(newline);
        self.decode(content, options, findings);
    }

    fn is_ignored(&self) -> bool {
        self.file.is_none() && self.text.is_none() && self.message.is_none()
    }

    fn decode(&mut self, bytes: &[u8], options: &SmtpOptions, findings: &mut Findings) {
        if bytes.is_empty() {
            return;
        }
        let mut decoded = std::mem::take(&mut findings.decoded);
        decoded.clear();
        if let Some(event) = self.decoder.decode(bytes, &mut decoded) {
            findings.event(event);
        }
        self.deliver(&decoded, options, findings);
        findings.decoded = decoded;
    }

    fn deliver(&mut self, bytes: &[u8], options: &SmtpOptions, findings: &mut Findings) {
        if let Some(file) = self.file.and_then(|at| findings.files.get_mut(at)) {
            file.push(bytes);
        }
        if let Some(line) = &mut self.text {
            line.push(bytes, options.urls(), &mut findings.urls);
        }
        if let Some(message) = &mut self.message {
            message.push(bytes, options, findings);
        }
    }

    /// Nothing more comes of it; `whole` if that is all of it.
    pub(super) fn finish(&mut self, whole: bool, options: &SmtpOptions, findings: &mut Findings) {
        let mut decoded = Vec::new();
        if self.newline == b"\r" {
            // It is no end of a line.
            decoded.push(b'\r');
        }
        self.newline.clear();
        self.decoder.finish(&mut decoded);
        self.deliver(&decoded, options, findings);
        if let Some(line) = &mut self.text {
            line.flush(options.urls(), &mut findings.urls);
        }
        if let Some(message) = &mut self.message {
            message.finish(whole, options, findings);
        }
        if let Some(file) = self.file.and_then(|at| findings.files.get_mut(at)) {
            file.end(whole);
        }
        *self = Self::nothing();
    }

    /// Bytes are missing.
    pub(super) fn gap(&mut self, findings: &mut Findings) {
        if let Some(message) = &mut self.message {
            message.gap(findings);
        }
        if let Some(file) = self.file.and_then(|at| findings.files.get_mut(at)) {
            file.gap();
        }
        // Where in a group of digits what follows begins nobody knows.
        let boundary = self.boundary.take();
        let message = self.message.take().filter(|_| !self.is_encoded());
        *self = Self {
            boundary,
            message,
            ..Self::nothing()
        };
    }
}
