//! A message as it comes, taken apart (RFC 5322, RFC 2045, RFC 2046): its header, the files that it
//! carries, decoded as far as they have come, and addresses of pages in its text.
//!
//! Nothing waits for the end of a message or of a line of its body: rules are to see what a packet
//! brings with that packet. Where messages are malformed, what some reader would make of them is
//! looked at rather than skipped, and an event tells.

mod encoding;
mod entity;
mod field;
mod header;
#[cfg(test)]
mod tests;
pub(super) mod url;

use md5::{Digest as _, Md5};

use super::attachment::{Attachment, Keeping};
use super::options::SmtpOptions;
use crate::bounded::{heap, held};
use entity::Entity;
pub(super) use header::Kind;
use header::{Header, Line};
use url::Urls;

/// Messages in messages that are entered.
const MAX_DEPTH: u8 = 8;
/// Multiparts in multiparts of a message.
const MAX_BOUNDARIES: usize = 32;
/// RFC 2046, section 5.1.1, allows 70; some send more.
const MAX_BOUNDARY: usize = 254;
/// Bytes of one that count, and of a line that may be one.
const KEPT_BOUNDARY: usize = 1000;
const MAX_BOUNDARY_LINE: usize = KEPT_BOUNDARY + 100;
/// Files of a message that are kept track of.
const MAX_FILES: usize = 1024;
/// Bytes of its files that are kept, as a multiple of what is kept of one.
const KEPT_FILES: usize = 8;
/// RFC 2045, section 6.8.
const MAX_ENCODED_LINE: usize = 76;
/// RFC 5322, section 2.1.1.
const MAX_LINE: usize = 998;

/// What is found in a message and in those within it.
#[derive(Debug)]
pub(super) struct Findings {
    pub(super) files: Vec<Attachment>,
    pub(super) urls: Urls,
    /// What is wrong with it, each once.
    events: Vec<&'static str>,
    keeping: Keeping,
    /// Of what is body of the message: neither its header nor those of its parts.
    body: Option<Md5>,
    decoded: Vec<u8>,
}

impl Findings {
    /// Bytes that they take besides their place.
    fn taken(&self) -> usize {
        let files = self.files.iter().map(Attachment::taken).sum::<usize>();
        held(&self.files) + files + self.urls.taken() + held(&self.events) + held(&self.decoded)
    }

    fn event(&mut self, name: &'static str) {
        if !self.events.contains(&name) {
            self.events.push(name);
        }
    }

    /// Where a file with this name goes; `None` for one too many.
    fn file(&mut self, name: Vec<u8>) -> Option<usize> {
        if self.files.len() == MAX_FILES {
            self.event("mime_parse_failed");
            return None;
        }
        self.files.push(Attachment::new(name, self.keeping));
        Some(self.files.len() - 1)
    }
}

/// How far the reading of a message has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Header,
    Body,
    /// All of it has come.
    Done,
}

/// A message.
#[derive(Debug)]
pub(super) struct Message {
    reader: Reader,
    findings: Findings,
    ended: bool,
    /// It has come to its end.
    whole: bool,
}

impl Message {
    /// Bytes that it takes.
    pub(super) fn taken(&self) -> usize {
        heap(size_of::<Self>()) + self.reader.taken() + self.findings.taken()
    }

    pub(super) fn new(options: &SmtpOptions, keeping: Keeping) -> Self {
        Self {
            reader: Reader::new(0),
            findings: Findings {
                files: Vec::new(),
                urls: Urls::default(),
                events: Vec::new(),
                keeping,
                body: options.body_md5.then(Md5::new),
                decoded: Vec::new(),
            },
            ended: false,
            whole: false,
        }
    }

    /// More of it.
    pub(super) fn push(&mut self, bytes: &[u8], options: &SmtpOptions) {
        if !self.ended {
            self.reader.push(bytes, options, &mut self.findings);
        }
    }

    /// Nothing more comes; `whole` if that is all of it.
    pub(super) fn finish(&mut self, whole: bool, options: &SmtpOptions) {
        if !self.ended {
            (self.ended, self.whole) = (true, whole);
            self.reader.finish(whole, options, &mut self.findings);
        }
    }

    /// Some bytes are missing.
    pub(super) fn gap(&mut self) {
        self.reader.gap(&mut self.findings);
    }

    pub(super) fn status(&self) -> Status {
        match self.whole {
            true => Status::Done,
            false if self.reader.is_in_own_header() => Status::Header,
            false => Status::Body,
        }
    }

    /// Its header, as far as it has come.
    pub(super) fn header(&self) -> &Header {
        &self.reader.header
    }

    /// Whether there will be no more of that.
    pub(super) fn header_ended(&self) -> bool {
        self.ended || !self.reader.is_in_own_header()
    }

    pub(super) fn files(&self) -> &[Attachment] {
        &self.findings.files
    }

    pub(super) fn urls(&self) -> &Urls {
        &self.findings.urls
    }

    /// The hash of its body, when that has come.
    pub(super) fn body_md5(&self) -> Option<String> {
        let md5 = self.findings.body.as_ref().filter(|_| self.whole)?;
        let hash = md5.clone().finalize();
        Some(hash.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// What is wrong with it.
    pub(super) fn events(&self) -> &[&'static str] {
        &self.findings.events
    }

    /// Rules will not see it again.
    pub(super) fn forget(&mut self) {
        self.findings.files.iter_mut().for_each(Attachment::forget);
    }

    /// Rules have seen everything: of many files only the last ones are kept.
    pub(super) fn seen(&mut self) {
        let files = &mut self.findings.files;
        let mut kept: usize = files.iter().map(Attachment::kept).sum();
        let most = self.findings.keeping.kept.saturating_mul(KEPT_FILES);
        for file in files.iter_mut().filter(|it| it.ended) {
            if kept <= most {
                break;
            }
            kept -= file.kept();
            file.forget();
        }
    }
}

/// What comes next.
#[derive(Debug)]
enum Place {
    /// A header: of the message, or of a part.
    Header(Line),
    /// A body.
    Body {
        entity: Box<Entity>,
        /// What of a line has come that may be a boundary; `None` further on in a line.
        line: Option<Vec<u8>>,
        /// Bytes of the line.
        length: usize,
    },
}

/// Reads a message or one within another.
#[derive(Debug)]
struct Reader {
    /// Messages around it.
    depth: u8,
    place: Place,
    /// Of the part that is read.
    part: Header,
    /// Of the message.
    header: Header,
    /// The message's own has ended.
    begun: bool,
    /// Of the multiparts that are open.
    boundaries: Vec<Boundary>,
}

/// What separates the parts of a multipart.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Boundary {
    text: Vec<u8>,
    /// The parts are messages if nothing else is said (RFC 2046, section 5.1.5).
    digest: bool,
}

impl Reader {
    /// Bytes that it takes besides its place.
    fn taken(&self) -> usize {
        let place = match &self.place {
            Place::Header(line) => line.taken(),
            Place::Body { entity, line, .. } => {
                let entity = heap(size_of::<Entity>()) + entity.taken();
                entity + line.as_ref().map_or(0, held)
            }
        };
        let boundaries = self.boundaries.iter().map(|it| held(&it.text));
        place
            + self.part.taken()
            + self.header.taken()
            + held(&self.boundaries)
            + boundaries.sum::<usize>()
    }

    fn new(depth: u8) -> Self {
        Self {
            depth,
            place: Place::Header(Line::default()),
            part: Header::default(),
            header: Header::default(),
            begun: false,
            boundaries: Vec::new(),
        }
    }

    fn is_in_own_header(&self) -> bool {
        !self.begun
    }

    fn push(&mut self, bytes: &[u8], options: &SmtpOptions, findings: &mut Findings) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let end = memchr::memchr(b'\n', rest).map_or(rest.len(), |end| end + 1);
            let (line, after) = rest.split_at(end);
            match &mut self.place {
                Place::Header(unfinished) => {
                    if let Some(line) = unfinished.push(line, findings) {
                        self.header_line(&line, options, findings);
                    }
                }
                Place::Body { .. } => self.body(line, options, findings),
            }
            rest = after;
        }
    }

    /// A line of a header, without its end.
    fn header_line(&mut self, line: &[u8], options: &SmtpOptions, findings: &mut Findings) {
        if line.is_empty() {
            self.header_ends(options, findings);
            return;
        }
        // A part may end before its body begins.
        if self.begun && self.boundary(line, options, findings) {
            return;
        }
        let own = !self.begun;
        let header = if own {
            &mut self.header
        } else {
            &mut self.part
        };
        if let Some(text) = line.strip_prefix(b"--") {
            // So may a header, when its parts begin without an empty line.
            header.end(findings);
            let boundary = header.boundary().map(|it| it.1);
            if boundary.is_some_and(|it| it == text.trim_ascii_end()) {
                findings.event("mime_malformed_msg");
                self.header_ends(options, findings);
                self.boundary(line, options, findings);
                return;
            }
        }
        header.line(line, options.header_value_depth, findings);
    }

    fn header_ends(&mut self, options: &SmtpOptions, findings: &mut Findings) {
        let own = !std::mem::replace(&mut self.begun, true);
        let header = if own {
            &mut self.header
        } else {
            &mut self.part
        };
        header.end(findings);
        let digest = !own && self.boundaries.last().is_some_and(|it| it.digest);
        let entity = Entity::new(header, digest, self.depth, options, findings);
        if let Some(boundary) = &entity.boundary {
            match self.boundaries.len() < MAX_BOUNDARIES {
                true => self.boundaries.push(boundary.clone()),
                false => findings.event("mime_parse_failed"),
            }
        }
        self.place = Place::Body {
            entity: Box::new(entity),
            line: Some(Vec::new()),
            length: 0,
        };
    }

    /// More of a body: of one line.
    fn body(&mut self, bytes: &[u8], options: &SmtpOptions, findings: &mut Findings) {
        let Place::Body {
            entity,
            line,
            length,
        } = &mut self.place
        else {
            return;
        };
        if self.depth == 0
            && let Some(md5) = &mut findings.body
        {
            md5.update(bytes);
        }
        *length += bytes.len();
        let ended = bytes.ends_with(b"\n");
        if *length > MAX_LINE + 2 {
            findings.event("mime_long_line");
        }
        if *length > MAX_ENCODED_LINE + 2 && entity.is_encoded() {
            findings.event("mime_long_enc_line");
        }
        if ended {
            *length = 0;
        }
        let Some(begun) = line else {
            entity.push(bytes, options, findings);
            if ended {
                *line = Some(Vec::new());
            }
            return;
        };
        begun.extend_from_slice(bytes);
        let dashes = begun.len().min(2);
        let possible = !self.boundaries.is_empty()
            && begun[..dashes] == b"--"[..dashes]
            && begun.len() <= MAX_BOUNDARY_LINE;
        if possible && !ended {
            return;
        }
        let whole = std::mem::take(begun);
        if !ended {
            *line = None;
        }
        if !(possible && self.boundary(&whole, options, findings))
            && let Place::Body { entity, .. } = &mut self.place
        {
            entity.push(&whole, options, findings);
        }
    }

    /// Whether a line separates parts; then the part before it has ended.
    fn boundary(&mut self, line: &[u8], options: &SmtpOptions, findings: &mut Findings) -> bool {
        let Some(text) = line.trim_ascii_end().strip_prefix(b"--") else {
            return false;
        };
        let found = |it: &Boundary| -> Option<bool> {
            match text.strip_prefix(&it.text[..])? {
                b"" => Some(true),
                b"--" => Some(false),
                _ => None,
            }
        };
        let mut open = self.boundaries.iter().enumerate().rev();
        let Some((level, another)) = open.find_map(|(level, it)| Some((level, found(it)?))) else {
            return false;
        };
        if let Place::Body { entity, .. } = &mut self.place {
            entity.finish(true, options, findings);
        }
        self.part = Header::default();
        self.boundaries.truncate(level + usize::from(another));
        self.place = match another {
            true => Place::Header(Line::default()),
            false => Place::Body {
                entity: Box::new(Entity::nothing()),
                line: Some(Vec::new()),
                length: 0,
            },
        };
        true
    }

    fn finish(&mut self, whole: bool, options: &SmtpOptions, findings: &mut Findings) {
        if let Place::Header(unfinished) = &mut self.place {
            if let Some(line) = unfinished.take() {
                self.header_line(&line, options, findings);
            }
            if matches!(self.place, Place::Header(_)) {
                self.header_ends(options, findings);
            }
        }
        if let Place::Body { line, .. } = &mut self.place {
            let left = line.take().unwrap_or_default();
            if !left.is_empty()
                && !self.boundary(&left, options, findings)
                && let Place::Body { entity, .. } = &mut self.place
            {
                entity.push(&left, options, findings);
            }
        }
        if let Place::Body { entity, .. } = &mut self.place {
            entity.finish(whole, options, findings);
        }
    }

    /// Bytes are missing: of what is read now the rest is not known.
    fn gap(&mut self, findings: &mut Findings) {
        match &mut self.place {
            Place::Header(line) => *line = Line::after_gap(),
            Place::Body {
                entity,
                line,
                length,
            } => {
                entity.gap(findings);
                *line = None;
                *length = 0;
            }
        }
    }
}
