//! The files that rules are compiled from, as bytes: from disk, or as they were when they were
//! compiled before.
//!
//! Kept in a sealed file in memory: a magic number, then for each file what it is, the lengths of
//! its name and its contents (64 bits each, of this machine), name and contents.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::configured::Unusable;
use super::source::read_regular;
use crate::config;
use crate::sys::sealed;

const MAGIC: u64 = u64::from_le_bytes(*b"sluices1");
const RULES: u64 = 1;
const CLASSIFICATION: u64 = 2;

/// A file as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SourceFile {
    pub(super) name: PathBuf,
    pub(super) bytes: Vec<u8>,
}

/// All files of a set of rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// In the order of the configuration.
    pub(super) rules: Vec<SourceFile>,
    /// What classes mean, if a file says so.
    pub(super) classification: Option<SourceFile>,
}

impl Sources {
    /// Reads the files that a configuration names.
    ///
    /// # Errors
    /// When one cannot be read: unlike a rule that cannot be used, that is surely not meant.
    pub fn read(rules: &config::Rules) -> Result<Self, Unusable> {
        let classification = &rules.classification;
        let named = !classification.as_os_str().is_empty();
        let files = rules.files.iter().map(|path| SourceFile::read(path));
        Ok(Self {
            rules: files.collect::<Result<_, _>>()?,
            classification: named
                .then(|| SourceFile::read(classification))
                .transpose()?,
        })
    }

    /// An empty file for [`Self::keep`].
    ///
    /// # Errors
    /// When descriptors run out.
    pub fn file() -> io::Result<File> {
        sealed::file(c"sluice-rule-files")
    }

    /// Writes all of it into a file made by [`Self::file`], which nobody can change afterwards.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn keep(&self, file: &File) -> io::Result<()> {
        let mut output = BufWriter::new(file);
        output.write_all(&MAGIC.to_ne_bytes())?;
        let rules = self.rules.iter().map(|it| (RULES, it));
        let classification = self.classification.iter().map(|it| (CLASSIFICATION, it));
        for (kind, SourceFile { name, bytes }) in rules.chain(classification) {
            let name = name.as_os_str().as_bytes();
            for number in [kind, name.len() as u64, bytes.len() as u64] {
                output.write_all(&number.to_ne_bytes())?;
            }
            output.write_all(name)?;
            output.write_all(bytes)?;
        }
        output.flush()?;
        drop(output);
        sealed::seal(file)
    }

    /// Reads what [`Self::keep`] has written.
    ///
    /// # Errors
    /// When it is something else, or was not finished.
    pub fn kept(file: &File) -> io::Result<Self> {
        if !sealed::is_sealed(file) {
            return Err(damaged("not finished"));
        }
        let mut left = file.metadata()?.len();
        // Other processes have read it through descriptors that share the position.
        let mut input = file;
        input.rewind()?;
        let mut input = BufReader::new(input);
        if take_number(&mut input, &mut left)? != MAGIC {
            return Err(damaged("something else"));
        }
        let mut sources = Self::default();
        while left > 0 {
            let kind = take_number(&mut input, &mut left)?;
            let lengths = [(); 2].map(|()| take_number(&mut input, &mut left));
            let [name, bytes] = lengths;
            let (name, bytes) = (name?, bytes?);
            let file = SourceFile {
                name: OsString::from_vec(take(&mut input, &mut left, name)?).into(),
                bytes: take(&mut input, &mut left, bytes)?,
            };
            match kind {
                RULES => sources.rules.push(file),
                CLASSIFICATION => sources.classification = Some(file),
                _ => return Err(damaged("a file of no known kind")),
            }
        }
        Ok(sources)
    }
}

impl SourceFile {
    fn read(path: &Path) -> Result<Self, Unusable> {
        let bytes = read_regular(path).map_err(|source| Unusable::File {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            name: path.to_owned(),
            bytes,
        })
    }
}

fn damaged(what: &str) -> io::Error {
    let message = format!("the rule files that were kept: {what}");
    io::Error::new(io::ErrorKind::InvalidData, message)
}

fn take_number(input: &mut impl Read, left: &mut u64) -> io::Result<u64> {
    let mut bytes = [0; size_of::<u64>()];
    *left = left
        .checked_sub(bytes.len() as u64)
        .ok_or_else(|| damaged("cut off"))?;
    input.read_exact(&mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}

fn take(input: &mut impl Read, left: &mut u64, length: u64) -> io::Result<Vec<u8>> {
    // Before memory is asked for: a length that is wrong can be any.
    *left = left.checked_sub(length).ok_or_else(|| damaged("cut off"))?;
    let length = usize::try_from(length).map_err(io::Error::other)?;
    let mut bytes = vec![0; length];
    input.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn sources() -> Sources {
        let file = |name: &[u8], bytes: &[u8]| SourceFile {
            name: OsString::from_vec(name.to_vec()).into(),
            bytes: bytes.to_vec(),
        };
        Sources {
            rules: vec![
                // Marks that a second reading must not strip once more.
                file(b"/a.rules", b"\xef\xbb\xbf\xef\xbb\xbfalert"),
                file(b"/empty", b""),
                file(b"/\xff.rules", b"\0\xff\n"),
            ],
            classification: Some(file(b"/c", b"config classification: x,X,1\n")),
        }
    }

    fn kept(bytes: &[u8]) -> io::Result<Sources> {
        let mut file = Sources::file().unwrap();
        file.write_all(bytes).unwrap();
        sealed::seal(&file).unwrap();
        Sources::kept(&file)
    }

    #[test]
    fn what_is_kept_is_read_again_as_it_was() {
        for sources in [Sources::default(), sources()] {
            let file = Sources::file().unwrap();
            Sources::kept(&file).unwrap_err();
            sources.keep(&file).unwrap();
            assert_eq!(Sources::kept(&file).unwrap(), sources);
            assert_eq!(Sources::kept(&file).unwrap(), sources, "once more");
            (&file).write_all(b"more").unwrap_err();
        }
    }

    #[test]
    fn what_is_cut_off_or_something_else_is_refused() {
        let file = Sources::file().unwrap();
        sources().keep(&file).unwrap();
        let mut whole = Vec::new();
        (&file).rewind().unwrap();
        (&file).read_to_end(&mut whole).unwrap();
        assert_eq!(kept(&whole).unwrap(), sources());
        let mut refused = 0;
        for length in 0..whole.len() {
            match kept(&whole[..length]) {
                // Cut between two files.
                Ok(fewer) => assert!(fewer.rules.len() < 4 && fewer != sources()),
                Err(_) => refused += 1,
            }
        }
        assert_eq!(refused, whole.len() - 4, "all but at the four seams");
        for at in [0, 8, 16, 24] {
            let mut wrong = whole.clone();
            wrong[at..at + 8].fill(0xff);
            kept(&wrong).unwrap_err();
        }
    }

    #[test]
    fn what_is_no_regular_file_is_refused_and_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for path in [pipe.as_path(), Path::new("/dev/zero"), directory.path()] {
            let rules = config::Rules {
                files: vec![path.to_owned()],
                ..config::Rules::default()
            };
            let Unusable::File { source, .. } = Sources::read(&rules).unwrap_err() else {
                panic!("{}", path.display());
            };
            assert!(source.to_string().contains("regular"), "{source}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_refused_by_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let good = directory.path().join("good");
        fs::write(&good, "x").unwrap();
        for (files, classification) in [
            (vec![good.clone(), "/nonexistent/x".into()], ""),
            (vec![good], "/nonexistent/x"),
        ] {
            let rules = config::Rules {
                files,
                classification: classification.into(),
                ..config::Rules::default()
            };
            let error = Sources::read(&rules).unwrap_err();
            assert_eq!(error.to_string(), "/nonexistent/x");
        }
    }
}
