//! Files that are kept: each once, under the SHA-256 of its content, as `file-store` of Suricata has
//! them (`filestore/ab/abcdef…`).

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::fs::{self, File, FileTimes};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::Tally;

/// First byte of a message about a file; records begin with a brace.
pub(crate) const MARK: u8 = 0;
/// Most bytes of a file in one message.
pub(crate) const CHUNK: usize = 128 << 10;
/// Most files that are incomplete at a time.
const MAX_OPEN: usize = 64;

/// Mark, process, hash, length of the whole, offset.
const HEADER: usize = 1 + 4 + 32 + 8 + 8;
/// Length that says: this is the record about the file.
const RECORD: u64 = u64::MAX;

/// Which file a message is about, and where its bytes belong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Header {
    process: u32,
    hash: [u8; 32],
    total: u64,
    offset: u64,
}

impl Header {
    fn bytes(&self) -> [u8; HEADER] {
        let mut bytes = [MARK; HEADER];
        bytes[1..5].copy_from_slice(&self.process.to_le_bytes());
        bytes[5..37].copy_from_slice(&self.hash);
        bytes[37..45].copy_from_slice(&self.total.to_le_bytes());
        bytes[45..].copy_from_slice(&self.offset.to_le_bytes());
        bytes
    }

    fn read(message: &[u8]) -> Option<(Self, &[u8])> {
        let (bytes, content) = message.split_first_chunk::<HEADER>()?;
        let header = Self {
            process: u32::from_le_bytes(bytes[1..5].try_into().ok()?),
            hash: bytes[5..37].try_into().ok()?,
            total: u64::from_le_bytes(bytes[37..45].try_into().ok()?),
            offset: u64::from_le_bytes(bytes[45..].try_into().ok()?),
        };
        (bytes[0] == MARK).then_some((header, content))
    }
}

/// Puts a file into messages and hands them to `send`, which says whether it took one. Whether all
/// were taken.
pub(crate) fn messages(
    hash: &[u8; 32],
    content: &[u8],
    mut send: impl FnMut(&[u8]) -> bool,
) -> bool {
    let mut header = Header {
        process: std::process::id(),
        hash: *hash,
        total: content.len() as u64,
        offset: 0,
    };
    let mut message = Vec::with_capacity(HEADER + content.len().min(CHUNK));
    for chunk in content.chunks(CHUNK) {
        message.clear();
        message.extend_from_slice(&header.bytes());
        message.extend_from_slice(chunk);
        if !send(&message) {
            return false;
        }
        header.offset += chunk.len() as u64;
    }
    !content.is_empty()
}

/// The message with the record about a file.
pub(crate) fn record(hash: &[u8; 32], line: &[u8]) -> Vec<u8> {
    let header = Header {
        process: std::process::id(),
        hash: *hash,
        total: RECORD,
        offset: 0,
    };
    [&header.bytes(), line].concat()
}

/// One that comes.
#[derive(Debug)]
struct Open {
    header: Header,
    file: File,
    path: PathBuf,
}

/// Where files are kept.
#[derive(Debug)]
pub(super) struct Files {
    directory: PathBuf,
    open: VecDeque<Open>,
    /// Counts the records beside files.
    records: u64,
    pub(super) tally: Tally,
    told: bool,
}

impl Files {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self {
            directory,
            open: VecDeque::new(),
            records: 0,
            tally: Tally::default(),
            told: false,
        }
    }

    /// Takes a message. What cannot be written is lost and counted.
    pub(super) fn message(&mut self, message: &[u8], now: SystemTime) -> bool {
        let Some((header, content)) = Header::read(message) else {
            return false;
        };
        let taken = match header.total {
            RECORD => self.describe(&header.hash, content, now).map(|()| false),
            _ => self.chunk(header, content),
        };
        match taken {
            Ok(complete) => self.tally.written += u64::from(complete),
            Err(error) => {
                self.tally.lost += 1;
                if !std::mem::replace(&mut self.told, true) {
                    let place = self.directory.display();
                    log::error!("{place}: {error}; files are being lost");
                }
                return false;
            }
        }
        true
    }

    /// Whether it is the last one of its file.
    fn chunk(&mut self, header: Header, content: &[u8]) -> io::Result<bool> {
        let is_it =
            |open: &Open| (open.header.process, open.header.hash) == (header.process, header.hash);
        let mut open = match self.open.iter().position(is_it) {
            Some(at) if header.offset > 0 => self.open.remove(at),
            other => {
                if let Some(at) = other {
                    self.open.remove(at);
                }
                None
            }
        };
        if header.offset == 0 {
            open = Some(self.begin(header)?);
        }
        // What came before was lost.
        let Some(mut open) = open.filter(|open| open.header.offset == header.offset) else {
            return Err(io::Error::other("part of a file is missing"));
        };
        if let Err(error) = open.file.write_all(content) {
            fs::remove_file(open.path)?;
            return Err(error);
        }
        open.header.offset += content.len() as u64;
        if open.header.offset < open.header.total {
            if self.open.len() == MAX_OPEN
                && let Some(oldest) = self.open.pop_front()
            {
                self.tally.lost += 1;
                fs::remove_file(oldest.path)?;
            }
            self.open.push_back(open);
            return Ok(false);
        }
        self.finish(open)?;
        Ok(true)
    }

    fn begin(&self, header: Header) -> io::Result<Open> {
        let directory = self.directory.join("tmp");
        fs::create_dir_all(&directory)?;
        let path = directory.join(format!("{}.{}", header.process, digits(&header.hash)));
        Ok(Open {
            file: File::create(&path)?,
            header: Header {
                offset: 0,
                ..header
            },
            path,
        })
    }

    fn finish(&self, open: Open) -> io::Result<()> {
        let place = self.place(&open.header.hash)?;
        match File::options().append(true).open(&place) {
            // It is there: only that it came again is new.
            Ok(file) => {
                file.set_times(FileTimes::new().set_modified(SystemTime::now()))?;
                fs::remove_file(open.path)
            }
            Err(_) => fs::rename(open.path, place),
        }
    }

    fn describe(&mut self, hash: &[u8; 32], line: &[u8], now: SystemTime) -> io::Result<()> {
        let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |it| it.as_secs());
        self.records += 1;
        let mut place = self.place(hash)?.into_os_string();
        place.push(format!(".{seconds}.{}.json", self.records));
        fs::write(Path::new(&place), [line, b"\n"].concat())
    }

    fn place(&self, hash: &[u8; 32]) -> io::Result<PathBuf> {
        let name = digits(hash);
        let directory = self.directory.join(&name[..2]);
        fs::create_dir_all(&directory)?;
        Ok(directory.join(name))
    }
}

fn digits(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Into memory nothing fails.
        let _ = write!(out, "{byte:02x}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_kept_once_under_its_hash() {
        let directory = tempfile::tempdir().unwrap();
        let mut files = Files::new(directory.path().join("filestore"));
        let content: Vec<u8> = (0..CHUNK + 10).map(|it| it as u8).collect();
        let hash = [0xab; 32];
        for _ in 0..2 {
            let now = SystemTime::now();
            assert!(messages(&hash, &content, |it| files.message(it, now)));
            assert!(files.message(&record(&hash, b"{}"), now));
        }
        let name = "ab".repeat(32);
        let place = directory.path().join("filestore/ab").join(&name);
        assert_eq!(fs::read(place).unwrap(), content);
        let beside = fs::read_dir(directory.path().join("filestore/ab")).unwrap();
        assert_eq!(beside.count(), 3);
        let unfinished = fs::read_dir(directory.path().join("filestore/tmp")).unwrap();
        assert_eq!(unfinished.count(), 0);
        assert_eq!((files.tally.written, files.tally.lost), (2, 0));
    }

    #[test]
    fn a_file_with_a_part_missing_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let mut files = Files::new(directory.path().to_owned());
        let content = vec![1; 3 * CHUNK];
        let mut number = 0;
        let now = SystemTime::now();
        messages(&[1; 32], &content, |it| {
            number += 1;
            number == 2 || files.message(it, now)
        });
        assert_eq!((files.tally.written, files.tally.lost), (0, 1));
        assert!(!directory.path().join("01").exists());
    }

    #[test]
    fn no_record_is_taken_for_a_file() {
        let mut files = Files::new("/nowhere".into());
        assert!(!files.message(b"{\"event_type\":\"alert\"}", SystemTime::now()));
        assert!(!files.message(&[MARK; 20], SystemTime::now()));
    }
}
