//! `asn1`: what is suspicious in data of the basic encoding rules (X.690).
//!
//! Reference: "asn1" in the payload chapter of Suricata's rules documentation.

use crate::rules::ast::Asn1;

/// Most elements looked at, as Suricata's `asn1-max-frames`.
const MAX_ELEMENTS: usize = 256;
/// Longest number in characters that receivers make room for.
const LONGEST_REAL: u64 = 256;

const BIT_STRING: u32 = 3;
const REAL: u32 = 9;

struct Element<'a> {
    universal: bool,
    constructed: bool,
    tag: u32,
    /// As it says; `None`: it ends with an end-of-contents element.
    length: Option<u64>,
    /// From its first byte to the end of the buffer.
    content: &'a [u8],
}

/// X.690 §8.1.2 and §8.1.3.
fn element(bytes: &[u8]) -> Option<Element<'_>> {
    let (&first, mut rest) = bytes.split_first()?;
    let mut tag = u32::from(first & 0x1f);
    if tag == 0x1f {
        tag = 0;
        loop {
            let (&byte, after) = rest.split_first()?;
            rest = after;
            tag = tag.checked_mul(128)? | u32::from(byte & 0x7f);
            if byte & 0x80 == 0 {
                break;
            }
        }
    }
    let (&byte, mut rest) = rest.split_first()?;
    let length = match byte {
        0..0x80 => Some(u64::from(byte)),
        0x80 => None,
        _ => {
            let (digits, after) = rest.split_at_checked(usize::from(byte & 0x7f))?;
            rest = after;
            // More than fits is more than anything.
            let add = |length: u64, digit: &u8| match length >> 56 {
                0 => length << 8 | u64::from(*digit),
                _ => u64::MAX,
            };
            Some(digits.iter().fold(0, add))
        }
    };
    Some(Element {
        universal: first >> 6 == 0,
        constructed: first & 0x20 != 0,
        tag,
        length,
        content: rest,
    })
}

/// Whether any element has what the keyword looks for.
pub(super) fn holds(bytes: &[u8], at: usize, asn1: &Asn1) -> bool {
    let base = if asn1.relative { at as i64 } else { 0 };
    let start = usize::try_from(base + i64::from(asn1.offset));
    let Some(mut rest) = start.ok().and_then(|start| bytes.get(start..)) else {
        return false;
    };
    for _ in 0..MAX_ELEMENTS {
        let Some(found) = element(rest) else {
            return false;
        };
        if is_suspicious(&found, asn1) {
            return true;
        }
        // What is within a constructed one follows its header.
        let skipped = match (found.constructed, found.length) {
            (true, _) | (false, None) => 0,
            (false, Some(length)) => usize::try_from(length).unwrap_or(usize::MAX),
        };
        match found.content.get(skipped..) {
            Some(next) => rest = next,
            None => return false,
        }
    }
    false
}

fn is_suspicious(element: &Element<'_>, asn1: &Asn1) -> bool {
    let length = element.length.unwrap_or(0);
    let primitive = |tag| element.universal && !element.constructed && element.tag == tag;
    let first = element.content.first().copied().filter(|_| length > 0);
    // §8.6.2: the first byte says how many bits of the last one are unused.
    let bits = asn1.bitstring_overflow
        && primitive(BIT_STRING)
        && first.is_some_and(|unused| u64::from(unused) > (length - 1).saturating_mul(8));
    // §8.5.6: in characters, when the two highest bits are zero.
    let real = asn1.double_overflow
        && primitive(REAL)
        && first.is_some_and(|form| form & 0xc0 == 0)
        && length > LONGEST_REAL;
    let size = asn1
        .oversize_length
        .is_some_and(|most| length > u64::from(most));
    bits || real || size
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(asn1: Asn1, bytes: &[u8], expect: bool) {
        assert_eq!(holds(bytes, 2, &asn1), expect, "{asn1:?} in {bytes:02x?}");
    }

    #[test]
    fn each_kind_of_overflow_is_found_also_within_others() {
        let bits = Asn1 {
            bitstring_overflow: true,
            ..Asn1::default()
        };
        check(bits, &[3, 2, 8, 0xff], false);
        check(bits, &[3, 2, 9, 0xff], true);
        check(bits, &[3, 1, 0], false);
        check(bits, &[3, 1, 1], true);
        check(bits, &[3, 0], false);
        // Within a sequence, behind a number.
        check(bits, &[0x30, 7, 2, 1, 5, 3, 2, 9, 0xff], true);
        check(bits, &[0x30, 0x80, 2, 1, 5, 3, 2, 9, 0xff, 0, 0], true);
        // Of another class.
        check(bits, &[0x83, 2, 9, 0xff], false);
        let real = Asn1 {
            double_overflow: true,
            ..Asn1::default()
        };
        let long = |form: u8| [&[9, 0x82, 1, 1, form][..], &[b'1'; 256]].concat();
        check(real, &long(3), true);
        check(real, &long(0x80), false);
        check(real, &[9, 2, 3, b'1'], false);
        let size = Asn1 {
            oversize_length: Some(500),
            ..Asn1::default()
        };
        check(size, &[4, 0x82, 1, 0xf4], false);
        check(size, &[4, 0x82, 1, 0xf5], true);
        check(size, &[4, 0x89, 1, 0, 0, 0, 0, 0, 0, 0, 0], true);
    }

    #[test]
    fn it_begins_where_it_is_told() {
        let at = |offset, relative| Asn1 {
            oversize_length: Some(4),
            offset,
            relative,
            ..Asn1::default()
        };
        let bytes = [0xff, 0xff, 4, 5];
        check(at(2, false), &bytes, true);
        check(at(0, true), &bytes, true);
        check(at(1, true), &bytes, false);
        check(at(-3, true), &bytes, false);
        check(at(9, false), &bytes, false);
    }

    #[test]
    fn nothing_makes_it_panic_or_go_on_for_ever() {
        let asn1 = Asn1 {
            bitstring_overflow: true,
            double_overflow: true,
            oversize_length: Some(u32::MAX),
            ..Asn1::default()
        };
        for first in 0..=255u8 {
            for second in 0..=255u8 {
                holds(&[first, second, 0xff, 0x80, 0xff], 0, &asn1);
            }
        }
        check(asn1, &[0x30; 100_000], false);
    }
}
