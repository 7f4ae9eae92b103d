//! A mail as DATA carries it: with dots that are to be taken out, up to a line with a dot alone
//! (RFC 5321, section 4.5.2).

use memchr::memchr;

/// Where in a line the next byte stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// At its beginning; whether the line before ended with CR and LF.
    Begins { proper: bool },
    /// Behind a dot at its beginning.
    Dot { proper: bool },
    /// Behind that and a CR.
    DotAndCr { proper: bool },
    /// Further on; whether a CR was the last byte.
    Inside { cr: bool },
}

/// What was found in some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing but mail.
    Mail,
    /// What some servers take for its end though its lines do not end as they must.
    LooseEnd,
    /// Its end.
    End,
}

/// Takes the dots out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stuffing {
    place: Place,
}

impl Default for Stuffing {
    fn default() -> Self {
        Self {
            place: Place::Begins { proper: true },
        }
    }
}

impl Stuffing {
    /// Adds the mail in these bytes to `out`. How many were taken, and what stands at their end.
    pub(super) fn take(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> (usize, Found) {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            match (self.place, byte) {
                (Place::Begins { proper }, b'.') => {
                    self.place = Place::Dot { proper };
                    at += 1;
                }
                (Place::Begins { .. }, _) => self.place = Place::Inside { cr: false },
                (Place::Dot { proper }, b'\r') => {
                    self.place = Place::DotAndCr { proper };
                    at += 1;
                }
                (Place::Dot { .. }, b'\n') => {
                    out.push(b'\n');
                    self.place = Place::Begins { proper: false };
                    return (at + 1, Found::LooseEnd);
                }
                (Place::Dot { .. }, _) => self.place = Place::Inside { cr: false },
                (Place::DotAndCr { proper: true }, b'\n') => {
                    *self = Self::default();
                    return (at + 1, Found::End);
                }
                (Place::DotAndCr { proper: false }, b'\n') => {
                    out.extend_from_slice(b"\r\n");
                    self.place = Place::Begins { proper: true };
                    return (at + 1, Found::LooseEnd);
                }
                (Place::DotAndCr { .. }, _) => {
                    out.push(b'\r');
                    self.place = Place::Inside { cr: true };
                }
                (Place::Inside { cr }, _) => at += self.inside(cr, &bytes[at..], out),
            }
        }
        (at, Found::Mail)
    }

    /// The rest of a line.
    fn inside(&mut self, cr: bool, bytes: &[u8], out: &mut Vec<u8>) -> usize {
        let end = memchr(b'\n', bytes);
        let line = &bytes[..end.map_or(bytes.len(), |end| end + 1)];
        out.extend_from_slice(line);
        self.place = match (end, line) {
            (Some(0), _) => Place::Begins { proper: cr },
            (Some(_), [.., b'\r', b'\n']) => Place::Begins { proper: true },
            (Some(_), _) => Place::Begins { proper: false },
            (None, line) => Place::Inside {
                cr: line.last() == Some(&b'\r'),
            },
        };
        line.len()
    }

    /// Some bytes are missing: what follows is inside of a line.
    pub(super) fn gap(&mut self) {
        self.place = Place::Inside { cr: false };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(wire: &[u8], expected: (&[u8], Option<Found>, &[u8])) {
        for size in 1..=wire.len() {
            let (mut stuffing, mut out) = (Stuffing::default(), Vec::new());
            let (mut at, mut first) = (0, None);
            let mut rest: &[u8] = &[];
            'all: for chunk in wire.chunks(size) {
                let mut done = 0;
                while done < chunk.len() {
                    let (taken, found) = stuffing.take(&chunk[done..], &mut out);
                    done += taken;
                    first = first.or((found != Found::Mail).then_some(found));
                    if found == Found::End {
                        rest = &wire[at + done..];
                        break 'all;
                    }
                }
                at += chunk.len();
            }
            assert_eq!((&out[..], first, rest), expected, "{size}");
        }
    }

    #[test]
    fn dots_are_taken_out_and_the_end_is_found_however_it_is_cut() {
        use Found::{End, LooseEnd};
        check(
            b"a\r\n..b\r\n.\r\nQUIT",
            (b"a\r\n.b\r\n", Some(End), b"QUIT"),
        );
        check(b".\r\nQUIT", (b"", Some(End), b"QUIT"));
        check(b"a.\r\n.\r.\r\n", (b"a.\r\n\r.\r\n", None, b""));
        check(b"a\n.\nb\r\n.\r\n", (b"a\n\nb\r\n", Some(LooseEnd), b""));
        check(b"a\n.\r\nb", (b"a\n\r\nb", Some(LooseEnd), b""));
        check(b"a\r\n.\nb", (b"a\r\n\nb", Some(LooseEnd), b""));
    }
}
