//! Where everything comes from that rules are compiled from: rule files, and what settings and
//! rules name besides. It is read from disk, or given once more as it was when these rules were
//! compiled before.
//!
//! What the disk has said is kept in a sealed file in memory: a magic number, then each question
//! with its answer, and a mark at the end. All numbers have 64 bits, of this machine. A question is
//! a number for its kind, the length of the path and the path; an answer is a number for what came
//! of it, the length of what follows and that.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::files;
use super::source::read_regular;
use crate::sys::sealed;

const MAGIC: u64 = u64::from_le_bytes(*b"sluices2");
const NUMBER: u64 = size_of::<u64>() as u64;

/// What the disk can be asked about a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Question {
    /// What is in the file.
    Contents = 1,
    /// Which files it stands for: their paths, with a zero byte between them.
    Files = 2,
    /// The one name of the file, however it is written.
    Name = 3,
}

/// In place of a question: there are no more.
const END: u64 = 0;

/// What came of a question: the answer follows.
const ANSWERED: u64 = 0;
/// The number of an error follows.
const ERROR_NUMBER: u64 = 1;
/// The text of an error follows.
const ERROR_TEXT: u64 = 2;

/// Gives files by their paths.
///
/// The same question always has the same answer while what is said is kept, whatever the disk says
/// meanwhile.
#[derive(Debug, Default)]
pub struct Sources {
    /// `None`: nothing is kept.
    kept: Option<Kept>,
}

#[derive(Debug)]
struct Kept {
    file: File,
    /// Whether the disk is asked what is not in it yet.
    grows: bool,
    index: RefCell<Index>,
}

#[derive(Debug, Default)]
struct Index {
    answers: HashMap<(Question, PathBuf), Answer>,
    /// Where the next one goes.
    end: u64,
    /// Why not everything is kept that should be.
    failed: Option<io::Error>,
}

/// Where an answer stands in the file.
#[derive(Clone, Copy, Debug)]
struct Answer {
    what: u64,
    start: u64,
    length: u64,
}

impl Sources {
    /// From disk; nothing is kept.
    pub fn disk() -> Self {
        Self::default()
    }

    /// An empty file for [`Self::keeping`].
    ///
    /// # Errors
    /// When descriptors run out.
    pub fn file() -> io::Result<File> {
        sealed::file(c"sluice-rule-files")
    }

    /// From disk; what that says is kept in `file`, which [`Self::file`] has made.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn keeping(file: File) -> io::Result<Self> {
        file.write_all_at(&MAGIC.to_ne_bytes(), 0)?;
        let index = Index {
            end: NUMBER,
            ..Index::default()
        };
        Ok(Self::of(file, true, index))
    }

    /// From a file that was [finished](Self::finish), and from nowhere else.
    ///
    /// # Errors
    /// When it is something else, or was not finished.
    pub fn kept(file: File) -> io::Result<Self> {
        if !sealed::is_sealed(&file) {
            return Err(damaged("not finished"));
        }
        let index = Index::read(&file)?;
        Ok(Self::of(file, false, index))
    }

    fn of(file: File, grows: bool, index: Index) -> Self {
        Self {
            kept: Some(Kept {
                file,
                grows,
                index: index.into(),
            }),
        }
    }

    /// Nothing more is kept, and what is cannot be changed by anybody. Does nothing if it is from
    /// before, or nothing is kept at all.
    ///
    /// # Errors
    /// When memory ran out, also before.
    pub fn finish(&self) -> io::Result<()> {
        let Some(kept) = self.kept.as_ref().filter(|kept| kept.grows) else {
            return Ok(());
        };
        let mut index = kept.index.borrow_mut();
        if let Some(error) = index.failed.take() {
            return Err(error);
        }
        kept.file.write_all_at(&END.to_ne_bytes(), index.end)?;
        sealed::seal(&kept.file)
    }

    /// What is in a file.
    ///
    /// # Errors
    /// When it cannot be read, or is no regular file.
    pub fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.ask(Question::Contents, path, || read_regular(path))
    }

    /// The files that a path of a rule file stands for: see [`files::expand`].
    ///
    /// # Errors
    /// When there are none.
    pub(super) fn files(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let joined = self.ask(Question::Files, path, || {
            let files = files::expand(path)?;
            let names: Vec<_> = files.iter().map(|it| it.as_os_str().as_bytes()).collect();
            Ok(names.join(&0))
        })?;
        let names = joined.split(|&byte| byte == 0);
        Ok(names.map(|name| path_of(name.to_vec())).collect())
    }

    /// One name for a file, however it is written; its path, if it is not there.
    pub(super) fn name_of(&self, path: &Path) -> PathBuf {
        let name = self.ask(Question::Name, path, || {
            Ok(path.canonicalize()?.into_os_string().into_vec())
        });
        name.map_or_else(|_| path.to_owned(), path_of)
    }

    fn ask(
        &self,
        question: Question,
        path: &Path,
        disk: impl FnOnce() -> io::Result<Vec<u8>>,
    ) -> io::Result<Vec<u8>> {
        let Some(kept) = &self.kept else {
            return disk();
        };
        let mut index = kept.index.borrow_mut();
        if let Some(answer) = index.answers.get(&(question, path.to_owned())) {
            return answer.read(&kept.file);
        }
        if !kept.grows {
            // Nobody asked when these rules were compiled before: then they are others.
            return Err(damaged("this is not among them"));
        }
        let said = disk();
        if let Err(error) = index.keep(&kept.file, question, path, &said) {
            index.failed.get_or_insert(error);
        }
        said
    }
}

impl Index {
    /// Of what is in a file.
    fn read(file: &File) -> io::Result<Self> {
        let mut reader = Reader {
            file,
            at: 0,
            end: file.metadata()?.len(),
        };
        if reader.number()? != MAGIC {
            return Err(damaged("something else"));
        }
        let mut index = Self::default();
        loop {
            let question = match reader.number()? {
                END if reader.at == reader.end => return Ok(index),
                1 => Question::Contents,
                2 => Question::Files,
                3 => Question::Name,
                _ => return Err(damaged("a question of no known kind")),
            };
            let length = reader.number()?;
            let path = reader.take(length)?;
            let path = path_of(read_exact_at(file, path, length)?);
            let what = reader.number()?;
            let length = reader.number()?;
            let start = reader.take(length)?;
            let answer = Answer {
                what,
                start,
                length,
            };
            index.answers.insert((question, path), answer);
        }
    }

    /// Adds what the disk has said.
    fn keep(
        &mut self,
        file: &File,
        question: Question,
        path: &Path,
        said: &io::Result<Vec<u8>>,
    ) -> io::Result<()> {
        let bytes;
        let (what, said) = match said {
            Ok(said) => (ANSWERED, &**said),
            Err(error) => {
                let (what, text) = match error.raw_os_error() {
                    Some(number) => (ERROR_NUMBER, number.to_ne_bytes().to_vec()),
                    None => (ERROR_TEXT, error.to_string().into_bytes()),
                };
                bytes = text;
                (what, &*bytes)
            }
        };
        let name = path.as_os_str().as_bytes();
        let mut head = Vec::with_capacity(name.len() + 4 * NUMBER as usize);
        for number in [question as u64, name.len() as u64] {
            head.extend(number.to_ne_bytes());
        }
        head.extend(name);
        for number in [what, said.len() as u64] {
            head.extend(number.to_ne_bytes());
        }
        file.write_all_at(&head, self.end)?;
        let start = self.end + head.len() as u64;
        file.write_all_at(said, start)?;
        self.end = start + said.len() as u64;
        let answer = Answer {
            what,
            start,
            length: said.len() as u64,
        };
        self.answers.insert((question, path.to_owned()), answer);
        Ok(())
    }
}

impl Answer {
    fn read(self, file: &File) -> io::Result<Vec<u8>> {
        let bytes = read_exact_at(file, self.start, self.length)?;
        match self.what {
            ANSWERED => Ok(bytes),
            ERROR_NUMBER => Err(match <[u8; 4]>::try_from(bytes) {
                Ok(number) => io::Error::from_raw_os_error(i32::from_ne_bytes(number)),
                Err(_) => damaged("an error without its number"),
            }),
            ERROR_TEXT => Err(io::Error::other(
                String::from_utf8_lossy(&bytes).into_owned(),
            )),
            _ => Err(damaged("an answer of no known kind")),
        }
    }
}

/// Goes through a file.
struct Reader<'a> {
    file: &'a File,
    at: u64,
    end: u64,
}

impl Reader<'_> {
    fn number(&mut self) -> io::Result<u64> {
        let at = self.take(NUMBER)?;
        let mut bytes = [0; NUMBER as usize];
        self.file.read_exact_at(&mut bytes, at)?;
        Ok(u64::from_ne_bytes(bytes))
    }

    /// Passes over so many bytes; returns where they begin. A length that is wrong can be any.
    fn take(&mut self, length: u64) -> io::Result<u64> {
        let left = self.end - self.at;
        if length > left {
            return Err(damaged("cut off"));
        }
        self.at += length;
        Ok(self.at - length)
    }
}

/// `length` is known to be that of a part of the file.
fn read_exact_at(file: &File, start: u64, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, start)?;
    Ok(bytes)
}

fn path_of(bytes: Vec<u8>) -> PathBuf {
    OsString::from_vec(bytes).into()
}

fn damaged(what: &str) -> io::Error {
    let message = format!("the files of these rules as they were kept: {what}");
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use super::*;

    /// Everything there is to ask, and what is said.
    fn said(sources: &Sources, directory: &Path) -> Vec<String> {
        let mut said = Vec::new();
        for name in ["a.rules", "\u{feff}", "gone", "pipe", "more"] {
            let path = directory.join(name);
            said.push(format!("{:?}", sources.read(&path).map_err(|e| e.kind())));
            said.push(format!("{:?}", sources.name_of(&path)));
        }
        for name in ["a.rules", "more", "none", "*.none", "."] {
            let files = sources.files(&directory.join(name));
            said.push(format!("{:?}", files.map_err(|error| error.to_string())));
        }
        said
    }

    fn directory() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        for name in ["more", "none"] {
            fs::create_dir(path.join(name)).unwrap();
        }
        fs::write(path.join("a.rules"), b"\0\xff\n").unwrap();
        fs::write(path.join("\u{feff}"), "").unwrap();
        fs::write(path.join("more/b.rules"), "b").unwrap();
        std::os::unix::fs::symlink("../a.rules", path.join("more/c.rules")).unwrap();
        nix::unistd::mkfifo(&path.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        directory
    }

    fn sealed(bytes: &[u8]) -> File {
        let mut file = Sources::file().unwrap();
        file.write_all(bytes).unwrap();
        sealed::seal(&file).unwrap();
        file
    }

    #[test]
    fn what_the_disk_said_is_said_again_when_it_says_something_else() {
        let directory = directory();
        let path = directory.path();
        let file = Sources::file().unwrap();
        let sources = Sources::keeping(file.try_clone().unwrap()).unwrap();
        let expect = said(&Sources::disk(), path);
        assert_eq!(said(&sources, path), expect);
        fs::write(path.join("gone"), "x").unwrap();
        fs::write(path.join("a.rules"), "other").unwrap();
        fs::remove_dir_all(path.join("more")).unwrap();
        assert_ne!(said(&Sources::disk(), path), expect);
        assert_eq!(said(&sources, path), expect, "while it is kept");
        Sources::kept(file.try_clone().unwrap()).unwrap_err();
        sources.finish().unwrap();
        for _ in 0..2 {
            let sources = Sources::kept(file.try_clone().unwrap()).unwrap();
            assert_eq!(said(&sources, path), expect);
            sources.finish().unwrap();
            let error = sources.read(&path.join("other")).unwrap_err();
            assert!(error.to_string().contains("not among them"), "{error}");
        }
        (&file).write_all(b"more").unwrap_err();
    }

    #[test]
    fn files_that_are_cut_off_or_something_else_are_refused() {
        let directory = directory();
        let file = Sources::file().unwrap();
        let sources = Sources::keeping(file.try_clone().unwrap()).unwrap();
        said(&sources, directory.path());
        sources.finish().unwrap();
        let length = file.metadata().unwrap().len();
        let whole = read_exact_at(&file, 0, length).unwrap();
        Sources::kept(sealed(&whole)).unwrap();
        for length in 0..whole.len() {
            Sources::kept(sealed(&whole[..length])).unwrap_err();
        }
        for at in [0, 8, 16] {
            let mut wrong = whole.clone();
            wrong[at..at + 8].fill(0xff);
            Sources::kept(sealed(&wrong)).unwrap_err();
        }
        Sources::kept(sealed(&[whole, vec![0]].concat())).unwrap_err();
    }

    #[test]
    fn rules_are_not_kept_in_part() {
        let directory = directory();
        let file = Sources::file().unwrap();
        let sources = Sources::keeping(file.try_clone().unwrap()).unwrap();
        // As when memory runs out: nothing can be written.
        sealed::seal(&file).unwrap();
        sources.read(&directory.path().join("a.rules")).unwrap();
        sources.finish().unwrap_err();
        Sources::kept(file).unwrap_err();
    }

    #[test]
    fn what_is_no_regular_file_is_refused_and_not_waited_for() {
        let directory = directory();
        let pipe = directory.path().join("pipe");
        for path in [pipe.as_path(), Path::new("/dev/zero"), directory.path()] {
            let error = Sources::disk().read(path).unwrap_err();
            assert!(error.to_string().contains("regular"), "{error}");
        }
    }
}
