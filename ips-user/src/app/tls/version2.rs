//! Hellos in the form of SSL 2.0: of that protocol, and of clients that offer a newer one to servers
//! of any age (RFC 5246, appendix E.2; RFC 6101, appendix E).

use crate::flow::PacketDirection;

/// Types of messages.
const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 4;

/// SSL 2.0.
pub(super) const VERSION: u16 = 0x0002;

/// Length of a record's header, without padding.
const HEADER: usize = 2;

/// What comes first in a direction.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Hello<'a> {
    /// Of a client: the version that it offers.
    Client { version: u16, session: &'a [u8] },
    /// Of a server of SSL 2.0.
    Server { certificate: &'a [u8] },
}

/// Length of the record at the beginning; `None` when it is none with a short header.
fn length(bytes: &[u8]) -> Option<usize> {
    let [high, low, ..] = *bytes else { return None };
    let length = usize::from(high & 0x7f) << 8 | usize::from(low);
    (high & 0x80 != 0).then_some(HEADER + length)
}

/// Whether bytes begin with a hello; `None` when there are too few to tell.
pub(super) fn begins(direction: PacketDirection, bytes: &[u8]) -> Option<bool> {
    if bytes.first()? & 0x80 == 0 {
        return Some(false);
    }
    let is_version = |major: u8, minor: u8| major == 3 && minor <= 4 || (major, minor) == (0, 2);
    let length = length(bytes)?;
    let word = |at: usize| {
        let word = bytes.get(at..at + 2)?;
        Some(usize::from(u16::from_be_bytes([word[0], word[1]])))
    };
    // Its parts have to fill it.
    let to_server = direction == PacketDirection::ToServer;
    match *bytes.get(2)? {
        CLIENT_HELLO if to_server => {
            let version = bytes.get(3..5)?;
            let parts = word(5)? + word(7)? + word(9)?;
            Some(is_version(version[0], version[1]) && length == 11 + parts)
        }
        SERVER_HELLO if !to_server => {
            let parts = word(7)? + word(9)? + word(11)?;
            Some(bytes.get(5..7)? == VERSION.to_be_bytes() && length == 13 + parts)
        }
        _ => Some(false),
    }
}

/// The hello at the beginning, and its length; `None` while it is not complete.
pub(super) fn hello(bytes: &[u8]) -> Option<(Hello<'_>, usize)> {
    let length = length(bytes)?;
    let record = bytes.get(..length)?;
    let word = |at: usize| {
        let word = record.get(at..at + 2)?;
        Some(u16::from_be_bytes([word[0], word[1]]))
    };
    let hello = match *record.get(2)? {
        CLIENT_HELLO => {
            let from = 11 + usize::from(word(5)?);
            Hello::Client {
                version: word(3)?,
                session: record.get(from..from + usize::from(word(7)?))?,
            }
        }
        _ => Hello::Server {
            certificate: record.get(13..13 + usize::from(word(7)?))?,
        },
    };
    Some((hello, length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use PacketDirection::{ToClient, ToServer};

    /// Offers TLS 1.0 with one cipher, no session and a challenge of four bytes.
    const CLIENT: &[u8] = &[
        0x80, 18, 1, 3, 1, 0, 3, 0, 0, 0, 4, 0, 0, 0x39, 0xc1, 0xc2, 0xc3, 0xc4, 0, 0,
    ];

    #[test]
    fn a_hello_fills_its_record() {
        let whole = &CLIENT[..18];
        let mut right = whole.to_vec();
        right[1] = 16;
        assert_eq!(begins(ToServer, &right), Some(true));
        assert_eq!(begins(ToServer, CLIENT), Some(false));
        for short in 0..11 {
            assert_eq!(begins(ToServer, &right[..short]), None, "{short}");
        }
        let (hello, length) = hello(&right).unwrap();
        let expected = Hello::Client {
            version: 0x0301,
            session: &[],
        };
        assert_eq!((hello, length), (expected, 18));
        assert_eq!(super::hello(&right[..17]), None);
    }

    #[test]
    fn a_server_shows_its_certificate() {
        let server = [
            0x80, 15, 4, 0, 1, 0, 2, 0, 2, 0, 1, 0, 1, 0xce, 0xce, 0xc1, 0xc0,
        ];
        assert_eq!(begins(ToClient, &server), Some(true));
        let (hello, length) = hello(&server).unwrap();
        let expected = Hello::Server {
            certificate: &[0xce, 0xce],
        };
        assert_eq!((hello, length), (expected, 17));
    }

    #[test]
    fn nothing_else_is_taken_for_one() {
        for other in [&b"\x16\x03\x01\x00"[..], b"GET / HTTP", &[0x80, 9, 2, 0]] {
            assert_eq!(begins(ToServer, other), Some(false), "{other:?}");
        }
    }
}
