//! Bytes in records: RFC 4648 §4.

use std::fmt;

use serde::{Serialize, Serializer};

/// Written as Base64, with padding.
#[derive(Clone, Copy, Debug)]
pub(super) struct Base64<'a>(pub(super) &'a [u8]);

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

impl fmt::Display for Base64<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A piece at a time, so that nothing is allocated.
        let mut piece = [0; 256];
        for chunk in self.0.chunks(192) {
            let mut length = 0;
            for group in chunk.chunks(3) {
                let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or_default());
                let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
                for at in 0..4 {
                    let index = (bits >> (18 - 6 * at) & 63) as usize;
                    piece[length] = match at <= group.len() {
                        true => ALPHABET[index],
                        false => b'=',
                    };
                    length += 1;
                }
            }
            f.write_str(std::str::from_utf8(&piece[..length]).map_err(|_| fmt::Error)?)?;
        }
        Ok(())
    }
}

impl Serialize for Base64<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Written as text, with a dot for everything that is not printable ASCII; line ends stay.
#[derive(Clone, Copy, Debug)]
pub(super) struct Printable<'a>(pub(super) &'a [u8]);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |byte: u8| byte == b'\r' || byte == b'\n' || (b' '..=b'~').contains(&byte);
        for run in self.0.chunk_by(|a, b| shown(*a) == shown(*b)) {
            if run.first().is_some_and(|byte| shown(*byte)) {
                f.write_str(std::str::from_utf8(run).map_err(|_| fmt::Error)?)?;
            } else {
                for _ in run {
                    f.write_str(".")?;
                }
            }
        }
        Ok(())
    }
}

impl Serialize for Printable<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vectors_of_the_rfc_come_out() {
        for (bytes, expect) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(Base64(bytes.as_bytes()).to_string(), expect);
        }
        let long = vec![0xff; 193];
        assert_eq!(
            Base64(&long).to_string(),
            format!("{}/w==", "/".repeat(256))
        );
    }

    #[test]
    fn what_cannot_be_printed_is_a_dot() {
        assert_eq!(
            Printable(b"GET /\r\n\x00\xffx\ty~\x7f").to_string(),
            "GET /\r\n..x.y~."
        );
    }
}
