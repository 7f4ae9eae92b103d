//! A rule file as bytes, split into the logical lines that hold one rule each.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::libc::O_NONBLOCK;

use super::diagnostic::{Diagnostic, Severity};

/// A part of a file: byte offsets, end exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    /// First byte.
    pub(super) start: usize,
    /// After the last byte.
    pub(super) end: usize,
}

/// A file with rules. Its bytes need not be UTF-8.
#[derive(Clone, Debug)]
pub struct RuleSource {
    name: PathBuf,
    bytes: Vec<u8>,
    line_starts: Vec<usize>,
}

/// What is in a regular file: of anything else the end may never come.
pub(super) fn read_regular(path: &Path) -> io::Result<Vec<u8>> {
    // Otherwise opening a pipe would wait for a writer.
    let mut open = OpenOptions::new();
    let mut file = open.read(true).custom_flags(O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// One rule's text, continuation lines joined.
#[derive(Clone, Debug)]
pub(super) struct LogicalLine {
    pub(super) text: Vec<u8>,
    /// Offset in `text` → offset in the file, at each place where they diverge.
    pieces: Vec<(usize, usize)>,
}

impl LogicalLine {
    /// Where a part of the text stands in the file.
    pub(super) fn file_span(&self, span: Span) -> Span {
        let start = self.file_offset(span.start);
        let end = match span.end.checked_sub(1) {
            Some(last) if span.end > span.start => self.file_offset(last) + 1,
            _ => start,
        };
        Span { start, end }
    }

    fn file_offset(&self, offset: usize) -> usize {
        let piece = self.pieces.partition_point(|&(text, _)| text <= offset);
        match piece.checked_sub(1).and_then(|at| self.pieces.get(at)) {
            Some(&(text, file)) => file + (offset - text),
            None => offset,
        }
    }
}

impl RuleSource {
    /// A source with this name (shown in diagnostics) and content.
    ///
    /// A byte order mark, which some editors put first, is not part of the content.
    pub fn new(name: impl Into<PathBuf>, mut bytes: Vec<u8>) -> Self {
        if bytes.starts_with(b"\xef\xbb\xbf") {
            bytes.drain(..3);
        }
        let line_starts = std::iter::once(0)
            .chain(
                bytes
                    .iter()
                    .enumerate()
                    .filter(|&(_, &byte)| byte == b'\n')
                    .map(|(at, _)| at + 1),
            )
            .collect();
        Self {
            name: name.into(),
            bytes,
            line_starts,
        }
    }

    /// Its name.
    pub fn name(&self) -> &Path {
        &self.name
    }

    /// Line of a byte offset, from 1.
    pub fn line_of(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|&start| start <= offset)
    }

    /// A finding at a place in this file.
    pub(super) fn diagnostic(
        &self,
        severity: Severity,
        span: Span,
        message: String,
        help: Option<String>,
    ) -> Diagnostic {
        let line = self.line_of(span.start);
        let start = self.line_starts[line - 1];
        let bytes = self.physical_line(line - 1);
        let end = start + bytes.len();
        let characters = |from: usize, to: usize| {
            let to = to.clamp(from, self.bytes.len());
            String::from_utf8_lossy(&self.bytes[from..to])
                .chars()
                .count()
        };
        Diagnostic {
            severity,
            file: self.name.clone(),
            line,
            column: characters(start, span.start) + 1,
            length: characters(span.start, span.end.min(end).max(span.start)).max(1),
            message,
            help,
            source_line: String::from_utf8_lossy(bytes).into_owned(),
        }
    }

    /// The bytes of a line without its end.
    fn physical_line(&self, index: usize) -> &[u8] {
        let start = self.line_starts[index];
        let end = self
            .line_starts
            .get(index + 1)
            .map_or(self.bytes.len(), |next| next - 1);
        let line = &self.bytes[start..end];
        line.strip_suffix(b"\r").unwrap_or(line)
    }

    /// The logical lines that are neither blank nor comments.
    ///
    /// A backslash at the end of a line joins it with the next, except in a comment.
    pub(super) fn logical_lines(&self) -> Vec<LogicalLine> {
        let mut lines = Vec::new();
        let mut open: Option<LogicalLine> = None;
        for index in 0..self.line_starts.len() {
            let bytes = self.physical_line(index);
            let skip = match open {
                None => bytes
                    .iter()
                    .take_while(|byte| byte.is_ascii_whitespace())
                    .count(),
                Some(_) => 0,
            };
            let trimmed = &bytes[skip..];
            if open.is_none() && (trimmed.is_empty() || trimmed.starts_with(b"#")) {
                continue;
            }
            let mut line = open.take().unwrap_or(LogicalLine {
                text: Vec::new(),
                pieces: Vec::new(),
            });
            line.pieces
                .push((line.text.len(), self.line_starts[index] + skip));
            let without_end = trimmed.trim_ascii_end();
            match without_end.strip_suffix(b"\\") {
                Some(continued) => {
                    line.text.extend_from_slice(continued);
                    open = Some(line);
                }
                None => {
                    line.text.extend_from_slice(without_end);
                    lines.push(line);
                }
            }
        }
        lines.extend(open);
        lines.retain(|line| !line.text.trim_ascii().is_empty());
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: &[&str]) {
        let source = RuleSource::new("t.rules", text.as_bytes().to_vec());
        let lines: Vec<String> = source
            .logical_lines()
            .iter()
            .map(|line| String::from_utf8_lossy(&line.text).into_owned())
            .collect();
        assert_eq!(lines, expect, "{text:?}");
    }

    #[test]
    fn lines_are_joined_and_comments_skipped() {
        check("", &[]);
        check("a\nb", &["a", "b"]);
        check("# x\n\n  # y\na\r\n\r\nb\r\n", &["a", "b"]);
        check("a \\\n  b\nc", &["a   b", "c"]);
        check("a \\\r\nb \\  \nc", &["a b c"]);
        check("# x \\\nb", &["b"]);
        check("a\\", &["a"]);
        check("\\\n\\\n", &[]);
        check("\u{feff}a\nb", &["a", "b"]);
    }

    #[test]
    fn places_are_those_of_the_file() {
        let source = RuleSource::new("t.rules", "# c\nab \\\n  cd\n".as_bytes().to_vec());
        let line = &source.logical_lines()[0];
        assert_eq!(line.text, b"ab   cd");
        let span = line.file_span(Span { start: 5, end: 7 });
        let found = source.diagnostic(Severity::Error, span, String::new(), None);
        assert_eq!((found.line, found.column, found.length), (3, 3, 2));
        assert_eq!(found.source_line, "  cd");
    }

    #[test]
    fn columns_count_characters_also_in_broken_text() {
        let source = RuleSource::new("t.rules", b"\xc3\xa4\xff x".to_vec());
        let span = Span { start: 4, end: 5 };
        let found = source.diagnostic(Severity::Error, span, String::new(), None);
        assert_eq!((found.line, found.column), (1, 4));
    }
}
