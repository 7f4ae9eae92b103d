//! Packets that workers died of, saved as pcap files to reproduce it with.
//!
//! The supervisor copies bytes and looks at none of them: what killed a worker that parsed it
//! must not be parsed here.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};
use pcap_file::{DataLink, Endianness, PcapError};
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use super::seat::Seat;

/// What the files' headers name as their longest packet: as much as any reader takes.
const SNAP_LENGTH: u32 = 262_144;
/// UTC, so that names in order are files in order.
const NAME_TIME: &[BorrowedFormatItem<'_>] =
    format_description!("[year][month][day]T[hour][minute][second].[subsecond digits:6]Z");
const EXTENSION: &str = ".pcap";

/// Where a bounded number of packets is saved.
#[derive(Debug)]
pub(super) struct SavedPackets {
    directory: PathBuf,
    /// What the names of an instance's files begin with.
    prefix: String,
    /// Bytes of each packet.
    limit: usize,
    /// Most files.
    files: usize,
}

impl SavedPackets {
    /// Files of the instance called `name` in `directory`: at most `files`, each with at most
    /// `limit` bytes of its packet.
    pub(super) fn new(directory: &Path, name: &str, limit: u32, files: usize) -> Self {
        Self {
            directory: directory.to_owned(),
            prefix: format!("{name}-packet-"),
            limit: limit as usize,
            files,
        }
    }

    /// Bytes of each packet that are saved.
    pub(super) const fn limit(&self) -> usize {
        self.limit
    }

    /// Saves a packet of `length` bytes, from the IP header on, that the process `pid` at `seat`
    /// had in hand at `wall_us`; the oldest files make room. Returns its path.
    ///
    /// # Errors
    /// When the directory or the file cannot be written, or nothing of the packet is there.
    pub(super) fn save(
        &self,
        packet: &[u8],
        length: u32,
        seat: Seat,
        pid: u32,
        wall_us: i64,
    ) -> io::Result<PathBuf> {
        let path = self.directory.join(self.name(seat, pid, wall_us));
        let described =
            |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        if packet.is_empty() {
            return Err(io::Error::other("its bytes are not known"));
        }
        fs::create_dir_all(&self.directory).map_err(described)?;
        self.make_room().map_err(described)?;
        // Traffic may be confidential. Never through a link that somebody put there.
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(described)?;
        let header = PcapHeader {
            datalink: DataLink::RAW,
            snaplen: SNAP_LENGTH,
            endianness: Endianness::native(),
            ..PcapHeader::default()
        };
        let kept = &packet[..packet.len().min(self.limit)];
        let time = Duration::from_micros(wall_us.try_into().unwrap_or(0));
        let record = PcapPacket::new(time, length.max(kept.len() as u32), kept);
        PcapWriter::with_header(file, header)
            .and_then(|mut writer| writer.write_packet(&record))
            .map_err(|error| described(input_output(error)))?;
        Ok(path)
    }

    fn name(&self, seat: Seat, pid: u32, wall_us: i64) -> String {
        let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(wall_us) * 1000)
            .unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let time = time.format(NAME_TIME).unwrap_or_default();
        let seat = seat.to_string().replace(' ', "-");
        format!("{}{time}-{seat}-{pid}{EXTENSION}", self.prefix)
    }

    /// Removes the oldest files until there is room for one more.
    fn make_room(&self) -> io::Result<()> {
        let mut names: Vec<OsString> = fs::read_dir(&self.directory)?
            .filter_map(|entry| Some(entry.ok()?.file_name()))
            .filter(|name| name.to_str().is_some_and(|name| self.is_ours(name)))
            .collect();
        names.sort_unstable();
        let too_many = (names.len() + 1).saturating_sub(self.files);
        for name in &names[..too_many.min(names.len())] {
            fs::remove_file(self.directory.join(name))?;
        }
        Ok(())
    }

    fn is_ours(&self, name: &str) -> bool {
        let rest = name.strip_prefix(&self.prefix);
        let rest = rest.and_then(|rest| rest.strip_suffix(EXTENSION));
        // The name of another instance may begin like this one's; a time follows only here.
        rest.is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
    }
}

fn input_output(error: PcapError) -> io::Error {
    match error {
        PcapError::IoError(error) => error,
        other => io::Error::other(other),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use pcap_file::pcap::PcapReader;

    use super::*;

    const WALL_US: i64 = 1_700_000_000_123_456;

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn a_saved_packet_is_read_back_with_its_bytes_and_its_length() {
        let directory = tempfile::tempdir().unwrap();
        let packet: Vec<u8> = (0..=255).collect();
        for (limit, kept) in [(100, 100), (65_535, 256)] {
            let directory = directory.path().join(limit.to_string());
            let saved = SavedPackets::new(&directory, "gate", limit, 4);
            let path = saved
                .save(&packet, 256, Seat::Worker(3), 42, WALL_US)
                .unwrap();
            assert_eq!(
                path.file_name().unwrap().to_str().unwrap(),
                "gate-packet-20231114T221320.123456Z-worker-3-42.pcap"
            );
            let mut reader = PcapReader::new(File::open(path).unwrap()).unwrap();
            assert_eq!(reader.header().datalink, DataLink::RAW);
            let read = reader.next_packet().unwrap().unwrap();
            assert_eq!(*read.data, packet[..kept]);
            assert_eq!(read.orig_len, 256);
            assert_eq!(read.timestamp, Duration::from_micros(WALL_US as u64));
            assert!(reader.next_packet().is_none());
        }
    }

    #[test]
    fn the_oldest_files_of_the_instance_make_room_and_no_others() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        for other in ["eve.json", "gate-packet-x.pcap", "gate-packet-1.txt"] {
            fs::write(directory.join(other), "").unwrap();
        }
        let saved = SavedPackets::new(directory, "gate", 100, 2);
        for second in 0..4 {
            let at = WALL_US + second * 1_000_000;
            saved.save(b"packet", 6, Seat::Backup, 7, at).unwrap();
        }
        assert_eq!(
            names(directory),
            [
                "eve.json",
                "gate-packet-1.txt",
                "gate-packet-20231114T221322.123456Z-backup-7.pcap",
                "gate-packet-20231114T221323.123456Z-backup-7.pcap",
                "gate-packet-x.pcap",
            ]
        );
    }

    #[test]
    fn a_file_that_cannot_be_written_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        let saved = SavedPackets::new(&file, "gate", 100, 2);
        let error = saved
            .save(b"packet", 6, Seat::Backup, 7, WALL_US)
            .unwrap_err();
        assert!(error.to_string().contains("gate-packet-"), "{error}");
        // Nobody's file is written over or followed.
        let saved = SavedPackets::new(directory.path(), "gate", 100, 2);
        let path = saved.save(b"packet", 6, Seat::Backup, 7, WALL_US).unwrap();
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(&file, &path).unwrap();
        let error = saved
            .save(b"packet", 6, Seat::Backup, 7, WALL_US)
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    }
}
