//! Changes of sets as bytes: what workers report, and what the supervisor tells all of them.
//!
//! A record is the number of the set (8 bytes), a word with what is done in its upper 8 bits and
//! the length of the value in the others, and the value. All numbers are little-endian.

use super::SetId;
use crate::detect::NameId;

/// Longest value that is told to others.
pub const LONGEST_VALUE: usize = 8192;
/// Length of a record without its value.
pub const HEAD: usize = 12;

const ADD: u32 = 1;
const REMOVE: u32 = 2;
const CLEAR: u32 = 3;

/// What happens to a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// It has this value from now on.
    Add(&'a [u8]),
    /// It has not.
    Remove(&'a [u8]),
    /// It has none.
    Clear,
}

/// Appends a record.
pub fn push(out: &mut Vec<u8>, set: SetId, change: Change<'_>) {
    let (what, value) = match change {
        Change::Add(value) => (ADD, value),
        Change::Remove(value) => (REMOVE, value),
        Change::Clear => (CLEAR, &[][..]),
    };
    debug_assert!(value.len() <= LONGEST_VALUE, "callers look at it");
    out.extend_from_slice(&set.0.to_le_bytes());
    out.extend_from_slice(&(what << 24 | value.len() as u32).to_le_bytes());
    out.extend_from_slice(value);
}

/// What stands at the beginning of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next<'a> {
    /// A record, and its length.
    Record(SetId, Change<'a>, usize),
    /// The beginning of one.
    Cut,
    /// Something else.
    Nonsense,
}

/// Looks at the first record.
pub fn next(bytes: &[u8]) -> Next<'_> {
    let Some((head, rest)) = bytes.split_first_chunk::<HEAD>() else {
        return Next::Cut;
    };
    let (set, word) = head.split_at(8);
    let mut number = [0; 8];
    number.copy_from_slice(set);
    let mut what = [0; 4];
    what.copy_from_slice(word);
    let (set, what) = (u64::from_le_bytes(number), u32::from_le_bytes(what));
    let length = (what & 0x00ff_ffff) as usize;
    if length > LONGEST_VALUE {
        return Next::Nonsense;
    }
    let Some(value) = rest.get(..length) else {
        return Next::Cut;
    };
    let change = match what >> 24 {
        ADD => Change::Add(value),
        REMOVE => Change::Remove(value),
        CLEAR if length == 0 => Change::Clear,
        _ => return Next::Nonsense,
    };
    Next::Record(NameId(set), change, HEAD + length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_as_they_were_written_and_nothing_else_is() {
        let mut bytes = Vec::new();
        let changes = [Change::Add(b"abc"), Change::Remove(b""), Change::Clear];
        for change in changes {
            push(&mut bytes, NameId(7), change);
        }
        let mut rest = &bytes[..];
        for change in changes {
            let Next::Record(set, read, length) = next(rest) else {
                panic!("{rest:?}");
            };
            assert_eq!((set, read), (NameId(7), change));
            assert_eq!(next(&rest[..length - 1]), Next::Cut);
            rest = &rest[length..];
        }
        assert_eq!(next(rest), Next::Cut);
        for what in [0, 4 << 24, CLEAR << 24 | 1, ADD << 24 | 0x00ff_ffff] {
            let mut bytes = [0; 64];
            bytes[8..HEAD].copy_from_slice(&u32::to_le_bytes(what));
            assert_eq!(next(&bytes), Next::Nonsense, "{what:x}");
        }
    }
}
