//! A request with its response, as rules and records see it.

use serde_json::Value;
use suricata_htp::transaction::{HtpRequestProgress, HtpResponseProgress};

use super::htp::{Of, Piece, View};
use super::multipart::Multipart;
use super::record;
use crate::app::content::{Content, Part};
use crate::app::file::{File, Hashing, WantedHashes};
use crate::app::options::AppOptions;
use crate::app::protocol::AppProtocol;
use crate::bounded::{heap, held};
use crate::flow::PacketDirection;
use crate::rules::ast::AppBuffer;

/// How far a message has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Progress {
    #[default]
    Nothing,
    /// Its first line is known.
    Line,
    /// So are its headers.
    Headers,
    Complete,
}

/// Bytes that decompressing takes besides the window.
const DECOMPRESSOR: usize = 48 << 10;
/// The longest window of those that are undone (RFC 7932, section 9.1).
const WINDOW: u64 = 1 << 24;

/// Part of a body.
#[derive(Debug, Default)]
pub(super) struct Body {
    data: Vec<u8>,
    /// Bytes that have come, kept or not.
    pub(super) total: u64,
    revision: u32,
    /// Something has come of it.
    begun: bool,
    /// Something in between has not.
    pub(super) gaps: bool,
    /// Nothing more comes.
    ended: bool,
    hashing: Hashing,
}

impl Body {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            hashing: Hashing::new(limits.hashes),
            ..Self::default()
        }
    }

    /// Adds what has come: `limit` bytes of all are shown, `kept` are kept to be stored. Whether
    /// that is news to rules.
    pub(super) fn push(&mut self, piece: Piece<'_>, limit: usize, kept: usize) -> bool {
        let first = !std::mem::replace(&mut self.begun, true);
        let bytes = match piece {
            Piece::Bytes(bytes) => bytes,
            Piece::Gap(len) => {
                self.total += len;
                self.gaps = true;
                return first;
            }
        };
        self.total += bytes.len() as u64;
        // Of what has gaps there is no hash.
        if !self.gaps {
            self.hashing.update(bytes);
        }
        let news = self.data.len() < limit && !bytes.is_empty();
        let room = limit.max(kept).saturating_sub(self.data.len());
        self.data.extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.revision += u32::from(news);
        first || news
    }

    /// The file that it is, but for its name and whether there is more of it.
    pub(super) fn file(&self) -> File {
        File {
            name: Vec::new(),
            size: self.total,
            ended: false,
            whole: false,
            gaps: self.gaps,
            hashing: self.hashing.clone(),
        }
    }

    /// Bytes that it takes, with those of what decompresses it.
    pub(super) fn taken(&self, encoding: Option<&[u8]>) -> usize {
        let window = match encoding {
            // Of what is shorter than the window no more is kept than has come.
            Some(_) if !self.ended => DECOMPRESSOR + self.total.min(WINDOW) as usize,
            _ => 0,
        };
        held(&self.data) + window
    }

    /// As much of it as is kept.
    pub(super) fn content(&self) -> &[u8] {
        &self.data
    }

    /// As it is shown: from `least` bytes on, or when it is complete.
    pub(super) fn part(&self, complete: bool, least: usize, limit: usize) -> Part<'_> {
        let complete = complete || self.data.len() >= limit;
        if !self.begun {
            return if complete {
                Part::Absent
            } else {
                Part::Pending
            };
        }
        if !complete && self.data.len() < least {
            return Part::Pending;
        }
        Part::Bytes {
            data: &self.data[..self.data.len().min(limit)],
            complete,
            // That it is complete is news as well.
            revision: self.revision << 1 | u32::from(complete),
        }
    }
}

/// One message.
#[derive(Debug, Default)]
pub(super) struct Message {
    pub(super) progress: Progress,
    pub(super) line: Option<Vec<u8>>,
    pub(super) protocol: Option<Vec<u8>>,
    pub(super) headers: Vec<(Vec<u8>, Vec<u8>)>,
    /// As they came.
    raw: Vec<u8>,
    /// `Name: value`, a line each, as rules see them; without cookies.
    normal: Vec<u8>,
    /// Their names, between empty lines.
    names: Vec<u8>,
    /// The first line and the headers.
    start: Vec<u8>,
    /// `Name: value` of each.
    lines: Vec<Vec<u8>>,
    pub(super) body: Body,
    /// The parser has seen its end.
    whole: bool,
    /// Headers have come behind the body.
    trailers: bool,
    /// Another number when headers have come.
    revision: u32,
    /// Bytes of the lists of headers.
    fixed: usize,
}

impl Message {
    /// A header's value; several of one name have become one.
    pub(super) fn header(&self, name: &str) -> Option<&[u8]> {
        let mut headers = self.headers.iter();
        headers
            .find(|(other, _)| other.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| &value[..])
    }

    /// Bytes that it takes besides its place, with those that the library has of it.
    fn taken(&self) -> usize {
        let texts = [&self.raw, &self.normal, &self.names, &self.start];
        let own = texts.map(held).iter().sum::<usize>() + self.fixed;
        own + self.raw.len() + self.body.taken(self.header("content-encoding"))
    }

    /// Bytes of the lists of headers.
    fn lists(&self) -> usize {
        let pairs = self
            .headers
            .iter()
            .map(|(name, value)| held(name) + held(value));
        held(&self.headers)
            + pairs.sum::<usize>()
            + held(&self.lines)
            + self.lines.iter().map(held).sum::<usize>()
    }

    /// Whether headers have come behind its body that are not taken over; it is asked once.
    fn has_trailers(&mut self) -> bool {
        !self.is_known(Progress::Complete) && std::mem::take(&mut self.trailers)
    }

    fn is_known(&self, progress: Progress) -> bool {
        self.progress >= progress
    }

    /// Bytes that are there as soon as the message is so far.
    fn at<'a>(
        &'a self,
        progress: Progress,
        bytes: impl FnOnce(&'a Self) -> Option<&'a [u8]>,
    ) -> Part<'a> {
        match self.is_known(progress) {
            false => Part::Pending,
            true => bytes(self).map_or(Part::Absent, |data| Part::Bytes {
                data,
                complete: true,
                revision: self.revision,
            }),
        }
    }

    fn of_header(&self, name: &str) -> Part<'_> {
        self.at(Progress::Headers, |it| it.header(name))
    }

    fn take_headers<'h>(
        &mut self,
        headers: impl Iterator<Item = (&'h [u8], &'h [u8])>,
        cookie: &str,
    ) {
        self.revision += 1;
        // Those behind the body are added to the others.
        self.headers.clear();
        self.lines.clear();
        self.normal.clear();
        self.names.clear();
        self.start.clear();
        self.start
            .extend_from_slice(self.line.as_deref().unwrap_or_default());
        self.start.extend_from_slice(b"\r\n");
        self.names.extend_from_slice(b"\r\n");
        for (name, value) in headers {
            self.headers.push((name.to_vec(), value.to_vec()));
            let line = [name, b": ", value].concat();
            self.names.extend_from_slice(name);
            self.names.extend_from_slice(b"\r\n");
            self.start.extend_from_slice(&line);
            self.start.extend_from_slice(b"\r\n");
            if !name.eq_ignore_ascii_case(cookie.as_bytes()) {
                self.normal.extend_from_slice(&line);
                self.normal.extend_from_slice(b"\r\n");
            }
            self.lines.push(line);
        }
        self.names.extend_from_slice(b"\r\n");
        self.start.extend_from_slice(b"\r\n");
        self.fixed = self.lists();
    }
}

/// A request with its response.
#[derive(Debug, Default)]
pub struct Exchange {
    pub(super) request: Message,
    pub(super) response: Message,
    pub(super) method: Option<Vec<u8>>,
    pub(super) uri_raw: Option<Vec<u8>>,
    uri: Option<Vec<u8>>,
    pub(super) host: Option<Vec<u8>>,
    host_normal: Option<Vec<u8>>,
    pub(super) status: Option<Vec<u8>>,
    status_message: Option<Vec<u8>>,
    /// Bytes of the response's body as they came.
    pub(super) response_len: u64,
    /// Of the request's body, as soon as something of it has come.
    parts: Option<Multipart>,
    limits: Limits,
}

/// How much of bodies is kept, and how much there must be to be shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) request: usize,
    pub(super) response: usize,
    pub(super) least_request: usize,
    pub(super) least_response: usize,
    /// Bytes that are kept of files that may have to be stored.
    pub(super) kept: usize,
    hashes: WantedHashes,
}

impl Limits {
    pub(super) fn of(options: &AppOptions) -> Self {
        let http = &options.http;
        Self {
            request: http.request_limit,
            response: http.response_limit,
            least_request: http.least_request,
            least_response: http.least_response,
            kept: options.stored_bytes(),
            hashes: options.hashes,
        }
    }
}

impl Exchange {
    /// Whether the request's first line says which host is meant (RFC 9112, section 3.2).
    fn names_host(&self) -> bool {
        let uri = self.uri_raw.as_deref().unwrap_or_default();
        let scheme = uri
            .iter()
            .take_while(|it| it.is_ascii_alphanumeric())
            .count();
        let authority = self.method.as_deref() == Some(b"CONNECT");
        authority || scheme > 0 && uri[scheme..].starts_with(b"://")
    }

    pub(super) fn new(limits: Limits) -> Self {
        let message = || Message {
            body: Body::new(&limits),
            ..Message::default()
        };
        Self {
            request: message(),
            response: message(),
            limits,
            ..Self::default()
        }
    }

    pub(super) fn message(&self, direction: PacketDirection) -> &Message {
        match direction {
            PacketDirection::ToServer => &self.request,
            PacketDirection::ToClient => &self.response,
        }
    }

    /// Adds what has come of what the parser shows; whether that is news to rules.
    pub(super) fn add(&mut self, of: Of, piece: Piece<'_>, view: View<'_>) -> bool {
        let raw = |message: &mut Message| {
            if let Piece::Bytes(bytes) = piece {
                message.raw.extend_from_slice(bytes);
            }
            // Before, nobody is shown them.
            message.trailers |= message.is_known(Progress::Headers);
            false
        };
        match of {
            Of::RequestHeaders => raw(&mut self.request),
            Of::ResponseHeaders => raw(&mut self.response),
            Of::RequestBody => {
                if !self.request.body.begun {
                    self.parts = view
                        .header(of.direction(), b"content-type")
                        .and_then(Multipart::of);
                }
                let Limits { request, kept, .. } = self.limits;
                let (told, kept) = match &mut self.parts {
                    // What is stored is kept there.
                    Some(parts) => (parts.push(piece, &self.limits), 0),
                    None => (false, kept),
                };
                self.request.body.push(piece, request, kept) || told
            }
            Of::ResponseBody => {
                let Limits { response, kept, .. } = self.limits;
                self.response.body.push(piece, response, kept)
            }
        }
    }

    /// Takes over what the parser knows by now. How far the directions are that have come further.
    pub(super) fn update(&mut self, view: View<'_>) -> [Option<Progress>; 2] {
        let before = [self.request.progress, self.response.progress];
        let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
        let request = match view.request_progress() {
            HtpRequestProgress::NOT_STARTED | HtpRequestProgress::LINE => Progress::Nothing,
            HtpRequestProgress::HEADERS => Progress::Line,
            HtpRequestProgress::BODY | HtpRequestProgress::TRAILER => Progress::Headers,
            HtpRequestProgress::COMPLETE | HtpRequestProgress::ERROR | HtpRequestProgress::GAP => {
                Progress::Complete
            }
        };
        if !self.request.is_known(Progress::Line) && request >= Progress::Line {
            self.request.line = owned(view.request_line());
            self.request.protocol = owned(view.request_protocol());
            self.method = owned(view.method());
            self.uri_raw = owned(view.uri());
            self.uri = owned(view.normalized_uri());
        }
        let trailers = request == Progress::Complete && self.request.has_trailers();
        if !self.request.is_known(Progress::Headers) && request >= Progress::Headers || trailers {
            let headers = view.headers(PacketDirection::ToServer);
            self.request.take_headers(headers, "cookie");
            self.host = owned(view.host()).or_else(|| owned(self.request.header("host")));
            self.host_normal = owned(view.host()).map(|host| host.to_ascii_lowercase());
        }
        self.request.progress = request.max(self.request.progress);
        self.request.whole |= view.request_progress() == HtpRequestProgress::COMPLETE;
        let response = match view.response_progress() {
            HtpResponseProgress::NOT_STARTED | HtpResponseProgress::LINE => Progress::Nothing,
            HtpResponseProgress::HEADERS => Progress::Line,
            HtpResponseProgress::BODY | HtpResponseProgress::TRAILER => Progress::Headers,
            HtpResponseProgress::COMPLETE
            | HtpResponseProgress::ERROR
            | HtpResponseProgress::GAP => Progress::Complete,
        };
        if !self.response.is_known(Progress::Line) && response >= Progress::Line {
            self.response.line = owned(view.response_line());
            self.response.protocol = owned(view.response_protocol());
            self.status = owned(view.status());
            self.status_message = owned(view.status_message());
        }
        let trailers = response == Progress::Complete && self.response.has_trailers();
        if !self.response.is_known(Progress::Headers) && response >= Progress::Headers || trailers {
            let headers = view.headers(PacketDirection::ToClient);
            self.response.take_headers(headers, "set-cookie");
        }
        self.response_len = view.response_len();
        self.response.progress = response.max(self.response.progress);
        self.response.whole |= view.response_progress() == HtpResponseProgress::COMPLETE;
        self.request.body.ended = self.request.progress == Progress::Complete;
        self.response.body.ended = self.response.progress == Progress::Complete;
        let further = |before: Progress, now: Progress| (before != now).then_some(now);
        [
            further(before[0], self.request.progress),
            further(before[1], self.response.progress),
        ]
    }

    /// What a body that is a file is called.
    fn body_name(&self, direction: PacketDirection) -> &[u8] {
        let named = self.message(direction).header("content-disposition");
        named.and_then(file_name).unwrap_or_else(|| {
            let uri = self.uri.as_deref().unwrap_or_default();
            let end = uri.iter().position(|byte| *byte == b'?');
            &uri[..end.unwrap_or(uri.len())]
        })
    }

    /// A buffer of the file with this number.
    fn of_file(&self, direction: PacketDirection, which: AppBuffer, number: usize) -> Part<'_> {
        let message = self.message(direction);
        let over = message.is_known(Progress::Complete);
        let Limits {
            request,
            response,
            least_request,
            least_response,
            ..
        } = self.limits;
        let (least, limit) = match direction {
            PacketDirection::ToServer => (least_request, request),
            PacketDirection::ToClient => (least_response, response),
        };
        let further = if over { Part::Absent } else { Part::Pending };
        let parts = self.parts.as_ref();
        if let Some(parts) = parts.filter(|_| direction == PacketDirection::ToServer) {
            return match parts.uploads.get(number) {
                None => further,
                Some(upload) if which == AppBuffer::FileName => Part::whole(upload.name()),
                Some(upload) => upload.body.part(over || upload.is_whole(), least, limit),
            };
        }
        match which {
            _ if number > 0 => Part::Absent,
            AppBuffer::FileData => message.body.part(over, least, limit),
            _ if message.body.total == 0 => further,
            _ => Part::whole(self.body_name(direction)),
        }
    }
}

/// The parameter `filename` of a header (RFC 6266).
pub(super) fn file_name(value: &[u8]) -> Option<&[u8]> {
    const KEY: &[u8] = b"filename=";
    let mut parameters = value.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    let named = parameters.find(|it| {
        let key = it.get(..KEY.len());
        key.is_some_and(|key| key.eq_ignore_ascii_case(KEY))
    })?;
    let name = named[KEY.len()..].trim_ascii();
    let inner = name
        .strip_prefix(b"\"")
        .map(|it| it.strip_suffix(b"\"").unwrap_or(it));
    some(inner.unwrap_or(name))
}

fn some(bytes: &[u8]) -> Option<&[u8]> {
    (!bytes.is_empty()).then_some(bytes)
}

impl Content for Exchange {
    fn protocol(&self) -> AppProtocol {
        AppProtocol::Http1
    }

    fn taken(&self) -> usize {
        let texts = [
            &self.method,
            &self.uri_raw,
            &self.uri,
            &self.host,
            &self.host_normal,
            &self.status,
            &self.status_message,
            &self.request.line,
            &self.response.line,
        ];
        let texts = texts.into_iter().flatten().map(held);
        heap(size_of::<Self>())
            + texts.sum::<usize>()
            + self.request.taken()
            + self.response.taken()
            + self.parts.as_ref().map_or(0, Multipart::taken)
    }

    fn part(&self, direction: PacketDirection, which: AppBuffer, number: usize) -> Part<'_> {
        use AppBuffer as B;
        let to_server = direction == PacketDirection::ToServer;
        if which.to_server().is_some_and(|only| only != to_server) {
            return Part::Absent;
        }
        let message = self.message(direction);
        match which {
            B::FileData | B::FileName => return self.of_file(direction, which, number),
            B::HttpRequestHeader | B::HttpResponseHeader => {}
            _ if number > 0 => return Part::Absent,
            _ => {}
        }
        match which {
            B::HttpMethod => message.at(Progress::Line, |_| self.method.as_deref()),
            B::HttpUri => message.at(Progress::Line, |_| self.uri.as_deref()),
            B::HttpUriRaw => message.at(Progress::Line, |_| self.uri_raw.as_deref()),
            B::HttpRequestLine | B::HttpResponseLine => {
                message.at(Progress::Line, |it| it.line.as_deref())
            }
            B::HttpProtocol => message.at(Progress::Line, |it| it.protocol.as_deref()),
            B::HttpStatCode => message.at(Progress::Line, |_| self.status.as_deref()),
            B::HttpStatMsg => message.at(Progress::Line, |_| self.status_message.as_deref()),
            B::HttpHeader => message.at(Progress::Headers, |it| some(&it.normal)),
            B::HttpHeaderRaw => message.at(Progress::Headers, |it| some(&it.raw)),
            B::HttpHeaderNames => message.at(Progress::Headers, |it| {
                some(&it.names).filter(|_| !it.headers.is_empty())
            }),
            B::HttpStart => message.at(Progress::Headers, |it| some(&it.start)),
            B::HttpRequestHeader | B::HttpResponseHeader => message.at(Progress::Headers, |it| {
                it.lines.get(number).map(|it| &it[..])
            }),
            B::HttpCookie if to_server => message.of_header("cookie"),
            B::HttpCookie => message.of_header("set-cookie"),
            B::HttpUserAgent => message.of_header("user-agent"),
            B::HttpAccept => message.of_header("accept"),
            B::HttpAcceptEnc => message.of_header("accept-encoding"),
            B::HttpAcceptLang => message.of_header("accept-language"),
            B::HttpReferer => message.of_header("referer"),
            B::HttpConnection => message.of_header("connection"),
            B::HttpContentLen => message.of_header("content-length"),
            B::HttpContentType => message.of_header("content-type"),
            B::HttpLocation => message.of_header("location"),
            B::HttpServer => message.of_header("server"),
            B::HttpHost => message.at(Progress::Headers, |_| self.host_normal.as_deref()),
            B::HttpHostRaw => message.at(Progress::Headers, |request| match self.names_host() {
                true => self.host.as_deref(),
                false => request.header("host"),
            }),
            B::HttpRequestBody | B::HttpResponseBody => {
                let complete = message.is_known(Progress::Complete);
                let limits = self.limits;
                match to_server {
                    true => message
                        .body
                        .part(complete, limits.least_request, limits.request),
                    false => message
                        .body
                        .part(complete, limits.least_response, limits.response),
                }
            }
            _ => Part::Absent,
        }
    }

    fn finish(&mut self, direction: PacketDirection) {
        match direction {
            PacketDirection::ToServer => self.request.progress = Progress::Complete,
            PacketDirection::ToClient => self.response.progress = Progress::Complete,
        }
    }

    fn files(&self, direction: PacketDirection) -> Vec<File> {
        let message = self.message(direction);
        let body = &message.body;
        let over = message.is_known(Progress::Complete);
        if direction == PacketDirection::ToServer {
            if let Some(parts) = &self.parts {
                return parts.uploads.iter().map(|it| it.file(over)).collect();
            }
            if !matches!(self.method.as_deref(), Some(b"PUT" | b"POST")) {
                return Vec::new();
            }
        }
        if body.total == 0 {
            return Vec::new();
        }
        vec![File {
            name: self.body_name(direction).to_vec(),
            ended: over,
            whole: message.whole && !body.gaps,
            ..body.file()
        }]
    }

    fn fields(&self, _transaction: u64) -> Value {
        record::fields(self)
    }

    fn file_content(&self, direction: PacketDirection, number: usize) -> Option<&[u8]> {
        let uploads = match direction {
            PacketDirection::ToServer => self.parts.as_ref().map(|it| &it.uploads),
            PacketDirection::ToClient => None,
        };
        Some(match uploads {
            Some(uploads) => uploads.get(number).map_or(&[], |it| it.body.content()),
            None => self.message(direction).body.content(),
        })
    }

    fn request_header(&self, name: &str) -> Option<&[u8]> {
        self.request.header(name)
    }
}
