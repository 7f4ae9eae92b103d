//! Transforms: what is done with the bytes of a buffer before they are looked at.

use std::io::Read;

use md5::{Digest, Md5};
use sha1::Sha1;
use sha2::Sha256;

use super::base64;
use super::pcre::{Pattern, Patterns, Searched};
use super::{Budget, Outcome};
use crate::rules::Unsupported;
use crate::rules::ast::{Base64Mode, Transform};

/// A transform that can be done.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Needs nothing but the bytes.
    Plain(Transform),
    /// `pcrexform`: number among the engine's expressions.
    Capture(u32),
}

/// Makes steps of transforms; expressions are added to `patterns`.
///
/// # Errors
/// Names the transform that needs what there is not yet, or that is wrong.
pub(crate) fn compile(
    transforms: &[Transform],
    patterns: &mut Vec<Pattern>,
) -> Result<Box<[Step]>, Unsupported> {
    transforms
        .iter()
        .map(|transform| match transform {
            Transform::PcreCapture(expression) => {
                let pattern = Pattern::new(&super::pcre::capturing(expression), false)
                    .map_err(|reason| Unsupported::new(transform.keyword(), reason))?;
                patterns.push(pattern);
                Ok(Step::Capture(patterns.len() as u32 - 1))
            }
            other => Ok(Step::Plain(other.clone())),
        })
        .collect()
}

/// Does all steps in turn: `bytes` begins as the buffer and ends as the result. `spare` is used
/// in between. Without a result, which is [`Outcome::NoMatch`] or [`Outcome::GaveUp`], the buffer is
/// as if it were not there.
pub(crate) fn apply(
    steps: &[Step],
    sources: &[Pattern],
    patterns: &mut Patterns,
    bytes: &mut Vec<u8>,
    spare: &mut Vec<u8>,
    budget: &mut Budget,
) -> Result<(), Outcome> {
    for step in steps {
        spare.clear();
        budget.look(bytes.len());
        let done = match step {
            Step::Plain(transform) => plain(transform, bytes, spare),
            Step::Capture(number) => {
                let number = *number as usize;
                let found = sources.get(number).map(|source| {
                    budget.search(bytes.len(), |steps| {
                        patterns.find(number, source, bytes, 0, steps)
                    })
                });
                let group = match found {
                    Some(Searched::Found(_)) => patterns.group(number, 1),
                    Some(Searched::GaveUp) => return Err(Outcome::GaveUp),
                    _ => None,
                };
                if let Some((start, end)) = group {
                    spare.extend_from_slice(&bytes[start..end]);
                }
                group.is_some()
            }
        };
        std::mem::swap(bytes, spare);
        // It may have become much longer.
        budget.look(bytes.len());
        if !done {
            return Err(Outcome::NoMatch);
        }
    }
    Ok(())
}

fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0x0b
}

/// Whether there is a result, in `out`.
fn plain(transform: &Transform, bytes: &[u8], out: &mut Vec<u8>) -> bool {
    match transform {
        Transform::CompressWhitespace => {
            let mut after_space = false;
            for &byte in bytes {
                if !is_space(byte) {
                    out.push(byte);
                } else if !after_space {
                    // The first of them stays as it is.
                    out.push(byte);
                }
                after_space = is_space(byte);
            }
        }
        Transform::StripWhitespace => {
            out.extend(bytes.iter().copied().filter(|byte| !is_space(*byte)));
        }
        Transform::DotPrefix => {
            out.push(b'.');
            out.extend_from_slice(bytes);
        }
        // By the public suffix list.
        Transform::Domain => match psl::domain(bytes) {
            Some(domain) => out.extend_from_slice(domain.as_bytes()),
            None => return false,
        },
        Transform::TopLevelDomain => match psl::domain(bytes) {
            Some(domain) => out.extend_from_slice(domain.suffix().as_bytes()),
            None => return false,
        },
        Transform::Md5 => out.extend_from_slice(&Md5::digest(bytes)),
        Transform::Sha1 => out.extend_from_slice(&Sha1::digest(bytes)),
        Transform::Sha256 => out.extend_from_slice(&Sha256::digest(bytes)),
        Transform::Lowercase => out.extend(bytes.iter().map(u8::to_ascii_lowercase)),
        Transform::Uppercase => out.extend(bytes.iter().map(u8::to_ascii_uppercase)),
        Transform::UrlDecode => url_decode(bytes, out),
        Transform::FromBase64 {
            bytes: count,
            offset,
            mode,
        } => return from_base64(bytes, *count, *offset, *mode, out),
        Transform::Xor(key) => {
            if key.is_empty() {
                out.extend_from_slice(bytes);
            } else {
                let pairs = bytes.iter().zip(key.iter().cycle());
                out.extend(pairs.map(|(byte, key)| byte ^ key));
            }
        }
        Transform::Gunzip { max_size } => {
            let decoder = flate2::read::MultiGzDecoder::new(bytes);
            return inflated(decoder, *max_size, out);
        }
        Transform::Inflate { max_size } => {
            let decoder = flate2::read::ZlibDecoder::new(bytes);
            return inflated(decoder, *max_size, out);
        }
        Transform::HeaderLowercase => {
            // Names end at the colon; HTTP/2 has some that begin with one.
            let mut in_name = true;
            let mut before = b'\n';
            for &byte in bytes {
                in_name &= byte != b':' || before == b'\n';
                out.push(if in_name {
                    byte.to_ascii_lowercase()
                } else {
                    byte
                });
                in_name |= byte == b'\n';
                before = byte;
            }
        }
        Transform::StripPseudoHeaders => {
            let lines = bytes.split_inclusive(|byte| *byte == b'\n');
            for line in lines.filter(|line| !line.starts_with(b":")) {
                out.extend_from_slice(line);
            }
        }
        Transform::Subslice { offset, length } => match subslice(bytes, *offset, *length) {
            Some(part) => out.extend_from_slice(part),
            None => return false,
        },
        // Never compiled.
        Transform::PcreCapture(_) => {
            return false;
        }
    }
    true
}

/// `+` is a blank; `%` and two digits are a byte; anything else is itself.
fn url_decode(bytes: &[u8], out: &mut Vec<u8>) {
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'+' => out.push(b' '),
            b'%' => match (digit(bytes.get(at + 1)), digit(bytes.get(at + 2))) {
                (Some(high), Some(low)) => {
                    out.push((high << 4 | low) as u8);
                    at += 2;
                }
                _ => out.push(byte),
            },
            byte => out.push(byte),
        }
        at += 1;
    }
}

/// Without a result when nothing can be decoded.
fn from_base64(bytes: &[u8], count: u32, offset: u32, mode: Base64Mode, out: &mut Vec<u8>) -> bool {
    let Some(rest) = bytes.get(offset as usize..) else {
        return false;
    };
    let part = match count {
        0 => rest,
        count => &rest[..rest.len().min(count as usize)],
    };
    base64::decode(part, mode, out) && !out.is_empty()
}

/// As far as it can be unpacked, and at most so many bytes.
fn inflated(decoder: impl Read, max_size: u32, out: &mut Vec<u8>) -> bool {
    // What comes before an error has been written.
    let _ = decoder.take(u64::from(max_size)).read_to_end(out);
    !out.is_empty()
}

fn subslice(bytes: &[u8], offset: i32, length: Option<i32>) -> Option<&[u8]> {
    let total = bytes.len() as i64;
    let from_end = |at: i64| if at < 0 { total + at } else { at };
    let start = from_end(i64::from(offset));
    let end = match length.map(i64::from) {
        None => total,
        Some(length) if length < 0 => total + length,
        Some(length) => start + length,
    };
    let start = usize::try_from(start.max(0)).ok()?;
    let end = usize::try_from(end.min(total)).ok()?;
    bytes.get(start..end).filter(|part| !part.is_empty())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn run(transforms: &[Transform], bytes: &[u8]) -> Option<Vec<u8>> {
        let mut sources = Vec::new();
        let steps = compile(transforms, &mut sources).unwrap();
        let mut patterns = Patterns::new(sources.len());
        let (mut bytes, mut spare) = (bytes.to_vec(), b"left over".to_vec());
        let mut budget = Budget::of_packet(1);
        let done = apply(
            &steps,
            &sources,
            &mut patterns,
            &mut bytes,
            &mut spare,
            &mut budget,
        );
        done.ok().map(|()| bytes)
    }

    fn check(transform: &Transform, bytes: &str, expect: &str) {
        let found = run(std::slice::from_ref(transform), bytes.as_bytes());
        let found = found.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        assert_eq!(found.as_deref(), Some(expect), "{transform:?} of {bytes}");
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn each_transform_does_what_its_name_says() {
        check(&Transform::StripWhitespace, " a\tb \r\n", "ab");
        check(&Transform::CompressWhitespace, "a  \tb c", "a b c");
        check(&Transform::DotPrefix, "google.com", ".google.com");
        check(&Transform::Lowercase, "aBC1", "abc1");
        check(&Transform::Uppercase, "aBc1", "ABC1");
        check(&Transform::UrlDecode, "a%20b+c%2Fd%zz%4", "a b c/d%zz%4");
        check(&Transform::Domain, "www.example.com", "example.com");
        check(&Transform::Domain, "www.example.co.uk", "example.co.uk");
        check(&Transform::TopLevelDomain, "www.example.com", "com");
        check(&Transform::TopLevelDomain, "www.example.co.uk", "co.uk");
        check(&Transform::Xor(vec![1, 2]), "abc", "``b");
        check(
            &Transform::PcreCapture("\\.([^.]+)$".into()),
            "a.bc.de",
            "de",
        );
        let base64 = |bytes, offset| Transform::FromBase64 {
            bytes,
            offset,
            mode: Base64Mode::Rfc4648,
        };
        check(&base64(0, 0), "U3VyaWNhdGE=", "Suricata");
        check(&base64(4, 0), "U3VyaWNhdGE=", "Sur");
        check(&base64(0, 4), "U3VyaWNhdGE=", "icata");
        let part = |offset, length| Transform::Subslice { offset, length };
        check(&part(1, None), "abcdef", "bcdef");
        check(&part(1, Some(2)), "abcdef", "bc");
        check(&part(-2, None), "abcdef", "ef");
        check(&part(0, Some(-1)), "abcdef", "abcde");
    }

    #[test]
    fn digests_are_raw_bytes() {
        let digest = |transform| hex(&run(&[transform], b"abc").unwrap());
        assert_eq!(digest(Transform::Md5), "900150983cd24fb0d6963f7d28e17f72");
        assert_eq!(
            digest(Transform::Sha1),
            "a9993e364706816aba3e25717850c26c9cd0d89d"
        );
        assert_eq!(
            digest(Transform::Sha256),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn they_follow_each_other_and_one_without_a_result_ends_them() {
        let both = [Transform::StripWhitespace, Transform::Uppercase];
        assert_eq!(run(&both, b"a b").as_deref(), Some(&b"AB"[..]));
        let none = [Transform::PcreCapture("x(y)".into()), Transform::Md5];
        assert_eq!(run(&none, b"abc"), None);
        assert_eq!(run(&[Transform::Domain], b"com"), None);
        let beyond = Transform::Subslice {
            offset: 9,
            length: None,
        };
        assert_eq!(run(&[beyond], b"abc"), None);
    }

    #[test]
    fn what_is_unpacked_is_bounded() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(&vec![b'x'; 1 << 20]).unwrap();
        let packed = encoder.finish().unwrap();
        let unpacked = run(&[Transform::Gunzip { max_size: 1000 }], &packed).unwrap();
        assert_eq!(unpacked, vec![b'x'; 1000]);
        let cut = run(
            &[Transform::Gunzip { max_size: 1 << 21 }],
            &packed[..packed.len() / 2],
        );
        assert!(cut.is_none_or(|cut| cut.len() < 1 << 20));
        assert_eq!(
            run(&[Transform::Inflate { max_size: 10 }], b"no zlib"),
            None
        );
    }
}
