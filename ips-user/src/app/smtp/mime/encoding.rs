//! What is done to a body for transport, undone as it comes (RFC 2045, section 6).

/// `Content-Transfer-Encoding`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Encoding {
    /// `7bit`, `8bit`, `binary`, and whatever nobody knows.
    #[default]
    Identity,
    /// `base64`
    Base64,
    /// `quoted-printable`
    QuotedPrintable,
}

impl Encoding {
    pub(super) fn named(name: &[u8]) -> Self {
        // Nothing belongs behind the word; what stands there some do not mind.
        let is_part = |it: &u8| it.is_ascii_alphanumeric() || *it == b'-';
        let end = name.iter().position(|it| !is_part(it));
        match &name[..end.unwrap_or(name.len())].to_ascii_lowercase()[..] {
            b"base64" => Self::Base64,
            b"quoted-printable" => Self::QuotedPrintable,
            _ => Self::Identity,
        }
    }
}

/// How a body is decoded, and how far that has come.
#[derive(Clone, Copy, Debug)]
pub(super) enum Decoder {
    Identity,
    Base64(Base64),
    QuotedPrintable(QuotedPrintable),
}

impl Decoder {
    pub(super) fn of(encoding: Encoding) -> Self {
        match encoding {
            Encoding::Identity => Self::Identity,
            Encoding::Base64 => Self::Base64(Base64::default()),
            Encoding::QuotedPrintable => Self::QuotedPrintable(QuotedPrintable::Plain),
        }
    }

    /// Adds what these bytes stand for. The name of the event when something in them cannot be.
    pub(super) fn decode(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Option<&'static str> {
        match self {
            Self::Identity => {
                out.extend_from_slice(bytes);
                None
            }
            Self::Base64(base64) => {
                let right = base64.decode(bytes, out);
                (!right).then_some("mime_invalid_base64")
            }
            Self::QuotedPrintable(quoted) => {
                let right = quoted.decode(bytes, out);
                (!right).then_some("mime_invalid_qp")
            }
        }
    }

    /// Nothing more comes.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        match self {
            Self::Identity => {}
            Self::Base64(base64) => base64.flush(out),
            Self::QuotedPrintable(quoted) => quoted.flush(out),
        }
    }
}

/// Digits that do not make a whole group. Padding ends a group, and another may follow: senders
/// that encode in pieces exist, and decoders that go on.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Base64 {
    bits: u32,
    digits: u8,
}

impl Base64 {
    /// Whether everything could be read; what cannot is skipped, as receivers do.
    fn decode(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> bool {
        let mut right = true;
        for byte in bytes {
            let digit = match byte {
                b'A'..=b'Z' => byte - b'A',
                b'a'..=b'z' => byte - b'a' + 26,
                b'0'..=b'9' => byte - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                b'=' => {
                    self.flush(out);
                    continue;
                }
                b' ' | b'\t' | b'\r' | b'\n' => continue,
                _ => {
                    right = false;
                    continue;
                }
            };
            self.bits = self.bits << 6 | u32::from(digit);
            self.digits += 1;
            if self.digits == 4 {
                let [_, group @ ..] = self.bits.to_be_bytes();
                out.extend_from_slice(&group);
                *self = Self::default();
            }
        }
        right
    }

    /// The bytes of a group that is not whole.
    fn flush(&mut self, out: &mut Vec<u8>) {
        let bytes = (self.bits << (6 * (4 - u32::from(self.digits.min(4))))).to_be_bytes();
        match self.digits {
            2 => out.push(bytes[1]),
            3 => out.extend_from_slice(&bytes[1..3]),
            _ => {}
        }
        *self = Self::default();
    }
}

/// What came last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QuotedPrintable {
    Plain,
    /// `=`
    Escape,
    /// `=` and a digit.
    Digit(u8),
    /// `=` and white space: a line may end there.
    Break,
}

impl QuotedPrintable {
    /// Whether everything could be read; what cannot stands for itself.
    fn decode(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> bool {
        let mut right = true;
        let mut rest = bytes;
        while let Some((&byte, after)) = rest.split_first() {
            rest = after;
            let hex = || char::from(byte).to_digit(16);
            match (*self, byte) {
                (Self::Plain, b'=') => *self = Self::Escape,
                (Self::Plain, _) => {
                    let more = memchr::memchr(b'=', rest).unwrap_or(rest.len());
                    out.push(byte);
                    out.extend_from_slice(&rest[..more]);
                    rest = &rest[more..];
                }
                (Self::Escape | Self::Break, b'\n') => *self = Self::Plain,
                (Self::Escape | Self::Break, b' ' | b'\t' | b'\r') => *self = Self::Break,
                (Self::Escape, _) if hex().is_some() => *self = Self::Digit(byte),
                (Self::Digit(first), _) if hex().is_some() => {
                    let high = char::from(first).to_digit(16).unwrap_or(0);
                    out.push((high << 4 | hex().unwrap_or(0)) as u8);
                    *self = Self::Plain;
                }
                (before, _) => {
                    right = false;
                    before.stands_for_itself(out);
                    *self = Self::Plain;
                    // What follows may begin something.
                    match byte {
                        b'=' => *self = Self::Escape,
                        byte => out.push(byte),
                    }
                }
            }
        }
        right
    }

    fn stands_for_itself(self, out: &mut Vec<u8>) {
        match self {
            Self::Plain => {}
            Self::Escape | Self::Break => out.push(b'='),
            Self::Digit(digit) => out.extend_from_slice(&[b'=', digit]),
        }
    }

    fn flush(&mut self, out: &mut Vec<u8>) {
        // A line break that is to be ignored, though the line has no end.
        if let Self::Digit(_) = self {
            self.stands_for_itself(out);
        }
        *self = Self::Plain;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(encoding: Encoding, text: &[u8], expected: &[u8], wrong: bool) {
        for size in 1..=text.len() {
            let (mut decoder, mut out) = (Decoder::of(encoding), Vec::new());
            let mut found = false;
            for chunk in text.chunks(size) {
                found |= decoder.decode(chunk, &mut out).is_some();
            }
            decoder.finish(&mut out);
            assert_eq!((&out[..], found), (expected, wrong), "{size}");
        }
    }

    #[test]
    fn base64_is_decoded_however_it_is_cut() {
        use Encoding::Base64;
        check(Base64, b"aGVs\r\nbG8=\r\n", b"hello", false);
        check(Base64, b"aGVsbG8", b"hello", false);
        check(Base64, b"aG!Vs*bG8=", b"hello", true);
        check(Base64, b"NA=\r\n=Mg\r\n==\r\n", b"42", false);
        check(Base64, b"====a", b"", false);
    }

    #[test]
    fn quoted_printable_is_decoded_however_it_is_cut() {
        use Encoding::QuotedPrintable;
        check(
            QuotedPrintable,
            b"a=3D=\r\nb=c3=A9\r\n",
            b"a=b\xc3\xa9\r\n",
            false,
        );
        check(QuotedPrintable, b"a= \t\r\nb", b"ab", false);
        check(QuotedPrintable, b"a=zb=4=41=", b"a=zb=4A", true);
        check(QuotedPrintable, b"a=4", b"a=4", false);
    }

    #[test]
    fn encodings_are_named_whatever_the_case() {
        assert_eq!(Encoding::named(b"Base64"), Encoding::Base64);
        assert_eq!(Encoding::named(b"base64; x"), Encoding::Base64);
        assert_eq!(Encoding::named(b"base-64"), Encoding::Identity);
        assert_eq!(
            Encoding::named(b"quoted-PRINTABLE "),
            Encoding::QuotedPrintable
        );
    }
}
