//! A file of lines, and when another one is begun.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use time::{OffsetDateTime, UtcOffset};

use super::{Destination, Tally};
use crate::config::settings::Rotation;

/// Written together.
const BUFFER_BYTES: usize = 64 * 1024;

/// What happens to a file that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opening {
    /// It goes on.
    Append,
    /// It is emptied.
    Empty,
}

/// A file that is written.
///
/// Its name may have parts of the time, as strftime(3) writes them (`%Y %m %d %H %M %S %s`).
/// Then a new file has a new name; otherwise the old file is given the time behind its name.
#[derive(Debug)]
pub(super) struct LogFile {
    pattern: PathBuf,
    rotation: Rotation,
    offset: UtcOffset,
    path: PathBuf,
    file: File,
    bytes: u64,
    period: Option<u64>,
    buffer: Vec<u8>,
    buffered: u64,
}

impl LogFile {
    pub(super) fn open(
        pattern: PathBuf,
        rotation: Rotation,
        utc_offset_s: i32,
        opening: Opening,
        now: SystemTime,
    ) -> io::Result<Self> {
        let offset = UtcOffset::from_whole_seconds(utc_offset_s).unwrap_or(UtcOffset::UTC);
        let path = expanded(&pattern, local(now, offset));
        let (file, bytes) = open(&path, opening)?;
        Ok(Self {
            period: period(rotation, now),
            pattern,
            rotation,
            offset,
            path,
            file,
            bytes,
            buffer: Vec::with_capacity(2 * BUFFER_BYTES),
            buffered: 0,
        })
    }

    fn write_buffered(&mut self, tally: &mut Tally) -> io::Result<()> {
        if self.buffered == 0 {
            return Ok(());
        }
        let result = self.file.write_all(&self.buffer);
        match &result {
            Ok(()) => {
                tally.written += self.buffered;
                self.bytes += self.buffer.len() as u64;
            }
            Err(_) => tally.lost += self.buffered,
        }
        self.buffer.clear();
        self.buffered = 0;
        result
    }

    /// Begins another file if it is time to, for a line that comes next.
    fn rotate_if_due(&mut self, next: usize, now: SystemTime, tally: &mut Tally) {
        let period = period(self.rotation, now);
        let size = self.bytes + self.buffer.len() as u64;
        let full = self
            .rotation
            .bytes
            .is_some_and(|most| size > 0 && size + next as u64 > most);
        if period == self.period && !full {
            return;
        }
        self.period = period;
        // Counted; whoever flushes next learns why.
        let _ = self.write_buffered(tally);
        if let Err(error) = self.rotate(now) {
            log::error!("{}: not rotated: {error}", self.path.display());
            // Not again for every line.
            self.bytes = 0;
        }
    }

    fn rotate(&mut self, now: SystemTime) -> io::Result<()> {
        let time = local(now, self.offset);
        let named = expanded(&self.pattern, time);
        if named == self.path {
            fs::rename(&self.path, aside(&self.path, time))?;
        }
        (self.file, self.bytes) = open(&named, Opening::Append)?;
        self.path = named;
        if let Some(keep) = self.rotation.keep {
            self.forget_old(keep as usize)?;
        }
        Ok(())
    }

    /// Removes all old files but the youngest ones.
    fn forget_old(&self, keep: usize) -> io::Result<()> {
        let directory = self.pattern.parent().unwrap_or(Path::new("."));
        let mut old = Vec::new();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            if entry.path() != self.path && self.is_old(&entry.file_name().to_string_lossy()) {
                old.push((entry.metadata()?.modified()?, entry.path()));
            }
        }
        old.sort();
        let surplus = old.len().saturating_sub(keep);
        for (_, path) in &old[..surplus] {
            fs::remove_file(path)?;
        }
        Ok(())
    }

    /// Whether a file of this name was one of this log's.
    fn is_old(&self, name: &str) -> bool {
        let Some(pattern) = self.pattern.file_name().and_then(|name| name.to_str()) else {
            return false;
        };
        if !pattern.contains('%') {
            let behind = name
                .strip_prefix(pattern)
                .and_then(|rest| rest.strip_prefix('.'));
            return behind.is_some_and(|rest| {
                rest.len() >= 15
                    && rest
                        .bytes()
                        .all(|byte| byte.is_ascii_digit() || b"-.".contains(&byte))
            });
        }
        let (first, rest) = pattern.split_once('%').unwrap_or_default();
        let last = rest.rsplit_once('%').map_or(rest, |(_, last)| last);
        let last = last.get(1..).unwrap_or_default();
        let middle = name
            .strip_prefix(first)
            .and_then(|name| name.strip_suffix(last));
        middle.is_some_and(|middle| middle.bytes().any(|byte| byte.is_ascii_digit()))
    }
}

impl Destination for LogFile {
    fn line(&mut self, prefix: &str, line: &[u8], now: SystemTime, tally: &mut Tally) {
        let length = prefix.len() + line.len() + 1;
        self.rotate_if_due(length, now, tally);
        self.buffer.extend_from_slice(prefix.as_bytes());
        self.buffer.extend_from_slice(line);
        self.buffer.push(b'\n');
        self.buffered += 1;
        if self.buffer.len() >= BUFFER_BYTES {
            // Counted; whoever flushes next learns why.
            let _ = self.write_buffered(tally);
        }
    }

    fn flush(&mut self, _now: SystemTime, tally: &mut Tally) -> io::Result<()> {
        self.write_buffered(tally)
    }

    fn reopen(&mut self, now: SystemTime) -> io::Result<()> {
        let path = expanded(&self.pattern, local(now, self.offset));
        (self.file, self.bytes) = open(&path, Opening::Append)?;
        self.path = path;
        Ok(())
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }
}

fn open(path: &Path, opening: Opening) -> io::Result<(File, u64)> {
    let named =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let mut options = OpenOptions::new();
    options.create(true);
    match opening {
        Opening::Append => options.append(true),
        Opening::Empty => options.write(true).truncate(true),
    };
    let file = options.open(path).map_err(named)?;
    let bytes = file.metadata().map_err(named)?.len();
    Ok((file, bytes))
}

/// Which multiple of the interval it is.
fn period(rotation: Rotation, now: SystemTime) -> Option<u64> {
    let every = rotation.every?.as_secs().max(1);
    Some(now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / every)
}

fn local(now: SystemTime, offset: UtcOffset) -> OffsetDateTime {
    OffsetDateTime::from(now).to_offset(offset)
}

/// The name with the parts of the time in it.
fn expanded(pattern: &Path, time: OffsetDateTime) -> PathBuf {
    let text = pattern.to_string_lossy();
    if !text.contains('%') {
        return pattern.to_owned();
    }
    let mut name = String::new();
    let mut rest = text.chars();
    while let Some(character) = rest.next() {
        if character != '%' {
            name.push(character);
            continue;
        }
        match rest.next() {
            Some('Y') => name += &format!("{:04}", time.year()),
            Some('m') => name += &format!("{:02}", u8::from(time.month())),
            Some('d') => name += &format!("{:02}", time.day()),
            Some('H') => name += &format!("{:02}", time.hour()),
            Some('M') => name += &format!("{:02}", time.minute()),
            Some('S') => name += &format!("{:02}", time.second()),
            Some('s') => name += &time.unix_timestamp().to_string(),
            Some(other) => name.push(other),
            None => {}
        }
    }
    name.into()
}

/// A name for the file that is put aside, which nothing has yet.
fn aside(path: &Path, time: OffsetDateTime) -> PathBuf {
    let stamp = expanded(Path::new("%Y%m%d-%H%M%S"), time);
    let name = format!("{}.{}", path.display(), stamp.display());
    let mut candidate = PathBuf::from(&name);
    let mut number = 1;
    while candidate.exists() {
        candidate = format!("{name}.{number}").into();
        number += 1;
    }
    candidate
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn run(pattern: &str, rotation: Rotation, lines: &[(u64, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let mut tally = Tally::default();
        let path = directory.path().join(pattern);
        let mut file = LogFile::open(path, rotation, 0, Opening::Append, at(lines[0].0)).unwrap();
        for (time, line) in lines {
            file.line("", line.as_bytes(), at(*time), &mut tally);
        }
        file.flush(at(0), &mut tally).unwrap();
        assert_eq!(
            tally,
            Tally {
                written: lines.len() as u64,
                lost: 0
            }
        );
        directory
    }

    #[test]
    fn a_full_file_is_put_aside_and_the_oldest_forgotten() {
        let rotation = Rotation {
            bytes: Some(10),
            keep: Some(2),
            ..Rotation::default()
        };
        let lines = [
            (0, "1234"),
            (1, "5678"),
            (2, "abcd"),
            (3, "longer than all"),
            (4, "x"),
            (5, "y"),
        ];
        let directory = run("eve.json", rotation, &lines);
        let expect = [
            "eve.json",
            "eve.json.19700101-000003",
            "eve.json.19700101-000004",
        ];
        assert_eq!(names(directory.path()), expect);
        let read = |name: &str| fs::read_to_string(directory.path().join(name)).unwrap();
        assert_eq!(read("eve.json"), "x\ny\n");
        assert_eq!(read(expect[1]), "abcd\n");
        assert_eq!(read(expect[2]), "longer than all\n");
    }

    #[test]
    fn files_begin_at_multiples_of_the_interval() {
        let rotation = Rotation {
            every: Some(Duration::from_secs(3600)),
            ..Rotation::default()
        };
        let lines = [
            (3500, "a"),
            (3599, "b"),
            (3600, "c"),
            (7199, "d"),
            (7200, "e"),
        ];
        let directory = run("eve.json", rotation, &lines);
        assert_eq!(
            names(directory.path()),
            [
                "eve.json",
                "eve.json.19700101-010000",
                "eve.json.19700101-020000"
            ]
        );
        let directory = run("eve-%Y-%m-%d-%H.json", rotation, &lines);
        assert_eq!(
            names(directory.path()),
            [
                "eve-1970-01-01-00.json",
                "eve-1970-01-01-01.json",
                "eve-1970-01-01-02.json"
            ]
        );
        let read = |name: &str| fs::read_to_string(directory.path().join(name)).unwrap();
        assert_eq!(read("eve-1970-01-01-01.json"), "c\nd\n");
    }

    #[test]
    fn old_files_of_others_are_nobodys_business_here() {
        let directory = tempfile::tempdir().unwrap();
        for (pattern, own, others) in [
            (
                "eve.json",
                "eve.json.20260101-000000.1",
                ["eve.json.gz", "eve.json.bak-2026-01-01-x"],
            ),
            (
                "eve-%s.json",
                "eve-123.json",
                ["eve-x.json", "other-123.json"],
            ),
        ] {
            let path = directory.path().join(pattern);
            let rotation = Rotation::default();
            let file = LogFile::open(path, rotation, 0, Opening::Append, at(9)).unwrap();
            assert!(file.is_old(own), "{own}");
            assert!(others.iter().all(|other| !file.is_old(other)), "{others:?}");
        }
    }

    #[test]
    fn a_file_that_was_there_is_gone_on_with_or_emptied() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("eve.json");
        for (opening, expect) in [(Opening::Append, "old\nnew\n"), (Opening::Empty, "new\n")] {
            fs::write(&path, "old\n").unwrap();
            let mut tally = Tally::default();
            let rotation = Rotation::default();
            let mut file = LogFile::open(path.clone(), rotation, 0, opening, at(0)).unwrap();
            file.line("", b"new", at(0), &mut tally);
            file.flush(at(0), &mut tally).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), expect);
        }
    }

    #[test]
    fn a_disk_that_refuses_is_counted() {
        let mut tally = Tally::default();
        let path = PathBuf::from("/dev/full");
        let mut file = LogFile::open(path, Rotation::default(), 0, Opening::Append, at(0)).unwrap();
        file.line("", b"lost", at(0), &mut tally);
        assert!(file.flush(at(0), &mut tally).is_err());
        assert_eq!(
            tally,
            Tally {
                written: 0,
                lost: 1
            }
        );
    }
}
