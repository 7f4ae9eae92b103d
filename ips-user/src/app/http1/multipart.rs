//! Bodies of several parts (RFC 7578, RFC 2046 section 5.1): those of them that are files.

use super::exchange::{Body, Limits, file_name};
use super::htp::Piece;
use crate::app::file::File;
use crate::bounded::held;

/// Most bytes of a part's headers; what has more has no name.
const MAX_HEADERS: usize = 8 << 10;
/// Most bytes behind a boundary in its line.
const MAX_PADDING: usize = 256;
/// RFC 2046 allows 70.
const MAX_BOUNDARY: usize = 200;
/// Most files of a body that are told apart; those behind them are in the body alone.
const MAX_FILES: usize = 128;

/// Where in the body it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In front of a boundary, or in a part that is no file.
    Skips,
    /// Behind a boundary, in its line.
    Boundary,
    Headers,
    /// In the part that is the last file.
    File,
    /// Behind the last boundary.
    End,
}

/// A part that is a file.
#[derive(Debug)]
pub(super) struct Upload {
    name: Vec<u8>,
    pub(super) body: Body,
    /// Its boundary was seen.
    whole: bool,
}

impl Upload {
    /// As rules see it; `over` if nothing more comes.
    pub(super) fn file(&self, over: bool) -> File {
        File {
            name: self.name.clone(),
            ended: self.whole || over,
            whole: self.whole && !self.body.gaps,
            ..self.body.file()
        }
    }

    pub(super) fn name(&self) -> &[u8] {
        &self.name
    }

    pub(super) fn is_whole(&self) -> bool {
        self.whole
    }
}

/// A body as it comes.
#[derive(Debug)]
pub(super) struct Multipart {
    /// What stands between parts.
    boundary: Vec<u8>,
    state: State,
    /// What cannot be told yet.
    pending: Vec<u8>,
    pub(super) uploads: Vec<Upload>,
}

impl Multipart {
    /// `None` if this type of content (RFC 9110, section 8.3) has no parts.
    pub(super) fn of(content_type: &[u8]) -> Option<Self> {
        let mut parameters = content_type.split(|byte| *byte == b';');
        let kind = parameters.next()?.trim_ascii();
        if !kind.to_ascii_lowercase().starts_with(b"multipart/") {
            return None;
        }
        let named = parameters.map(<[u8]>::trim_ascii).find_map(|it| {
            let at = it.iter().position(|byte| *byte == b'=')?;
            let is_it = it[..at].trim_ascii().eq_ignore_ascii_case(b"boundary");
            is_it.then(|| it[at + 1..].trim_ascii())
        })?;
        let inner = named
            .strip_prefix(b"\"")
            .map(|it| it.strip_suffix(b"\"").unwrap_or(it));
        let boundary = inner.unwrap_or(named);
        (!boundary.is_empty() && boundary.len() <= MAX_BOUNDARY).then(|| Self {
            boundary: [b"\r\n--", boundary].concat(),
            state: State::Skips,
            // The first boundary may stand at the very beginning.
            pending: b"\r\n".to_vec(),
            uploads: Vec::new(),
        })
    }

    /// Bytes that it takes besides its place.
    pub(super) fn taken(&self) -> usize {
        let uploads = self.uploads.iter();
        let uploads = uploads.map(|it| held(&it.name) + it.body.taken(None));
        held(&self.boundary) + held(&self.pending) + held(&self.uploads) + uploads.sum::<usize>()
    }

    /// Takes what comes next; whether that is news to rules.
    pub(super) fn push(&mut self, piece: Piece<'_>, limits: &Limits) -> bool {
        let mut news = false;
        let bytes = match piece {
            Piece::Bytes(bytes) => bytes,
            Piece::Gap(len) => return self.gap(len, limits),
        };
        let mut waiting = std::mem::take(&mut self.pending);
        waiting.extend_from_slice(bytes);
        let mut rest = &waiting[..];
        while let Some(taken) = self.step(rest, limits, &mut news) {
            rest = &rest[taken..];
        }
        self.pending = rest.to_vec();
        news
    }

    /// So many bytes are missing: what they were a file had, as far as anybody knows, and headers
    /// that are not whole name none.
    fn gap(&mut self, len: u64, limits: &Limits) -> bool {
        let pending = std::mem::take(&mut self.pending);
        match (self.state, self.uploads.last_mut()) {
            (State::File, Some(upload)) => {
                let Limits { request, kept, .. } = *limits;
                let news = upload.body.push(Piece::Bytes(&pending), request, kept);
                upload.body.push(Piece::Gap(len), request, kept) || news
            }
            (State::End, _) => false,
            _ => {
                self.state = State::Skips;
                false
            }
        }
    }

    /// How many bytes are done with; `None` if more have to come. `news` if rules are told
    /// something by them.
    fn step(&mut self, bytes: &[u8], limits: &Limits, news: &mut bool) -> Option<usize> {
        if bytes.is_empty() {
            return None;
        }
        match self.state {
            State::Skips | State::File => {
                let found = memchr::memmem::find(bytes, &self.boundary);
                // The end may be the beginning of a boundary.
                let sure = bytes.len().saturating_sub(self.boundary.len() - 1);
                let content = found.unwrap_or(sure);
                if self.state == State::File
                    && let Some(upload) = self.uploads.last_mut()
                {
                    let content = Piece::Bytes(&bytes[..content]);
                    *news |= upload.body.push(content, limits.request, limits.kept);
                    *news |= found.is_some();
                    upload.whole |= found.is_some();
                }
                match found {
                    Some(at) => {
                        self.state = State::Boundary;
                        Some(at + self.boundary.len())
                    }
                    None => (content > 0).then_some(content),
                }
            }
            State::Boundary => {
                if bytes.starts_with(b"--") {
                    self.state = State::End;
                    return Some(2);
                }
                match bytes.iter().position(|byte| *byte == b'\n') {
                    Some(at) => {
                        self.state = State::Headers;
                        Some(at + 1)
                    }
                    None if bytes.len() > MAX_PADDING => {
                        self.state = State::Skips;
                        Some(0)
                    }
                    None => None,
                }
            }
            State::Headers => {
                let Some(end) = end_of_headers(bytes) else {
                    if bytes.len() <= MAX_HEADERS {
                        return None;
                    }
                    self.state = State::Skips;
                    return Some(0);
                };
                let name = name(&bytes[..end]).filter(|it| !it.is_empty());
                self.state = match name {
                    Some(name) if self.uploads.len() < MAX_FILES => {
                        self.uploads.push(Upload {
                            name: name.to_vec(),
                            body: Body::new(limits),
                            whole: false,
                        });
                        *news = true;
                        State::File
                    }
                    _ => State::Skips,
                };
                Some(end)
            }
            State::End => Some(bytes.len()),
        }
    }
}

/// Where a part's content begins.
fn end_of_headers(bytes: &[u8]) -> Option<usize> {
    if bytes.starts_with(b"\r\n") {
        return Some(2);
    }
    memchr::memmem::find(bytes, b"\r\n\r\n").map(|at| at + 4)
}

/// The name that a part's headers have for it.
fn name(headers: &[u8]) -> Option<&[u8]> {
    const KEY: &[u8] = b"content-disposition:";
    headers.split(|byte| *byte == b'\n').find_map(|line| {
        let key = line.get(..KEY.len())?;
        let is_it = key.eq_ignore_ascii_case(KEY);
        is_it.then(|| file_name(&line[KEY.len()..])).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::AppOptions;

    const BODY: &[u8] = b"--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nvalue\r\n\
        --b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"one.txt\"\r\n\
        Content-Type: text/plain\r\n\r\nfirst\r\n--not\r\n\r\n--b\r\n\
        Content-disposition: form-data; filename=\"two.txt\"\r\n\r\n\r\n--b--\r\nend";

    fn limits() -> Limits {
        let options = AppOptions::default();
        Limits::of(&options)
    }

    #[test]
    fn files_are_found_however_the_body_is_cut() {
        for size in 1..=BODY.len() {
            let mut multipart = Multipart::of(b"multipart/form-data; boundary=\"b\"").unwrap();
            for chunk in BODY.chunks(size) {
                multipart.push(Piece::Bytes(chunk), &limits());
            }
            let files: Vec<_> = multipart.uploads.iter().map(|it| it.file(true)).collect();
            let shown: Vec<_> = files
                .iter()
                .map(|it| (&it.name[..], it.size, it.whole))
                .collect();
            assert_eq!(
                shown,
                [(&b"one.txt"[..], 14, true), (b"two.txt", 0, true)],
                "{size}"
            );
        }
    }

    #[test]
    fn what_is_missing_is_a_gap_of_its_file_and_hides_none_that_follows() {
        let at = |text: &[u8]| memchr::memmem::find(BODY, text).unwrap();
        let shown = |from: usize, len: usize| {
            let mut multipart = Multipart::of(b"multipart/form-data; boundary=b").unwrap();
            multipart.push(Piece::Bytes(&BODY[..from]), &limits());
            multipart.push(Piece::Gap(len as u64), &limits());
            multipart.push(Piece::Bytes(&BODY[from + len..]), &limits());
            assert!(multipart.taken() > 0);
            let files: Vec<_> = multipart.uploads.iter().map(|it| it.file(true)).collect();
            let shown = files.iter();
            let shown = shown.map(|it| (it.name.clone(), it.size, it.gaps, it.whole));
            shown.collect::<Vec<_>>()
        };
        let second = (b"two.txt".to_vec(), 0, false, true);
        let first = (b"one.txt".to_vec(), 14, true, false);
        assert_eq!(shown(at(b"first") + 2, 3), [first, second.clone()]);
        // Of headers that are not whole nobody knows what they name.
        assert_eq!(shown(at(b"one.txt"), 3), [second]);
    }

    #[test]
    fn what_parts_take_is_told() {
        let mut multipart = Multipart::of(b"multipart/form-data; boundary=b").unwrap();
        multipart.push(Piece::Bytes(&BODY[..BODY.len() - 5]), &limits());
        let before = multipart.taken();
        let mut multipart = Multipart::of(b"multipart/form-data; boundary=b").unwrap();
        let at = memchr::memmem::find(BODY, b"first").unwrap();
        for piece in [&BODY[..at], &[b'x'; 20_000], &BODY[at..BODY.len() - 5]] {
            multipart.push(Piece::Bytes(piece), &limits());
        }
        assert!(multipart.taken() >= before + 20_000);
    }

    #[test]
    fn what_is_cut_off_is_not_whole() {
        let mut multipart = Multipart::of(b"Multipart/Mixed;boundary=b").unwrap();
        multipart.push(Piece::Bytes(&BODY[..BODY.len() - 80]), &limits());
        assert!(!multipart.uploads.last().unwrap().is_whole());
        assert!(Multipart::of(b"text/plain; boundary=b").is_none());
        assert!(Multipart::of(b"multipart/form-data").is_none());
    }
}
