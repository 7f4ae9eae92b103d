//! The sets of an engine for the supervisor, which has no engine: what rules say of them, and what
//! they were loaded with. The compiling process writes it into a file in memory.
//!
//! The file: three numbers (a magic one, then place and length of a list in JSON), the values, and
//! that list. The values of a set are its table (for each value, and for the end of the last, its
//! place in the file) and the values themselves in ascending order. All numbers have 64 bits, of
//! this machine.

use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Definitions, LONGEST_LOADED, SetId, id_of, value};
use crate::rules::ast::DatasetKind;
use crate::sys::sealed;

const MAGIC: u64 = u64::from_le_bytes(*b"slcsets1");
const NUMBER: u64 = size_of::<u64>() as u64;
const HEAD: u64 = 3 * NUMBER;

/// What the supervisor knows of a set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// The kind of its values, by the name that it has in rules.
    #[serde(rename = "type")]
    kind: String,
    /// Bound of the memory of its changes in bytes.
    pub memcap: u64,
    /// File that it is saved to, below the data directory.
    pub save: Option<PathBuf>,
    /// That is the file that it was loaded from, too: it is the set's own.
    pub state: bool,
    /// How many values it was loaded with.
    pub loaded: u64,
    /// Where its table is.
    table: u64,
}

impl Entry {
    /// The kind of its values.
    pub fn kind(&self) -> DatasetKind {
        // Looked at when it was read.
        value::kind_of(&self.kind).unwrap_or(DatasetKind::String)
    }

    /// Its number.
    pub fn id(&self) -> SetId {
        id_of(&self.name, self.kind())
    }
}

/// All sets.
#[derive(Debug, Default)]
pub struct Catalogue {
    file: Option<File>,
    sets: Vec<Entry>,
}

impl Catalogue {
    /// An empty file for [`Self::write`].
    ///
    /// # Errors
    /// When descriptors run out.
    pub fn file() -> io::Result<File> {
        sealed::file(c"sluice-sets")
    }

    /// Writes the sets of an engine, and finishes the file.
    pub(in crate::detect) fn write(definitions: &Definitions, file: &File) -> io::Result<()> {
        let mut at = HEAD;
        let mut out = BufWriter::with_capacity(1 << 16, file);
        out.seek(SeekFrom::Start(HEAD))?;
        let mut sets = Vec::new();
        for definition in &definitions.0 {
            let loaded = definition.loaded.len() as u64;
            sets.push(Entry {
                name: definition.name.to_string(),
                kind: value::kind_name(definition.kind).to_owned(),
                memcap: definition.memcap,
                save: definition.save.clone(),
                state: definition.state,
                loaded,
                table: at,
            });
            at += (loaded + 1) * NUMBER;
            for (value, _) in &definition.loaded {
                out.write_all(&at.to_ne_bytes())?;
                at += value.len() as u64;
            }
            out.write_all(&at.to_ne_bytes())?;
            for (value, _) in &definition.loaded {
                out.write_all(value)?;
            }
        }
        let list = serde_json::to_vec(&sets)?;
        out.write_all(&list)?;
        out.flush()?;
        for (place, number) in (0..).zip([MAGIC, at, list.len() as u64]) {
            file.write_all_at(&number.to_ne_bytes(), place * NUMBER)?;
        }
        sealed::seal(file)
    }

    /// Takes a finished file.
    ///
    /// # Errors
    /// When it is something else.
    pub fn read(file: OwnedFd) -> io::Result<Self> {
        let file = File::from(file);
        if !sealed::is_sealed(&file) {
            return Err(damaged("not finished"));
        }
        let bytes = file.metadata()?.len();
        let [magic, list, length] = [0, 1, 2].map(|place| number(&file, place * NUMBER));
        let (list, length) = (list?, length?);
        if magic? != MAGIC || list.checked_add(length) != Some(bytes) {
            return Err(damaged("something else"));
        }
        let list = bytes_at(&file, list, length)?;
        let sets: Vec<Entry> = serde_json::from_slice(&list)?;
        if let Some(set) = sets.iter().find(|it| value::kind_of(&it.kind).is_none()) {
            return Err(damaged(&format!("{}: unknown type {}", set.name, set.kind)));
        }
        Ok(Self {
            file: Some(file),
            sets,
        })
    }

    /// All of them, in the order of the rules.
    pub fn sets(&self) -> &[Entry] {
        &self.sets
    }

    /// By name.
    pub fn named(&self, name: &str) -> Option<&Entry> {
        self.sets.iter().find(|it| it.name == name)
    }

    /// By number.
    pub fn numbered(&self, id: SetId) -> Option<&Entry> {
        self.sets.iter().find(|it| it.id() == id)
    }

    /// Whether a set was loaded with a value.
    ///
    /// # Errors
    /// When the file is damaged.
    pub fn is_loaded(&self, set: &Entry, value: &[u8]) -> io::Result<bool> {
        let (mut low, mut high) = (0, set.loaded);
        while low < high {
            let middle = low.midpoint(high);
            match (*self.value(set, middle)?).cmp(value) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Ok(true),
            }
        }
        Ok(false)
    }

    /// What a set was loaded with, in ascending order.
    ///
    /// # Errors
    /// When the file is damaged.
    pub fn values(&self, set: &Entry) -> io::Result<Vec<Vec<u8>>> {
        let Some(file) = &self.file else {
            return Ok(Vec::new());
        };
        let length = (set.loaded + 1).saturating_mul(NUMBER);
        let table = bytes_at(file, set.table, length)?;
        let places = table.as_chunks().0.iter().map(|it| u64::from_ne_bytes(*it));
        let places: Vec<u64> = places.collect();
        let (Some(first), Some(last)) = (places.first(), places.last()) else {
            return Ok(Vec::new());
        };
        let length = last.checked_sub(*first);
        let bytes = bytes_at(file, *first, length.ok_or_else(|| damaged("out of order"))?)?;
        let value = |pair: &[u64]| {
            let range = pair[0].checked_sub(*first)?..pair[1].checked_sub(*first)?;
            let range = usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?;
            bytes.get(range).map(<[u8]>::to_vec)
        };
        let values = places.windows(2).map(value);
        let values: Option<Vec<_>> = values.collect();
        values.ok_or_else(|| damaged("out of order"))
    }

    fn value(&self, set: &Entry, at: u64) -> io::Result<Vec<u8>> {
        let file = self.file.as_ref().ok_or_else(|| damaged("not there"))?;
        let place = set.table + at * NUMBER;
        let (start, end) = (number(file, place)?, number(file, place + NUMBER)?);
        let length = end.checked_sub(start);
        bytes_at(file, start, length.ok_or_else(|| damaged("out of order"))?)
    }
}

fn number(file: &File, at: u64) -> io::Result<u64> {
    let mut bytes = [0; NUMBER as usize];
    file.read_exact_at(&mut bytes, at)?;
    Ok(u64::from_ne_bytes(bytes))
}

fn bytes_at(file: &File, start: u64, length: u64) -> io::Result<Vec<u8>> {
    if length > LONGEST_LOADED {
        return Err(damaged("too long"));
    }
    let mut bytes = vec![0; length as usize];
    file.read_exact_at(&mut bytes, start)?;
    Ok(bytes)
}

fn damaged(how: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the sets: {how}"))
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use super::super::Definition;
    use super::*;

    fn set(name: &str, kind: DatasetKind, values: &[&[u8]]) -> Definition {
        Definition {
            name: name.into(),
            id: id_of(name, kind),
            kind,
            loaded: values.iter().map(|it| ((*it).into(), 0)).collect(),
            source: None,
            save: Some("saved.lst".into()),
            state: false,
            memcap: 1000,
        }
    }

    #[test]
    fn sets_are_read_as_they_were_written() {
        let definitions = Definitions(vec![
            set("none", DatasetKind::Md5, &[]),
            set("some", DatasetKind::String, &[b"", b"a", b"abc", b"b"]),
        ]);
        let file = Catalogue::file().unwrap();
        let copy: OwnedFd = file.try_clone().unwrap().into();
        Catalogue::read(copy.try_clone().unwrap()).unwrap_err();
        Catalogue::write(&definitions, &file).unwrap();
        let read = Catalogue::read(copy).unwrap();
        assert_eq!(read.sets().len(), 2);
        let none = read.named("none").unwrap();
        assert_eq!((none.kind(), none.loaded), (DatasetKind::Md5, 0));
        assert!(!read.is_loaded(none, b"a").unwrap());
        let some = read.numbered(id_of("some", DatasetKind::String)).unwrap();
        assert_eq!(some.name, "some");
        for (value, loaded) in [
            (&b""[..], true),
            (b"a", true),
            (b"ab", false),
            (b"abc", true),
            (b"b", true),
            (b"c", false),
        ] {
            assert_eq!(read.is_loaded(some, value).unwrap(), loaded, "{value:?}");
        }
        let values = read.values(some).unwrap();
        assert_eq!(values, [&b""[..], b"a", b"abc", b"b"]);
        assert!(read.numbered(id_of("some", DatasetKind::Md5)).is_none());
    }

    #[test]
    fn nonsense_is_refused() {
        for bytes in [&[][..], &[0; 24], &[7; 100]] {
            let mut file = Catalogue::file().unwrap();
            file.write_all(bytes).unwrap();
            sealed::seal(&file).unwrap();
            Catalogue::read(file.into()).unwrap_err();
        }
    }
}
