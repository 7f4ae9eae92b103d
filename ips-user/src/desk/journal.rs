//! The changes of sets that all workers are to know, in memory that they only read.
//!
//! The supervisor appends records ([`crate::detect::dataset::record`]); a worker reads what came
//! since it last looked, and a new one all of it. While nothing changes that costs two loads.
//! When much of it has been overtaken by what followed, the supervisor writes it anew: the epoch,
//! odd meanwhile, tells a worker that what it has just read may not be whole (a seqlock). One that
//! had read everything before goes on behind it; another begins from the start.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{Ordering, fence};

use crate::detect::dataset::record::{HEAD, LONGEST_VALUE};
use crate::sys::shared_words::{Head, HeadReader};

const FORM: usize = 0;
/// Says what the words and records mean: to be changed with them, because another program may
/// take over.
const THIS_FORM: u64 = u64::from_le_bytes(*b"sets-001");
const EPOCH: usize = 1;
/// Where the records end.
const END: usize = 2;
/// Where they ended when they were last written anew.
const BEFORE: usize = 3;
/// Where they ended after that.
const AFTER: usize = 4;
/// A page.
const WORDS: usize = 512;
/// Where the records begin.
const START: u64 = (WORDS * size_of::<u64>()) as u64;

/// Bytes read at once. A record fits.
const CHUNK: usize = 64 << 10;
const _: () = assert!(CHUNK > HEAD + LONGEST_VALUE);

/// The supervisor's side.
#[derive(Debug)]
pub struct Journal {
    head: Head,
    file: File,
    readers: OwnedFd,
    end: u64,
    epoch: u64,
}

impl Journal {
    /// An empty one.
    ///
    /// # Errors
    /// When memory or descriptors run out.
    pub fn create() -> io::Result<Self> {
        let head = Head::create(c"sluice-set-changes", WORDS)?;
        let file = File::from(head.as_fd().try_clone_to_owned()?);
        let words = head.words();
        words[END].store(START, Ordering::Relaxed);
        words[FORM].store(THIS_FORM, Ordering::Release);
        Ok(Self {
            readers: head.read_only()?,
            head,
            file,
            end: START,
            epoch: 0,
        })
    }

    /// For those who read it.
    pub fn readers(&self) -> BorrowedFd<'_> {
        self.readers.as_fd()
    }

    /// Bytes of records.
    pub const fn bytes(&self) -> u64 {
        self.end - START
    }

    /// Adds records.
    ///
    /// # Errors
    /// When memory runs out; then none is added.
    pub fn append(&mut self, records: &[u8]) -> io::Result<()> {
        self.file.write_all_at(records, self.end)?;
        self.end += records.len() as u64;
        self.head.words()[END].store(self.end, Ordering::Release);
        Ok(())
    }

    /// Puts other records in the place of all that are there, which come to the same.
    ///
    /// # Errors
    /// When memory runs out; then there are fewer than there should be.
    pub fn rewrite(&mut self, records: &[u8]) -> io::Result<()> {
        let words = self.head.words();
        words[EPOCH].store(self.epoch + 1, Ordering::Relaxed);
        // Before anything of what was there changes.
        fence(Ordering::SeqCst);
        let written = self.file.write_all_at(records, START);
        let end = START + written.as_ref().map_or(0, |()| records.len() as u64);
        words[BEFORE].store(self.end, Ordering::Relaxed);
        // Who knows everything does not begin again; if it could not be written everybody does.
        let after = if written.is_ok() { end } else { 0 };
        words[AFTER].store(after, Ordering::Relaxed);
        words[END].store(end, Ordering::Relaxed);
        self.epoch += 2;
        words[EPOCH].store(self.epoch, Ordering::Release);
        self.end = end;
        written
    }
}

/// What a reader finds.
#[derive(Debug, PartialEq, Eq)]
pub enum News<'a> {
    /// Nothing more.
    Nothing,
    /// All that was known is to be forgotten: what follows is everything.
    Anew,
    /// Records, and perhaps the beginning of another one: [`Reader::taken`] is to be told how
    /// much of it was used.
    Records(&'a [u8]),
}

/// A worker's side.
#[derive(Debug)]
pub struct Reader {
    head: HeadReader,
    file: File,
    at: u64,
    epoch: u64,
    buffer: Vec<u8>,
}

impl Reader {
    /// From the start on.
    ///
    /// # Errors
    /// When the file is no journal, or one of another form.
    pub fn of(file: OwnedFd) -> io::Result<Self> {
        let copy = File::from(file.try_clone()?);
        let head = HeadReader::map(file, WORDS)?;
        if head.get(FORM, Ordering::Acquire) != THIS_FORM {
            return Err(io::Error::other("the shared file is no journal of sets"));
        }
        Ok(Self {
            // What is there now is read as it is: there was nothing before for this reader.
            epoch: head.get(EPOCH, Ordering::Acquire) & !1,
            head,
            file: copy,
            at: START,
            buffer: Vec::new(),
        })
    }

    /// Begins from the start once more.
    pub fn restart(&mut self) {
        self.epoch = self.head.get(EPOCH, Ordering::Acquire) & !1;
        self.at = START;
    }

    /// Whether there is something that was not read.
    pub fn is_behind(&self) -> bool {
        self.head.get(END, Ordering::Relaxed) != self.at
            || self.head.get(EPOCH, Ordering::Relaxed) != self.epoch
    }

    /// Whether it was being written anew when its writer ended: nothing of it is whole.
    pub fn is_broken_off(&self) -> bool {
        self.head.get(EPOCH, Ordering::Acquire) % 2 == 1
    }

    /// What comes next.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read(&mut self) -> io::Result<News<'_>> {
        let epoch = self.head.get(EPOCH, Ordering::Acquire);
        if epoch % 2 == 1 {
            // Soon there is more to be read.
            return Ok(News::Nothing);
        }
        if epoch != self.epoch {
            let before = self.head.get(BEFORE, Ordering::Relaxed);
            let after = self.head.get(AFTER, Ordering::Relaxed);
            if !self.is_still(epoch) {
                return Ok(News::Nothing);
            }
            let knew_all = epoch == self.epoch + 2 && before == self.at && after >= START;
            self.epoch = epoch;
            if !knew_all {
                self.at = START;
                return Ok(News::Anew);
            }
            self.at = after;
        }
        let end = self.head.get(END, Ordering::Acquire);
        let Some(length) = end.checked_sub(self.at).filter(|it| *it > 0) else {
            return Ok(News::Nothing);
        };
        let length = length.min(CHUNK as u64) as usize;
        self.buffer.resize(length, 0);
        let read = self.file.read_exact_at(&mut self.buffer, self.at);
        if !self.is_still(epoch) {
            return Ok(News::Nothing);
        }
        read?;
        Ok(News::Records(&self.buffer))
    }

    /// So many of the bytes last read were whole records.
    pub fn taken(&mut self, bytes: usize) {
        self.at += bytes as u64;
    }

    fn is_still(&self, epoch: u64) -> bool {
        // After what was read before.
        fence(Ordering::Acquire);
        self.head.get(EPOCH, Ordering::Relaxed) == epoch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(journal: &Journal) -> Reader {
        Reader::of(journal.readers().try_clone_to_owned().unwrap()).unwrap()
    }

    /// Reads all there is; whether it begins anew.
    fn read(reader: &mut Reader) -> (bool, Vec<u8>) {
        let (mut anew, mut all) = (false, Vec::new());
        loop {
            let length = match reader.read().unwrap() {
                News::Nothing => return (anew, all),
                News::Anew => {
                    all.clear();
                    anew = true;
                    continue;
                }
                News::Records(bytes) => {
                    all.extend_from_slice(bytes);
                    bytes.len()
                }
            };
            reader.taken(length);
        }
    }

    #[test]
    fn readers_get_what_is_new_and_a_new_one_gets_all() {
        let mut journal = Journal::create().unwrap();
        let mut first = reader(&journal);
        assert!(!first.is_behind());
        journal.append(b"one").unwrap();
        assert!(first.is_behind());
        assert_eq!(read(&mut first), (false, b"one".to_vec()));
        assert!(!first.is_behind());
        let long = vec![b'x'; 3 * CHUNK];
        journal.append(&long).unwrap();
        assert_eq!(read(&mut first), (false, long));
        let (anew, all) = read(&mut reader(&journal));
        assert_eq!((anew, all.len()), (false, 3 + 3 * CHUNK));
    }

    #[test]
    fn written_anew_it_is_read_again_by_those_only_who_had_not_read_it() {
        let mut journal = Journal::create().unwrap();
        let (mut knows, mut does_not) = (reader(&journal), reader(&journal));
        journal.append(b"one two one").unwrap();
        read(&mut knows);
        journal.rewrite(b"one two").unwrap();
        assert_eq!(journal.bytes(), 7);
        assert!(knows.is_behind() && does_not.is_behind());
        journal.append(b" three").unwrap();
        assert_eq!(read(&mut knows), (false, b" three".to_vec()));
        assert_eq!(read(&mut does_not), (true, b"one two three".to_vec()));
        // Who has missed two of them begins again.
        journal.rewrite(b"four").unwrap();
        journal.rewrite(b"five").unwrap();
        assert_eq!(read(&mut knows), (true, b"five".to_vec()));
        assert!(!knows.is_behind() && !knows.is_broken_off());
        // Whoever dies in the middle of it leaves nothing that can be trusted.
        journal.head.words()[EPOCH].fetch_add(1, Ordering::Relaxed);
        assert!(knows.is_broken_off());
        assert_eq!(knows.read().unwrap(), News::Nothing);
    }

    #[test]
    fn what_is_no_journal_is_refused_and_readers_cannot_write() {
        let head = Head::create(c"test", WORDS).unwrap();
        Reader::of(head.read_only().unwrap()).unwrap_err();
        let journal = Journal::create().unwrap();
        let file = File::from(journal.readers().try_clone_to_owned().unwrap());
        file.write_all_at(b"x", START).unwrap_err();
    }
}
